//! Round-trip times of the last minute, in buckets that are a sixteenth wide: what is read is 3.2 % off at most.

/// Buckets of each power of two.
const PARTS: u32 = 16;
/// The least that is told apart: 2^10 ns, a microsecond.
const LEAST: u32 = 10;
/// 2^35 ns, half a minute, and more.
const GREATEST: u32 = 35;
const BUCKETS: usize = ((GREATEST - LEAST) * PARTS) as usize;
/// The minute has so many turns, and one more is being filled.
const TURNS: usize = 7;
const TURN_NS: u64 = 10_000_000_000;

/// What is known of a minute, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Summary {
    pub(super) least: u64,
    pub(super) median: u64,
    /// What 99 of 100 do not exceed.
    pub(super) p99: u64,
    /// Rounded up: nothing was longer.
    pub(super) greatest: u64,
}

/// The times, by when they were measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Rtts {
    /// Made for the first one: most paths through relays are asked seldom.
    turns: Option<Box<[[u16; BUCKETS]; TURNS]>>,
    current: usize,
    /// When the current turn began.
    began_ns: u64,
}

impl Rtts {
    /// A time was measured.
    pub(super) fn note(&mut self, rtt_ns: u64, now_ns: u64) {
        self.pass(now_ns);
        let turns = self.turns.get_or_insert_with(|| Box::new([[0; BUCKETS]; TURNS]));
        let count = &mut turns[self.current][bucket(rtt_ns)];
        *count = count.saturating_add(1);
    }

    /// Forgets what is older than a minute.
    fn pass(&mut self, now_ns: u64) {
        let Some(turns) = &mut self.turns else {
            self.began_ns = now_ns;
            return;
        };
        let passed = now_ns.saturating_sub(self.began_ns) / TURN_NS;
        for _ in 0..passed.min(TURNS as u64) {
            self.current = (self.current + 1) % TURNS;
            turns[self.current] = [0; BUCKETS];
        }
        self.began_ns += passed * TURN_NS;
    }

    /// What the last minute was like; `None` if nothing was measured.
    pub(super) fn summary(&mut self, now_ns: u64) -> Option<Summary> {
        self.pass(now_ns);
        let turns = self.turns.as_ref()?;
        let mut sums = [0_u32; BUCKETS];
        for turn in &**turns {
            for (sum, &count) in sums.iter_mut().zip(turn) {
                *sum += u32::from(count);
            }
        }
        let total: u32 = sums.iter().sum();
        // The bucket in which the nth is, from 1.
        let at = |nth: u32| {
            let mut before = 0;
            sums.iter().position(|count| {
                before += count;
                before >= nth
            })
        };
        let middle = |nth: u32| at(nth).map(|bucket| lower(bucket).midpoint(lower(bucket + 1)));
        Some(Summary {
            least: middle(1).filter(|_| total > 0)?,
            median: middle(total.div_ceil(2))?,
            p99: middle(total - total / 100)?,
            greatest: at(total).map(|bucket| lower(bucket + 1))?,
        })
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1 << LEAST);
    let power = ns.ilog2();
    if power >= GREATEST {
        return BUCKETS - 1;
    }
    // The four digits behind the first.
    let part = ns >> (power - PARTS.ilog2()) & u64::from(PARTS - 1);
    let bucket = u64::from((power - LEAST) * PARTS) + part;
    usize::try_from(bucket).unwrap_or(BUCKETS - 1)
}

/// Where a bucket begins.
fn lower(bucket: usize) -> u64 {
    let parts = PARTS as usize;
    let (power, part) = (bucket / parts, bucket % parts);
    ((parts + part) as u64) << (LEAST as usize + power - PARTS.ilog2() as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn is_close(found: u64, exact: u64) -> bool {
        found.abs_diff(exact) * 100 <= 5 * exact
    }

    proptest! {
        #[test]
        fn off_by_less_than_five_percent(mut times in prop::collection::vec(2_000_u64..20_000_000_000, 1..300)) {
            let mut rtts = Rtts::default();
            for &time in &times {
                rtts.note(time, 5 * SECOND);
            }
            times.sort_unstable();
            let found = rtts.summary(6 * SECOND).expect("some were measured");
            let nth = |nth: usize| times[nth - 1];
            let n = times.len();
            prop_assert!(is_close(found.least, nth(1)), "{found:?} {times:?}");
            prop_assert!(is_close(found.median, nth(n.div_ceil(2))), "{found:?} {times:?}");
            prop_assert!(is_close(found.p99, nth(n - n / 100)), "{found:?} {times:?}");
            prop_assert!(found.greatest >= nth(n) && found.greatest <= nth(n) + nth(n) / 15);
        }
    }

    #[test]
    fn a_minute_and_no_more() {
        let mut rtts = Rtts::default();
        assert_eq!(rtts.summary(0), None);
        rtts.note(500_000_000, 100 * SECOND);
        for second in 101..250 {
            rtts.note(1_000_000, second * SECOND);
            let greatest = rtts.summary(second * SECOND).expect("one a second").greatest;
            match second {
                ..=160 => assert!(greatest >= 500_000_000, "{second}: forgotten too soon"),
                170.. => assert!(greatest < 1_100_000, "{second}: {greatest} is still there"),
                _ => {}
            }
        }
        assert_eq!(rtts.summary(10_000 * SECOND), None);
    }

    #[test]
    fn the_extremes() {
        for (rtt, greatest) in [(0, 1088), (1, 1088), (u64::MAX, 1 << GREATEST)] {
            let mut rtts = Rtts::default();
            rtts.note(rtt, 0);
            assert_eq!(rtts.summary(0).map(|it| it.greatest), Some(greatest), "{rtt}");
        }
    }
}
