//! The devices of a mesh: found by alias, made where missing (design.md 3 and 7).

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use anyhow::{Context as _, bail, ensure};
use l2mesh_common::wire::MacAddr;

use super::{
    bridges,
    headroom::make_headroom,
    pins::PinDir,
    view::{NetworkView, View},
};
use crate::underlay::{
    self, Link, Netlink,
    change::TOGETHER,
    create::{VethLinks, VethPair},
    features::switch_features,
    processes::{Holder, udp_holder},
};

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
#[derive(Clone, Default, Debug)]
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
            let holder = udp_holder(port).map(|Holder { pid, name }| format!("the program {name} (process {pid})"));
            let holder = holder.unwrap_or_else(|| "another vxlan device".to_owned());
            format!("{port} belongs to {holder}, {own} is ours")
        }
    }
}

/// A network's two devices.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) vni: u32,
    /// Index of the hidden end, in our namespace always.
    pub(crate) hidden: u32,
    /// Its name.
    pub(crate) hidden_name: String,
    /// The overlay interface while it is in our namespace.
    pub(crate) overlay: Option<Link>,
    /// True if this attach made them, or the overlay interface has never been up.
    pub(crate) is_new: bool,
    /// True while the overlay interface is a port of a bridge, whoever made it one.
    pub(crate) is_bridge_port: bool,
    /// Its MAC address as last seen.
    pub(crate) mac: MacAddr,
}

/// Which devices an earlier attach had, as its tables say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// By VNI: hidden end, MAC address of the overlay interface.
    pub(crate) pairs: HashMap<u32, (u32, MacAddr)>,
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
    pins: &PinDir,
) -> anyhow::Result<Devices> {
    let links = netlink.links().await?;
    bridges::refuse(netlink, view, &links).await?;
    let mut made = Vec::new();
    match ensure_networks(netlink, view, known, &links, &mut made).await {
        Ok(networks) => {
            remove_rest(netlink, view, &links, pins).await?;
            let helper = links.iter().find(|link| link.alias.as_deref() == Some(&*view.helper_alias())).cloned();
            let (helper, helper_port) = ensure_helper(netlink, view, wants_private_port, helper, known).await?;
            make_headroom(netlink, view, &helper, &networks).await;
            Ok(Devices { helper, helper_port, is_private: wants_private_port, networks })
        }
        Err(error) => {
            // The mesh that was there before goes on without what was to be added.
            for some in made.chunks(TOGETHER) {
                netlink.delete_together(some).await?;
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
    let mut ends: HashMap<u32, Vec<&Link>> = HashMap::new();
    for link in links {
        if let Some(vni) = view.vni_of(link) {
            ends.entry(vni).or_default().push(link);
        }
    }
    let (mut pairs, mut missing, mut in_the_way) = (HashMap::new(), Vec::new(), Vec::new());
    for network in &view.networks {
        let ends = ends.remove(&network.vni).unwrap_or_default();
        let before = known.pairs.get(&network.vni);
        if let Some(&(hidden, mac)) = before
            && let Some(end) = ends.iter().find(|end| end.index == hidden)
        {
            let overlay = ends.iter().find(|end| end.index != hidden).copied().cloned();
            let mac = overlay.as_ref().and_then(|link| link.mac).unwrap_or(mac);
            let hidden_name = end.name.clone();
            // Who made it was killed before it was brought up.
            let is_new = overlay.as_ref().is_some_and(Link::was_never_up);
            let pair = Pair { vni: network.vni, hidden, hidden_name, overlay, is_new, is_bridge_port: false, mac };
            pairs.insert(network.vni, pair);
        } else {
            missing.push(network);
            in_the_way.extend(ends);
        }
    }
    // What is left in `ends` is in no network any more: it may have a name that is wanted now.
    let names: HashSet<&str> = view.networks.iter().map(|network| &*network.interface).collect();
    in_the_way.extend(ends.into_values().flatten().filter(|link| names.contains(&*link.name)));
    for some in in_the_way.chunks(TOGETHER) {
        netlink.delete_together(&some.iter().map(|link| link.index).collect::<Vec<_>>()).await?;
    }
    let gone: HashSet<u32> = in_the_way.iter().map(|link| link.index).collect();
    let left: Vec<&Link> = links.iter().filter(|it| !gone.contains(&it.index)).collect();
    rename(netlink, view, &mut pairs, &left).await?;
    let names: HashSet<&str> = left.iter().map(|it| &*it.name).collect();
    for pair in make(netlink, view, &missing, &names, made).await? {
        pairs.insert(pair.vni, pair);
    }
    let mut networks = Vec::new();
    for network in &view.networks {
        let mut pair = pairs.remove(&network.vni).context("two networks have one VNI")?;
        if let Some(overlay) = &mut pair.overlay {
            dress(netlink, network, overlay).await?;
            pair.mac = overlay.mac.unwrap_or(pair.mac);
        }
        networks.push(pair);
    }
    Ok(networks)
}

/// Gives overlay interfaces their names, which others of them may have until then.
async fn rename(netlink: &Netlink, view: &View, pairs: &mut HashMap<u32, Pair>, links: &[&Link]) -> anyhow::Result<()> {
    let mut wanted: HashMap<u32, &str> = HashMap::new();
    for network in &view.networks {
        if let Some(overlay) = pairs.get_mut(&network.vni).and_then(|pair| pair.overlay.as_mut())
            && overlay.name != network.interface
        {
            wanted.insert(overlay.index, &network.interface);
            overlay.name.clone_from(&network.interface);
        }
    }
    let names: HashSet<&str> = wanted.values().copied().collect();
    let holders = links.iter().copied().filter(|link| names.contains(&*link.name));
    let (ours, others): (Vec<&Link>, Vec<&Link>) = holders.partition(|link| wanted.contains_key(&link.index));
    if let Some(other) = others.first() {
        return Err(underlay::Error::NameTaken { name: other.name.clone() }.into());
    }
    for link in ours {
        netlink.rename(link.index, &format!("l2mt{}", link.index)).await?;
    }
    for (index, name) in wanted {
        netlink.rename(index, name).await?;
    }
    Ok(())
}

/// Removes what the configuration no longer has.
async fn remove_rest(netlink: &Netlink, view: &View, links: &[Link], pins: &PinDir) -> anyhow::Result<()> {
    let wanted: HashSet<u32> = view.networks.iter().map(|network| network.vni).collect();
    // Their interfaces would take the programs along, in one step during which nobody else can change any interface.
    pins.detach_overlays(|vni| !wanted.contains(&vni), &mut || ())?;
    let unwanted = links.iter().filter(|link| view.vni_of(link).is_some_and(|vni| !wanted.contains(&vni)));
    for some in unwanted.map(|link| link.index).collect::<Vec<_>>().chunks(TOGETHER) {
        netlink.delete_together(some).await?;
    }
    Ok(())
}

/// Pairs for networks that have none. `taken` are the names of all devices; the new ones are noted in `made`.
async fn make(
    netlink: &Netlink,
    view: &View,
    networks: &[&NetworkView],
    taken: &HashSet<&str>,
    made: &mut Vec<u32>,
) -> anyhow::Result<Vec<Pair>> {
    let texts = networks.iter().map(|network| {
        let hidden = format!("l2p{:x}", network.vni);
        let hidden = if taken.contains(&*hidden) { format!("{hidden}x{}", view.ifindex) } else { hidden };
        (hidden, view.alias(network.vni))
    });
    let texts: Vec<(String, String)> = texts.collect();
    let pairs = networks.iter().zip(&texts).map(|(network, (hidden, alias))| VethPair {
        overlay: &network.interface,
        overlay_mtu: network.mtu,
        overlay_mac: Some(network.mac),
        hidden,
        alias,
    });
    let links = netlink.create_veth_pairs(&pairs.collect::<Vec<_>>()).await?;
    made.extend(links.iter().map(|it| it.hidden.index));
    switch_features(links.iter().map(|it| &*it.overlay.name), &UNWANTED_OFFLOADS, false)?;
    let pairs = networks.iter().zip(links).map(|(network, VethLinks { overlay, hidden })| Pair {
        vni: network.vni,
        hidden: hidden.index,
        hidden_name: hidden.name,
        mac: overlay.mac.unwrap_or(network.mac),
        overlay: Some(overlay),
        is_new: true,
        is_bridge_port: false,
    });
    Ok(pairs.collect())
}

/// MTU and MAC address as configured; the latter unless somebody gave it another.
async fn dress(netlink: &Netlink, network: &NetworkView, overlay: &mut Link) -> anyhow::Result<()> {
    if overlay.mtu != network.mtu {
        netlink.set_mtu(overlay.index, network.mtu).await?;
        overlay.mtu = network.mtu;
    }
    if overlay.mac != Some(network.mac) && overlay.mac.is_some_and(|mac| network.gives(mac)) {
        netlink.set_mac(overlay.index, network.mac).await?;
        overlay.mac = Some(network.mac);
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
