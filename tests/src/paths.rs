//! Which paths a node has to its peers, read from its pinned tables: with the rule by which the kernel chooses, but without a
//! command that runs for some milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use l2mesh_common::path::{Answered, Choice, DIRECT, MAX_PATHS, choose, is_up};
use l2mesh_common::tables::{Fact, Label, LabelKey, PathRx, PathTx, PeerId, path_slot};

use crate::host::Host;
use crate::wait::wait_for;

/// The pinned paths of a node. They stay the same as long as it is attached, and adopted.
pub struct Paths {
    host: Host,
    tx: Array<MapData, PathTx>,
    rx: Array<MapData, PathRx>,
    labels: HashMap<MapData, LabelKey, Label>,
    names: BTreeMap<PeerId, String>,
}

/// How frames go to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// Directly.
    Direct,
    /// Through this relay.
    Via(String),
    /// Directly, because no path is up.
    Dead,
}

impl Way {
    /// Through this relay.
    #[must_use]
    pub fn via(relay: &Host) -> Self {
        Self::Via(relay.name().to_owned())
    }
}

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "paths of {}", self.host.name())
    }
}

impl Paths {
    /// Of a node that is attached to its first interface.
    #[must_use]
    #[track_caller]
    pub fn of(host: &Host) -> Self {
        let directory = host.pinned(&host.interface()).directory().to_owned();
        let map = |name: &str| {
            let map = MapData::from_pin(directory.join(name));
            Map::Array(map.unwrap_or_else(|error| panic!("{}: {name}: {error}", host.name())))
        };
        let peers = host.l2mesh(&["maps", "peers", "--json"]);
        let name = |peer: &serde_json::Value| {
            Some((PeerId::try_from(peer["id"].as_u64()?).ok()?, peer["name"].as_str()?.to_owned()))
        };
        let names = peers["peers"].as_array().into_iter().flatten().filter_map(name).collect();
        let (tx, rx) = (map("PATH_TX"), map("PATH_RX"));
        let (tx, rx) = (tx.try_into().expect("an array of PathTx"), rx.try_into().expect("an array of PathRx"));
        let labels = MapData::from_pin(directory.join("LABELS")).expect("the pinned labels");
        let labels = Map::HashMap(labels).try_into().expect("a table of labels");
        Self { host: host.clone(), tx, rx, labels, names }
    }

    /// How often the agent was more than 10 ms late to send probes, as it said at most two seconds ago.
    #[must_use]
    #[track_caller]
    pub fn late(&self) -> u64 {
        wait_for(&format!("{} says how late it is", self.host.name()), Duration::from_secs(5), || {
            let label = self.labels.get(&LabelKey::fact(Fact::Prober), 0);
            let text = label.as_ref().map_or("", Label::text);
            let count = text.split_once(", late ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            count.ok_or_else(|| format!("{text:?}"))
        })
    }

    /// The number by which the node knows a peer.
    #[must_use]
    #[track_caller]
    pub fn id(&self, peer: &Host) -> PeerId {
        let found = self.names.iter().find(|(_, name)| *name == peer.name());
        *found.unwrap_or_else(|| panic!("{} is no peer of {}", peer.name(), self.host.name())).0
    }

    /// What agent and kernel say of a path.
    #[must_use]
    #[track_caller]
    pub fn path(&self, peer: &Host, place: usize) -> (PathTx, PathRx) {
        let slot = path_slot(self.id(peer), place);
        (self.tx.get(&slot, 0).expect("a path"), self.rx.get(&slot, 0).expect("a path"))
    }

    /// How a frame would go to a peer now.
    #[must_use]
    #[track_caller]
    pub fn way(&self, peer: &Host) -> Way {
        let choice = self.choice(peer);
        match (choice.path, choice.is_up) {
            (DIRECT, true) => Way::Direct,
            (DIRECT, false) => Way::Dead,
            _ => Way::Via(self.names[&choice.relay].clone()),
        }
    }

    #[track_caller]
    fn choice(&self, peer: &Host) -> Choice {
        let peer = self.id(peer);
        let mut world = World(BTreeMap::new());
        let mut read = |peer, place| {
            let slot = path_slot(peer, place);
            let tx = self.tx.get(&slot, 0).expect("a path");
            world.0.insert(slot, (tx, self.rx.get(&slot, 0).expect("a path")));
            tx.relay
        };
        for place in 0..MAX_PATHS {
            let relay = read(peer, place);
            if place != DIRECT {
                read(relay, DIRECT);
            }
        }
        choose(&world, peer)
    }

    /// The relays that have a place among the paths to a peer, up or not.
    #[must_use]
    #[track_caller]
    pub fn relays(&self, peer: &Host) -> Vec<String> {
        let those = (1..MAX_PATHS).map(|place| self.path(peer, place).0).filter(|tx| tx.limit > 0);
        those.map(|tx| self.names[&tx.relay].clone()).collect()
    }

    /// The relays through which the node would reach a peer if it had to.
    #[must_use]
    #[track_caller]
    pub fn ready(&self, peer: &Host) -> Vec<String> {
        let up = (1..MAX_PATHS)
            .map(|place| self.path(peer, place))
            .filter(|(tx, rx)| is_up(tx, Answered::from_bits(rx.answered)) && tx.limit > 0);
        up.map(|(tx, _)| self.names[&tx.relay].clone()).collect()
    }

    /// How many paths to all peers together are up.
    #[must_use]
    #[track_caller]
    pub fn count_up(&self) -> usize {
        let slots = self.names.keys().flat_map(|peer| (0..MAX_PATHS).map(|place| path_slot(*peer, place)));
        let is_up = |slot: &u32| {
            let (tx, rx) = (self.tx.get(slot, 0).expect("a path"), self.rx.get(slot, 0).expect("a path"));
            is_up(&tx, Answered::from_bits(rx.answered))
        };
        slots.filter(is_up).count()
    }

    /// Waits until frames go this way.
    #[track_caller]
    pub fn wait_way(&self, peer: &Host, way: &Way, limit: Duration) {
        let what = format!("{} reaches {}: {way:?}", self.host.name(), peer.name());
        wait_for(&what, limit, || match self.way(peer) {
            now if now == *way => Ok(()),
            now => Err(format!("{now:?} {}", self.describe(peer))),
        });
    }

    /// Waits until so many relays are ready to be used for a peer.
    #[track_caller]
    pub fn wait_ready(&self, peer: &Host, count: usize, limit: Duration) {
        let what = format!("{} has {count} relays for {}", self.host.name(), peer.name());
        wait_for(&what, limit, || {
            let ready = self.ready(peer);
            if ready.len() >= count { Ok(()) } else { Err(format!("{ready:?} {}", self.describe(peer))) }
        });
    }

    /// All that is known of the paths to a peer.
    #[must_use]
    #[track_caller]
    pub fn describe(&self, peer: &Host) -> String {
        let path = |place| {
            let (tx, rx) = self.path(peer, place);
            let Answered { sequence, streak } = Answered::from_bits(rx.answered);
            let via = self.names.get(&tx.relay).map_or("?", String::as_str);
            format!(
                "[{place} via {via}: sent {} answered {sequence} limit {} streak {streak} of {} hold {} order {:x} rtt {} us]",
                tx.sequence,
                tx.limit,
                tx.recover,
                tx.hold,
                tx.order,
                rx.rtt_ns / 1000
            )
        };
        (0..MAX_PATHS).map(path).collect::<Vec<_>>().join(" ")
    }
}

/// What was read, as the rule wants it.
struct World(BTreeMap<u32, (PathTx, PathRx)>);

impl l2mesh_common::path::Paths for World {
    fn tx(&self, peer: PeerId, path: usize) -> Option<&PathTx> {
        self.0.get(&path_slot(peer, path)).map(|(tx, _)| tx)
    }

    fn rx(&self, peer: PeerId, path: usize) -> Option<&PathRx> {
        self.0.get(&path_slot(peer, path)).map(|(_, rx)| rx)
    }
}
