//! Which path a frame takes to a peer (design.md 5).
//!
//! Each peer has up to four paths: place 0 is direct, the others go through a relay. The agent counts probes up, the kernel
//! program that receives the answers notes which were answered; how far the two are apart says whether a path is up. There is no
//! clock in this: an agent that is stopped sends no probes, so nothing changes because of it.

pub mod reason;

use crate::{
    tables::{PING_SLOT, PathRx, PathTx, PeerId, path_slot},
    wire::ProbePath,
};

/// Paths of one peer: direct, and three relays.
pub const MAX_PATHS: usize = 4;
/// The place of the direct path.
pub const DIRECT: usize = 0;

/// What the answers to a path's probes have shown: one number, changed at once by compare-exchange.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Answered {
    /// Sequence number of the latest answer.
    pub sequence: u32,
    /// Answers since the path was last down; no more are counted than bring it up.
    pub streak: u32,
}

impl Answered {
    /// As it stands in [`PathRx::answered`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { sequence: (bits >> 32) as u32, streak: bits as u32 }
    }

    /// As it stands in [`PathRx::answered`].
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.sequence as u64) << 32 | self.streak as u64
    }
}

/// Probes without an answer so far. Sequence numbers wrap around; where the answer to a probe is seen that the agent sent after
/// `tx` was read, there are none.
#[inline(always)]
#[must_use]
pub const fn unanswered(tx: &PathTx, answered: Answered) -> u32 {
    let waiting = tx.sequence.wrapping_sub(answered.sequence);
    if waiting > u32::MAX / 2 { 0 } else { waiting }
}

/// True if frames may take this path.
#[inline(always)]
#[must_use]
pub const fn is_up(tx: &PathTx, answered: Answered) -> bool {
    unanswered(tx, answered) < tx.limit && answered.streak >= tx.recover && tx.hold == 0
}

/// True if frames would arrive, though the path has not answered for long enough to be trusted again: better than none.
#[inline(always)]
#[must_use]
pub const fn is_answered(tx: &PathTx, answered: Answered) -> bool {
    unanswered(tx, answered) < tx.limit && answered.streak > 0 && tx.hold == 0
}

/// Why an answer counts for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// To a probe that was answered, or overtaken by the answer to a later one: late, or sent again by somebody.
    Late,
    /// To a probe that was not sent yet.
    Future,
}

/// What an answer to the probe `sequence` makes of a path.
///
/// # Errors
/// The probe is none of those that wait for an answer.
#[inline(always)]
pub const fn answer(tx: &PathTx, answered: Answered, sequence: u32) -> Result<Answered, NoAnswer> {
    let waiting = unanswered(tx, answered);
    let ahead = sequence.wrapping_sub(answered.sequence);
    // In a world of 2^32 sequence numbers, half are behind.
    if ahead == 0 || ahead > u32::MAX / 2 {
        return Err(NoAnswer::Late);
    }
    if ahead > waiting {
        return Err(NoAnswer::Future);
    }
    let before = if waiting >= tx.limit { 0 } else { answered.streak };
    let streak = if before < tx.recover { before + 1 } else { tx.recover };
    Ok(Answered { sequence, streak })
}

/// True if an answer to the probe `sequence` of a search is the latest so far (`before` was), and to one that was sent.
///
/// # Errors
/// As for [`answer`].
#[inline(always)]
pub const fn searched(tx: &PathTx, before: u32, sequence: u32) -> Result<(), NoAnswer> {
    let ahead = sequence.wrapping_sub(before);
    if ahead == 0 || ahead > u32::MAX / 2 {
        Err(NoAnswer::Late)
    } else if ahead > tx.search.wrapping_sub(before) {
        Err(NoAnswer::Future)
    } else {
        Ok(())
    }
}

/// True if an answer that came by `via` comes the way of a path's probes: from the peer itself, or from the relay.
#[inline(always)]
#[must_use]
pub const fn comes_its_way(tx: &PathTx, place: ProbePath, peer: PeerId, via: PeerId) -> bool {
    if place.is_ping() {
        tx.peer == peer && tx.relay == via
    } else if place.place() == DIRECT {
        via == peer
    } else {
        tx.relay == via && via != peer
    }
}

/// The place of what is asked by probes of this name.
#[inline(always)]
#[must_use]
pub const fn slot(peer: PeerId, path: ProbePath) -> u32 {
    if path.is_ping() { PING_SLOT + path.place() as u32 } else { path_slot(peer, path.place()) }
}

/// The tables of paths, as a frame finds them.
pub trait Paths {
    /// What the agent says of a peer's path; `None` where there is no such place.
    fn tx(&self, peer: PeerId, path: usize) -> Option<&PathTx>;
    /// What was answered.
    fn rx(&self, peer: PeerId, path: usize) -> Option<&PathRx>;
}

/// The path that a frame takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Its place.
    pub path: usize,
    /// The relay, for every path but the direct one.
    pub relay: PeerId,
    /// False if it is the direct one only because none is up.
    pub is_up: bool,
}

impl Choice {
    /// The direct path, up.
    pub const DIRECT: Self = Self { path: DIRECT, relay: 0, is_up: true };

    /// As one number.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.path as u64 | (self.is_up as u64) << 8 | (self.relay as u64) << 32
    }

    /// The choice of [`Choice::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { path: bits as usize & (MAX_PATHS - 1), relay: (bits >> 32) as u32, is_up: bits >> 8 & 1 == 1 }
    }

    /// True if it goes through a relay.
    #[inline(always)]
    #[must_use]
    pub const fn is_relayed(&self) -> bool {
        self.path != DIRECT
    }
}

#[inline(always)]
fn is_path_up(paths: &impl Paths, peer: PeerId, path: usize) -> bool {
    is_path(paths, peer, path, is_up)
}

#[inline(always)]
fn is_path(paths: &impl Paths, peer: PeerId, path: usize, is: impl Fn(&PathTx, Answered) -> bool) -> bool {
    match (paths.tx(peer, path), paths.rx(peer, path)) {
        (Some(tx), Some(rx)) => is(tx, Answered::from_bits(rx.answered)),
        _ => false,
    }
}

/// The first path that is up: the direct one, then the others in the order of [`PathTx::order`]. A relay counts only while
/// our direct path to it is up. If none is up, the direct one.
#[inline(always)]
#[must_use]
pub fn choose(paths: &impl Paths, peer: PeerId) -> Choice {
    if is_path_up(paths, peer, DIRECT) { Choice::DIRECT } else { other(paths, peer) }
}

/// [`choose`] where the direct path is down. If no path is up, but one through a relay is answered and the direct one is not, that
/// one: what came back lately is mistrusted for long where links come and go, and is all there is.
#[inline(always)]
#[must_use]
pub fn other(paths: &impl Paths, peer: PeerId) -> Choice {
    let is_alive = |tx: &PathTx, answered| is_up(tx, answered) || is_answered(tx, answered);
    let mut order = paths.tx(peer, DIRECT).map_or(0, |direct| direct.order);
    let mut last = Choice { is_up: false, ..Choice::DIRECT };
    let mut is_open = !is_path(paths, peer, DIRECT, is_alive);
    for _ in 1..MAX_PATHS {
        let path = order as usize & (MAX_PATHS - 1);
        if path == DIRECT {
            break;
        }
        if let Some(tx) = paths.tx(peer, path) {
            let choice = Choice { path, relay: tx.relay, is_up: true };
            if is_path_up(paths, peer, path) && is_path_up(paths, tx.relay, DIRECT) {
                return choice;
            }
            if is_open && is_path(paths, peer, path, is_alive) && is_path(paths, tx.relay, DIRECT, is_alive) {
                (last, is_open) = (choice, false);
            }
        }
        order >>= 8;
    }
    last
}

/// True if the direct path is up.
#[inline(always)]
#[must_use]
pub fn is_direct_up(paths: &impl Paths, peer: PeerId) -> bool {
    is_path_up(paths, peer, DIRECT)
}

/// [`PathTx::order`] of paths that are tried one after another.
#[must_use]
pub fn order(paths: &[usize]) -> u32 {
    paths.iter().take(MAX_PATHS - 1).rev().fold(0, |order, &path| order << 8 | path as u32)
}

#[cfg(test)]
mod tests;
