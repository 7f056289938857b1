//! Files: what is taken, and the exact words about what is not.

use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;

use super::*;

const EXAMPLE: &str = include_str!("../../examples/mesh.toml");

/// Two nodes and a network: lines 1 to 9.
const BASE: [&str; 2] = [
    "[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[node]]\nname = \"b\"\naddress = \"192.0.2.2\"\n",
    "[[network]]\nname = \"lan\"\nvni = 16\n",
];

/// `fragment` in [`BASE`], as part of the second node at line 7, or from line 10 on, or all alone.
fn text(place: &str, fragment: &str) -> String {
    let [nodes, network] = BASE;
    match place {
        "node:" => format!("{nodes}{fragment}\n{network}"),
        "end:" => format!("{nodes}{network}{fragment}\n"),
        "file:" => fragment.into(),
        other => panic!("{other:?} is no place"),
    }
}

fn parsed(place: &str, fragment: &str) -> Mesh {
    Mesh::from_toml(&text(place, fragment), "mesh.toml").unwrap_or_else(|errors| panic!("{fragment}:\n{errors}"))
}

#[test]
fn the_example() {
    let mesh = Mesh::from_toml(EXAMPLE, "mesh.toml").expect("the example is valid");
    assert_eq!(mesh.underlay, Underlay::default());
    assert_eq!(mesh.probe, Probe::default());
    let nodes: Vec<_> = mesh.nodes.iter().map(|n| (n.name.as_str(), n.address.to_string(), n.kind, n.relay)).collect();
    assert_eq!(
        nodes,
        [
            ("hetzner", "203.0.113.10".into(), NodeKind::L2mesh, true),
            ("ovh", "203.0.113.20".into(), NodeKind::L2mesh, false),
            ("old-box", "203.0.113.40".into(), NodeKind::Vxlan, false),
        ]
    );
    assert_eq!(mesh.nodes.iter().map(|node| node.probes).collect::<Vec<_>>(), [true, true, false]);
    let [lan] = mesh.networks.as_slice() else { panic!("one network") };
    assert_eq!((lan.name.as_str(), lan.vni.get(), lan.interface.as_str()), ("lan", 0xff01, "l2mff01"));
    assert_eq!(lan.members, [0, 1, 2]);
    assert_eq!(lan.addresses[&1], ["10.8.0.2/24".parse().expect("an address")]);
}

#[test]
fn every_key() {
    let mesh = Mesh::from_toml(include_str!("tests/every-key.toml"), "mesh.toml").expect("valid");
    let seconds = Duration::from_secs;
    assert_eq!(
        mesh.underlay,
        Underlay {
            port: 8472,
            tx_hook: TxHook::Port,
            private_port: false,
            fdb_size: 1 << 24,
            fdb_age: seconds(60),
            move_limit: 14,
            move_freeze: seconds(5)
        }
    );
    let interval = Duration::from_millis(10);
    let probe = Probe { interval, misses: 4, recover: 20, relay_interval: seconds(2), loss_limit: 5 };
    assert_eq!(mesh.probe, probe);
    let [a, b, c] = mesh.nodes.as_slice() else { panic!("three nodes") };
    assert_eq!((a.id, a.relay, a.probes, a.udp_checksum), (0x00c0_ffee, true, true, true));
    assert_eq!(a.from, BTreeMap::from([(1, IpAddr::from([10, 0, 0, 5]))]));
    assert_eq!((b.id, b.probes, b.relays.as_deref()), (0xe70c_2de5, false, Some([0].as_slice())));
    assert_eq!(b.address, Address::Host { name: "b.example.org".into(), resolved: None });
    assert_eq!(c.kind, NodeKind::Vxlan);
    let [lan, other] = mesh.networks.as_slice() else { panic!("two networks") };
    assert_eq!(lan.members, [0, 2]);
    assert_eq!((lan.interface.as_str(), lan.bridge.as_deref(), lan.mtu), ("lan0", Some("br0"), Some(1400)));
    assert_eq!(lan.addresses[&0].len(), 2);
    assert_eq!(lan.macs, [(MacAddr([0x52, 0x54, 0, 0, 0, 1]), 2)]);
    assert!(lan.link_local && lan.neighbour_suppression);
    assert_eq!((lan.mss_clamp, other.mss_clamp), (Some(true), None));
    assert_eq!((lan.tos, lan.storm_limit, lan.macs_per_peer), (Some(Tos::Inherit), Some(1000), Some(64)));
    assert_eq!((other.interface.as_str(), other.members.len(), other.tos), ("l2m11", 3, Some(Tos::Fixed(0xb8))));
}

#[test]
fn not_refused() {
    for (place, fragment) in [
        ("end:", "[underlay]"),
        ("end:", "[underlay]\nprivate-port = true"),
        ("end:", "[underlay]\nfdb-age = \"300 s\""),
        ("end:", "mtu = 68"),
        ("end:", "mtu = 65535"),
        ("end:", "members = [\"a\"]"),
        ("end:", "interface = \"fifteen-octets-\""),
        ("end:", "interface = \"l2p11\""),
        ("end:", "interface = \"l2p\""),
        ("end:", "addresses = { a = \"10.8.0.0/31\", b = [\"fd00::1/64\", \"10.8.0.1/31\"] }"),
        ("end:", "tos = 0"),
        ("end:", "[[network]]\nname = \"two\"\nvni = \"0xffffff\"\nbridge = \"br0\""),
        ("end:", "[[node]]\nname = \"c\"\naddress = \"192.0.2.3\"\nfrom = { a = \"10.0.0.1\", b = \"10.0.1.1\" }"),
        ("node:", "relays = []"),
        ("node:", "id = 4294967295"),
        ("node:", "kind = \"vxlan\"\nrelay = false\nprobes = false"),
        ("end:", "[[node]]\nname = \"2001:db8::3\"\naddress = \"my_host.example.org.\""),
    ] {
        parsed(place, fragment);
    }
}

#[test]
fn default_members_are_every_node_and_peers_are_limited() {
    let mesh = |count: usize| {
        let node = |i: usize| format!("[[node]]\nname = \"n{i}\"\naddress = \"10.0.{}.{}\"\n", i / 250, i % 250 + 1);
        Mesh::from_toml(&((0..count).map(node).collect::<String>() + BASE[1]), "mesh.toml")
    };
    assert_eq!(mesh(513).expect("512 peers").networks[0].members.len(), 513);
    assert_eq!(
        mesh(514).expect_err("513 peers").to_string(),
        "mesh.toml:1543: network \"lan\": 514 members: a node can have 512 peers in a network: split it"
    );
}

/// `tests/invalid.txt` has one case a paragraph: where the fragment goes, the fragment, and after `=>` the errors.
#[test]
fn invalid() {
    let cases: Vec<_> = include_str!("tests/invalid.txt").split("\n\n").filter(|case| !case.starts_with('#')).collect();
    assert!(cases.len() > 100, "{}", cases.len());
    for case in cases {
        let (place, rest) = case.trim_start_matches('\n').split_once('\n').expect("a place");
        let lines: Vec<_> = rest.lines().collect();
        let (errors, fragment): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.starts_with("=> "));
        let expected: Vec<_> = errors.iter().map(|line| line.replacen("=> ", "mesh.toml", 1)).collect();
        let found = Mesh::from_toml(&text(place, &fragment.join("\n")), "mesh.toml").expect_err(case).to_string();
        assert_eq!(found.lines().collect::<Vec<_>>(), expected, "{case}");
    }
}

#[test]
fn a_file_that_cannot_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mesh.toml");
    let error = Mesh::from_file(&path).expect_err("there is none").to_string();
    assert_eq!(error, format!("{}: cannot be read: No such file or directory (os error 2)", path.display()));
    std::fs::write(&path, EXAMPLE).expect("written");
    assert!(Mesh::from_file(&path).is_ok());
}

#[test]
fn ids_are_fnv_1a() {
    // From the test suite of the authors of FNV.
    for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
        assert_eq!(text::fnv_1a_32(text), hash, "{text}");
    }
}

#[test]
fn relays_of_a_large_mesh_are_asked_less_often() {
    let tenths = |nodes| Probe::of_mesh(nodes).relay_interval.as_millis() / 100;
    assert_eq!([0, 3, 128, 192, 256, 512].map(tenths), [50, 50, 50, 75, 100, 200]);
}

#[test]
fn durations() {
    for (text, ms) in [("100ms", 100), ("5s", 5000), ("300 s", 300_000), ("5min", 300_000), ("2 h", 7_200_000)] {
        assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
    }
    for text in ["", "5", "ms", "-5s", "+5s", "1.5s", "5 years", "5ss", "99999999999999999999s", "99999999999999999d"] {
        assert_eq!(duration(text), None, "{text}");
    }
    for (ms, shown) in [(1, "1ms"), (100, "100ms"), (1500, "1500ms"), (60_000, "1min"), (2_592_000_000, "30d")] {
        assert_eq!(show_duration(Duration::from_millis(ms)), shown);
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC*") {
        let _: Result<Mesh, ConfigErrors> = Mesh::from_toml(&text, "mesh.toml");
    }

    /// Octets of a valid file replaced, removed, repeated and inserted.
    #[test]
    fn a_mutated_file_is_taken_or_refused(
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..30, "[\\PC\\n]{0,3}|0|-1|\"\"|\\[|true"),
            1..4,
        ),
        full: bool,
    ) {
        let mut text = if full { include_str!("tests/every-key.toml") } else { EXAMPLE }.to_owned();
        for (start, length, replacement) in edits {
            let starts: Vec<usize> = text.char_indices().map(|(index, _)| index).collect();
            let start = start.index(starts.len());
            let end = starts.get(start + length).copied().unwrap_or(text.len());
            text.replace_range(starts[start]..end, &replacement);
            if text.is_empty() {
                break;
            }
        }
        if let Err(ConfigErrors(errors)) = Mesh::from_toml(&text, "mesh.toml") {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(!error.text.contains('\n') && error.location.line.is_none_or(|line| line >= 1), "{error}");
            }
        }
    }

    /// Values of keys exchanged for others: syntax and keys stay right, so that the checks of meaning are reached.
    #[test]
    fn exchanged_values_are_taken_or_refused(
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6),
    ) {
        let mut lines: Vec<String> = include_str!("tests/every-key.toml").lines().map(String::from).collect();
        for (to, from) in swaps {
            let (to, from) = (to.index(lines.len()), from.index(lines.len()));
            let value = lines[from].split_once(" = ").map(|(_, value)| value.to_owned());
            let key = lines[to].split_once(" = ").map(|(key, _)| key.to_owned());
            if let (Some(key), Some(value)) = (key, value) {
                lines[to] = format!("{key} = {value}");
            }
        }
        let _: Result<Mesh, ConfigErrors> = Mesh::from_toml(&lines.join("\n"), "mesh.toml");
    }
}
