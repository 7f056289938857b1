//! The paths to the peers in the tables: as the configuration wants them, and what an agent before this one knew of them.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::Read as _,
    time::Duration,
};

use anyhow::Context as _;
use l2mesh_common::{
    path::{Answered, DIRECT, MAX_PATHS, Paths, order, unanswered},
    tables::{Change, PEER_SLOTS, PathNote, PathRx, PathTx, PeerId, path_slot},
    wire::Fingerprint,
};

use super::{
    mapped::Mapped,
    tables::Tables,
    view::{PeerView, View},
};
use crate::config::Probe;

/// Greatest round-trip time that is allowed for before one was measured.
const FIRST_RTT: Duration = Duration::from_secs(1);

/// [`PathTx::limit`] where `rtt` is the greatest round-trip time.
pub(crate) fn limit(probe: &Probe, rtt: Duration) -> u32 {
    probe.misses.saturating_add(in_flight(probe, rtt))
}

/// Probes that are on their way at most, where `rtt` is the greatest round-trip time.
pub(crate) fn in_flight(probe: &Probe, rtt: Duration) -> u32 {
    u32::try_from(rtt.as_nanos().div_ceil(probe.interval.as_nanos().max(1))).unwrap_or(u32::MAX / 2)
}

/// [`PathTx::limit`] before any round-trip time was measured.
pub(crate) fn first_limit(probe: &Probe) -> u32 {
    limit(probe, FIRST_RTT)
}

/// The tables of paths at one moment.
pub(crate) struct Snapshot {
    pub(crate) tx: Vec<PathTx>,
    pub(crate) rx: Vec<PathRx>,
}

impl Snapshot {
    /// As they are now.
    pub(crate) fn read(tables: &Tables) -> Self {
        let places = 0..PEER_SLOTS * u32::try_from(MAX_PATHS).unwrap_or(0);
        let tx = places.clone().map(|place| tables.path_tx.get(place)).collect();
        Self { tx, rx: places.map(|place| tables.path_rx.get(place)).collect() }
    }
}

impl Paths for Snapshot {
    fn tx(&self, peer: PeerId, path: usize) -> Option<&PathTx> {
        self.tx.get(path_slot(peer, path) as usize)
    }

    fn rx(&self, peer: PeerId, path: usize) -> Option<&PathRx> {
        self.rx.get(path_slot(peer, path) as usize)
    }
}

/// What a peer's configuration says: as it answered last on the first of its paths that is answered, else on any.
pub(crate) fn far_fingerprint(tables: &Tables, peer: PeerId) -> Fingerprint {
    let said = |path| Fingerprint::from_bits(tables.fingerprints.get(path_slot(peer, path)));
    let is_answered = |path: &usize| {
        let slot = path_slot(peer, *path);
        let (rx, tx) = (tables.path_rx.get(slot), tables.path_tx.get(slot));
        unanswered(&tx, Answered::from_bits(rx.answered)) < tx.limit
    };
    let answered = (0..MAX_PATHS).filter(is_answered).map(said);
    answered.chain((0..MAX_PATHS).map(said)).find(|it| !it.is_unknown()).unwrap_or(Fingerprint::UNKNOWN)
}

/// Makes a path begin: what was known of it is forgotten. Whoever reads meanwhile finds one that does not exist.
pub(crate) fn begin(path_tx: &Mapped<PathTx>, path_rx: &Mapped<PathRx>, slot: u32, tx: &PathTx, streak: u32) {
    path_tx.set(slot, &PathTx { order: tx.order, ..PathTx::default() });
    let answered = Answered { sequence: tx.sequence, streak }.to_bits();
    path_rx.set(slot, &PathRx { answered, ..PathRx::default() });
    path_tx.set(slot, tx);
}

/// Number that cannot be guessed.
pub(crate) fn nonce() -> anyhow::Result<u64> {
    let mut octets = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut octets)).context("cannot read /dev/urandom")?;
    Ok(u64::from_ne_bytes(octets))
}

/// Writes the paths to all peers. Those of a peer that is the same stay as they are: `others` are ids that mean another peer
/// than before.
pub(super) fn write_paths(tables: &Tables, view: &View, others: &HashSet<PeerId>) -> anyhow::Result<()> {
    let writer = Writer { tables, view, others };
    for peer in &view.peers {
        writer.write(peer)?;
    }
    let known: BTreeSet<PeerId> = view.peers.iter().map(|peer| peer.id).collect();
    for id in (0..PEER_SLOTS).filter(|id| !known.contains(id)) {
        (0..MAX_PATHS).for_each(|path| writer.clear(path_slot(id, path)));
    }
    for place in 0..u32::try_from(tables.history.len())? {
        let change = tables.history.get(place);
        if change.at_ns != 0 && (others.contains(&change.peer) || !known.contains(&change.peer)) {
            tables.history.set(place, &Change::default());
        }
    }
    Ok(())
}

struct Writer<'a> {
    tables: &'a Tables,
    view: &'a View,
    others: &'a HashSet<PeerId>,
}

impl Writer<'_> {
    fn write(&self, peer: &PeerView) -> anyhow::Result<()> {
        let probe = &self.view.probe;
        let direct = path_slot(peer.id, DIRECT);
        if !peer.is_probed {
            (0..MAX_PATHS).for_each(|path| self.clear(path_slot(peer.id, path)));
            self.tables.path_tx.set(direct, &PathTx { limit: u32::MAX, ..PathTx::default() });
            return Ok(());
        }
        let is_same = !self.others.contains(&peer.id);
        let before = self.tables.path_tx.get(direct);
        let mut tried = Vec::new();
        let mut free = Vec::new();
        for path in 1..MAX_PATHS {
            let tx = self.tables.path_tx.get(path_slot(peer.id, path));
            let stays = is_same && tx.limit != 0 && peer.relays.contains(&tx.relay) && !self.others.contains(&tx.relay);
            if stays { tried.push((path, tx.relay)) } else { free.push(path) }
        }
        let is_known = |tried: &[(usize, PeerId)], relay| tried.iter().any(|(_, other)| *other == relay);
        // In the order in which they were tried so far.
        let rank = |path: usize| (0..MAX_PATHS - 1).find(|nth| (before.order >> (8 * nth) & 0xff) as usize == path);
        tried.sort_by_key(|(path, _)| rank(*path).unwrap_or(MAX_PATHS));
        for path in free {
            let slot = path_slot(peer.id, path);
            self.clear(slot);
            if let Some(&relay) = peer.relays.iter().find(|&&relay| !is_known(&tried, relay)) {
                self.tables.path_tx.set(slot, &fresh(probe, relay)?);
                tried.push((path, relay));
            }
        }
        let order = order(&tried.iter().map(|(path, _)| *path).collect::<Vec<_>>());
        let was_probed = is_same && before.limit != 0 && before.limit != u32::MAX;
        if !peer.is_direct {
            self.tables.path_tx.set(direct, &PathTx { order, ..PathTx::default() });
        } else if was_probed {
            self.tables.path_tx.set(direct, &PathTx { order, ..before });
        } else {
            let tx = PathTx { order, ..fresh(probe, 0)? };
            self.tables.path_notes.set(direct, &PathNote::default());
            self.tables.fingerprints.set(direct, &0);
            begin(&self.tables.path_tx, &self.tables.path_rx, direct, &tx, probe.recover);
        }
        Ok(())
    }

    fn clear(&self, slot: u32) {
        self.tables.path_tx.set(slot, &PathTx::default());
        self.tables.path_rx.set(slot, &PathRx::default());
        self.tables.fingerprints.set(slot, &0);
        self.tables.path_notes.set(slot, &PathNote::default());
    }
}

/// A path of which nothing is known.
pub(crate) fn fresh(probe: &Probe, relay: PeerId) -> anyhow::Result<PathTx> {
    Ok(PathTx { limit: first_limit(probe), recover: probe.recover, relay, nonce: nonce()?, ..PathTx::default() })
}
