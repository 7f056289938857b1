//! Netplan: `tunnels:` with `mode: vxlan`, as `doc/netplan-yaml.md` and `src/parse.c` of netplan have them.
//!
//! A tunnel becomes the settings that the kernel's device would have, and then what that device would become.

mod yaml;

use std::{fmt::Display, net::IpAddr, path::PathBuf, str::FromStr};

use anyhow::{Context as _, ensure};

use self::yaml::{Entry as Key, Node, Value};
use super::{
    Told,
    assemble::{all_taken, assemble, usable},
    device::{Device, Entry},
    draft::{Comment, Draft},
};
use crate::{
    config::{Cidr, ConfigError, Location, read as read_text},
    underlay::vxlan::Vxlan,
};

/// Sections in which the device below a tunnel can be.
const PARENTS: [&str; 7] = ["ethernets", "bonds", "vlans", "bridges", "wifis", "dummy-devices", "virtual-ethernets"];

/// The mesh of the vxlan tunnels of these files.
///
/// # Errors
/// A file cannot be read, is no YAML, says what netplan would refuse, or there is no tunnel of mode vxlan.
pub(super) fn read(files: &[PathBuf], told: Told<'_>) -> anyhow::Result<Draft> {
    let text = |path: &PathBuf| {
        let place = path.display().to_string();
        let text = read_text(path).with_context(|| format!("{place}: cannot be read"))?;
        anyhow::Ok((place, text))
    };
    let texts = files.iter().map(text).collect::<anyhow::Result<Vec<_>>>()?;
    draft(&texts, told)
}

/// The same of texts with the names of their files.
fn draft(texts: &[(String, String)], told: Told<'_>) -> anyhow::Result<Draft> {
    let mut tree: Option<Node> = None;
    for (place, text) in texts {
        let file = Node::parse(text, place)?;
        match &mut tree {
            Some(tree) => tree.overlay(file),
            None => tree = Some(file),
        }
    }
    let places = texts.iter().map(|(place, _)| place.as_str()).collect::<Vec<_>>().join(", ");
    let network = tree.as_ref().and_then(|tree| tree.get("network"));
    let network = network.with_context(|| format!("{places}: no `network:` in it: not a netplan file"))?;
    let tunnels = network.get("tunnels").map_or(Ok(&[][..]), |tunnels| tunnels.mapping("tunnels"))?;
    let (mut devices, mut others) = (Vec::new(), Vec::new());
    for Key { key: name, at, node } in tunnels {
        match node.get("mode").map(|mode| mode.scalar("mode")).transpose()? {
            Some("vxlan") => devices.push(device(name, at, node, network, told)?),
            Some(mode) => others.push(format!("{at}: {name} is a tunnel of mode {mode}: not a vxlan device.")),
            None => return Err(ConfigError::new(at.clone(), format!("{name}: mode is missing")).into()),
        }
    }
    ensure!(!devices.is_empty(), "{places}: there is no tunnel of `mode: vxlan` in it");
    let (devices, problems) = usable(devices, false)?;
    all_taken(&devices, told.peers)?;
    assemble(&devices, head(&devices, &places, &others, &problems))
}

fn head(devices: &[Device], places: &str, others: &[String], problems: &[String]) -> Vec<Comment> {
    let names = devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ");
    let interface = devices.iter().find_map(|device| device.underlay.as_deref()).unwrap_or("IFACE");
    let mut head = vec![
        Comment::text(format!("Made by `l2mesh import --netplan` from {places}.")),
        Comment::text(format!(
            "The same file goes to every host that runs l2mesh. To hand over on this one, take {names} out of netplan's \
             files, and then:"
        )),
        Comment::Command("netplan apply".into()),
    ];
    head.extend(devices.iter().map(|device| Comment::Command(format!("ip link delete dev {}", device.name))));
    head.push(Comment::Command(format!("l2mesh attach --iface {interface} --config FILE")));
    head.push(Comment::text(
        "Forwarding entries added by `bridge fdb` are not in these files: `l2mesh import` without --netplan reads what \
         the host has right now.",
    ));
    head.extend(others.iter().map(Comment::text));
    head.extend(problems.iter().map(|problem| Comment::text(format!("Not imported: {problem}."))));
    head
}

fn device(name: &str, at: &Location, tunnel: &Node, network: &Node, told: Told<'_>) -> anyhow::Result<Device> {
    let mut device = Device { name: name.into(), ..Device::default() };
    for entry in tunnel.mapping(name)? {
        let named =
            |error: ConfigError| ConfigError::new(error.location, format!("{name}: {}: {}", entry.key, error.text));
        setting(&mut device, entry).map_err(named)?;
    }
    if tunnel.get("id").is_none() {
        return Err(ConfigError::new(at.clone(), format!("{name}: id is missing")).into());
    }
    device.source = told.local.or(device.vxlan.local);
    device.entries = device.vxlan.remote.into_iter().map(Entry::flood).collect();
    device.add_peers(told.peers);
    if let Some(link) = tunnel.get("link") {
        below(&mut device, link.scalar("link")?, network)?;
    }
    if device.forwarding().members.is_empty() && device.vxlan.remote.is_none() {
        let text = "has no remote, and netplan cannot say a list of them: name the other hosts with --peer, or import the \
                    device itself on its host (`l2mesh import NAME`), with what `bridge fdb` added to it";
        device.problem = Some(text.replace("NAME", name));
    }
    above(&mut device, network)?;
    Ok(device)
}

/// One key of a tunnel.
fn setting(device: &mut Device, entry: &Key) -> Result<(), ConfigError> {
    let Key { key, node, at } = entry;
    let vxlan = &mut device.vxlan;
    match key.as_str() {
        "mode" | "link" | "renderer" | "do-not-fragment" | "optional" | "ignore-carrier" => {}
        "id" => vxlan.vni = number(node, 1, (1 << 24) - 1)?,
        // Zero is what netplan takes for "not said", here and with ageing.
        "port" => vxlan.port = Some(number(node, 0, u16::MAX)?).filter(|&it| it > 0).unwrap_or(Vxlan::default().port),
        "local" => vxlan.local = Some(address(node)?),
        "remote" => vxlan.remote = Some(address(node)?),
        "ttl" => vxlan.ttl = number(node, 0, u8::MAX)?,
        "type-of-service" => vxlan.tos = number(node, 0, u8::MAX)?,
        "flow-label" => vxlan.flow_label = number(node, 0, (1 << 20) - 1)?,
        "mac-learning" => vxlan.learning = boolean(node)?,
        "ageing" | "aging" => {
            vxlan.ageing = Some(number(node, 0, u32::MAX)?).filter(|&it| it > 0).unwrap_or(Vxlan::default().ageing);
        }
        "limit" => vxlan.limit = number(node, 0, u32::MAX)?,
        "arp-proxy" => vxlan.proxy = boolean(node)?,
        "short-circuit" => vxlan.short_circuit = boolean(node)?,
        "notifications" | "checksums" | "extensions" => flags(vxlan, node)?,
        "port-range" => match node.sequence("two ports")? {
            [first, last] => vxlan.source_ports = (number(first, 0, u16::MAX)?, number(last, 0, u16::MAX)?),
            _ => return Err(node.error("write two ports, as in [40000, 50000]")),
        },
        "mtu" => device.mtu = Some(number(node, 68, 65_535)?),
        "neigh-suppress" => device.neighbour_suppression = boolean(node)?,
        "addresses" => {
            for item in node.sequence("addresses")? {
                own_address(device, item)?;
            }
        }
        _ => device.notes.push(format!("{at}: {key}: {}.", why_not(key, node))),
    }
    Ok(())
}

fn why_not(key: &str, node: &Node) -> &'static str {
    match (key, &node.value) {
        ("dhcp4" | "dhcp6", _) => "l2mesh runs no DHCP client: run one on the new interface",
        ("routes" | "routing-policy" | "gateway4" | "gateway6", _) => {
            "l2mesh adds no routes: add them to the new interface"
        }
        ("nameservers", _) => "l2mesh sets up no resolver",
        ("macaddress", _) => "the new interface has a MAC address of its own",
        _ => "l2mesh has nothing like it",
    }
}

/// Flags of `notifications`, `checksums` and `extensions`: their names differ.
fn flags(vxlan: &mut Vxlan, node: &Node) -> Result<(), ConfigError> {
    for item in node.sequence("flags")? {
        match item.scalar("a flag")? {
            "l2-miss" => vxlan.l2_miss = true,
            "l3-miss" => vxlan.l3_miss = true,
            // Every receiver takes UDP checksums, and over IPv4 their absence.
            "udp" | "zero-udp6-tx" => {}
            "zero-udp6-rx" => vxlan.takes_zero_checksum6 = true,
            "remote-tx" | "remote-rx" => vxlan.remote_checksum = true,
            "group-policy" => vxlan.group_policy = true,
            "generic-protocol" => vxlan.generic_protocol = true,
            other => return Err(item.error(format!("{other:?} is not known"))),
        }
    }
    Ok(())
}

/// An item of `addresses`: text, or a mapping from the text to options.
fn own_address(device: &mut Device, item: &Node) -> Result<(), ConfigError> {
    let text = match &item.value {
        Value::Mapping(entries) => match entries.as_slice() {
            [Key { key, node, at }] => {
                let options = node.mapping("options")?.iter().map(|option| option.key.as_str()).collect::<Vec<_>>();
                device.notes.push(format!("{at}: {key}: left out of it: {}.", options.join(", ")));
                key.as_str()
            }
            _ => return Err(item.error("expected an address with its prefix length")),
        },
        _ => item.scalar("an address")?,
    };
    let cidr: Cidr = text.parse().map_err(|error| item.error(format!("{text:?}: {error}")))?;
    if device.addresses.iter().any(|other| other.address == cidr.address) {
        device.notes.push(format!("{}: {cidr}: left out: the address is there twice.", item.at));
    } else {
        device.addresses.push(cidr);
    }
    Ok(())
}

/// `link`: its MTU, and its address if the tunnel has no `local`.
fn below(device: &mut Device, link: &str, network: &Node) -> Result<(), ConfigError> {
    device.underlay = Some(link.to_owned());
    let Some(parent) = PARENTS.iter().find_map(|section| network.get(section)?.get(link)) else { return Ok(()) };
    if let Some(name) = parent.get("set-name") {
        device.underlay = Some(name.scalar("set-name")?.to_owned());
    }
    if let Some(mtu) = parent.get("mtu") {
        device.underlay_mtu = Some(number(mtu, 68, 65_535)?);
    }
    if device.source.is_none() {
        let wanted = device.forwarding().members.first().map(IpAddr::is_ipv4);
        let addresses = parent.get("addresses").map_or(Ok(&[][..]), |list| list.sequence("addresses"))?;
        let parsed = addresses.iter().filter_map(|item| item.scalar("an address").ok()?.parse().ok());
        device.source = parsed.map(|cidr: Cidr| cidr.address).find(|it| wanted.is_none_or(|v4| v4 == it.is_ipv4()));
        if let Some(source) = device.source {
            device.notes.push(format!("no `local`: {source} is an address of {link}."));
        }
    }
    Ok(())
}

/// The bridge that has the tunnel as an interface.
fn above(device: &mut Device, network: &Node) -> Result<(), ConfigError> {
    let bridges = network.get("bridges").map_or(Ok(&[][..]), |bridges| bridges.mapping("bridges"))?;
    for Key { key: bridge, at, node } in bridges {
        let interfaces = node.get("interfaces").map_or(Ok(&[][..]), |list| list.sequence("interfaces"))?;
        if !interfaces.iter().any(|item| item.value == Value::Scalar(device.name.clone())) {
            continue;
        }
        device.bridge = Some(bridge.clone());
        for cidr in std::mem::take(&mut device.addresses) {
            device.notes.push(format!("{cidr} is on a port of a bridge, where it has no use: left out."));
        }
        device.notes.push(format!(
            "{at}: {bridge} stays netplan's, with its addresses: only take {} out of its interfaces.",
            device.name
        ));
        // Netplan writes STP=true as soon as there is any parameter, unless told otherwise.
        let parameters = node.get("parameters").map_or(Ok(&[][..]), |it| it.mapping("parameters"))?;
        let stp = parameters.iter().find(|entry| entry.key == "stp").map(|entry| boolean(&entry.node)).transpose()?;
        if !parameters.is_empty() && stp.unwrap_or(true) {
            device.link_local = true;
            device.notes.push(format!("link-local: {bridge} speaks STP, as netplan has it unless `stp: false`."));
        }
    }
    Ok(())
}

fn address(node: &Node) -> Result<IpAddr, ConfigError> {
    let text = node.scalar("an address")?;
    text.parse().map_err(|_| node.error(format!("{text:?} is no IP address")))
}

fn number<T: FromStr + PartialOrd + Display + Copy>(node: &Node, least: T, greatest: T) -> Result<T, ConfigError> {
    let text = node.scalar("a number")?;
    let number = text.parse().ok().filter(|number| (least..=greatest).contains(number));
    number.ok_or_else(|| node.error(format!("{text:?}: write a number from {least} to {greatest}")))
}

/// What netplan takes for a boolean (`handle_generic_bool`).
fn boolean(node: &Node) -> Result<bool, ConfigError> {
    let text = node.scalar("true or false")?;
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "y" => Ok(true),
        "false" | "off" | "no" | "n" => Ok(false),
        _ => Err(node.error(format!("{text:?}: write true or false"))),
    }
}

#[cfg(test)]
mod tests;
