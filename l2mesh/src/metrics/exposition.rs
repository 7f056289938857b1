//! The text that a scraper reads: `OpenMetrics` 1.0, or the older text format 0.0.4 for those that do not ask for it, as `curl` and
//! `promtool check metrics`. The two differ in how counters are declared and in the last line; crates write one of them.

use std::fmt::{Display, Write as _};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    /// What a scraper's `Accept` header asks for.
    pub(super) fn accepted(header: &str) -> Self {
        if header.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// `Content-Type`.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Names and values of labels.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// A text in the making.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    pub(super) const fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    /// Begins a metric that only grows; its name is without `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        let total = format!("{name}_total");
        self.declare(if self.format == Format::OpenMetrics { name } else { &total }, "counter", help);
        Family { exposition: self, name: total }
    }

    /// Begins one that goes up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.declare(name, "gauge", help);
        Family { exposition: self, name: name.to_owned() }
    }

    /// Begins one of [`Family::histogram`].
    pub(super) fn histogram(&mut self, name: &str, help: &str) -> Family<'_> {
        self.declare(name, "histogram", help);
        Family { exposition: self, name: name.to_owned() }
    }

    /// The whole text.
    pub(super) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn declare(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _infallible = self.text.write_fmt(text);
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &Labels<'_>, le: Option<&str>, value: impl Display) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }
}

/// The samples of one metric.
pub(super) struct Family<'a> {
    exposition: &'a mut Exposition,
    name: String,
}

impl Family<'_> {
    /// One value.
    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.exposition.sample(&self.name, "", labels, None, value);
    }

    /// One histogram: upper ends of buckets with how many are not above, then the number and the sum of all.
    pub(super) fn histogram(
        &mut self,
        labels: &Labels<'_>,
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, below) in buckets {
            self.exposition.sample(&self.name, "_bucket", labels, Some(&bound.to_string()), below);
        }
        self.exposition.sample(&self.name, "_bucket", labels, Some("+Inf"), count);
        self.exposition.sample(&self.name, "_count", labels, None, count);
        self.exposition.sample(&self.name, "_sum", labels, None, sum);
    }
}

/// Names of nodes and networks are the user's.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.counter("l2mesh_frames", "Frames.").sample(&[("peer", "a\"b\\\n"), ("vni", "16")], 7);
        text.gauge("l2mesh_loss_ratio", "Loss.").sample(&[], 0.25);
        let buckets = [(0.0001, 1), (0.5, 3)].into_iter();
        text.histogram("l2mesh_rtt_seconds", "Round trip.").histogram(&[("peer", "ovh")], buckets, 4, 1.5);
        text.end()
    }

    const SAMPLES: &str = "\
# HELP l2mesh_loss_ratio Loss.
# TYPE l2mesh_loss_ratio gauge
l2mesh_loss_ratio 0.25
# HELP l2mesh_rtt_seconds Round trip.
# TYPE l2mesh_rtt_seconds histogram
l2mesh_rtt_seconds_bucket{peer=\"ovh\",le=\"0.0001\"} 1
l2mesh_rtt_seconds_bucket{peer=\"ovh\",le=\"0.5\"} 3
l2mesh_rtt_seconds_bucket{peer=\"ovh\",le=\"+Inf\"} 4
l2mesh_rtt_seconds_count{peer=\"ovh\"} 4
l2mesh_rtt_seconds_sum{peer=\"ovh\"} 1.5
";

    #[test]
    fn both_formats() {
        let counter = "l2mesh_frames_total{peer=\"a\\\"b\\\\\\n\",vni=\"16\"} 7\n";
        let text = "# HELP l2mesh_frames_total Frames.\n# TYPE l2mesh_frames_total counter\n";
        assert_eq!(example(Format::Text), format!("{text}{counter}{SAMPLES}"));
        let open = "# HELP l2mesh_frames Frames.\n# TYPE l2mesh_frames counter\n";
        assert_eq!(example(Format::OpenMetrics), format!("{open}{counter}{SAMPLES}# EOF\n"));
    }

    #[test]
    fn who_asks_for_what() {
        // Prometheus 2.42, curl, a browser.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Text);
        assert_eq!(Format::accepted(""), Format::Text);
    }
}
