//! Rates from the differences of counters, and numbers that fit six columns.

use std::time::Duration;

use l2mesh_common::tables::{Counter, PeerCounter};

/// Frames and bytes a second, each way.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Rates {
    pub(super) sent_frames: f64,
    pub(super) sent_bytes: f64,
    pub(super) received_frames: f64,
    pub(super) received_bytes: f64,
}

impl Rates {
    /// From one moment to another. Counters that were started anew meanwhile have no rate.
    pub(super) fn between(before: &PeerCounter, now: &PeerCounter, time: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = |count: fn(&PeerCounter) -> u64| {
            count(now).checked_sub(count(before)).map_or(0.0, |more| more as f64 / time.as_secs_f64().max(1e-3))
        };
        Self {
            sent_frames: rate(|it| it.sent.frames),
            sent_bytes: rate(|it| it.sent.octets),
            received_frames: rate(|it| it.received.frames),
            received_bytes: rate(|it| it.received.octets),
        }
    }

    /// In the order of the columns.
    pub(super) fn texts(&self) -> [String; 4] {
        [self.sent_frames, self.sent_bytes, self.received_frames, self.received_bytes].map(short)
    }
}

/// At most six characters: `0`, `950`, `12.3k`, `1.25M`.
pub(super) fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut number, mut unit) = (number.max(0.0), 0);
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    let digits = match number {
        _ if unit == 0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.digits$}{}", UNITS[unit])
}

/// All of several.
pub(super) fn sum(counters: impl Iterator<Item = PeerCounter>) -> PeerCounter {
    let add = |a: Counter, b: Counter| Counter { frames: a.frames + b.frames, octets: a.octets + b.octets };
    counters.fold(PeerCounter::default(), |all, it| PeerCounter {
        sent: add(all.sent, it.sent),
        received: add(all.received, it.received),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, expected) in [
            (0.0, "0"),
            (0.4, "0"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (9_994.0, "9.99k"),
            (9_996.0, "10.0k"),
            (99_960.0, "100k"),
            (999_600.0, "1.00M"),
            (123_456_789.0, "123M"),
            (1e12, "1.00T"),
            (9.99e17, "999000T"),
            (-1.0, "0"),
        ] {
            assert_eq!(short(number), expected, "{number}");
        }
    }

    #[test]
    fn rates() {
        let count = |frames| Counter { frames, octets: 100 * frames };
        let before = PeerCounter { sent: count(10), received: count(50) };
        let now = PeerCounter { sent: count(30), received: count(20) };
        let rates = Rates::between(&before, &now, Duration::from_secs(2));
        assert_eq!(rates.texts(), ["10", "1.00k", "0", "0"], "the second one was started anew");
        assert_eq!(sum([before, now].into_iter()).sent, count(40));
    }
}
