//! The peers at a glance: which path is taken, how it is, why it changed.

use std::{cmp::Reverse, time::Duration};

use serde::Serialize;

use super::{
    super::{
        clock::{Moment, about, ms_text},
        maps::{PathRow, PeerRow},
        output::table,
    },
    changes::ChangeRow,
};

/// Peers shown one by one.
const SHOWN: usize = 20;
/// What is fit for a terminal, columns.
const WIDTH: usize = 100;
/// A change is news for so long.
const NEWS: Duration = Duration::from_mins(10);

/// [`PeerStatus::configuration`] of a peer whose says what ours says.
pub(super) const SAME: &str = "same";

/// A peer and its paths.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PeerStatus {
    #[serde(flatten)]
    peer: PeerRow,
    /// The path in use: direct, or via and the relay's name.
    path: String,
    /// False if frames take it only because there is no better one.
    up: bool,
    /// The same as `up`, and why not.
    state: String,
    /// When the path in use changed last; null if it never did.
    changed: Option<Moment>,
    /// Why.
    reason: Option<&'static str>,
    /// What its configuration says: [`SAME`], or how it differs; null while it has not said.
    configuration: Option<&'static str>,
    /// All of them.
    paths: Vec<PathRow>,
}

impl PeerStatus {
    /// `change` is the latest of this peer's, if there was one.
    pub(super) fn new(peer: PeerRow, paths: Vec<PathRow>, change: Option<&ChangeRow>) -> Self {
        let used = paths.iter().find(|path| path.in_use);
        // Through a relay, only the relay has to be reached.
        let is_lost = peer.next_hop.is_none() && used.is_none_or(|path| path.relay.is_none());
        let state = if is_lost { "no next hop" } else { used.map_or("", |path| &path.state) }.to_owned();
        // The history may have been too short for it; the path's own note is not.
        let noted = used.filter(|path| path.reason.is_some()).and_then(|path| Some((path.since?, path.reason)));
        let changed = change.map(|change| (change.at, change.reason)).or(noted);
        Self {
            path: used.map_or_else(String::new, |path| path.path.clone()),
            up: used.is_some_and(|path| path.up) && !is_lost,
            state,
            changed: changed.map(|(at, _)| at),
            reason: changed.and_then(|(_, reason)| reason),
            configuration: None,
            peer,
            paths,
        }
    }

    /// What is known of its configuration, if anything.
    pub(super) fn with_configuration(self, configuration: Option<&'static str>) -> Self {
        Self { configuration, ..self }
    }

    /// How its configuration differs.
    fn difference(&self) -> Option<&'static str> {
        self.configuration.filter(|&it| it != SAME)
    }

    fn used(&self) -> Option<&PathRow> {
        self.paths.iter().find(|path| path.in_use)
    }

    fn is_relayed(&self) -> bool {
        self.used().is_some_and(|path| path.relay.is_some())
    }

    /// True if somebody who looks at a hundred peers wants to see this one.
    fn has_news(&self, now: Moment) -> bool {
        let is_lossy = self.used().and_then(|path| path.loss).is_some_and(|loss| loss > 0.0);
        let changed = self.changed.is_some_and(|at| at.age(now) < NEWS);
        !self.up
            || self.is_relayed()
            || is_lossy
            || changed
            || self.peer.learned.is_some()
            || self.difference().is_some()
    }

    fn cells(&self, now: Moment, with_address: bool) -> Vec<String> {
        let used = self.used();
        // Why it is always up is not for each line.
        let state = if self.state.starts_with("not probed") { "not probed" } else { &self.state };
        let state = self.difference().map_or_else(|| state.to_owned(), |other| format!("{state}, {other}"));
        let changed = self.changed.map(|at| format!("{} ago", about(at.age(now))));
        let changed = changed.map(|ago| self.reason.map_or_else(|| ago.clone(), |reason| format!("{ago}: {reason}")));
        let mut cells = vec![self.peer.name.clone()];
        if with_address {
            cells.push(self.peer.address.clone());
        }
        cells.extend([
            self.path.clone(),
            state,
            used.map(PathRow::median_text).unwrap_or_default(),
            used.map(PathRow::loss_text).unwrap_or_default(),
            used.map_or(self.peer.mtu, |path| path.mtu).to_string(),
            changed.unwrap_or_default(),
        ]);
        cells
    }
}

/// The same for people, at the moment `now`: every peer, or those that have something to say, and how the others are.
pub(super) fn peers_text(rows: &[PeerStatus], now: Moment) -> String {
    if rows.len() <= SHOWN {
        return lines(&rows.iter().collect::<Vec<_>>(), now);
    }
    let (mut news, quiet): (Vec<&PeerStatus>, Vec<&PeerStatus>) = rows.iter().partition(|row| row.has_news(now));
    news.sort_by_key(|row| (row.up, !row.is_relayed(), Reverse(row.changed)));
    let mut text = if news.is_empty() { "peers\n".to_owned() } else { lines(&news[..news.len().min(SHOWN)], now) };
    if news.len() > SHOWN {
        let (more, down) = (news.len() - SHOWN, news.iter().filter(|row| !row.up).count());
        let relayed = news.iter().filter(|row| row.up && row.is_relayed()).count();
        text.push_str(&format!(
            "  and {more} like these; of all, {down} are not reached and {relayed} through a relay: `l2mesh maps paths`\n"
        ));
    }
    if !quiet.is_empty() {
        let medians = quiet.iter().filter_map(|row| Some(row.used()?.rtt_ms?.median));
        let (least, greatest) = medians.fold((f64::MAX, 0.0), |(a, b), it| (it.min(a), it.max(b)));
        let rtt = if least <= greatest {
            format!(", round trip {} to {} ms", ms_text(least), ms_text(greatest))
        } else {
            String::new()
        };
        let (number, more) = (quiet.len(), if news.is_empty() { "" } else { " more" });
        text.push_str(&format!("  {number}{more}, direct and without loss{rtt}: `l2mesh maps paths` lists them\n"));
    }
    text
}

fn lines(rows: &[&PeerStatus], now: Moment) -> String {
    let lines = |with_address: bool| {
        let mut header = vec!["peer", "path", "state", "rtt ms", "loss", "mtu", "last change"];
        if with_address {
            header.insert(1, "address");
        }
        let cells: Vec<_> = rows.iter().map(|row| row.cells(now, with_address)).collect();
        let numbers = [3, 4, 5].map(|column| column + usize::from(with_address));
        table("peers", &header, &cells, &numbers)
    };
    let with_address = lines(true);
    if with_address.lines().all(|line| line.chars().count() <= WIDTH) { with_address } else { lines(false) }
}

#[cfg(test)]
mod tests {
    use super::{super::super::maps::RoundTrip, *};

    const MINUTE: u64 = 60_000_000_000;
    const NOW: Moment = Moment(100 * MINUTE);

    fn peer(id: u32, address: &str) -> PeerRow {
        PeerRow {
            id,
            name: format!("node-{id}"),
            address: address.to_owned(),
            kind: "l2mesh",
            node_id: id,
            interface: "eth0".to_owned(),
            next_hop: Some("02:00:00:00:00:01".to_owned()),
            mtu: 1450,
            learned: None,
            sent_frames: 0,
            sent_octets: 0,
            received_frames: 0,
            received_octets: 0,
        }
    }

    fn path(relay: Option<&str>, in_use: bool) -> PathRow {
        PathRow {
            peer: String::new(),
            path: relay.map_or_else(|| "direct".to_owned(), |relay| format!("via {relay}")),
            relay: relay.map(str::to_owned),
            up: true,
            in_use,
            probed: true,
            state: "up".to_owned(),
            rtt_ms: Some(RoundTrip { min: 0.2, median: if in_use { 0.25 } else { 0.5 }, p99: 2.0 }),
            loss: Some(0.0),
            probes: 600,
            since: None,
            reason: None,
            mtu: if relay.is_some() { 1430 } else { 1450 },
            recover: 10,
            answers: 600,
            slot: 0,
        }
    }

    fn down(row: PathRow) -> PathRow {
        PathRow { up: false, state: "down".to_owned(), ..row }
    }

    fn healthy(id: u32) -> PeerStatus {
        PeerStatus::new(peer(id, &format!("192.0.2.{id}")), vec![path(None, true), path(Some("ovh"), false)], None)
    }

    fn relayed(id: u32) -> PeerStatus {
        let change = ChangeRow {
            at: Moment(97 * MINUTE),
            peer: String::new(),
            from: String::new(),
            to: String::new(),
            up: true,
            reason: Some("probes are not answered"),
            is_relayed: true,
        };
        let paths = vec![down(path(None, false)), path(Some("ovh"), true)];
        PeerStatus::new(peer(id, &format!("192.0.2.{id}")), paths, Some(&change))
    }

    /// No path, and no memory of how that came but the path's own note.
    fn lost(id: u32) -> PeerStatus {
        let (since, reason) = (Some(Moment(10 * MINUTE)), Some("probes are not answered"));
        let direct = PathRow { since, reason, loss: Some(1.0), rtt_ms: None, ..down(path(None, true)) };
        PeerStatus::new(peer(id, &format!("192.0.2.{id}")), vec![direct], None)
    }

    #[test]
    fn a_few() {
        let plain = PathRow { probed: false, state: "not probed: always up".to_owned(), ..path(None, true) };
        let plain = PathRow { rtt_ms: None, loss: None, ..plain };
        let silent = PeerRow { next_hop: None, mtu: 0, ..peer(5, "192.0.2.5") };
        let rows = [
            healthy(1),
            relayed(2),
            lost(3),
            PeerStatus::new(peer(4, "192.0.2.4"), vec![plain.clone()], None),
            PeerStatus::new(silent, vec![PathRow { mtu: 0, ..plain }], None),
        ];
        let expected = "\
peers
  peer    address    path     state        rtt ms  loss   mtu  last change
  node-1  192.0.2.1  direct   up            0.250    0%  1450
  node-2  192.0.2.2  via ovh  up            0.250    0%  1430  3 min ago: probes are not answered
  node-3  192.0.2.3  direct   down                 100%  1450  1 h ago: probes are not answered
  node-4  192.0.2.4  direct   not probed                 1450
  node-5  192.0.2.5  direct   no next hop                   0
";
        assert_eq!(peers_text(&rows, NOW), expected);
        let other = PeerStatus { configuration: Some("other configuration"), ..healthy(1) };
        let same = PeerStatus { configuration: Some(SAME), ..healthy(2) };
        let text = peers_text(&[other.clone(), same], NOW);
        assert!(text.contains("up, other configuration") && !text.contains("same"), "{text}");
        assert!(other.has_news(NOW) && !healthy(1).has_news(NOW));
        let json = serde_json::to_value(&rows[1]).expect("JSON");
        assert_eq!((&json["name"], &json["path"], &json["up"]), (&"node-2".into(), &"via ovh".into(), &true.into()));
        assert_eq!((&json["changed"], &json["paths"][1]["relay"]), (&"1970-01-01T01:37:00Z".into(), &"ovh".into()));
        assert_eq!((&rows[4].up, &rows[2].up), (&false, &false));
        let relayed = PeerRow { next_hop: None, ..peer(6, "2001:db8::6") };
        let relayed = PeerStatus::new(relayed, vec![down(path(None, false)), path(Some("ovh"), true)], None);
        assert_eq!((relayed.up, &*relayed.state), (true, "up"), "of another IP version");
    }

    /// Long addresses go before the lines are longer than a terminal.
    #[test]
    fn lines_fit_a_terminal() {
        let rows: Vec<_> =
            [relayed(1), lost(2)].map(|row| PeerStatus { peer: peer(1, "2001:db8:1:2:3:4:5:6789"), ..row }).into();
        let text = peers_text(&rows, NOW);
        assert!(!text.contains("2001:db8") && text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn many() {
        let mut rows: Vec<_> = (0..255).map(healthy).collect();
        let text = peers_text(&rows, NOW);
        let quiet = "direct and without loss, round trip 0.250 to 0.250 ms: `l2mesh maps paths` lists them\n";
        assert_eq!(text, format!("peers\n  255, {quiet}"));
        (rows[7], rows[200]) = (relayed(7), lost(200));
        let text = peers_text(&rows, NOW);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].contains("node-200") && lines[3].contains("node-7 "), "the worst first: {text}");
        assert_eq!(lines[4..], [format!("  253 more, {}", quiet.trim_end())]);
        rows[..100].iter_mut().for_each(|row| *row = relayed(1));
        let text = peers_text(&rows, NOW);
        assert_eq!(text.lines().count(), 2 + SHOWN + 2, "{text}");
        let more = "  and 81 like these; of all, 1 are not reached and 100 through a relay: `l2mesh maps paths`\n";
        assert!(text.contains(more), "{text}");
    }
}
