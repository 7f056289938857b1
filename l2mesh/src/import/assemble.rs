//! Several vxlan devices of one host become one mesh.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{bail, ensure};

use super::{
    device::{Device, Forwarding, list},
    draft::{Comment, Draft, DraftNetwork, DraftNode},
};
use crate::config::{OVERHEAD_IPV4, OVERHEAD_IPV6};

/// MTU of Ethernet: of an underlay of which nothing is known, and the greatest that is taken unasked.
const ETHERNET_MTU: u32 = 1500;
/// `ageing` when nobody says otherwise, seconds, and the longest that `fdb-age` takes.
const AGEING: (u32, u32) = (300, 30 * 86_400);

/// The mesh of these devices, with `head` above it.
///
/// # Errors
/// They do not fit into one mesh, or there is none.
pub(super) fn assemble(devices: &[Device], mut head: Vec<Comment>) -> anyhow::Result<Draft> {
    let (Some(first), Some(own)) = (devices.first(), devices.first().and_then(|device| device.source)) else {
        bail!("there is nothing to import");
    };
    one_mesh(devices)?;
    let found: Vec<(&Device, Forwarding)> = devices.iter().map(|device| (device, device.forwarding())).collect();
    let (fdb_age, note) = ageing(devices);
    head.extend(note.map(Comment::text));
    let mut draft = Draft { head, port: first.vxlan.port, fdb_age, nodes: nodes(&found, own), networks: Vec::new() };
    let is_ipv6 = |(device, _): &(&Device, Forwarding)| device.source.is_some_and(|source| source.is_ipv6());
    let overhead = if found.iter().any(is_ipv6) { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 };
    draft.networks = found.into_iter().map(|(device, found)| network(device, found, own, overhead)).collect();
    Ok(draft)
}

/// Checks that one port, one address of this host in each family and one device for each VNI are enough.
fn one_mesh(devices: &[Device]) -> anyhow::Result<()> {
    let mut groups: Vec<(u16, Vec<IpAddr>, Vec<&str>)> = Vec::new();
    for device in devices {
        let Some(source) = device.source else { continue };
        let fits = |(port, sources, _): &&mut (u16, Vec<IpAddr>, Vec<&str>)| {
            let other = |it: &IpAddr| *it != source && it.is_ipv4() == source.is_ipv4();
            *port == device.vxlan.port && !sources.iter().any(other)
        };
        match groups.iter_mut().find(fits) {
            Some((_, sources, names)) => {
                if !sources.contains(&source) {
                    sources.push(source);
                }
                names.push(&device.name);
            }
            None => groups.push((device.vxlan.port, vec![source], vec![&device.name])),
        }
    }
    if groups.len() > 1 {
        let texts: Vec<String> = groups
            .iter()
            .map(|(port, sources, names)| format!("{} (UDP port {port}, from {})", names.join(" "), list(sources)))
            .collect();
        bail!(
            "these are {} meshes, for a mesh has one UDP port and this host one address in it: {}: name the devices of one \
             of them; the others can stay kernel devices beside it",
            groups.len(),
            texts.join("; ")
        );
    }
    let mut seen = BTreeMap::new();
    for device in devices {
        if let Some(other) = seen.insert(device.vxlan.vni, &device.name) {
            let (name, vni) = (&device.name, device.vxlan.vni);
            bail!("{other} and {name} both have VNI {vni}, and a mesh has each network once: name only one of them");
        }
    }
    Ok(())
}

/// This host, then the others in the order in which they were found.
fn nodes(found: &[(&Device, Forwarding)], own: IpAddr) -> Vec<DraftNode> {
    let mut nodes: Vec<DraftNode> = Vec::new();
    let (mut from, mut seen) = (Vec::new(), BTreeSet::new());
    for (device, Forwarding { members, .. }) in found {
        for member in members {
            let name = member.to_string();
            if !seen.insert(*member) {
                continue;
            }
            // The others see this host in their own family.
            from.extend(device.source.filter(|&source| source != own).map(|source| (name.clone(), source)));
            let mut notes = Vec::new();
            if matches!(member, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
                notes.push(format!("{name} says nothing without its interface: write an address that is routed."));
            }
            nodes.push(DraftNode {
                address: name.clone(),
                name,
                notes,
                plain: true,
                udp_checksum: member.is_ipv6() && !device.vxlan.takes_zero_checksum6,
                ..DraftNode::default()
            });
        }
    }
    if let Some(node) = nodes.iter_mut().find(|node| node.udp_checksum) {
        let text = "udp-checksum: the device here has no udp6zerocsumrx, so the others will drop a UDP checksum of zero \
                    over IPv6 as well.";
        node.notes.push(text.into());
    }
    let mut this = DraftNode {
        name: own.to_string(),
        address: own.to_string(),
        remark: "this host",
        from,
        no_probes: found.iter().any(|(device, _)| device.mode_kernel),
        ..DraftNode::default()
    };
    if this.no_probes {
        let text =
            "probes: the interface below has no Ethernet header, so l2mesh runs in mode kernel here, and answers none.";
        this.notes.push(text.into());
    }
    let members = || found.iter().flat_map(|(_, Forwarding { members, .. })| members);
    if is_private(own) && members().any(|member| member.is_ipv4() == own.is_ipv4() && !is_private(*member)) {
        let text = format!(
            "{own} is a private address, and not all others have one: if they reach this host by another (1:1 NAT), write \
             that as its address, and attach with --node {own}."
        );
        this.notes.push(text);
    }
    nodes.insert(0, this);
    nodes
}

fn network(device: &Device, found: Forwarding, own: IpAddr, overhead: u32) -> DraftNetwork {
    let (mtu, note) = mtu(&device.name, device.mtu, device.underlay_mtu, overhead);
    let own = own.to_string();
    let mut notes = device.settings();
    notes.extend(found.notes);
    notes.extend(note);
    notes.extend(device.notes.iter().cloned());
    let hidden = device.name.starts_with("l2mk") || device.name.starts_with("l2p");
    if hidden {
        notes.push(format!("interface: l2mesh has names like {} for itself: it gets another.", device.name));
    }
    DraftNetwork {
        name: device.name.clone(),
        vni: device.vxlan.vni,
        interface: (!hidden).then(|| device.name.clone()),
        bridge: device.bridge.clone(),
        members: std::iter::once(own.clone()).chain(found.members.iter().map(ToString::to_string)).collect(),
        addresses: vec![(own, device.addresses.clone())],
        mtu,
        link_local: device.link_local,
        tos: device.tos(),
        neighbour_suppression: device.neighbour_suppression || device.vxlan.proxy,
        macs: found.macs.into_iter().map(|(mac, remote)| (mac, remote.to_string())).collect(),
        notes,
    }
}

/// The `mtu` key: none where the default says the same, or where the device has one that cannot be right.
///
/// A device without `dev` has 1500 whatever is below it. Such frames leave in two fragments or not at all, and l2mesh
/// refuses what does not fit.
pub(super) fn mtu(name: &str, mtu: Option<u32>, underlay: Option<u32>, overhead: u32) -> (Option<u32>, Option<String>) {
    let underlay = underlay.unwrap_or(ETHERNET_MTU);
    let default = underlay.min(ETHERNET_MTU).saturating_sub(overhead);
    match mtu {
        None => (None, None),
        Some(mtu) if mtu == default => (None, None),
        Some(mtu) if mtu + overhead <= underlay => (Some(mtu), None),
        Some(mtu) => {
            let text = format!(
                "mtu: {name} has {mtu}, which with {overhead} octets of headers does not fit into the {underlay} below it: \
                 it becomes {default}. The others should have that too: ip link set dev {name} mtu {default}"
            );
            (None, Some(text))
        }
    }
}

/// The `fdb-age` in seconds, if it is not the default, and what is to be said about it.
fn ageing(devices: &[Device]) -> (Option<u32>, Option<String>) {
    let (default, longest) = AGEING;
    let limited = |seconds: u32| if seconds == 0 { longest } else { seconds.min(longest) };
    let ages: Vec<u32> = devices.iter().map(|device| limited(device.vxlan.ageing)).collect();
    let age = ages.iter().copied().max().unwrap_or(default);
    let differs = ages.iter().any(|&other| other != age);
    let text = format!("fdb-age: the devices have different times (ageing), and a mesh has one: the longest, {age} s.");
    (Some(age).filter(|&age| age != default), differs.then_some(text))
}

/// An address that the Internet does not route: RFC 1918, RFC 6598, RFC 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The devices that can be networks. The others are an error if they were asked for by name, else a comment each.
///
/// # Errors
/// One that was asked for cannot, or none can.
pub(super) fn usable(devices: Vec<Device>, asked_for: bool) -> anyhow::Result<(Vec<Device>, Vec<String>)> {
    let mut problems = Vec::new();
    let mut usable = Vec::new();
    for device in devices {
        match device.problem() {
            Some(problem) => problems.push(problem),
            None => usable.push(device),
        }
    }
    ensure!(problems.is_empty() || !(asked_for || usable.is_empty()), "{}", problems.join("\n"));
    Ok((usable, problems))
}

/// Checks that every `--peer` is a member of something.
///
/// # Errors
/// One is of a family that no device sends in, or this host.
pub(super) fn all_taken(devices: &[Device], peers: &[IpAddr]) -> anyhow::Result<()> {
    let members: Vec<IpAddr> = devices.iter().flat_map(|device| device.forwarding().members).collect();
    match peers.iter().find(|peer| !members.contains(peer)) {
        Some(peer) => bail!("--peer {peer}: it is this host, or no device sends over that version of IP"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
