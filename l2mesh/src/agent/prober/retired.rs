//! What a prober knew that has ended, and what of it goes on in the next: nothing is to become of a path because of a change
//! of others.

use l2mesh_common::{
    path::{DIRECT, choose, reason::Reason},
    tables::PathTx,
};

use super::{
    Event,
    notes::Late,
    paths::Path,
    socket::{Sockets, wall_ns},
    worker::{Peer, Worker},
};
use crate::{config::Probe, dataplane::view::PeerView};

/// A prober that has ended.
pub(in crate::agent) struct Retired(Worker);

impl Retired {
    pub(super) fn new(worker: Worker) -> Self {
        Self(worker)
    }

    pub(super) fn parts(self) -> (Known, Sockets) {
        let Worker { probe, port, late, peers, paths, world, sockets, .. } = self.0;
        let paths = paths.into_iter().map(|path| Some((world.tx[path.slot as usize], path))).collect();
        let known =
            Known { asked: Some((probe, port)), late: Some(late), peers: peers.into_iter().map(Some).collect(), paths };
        (known, sockets)
    }
}

/// What it knew of peers and their paths.
#[derive(Default)]
pub(super) struct Known {
    /// How it asked.
    asked: Option<(Probe, u16)>,
    pub(super) late: Option<Late>,
    peers: Vec<Option<Peer>>,
    /// With what it had written of each.
    paths: Vec<Option<(PathTx, Path)>>,
}

impl Known {
    /// True if the new one asks in the same way.
    pub(super) fn is_probed_alike(&self, worker: &Worker) -> bool {
        self.asked.as_ref().is_some_and(|(probe, port)| (probe, *port) == (&worker.probe, worker.port))
    }

    /// Hands what is known over of the peer that was added last. False if that is nothing.
    pub(super) fn hand_over(&mut self, worker: &mut Worker, view: &PeerView) -> bool {
        let is_same = |peer: &&mut Option<Peer>| {
            peer.as_ref().is_some_and(|it| {
                (it.id, it.node_id, it.address) == (view.id, view.node_id, view.address)
                    && it.paths[DIRECT].is_some() == view.is_direct
            })
        };
        let Some(before) = self.peers.iter_mut().find(is_same).and_then(Option::take) else { return false };
        let place = worker.peers.len() - 1;
        let peer = &mut worker.peers[place];
        (peer.has_missed, peer.choice, peer.chosen_ns) = (before.has_missed, before.choice, before.chosen_ns);
        if peer.candidates == before.candidates {
            (peer.order, peer.patience) = (before.order, before.patience);
        }
        for (now, was) in peer.paths.iter().zip(before.paths).filter_map(|(now, was)| now.zip(was)) {
            let slot = worker.paths[now].slot as usize;
            let nonce = worker.world.tx[slot].nonce;
            // One with another nonce has begun anew.
            if let Some((_, mut path)) = self.paths[was].take_if(|(tx, _)| tx.nonce == nonce) {
                path.peer = place;
                worker.paths[now] = path;
            }
        }
        true
    }
}

impl Worker {
    /// A peer that was known before goes on. What others have changed of its paths is told.
    pub(super) fn go_on(&mut self, number: usize, now: u64) {
        self.refresh(number);
        let peer = &mut self.peers[number];
        let (id, before) = (peer.id, peer.choice);
        let choice = choose(&self.world, id);
        if choice != before {
            let lasted = std::time::Duration::from_nanos(now.saturating_sub(peer.chosen_ns));
            (peer.choice, peer.chosen_ns) = (choice, now);
            let reason = Reason::Configured;
            self.history.add(id, before, choice, reason);
            self.tell(Event::Changed { peer: id, before, now: choice, reason, lasted });
        }
        for place in self.peers[number].paths.into_iter().flatten() {
            if self.paths[place].since_ns == 0 {
                (self.paths[place].since_ns, self.paths[place].reason) = (wall_ns(), Reason::Configured);
            }
            self.note_usable(place);
            self.write_note(place);
        }
    }
}
