//! What the prober has counted since the agent began, for whoever scrapes metrics. Written by its thread, read by others.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use l2mesh_common::{
    path::Choice,
    tables::{PEER_SLOTS, PING_SLOT, PeerId},
};

/// Upper ends of the buckets of round-trip times, microseconds; one more has what took longer.
pub(crate) const BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000];

/// Which path frames to a peer take from a change on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// The direct one, which is up.
    Direct,
    /// Through a relay: a failover, or another relay.
    Relay,
    /// None is up.
    None,
}

impl Turn {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Relay, Self::None];

    const fn of(choice: Choice) -> Self {
        match (choice.is_relayed(), choice.is_up) {
            (true, _) => Self::Relay,
            (false, true) => Self::Direct,
            (false, false) => Self::None,
        }
    }

    /// As the value of a label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::None => "none",
        }
    }
}

/// The counts.
#[derive(Debug)]
pub(crate) struct Stats {
    /// By place of the path. Made for the first round-trip time: most paths do not exist.
    rtts: Vec<OnceLock<Box<Histogram>>>,
    /// By peer, and to where.
    turns: Vec<[AtomicU64; 3]>,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Each bucket by itself.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

/// Round-trip times of a path since the agent began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RoundTrips {
    /// How many took no longer than each of [`BOUNDS_US`], and behind them all.
    pub(crate) cumulative: [u64; BOUNDS_US.len() + 1],
    pub(crate) sum: Duration,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            rtts: (0..PING_SLOT).map(|_| OnceLock::new()).collect(),
            turns: (0..PEER_SLOTS).map(|_| Default::default()).collect(),
        }
    }
}

impl Stats {
    /// A probe of a path was answered after so long.
    pub(super) fn answered(&self, slot: u32, rtt_ns: u64) {
        let Some(histogram) = self.rtts.get(slot as usize) else { return };
        let histogram = histogram.get_or_init(Box::default);
        let bucket = BOUNDS_US.partition_point(|&bound| bound * 1000 < rtt_ns);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        histogram.sum_ns.fetch_add(rtt_ns, Ordering::Relaxed);
    }

    /// Frames to a peer take another path.
    pub(super) fn turned(&self, peer: PeerId, to: Choice) {
        if let Some(turns) = self.turns.get(peer as usize) {
            turns[Turn::of(to) as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The path at this place is another one from now on.
    pub(super) fn begin(&self, slot: u32) {
        if let Some(histogram) = self.rtts.get(slot as usize).and_then(OnceLock::get) {
            histogram.buckets.iter().chain([&histogram.sum_ns]).for_each(|number| number.store(0, Ordering::Relaxed));
        }
    }

    /// The peer of this number is another one from now on.
    pub(super) fn begin_peer(&self, peer: PeerId) {
        self.turns.get(peer as usize).into_iter().flatten().for_each(|turns| turns.store(0, Ordering::Relaxed));
    }

    /// What was measured; `None` where nothing was.
    pub(crate) fn round_trips(&self, slot: u32) -> Option<RoundTrips> {
        let histogram = self.rtts.get(slot as usize)?.get()?;
        let mut cumulative = [0; BOUNDS_US.len() + 1];
        let mut all = 0;
        for (sum, bucket) in cumulative.iter_mut().zip(&histogram.buckets) {
            all += bucket.load(Ordering::Relaxed);
            *sum = all;
        }
        let sum = Duration::from_nanos(histogram.sum_ns.load(Ordering::Relaxed));
        (all > 0).then_some(RoundTrips { cumulative, sum })
    }

    /// How often frames to a peer began to take such a path.
    pub(crate) fn turns(&self, peer: PeerId, to: Turn) -> u64 {
        self.turns.get(peer as usize).map_or(0, |turns| turns[to as usize].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_buckets_that_it_does_not_exceed() {
        let stats = Stats::default();
        assert_eq!(stats.round_trips(3), None);
        for rtt_ns in [1, 100_000, 100_001, 250_000, 500_000_000, 500_000_001, 3_000_000_000] {
            stats.answered(3, rtt_ns);
        }
        let found = stats.round_trips(3).expect("some were measured");
        assert_eq!(found.cumulative[..3], [2, 4, 4]);
        assert_eq!(found.cumulative[BOUNDS_US.len() - 1..], [5, 7], "the last one has all");
        assert_eq!(found.sum, Duration::from_nanos(4_000_450_003));
        stats.begin(3);
        assert_eq!(stats.round_trips(3), None, "another path");
    }

    #[test]
    fn turns_by_where_to() {
        let stats = Stats::default();
        stats.turned(7, Choice { path: 2, relay: 1, is_up: true });
        stats.turned(7, Choice { is_up: false, ..Choice::DIRECT });
        stats.turned(7, Choice::DIRECT);
        stats.turned(7, Choice { path: 1, relay: 0, is_up: false });
        assert_eq!(Turn::ALL.map(|to| stats.turns(7, to)), [1, 2, 1]);
        assert_eq!(Turn::ALL.map(|to| stats.turns(6, to)), [0; 3]);
        stats.begin_peer(7);
        assert_eq!(Turn::ALL.map(|to| stats.turns(7, to)), [0; 3], "another peer");
    }
}
