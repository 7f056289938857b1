//! What follows from the states of paths: which one frames take, and through which relays the others go.

use std::{cmp::Reverse, time::Duration};

use l2mesh_common::{
    path::{Answered, DIRECT, MAX_PATHS, choose, is_up, order, reason::Reason},
    tables::{PathNote, PeerId, path_slot},
};

use super::{Event, order::is_better, paths::Path, worker::Worker};
use crate::dataplane::paths::{begin, fresh};

impl Worker {
    /// Reads again what the choice of a peer's path depends on.
    pub(super) fn refresh(&mut self, number: usize) {
        let id = self.peers[number].id;
        for path in 0..MAX_PATHS {
            let slot = path_slot(id, path);
            self.world.rx[slot as usize] = self.path_rx.get(slot);
            if path != DIRECT && self.world.tx[slot as usize].limit != 0 {
                let relay = path_slot(self.world.tx[slot as usize].relay, DIRECT);
                if let Some(rx) = self.world.rx.get_mut(relay as usize) {
                    *rx = self.path_rx.get(relay);
                }
            }
        }
    }

    /// Takes up what became of a peer's paths.
    pub(super) fn evaluate(&mut self, number: usize, now: u64) {
        let direct_before = self.peers[number].paths[DIRECT].is_some_and(|place| self.paths[place].is_up);
        self.note_states(number, now);
        let direct = self.peers[number].paths[DIRECT].is_some_and(|place| self.paths[place].is_up);
        self.note_choice(number, now);
        if direct != direct_before {
            // Others may have paths through it.
            let id = self.peers[number].id;
            for other in (0..self.peers.len()).filter(|&other| other != number) {
                let mut paths = self.peers[other].paths.iter().skip(1).flatten();
                if paths.any(|&place| self.world.tx[self.paths[place].slot as usize].relay == id) {
                    self.note_states(other, now);
                    self.note_choice(other, now);
                }
            }
        }
    }

    fn note_states(&mut self, number: usize, now: u64) {
        self.refresh(number);
        for place in self.peers[number].paths.into_iter().flatten() {
            let path = &mut self.paths[place];
            let (tx, rx) = (&mut self.world.tx[path.slot as usize], &self.world.rx[path.slot as usize]);
            let up = is_up(tx, Answered::from_bits(rx.answered));
            if up != path.is_up {
                path.changed(tx, up, now);
                self.path_tx.set(path.slot, tx);
            }
            self.note_usable(place);
        }
    }

    fn note_choice(&mut self, number: usize, now: u64) {
        let peer = &self.peers[number];
        let (before, choice) = (peer.choice, choose(&self.world, peer.id));
        if before == choice {
            return;
        }
        let left = peer.paths[before.path].map(|place| &self.paths[place]);
        let reason = match left {
            _ if !choice.is_up => Reason::NoRelay,
            Some(path) if choice.is_relayed() && before.is_up && !path.is_usable => path.reason,
            _ => Reason::Answered,
        };
        let lasted = Duration::from_nanos(now.saturating_sub(peer.chosen_ns));
        let peer = &mut self.peers[number];
        (peer.choice, peer.chosen_ns) = (choice, now);
        let id = peer.id;
        self.history.add(id, before, choice, reason);
        self.stats.turned(id, choice);
        self.tell(Event::Changed { peer: id, before, now: choice, reason, lasted });
        for place in self.peers[number].paths.into_iter().flatten() {
            self.write_note(place);
        }
    }

    /// Relays in the order of their round-trip times. Only while the direct path is up: it moves nobody.
    pub(super) fn follow_order(&mut self, number: usize, now: u64) {
        let peer = &self.peers[number];
        let Some(direct) = peer.paths[DIRECT] else { return };
        if !self.paths[direct].is_up {
            return;
        }
        let slot = path_slot(peer.id, DIRECT);
        let before = self.world.tx[slot as usize].order;
        let mut tried: Vec<usize> = (0..MAX_PATHS - 1).map(|nth| (before >> (8 * nth) & 0xff) as usize).collect();
        tried.retain(|&path| path != DIRECT && path < MAX_PATHS);
        let rtts = peer.paths.map(|place| place.and_then(|place| self.paths[place].rtt_ns()));
        if self.peers[number].order.follow(&mut tried, |path| rtts[path], now) {
            self.world.tx[slot as usize].order = order(&tried);
            self.path_tx.set(slot, &self.world.tx[slot as usize]);
        }
    }

    /// Of more relays than a peer has places for, those that are nearest to us. Only while the direct path is up, as above.
    pub(super) fn exchange(&mut self, number: usize, now: u64) {
        let peer = &self.peers[number];
        let direct = |place: usize| peer.paths[place].map(|place| &self.paths[place]);
        if peer.candidates.len() < MAX_PATHS || !direct(DIRECT).is_some_and(|direct| direct.is_up) {
            return;
        }
        let relay_of = |place: usize| self.world.tx[self.paths[place].slot as usize].relay;
        let taken: Vec<(usize, PeerId)> =
            peer.paths.iter().skip(1).flatten().map(|&place| (place, relay_of(place))).collect();
        let is_taken = |relay: PeerId| taken.iter().any(|(_, other)| *other == relay);
        // Those that were not measured are the farthest.
        let rtt = |relay: PeerId| self.rtt_to(relay);
        let distance = |relay: PeerId| rtt(relay).unwrap_or(u64::MAX);
        let near = peer.candidates.iter().copied().filter(|&relay| !is_taken(relay)).min_by_key(|&it| distance(it));
        let far = taken.iter().copied().max_by_key(|&(_, relay)| distance(relay));
        let (Some(near), Some((place, far))) = (near, far) else { return };
        let is_better = is_better(rtt(near), rtt(far));
        if self.peers[number].patience.is_over(is_better, now) {
            self.go_through(place, near, now);
        }
    }

    /// The round-trip time of the direct path to a peer.
    fn rtt_to(&self, id: PeerId) -> Option<u64> {
        let number = self.by_id.get(id as usize).copied().flatten()?;
        self.paths[self.peers[number].paths[DIRECT]?].rtt_ns()
    }

    /// A path begins anew, through another relay.
    fn go_through(&mut self, place: usize, relay: PeerId, now: u64) {
        // Without random numbers it stays as it is.
        let Ok(tx) = fresh(&self.probe, relay) else { return };
        let Path { peer, nth, slot, .. } = self.paths[place];
        begin(&self.path_tx, &self.path_rx, slot, &tx, 0);
        self.stats.begin(slot);
        self.world.tx[slot as usize] = tx;
        self.world.rx[slot as usize] = self.path_rx.get(slot);
        let rx = self.world.rx[slot as usize];
        let mut path = Path::new((peer, nth), slot, &tx, &rx, &self.probe, now);
        path.due_ns = (now + 1).next_multiple_of(self.grain_ns);
        path.reason = Reason::Configured;
        path.since_ns = super::socket::wall_ns();
        self.queue.push(Reverse((path.due_ns, place)));
        self.paths[place] = path;
        self.path_notes.set(slot, &PathNote::default());
        self.write_note(place);
    }
}
