//! What a configuration means on this host: host names, which node it is, how large frames can be.

use std::{collections::BTreeMap, fmt, io, net::IpAddr};

use super::{
    Address, ConfigError, ConfigErrors, Location, Mesh, Network, Node, NodeKind, OVERHEAD_IPV4, OVERHEAD_IPV6,
    network::MTU_MIN_IPV6,
    node::{ViewClash, view_clashes},
    text,
};

/// MTU of a network that nobody asked to be greater, before the overhead: that of Ethernet.
const DEFAULT_UNDERLAY_MTU: u32 = 1500;
/// Least MTU of an IPv4 host (RFC 791 section 3.2).
const MTU_MIN: u32 = 68;

/// This host as the command line and its underlay interface show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    /// `--node`: which node it is. Without a file the address under which the others see it.
    pub node: Option<&'a str>,
    /// `--local`: the outer source.
    pub local: Option<IpAddr>,
    /// `--iface`: the underlay interface.
    pub interface: &'a str,
    /// The addresses of the interface, in the kernel's order.
    pub addresses: &'a [IpAddr],
}

/// Why host names could not be resolved.
#[derive(Debug)]
pub(crate) enum ResolveError {
    /// No answer: may be different a moment later, when the network is up.
    Lookup {
        /// Which node.
        node: String,
        /// The host name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// The answers make no mesh.
    Config(ConfigErrors),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup { node, host, source } => write!(f, "node {node:?}: {host} cannot be resolved: {source}"),
            Self::Config(errors) => errors.fmt(f),
        }
    }
}

impl std::error::Error for ResolveError {}

impl Mesh {
    /// Finds the address of every node that is given by host name; `lookup` asks the resolver.
    ///
    /// # Errors
    /// A name has no answer or more than one, no host can have the answer, or another node has it.
    pub(crate) fn resolve(
        &mut self,
        mut lookup: impl FnMut(&str) -> io::Result<Vec<IpAddr>>,
    ) -> Result<(), ResolveError> {
        let mut errors = Vec::new();
        for node in &mut self.nodes {
            let Address::Host { name: host, resolved } = &mut node.address else { continue };
            let mut answers = lookup(host).map_err(|source| ResolveError::Lookup {
                node: node.name.clone(),
                host: host.clone(),
                source,
            })?;
            answers.sort_unstable();
            answers.dedup();
            let problem = match answers.as_slice() {
                [] => "has no address: write one".into(),
                [address] => match text::unreachable_reason(*address) {
                    None => {
                        *resolved = Some(*address);
                        continue;
                    }
                    Some(reason) => format!("is {address}: {reason}"),
                },
                many => format!("has more than one address: write one of {}", list(many)),
            };
            let text = format!("node {:?}: address {host} {problem}", node.name);
            errors.push(ConfigError::new(node.location.clone(), text));
        }
        let mut seen = BTreeMap::new();
        for node in &self.nodes {
            let Some(ip) = node.address.ip() else { continue };
            if let Some(first) = seen.insert(ip, &node.name) {
                let text = format!(
                    "node {:?}: address {} is also that of node {first:?}: every node needs its own",
                    node.name, node.address
                );
                errors.push(ConfigError::new(node.location.clone(), text));
            }
        }
        let clash =
            |clash: &ViewClash| ConfigError::new(self.nodes[clash.node].location.clone(), clash.text(&self.nodes));
        errors.extend(view_clashes(&self.nodes).iter().map(clash));
        errors.extend(self.family_errors());
        if errors.is_empty() { Ok(()) } else { Err(ResolveError::Config(ConfigErrors(errors))) }
    }

    /// Which node this host is: the one that `--node` names, else the one whose address is on the interface.
    ///
    /// # Errors
    /// No node or more than one is it, or it is a plain vxlan device. Wants host names resolved.
    pub(crate) fn this_node(&self, host: &Host<'_>) -> Result<usize, ConfigError> {
        let found = match (self.own, host.node) {
            (Some(own), _) => own,
            (None, Some(name)) => self.node_called(name)?,
            (None, None) => self.node_on(host)?,
        };
        let Node { name, kind, .. } = &self.nodes[found];
        match kind {
            NodeKind::L2mesh => Ok(found),
            NodeKind::Vxlan => {
                let text = format!(
                    "this host is node {name:?}, a plain vxlan device: remove kind = \"vxlan\" or name \
                     another with --node"
                );
                Err(ConfigError::new(self.nodes[found].location.clone(), text))
            }
        }
    }

    fn node_called(&self, name: &str) -> Result<usize, ConfigError> {
        self.nodes.iter().position(|node| node.name == name).ok_or_else(|| {
            let names = list(self.nodes.iter().map(|node| &node.name));
            flag_error("--node", format!("no node is called {name:?}: there are {names}"))
        })
    }

    fn node_on(&self, host: &Host<'_>) -> Result<usize, ConfigError> {
        let is_here = |node: &Node| node.address.ip().is_some_and(|ip| host.addresses.contains(&ip));
        let here: Vec<usize> = (0..self.nodes.len()).filter(|&index| is_here(&self.nodes[index])).collect();
        let show =
            |nodes: &mut dyn Iterator<Item = &Node>| {
                list(nodes.map(|node| {
                    format!("{} ({})", node.name, node.address.ip().map_or("?".into(), |ip| ip.to_string()))
                }))
            };
        let interface = host.interface;
        match here.as_slice() {
            [index] => Ok(*index),
            [] => {
                let nodes = show(&mut self.nodes.iter());
                let own = if host.addresses.is_empty() { "none".into() } else { list(host.addresses) };
                let text = format!(
                    "no node has an address of {interface}: the nodes are {nodes}; {interface} has {own}: \
                     say which node this host is with --node"
                );
                Err(flag_error("--iface", text))
            }
            _ => {
                let nodes = show(&mut here.iter().map(|&index| &self.nodes[index]));
                let text = format!(
                    "{interface} has the addresses of more than one node, {nodes}: \
                     say which of them this host is with --node"
                );
                Err(flag_error("--iface", text))
            }
        }
    }

    /// Where `seer` reaches `node`. Wants host names resolved.
    #[must_use]
    pub(crate) fn address_of(&self, node: usize, seer: usize) -> Option<IpAddr> {
        let node = &self.nodes[node];
        node.from.get(&seer).copied().or_else(|| node.address.ip())
    }

    /// Octets that the outer headers take: the same on every host of the mesh. Wants host names resolved.
    #[must_use]
    pub(crate) fn overhead(&self) -> u32 {
        let is_ipv6 = |node: &Node| {
            let main = node.address.ip();
            main.iter().chain(node.from.values()).any(IpAddr::is_ipv6)
        };
        if self.nodes.iter().any(is_ipv6) { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 }
    }

    /// MTU of `network`'s device in octets over an underlay of `underlay_mtu` octets.
    ///
    /// # Errors
    /// The MTU asked for does not fit, or the underlay is too small for any.
    pub(crate) fn overlay_mtu(&self, network: &Network, underlay_mtu: u32) -> Result<u32, ConfigError> {
        let overhead = self.overhead();
        let greatest = underlay_mtu.saturating_sub(overhead);
        let default = DEFAULT_UNDERLAY_MTU.min(underlay_mtu).saturating_sub(overhead);
        let mtu = network.mtu.unwrap_or(default);
        let name = &network.name;
        let problem = if greatest < MTU_MIN {
            format!(
                "network {name:?}: an underlay MTU of {underlay_mtu} is too small: {} is the least",
                MTU_MIN + overhead
            )
        } else if mtu > greatest {
            format!(
                "network {name:?}: mtu {mtu} and {overhead} octets of headers do not fit into the underlay MTU of \
                 {underlay_mtu}: {greatest} is the greatest that fits"
            )
        } else if mtu < MTU_MIN_IPV6
            && let Some(cidr) = network.addresses.values().flatten().find(|cidr| cidr.address.is_ipv6())
        {
            format!(
                "network {name:?}: an underlay MTU of {underlay_mtu} leaves {mtu} octets, and the IPv6 address {} wants at \
                 least {MTU_MIN_IPV6}",
                cidr.address
            )
        } else {
            return Ok(mtu);
        };
        Err(ConfigError::new(network.location.clone(), problem))
    }
}

fn flag_error(flag: &str, text: String) -> ConfigError {
    ConfigError::new(Location { place: flag.into(), line: None }, text)
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
