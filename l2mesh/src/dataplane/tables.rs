//! The pinned maps with their types.

use std::{borrow::BorrowMut, collections::HashSet, hash::Hash};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, RingBuf},
    util::nr_cpus,
};
use l2mesh_common::{
    freeze::Stays,
    tables::{
        Bucket, BucketKey, Change, Counter, Fact, FdbEntry, FdbKey, FloodList, Label, LabelKey, MemberKey, MemberMacs,
        Members, Meta, Neighbour, NeighbourKey, Network, NetworkCounter, NextHop, PathNote, PathRx, PathTx, Peer,
        PeerCounter, PeerId, Port, Reported, Settings, VtepAddress,
    },
    verdict::Verdict,
};

use super::{mapped::Mapped, pins::PinDir};

/// Every map, in the order of the table in `l2mesh_common::tables`.
pub(crate) const MAPS: [&str; 28] = [
    "META",
    "SETTINGS",
    "NETWORKS",
    "PORTS",
    "PEERS",
    "VTEPS",
    "FLOOD",
    "FDB",
    "NEIGHBOURS",
    "COUNTERS",
    "PEER_COUNTERS",
    "NETWORK_COUNTERS",
    "LABELS",
    "BUCKETS",
    "STAYS",
    "MEMBER_MACS",
    "EVENTS",
    "CALLS",
    "PATH_TX",
    "PATH_RX",
    "FINGERPRINTS",
    "REACHABILITY",
    "PATH_NOTES",
    "HISTORY",
    "NODES",
    "RELAYED",
    "CAPTURE",
    "CAPTURED",
];

/// The maps of one mesh.
pub(crate) struct Tables {
    pub(crate) meta: Array<MapData, Meta>,
    pub(crate) settings: Array<MapData, Settings>,
    pub(crate) networks: HashMap<MapData, u32, Network>,
    pub(crate) ports: HashMap<MapData, u32, Port>,
    pub(crate) peers: Array<MapData, Peer>,
    pub(crate) vteps: HashMap<MapData, VtepAddress, PeerId>,
    pub(crate) flood: HashMap<MapData, u32, FloodList>,
    pub(crate) fdb: HashMap<MapData, FdbKey, FdbEntry>,
    pub(crate) neighbours: HashMap<MapData, NeighbourKey, Neighbour>,
    pub(crate) counters: PerCpuArray<MapData, Counter>,
    pub(crate) peer_counters: PerCpuArray<MapData, PeerCounter>,
    pub(crate) network_counters: PerCpuArray<MapData, NetworkCounter>,
    pub(crate) labels: HashMap<MapData, LabelKey, Label>,
    pub(crate) buckets: HashMap<MapData, BucketKey, Bucket>,
    pub(crate) stays: HashMap<MapData, FdbKey, Stays>,
    pub(crate) member_macs: HashMap<MapData, MemberKey, MemberMacs>,
    pub(crate) events: RingBuf<MapData>,
    pub(crate) calls: ProgramArray<MapData>,
    pub(crate) path_tx: Mapped<PathTx>,
    pub(crate) path_rx: Mapped<PathRx>,
    pub(crate) fingerprints: Mapped<u64>,
    pub(crate) reachability: Mapped<Reported>,
    pub(crate) path_notes: Mapped<PathNote>,
    pub(crate) history: Mapped<Change>,
    pub(crate) nodes: HashMap<MapData, u32, PeerId>,
    pub(crate) relayed: HashMap<MapData, u32, Members>,
}

impl Tables {
    /// Opens the pins.
    pub(crate) fn open(pins: &PinDir) -> anyhow::Result<Self> {
        Ok(Self {
            meta: open(pins, "META")?,
            settings: open(pins, "SETTINGS")?,
            networks: open(pins, "NETWORKS")?,
            ports: open(pins, "PORTS")?,
            peers: open(pins, "PEERS")?,
            vteps: open(pins, "VTEPS")?,
            flood: open(pins, "FLOOD")?,
            fdb: open(pins, "FDB")?,
            neighbours: open(pins, "NEIGHBOURS")?,
            counters: open(pins, "COUNTERS")?,
            peer_counters: open(pins, "PEER_COUNTERS")?,
            network_counters: open(pins, "NETWORK_COUNTERS")?,
            labels: open(pins, "LABELS")?,
            buckets: open(pins, "BUCKETS")?,
            stays: open(pins, "STAYS")?,
            member_macs: open(pins, "MEMBER_MACS")?,
            events: open(pins, "EVENTS")?,
            calls: open(pins, "CALLS")?,
            path_tx: Mapped::open(&pins.pin("PATH_TX"))?,
            path_rx: Mapped::open(&pins.pin("PATH_RX"))?,
            fingerprints: Mapped::open(&pins.pin("FINGERPRINTS"))?,
            reachability: Mapped::open(&pins.pin("REACHABILITY"))?,
            path_notes: Mapped::open(&pins.pin("PATH_NOTES"))?,
            history: Mapped::open(&pins.pin("HISTORY"))?,
            nodes: open(pins, "NODES")?,
            relayed: open(pins, "RELAYED")?,
        })
    }

    /// Puts another next hop in force without a moment in which a program could read half of it.
    pub(crate) fn set_next_hop(&mut self, peer: PeerId, next_hop: NextHop) -> anyhow::Result<()> {
        let mut value = self.peers.get(&peer, 0)?;
        let spare = usize::from(value.active == 0);
        value.next_hop[spare] = next_hop;
        self.peers.set(peer, value, 0).context("cannot write PEERS")?;
        value.active = u32::try_from(spare)?;
        self.peers.set(peer, value, 0).context("cannot write PEERS")
    }

    /// A verdict's counter over all CPUs.
    pub(crate) fn counter(&self, verdict: Verdict) -> anyhow::Result<Counter> {
        let values = self.counters.get(&verdict.number(), 0).context("cannot read COUNTERS")?;
        Ok(values.iter().fold(Counter::default(), |sum, value| add(sum, *value)))
    }

    /// Counts something that only the agent sees: no program counts under the same verdict.
    pub(crate) fn count(&mut self, verdict: Verdict) -> anyhow::Result<()> {
        let mut values = self.counters.get(&verdict.number(), 0).context("cannot read COUNTERS")?.to_vec();
        if let Some(first) = values.first_mut() {
            first.frames += 1;
        }
        self.counters.set(verdict.number(), PerCpuValues::try_from(values)?, 0).context("cannot write COUNTERS")
    }

    /// Traffic with a peer over all CPUs.
    pub(crate) fn peer_counter(&self, peer: PeerId) -> anyhow::Result<PeerCounter> {
        Ok(sum(&self.peer_counters.get(&peer, 0).context("cannot read PEER_COUNTERS")?))
    }

    /// Traffic in the network of this number over all CPUs.
    pub(crate) fn network_counter(&self, number: u16) -> anyhow::Result<NetworkCounter> {
        let values = self.network_counters.get(&number.into(), 0).context("cannot read NETWORK_COUNTERS")?;
        Ok(values.iter().fold(NetworkCounter::default(), |sum, value| NetworkCounter {
            sent: add(sum.sent, value.sent),
            received: add(sum.received, value.received),
            storm_sent: sum.storm_sent + value.storm_sent,
            storm_received: sum.storm_received + value.storm_received,
        }))
    }

    /// Starts the traffic in a network anew.
    pub(crate) fn clear_network_counter(&mut self, number: u16) -> anyhow::Result<()> {
        let zero = vec![NetworkCounter::default(); nr_cpus().map_err(|(_, error)| error)?];
        self.network_counters
            .set(number.into(), PerCpuValues::try_from(zero)?, 0)
            .context("cannot write NETWORK_COUNTERS")
    }

    /// The number of a network in force; 0 of one that is not.
    pub(crate) fn network_number(&self, vni: u32) -> u16 {
        self.networks.get(&vni, 0).map_or(0, |network| network.number)
    }

    /// Starts the traffic with a peer anew.
    pub(crate) fn clear_peer_counter(&mut self, peer: PeerId) -> anyhow::Result<()> {
        let zero = vec![PeerCounter::default(); nr_cpus().map_err(|(_, error)| error)?];
        self.peer_counters.set(peer, PerCpuValues::try_from(zero)?, 0).context("cannot write PEER_COUNTERS")
    }

    /// A text, or nothing.
    pub(crate) fn label(&self, key: LabelKey) -> String {
        self.labels.get(&key, 0).map(|label| label.text().to_owned()).unwrap_or_default()
    }

    /// What is known about this host under `fact`.
    pub(crate) fn fact(&self, fact: Fact) -> String {
        self.label(LabelKey::fact(fact))
    }

    /// Writes a text for whoever reads later.
    pub(crate) fn set_fact(&mut self, fact: Fact, text: &str) -> anyhow::Result<()> {
        self.labels.insert(LabelKey::fact(fact), Label::new(text), 0).context("cannot write LABELS")
    }
}

/// Makes a map hold exactly `wanted`: adds and changes first, then removes what is left over.
pub(crate) fn reconcile<T: BorrowMut<MapData>, K: Pod + Eq + Hash, V: Pod + PartialEq>(
    map: &mut HashMap<T, K, V>,
    wanted: impl IntoIterator<Item = (K, V)>,
) -> anyhow::Result<()> {
    let mut keys = HashSet::new();
    for (key, value) in wanted {
        if !map.get(&key, 0).is_ok_and(|found| found == value) {
            map.insert(key, value, 0)?;
        }
        keys.insert(key);
    }
    for key in map.keys().collect::<Result<Vec<_>, _>>()? {
        if !keys.contains(&key) {
            remove(map, &key)?;
        }
    }
    Ok(())
}

/// Removes a key; that it is gone already is fine.
pub(crate) fn remove<T: BorrowMut<MapData>, K: Pod, V: Pod>(map: &mut HashMap<T, K, V>, key: &K) -> anyhow::Result<()> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The texts alone, also of a mesh whose other tables have another layout.
pub(super) fn labels(pins: &PinDir) -> anyhow::Result<HashMap<MapData, LabelKey, Label>> {
    open(pins, "LABELS")
}

fn sum(values: &[PeerCounter]) -> PeerCounter {
    values.iter().fold(PeerCounter::default(), |sum, value| PeerCounter {
        sent: add(sum.sent, value.sent),
        received: add(sum.received, value.received),
    })
}

fn add(a: Counter, b: Counter) -> Counter {
    Counter { frames: a.frames + b.frames, octets: a.octets + b.octets }
}

fn open<M: TryFrom<Map, Error = MapError>>(pins: &PinDir, name: &str) -> anyhow::Result<M> {
    let path = pins.pin(name);
    let map = MapData::from_pin(&path).with_context(|| format!("cannot open the pinned map {}", path.display()))?;
    M::try_from(Map::from_map_data(map)?)
        .with_context(|| format!("{} is not the map that it should be", path.display()))
}
