use std::{collections::BTreeMap, fs};

use super::*;
use crate::config::Mesh;

const NOBODY: Told<'_> = Told { local: None, peers: &[] };

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("lan");
    fs::create_dir_all(path.join("hosts")).expect("made");
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(file, text).expect("written");
    }
    (root, path)
}

fn import(files: &[(&str, &str)], told: Told<'_>) -> Result<String, String> {
    let (_root, path) = directory(files);
    let strip = path.parent().map(|parent| format!("{}/", parent.display())).unwrap_or_default();
    let result = read(&path, told).map(|draft| draft.to_toml());
    result.map(|text| text.replace(&strip, "")).map_err(|error| format!("{error:#}").replace(&strip, ""))
}

#[track_caller]
fn mesh(files: &[(&str, &str)]) -> (String, Mesh) {
    let text = import(files, NOBODY).expect("a mesh");
    let mesh = Mesh::from_toml(&text, "import").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    (text, mesh)
}

const CONF: &str = "# a comment\nName = alpha\nMode = switch\nConnectTo = beta\nDevice = /dev/net/tun\n";
const ALPHA: (&str, &str) = ("hosts/alpha", "Address = 203.0.113.10\n");
const BETA: (&str, &str) = ("hosts/beta", "Address = beta.example.org 656\nPort = 656\n");

#[test]
fn the_usual() {
    let up = "#!/bin/sh\nip addr add 10.8.0.1/24 dev $INTERFACE\nip link set $INTERFACE up mtu 1400\n";
    let (text, mesh) = mesh(&[("tinc.conf", CONF), ALPHA, BETA, ("tinc-up", up)]);
    let nodes: Vec<_> = mesh.nodes.iter().map(|node| (node.name.as_str(), node.address.to_string())).collect();
    assert_eq!(nodes, [("alpha", "203.0.113.10".to_owned()), ("beta", "beta.example.org".to_owned())]);
    let network = &mesh.networks[0];
    assert_eq!((network.name.as_str(), network.interface.as_str(), network.mtu), ("lan", "lan", Some(1400)));
    assert_eq!(network.addresses[&0][0].to_string(), "10.8.0.1/24");
    assert_eq!((mesh.underlay.port, network.vni.get()), (4789, 1));
    assert!(
        text.contains("# tinc encrypts, l2mesh does not") && text.contains("\"203.0.113.10\"    # this host"),
        "{text}"
    );
    assert!(text.contains("# ConnectTo: not carried over: every node sends to every other directly"), "{text}");
}

#[test]
fn everything_else() {
    let conf = "NAME alpha\nmode=HUB\nInterface = tap0\nAddressFamily = ipv6\nMACExpire = 120\nPriorityInheritance = yes\n\
                PrivateKeyFile = /x\nCipher = aes-256-cbc\nTCPOnly = no\nPMTU = 1400\nLogLevel = 3\nNovelty = 1\n";
    let alpha = "Address = 203.0.113.10\nAddress = 2001:db8::1 655\nSubnet = 10.0.0.0/8\nSubnet = 0:1a:2b:3:4d:5e#5\n\
                 -----BEGIN RSA PUBLIC KEY-----\nMIG\n-----END RSA PUBLIC KEY-----\n";
    let (text, mesh) = mesh(&[
        ("tinc.conf", conf),
        ("conf.d/more.conf", "FWMark = 5\n"),
        ("conf.d/more.txt", "="),
        ("hosts/alpha", alpha),
        ("hosts/beta", "Address = 2001:db8::2\nSubnet = 00:1a:2b:03:04:5e\nSubnet = 00:1a:2b:03:4d:5e\n"),
        ("hosts/gamma", "Ed25519PublicKey = abc\nSubnet = 2:0:0:0:0:1\n"),
        ("hosts/beta-up", "#!/bin/sh\n"),
        ("hosts/beta~", "Address = 192.0.2.9\n"),
        ("tinc-down", "#!/bin/sh\n"),
        ("tinc-up", "ip link set $INTERFACE master br0\nip a add 10.8.0.1/24 dev $INTERFACE\nsysctl -w x=1\n"),
    ]);
    assert_eq!(mesh.nodes.len(), 2);
    assert_eq!(mesh.nodes[0].address.to_string(), "2001:db8::1");
    assert_eq!(mesh.underlay.fdb_age.as_secs(), 120);
    let network = &mesh.networks[0];
    assert_eq!(
        (network.interface.as_str(), network.bridge.as_deref(), network.tos),
        ("tap0", Some("br0"), Some(Tos::Inherit))
    );
    let macs: BTreeMap<_, _> = network.macs.iter().map(|(mac, node)| (mac.to_string(), *node)).collect();
    assert_eq!(macs, BTreeMap::from([("00:1a:2b:03:4d:5e".into(), 0), ("00:1a:2b:03:04:5e".into(), 1)]));
    for note in [
        "# Mode = hub:",
        "# gamma: left out, for no Address",
        "# alpha also has 203.0.113.10: a node has one address.",
        "# lan/hosts/beta:3: 00:1a:2b:03:4d:5e: left out: no station's address, or there twice.",
        "# lan/hosts/gamma:2: 02:00:00:00:00:01: gamma is left out.",
        "# Subnet: only MAC addresses have a meaning in switch mode: 10.0.0.0/8 (alpha).",
        "# Ed25519PublicKey, PrivateKeyFile, Cipher: not carried over: l2mesh has no keys",
        "# TCPOnly: not carried over: every node sends",
        "# PMTU: not carried over",
        "# LogLevel, FWMark: not carried over: that is about tinc's own",
        "# Novelty: not carried over: l2mesh has nothing like it.",
        "# hosts/beta-up, hosts/beta~, tinc-down: not looked at",
        "# lan/tinc-up:3: `sysctl -w x=1`: not done by l2mesh.",
        "# 10.8.0.1/24: on a port of the bridge br0",
    ] {
        assert!(text.replace("\n#   ", " ").contains(note), "{note}: {text}");
    }
}

#[test]
fn own_address() {
    let files = |conf: &'static str| [("tinc.conf", conf), ("hosts/alpha", "Port = 655\n"), BETA];
    let told = |local: Option<&str>| Told { local: local.map(|it| it.parse().expect("an address")), peers: &[] };
    let error = import(&files(CONF), NOBODY).expect_err("no address");
    assert_eq!(error, "lan/hosts/alpha has no Address: say where the others reach this host with --local");
    let text = import(&files(CONF), told(Some("192.0.2.1"))).expect("a mesh");
    assert!(text.contains("address = \"192.0.2.1\"    # this host"), "{text}");
    let conf = "Name = alpha\nMode = switch\nBindToAddress = * 655\nBindToAddress = 192.0.2.7 655\n";
    let text = import(&files(conf), NOBODY).expect("a mesh");
    assert!(text.contains("address = \"192.0.2.7\"    # this host"), "{text}");
}

#[test]
fn refused() {
    let gamma = ("hosts/gamma", "Port = 655\n");
    for (files, error) in [
        (vec![], "lan/tinc.conf: cannot be read: No such file"),
        (vec![("tinc.conf", "Mode = switch\n")], "lan/tinc.conf: Name is missing"),
        (vec![("tinc.conf", "Name = a-b\nMode = switch\n")], "lan/tinc.conf:1: Name \"a-b\": tinc takes letters"),
        (
            vec![("tinc.conf", "Name = $NO_SUCH_THING\nMode = switch\n")],
            "lan/tinc.conf:1: Name is $NO_SUCH_THING, which",
        ),
        (vec![("tinc.conf", "Name = alpha\n")], "lan/tinc.conf: Mode is router, tinc's default: there tinc routes"),
        (vec![("tinc.conf", "Name = a\n\nMode = router\n")], "lan/tinc.conf:3: Mode is router: there tinc routes"),
        (vec![("tinc.conf", "Name\n")], "lan/tinc.conf:1: \"Name\" has no value"),
        (vec![("tinc.conf", CONF), BETA], "lan: there is no hosts/alpha, the file of this host"),
        (vec![("tinc.conf", CONF), ALPHA, gamma], "lan: fewer than two hosts have an Address"),
        (
            vec![("tinc.conf", CONF), ALPHA, ("hosts/beta", "\nAddress = 300.1.1.1\n")],
            "lan/hosts/beta:2: Address \"300.1.1.1\" is no IP address or host name",
        ),
        (
            vec![("tinc.conf", "Name = alpha\nMode = switch\nMACExpire = soon\n"), ALPHA, BETA],
            "lan/tinc.conf:3: MACExpire \"soon\": expected a number",
        ),
    ] {
        let found = import(&files, NOBODY).expect_err("refused");
        assert!(found.starts_with(error), "{found}\nnot: {error}");
    }
    let missing = read(Path::new("/no/such/directory"), NOBODY).expect_err("refused");
    assert!(format!("{missing:#}").starts_with("/no/such/directory/tinc.conf: cannot be read: No such"), "{missing:#}");
    let (_root, path) = directory(&[("tinc.conf", CONF)]);
    fs::remove_dir(path.join("hosts")).expect("removed");
    let error = format!("{:#}", read(&path, NOBODY).expect_err("refused"));
    assert!(error.contains("lan/hosts: cannot be read: No such"), "{error}");
}

/// A name from the environment, and the characters that tinc replaces.
#[test]
fn names_of_networks() {
    let (_root, path) = directory(&[("tinc.conf", CONF), ALPHA, BETA]);
    let odd = path.with_file_name("a network of many words");
    fs::rename(&path, &odd).expect("renamed");
    let text = read(&odd, NOBODY).expect("a mesh").to_toml();
    let mesh = Mesh::from_toml(&text, "import").expect("valid");
    assert_eq!((mesh.networks[0].name.as_str(), mesh.networks[0].interface.as_str()), ("tinc", "l2m1"));
    assert!(text.contains("# interface \"a network of many words\": it has more than 15 octets"), "{text}");
}
