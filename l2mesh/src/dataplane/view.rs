//! What the configuration means on this host: who I am, who the peers are, which networks are mine.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use anyhow::{bail, ensure};
use l2mesh_common::{
    bucket::default_storm_limit,
    tables::{MAX_NETWORKS, MAX_PEERS, PEER_SLOTS, PeerId, Way},
    wire::{Fingerprint, MacAddr},
};

use crate::{
    agent::own_address::Local,
    config::{Cidr, Mesh, Network, Node, NodeKind, OVERHEAD_IPV4, OVERHEAD_IPV6, Probe, Tos},
    underlay::Link,
};

/// One mesh as seen from one of its nodes.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Name of the underlay interface.
    pub(crate) interface: String,
    /// Its index.
    pub(crate) ifindex: u32,
    /// This node's name.
    pub(crate) node: String,
    /// Its id on the wire.
    pub(crate) node_id: u32,
    /// Its place among all nodes in the order of their names.
    pub(crate) rank: u32,
    /// What others compare with what their own configuration says.
    pub(crate) fingerprint: Fingerprint,
    /// It forwards for pairs of others.
    pub(crate) may_relay: bool,
    /// Who may be relayed for, by VNI: only on a relay.
    pub(crate) relayed: Vec<(u32, Vec<PeerId>)>,
    /// How paths are watched.
    pub(crate) probe: Probe,
    /// Outer source addresses.
    pub(crate) local: Local,
    /// The addresses of the underlay interface.
    pub(crate) addresses: Vec<IpAddr>,
    /// UDP port of the mesh.
    pub(crate) port: u16,
    /// The kernel's vxlan device puts every outer header on.
    pub(crate) by_kernel: bool,
    /// The XDP program may send frames.
    pub(crate) xdp_tx: bool,
    /// How often a MAC address may move in ten seconds, and how long one that moves more often is frozen.
    pub(crate) moves: (u32, Duration),
    /// The other nodes with which a network is shared, those that may relay between us and them, and on a relay all that it may
    /// relay for.
    pub(crate) peers: Vec<PeerView>,
    /// The networks of which this node is a member.
    pub(crate) networks: Vec<NetworkView>,
}

/// Another node.
#[expect(clippy::struct_excessive_bools, reason = "each is said by itself in the configuration")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PeerView {
    /// Its place in `PEERS`.
    pub(crate) id: PeerId,
    /// Node name.
    pub(crate) name: String,
    /// Node id on the wire.
    pub(crate) node_id: u32,
    /// Its place among all nodes in the order of their names.
    pub(crate) rank: u32,
    /// Where this node reaches it, and from where it sends.
    pub(crate) address: IpAddr,
    /// The address under which it knows this node, where that is not the usual one.
    pub(crate) knows_us_as: Option<IpAddr>,
    /// True for a kernel vxlan device.
    pub(crate) is_plain: bool,
    /// It may forward for pairs of others.
    pub(crate) is_relay: bool,
    /// The paths to it are probed; else the direct one is always up, and the only one.
    pub(crate) is_probed: bool,
    /// Each sees the other over the same IP version: else there is no direct path.
    pub(crate) is_direct: bool,
    /// Peers that may relay to it, in the order of the configuration.
    pub(crate) relays: Vec<PeerId>,
    /// Who puts the outer header on.
    pub(crate) way: Way,
    /// The UDP checksum must not be left out.
    pub(crate) udp_checksum: bool,
}

impl PeerView {
    /// Octets of the outer headers towards it.
    pub(crate) fn overhead(&self) -> u32 {
        if self.address.is_ipv4() { OVERHEAD_IPV4 } else { OVERHEAD_IPV6 }
    }
}

/// A network.
#[derive(Clone, Debug)]
pub(crate) struct NetworkView {
    /// Its name.
    pub(crate) name: String,
    /// VNI.
    pub(crate) vni: u32,
    /// The overlay interface's name.
    pub(crate) interface: String,
    /// The overlay interface's MTU, octets.
    pub(crate) mtu: u32,
    /// The overlay interface's MAC address, unless the user changes it.
    pub(crate) mac: MacAddr,
    /// The bridge of which the overlay interface is to be a port.
    pub(crate) bridge: Option<String>,
    /// The addresses of this host in the network: the bridge's where there is one, else the overlay interface's.
    pub(crate) addresses: Vec<Cidr>,
    /// Peers that are members.
    pub(crate) members: Vec<PeerId>,
    /// MAC addresses that stay behind one peer.
    pub(crate) macs: Vec<(MacAddr, PeerId)>,
    /// Carry 01:80:c2:00:00:0x.
    pub(crate) link_local: bool,
    /// DSCP of the outer header.
    pub(crate) tos: Option<Tos>,
    /// Lower the MSS of TCP connections; unless the configuration says, if the overlay interface is a port of a bridge.
    pub(crate) mss_clamp: Option<bool>,
    /// Answer ARP and neighbour solicitations.
    pub(crate) suppress: bool,
    /// Frames flooded per second, 0 without limit.
    pub(crate) storm_limit: u32,
    /// MAC addresses behind one peer, 0 without limit.
    pub(crate) macs_per_peer: u32,
}

/// First octet of a MAC address that an overlay interface has as a port of a bridge. A bridge takes the least address of its
/// ports unless somebody gave it one: one that was there before is not to take ours.
const OF_PORT: u8 = 0xfe;
/// First octet of [`MacAddr::derived`].
const DERIVED: u8 = 0x02;

fn mac(derived: MacAddr, is_port: bool) -> MacAddr {
    let MacAddr([_, rest @ ..]) = derived;
    let mut octets = [if is_port { OF_PORT } else { DERIVED }; 6];
    octets[1..].copy_from_slice(&rest);
    MacAddr(octets)
}

impl NetworkView {
    /// The MAC address of a bridge that is made for this network: the one that the overlay interface would have without.
    pub(crate) fn bridge_mac(&self) -> MacAddr {
        mac(self.mac, false)
    }

    /// True if a configuration with or without a bridge gives the overlay interface this address.
    pub(crate) fn gives(&self, address: MacAddr) -> bool {
        [true, false].iter().any(|&is_port| mac(self.mac, is_port) == address)
    }
}

/// The underlay interface and address for which a view is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) interface: &'a str,
    pub(crate) ifindex: u32,
    pub(crate) mtu: u32,
    pub(crate) local: Local,
    pub(crate) addresses: &'a [IpAddr],
    /// Mode kernel.
    pub(crate) by_kernel: bool,
    /// The XDP program may send frames.
    pub(crate) xdp_tx: bool,
}

/// The other nodes that this one has to know, ascending.
fn others(mesh: &Mesh, own: usize, mine: &[&Network], by_kernel: bool) -> BTreeSet<usize> {
    let mut others: BTreeSet<usize> =
        mine.iter().flat_map(|network| network.members.iter().copied()).filter(|&it| it != own).collect();
    if by_kernel {
        return others;
    }
    let relays: Vec<usize> = others.iter().flat_map(|&other| mesh.relays_between(own, other)).collect();
    others.extend(relays);
    if mesh.nodes[own].relay {
        let is_served = |&other: &usize| {
            other != own && mesh.nodes[other].kind == NodeKind::L2mesh && mesh.see_each_other(own, other)
        };
        others.extend((0..mesh.nodes.len()).filter(is_served));
    }
    others
}

/// Names are unique.
fn rank(mesh: &Mesh, node: &Node) -> u32 {
    mesh.nodes.iter().filter(|other| other.name < node.name).fold(0, |rank, _| rank + 1)
}

/// Our program leaves UDP checksums out: with them, a GSO frame would have to be cut first.
fn way(peer: IpAddr, by_helper: bool) -> Way {
    match (peer, by_helper) {
        (IpAddr::V4(_), false) => Way::V4,
        (IpAddr::V6(_), false) => Way::V6,
        (IpAddr::V4(_), true) => Way::HelperV4,
        (IpAddr::V6(_), true) => Way::HelperV6,
    }
}

impl View {
    /// The outer source towards a peer.
    pub(crate) fn source_towards(&self, peer: &PeerView) -> Option<IpAddr> {
        peer.knows_us_as.filter(|address| self.addresses.contains(address)).or_else(|| self.local.towards(peer.address))
    }

    /// Why the helper device has to hold the mesh port itself, if it has to: a tunnel key cannot say a UDP port
    /// (`bpf_skb_set_tunnel_key` in net/core/filter.c), and so it sends to the one that it holds.
    pub(crate) fn needs_mesh_port(&self) -> Option<String> {
        if self.by_kernel {
            return Some("in mode kernel".to_owned());
        }
        let peer = self.peers.iter().find(|peer| peer.way.is_by_helper())?;
        Some(format!("with udp-checksum for node {:?}", peer.name))
    }

    /// The mesh as node `own` sees it. `known` says which peer ids are taken already, by address: a peer keeps its id
    /// across configurations, because the FDB refers to it.
    ///
    /// # Errors
    /// The node is in no network, a network does not fit into the underlay's MTU, or there are too many peers.
    pub(crate) fn new(mesh: &Mesh, own: usize, place: Place<'_>, known: &[(IpAddr, PeerId)]) -> anyhow::Result<Self> {
        let node = &mesh.nodes[own];
        let mine: Vec<_> = mesh.networks.iter().filter(|network| network.members.contains(&own)).collect();
        ensure!(!mine.is_empty(), "node {:?} is a member of no network: add it to `members` of one", node.name);
        ensure!(
            mine.len() <= MAX_NETWORKS as usize,
            "node {:?} is a member of {} networks: one underlay interface carries {MAX_NETWORKS} at most",
            node.name,
            mine.len()
        );
        let others = others(mesh, own, &mine, place.by_kernel);
        let mut taken: BTreeSet<PeerId> = BTreeSet::new();
        let mut peers = Vec::new();
        for &index in &others {
            let other = &mesh.nodes[index];
            let Some(address) = mesh.address_of(index, own) else {
                bail!("node {:?}: {} is not resolved", other.name, other.address);
            };
            let id = known.iter().find(|(at, _)| *at == address).map(|&(_, id)| id);
            taken.extend(id);
            peers.push((index, address, id));
        }
        let mut free = (0..PEER_SLOTS).filter(|id| !taken.contains(id));
        let mut ids = vec![None; mesh.nodes.len()];
        let mut views = Vec::new();
        for (index, address, id) in peers {
            let Some(id) = id.or_else(|| free.next()) else {
                bail!("{} peers are more than the {MAX_PEERS} that one node can have", others.len());
            };
            ids[index] = Some(id);
            let other = &mesh.nodes[index];
            let is_probed = !place.by_kernel && mesh.probe_each_other(own, index);
            views.push(PeerView {
                id,
                name: other.name.clone(),
                node_id: other.id,
                rank: rank(mesh, other),
                address,
                knows_us_as: node.from.get(&index).copied(),
                is_plain: other.kind == NodeKind::Vxlan,
                is_relay: other.relay,
                is_probed,
                is_direct: !is_probed || mesh.see_each_other(own, index),
                relays: Vec::new(),
                way: way(address, place.by_kernel || other.udp_checksum),
                udp_checksum: other.udp_checksum,
            });
        }
        for (peer, &index) in views.iter_mut().zip(&others).filter(|(peer, _)| peer.is_probed) {
            peer.relays = mesh.relays_between(own, index).filter_map(|relay| ids[relay]).collect();
        }
        let may_relay = node.relay && !place.by_kernel;
        let relayed = mesh
            .networks
            .iter()
            .filter(|_| may_relay)
            .map(|network| (network.vni.get(), network.members.iter().filter_map(|&member| ids[member]).collect()));
        let relayed = relayed.collect();
        let networks = mine.into_iter().map(|network| {
            Ok(NetworkView {
                name: network.name.clone(),
                vni: network.vni.get(),
                interface: network.interface.clone(),
                mtu: mesh.overlay_mtu(network, place.mtu)?,
                mac: mac(MacAddr::derived(node.id, network.vni.get()), network.bridge.is_some()),
                bridge: network.bridge.clone(),
                addresses: network.addresses.get(&own).cloned().unwrap_or_default(),
                members: network.members.iter().filter_map(|&member| ids[member]).collect(),
                macs: network.macs.iter().filter_map(|&(mac, at)| Some((mac, ids[at]?))).collect(),
                link_local: network.link_local,
                tos: network.tos,
                mss_clamp: network.mss_clamp,
                suppress: network.neighbour_suppression,
                storm_limit: network.storm_limit.unwrap_or_else(|| default_storm_limit(network.members.len() - 1)),
                macs_per_peer: network.macs_per_peer.unwrap_or(0),
            })
        });
        Ok(Self {
            interface: place.interface.to_owned(),
            ifindex: place.ifindex,
            node: node.name.clone(),
            node_id: node.id,
            rank: rank(mesh, node),
            fingerprint: mesh.fingerprint(place.mtu),
            may_relay,
            relayed,
            probe: mesh.probe.clone(),
            local: place.local,
            addresses: place.addresses.to_vec(),
            port: mesh.underlay.port,
            by_kernel: place.by_kernel,
            xdp_tx: place.xdp_tx,
            moves: (mesh.underlay.move_limit, mesh.underlay.move_freeze),
            peers: views,
            networks: networks.collect::<anyhow::Result<_>>()?,
        })
    }

    /// What every device of this mesh carries as its alias, up to what tells the devices apart.
    pub(crate) fn alias_prefix(interface: &str) -> String {
        format!("l2mesh:{interface}:")
    }

    /// The alias of both ends of a network's pair.
    pub(crate) fn alias(&self, vni: u32) -> String {
        format!("{}{vni}", Self::alias_prefix(&self.interface))
    }

    /// The alias of the helper device.
    pub(crate) fn helper_alias(&self) -> String {
        format!("{}helper", Self::alias_prefix(&self.interface))
    }

    /// The alias of a bridge that gives frames room for the outer header.
    pub(crate) fn headroom_alias(&self, nth: usize) -> String {
        format!("{}headroom{nth}", Self::alias_prefix(&self.interface))
    }

    /// The alias of a bridge that was made for a network.
    pub(crate) fn bridge_alias(&self, vni: u32) -> String {
        format!("{}:bridge", self.alias(vni))
    }

    /// The network of which a device is one end.
    pub(crate) fn vni_of(&self, link: &Link) -> Option<u32> {
        self.after_prefix(link)?.parse().ok()
    }

    /// The network for which a device was made as a bridge.
    pub(crate) fn vni_of_bridge(&self, link: &Link) -> Option<u32> {
        self.after_prefix(link)?.strip_suffix(":bridge")?.parse().ok()
    }

    /// True for a device that this mesh made.
    pub(crate) fn owns(&self, link: &Link) -> bool {
        self.after_prefix(link).is_some()
    }

    fn after_prefix<'a>(&self, link: &'a Link) -> Option<&'a str> {
        link.alias.as_deref()?.strip_prefix("l2mesh:")?.strip_prefix(&*self.interface)?.strip_prefix(':')
    }
}
