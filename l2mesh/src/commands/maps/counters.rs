//! `l2mesh maps counters`: what became of frames, and how often.

use l2mesh_common::verdict::{Fate, Verdict};
use serde::Serialize;

use super::super::output::table;
use crate::dataplane::tables::Tables;

/// A verdict's counter.
#[derive(Debug, Serialize)]
pub(crate) struct CounterRow {
    pub(crate) verdict: &'static str,
    pub(crate) fate: &'static str,
    pub(crate) frames: u64,
    pub(crate) octets: u64,
    pub(crate) meaning: &'static str,
}

/// Every verdict.
pub(crate) fn counters(tables: &Tables) -> anyhow::Result<Vec<CounterRow>> {
    Verdict::ALL
        .iter()
        .filter(|verdict| verdict.is_counted())
        .map(|&verdict| {
            let counter = tables.counter(verdict)?;
            let fate = match verdict.fate() {
                Fate::Carried => "carried",
                Fate::Passed => "passed on",
                Fate::Dropped => "dropped",
                Fate::Noted => "noted",
            };
            Ok(CounterRow {
                verdict: verdict.label(),
                fate,
                frames: counter.frames,
                octets: counter.octets,
                meaning: verdict.text(),
            })
        })
        .collect()
}

/// The same for people: what never happened is of interest to programs only.
pub(super) fn counters_table(rows: &[CounterRow]) -> String {
    let cells = rows.iter().filter(|it| it.frames > 0).map(|it| {
        vec![it.verdict.into(), it.fate.into(), it.frames.to_string(), it.octets.to_string(), it.meaning.into()]
    });
    let header = ["verdict", "frame was", "frames", "octets", "meaning"];
    table("counters", &header, &cells.collect::<Vec<_>>(), &[2, 3])
}
