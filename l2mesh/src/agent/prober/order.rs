//! In which order relays are tried: by round-trip time, but not for a small difference, nor for a short time.

/// A relay goes before another if its round-trip time is so much less, in percent of the other's.
const LESS: u64 = 80;
/// And has been for so long.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Since when a difference has been worth a change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Patience {
    since_ns: Option<u64>,
}

impl Patience {
    /// True if `is_better` has been true for so long that it is to be followed.
    pub(super) fn is_over(&mut self, is_better: bool, now_ns: u64) -> bool {
        let since = if is_better { *self.since_ns.get_or_insert(now_ns) } else { now_ns };
        let is_over = is_better && now_ns.saturating_sub(since) >= PATIENCE_NS;
        if !is_better || is_over {
            self.since_ns = None;
        }
        is_over
    }
}

/// True if the first is better by so much that it matters. One that was measured is better than one that was not.
pub(super) fn is_better(rtt_ns: Option<u64>, than_ns: Option<u64>) -> bool {
    match (rtt_ns, than_ns) {
        (Some(rtt), Some(than)) => rtt.saturating_mul(100) < than.saturating_mul(LESS),
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// The order in which the paths of a peer are tried.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Order {
    /// For the second before the first, and the third before the second.
    patience: [Patience; 2],
}

impl Order {
    /// Changes places in `order` where that is worth it; `rtt_ns` says the round-trip time of a path. True if it did.
    pub(super) fn follow(&mut self, order: &mut [usize], rtt_ns: impl Fn(usize) -> Option<u64>, now_ns: u64) -> bool {
        let mut changed = false;
        for place in 0..order.len().saturating_sub(1).min(self.patience.len()) {
            let is_better = is_better(rtt_ns(order[place + 1]), rtt_ns(order[place]));
            if self.patience[place].is_over(is_better, now_ns) {
                order.swap(place, place + 1);
                changed = true;
            }
        }
        if changed {
            *self = Self::default();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Follows these round-trip times, one for each of paths 1 to 3, for so many seconds.
    fn after(seconds: u64, rtts: [Option<u64>; 3]) -> Vec<usize> {
        let (mut order, mut paths) = (Order::default(), vec![1, 2, 3]);
        for second in 0..=seconds {
            order.follow(&mut paths, |path| rtts[path - 1], second * SECOND);
        }
        paths
    }

    #[test]
    fn by_time_but_not_at_once() {
        let rtts = [Some(30), Some(20), Some(10)];
        assert_eq!(after(9, rtts), [1, 2, 3]);
        assert_eq!(after(10, rtts), [2, 3, 1], "each one place in ten seconds");
        assert_eq!(after(60, rtts), [3, 2, 1]);
    }

    #[test]
    fn not_for_a_small_difference() {
        assert_eq!(after(600, [Some(100), Some(80), Some(64)]), [1, 2, 3]);
        assert_eq!(after(600, [Some(100), Some(79), Some(64)]), [2, 3, 1]);
        assert_eq!(after(600, [None, None, Some(5)]), [3, 1, 2], "what was measured is better");
        assert_eq!(after(600, [None, None, None]), [1, 2, 3]);
    }

    #[test]
    fn not_for_what_comes_and_goes() {
        let (mut order, mut paths) = (Order::default(), vec![1, 2]);
        for second in 0..600 {
            let better = second % 10 != 9;
            order.follow(&mut paths, |path| Some(if path == 2 && better { 10 } else { 100 }), second * SECOND);
        }
        assert_eq!(paths, [1, 2]);
    }
}
