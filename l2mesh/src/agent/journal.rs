//! Which lines go to the log: what happens often, or to many, must not fill it.
//!
//! A topic has a line at once, then one in half a minute with a count. Topics of one kind share a budget; what is over it
//! is summed up. Rare kinds are told whatever the others do.

use std::collections::BTreeMap;

use super::chronicle::Subject;
use l2mesh_common::{bucket::Rate, tables::PeerId, wire::MacAddr};

/// A topic is told no more often.
const PAUSE_NS: u64 = 30 * SECOND_NS;
/// All of a kind: after the first 16 lines one in ten seconds.
const BUDGET: Rate = Rate::one_in(10 * SECOND_NS);
const SECOND_NS: u64 = 1_000_000_000;

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Topic {
    /// Topics of one kind have one budget.
    pub(super) kind: &'static str,
    pub(super) vni: u32,
    /// Zero where it is about all.
    pub(super) mac: MacAddr,
    /// [`PeerId::MAX`] where it is about all.
    pub(super) peer: PeerId,
}

/// A line, and what it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) about: Subject,
    pub(super) text: String,
}

/// What was told, and what waits.
#[derive(Debug, Default)]
pub(super) struct Journal {
    topics: BTreeMap<Topic, State>,
    kinds: BTreeMap<&'static str, Kind>,
}

#[derive(Debug, Default)]
struct State {
    /// Not told yet: the latest, because of whom, and how many.
    text: String,
    peer: Option<PeerId>,
    times: u64,
    /// When the latest was seen here.
    noted_at_ns: Option<u64>,
    told_at_ns: Option<u64>,
}

#[derive(Debug, Default)]
struct Kind {
    budget: u64,
    /// Events over it.
    untold: u64,
}

impl Journal {
    /// Something happened so many times, because of a peer or not; of several texts the last one is told.
    pub(super) fn note(&mut self, topic: Topic, peer: Option<PeerId>, text: String, times: u64) {
        let state = self.topics.entry(topic).or_default();
        (state.text, state.peer) = (text, peer);
        state.times += times;
        state.noted_at_ns = None;
    }

    /// What waits to be told about this peer under other kinds is not true any more: told late, it would stand behind what came after it.
    pub(super) fn overtake(&mut self, topic: &Topic, kinds: &[&str]) {
        for (other, state) in &mut self.topics {
            if other.peer == topic.peer && other.kind != topic.kind && kinds.contains(&other.kind) {
                state.times = 0;
            }
        }
    }

    /// What is to be logged now.
    pub(super) fn lines(&mut self, now_ns: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        for (name, kind) in &mut self.kinds {
            if kind.untold > 0 && BUDGET.take(&mut kind.budget, now_ns) {
                let text = format!("{} more events of the kind {name}: see `l2mesh maps counters`", kind.untold);
                lines.push(Line { about: Subject::of(name), text });
                kind.untold = 0;
            }
        }
        for (topic, state) in &mut self.topics {
            let told = state.told_at_ns;
            if state.times > 0 {
                state.noted_at_ns.get_or_insert(now_ns);
            }
            if state.times == 0 || told.is_some_and(|told| now_ns.saturating_sub(told) < PAUSE_NS) {
                continue;
            }
            let kind = self.kinds.entry(topic.kind).or_default();
            if BUDGET.take(&mut kind.budget, now_ns) {
                lines.push(Line { about: about(topic, state.peer), text: line(state, now_ns) });
                state.told_at_ns = Some(now_ns);
            } else {
                kind.untold += state.times;
            }
            state.times = 0;
        }
        self.topics.retain(|_, state| {
            state.times > 0 || state.told_at_ns.is_some_and(|told| now_ns.saturating_sub(told) < PAUSE_NS)
        });
        lines
    }
}

fn about(topic: &Topic, peer: Option<PeerId>) -> Subject {
    let mut about = Subject::of(topic.kind);
    if topic.vni != 0 {
        about = about.network(topic.vni);
    }
    if topic.mac != MacAddr::ZERO {
        about = about.mac(topic.mac);
    }
    peer.map_or(about, |peer| about.peer(peer))
}

fn line(State { text, times, noted_at_ns, told_at_ns, .. }: &State, now_ns: u64) -> String {
    let since = |at: &u64| now_ns.saturating_sub(*at) / SECOND_NS;
    // Who reads it takes the line's own time for that of the event.
    let late = noted_at_ns.as_ref().map(since).filter(|&late| late > 1);
    match (times, told_at_ns, late) {
        (1, _, None) => text.clone(),
        (1, _, Some(late)) => format!("{text} ({late} s ago)"),
        (_, None, _) => format!("{text} ({times} times)"),
        (_, Some(told), None) => format!("{text} ({times} times in {} s)", since(told)),
        (_, Some(told), Some(late)) => format!("{text} ({times} times in {} s, the last {late} s ago)", since(told)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000 * SECOND_NS;

    fn topic(kind: &'static str, last: u8) -> Topic {
        Topic { kind, vni: 16, mac: MacAddr([2, 0, 0, 0, 0, last]), peer: 0 }
    }

    fn texts(journal: &mut Journal, now_ns: u64) -> Vec<String> {
        journal.lines(now_ns).into_iter().map(|line| line.text).collect()
    }

    /// An hour of an address that moves a thousand times a second.
    #[test]
    fn one_that_never_ends_has_two_lines_a_minute() {
        let mut journal = Journal::default();
        let mut lines = Vec::new();
        for second in 0..3_600 {
            journal.note(topic("moved", 1), Some(3), "it moved".into(), 1_000);
            lines.extend(texts(&mut journal, START + second * SECOND_NS));
        }
        assert_eq!(lines[..2], ["it moved (1000 times)", "it moved (30000 times in 30 s)"]);
        assert_eq!(lines.len(), 120);
    }

    #[test]
    fn many_share_a_budget_and_leave_others_theirs() {
        let mut journal = Journal::default();
        let mut lines = Vec::new();
        for second in 0..600_u64 {
            for last in 0..=255 {
                journal.note(topic("moved", last), Some(3), format!("{last} moved"), 1);
            }
            if second == 599 {
                journal.note(topic("frozen", 7), Some(3), "7 is frozen".into(), 1);
            }
            lines.extend(texts(&mut journal, START + second * SECOND_NS));
        }
        assert!((70..=80).contains(&lines.len()), "{} lines", lines.len());
        assert_eq!(lines.last().map(String::as_str), Some("7 is frozen"));
        let told: u64 = lines.iter().filter_map(|line| line.split_once(" more events")?.0.parse::<u64>().ok()).sum();
        assert!(told > 100_000, "{told}");
    }

    #[test]
    fn what_is_rare_is_told_as_it_is() {
        let mut journal = Journal::default();
        for hour in 0..10 {
            journal.note(topic("moved", 1), Some(3), "it moved".into(), 1);
            assert_eq!(texts(&mut journal, START + hour * 3_600 * SECOND_NS), ["it moved"]);
        }
        assert_eq!(texts(&mut journal, START), Vec::<String>::new());
    }

    #[test]
    fn what_a_line_is_about() {
        let mut journal = Journal::default();
        journal.note(topic("moved", 1), Some(3), "it moved".into(), 1);
        let about = Subject::of("moved").network(16).mac(MacAddr([2, 0, 0, 0, 0, 1])).peer(3);
        assert_eq!(journal.lines(START), [Line { about, text: "it moved".into() }]);
    }

    #[test]
    fn what_is_overtaken_is_not_told_late() {
        const KINDS: [&str; 2] = ["relayed", "direct"];
        let mut journal = Journal::default();
        let mut at = |second: u64, kind: Option<&'static str>| {
            if let Some(kind) = kind {
                journal.overtake(&topic(kind, 0), &KINDS);
                journal.note(topic(kind, 0), None, kind.into(), 1);
            }
            texts(&mut journal, START + second * SECOND_NS)
        };
        assert_eq!(at(0, Some("relayed")), ["relayed"]);
        assert_eq!(at(5, Some("direct")), ["direct"]);
        assert_eq!(at(6, Some("relayed")), Vec::<String>::new());
        assert_eq!(at(7, Some("direct")), Vec::<String>::new());
        assert_eq!(at(31, None), Vec::<String>::new(), "not that it was relayed before");
        assert_eq!(at(36, None), ["direct (29 s ago)"]);
    }

    #[test]
    fn what_waits_for_its_pause_is_told_after_it() {
        let mut journal = Journal::default();
        let mut at = |second: u64, text: Option<&str>| {
            if let Some(text) = text {
                journal.note(topic("moved", 1), Some(3), text.into(), 1);
            }
            texts(&mut journal, START + second * SECOND_NS)
        };
        assert_eq!(at(0, Some("to b")), ["to b"]);
        assert_eq!(at(1, Some("to a")), Vec::<String>::new());
        assert_eq!(at(2, Some("to c")), Vec::<String>::new());
        assert_eq!(at(29, None), Vec::<String>::new());
        assert_eq!(at(30, None), ["to c (2 times in 30 s, the last 28 s ago)"]);
        assert_eq!(at(61, None), Vec::<String>::new());
    }
}
