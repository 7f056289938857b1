//! When the next probe of a path is sent, and how long a path has to prove itself. Times are nanoseconds of one clock.

use std::time::Duration;

/// A path that goes down so soon after coming back has to prove itself for twice as long.
const SOON_NS: u64 = 60_000_000_000;
/// So long without going down, and it is as at the beginning.
const QUIET_NS: u64 = 600_000_000_000;
/// How long a path through a relay is asked often at the beginning.
const BEGINNING_NS: u64 = 30_000_000_000;

/// When the probe after the one that was to be sent at `due` and is sent `now` is to be sent. What was missed is not caught up:
/// after a gap a whole period is waited. Times are whole multiples of `grain`, so that many paths have one awakening.
pub(super) const fn next(due: u64, now: u64, period: u64, grain: u64) -> u64 {
    let late = now.saturating_sub(due);
    if late < period / 2 { due.saturating_add(period) } else { now.saturating_add(period).next_multiple_of(grain) }
}

/// What a path through a relay is like, as far as it says how often it is asked.
#[expect(clippy::struct_excessive_bools, reason = "each is a reason of its own")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    /// A probe of the direct path has not been answered, or it is down.
    pub(super) direct_missed: bool,
    /// Frames take this path, or it is to be found out soon what it takes.
    pub(super) in_use: bool,
    /// Frames may take it.
    pub(super) is_up: bool,
    /// Its latest probe was answered: it is about to come up.
    pub(super) answers: bool,
    /// It was up before.
    pub(super) was_up: bool,
    /// Since it was first asked.
    pub(super) age_ns: u64,
}

/// True if a path through a relay is asked as often as the direct one.
pub(super) const fn is_asked_often(need: &Need) -> bool {
    let proves_itself = !need.is_up && need.answers;
    let begins = !need.was_up && need.age_ns < BEGINNING_NS;
    need.direct_missed || need.in_use || proves_itself || begins
}

/// When the `nth` of `number` paths through relays is first asked, after the first: spread over half a minute, or one after
/// another if that takes less. Each needs about `each` to come up.
pub(super) fn start(nth: usize, number: usize, each: Duration) -> Duration {
    let [nth, number] = [nth, number.max(1)].map(|it| u32::try_from(it).unwrap_or(u32::MAX));
    let spread = Duration::from_nanos(BEGINNING_NS) / number;
    spread.min(each) * nth
}

/// How many answers in a row bring a path back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Recovery {
    /// As configured.
    least: u32,
    /// Ten minutes' worth.
    most: u32,
    answers: u32,
    came_back_ns: Option<u64>,
    /// Since when nothing has happened.
    quiet_since_ns: u64,
}

impl Recovery {
    /// `answers` is what is in force.
    pub(super) fn new(least: u32, interval: Duration, answers: u32, now_ns: u64) -> Self {
        let worth = u128::from(QUIET_NS) / interval.as_nanos().max(1);
        let most = u32::try_from(worth).unwrap_or(u32::MAX).max(least);
        Self { least, most, answers: answers.clamp(least, most), came_back_ns: None, quiet_since_ns: now_ns }
    }

    pub(super) fn went_down(&mut self, now_ns: u64) {
        if self.came_back_ns.is_some_and(|back| now_ns.saturating_sub(back) < SOON_NS) {
            self.answers = self.answers.saturating_mul(2).min(self.most);
        }
        self.quiet_since_ns = now_ns;
    }

    pub(super) fn came_back(&mut self, now_ns: u64) {
        self.came_back_ns = Some(now_ns);
        self.quiet_since_ns = now_ns;
    }

    /// What is to be in force where `now` is: more only while the path is down, since it would take it down, and less only while
    /// it is up, since it would bring it up.
    pub(super) fn in_force(&mut self, now: u32, is_up: bool, now_ns: u64) -> u32 {
        if is_up && now_ns.saturating_sub(self.quiet_since_ns) >= QUIET_NS {
            self.answers = self.least;
        }
        if is_up { now.min(self.answers) } else { now.max(self.answers) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        /// Whatever the lateness, there is half a period between two probes at least, and never more than one and a half after
        /// the time it was due.
        #[test]
        fn no_bursts(due in 0_u64..1 << 50, late in 0_u64..100 * SECOND, period in 2_u64..60 * SECOND) {
            let grain = (period / 20).max(1);
            let now = due + late;
            let next = next(due, now, period, grain);
            prop_assert!(next > now + period / 2 - 1 && next < now + period + grain, "{next}");
            if late < period / 2 {
                prop_assert_eq!(next, due + period, "on the beat");
            } else {
                prop_assert!(next >= now + period, "a whole period after a gap");
            }
        }

        #[test]
        fn recovery(events in prop::collection::vec((any::<bool>(), 1_u64..700), 0..60)) {
            let mut recovery = Recovery::new(10, Duration::from_millis(100), 10, 0);
            let (mut now, mut is_up, mut in_force, mut quiet) = (0, true, 10, 0);
            for (is_change, seconds) in events {
                now += seconds * SECOND;
                quiet += seconds;
                let before = in_force;
                in_force = recovery.in_force(in_force, is_up, now);
                let is_safe = if is_up { in_force <= before } else { in_force >= before };
                prop_assert!(is_safe);
                prop_assert!((10..=6000).contains(&in_force));
                if is_up && quiet >= 600 {
                    prop_assert_eq!(in_force, 10);
                }
                if is_change {
                    is_up = !is_up;
                    quiet = 0;
                    if is_up { recovery.came_back(now) } else { recovery.went_down(now) }
                    in_force = recovery.in_force(in_force, is_up, now);
                }
            }
        }
    }

    #[test]
    fn flapping_doubles() {
        let mut recovery = Recovery::new(10, Duration::from_millis(100), 10, 0);
        let mut in_force = Vec::new();
        for minute in 1..14 {
            let now = minute * 60 * SECOND;
            recovery.went_down(now);
            in_force.push(recovery.in_force(in_force.last().copied().unwrap_or(10), false, now));
            recovery.came_back(now + SECOND);
        }
        assert_eq!(in_force, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 6000, 6000, 6000]);
        // One minute and more after coming back is not soon.
        recovery.went_down(1000 * SECOND);
        assert_eq!(recovery.in_force(6000, false, 1000 * SECOND), 6000);
        recovery.came_back(1001 * SECOND);
        assert_eq!(recovery.in_force(6000, true, 1600 * SECOND), 6000);
        assert_eq!(recovery.in_force(6000, true, 1601 * SECOND), 10);
    }

    #[test]
    fn slow_probes() {
        let mut recovery = Recovery::new(10_000, Duration::from_mins(1), 10_000, 0);
        recovery.came_back(0);
        recovery.went_down(SECOND);
        assert_eq!(recovery.in_force(10_000, false, SECOND), 10_000, "no less than configured");
    }

    #[test]
    fn every_need() {
        for bits in 0..32_u32 {
            let is = |bit: u32| bits >> bit & 1 == 1;
            for age_ns in [0, BEGINNING_NS - 1, BEGINNING_NS, u64::MAX] {
                let need =
                    Need { direct_missed: is(0), in_use: is(1), is_up: is(2), answers: is(3), was_up: is(4), age_ns };
                let expected = is(0) || is(1) || (!is(2) && is(3)) || (!is(4) && age_ns < BEGINNING_NS);
                assert_eq!(is_asked_often(&need), expected, "{need:?}");
            }
        }
    }

    #[test]
    fn starts() {
        let each = Duration::from_secs(1);
        assert_eq!(start(0, 1, each), Duration::ZERO);
        assert_eq!(start(2, 3, each), Duration::from_secs(2));
        assert!(start(767, 768, each) < Duration::from_secs(30));
        assert!(start(767, 768, each) > Duration::from_secs(29));
    }
}
