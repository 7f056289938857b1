//! What is different between two configurations, in words.

use std::{collections::BTreeMap, fmt::Display};

use l2mesh_common::wire::{MacAddr, Vni};

use super::{Mesh, Network, Node, Probe, Tos, TxHook, Underlay, show_duration};

/// What changes when `after` follows `before`, one thing a line: the tables, then the nodes by name, then the networks by VNI.
pub(crate) fn changes(before: &Mesh, after: &Mesh) -> Vec<String> {
    let mut changes = Changes::default();
    changes.underlay(&before.underlay, &after.underlay);
    changes.probe(&before.probe, &after.probe);
    changes.nodes(before, after);
    changes.networks(before, after);
    changes.0
}

#[derive(Default)]
struct Changes(Vec<String>);

impl Changes {
    fn value<T: PartialEq>(&mut self, what: &str, before: &T, after: &T, show: impl Fn(&T) -> String) {
        if before != after {
            self.0.push(format!("{what} {} -> {}", show(before), show(after)));
        }
    }

    fn plain<T: PartialEq + Display>(&mut self, what: &str, before: &T, after: &T) {
        self.value(what, before, after, ToString::to_string);
    }

    fn underlay(&mut self, before: &Underlay, after: &Underlay) {
        let what = |key: &str| format!("[underlay] {key}");
        self.plain(&what("port"), &before.port, &after.port);
        self.plain(&what("private-port"), &before.private_port, &after.private_port);
        self.value(&what("tx-hook"), &before.tx_hook, &after.tx_hook, |hook| {
            match hook {
                TxHook::Auto => "auto",
                TxHook::Port => "port",
            }
            .to_owned()
        });
        self.plain(&what("fdb-size"), &before.fdb_size, &after.fdb_size);
        self.value(&what("fdb-age"), &before.fdb_age, &after.fdb_age, |it| show_duration(*it));
        self.plain(&what("move-limit"), &before.move_limit, &after.move_limit);
        self.value(&what("move-freeze"), &before.move_freeze, &after.move_freeze, |it| show_duration(*it));
    }

    fn probe(&mut self, before: &Probe, after: &Probe) {
        let what = |key: &str| format!("[probe] {key}");
        self.value(&what("interval"), &before.interval, &after.interval, |it| show_duration(*it));
        self.plain(&what("misses"), &before.misses, &after.misses);
        self.plain(&what("recover"), &before.recover, &after.recover);
        self.value(&what("relay-interval"), &before.relay_interval, &after.relay_interval, |it| show_duration(*it));
        self.value(&what("loss-limit"), &before.loss_limit, &after.loss_limit, |it| format!("{it}%"));
    }

    fn nodes(&mut self, before: &Mesh, after: &Mesh) {
        let by_name = |mesh: &Mesh| -> BTreeMap<String, usize> {
            mesh.nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect()
        };
        let (was, is) = (by_name(before), by_name(after));
        for name in was.keys().filter(|name| !is.contains_key(*name)) {
            self.0.push(format!("node {name} removed"));
        }
        for (name, &index) in &is {
            let node = &after.nodes[index];
            match was.get(name) {
                None => self.0.push(format!("node {name} added ({})", node.address)),
                Some(&old) => self.node(before, &before.nodes[old], after, node),
            }
        }
    }

    fn node(&mut self, meshes: &Mesh, before: &Node, mesh: &Mesh, after: &Node) {
        let what = |key: &str| format!("node {}: {key}", after.name);
        self.plain(&what("address"), &before.address, &after.address);
        self.value(&what("id"), &before.id, &after.id, |id| format!("{id:#x}"));
        self.plain(&what("kind"), &before.kind, &after.kind);
        self.plain(&what("relay"), &before.relay, &after.relay);
        if before.kind == after.kind {
            self.plain(&what("probes"), &before.probes, &after.probes);
        }
        self.plain(&what("udp-checksum"), &before.udp_checksum, &after.udp_checksum);
        let relays = |mesh: &Mesh, node: &Node| match &node.relays {
            None => "every relay".to_owned(),
            Some(relays) if relays.is_empty() => "none".to_owned(),
            Some(relays) => names(mesh, relays),
        };
        self.plain(&what("relays"), &relays(meshes, before), &relays(mesh, after));
        let from = |mesh: &Mesh, node: &Node| -> BTreeMap<String, String> {
            node.from.iter().map(|(seer, address)| (mesh.nodes[*seer].name.clone(), address.to_string())).collect()
        };
        let sight = |seer: &str| what(&format!("seen from {seer} at"));
        self.entries(&from(meshes, before), &from(mesh, after), sight, "its address");
    }

    /// What was added to, taken from or changed in a table of single values.
    fn entries(
        &mut self,
        before: &BTreeMap<String, String>,
        after: &BTreeMap<String, String>,
        what: impl Fn(&str) -> String,
        default: &str,
    ) {
        let default = default.to_owned();
        let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let value = |table: &BTreeMap<String, String>| table.get(key).unwrap_or(&default).clone();
            self.plain(&what(key), &value(before), &value(after));
        }
    }

    fn networks(&mut self, before: &Mesh, after: &Mesh) {
        let by_vni = |mesh: &Mesh| -> BTreeMap<Vni, usize> {
            mesh.networks.iter().enumerate().map(|(index, network)| (network.vni, index)).collect()
        };
        let (was, is) = (by_vni(before), by_vni(after));
        for (_, &index) in was.iter().filter(|(vni, _)| !is.contains_key(*vni)) {
            let Network { name, vni, .. } = &before.networks[index];
            self.0.push(format!("network {name} removed (VNI {vni})"));
        }
        for (vni, &index) in &is {
            let network = &after.networks[index];
            match was.get(vni) {
                None => self.0.push(format!("network {} added (VNI {vni})", network.name)),
                Some(&old) => self.network(before, &before.networks[old], after, network),
            }
        }
    }

    fn network(&mut self, meshes: &Mesh, before: &Network, mesh: &Mesh, after: &Network) {
        let what = |key: &str| format!("network {}: {key}", after.name);
        self.plain(&what("name"), &before.name, &after.name);
        self.plain(&what("interface"), &before.interface, &after.interface);
        self.value(&what("bridge"), &before.bridge, &after.bridge, |it| {
            it.clone().unwrap_or_else(|| "none".to_owned())
        });
        self.value(&what("mtu"), &before.mtu, &after.mtu, |it| option(it.as_ref(), "as the underlay's"));
        self.plain(&what("link-local"), &before.link_local, &after.link_local);
        self.value(&what("mss-clamp"), &before.mss_clamp, &after.mss_clamp, |it| option(it.as_ref(), "where bridged"));
        self.value(&what("tos"), &before.tos, &after.tos, |tos| match tos {
            None => "0".to_owned(),
            Some(Tos::Inherit) => "inherit".to_owned(),
            Some(Tos::Fixed(tos)) => tos.to_string(),
        });
        let key = what("neighbour-suppression");
        self.plain(&key, &before.neighbour_suppression, &after.neighbour_suppression);
        self.value(&what("storm-limit"), &before.storm_limit, &after.storm_limit, |it| {
            option(it.as_ref(), "the default")
        });
        let key = what("macs-per-peer");
        self.value(&key, &before.macs_per_peer, &after.macs_per_peer, |it| option(it.as_ref(), "no limit"));
        self.members(meshes, before, mesh, after);
        self.addresses(meshes, before, mesh, after);
        self.macs(meshes, before, mesh, after);
    }

    fn macs(&mut self, meshes: &Mesh, before: &Network, mesh: &Mesh, after: &Network) {
        let macs = |mesh: &Mesh, network: &Network| -> BTreeMap<MacAddr, String> {
            network.macs.iter().map(|&(mac, node)| (mac, mesh.nodes[node].name.clone())).collect()
        };
        let (was, is) = (macs(meshes, before), macs(mesh, after));
        let what = |mac: &MacAddr| format!("network {}: mac {mac}", after.name);
        for (mac, node) in was.iter().filter(|(mac, _)| !is.contains_key(*mac)) {
            self.0.push(format!("{} behind {node} removed", what(mac)));
        }
        for (mac, node) in &is {
            match was.get(mac) {
                None => self.0.push(format!("{} behind {node} added", what(mac))),
                Some(old) => self.plain(&format!("{} behind", what(mac)), old, node),
            }
        }
    }

    /// Where every node is a member, before and now, that is said of the nodes.
    fn members(&mut self, meshes: &Mesh, before: &Network, mesh: &Mesh, after: &Network) {
        if before.members.len() == meshes.nodes.len() && after.members.len() == mesh.nodes.len() {
            return;
        }
        let names = |mesh: &Mesh, network: &Network| -> Vec<String> {
            let mut names: Vec<_> = network.members.iter().map(|&it| mesh.nodes[it].name.clone()).collect();
            names.sort();
            names
        };
        let (was, is) = (names(meshes, before), names(mesh, after));
        for name in was.iter().filter(|name| !is.contains(name)) {
            self.0.push(format!("network {}: member {name} removed", after.name));
        }
        for name in is.iter().filter(|name| !was.contains(name)) {
            self.0.push(format!("network {}: member {name} added", after.name));
        }
    }

    fn addresses(&mut self, meshes: &Mesh, before: &Network, mesh: &Mesh, after: &Network) {
        let all = |mesh: &Mesh, network: &Network| -> Vec<(String, String)> {
            let of = |(&node, cidrs): (&usize, &Vec<super::Cidr>)| {
                let name = mesh.nodes[node].name.clone();
                cidrs.iter().map(|cidr| (name.clone(), cidr.to_string())).collect::<Vec<_>>()
            };
            let mut all: Vec<_> = network.addresses.iter().flat_map(of).collect();
            all.sort();
            all
        };
        let (was, is) = (all(meshes, before), all(mesh, after));
        for (node, address) in was.iter().filter(|it| !is.contains(it)) {
            self.0.push(format!("network {}: address {address} of {node} removed", after.name));
        }
        for (node, address) in is.iter().filter(|it| !was.contains(it)) {
            self.0.push(format!("network {}: address {address} of {node} added", after.name));
        }
    }
}

fn option<T: Display>(value: Option<&T>, default: &str) -> String {
    value.map_or_else(|| default.to_owned(), ToString::to_string)
}

fn names(mesh: &Mesh, nodes: &[usize]) -> String {
    nodes.iter().map(|&node| mesh.nodes[node].name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[underlay]
fdb-age = "300s"
[probe]
interval = "100ms"
[[node]]
name = "a"
address = "203.0.113.1"
[[node]]
name = "b"
address = "203.0.113.2"
relay = true
[[node]]
name = "c"
address = "203.0.113.3"
[[network]]
name = "lan"
vni = 16
addresses = { a = "10.8.0.1/24", b = ["10.8.0.2/24", "fd00::2/64"] }
[[network]]
name = "dmz"
vni = 17
members = ["a", "b"]
mac = [{ mac = "52:54:00:00:00:01", node = "b" }]
"#;

    fn mesh(text: &str) -> Mesh {
        Mesh::from_toml(text, "mesh.toml").unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    fn differs(replacements: &[(&str, &str)], expected: &[&str]) {
        let mut text = FILE.to_owned();
        for (from, to) in replacements {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let (before, after) = (mesh(FILE), mesh(&text));
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&after, &before).len(), expected.len(), "the way back has as many");
        assert_eq!(changes(&after, &after), Vec::<String>::new());
    }

    #[test]
    fn nothing() {
        differs(&[], &[]);
        differs(&[("[[node]]\nname = \"c\"", "# a comment\n\n[[node]]\nname = \"c\"")], &[]);
        differs(&[("[probe]\ninterval = \"100ms\"", "")], &[]);
    }

    #[test]
    fn nodes() {
        differs(
            &[(
                "[[network]]\nname = \"lan\"",
                "[[node]]\nname = \"d\"\naddress = \"203.0.113.4\"\n[[network]]\nname = \"lan\"",
            )],
            &["node d added (203.0.113.4)"],
        );
        differs(&[("[[node]]\nname = \"c\"\naddress = \"203.0.113.3\"", "")], &["node c removed"]);
        differs(&[("203.0.113.2", "203.0.113.9")], &["node b: address 203.0.113.2 -> 203.0.113.9"]);
        differs(&[("relay = true\n", "")], &["node b: relay true -> false"]);
        differs(&[("name = \"c\"", "name = \"x\"")], &["node c removed", "node x added (203.0.113.3)"]);
        differs(
            &[("203.0.113.3\"", "203.0.113.3\"\nkind = \"vxlan\"\nfrom = { a = \"10.0.0.3\" }\nid = 7")],
            &[
                "node c: id 0xe60c2c52 -> 0x7",
                "node c: kind l2mesh -> vxlan",
                "node c: seen from a at its address -> 10.0.0.3",
            ],
        );
        differs(&[("203.0.113.3\"", "203.0.113.3\"\nrelays = []")], &["node c: relays every relay -> none"]);
    }

    #[test]
    fn networks() {
        differs(
            &[("vni = 17", "vni = 18")],
            &["network dmz removed (VNI 17 (0x11))", "network dmz added (VNI 18 (0x12))"],
        );
        differs(&[("\"a\", \"b\"]", "\"a\", \"b\", \"c\"]")], &["network dmz: member c added"]);
        differs(
            &[("\"10.8.0.1/24\"", "\"10.8.0.9/24\"")],
            &["network lan: address 10.8.0.1/24 of a removed", "network lan: address 10.8.0.9/24 of a added"],
        );
        differs(
            &[("52:54:00:00:00:01", "52:54:00:00:00:02")],
            &[
                "network dmz: mac 52:54:00:00:00:01 behind b removed",
                "network dmz: mac 52:54:00:00:00:02 behind b added",
            ],
        );
        differs(
            &[("vni = 16", "vni = 16\nmtu = 1400\nbridge = \"br0\"\ntos = \"inherit\"")],
            &[
                "network lan: bridge none -> br0",
                "network lan: mtu as the underlay's -> 1400",
                "network lan: tos 0 -> inherit",
            ],
        );
        differs(&[("\"lan\"", "\"office\"")], &["network office: name lan -> office"]);
    }

    #[test]
    fn tables() {
        differs(
            &[("300s", "60s"), ("100ms", "10ms")],
            &["[underlay] fdb-age 5min -> 1min", "[probe] interval 100ms -> 10ms"],
        );
    }

    /// Whoever adds a key has to say it here too.
    #[test]
    fn every_key_is_compared() {
        let Mesh { underlay, probe, nodes, networks, own: _ } = mesh(FILE);
        let Underlay { port: _, tx_hook: _, private_port: _, fdb_size: _, fdb_age: _, move_limit: _, move_freeze: _ } =
            underlay;
        let Probe { interval: _, misses: _, recover: _, relay_interval: _, loss_limit: _ } = probe;
        for node in nodes {
            let Node {
                name: _,
                id: _,
                address: _,
                kind: _,
                relay: _,
                probes: _,
                udp_checksum: _,
                relays: _,
                from: _,
                location: _,
            } = node;
        }
        for network in networks {
            let Network {
                name: _,
                vni: _,
                interface: _,
                bridge: _,
                members: _,
                addresses: _,
                mtu: _,
                macs: _,
                link_local: _,
                mss_clamp: _,
                tos: _,
                neighbour_suppression: _,
                storm_limit: _,
                macs_per_peer: _,
                location: _,
            } = network;
        }
    }
}
