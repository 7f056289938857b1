//! Answers for neighbours: what is learned of who has which address, and when that is enough to answer in an owner's
//! place. Whatever is not sure is carried, and the owner answers.
//!
//! - An answer is given only for an owner behind a peer, heard within [`HEARD_NS`], whose MAC address was heard behind a
//!   peer within that time as well.
//! - Whoever asks an owner in person (unicast, RFC 5227 probe, duplicate address detection) is carried, and until the owner
//!   is heard again nobody answers in its place: a host that finds its neighbour silent reaches whoever has the address now.
//! - Whoever asks is heard by everyone at least every [`TOLD_NS`], and at once when its own address is new or has moved:
//!   the others learn from questions too.

mod said;

use crate::{
    tables::{FdbEntry, FdbKey, Neighbour, NeighbourKey, PeerId},
    verdict::Verdict,
    wire::MacAddr,
};

pub use self::said::{Claim, Kind, Question, Said, arp, granted, nd, router};

/// How long something heard is good for, nanoseconds. The kernel keeps to it when no agent ages anything.
pub const HEARD_NS: u64 = 300_000_000_000;
/// How often a host that asks is carried to all, so that they go on knowing it, nanoseconds.
pub const TOLD_NS: u64 = 60_000_000_000;

/// The tables, now.
pub trait Neighbourhood {
    /// `CLOCK_MONOTONIC_COARSE`, nanoseconds.
    fn now_ns(&self) -> u64;
    /// What is known of an address.
    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour>;
    /// What the FDB says of a MAC address.
    fn station(&self, key: &FdbKey) -> Option<&FdbEntry>;
    /// Puts an entry there, or another in its place; false if the table is full.
    fn put(&mut self, key: &NeighbourKey, neighbour: &Neighbour) -> bool;
    /// Changes an entry, if it is there.
    fn change(&mut self, key: &NeighbourKey, change: impl FnOnce(&mut Neighbour));
    /// Removes an entry.
    fn remove(&mut self, key: &NeighbourKey);
    /// Takes a MAC address for one that was never heard behind a peer, until it is.
    fn unplace(&mut self, key: &FdbKey);
    /// Counts something.
    fn count(&mut self, verdict: Verdict);
}

/// An answer in an owner's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Where the owner is.
    pub mac: MacAddr,
    /// It is a router.
    pub router: bool,
}

impl Answer {
    /// As one number, not 0: all that a function of a kernel program can return.
    #[inline(always)]
    #[must_use]
    pub fn to_bits(self) -> u64 {
        let mut octets = [0; 8];
        octets[..6].copy_from_slice(&self.mac.0);
        octets[6] = u8::from(self.router);
        octets[7] = 1;
        u64::from_le_bytes(octets)
    }

    /// From what [`Self::to_bits`] made.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let [mac @ .., router, _] = bits.to_le_bytes();
        Self { mac: MacAddr(mac), router: router != 0 }
    }
}

/// Learns from a frame of our side, which goes to all if `to_all`. `None`: it is to be carried.
#[inline(always)]
pub fn outgoing(tables: &mut impl Neighbourhood, said: &Said, to_all: bool) -> Option<Answer> {
    if let (Some(asker), Question::Anyone(target)) = (&said.claim, &said.question) {
        let answer = answer(tables, asker, target);
        if answer.is_some() {
            return answer;
        }
    }
    heard(tables, said, Neighbour::HERE, to_all);
    None
}

/// Learns from a frame that a peer sent.
#[inline(always)]
pub fn incoming(tables: &mut impl Neighbourhood, said: &Said, peer: PeerId) {
    heard(tables, said, peer, true);
}

/// Learns what a DHCP server grants to a client, wherever that is.
#[inline(always)]
pub fn leased(tables: &mut impl Neighbourhood, claim: &Claim) {
    let from = tables.station(&claim.station()).map_or(Neighbour::HERE, |station| station.peer);
    learn(tables, claim, from, false);
}

/// A MAC address that sends on our side is behind no peer: a guest that has moved here may say so and no more (RARP).
#[inline(always)]
pub fn sent_by(tables: &mut impl Neighbourhood, source: &FdbKey) {
    if tables.station(source).is_some_and(|station| !station.is_static() && station.seen_ns != 0) {
        tables.unplace(source);
    }
}

#[inline(always)]
fn answer(tables: &mut impl Neighbourhood, asker: &Claim, target: &NeighbourKey) -> Option<Answer> {
    let now = tables.now_ns();
    let Some(found) = tables.neighbour(target) else {
        tables.count(Verdict::NeighbourUnknown);
        return None;
    };
    let answer = Answer { mac: found.mac, router: found.is_router() };
    let is_sure = standing(found, tables.station(&FdbKey::new(target.vni, found.mac)), now) == Standing::Answered
        && found.mac != asker.mac;
    let is_told = tables.neighbour(&asker.key).is_some_and(|found| is_told(found, asker.mac, now));
    if !is_sure {
        tables.count(Verdict::NeighbourUnsure);
        None
    } else if !is_told {
        tables.count(Verdict::AskerTold);
        None
    } else {
        tables.change(&asker.key, |found| found.heard_ns = now);
        Some(answer)
    }
}

#[inline(always)]
fn heard(tables: &mut impl Neighbourhood, said: &Said, from: PeerId, to_all: bool) {
    if let Some(claim) = &said.claim {
        learn(tables, claim, from, to_all);
    }
    if let Question::Owner(key) = &said.question {
        let now = tables.now_ns();
        tables.change(key, |found| found.doubted_ns = now);
    }
}

#[inline(always)]
fn learn(tables: &mut impl Neighbourhood, claim: &Claim, from: PeerId, to_all: bool) {
    let now = tables.now_ns();
    let told_ns = if from == Neighbour::HERE && to_all { now } else { 0 };
    let new = |flags, moves| Neighbour { mac: claim.mac, flags, from, moves, heard_ns: now, told_ns, doubted_ns: 0 };
    let found = tables.neighbour(&claim.key);
    let moves = found.map_or(0, |found| found.moves);
    match learning(found, claim) {
        Learning::Nothing => {}
        Learning::Refresh(flags) => tables.change(&claim.key, |found| {
            found.flags = flags;
            found.heard_ns = now;
            if told_ns != 0 || from != found.from {
                found.told_ns = told_ns;
            }
            found.from = from;
        }),
        Learning::Add(flags) => {
            let fits = tables.put(&claim.key, &new(flags, 0));
            tables.count(if fits { Verdict::NeighbourLearned } else { Verdict::NeighboursFull });
        }
        Learning::Move(flags) => {
            tables.put(&claim.key, &new(flags, moves.wrapping_add(1)));
            tables.count(Verdict::NeighbourMoved);
        }
        Learning::Forget => {
            tables.remove(&claim.key);
            tables.count(Verdict::NeighbourForgotten);
        }
    }
}

/// What a claim does to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Learning {
    /// Nothing: it says too little of an address that is not known.
    Nothing,
    /// Note the time; these flags from now on.
    Refresh(u16),
    /// An address that was not known, with these flags.
    Add(u16),
    /// The address is at another MAC address now.
    Move(u16),
    /// What was known is contradicted by one who may not replace it.
    Forget,
}

/// Decides for an entry found under the claim's address.
#[inline(always)]
fn learning(found: Option<&Neighbour>, claim: &Claim) -> Learning {
    let flags = |router| if router { Neighbour::WHOLE | Neighbour::ROUTER } else { Neighbour::WHOLE };
    let is_same = found.is_some_and(|found| found.mac == claim.mac);
    let (settles, flags) = match claim.kind {
        Kind::Whole => (true, Neighbour::WHOLE),
        // Of router or host it says nothing: what is known of this MAC address stays, of another one nothing is known.
        Kind::Solicitation => (true, found.filter(|_| is_same).map_or(0, |found| found.flags)),
        Kind::Advertisement { router, overrides } => (overrides, flags(router)),
        Kind::RouterAdvertisement => (false, flags(true)),
    };
    let settles = settles && claim.mac.is_valid_source();
    match found {
        Some(_) if is_same => Learning::Refresh(flags),
        Some(_) if settles => Learning::Move(flags),
        Some(_) => Learning::Forget,
        None if settles => Learning::Add(flags),
        None => Learning::Nothing,
    }
}

/// How things stand with an address that somebody asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// We answer.
    Answered,
    /// Its owner is on our side and answers itself.
    Here,
    /// Not heard for too long.
    Old,
    /// Its owner was asked in person and has not been heard since.
    Doubted,
    /// Nobody has said yet whether it is a router: an answer that says "host" makes others drop it as their default router
    /// (RFC 4861 section 7.2.5).
    Unfinished,
    /// Its MAC address has not been heard behind a peer, or not for too long.
    Unplaced,
}

/// Whether to answer for a neighbour; `station` is what the FDB says of its MAC address.
#[inline(always)]
#[must_use]
pub fn standing(neighbour: &Neighbour, station: Option<&FdbEntry>, now_ns: u64) -> Standing {
    if neighbour.from == Neighbour::HERE {
        Standing::Here
    } else if !is_fresh(neighbour.heard_ns, now_ns, HEARD_NS) {
        Standing::Old
    } else if neighbour.doubted_ns > neighbour.heard_ns {
        Standing::Doubted
    } else if neighbour.flags & Neighbour::WHOLE == 0 {
        Standing::Unfinished
    } else if station.is_some_and(|it| it.is_static() || is_fresh(it.seen_ns, now_ns, HEARD_NS)) {
        Standing::Answered
    } else {
        Standing::Unplaced
    }
}

/// True if everyone knows the asker as it says it is, so that its question need not be heard by all.
#[inline(always)]
fn is_told(asker: &Neighbour, mac: MacAddr, now_ns: u64) -> bool {
    asker.from == Neighbour::HERE && asker.mac == mac && is_fresh(asker.told_ns, now_ns, TOLD_NS)
}

/// True if it was not heard for `max_age_ns`.
#[must_use]
pub const fn is_aged(neighbour: &Neighbour, now_ns: u64, max_age_ns: u64) -> bool {
    !is_fresh(neighbour.heard_ns, now_ns, max_age_ns)
}

/// Zero is never.
#[inline(always)]
const fn is_fresh(then_ns: u64, now_ns: u64, limit_ns: u64) -> bool {
    then_ns != 0 && now_ns.saturating_sub(then_ns) <= limit_ns
}

#[cfg(test)]
mod tests;
