//! The networks: each with its own name, VNI and device, its members and what is known of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use l2mesh_common::wire::{InvalidVni, MacAddr, Vni};

use super::{
    Cidr, MAX_PEERS, Network, Tos,
    error::{Origin, Report},
    file::{At, OneOrMore, RawNetwork, Scalar},
    node::Names,
    text,
    validate::{integer, missing},
};

/// Least MTU of an IPv4 host (RFC 791 section 3.2).
const MTU_MIN: u32 = 68;
/// Least MTU of an interface with IPv6 (RFC 8200 section 5).
pub(super) const MTU_MIN_IPV6: u32 = 1280;
/// Greatest length that the IPv4 header can say.
const MTU_MAX: u32 = 65_535;
/// The ECN bits of the TOS octet (RFC 3168 section 5).
const TOS_ECN: u8 = 0b11;

/// Every network of `raw`, in its order.
pub(super) fn networks(report: &mut Report<'_>, raw: &[At<RawNetwork>], nodes: &Names<'_>) -> Vec<Network> {
    if raw.is_empty() {
        report.error(Origin::Whole, "no network: add a [[network]] with name and vni");
    }
    let labels: Vec<String> = raw.iter().enumerate().map(|(index, raw)| label(index, &raw.value)).collect();
    let networks: Vec<Option<Network>> =
        raw.iter().zip(&labels).map(|(raw, label)| network(report, raw, label, nodes)).collect();
    distinct_names(report, raw);
    distinct_vnis(report, raw, &networks, &labels);
    device_names(report, raw, &networks, &labels);
    networks.into_iter().flatten().collect()
}

/// `network "lan"`, or `network 2` if it has no name.
pub(super) fn label(index: usize, raw: &RawNetwork) -> String {
    raw.name.as_ref().map_or_else(|| format!("network {}", index + 1), |name| format!("network {:?}", name.value))
}

/// `None` if there is no VNI, for which an error has been reported.
fn network(
    report: &mut Report<'_>,
    At { value: raw, origin }: &At<RawNetwork>,
    label: &str,
    nodes: &Names<'_>,
) -> Option<Network> {
    let owner = format!("{label}:");
    match &raw.name {
        None => missing(report, *origin, &owner, "name", "\"...\""),
        Some(name) => {
            if let Some(problem) = text::name_problem(&name.value) {
                report.error(name.origin, format!("network name {:?}: {problem}: write another", name.value));
            }
        }
    }
    let vni = vni(report, *origin, &owner, raw.vni.as_ref());
    let members = members(report, *origin, label, raw.members.as_ref(), nodes);
    let addresses = addresses(report, label, &raw.addresses, &members, nodes);
    let macs = macs(report, label, raw, &members, nodes);
    let mtu = integer(report, &owner, "mtu", raw.mtu.as_ref(), (MTU_MIN, MTU_MAX));
    if let (Some(mtu), Some(raw)) = (mtu, &raw.mtu)
        && let Some(address) = addresses.values().flatten().map(|cidr| cidr.address).find(IpAddr::is_ipv6)
        && mtu < MTU_MIN_IPV6
    {
        let text = format!("{owner} mtu {mtu}: the IPv6 address {address} wants at least {MTU_MIN_IPV6}");
        report.error(raw.origin, text);
    }
    let tos = raw.tos.as_ref().and_then(|raw| tos(report, &owner, raw));
    let storm_limit = integer(report, &owner, "storm-limit", raw.storm_limit.as_ref(), (1, u32::MAX));
    let macs_per_peer = integer(report, &owner, "macs-per-peer", raw.macs_per_peer.as_ref(), (1, u32::MAX));
    let vni = vni?;
    Some(Network {
        name: raw.name.as_ref().map_or(String::new(), |name| name.value.clone()),
        vni,
        interface: raw.interface.as_ref().map_or_else(|| default_interface(vni), |interface| interface.value.clone()),
        bridge: raw.bridge.as_ref().map(|bridge| bridge.value.clone()),
        members,
        addresses,
        mtu,
        macs,
        link_local: raw.link_local.unwrap_or(false),
        mss_clamp: raw.mss_clamp,
        tos,
        neighbour_suppression: raw.neighbour_suppression.unwrap_or(false),
        storm_limit,
        macs_per_peer,
        location: report.location(raw.mtu.as_ref().map_or(*origin, |mtu| mtu.origin)),
    })
}

/// The device name of a network that does not give one.
fn default_interface(vni: Vni) -> String {
    format!("l2m{:x}", vni.get())
}

fn vni(report: &mut Report<'_>, origin: Origin, owner: &str, raw: Option<&At<Scalar>>) -> Option<Vni> {
    let Some(raw) = raw else {
        missing(report, origin, owner, "vni", "1 to 16777215");
        return None;
    };
    let parsed = match &raw.value {
        Scalar::Text(text) => text.parse(),
        Scalar::Integer(number) if *number < 0 => Err(InvalidVni::NotANumber),
        Scalar::Integer(number) => u32::try_from(*number).map_err(|_| InvalidVni::TooLarge).and_then(Vni::new),
    };
    parsed.map_err(|error| report.error(raw.origin, format!("{owner} vni {}: {error}", raw.value))).ok()
}

/// The members, ascending; every node by default.
fn members(
    report: &mut Report<'_>,
    origin: Origin,
    label: &str,
    raw: Option<&At<Vec<At<String>>>>,
    nodes: &Names<'_>,
) -> Vec<usize> {
    let context = format!("{label}: members");
    let mut members = Vec::new();
    match raw {
        None => members.extend(0..nodes.len()),
        Some(raw) if raw.value.is_empty() => {
            let advice = "name the nodes, or remove the key for every node";
            report.error(raw.origin, format!("{context}: the list is empty: {advice}"));
        }
        Some(raw) => {
            for name in &raw.value {
                let Some(node) = nodes.find(report, name.origin, &context, &name.value) else { continue };
                if members.contains(&node) {
                    report.error(name.origin, format!("{context}: {:?} stands there twice: remove one", name.value));
                } else {
                    members.push(node);
                }
            }
            members.sort_unstable();
        }
    }
    if members.len() > MAX_PEERS + 1 {
        let origin = raw.map_or(origin, |raw| raw.origin);
        let count = members.len();
        let text = format!("{label}: {count} members: a node can have {MAX_PEERS} peers in a network: split it");
        report.error(origin, text);
    }
    members
}

/// Checks that `name` is a member; `context` says what for.
fn member(
    report: &mut Report<'_>,
    origin: Origin,
    context: &str,
    name: &str,
    members: &[usize],
    nodes: &Names<'_>,
) -> Option<usize> {
    let node = nodes.find(report, origin, context, name)?;
    let found = members.contains(&node);
    // Without members there is one error already, and that is enough.
    if !found && !members.is_empty() {
        report.error(origin, format!("{context}: {name:?} is no member: add it to members or remove it here"));
    }
    found.then_some(node)
}

fn addresses(
    report: &mut Report<'_>,
    label: &str,
    raw: &BTreeMap<String, At<OneOrMore>>,
    members: &[usize],
    nodes: &Names<'_>,
) -> BTreeMap<usize, Vec<Cidr>> {
    let context = format!("{label}: addresses");
    let mut addresses = BTreeMap::<usize, Vec<Cidr>>::new();
    let mut owners = BTreeMap::new();
    for (name, At { value: texts, origin }) in raw {
        let Some(node) = member(report, *origin, &context, name, members, nodes) else { continue };
        for text in texts.as_slice() {
            let cidr: Cidr = match text.parse() {
                Ok(cidr) => cidr,
                Err(error) => {
                    report.error(*origin, format!("{context}: {name:?}: {text:?}: {error}"));
                    continue;
                }
            };
            if let Some(first) = owners.insert(cidr.address, node) {
                let (address, first) = (cidr.address, nodes.label(first));
                let text = format!("{context}: {name:?}: {address} is also that of {first}: write another");
                report.error(*origin, text);
            }
            addresses.entry(node).or_default().push(cidr);
        }
    }
    addresses
}

fn macs(
    report: &mut Report<'_>,
    label: &str,
    raw: &RawNetwork,
    members: &[usize],
    nodes: &Names<'_>,
) -> Vec<(MacAddr, usize)> {
    let context = format!("{label}: mac");
    let mut macs: Vec<(MacAddr, usize)> = Vec::new();
    for At { value: entry, origin } in &raw.mac {
        let node = match &entry.node {
            None => {
                missing(report, *origin, &format!("{context}:"), "node", "\"...\"");
                None
            }
            Some(node) => member(report, node.origin, &context, &node.value, members, nodes),
        };
        let Some(mac) = &entry.mac else {
            missing(report, *origin, &format!("{context}:"), "mac", "\"52:54:00:12:34:56\"");
            continue;
        };
        match mac.value.parse::<MacAddr>() {
            Err(error) => report.error(mac.origin, format!("{context} {:?}: {error}", mac.value)),
            Ok(parsed) if !parsed.is_valid_source() => {
                let advice = "no station has a group address or zero: write the address of one";
                report.error(mac.origin, format!("{context} {parsed}: {advice}"));
            }
            Ok(parsed) if macs.iter().any(|(seen, _)| *seen == parsed) => {
                report.error(mac.origin, format!("{context} {parsed} stands there twice: remove one"));
            }
            // An entry whose node is wrong still counts as seen: node 0 stands in, an error has been reported.
            Ok(parsed) => macs.push((parsed, node.unwrap_or(0))),
        }
    }
    macs
}

fn tos(report: &mut Report<'_>, owner: &str, raw: &At<Scalar>) -> Option<Tos> {
    let advice = match &raw.value {
        Scalar::Text(text) if text == "inherit" => return Some(Tos::Inherit),
        Scalar::Integer(number) => match u8::try_from(*number) {
            Ok(tos) if tos & TOS_ECN == 0 => return Some(Tos::Fixed(tos)),
            Ok(_) => "the last two bits are ECN, which follows RFC 6040: leave them zero",
            Err(_) => "write \"inherit\" or a multiple of 4 from 0 to 252",
        },
        Scalar::Text(_) => "write \"inherit\" or a multiple of 4 from 0 to 252",
    };
    report.error(raw.origin, format!("{owner} tos {}: {advice}", raw.value));
    None
}

fn distinct_names(report: &mut Report<'_>, raw: &[At<RawNetwork>]) {
    let mut seen = BTreeMap::new();
    for name in raw.iter().filter_map(|raw| raw.value.name.as_ref()) {
        if let Some(first) = seen.insert(name.value.as_str(), name.origin) {
            let first = report.reference(first);
            let text = format!("{:?} is also the name of the network {first}: every network needs its own", name.value);
            report.error(name.origin, text);
        }
    }
}

fn distinct_vnis(report: &mut Report<'_>, raw: &[At<RawNetwork>], networks: &[Option<Network>], labels: &[String]) {
    let mut seen = BTreeMap::new();
    for (index, network) in networks.iter().enumerate() {
        let Some(vni) = network.as_ref().map(|network| network.vni) else { continue };
        if let Some(first) = seen.insert(vni, index) {
            let origin = raw[index].value.vni.as_ref().map_or(raw[index].origin, |vni| vni.origin);
            let (this, other) = (&labels[index], &labels[first]);
            report.error(origin, format!("{this}: vni {vni} is also that of {other}: every network needs its own"));
        }
    }
}

/// Every device of the mesh needs a name that the kernel takes and that nothing else of the mesh has.
fn device_names(report: &mut Report<'_>, raw: &[At<RawNetwork>], networks: &[Option<Network>], labels: &[String]) {
    let vnis: BTreeSet<Vni> = networks.iter().flatten().map(|network| network.vni).collect();
    let mut interfaces = BTreeMap::new();
    for (index, At { value: raw, origin }) in raw.iter().enumerate() {
        let label = &labels[index];
        let Some(network) = &networks[index] else { continue };
        let name = &network.interface;
        let origin = raw.interface.as_ref().map_or(*origin, |interface| interface.origin);
        if let Some(problem) = text::interface_problem(name) {
            report.error(origin, format!("{label}: interface {name:?}: {problem}: write another name"));
        } else if is_hidden(name, &vnis) {
            report.error(origin, format!("{label}: interface {name:?}: l2mesh needs that name itself: write another"));
        }
        // Two networks of one VNI have one default name too: that has been said.
        let first = interfaces.insert(name.as_str(), index);
        if let Some(first) = first.filter(|&first| networks[first].as_ref().is_some_and(|n| n.vni != network.vni)) {
            let other = &labels[first];
            let text = format!("{label}: interface {name:?} is also that of {other}: every network needs its own");
            report.error(origin, text);
        }
    }
    let mut bridges = BTreeMap::new();
    for (At { value: raw, .. }, label) in raw.iter().zip(labels) {
        let Some(At { value: bridge, origin }) = &raw.bridge else { continue };
        if let Some(first) = bridges.insert(bridge.as_str(), label) {
            let text =
                format!("{label}: bridge {bridge:?} is also that of {first}: it would join both, write another name");
            report.error(*origin, text);
        }
        if let Some(problem) = text::interface_problem(bridge) {
            report.error(*origin, format!("{label}: bridge {bridge:?}: {problem}: write another name"));
        } else if is_hidden(bridge, &vnis) {
            report.error(*origin, format!("{label}: bridge {bridge:?}: l2mesh needs that name itself: write another"));
        } else if let Some(&other) = interfaces.get(bridge.as_str()) {
            let other = &labels[other];
            report
                .error(*origin, format!("{label}: bridge {bridge:?} is the interface of {other}: write another name"));
        }
    }
}

/// True for the hidden names of design.md 7: `l2mk` and `l2mh` + number, and `l2p` + VNI (+ `x` + anything) of a network here.
fn is_hidden(name: &str, vnis: &BTreeSet<Vni>) -> bool {
    let peer_of = |name: &str| {
        let digits = name.split_once('x').map_or(name, |(digits, _)| digits);
        let vni = u32::from_str_radix(digits, 16).ok().and_then(|vni| Vni::new(vni).ok());
        // Written as we write it: no zeros before, no capitals.
        vni.is_some_and(|vni| vnis.contains(&vni) && format!("{:x}", vni.get()) == digits)
    };
    let numbered =
        |prefix| name.strip_prefix(prefix).is_some_and(|rest: &str| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.starts_with("l2mk") || numbered("l2mh") || name.strip_prefix("l2p").is_some_and(peer_of)
}
