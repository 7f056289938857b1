use super::{super::device::Entry, *};
use crate::{config::Mesh, underlay::vxlan::Vxlan};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn device(name: &str, vni: u32, source: &str, remotes: &[&str]) -> Device {
    Device {
        name: name.into(),
        vxlan: Vxlan { vni, ..Vxlan::default() },
        source: Some(ip(source)),
        entries: remotes.iter().map(|remote| Entry::flood(ip(remote))).collect(),
        mtu: Some(1500),
        underlay_mtu: Some(1500),
        ..Device::default()
    }
}

fn mesh(devices: &[Device]) -> (String, Mesh) {
    let text = assemble(devices, Vec::new()).expect("one mesh").to_toml();
    let mesh = Mesh::from_toml(&text, "import").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    (text, mesh)
}

/// The recipe that everybody copies, on its first host.
#[test]
fn the_seed_recipe() {
    let mut provider0 = device("provider0", 16, "192.168.226.4", &["192.168.226.5", "192.168.226.6"]);
    provider0.addresses = vec!["192.168.234.1/23".parse().expect("an address")];
    let (text, _) = mesh(&[provider0]);
    let expected = r#"[underlay]
port = 8472

[[node]]
name = "192.168.226.4"
address = "192.168.226.4"    # this host

[[node]]
name = "192.168.226.5"
address = "192.168.226.5"
kind = "vxlan"    # delete this line when that host runs l2mesh

[[node]]
name = "192.168.226.6"
address = "192.168.226.6"
kind = "vxlan"    # delete this line when that host runs l2mesh

# mtu: provider0 has 1500, which with 50 octets of headers does not fit into the 1500 below it: it becomes
#   1450. The others should have that too: ip link set dev provider0 mtu 1450
[[network]]
name = "provider0"
vni = 16    # 0x10
interface = "provider0"
addresses = { "192.168.226.4" = "192.168.234.1/23" }
"#;
    assert_eq!(text, expected);
}

#[test]
fn several_networks() {
    let mut second = device("vx1", 17, "192.0.2.1", &["192.0.2.3"]);
    second.vxlan.ageing = 60;
    let (text, mesh) = mesh(&[device("vx0", 16, "192.0.2.1", &["192.0.2.2", "192.0.2.3"]), second]);
    assert_eq!(mesh.nodes.len(), 3);
    assert_eq!(mesh.networks[0].members, [0, 1, 2]);
    assert_eq!(mesh.networks[1].members, [0, 2]);
    assert!(text.contains("\n[underlay]\nport = 8472\n\n"), "300 s is the default: {text}");
    assert!(text.starts_with("# fdb-age: the devices have different times"), "{text}");
    assert!(!text.contains("NAT"), "{text}");
}

/// IPv4 and IPv6 at once: the others see this host in their family, and the MTU is that of the larger header.
#[test]
fn both_families() {
    let mut six = device("vx6", 17, "2001:db8::1", &["2001:db8::2", "2001:db8::3"]);
    six.mtu = Some(1430);
    let mut four = device("vx4", 16, "10.0.0.1", &["192.0.2.2"]);
    four.mtu = Some(1450);
    let (text, mesh) = mesh(&[four, six.clone()]);
    assert_eq!(mesh.nodes[0].from, BTreeMap::from([(2, ip("2001:db8::1")), (3, ip("2001:db8::1"))]));
    let checksums: Vec<bool> = mesh.nodes.iter().map(|node| node.udp_checksum).collect();
    assert_eq!(checksums, [false, false, true, true]);
    assert!(text.contains("# mtu: vx4 has 1450, which with 70 octets of headers"), "{text}");
    assert!(!text.contains("vx6 has 1430") && !text.contains("mtu = "), "{text}");
    assert!(text.contains("# 10.0.0.1 is a private address"), "{text}");
    six.vxlan.takes_zero_checksum6 = true;
    let (text, _) = self::mesh(&[six]);
    assert!(!text.contains("udp-checksum"), "{text}");
}

#[test]
fn no_single_mesh() {
    let refused = |devices: &[Device]| assemble(devices, Vec::new()).expect_err("refused").to_string();
    let first = device("vx0", 16, "192.0.2.1", &["192.0.2.2"]);
    let mut other_port = device("vx1", 17, "192.0.2.1", &["192.0.2.2"]);
    other_port.vxlan.port = 4789;
    let other_address = device("vx2", 18, "192.0.2.9", &["192.0.2.2"]);
    let six = device("vx6", 19, "2001:db8::1", &["2001:db8::2"]);
    assert_eq!(
        refused(&[first.clone(), other_port, other_address, six]),
        "these are 3 meshes, for a mesh has one UDP port and this host one address in it: \
         vx0 vx6 (UDP port 8472, from 192.0.2.1, 2001:db8::1); vx1 (UDP port 4789, from 192.0.2.1); \
         vx2 (UDP port 8472, from 192.0.2.9): \
         name the devices of one of them; the others can stay kernel devices beside it"
    );
    let same = device("vx1", 16, "192.0.2.1", &["192.0.2.3"]);
    assert_eq!(
        refused(&[first, same]),
        "vx0 and vx1 both have VNI 16, and a mesh has each network once: name only one of them"
    );
    assert_eq!(refused(&[]), "there is nothing to import");
}

#[test]
fn what_cannot_be_used() {
    let mut external = device("ext", 0, "192.0.2.1", &["192.0.2.2"]);
    external.vxlan.external = true;
    let good = device("vx0", 16, "192.0.2.1", &["192.0.2.2"]);
    let (devices, problems) = usable(vec![external.clone(), good.clone()], false).expect("one is good");
    assert_eq!((devices.len(), problems.len()), (1, 1));
    for (devices, asked_for) in [(vec![external.clone(), good], true), (vec![external], false)] {
        let error = usable(devices, asked_for).expect_err("refused").to_string();
        assert!(error.starts_with("ext is `external`"), "{error}");
    }
}

/// Each `--peer` goes to the devices of its family.
#[test]
fn peers_by_family() {
    let four = device("vx4", 16, "192.0.2.1", &["192.0.2.2"]);
    let six = device("vx6", 17, "2001:db8::1", &["2001:db8::2"]);
    let mut devices = [four, six];
    let peers = ["192.0.2.3", "2001:db8::3"].map(ip);
    devices.iter_mut().for_each(|device| device.add_peers(&peers));
    let members = devices.each_ref().map(|device| device.forwarding().members);
    assert_eq!(members[0], ["192.0.2.2", "192.0.2.3"].map(ip));
    assert_eq!(members[1], ["2001:db8::2", "2001:db8::3"].map(ip));
    assert!(all_taken(&devices, &peers).is_ok());
    for lost in [&devices[..1], &devices[1..]] {
        let error = all_taken(lost, &peers).expect_err("one is lost").to_string();
        assert!(error.starts_with("--peer "), "{error}");
    }
}

#[test]
fn mtus() {
    for (device, underlay, overhead, expected) in [
        (None, None, 50, None),
        (Some(1450), Some(1500), 50, None),
        (Some(1450), None, 50, None),
        (Some(1430), Some(1500), 70, None),
        (Some(1400), Some(1500), 50, Some(1400)),
        (Some(8950), Some(9000), 50, Some(8950)),
        (Some(1500), Some(9000), 50, Some(1500)),
        (Some(1450), Some(9000), 50, None),
    ] {
        assert_eq!(mtu("vx0", device, underlay, overhead), (expected, None), "{device:?} over {underlay:?}");
    }
    for (device, underlay, overhead, becomes) in [
        (1500, Some(1500), 50, 1450),
        (1451, None, 50, 1450),
        (1450, Some(1400), 50, 1350),
        (9000, Some(9000), 50, 1450),
    ] {
        let (key, note) = mtu("vx0", Some(device), underlay, overhead);
        let note = note.expect("a note");
        assert!(key.is_none() && note.contains(&format!("it becomes {becomes}.")), "{note}");
    }
}

#[test]
fn ageing_of_all() {
    let with = |ages: &[u32]| {
        let device = |&ageing| {
            let mut device = device("vx0", 16, "192.0.2.1", &["192.0.2.2"]);
            device.vxlan.ageing = ageing;
            device
        };
        let (age, note) = ageing(&ages.iter().map(device).collect::<Vec<_>>());
        (age, note.is_some())
    };
    assert_eq!(with(&[300, 300]), (None, false));
    assert_eq!(with(&[60, 60]), (Some(60), false));
    assert_eq!(with(&[60, 300]), (None, true));
    assert_eq!(with(&[0]), (Some(30 * 86_400), false));
    assert_eq!(with(&[u32::MAX, 60]), (Some(30 * 86_400), true));
}

/// l2mesh would refuse its own names.
#[test]
fn hidden_names() {
    let (text, mesh) = mesh(&[device("l2p10", 16, "192.0.2.1", &["192.0.2.2"])]);
    assert_eq!(mesh.networks[0].interface, "l2m10");
    assert!(text.contains("# interface: l2mesh has names like l2p10 for itself"), "{text}");
}
