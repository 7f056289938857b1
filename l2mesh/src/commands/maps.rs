//! `l2mesh maps`: what the kernel holds right now, read from the pinned maps. No agent is needed.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::Path,
    thread::sleep,
    time::Duration,
};

use anyhow::ensure;
use l2mesh_common::{
    tables::{LabelKey, Network, PathLimit, Peer, PeerId},
    verdict::{Fate, Verdict},
    wire::Vni,
};
use serde::Serialize;

use super::{
    neighbours::{NeighbourRow, neighbours, neighbours_table},
    output::{Attached, attached, table},
};
use crate::{
    agent::coarse_now_ns,
    cli::{MapsArgs, Table},
    dataplane::tables::Tables,
};

/// How often `--watch` shows it again.
const WATCH: Duration = Duration::from_secs(1);
/// Clears the terminal and goes to its first place (ECMA-48 ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows one table or all.
///
/// # Errors
/// No mesh is attached, or it cannot be read.
pub(crate) fn run(args: &MapsArgs, pin_root: &Path) -> anyhow::Result<()> {
    let vni = args.vni.map(Vni::get);
    loop {
        let mesh = attached(pin_root, args.iface.as_deref())?;
        if let Some(vni) = vni {
            ensure!(
                mesh.tables.networks.get(&vni, 0).is_ok(),
                "no network here has VNI {vni}: see `l2mesh maps networks`"
            );
        }
        let maps = Maps::read(&mesh, args.table, vni)?;
        let text = if args.json { serde_json::to_string_pretty(&maps)? + "\n" } else { maps.to_string() };
        let mut stdout = std::io::stdout().lock();
        if args.watch && !args.json && stdout.is_terminal() {
            stdout.write_all(CLEAR.as_bytes())?;
        }
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        if !args.watch {
            return Ok(());
        }
        sleep(WATCH);
    }
}

/// The tables asked for.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Maps {
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<NetworkRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Vec<PeerRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<PathRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs: Option<Vec<MacRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbours: Option<Vec<NeighbourRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Vec<CounterRow>>,
}

/// A network.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkRow {
    pub(crate) name: String,
    pub(crate) vni: u32,
    /// Empty while the interface is in another namespace.
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) hidden_peer: String,
    pub(crate) mac: String,
    /// Octets.
    pub(crate) mtu: u32,
    /// Null unless the configuration names one.
    pub(crate) bridge: Option<String>,
    pub(crate) members: Vec<String>,
    pub(crate) macs: usize,
    /// Flooded frames per second.
    pub(crate) storm_limit: u32,
    /// MAC addresses behind one peer; null for no limit.
    pub(crate) macs_per_peer: Option<u32>,
    pub(crate) transmit: String,
}

/// Next hop of a peer towards which the kernel puts the outer header on.
const BY_KERNEL: &str = "by the kernel";

/// Another node.
#[derive(Debug, Serialize)]
pub(crate) struct PeerRow {
    pub(crate) id: PeerId,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) kind: &'static str,
    pub(crate) node_id: u32,
    /// Empty while the next hop is not known.
    pub(crate) interface: String,
    /// A MAC address, or [`BY_KERNEL`].
    pub(crate) next_hop: Option<String>,
    /// Of the inner frames, octets.
    pub(crate) mtu: u32,
    /// Why that is less than the way there would take; null if it is not.
    pub(crate) learned: Option<Learned>,
    pub(crate) sent_frames: u64,
    pub(crate) sent_octets: u64,
    pub(crate) received_frames: u64,
    pub(crate) received_octets: u64,
}

impl PeerRow {
    /// The MTU, and why it is what it is.
    pub(crate) fn mtu_text(&self) -> String {
        match &self.learned {
            Some(Learned { path_mtu, seconds_left }) => {
                format!("{} (ICMP: path takes {path_mtu}, for {seconds_left} s)", self.mtu)
            }
            None => self.mtu.to_string(),
        }
    }
}

/// What ICMP said of a path.
#[derive(Debug, Serialize)]
pub(crate) struct Learned {
    /// Of the outer packets, octets.
    pub(crate) path_mtu: u32,
    /// How long it is believed.
    pub(crate) seconds_left: u64,
}

impl Learned {
    fn new(limit: PathLimit, now_ns: u64) -> Option<Self> {
        let left = limit.until_ns.checked_sub(now_ns).filter(|_| limit.mtu != 0)?;
        Some(Self { path_mtu: limit.mtu, seconds_left: Duration::from_nanos(left).as_secs() })
    }
}

#[derive(Debug, Serialize)]
struct PathRow {
    peer: String,
    path: &'static str,
    in_use: bool,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct MacRow {
    vni: u32,
    mac: String,
    peer: String,
    is_static: bool,
    /// Seconds since a frame from it was received; null for a static one.
    age: Option<f64>,
    moves: u32,
    /// Seconds for which it will stay where it is, having moved too often; null if it may move.
    frozen: Option<f64>,
}

/// A verdict's counter.
#[derive(Debug, Serialize)]
pub(crate) struct CounterRow {
    pub(crate) verdict: &'static str,
    pub(crate) fate: &'static str,
    pub(crate) frames: u64,
    pub(crate) octets: u64,
    pub(crate) meaning: &'static str,
}

impl Maps {
    /// Reads what is asked for; `None` is everything.
    fn read(attached: &Attached, wanted: Option<Table>, vni: Option<u32>) -> anyhow::Result<Self> {
        let tables = &attached.tables;
        let wants = |table| wanted.is_none_or(|wanted| wanted == table);
        let mut maps = Self::default();
        if wants(Table::Networks) {
            maps.networks = Some(networks(tables, vni)?);
        }
        if wants(Table::Peers) {
            maps.peers = Some(peers(tables, vni)?);
        }
        if wants(Table::Paths) {
            maps.paths = Some(paths(tables, vni)?);
        }
        if wants(Table::Macs) {
            maps.macs = Some(macs(tables, vni)?);
        }
        if wants(Table::Neighbours) {
            maps.neighbours = Some(neighbours(tables, vni)?);
        }
        if wants(Table::Counters) {
            maps.counters = Some(counters(tables)?);
        }
        Ok(maps)
    }
}

/// Every network, by VNI.
pub(crate) fn networks(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<NetworkRow>> {
    let mut macs: BTreeMap<u32, usize> = BTreeMap::new();
    for key in tables.fdb.keys().map_while(Result::ok) {
        *macs.entry(key.vni).or_default() += 1;
    }
    let networks: BTreeMap<u32, Network> = tables.networks.iter().collect::<Result<_, _>>()?;
    let names: Vec<String> = (0..tables.peers.len()).map(|peer| tables.label(LabelKey::peer(peer))).collect();
    let rows =
        networks.into_iter().filter(|(id, _)| vni.is_none_or(|vni| vni == *id)).map(|(id, network)| NetworkRow {
            name: tables.label(LabelKey::network(id)),
            vni: id,
            interface: interface(network.overlay_ifindex),
            ifindex: network.overlay_ifindex,
            hidden_peer: interface(network.port_ifindex),
            mac: network.mac.to_string(),
            // A veth end takes 18 octets more than its MTU.
            mtu: network.max_frame.saturating_sub(18),
            bridge: tables.label(LabelKey::bridge(id)).parse().ok().map(interface),
            members: (0..)
                .zip(&names)
                .filter(|(peer, _)| network.has_member(*peer))
                .map(|(_, it)| it.clone())
                .collect(),
            macs: macs.get(&id).copied().unwrap_or(0),
            storm_limit: network.storm_limit,
            macs_per_peer: Some(network.macs_per_peer).filter(|&limit| limit > 0),
            transmit: tables.label(LabelKey::transmit(id)),
        });
    Ok(rows.collect())
}

/// Every peer, in the order of its id; with `vni`, only members.
pub(crate) fn peers(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<PeerRow>> {
    let now = coarse_now_ns()?;
    each_peer(tables, vni)?
        .into_iter()
        .map(|(id, address, peer)| {
            let next_hop = peer.current();
            let counter = tables.peer_counter(id)?;
            Ok(PeerRow {
                id,
                name: tables.label(LabelKey::peer(id)),
                address,
                kind: if peer.flags & Peer::PLAIN == 0 { "l2mesh" } else { "vxlan" },
                node_id: peer.node_id,
                interface: interface(next_hop.ifindex),
                next_hop: next_hop.is_known().then(|| {
                    if next_hop.way().is_by_helper() {
                        BY_KERNEL.to_owned()
                    } else {
                        next_hop.template.ethernet().destination.to_string()
                    }
                }),
                mtu: next_hop.mtu,
                learned: Learned::new(peer.limit, now),
                sent_frames: counter.sent.frames,
                sent_octets: counter.sent.octets,
                received_frames: counter.received.frames,
                received_octets: counter.received.octets,
            })
        })
        .collect()
}

fn each_peer(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<(PeerId, String, Peer)>> {
    let network = vni.map(|vni| tables.networks.get(&vni, 0)).transpose();
    // A network that is not here has no members here.
    let Ok(network) = network else { return Ok(Vec::new()) };
    let vteps: BTreeMap<PeerId, String> = tables
        .vteps
        .iter()
        .map(|entry| entry.map(|(address, id)| (id, address.ip().to_string())))
        .collect::<Result<_, _>>()?;
    let members = vteps.into_iter().filter(|(id, _)| network.as_ref().is_none_or(|network| network.has_member(*id)));
    members.map(|(id, address)| Ok((id, address, tables.peers.get(&id, 0)?))).collect()
}

fn paths(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<PathRow>> {
    let mut rows = Vec::new();
    for (id, _, peer) in each_peer(tables, vni)? {
        rows.push(PathRow {
            peer: tables.label(LabelKey::peer(id)),
            path: "direct",
            in_use: true,
            state: if peer.current().is_known() { "next hop known" } else { "no next hop" },
        });
    }
    Ok(rows)
}

fn macs(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<MacRow>> {
    let now = coarse_now_ns()?;
    let mut entries: Vec<_> =
        tables.fdb.iter().map_while(Result::ok).filter(|(key, _)| vni.is_none_or(|vni| vni == key.vni)).collect();
    entries.sort_by_key(|(key, _)| (key.vni, key.mac));
    Ok(entries
        .into_iter()
        .map(|(key, entry)| MacRow {
            vni: key.vni,
            mac: key.mac.to_string(),
            peer: tables.label(LabelKey::peer(entry.peer)),
            is_static: entry.is_static(),
            age: (!entry.is_static()).then(|| seconds(now.saturating_sub(entry.seen_ns))),
            moves: entry.moves,
            frozen: entry.is_frozen(now).then(|| seconds(entry.frozen_until_ns - now)),
        })
        .collect())
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// Every verdict.
pub(crate) fn counters(tables: &Tables) -> anyhow::Result<Vec<CounterRow>> {
    Verdict::ALL
        .iter()
        .filter(|verdict| verdict.is_counted())
        .map(|&verdict| {
            let counter = tables.counter(verdict)?;
            let fate = match verdict.fate() {
                Fate::Carried => "carried",
                Fate::Passed => "passed on",
                Fate::Dropped => "dropped",
                Fate::Noted => "noted",
            };
            Ok(CounterRow {
                verdict: verdict.label(),
                fate,
                frames: counter.frames,
                octets: counter.octets,
                meaning: verdict.text(),
            })
        })
        .collect()
}

/// Name of an interface of our namespace; its number where it has none, nothing for 0.
pub(crate) fn interface(ifindex: u32) -> String {
    match ifindex {
        0 => String::new(),
        _ => nix::net::if_::if_indextoname(ifindex)
            .map_or_else(|_| ifindex.to_string(), |name| name.to_string_lossy().into_owned()),
    }
}

/// A VNI as people need it: both ways.
pub(crate) fn vni_text(vni: u32) -> String {
    Vni::new(vni).map_or_else(|_| vni.to_string(), |vni| vni.to_string())
}

impl std::fmt::Display for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if let Some(rows) = &self.networks {
            parts.push(networks_table(rows));
        }
        if let Some(rows) = &self.peers {
            parts.push(peers_table(rows));
        }
        if let Some(rows) = &self.paths {
            let cells = rows.iter().map(|it| {
                vec![it.peer.clone(), it.path.into(), if it.in_use { "in use" } else { "" }.into(), it.state.into()]
            });
            parts.push(table("paths", &["peer", "path", "", "state"], &cells.collect::<Vec<_>>(), &[]));
        }
        if let Some(rows) = &self.macs {
            let cells = rows.iter().map(|it| {
                let age = it.age.map_or_else(|| "static".to_owned(), |age| format!("{age:.0} s"));
                let frozen = it.frozen.map_or_else(String::new, |left| format!("{left:.0} s more"));
                vec![vni_text(it.vni), it.mac.clone(), it.peer.clone(), age, it.moves.to_string(), frozen]
            });
            let header = ["vni", "mac", "behind", "age", "moves", "frozen"];
            parts.push(table("macs", &header, &cells.collect::<Vec<_>>(), &[3, 4, 5]));
        }
        if let Some(rows) = &self.neighbours {
            parts.push(neighbours_table(rows));
        }
        if let Some(rows) = &self.counters {
            // What never happened is of interest to programs only.
            let cells = rows.iter().filter(|it| it.frames > 0).map(|it| {
                vec![it.verdict.into(), it.fate.into(), it.frames.to_string(), it.octets.to_string(), it.meaning.into()]
            });
            parts.push(table(
                "counters",
                &["verdict", "frame was", "frames", "octets", "meaning"],
                &cells.collect::<Vec<_>>(),
                &[2, 3],
            ));
        }
        f.write_str(&parts.join("\n"))
    }
}

/// Networks for people.
pub(crate) fn networks_table(rows: &[NetworkRow]) -> String {
    let cells = rows.iter().map(|it| {
        let interface = match &*it.interface {
            "" if it.transmit.starts_with("down") => "(gone)".to_owned(),
            "" => "(in another namespace)".to_owned(),
            name => it.bridge.as_ref().map_or_else(|| name.to_owned(), |bridge| format!("{name} in {bridge}")),
        };
        vec![
            it.name.clone(),
            vni_text(it.vni),
            interface,
            it.mac.clone(),
            it.mtu.to_string(),
            it.macs.to_string(),
            it.members.len().to_string(),
            it.storm_limit.to_string(),
            it.transmit.clone(),
        ]
    });
    table(
        "networks",
        &["name", "vni", "interface", "mac", "mtu", "macs", "peers", "storm limit", "transmit"],
        &cells.collect::<Vec<_>>(),
        &[4, 5, 6, 7],
    )
}

/// Peers for people.
pub(crate) fn peers_table(rows: &[PeerRow]) -> String {
    let cells = rows.iter().map(|it| {
        let next_hop = it
            .next_hop
            .as_ref()
            .map_or_else(|| "not known".to_owned(), |next_hop| format!("{next_hop} on {}", it.interface));
        vec![
            it.name.clone(),
            it.address.clone(),
            it.kind.into(),
            next_hop,
            it.mtu_text(),
            it.sent_frames.to_string(),
            it.sent_octets.to_string(),
            it.received_frames.to_string(),
            it.received_octets.to_string(),
        ]
    });
    let header = ["peer", "address", "kind", "next hop", "mtu", "sent", "octets", "received", "octets"];
    table("peers", &header, &cells.collect::<Vec<_>>(), &[4, 5, 6, 7, 8])
}
