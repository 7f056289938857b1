//! What `HISTORY` remembers: which path frames took, and from when on another one.

use l2mesh_common::tables::{Change, PeerId};
use serde::Serialize;

use super::super::{
    clock::Moment,
    maps::{path_text, reason_text},
    output::table,
};
use crate::{agent::chronicle::Happened, dataplane::tables::Tables};

/// How many people are shown.
const SHOWN: usize = 5;

/// Frames to a peer took another path from then on.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(in crate::commands) struct ChangeRow {
    pub(super) at: Moment,
    pub(super) peer: String,
    /// direct, or via and the relay's name.
    pub(super) from: String,
    pub(super) to: String,
    /// False if no path was up.
    pub(super) up: bool,
    pub(super) reason: Option<&'static str>,
    /// `to` is no direct path.
    #[serde(skip)]
    pub(super) is_relayed: bool,
}

impl ChangeRow {
    /// `None` for an empty place.
    fn new(change: &Change, name: &impl Fn(PeerId) -> String) -> Option<Self> {
        // A peer of an earlier configuration has no name any more.
        let name = |peer| Some(name(peer)).filter(|name| !name.is_empty()).unwrap_or_else(|| "(gone)".to_owned());
        let path = |relay| path_text((relay != PeerId::MAX).then_some(relay), &name);
        Some(Self {
            at: Moment::noted(change.at_ns)?,
            peer: name(change.peer),
            from: path(change.relay_before),
            to: path(change.relay_now),
            up: change.is_up == 1,
            reason: reason_text(change.reason.into()),
            is_relayed: change.relay_now != PeerId::MAX,
        })
    }

    /// The same as an event.
    pub(in crate::commands) fn as_event(&self) -> Happened {
        let kind = match (self.up, self.is_relayed) {
            (false, _) => "path-none",
            (true, true) => "path-relayed",
            (true, false) => "path-direct",
        };
        let reason = self.reason.map_or_else(String::new, |reason| format!(", because {reason}"));
        Happened {
            at: self.at.to_string(),
            kind: kind.into(),
            // As the agent tells it: that one is good news.
            level: if kind == "path-direct" { "info" } else { "warn" }.into(),
            peer: Some(self.peer.clone()),
            vni: None,
            mac: None,
            text: format!("{}: {}{reason}", self.peer, self.to_text()),
        }
    }

    fn to_text(&self) -> String {
        match (self.up, self.from == self.to) {
            (true, true) => self.to.clone(),
            (true, false) => format!("{} -> {}", self.from, self.to),
            (false, _) => format!("{} -> none is up, {} is tried", self.from, self.to),
        }
    }
}

/// All that is remembered, the latest first.
pub(in crate::commands) fn changes(tables: &Tables, name: &impl Fn(PeerId) -> String) -> Vec<ChangeRow> {
    let places = 0..u32::try_from(tables.history.len()).unwrap_or(0);
    newest_first(places.filter_map(|place| ChangeRow::new(&tables.history.get(place), name)).collect())
}

fn newest_first(mut rows: Vec<ChangeRow>) -> Vec<ChangeRow> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.at));
    rows
}

/// The last few for people.
pub(super) fn changes_table(rows: &[ChangeRow]) -> String {
    let cells = rows
        .iter()
        .take(SHOWN)
        .map(|it| vec![it.at.to_string(), it.peer.clone(), it.to_text(), it.reason.unwrap_or_default().into()]);
    table("last changes", &["when", "peer", "path", "why"], &cells.collect::<Vec<_>>(), &[])
}

#[cfg(test)]
mod tests {
    use l2mesh_common::path::reason::Reason;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn newest_first_and_few() {
        let name = |peer: PeerId| ["hetzner", "enovance"].get(peer as usize).map_or("", |name| name).to_owned();
        let change = |second: u64, peer, relay_before, relay_now, is_up, reason: Reason| Change {
            at_ns: second * SECOND,
            peer,
            relay_before,
            relay_now,
            is_up,
            reason: reason as u8,
            ..Change::default()
        };
        let all = [
            change(4, 1, PeerId::MAX, 0, 1, Reason::Missed),
            change(0, 0, 0, 0, 0, Reason::None),
            change(9, 1, 0, PeerId::MAX, 0, Reason::NoRelay),
            change(6, 7, PeerId::MAX, 8, 1, Reason::Loss),
            change(1, 0, PeerId::MAX, 1, 1, Reason::Missed),
            change(2, 0, 1, PeerId::MAX, 1, Reason::Answered),
            change(3, 0, PeerId::MAX, 1, 1, Reason::BigLost),
        ];
        let rows = newest_first(all.iter().filter_map(|change| ChangeRow::new(change, &name)).collect());
        assert_eq!(rows.len(), 6, "one place is empty");
        let expected = "\
last changes
  when                  peer      path                                        why
  1970-01-01T00:00:09Z  enovance  via hetzner -> none is up, direct is tried  no path is up: the direct one is tried
  1970-01-01T00:00:06Z  (gone)    direct -> via (gone)                        too many probes are lost
  1970-01-01T00:00:04Z  enovance  direct -> via hetzner                       probes are not answered
  1970-01-01T00:00:03Z  hetzner   direct -> via enovance                      long packets are lost
  1970-01-01T00:00:02Z  hetzner   via enovance -> direct                      probes are answered again
";
        assert_eq!(changes_table(&rows), expected);
    }
}
