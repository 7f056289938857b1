use super::*;
use crate::config::{Mesh, Tos};

const NOBODY: Told<'_> = Told { local: None, peers: &[] };

fn import(texts: &[&str], told: Told<'_>) -> Result<String, String> {
    let texts: Vec<_> =
        texts.iter().zip(["a.yaml", "b.yaml"]).map(|(&text, name)| (name.into(), text.into())).collect();
    draft(&texts, told).map(|draft| draft.to_toml()).map_err(|error| format!("{error:#}"))
}

#[track_caller]
fn mesh(texts: &[&str], told: Told<'_>) -> (String, Mesh) {
    let text = import(texts, told).expect("a mesh");
    let mesh = Mesh::from_toml(&text, "import").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    (text, mesh)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const SEED: &str = "\
network:
  tunnels:
    provider0:
      mode: vxlan
      id: 16
      local: 192.168.226.4
      addresses: [ 192.168.234.1/23 ]
  version: 2
";

/// The recipe that everybody copies has no remotes: netplan cannot say them.
#[test]
fn the_seed_recipe() {
    let error = import(&[SEED], NOBODY).expect_err("no remote");
    assert!(error.starts_with("provider0 has no remote, ") && error.contains("l2mesh import provider0"), "{error}");
    let peers = ["192.168.226.5", "192.168.226.6"].map(ip);
    let (text, mesh) = mesh(&[SEED], Told { local: None, peers: &peers });
    assert_eq!(mesh.underlay.port, 8472);
    let addresses: Vec<String> = mesh.nodes.iter().map(|node| node.address.to_string()).collect();
    assert_eq!(addresses, ["192.168.226.4", "192.168.226.5", "192.168.226.6"]);
    let network = &mesh.networks[0];
    assert_eq!((network.name.as_str(), network.interface.as_str(), network.vni.get()), ("provider0", "provider0", 16));
    assert_eq!(network.addresses[&0][0].to_string(), "192.168.234.1/23");
    assert!(text.contains("\n#   ip link delete dev provider0\n") && !text.contains("mtu"), "{text}");
}

#[test]
fn every_key() {
    let text = "\
network:
  version: 2
  renderer: networkd
  ethernets:
    eth0:
      match: {macaddress: '52:54:00:00:00:01'}
      set-name: up0
      mtu: 9000
      addresses: [2001:db8::9/64, 192.0.2.1/24]
  bridges:
    br0:
      interfaces: [eth7, vx0]
      addresses: [10.8.0.1/24]
      parameters: {forward-delay: 0}
    br1:
      interfaces: [eth8]
  tunnels:
    gre1: {mode: gre, local: 192.0.2.1, remote: 192.0.2.2}
    vx0:
      mode: vxlan
      id: 65281
      link: eth0
      remote: 192.0.2.2
      port: 4789
      ttl: 5
      type-of-service: 184
      flow-label: 7
      mac-learning: no
      ageing: 60
      limit: 1000
      arp-proxy: yes
      short-circuit: on
      notifications: [l2-miss, l3-miss]
      checksums: [udp, zero-udp6-tx, zero-udp6-rx, remote-tx]
      extensions: [group-policy]
      port-range: [40000, 50000]
      do-not-fragment: true
      mtu: 8000
      neigh-suppress: true
      dhcp4: true
      macaddress: 52:54:00:00:00:02
      routes:
        - to: default
          via: 10.8.0.254
      hairpin: true
      addresses:
        - 10.8.0.7/24
        - 10.8.0.7/16
        - 'fd00::7/64': {label: x, lifetime: 0}
";
    let (toml, mesh) = mesh(&[text], NOBODY);
    let network = &mesh.networks[0];
    assert_eq!((network.vni.get(), network.mtu, network.tos), (0xff01, Some(8000), Some(Tos::Fixed(0xb8))));
    assert_eq!(network.bridge.as_deref(), Some("br0"));
    assert!(network.neighbour_suppression && network.link_local && network.addresses.is_empty());
    assert_eq!((mesh.underlay.port, mesh.underlay.fdb_age.as_secs()), (4789, 60));
    assert_eq!(mesh.nodes[0].address.to_string(), "192.0.2.1");
    assert_eq!(mesh.nodes.len(), 2);
    assert!(toml.contains("l2mesh attach --iface up0 "), "{toml}");
    for note in [
        "a.yaml:18: gre1 is a tunnel of mode gre",
        "# no `local`: 192.0.2.1 is an address of eth0.",
        "# a.yaml:11: br0 stays netplan's",
        "# link-local: br0 speaks STP",
        "# ttl 5:",
        "# srcport 40000 50000:",
        "# flowlabel 0x7:",
        "# nolearning:",
        "# maxaddress 1000:",
        "# proxy:",
        "# rsc:",
        "# l2miss, l3miss:",
        "# remcsum:",
        "# gbp:",
        "# a.yaml:40: dhcp4: l2mesh runs no DHCP client",
        "# a.yaml:41: macaddress: the new interface has a MAC address of its own",
        "# a.yaml:42: routes: l2mesh adds no routes",
        "# a.yaml:45: hairpin: l2mesh has nothing like it",
        "# a.yaml:48: 10.8.0.7/16: left out: the address is there twice.",
        "# a.yaml:49: fd00::7/64: left out of it: label, lifetime.",
        "# 10.8.0.7/24 is on a port of a bridge",
    ] {
        assert!(toml.contains(note), "{note}: {toml}");
    }
}

#[test]
fn several_tunnels_in_several_files() {
    let first = "network: {tunnels: {vx0: {mode: vxlan, id: 16, local: 192.0.2.1, remote: 192.0.2.2, mtu: 1500}}}";
    let second = "\
network:
  tunnels:
    vx0: {mtu: 1400, addresses: [10.8.0.1/24]}
    vx1: {mode: vxlan, id: 17, local: 192.0.2.1, remote: 192.0.2.3}
";
    let (_, mesh) = mesh(&[first, second], NOBODY);
    assert_eq!((mesh.nodes.len(), mesh.networks.len(), mesh.networks[0].mtu), (3, 2, Some(1400)));
    assert_eq!(mesh.networks[1].members, [0, 2]);
    let other = "network: {tunnels: {vx1: {mode: vxlan, id: 17, local: 192.0.2.1, remote: 192.0.2.3, port: 4789}}}";
    let error = import(&[first, other], NOBODY).expect_err("two ports");
    assert!(error.starts_with("these are 2 meshes"), "{error}");
}

/// The IPv6 one, with checksums that the others insist on; `--local` is where NAT is.
#[test]
fn ipv6_and_multicast() {
    let six = "network: {tunnels: {vx0: {mode: vxlan, id: 16, local: '2001:db8::1', remote: '2001:db8::2'}}}";
    let local = ip("2001:db8::9");
    let (text, mesh) = mesh(&[six], Told { local: Some(local), peers: &[] });
    assert!(mesh.nodes[1].udp_checksum, "{text}");
    assert_eq!(mesh.nodes[0].address.ip(), Some(local));
    let group = "network: {tunnels: {vx0: {mode: vxlan, id: 16, local: 192.0.2.1, remote: 239.1.1.1}}}";
    let error = import(&[group], NOBODY).expect_err("nobody");
    assert!(error.contains("the multicast group 239.1.1.1") && error.contains("--peer"), "{error}");
    let (text, _) = self::mesh(&[group], Told { local: None, peers: &[ip("192.0.2.2")] });
    assert!(text.contains("# group 239.1.1.1: l2mesh sends unicast."), "{text}");
}

#[test]
fn refused() {
    let tunnel = |body: &str| format!("network:\n  tunnels:\n    vx0:\n      mode: vxlan\n{body}");
    let valid = "      id: 16\n      local: 192.0.2.1\n      remote: 192.0.2.2\n";
    for (text, error) in [
        ("a: [\n".to_owned(), "a.yaml:2: no YAML: "),
        ("a: b\n".into(), "a.yaml: no `network:` in it: not a netplan file"),
        (String::new(), "a.yaml: no `network:` in it"),
        ("network:\n  tunnels: 5\n".into(), "a.yaml:2: tunnels: expected keys and values"),
        ("network:\n  ethernets: {}\n".into(), "a.yaml: there is no tunnel of `mode: vxlan` in it"),
        ("network:\n  tunnels:\n    vx0:\n      id: 5\n".into(), "a.yaml:3: vx0: mode is missing"),
        (tunnel("      local: 192.0.2.1\n"), "a.yaml:3: vx0: id is missing"),
        (tunnel("      id: 0\n"), "a.yaml:5: vx0: id: \"0\": write a number from 1 to 16777215"),
        (tunnel("      id: [1]\n"), "a.yaml:5: vx0: id: a number: expected one value"),
        (tunnel("      id: 16\n      local: dhcp4\n"), "a.yaml:6: vx0: local: \"dhcp4\" is no IP address"),
        (tunnel("      id: 16\n      remote: b.example\n"), "a.yaml:6: vx0: remote: \"b.example\" is no IP address"),
        (tunnel("      id: 16\n      remote: 192.0.2.2\n"), "vx0 has no `local`"),
        (
            tunnel(&format!("{valid}      port: 65536\n")),
            "a.yaml:8: vx0: port: \"65536\": write a number from 0 to 65535",
        ),
        (
            tunnel(&format!("{valid}      mac-learning: maybe\n")),
            "a.yaml:8: vx0: mac-learning: \"maybe\": write true or",
        ),
        (tunnel(&format!("{valid}      port-range: [1]\n")), "a.yaml:8: vx0: port-range: write two ports"),
        (tunnel(&format!("{valid}      checksums: [x]\n")), "a.yaml:8: vx0: checksums: \"x\" is not known"),
        (
            tunnel(&format!("{valid}      addresses: [10.8.0.1]\n")),
            "a.yaml:8: vx0: addresses: \"10.8.0.1\": not an address",
        ),
    ] {
        let found = import(&[&text], NOBODY).expect_err("refused");
        assert!(found.starts_with(error), "{found}\nnot: {error}");
    }
}

#[test]
fn unreadable() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, reason) in [("none.yaml", "No such file"), (".", "Is a directory"), ("latin1.yaml", "UTF-8")] {
        std::fs::write(directory.path().join("latin1.yaml"), b"network: \xe4\n").expect("written");
        let error = read(&[directory.path().join(name)], NOBODY).expect_err("unreadable");
        let error = format!("{error:#}");
        assert!(error.contains(name) && error.contains("cannot be read: ") && error.contains(reason), "{error}");
    }
}
