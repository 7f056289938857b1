//! What the prober knows of one path, and what follows from what was answered. No I/O and no clock.

use std::time::Duration;

use l2mesh_common::{
    path::{Answered, is_up, reason::Reason, unanswered},
    path_mtu::LEAST_INNER,
    tables::{PathRx, PathTx},
};

use super::{
    loss::Losses,
    rtt::{Rtts, Summary},
    schedule::Recovery,
    size::Search,
};
use crate::{
    config::Probe,
    dataplane::paths::{in_flight, limit},
};

/// [`PathTx::hold`]: too many probes are lost.
const LOSS: u32 = 1;
/// Long ones are.
const BIG: u32 = 2;
/// Of so many probes one is as long as a frame may be: of a path that is asked often, and of others.
const ONE_IN: [u32; 2] = [10, 2];
/// How often it is tried whether a path takes more than was found.
const SEARCH_AGAIN_NS: u64 = 600_000_000_000;

/// One path of a peer.
#[expect(clippy::struct_excessive_bools, reason = "each is asked by itself")]
#[derive(Debug)]
pub(super) struct Path {
    /// Place of the peer in the prober's list.
    pub(super) peer: usize,
    /// Which of its paths.
    pub(super) nth: usize,
    /// Its place in the tables.
    pub(super) slot: u32,
    /// When the next probe is sent.
    pub(super) due_ns: u64,
    /// When it was first asked.
    pub(super) began_ns: u64,
    /// Its probes are answered as they should be.
    pub(super) is_up: bool,
    /// Frames may take it: as `is_up`, and its relay is reached.
    pub(super) is_usable: bool,
    pub(super) was_up: bool,
    /// Since when it is as it is, for people.
    pub(super) since_ns: u64,
    pub(super) reason: Reason,
    pub(super) summary: Option<Summary>,
    /// Probes sent since the agent began.
    pub(super) probes: u32,
    pub(super) recovery: Recovery,
    rtts: Rtts,
    /// Greatest round-trip time of the last minute.
    greatest: Option<Duration>,
    losses: Losses,
    /// Since it is held for loss.
    later: Losses,
    seen: Answered,
    answers: u64,
    /// Since the latest answer so many were missed that it went down.
    was_dead: bool,
    long: Long,
    search: Option<Searching>,
    searched_ns: u64,
}

/// Probes as long as a frame may be.
#[derive(Clone, Copy, Default, Debug)]
struct Long {
    /// Number of the latest, while nobody has looked what became of it.
    latest: Option<u32>,
    lost: u32,
    /// Short ones until the next.
    short: u32,
}

#[derive(Clone, Copy, Debug)]
struct Searching {
    search: Search,
    /// Its probe was sent: so many turns ago.
    sent: Option<u32>,
    /// The path is held until it ends.
    shrinks: bool,
}

/// What to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// The probe is long: what the inner packet would have, octets.
    pub(super) long: Option<u32>,
    /// The size of another probe, of a search.
    pub(super) search: Option<u32>,
    /// Something about what the path takes has changed.
    pub(super) found: bool,
}

impl Path {
    /// `tx` and `rx` are what an agent before this one has left, or what the path begins with.
    pub(super) fn new(place: (usize, usize), slot: u32, tx: &PathTx, rx: &PathRx, probe: &Probe, now_ns: u64) -> Self {
        let answered = Answered::from_bits(rx.answered);
        let up = is_up(tx, answered);
        Self {
            peer: place.0,
            nth: place.1,
            slot,
            due_ns: now_ns,
            began_ns: now_ns,
            is_up: up,
            is_usable: up,
            was_up: up,
            since_ns: 0,
            reason: Reason::None,
            summary: None,
            probes: 0,
            recovery: Recovery::new(probe.recover, probe.interval, tx.recover, now_ns),
            rtts: Rtts::default(),
            greatest: None,
            losses: Losses::default(),
            later: Losses::default(),
            seen: answered,
            answers: rx.answers,
            was_dead: false,
            // An early one: what a new path takes is to be known soon.
            long: Long { short: 2, ..Long::default() },
            search: None,
            searched_ns: now_ns,
        }
    }

    /// Takes up what was answered. Returns a round-trip time that was not seen before.
    pub(super) fn observe(&mut self, tx: &mut PathTx, rx: &PathRx, probe: &Probe, now_ns: u64) -> Option<u64> {
        let answered = Answered::from_bits(rx.answered);
        let passed = answered.sequence.wrapping_sub(self.seen.sequence);
        let mut measured = None;
        if passed != 0 && passed <= u32::MAX / 2 {
            let answers = u32::try_from(rx.answers.wrapping_sub(self.answers)).unwrap_or(u32::MAX).min(passed);
            let mut lost = passed - answers;
            if lost > 0
                && self.long.latest.is_some_and(|long| is_between(self.seen, long, answered) && rx.padded != long)
            {
                // That is told apart.
                lost -= 1;
            }
            // What took the path down is an outage, not loss; so is what was lost before the other end was there.
            let lost = if self.was_dead || self.answers == 0 { 0 } else { lost };
            self.was_dead = false;
            self.losses.note(lost, answers);
            self.later.note(lost, answers);
            self.rtts.note(rx.rtt_ns, now_ns);
            measured = Some(rx.rtt_ns);
            let rtt = Duration::from_nanos(rx.rtt_ns);
            self.greatest = Some(self.greatest.map_or(rtt, |greatest| greatest.max(rtt)));
            (self.seen, self.answers) = (answered, rx.answers);
        }
        if let Some(greatest) = self.greatest {
            let wanted = limit(probe, greatest);
            // As long as it neither takes the path down nor brings it up.
            if unanswered(tx, answered) < tx.limit.min(wanted) {
                tx.limit = wanted;
            }
        }
        self.judge_loss(tx, probe);
        tx.recover = self.recovery.in_force(tx.recover, self.is_up, now_ns);
        measured
    }

    fn judge_loss(&mut self, tx: &mut PathTx, probe: &Probe) {
        if tx.hold & LOSS == 0 {
            if self.losses.is_over(probe.loss_limit) == Some(true) {
                tx.hold |= LOSS;
                self.later = Losses::default();
            }
        } else {
            // Half of it: of 50 probes on a path that loses more than the limit, less than the limit are lost now and then.
            match self.later.is_over(probe.loss_limit / 2) {
                Some(true) => self.later = Losses::default(),
                Some(false) => {
                    tx.hold &= !LOSS;
                    self.losses = self.later;
                }
                None => {}
            }
        }
    }

    /// Looks at what became of long probes, and says what to send now. `most` is the longest packet that frames on this path may
    /// have as far as the links say, 0 if they do not.
    pub(super) fn turn(
        &mut self,
        tx: &mut PathTx,
        rx: &PathRx,
        often: bool,
        most: u32,
        probe: &Probe,
        now_ns: u64,
    ) -> Turn {
        let answered = Answered::from_bits(rx.answered);
        let is_dead = unanswered(tx, answered) >= tx.limit;
        let mut found = false;
        if is_dead && self.search.is_some() {
            // Nothing can be found out now.
            self.search = None;
            tx.hold &= !BIG;
        }
        if let Some(searching) = &mut self.search {
            let is_answered = searching.sent.is_some() && rx.search == tx.search;
            let waits = searching.sent.is_some_and(|turns| turns < in_flight(probe, self.greatest.unwrap_or_default()));
            if is_answered || searching.sent.is_some() && !waits {
                match searching.search.note(is_answered) {
                    Ok(search) => *searching = Searching { search, sent: None, ..*searching },
                    Err(size) => {
                        self.find(tx, size, most, now_ns);
                        found = true;
                    }
                }
            } else if let Some(turns) = &mut searching.sent {
                *turns += 1;
            }
        } else if !is_dead {
            found = self.judge_long(tx, rx, answered, in_force(tx, most), now_ns);
            if tx.mtu != 0 && tx.hold & BIG == 0 && now_ns.saturating_sub(self.searched_ns) >= SEARCH_AGAIN_NS {
                self.searched_ns = now_ns;
                let search = Search::grow(tx.mtu, most, self.losses.never_in_a_row());
                self.search = search.map(|search| Searching { search, sent: None, shrinks: false });
            }
        }
        let mut turn = Turn { long: None, search: None, found };
        if let Some(searching) = &mut self.search {
            if searching.sent.is_none() {
                searching.sent = Some(1);
                turn.search = Some(searching.search.size());
            }
        } else if most != 0 && self.long.latest.is_none() {
            if self.long.short == 0 {
                turn.long = Some(in_force(tx, most));
                self.long.short = ONE_IN[usize::from(!often)];
            }
            self.long.short -= 1;
        } else {
            self.long.short = self.long.short.saturating_sub(1);
        }
        turn
    }

    /// A probe left: the latest number.
    pub(super) fn sent(&mut self, tx: &PathTx, is_long: bool) {
        self.probes = self.probes.wrapping_add(1);
        if is_long {
            self.long.latest = Some(tx.sequence);
        }
        self.was_dead |= unanswered(tx, self.seen) >= tx.limit;
    }

    /// It is up now, or is not.
    pub(super) fn changed(&mut self, tx: &mut PathTx, is_up: bool, now_ns: u64) {
        self.is_up = is_up;
        if !is_up {
            // One that was never answered was up only because nobody knew.
            self.was_up &= self.answers > 0;
            self.recovery.went_down(now_ns);
        } else if self.was_up {
            self.recovery.came_back(now_ns);
        }
        self.was_up |= is_up;
        tx.recover = self.recovery.in_force(tx.recover, is_up, now_ns);
    }

    /// What became of the latest long probe is known when the next one is due. True if what the path takes is known anew.
    fn judge_long(&mut self, tx: &mut PathTx, rx: &PathRx, answered: Answered, in_force: u32, now_ns: u64) -> bool {
        let Some(latest) = self.long.latest else { return false };
        let is_answered = rx.padded == latest;
        if !is_answered && self.long.short > 0 {
            return false;
        }
        self.long.latest = None;
        if is_answered {
            self.long.lost = 0;
            let was_held = tx.hold & BIG != 0;
            tx.hold &= !BIG;
            return was_held;
        }
        // If the short ones behind it were not answered either, it says nothing.
        let is_passed = answered.sequence.wrapping_sub(latest).wrapping_sub(1) < u32::MAX / 2;
        self.long.lost = if is_passed { self.long.lost + 1 } else { 0 };
        let tries = self.losses.never_in_a_row();
        if self.long.lost < tries {
            return false;
        }
        self.long.lost = 0;
        tx.hold |= BIG;
        if let Some(search) = Search::shrink(in_force, tries) {
            self.search = Some(Searching { search, sent: None, shrinks: true });
            return false;
        }
        // Nothing between: or not even the least arrives, and then the path stays held.
        if in_force > LEAST_INNER {
            self.find(tx, LEAST_INNER, in_force, now_ns);
        }
        in_force > LEAST_INNER
    }

    fn find(&mut self, tx: &mut PathTx, size: u32, most: u32, now_ns: u64) {
        // Nobody has seen the least arrive: a long probe of that size will show.
        if self.search.is_none_or(|searching| searching.shrinks) && size > LEAST_INNER {
            tx.hold &= !BIG;
        }
        self.search = None;
        self.searched_ns = now_ns;
        tx.mtu = if most != 0 && size >= most { 0 } else { size };
        self.long = Long::default();
    }

    /// Takes stock, about once a second.
    pub(super) fn sum_up(&mut self, now_ns: u64) {
        self.summary = self.rtts.summary(now_ns);
        if let Some(summary) = &self.summary {
            self.greatest = Some(Duration::from_nanos(summary.greatest));
        }
    }

    /// The round-trip time by which paths are compared.
    pub(super) fn rtt_ns(&self) -> Option<u64> {
        self.summary.map(|summary| summary.median)
    }

    /// True if something is to be found out soon: a long probe was lost, or the greatest size is looked for.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.long.lost > 0 || self.search.is_some()
    }

    /// True while the greatest size is looked for.
    #[cfg(test)]
    pub(super) const fn is_searching(&self) -> bool {
        self.search.is_some()
    }

    /// Of the last 50 probes.
    pub(super) fn loss(&self) -> u32 {
        self.losses.thousandths()
    }
}

/// True if, with a probe about to be sent, an answer is missing.
pub(super) fn has_missed(tx: &PathTx, rx: &PathRx, probe: &Probe) -> bool {
    let flight = tx.limit.saturating_sub(probe.misses).max(1);
    unanswered(tx, Answered::from_bits(rx.answered)) >= flight
}

/// Why a path is down.
pub(super) fn why_down(tx: &PathTx, rx: &PathRx) -> Reason {
    if unanswered(tx, Answered::from_bits(rx.answered)) >= tx.limit {
        Reason::Missed
    } else if tx.hold & BIG != 0 {
        Reason::BigLost
    } else if tx.hold & LOSS != 0 {
        Reason::Loss
    } else {
        Reason::Missed
    }
}

/// The longest packet that goes on a path: what the links take, and less if less was found to arrive.
pub(super) fn in_force(tx: &PathTx, most: u32) -> u32 {
    if tx.mtu == 0 { most } else { most.min(tx.mtu) }
}

/// True for a number behind `seen`, up to `now`.
fn is_between(seen: Answered, sequence: u32, now: Answered) -> bool {
    let ahead = sequence.wrapping_sub(seen.sequence);
    ahead != 0 && ahead <= now.sequence.wrapping_sub(seen.sequence)
}

#[cfg(test)]
mod tests;
