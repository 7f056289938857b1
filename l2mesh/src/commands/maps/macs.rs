//! `l2mesh maps macs`: behind which peer each MAC address is.

use std::time::Duration;

use l2mesh_common::tables::LabelKey;
use serde::Serialize;

use super::{super::output::table, vni_text};
use crate::{agent::coarse_now_ns, dataplane::tables::Tables};

/// A station.
#[derive(Debug, Serialize)]
pub(super) struct MacRow {
    vni: u32,
    mac: String,
    peer: String,
    is_static: bool,
    /// Seconds since a frame from it was received; null for a static one.
    age: Option<f64>,
    moves: u32,
    /// Seconds for which it will stay where it is, having moved too often; null if it may move.
    frozen: Option<f64>,
}

/// Every station, by network.
pub(super) fn macs(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<MacRow>> {
    let now = coarse_now_ns()?;
    let mut entries: Vec<_> =
        tables.fdb.iter().map_while(Result::ok).filter(|(key, _)| vni.is_none_or(|vni| vni == key.vni)).collect();
    entries.sort_by_key(|(key, _)| (key.vni, key.mac));
    Ok(entries
        .into_iter()
        .map(|(key, entry)| MacRow {
            vni: key.vni,
            mac: key.mac.to_string(),
            peer: tables.label(LabelKey::peer(entry.peer)),
            is_static: entry.is_static(),
            age: (!entry.is_static()).then(|| seconds(now.saturating_sub(entry.seen_ns))),
            moves: entry.moves,
            frozen: entry.is_frozen(now).then(|| seconds(entry.frozen_until_ns - now)),
        })
        .collect())
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// The same for people.
pub(super) fn macs_table(rows: &[MacRow]) -> String {
    let cells = rows.iter().map(|it| {
        let age = it.age.map_or_else(|| "static".to_owned(), |age| format!("{age:.0} s"));
        let frozen = it.frozen.map_or_else(String::new, |left| format!("{left:.0} s more"));
        vec![vni_text(it.vni), it.mac.clone(), it.peer.clone(), age, it.moves.to_string(), frozen]
    });
    let header = ["vni", "mac", "behind", "age", "moves", "frozen"];
    table("macs", &header, &cells.collect::<Vec<_>>(), &[3, 4, 5])
}
