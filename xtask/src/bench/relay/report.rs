//! The samples of relays and of probes, and how they are shown.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use super::KINDS;
use crate::bench::{contender::Kind, metric::median};

/// What a relay is built for, as ratio to the kernel's device and a bridge.
const GOALS: [(Row, Kind, f64); 2] = [(Row::Frames, Kind::Xdp, 3.0), (Row::Tcp, Kind::Tc, 1.0)];
/// Percent of a processor that probes may take, agent and kernel together.
const PROBES_GOAL: f64 = 10.0;

/// One line of the result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Row {
    Frames,
    Tcp,
    NodeAgent,
    NodeReceiving,
    RelayAgent,
    RelayReceiving,
}

impl Row {
    /// In JSON, for people, digits behind the point.
    const fn about(self) -> (&'static str, &'static str, usize) {
        match self {
            Self::Frames => ("relayed", "small frames relayed (k/s)", 0),
            Self::Tcp => ("relayed-tcp-1", "TCP through a relay, 1 flow (Gb/s)", 2),
            Self::NodeAgent => ("probes-node-agent", "probes, a node: agent (% of a CPU)", 1),
            Self::NodeReceiving => ("probes-node-kernel", "  receiving, reflecting", 1),
            Self::RelayAgent => ("probes-relay-agent", "probes, a relay: agent", 1),
            Self::RelayReceiving => ("probes-relay-kernel", "  receiving, reflecting, relaying", 1),
        }
    }

    const fn is_compared(self) -> bool {
        matches!(self, Self::Frames | Self::Tcp)
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Row, Kind), Vec<f64>>,
    /// What else is worth a line.
    pub(super) notes: Vec<String>,
}

impl Results {
    /// One more sample.
    pub(super) fn add(&mut self, row: Row, kind: Kind, sample: f64) {
        self.samples.entry((row, kind)).or_default().push(sample);
    }

    fn value(&self, row: Row, kind: Kind) -> Option<f64> {
        let mut sorted = self.samples.get(&(row, kind))?.clone();
        sorted.sort_by(f64::total_cmp);
        median(&sorted)
    }

    fn ratio(&self, row: Row, kind: Kind) -> Option<f64> {
        let base = self.value(row, Kind::Vxlan)?;
        (row.is_compared() && base > 0.0).then_some(self.value(row, kind)? / base)
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<_> = self.samples.keys().map(|(row, _)| *row).collect();
        rows.dedup();
        rows
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        if self.samples.is_empty() {
            return String::new();
        }
        let mut text = format!("\n{:36}", "relays and probes");
        for kind in KINDS {
            _ = write!(text, "{kind:>12}");
        }
        text.push('\n');
        for row in self.rows() {
            let (_, title, digits) = row.about();
            _ = write!(text, "{title:36}");
            for kind in KINDS {
                let cell = self.value(row, kind).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
                _ = write!(text, "{cell:>12}");
            }
            text.push('\n');
            if self.ratio(row, Kind::Vxlan).is_none() {
                continue;
            }
            _ = write!(text, "{:36}", "    x vxlan and a bridge");
            for kind in KINDS {
                let cell = self.ratio(row, kind).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
                _ = write!(text, "{cell:>12}");
            }
            text.push('\n');
        }
        for note in &self.notes {
            _ = writeln!(text, "{note}");
        }
        text + &self.goals()
    }

    fn goals(&self) -> String {
        let mut text = String::new();
        let verdict = |reached| if reached { "reached" } else { "short" };
        for (row, kind, goal) in GOALS {
            let Some(ratio) = self.ratio(row, kind) else { continue };
            let key = row.about().0;
            _ = writeln!(text, "{key:16} >= {goal:4.2}:   {kind} {ratio:.2} {}", verdict(ratio >= goal));
        }
        for (name, rows) in [
            ("probes-node", [Row::NodeAgent, Row::NodeReceiving]),
            ("probes-relay", [Row::RelayAgent, Row::RelayReceiving]),
        ] {
            for kind in KINDS {
                let [Some(agent), Some(kernel)] = rows.map(|row| self.value(row, kind)) else { continue };
                let sum = agent + kernel;
                _ = writeln!(text, "{name:16} <= {PROBES_GOAL} %:   {kind} {sum:.1} {}", verdict(sum <= PROBES_GOAL));
            }
        }
        if text.is_empty() { text } else { format!("\ngoals:\n{text}") }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let mut all = json!({ "notes": self.notes });
        for ((row, kind), samples) in &self.samples {
            let entry = json!({
                "value": self.value(*row, *kind),
                "samples": samples,
                "to_vxlan": self.ratio(*row, *kind),
            });
            all[row.about().0][kind.key()] = entry;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_and_what_is_a_share() {
        let mut results = Results::default();
        for (row, kind, sample) in [
            (Row::Frames, Kind::Vxlan, 400.0),
            (Row::Frames, Kind::Xdp, 1300.0),
            (Row::NodeAgent, Kind::Tc, 6.0),
            (Row::NodeReceiving, Kind::Tc, 5.0),
        ] {
            results.add(row, kind, sample);
        }
        assert_eq!(results.ratio(Row::Frames, Kind::Xdp), Some(3.25));
        let text = results.table();
        assert!(text.contains("l2mesh xdp 3.25 reached") && text.contains("l2mesh tc 11.0 short"), "{text}");
    }
}
