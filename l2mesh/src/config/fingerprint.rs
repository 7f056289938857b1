//! What must be the same on every host, as a number: hosts tell each other theirs in the answers to probes.

use l2mesh_common::wire::{Digest, Fingerprint};

use super::{Mesh, Network, Node, NodeKind};

impl Mesh {
    /// Of the mesh as it is meant: the order in which nodes and networks are written, names of interfaces and whatever else
    /// is a host's own matter make no difference. The MTUs are those over an underlay of `underlay_mtu` octets.
    ///
    /// With flags a host says only how it sees the others: nothing to compare.
    pub(crate) fn fingerprint(&self, underlay_mtu: u32) -> Fingerprint {
        if self.own.is_some() {
            return Fingerprint::UNKNOWN;
        }
        let mut mesh = Digest::default();
        mesh.number(self.underlay.port.into());
        let mut nodes: Vec<&Node> = self.nodes.iter().collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        mesh.number(nodes.len() as u64);
        nodes.into_iter().for_each(|node| self.add_node(&mut mesh, node));
        let mut mtu = Digest::default();
        let mut networks: Vec<&Network> = self.networks.iter().collect();
        networks.sort_by_key(|network| network.vni.get());
        for network in networks {
            self.add_network(&mut mesh, network);
            mtu.number(network.vni.get().into());
            // One that does not fit is refused at attach.
            mtu.number(self.overlay_mtu(network, underlay_mtu).unwrap_or(0).into());
        }
        Fingerprint::new(mesh.finish(), mtu.finish())
    }

    /// A host name as written: hosts may have different answers to it.
    fn add_node(&self, mesh: &mut Digest, node: &Node) {
        mesh.text(&node.name);
        mesh.number(node.id.into());
        match &node.address {
            super::Address::Ip(address) => mesh.text(&address.to_string()),
            super::Address::Host { name, .. } => mesh.text(&name.to_ascii_lowercase()),
        }
        let flags = [node.kind == NodeKind::Vxlan, node.relay, node.probes, node.udp_checksum, node.relays.is_some()];
        flags.into_iter().for_each(|flag| mesh.number(flag.into()));
        let mut relays = self.names(node.relays.as_deref().unwrap_or_default());
        relays.sort_unstable();
        add_all(mesh, &relays);
        let mut from: Vec<_> =
            node.from.iter().map(|(&viewer, address)| format!("{}\n{address}", self.nodes[viewer].name)).collect();
        from.sort_unstable();
        add_all(mesh, &from);
    }

    fn add_network(&self, mesh: &mut Digest, network: &Network) {
        mesh.number(network.vni.get().into());
        mesh.number(network.mtu.map_or(0, u64::from));
        let mut members = self.names(&network.members);
        members.sort_unstable();
        add_all(mesh, &members);
        let mut macs: Vec<_> =
            network.macs.iter().map(|(mac, node)| format!("{mac} {}", self.nodes[*node].name)).collect();
        macs.sort_unstable();
        add_all(mesh, &macs);
    }

    fn names(&self, nodes: &[usize]) -> Vec<&str> {
        nodes.iter().map(|&node| &*self.nodes[node].name).collect()
    }
}

fn add_all(digest: &mut Digest, texts: &[impl AsRef<str>]) {
    digest.number(texts.len() as u64);
    texts.iter().for_each(|text| digest.text(text.as_ref()));
}

#[cfg(test)]
mod tests {
    use l2mesh_common::wire::Difference;

    use super::*;

    const NODES: [&str; 3] = [
        "name = \"a\"\naddress = \"203.0.113.10\"\nrelay = true",
        "name = \"b\"\naddress = \"203.0.113.20\"\nfrom = { a = \"10.0.0.2\" }",
        "name = \"c\"\naddress = \"C.example.org\"\nrelays = [\"a\"]",
    ];
    const NETWORKS: [&str; 2] =
        ["name = \"lan\"\nvni = 16", "name = \"other\"\nvni = 17\nmembers = [\"a\", \"c\"]\nmtu = 1400"];

    fn of(nodes: &[&str], networks: &[&str], rest: &str) -> Fingerprint {
        over(1500, nodes, networks, rest)
    }

    fn over(mtu: u32, nodes: &[&str], networks: &[&str], rest: &str) -> Fingerprint {
        let nodes: String = nodes.iter().flat_map(|text| ["[[node]]\n", text, "\n"]).collect();
        let networks: String = networks.iter().flat_map(|text| ["[[network]]\n", text, "\n"]).collect();
        Mesh::from_toml(&format!("{rest}\n{nodes}{networks}"), "mesh.toml").expect("a valid file").fingerprint(mtu)
    }

    #[test]
    fn what_is_meant_counts() {
        let own = of(&NODES, &NETWORKS, "");
        assert!(!own.is_unknown());
        let [a, b, c] = NODES;
        let [lan, other] = NETWORKS;
        for (same, what) in [
            (of(&[c, a, b], &[other, lan], ""), "the order"),
            (
                of(
                    &NODES,
                    &NETWORKS,
                    "# a comment\n[underlay]\nport = 4789\nfdb-size = 99\n[probe]\ninterval = \"10ms\"",
                ),
                "own",
            ),
            (
                of(&NODES, &[&format!("{lan}\ninterface = \"lan0\"\nbridge = \"br0\"\nstorm-limit = 9"), other], ""),
                "names",
            ),
            (of(&NODES, &[&format!("{lan}\naddresses = {{ a = \"10.8.0.1/24\" }}"), other], ""), "addresses inside"),
            (of(&[a, b, &c.replace('C', "c")], &NETWORKS, ""), "case of host names"),
        ] {
            assert_eq!(own.difference(same), None, "{what}");
        }
        for (different, what) in [
            (of(&[a, b], &[lan], ""), "a node less"),
            (of(&NODES, &[lan], ""), "a network less"),
            (of(&[&a.replace(".10", ".11"), b, c], &NETWORKS, ""), "address"),
            (of(&[&format!("{a}\nid = 7"), b, c], &NETWORKS, ""), "id"),
            (of(&[a, &b.replace(".0.2", ".0.3"), c], &NETWORKS, ""), "from"),
            (of(&[a, b, &c.replace("[\"a\"]", "[]")], &NETWORKS, ""), "relays"),
            (of(&[a, &format!("{b}\nprobes = false"), c], &NETWORKS, ""), "probes"),
            (of(&NODES, &[lan, &other.replace("\"a\", ", "\"b\", ")], ""), "members"),
            (of(&NODES, &[lan, &other.replace("1400", "1300")], ""), "mtu as written"),
            (
                of(&NODES, &[&format!("{lan}\nmac = [ {{ mac = \"02:00:00:00:00:01\", node = \"b\" }} ]"), other], ""),
                "mac",
            ),
            (of(&NODES, &NETWORKS, "[underlay]\nport = 4790"), "port"),
        ] {
            assert_eq!(own.difference(different), Some(Difference::Mesh), "{what}");
        }
    }

    #[test]
    fn the_mtu_that_follows_is_compared_by_itself() {
        let own = of(&NODES, &NETWORKS, "");
        assert_eq!(own.difference(over(9000, &NODES, &NETWORKS, "")), None, "jumbo only when asked for");
        assert_eq!(own.difference(over(1480, &NODES, &NETWORKS, "")), Some(Difference::Mtu));
        let written = [&format!("{}\nmtu = 1400", NETWORKS[0]), NETWORKS[1]];
        let own = of(&NODES, &written, "");
        assert_eq!(own.difference(over(1480, &NODES, &written, "")), None);
    }
}
