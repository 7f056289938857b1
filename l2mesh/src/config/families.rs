//! Two nodes that reach each other over different IP versions: what the one sends comes from an address that the other
//! does not know, and is dropped as a stranger's. Only through a relay that has both can they talk.

use std::net::IpAddr;

use super::{ConfigError, Mesh, Network, Node, relays::Pairs};

/// More of them say nothing new.
const MOST_TOLD: usize = 10;

/// Such a pair.
pub(super) struct Clash {
    /// The one that stands first, and the other.
    nodes: [usize; 2],
    /// Where each is reached by the other.
    reached: [IpAddr; 2],
}

impl Clash {
    /// The node to which the error belongs.
    pub(super) const fn node(&self) -> usize {
        self.nodes[0]
    }

    pub(super) fn text(&self, nodes: &[Node]) -> String {
        let [name, other] = self.nodes.map(|node| &nodes[node].name);
        let [address, others] = self.reached;
        let [version, others_version] = self.reached.map(version);
        format!(
            "node {name:?}: {other:?} reaches it over {version} ({address}), but it reaches {other:?} over {others_version} \
             ({others}), and each takes the other for a stranger: add from = {{ {other} = \"...\" }} with an \
             {others_version} address here, or from = {{ {name} = \"...\" }} with an {version} address to node {other:?}, or \
             relay = true to a node that has both"
        )
    }
}

const fn version(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// The first such pairs that share a network, as far as host names are resolved.
pub(super) fn clashes(nodes: &[Node], networks: &[Network]) -> Vec<Clash> {
    let sight = Pairs { nodes, by_flags: false };
    let share = |one: usize, other: usize| {
        networks.iter().any(|it| it.members.binary_search(&one).is_ok() && it.members.binary_search(&other).is_ok())
    };
    let pairs = (0..nodes.len()).flat_map(|one| (one + 1..nodes.len()).map(move |other| [one, other]));
    let clash = |[one, other]: [usize; 2]| {
        let reached = [sight.address(one, other)?, sight.address(other, one)?];
        let is_clash = reached[0].is_ipv4() != reached[1].is_ipv4()
            && share(one, other)
            && sight.relays(one, other).next().is_none();
        is_clash.then_some(Clash { nodes: [one, other], reached })
    };
    pairs.filter_map(clash).take(MOST_TOLD).collect()
}

impl Mesh {
    /// The same as errors. With flags this host knows only how it reaches others, not how they reach it.
    pub(super) fn family_errors(&self) -> Vec<ConfigError> {
        if self.own.is_some() {
            return Vec::new();
        }
        let error = |clash: Clash| ConfigError::new(self.nodes[clash.node()].location.clone(), clash.text(&self.nodes));
        clashes(&self.nodes, &self.networks).into_iter().map(error).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(nodes: &str, networks: &str) -> Vec<String> {
        let networks = if networks.is_empty() { "[[network]]\nname = \"lan\"\nvni = 16\n" } else { networks };
        match Mesh::from_toml(&format!("{nodes}{networks}"), "mesh.toml") {
            Ok(_) => Vec::new(),
            Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
        }
    }

    fn node(name: &str, address: &str, from: &str) -> String {
        format!("[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nfrom = {{ {from} }}\n")
    }

    #[test]
    fn a_pair_of_two_versions() {
        let nodes = |a: &str, b: &str| {
            node("a", "203.0.113.10", a)
                + &node("b", "2001:db8::20", b)
                + &node("c", "198.51.100.30", "b = \"2001:db8::30\"")
        };
        let expected = "mesh.toml:3: node \"a\": \"b\" reaches it over IPv4 (203.0.113.10), but it reaches \"b\" over IPv6 \
                        (2001:db8::20), and each takes the other for a stranger: add from = { b = \"...\" } with an IPv6 \
                        address here, or from = { a = \"...\" } with an IPv4 address to node \"b\", or relay = true to a node \
                        that has both";
        assert_eq!(errors(&nodes("", ""), ""), [expected]);
        // As it says.
        assert_eq!(errors(&nodes("b = \"2001:db8::10\"", ""), ""), [""; 0]);
        assert_eq!(errors(&nodes("", "a = \"192.0.2.20\""), ""), [""; 0]);
        // Both is one too many.
        assert_eq!(errors(&nodes("b = \"2001:db8::10\"", "a = \"192.0.2.20\""), "").len(), 1);
        // c has both; a relay that a does not want is none.
        let relayed = |a: &str| {
            errors(
                &nodes("", "").replacen("from = {  }", a, 1).replace("from = { b =", "relay = true\nfrom = { b ="),
                "",
            )
        };
        assert_eq!(relayed(""), [""; 0]);
        assert_eq!(relayed("relays = []"), [expected]);
        // Nothing to say to each other.
        let apart = "[[network]]\nname = \"one\"\nvni = 16\nmembers = [\"a\", \"c\"]\n\
                     [[network]]\nname = \"other\"\nvni = 17\nmembers = [\"b\", \"c\"]\n";
        assert_eq!(errors(&nodes("", ""), apart), [""; 0]);
    }

    #[test]
    fn a_host_name_tells_later() {
        let text =
            node("a", "203.0.113.10", "") + &node("b", "b.example.org", "") + "[[network]]\nname = \"lan\"\nvni = 16\n";
        let mut mesh = Mesh::from_toml(&text, "mesh.toml").expect("nothing is known of b yet");
        let error = mesh.resolve(|_| Ok(vec!["2001:db8::20".parse().expect("an address")])).expect_err("IPv6");
        assert!(error.to_string().starts_with("mesh.toml:3: node \"a\": \"b\" reaches it over IPv4"), "{error}");
    }

    #[test]
    fn many_say_no_more_than_some() {
        let nodes = |count: usize, network: &str| {
            (0..count).map(|it| node(&format!("{network}{it}"), &format!("{network}{it}"), "")).collect::<String>()
        };
        let found = errors(&(nodes(9, "192.0.2.1") + &nodes(9, "2001:db8::")), "");
        assert_eq!(found.len(), MOST_TOLD);
    }
}
