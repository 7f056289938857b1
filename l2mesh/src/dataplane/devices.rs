//! The devices of a mesh: found by alias, made where missing (design.md 3 and 7).

use std::{
    io, iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use anyhow::{bail, ensure};
use l2mesh_common::wire::MacAddr;

use super::view::{NetworkView, View};
use crate::underlay::{self, Link, Netlink, create::VethPair, features::switch_features};

/// Offloads that the stack must not leave to the overlay interface. Without these it segments nested tunnels before us,
/// where `bpf_skb_adjust_room` would refuse them whole (dataplane.md pitfall 3), and so for what that helper does not know.
const UNWANTED_OFFLOADS: [&str; 9] = [
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-sctp-segmentation",
    "tx-gso-list",
    "tx-gso-partial",
];
/// How many ports above the mesh port are tried for the helper device.
const PORTS_TRIED: u16 = 64;

/// The devices of a mesh.
#[derive(Clone, Debug)]
pub(crate) struct Devices {
    pub(crate) helper: Link,
    /// The UDP port that the helper device holds.
    pub(crate) helper_port: u16,
    /// The mesh port was left to others on purpose.
    pub(crate) is_private: bool,
    /// In the order of [`View::networks`].
    pub(crate) networks: Vec<Pair>,
}

impl Devices {
    /// Who holds the mesh port, for people.
    pub(crate) fn port_text(&self, port: u16) -> String {
        let own = self.helper_port;
        if own == port {
            format!("{port} is ours")
        } else if self.is_private {
            format!("{port} is left to others (private-port), {own} is ours")
        } else {
            format!("{port} belongs to another vxlan device, {own} is ours")
        }
    }
}

/// A network's two devices.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) vni: u32,
    /// Index of the hidden end, in our namespace always.
    pub(crate) hidden: u32,
    /// The overlay interface while it is in our namespace.
    pub(crate) overlay: Option<Link>,
    /// Its MAC address as last seen.
    pub(crate) mac: MacAddr,
    /// It was a port of a bridge when it was last looked at.
    pub(crate) is_bridge_port: bool,
}

/// Which devices an earlier attach had, as its tables say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// VNI, hidden end, MAC address of the overlay interface.
    pub(crate) pairs: Vec<(u32, u32, MacAddr)>,
    /// Index of the helper device, its UDP port, the mesh port.
    pub(crate) helper: Option<(u32, u16, u16)>,
}

/// Makes what is missing, takes over what an earlier attach left. What the configuration no longer has is removed.
///
/// # Errors
/// A name or every port is taken, or the kernel refuses.
pub(crate) async fn ensure(
    netlink: &Netlink,
    view: &View,
    wants_private_port: bool,
    known: &Known,
) -> anyhow::Result<Devices> {
    let links = netlink.links_with_alias(&View::alias_prefix(&view.interface)).await?;
    let mut made = Vec::new();
    match ensure_networks(netlink, view, known, &links, &mut made).await {
        Ok(networks) => {
            let (helper, helper_port) = ensure_rest(netlink, view, wants_private_port, links, known, &networks).await?;
            Ok(Devices { helper, helper_port, is_private: wants_private_port, networks })
        }
        Err(error) => {
            // The mesh that was there before goes on without what was to be added.
            for hidden in made {
                netlink.delete(hidden).await?;
            }
            Err(error)
        }
    }
}

/// A pair for every network; those that were not there before are noted in `made`.
async fn ensure_networks(
    netlink: &Netlink,
    view: &View,
    known: &Known,
    links: &[Link],
    made: &mut Vec<u32>,
) -> anyhow::Result<Vec<Pair>> {
    let mut networks = Vec::new();
    for network in &view.networks {
        let alias = view.alias(network.vni);
        let ends: Vec<&Link> = links.iter().filter(|link| link.alias.as_deref() == Some(&*alias)).collect();
        let before = known
            .pairs
            .iter()
            .find(|(vni, hidden, _)| *vni == network.vni && ends.iter().any(|end| end.index == *hidden));
        let mut pair = if let Some(&(vni, hidden, mac)) = before {
            let overlay = ends.into_iter().find(|end| end.index != hidden).cloned();
            let mac = overlay.as_ref().and_then(|link| link.mac).unwrap_or(mac);
            Pair { vni, hidden, overlay, mac, is_bridge_port: false }
        } else {
            for end in ends {
                netlink.delete(end.index).await?;
            }
            let pair = make(netlink, view, network).await?;
            made.push(pair.hidden);
            pair
        };
        if let Some(overlay) = &mut pair.overlay {
            dress(netlink, network, overlay).await?;
        }
        networks.push(pair);
    }
    Ok(networks)
}

/// Removes what the configuration no longer has; then the helper device.
async fn ensure_rest(
    netlink: &Netlink,
    view: &View,
    wants_private_port: bool,
    links: Vec<Link>,
    known: &Known,
    networks: &[Pair],
) -> anyhow::Result<(Link, u16)> {
    for link in &links {
        let is_wanted = |network: &NetworkView| link.alias.as_deref() == Some(&*view.alias(network.vni));
        let is_ours = [view.helper_alias(), view.headroom_alias()].iter().any(|it| link.alias.as_ref() == Some(it));
        if !is_ours && !view.networks.iter().any(is_wanted) {
            netlink.delete(link.index).await?;
        }
    }
    let helper = links.into_iter().find(|link| link.alias.as_deref() == Some(&*view.helper_alias()));
    let (helper, helper_port) = ensure_helper(netlink, view, wants_private_port, helper, known).await?;
    make_headroom(netlink, view, &helper, networks).await;
    Ok((helper, helper_port))
}

async fn make(netlink: &Netlink, view: &View, network: &NetworkView) -> anyhow::Result<Pair> {
    let hidden = match netlink.link_by_name(&format!("l2p{:x}", network.vni)).await? {
        None => format!("l2p{:x}", network.vni),
        Some(_) => format!("l2p{:x}x{}", network.vni, view.ifindex),
    };
    let pair = VethPair {
        overlay: &network.interface,
        overlay_mtu: network.mtu,
        overlay_mac: Some(network.mac),
        hidden: &hidden,
        alias: &view.alias(network.vni),
    };
    let links = netlink.create_veth_pair(pair).await?;
    switch_features(&links.overlay.name, &UNWANTED_OFFLOADS, false)?;
    Ok(Pair {
        vni: network.vni,
        hidden: links.hidden.index,
        mac: links.overlay.mac.unwrap_or(network.mac),
        overlay: Some(links.overlay),
        is_bridge_port: false,
    })
}

/// Name, MTU and addresses as configured.
async fn dress(netlink: &Netlink, network: &NetworkView, overlay: &mut Link) -> anyhow::Result<()> {
    if overlay.name != network.interface {
        netlink.rename(overlay.index, &network.interface).await?;
        overlay.name.clone_from(&network.interface);
    }
    if overlay.mtu != network.mtu {
        netlink.set_mtu(overlay.index, network.mtu).await?;
        overlay.mtu = network.mtu;
    }
    for address in &network.addresses {
        netlink.add_address(overlay.index, address.address, address.prefix).await?;
    }
    Ok(())
}

/// The helper device: the one that was found if it is right, else a new one.
pub(crate) async fn ensure_helper(
    netlink: &Netlink,
    view: &View,
    wants_private_port: bool,
    found: Option<Link>,
    known: &Known,
) -> anyhow::Result<(Link, u16)> {
    if let Some(link) = found {
        if let Some((index, port, mesh_port)) = known.helper
            && (index, mesh_port) == (link.index, view.port)
            && link.up
            && (port != mesh_port || !wants_private_port)
            && (port == mesh_port || view.needs_mesh_port().is_none())
        {
            return Ok((link, port));
        }
        // The port of a vxlan device cannot be changed.
        netlink.delete(link.index).await?;
    }
    let name = format!("l2mk{}", view.ifindex);
    let first = if wants_private_port { view.port.saturating_add(1) } else { view.port };
    let last = if view.needs_mesh_port().is_some() { first } else { first.saturating_add(PORTS_TRIED) };
    for port in first..=last {
        let link = match netlink.create_vxlan_helper(&name, port, &view.helper_alias()).await {
            Ok(link) => link,
            Err(underlay::Error::PortTaken { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        match netlink.set_up(link.index).await {
            Ok(()) => return Ok((link, port)),
            Err(underlay::Error::PortTaken { .. }) => netlink.delete(link.index).await?,
            Err(error) => {
                netlink.delete(link.index).await?;
                return Err(error.into());
            }
        }
    }
    match view.needs_mesh_port() {
        Some(reason) => bail!(taken(first, &reason)),
        None => bail!("no free UDP port from {first} to {last}: choose another with --port"),
    }
}

/// Whether the helper device can have the port that it must, asked before anything is touched.
///
/// # Errors
/// It is to be left to others, or somebody else holds it.
pub(crate) fn refuse_port(view: &View, wants_private_port: bool, known: &Known) -> anyhow::Result<()> {
    let Some(reason) = view.needs_mesh_port() else { return Ok(()) };
    let port = view.port;
    ensure!(
        !wants_private_port,
        "private-port: {reason} the helper device sends too, to the UDP port that it holds, and {port} is where the others \
         listen: leave private-port out"
    );
    let is_ours = known.helper.is_some_and(|(_, held, _)| held == port);
    let is_held =
        |any: IpAddr| matches!(UdpSocket::bind((any, port)), Err(error) if error.kind() == io::ErrorKind::AddrInUse);
    ensure!(
        is_ours || ![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].into_iter().any(is_held),
        taken(port, &reason)
    );
    Ok(())
}

fn taken(port: u16, reason: &str) -> String {
    format!(
        "UDP port {port} belongs to another program or vxlan device, and {reason} the helper device must hold it, because it \
         sends to the port that it holds: free it, or give the mesh another port on every host"
    )
}

/// [`ensure_headroom`], without which everything works too, a little slower.
pub(crate) async fn make_headroom(netlink: &Netlink, view: &View, helper: &Link, networks: &[Pair]) {
    if let Err(error) = ensure_headroom(netlink, view, helper, networks).await {
        log::info!("small frames are copied once to make room for the outer header: {error}");
    }
}

/// Small frames that this host sends come with 16 octets of room, and `bpf_skb_adjust_room` then copies each. A bridge asks
/// its ports to give as much room as any of them needs (`br_add_if`, `veth_set_rx_headroom`), and vxlan devices need what an
/// outer header takes: so the hidden ends and the helper become ports of one that is never up.
async fn ensure_headroom(
    netlink: &Netlink,
    view: &View,
    helper: &Link,
    networks: &[Pair],
) -> Result<(), underlay::Error> {
    let alias = view.headroom_alias();
    let found = netlink.links_with_alias(&alias).await?.into_iter().next();
    let bridge = match found {
        Some(bridge) => bridge,
        None => netlink.create_bridge(&format!("l2mh{}", view.ifindex), &alias).await?,
    };
    for port in iter::once(helper.index).chain(networks.iter().map(|pair| pair.hidden)) {
        netlink.set_master(port, bridge.index).await?;
    }
    Ok(())
}
