//! The tables, made to say what the configuration says.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use anyhow::Context as _;
use bytemuck::Zeroable as _;
use l2mesh_common::{
    path::choose,
    tables::{
        Fact, FdbEntry, FdbKey, FloodList, Label, LabelKey, Members, Neighbour, Network, NextHop, OWN_NODE, Peer,
        PeerId, Port, Settings, VtepAddress, Way, path_slot,
    },
    wire::Ipv4Octets,
};

use super::{
    census::Census,
    devices::{Devices, Pair},
    paths::{Snapshot, write_paths},
    reachability::write_ranks,
    tables::{Tables, reconcile, remove},
    view::{NetworkView, PeerView, View},
};
use crate::config::Tos;

/// A veth end takes frames of its MTU, an Ethernet header and one VLAN tag (`is_skb_forwardable` in net/core/dev.c).
const VETH_EXTRA: u32 = 14 + 4;

/// Writes everything but `META` and the next hops. What an earlier attach left and is still right stays untouched.
pub(crate) fn fill(tables: &mut Tables, view: &View, devices: &Devices) -> anyhow::Result<()> {
    let moves = |settings: Settings| (settings.move_limit, settings.move_freeze_ms);
    let moves_before = moves(tables.settings.get(&0, 0)?);
    write_settings(tables, view, devices)?;
    let (others, is_taken_over) = write_peers(tables, view)?;
    if is_taken_over || moves_before != moves(tables.settings.get(&0, 0)?) {
        // What was known of addresses' moves names peers that are others now, or was counted by other limits.
        reconcile(&mut tables.stays, [])?;
    }
    write_paths(tables, view, &others)?;
    write_ranks(tables, view, &others);
    let nodes = view.peers.iter().filter(|peer| !peer.is_plain).map(|peer| (peer.node_id, peer.id));
    reconcile(&mut tables.nodes, nodes.chain([(view.node_id, OWN_NODE)]))?;
    let relayed = view.relayed.iter().map(|(vni, members)| {
        let mut value = Members::zeroed();
        members.iter().for_each(|&peer| value.add(peer));
        (*vni, value)
    });
    reconcile(&mut tables.relayed, relayed)?;
    let paths = paths(tables, view)?;
    reconcile(&mut tables.flood, view.networks.iter().map(|it| (it.vni, flood_list(&paths, it))))?;
    let numbers = numbers(tables, view)?;
    let networks: Vec<_> = view
        .networks
        .iter()
        .zip(&devices.networks)
        .map(|(network, pair)| (network.vni, network_value(network, pair, numbers[&network.vni])))
        .collect();
    reconcile(&mut tables.networks, networks)?;
    let ports = view.networks.iter().zip(&devices.networks).flat_map(|(network, pair)| {
        let port = port_value(network, pair, numbers[&network.vni]);
        let overlay =
            pair.overlay.as_ref().map(|overlay| (overlay.index, keep_shortcut(tables, view, overlay.index, port)));
        [Some((pair.hidden, port)), overlay]
    });
    let ports: Vec<_> = ports.flatten().collect();
    reconcile(&mut tables.ports, ports)?;
    write_fdb(tables, view, &others)?;
    keep_neighbours(tables, view, &others)?;
    write_labels(tables, view)
}

/// Shortcuts are for the agent to open and to close, once it has looked: frames that change from one way to the other may overtake.
fn keep_shortcut(tables: &Tables, view: &View, overlay: u32, port: Port) -> Port {
    match tables.ports.get(&overlay, 0) {
        Ok(before) if before.vni == port.vni && !view.by_kernel => {
            Port { flags: port.flags | before.flags & Port::SHORTCUT, netns_cookie: before.netns_cookie, ..port }
        }
        _ => port,
    }
}

/// How each peer is reached.
pub(crate) type Paths = BTreeMap<PeerId, Reach>;

/// How a peer is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reach {
    way: Way,
    /// Those of the relays through which it may be.
    others: Vec<Way>,
    /// What the path in use takes of an inner packet; 0 while that is not known.
    mtu: u32,
}

/// The paths to all peers, as the tables have them.
pub(crate) fn paths(tables: &Tables, view: &View) -> anyhow::Result<Paths> {
    let snapshot = Snapshot::read(tables);
    let ways: BTreeMap<PeerId, Way> = view.peers.iter().map(|peer| (peer.id, peer.way)).collect();
    let links = view.peers.iter().map(|peer| Ok((peer.id, tables.peers.get(&peer.id, 0)?.current().mtu)));
    let links: BTreeMap<PeerId, u32> = links.collect::<anyhow::Result<_>>()?;
    let reach = |peer: &PeerView| {
        let choice = choose(&snapshot, peer.id);
        let near = if choice.is_relayed() { choice.relay } else { peer.id };
        let link = links.get(&near).copied().unwrap_or(0);
        let shown = tables.path_tx.get(path_slot(peer.id, choice.path)).mtu;
        let mtu = if link == 0 || shown == 0 { link } else { link.min(shown) };
        let others = peer.relays.iter().filter_map(|relay| ways.get(relay).copied()).collect();
        (peer.id, Reach { way: peer.way, others, mtu })
    };
    Ok(view.peers.iter().map(reach).collect())
}

/// Who gets what is flooded in a network, and what fits the paths to all of them.
pub(crate) fn flood_list(paths: &Paths, network: &NetworkView) -> FloodList {
    let members = network.members.iter().filter_map(|&id| Some((id, paths.get(&id)?)));
    let mut list = FloodList::new(&members.clone().map(|(id, reach)| (id, reach.way)).collect::<Vec<_>>());
    for &way in members.clone().flat_map(|(_, reach)| &reach.others) {
        list.add_version(way);
    }
    let least = members.map(|(_, reach)| reach.mtu).filter(|&mtu| mtu != 0).min().unwrap_or(0);
    FloodList { mtu: u16::try_from(least).unwrap_or(u16::MAX), ..list }
}

/// The place of each network's counters, by VNI. One that was there before keeps its own; a place that had another is made
/// empty. Where an earlier version had none for them, all begin with 0.
fn numbers(tables: &mut Tables, view: &View) -> anyhow::Result<HashMap<u32, u16>> {
    let mut numbers = HashMap::new();
    let mut taken = HashSet::new();
    for network in &view.networks {
        if let Ok(before) = tables.networks.get(&network.vni, 0)
            && taken.insert(before.number)
        {
            numbers.insert(network.vni, before.number);
        }
    }
    let mut free = (0..).filter(|number| !taken.contains(number));
    for network in &view.networks {
        if let Entry::Vacant(place) = numbers.entry(network.vni) {
            let number = *place.insert(free.next().context("there are more networks than numbers")?);
            tables.clear_network_counter(number)?;
        }
    }
    Ok(numbers)
}

/// A network's entry.
pub(crate) fn network_value(network: &NetworkView, pair: &Pair, number: u16) -> Network {
    let mut value = Network {
        port_ifindex: pair.hidden,
        overlay_ifindex: pair.overlay.as_ref().map_or(0, |overlay| overlay.index),
        max_frame: pair.overlay.as_ref().map_or(network.mtu, |overlay| overlay.mtu) + VETH_EXTRA,
        flags: flags(network, pair),
        mac: pair.mac,
        number,
        storm_limit: network.storm_limit,
        macs_per_peer: network.macs_per_peer,
        ..Network::zeroed()
    };
    for &peer in &network.members {
        value.add_member(peer);
    }
    value
}

/// What a network's interfaces have in common; the shortcut is for the agent to open.
pub(crate) fn port_value(network: &NetworkView, pair: &Pair, number: u16) -> Port {
    let tos = match network.tos {
        None => 0,
        Some(Tos::Fixed(tos)) => u16::from(tos),
        Some(Tos::Inherit) => Port::INHERIT_TOS,
    };
    let storm_limit = network.storm_limit;
    Port { vni: network.vni, flags: flags(network, pair), netns_cookie: 0, tos, number, storm_limit }
}

fn flags(network: &NetworkView, pair: &Pair) -> u32 {
    [
        (network.link_local, Network::CARRY_LINK_LOCAL),
        (network.mss_clamp.unwrap_or(pair.is_bridge_port), Network::CLAMP_MSS),
        (network.suppress, Network::SUPPRESS),
    ]
    .iter()
    .filter(|(is_set, _)| *is_set)
    .fold(0, |flags, (_, flag)| flags | flag)
}

/// Ports, devices, and the addresses for which frames are received: the outer sources, and what else the underlay
/// interface has, as far as there is room.
pub(crate) fn write_settings(tables: &mut Tables, view: &View, devices: &Devices) -> anyhow::Result<()> {
    let sources = view.peers.iter().filter_map(|peer| view.source_towards(peer));
    let mut all: Vec<IpAddr> = sources.chain(view.addresses.iter().copied()).collect();
    let mut seen = HashSet::new();
    all.retain(|address| seen.insert(*address));
    let mut local = all.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(Ipv4Octets::from(*address)),
        IpAddr::V6(_) => None,
    });
    let first = local.next().unwrap_or_default();
    let local = [first, local.next().unwrap_or(first), local.next().unwrap_or(first), local.next().unwrap_or(first)];
    let mut local_v6 = [VtepAddress::zeroed(); 4];
    for (place, address) in local_v6.iter_mut().zip(all.iter().filter(|address| address.is_ipv6())) {
        *place = VtepAddress::from(*address);
    }
    let settings = Settings {
        port: view.port,
        helper_port: devices.helper_port,
        helper_ifindex: devices.helper.index,
        underlay_ifindex: view.ifindex,
        local,
        local_v6,
        move_limit: view.moves.0,
        move_freeze_ms: u32::try_from(view.moves.1.as_millis())?,
        flags: if view.may_relay { Settings::MAY_RELAY } else { 0 } | if view.xdp_tx { Settings::XDP_TX } else { 0 },
        node_id: view.node_id,
        fingerprint: view.fingerprint,
    };
    if tables.settings.get(&0, 0)? != settings {
        tables.settings.set(0, settings, 0).context("cannot write SETTINGS")?;
    }
    Ok(())
}

/// Returns the ids that meant another address before, or nobody: what is known about that peer is not true of its successor. And
/// whether there is such a peer: one that was known before and is not any more.
fn write_peers(tables: &mut Tables, view: &View) -> anyhow::Result<(HashSet<PeerId>, bool)> {
    let known = tables.vteps.iter().map(|entry| entry.map(|(address, id)| (id, address.ip())));
    let known: HashMap<PeerId, IpAddr> = known.collect::<Result<_, _>>()?;
    let empty = Peer { next_hop: [NextHop::UNKNOWN; 2], ..Peer::zeroed() };
    let mut used = HashSet::new();
    let mut others = HashSet::new();
    for peer in &view.peers {
        let is_the_same = known.get(&peer.id) == Some(&peer.address);
        // Known next hops stay in force until they are looked up anew.
        let before = if is_the_same { tables.peers.get(&peer.id, 0)? } else { empty };
        // What was meant for another way would send frames without outer header, or with two.
        let goes_on = before.current().way().is_by_helper() == peer.way.is_by_helper();
        let before = if goes_on { before } else { empty };
        let flags = [(peer.is_plain, Peer::PLAIN), (peer.is_relay, Peer::RELAY)];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag);
        let value = Peer { flags, node_id: peer.node_id, ..before };
        if tables.peers.get(&peer.id, 0)? != value {
            tables.peers.set(peer.id, value, 0).context("cannot write PEERS")?;
        }
        used.insert(peer.id);
        if !is_the_same {
            others.insert(peer.id);
        }
    }
    for id in (0..tables.peers.len()).filter(|id| !used.contains(id)) {
        if tables.peers.get(&id, 0)? != empty {
            tables.peers.set(id, empty, 0).context("cannot write PEERS")?;
        }
    }
    reconcile(&mut tables.vteps, view.peers.iter().map(|peer| (VtepAddress::from(peer.address), peer.id)))?;
    let gone: Vec<PeerId> = known.keys().copied().filter(|id| others.contains(id) || !used.contains(id)).collect();
    for &id in others.iter().chain(&gone) {
        tables.clear_peer_counter(id)?;
    }
    Ok((others, !gone.is_empty()))
}

/// Static entries as configured; learned ones stay where their network and peer still exist. `others` are ids that mean
/// another peer than before.
fn write_fdb(tables: &mut Tables, view: &View, others: &HashSet<PeerId>) -> anyhow::Result<()> {
    let mut wanted = HashSet::new();
    for network in &view.networks {
        for &(mac, peer) in &network.macs {
            let key = FdbKey::new(network.vni, mac);
            let entry = FdbEntry { peer, flags: FdbEntry::STATIC, ..FdbEntry::zeroed() };
            tables.fdb.insert(key, entry, 0).context("cannot write FDB: it may be full, raise fdb-size")?;
            wanted.insert(key);
        }
    }
    let members: HashSet<(u32, PeerId)> =
        view.networks.iter().flat_map(|it| it.members.iter().map(|&peer| (it.vni, peer))).collect();
    for found in tables.fdb.iter().collect::<Result<Vec<_>, _>>()? {
        let (key, entry) = found;
        let goes = if entry.is_static() {
            !wanted.contains(&key)
        } else {
            others.contains(&entry.peer) || !members.contains(&(key.vni, entry.peer))
        };
        if goes {
            remove(&mut tables.fdb, &key)?;
        }
    }
    let vnis: HashSet<u32> = view.networks.iter().map(|network| network.vni).collect();
    for key in tables.stays.keys().collect::<Result<Vec<_>, _>>()? {
        if !vnis.contains(&key.vni) {
            remove(&mut tables.stays, &key)?;
        }
    }
    count_macs(tables)
}

/// What was counted was by other limits, perhaps.
fn count_macs(tables: &mut Tables) -> anyhow::Result<()> {
    let mut census = Census::begin(tables)?;
    for found in &tables.fdb {
        let (key, entry) = found?;
        census.note(&key, &entry);
    }
    census.end(tables).map(drop)
}

/// What was heard stays where its network still answers for neighbours and its peer is still the same.
fn keep_neighbours(tables: &mut Tables, view: &View, others: &HashSet<PeerId>) -> anyhow::Result<()> {
    for (key, entry) in tables.neighbours.iter().collect::<Result<Vec<_>, _>>()? {
        let stays = |network: &NetworkView| {
            network.vni == key.vni
                && network.suppress
                && (entry.from == Neighbour::HERE || network.members.contains(&entry.from))
        };
        if others.contains(&entry.from) || !view.networks.iter().any(stays) {
            remove(&mut tables.neighbours, &key)?;
        }
    }
    Ok(())
}

fn write_labels(tables: &mut Tables, view: &View) -> anyhow::Result<()> {
    let vnis: HashSet<u32> = view.networks.iter().map(|network| network.vni).collect();
    let stays = |key: &LabelKey| match key.kind {
        // What is recorded of a bridge says what to leave.
        LabelKey::FACT | LabelKey::BRIDGE | LabelKey::FORMAT => true,
        LabelKey::TRANSMIT => vnis.contains(&key.id),
        _ => false,
    };
    let facts: Vec<_> = tables.labels.iter().filter_map(Result::ok).filter(|(key, _)| stays(key)).collect();
    let peers = view.peers.iter().map(|peer| (LabelKey::peer(peer.id), Label::new(&peer.name)));
    let networks = view.networks.iter().map(|network| (LabelKey::network(network.vni), Label::new(&network.name)));
    reconcile(&mut tables.labels, peers.chain(networks).chain(facts))?;
    tables.set_fact(Fact::Node, &view.node)?;
    tables.set_fact(Fact::Local, &view.local.to_string())
}
