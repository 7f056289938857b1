//! The kernel's own vxlan device as a member of the mesh: what it takes and sends is what is right.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::{
    Capture, Direction, Family, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// A group of IPv4 multicast.
const MULTICAST: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0x7b]);
/// The group of all bridges' neighbours that bridges do forward (IEEE 802.1Q table 8-1 ends before it).
const NOT_LINK_LOCAL: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x10]);
/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);

#[test]
fn outer_frames_through_the_hidden_peer() {
    sends_what_the_kernel_sends(Family::V4, "port", "hidden peer");
}

#[test]
fn outer_frames_through_the_shortcut() {
    sends_what_the_kernel_sends(Family::V4, "auto", "egress shortcut");
}

#[test]
fn outer_ipv6_frames_through_the_hidden_peer() {
    sends_what_the_kernel_sends(Family::V6, "port", "hidden peer");
}

#[test]
fn outer_ipv6_frames_through_the_shortcut() {
    sends_what_the_kernel_sends(Family::V6, "auto", "egress shortcut");
}

/// The same inner frames, sent into l2m0 and into a vxlan device, compared on the wire to the same peer.
fn sends_what_the_kernel_sends(family: Family, tx_hook: &str, hook: &str) {
    let lab = Lab::new("outer");
    let [ours, kernel, judge] = lab.switch(["ours", "kernel", "judge"], &Wiring::over(family));
    let (nodes, plain) = ([ours.clone()], [judge.clone()]);
    let args = ["--tx-hook", tx_hook];
    let segment = Segment { nodes: &nodes, plain: &plain, args: &args, file: None };
    let _agents = segment.up(&lab);
    let options = VxlanOptions { mtu: Some(segment.mtu()), ..VxlanOptions::default() };
    judge.kernel_vxlan(judge.vtep(), &[ours.vtep(), kernel.vtep()], &options);
    let device = kernel.kernel_vxlan(kernel.vtep(), &[judge.vtep()], &options);
    ours.wait_transmit(hook);

    // Both learn where the station is: what goes to it is known unicast, all else is flooded.
    let station = MacAddr([2, 0, 0, 0, 0, 9]);
    Tap::sender(&judge, "vx0").send(&Frame::unknown(MacAddr::BROADCAST, station, b"here I am"));
    let is_learned = || match (ours.mac_row(station).is_some(), device.lookup(station)) {
        (true, Some(_)) => Ok(()),
        seen => Err(format!("{seen:?}")),
    };
    wait_for("the station is learned", LIMIT, is_learned);

    let inner = inner_frames(station, segment.mtu() as usize);
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
        compare(&mine, &theirs, frame, family);
    }
}

/// Of every kind and length.
fn inner_frames(station: MacAddr, mtu: usize) -> Vec<Frame> {
    let source = MacAddr([2, 0, 0, 0, 0, 8]);
    let [from, to] = [8, 9].map(Segment::v4);
    let mut frames = vec![
        Frame::arp_request(source, from, to),
        Frame::arp_reply(source, from, station, to),
        Frame::arp_request(source, to, from).padded(60),
    ];
    for destination in [MacAddr::BROADCAST, MULTICAST, NOT_LINK_LOCAL, NOBODY, station] {
        for length in [0, 1, 46, 100, mtu] {
            frames.push(Frame::unknown(destination, source, &payload(length)));
        }
        for length in [0, 1, 18, 1000, mtu - 48] {
            let v6 = [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7)));
            let v4 = [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7)));
            for [from, to] in [v4, v6] {
                frames.push(Frame::udp(destination, source, from, to, &payload(length)));
            }
        }
    }
    // Two octets are the least that the kernel receives behind a tag (`skb_vlan_untag`).
    let taggable = frames.iter().filter(|frame| (16..=mtu + 6).contains(&frame.octets().len()));
    let tagged = taggable.flat_map(|frame| {
        let frame = frame.clone();
        [frame.clone().tagged(0x2005), frame.clone().tagged(0), frame.tagged(5).tagged_as(0x88a8, 6)]
    });
    frames.iter().cloned().chain(tagged).collect()
}

/// Octets that are no padding.
fn payload(length: usize) -> Vec<u8> {
    (1..=251).cycle().take(length).collect()
}

/// Octets of the outer Ethernet header, and up to UDP.
const ETHERNET: usize = 14;

fn udp_at(family: Family) -> usize {
    ETHERNET + if family == Family::V4 { 20 } else { 40 }
}

/// The one frame on the wire from this host that carries an inner frame.
#[track_caller]
fn the_one(wire: &[Frame], host: &Host, inner: &Frame) -> Frame {
    let (source, at, outer) = match host.vtep() {
        IpAddr::V4(address) => (address.octets().to_vec(), 26, udp_at(Family::V4) + 16),
        IpAddr::V6(address) => (address.octets().to_vec(), 22, udp_at(Family::V6) + 16),
    };
    let carries = |frame: &&Frame| {
        let octets = frame.octets();
        octets[at..].starts_with(&source) && octets.get(outer..).is_some_and(|carried| carried == inner.octets())
    };
    let found: Vec<&Frame> = wire.iter().filter(carries).collect();
    assert_eq!(found.len(), 1, "{} sent {inner:?}: {found:?}", host.name());
    found[0].clone()
}

/// Two outer headers, field by field (RFC 791, RFC 8200 section 3, RFC 768, RFC 7348 section 5).
#[track_caller]
fn compare(mine: &Frame, theirs: &Frame, inner: &Frame, family: Family) {
    let field = |name: &str, at: std::ops::Range<usize>| {
        let [mine, theirs] = [mine, theirs].map(|frame| frame.octets()[at.clone()].to_vec());
        assert_eq!(mine, theirs, "{name} of {inner:?}");
        mine
    };
    let udp = udp_at(family);
    let datagram = u16::try_from(inner.octets().len() + 16).expect("a small frame");
    assert_eq!(mine.octets().len(), theirs.octets().len(), "{inner:?}");
    field("destination MAC", 0..6);
    match family {
        Family::V4 => {
            assert_eq!(field("Ethernet type", 12..14), [8, 0]);
            assert_eq!(field("IP version and header length", 14..15), [0x45]);
            assert_eq!(field("type of service", 15..16), [0]);
            assert_eq!(field("total length", 16..18), (datagram + 20).to_be_bytes());
            assert_eq!(field("time to live", 22..23), [64]);
            assert_eq!(field("protocol", 23..24), [17]);
            field("destination address", 30..34);
            // Where l2mesh differs, as design.md 4 says: DF, so no identification.
            let [fragment, kernels] = [mine, theirs].map(|frame| frame.octets()[20..22].to_vec());
            assert_eq!((&fragment[..], &kernels[..]), (&[0x40, 0][..], &[0, 0][..]), "flags and fragment offset");
            assert_eq!(mine.octets()[18..20], [0, 0], "identification");
            assert_eq!(header_sum(mine), 0xffff, "IP checksum");
        }
        Family::V6 => {
            assert_eq!(field("Ethernet type", 12..14), [0x86, 0xdd]);
            assert_eq!(field("IP version, traffic class, flow label", 14..18), [0x60, 0, 0, 0]);
            assert_eq!(field("payload length", 18..20), datagram.to_be_bytes());
            assert_eq!(field("next header", 20..21), [17]);
            assert_eq!(field("hop limit", 21..22), [64]);
            field("destination address", 38..54);
        }
    }
    assert_eq!(field("destination port", udp + 2..udp + 4), 4789_u16.to_be_bytes());
    assert_eq!(field("UDP length", udp + 4..udp + 6), datagram.to_be_bytes());
    assert_eq!(field("UDP checksum", udp + 6..udp + 8), [0, 0]);
    assert_eq!(field("VXLAN flags and reserved", udp + 8..udp + 12), [8, 0, 0, 0]);
    assert_eq!(field("VNI and reserved", udp + 12..udp + 16), [0, 0, 16, 0]);
    // Another range than the kernel's.
    let port = u16::from_be_bytes([mine.octets()[udp], mine.octets()[udp + 1]]);
    assert!(port >= 49152, "source port {port}");
}

/// The sum of an IPv4 header that is right (RFC 1071).
fn header_sum(frame: &Frame) -> u32 {
    let sum: u32 = frame.octets()[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    (sum & 0xffff) + (sum >> 16)
}
