//! The kernel's own vxlan device as a member of the mesh: what it takes and sends is what is right.

use std::net::SocketAddr;
use std::time::Duration;

use l2mesh_tests::{
    Capture, Direction, File, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, assert_flooded, taps,
    traffic, transfer, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// TCP data enough for aggregates of every size, octets.
const BULK: usize = 8 << 20;

/// Datagrams in a row: a bare veth loses what its ring of 256 cannot hold.
const BURST: usize = 100;

/// A group of IPv4 multicast.
const MULTICAST: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0x7b]);
/// The group of all bridges' neighbours that bridges do forward (IEEE 802.1Q table 8-1 ends before it).
const NOT_LINK_LOCAL: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x10]);
/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);
const LLDP: u16 = 0x88cc;

/// What the mesh is told about the plain host, and how the kernel's device is made.
#[derive(Clone, Copy)]
struct Case {
    mode: &'static str,
    learning: bool,
    udp_checksum: bool,
    by_file: bool,
}

#[test]
fn learning_tc() {
    carries_everything(Case { mode: "tc", learning: true, udp_checksum: false, by_file: false });
}

#[test]
fn learning_xdp() {
    carries_everything(Case { mode: "xdp", learning: true, udp_checksum: true, by_file: true });
}

#[test]
fn nolearning_tc() {
    carries_everything(Case { mode: "tc", learning: false, udp_checksum: true, by_file: true });
}

#[test]
fn nolearning_xdp() {
    carries_everything(Case { mode: "xdp", learning: false, udp_checksum: false, by_file: false });
}

/// Two nodes and a plain host, everything both ways.
fn carries_everything(case: Case) {
    let Case { mode, learning, udp_checksum, by_file } = case;
    let lab = Lab::new("judge");
    let hosts = lab.routed(["hetzner", "ovh", "old-box"], &Wiring::default());
    let args = ["--mode", mode];
    let file = by_file.then(File::default);
    let segment = Segment { nodes: &hosts[..2], plain: &hosts[2..], args: &args, file };
    let agents = segment.up(&lab);
    let devices = segment.plain_up(&VxlanOptions { learning, udp_checksum, ..VxlanOptions::default() });
    assert!(agents[0].up_line().contains(mode), "{}", agents[0].up_line());
    assert_eq!(hosts[0].peer(&hosts[2])["kind"], "vxlan");

    let interfaces = ["l2m0", "l2m0", "vx0"];
    for (from, to) in [(0, 2), (2, 0), (1, 2), (0, 1)] {
        let answers = traffic::arping(&hosts[from], interfaces[from], Segment::v4(to), 1);
        assert_eq!(answers, 1, "ARP from {from} to {to}");
        exchange(&hosts, from, to);
    }
    let learned = devices[0].lookup(hosts[0].mac("l2m0"));
    assert_eq!(learned, Some(hosts[0].address().into()));
    let row = hosts[0].mac_row(hosts[2].mac("vx0")).expect("the plain host's MAC address");
    assert_eq!(row["peer"], *hosts[0].peer(&hosts[2])["name"].as_str().expect("a name"));

    let mut taps = taps(&hosts[..2], &hosts[2..]);
    assert_flooded(&mut taps, |tap| {
        let from = SocketAddr::from((Segment::v4(8), 1));
        vec![
            Frame::udp(MacAddr::BROADCAST, tap.mac(), from, SocketAddr::from(([10, 8, 0, 255], 9)), b"to all"),
            Frame::udp(MULTICAST, tap.mac(), from, SocketAddr::from(([224, 0, 0, 123], 9)), b"to many"),
            Frame::unknown(NOBODY, tap.mac(), b"to nobody"),
            Frame::ethernet(NOT_LINK_LOCAL, tap.mac(), LLDP, b"like LLDP"),
        ]
    });
    for agent in agents {
        agent.stop();
    }
    lab.assert_no_xdp_errors(&hosts);
}

/// Ping, TCP, and UDP of every length that is not fragmented.
fn exchange(hosts: &[Host], from: usize, to: usize) {
    let (source, sink) = (&hosts[from], &hosts[to]);
    for address in [Segment::v4(to).into(), std::net::IpAddr::from(Segment::v6(to))] {
        let report = traffic::ping(source, address, 3);
        assert_eq!((report.lost(), report.duplicates), (0, 0), "{} to {address}", source.name());
        transfer::tcp(source, sink, address, BULK);
    }
    // A request and its answer that fill the MTU.
    let whole = traffic::ping_sized(source, Segment::v4(to), 1, Segment::LONGEST_UDP);
    assert_eq!(whole.lost(), 0);
    let lengths: Vec<usize> = (1..=Segment::LONGEST_UDP).collect();
    for burst in lengths.chunks(BURST) {
        transfer::udp(source, sink, Segment::v4(to), burst);
    }
}

#[test]
fn outer_frames_through_the_hidden_peer() {
    sends_what_the_kernel_sends("port", "hidden peer");
}

#[test]
fn outer_frames_through_the_shortcut() {
    sends_what_the_kernel_sends("auto", "egress shortcut");
}

/// The same inner frames, sent into l2m0 and into a vxlan device, compared on the wire to the same peer.
fn sends_what_the_kernel_sends(tx_hook: &str, hook: &str) {
    let lab = Lab::new("outer");
    let [ours, kernel, judge] = lab.switch(["ours", "kernel", "judge"], &Wiring::default());
    let (nodes, plain) = ([ours.clone()], [judge.clone()]);
    let args = ["--tx-hook", tx_hook];
    let segment = Segment { nodes: &nodes, plain: &plain, args: &args, file: None };
    let _agents = segment.up(&lab);
    let options = VxlanOptions { mtu: Some(Segment::MTU), ..VxlanOptions::default() };
    judge.kernel_vxlan(judge.address(), &[ours.address().into(), kernel.address().into()], &options);
    let device = kernel.kernel_vxlan(kernel.address(), &[judge.address().into()], &options);
    ours.wait_transmit(hook);

    // Both learn where the station is: what goes to it is known unicast, all else is flooded.
    let station = MacAddr([2, 0, 0, 0, 0, 9]);
    Tap::sender(&judge, "vx0").send(&Frame::unknown(MacAddr::BROADCAST, station, b"here I am"));
    let is_learned = || match (ours.mac_row(station).is_some(), device.lookup(station)) {
        (true, Some(_)) => Ok(()),
        seen => Err(format!("{seen:?}")),
    };
    wait_for("the station is learned", LIMIT, is_learned);

    let inner = inner_frames(station);
    let capture = Capture::start(&lab.fabric(), "judge", Direction::Out, "udp port 4789");
    for (host, interface) in [(&ours, "l2m0"), (&kernel, "vx0")] {
        let sender = Tap::sender(host, interface);
        for frame in &inner {
            sender.send(frame);
        }
    }
    let sent = ours.counter("sent") + ours.counter("flooded");
    assert!(sent >= inner.len() as u64, "{sent}");
    let wire = capture.stop().frames();
    for frame in &inner {
        let [mine, theirs] = [&ours, &kernel].map(|host| the_one(&wire, host, frame));
        compare(&mine, &theirs, frame);
    }
}

/// Of every kind and length.
fn inner_frames(station: MacAddr) -> Vec<Frame> {
    let source = MacAddr([2, 0, 0, 0, 0, 8]);
    let [from, to] = [8, 9].map(Segment::v4);
    let mut frames = vec![
        Frame::arp_request(source, from, to),
        Frame::arp_reply(source, from, station, to),
        Frame::arp_request(source, to, from).padded(60),
    ];
    for destination in [MacAddr::BROADCAST, MULTICAST, NOT_LINK_LOCAL, NOBODY, station] {
        for length in [0, 1, 46, 100, 1450] {
            frames.push(Frame::unknown(destination, source, &payload(length)));
        }
        for length in [0, 1, 18, 1000, 1402] {
            let v6 = [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7)));
            let v4 = [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7)));
            for [from, to] in [v4, v6] {
                frames.push(Frame::udp(destination, source, from, to, &payload(length)));
            }
        }
    }
    frames
}

/// Octets that are no padding.
fn payload(length: usize) -> Vec<u8> {
    (1..=251).cycle().take(length).collect()
}

/// Octets before the inner frame.
const OUTER: usize = 50;

/// The one frame on the wire from this host that carries an inner frame.
#[track_caller]
fn the_one(wire: &[Frame], host: &Host, inner: &Frame) -> Frame {
    let source = host.address().octets();
    let carries = |frame: &&Frame| {
        let octets = frame.octets();
        octets[26..30] == source && octets.get(OUTER..).is_some_and(|carried| carried == inner.octets())
    };
    let found: Vec<&Frame> = wire.iter().filter(carries).collect();
    assert_eq!(found.len(), 1, "{} sent {inner:?}: {found:?}", host.name());
    found[0].clone()
}

/// Two outer headers, field by field (RFC 791, RFC 768, RFC 7348 section 5).
#[track_caller]
fn compare(mine: &Frame, theirs: &Frame, inner: &Frame) {
    let field = |name: &str, at: std::ops::Range<usize>| {
        let [mine, theirs] = [mine, theirs].map(|frame| frame.octets()[at.clone()].to_vec());
        assert_eq!(mine, theirs, "{name} of {inner:?}");
        mine
    };
    assert_eq!(mine.octets().len(), theirs.octets().len(), "{inner:?}");
    field("destination MAC", 0..6);
    assert_eq!(field("Ethernet type", 12..14), [8, 0]);
    assert_eq!(field("IP version and header length", 14..15), [0x45]);
    assert_eq!(field("type of service", 15..16), [0]);
    let total = u16::try_from(inner.octets().len() + OUTER - 14).expect("a small frame");
    assert_eq!(field("total length", 16..18), total.to_be_bytes());
    assert_eq!(field("time to live", 22..23), [64]);
    assert_eq!(field("protocol", 23..24), [17]);
    field("destination address", 30..34);
    assert_eq!(field("destination port", 36..38), 4789_u16.to_be_bytes());
    assert_eq!(field("UDP length", 38..40), (total - 20).to_be_bytes());
    assert_eq!(field("UDP checksum", 40..42), [0, 0]);
    assert_eq!(field("VXLAN flags and reserved", 42..46), [8, 0, 0, 0]);
    assert_eq!(field("VNI and reserved", 46..50), [0, 0, 16, 0]);

    // Where l2mesh differs, as design.md 4 says: DF, so no identification; the range of source ports.
    let [fragment, kernels] = [mine, theirs].map(|frame| frame.octets()[20..22].to_vec());
    assert_eq!((&fragment[..], &kernels[..]), (&[0x40, 0][..], &[0, 0][..]), "flags and fragment offset");
    assert_eq!(mine.octets()[18..20], [0, 0], "identification");
    let port = u16::from_be_bytes([mine.octets()[34], mine.octets()[35]]);
    assert!(port >= 49152, "source port {port}");
    assert_eq!(header_sum(mine), 0xffff, "IP checksum");
}

/// The sum of an IP header that is right (RFC 1071).
fn header_sum(frame: &Frame) -> u32 {
    let sum: u32 = frame.octets()[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    (sum & 0xffff) + (sum >> 16)
}
