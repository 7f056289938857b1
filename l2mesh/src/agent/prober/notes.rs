//! What readers are told of the paths, and how late the prober was.

use std::sync::atomic::Ordering;

use l2mesh_common::{
    path::{Answered, Choice, DIRECT, choose, is_up, reason::Reason, unanswered},
    tables::{Change, PathNote, PeerId, path_slot},
};

use super::{Event, LATE, paths::why_down, socket::wall_ns, worker::Worker};
use crate::dataplane::mapped::Mapped;

const SECOND_NS: u64 = 1_000_000_000;

/// The changes of the past, the newest over the oldest.
pub(super) struct History {
    changes: Mapped<Change>,
    next: u32,
}

impl History {
    /// Behind what an agent before this one has written.
    pub(super) fn find(changes: Mapped<Change>) -> Self {
        let places = u32::try_from(changes.len()).unwrap_or(0);
        let newest =
            (0..places).filter(|&place| changes.get(place).at_ns != 0).max_by_key(|&place| changes.get(place).at_ns);
        Self { next: newest.map_or(0, |place| (place + 1) % places.max(1)), changes }
    }

    pub(super) fn add(&mut self, peer: PeerId, before: Choice, now: Choice, reason: Reason) {
        let relay = |choice: Choice| if choice.is_relayed() { choice.relay } else { PeerId::MAX };
        let octet = |path: usize| u8::try_from(path).unwrap_or(0);
        let change = Change {
            at_ns: wall_ns(),
            peer,
            before: octet(before.path),
            now: octet(now.path),
            is_up: u8::from(now.is_up),
            reason: reason as u8,
            relay_before: relay(before),
            relay_now: relay(now),
        };
        self.changes.set(self.next, &change);
        self.next = (self.next + 1) % u32::try_from(self.changes.len()).unwrap_or(1).max(1);
    }
}

impl Worker {
    /// A peer's paths as an agent before this one has left them: nothing has changed because of this one.
    pub(super) fn take_over(&mut self, number: usize) {
        self.refresh(number);
        let peer = &mut self.peers[number];
        peer.choice = choose(&self.world, peer.id);
        for place in self.peers[number].paths.into_iter().flatten() {
            let note = self.path_notes.get(self.paths[place].slot);
            let usable = self.is_usable(place);
            let path = &mut self.paths[place];
            path.is_usable = usable;
            (path.since_ns, path.reason) = if note.since_ns != 0 && note.has(PathNote::UP) == usable {
                (note.since_ns, Reason::from_number(note.reason))
            } else {
                (wall_ns(), Reason::None)
            };
            self.write_note(place);
        }
    }

    /// Looks at one path after another, each once a second.
    pub(super) fn write_notes(&mut self, now: u64) {
        if now < self.notes_ns || self.paths.is_empty() {
            return;
        }
        let number = self.paths.len();
        let step = SECOND_NS / number as u64;
        // After a gap, not more than once each.
        self.notes_ns = self.notes_ns.max(now.saturating_sub(SECOND_NS));
        while self.notes_ns <= now {
            self.notes_ns += step.max(1);
            self.take_stock(self.notes_place, now);
            self.notes_place = (self.notes_place + 1) % number;
        }
        // Not one awakening for each.
        self.notes_ns = self.notes_ns.max(now + self.grain_ns.min(SECOND_NS / 20));
        if now.saturating_sub(self.drained_ns) >= SECOND_NS {
            self.drained_ns = now;
            self.sockets.drain(|too_big| self.tell(Event::TooBig(too_big)));
            self.lateness.greatest_ns.store(self.late.greatest_ns(now), Ordering::Relaxed);
            self.lateness.late.store(self.late.count(), Ordering::Relaxed);
        }
    }

    fn take_stock(&mut self, place: usize, now: u64) {
        self.paths[place].sum_up(now);
        let number = self.paths[place].peer;
        if self.paths[place].nth == DIRECT || self.peers[number].paths[DIRECT].is_none() {
            self.follow_order(number, now);
            self.exchange(number, now);
        }
        self.write_note(place);
    }

    fn is_reached(&self, place: usize) -> bool {
        let path = &self.paths[place];
        if path.nth == DIRECT {
            return true;
        }
        let relay = path_slot(self.world.tx[path.slot as usize].relay, DIRECT) as usize;
        let found = self.world.tx.get(relay).zip(self.world.rx.get(relay));
        found.is_some_and(|(tx, rx)| is_up(tx, Answered::from_bits(rx.answered)))
    }

    fn is_usable(&self, place: usize) -> bool {
        self.paths[place].is_up && self.is_reached(place)
    }

    /// Takes up whether frames may take a path, and why.
    pub(super) fn note_usable(&mut self, place: usize) {
        let usable = self.is_usable(place);
        let path = &self.paths[place];
        if usable == path.is_usable {
            return;
        }
        let slot = path.slot as usize;
        let reason = if usable {
            Reason::Answered
        } else if path.is_up {
            Reason::RelayDown
        } else {
            why_down(&self.world.tx[slot], &self.world.rx[slot])
        };
        let path = &mut self.paths[place];
        (path.is_usable, path.reason, path.since_ns) = (usable, reason, wall_ns());
        self.write_note(place);
    }

    /// Tells readers of a path.
    pub(super) fn write_note(&self, place: usize) {
        let path = &self.paths[place];
        let choice = self.peers[path.peer].choice;
        let summary = path.summary.unwrap_or_default();
        let (tx, rx) = (&self.world.tx[path.slot as usize], &self.world.rx[path.slot as usize]);
        // Not in the count, which an outage must not fill: but nobody is to read that nothing is lost.
        let is_dead = path.probes > 0 && unanswered(tx, Answered::from_bits(rx.answered)) >= tx.limit;
        let flags =
            [(path.is_usable, PathNote::UP), (choice.path == path.nth, PathNote::IN_USE), (true, PathNote::PROBED)];
        let note = PathNote {
            since_ns: path.since_ns,
            rtt_min_ns: summary.least,
            rtt_median_ns: summary.median,
            rtt_p99_ns: summary.p99,
            loss: if is_dead { 1000 } else { path.loss() },
            probes: path.probes,
            flags: flags.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag),
            reason: path.reason as u32,
        };
        self.path_notes.set(path.slot, &note);
    }
}

/// How late turns were.
pub(super) struct Late {
    /// The greatest of each ten seconds.
    turns: [u64; Late::TURNS],
    current: usize,
    began_ns: u64,
    count: u64,
}

impl Late {
    const TURNS: usize = 7;
    const TURN_NS: u64 = 10_000_000_000;

    pub(super) fn new(now_ns: u64) -> Self {
        Self { turns: [0; Self::TURNS], current: 0, began_ns: now_ns, count: 0 }
    }

    pub(super) fn note(&mut self, late_ns: u64, now_ns: u64) {
        self.pass(now_ns);
        let greatest = &mut self.turns[self.current];
        *greatest = late_ns.max(*greatest);
        self.count += u64::from(u128::from(late_ns) > LATE.as_nanos());
    }

    fn pass(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.began_ns) / Self::TURN_NS;
        for _ in 0..passed.min(Self::TURNS as u64) {
            self.current = (self.current + 1) % Self::TURNS;
            self.turns[self.current] = 0;
        }
        self.began_ns += passed * Self::TURN_NS;
    }

    pub(super) fn greatest_ns(&mut self, now_ns: u64) -> u64 {
        self.pass(now_ns);
        self.turns.into_iter().max().unwrap_or(0)
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }
}
