//! Frames through a relay: in every mode, between IP versions, and never where they do not belong.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use l2mesh_tests::relayed::attach as attach_to_relay;
use l2mesh_tests::{
    Capture, Direction, Host, KernelVxlan, Lab, Leg, Paths, Plan, RelayMesh, Segment, VxlanOptions, Way, Wiring,
    assert_flooded, taps, traffic, transfer,
};

const LIMIT: Duration = Duration::from_secs(15);
const QUICK: &str = "interval = \"20ms\"\nmisses = 10";
/// Octets of a transfer.
const BULK: usize = 8 << 20;

/// Senders and receivers in both modes, and a relay in each: all that is relayed goes through one mode after the other. One host
/// in mode xdp leaves it to TC to send, as attach does on a veth.
#[test]
fn every_mode() {
    let names = ["t1", "t2", "x1", "x2", "rt", "rx"];
    let plan = Plan { probe: QUICK, modes: &["tc", "tc", "xdp", "xdp-tx", "tc", "xdp-tx"], ..Plan::default() };
    let mesh = RelayMesh::up("relay modes", names, 2, &plan);
    // Both ways: tc to tc, tc to xdp, xdp to tc, xdp to xdp.
    for (a, b) in [(0, 1), (0, 2), (2, 3)] {
        let mut direct = mesh.legs(a, b);
        direct.iter_mut().for_each(Leg::cut);
        for (relay, other) in [(4, 5), (5, 4)] {
            let mut avoided = mesh.legs(a, other);
            avoided.iter_mut().for_each(Leg::cut);
            mesh.wait_ways(a, b, &Way::via(&mesh.hosts[relay]), LIMIT);
            check(&mesh, a, b, relay);
            avoided.iter_mut().for_each(Leg::heal);
            mesh.wait_ways(a, other, &Way::Direct, LIMIT);
        }
        direct.iter_mut().for_each(Leg::heal);
        mesh.wait_ways(a, b, &Way::Direct, LIMIT);
    }
}

/// Ping, TCP and broadcast both ways, each exactly once.
#[track_caller]
fn check<const N: usize>(mesh: &RelayMesh<N>, a: usize, b: usize, relay: usize) {
    let names = [a, b, relay].map(|host| mesh.hosts[host].name());
    println!("{names:?}");
    let before = mesh.hosts[relay].octets("relayed");
    for (from, to) in [(a, b), (b, a)] {
        let report = traffic::ping(&mesh.hosts[from], Segment::v4(to), 20);
        assert_eq!((report.lost(), report.duplicates), (0, 0), "{names:?}: {report:?}");
        let report = traffic::ping_sized(&mesh.hosts[from], Segment::v4(to), 5, 1422);
        assert_eq!((report.lost(), report.duplicates), (0, 0), "{names:?}: the longest: {report:?}");
        transfer::tcp(&mesh.hosts[from], &mesh.hosts[to], Segment::v4(to), BULK);
        transfer::tcp(&mesh.hosts[from], &mesh.hosts[to], Segment::v6(to), BULK / 8);
    }
    let octets = u64::try_from(2 * BULK).expect("a count");
    assert!(mesh.hosts[relay].octets("relayed") > before + octets, "{names:?}: it went another way");
    // Everybody else has direct paths, and the relay gets its own copy, not that of the other.
    assert_flooded(&mut taps(&mesh.hosts, &[]), |tap| {
        let payload = [tap.mac().0.as_slice(), &[7; 54]].concat();
        vec![l2mesh_tests::Frame::unknown(l2mesh_tests::MacAddr::BROADCAST, tap.mac(), &payload)]
    });
    // Behind whom somebody is, not through whom.
    for (own, other) in [(a, b), (b, a)] {
        let row = mesh.hosts[own].mac_row(mesh.hosts[other].mac("l2m0")).expect("it is known");
        assert_eq!(row["peer"], mesh.hosts[other].name(), "{row}");
    }
}

/// One host with IPv4 alone, one with IPv6 alone, and a relay with both.
#[test]
fn from_ipv4_to_ipv6() {
    for modes in [["tc"; 3], ["xdp-tx"; 3]] {
        let lab = Lab::new("relay families");
        let hosts = lab.routed(["four", "six", "r"], &Wiring { ipv6: true, ..Wiring::default() });
        let [four, six, relay] = &hosts;
        for (host, version) in [(four, "-6"), (six, "-4")] {
            host.run(&format!("ip {version} address flush dev eth0"));
            host.run(&format!("ip {version} route flush dev eth0"));
        }
        let mut text = format!("[probe]\n{QUICK}\n");
        for (host, lines) in [
            (four, format!("address = \"{}\"", four.address())),
            (six, format!("address = \"{}\"", six.address6())),
            (
                relay,
                format!("address = \"{}\"\nfrom = {{ six = \"{}\" }}\nrelay = true", relay.address(), relay.address6()),
            ),
        ] {
            writeln!(text, "[[node]]\nname = \"{}\"\n{lines}", host.name()).expect("a String takes everything");
        }
        text += "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n";
        let file = lab.directory().join("mesh.toml");
        fs::write(&file, text).expect("a file in the lab's directory");
        let file = file.display().to_string();
        let mut agents = Vec::new();
        for ((place, host), mode) in hosts.iter().enumerate().zip(modes) {
            agents.push(attach_to_relay(&lab, host, place, &file, mode));
        }
        for (own, other) in [(four, six), (six, four)] {
            Paths::of(own).wait_way(other, &Way::via(relay), Duration::from_secs(45));
        }
        for (from, to, place) in [(four, six, 1), (six, four, 0)] {
            let report = traffic::ping(from, Segment::v4(place), 10);
            assert_eq!((report.lost(), report.duplicates), (0, 0), "{modes:?}: {report:?}");
            transfer::tcp(from, to, Segment::v4(place), BULK / 4);
            transfer::tcp(from, to, Segment::v6(place), BULK / 4);
        }
        assert_flooded(&mut taps(&hosts, &[]), |tap| {
            vec![l2mesh_tests::Frame::unknown(l2mesh_tests::MacAddr::BROADCAST, tap.mac(), &[9; 60])]
        });
        drop(agents);
    }
}

/// A file that says so of it is not enough: what counts is its own.
#[test]
fn a_host_that_does_not_relay() {
    let mesh = RelayMesh::attached("no relay", ["a", "b", "r"], 0, &Plan { probe: QUICK, ..Plan::default() });
    let [a, _, relay] = &mesh.hosts;
    let mut legs = mesh.legs(0, 1);
    legs.iter_mut().for_each(Leg::cut);
    mesh.wait_ways(0, 1, &Way::Dead, LIMIT);
    assert_eq!(traffic::ping(a, Segment::v4(1), 3).received, 0);
    assert_eq!(relay.counter("relay-forbidden"), 0, "nobody asks it");
    // Now a and b think that it does.
    let text = fs::read_to_string(&mesh.file).expect("the file");
    let (head, tail) = text.split_at(text.find("name = \"r\"").expect("the relay"));
    let other = format!("{head}{}", tail.replace("relay = false", "relay = true"));
    let path = mesh.lab.directory().join("other.toml");
    fs::write(&path, other).expect("a file in the lab's directory");
    let path = path.display().to_string();
    let RelayMesh { agents, hosts, lab, .. } = mesh;
    let mut agents = agents.into_iter();
    let mut again = Vec::new();
    for host in &hosts[..2] {
        agents.next().expect("an agent").kill();
        again.push(host.attach(&["--config", &path]));
    }
    let [a, b, relay] = &hosts;
    l2mesh_tests::wait_for("r refuses", Duration::from_secs(40), || match relay.counter("relay-forbidden") {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    for (own, other) in [(a, b), (b, a)] {
        Paths::of(own).wait_way(other, &Way::Dead, LIMIT);
    }
    assert_eq!(relay.counter("relayed"), 0);
    drop(lab);
}

/// Reserved bits are for l2mesh alone: Linux drops frames with any.
#[test]
fn nothing_of_it_reaches_a_plain_vtep() {
    let lab = Lab::new("relay plain");
    let hosts = lab.routed(["a", "b", "r", "plain"], &Wiring::default());
    let [a, b, relay, plain] = &hosts;
    let mut text = format!("[probe]\n{QUICK}\n");
    for (host, lines) in [(a, ""), (b, ""), (relay, "relay = true"), (plain, "kind = \"vxlan\"")] {
        writeln!(text, "[[node]]\nname = \"{}\"\naddress = \"{}\"\n{lines}", host.name(), host.address())
            .expect("a String takes everything");
    }
    text += "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n";
    let file = lab.directory().join("mesh.toml");
    fs::write(&file, text).expect("a file in the lab's directory");
    let file = file.display().to_string();
    let mut agents = Vec::new();
    for (place, host) in hosts[..3].iter().enumerate() {
        agents.push(attach_to_relay(&lab, host, place, &file, "auto"));
    }
    let capture = Capture::start(plain, "eth0", Direction::In, "udp dst port 4789");
    let marked = Capture::start(plain, "eth0", Direction::In, MARKED);
    let peers: Vec<_> = hosts[..3].iter().map(Host::vtep).collect();
    let options = VxlanOptions { mtu: Some(Segment::MTU), ..VxlanOptions::default() };
    let device: KernelVxlan = plain.kernel_vxlan(plain.vtep(), &peers, &options);
    Segment::address(plain, device.name(), 3);
    let paths = [a, b].map(Paths::of);
    paths[0].wait_ready(b, 1, Duration::from_secs(45));
    for place in 0..3 {
        assert_eq!(traffic::ping(plain, Segment::v4(place), 5).lost(), 0, "{place}");
    }
    let mut legs = lab.legs(a, b);
    legs.iter_mut().for_each(Leg::cut);
    paths[0].wait_way(b, &Way::via(relay), LIMIT);
    paths[1].wait_way(a, &Way::via(relay), LIMIT);
    // Unicast, broadcast, through a relay to others and directly to the plain one.
    assert_eq!(traffic::ping(a, Segment::v4(1), 5).lost(), 0);
    assert_eq!(traffic::ping(a, Segment::v4(3), 5).lost(), 0);
    assert_flooded(&mut taps(&hosts[..3], &hosts[3..]), |tap| {
        vec![l2mesh_tests::Frame::unknown(l2mesh_tests::MacAddr::BROADCAST, tap.mac(), &[3; 60])]
    });
    // Nobody goes round to it.
    let mut legs = lab.legs(a, plain);
    legs.iter_mut().for_each(Leg::cut);
    let before = relay.counter("relayed");
    assert_eq!(traffic::ping(a, Segment::v4(3), 5).received, 0);
    assert_eq!(paths[0].way(plain), Way::Direct);
    assert!(relay.counter("relayed") >= before);
    let (all, marked) = (capture.stop().frames().len(), marked.stop().frames());
    assert!(all > 30, "{all} frames");
    assert!(marked.is_empty(), "{marked:?}");
}

/// VXLAN headers that are not as RFC 7348 has them, behind IPv4 without options.
const MARKED: &str = "udp dst port 4789 and (udp[8:4] != 0x08000000 or udp[15] != 0)";
