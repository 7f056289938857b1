//! The thread: which path is due, and what a turn of it brings about.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    mem::offset_of,
    net::IpAddr,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use l2mesh_common::{
    path::{Answered, Choice, DIRECT, MAX_PATHS, is_up, unanswered},
    tables::{PathNote, PathRx, PathTx, PeerId, path_slot},
    wire::{Mark, Probe as Packet, ProbePath, VxlanHeader},
};
use nix::errno::Errno;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Event, Lateness, Target,
    notes::{History, Late},
    order::{Order, Patience},
    paths::{Path, Turn, has_missed},
    retired::Known,
    schedule::{self, Need},
    socket::{Sockets, Way, hurry, now_ns},
    stats::Stats,
};
use crate::{
    config::Probe,
    dataplane::{
        mapped::Mapped,
        paths::Snapshot,
        tables::Tables,
        view::{PeerView, View},
    },
};

/// A peer that is probed.
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) node_id: u32,
    pub(super) address: IpAddr,
    source: Option<IpAddr>,
    /// `None` while no address of ours is known for it.
    way: Option<Way>,
    /// What the way to it takes of an inner packet; 0 while that is not known.
    mtu: u32,
    /// Places in [`Worker::paths`].
    pub(super) paths: [Option<usize>; MAX_PATHS],
    /// A probe of the direct path is not answered in time, or there is none.
    pub(super) has_missed: bool,
    /// The path that frames take.
    pub(super) choice: Choice,
    /// Since when, on the clock of probes.
    pub(super) chosen_ns: u64,
    pub(super) order: Order,
    /// All that may relay to it.
    pub(super) candidates: Vec<PeerId>,
    pub(super) patience: Patience,
}

/// All that the thread has.
pub(super) struct Worker {
    pub(super) probe: Probe,
    pub(super) port: u16,
    interval_ns: u64,
    relay_interval_ns: u64,
    pub(super) grain_ns: u64,
    /// The longest packet of any network.
    longest: u32,
    pub(super) path_tx: Mapped<PathTx>,
    pub(super) path_rx: Mapped<PathRx>,
    pub(super) path_notes: Mapped<PathNote>,
    pub(super) history: History,
    /// What this thread has written, and what it has read last.
    pub(super) world: Snapshot,
    pub(super) sockets: Sockets,
    pub(super) peers: Vec<Peer>,
    /// Places in `peers`, by id.
    pub(super) by_id: Vec<Option<usize>>,
    pub(super) paths: Vec<Path>,
    /// When each path is due; what is not its latest time is passed over.
    pub(super) queue: BinaryHeap<Reverse<(u64, usize)>>,
    /// When the next path is looked at for readers, and which.
    pub(super) notes_ns: u64,
    pub(super) notes_place: usize,
    pub(super) drained_ns: u64,
    orders: Receiver<Vec<Target>>,
    pub(super) events: UnboundedSender<Event>,
    pub(super) late: Late,
    pub(super) lateness: Arc<Lateness>,
    pub(super) stats: Arc<Stats>,
}

impl Worker {
    pub(super) fn new(
        view: &View,
        tables: &Tables,
        sockets: Sockets,
        orders: Receiver<Vec<Target>>,
        events: UnboundedSender<Event>,
        lateness: Arc<Lateness>,
        stats: Arc<Stats>,
    ) -> anyhow::Result<Self> {
        let probe = view.probe.clone();
        let interval_ns = u64::try_from(probe.interval.as_nanos())?.max(1);
        let now = now_ns();
        Ok(Self {
            port: view.port,
            interval_ns,
            relay_interval_ns: u64::try_from(probe.relay_interval.as_nanos())?.max(interval_ns),
            grain_ns: (interval_ns / 20).max(1_000_000).min(interval_ns),
            longest: view.networks.iter().map(|network| network.mtu).max().unwrap_or(0),
            path_tx: tables.path_tx.clone(),
            path_rx: tables.path_rx.clone(),
            path_notes: tables.path_notes.clone(),
            history: History::find(tables.history.clone()),
            world: Snapshot::read(tables),
            sockets,
            peers: Vec::new(),
            by_id: vec![None; usize::try_from(tables.peers.len())?],
            paths: Vec::new(),
            queue: BinaryHeap::new(),
            notes_ns: now,
            notes_place: 0,
            drained_ns: now,
            orders,
            events,
            late: Late::new(now),
            lateness,
            stats,
            probe,
        })
    }

    /// Takes up the peers. `before` knows some of them; of the others the tables say what an agent before this one has left.
    pub(super) fn begin(&mut self, view: &View, before: Option<Known>) {
        let now = now_ns();
        let mut before = before.filter(|known| known.is_probed_alike(self)).unwrap_or_default();
        self.late = before.late.take().unwrap_or_else(|| Late::new(now));
        let known: Vec<bool> = view
            .peers
            .iter()
            .filter(|peer| peer.is_probed)
            .map(|peer| {
                self.add(peer, now);
                before.hand_over(self, peer)
            })
            .collect();
        for (place, _) in known.iter().enumerate().filter(|(_, known)| !**known) {
            self.stats.begin_peer(self.peers[place].id);
        }
        self.paths.iter().filter(|path| path.probes == 0).for_each(|path| self.stats.begin(path.slot));
        self.spread(now);
        for (place, known) in known.into_iter().enumerate() {
            if known { self.go_on(place, now) } else { self.take_over(place) }
        }
    }

    fn add(&mut self, view: &PeerView, now: u64) {
        let place = self.peers.len();
        self.by_id[view.id as usize] = Some(place);
        let mut paths = [None; MAX_PATHS];
        for (path, found) in paths.iter_mut().enumerate() {
            let slot = path_slot(view.id, path);
            let (tx, rx) = (self.world.tx[slot as usize], self.world.rx[slot as usize]);
            if tx.limit != 0 {
                *found = Some(self.paths.len());
                self.paths.push(Path::new((place, path), slot, &tx, &rx, &self.probe, now));
            }
        }
        self.peers.push(Peer {
            id: view.id,
            node_id: view.node_id,
            address: view.address,
            source: None,
            way: None,
            mtu: 0,
            paths,
            has_missed: !view.is_direct,
            choice: Choice::DIRECT,
            chosen_ns: now,
            order: Order::default(),
            candidates: view.relays.clone(),
            patience: Patience::default(),
        });
    }

    /// Spreads first probes over an interval, and those of paths through relays over more. What is up goes on without being
    /// looked at more closely. Those that have been probed before keep their turns.
    fn spread(&mut self, now: u64) {
        let is_new = |it: &Path| it.probes == 0;
        let directs = self.paths.iter().filter(|it| is_new(it) && it.nth == DIRECT).count().max(1) as u64;
        let relayed = self.paths.iter().filter(|it| is_new(it) && it.nth != DIRECT).count();
        let each = self.probe.interval * self.probe.recover;
        let (mut nth_direct, mut nth_relayed) = (0, 0);
        for path in self.paths.iter_mut().filter(|it| is_new(it)) {
            let after = if path.nth == DIRECT {
                nth_direct += 1;
                (nth_direct - 1) * self.interval_ns / directs
            } else {
                nth_relayed += 1;
                let start = schedule::start(nth_relayed - 1, relayed, each);
                u64::try_from(start.as_nanos()).unwrap_or(0)
            };
            path.due_ns = (now + after).next_multiple_of(self.grain_ns);
            path.began_ns = path.due_ns;
        }
        self.queue = self.paths.iter().enumerate().map(|(place, path)| Reverse((path.due_ns, place))).collect();
    }

    /// Peers are reached otherwise now.
    pub(super) fn aim(&mut self, targets: &[Target]) {
        for target in targets {
            let Some(place) = self.by_id.get(target.peer as usize).copied().flatten() else { continue };
            let peer = &mut self.peers[place];
            peer.mtu = target.mtu;
            if peer.source != target.source || peer.way.is_none() {
                peer.source = target.source;
                peer.way = target.source.and_then(|source| Way::new(source, peer.address, self.port));
            }
        }
    }

    /// Returns when nobody commands it any more.
    pub(super) fn run(mut self) -> Self {
        hurry();
        loop {
            self.work();
            let first = self.queue.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            let wait = first.min(self.notes_ns).saturating_sub(now_ns());
            match self.orders.recv_timeout(Duration::from_nanos(wait)) {
                Ok(targets) => self.aim(&targets),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self,
            }
        }
    }

    /// All that is due.
    fn work(&mut self) {
        let woken = now_ns();
        while let Some(&Reverse((due, place))) = self.queue.peek()
            && due <= woken
        {
            self.queue.pop();
            if self.paths[place].due_ns == due {
                let now = now_ns();
                self.late.note(now.saturating_sub(due), now);
                self.turn(place, now);
                self.enqueue(place, due, now);
            }
        }
        self.write_notes(woken);
    }

    /// A path's turn: what was answered, a probe, what follows.
    fn turn(&mut self, place: usize, now: u64) {
        let path = &mut self.paths[place];
        let (number, slot, is_direct) = (path.peer, path.slot as usize, path.nth == DIRECT);
        let rx = self.path_rx.get(path.slot);
        self.world.rx[slot] = rx;
        let tx = &mut self.world.tx[slot];
        if let Some(rtt_ns) = path.observe(tx, &rx, &self.probe, now) {
            self.stats.answered(path.slot, rtt_ns);
        }
        let has_missed = has_missed(tx, &rx, &self.probe) || !is_up(tx, Answered::from_bits(rx.answered));
        let relay = (!is_direct).then_some(tx.relay);
        let near = relay.map_or(Some(number), |relay| self.by_id.get(relay as usize).copied().flatten());
        let most = near.map_or(0, |near| self.peers[near].mtu.min(self.longest));
        let often = is_direct || self.is_asked_often(place, now);
        let tx = &mut self.world.tx[slot];
        let turn = self.paths[place].turn(tx, &rx, often, most, &self.probe, now);
        let mtu = tx.mtu;
        self.probe(place, near.and_then(|near| self.peers[near].way), turn);
        if turn.found {
            self.tell(Event::Size { peer: self.peers[number].id, relay, mtu });
        }
        if is_direct {
            self.peers[number].has_missed = has_missed;
            if has_missed {
                self.wake_relays(number, now);
            }
        }
        self.evaluate(number, now);
    }

    /// Sends what is to be sent.
    fn probe(&mut self, place: usize, way: Option<Way>, turn: Turn) {
        let header = self.header(place);
        let Path { slot, nth, .. } = self.paths[place];
        let tx = &mut self.world.tx[slot as usize];
        let nonce = tx.nonce;
        if let Some(size) = turn.search {
            tx.search = tx.search.wrapping_add(1);
            let sequence = tx.search;
            self.path_tx.set(slot, tx);
            let packet = Packet::request(ProbePath::search(nth), false, sequence, nonce, now_ns());
            // One that cannot be sent is one that does not arrive.
            self.send(way.as_ref(), sequence, header, &packet, Some(size));
        }
        let is_long = turn.long.is_some();
        self.path_tx.set(slot, &self.world.tx[slot as usize]);
        // Counted first: an answer may be faster than we are.
        let sequence = self.world.tx[slot as usize].sequence.wrapping_add(1);
        self.count(slot, sequence);
        let packet = Packet::request(ProbePath::path(nth), is_long, sequence, nonce, now_ns());
        if self.send(way.as_ref(), sequence, header, &packet, turn.long) {
            self.paths[place].sent(&self.world.tx[slot as usize], is_long);
        } else {
            self.count(slot, sequence.wrapping_sub(1));
        }
    }

    /// This is the number of the latest probe.
    fn count(&mut self, slot: u32, sequence: u32) {
        self.world.tx[slot as usize].sequence = sequence;
        self.path_tx.field(slot, offset_of!(PathTx, sequence)).store(sequence, Ordering::Release);
    }

    /// True if it has gone, or is lost as frames would be.
    fn send(&mut self, way: Option<&Way>, nth: u32, header: VxlanHeader, packet: &Packet, long: Option<u32>) -> bool {
        let Some(way) = way else { return true };
        match self.sockets.send(way, nth, header, packet, long) {
            Ok(()) => true,
            Err(errno) => is_lost(errno),
        }
    }

    fn header(&self, place: usize) -> VxlanHeader {
        let path = &self.paths[place];
        let mark = if path.nth == DIRECT {
            Mark { flags: Mark::PROBE, node: 0 }
        } else {
            Mark { flags: Mark::PROBE | Mark::RELAY, node: self.peers[path.peer].node_id }
        };
        VxlanHeader::marked(0, mark)
    }

    fn is_asked_often(&self, place: usize, now: u64) -> bool {
        let path = &self.paths[place];
        let peer = &self.peers[path.peer];
        let (tx, rx) = (&self.world.tx[path.slot as usize], &self.world.rx[path.slot as usize]);
        let answered = Answered::from_bits(rx.answered);
        schedule::is_asked_often(&Need {
            direct_missed: peer.has_missed,
            in_use: path.is_doubtful() || (peer.choice.is_relayed() && peer.choice.path == path.nth),
            is_up: path.is_up,
            answers: answered.streak > 0 && unanswered(tx, answered) < tx.limit,
            was_up: path.was_up,
            age_ns: now.saturating_sub(path.began_ns),
        })
    }

    fn period(&self, place: usize, now: u64) -> u64 {
        let often = self.paths[place].nth == DIRECT || self.is_asked_often(place, now);
        if often { self.interval_ns } else { self.relay_interval_ns }
    }

    fn enqueue(&mut self, place: usize, due: u64, now: u64) {
        let next = schedule::next(due, now, self.period(place, now), self.grain_ns);
        self.paths[place].due_ns = next;
        self.queue.push(Reverse((next, place)));
    }

    /// From the first probe of the direct path that is missed on, the others are asked as often.
    fn wake_relays(&mut self, number: usize, now: u64) {
        for place in self.peers[number].paths.into_iter().skip(1).flatten() {
            let path = &mut self.paths[place];
            if path.due_ns > now + self.interval_ns {
                path.began_ns = path.began_ns.min(now);
                path.due_ns = (now + 1).next_multiple_of(self.grain_ns);
                self.queue.push(Reverse((path.due_ns, place)));
            }
        }
    }

    pub(super) fn tell(&self, event: Event) {
        // An agent that ends does not listen any more.
        let _nobody = self.events.send(event);
    }
}

/// True for what frames of a peer would not survive either: there is no way to it, or the first device drops what is sent, which
/// the kernel only tells those who ask for errors. What fails for other reasons says nothing about the path.
const fn is_lost(errno: Errno) -> bool {
    matches!(errno, Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::ENODEV | Errno::ENOBUFS)
}
