//! The samples of many networks and many MAC addresses, and how they are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Value, json};

use super::Subject;
use crate::bench::{contender::Kind, metric::median};

/// What one of many may cost, times what it costs where it is the only one.
const GOAL: f64 = 1.25;

/// Whose frames.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Load {
    /// Those of one among many.
    One,
    /// Those of all in turn: nothing is in the processor's caches where there are many.
    Turn,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Sent,
    Received,
    Learned,
}

/// One line of the result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Row {
    subject: Subject,
    what: What,
    load: Load,
    kind: Kind,
}

impl Row {
    /// The underlay by itself, of which everything that is sent is more.
    pub(crate) const fn bare(subject: Subject) -> Self {
        Self::sent(subject, Kind::Bare, Load::One)
    }

    pub(crate) const fn sent(subject: Subject, kind: Kind, load: Load) -> Self {
        Self { subject, what: What::Sent, load, kind }
    }

    pub(crate) const fn received(subject: Subject, kind: Kind, load: Load) -> Self {
        Self { subject, what: What::Received, load, kind }
    }

    pub(crate) const fn learned(kind: Kind) -> Self {
        Self { subject: Subject::Macs, what: What::Learned, load: Load::Turn, kind }
    }

    const fn title(self) -> &'static str {
        match (self.what, self.load) {
            (What::Sent, Load::One) => "small frame sent to one, work over bare (ns)",
            (What::Sent, Load::Turn) => "small frame sent to all in turn, work over bare (ns)",
            (What::Received, Load::One) => "small frame received from one, all of it (ns)",
            (What::Received, Load::Turn) => "small frame received from all in turn, all of it (ns)",
            (What::Learned, _) => "new MAC addresses learned (k/s)",
        }
    }

    const fn key(self) -> &'static str {
        match (self.what, self.load) {
            (What::Sent, Load::One) => "sent-one",
            (What::Sent, Load::Turn) => "sent-turn",
            (What::Received, Load::One) => "received-one",
            (What::Received, Load::Turn) => "received-turn",
            (What::Learned, _) => "learned",
        }
    }
}

/// Everything that was measured of many.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Row, u32), Vec<f64>>,
    /// What else is worth a line.
    pub(crate) notes: Vec<String>,
}

impl Results {
    /// One more sample.
    pub(crate) fn add(&mut self, row: Row, size: u32, sample: f64) {
        self.samples.entry((row, size)).or_default().push(sample);
    }

    /// Of what is sent the least, without what the bare underlay takes; see `Metric::value`.
    fn value(&self, row: Row, size: u32) -> Option<f64> {
        let mut sorted = self.samples.get(&(row, size))?.clone();
        sorted.sort_by(f64::total_cmp);
        if row.what != What::Sent {
            return median(&sorted);
        }
        let bare = self.samples.get(&(Row::bare(row.subject), 1))?.iter().copied().reduce(f64::min)?;
        Some(sorted.first()? - bare)
    }

    /// Times what it is at the smallest size, where all in turn are one.
    fn ratio(&self, row: Row, size: u32) -> Option<f64> {
        let one = Row { load: Load::One, ..row };
        let (_, first) = *self.samples.keys().find(|(other, _)| *other == one)?;
        let base = self.value(one, first)?;
        (base > 0.0 && row.what != What::Learned).then_some(self.value(row, size)? / base)
    }

    fn rows(&self) -> BTreeSet<Row> {
        self.samples.keys().map(|(row, _)| *row).filter(|row| row.kind != Kind::Bare).collect()
    }

    fn sizes(&self, subject: Subject) -> BTreeSet<u32> {
        let of = self.samples.keys().filter(|(row, _)| row.subject == subject && row.kind != Kind::Bare);
        of.map(|(_, size)| *size).collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for subject in Subject::ALL {
            let sizes = self.sizes(subject);
            if sizes.is_empty() {
                continue;
            }
            _ = write!(text, "\n{:56}", subject.title());
            for size in &sizes {
                _ = write!(text, "{size:>14}");
            }
            text.push('\n');
            let mut title = "";
            for row in self.rows().into_iter().filter(|row| row.subject == subject) {
                if title != row.title() {
                    title = row.title();
                    _ = writeln!(text, "{title}");
                }
                _ = write!(text, "    {:52}", row.kind);
                for &size in &sizes {
                    let cell = match (self.value(row, size), self.ratio(row, size)) {
                        (Some(value), Some(ratio)) => format!("{value:.0} x {ratio:.2}"),
                        (Some(value), None) => format!("{value:.0}"),
                        _ => "-".to_owned(),
                    };
                    _ = write!(text, "{cell:>14}");
                }
                text.push('\n');
            }
        }
        for note in &self.notes {
            _ = writeln!(text, "{note}");
        }
        text + &self.goals()
    }

    fn goals(&self) -> String {
        let mut text = String::new();
        for row in self.rows().into_iter().filter(|row| row.kind.is_l2mesh() && row.load == Load::One) {
            let sizes = self.sizes(row.subject);
            let ratios = sizes.into_iter().skip(1).filter_map(|size| Some((size, self.ratio(row, size)?)));
            for (size, ratio) in ratios {
                let reached = if ratio <= GOAL { "reached" } else { "short" };
                let (key, subject) = (row.key(), row.subject.key());
                _ = writeln!(text, "{key:16} <= {GOAL}:   {} of {size} {subject} {ratio:.2} {reached}", row.kind);
            }
        }
        if text.is_empty() { text } else { format!("\ngoals, as ratios to the only one:\n{text}") }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut all = json!({ "notes": self.notes });
        for (row, size) in self.samples.keys() {
            let entry = json!({
                "value": self.value(*row, *size),
                "samples": self.samples[&(*row, *size)],
                "to_first": self.ratio(*row, *size),
            });
            all[row.subject.key()][row.key()][row.kind.key()][size.to_string()] = entry;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_is_over_bare_and_compared_with_the_only_one() {
        let mut results = Results::default();
        results.add(Row::bare(Subject::Networks), 1, 1000.0);
        for (size, load, samples) in
            [(1, Load::One, [1420.0, 1400.0]), (4094, Load::One, [1480.0, 1500.0]), (4094, Load::Turn, [2000.0; 2])]
        {
            for sample in samples {
                results.add(Row::sent(Subject::Networks, Kind::Tc, load), size, sample);
            }
        }
        let of = |load| results.ratio(Row::sent(Subject::Networks, Kind::Tc, load), 4094);
        assert_eq!((of(Load::One), of(Load::Turn)), (Some(1.2), Some(2.5)));
        assert!(results.goals().contains("l2mesh tc of 4094 networks 1.20 reached"), "{}", results.goals());
        assert!(results.table().contains("480 x 1.20"), "{}", results.table());
        assert_eq!(results.json()["networks"]["sent-turn"]["l2mesh-tc"]["4094"]["value"], 1000.0);
    }

    #[test]
    fn received_is_a_median() {
        let mut results = Results::default();
        for (size, samples) in [(1, [900.0, 800.0, 810.0]), (1000, [810.0, 5000.0, 820.0])] {
            for sample in samples {
                results.add(Row::received(Subject::Macs, Kind::Xdp, Load::One), size, sample);
            }
        }
        assert_eq!(results.value(Row::received(Subject::Macs, Kind::Xdp, Load::One), 1000), Some(820.0));
    }
}
