//! The nodes: each can be told from every other by name, id and address.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    Address, Node, NodeKind,
    error::{Origin, Report},
    file::{At, RawNode},
    text,
    validate::{integer, missing},
};

/// Finds nodes by name.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    by_name: BTreeMap<&'a str, usize>,
    /// How errors call each node.
    labels: Vec<String>,
}

impl Names<'_> {
    /// Number of nodes, unnamed ones included.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// `node "ovh"`, or `node 2` if it has no name.
    pub(super) fn label(&self, index: usize) -> &str {
        &self.labels[index]
    }

    /// The node called `name`; an error if there is none.
    pub(super) fn find(&self, report: &mut Report<'_>, origin: Origin, context: &str, name: &str) -> Option<usize> {
        let found = self.by_name.get(name).copied();
        if found.is_none() {
            report.error(origin, format!("{context}: no node is called {name:?}: add it or correct the name"));
        }
        found
    }
}

/// Every node of `raw`, in its order.
pub(super) fn nodes<'a>(report: &mut Report<'_>, raw: &'a [At<RawNode>]) -> (Vec<Node>, Names<'a>) {
    let names = names(report, raw);
    let nodes: Vec<Node> = raw.iter().enumerate().map(|(index, raw)| node(report, index, raw, &names)).collect();
    if let [only] = raw {
        report.error(only.origin, "one node is no mesh: add a [[node]] for every other host");
    } else if raw.is_empty() {
        report.error(Origin::Whole, "no node: add a [[node]] for every host");
    }
    for (index, raw) in raw.iter().enumerate() {
        relays_can_relay(report, index, &raw.value, &nodes, &names);
    }
    distinct_ids(report, raw, &nodes, &names);
    distinct_addresses(report, raw, &nodes, &names);
    distinct_views(report, raw, &nodes);
    (nodes, names)
}

fn names<'a>(report: &mut Report<'_>, raw: &'a [At<RawNode>]) -> Names<'a> {
    let mut names = Names::default();
    let mut origins = BTreeMap::new();
    for (index, At { value: node, origin }) in raw.iter().enumerate() {
        let Some(name) = &node.name else {
            let label = format!("node {}", index + 1);
            missing(report, *origin, &format!("{label}:"), "name", "\"...\"");
            names.labels.push(label);
            continue;
        };
        names.labels.push(format!("node {:?}", name.value));
        if let Some(problem) = text::name_problem(&name.value) {
            report.error(name.origin, format!("node name {:?}: {problem}: write another", name.value));
        }
        if let Some(first) = origins.insert(name.value.as_str(), name.origin) {
            let first = report.reference(first);
            let text = format!("{:?} is also the name of the node {first}: every node needs its own", name.value);
            report.error(name.origin, text);
        } else {
            names.by_name.insert(&name.value, index);
        }
    }
    names
}

fn node(report: &mut Report<'_>, index: usize, At { value: raw, origin }: &At<RawNode>, names: &Names<'_>) -> Node {
    let owner = format!("{}:", names.label(index));
    let name = raw.name.as_ref().map_or("", |name| &name.value);
    let id = integer(report, &owner, "id", raw.id.as_ref(), (1, u32::MAX)).unwrap_or_else(|| text::fnv_1a_32(name));
    if id == 0 {
        let text = format!("{owner} its name stands for the id 0, which is reserved: add id = 1 or any other number");
        report.error(*origin, text);
    }
    let kind = raw.kind.as_ref().map_or(NodeKind::L2mesh, |kind| match kind.value.as_str() {
        "l2mesh" => NodeKind::L2mesh,
        "vxlan" => NodeKind::Vxlan,
        other => {
            report.error(kind.origin, format!("{owner} kind {other:?}: write \"l2mesh\" or \"vxlan\""));
            NodeKind::L2mesh
        }
    });
    if kind == NodeKind::Vxlan {
        plain_vxlan(report, &owner, raw);
    } else if let Some(relay) = raw.relay.as_ref().filter(|relay| relay.value)
        && raw.probes.as_ref().is_some_and(|probes| !probes.value)
    {
        let text = format!(
            "{owner} probes = false: nobody relays through a node that is not probed: remove `relay = true`, or this"
        );
        report.error(relay.origin, text);
    }
    let address = raw.address.as_ref().and_then(|address| node_address(report, &owner, address));
    if raw.address.is_none() {
        missing(report, *origin, &owner, "address", "\"...\", where the others reach it");
    }
    Node {
        name: name.into(),
        id,
        address: address.unwrap_or(Address::Ip(Ipv4Addr::UNSPECIFIED.into())),
        kind,
        relay: raw.relay.as_ref().is_some_and(|relay| relay.value),
        probes: kind == NodeKind::L2mesh && raw.probes.as_ref().is_none_or(|probes| probes.value),
        udp_checksum: raw.udp_checksum.unwrap_or(false),
        relays: raw.relays.as_ref().map(|relays| relay_list(report, index, relays, names)),
        from: views(report, index, raw, names),
        location: report.location(raw.address.as_ref().map_or(*origin, |address| address.origin)),
    }
}

/// What a plain vxlan device cannot do.
fn plain_vxlan(report: &mut Report<'_>, owner: &str, raw: &RawNode) {
    let mut refuse = |key: &str, origin: Origin| {
        report.error(
            origin,
            format!("{owner} {key}: a plain vxlan device cannot do that: remove this, or kind = \"vxlan\""),
        );
    };
    if let Some(relay) = raw.relay.as_ref().filter(|relay| relay.value) {
        refuse("relay = true", relay.origin);
    }
    if let Some(probes) = raw.probes.as_ref().filter(|probes| probes.value) {
        refuse("probes = true", probes.origin);
    }
    if let Some(first) = raw.relays.as_ref().and_then(|relays| relays.first()) {
        refuse("relays", first.origin);
    }
}

fn node_address(report: &mut Report<'_>, owner: &str, raw: &At<String>) -> Option<Address> {
    if let Ok(ip) = raw.value.parse() {
        return underlay_address(report, &format!("{owner} address {ip}"), raw.origin, ip).map(Address::Ip);
    }
    if text::is_host_name(&raw.value) {
        return Some(Address::Host { name: raw.value.clone(), resolved: None });
    }
    let advice = "write an IP address or a host name, without port and prefix";
    report.error(raw.origin, format!("{owner} address {:?}: {advice}", raw.value));
    None
}

fn underlay_address(report: &mut Report<'_>, context: &str, origin: Origin, address: IpAddr) -> Option<IpAddr> {
    match text::unreachable_reason(address) {
        None => Some(address),
        Some(reason) => {
            report.error(origin, format!("{context}: {reason}"));
            None
        }
    }
}

fn relay_list(report: &mut Report<'_>, index: usize, raw: &[At<String>], names: &Names<'_>) -> Vec<usize> {
    let context = format!("{}: relays", names.label(index));
    let mut relays = Vec::new();
    for name in raw {
        let Some(relay) = names.find(report, name.origin, &context, &name.value) else { continue };
        if relay == index {
            report.error(name.origin, format!("{context}: {:?} is the node itself: remove it", name.value));
        } else if relays.contains(&relay) {
            report.error(name.origin, format!("{context}: {:?} stands there twice: remove one", name.value));
        } else {
            relays.push(relay);
        }
    }
    relays
}

/// A list of relays that names one without `relay = true` would never have an effect.
fn relays_can_relay(report: &mut Report<'_>, index: usize, raw: &RawNode, nodes: &[Node], names: &Names<'_>) {
    for name in raw.relays.iter().flatten() {
        let Some(&relay) = names.by_name.get(name.value.as_str()) else { continue };
        if relay != index && !nodes[relay].relay {
            let text = format!(
                "{}: relays: {} is no relay: add relay = true to it or remove it here",
                names.label(index),
                names.label(relay)
            );
            report.error(name.origin, text);
        }
    }
}

/// Under which address others see this node.
fn views(report: &mut Report<'_>, index: usize, raw: &RawNode, names: &Names<'_>) -> BTreeMap<usize, IpAddr> {
    let mut views = BTreeMap::new();
    for (name, address) in &raw.from {
        let context = format!("{}: from", names.label(index));
        let Some(viewer) = names.find(report, address.origin, &context, name) else { continue };
        if viewer == index {
            report.error(address.origin, format!("{context}: {name:?} is the node itself: name another"));
            continue;
        }
        let context = format!("{context}: {name:?}: {:?}", address.value);
        match address.value.parse() {
            Ok(ip) => {
                if let Some(ip) = underlay_address(report, &context, address.origin, ip) {
                    views.insert(viewer, ip);
                }
            }
            Err(_) => report.error(address.origin, format!("{context}: not an IP address: write one")),
        }
    }
    views
}

fn distinct_ids(report: &mut Report<'_>, raw: &[At<RawNode>], nodes: &[Node], names: &Names<'_>) {
    let mut seen = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| !node.name.is_empty()) {
        let Some(first) = seen.insert(node.id, index) else { continue };
        // The same name gives the same id: that has been said.
        if nodes[first].name != node.name {
            let origin = raw[index].value.id.as_ref().map_or(raw[index].origin, |id| id.origin);
            let (this, other) = (names.label(index), names.label(first));
            let text = format!("{this}: id {} is also that of {other}: give one of them another id = ...", node.id);
            report.error(origin, text);
        }
    }
}

fn distinct_addresses(report: &mut Report<'_>, raw: &[At<RawNode>], nodes: &[Node], names: &Names<'_>) {
    let mut seen = BTreeMap::new();
    for (index, raw) in raw.iter().enumerate() {
        let Some(origin) = raw.value.address.as_ref().map(|address| address.origin) else { continue };
        let address = match &nodes[index].address {
            Address::Ip(ip) if ip.is_unspecified() => continue,
            address => address.to_string().to_ascii_lowercase(),
        };
        if let Some(first) = seen.insert(address.clone(), index) {
            let (this, other) = (names.label(index), names.label(first));
            let text = format!("{this}: address {address} is also that of {other}: every node needs its own");
            report.error(origin, text);
        }
    }
}

/// Each node tells the others by the address under which it sees them.
fn distinct_views(report: &mut Report<'_>, raw: &[At<RawNode>], nodes: &[Node]) {
    for clash in view_clashes(nodes) {
        let written = raw[clash.node].value.from.get(&nodes[clash.viewer].name);
        report.error(written.map_or(raw[clash.node].origin, |at| at.origin), clash.text(nodes));
    }
}

/// A `from` that gives a node the address of another one, as the viewer sees them.
pub(super) struct ViewClash {
    pub(super) node: usize,
    viewer: usize,
    address: IpAddr,
    other: usize,
}

impl ViewClash {
    pub(super) fn text(&self, nodes: &[Node]) -> String {
        let [node, viewer, other] = [self.node, self.viewer, self.other].map(|index| &nodes[index].name);
        let address = self.address;
        format!(
            "node {node:?}: from: {viewer:?}: {address} is also where it sees node {other:?}: every node needs its own"
        )
    }
}

/// Every such clash, as far as host names are resolved. Of two `from` that clash, the later one is it.
pub(super) fn view_clashes(nodes: &[Node]) -> Vec<ViewClash> {
    let mut clashes = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        for (&viewer, &address) in &node.from {
            let is_clash = |(other, seen): &(usize, &Node)| match seen.from.get(&viewer) {
                Some(seen_as) => *other < index && *seen_as == address,
                None => *other != index && seen.address.ip() == Some(address),
            };
            if let Some((other, _)) = nodes.iter().enumerate().find(is_clash) {
                clashes.push(ViewClash { node: index, viewer, address, other });
            }
        }
    }
    clashes
}
