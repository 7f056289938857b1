//! Every frame's fate, as tables: a frame in, return code and counter and frame out. The pinned programs of a live
//! attach run under `BPF_PROG_TEST_RUN` with its real tables.

use std::collections::BTreeMap;
use std::time::Duration;

use l2mesh_common::tables::Metadata;
use l2mesh_common::verdict::Verdict;
use l2mesh_tests::fates::{Fate, KNOWN, Mesh, Row, STRANGER, TC_ACT_REDIRECT, TC_ACT_SHOT, check_tc, check_xdp, only};
use l2mesh_tests::{Family, Frame, MacAddr, Tap, wait_for};

const MTU: usize = 1450;
const LIMIT: Duration = Duration::from_secs(5);

fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a constant")
}

fn udp4(to: MacAddr, from: MacAddr, payload: &[u8]) -> Frame {
    Frame::udp(to, from, text("10.8.0.2:1000"), text("10.8.0.1:2000"), payload)
}

fn udp6(to: MacAddr, from: MacAddr, payload: &[u8]) -> Frame {
    Frame::udp(to, from, text("[fd00::2]:1000"), text("[fd00::1]:2000"), payload)
}

/// The same with another protocol in the IP header.
fn tcp(frame: &Frame) -> Frame {
    let mut octets = frame.octets().to_vec();
    octets[if frame.ether_type() == 0x0800 { 23 } else { 20 }] = 6;
    Frame::raw(octets)
}

/// Frames that are carried over either IP version, whatever they are.
fn good(to: MacAddr, from: MacAddr) -> Vec<(&'static str, Frame)> {
    let [first, second] = ["10.8.0.1", "10.8.0.2"].map(text);
    vec![
        ("ARP request", Frame::arp_request(from, second, first).padded(60)),
        ("ARP request, short", Frame::arp_request(from, second, first)),
        ("ARP reply", Frame::arp_reply(from, second, to, first)),
        ("IPv4", udp4(to, from, b"payload")),
        ("IPv4, empty", udp4(to, from, b"")),
        ("IPv4, longest", udp4(to, from, &vec![7; MTU - 48])),
        ("IPv6", udp6(to, from, b"payload")),
        ("unknown type", Frame::unknown(to, from, &[1; 46])),
        ("unknown type, odd length", Frame::unknown(to, from, &[1; 47])),
        ("unknown type, short", Frame::unknown(to, from, &[1; 21])),
        ("a tag", udp4(to, from, b"payload").tagged(5)),
        ("a tag and IPv6", udp6(to, from, b"payload").tagged(0xe005)),
        ("a tag for its priority", udp4(to, from, b"payload").tagged(0x2000)),
        ("a tag and ARP", Frame::arp_reply(from, second, to, first).tagged(5)),
        ("two tags", udp4(to, from, b"payload").tagged(5).tagged_as(0x88a8, 6)),
    ]
}

/// What both IP versions have in common.
fn rows(mesh: &Mesh) -> Vec<Row> {
    use Fate::{Delivered, Dropped, Passed};
    let at = mesh.at();
    let own = mesh.a().mac("l2m10");
    let mut rows = Vec::new();
    let mut add = |name: &str, frame: Vec<u8>, tc, xdp| rows.push((name.to_owned(), frame, tc, xdp));
    for (name, inner) in good(own, STRANGER) {
        // Behind two tags nobody looks for TCP: all goes one way.
        let tc = if name.starts_with("two tags") { Passed(Verdict::HandedToHelper) } else { Delivered };
        add(name, mesh.wrap(&inner), tc, Delivered);
        let mut summed = mesh.wrap(&inner);
        summed[at.udp + 6..at.udp + 8].copy_from_slice(&[0x12, 0x34]);
        add(&format!("{name} with an outer checksum"), summed, tc, Delivered);
    }
    for (name, inner) in [
        ("TCP", tcp(&udp4(own, STRANGER, &[0; 20]))),
        ("TCP in IPv6", tcp(&udp6(own, STRANGER, &[0; 20]))),
        ("TCP behind a tag", tcp(&udp4(own, STRANGER, &[0; 20])).tagged(5)),
        ("TCP in IPv6 behind a tag", tcp(&udp6(own, STRANGER, &[0; 20])).tagged(5)),
        // The kernel's helper refuses so little: its own receive path takes it.
        ("a short payload", Frame::unknown(own, STRANGER, &[1; 19])),
        ("no payload", Frame::unknown(own, STRANGER, b"")),
    ] {
        add(name, mesh.wrap(&inner), Passed(Verdict::HandedToHelper), Delivered);
    }
    let base = mesh.wrap(&udp4(own, STRANGER, b"payload"));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = base.clone();
        change(&mut frame);
        frame
    };
    let mut both = |name: &str, fate: Fate, change: &dyn Fn(&mut Vec<u8>)| add(name, changed(change), fate, fate);
    both("UDP length of a VXLAN header", Dropped(Verdict::Truncated), &|f| f[at.udp + 5] = 29);
    both("UDP length over IP's", Dropped(Verdict::Truncated), &|f| f[at.udp + 5] += 1);
    both("no I flag", Dropped(Verdict::NoVniFlag), &|f| f[at.vxlan] = 0);
    both("every flag but I", Dropped(Verdict::NoVniFlag), &|f| f[at.vxlan] = 0xf7);
    for bit in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40, 0x80] {
        both(&format!("reserved flag {bit:#x}"), Dropped(Verdict::ReservedBits), &|f| f[at.vxlan] |= bit);
    }
    for octet in [1, 2, 3, 7] {
        both(&format!("reserved octet {octet}"), Dropped(Verdict::ReservedBits), &|f| f[at.vxlan + octet] = 1);
    }
    both("not a member of another network", Dropped(Verdict::NotMember), &|f| f[at.vxlan + 6] = 17);
    both("group source", Dropped(Verdict::GroupSource), &|f| f[at.inner + 6] |= 1);
    both("broadcast source", Dropped(Verdict::GroupSource), &|f| f[at.inner + 6..at.inner + 12].fill(0xff));
    both("zero source", Dropped(Verdict::GroupSource), &|f| f[at.inner + 6..at.inner + 12].fill(0));
    both("own source", Dropped(Verdict::OwnSource), &|f| f[at.inner + 6..at.inner + 12].copy_from_slice(&own.0));
    for last in [0, 0xf] {
        both("link-local", Dropped(Verdict::LinkLocalReceived), &|f| {
            f[at.inner..at.inner + 6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, last]);
        });
    }
    both("another group", Delivered, &|f| f[at.inner..at.inner + 6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0x10]));
    both("another VNI", Passed(Verdict::OtherVni), &|f| f[at.vxlan + 6] = 99);
    both("another VNI, all bits", Passed(Verdict::OtherVni), &|f| f[at.vxlan + 4..at.vxlan + 7].fill(0xff));
    both("VNI 0", Passed(Verdict::OtherVni), &|f| f[at.vxlan + 6] = 0);
    both("another port", Passed(Verdict::NotVxlan), &|f| f[at.udp + 3] += 1);
    both("ARP outside", Passed(Verdict::NotVxlan), &|f| f[12..14].copy_from_slice(&[8, 6]));
    both("a tag outside", Passed(Verdict::NotVxlan), &|f| {
        f.splice(12..12, [0x81, 0, 0, 5]);
    });
    rows.extend(match mesh.families[0] {
        Family::V4 => rows_over_ipv4(mesh, &base),
        Family::V6 => rows_over_ipv6(mesh, &base),
    });
    rows
}

/// What is wrong in an IPv4 header.
fn rows_over_ipv4(mesh: &Mesh, base: &[u8]) -> Vec<Row> {
    use Fate::{Dropped, Passed};
    let at = mesh.at();
    let mut rows = Vec::new();
    let mut both = |name: &str, fate: Fate, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = base.to_vec();
        change(&mut frame);
        rows.push((name.to_owned(), frame, fate, fate));
    };
    // Not even the shortest inner frame, though the lengths are right.
    for (name, inner) in [("nothing inside", 0), ("half a header inside", 13)] {
        both(name, Dropped(Verdict::Truncated), &|f| {
            f.truncate(at.inner + inner);
            let [packet, datagram] =
                [f.len() - at.ip, f.len() - at.udp].map(|it| u16::try_from(it).expect("short").to_be_bytes());
            f[at.ip + 2..at.ip + 4].copy_from_slice(&packet);
            f[at.udp + 4..at.udp + 6].copy_from_slice(&datagram);
        });
    }
    both("IP length over the frame's", Dropped(Verdict::Truncated), &|f| f[at.ip + 3] += 1);
    both("IP version 5", Dropped(Verdict::BadIpHeader), &|f| f[at.ip] = 0x55);
    both("IP version 0", Dropped(Verdict::BadIpHeader), &|f| f[at.ip] = 0x05);
    both("IP header of 16", Dropped(Verdict::BadIpHeader), &|f| f[at.ip] = 0x44);
    both("IP header of 0", Dropped(Verdict::BadIpHeader), &|f| f[at.ip] = 0x40);
    both("unknown source", Dropped(Verdict::UnknownSource), &|f| f[at.ip + 15] = 99);
    both("own address as source", Dropped(Verdict::UnknownSource), &|f| f[at.ip + 15] = 10);
    both("not a member", Dropped(Verdict::NotMember), &|f| f[at.ip + 15] = 12);
    both("another VNI from a stranger", Passed(Verdict::OtherVni), &|f| (f[at.vxlan + 6], f[at.ip + 15]) = (99, 99));
    both("first fragment", Passed(Verdict::Fragment), &|f| f[at.ip + 6] = 0x20);
    both("last fragment", Passed(Verdict::Fragment), &|f| f[at.ip + 7] = 1);
    both("IP options", Passed(Verdict::IpOptions), &|f| f[at.ip] = 0x46);
    both("another destination", Passed(Verdict::NotVxlan), &|f| f[at.ip + 19] = 99);
    both("TCP outside", Passed(Verdict::NotVxlan), &|f| f[at.ip + 9] = 6);
    both("IPv6 outside, version 4", Dropped(Verdict::BadIpHeader), &|f| f[12..14].copy_from_slice(&[0x86, 0xdd]));
    rows
}

/// What is wrong in an IPv6 header.
fn rows_over_ipv6(mesh: &Mesh, base: &[u8]) -> Vec<Row> {
    use Fate::{Delivered, Dropped, Passed};
    let at = mesh.at();
    let (length, next_header, source, destination) = (at.ip + 4, at.ip + 6, at.ip + 8, at.ip + 24);
    let mut rows = Vec::new();
    let mut both = |name: &str, fate: Fate, change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = base.to_vec();
        change(&mut frame);
        rows.push((name.to_owned(), frame, fate, fate));
    };
    for (name, inner) in [("nothing inside", 0), ("half a header inside", 13)] {
        both(name, Dropped(Verdict::Truncated), &|f| {
            f.truncate(at.inner + inner);
            let datagram = u16::try_from(f.len() - at.udp).expect("short").to_be_bytes();
            f[length..length + 2].copy_from_slice(&datagram);
            f[at.udp + 4..at.udp + 6].copy_from_slice(&datagram);
        });
    }
    both("IP length over the frame's", Dropped(Verdict::Truncated), &|f| f[length + 1] += 1);
    both("jumbo payload", Dropped(Verdict::Truncated), &|f| f[length..length + 2].fill(0));
    for version in [0, 4, 5, 7, 15] {
        let name = format!("IP version {version}");
        both(&name, Dropped(Verdict::BadIpHeader), &|f| f[at.ip] = version << 4 | f[at.ip] & 0x0f);
    }
    both("traffic class and flow label", Delivered, &|f| {
        f[at.ip..at.ip + 4].copy_from_slice(&[0x6b, 0x8f, 0xff, 0xff]);
    });
    both("hop limit 1", Delivered, &|f| f[at.ip + 7] = 1);
    both("fragment", Passed(Verdict::Fragment), &|f| f[next_header] = 44);
    // Hop-by-hop options, TCP, routing, ESP, AH, ICMP, nothing, destination options, mobility: what stands behind is the kernel's.
    for other in [0, 6, 43, 50, 51, 58, 59, 60, 135] {
        both(&format!("next header {other}"), Passed(Verdict::NotVxlan), &|f| f[next_header] = other);
    }
    both("unknown source", Dropped(Verdict::UnknownSource), &|f| f[source + 15] = 99);
    both("own address as source", Dropped(Verdict::UnknownSource), &|f| f[source + 15] = 10);
    both("no source", Dropped(Verdict::UnknownSource), &|f| f[source..source + 16].fill(0));
    both("not a member", Dropped(Verdict::NotMember), &|f| f[source + 15] = 12);
    both("another VNI from a stranger", Passed(Verdict::OtherVni), &|f| (f[at.vxlan + 6], f[source + 15]) = (99, 99));
    both("another destination", Passed(Verdict::NotVxlan), &|f| f[destination + 15] = 99);
    both("a group as destination", Passed(Verdict::NotVxlan), &|f| f[destination..destination + 2].fill(0xff));
    both("IPv4 outside, version 6", Dropped(Verdict::BadIpHeader), &|f| f[12..14].copy_from_slice(&[8, 0]));
    rows
}

#[test]
fn frames_from_the_underlay_over_ipv4() {
    frames_from_the_underlay(&Mesh::new());
}

#[test]
fn frames_from_the_underlay_over_ipv6() {
    frames_from_the_underlay(&Mesh::over([Family::V6; 2], "xdp"));
}

fn frames_from_the_underlay(mesh: &Mesh) {
    let (pinned, at) = (&mesh.pinned, mesh.at());
    let peers = mesh.a().l2mesh(&["maps", "peers", "--json"]);
    let peer = peers["peers"].as_array().into_iter().flatten().find(|peer| peer["name"] == "b").expect("b is a peer");
    let id = u32::try_from(peer["id"].as_u64().expect("a number")).expect("a small one");
    let mark = Metadata::new(16, id);
    for (name, frame, tc, xdp) in rows(mesh) {
        check_tc(&name, &pinned.run_tc("underlay_tc", 0, &frame), &frame, at.inner, tc);
        check_xdp(&name, &pinned.run_xdp("underlay_xdp", &frame), &frame, at.inner, xdp, bytemuck::bytes_of(&mark));
    }
    let macs = mesh.a().l2mesh(&["maps", "macs", "--vni", "16", "--json"]);
    let learned: Vec<_> =
        macs["macs"].as_array().into_iter().flatten().filter(|mac| mac["is_static"] == false).collect();
    assert_eq!(learned.len(), 1, "{learned:?}");
    assert_eq!((&learned[0]["mac"], &learned[0]["peer"]), (&STRANGER.to_string().into(), &"b".into()));
}

/// The tables have IPv4 peers in IPv6 form: a packet with such a source is a stranger's all the same.
#[test]
fn an_ipv4_peer_in_ipv6_form_is_a_stranger() {
    let mesh = Mesh::over([Family::V4, Family::V6], "xdp");
    let (b, own) = (&mesh.hosts[1], mesh.a().mac("l2m10"));
    let inner = udp4(own, STRANGER, b"payload");
    let [near, far] = [b, mesh.a()].map(|host| (host.address6(), host.address().to_ipv6_mapped()));
    for (from, expected) in [(near.1, Verdict::UnknownSource), (near.0, Verdict::UnknownSource)] {
        let vxlan = [&[8, 0, 0, 0, 0, 0, 16, 0], inner.octets()].concat();
        let frame =
            Frame::udp(mesh.a().mac("eth0"), b.mac("eth0"), (from, 50_000).into(), (far.0, 4789).into(), &vxlan);
        let (name, frame) = (from.to_string(), frame.octets());
        let run = mesh.pinned.run_tc("underlay_tc", 0, frame);
        check_tc(&name, &run, frame, 70, Fate::Dropped(expected));
        let run = mesh.pinned.run_xdp("underlay_xdp", frame);
        check_xdp(&name, &run, frame, 70, Fate::Dropped(expected), &[]);
    }
}

/// `TEST_RUN` takes no frame of less than 14 octets, which are left to the property tests of the parser, and at TC no
/// IP frame of less than its header, which the next test sends.
#[test]
fn truncated_at_every_length() {
    for family in [Family::V4, Family::V6] {
        let mesh = Mesh::over([family; 2], "xdp");
        let at = mesh.at();
        let whole = mesh.wrap(&udp4(mesh.a().mac("l2m10"), STRANGER, &[9; 28]));
        assert_eq!(whole.len(), at.inner + 70);
        for length in 14..=whole.len() {
            let fate = if length == whole.len() { Fate::Delivered } else { Fate::Dropped(Verdict::Truncated) };
            let (name, frame) = (format!("{length} octets over {family:?}"), &whole[..length]);
            if length >= at.udp {
                check_tc(&name, &mesh.pinned.run_tc("underlay_tc", 0, frame), frame, at.inner, fate);
            }
            let run = mesh.pinned.run_xdp("underlay_xdp", frame);
            check_xdp(&name, &run, frame, at.inner, fate, &run.metadata);
        }
    }
}

/// What `TEST_RUN` refuses, on the wire: the XDP program is not there.
#[test]
fn truncated_in_the_ip_header() {
    for family in [Family::V4, Family::V6] {
        let mesh = Mesh::over([family; 2], "tc");
        let at = mesh.at();
        let whole = mesh.wrap(&udp4(mesh.a().mac("l2m10"), STRANGER, b"payload"));
        let b = Tap::open(&mesh.hosts[1], "eth0");
        let truncated = || mesh.pinned.counters()[Verdict::Truncated.label()];
        for (length, before) in (at.ip..at.udp).zip(0..) {
            assert_eq!(truncated(), before);
            b.send(&Frame::raw(&whole[..length]));
            let is_counted = || if truncated() > before { Ok(()) } else { Err("none".into()) };
            wait_for(&format!("{length} octets over {family:?}"), LIMIT, is_counted);
        }
    }
}

#[test]
fn frames_from_the_overlay() {
    use Verdict::{LinkLocal, NoNetwork, NoPeers, SentGroupSource, TooBig};
    let mesh = Mesh::new();
    let (a, pinned) = (mesh.a(), &mesh.pinned);
    let [hidden, alone, eth0] = ["l2p10", "l2p13", "eth0"].map(|name| mesh.index(name));
    let own = a.mac("l2m10");
    for (name, ifindex, frame, verdict) in [
        ("group source", hidden, udp4(KNOWN, MacAddr::BROADCAST, b"x"), SentGroupSource),
        ("zero source", hidden, udp4(KNOWN, MacAddr::ZERO, b"x"), SentGroupSource),
        ("LLDP", hidden, Frame::lldp(own, b"x"), LinkLocal),
        ("too big, of unknown type", hidden, Frame::unknown(KNOWN, own, &vec![7; MTU + 1]), TooBig),
        ("no network", eth0, udp4(KNOWN, own, b"x"), NoNetwork),
        ("no peers", alone, udp4(KNOWN, own, b"x"), NoPeers),
    ] {
        let run = pinned.run_tc("overlay_tc", ifindex, frame.octets());
        assert_eq!((run.code, &run.counted), (TC_ACT_SHOT, &only(verdict)), "{name}");
        assert_eq!(run.frame, frame.octets(), "{name}");
    }
}

/// Every octet of what goes to one peer, of every kind of frame.
#[test]
fn encapsulated_to_the_octet() {
    for family in [Family::V4, Family::V6] {
        let mesh = Mesh::over([family; 2], "xdp");
        let (hidden, own) = (mesh.index("l2p10"), mesh.a().mac("l2m10"));
        for (name, frame) in good(KNOWN, own).iter().filter(|(_, frame)| frame.destination() == KNOWN) {
            let run = mesh.pinned.run_tc("overlay_tc", hidden, frame.octets());
            assert_eq!((run.code, &run.counted), (TC_ACT_REDIRECT, &only(Verdict::Sent)), "{name} over {family:?}");
            assert_eq!(run.frame, mesh.encapsulated(1, 16, frame, &run.frame), "{name} over {family:?}");
        }
    }
}

/// The outer source port is the same for a flow whatever its lengths, and in the range of RFC 7348.
#[test]
fn one_flow_one_port() {
    let mesh = Mesh::new();
    let (hidden, udp) = (mesh.index("l2p10"), mesh.at().udp);
    let port = |frame: &Frame| {
        let run = mesh.pinned.run_tc("overlay_tc", hidden, frame.octets());
        u16::from_be_bytes([run.frame[udp], run.frame[udp + 1]])
    };
    for make in [udp4, udp6] {
        let ports = [0, 1, 500, 1400].map(|length| port(&make(KNOWN, STRANGER, &vec![1; length])));
        assert!(ports.iter().all(|it| *it == ports[0] && *it >= 49152), "{ports:?}");
        assert_ne!(port(&tcp(&make(KNOWN, STRANGER, b"text"))), ports[0], "another flow");
    }
}

/// The copies but the last really leave; the last is the frame itself. With both IP versions, the one whose header goes on
/// first has all its copies made.
#[test]
fn flooded_to_every_member() {
    for families in
        [[Family::V4, Family::V4], [Family::V6, Family::V6], [Family::V4, Family::V6], [Family::V6, Family::V4]]
    {
        let mesh = Mesh::over(families, "xdp");
        let hidden = mesh.index("l2p12");
        let own = mesh.a().mac("l2m12");
        let mut taps = [1, 2].map(|host: usize| Tap::open(&mesh.hosts[host], "eth0"));
        let sender = Tap::open(mesh.a(), "eth0");
        for (name, frame) in good(MacAddr::BROADCAST, own).into_iter().chain(good(STRANGER, own)) {
            let what = format!("{name} over {families:?}");
            let run = mesh.pinned.run_tc("overlay_tc", hidden, frame.octets());
            let counted = BTreeMap::from([(Verdict::Flooded.label(), 1), (Verdict::FloodCopies.label(), 2)]);
            assert_eq!((run.code, &run.counted), (TC_ACT_REDIRECT, &counted), "{what}");
            let marker = sender.send_marker(sender.mac());
            // The hosts' own multicast reports are on the wire too, and probes, which have another flag.
            let is_copy = |frame: &Frame| {
                let is_vxlan = |&udp: &usize| {
                    let octets = frame.octets();
                    octets.get(udp + 2..udp + 4) == Some(&4789_u16.to_be_bytes()) && octets.get(udp + 8) == Some(&8)
                };
                [34, 54].iter().any(is_vxlan)
            };
            let copies: Vec<Vec<Frame>> = taps
                .iter_mut()
                .map(|tap| tap.until(&marker, LIMIT).into_iter().map(|it| it.frame))
                .map(|frames| frames.filter(is_copy).collect())
                .collect();
            let left: Vec<usize> = (1..=2).filter(|host| !copies[host - 1].is_empty()).collect();
            let [copied] = left[..] else { panic!("{what}: {copies:?}") };
            let [copy] = &copies[copied - 1][..] else { panic!("{what}: {copies:?}") };
            assert_eq!(copy.octets(), mesh.encapsulated(copied, 18, &frame, copy.octets()), "{what}: the first copy");
            let last = 3 - copied;
            assert_eq!(run.frame, mesh.encapsulated(last, 18, &frame, &run.frame), "{what}: the last copy");
        }
    }
}

#[test]
fn programs_are_small() {
    let mesh = Mesh::new();
    let programs = mesh.pinned.programs();
    let names: Vec<&str> = programs.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["helper_tc", "overlay_egress", "overlay_tc", "self_test_tc", "too_big_tc", "underlay_tc", "underlay_xdp"]
    );
    for (name, program) in programs {
        let count = program.verified_instruction_count().expect("Linux 5.16 tells");
        println!("{name}: {count} instructions verified");
        assert!(count > 0 && count < 50_000, "{name}: {count}");
    }
}
