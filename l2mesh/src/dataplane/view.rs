//! What the configuration means on this host: who I am, who the peers are, which networks are mine.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{bail, ensure};
use l2mesh_common::{
    tables::{MAX_PEERS, PEER_SLOTS, PeerId},
    wire::MacAddr,
};

use crate::config::{Cidr, Mesh, NodeKind};

/// One mesh as seen from one of its nodes.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Name of the underlay interface.
    pub(crate) interface: String,
    /// Its index.
    pub(crate) ifindex: u32,
    /// This node's name.
    pub(crate) node: String,
    /// Outer source address.
    pub(crate) local: Ipv4Addr,
    /// UDP port of the mesh.
    pub(crate) port: u16,
    /// Octets of the outer headers.
    pub(crate) overhead: u32,
    /// The other nodes with which a network is shared.
    pub(crate) peers: Vec<PeerView>,
    /// The networks of which this node is a member.
    pub(crate) networks: Vec<NetworkView>,
}

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PeerView {
    /// Its place in `PEERS`.
    pub(crate) id: PeerId,
    /// Node name.
    pub(crate) name: String,
    /// Node id on the wire.
    pub(crate) node_id: u32,
    /// Where this node reaches it, and from where it sends.
    pub(crate) address: IpAddr,
    /// True for a kernel vxlan device.
    pub(crate) is_plain: bool,
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
    /// The overlay interface's addresses.
    pub(crate) addresses: Vec<Cidr>,
    /// Peers that are members.
    pub(crate) members: Vec<PeerId>,
    /// MAC addresses that stay behind one peer.
    pub(crate) macs: Vec<(MacAddr, PeerId)>,
    /// Carry 01:80:c2:00:00:0x.
    pub(crate) link_local: bool,
}

/// The underlay interface and address for which a view is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) interface: &'a str,
    pub(crate) ifindex: u32,
    pub(crate) mtu: u32,
    pub(crate) local: Ipv4Addr,
}

impl View {
    /// The mesh as node `own` sees it. `known` says which peer ids are taken already, by address: a peer keeps its id
    /// across configurations, because the FDB refers to it.
    ///
    /// # Errors
    /// The node is in no network, a network does not fit into the underlay's MTU, or there are too many peers.
    pub(crate) fn new(mesh: &Mesh, own: usize, place: Place<'_>, known: &[(IpAddr, PeerId)]) -> anyhow::Result<Self> {
        let node = &mesh.nodes[own];
        let mine: Vec<_> = mesh.networks.iter().filter(|network| network.members.contains(&own)).collect();
        ensure!(!mine.is_empty(), "node {:?} is a member of no network: add it to `members` of one", node.name);
        let others: BTreeSet<usize> =
            mine.iter().flat_map(|network| network.members.iter().copied()).filter(|&it| it != own).collect();
        let mut taken: BTreeSet<PeerId> = BTreeSet::new();
        let mut peers = Vec::new();
        for &index in &others {
            let other = &mesh.nodes[index];
            let Some(address) = other.from.get(&own).copied().or_else(|| other.address.ip()) else {
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
            let is_plain = other.kind == NodeKind::Vxlan;
            views.push(PeerView { id, name: other.name.clone(), node_id: other.id, address, is_plain });
        }
        let networks = mine.into_iter().map(|network| {
            Ok(NetworkView {
                name: network.name.clone(),
                vni: network.vni.get(),
                interface: network.interface.clone(),
                mtu: mesh.overlay_mtu(network, place.mtu)?,
                mac: MacAddr::derived(node.id, network.vni.get()),
                addresses: network.addresses.get(&own).cloned().unwrap_or_default(),
                members: network.members.iter().filter_map(|&member| ids[member]).collect(),
                macs: network.macs.iter().filter_map(|&(mac, at)| Some((mac, ids[at]?))).collect(),
                link_local: network.link_local,
            })
        });
        Ok(Self {
            interface: place.interface.to_owned(),
            ifindex: place.ifindex,
            node: node.name.clone(),
            local: place.local,
            port: mesh.underlay.port,
            overhead: mesh.overhead(),
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

    /// The alias of the bridge that gives frames room for the outer header.
    pub(crate) fn headroom_alias(&self) -> String {
        format!("{}headroom", Self::alias_prefix(&self.interface))
    }
}
