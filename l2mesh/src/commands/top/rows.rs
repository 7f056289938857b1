//! The parts of the screen as texts of columns.

use std::collections::VecDeque;

use super::{
    super::clock::{about, ms_text},
    sample::{PeerLine, Sample},
    screen::Tone,
};
use crate::{agent::chronicle::Happened, commands::maps::PathRow};

/// The last line.
pub(super) const KEYS: &str = "q quit  Tab part  arrows move  m matrix  p pause  D R taken  d r up  x X down";
/// Columns of the narrowest terminal that shows all of a line.
const NARROW: usize = 80;
/// The longest part of a name that is shown where there is room.
const LONGEST: usize = 32;

/// A part.
pub(super) struct Texts {
    pub(super) title: String,
    pub(super) header: Option<String>,
    pub(super) rows: Vec<Vec<(String, Tone)>>,
}

/// The letter of a path: a capital one if frames take it.
pub(super) fn letter(row: &PathRow) -> (char, Tone) {
    let is_direct = row.relay.is_none();
    match (row.probed, row.up, row.in_use) {
        _ if row.state == "no such path" => ('-', Tone::Faint),
        (false, _, _) => ('P', Tone::Plain),
        (true, true, true) if is_direct => ('D', Tone::Good),
        (true, true, true) => ('R', Tone::Doubtful),
        (true, true, false) => (if is_direct { 'd' } else { 'r' }, Tone::Plain),
        (true, false, true) => ('X', Tone::Bad),
        (true, false, false) => ('x', Tone::Bad),
    }
}

/// Which node reaches which: who is in a row reaches who is in a column, from `first` on as many as fit.
pub(super) fn matrix(sample: &Sample, width: usize, first: &mut usize) -> Texts {
    let matrix = &sample.matrix;
    let count = matrix.nodes.len();
    let (number, place) = (count.to_string().len(), count.to_string().len() + 1);
    let name = wide(12, matrix.nodes.iter().map(|name| name.chars().count()), width);
    let room = (width.saturating_sub(number + 1 + name) / place).max(1);
    *first = (*first).min(count.saturating_sub(room));
    let columns = *first..count.min(*first + room);
    let header = columns.clone().fold(format!("{:<1$}", "from \\ to", number + 1 + name), |header, column| {
        header + &format!("{:>place$}", column + 1)
    });
    let row = |from: usize| {
        let mut row = vec![(format!("{:>number$} {:<name$}", from + 1, cut(&matrix.nodes[from], name)), Tone::Plain)];
        for to in columns.clone() {
            let letter = matrix.letter(from, to);
            let tone = match letter {
                'D' => Tone::Good,
                'R' => Tone::Doubtful,
                'X' => Tone::Bad,
                _ => Tone::Faint,
            };
            row.push((format!("{letter:>place$}"), tone));
        }
        row
    };
    let seen = if columns.len() < count {
        format!(", columns {}-{} < >", columns.start + 1, columns.end)
    } else {
        String::new()
    };
    let title = format!("mesh: {count} nodes, D direct R relayed X down{seen}");
    Texts { title, header: Some(header), rows: (0..count).map(row).collect() }
}

/// Who is reached how: a row for each peer, a letter for each of its paths.
pub(super) fn peers(sample: &Sample, width: usize) -> Texts {
    let names = sample.peers.iter().map(|peer| peer.name.chars().count());
    let name = wide(12, names, width);
    let paths = sample.peers.iter().filter_map(|peer| Some(in_use(peer)?.path.chars().count()));
    let path = wide(14, paths, width.saturating_sub(name - 12));
    let header = format!(
        "{:<name$} {:<7} {:<path$} {:>6} {:>4}  {:>6} {:>6}  {:>6} {:>6}",
        "peer", "D 1 2 3", "path taken", "rtt ms", "loss", "out/s", "B/s", "in/s", "B/s"
    );
    let row = |peer: &PeerLine| {
        let used = in_use(peer);
        let mut row = vec![(format!("{:<name$} ", cut(&peer.name, name)), Tone::Plain)];
        for place in 0..4 {
            let (letter, tone) = peer.paths.get(place).map_or((' ', Tone::Plain), letter);
            row.push((format!("{letter} "), tone));
        }
        let taken = used.map(letter).map_or(Tone::Plain, |(_, tone)| tone);
        row.push((format!("{:<path$} ", cut(used.map_or("", |row| &row.path), path)), taken));
        let rtt = used.and_then(|row| row.rtt_ms).map_or_else(String::new, |rtt| ms_text(rtt.median));
        let loss = used.map(PathRow::loss_text).unwrap_or_default();
        let [out, out_bytes, into, in_bytes] = peer.rates.texts();
        row.push((format!("{rtt:>6} {loss:>4}  {out:>6} {out_bytes:>6}  {into:>6} {in_bytes:>6}"), Tone::Plain));
        row
    };
    let down = sample.peers.iter().filter(|peer| in_use(peer).is_none_or(|row| !row.up)).count();
    let relayed =
        sample.peers.iter().filter(|peer| in_use(peer).is_some_and(|row| row.up && row.relay.is_some())).count();
    let title = format!("mesh: {} peers, {relayed} through a relay, {down} down", sample.peers.len());
    Texts { title, header: Some(header), rows: sample.peers.iter().map(row).collect() }
}

fn in_use(peer: &PeerLine) -> Option<&PathRow> {
    peer.paths.iter().find(|row| row.in_use)
}

/// Networks and their traffic.
pub(super) fn networks(sample: &Sample, width: usize) -> Texts {
    let name = wide(20, sample.networks.iter().map(|network| network.name.chars().count()), width);
    let header = format!(
        "{:<name$} {:<18} {:>8}  {:>6} {:>6}  {:>6} {:>6}",
        "network", "vni", "macs", "out/s", "B/s", "in/s", "B/s"
    );
    let rows = sample.networks.iter().map(|network| {
        let [out, out_bytes, into, in_bytes] = network.rates.texts();
        let text = format!(
            "{:<name$} {:<18} {:>8}  {out:>6} {out_bytes:>6}  {into:>6} {in_bytes:>6}",
            cut(&network.name, name),
            cut(&network.vni, 18),
            network.macs
        );
        vec![(text, Tone::Plain)]
    });
    let macs: u64 = sample.networks.iter().map(|network| network.macs).sum();
    let title = format!("networks: {}, {macs} MAC addresses", sample.networks.len());
    Texts { title, header: Some(header), rows: rows.collect() }
}

/// MAC addresses, those first that are frozen or have moved, then those heard last.
pub(super) fn macs(sample: &Sample, width: usize) -> Texts {
    let network = wide(18, sample.macs.iter().map(|mac| mac.network.chars().count()), width);
    let header = format!("{:<17} {:<network$} {:<18} {:>8} {:>6}", "mac", "network", "behind", "heard", "moves");
    let rows = sample.macs.iter().map(|mac| {
        let age = mac.age.map_or_else(|| "static".to_owned(), |age| format!("{} ago", about(age)));
        let (state, tone) = if mac.is_frozen { ("  frozen", Tone::Bad) } else { ("", Tone::Plain) };
        let behind = cut(&mac.peer, 18);
        let text =
            format!("{:<17} {:<network$} {behind:<18} {age:>8} {:>6}", mac.mac, cut(&mac.network, network), mac.moves);
        vec![(text, tone), (state.to_owned(), tone)]
    });
    let title = "MAC addresses: frozen, moved most, heard last".to_owned();
    Texts { title, header: Some(header), rows: rows.collect() }
}

/// Events, the newest first.
pub(super) fn events(events: &VecDeque<Happened>, from_agent: bool) -> Texts {
    let rows = events.iter().rev().map(|event| {
        let tone = match &*event.level {
            "error" => Tone::Bad,
            "warn" => Tone::Doubtful,
            _ => Tone::Plain,
        };
        // Of 2026-11-28T04:00:00Z the time: the day is in `l2mesh events`.
        let time = event.at.get(11..19).unwrap_or(&event.at);
        vec![(format!("{time} "), Tone::Faint), (event.text.clone(), tone)]
    });
    let title = if from_agent { "events (UTC)" } else { "events (UTC): of paths only, without an agent" };
    Texts { title: title.to_owned(), header: None, rows: rows.collect() }
}

/// Columns for names: `least`, or as many as the longest needs where the terminal has them.
fn wide(least: usize, lengths: impl Iterator<Item = usize>, width: usize) -> usize {
    let longest = lengths.max().unwrap_or(0).min(LONGEST);
    longest.clamp(least, least + width.saturating_sub(NARROW).min(LONGEST))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['~']).collect()
}
