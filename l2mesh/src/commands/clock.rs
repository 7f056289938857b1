//! Times as people and programs read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// A moment by the host's clock, nanoseconds since 1970. For programs it is RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(pub(super) u64);

impl Moment {
    /// The moment of a table; 0 is none.
    pub(super) fn noted(ns: u64) -> Option<Self> {
        (ns != 0).then_some(Self(ns))
    }

    /// By the host's clock.
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// How long ago, at the moment `now`. A clock that was set back makes it no time at all.
    pub(super) fn age(self, now: Self) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.0))
    }
}

/// RFC 3339 in UTC, whole seconds, as in the log.
impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DAY: u64 = 86_400;
        let seconds = self.0 / 1_000_000_000;
        let (year, month, day) = date(seconds / DAY);
        let (hour, minute, second) = (seconds % DAY / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Year, month and day of the Gregorian calendar, so many days after 1 January 1970. Years begin in March here, so that a leap
/// day is the last of one.
fn date(days: u64) -> (u64, u64, u64) {
    const FROM_YEAR_0: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + FROM_YEAR_0;
    let (era, in_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let in_400 = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * in_400 + in_400 / 4 - in_400 / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + in_400 + next_year, month, day)
}

/// A duration in the unit that people would take: `12 s`, `3 min`, `5 h`, `40 d`.
pub(super) fn about(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Nanoseconds in milliseconds, with three decimal places and no more: what follows is noise.
pub(super) fn milliseconds(ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "285 years are less than 2^53 microseconds")]
    let us = ns.saturating_add(500).div_euclid(1000) as f64;
    us / 1000.0
}

/// The same of a number of milliseconds that was computed.
pub(super) fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// Milliseconds with the digits that mean something, without the unit.
pub(super) fn ms_text(ms: f64) -> String {
    match ms {
        ..0.9955 => format!("{ms:.3}"),
        ..9.95 => format!("{ms:.2}"),
        ..99.5 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        // Against `date --utc --rfc-3339=seconds -d @...`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_826_292, "2026-11-28T00:38:12Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment(seconds * 1_000_000_000 + 999_999_999).to_string(), expected);
        }
        assert_eq!(serde_json::to_string(&Moment(1)).expect("a text"), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(Moment::noted(0), None);
        assert_eq!(Moment(5).age(Moment(3)), Duration::ZERO, "a clock set back");
    }

    #[test]
    fn durations() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(about(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn round_trip_times() {
        for (ns, expected) in [
            (0, "0.000"),
            (214_499, "0.214"),
            (994_900, "0.995"),
            (1_000_000, "1.00"),
            (9_940_000, "9.94"),
            (9_960_000, "10.0"),
            (40_123_456, "40.1"),
            (123_456_789, "123"),
        ] {
            assert_eq!(ms_text(milliseconds(ns)), expected, "{ns}");
        }
        let shown = [78_912, 214_499, 123_456_789, 1_000_500]
            .map(|ns| serde_json::to_string(&milliseconds(ns)).expect("a number"));
        assert_eq!(shown, ["0.079", "0.214", "123.457", "1.001"]);
    }
}
