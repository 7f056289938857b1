//! What a ping says.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::super::clock::{milliseconds, ms_text, rounded};
use crate::config::show_duration;

/// What became of a probe.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Outcome {
    /// Counted from 1.
    pub(super) seq: u32,
    /// direct, or via and the relay's name.
    pub(super) path: String,
    /// Null without an answer.
    pub(super) rtt_ms: Option<f64>,
    /// Why it was not even sent.
    pub(super) error: Option<String>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) node: String,
    pub(super) address: String,
    /// Of the inner packets, octets.
    pub(super) size: u16,
    #[serde(skip)]
    pub(super) timeout: Duration,
    pub(super) probes: Vec<Outcome>,
}

/// The report with what follows from it.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    #[serde(flatten)]
    report: &'a Report,
    sent: usize,
    answered: usize,
    /// Of those sent, 0 to 1; null if none was.
    loss: Option<f64>,
    /// Null without an answer.
    rtt_ms: Option<Spread>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Outcome {
    /// An answer, or that there was none in time.
    pub(super) fn new(seq: u32, path: String, rtt_ns: Option<u64>) -> Self {
        Self { seq, path, rtt_ms: rtt_ns.map(milliseconds), error: None }
    }

    /// It was not sent.
    pub(super) fn unsent(seq: u32, path: String, error: String) -> Self {
        Self { seq, path, rtt_ms: None, error: Some(error) }
    }
}

impl Report {
    /// The line about a probe.
    pub(super) fn line(&self, outcome: &Outcome) -> String {
        let Outcome { seq, path, rtt_ms, error } = outcome;
        let via = if path == "direct" { String::new() } else { format!(" {path}") };
        match (rtt_ms, error) {
            (Some(rtt), _) => {
                format!("{} octets from {}{via}: seq={seq} time={} ms", self.size, self.node, ms_text(*rtt))
            }
            (None, Some(error)) => format!("not sent to {}{via}: seq={seq} {error}", self.node),
            (None, None) => {
                format!("no answer from {}{via}: seq={seq} within {}", self.node, show_duration(self.timeout))
            }
        }
    }

    /// What follows from all probes.
    pub(super) fn summary(&self) -> Summary<'_> {
        let mut rtts: Vec<f64> = self.probes.iter().filter_map(|probe| probe.rtt_ms).collect();
        rtts.sort_by(f64::total_cmp);
        let (sent, answered) = (self.probes.iter().filter(|probe| probe.error.is_none()).count(), rtts.len());
        #[expect(clippy::cast_precision_loss, reason = "nobody sends 2^52 probes")]
        let loss = (sent > 0).then(|| (sent - answered) as f64 / sent as f64);
        let spread = |min, max| Spread { min, median: rounded(median(&rtts)), max };
        let rtt_ms = rtts.first().zip(rtts.last()).map(|(&min, &max)| spread(min, max));
        Summary { report: self, sent, answered, loss, rtt_ms }
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

impl Summary<'_> {
    /// True if there is nothing to be glad of.
    pub(super) fn is_silence(&self) -> bool {
        self.answered == 0
    }

    /// The first reason for which a probe was not sent, if none was.
    pub(super) fn why_none_was_sent(&self) -> Option<&str> {
        (self.sent == 0).then(|| self.report.probes.iter().find_map(|probe| probe.error.as_deref()))?
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loss = self.loss.map_or_else(String::new, |loss| format!(", {:.0}% lost", loss * 100.0));
        let probes = if self.sent == 1 { "probe" } else { "probes" };
        write!(f, "{} {probes} sent, {} answered{loss}", self.sent, self.answered)?;
        if let Some(Spread { min, median, max }) = self.rtt_ms {
            let [min, median, max] = [min, median, max].map(ms_text);
            write!(f, "; round trip min/median/max {min}/{median}/{max} ms")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(probes: Vec<Outcome>) -> Report {
        let (node, address) = ("ovh".to_owned(), "192.0.2.10".to_owned());
        Report { node, address, size: 24, timeout: Duration::from_millis(1500), probes }
    }

    fn probe(seq: u32, path: &str, rtt_ns: Option<u64>) -> Outcome {
        Outcome::new(seq, path.to_owned(), rtt_ns)
    }

    #[test]
    fn lines() {
        let all = report(vec![
            probe(1, "direct", Some(214_400)),
            probe(2, "via hetzner", Some(12_345_678)),
            probe(3, "via hetzner", None),
            Outcome::unsent(4, "direct".to_owned(), "nowhere to go".to_owned()),
        ]);
        let lines: Vec<String> = all.probes.iter().map(|probe| all.line(probe)).collect();
        assert_eq!(
            lines,
            [
                "24 octets from ovh: seq=1 time=0.214 ms",
                "24 octets from ovh via hetzner: seq=2 time=12.3 ms",
                "no answer from ovh via hetzner: seq=3 within 1500ms",
                "not sent to ovh: seq=4 nowhere to go",
            ]
        );
        let summary = all.summary();
        assert_eq!(
            summary.to_string(),
            "3 probes sent, 2 answered, 33% lost; round trip min/median/max 0.214/6.28/12.3 ms"
        );
        assert!(!summary.is_silence() && summary.why_none_was_sent().is_none());
        let json = serde_json::to_value(&summary).expect("JSON");
        assert_eq!((&json["node"], &json["sent"], &json["answered"]), (&"ovh".into(), &3.into(), &2.into()));
        assert_eq!((&json["rtt_ms"]["min"], &json["rtt_ms"]["max"]), (&0.214.into(), &12.346.into()));
        assert_eq!(
            json["probes"][2],
            serde_json::json!({ "seq": 3, "path": "via hetzner", "rtt_ms": null, "error": null })
        );
    }

    #[test]
    fn silence() {
        let all = report(vec![probe(1, "direct", None), probe(2, "direct", None)]);
        assert_eq!(all.summary().to_string(), "2 probes sent, 0 answered, 100% lost");
        assert!(all.summary().is_silence() && all.summary().why_none_was_sent().is_none());
        let one = report(vec![probe(1, "direct", None)]);
        assert_eq!(one.summary().to_string(), "1 probe sent, 0 answered, 100% lost");
        let unsent = report(vec![Outcome::unsent(1, "direct".to_owned(), "too long".to_owned())]);
        assert_eq!(unsent.summary().to_string(), "0 probes sent, 0 answered");
        assert_eq!(unsent.summary().why_none_was_sent(), Some("too long"));
    }

    #[test]
    fn the_one_in_the_middle() {
        for (rtts, expected) in [(&[3.0][..], 3.0), (&[1.0, 2.0], 1.5), (&[1.0, 2.0, 9.0], 2.0)] {
            assert!((median(rtts) - expected).abs() < 1e-9);
        }
    }
}
