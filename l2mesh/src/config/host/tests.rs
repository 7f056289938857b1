use std::io::ErrorKind;

use super::*;

const FILE: &str = r#"
[[node]]
name = "a"
address = "203.0.113.10"
[[node]]
name = "b"
address = "b.example.org"
[[node]]
name = "c"
address = "203.0.113.40"
kind = "vxlan"
from = { a = "10.0.0.3" }
[[network]]
name = "lan"
vni = 16
[[network]]
name = "jumbo"
vni = 17
mtu = 8950
[[network]]
name = "six"
vni = 18
addresses = { a = "fd00::1/64" }
"#;

fn mesh() -> Mesh {
    Mesh::from_toml(FILE, "mesh.toml").expect("a valid file")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn resolved(answers: &[&str]) -> Result<Mesh, ResolveError> {
    let mut mesh = mesh();
    let answers = answers.iter().map(|answer| ip(answer)).collect::<Vec<_>>();
    mesh.resolve(|name| {
        assert_eq!(name, "b.example.org");
        Ok(answers.clone())
    })?;
    Ok(mesh)
}

#[test]
fn host_names_have_one_answer() {
    let mesh = resolved(&["203.0.113.20", "203.0.113.20"]).expect("one answer, twice");
    assert_eq!(mesh.nodes[1].address.ip(), Some(ip("203.0.113.20")));
    assert_eq!(mesh.nodes[1].address.to_string(), "b.example.org (203.0.113.20)");
    for (answers, error) in [
        (&[][..], "address b.example.org has no address: write one"),
        (
            &["203.0.113.20", "2001:db8::20"],
            "address b.example.org has more than one address: write one of 203.0.113.20, 2001:db8::20",
        ),
        (
            &["127.0.1.1"],
            "address b.example.org is 127.0.1.1: it is a loopback address: write the one where the others reach \
             the node",
        ),
    ] {
        let found = resolved(answers).expect_err("refused").to_string();
        assert_eq!(found, format!("mesh.toml:7: node \"b\": {error}"));
    }
    assert_eq!(
        resolved(&["203.0.113.40"]).expect_err("taken").to_string(),
        "mesh.toml:10: node \"c\": address 203.0.113.40 is also that of node \"b\": every node needs its own"
    );
    assert_eq!(
        resolved(&["10.0.0.3"]).expect_err("taken").to_string(),
        "mesh.toml:10: node \"c\": from: \"a\": 10.0.0.3 is also where it sees node \"b\": every node needs its own"
    );
}

#[test]
fn no_answer_can_be_tried_again() {
    let error = mesh().resolve(|_| Err(ErrorKind::TimedOut.into())).expect_err("no answer");
    assert_eq!(error.to_string(), "node \"b\": b.example.org cannot be resolved: timed out");
    assert!(matches!(error, ResolveError::Lookup { .. }));
}

fn this_node(node: Option<&str>, addresses: &[&str]) -> Result<usize, String> {
    let addresses: Vec<_> = addresses.iter().map(|address| ip(address)).collect();
    let host = Host { node, local: None, interface: "eth0", addresses: &addresses };
    let mesh = resolved(&["203.0.113.20"]).expect("resolved");
    mesh.this_node(&host).map_err(|error| error.to_string())
}

#[test]
fn who_am_i() {
    assert_eq!(this_node(Some("a"), &[]), Ok(0));
    assert_eq!(this_node(Some("a"), &["203.0.113.20"]), Ok(0));
    assert_eq!(this_node(None, &["10.0.0.1", "203.0.113.20", "fe80::1"]), Ok(1));
    for (node, addresses, error) in [
        (Some("x"), &[][..], "--node: no node is called \"x\": there are a, b, c"),
        (
            None,
            &["10.0.0.1", "fe80::1"],
            "--iface: no node has an address of eth0: the nodes are a (203.0.113.10), b (203.0.113.20), \
             c (203.0.113.40); eth0 has 10.0.0.1, fe80::1: say which node this host is with --node",
        ),
        (
            None,
            &[],
            "--iface: no node has an address of eth0: the nodes are a (203.0.113.10), b (203.0.113.20), \
             c (203.0.113.40); eth0 has none: say which node this host is with --node",
        ),
        (
            None,
            &["203.0.113.20", "203.0.113.10"],
            "--iface: eth0 has the addresses of more than one node, a (203.0.113.10), b (203.0.113.20): \
             say which of them this host is with --node",
        ),
        (
            None,
            &["203.0.113.40"],
            "mesh.toml:10: this host is node \"c\", a plain vxlan device: remove kind = \"vxlan\" or name another \
             with --node",
        ),
    ] {
        assert_eq!(this_node(node, addresses), Err(error.into()));
    }
}

#[test]
fn mtu() {
    let v4 = resolved(&["203.0.113.20"]).expect("resolved");
    let v6 = FILE.replace("203.0.113.", "2001:db8::").replace("10.0.0.3", "2001:db8::3");
    let mut v6 = Mesh::from_toml(&v6, "mesh.toml").expect("a valid file");
    v6.resolve(|_| Ok(vec![ip("2001:db8::20")])).expect("resolved");
    let [lan, jumbo, six] = v4.networks.as_slice() else { panic!("three networks") };
    for (mesh, network, underlay, mtu) in [
        (&v4, lan, 1500, 1450),
        (&v4, lan, 9000, 1450),
        (&v4, lan, 1400, 1350),
        (&v4, lan, 118, 68),
        (&v6, lan, 1500, 1430),
        (&v4, jumbo, 9000, 8950),
        (&v4, six, 1330, 1280),
    ] {
        assert_eq!(mesh.overlay_mtu(network, underlay), Ok(mtu), "{underlay}");
    }
    for (mesh, network, underlay, error) in [
        (
            &v4,
            jumbo,
            8999,
            "mesh.toml:19: network \"jumbo\": mtu 8950 and 50 octets of headers do not fit into the underlay MTU \
             of 8999: 8949 is the greatest that fits",
        ),
        (
            &v6,
            jumbo,
            9000,
            "mesh.toml:19: network \"jumbo\": mtu 8950 and 70 octets of headers do not fit into the underlay MTU \
             of 9000: 8930 is the greatest that fits",
        ),
        (
            &v4,
            six,
            1329,
            "mesh.toml:20: network \"six\": an underlay MTU of 1329 leaves 1279 octets, and the IPv6 address fd00::1 \
             wants at least 1280",
        ),
        (&v4, lan, 117, "mesh.toml:13: network \"lan\": an underlay MTU of 117 is too small: 118 is the least"),
        (&v4, lan, 0, "mesh.toml:13: network \"lan\": an underlay MTU of 0 is too small: 118 is the least"),
    ] {
        assert_eq!(mesh.overlay_mtu(network, underlay).map_err(|e| e.to_string()), Err(error.into()));
    }
}
