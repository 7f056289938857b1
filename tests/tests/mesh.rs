//! Three and five hosts: one Ethernet segment, and nothing that does not belong into it.

use std::time::Duration;

use l2mesh_tests::{
    Agent, File, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, assert_flooded, taps, traffic, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// A station behind one host or another.
const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);
/// A group of IPv4 multicast.
const MULTICAST: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0x7b]);
/// The first group address behind those that bridges keep to themselves.
const NOT_LINK_LOCAL: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x10]);
const LLDP: u16 = 0x88cc;

/// `--tx-hook`, and what comes of it.
const HIDDEN: [&str; 2] = ["port", "hidden peer"];
const SHORTCUT: [&str; 2] = ["auto", "egress shortcut"];

#[test]
fn three_routed_tc() {
    let lab = Lab::new("three tc");
    let hosts = lab.routed(["hetzner", "enovance", "ovh"], &Wiring::default());
    one_segment(&lab, &hosts, "tc", &HIDDEN);
}

#[test]
fn three_switched_xdp() {
    let lab = Lab::new("three xdp");
    let hosts = lab.switch(["hetzner", "enovance", "ovh"], &Wiring::default());
    one_segment(&lab, &hosts, "xdp", &SHORTCUT);
}

#[test]
fn five_switched_tc() {
    let lab = Lab::new("five tc");
    let hosts = lab.switch(["h1", "h2", "h3", "h4", "h5"], &Wiring::default());
    one_segment(&lab, &hosts, "tc", &SHORTCUT);
}

#[test]
fn five_routed_xdp() {
    let lab = Lab::new("five xdp");
    let hosts = lab.routed(["h1", "h2", "h3", "h4", "h5"], &Wiring::default());
    one_segment(&lab, &hosts, "xdp", &HIDDEN);
}

/// Every pair reaches every other, and what is for all arrives once at each.
fn one_segment(lab: &Lab, hosts: &[Host], mode: &str, [hook, transmit]: &[&str; 2]) {
    let args = ["--mode", mode, "--tx-hook", hook];
    let agents = Segment::of(hosts, &args).up(lab);
    for host in hosts {
        host.wait_transmit(transmit);
    }
    for (from, host) in hosts.iter().enumerate() {
        for to in (0..hosts.len()).filter(|to| *to != from) {
            let report = traffic::ping(host, Segment::v4(to), 2);
            assert_eq!((report.lost(), report.duplicates), (0, 0), "{from} to {to}");
            assert_eq!(traffic::ping(host, Segment::v6(to), 1).lost(), 0, "{from} to {to}");
        }
    }
    let mut taps = taps(hosts, &[]);
    assert_flooded(&mut taps, |tap| {
        let (own, [from, to]) = (tap.mac(), [8, 9].map(Segment::v4));
        vec![
            Frame::unknown(MacAddr::BROADCAST, own, b"to all"),
            Frame::unknown(MULTICAST, own, b"to many"),
            Frame::unknown(NOBODY, own, b"to nobody"),
            Frame::ethernet(MacAddr::BROADCAST, own, 0x88b6, b"the type of the firewall test"),
            Frame::arp_request(own, from, to),
            Frame::udp(NOBODY, own, (from, 1).into(), (to, 2).into(), b"to nobody"),
            Frame::ethernet(NOT_LINK_LOCAL, own, LLDP, b"like LLDP"),
        ]
    });
    for host in hosts {
        for verdict in ["no-next-hop", "copy-failed", "unknown-source", "own-source"] {
            assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
        }
    }
    agents.into_iter().for_each(Agent::stop);
    lab.assert_no_xdp_errors(hosts);
}

/// Three hosts on a switch with a tap on each.
fn three(lab: &Lab, args: &[&str], file: Option<File<'_>>) -> ([Host; 3], Vec<Agent>, [Tap; 3]) {
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let agents = Segment { nodes: &hosts, plain: &[], args, file }.up(lab);
    let taps = taps(&hosts, &[]).try_into().expect("three");
    (hosts, agents, taps)
}

/// How often a frame from the first tap arrives at each of the others.
#[track_caller]
fn arrivals([a, b, c]: &mut [Tap; 3], frame: &Frame) -> [usize; 2] {
    a.send(frame);
    let marker = a.send_marker(a.mac());
    [b, c].map(|tap| tap.count_until(frame, &marker, LIMIT))
}

/// The station speaks through this tap, and the first one hears it.
#[track_caller]
fn speak([a, b, c]: &mut [Tap; 3], place: usize) {
    let hello = Frame::unknown(a.mac(), STATION, b"here I am");
    [b, c][place - 1].send(&hello);
    a.wait_frame("the station", LIMIT, |frame| frame.is_padded(&hello));
}

#[test]
fn a_mac_that_moves_is_followed_at_its_first_frame() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("move");
        let (hosts, _agents, mut taps) = three(&lab, &["--mode", mode], None);
        let frame = Frame::unknown(STATION, taps[0].mac(), b"to the station");
        assert_eq!(arrivals(&mut taps, &frame), [1, 1], "unknown");
        for (moves, (place, expected)) in [(1, [1, 0]), (2, [0, 1]), (1, [1, 0])].into_iter().enumerate() {
            speak(&mut taps, place);
            assert_eq!(arrivals(&mut taps, &frame), expected, "{mode}: after {moves} moves");
            let row = hosts[0].mac_row(STATION).expect("the station");
            assert_eq!(row["moves"].as_u64(), Some(moves as u64), "{row}");
            assert_eq!(row["peer"], hosts[place].address().to_string(), "{row}");
        }
        assert_eq!(hosts[0].counter("moved"), 2);
    }
}

#[test]
fn an_aged_mac_is_flooded_again() {
    let lab = Lab::new("age");
    let file = File { underlay: "fdb-age = \"1s\"", network: "", ..File::default() };
    let (hosts, _agents, mut taps) = three(&lab, &[], Some(file));
    let frame = Frame::unknown(STATION, taps[0].mac(), b"to the station");
    speak(&mut taps, 1);
    assert_eq!(arrivals(&mut taps, &frame), [1, 0]);
    wait_for("the station is forgotten", LIMIT, || {
        hosts[0].mac_row(STATION).map_or(Ok(()), |row| Err(row.to_string()))
    });
    assert_eq!(arrivals(&mut taps, &frame), [1, 1]);
}

#[test]
fn a_static_mac_is_never_learned_over() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("static");
        let network = format!("[[network.mac]]\nmac = \"{STATION}\"\nnode = \"b\"");
        let file = File { underlay: "", network: &network, ..File::default() };
        let (hosts, _agents, mut taps) = three(&lab, &["--mode", mode], Some(file));
        let frame = Frame::unknown(STATION, taps[0].mac(), b"to the station");
        assert_eq!(arrivals(&mut taps, &frame), [1, 0], "before it has spoken");
        // It is delivered all the same.
        speak(&mut taps, 2);
        assert_eq!(arrivals(&mut taps, &frame), [1, 0], "{mode}: after another has spoken in its name");
        assert_eq!(hosts[0].counter("static-elsewhere"), 1);
        let row = hosts[0].mac_row(STATION).expect("the static entry");
        assert_eq!((&row["peer"], &row["is_static"]), (&"b".into(), &true.into()));
    }
}

/// Sent frames of 01:80:c2:00:00:0x: not carried, or carried, as configured.
#[test]
fn link_local_groups_are_carried_only_if_asked_for() {
    for (network, expected) in [("", 0), ("link-local = true", 1)] {
        let lab = Lab::new("link-local");
        let file = File { underlay: "", network, ..File::default() };
        let (hosts, _agents, mut taps) = three(&lab, &[], Some(file));
        let frame = Frame::lldp(taps[0].mac(), b"a neighbour");
        assert_eq!(arrivals(&mut taps, &frame), [expected; 2], "{network:?}");
        assert_eq!(hosts[0].counter("link-local"), 1 - expected as u64);
    }
}

/// A plain member does carry them: they are refused where they arrive.
#[test]
fn link_local_groups_from_a_plain_member() {
    for (mode, network, expected) in [("tc", "", 0), ("xdp", "", 0), ("tc", "link-local = true", 1)] {
        let lab = Lab::new("link-local received");
        let [a, b] = lab.switch(["a", "b"], &Wiring::default());
        let (nodes, plain, args) = ([a.clone()], [b.clone()], ["--mode", mode]);
        let segment = Segment {
            nodes: &nodes,
            plain: &plain,
            args: &args,
            file: Some(File { underlay: "", network, ..File::default() }),
        };
        let _agents = segment.up(&lab);
        segment.plain_up(&VxlanOptions::default());
        let mut taps = taps(&nodes, &plain);
        let frame = Frame::lldp(taps[1].mac(), b"a neighbour");
        taps[1].send(&frame);
        let marker = taps[1].send_marker(taps[1].mac());
        assert_eq!(taps[0].count_until(&frame, &marker, LIMIT), expected, "{mode} {network:?}");
        assert_eq!(a.counter("link-local-received"), 1 - expected as u64, "{mode} {network:?}");
    }
}

#[test]
fn two_vlan_tags_are_carried_and_three_counted() {
    let lab = Lab::new("tagged");
    let (hosts, _agents, mut taps) = three(&lab, &[], None);
    let frame = Frame::unknown(MacAddr::BROADCAST, taps[0].mac(), b"tagged").tagged(7);
    assert_eq!(arrivals(&mut taps, &frame), [1, 1]);
    let frame = frame.tagged_as(0x88a8, 8);
    assert_eq!(arrivals(&mut taps, &frame), [1, 1]);
    assert_eq!(arrivals(&mut taps, &frame.tagged_as(0x88a8, 9)), [0, 0]);
    assert_eq!(hosts[0].counter("vlan-depth"), 1);
}
