use super::*;
use crate::config::Mesh;

const FILE: &str = r#"# The mesh of Example Ltd.

[underlay]
fdb-age = "60s"   # short

# Paris.
[[node]]
name = "a"        # the first
address = "203.0.113.1"

# Nuremberg: leaves soon.
[[node]]
name = "b"
address = "203.0.113.2"
relays = ["c"]    # only

# Two networks follow.

# The office.
[[network]]
name = "lan"
vni = 0x10
members = ["a", "b"]
addresses = { a = "10.8.0.1/24", b = "10.8.0.2/24" }
[[network.mac]]   # a printer
mac = "52:54:00:00:00:01"
node = "b"

[[network]]
name = "dmz"
vni = "17"

# The end.
"#;

fn node(name: &str, address: &str) -> Edit {
    let (name, address) = (name.to_owned(), address.to_owned());
    Edit::AddNode(NewNode { name, address, relay: false, plain: false, id: None, network: Vec::new() })
}

fn named(name: &str) -> Named {
    Named { name: name.to_owned() }
}

fn mac(mac: &str, vni: u32, peer: Option<&str>) -> StaticMac {
    let (mac, vni) = (mac.parse().expect("a MAC address"), Vni::new(vni).expect("a VNI"));
    StaticMac { mac, vni, peer: peer.map(ToOwned::to_owned) }
}

#[track_caller]
fn edit(text: &str, edit: &Edit) -> String {
    edited(text, edit, "a").unwrap_or_else(|error| panic!("{edit:?}: {error}"))
}

#[test]
fn nodes() {
    let text = edit(FILE, &node("c", "203.0.113.3"));
    let new = "\n[[node]]\nname = \"c\"\naddress = \"203.0.113.3\"\n";
    assert_eq!(text, FILE.replace("\n# Two networks", &format!("{new}\n# Two networks")));
    let valid = |text: &str| Mesh::from_toml(&text.replace("relays = [\"c\"]", ""), "mesh.toml").expect("valid");
    valid(&text);
    assert_eq!(edit(&text, &Edit::RemoveNode(named("c"))), FILE.replace("relays = [\"c\"]", "relays = []"));

    let all = NewNode {
        name: "c".to_owned(),
        address: "c.example.org".to_owned(),
        relay: true,
        plain: false,
        id: Some(7),
        network: vec!["lan".to_owned(), "dmz".to_owned()],
    };
    let text = edit(FILE, &Edit::AddNode(all));
    assert!(text.contains("address = \"c.example.org\"\nrelay = true\nid = 7\n"), "{text}");
    assert!(text.contains("members = [\"a\", \"b\", \"c\"]\n"), "{text}");
    valid(&text);
}

#[test]
fn a_node_goes_with_all_that_is_said_of_it() {
    let text = edit(FILE, &Edit::RemoveNode(named("b")));
    let gone = FILE
        .replace("# Nuremberg: leaves soon.\n[[node]]\nname = \"b\"\naddress = \"203.0.113.2\"\nrelays = [\"c\"]    # only\n\n", "")
        .replace("[\"a\", \"b\"]", "[\"a\"]")
        .replace(", b = \"10.8.0.2/24\"", "")
        .replace("[[network.mac]]   # a printer\nmac = \"52:54:00:00:00:01\"\nnode = \"b\"\n", "");
    assert_eq!(text, gone);
}

#[test]
fn what_is_about_others_stays() {
    let text = edit(FILE, &Edit::RemoveNetwork(named("lan")));
    assert!(text.contains("# Two networks follow.\n") && !text.contains("# The office."), "{text}");
    let text = edit(&text, &Edit::RemoveNetwork(named("dmz")));
    assert!(text.contains("# Two networks follow.\n") && text.ends_with("# The end.\n"), "{text}");
    let text = edit("# First.\n[[node]]\nname = \"a\"\n[[network]]\nname = \"x\"\n", &Edit::RemoveNode(named("a")));
    assert_eq!(text, "# First.\n[[network]]\nname = \"x\"\n");
}

#[test]
fn networks_and_macs() {
    let network = NewNetwork {
        name: "third".to_owned(),
        vni: Vni::new(18).expect("a VNI"),
        interface: Some("t0".to_owned()),
        bridge: Some("br0".to_owned()),
        member: vec!["a".to_owned(), "b".to_owned()],
        address: ["10.9.0.1/24", "b=10.9.0.2/24", "fd00::1/64"].map(ToOwned::to_owned).to_vec(),
    };
    let text = edit(FILE, &Edit::AddNetwork(network));
    let new = "\n[[network]]\nname = \"third\"\nvni = 18\ninterface = \"t0\"\nbridge = \"br0\"\nmembers = [\"a\", \"b\"]\n\
               addresses = { a = [\"10.9.0.1/24\", \"fd00::1/64\"], b = [\"10.9.0.2/24\"] }\n";
    assert_eq!(text, FILE.replace("vni = \"17\"\n", &format!("vni = \"17\"\n{new}")));
    assert_eq!(edit(&text, &Edit::RemoveNetwork(named("third"))), FILE);

    for vni in [16, 17] {
        let text = edit(FILE, &Edit::AddMac(mac("52:54:00:00:00:02", vni, Some("b"))));
        assert!(text.contains("[[network.mac]]\nmac = \"52:54:00:00:00:02\"\nnode = \"b\"\n"), "{text}");
        assert_eq!(edit(&text, &Edit::RemoveMac(mac("52:54:00:00:00:02", vni, None))), FILE);
    }
    let text = edit(FILE, &Edit::RemoveMac(mac("52:54:00:00:00:01", 16, Some("b"))));
    assert!(!text.contains("printer") && !text.contains("52:54"), "{text}");
}

#[test]
fn lists_in_braces() {
    let text = "node = [\n  { name = \"a\" }, # one\n  { name = \"b\" }, # two\n]\n";
    let more = edit(text, &node("c", "203.0.113.3"));
    assert!(more.contains("{ name = \"b\" }") && more.contains("# two"), "{more}");
    assert!(more.contains("\n  { name = \"c\", address = \"203.0.113.3\" }"), "{more}");
    let less = edit(text, &Edit::RemoveNode(named("b")));
    assert!(less.contains("# one") && !less.contains("\"b\""), "{less}");
    let less = edit(text, &Edit::RemoveNode(named("a")));
    assert!(less.contains("# one") && less.contains("# two") && !less.contains("\"a\""), "{less}");
}

#[test]
fn a_list_in_braces_and_back() {
    for text in [
        "node = [ { name = \"a\" }, # here\n         { name = \"b\" } ]\n",
        "node = [{ name = \"a\" }, { name = \"b\" }]\n",
        "node = [\n  { name = \"a\" },\n  { name = \"b\" },\n]\n",
        "node = [ { name = \"a\" } ]\n",
    ] {
        let more = edit(text, &node("c", "203.0.113.3"));
        more.parse::<DocumentMut>().unwrap_or_else(|error| panic!("{error}: {more}"));
        assert_eq!(edit(&more, &Edit::RemoveNode(named("c"))), text, "{more}");
    }
}

#[test]
fn refused() {
    for (wrong, says) in [
        (Edit::RemoveNode(named("x")), "no node is called \"x\""),
        (Edit::RemoveNetwork(named("x")), "no network is called \"x\""),
        (Edit::AddMac(mac("52:54:00:00:00:02", 16, None)), "behind which node"),
        (Edit::AddMac(mac("52:54:00:00:00:02", 18, Some("b"))), "no network has VNI 18"),
        (Edit::RemoveMac(mac("52:54:00:00:00:01", 16, Some("a"))), "has no static entry"),
    ] {
        let said = edited(FILE, &wrong, "a").expect_err("refused");
        assert!(said.contains(says), "{said}");
    }
}

/// Lists in braces, in which tables of their own cannot stand.
#[test]
fn mac_addresses_in_braces() {
    let text = "node = [{ name = \"a\", address = \"203.0.113.1\" }, { name = \"b\", address = \"203.0.113.2\" }]\nnetwork = [{ name = \"lan\", vni = 16 }]\n";
    let added = edit(text, &Edit::AddMac(mac("52:54:00:00:00:02", 16, Some("a"))));
    let expected = "vni = 16, mac = [{ mac = \"52:54:00:00:00:02\", node = \"a\" }] }]\n";
    assert!(added.ends_with(expected), "{added}");
    Mesh::from_toml(&added, "mesh.toml").expect("valid");
    let more = edit(&added, &Edit::AddMac(mac("52:54:00:00:00:03", 16, Some("a"))));
    assert_eq!(Mesh::from_toml(&more, "mesh.toml").expect("valid").networks[0].macs.len(), 2);
}

/// What an editor on Windows has written stays so.
#[test]
fn line_ends_and_mark() {
    let windows = format!("\u{feff}{}", FILE.replace('\n', "\r\n"));
    let text = edit(&windows, &node("c", "203.0.113.3"));
    assert_eq!(text, format!("\u{feff}{}", edit(FILE, &node("c", "203.0.113.3")).replace('\n', "\r\n")));
}
