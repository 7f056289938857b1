//! Which nodes watch the path between them, and who may stand between two of them (design.md 4 and 5). Every node answers
//! these questions alike: they are the same from both sides.

use std::net::IpAddr;

use super::{Mesh, Node, NodeKind};

/// The nodes, two by two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs<'a> {
    pub(super) nodes: &'a [Node],
    /// With flags this host knows only how it reaches others, not how they reach it.
    pub(super) by_flags: bool,
}

impl Pairs<'_> {
    /// Where `node` is reached by `seer`, as far as that is known.
    pub(super) fn address(self, node: usize, seer: usize) -> Option<IpAddr> {
        let node = &self.nodes[node];
        let address = node.from.get(&seer).copied().or_else(|| node.address.ip());
        // Where an error was found, that stands.
        address.filter(|address| !address.is_unspecified())
    }

    /// False if each sees the other over another IP version, and takes what it sends for a stranger's. Host names that are not
    /// resolved yet may turn out to be either.
    fn see_each_other(self, one: usize, other: usize) -> bool {
        match (self.address(one, other), self.address(other, one)) {
            (Some(address), Some(others)) => self.by_flags || address.is_ipv4() == others.is_ipv4(),
            _ => true,
        }
    }

    /// True if both know probes and what is relayed: the kernel's vxlan device, which sends what is to have a UDP checksum, does
    /// not.
    fn know_probes(self, one: usize, other: usize) -> bool {
        [one, other].iter().all(|&index| {
            let node = &self.nodes[index];
            node.kind == NodeKind::L2mesh && node.probes && !node.udp_checksum
        })
    }

    /// Every node that may stand between two others, in the order of the file.
    pub(super) fn relays(self, one: usize, other: usize) -> impl Iterator<Item = usize> {
        let is_allowed =
            move |by: usize, relay: usize| self.nodes[by].relays.as_ref().is_none_or(|list| list.contains(&relay));
        (0..self.nodes.len()).filter(move |&relay| {
            relay != one
                && relay != other
                && self.nodes[relay].relay
                && self.know_probes(one, other)
                && [one, other].iter().all(|&end| {
                    is_allowed(end, relay) && self.know_probes(end, relay) && self.see_each_other(end, relay)
                })
        })
    }
}

impl Mesh {
    fn pairs(&self) -> Pairs<'_> {
        Pairs { nodes: &self.nodes, by_flags: self.own.is_some() }
    }

    /// True if two nodes probe the path between them. Else it is always up, and the only one.
    #[must_use]
    pub(crate) fn probe_each_other(&self, one: usize, other: usize) -> bool {
        self.pairs().know_probes(one, other)
    }

    /// True if two nodes can reach each other directly. Wants host names resolved.
    #[must_use]
    pub(crate) fn see_each_other(&self, one: usize, other: usize) -> bool {
        self.pairs().see_each_other(one, other)
    }

    /// The nodes that may relay between two others, in the order of the file. Wants host names resolved.
    pub(crate) fn relays_between(&self, one: usize, other: usize) -> impl Iterator<Item = usize> {
        self.pairs().relays(one, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str, more: &str) -> String {
        format!("[[node]]\nname = \"{name}\"\naddress = \"{address}\"\n{more}\n")
    }

    fn mesh(nodes: &[String]) -> Mesh {
        let text = nodes.concat() + "[[network]]\nname = \"lan\"\nvni = 16\n";
        Mesh::from_toml(&text, "mesh.toml").expect("a valid file")
    }

    /// By name: who may stand between a and b, which is the same from both sides.
    fn between(mesh: &Mesh) -> Vec<&str> {
        let names = |one, other| mesh.relays_between(one, other).map(|it| mesh.nodes[it].name.as_str()).collect();
        let found: Vec<&str> = names(0, 1);
        assert_eq!(found, names(1, 0));
        found
    }

    #[test]
    fn who_may_stand_between() {
        let pair = |a: &str, b: &str| [node("a", "203.0.113.1", a), node("b", "203.0.113.2", b)];
        let others = [
            node("c", "203.0.113.3", "relay = true"),
            node("d", "203.0.113.4", ""),
            node("e", "203.0.113.5", "relay = true"),
            node("g", "203.0.113.7", "relay = true\nudp-checksum = true"),
        ];
        let found = |a: &str, b: &str| {
            let mesh = mesh(&[&pair(a, b)[..], &others].concat());
            between(&mesh).join(" ")
        };
        assert_eq!(found("", ""), "c e", "those with `relay`, which know probes themselves");
        assert_eq!(found("relay = true", "relay = true"), "c e", "nobody stands between itself and another");
        assert_eq!(found("relays = [\"e\"]", ""), "e");
        assert_eq!(found("relays = [\"e\"]", "relays = [\"c\", \"e\"]"), "e");
        assert_eq!(found("relays = [\"e\"]", "relays = [\"c\"]"), "", "both have to agree");
        assert_eq!(found("", "relays = []"), "");
        for plain in ["kind = \"vxlan\"", "probes = false", "udp-checksum = true"] {
            assert_eq!(found("", plain), "", "{plain}");
        }
    }

    #[test]
    fn over_which_version() {
        let nodes = |both: &str| {
            [
                node("a", "203.0.113.1", ""),
                node("b", "2001:db8::2", ""),
                node("c", "203.0.113.3", both),
                node("d", "203.0.113.4", "relay = true\nfrom = { b = \"2001:db8::4\" }"),
            ]
        };
        let serves = "relay = true\nfrom = { b = \"2001:db8::3\" }";
        // c and d see b over IPv6 and are seen so.
        let both = mesh(&nodes(serves));
        assert_eq!(between(&both), ["c", "d"]);
        assert!(!both.see_each_other(0, 1) && both.see_each_other(0, 2) && both.see_each_other(1, 2));
    }
}
