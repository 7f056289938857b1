//! The samples and how they are shown.

use std::{collections::BTreeMap, fmt::Write as _};

use l2mesh_tests::Wire;
use serde_json::{Value, json};

use super::{contender::Kind, metric::Metric};

/// Everything that was measured on one kind of wire.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Metric, Kind), Vec<f64>>,
    /// What else is worth a line.
    pub(crate) notes: Vec<String>,
}

/// What this is built for, on wire-size frames: metric, ratio to the kernel's device.
const GOALS: [(Metric, f64); 5] = [
    (Metric::Tcp1, 1.1),
    (Metric::Tcp1Cpu, 0.9),
    (Metric::Receive, 1.5),
    (Metric::TransmitWork, 0.65),
    (Metric::Copies128, 1.3),
];

impl Results {
    /// One more sample.
    pub(crate) fn add(&mut self, kind: Kind, (metric, sample): (Metric, f64)) {
        self.samples.entry((metric, kind)).or_default().push(sample);
    }

    fn value(&self, metric: Metric, kind: Kind) -> Option<f64> {
        if let Some(whole) = metric.over_bare() {
            let bare = self.value(whole, Kind::Bare)?;
            let time = self.value(whole, kind).filter(|_| kind != Kind::Bare)?;
            return Some(time - bare);
        }
        metric.value(self.samples.get(&(metric, kind))?)
    }

    fn ratio(&self, metric: Metric, kind: Kind, to: Kind) -> Option<f64> {
        let (value, base) = (self.value(metric, kind)?, self.value(metric, to)?);
        (base > 0.0).then_some(value / base)
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics: Vec<_> = self.samples.keys().map(|(metric, _)| *metric).collect();
        let work = [Metric::TransmitWork, Metric::V6TransmitWork];
        metrics.extend(
            work.into_iter()
                .filter(|work| work.over_bare().is_some_and(|it| metrics.contains(&it)))
                .collect::<Vec<_>>(),
        );
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    /// For people.
    pub(crate) fn table(&self, wire: Wire) -> String {
        let title = match wire {
            Wire::Frames => "wire-size frames",
            Wire::Plain => "plain veth: 64 KiB frames without checksums cross the underlay",
        };
        let mut text = format!("\n{title}\n{:32}", "");
        for kind in Kind::ALL {
            _ = write!(text, "{kind:>12}");
        }
        text.push('\n');
        for metric in self.metrics() {
            let about = metric.about();
            let row = |text: &mut String, name: String, cell: &dyn Fn(Kind) -> Option<f64>, digits| {
                if Kind::ALL.iter().all(|kind| cell(*kind).is_none()) {
                    return;
                }
                _ = write!(text, "{name:32}");
                for kind in Kind::ALL {
                    let cell = cell(kind).map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
                    _ = write!(text, "{cell:>12}");
                }
                text.push('\n');
            };
            let name = format!("{} ({})", about.title, about.unit);
            row(&mut text, name, &|kind| self.value(metric, kind), about.digits);
            let arrow = if about.more { "more is better" } else { "less is better" };
            let name = format!("    x vxlan, {arrow}");
            row(&mut text, name, &|kind| self.ratio(metric, kind, Kind::Vxlan), 2);
            row(&mut text, "    x bare".to_owned(), &|kind| self.ratio(metric, kind, Kind::Bare), 2);
        }
        for note in &self.notes {
            _ = writeln!(text, "{note}");
        }
        if wire == Wire::Frames {
            text.push_str(&self.goals());
        }
        text
    }

    fn goals(&self) -> String {
        let mut text = String::from("\ngoals, as ratios to the kernel's device (mode auto is tc on veth):\n");
        for (metric, goal) in GOALS {
            let about = metric.about();
            let ratios = [Kind::Tc, Kind::Xdp].map(|kind| (kind, self.ratio(metric, kind, Kind::Vxlan)));
            let (sign, name) = (if about.more { ">=" } else { "<=" }, about.key);
            _ = write!(text, "{name:16} {sign} {goal:4.2}:");
            for (kind, ratio) in ratios {
                let Some(ratio) = ratio else { continue };
                let reached = if about.more { ratio >= goal } else { ratio <= goal };
                _ = write!(text, "   {kind} {ratio:.2} {}", if reached { "reached" } else { "short" });
            }
            text.push('\n');
        }
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let metrics = self.metrics().into_iter().map(|metric| {
            let about = metric.about();
            let contenders = Kind::ALL.into_iter().filter_map(|kind| {
                let value = self.value(metric, kind)?;
                let entry = json!({
                    "value": value,
                    "samples": self.samples.get(&(metric, kind)).cloned().unwrap_or_default(),
                    "to_vxlan": self.ratio(metric, kind, Kind::Vxlan),
                    "to_bare": self.ratio(metric, kind, Kind::Bare),
                });
                Some((kind.key().to_owned(), entry))
            });
            let contenders: serde_json::Map<_, _> = contenders.collect();
            let entry = json!({ "unit": about.unit, "more_is_better": about.more, "contenders": contenders });
            (about.key.to_owned(), entry)
        });
        json!({ "metrics": metrics.collect::<serde_json::Map<_, _>>(), "notes": self.notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_what_a_frame_costs_over_bare() {
        let mut results = Results::default();
        for (kind, samples) in [(Kind::Bare, [110.0, 100.0]), (Kind::Vxlan, [300.0, 310.0]), (Kind::Tc, [250.0, 200.0])]
        {
            for sample in samples {
                results.add(kind, (Metric::Transmit, sample));
            }
        }
        assert_eq!(results.value(Metric::TransmitWork, Kind::Bare), None);
        assert_eq!(results.ratio(Metric::TransmitWork, Kind::Tc, Kind::Vxlan), Some(0.5));
        assert!(results.goals().contains("l2mesh tc 0.50 reached"), "{}", results.goals());
    }
}
