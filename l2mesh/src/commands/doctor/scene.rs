//! What is to be looked at: an attached mesh, or what a file says about one that is not yet.

use std::{
    net::{IpAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use l2mesh_common::{
    path::DIRECT,
    tables::{LabelKey, PeerId, path_slot},
    wire::Fingerprint,
};

use super::{
    super::{
        maps::{is_probed, peers},
        output::{Attached, attached},
        ping,
    },
    finding::Finding,
};
use crate::{
    agent::{Receive, start::objection_to_xdp},
    cli::DoctorArgs,
    config::{Host, Mesh, OVERHEAD_IPV4, OVERHEAD_IPV6},
    underlay::{Link, Netlink, features::driver},
};

/// All that is known before anything is asked.
pub(super) struct Scene {
    pub(super) netlink: Netlink,
    pub(super) link: Link,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) driver: String,
    pub(super) mode: String,
    pub(super) receive: Receive,
    pub(super) port: u16,
    pub(super) peers: Vec<Peer>,
    pub(super) networks: Vec<Network>,
    /// What this host's configuration says.
    pub(super) own: Fingerprint,
    /// What the file says, if there is one.
    pub(super) file: Option<Fingerprint>,
    pub(super) attached: Option<Attached>,
    pub(super) pin_root: PathBuf,
}

/// Another node.
pub(super) struct Peer {
    /// Its place in the tables, where there are any.
    pub(super) id: Option<PeerId>,
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) is_probed: bool,
    /// There is a path without relay.
    pub(super) is_direct: bool,
}

/// A network.
pub(super) struct Network {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// In the order of [`Scene::peers`].
    pub(super) members: Vec<usize>,
}

pub(super) const fn overhead(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => OVERHEAD_IPV4,
        IpAddr::V6(_) => OVERHEAD_IPV6,
    }
}

type Found = Result<(Scene, Vec<Finding>), Vec<Finding>>;

/// Finds it, or says why there is nothing to look at; besides, what is wrong with the file alone.
///
/// # Errors
/// Not root, or the kernel cannot be asked.
pub(super) async fn find(args: &DoctorArgs, pin_root: &Path) -> anyhow::Result<Found> {
    ensure!(nix::unistd::geteuid().is_root(), "doctor reads the pinned tables and sends pings: run it as root");
    let netlink = Netlink::open()?;
    let mesh = match args.config.as_deref().map(Mesh::from_file).transpose() {
        Ok(mesh) => mesh,
        Err(errors) => {
            let fault = |error: &crate::config::ConfigError| Finding::fault("file", error.to_string(), "mend the file");
            return Ok(Err(errors.0.iter().map(fault).collect()));
        }
    };
    match (attached(pin_root, args.iface.as_deref()), mesh) {
        (Ok(attached), mesh) => of_attached(netlink, attached, mesh, pin_root).await,
        (Err(_), Some(mesh)) if args.iface.is_some() => before(args, netlink, mesh, pin_root).await,
        (Err(error), _) => Ok(Err(vec![Finding::fault(
            "mesh",
            format!("{error:#}"),
            "`l2mesh attach`; before that, `l2mesh doctor --iface IFACE --config FILE` looks at what there is. If pins are missing, \
             `l2mesh detach --iface IFACE` removes the rest",
        )])),
    }
}

async fn of_attached(
    netlink: Netlink,
    attached: Attached,
    mesh: Option<Mesh>,
    pin_root: &Path,
) -> anyhow::Result<Found> {
    let Some(link) = netlink.link_by_index(attached.ifindex).await? else {
        return Ok(Err(vec![Finding::fault(
            "interface",
            format!("{} is gone, and with it what was attached to it", attached.interface),
            format!("l2mesh detach --iface {}", attached.interface),
        )]));
    };
    let tables = &attached.tables;
    let settings = tables.settings.get(&0, 0).context("cannot read SETTINGS")?;
    let mut all = Vec::new();
    for row in peers(tables, None)? {
        let next_hop = *tables.peers.get(&row.id, 0).context("cannot read PEERS")?.current();
        let tx = tables.path_tx.get(path_slot(row.id, DIRECT));
        all.push(Peer {
            id: Some(row.id),
            name: row.name,
            address: row.address.parse().context("an address in VTEPS")?,
            source: next_hop.is_known().then(|| ping::source(&next_hop)),
            is_probed: is_probed(&tx),
            is_direct: tx.limit != 0,
        });
    }
    let mut networks = Vec::new();
    for found in &tables.networks {
        let (vni, network) = found.context("cannot read NETWORKS")?;
        // In another namespace it is its owner's.
        let Some(overlay) =
            netlink.link_by_index(network.overlay_ifindex).await?.filter(|_| network.overlay_ifindex != 0)
        else {
            continue;
        };
        let is_member = |peer: &Peer| peer.id.is_some_and(|id| network.has_member(id));
        networks.push(Network {
            name: tables.label(LabelKey::network(vni)),
            interface: overlay.name,
            index: overlay.index,
            mtu: overlay.mtu,
            members: (0..all.len()).filter(|&place| is_member(&all[place])).collect(),
        });
    }
    networks.sort_by(|one, other| one.interface.cmp(&other.interface));
    let mode = tables.fact(l2mesh_common::tables::Fact::Mode);
    let receive = match mode.split(' ').next() {
        Some("xdp") => Receive::Xdp,
        Some("kernel") => Receive::Kernel,
        _ => Receive::Tc,
    };
    let scene = Scene {
        addresses: netlink.addresses(link.index).await?,
        driver: driver(&link.name).unwrap_or_default(),
        mode,
        receive,
        port: settings.port,
        peers: all,
        networks,
        own: settings.fingerprint,
        file: mesh.map(|mesh| mesh.fingerprint(link.mtu)),
        pin_root: pin_root.to_owned(),
        attached: Some(attached),
        netlink,
        link,
    };
    Ok(Ok((scene, Vec::new())))
}

/// A mesh that is in a file only.
async fn before(args: &DoctorArgs, netlink: Netlink, mut mesh: Mesh, pin_root: &Path) -> anyhow::Result<Found> {
    let name = args.iface.as_deref().unwrap_or_default();
    let Some(link) = netlink.link_by_name(name).await? else {
        return Ok(Err(vec![Finding::fault(
            "interface",
            format!("there is no interface {name}"),
            "`ip link` shows them",
        )]));
    };
    let addresses = netlink.addresses(link.index).await?;
    let lookup = |name: &str| (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
    if let Err(error) = mesh.resolve(lookup) {
        return Ok(Err(vec![Finding::fault("file", error.to_string(), "mend the resolver, or write addresses")]));
    }
    let host = Host { node: args.node.as_deref(), local: None, interface: &link.name, addresses: &addresses };
    let own = match mesh.this_node(&host) {
        Ok(own) => own,
        Err(error) => {
            return Ok(Err(vec![Finding::fault("file", error.to_string(), "--node says which node this host is")]));
        }
    };
    let mine: Vec<_> = mesh.networks.iter().filter(|network| network.members.contains(&own)).collect();
    let others: Vec<usize> = (0..mesh.nodes.len())
        .filter(|&node| node != own && mine.iter().any(|network| network.members.contains(&node)))
        .collect();
    let mut peers = Vec::new();
    for &node in &others {
        let Some(address) = mesh.address_of(node, own) else { continue };
        let written = mesh.nodes[own].from.get(&node).copied().or_else(|| mesh.nodes[own].address.ip());
        let written = written.filter(|it| it.is_ipv4() == address.is_ipv4() && addresses.contains(it));
        let source = match written {
            Some(source) => Some(source),
            None => netlink.route_to(address, None).await?.and_then(|route| route.preferred_source),
        };
        peers.push(Peer {
            id: None,
            name: mesh.nodes[node].name.clone(),
            address,
            source,
            is_probed: mesh.probe_each_other(own, node),
            is_direct: mesh.see_each_other(own, node),
        });
    }
    let (mut networks, mut findings) = (Vec::new(), Vec::new());
    for network in mine {
        match mesh.overlay_mtu(network, link.mtu) {
            Ok(mtu) => networks.push(Network {
                name: network.name.clone(),
                interface: network.interface.clone(),
                index: 0,
                mtu,
                members: (0..others.len()).filter(|&place| network.members.contains(&others[place])).collect(),
            }),
            Err(error) => findings.push(Finding::fault(
                "mtu",
                error.to_string(),
                "raise the MTU of the underlay interface, or write a lesser `mtu`",
            )),
        }
    }
    let driver = driver(&link.name).unwrap_or_default();
    let (receive, reason) = match (link.has_ethernet, link.xdp_program, objection_to_xdp(&driver)) {
        (false, ..) => (Receive::Kernel, "no Ethernet header".to_owned()),
        (_, Some(_), _) => (Receive::Tc, "another XDP program is there".to_owned()),
        (_, None, Some(objection)) => (Receive::Tc, objection),
        (_, None, None) => (Receive::Xdp, "if the driver takes XDP programs".to_owned()),
    };
    let shown = match receive {
        Receive::Xdp => "xdp",
        Receive::Tc => "tc",
        Receive::Kernel => "kernel",
    };
    let own = mesh.fingerprint(link.mtu);
    let scene = Scene {
        addresses,
        driver,
        mode: format!("{shown} to be expected ({reason})"),
        receive,
        port: mesh.underlay.port,
        peers,
        networks,
        own,
        file: None,
        attached: None,
        pin_root: pin_root.to_owned(),
        netlink,
        link,
    };
    Ok(Ok((scene, findings)))
}
