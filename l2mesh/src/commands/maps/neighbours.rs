//! `l2mesh maps neighbours`: who has which address, in networks that answer for their neighbours.

use std::{net::IpAddr, time::Duration};

use l2mesh_common::{
    neighbours::{Standing, standing},
    tables::{FdbKey, LabelKey, Neighbour},
};
use serde::Serialize;

use super::{super::output::table, vni_text};
use crate::{agent::coarse_now_ns, dataplane::tables::Tables};

/// An address.
#[derive(Debug, Serialize)]
pub(super) struct NeighbourRow {
    vni: u32,
    address: IpAddr,
    mac: String,
    /// The peer from which that was heard last; null on our side.
    from: Option<String>,
    router: bool,
    /// Seconds since it was heard.
    age: f64,
    /// How often it was at another MAC address than before.
    moves: u32,
    answered: bool,
    /// Why, or why not.
    standing: &'static str,
}

/// Every address, by network.
pub(super) fn neighbours(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<NeighbourRow>> {
    let now = coarse_now_ns()?;
    let mut rows: Vec<NeighbourRow> = tables
        .neighbours
        .iter()
        .map_while(Result::ok)
        .filter(|(key, _)| vni.is_none_or(|vni| vni == key.vni))
        .map(|(key, found)| {
            let station = tables.fdb.get(&FdbKey::new(key.vni, found.mac), 0).ok();
            let standing = standing(&found, station.as_ref(), now);
            NeighbourRow {
                vni: key.vni,
                address: key.address.ip(),
                mac: found.mac.to_string(),
                from: (found.from != Neighbour::HERE).then(|| tables.label(LabelKey::peer(found.from))),
                router: found.is_router(),
                age: Duration::from_nanos(now.saturating_sub(found.heard_ns)).as_secs_f64(),
                moves: found.moves,
                answered: standing == Standing::Answered,
                standing: text(standing),
            }
        })
        .collect();
    rows.sort_by_key(|row| (row.vni, row.address));
    Ok(rows)
}

/// The same for people.
pub(super) fn neighbours_table(rows: &[NeighbourRow]) -> String {
    let cells = rows.iter().map(|it| {
        vec![
            vni_text(it.vni),
            it.address.to_string(),
            it.mac.clone(),
            it.from.clone().unwrap_or_else(|| "(our side)".to_owned()),
            if it.router { "router" } else { "" }.into(),
            format!("{:.0} s", it.age),
            it.moves.to_string(),
            it.standing.into(),
        ]
    });
    let header = ["vni", "address", "mac", "heard from", "", "age", "moves", "questions for it"];
    table("neighbours", &header, &cells.collect::<Vec<_>>(), &[5, 6])
}

const fn text(standing: Standing) -> &'static str {
    match standing {
        Standing::Answered => "answered here",
        Standing::Here => "carried: its owner is on our side",
        Standing::Old => "carried: not heard for long",
        Standing::Doubted => "carried: asked in person, not heard since",
        Standing::Unfinished => "carried: router or host, not known yet",
        Standing::Unplaced => "carried: its MAC address was not heard behind a peer",
    }
}
