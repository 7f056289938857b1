//! Every frame's fate, as tables: a frame in, return code and counter and frame out. The pinned programs of a live
//! attach run under `BPF_PROG_TEST_RUN` with its real tables.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use l2mesh_common::tables::Metadata;
use l2mesh_common::verdict::Verdict;
use l2mesh_common::wire::{Endpoint, EtherType, EthernetHeader, HeadersV4, PerFrame, Template, Vni};
use l2mesh_tests::pinned::{Pinned, Run};
use l2mesh_tests::{Agent, Frame, Host, Lab, MacAddr, Tap, Wiring, wait_for};

// linux/pkt_cls.h, linux/bpf.h.
const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// Where things stand in a frame of VXLAN over IPv4.
const IP: usize = 14;
const UDP: usize = 34;
const VXLAN: usize = 42;
const INNER: usize = 50;

/// Behind b, as the configuration says.
const KNOWN: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xb]);
/// Behind b, as nothing says.
const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xc]);
const MTU: usize = 1450;
const LIMIT: Duration = Duration::from_secs(5);

/// Three nodes. Only a runs; network 16 is a's and b's, 17 a's and c's, 18 everyone's, 19 a's alone.
struct Mesh {
    hosts: [Host; 3],
    pinned: Pinned,
    _agent: Agent,
    _lab: Lab,
}

impl Mesh {
    fn new() -> Self {
        Self::in_mode("xdp")
    }

    fn in_mode(mode: &str) -> Self {
        let lab = Lab::new("datapath");
        let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
        let a = &hosts[0];
        // No frames but those of the test.
        a.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let node = |host: &Host| format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\n", host.name(), host.address());
        let network = |(vni, members)| format!("[[network]]\nname = \"n{vni}\"\nvni = {vni}\nmembers = [{members}]\n");
        let others = [(17, r#""a", "c""#), (18, r#""a", "b", "c""#), (19, r#""a""#)].map(network).concat();
        let known = format!("[[network.mac]]\nmac = \"{KNOWN}\"\nnode = \"b\"\n");
        let config = hosts.each_ref().map(node).concat() + &network((16, r#""a", "b""#)) + &known + &others;
        let file = lab.directory().join("mesh.toml");
        fs::write(&file, config).expect("a file in the lab's directory");
        let agent = a.attach(&["--config", &file.display().to_string(), "--mode", mode]);
        let pinned = a.pinned("eth0");
        Self { pinned, hosts, _agent: agent, _lab: lab }
    }

    fn a(&self) -> &Host {
        &self.hosts[0]
    }

    /// The number of one of a's interfaces.
    fn index(&self, name: &str) -> u32 {
        self.a().link(name)["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok()).expect("an index")
    }

    /// As b would send it in network 16.
    fn wrap(&self, inner: &Frame) -> Vec<u8> {
        let [a, b, _] = &self.hosts;
        let vxlan = [&[8, 0, 0, 0, 0, 0, 16, 0], inner.octets()].concat();
        let (from, to) = (SocketAddr::new(b.address().into(), 50_000), SocketAddr::new(a.address().into(), 4789));
        let mut frame = Frame::udp(a.mac("eth0"), b.mac("eth0"), from, to, &vxlan).octets().to_vec();
        frame[UDP + 6..UDP + 8].fill(0);
        frame
    }
}

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

/// Frames that are carried, whatever they are.
fn good(to: MacAddr, from: MacAddr) -> Vec<(&'static str, Frame)> {
    let [first, second] = ["10.8.0.1", "10.8.0.2"].map(text);
    vec![
        ("ARP request", Frame::arp_request(from, second, first).padded(60)),
        ("ARP reply", Frame::arp_reply(from, second, to, first)),
        ("IPv4", udp4(to, from, b"payload")),
        ("IPv4, empty", udp4(to, from, b"")),
        ("IPv4, longest", udp4(to, from, &vec![7; MTU - 28])),
        ("IPv6", udp6(to, from, b"payload")),
        ("unknown type", Frame::unknown(to, from, &[1; 46])),
        ("unknown type, odd length", Frame::unknown(to, from, &[1; 47])),
        ("a tag", udp4(to, from, b"payload").tagged(5)),
        ("two tags", udp4(to, from, b"payload").tagged(5).tagged_as(0x88a8, 6)),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Delivered without its outer header.
    Delivered,
    /// Ended, and counted.
    Dropped(Verdict),
    /// On to the host's stack as it came, and counted.
    Passed(Verdict),
}

/// Name, frame, fate in TC, fate in XDP.
type Row = (String, Vec<u8>, Fate, Fate);

fn rows(mesh: &Mesh) -> Vec<Row> {
    use Fate::{Delivered, Dropped, Passed};
    let a = mesh.a();
    let own = a.mac("l2m10");
    let mut rows = Vec::new();
    let mut add = |name: &str, frame: Vec<u8>, tc, xdp| rows.push((name.to_owned(), frame, tc, xdp));
    for (name, inner) in good(own, STRANGER) {
        // Behind two tags nobody looks for TCP: all goes one way.
        let tc = if name.starts_with("two tags") { Passed(Verdict::HandedToHelper) } else { Delivered };
        add(name, mesh.wrap(&inner), tc, Delivered);
        let mut summed = mesh.wrap(&inner);
        summed[UDP + 6..UDP + 8].copy_from_slice(&[0x12, 0x34]);
        add(&format!("{name} with an outer checksum"), summed, tc, Delivered);
    }
    for (name, inner) in [
        ("TCP", tcp(&udp4(own, STRANGER, &[0; 20]))),
        ("TCP in IPv6", tcp(&udp6(own, STRANGER, &[0; 20]))),
        ("TCP behind a tag", tcp(&udp4(own, STRANGER, &[0; 20])).tagged(5)),
        ("TCP in IPv6 behind a tag", tcp(&udp6(own, STRANGER, &[0; 20])).tagged(5)),
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
    // Not even the shortest inner frame, though the lengths are right.
    for (name, inner) in [("nothing inside", 0), ("half a header inside", 13)] {
        both(name, Dropped(Verdict::Truncated), &|f| {
            f.truncate(INNER + inner);
            let [packet, datagram] =
                [f.len() - IP, f.len() - UDP].map(|it| u16::try_from(it).expect("short").to_be_bytes());
            f[IP + 2..IP + 4].copy_from_slice(&packet);
            f[UDP + 4..UDP + 6].copy_from_slice(&datagram);
        });
    }
    both("IP length over the frame's", Dropped(Verdict::Truncated), &|f| f[IP + 3] += 1);
    both("UDP length over IP's", Dropped(Verdict::Truncated), &|f| f[UDP + 5] += 1);
    both("UDP length of a VXLAN header", Dropped(Verdict::Truncated), &|f| f[UDP + 5] = 29);
    both("IP version 5", Dropped(Verdict::BadIpHeader), &|f| f[IP] = 0x55);
    both("IP version 0", Dropped(Verdict::BadIpHeader), &|f| f[IP] = 0x05);
    both("IP header of 16", Dropped(Verdict::BadIpHeader), &|f| f[IP] = 0x44);
    both("IP header of 0", Dropped(Verdict::BadIpHeader), &|f| f[IP] = 0x40);
    both("no I flag", Dropped(Verdict::NoVniFlag), &|f| f[VXLAN] = 0);
    both("every flag but I", Dropped(Verdict::NoVniFlag), &|f| f[VXLAN] = 0xf7);
    for bit in [0x01, 0x02, 0x04, 0x10, 0x20, 0x40, 0x80] {
        both(&format!("reserved flag {bit:#x}"), Dropped(Verdict::ReservedBits), &|f| f[VXLAN] |= bit);
    }
    for octet in [1, 2, 3, 7] {
        both(&format!("reserved octet {octet}"), Dropped(Verdict::ReservedBits), &|f| f[VXLAN + octet] = 1);
    }
    both("unknown source", Dropped(Verdict::UnknownSource), &|f| f[IP + 15] = 99);
    both("own address as source", Dropped(Verdict::UnknownSource), &|f| f[IP + 15] = 10);
    both("not a member", Dropped(Verdict::NotMember), &|f| f[IP + 15] = 12);
    both("not a member of another network", Dropped(Verdict::NotMember), &|f| f[VXLAN + 6] = 17);
    both("group source", Dropped(Verdict::GroupSource), &|f| f[INNER + 6] |= 1);
    both("broadcast source", Dropped(Verdict::GroupSource), &|f| f[INNER + 6..INNER + 12].fill(0xff));
    both("zero source", Dropped(Verdict::GroupSource), &|f| f[INNER + 6..INNER + 12].fill(0));
    both("own source", Dropped(Verdict::OwnSource), &|f| f[INNER + 6..INNER + 12].copy_from_slice(&own.0));
    for last in [0, 0xf] {
        both("link-local", Dropped(Verdict::LinkLocalReceived), &|f| {
            f[INNER..INNER + 6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, last]);
        });
    }
    both("another group", Delivered, &|f| f[INNER..INNER + 6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0x10]));
    both("another VNI", Passed(Verdict::OtherVni), &|f| f[VXLAN + 6] = 99);
    both("another VNI, all bits", Passed(Verdict::OtherVni), &|f| f[VXLAN + 4..VXLAN + 7].fill(0xff));
    both("VNI 0", Passed(Verdict::OtherVni), &|f| f[VXLAN + 6] = 0);
    both("another VNI from a stranger", Passed(Verdict::OtherVni), &|f| (f[VXLAN + 6], f[IP + 15]) = (99, 99));
    both("first fragment", Passed(Verdict::Fragment), &|f| f[IP + 6] = 0x20);
    both("last fragment", Passed(Verdict::Fragment), &|f| f[IP + 7] = 1);
    both("IP options", Passed(Verdict::IpOptions), &|f| f[IP] = 0x46);
    both("another port", Passed(Verdict::NotVxlan), &|f| f[UDP + 3] += 1);
    both("another destination", Passed(Verdict::NotVxlan), &|f| f[IP + 19] = 99);
    both("TCP outside", Passed(Verdict::NotVxlan), &|f| f[IP + 9] = 6);
    both("ARP outside", Passed(Verdict::NotVxlan), &|f| f[13] = 6);
    both("IPv6 outside, version 4", Dropped(Verdict::BadIpHeader), &|f| f[12..14].copy_from_slice(&[0x86, 0xdd]));
    both("a tag outside", Passed(Verdict::NotVxlan), &|f| {
        f.splice(12..12, [0x81, 0, 0, 5]);
    });
    rows
}

/// What the program counted besides what it learned.
fn counted(run: &Run) -> BTreeMap<&'static str, u64> {
    let mut counted = run.counted.clone();
    counted.remove(Verdict::Learned.label());
    counted
}

fn only(verdict: Verdict) -> BTreeMap<&'static str, u64> {
    if verdict.is_counted() { BTreeMap::from([(verdict.label(), 1)]) } else { BTreeMap::new() }
}

fn check_tc(name: &str, run: &Run, frame: &[u8], fate: Fate) {
    let (code, verdict, out) = match fate {
        Fate::Delivered => (TC_ACT_REDIRECT, Verdict::Received, &frame[INNER..]),
        Fate::Dropped(verdict) => (TC_ACT_SHOT, verdict, frame),
        Fate::Passed(verdict) => (TC_ACT_UNSPEC, verdict, frame),
    };
    assert_eq!((run.code, counted(run)), (code, only(verdict)), "TC, {name}: {run:02x?}");
    assert_eq!(run.frame, out, "TC, {name}");
}

fn check_xdp(name: &str, run: &Run, frame: &[u8], fate: Fate, mark: &[u8]) {
    let (code, expected, out, metadata) = match fate {
        // TC counts it.
        Fate::Delivered => (XDP_PASS, BTreeMap::new(), &frame[INNER..], mark),
        Fate::Dropped(verdict) => (XDP_DROP, only(verdict), frame, &[][..]),
        Fate::Passed(verdict) => (XDP_PASS, only(verdict), frame, &[][..]),
    };
    assert_eq!((run.code, counted(run)), (code, expected), "XDP, {name}: {run:02x?}");
    assert_eq!((&run.frame[..], &run.metadata[..]), (out, metadata), "XDP, {name}");
}

#[test]
fn frames_from_the_underlay() {
    let mesh = Mesh::new();
    let pinned = &mesh.pinned;
    let peers = mesh.a().l2mesh(&["maps", "peers", "--json"]);
    let peer = peers["peers"].as_array().into_iter().flatten().find(|peer| peer["name"] == "b").expect("b is a peer");
    let id = u32::try_from(peer["id"].as_u64().expect("a number")).expect("a small one");
    let mark = Metadata::new(16, id);
    for (name, frame, tc, xdp) in rows(&mesh) {
        check_tc(&name, &pinned.run_tc("underlay_tc", 0, &frame), &frame, tc);
        check_xdp(&name, &pinned.run_xdp("underlay_xdp", &frame), &frame, xdp, bytemuck::bytes_of(&mark));
    }
    let macs = mesh.a().l2mesh(&["maps", "macs", "--vni", "16", "--json"]);
    let learned: Vec<_> =
        macs["macs"].as_array().into_iter().flatten().filter(|mac| mac["is_static"] == false).collect();
    assert_eq!(learned.len(), 1, "{learned:?}");
    assert_eq!((&learned[0]["mac"], &learned[0]["peer"]), (&STRANGER.to_string().into(), &"b".into()));
}

/// `TEST_RUN` takes no frame of less than 14 octets, which are left to the property tests of the parser, and at TC no
/// IPv4 frame of less than 34, which the next test sends.
#[test]
fn truncated_at_every_length() {
    let mesh = Mesh::new();
    let whole = mesh.wrap(&udp4(mesh.a().mac("l2m10"), STRANGER, &[9; 28]));
    assert_eq!(whole.len(), 120);
    for length in 14..=whole.len() {
        let fate = if length == whole.len() { Fate::Delivered } else { Fate::Dropped(Verdict::Truncated) };
        let (name, frame) = (format!("{length} octets"), &whole[..length]);
        if length >= UDP {
            check_tc(&name, &mesh.pinned.run_tc("underlay_tc", 0, frame), frame, fate);
        }
        let run = mesh.pinned.run_xdp("underlay_xdp", frame);
        check_xdp(&name, &run, frame, fate, &run.metadata);
    }
}

/// What `TEST_RUN` refuses, on the wire: the XDP program is not there.
#[test]
fn truncated_in_the_ip_header() {
    let mesh = Mesh::in_mode("tc");
    let whole = mesh.wrap(&udp4(mesh.a().mac("l2m10"), STRANGER, b"payload"));
    let b = Tap::open(&mesh.hosts[1], "eth0");
    let truncated = || mesh.pinned.counters()[Verdict::Truncated.label()];
    for (length, before) in (IP..UDP).zip(0..) {
        assert_eq!(truncated(), before);
        b.send(&Frame::raw(&whole[..length]));
        wait_for(&format!("{length} octets"), LIMIT, || if truncated() > before { Ok(()) } else { Err("none".into()) });
    }
}

#[test]
fn frames_from_the_overlay() {
    use Verdict::{LinkLocal, NoNetwork, NoPeers, SentGroupSource, TooBig};
    let mesh = Mesh::new();
    let (a, pinned) = (mesh.a(), &mesh.pinned);
    let [hidden, alone, eth0] = ["l2p10", "l2p13", "eth0"].map(|name| mesh.index(name));
    let own = a.mac("l2m10");
    for (name, frame) in good(KNOWN, own).iter().filter(|(_, frame)| frame.destination() == KNOWN) {
        let run = pinned.run_tc("overlay_tc", hidden, frame.octets());
        assert_eq!((run.code, &run.counted), (TC_ACT_REDIRECT, &only(Verdict::Sent)), "{name}");
        assert_eq!(run.frame, encapsulated(&mesh, 1, 16, frame, &run.frame), "{name}");
    }
    for (name, ifindex, frame, verdict) in [
        ("group source", hidden, udp4(KNOWN, MacAddr::BROADCAST, b"x"), SentGroupSource),
        ("zero source", hidden, udp4(KNOWN, MacAddr::ZERO, b"x"), SentGroupSource),
        ("LLDP", hidden, Frame::lldp(own, b"x"), LinkLocal),
        ("too big", hidden, udp4(KNOWN, own, &vec![7; MTU - 27]), TooBig),
        ("no network", eth0, udp4(KNOWN, own, b"x"), NoNetwork),
        ("no peers", alone, udp4(KNOWN, own, b"x"), NoPeers),
    ] {
        let run = pinned.run_tc("overlay_tc", ifindex, frame.octets());
        assert_eq!((run.code, &run.counted), (TC_ACT_SHOT, &only(verdict)), "{name}");
        assert_eq!(run.frame, frame.octets(), "{name}");
    }
}

/// The outer source port is the same for a flow whatever its lengths, and in the range of RFC 7348.
#[test]
fn one_flow_one_port() {
    let mesh = Mesh::new();
    let hidden = mesh.index("l2p10");
    let port = |frame: &Frame| {
        let run = mesh.pinned.run_tc("overlay_tc", hidden, frame.octets());
        u16::from_be_bytes([run.frame[UDP], run.frame[UDP + 1]])
    };
    for make in [udp4, udp6] {
        let ports = [0, 1, 500, 1400].map(|length| port(&make(KNOWN, STRANGER, &vec![1; length])));
        assert!(ports.iter().all(|it| *it == ports[0] && *it >= 49152), "{ports:?}");
        assert_ne!(port(&tcp(&make(KNOWN, STRANGER, b"text"))), ports[0], "another flow");
    }
}

/// The copies but the last really leave; the last is the frame itself.
#[test]
fn flooded_to_every_member() {
    let mesh = Mesh::new();
    let hidden = mesh.index("l2p12");
    let own = mesh.a().mac("l2m12");
    let [mut at_b, mut at_c] = [1, 2].map(|host: usize| Tap::open(&mesh.hosts[host], "eth0"));
    let sender = Tap::open(mesh.a(), "eth0");
    for (name, frame) in good(MacAddr::BROADCAST, own).into_iter().chain(good(STRANGER, own)) {
        let run = mesh.pinned.run_tc("overlay_tc", hidden, frame.octets());
        let counted = BTreeMap::from([(Verdict::Flooded.label(), 1), (Verdict::FloodCopies.label(), 2)]);
        assert_eq!((run.code, &run.counted), (TC_ACT_REDIRECT, &counted), "{name}");
        assert_eq!(run.frame, encapsulated(&mesh, 2, 18, &frame, &run.frame), "{name}: the last copy");
        let marker = sender.send_marker(sender.mac());
        let copies = at_b.until(&marker, LIMIT);
        let copies: Vec<_> = copies.iter().map(|it| it.frame.octets()).filter(|it| it.len() > INNER).collect();
        assert_eq!(copies, [encapsulated(&mesh, 1, 18, &frame, &run.frame)], "{name}: the first copy");
        let elsewhere = at_c.until(&marker, LIMIT);
        assert!(elsewhere.iter().all(|it| it.frame.octets().len() <= INNER), "{name}: {elsewhere:?}");
    }
}

/// The frame as it must leave for a host, with the source port that `like` has.
fn encapsulated(mesh: &Mesh, to: usize, vni: u32, frame: &Frame, like: &[u8]) -> Vec<u8> {
    let end = |host: &Host| Endpoint { mac: host.mac("eth0"), address: host.address().into() };
    let template = Template::v4(end(mesh.a()), end(&mesh.hosts[to]), 4789);
    let inner = EthernetHeader::new(frame.destination(), frame.source(), EtherType(frame.ether_type()));
    let source_port = u16::from_be_bytes([like[UDP], like[UDP + 1]]);
    assert!(source_port >= 49152, "{source_port}");
    let len = u32::try_from(frame.octets().len()).expect("a frame");
    let per_frame = PerFrame { vni: Vni::new(vni).expect("in range"), inner, len, source_port, tos: 0 };
    let headers = HeadersV4::new(&template, &per_frame).words();
    [bytemuck::bytes_of(&headers), &frame.octets()[14..]].concat()
}

#[test]
fn programs_are_small() {
    let mesh = Mesh::new();
    let programs = mesh.pinned.programs();
    let names: Vec<&str> = programs.keys().map(String::as_str).collect();
    assert_eq!(names, ["helper_tc", "overlay_egress", "overlay_tc", "self_test_tc", "underlay_tc", "underlay_xdp"]);
    for (name, program) in programs {
        let count = program.verified_instruction_count().expect("Linux 5.16 tells");
        println!("{name}: {count} instructions verified");
        assert!(count > 0 && count < 100_000, "{name}: {count}");
    }
}
