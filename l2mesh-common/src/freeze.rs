//! MAC addresses that move too often, and where they stay then (design.md 6).
//!
//! What is kept of an address that has moved is where its last stays were. It answers both questions: how often it moved
//! lately, and who had it longest.

use bytemuck::{Pod, Zeroable};

use crate::tables::PeerId;

/// Stays that are remembered: one more than the moves of the greatest limit make.
pub const STAYS: usize = 16;
/// The greatest limit of moves.
pub const MOVE_LIMIT_MAX: u32 = STAYS as u32 - 2;
/// Moves are counted over so long a time.
pub const MOVES_NS: u64 = 10 * SECOND_NS;
/// Stays count as far as they lie in the last five minutes.
pub const HELD_NS: u64 = 300 * SECOND_NS;

const SECOND_NS: u64 = 1_000_000_000;

/// Behind which peer an address came to be, and when: nanoseconds with the peer's id for the last 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(transparent)]
struct Stay(u64);

impl Stay {
    const PEER: u64 = 0xffff;

    #[inline(always)]
    const fn new(peer: PeerId, since_ns: u64) -> Self {
        Self(since_ns & !Self::PEER | peer as u64 & Self::PEER)
    }

    #[inline(always)]
    const fn peer(self) -> PeerId {
        (self.0 & Self::PEER) as PeerId
    }

    #[inline(always)]
    const fn since_ns(self) -> u64 {
        self.0 & !Self::PEER
    }
}

/// The last stays of a MAC address that has moved. All zero is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Stays {
    /// Stays so far, those forgotten included.
    count: u64,
    /// The nth is at n modulo [`STAYS`].
    last: [Stay; STAYS],
}

impl Stays {
    /// An address that has never moved.
    pub const NONE: Self = Self { count: 0, last: [Stay(0); STAYS] };

    /// Notes that an address, at `from` since `since_ns`, was found behind `to`. True if it has moved more than `limit`
    /// times in ten seconds now; a limit of 0 is none.
    #[inline(always)]
    pub fn moved(&mut self, from: PeerId, since_ns: u64, to: PeerId, now_ns: u64, limit: u32) -> bool {
        if self.count == 0 {
            self.push(Stay::new(from, since_ns));
        }
        // Another CPU has noted this one.
        if self.stay(1).peer() == to {
            return false;
        }
        self.push(Stay::new(to, now_ns));
        limit != 0 && self.is_over(limit, now_ns)
    }

    /// Forgets all: what is frozen begins anew.
    #[inline(always)]
    pub const fn clear(&mut self) {
        self.count = 0;
    }

    #[inline(always)]
    fn push(&mut self, stay: Stay) {
        self.last[self.count as usize % STAYS] = stay;
        self.count += 1;
    }

    /// True if the stay that began `limit` moves before the last began not so long ago.
    #[inline(always)]
    fn is_over(&self, limit: u32, now_ns: u64) -> bool {
        let limit = u64::from(if limit > MOVE_LIMIT_MAX { MOVE_LIMIT_MAX } else { limit });
        // The first stay began with no move.
        if self.count < limit + 2 {
            return false;
        }
        let since = self.stay(limit + 1).since_ns();
        now_ns.saturating_sub(since) < MOVES_NS
    }

    /// The last stay is 1, the one before 2; up to [`STAYS`], and those after the first are meaningless.
    #[inline(always)]
    const fn stay(&self, back: u64) -> Stay {
        self.last[self.count.wrapping_sub(back) as usize % STAYS]
    }
}

/// The search for the peer that had an address longest in the last five minutes, as far as is remembered; of several, the
/// one that had it first. In steps, because the verifier follows an ordinary loop within a loop down every way.
#[derive(Debug)]
pub struct Longest<'a> {
    stays: &'a Stays,
    now_ns: u64,
    /// Whose time is being summed up, what it comes to, and up to where stays lie before those already seen.
    peer: PeerId,
    held_ns: u64,
    until_ns: u64,
    /// The best so far.
    best: PeerId,
    greatest_ns: u64,
}

impl<'a> Longest<'a> {
    /// So many, from 0 on: every stay against every other.
    pub const STEPS: u32 = (STAYS * STAYS) as u32;

    /// The beginning of the search.
    #[inline(always)]
    #[must_use]
    pub const fn new(stays: &'a Stays, now_ns: u64) -> Self {
        let peer = stays.stay(1).peer();
        Self { stays, now_ns, peer, held_ns: 0, until_ns: now_ns, best: peer, greatest_ns: 0 }
    }

    /// One step.
    #[inline(always)]
    pub const fn step(&mut self, index: u32) {
        let (nth, back) = (index as u64 / STAYS as u64 + 1, index as u64 % STAYS as u64 + 1);
        if nth > self.stays.count || back > self.stays.count {
            return;
        }
        if back == 1 {
            (self.peer, self.held_ns, self.until_ns) = (self.stays.stay(nth).peer(), 0, self.now_ns);
        }
        let stay = self.stays.stay(back);
        let window = self.now_ns.saturating_sub(HELD_NS);
        let since = if stay.since_ns() > window { stay.since_ns() } else { window };
        if stay.peer() == self.peer {
            self.held_ns += self.until_ns.saturating_sub(since);
        }
        if since < self.until_ns {
            self.until_ns = since;
        }
        // The sum only grows: it is complete where it matters.
        if self.held_ns >= self.greatest_ns {
            (self.best, self.greatest_ns) = (self.peer, self.held_ns);
        }
    }

    /// After the last step.
    #[inline(always)]
    #[must_use]
    pub const fn found(&self) -> PeerId {
        self.best
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// An address on its way: what the table of MAC addresses knows of it besides its stays.
    struct Address {
        stays: Stays,
        peer: PeerId,
        since_ns: u64,
    }

    impl Address {
        fn at(peer: PeerId, since_ns: u64) -> Self {
            Self { stays: Stays::NONE, peer, since_ns }
        }

        fn moves(&mut self, to: PeerId, now_ns: u64, limit: u32) -> Option<PeerId> {
            let is_over = self.stays.moved(self.peer, self.since_ns, to, now_ns, limit);
            let frozen = is_over.then(|| {
                let mut search = Longest::new(&self.stays, now_ns);
                (0..Longest::STEPS).for_each(|index| search.step(index));
                let longest = search.found();
                self.stays.clear();
                longest
            });
            (self.peer, self.since_ns) = (frozen.unwrap_or(to), now_ns);
            frozen
        }
    }

    const START: u64 = 10_000 * SECOND_NS;

    #[test]
    fn the_sixth_move_in_ten_seconds_freezes_where_it_was_longest() {
        // Long at 7, then to and fro: 7 had it for minutes, 9 for most of the last two seconds.
        let mut address = Address::at(7, START - 200 * SECOND_NS);
        let frozen: Vec<_> = (0..6_u64)
            .map(|nth| {
                let (to, at) = if nth % 2 == 0 { (9, nth * 300_000_000) } else { (7, nth * 300_000_000 + 200_000_000) };
                address.moves(to, START + at, 5)
            })
            .collect();
        assert_eq!(frozen, [None, None, None, None, None, Some(7)]);
        // It begins anew where it is frozen.
        assert_eq!((0..5).find_map(|nth| address.moves(9 - nth % 2 * 2, START + 60 * SECOND_NS, 5)), None);
        assert_eq!(address.moves(7, START + 61 * SECOND_NS, 5), Some(7));
    }

    #[test]
    fn what_is_older_than_five_minutes_counts_for_nothing() {
        // An hour at 7; then five minutes at 9, but for a visit.
        let mut address = Address::at(7, START - 3_600 * SECOND_NS);
        address.moves(9, START, 5);
        address.moves(8, START + 290 * SECOND_NS, 5);
        let storm = START + 300 * SECOND_NS;
        let frozen = (0..6).find_map(|nth| address.moves(7 + nth % 2, storm + u64::from(nth), 5));
        assert_eq!(frozen, Some(9));
    }

    #[test]
    fn no_limit_freezes_nothing() {
        let mut address = Address::at(1, START);
        assert_eq!((0..1_000).find_map(|nth| address.moves(nth % 3, START, 0)), None);
    }

    /// A failover and its end, again and again, as often as the limit allows.
    #[test]
    fn to_and_fro_in_measure_is_never_frozen() {
        let mut address = Address::at(1, START);
        let frozen = (1..1_000).find_map(|nth| address.moves((nth % 2) as PeerId, START + nth * 2 * SECOND_NS, 5));
        assert_eq!(frozen, None);
    }

    /// The moves of an address: pauses and places.
    fn moves() -> impl Strategy<Value = Vec<(u64, PeerId)>> {
        let pause = prop_oneof![0..SECOND_NS, 0..4 * SECOND_NS, 0..100 * SECOND_NS];
        proptest::collection::vec((pause, 0..5_u32), 0..40)
    }

    proptest! {
        /// Against all moves that there were, written down.
        #[test]
        fn as_the_whole_history_says(first_s in 0..400_u64, limit in 1..=MOVE_LIMIT_MAX, moves in moves()) {
            let mut now = START;
            let mut address = Address::at(0, START - first_s * SECOND_NS);
            let mut history = Vec::from([(address.since_ns, 0)]);
            for (pause, to) in moves {
                if to == address.peer {
                    continue;
                }
                now += pause;
                history.push((now, to));
                let recent = history[1..].iter().filter(|(at, _)| now - (at & !0xffff) < MOVES_NS).count();
                let frozen = address.moves(to, now, limit);
                prop_assert_eq!(frozen.is_some(), recent > limit as usize, "{} moves: {:?}", recent, history);
                if let Some(frozen) = frozen {
                    let remembered = &history[history.len().saturating_sub(STAYS)..];
                    let held = held(remembered, now);
                    let greatest = held.values().max().copied();
                    // Each stay is noted to 65 us.
                    let margin = STAYS as u64 * 0x1_0000;
                    prop_assert!(held[&frozen] + margin >= greatest.unwrap_or(0), "{frozen}: {held:?}");
                    history = Vec::from([(now, frozen)]);
                }
            }
        }

        #[test]
        fn any_octets_are_stays(octets in any::<[u8; 136]>(), now: u64, since: u64, limit: u32) {
            let mut stays: Stays = bytemuck::pod_read_unaligned(&octets);
            stays.count >>= 1;
            let _is_over = stays.moved(1, since, 2, now, limit);
            let mut search = Longest::new(&stays, now);
            (0..Longest::STEPS).for_each(|index| search.step(index));
        }
    }

    fn held(history: &[(u64, PeerId)], now: u64) -> BTreeMap<PeerId, u64> {
        let ends = history.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let mut held = BTreeMap::new();
        for ((since, peer), until) in history.iter().zip(ends) {
            let since = (*since).max(now - HELD_NS);
            *held.entry(*peer).or_default() += until.saturating_sub(since);
        }
        held
    }
}
