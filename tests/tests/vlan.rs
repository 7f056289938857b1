//! IP traffic in VLANs: tags are carried as they are, long frames stay whole, and nothing of it shows outside.

use std::fs;
use std::net::IpAddr;

use l2mesh_tests::place::Place;
use l2mesh_tests::{
    Capture, Direction, Family, Frame, Host, Lab, MacAddr, Segment, Tagging, Wire, Wiring, traffic, transfer,
};

/// TCP data where every segment is looked at afterwards, octets.
const WATCHED: usize = 2 << 20;
/// TCP data enough for the greatest aggregates, octets.
const BULK: usize = 16 << 20;

/// Type and content of tags: 802.1Q with priority 1, for its priority alone, 802.1ad, 802.1ad with 802.1Q inside.
const VLAN: &[(u16, u16)] = &[(0x8100, 0x2005)];
const PRIORITY: &[(u16, u16)] = &[(0x8100, 0xe000)];
const SERVICE: &[(u16, u16)] = &[(0x88a8, 0x0fff)];
const QINQ: &[(u16, u16)] = &[(0x88a8, 0x2006), (0x8100, 0x0005)];

#[test]
fn direct_v4_tc() {
    bulk_in_a_vlan(Place::Direct, Family::V4, "tc", VLAN);
}

#[test]
fn direct_v6_xdp() {
    bulk_in_a_vlan(Place::Direct, Family::V6, "xdp", PRIORITY);
}

#[test]
fn bridged_v6_tc() {
    bulk_in_a_vlan(Place::Bridged, Family::V6, "tc", VLAN);
}

#[test]
fn bridged_v4_xdp() {
    bulk_in_a_vlan(Place::Bridged, Family::V4, "xdp", SERVICE);
}

#[test]
fn two_tags_v4_tc() {
    bulk_in_a_vlan(Place::Bridged, Family::V4, "tc", QINQ);
}

#[test]
fn two_tags_v6_xdp() {
    bulk_in_a_vlan(Place::Bridged, Family::V6, "xdp", QINQ);
}

/// Ping, TCP and segmented UDP in both IP versions and directions; every octet of a tag on the wire is looked at.
fn bulk_in_a_vlan(place: Place, family: Family, mode: &str, tags: &[(u16, u16)]) {
    let lab = Lab::new(&format!("{place:?} {family:?} {mode}"));
    let hosts = lab.switch(["a", "b"], &Wiring::over(family));
    let args = ["--mode", mode];
    let segment = Segment::of(&hosts, &args);
    let _agents = segment.up(&lab);
    let ends = [0, 1].map(|index| place.settle(&lab, &hosts[index], index, segment.mtu()));
    let _tagging = ends.each_ref().map(|end| in_vlan(end, place.interface(), tags));
    let [a, b] = &ends;
    for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
        assert_eq!(traffic::ping(a, address, 2).lost(), 0, "{address}");
    }
    let octets = segment.mtu() as usize - 28 - 4 * tags.len();
    assert_eq!(traffic::ping_sized(a, Segment::v4(1), 1, octets).lost(), 0, "a ping that fills the MTU");
    transfer::udp(a, b, Segment::v4(1), &[1, 2, 17, 18, 19, 500, octets]);

    let macs = ends.each_ref().map(|end| end.mac(place.interface()));
    let captures = ["a", "b"].map(|port| Capture::start(&lab.fabric(), port, Direction::Out, ""));
    for (from, to, index) in [(a, b, 1), (b, a, 0)] {
        for address in [IpAddr::from(Segment::v4(index)), Segment::v6(index).into()] {
            transfer::tcp(from, to, address, WATCHED);
            assert_eq!(transfer::udp_segmented(from, to, address, 1200, 50_000), 42);
        }
    }
    // A sender that moves to another processor overtakes itself now and then, whatever carries its frames.
    let late = ends.each_ref().map(out_of_order);
    assert!(late.iter().all(|late| *late < (WATCHED / 100_000) as u64), "TCP segments out of order: {late:?}");
    for capture in captures {
        let pcap = capture.stop();
        let carried = pcap.frames().iter().filter(|frame| is_carried(frame, family, tags, macs)).count();
        assert!(carried > 2 * WATCHED / 1500, "{carried}");
        let bad = pcap.bad_checksums();
        assert!(bad.is_empty(), "{} bad, the first: {}", bad.len(), bad[0]);
    }
    // Two tags are more than the kernel gives a card: its own stack cuts such frames up (`vlan_features_check`).
    if tags.len() == 1 {
        assert_stays_long(&hosts, a, b);
    }
    for host in &hosts {
        for verdict in ["encap-failed", "decap-failed", "too-big", "over-mtu", "store-failed", "vlan-depth"] {
            assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
        }
    }
    lab.assert_no_xdp_errors(&hosts);
}

/// Frames of 64 KiB arrive as such, and shorter ones of the same connection besides: both take one way.
#[test]
fn one_way_for_long_frames_and_short_ones() {
    for family in [Family::V4, Family::V6] {
        let lab = Lab::new(&format!("{family:?} whole"));
        let hosts = lab.pair(["a", "b"], &Wiring { wire: Wire::Plain, ..Wiring::over(family) });
        let _agents = Segment::of(&hosts, &["--mode", "tc"]).up(&lab);
        let _tagging = hosts.each_ref().map(|host| in_vlan(host, "l2m0", VLAN));
        let [a, b] = &hosts;
        for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
            let counters = || hosts.each_ref().map(|host| ["received", "handed-to-helper"].map(|it| host.counter(it)));
            let before = counters();
            transfer::tcp(a, b, address, BULK);
            let now = counters();
            let [[answers, a_handed], [frames, b_handed]] =
                [0, 1].map(|host| [0, 1].map(|which| now[host][which] - before[host][which]));
            assert!(frames < BULK as u64 / 10_000 && answers > 20, "{frames} frames received, {answers} answers");
            // Neighbours may ask after each other meanwhile.
            for (received, handed) in [(answers, a_handed), (frames, b_handed)] {
                assert!(received - handed < 10, "{handed} of {received} frames went the way of TCP");
            }
        }
    }
}

/// Gives an interface tags, and an MTU that leaves room for them.
#[track_caller]
fn in_vlan(end: &Host, interface: &str, tags: &[(u16, u16)]) -> Tagging {
    let tagging = Tagging::start(end, interface, tags);
    let mtu = end.link(interface)["mtu"].as_u64().expect("an MTU") - 4 * tags.len() as u64;
    end.run(&format!("ip link set dev {interface} mtu {mtu}"));
    tagging
}

/// True for VXLAN from one of the ends. Panics if it has other tags than these inside, or any frame has one outside.
#[track_caller]
fn is_carried(frame: &Frame, family: Family, tags: &[(u16, u16)], macs: [MacAddr; 2]) -> bool {
    let octets = frame.octets();
    let (outer, udp, protocol, ether_type) = match family {
        Family::V4 => (50, 34, 23, 0x0800),
        Family::V6 => (70, 54, 20, 0x86dd),
    };
    assert!(![0x8100, 0x88a8].contains(&frame.ether_type()), "a tag outside: {frame:?}");
    let is_vxlan = frame.ether_type() == ether_type
        && octets.get(protocol) == Some(&17)
        && octets.get(udp + 2..udp + 4) == Some(&4789_u16.to_be_bytes());
    // With a bridge, the hosts themselves are in no VLAN.
    if !is_vxlan || !macs.iter().any(|mac| octets[outer + 6..outer + 12] == mac.0) {
        return false;
    }
    assert!(octets.len() <= 1514, "{} octets on the wire", octets.len());
    let expected: Vec<u8> =
        tags.iter().flat_map(|(kind, content)| [*kind, *content]).flat_map(u16::to_be_bytes).collect();
    let inner = &octets[outer + 12..];
    assert!(inner.starts_with(&expected), "tags: {frame:?}");
    let carried = [inner[expected.len()], inner[expected.len() + 1]];
    assert!([[0x08, 0x00], [0x08, 0x06], [0x86, 0xdd]].contains(&carried), "behind the tags: {frame:?}");
    true
}

/// TCP segments that arrived on a host after a later one.
#[track_caller]
fn out_of_order(host: &Host) -> u64 {
    let text = host.in_namespace(|| fs::read_to_string("/proc/thread-self/net/netstat")).expect("netstat");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let [names, values] = [lines.next(), lines.next()].map(|line| line.expect("TcpExt"));
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "TCPOFOQueue");
    found.and_then(|(_, value)| value.parse().ok()).expect("TCPOFOQueue")
}

/// TCP in tags is encapsulated in frames of many segments.
#[track_caller]
fn assert_stays_long(hosts: &[Host; 2], a: &Host, b: &Host) {
    let sent = || {
        let row = hosts[0].peer(&hosts[1]);
        ["sent_frames", "sent_octets"].map(|key| row[key].as_u64().expect("a count"))
    };
    for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
        let before = sent();
        transfer::tcp(a, b, address, BULK);
        let [frames, octets] = [0, 1].map(|which| sent()[which] - before[which]);
        println!("{address}: {} octets a frame", octets / frames);
        assert!(octets >= BULK as u64 && octets / frames > 10 << 10, "{address}: {octets} octets in {frames} frames");
    }
}
