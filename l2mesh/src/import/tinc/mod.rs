//! A tinc network in switch mode: names, addresses, and what tinc-up does to the interface.
//!
//! Everybody moves at once: a host with tinc and one with l2mesh do not understand each other.

mod files;
mod up;

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, ensure};
use l2mesh_common::wire::MacAddr;

use self::files::{Files, Variable, Variables};
use super::{
    Told,
    assemble::mtu,
    device::list,
    draft::{Comment, Draft, DraftNetwork, DraftNode},
};
use crate::config::{ConfigError, OVERHEAD_IPV4, OVERHEAD_IPV6, Tos, interface_problem, name_problem};

/// IANA's port of VXLAN. tinc's own stays free for tinc.
const PORT: u16 = 4789;
/// tinc has no such number.
const VNI: u32 = 1;

/// Variables of which everything is said elsewhere, or that have nothing to do with what l2mesh does.
const UNDERSTOOD: [&str; 14] = [
    "Name",
    "Mode",
    "AddressFamily",
    "Interface",
    "Device",
    "Address",
    "Port",
    "Subnet",
    "BindToAddress",
    "ListenAddress",
    "MACExpire",
    "PriorityInheritance",
    "LocalDiscovery",
    "ClampMSS",
];
/// Why the others are not carried over; a name in none of these is listed by itself.
const LEFT_OUT: [(&str, &[&str]); 4] = [
    (
        "l2mesh has no keys and does not encrypt",
        &[
            "PrivateKey",
            "PrivateKeyFile",
            "PublicKey",
            "PublicKeyFile",
            "Ed25519PrivateKeyFile",
            "Ed25519PublicKey",
            "Ed25519PublicKeyFile",
            "ExperimentalProtocol",
            "Cipher",
            "Digest",
            "MACLength",
            "KeyExpire",
            "ReplayWindow",
            "Compression",
            "InvitationExpire",
        ],
    ),
    (
        "every node sends to every other directly, over UDP",
        &[
            "ConnectTo",
            "AutoConnect",
            "IndirectData",
            "DirectOnly",
            "TCPOnly",
            "TunnelServer",
            "Proxy",
            "UPnP",
            "Weight",
            "Forwarding",
            "MaxTimeout",
            "PingInterval",
            "PingTimeout",
            "Broadcast",
            "StrictSubnets",
        ],
    ),
    ("the MTU is the network's, the same everywhere", &["PMTU", "PMTUDiscovery"]),
    (
        "that is about tinc's own process and sockets",
        &[
            "BindToInterface",
            "DeviceStandby",
            "FWMark",
            "Hostnames",
            "IffOneQueue",
            "LogLevel",
            "MaxConnectionBurst",
            "ProcessPriority",
            "Sandbox",
            "ScriptsExtension",
            "ScriptsInterpreter",
            "UDPDiscovery",
            "UDPDiscoveryKeepaliveInterval",
            "UDPDiscoveryInterval",
            "UDPDiscoveryTimeout",
            "UDPInfoInterval",
            "UDPRcvBuf",
            "UDPSndBuf",
            "MTUInfoInterval",
        ],
    ),
];

/// The mesh of the network in a directory such as /etc/tinc/NETNAME.
///
/// # Errors
/// It cannot be read, is no network in switch mode, or fewer than two hosts have an address.
pub(super) fn read(directory: &Path, told: Told<'_>) -> anyhow::Result<Draft> {
    draft(&Files::read(directory)?, told)
}

fn draft(files: &Files, told: Told<'_>) -> anyhow::Result<Draft> {
    let place = files.directory.join("tinc.conf").display().to_string();
    let mode_note = mode(&files.server, &place)?;
    let own = own_name(&files.server, &place)?;
    let (nodes, mut notes) = nodes(files, &own, told)?;
    ensure!(
        nodes.len() > 1,
        "{}: fewer than two hosts have an Address in hosts/: l2mesh sends to every host directly",
        files.directory.display()
    );
    notes.extend(mode_note);
    let family = nodes.iter().filter_map(|node| node.address.parse::<IpAddr>().ok());
    let overhead = if family.into_iter().any(|it| it.is_ipv6()) { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 };
    let members: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let mut network = network(files, &own, overhead);
    network.macs = static_macs(files, &members, &mut network.notes);
    network.members = members;
    notes.extend(left_out(files));
    Ok(Draft {
        head: head(files, &own, &notes),
        port: PORT,
        fdb_age: files.server.first("MACExpire").map(number).transpose()?.filter(|&seconds| seconds > 0),
        nodes,
        networks: vec![network],
    })
}

/// Only Ethernet can be carried on: switch, and hub with a word about it.
fn mode(server: &Variables, place: &str) -> anyhow::Result<Option<String>> {
    let mode = server.first("Mode");
    match mode.map(|mode| mode.value.to_ascii_lowercase()).as_deref() {
        Some("switch") => return Ok(None),
        Some("hub") => {
            return Ok(Some("Mode = hub: l2mesh learns where MAC addresses are, as switch mode does.".into()));
        }
        _ => {}
    }
    let at = mode.map_or_else(|| place.to_owned(), |mode| mode.at.to_string());
    let mode = mode.map_or_else(|| "router, tinc's default".to_owned(), |mode| mode.value.clone());
    anyhow::bail!(
        "{at}: Mode is {mode}: there tinc routes IP packets between Subnets, and l2mesh carries Ethernet: only \
         `Mode = switch` can be translated"
    )
}

fn own_name(server: &Variables, place: &str) -> anyhow::Result<String> {
    let name = server.first("Name").with_context(|| format!("{place}: Name is missing"))?;
    let Some(variable) = name.value.strip_prefix('$') else {
        let text = format!("Name {:?}: tinc takes letters, digits and underscores", name.value);
        ensure!(files::is_name(&name.value), ConfigError::new(name.at.clone(), text));
        return Ok(name.value.clone());
    };
    let value = std::env::var(variable).ok().or_else(|| {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        hostname.filter(|_| variable == "HOST").map(|name| name.trim().to_owned())
    });
    let value = value.with_context(|| format!("{}: Name is ${variable}, which is not in the environment", name.at))?;
    // As tinc does it: whatever else becomes an underscore.
    Ok(value.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect())
}

/// Every host that has an address, and what is to be said about the others.
fn nodes(files: &Files, own: &str, told: Told<'_>) -> anyhow::Result<(Vec<DraftNode>, Vec<String>)> {
    let wanted = match files.server.first("AddressFamily").map(|family| family.value.to_ascii_lowercase()).as_deref() {
        Some("ipv4") => Some(true),
        Some("ipv6") => Some(false),
        _ => None,
    };
    let (mut nodes, mut without) = (Vec::new(), Vec::new());
    for (name, host) in &files.hosts {
        let is_own = name == own;
        let mut node = DraftNode { name: name.clone(), ..DraftNode::default() };
        if is_own {
            node.remark = "this host";
        }
        let mut addresses = host.all("Address").map(address).collect::<anyhow::Result<Vec<_>>>()?;
        if is_own && addresses.is_empty() {
            let bound = ["BindToAddress", "ListenAddress"].into_iter().flat_map(|it| files.server.all(it));
            addresses.extend(
                bound.filter_map(|it| it.value.split(' ').next()?.parse::<IpAddr>().ok()).map(|ip| ip.to_string()),
            );
        }
        if let Some(local) = told.local.filter(|_| is_own) {
            addresses.insert(0, local.to_string());
        }
        let fits =
            |text: &&String| text.parse::<IpAddr>().map_or(true, |ip| wanted.is_none_or(|v4| ip.is_ipv4() == v4));
        let Some(address) = addresses.iter().find(fits).or(addresses.first()).cloned() else {
            ensure!(
                !is_own,
                "{}/hosts/{own} has no Address: say where the others reach this host with --local",
                files.directory.display()
            );
            without.push(name.clone());
            continue;
        };
        addresses.retain(|other| *other != address);
        addresses.dedup();
        if !addresses.is_empty() {
            node.notes.push(format!("{name} also has {}: a node has one address.", list(&addresses)));
        }
        node.address = address;
        nodes.push(node);
    }
    ensure!(
        files.hosts.contains_key(own),
        "{}: there is no hosts/{own}, the file of this host",
        files.directory.display()
    );
    let mut notes = Vec::new();
    if !without.is_empty() {
        let text = "left out, for no Address is in their files in hosts/, and l2mesh sends to every host directly";
        notes.push(format!("{}: {text}.", list(&without)));
    }
    Ok((nodes, notes))
}

/// `Address = address [port]`: an IP address or a host name.
fn address(variable: &Variable) -> anyhow::Result<String> {
    let text = variable.value.split_ascii_whitespace().next().unwrap_or_default();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let problem = format!("Address {text:?} is no IP address or host name");
    ensure!(crate::config::is_host_name(text), ConfigError::new(variable.at.clone(), problem));
    Ok(text.to_owned())
}

fn number(variable: &Variable) -> anyhow::Result<u32> {
    let problem =
        || ConfigError::new(variable.at.clone(), format!("{} {:?}: expected a number", variable.name, variable.value));
    variable.value.parse().map_err(|_| problem().into())
}

/// The one network: called like the directory, with what tinc-up sets up.
fn network(files: &Files, own: &str, overhead: u32) -> DraftNetwork {
    let directory = files.directory.canonicalize().unwrap_or_else(|_| files.directory.clone());
    let net_name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // /etc/tinc itself is a network without a name.
    let name = Some(&net_name).filter(|name| name_problem(name).is_none()).cloned().unwrap_or_else(|| "tinc".into());
    let interface = files.server.first("Interface").map_or_else(|| net_name.clone(), |it| it.value.clone());
    let mut network = DraftNetwork { name, vni: VNI, ..DraftNetwork::default() };
    network.notes.push("vni: tinc has none. Any number does that no other network here has.".into());
    match interface_problem(&interface) {
        None => network.interface = Some(interface.clone()),
        Some(problem) => network.notes.push(format!("interface {interface:?}: {problem}: it gets another name.")),
    }
    if let Some((place, text)) = &files.up {
        let up = up::read(text, &interface);
        let (mtu, note) = mtu(&interface, up.mtu, None, overhead);
        network.mtu = mtu;
        network.notes.extend(note);
        for (line, command) in &up.others {
            network.notes.push(format!("{place}:{line}: `{command}`: not done by l2mesh."));
        }
        if let Some(bridge) = &up.bridge
            && !up.addresses.is_empty()
        {
            let addresses = list(&up.addresses);
            network
                .notes
                .push(format!("{addresses}: on a port of the bridge {bridge}, where it has no use: left out."));
        } else {
            network.addresses.push((own.to_owned(), up.addresses));
        }
        network.bridge = up.bridge;
    }
    let inherit = files.server.first("PriorityInheritance");
    network.tos = inherit.filter(|it| it.value.eq_ignore_ascii_case("yes")).map(|_| Tos::Inherit);
    network
}

/// In switch mode a Subnet that is a MAC address is a static entry, and others have no meaning.
fn static_macs(files: &Files, members: &[String], notes: &mut Vec<String>) -> Vec<(MacAddr, String)> {
    let (mut macs, mut others): (Vec<(MacAddr, String)>, Vec<String>) = (Vec::new(), Vec::new());
    for (name, host) in &files.hosts {
        for subnet in host.all("Subnet") {
            let text = subnet.value.split('#').next().unwrap_or_default();
            match mac(text) {
                Some(mac) if !members.contains(name) => {
                    notes.push(format!("{}: {mac}: {name} is left out.", subnet.at));
                }
                Some(mac) if !mac.is_valid_source() || macs.iter().any(|(seen, _)| *seen == mac) => {
                    notes.push(format!("{}: {mac}: left out: no station's address, or there twice.", subnet.at));
                }
                Some(mac) => macs.push((mac, name.clone())),
                None => others.push(format!("{} ({name})", subnet.value)),
            }
        }
    }
    if !others.is_empty() {
        notes.push(format!("Subnet: only MAC addresses have a meaning in switch mode: {}.", list(&others)));
    }
    macs
}

/// As tinc writes it: without leading zeros.
fn mac(text: &str) -> Option<MacAddr> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() <= 2)?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(MacAddr(octets))
}

/// Every variable that is not carried over, once, by reason.
fn left_out(files: &Files) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = LEFT_OUT.iter().map(|(reason, _)| (*reason, Vec::new())).collect();
    by_reason.push(("l2mesh has nothing like it", Vec::new()));
    let unknown = by_reason.len() - 1;
    for Variable { name, .. } in files.hosts.values().chain([&files.server]).flat_map(|host| &host.0) {
        if UNDERSTOOD.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        let is_there = |(_, names): &(&str, &[&str])| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let (_, names) = &mut by_reason[LEFT_OUT.iter().position(is_there).unwrap_or(unknown)];
        if !names.iter().any(|seen| seen.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    let mut notes: Vec<String> = by_reason
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(reason, names)| format!("{}: not carried over: {reason}.", names.join(", ")))
        .collect();
    if !files.others.is_empty() {
        notes.push(format!("{}: not looked at: l2mesh runs no scripts.", list(&files.others)));
    }
    notes
}

fn head(files: &Files, own: &str, notes: &[String]) -> Vec<Comment> {
    let directory = files.directory.display();
    let mut head = vec![
        Comment::text(format!("Made by `l2mesh import --tinc {directory}` on {own}.")),
        Comment::text(
            "tinc encrypts, l2mesh does not: where the path between the hosts is not yours, run it over WireGuard or IPsec.",
        ),
        Comment::text(format!(
            "Hosts with tinc and hosts with l2mesh do not understand each other: move all of them. On every one, with this \
             file, UDP port {PORT} open between them, and tinc stopped:"
        )),
        Comment::Command("l2mesh attach --iface IFACE --config FILE".into()),
        Comment::text(
            "tinc goes through others where there is no direct way: add relay = true to the nodes that may do that.",
        ),
    ];
    head.extend(notes.iter().map(Comment::text));
    head
}

#[cfg(test)]
mod tests;
