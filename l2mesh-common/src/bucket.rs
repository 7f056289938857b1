//! Token buckets, each a single number: how many frames go in a second, and how many at once.
//!
//! The number is the time at which the bucket is full again (the virtual scheduling algorithm of ITU-T I.371 annex A).
//! A frame takes from a bucket that is not empty, also more than there is: a merged frame of many segments goes
//! through, and what follows waits for it.
//!
//! **Why the default is what it is.** What a few hundred hosts need: one VRRP advertisement a second and router (ten with
//! fast timers), about one ARP request or neighbour solicitation a second and host at worst, and after a power failure
//! some twenty frames each within ten seconds (DHCP, address detection, MLD, mDNS): for 500 hosts 1,000 frames a second, so
//! that is the least. What a processor can give: a copy costs about 0.8 µs, so 500,000 copies a second are two fifths of
//! one, and with 512 peers that is again 1,000 frames a second. With fewer peers the same price buys more, up to 10,000:
//! then the quarter that one source may use carries two video streams of 10 Mb/s, and receivers, for whom it is
//! the frame that costs, lose a few percent of a processor.

/// The least that a bucket holds, as time: more than the tick of a coarse clock.
const DEPTH_NS: u64 = 250_000_000;
/// The least that a bucket holds, as frames: a station that starts sends so many at once.
const DEPTH_FRAMES: u64 = 16;
const SECOND_NS: u64 = 1_000_000_000;

/// What a bucket lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// What one frame takes.
    interval_ns: u64,
    /// What a full bucket holds.
    depth_ns: u64,
}

impl Rate {
    /// Frames per second, 1 where 0 is given, and at once a quarter of that, or 16 if that is more.
    #[inline(always)]
    #[must_use]
    pub const fn per_second(frames: u32) -> Self {
        let frames = if frames == 0 { 1 } else { frames };
        Self::one_in(SECOND_NS / frames as u64)
    }

    /// One in so many nanoseconds, and 16 at once, or what a quarter of a second makes if that is more.
    #[inline(always)]
    #[must_use]
    pub const fn one_in(interval_ns: u64) -> Self {
        let frames_ns = interval_ns * DEPTH_FRAMES;
        Self { interval_ns, depth_ns: if frames_ns > DEPTH_NS { frames_ns } else { DEPTH_NS } }
    }

    /// True if a bucket that is full again at `full_at_ns` holds anything.
    #[inline(always)]
    #[must_use]
    pub const fn admits(self, full_at_ns: u64, now_ns: u64) -> bool {
        full_at_ns.saturating_sub(now_ns) < self.depth_ns
    }

    /// When the bucket is full again after so many frames more.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, full_at_ns: u64, now_ns: u64, frames: u32) -> u64 {
        let from = if full_at_ns > now_ns { full_at_ns } else { now_ns };
        from + self.cost_ns(frames)
    }

    /// What so many frames take.
    #[inline(always)]
    #[must_use]
    pub const fn cost_ns(self, frames: u32) -> u64 {
        self.interval_ns * frames as u64
    }

    /// Takes one from a bucket that only one uses; false leaves it as it was.
    #[must_use]
    pub const fn take(self, full_at_ns: &mut u64, now_ns: u64) -> bool {
        let admits = self.admits(*full_at_ns, now_ns);
        if admits {
            *full_at_ns = self.after(*full_at_ns, now_ns, 1);
        }
        admits
    }
}

/// A storm is over when nothing was refused for so long. While it lasts, the agent is told of it as often.
pub const QUIET_NS: u64 = 5 * SECOND_NS;

/// True if a storm is over of which a frame was last refused at that time.
#[inline(always)]
#[must_use]
pub const fn is_over(dropped_at_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(dropped_at_ns) >= QUIET_NS
}

/// Flooded frames per second in a network whose limit nobody wrote down; see above.
#[must_use]
pub const fn default_storm_limit(peers: usize) -> u32 {
    const COPIES: u32 = 500_000;
    match COPIES / if peers == 0 { 1 } else { peers as u32 } {
        ..1_000 => 1_000,
        frames @ 1_000..10_000 => frames,
        _ => 10_000,
    }
}

/// Of a network's limit, what a single source MAC may use: storms have one source, as a rule.
#[inline(always)]
#[must_use]
pub const fn share_of_source(limit: u32) -> u32 {
    limit / 4
}

/// Of a network's limit, what may come from a single peer.
#[inline(always)]
#[must_use]
pub const fn share_of_peer(limit: u32) -> u32 {
    limit / 2
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn defaults_by_peers() {
        for (peers, limit) in [(0, 10_000), (2, 10_000), (50, 10_000), (51, 9_803), (512, 1_000), (4_000, 1_000)] {
            assert_eq!(default_storm_limit(peers), limit, "{peers} peers");
        }
    }

    #[test]
    fn a_full_bucket_gives_a_quarter_of_a_second_at_once() {
        for (rate, burst) in [(1, 16), (64, 16), (100, 25), (10_000, 2_500)] {
            let (rate, mut bucket) = (Rate::per_second(rate), 0);
            let admitted = (0..100_000).filter(|_| rate.take(&mut bucket, SECOND_NS)).count();
            assert_eq!(admitted, burst, "{rate:?}");
        }
    }

    #[test]
    fn more_than_the_clock_can_tell_apart_is_no_limit() {
        let (rate, mut bucket) = (Rate::per_second(u32::MAX), 0);
        assert!((0..1_000_000).all(|_| rate.take(&mut bucket, SECOND_NS)));
    }

    /// Frames, as the time since the one before and how many segments each has.
    fn arrivals() -> impl Strategy<Value = Vec<(u64, u32)>> {
        proptest::collection::vec((prop_oneof![0..50_000_u64, 0..SECOND_NS], 1..=64_u32), 1..300)
    }

    proptest! {
        /// Whatever arrives: from any frame admitted to any later one, what is admitted is bounded by the time between
        /// them, one burst and the last frame's segments.
        #[test]
        fn never_more_than_rate_and_burst(frames in 1..100_000_u32, arrivals in arrivals()) {
            let rate = Rate::per_second(frames);
            let (mut now, mut bucket, mut admitted) = (SECOND_NS, 0, Vec::new());
            for (pause, segments) in arrivals {
                now += pause;
                if rate.admits(bucket, now) {
                    bucket = rate.after(bucket, now, segments);
                    admitted.push((now, segments));
                }
            }
            for (index, (start, _)) in admitted.iter().enumerate() {
                let mut taken_ns = 0;
                for (end, segments) in &admitted[index..] {
                    prop_assert!(taken_ns <= rate.depth_ns + (end - start), "{taken_ns} from {start} to {end}");
                    taken_ns += rate.cost_ns(*segments);
                }
            }
        }

        /// Who keeps to the rate is never refused, even if the clock stands still for a tick at a time.
        #[test]
        fn who_keeps_to_the_rate_always_passes(frames in 1..10_000_u32, tick_ms in 1..=10_u64, count in 1..500_u64) {
            let (rate, tick) = (Rate::per_second(frames), tick_ms * 1_000_000);
            let mut bucket = 0;
            for nth in 0..count {
                let exact = SECOND_NS + nth * rate.interval_ns;
                prop_assert!(rate.take(&mut bucket, exact / tick * tick), "frame {nth}");
            }
        }

        /// After a pause as long as the bucket is deep it is as if nothing had been, unless a frame took more than there was.
        #[test]
        fn it_fills_up_again(frames in 1..1_000_000_u32, taken in 0..2_000_usize) {
            let (rate, mut bucket) = (Rate::per_second(frames), 0);
            for _ in 0..taken {
                let _refused = rate.take(&mut bucket, SECOND_NS);
            }
            let later = SECOND_NS + rate.depth_ns + rate.interval_ns;
            prop_assert!(bucket <= later);
            prop_assert_eq!(rate.after(bucket, later, 1), rate.after(0, later, 1));
        }

        /// A clock read on another CPU a little earlier gives nothing away.
        #[test]
        fn a_clock_that_goes_back_gives_nothing(frames in 1..100_000_u32, now in SECOND_NS..2 * SECOND_NS, back in 0..1_000_000_u64) {
            let (rate, mut bucket) = (Rate::per_second(frames), 0);
            while rate.take(&mut bucket, now) {}
            prop_assert!(!rate.admits(bucket, now - back));
        }

        /// What the kernel does where two CPUs take at once: whoever comes second adds its cost to what the first made of it.
        #[test]
        fn two_at_once_take_as_one_after_the_other(frames in 1..100_000_u32, full_at in 0..2 * SECOND_NS, a in 1..64_u32, b in 1..64_u32) {
            let (rate, now) = (Rate::per_second(frames), SECOND_NS);
            let first = rate.after(full_at, now, a);
            prop_assert_eq!(rate.after(first, now, b), first + rate.cost_ns(b));
        }

        #[test]
        fn shares_add_up(limit: u32) {
            prop_assert!(u64::from(share_of_source(limit)) * 4 <= u64::from(limit));
            prop_assert!(u64::from(share_of_peer(limit)) * 2 <= u64::from(limit));
        }
    }
}
