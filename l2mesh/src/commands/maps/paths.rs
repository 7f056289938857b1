//! `l2mesh maps paths`: every path to every peer. Which are up and which is taken is what a frame would find now; round-trip
//! times, loss and reasons are what the agent noted last.

use l2mesh_common::{
    path::{Answered, DIRECT, MAX_PATHS, Paths, choose, is_direct_up, is_up, reason::Reason, unanswered},
    tables::{LabelKey, PathNote, PathRx, PathTx, PeerId, path_slot},
};
use serde::Serialize;

use super::{
    super::{
        clock::{Moment, about, milliseconds, ms_text},
        output::table,
    },
    peers::each_peer,
};
use crate::dataplane::tables::Tables;

/// A path to a peer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PathRow {
    pub(crate) peer: String,
    /// direct, or via and the relay's name.
    pub(crate) path: String,
    /// Null for the direct path.
    pub(crate) relay: Option<String>,
    /// Frames may take it.
    pub(crate) up: bool,
    /// Frames take it.
    pub(crate) in_use: bool,
    /// False for a peer that knows no probes.
    pub(crate) probed: bool,
    /// The same as `up`, and why not.
    pub(crate) state: String,
    /// Of the last minute.
    pub(crate) rtt_ms: Option<RoundTrip>,
    /// Of the last 50 probes, 0 to 1; null where none was sent.
    pub(crate) loss: Option<f64>,
    /// Sent since the agent began.
    pub(crate) probes: u32,
    /// Since when it is up, or not.
    pub(crate) since: Option<Moment>,
    /// Why that changed last; null if it never did.
    pub(crate) reason: Option<&'static str>,
    /// Of the inner frames, octets.
    pub(crate) mtu: u32,
    /// So many answers in a row bring it back.
    pub(crate) recover: u32,
    /// Answers since it began.
    #[serde(skip)]
    pub(crate) answers: u64,
    /// Its place in the tables.
    #[serde(skip)]
    pub(crate) slot: u32,
}

/// Round-trip times, ms.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct RoundTrip {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
}

/// The tables of paths as they were at one moment.
pub(crate) struct Snapshot {
    tx: Vec<PathTx>,
    rx: Vec<PathRx>,
    notes: Vec<PathNote>,
}

impl Paths for Snapshot {
    fn tx(&self, peer: PeerId, path: usize) -> Option<&PathTx> {
        self.tx.get(path_slot(peer, path) as usize)
    }

    fn rx(&self, peer: PeerId, path: usize) -> Option<&PathRx> {
        self.rx.get(path_slot(peer, path) as usize)
    }
}

impl Snapshot {
    /// Reads the tables. What was answered comes before what was asked, and the two right after each other: the other way round
    /// an answer could be ahead of its probe, and long in between, a path could look down that is not.
    pub(crate) fn of(tables: &Tables) -> Self {
        let slots = path_slot(tables.peers.len(), DIRECT);
        let mut snapshot = Self { tx: Vec::new(), rx: Vec::new(), notes: Vec::new() };
        for slot in 0..slots {
            snapshot.rx.push(tables.path_rx.get(slot));
            snapshot.tx.push(tables.path_tx.get(slot));
            snapshot.notes.push(tables.path_notes.get(slot));
        }
        snapshot
    }

    /// The paths that a peer has, the direct one first. `name` knows the peers, `mtu` what their next hops take.
    pub(crate) fn rows(
        &self,
        peer: PeerId,
        name: &impl Fn(PeerId) -> String,
        mtu: &impl Fn(PeerId) -> u32,
    ) -> Vec<PathRow> {
        let chosen = choose(self, peer);
        let row = |path: usize| {
            let slot = path_slot(peer, path);
            let place = slot as usize;
            let (tx, rx, note) = (self.tx.get(place)?, self.rx.get(place)?, self.notes.get(place)?);
            if path != DIRECT && tx.limit == 0 {
                return None;
            }
            let relay = (path != DIRECT).then_some(tx.relay);
            let relay_is_up = relay.is_none_or(|relay| is_direct_up(self, relay));
            let takes = mtu(relay.unwrap_or(peer));
            let has_rtt = note.rtt_median_ns != 0;
            Some(PathRow {
                peer: name(peer),
                path: path_text(relay, name),
                relay: relay.map(name),
                up: is_up(tx, Answered::from_bits(rx.answered)) && relay_is_up,
                in_use: chosen.path == path,
                probed: is_probed(tx),
                state: state(tx, rx, relay_is_up),
                rtt_ms: has_rtt.then(|| RoundTrip {
                    min: milliseconds(note.rtt_min_ns),
                    median: milliseconds(note.rtt_median_ns),
                    p99: milliseconds(note.rtt_p99_ns),
                }),
                loss: (note.probes > 0).then(|| f64::from(note.loss) / 1000.0),
                probes: note.probes,
                since: Moment::noted(note.since_ns),
                reason: reason_text(note.reason),
                mtu: if tx.mtu == 0 { takes } else { takes.min(tx.mtu) },
                recover: tx.recover,
                answers: rx.answers,
                slot,
            })
        };
        (0..MAX_PATHS).filter_map(row).collect()
    }
}

/// True unless it is said to be always up.
pub(crate) const fn is_probed(tx: &PathTx) -> bool {
    tx.limit != u32::MAX
}

/// A path as people call it.
pub(crate) fn path_text(relay: Option<PeerId>, name: &impl Fn(PeerId) -> String) -> String {
    relay.map_or_else(|| "direct".to_owned(), |relay| format!("via {}", name(relay)))
}

/// Why something changed, unless nothing did.
pub(crate) fn reason_text(number: u32) -> Option<&'static str> {
    Some(Reason::from_number(number)).filter(|&reason| reason != Reason::None).map(Reason::text)
}

fn state(tx: &PathTx, rx: &PathRx, relay_is_up: bool) -> String {
    let answered = Answered::from_bits(rx.answered);
    if !is_probed(tx) {
        "not probed: always up".to_owned()
    } else if tx.limit == 0 {
        // The two see each other over different IP versions.
        "no such path".to_owned()
    } else if unanswered(tx, answered) >= tx.limit {
        "down".to_owned()
    } else if tx.hold != 0 {
        let what = [(PathTx::HELD_FOR_LOSS, "loss"), (PathTx::HELD_FOR_BIG, "big packets")];
        let what = what.iter().filter(|(flag, _)| tx.hold & flag != 0).map(|(_, what)| *what);
        format!("held: {}", what.collect::<Vec<_>>().join(", "))
    } else if answered.streak < tx.recover {
        format!("down: {} of {} answers", answered.streak, tx.recover)
    } else if !relay_is_up {
        "relay down".to_owned()
    } else {
        "up".to_owned()
    }
}

/// The paths to every peer; with `vni`, to members.
pub(crate) fn paths(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<PathRow>> {
    let snapshot = Snapshot::of(tables);
    let name = |peer| tables.label(LabelKey::peer(peer));
    let mtu = |peer| tables.peers.get(&peer, 0).map_or(0, |peer| peer.current().mtu);
    Ok(each_peer(tables, vni)?.iter().flat_map(|(id, ..)| snapshot.rows(*id, &name, &mtu)).collect())
}

impl PathRow {
    /// The median in ms, for people.
    pub(crate) fn median_text(&self) -> String {
        self.rtt_ms.map_or_else(String::new, |rtt| ms_text(rtt.median))
    }

    /// Per cent, for people.
    pub(crate) fn loss_text(&self) -> String {
        self.loss.map_or_else(String::new, |loss| format!("{:.0}%", loss * 100.0))
    }
}

/// The same for people, at the moment `now`.
pub(super) fn paths_table(rows: &[PathRow]) -> String {
    table_at(rows, Moment::now())
}

fn table_at(rows: &[PathRow], now: Moment) -> String {
    let cells = rows.iter().map(|it| {
        let rtt = it.rtt_ms.map(|RoundTrip { min, median, p99 }| [min, median, p99].map(ms_text).join("/"));
        let number = |number: u32| if it.probed { number.to_string() } else { String::new() };
        vec![
            it.peer.clone(),
            it.path.clone(),
            it.state.clone(),
            if it.in_use { "in use" } else { "" }.into(),
            rtt.unwrap_or_default(),
            it.loss_text(),
            number(it.probes),
            number(it.recover),
            it.mtu.to_string(),
            it.since.map(|since| about(since.age(now))).unwrap_or_default(),
            it.reason.unwrap_or_default().into(),
        ]
    });
    let header =
        ["peer", "path", "state", "", "rtt min/median/p99 ms", "loss", "probes", "recover", "mtu", "since", "why"];
    table("paths", &header, &cells.collect::<Vec<_>>(), &[4, 5, 6, 7, 8, 9])
}

#[cfg(test)]
mod tests {
    use l2mesh_common::path::order;

    use super::*;

    const MINUTE: u64 = 60_000_000_000;
    const NOW: Moment = Moment(100 * MINUTE);

    fn name(peer: PeerId) -> String {
        ["hetzner", "enovance", "old-box"][peer as usize].to_owned()
    }

    fn rows(snapshot: &Snapshot, peer: PeerId) -> Vec<PathRow> {
        snapshot.rows(peer, &name, &|peer| if peer == 2 { 1430 } else { 1450 })
    }

    /// hetzner and enovance are probed, the other way to enovance is through hetzner; old-box is not probed.
    fn snapshot() -> Snapshot {
        let slots = path_slot(3, DIRECT) as usize;
        let mut snapshot = Snapshot {
            tx: vec![PathTx::default(); slots],
            rx: vec![PathRx::default(); slots],
            notes: vec![PathNote::default(); slots],
        };
        let tx = PathTx { sequence: 100, limit: 13, recover: 10, ..PathTx::default() };
        let rx = PathRx { answered: Answered { sequence: 100, streak: 10 }.to_bits(), ..PathRx::default() };
        for (peer, path) in [(0, 0), (1, 0), (1, 1)] {
            let slot = path_slot(peer, path) as usize;
            (snapshot.tx[slot], snapshot.rx[slot]) = (tx, rx);
        }
        snapshot.tx[path_slot(1, DIRECT) as usize].order = order(&[1]);
        snapshot.notes[path_slot(1, DIRECT) as usize] = PathNote {
            since_ns: 97 * MINUTE,
            rtt_min_ns: 200_000,
            rtt_median_ns: 231_000,
            rtt_p99_ns: 12_000_000,
            loss: 20,
            probes: 1234,
            reason: Reason::Answered as u32,
            ..PathNote::default()
        };
        snapshot.tx[path_slot(2, DIRECT) as usize].limit = u32::MAX;
        snapshot
    }

    fn seen(snapshot: &Snapshot) -> Vec<(String, bool, bool)> {
        rows(snapshot, 1).into_iter().map(|row| (row.state, row.up, row.in_use)).collect()
    }

    #[test]
    fn for_people() {
        let snapshot = snapshot();
        let all: Vec<PathRow> = (0..3).flat_map(|peer| rows(&snapshot, peer)).collect();
        let expected = "\
paths
  peer      path         state                          rtt min/median/p99 ms  loss  probes  recover   mtu  since  why
  hetzner   direct       up                     in use                                    0       10  1450
  enovance  direct       up                     in use       0.200/0.231/12.0    2%    1234       10  1450  3 min  probes are answered again
  enovance  via hetzner  up                                                               0       10  1450
  old-box   direct       not probed: always up  in use                                                1430
";
        assert_eq!(table_at(&all, NOW), expected);
    }

    #[test]
    fn for_programs() {
        let mut snapshot = snapshot();
        snapshot.tx[path_slot(1, DIRECT) as usize].mtu = 1380;
        let [direct, relayed] = &rows(&snapshot, 1)[..] else { panic!("two paths") };
        assert_eq!(
            serde_json::to_value(direct).expect("JSON"),
            serde_json::json!({
                "peer": "enovance", "path": "direct", "relay": null, "up": true, "in_use": true, "probed": true,
                "state": "up", "rtt_ms": { "min": 0.2, "median": 0.231, "p99": 12.0 }, "loss": 0.02, "probes": 1234,
                "since": "1970-01-01T01:37:00Z", "reason": "probes are answered again", "mtu": 1380, "recover": 10,
            })
        );
        let relayed = serde_json::to_value(relayed).expect("JSON");
        assert_eq!((&relayed["relay"], &relayed["path"]), (&"hetzner".into(), &"via hetzner".into()));
        assert!(["rtt_ms", "loss", "since", "reason"].iter().all(|key| relayed[*key].is_null()), "{relayed}");
    }

    /// What a frame would take, whatever the agent noted.
    #[test]
    fn states_are_those_of_the_kernel() {
        let at = |peer, path| path_slot(peer, path) as usize;
        let up = |in_use| ("up".to_owned(), true, in_use);
        let not = |text: &str, in_use| (text.to_owned(), false, in_use);
        let mut paths = snapshot();
        assert_eq!(seen(&paths), [up(true), up(false)]);
        paths.tx[at(1, 0)].hold = PathTx::HELD_FOR_LOSS;
        assert_eq!(seen(&paths), [not("held: loss", false), up(true)]);
        paths.tx[at(1, 0)].hold = PathTx::HELD_FOR_BIG;
        assert_eq!(seen(&paths)[0], not("held: big packets", false));
        (paths.tx[at(1, 0)].hold, paths.tx[at(1, 0)].sequence) = (0, 112);
        assert_eq!(seen(&paths), [up(true), up(false)], "the limit is not reached");
        paths.tx[at(1, 0)].sequence = 113;
        assert_eq!(seen(&paths), [not("down", false), up(true)]);
        paths.rx[at(1, 0)].answered = Answered { sequence: 113, streak: 3 }.to_bits();
        assert_eq!(seen(&paths), [not("down: 3 of 10 answers", false), up(true)]);
        (paths.tx[at(1, 0)].limit, paths.tx[at(1, 0)].recover) = (0, 0);
        assert_eq!(seen(&paths), [not("no such path", false), up(true)], "of another IP version");
        (paths.tx[at(1, 0)].limit, paths.tx[at(1, 0)].recover) = (13, 10);
        paths.tx[at(0, 0)].sequence = 113;
        assert_eq!(seen(&paths), [not("down: 3 of 10 answers", true), not("relay down", false)], "no way");
    }
}
