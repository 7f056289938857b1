//! What the screen shows, read from the pinned tables: no agent is needed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use l2mesh_common::tables::{Fact, FdbEntry, FdbKey, LabelKey, Network, NetworkCounter, PeerCounter};

use super::{
    super::{
        maps::{Matrix, PathRow, Snapshot, vni_text},
        output::{Attached, attached},
    },
    rates::{Rates, sum},
};
use crate::agent::{coarse_now_ns, control::live_agent};

/// MAC addresses shown at most.
const MACS: usize = 500;
/// The table of MAC addresses is walked again when this many times as long has passed as the last walk took.
const REST: u32 = 20;

/// A peer's line.
#[derive(Clone, Debug)]
pub(super) struct PeerLine {
    pub(super) name: String,
    /// The direct path first.
    pub(super) paths: Vec<PathRow>,
    pub(super) rates: Rates,
}

/// A network's line.
#[derive(Clone, Debug)]
pub(super) struct NetworkLine {
    pub(super) name: String,
    pub(super) vni: String,
    pub(super) macs: u64,
    pub(super) rates: Rates,
}

/// A MAC address's line.
#[derive(Clone, Debug)]
pub(super) struct MacLine {
    pub(super) mac: String,
    pub(super) network: String,
    pub(super) peer: String,
    /// `None` for a static one.
    pub(super) age: Option<Duration>,
    pub(super) moves: u32,
    pub(super) is_frozen: bool,
}

/// All of it.
#[derive(Clone, Default, Debug)]
pub(super) struct Sample {
    pub(super) node: String,
    pub(super) interface: String,
    pub(super) mode: String,
    pub(super) agent: Option<i32>,
    pub(super) peers: Vec<PeerLine>,
    pub(super) matrix: Matrix,
    pub(super) networks: Vec<NetworkLine>,
    pub(super) macs: Vec<MacLine>,
    /// Of all networks.
    pub(super) total: Rates,
}

/// Reads one sample after another.
pub(super) struct Reader {
    pin_root: PathBuf,
    attached: Attached,
    at: Instant,
    peers: BTreeMap<u32, PeerCounter>,
    networks: BTreeMap<u32, PeerCounter>,
    macs: Walk,
}

/// What a walk over the table of MAC addresses found.
#[derive(Default)]
struct Walk {
    at: Option<Instant>,
    took: Duration,
    by_vni: BTreeMap<u32, u64>,
    /// Those that are shown.
    first: Vec<(FdbKey, FdbEntry)>,
}

impl Reader {
    /// Opens the mesh on `interface`, or the only one that there is.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn open(pin_root: &Path, interface: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self::of(pin_root, attached(pin_root, interface)?))
    }

    fn of(pin_root: &Path, attached: Attached) -> Self {
        let none = BTreeMap::new;
        let pin_root = pin_root.to_owned();
        Self { pin_root, attached, at: Instant::now(), peers: none(), networks: none(), macs: Walk::default() }
    }

    /// The interface whose mesh it is.
    pub(super) fn interface(&self) -> &str {
        &self.attached.interface
    }

    /// As it is now; rates are those since the last time.
    ///
    /// # Errors
    /// The mesh is gone, or cannot be read just now.
    pub(super) fn read(&mut self) -> anyhow::Result<Sample> {
        if !self.attached.is_current() {
            *self = Self::of(&self.pin_root, attached(&self.pin_root, Some(&self.attached.interface))?);
        }
        let tables = &self.attached.tables;
        let (now, now_ns) = (Instant::now(), coarse_now_ns()?);
        let time = now.duration_since(self.at);
        self.macs.walk(&self.attached, now, now_ns);
        let mut sample = Sample {
            node: tables.fact(Fact::Node),
            interface: self.attached.interface.clone(),
            mode: tables.fact(Fact::Mode).split(' ').next().unwrap_or_default().to_owned(),
            agent: live_agent(self.attached.ifindex)?,
            ..Sample::default()
        };
        let snapshot = Snapshot::of(tables);
        sample.matrix = Matrix::of(tables, &snapshot)?;
        let mut ids: Vec<u32> = tables.vteps.iter().filter_map(|it| Some(it.ok()?.1)).collect();
        ids.sort_unstable();
        let names: BTreeMap<u32, String> = ids.iter().map(|&id| (id, tables.label(LabelKey::peer(id)))).collect();
        let name = |id| names.get(&id).cloned().unwrap_or_default();
        let mtu = |id| tables.peers.get(&id, 0).map_or(0, |peer| peer.current().mtu);
        let mut peers = BTreeMap::new();
        for id in ids {
            let counter = tables.peer_counter(id)?;
            let rates = self.peers.get(&id).map(|before| Rates::between(before, &counter, time)).unwrap_or_default();
            peers.insert(id, counter);
            sample.peers.push(PeerLine { name: name(id), paths: snapshot.rows(id, &name, &mtu), rates });
        }
        let found: BTreeMap<u32, Network> = tables.networks.iter().filter_map(Result::ok).collect();
        let mut networks = BTreeMap::new();
        for (vni, network) in found {
            let NetworkCounter { sent, received, .. } = tables.network_counter(network.number)?;
            let counter = PeerCounter { sent, received };
            let rates = self.networks.get(&vni).map(|before| Rates::between(before, &counter, time));
            networks.insert(vni, counter);
            sample.networks.push(NetworkLine {
                name: tables.label(LabelKey::network(vni)),
                vni: vni_text(vni),
                macs: self.macs.by_vni.get(&vni).copied().unwrap_or(0),
                rates: rates.unwrap_or_default(),
            });
        }
        if !self.networks.is_empty() {
            let [before, now] = [&self.networks, &networks].map(|all| sum(all.values().copied()));
            sample.total = Rates::between(&before, &now, time);
        }
        sample.macs = self
            .macs
            .first
            .iter()
            .map(|(key, entry)| MacLine {
                mac: key.mac.to_string(),
                network: tables.label(LabelKey::network(key.vni)),
                peer: name(entry.peer),
                age: (!entry.is_static()).then(|| Duration::from_nanos(now_ns.saturating_sub(entry.seen_ns))),
                moves: entry.moves,
                is_frozen: entry.is_frozen(now_ns),
            })
            .collect();
        (self.at, self.peers, self.networks) = (now, peers, networks);
        Ok(sample)
    }
}

impl Walk {
    /// Those that are frozen first, then those that moved most often, then those heard last: nobody counts frames by address.
    fn walk(&mut self, attached: &Attached, now: Instant, now_ns: u64) {
        if self.at.is_some_and(|at| now.duration_since(at) < self.took * REST) {
            return;
        }
        self.by_vni.clear();
        let mut all: Vec<(FdbKey, FdbEntry)> = Vec::new();
        for (key, entry) in attached.tables.fdb.iter().map_while(Result::ok) {
            *self.by_vni.entry(key.vni).or_default() += 1;
            all.push((key, entry));
        }
        all.sort_by_key(|(key, entry)| {
            let order = std::cmp::Reverse((entry.is_frozen(now_ns), entry.moves, entry.seen_ns / 10_000_000_000));
            (order, key.vni, key.mac)
        });
        all.truncate(MACS);
        (self.first, self.at, self.took) = (all, Some(now), now.elapsed());
    }
}
