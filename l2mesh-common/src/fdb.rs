//! What a received frame does to the table of MAC addresses (design.md 6).

use crate::tables::{FdbEntry, PeerId};

/// An entry is written at most this often for frames that change nothing: a shared cache line
/// written per frame costs more than everything else here. Nanoseconds.
pub const REFRESH_NS: u64 = 1_000_000_000;

/// What to do with the entry of a frame's source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learning {
    /// Nothing: it is right and fresh.
    Keep,
    /// Note the time.
    Refresh,
    /// It is behind another peer now.
    Move,
    /// It is static, and behind another peer: leave it.
    Refuse,
    /// It has moved too often, and is kept behind another peer for a while.
    Frozen,
}

/// Decides for an entry found, a frame from `peer`, at `now_ns`.
#[inline(always)]
#[must_use]
pub const fn learning(entry: &FdbEntry, peer: PeerId, now_ns: u64) -> Learning {
    match (entry.is_static(), entry.peer == peer) {
        (true, false) => Learning::Refuse,
        (false, false) if entry.is_frozen(now_ns) => Learning::Frozen,
        (false, false) => Learning::Move,
        (false, true) if now_ns.saturating_sub(entry.seen_ns) >= REFRESH_NS => Learning::Refresh,
        (_, true) => Learning::Keep,
    }
}

/// True if nothing was received from this MAC for `max_age_ns`. Sending to it does not count: a dead
/// station would never age while anybody still tries to reach it.
#[must_use]
pub const fn is_aged(entry: &FdbEntry, now_ns: u64, max_age_ns: u64) -> bool {
    !entry.is_static() && !entry.is_frozen(now_ns) && now_ns.saturating_sub(entry.seen_ns) > max_age_ns
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use proptest::prelude::*;

    use super::*;

    fn entry(peer: PeerId, flags: u32, seen_ns: u64) -> FdbEntry {
        FdbEntry { peer, flags, seen_ns, ..FdbEntry::zeroed() }
    }

    fn frozen(peer: PeerId, until_ns: u64) -> FdbEntry {
        FdbEntry { frozen_until_ns: until_ns, ..entry(peer, 0, 0) }
    }

    #[test]
    fn every_case() {
        let now = 10 * REFRESH_NS;
        for (found, from, expected) in [
            (entry(1, 0, now), 1, Learning::Keep),
            (entry(1, 0, now - REFRESH_NS), 1, Learning::Refresh),
            (entry(1, 0, now), 2, Learning::Move),
            (entry(1, FdbEntry::STATIC, 0), 1, Learning::Keep),
            (entry(1, FdbEntry::STATIC, 0), 2, Learning::Refuse),
            (frozen(1, now + 1), 1, Learning::Refresh),
            (frozen(1, now + 1), 2, Learning::Frozen),
            (frozen(1, now), 2, Learning::Move),
        ] {
            assert_eq!(learning(&found, from, now), expected, "{found:?} from {from}");
        }
    }

    proptest! {
        #[test]
        fn static_never_moves_nor_ages(peer: u32, from: u32, seen: u64, now: u64, age: u64) {
            let found = entry(peer, FdbEntry::STATIC, seen);
            prop_assert!(matches!(learning(&found, from, now), Learning::Keep | Learning::Refuse));
            prop_assert!(!is_aged(&found, now, age));
        }

        #[test]
        fn what_is_frozen_neither_moves_nor_ages(peer: u32, from: u32, until in 1..u64::MAX, earlier in 1..u64::MAX) {
            let (found, now) = (frozen(peer, until), until.saturating_sub(earlier));
            prop_assert!(learning(&found, from, now) != Learning::Move && !is_aged(&found, now, 0));
        }

        #[test]
        fn what_is_refreshed_in_time_does_not_age(seen: u64, later in 0..300_000_000_000_u64) {
            prop_assert!(!is_aged(&entry(1, 0, seen), seen.saturating_add(later), 300_000_000_000));
        }

        #[test]
        fn a_clock_read_on_another_cpu_a_little_earlier_does_no_harm(seen: u64, earlier in 0..1_000_u64) {
            let now = seen.saturating_sub(earlier);
            prop_assert_eq!(learning(&entry(1, 0, seen), 1, now), Learning::Keep);
            prop_assert!(!is_aged(&entry(1, 0, seen), now, 0));
        }
    }
}
