//! Everything an Ethernet carries, to and from the kernel's own vxlan device: both IP versions outside, both receive modes,
//! every kind of frame inside.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::{
    Family, File, Frame, Host, Lab, MacAddr, Segment, Tap, VirtioSender, VxlanOptions, Wiring, taps, traffic, transfer,
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// TCP data enough for aggregates of every size, octets.
const BULK: usize = 8 << 20;

/// Datagrams in a row: a bare veth loses what its ring of 256 cannot hold.
const BURST: usize = 100;

/// A group of IPv4 multicast, and one of IPv6.
const MULTICAST: [MacAddr; 2] = [MacAddr([1, 0, 0x5e, 0, 0, 0x7b]), MacAddr([0x33, 0x33, 0, 0, 0, 0x7b])];
/// The group of all bridges' neighbours that bridges do forward (IEEE 802.1Q table 8-1 ends before it).
const NOT_LINK_LOCAL: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x10]);
/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);
const LLDP: u16 = 0x88cc;
/// IEEE 802.1ad.
const QINQ: u16 = 0x88a8;

/// What the mesh is told about the plain host, and how the kernel's device is made.
#[derive(Clone, Copy)]
struct Case {
    family: Family,
    mode: &'static str,
    learning: bool,
    checksums: Checksums,
    by_file: bool,
}

/// UDP checksums of the outer header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checksums {
    /// Zero both ways.
    None,
    /// The kernel's device sends some.
    Sent,
    /// It insists on them over IPv6, and the mesh is told (`udp-checksum`): the helper device gives it some.
    Both,
}

const PLAIN: Case = Case { family: Family::V4, mode: "tc", learning: true, checksums: Checksums::None, by_file: false };
const OVER_V6: Case = Case { family: Family::V6, ..PLAIN };
const BY_HELPER: Case = Case { checksums: Checksums::Both, by_file: true, ..OVER_V6 };

#[test]
fn learning_v4_tc() {
    carries_everything(PLAIN);
}

#[test]
fn learning_v4_xdp() {
    carries_everything(Case { mode: "xdp", checksums: Checksums::Sent, by_file: true, ..PLAIN });
}

#[test]
fn nolearning_v4_tc() {
    carries_everything(Case { learning: false, checksums: Checksums::Sent, by_file: true, ..PLAIN });
}

#[test]
fn nolearning_v4_xdp() {
    carries_everything(Case { mode: "xdp", learning: false, ..PLAIN });
}

#[test]
fn learning_v6_tc() {
    carries_everything(OVER_V6);
}

#[test]
fn nolearning_v6_xdp() {
    carries_everything(Case { mode: "xdp", learning: false, by_file: true, ..OVER_V6 });
}

#[test]
fn insisting_on_checksums_v6_tc() {
    carries_everything(Case { learning: false, ..BY_HELPER });
}

#[test]
fn insisting_on_checksums_v6_xdp() {
    carries_everything(Case { mode: "xdp", ..BY_HELPER });
}

#[test]
fn given_checksums_v4_tc() {
    carries_everything(Case { family: Family::V4, ..BY_HELPER });
}

/// Two nodes and a plain host, everything both ways.
fn carries_everything(case: Case) {
    let Case { family, mode, learning, checksums, by_file } = case;
    let lab = Lab::new("matrix");
    let hosts = lab.routed(["hetzner", "ovh", "old-box"], &Wiring::over(family));
    let args = ["--mode", mode];
    let file = by_file.then(File::default);
    let segment = Segment { nodes: &hosts[..2], plain: &hosts[2..], args: &args, file };
    let agents = segment.up_with(&lab, if checksums == Checksums::Both { "udp-checksum = true" } else { "" });
    let options = VxlanOptions { learning, udp_checksum: checksums != Checksums::None, ..VxlanOptions::default() };
    let devices = segment.plain_up(&options);
    assert!(agents[0].up_line().contains(mode), "{}", agents[0].up_line());
    assert_eq!(hosts[0].peer(&hosts[2])["kind"], "vxlan");
    assert_eq!(hosts[0].link("l2m0")["mtu"], segment.mtu());

    let interfaces = ["l2m0", "l2m0", "vx0"];
    for (from, to) in [(0, 2), (2, 0), (1, 2), (0, 1)] {
        let answers = traffic::arping(&hosts[from], interfaces[from], Segment::v4(to), 1);
        assert_eq!(answers, 1, "ARP from {from} to {to}");
        exchange(&hosts, from, to, segment.mtu());
    }
    let learned = devices[0].lookup(hosts[0].mac("l2m0"));
    assert_eq!(learned, Some(hosts[0].vtep()));
    let row = hosts[0].mac_row(hosts[2].mac("vx0")).expect("the plain host's MAC address");
    assert_eq!(row["peer"], *hosts[0].peer(&hosts[2])["name"].as_str().expect("a name"));

    every_frame_arrives(&mut taps(&hosts[..2], &hosts[2..]), &hosts);
    for host in &hosts[..2] {
        for verdict in ["encap-failed", "decap-failed", "store-failed", "copy-failed", "too-big", "unknown-source"] {
            assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
        }
    }
    for agent in agents {
        agent.stop();
    }
    lab.assert_no_xdp_errors(&hosts);
}

/// Ping, TCP, and UDP of every length that is not fragmented.
fn exchange(hosts: &[Host], from: usize, to: usize, mtu: u32) {
    let (source, sink) = (&hosts[from], &hosts[to]);
    for address in [Segment::v4(to).into(), IpAddr::from(Segment::v6(to))] {
        let report = traffic::ping(source, address, 3);
        assert_eq!((report.lost(), report.duplicates), (0, 0), "{} to {address}", source.name());
        transfer::tcp(source, sink, address, BULK);
    }
    let longest = mtu as usize - 28;
    // A request and its answer that fill the MTU.
    let whole = traffic::ping_sized(source, Segment::v4(to), 1, longest);
    assert_eq!(whole.lost(), 0);
    let lengths: Vec<usize> = (1..=longest).collect();
    for burst in lengths.chunks(BURST) {
        transfer::udp(source, sink, Segment::v4(to), burst);
    }
}

/// Every tap in turn sends frames of every kind to everybody, to nobody and to each of the others: every one arrives where it
/// must, once, octet for octet, and nowhere else.
#[track_caller]
fn every_frame_arrives(taps: &mut [Tap], hosts: &[Host]) {
    let macs: Vec<MacAddr> = taps.iter().map(Tap::mac).collect();
    // Every node knows where every other is: the transfers have told.
    for sender in 0..taps.len() {
        let groups = [MacAddr::BROADCAST, MULTICAST[0], MULTICAST[1], NOT_LINK_LOCAL, NOBODY];
        let stations = macs.iter().enumerate().filter(|(place, _)| *place != sender);
        let stations: Vec<_> = stations.map(|(place, mac)| (*mac, Some(place))).collect();
        for (to, place) in groups.map(|group| (group, None)).into_iter().chain(stations) {
            let frames = kinds(to, macs[sender]);
            taps.iter_mut().for_each(Tap::clear);
            for frame in &frames {
                taps[sender].send(frame);
            }
            for receiver in (0..taps.len()).filter(|receiver| *receiver != sender) {
                let what = format!("from {} to {to} at {}", hosts[sender].name(), hosts[receiver].name());
                let times = usize::from(place.is_none_or(|place| place == receiver));
                let mut seen = vec![0; frames.len()];
                wait_for(&what, LIMIT, || {
                    let marker = taps[sender].send_marker(macs[sender]);
                    for received in taps[receiver].until(&marker, LIMIT) {
                        if let Some(index) = frames.iter().position(|frame| *frame == received.frame) {
                            seen[index] += 1;
                        }
                    }
                    let wrong: Vec<_> = frames.iter().zip(&seen).filter(|(_, seen)| **seen != times).collect();
                    if wrong.is_empty() {
                        Ok(())
                    } else {
                        Err(format!("{} wrong, {:?}", wrong.len(), &wrong[..wrong.len().min(3)]))
                    }
                });
            }
        }
    }
}

/// Frames of every kind, with every stack of tags, and of an unknown type with every short length.
fn kinds(to: MacAddr, from: MacAddr) -> Vec<Frame> {
    let [near, far] = [8, 9].map(|place| (Segment::v4(place), Segment::v6(place)));
    let v4 = [near, far].map(|(address, _)| SocketAddr::from((address, 7)));
    let v6 = [near, far].map(|(_, address)| SocketAddr::from((address, 7)));
    let mut plain = vec![
        Frame::unknown(to, from, &[1; 46]),
        Frame::unknown(to, from, &[2; 1401]),
        Frame::ethernet(to, from, LLDP, b"like LLDP"),
        Frame::arp_reply(from, near.0, to, far.0),
        Frame::neighbour_advertisement(from, near.1, to, far.1),
    ];
    if to == MacAddr::BROADCAST {
        plain.extend([
            Frame::arp_request(from, near.0, far.0),
            Frame::arp_request(from, near.0, near.0).padded(60),
            Frame::neighbour_solicitation(from, near.1, far.1),
        ]);
    }
    for [near, far] in [v4, v6] {
        for payload in [&b""[..], b"x", b"some text", &[3; 1000]] {
            plain.push(Frame::udp(to, from, near, far, payload));
            plain.push(Frame::tcp(to, from, near, far, payload));
        }
    }
    let tagged = plain.iter().cloned().flat_map(|frame| {
        [
            frame.clone().tagged(5),
            frame.clone().tagged(0xffff),
            // For its priority alone.
            frame.clone().tagged(0xe000),
            frame.clone().tagged_as(QINQ, 6),
            frame.clone().tagged(5).tagged_as(QINQ, 0x2006),
            frame.tagged(0).tagged(7),
        ]
    });
    // Tagged ones of less than 20 octets the kernel itself does not receive (`skb_vlan_untag`).
    let short = (0..=60_u8).map(|length| Frame::unknown(to, from, &(1..=length).collect::<Vec<_>>()));
    short.chain(plain.iter().cloned()).chain(tagged).collect()
}

/// What a card leaves in pieces, however little of it is in the first, is read as if it were in one: encapsulated,
/// decapsulated, marked, and sorted by protocol.
#[test]
fn frames_in_pieces() {
    const LONG: usize = 5000;
    for (family, mode) in [(Family::V4, "tc"), (Family::V6, "tc"), (Family::V4, "xdp"), (Family::V6, "xdp")] {
        let lab = Lab::new("pieces");
        let hosts = lab.switch(["a", "b"], &Wiring { mtu: 9000, ..Wiring::over(family) });
        let args = ["--mode", mode];
        let segment = Segment {
            nodes: &hosts,
            plain: &[],
            args: &args,
            file: Some(File { underlay: "", network: "mtu = 8900", ..File::default() }),
        };
        let _agents = segment.up(&lab);
        // It would pull together what it looks at. Mode xdp needs it on veth.
        if mode == "tc" {
            hosts[1].run("ethtool -K eth0 gro off");
        }
        let mut tap = Tap::open(&hosts[1], "l2m0");
        let (inside, outside) = (VirtioSender::open(&hosts[0], "l2m0"), VirtioSender::open(&hosts[0], "eth0"));
        let [v4, v6] = [
            [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7))),
            [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7))),
        ];
        let source = MacAddr([2, 0, 0, 0, 0, 8]);
        let (mut number, mut unmarkable) = (0_u32, 0);
        let mut next = || {
            number += 1;
            [&number.to_be_bytes()[..], &[7; LONG]].concat()
        };
        for head in [14, 34, 42, 54, 58, 62, 64, 84, 98, 104, 123, 128] {
            for [from, to] in [v4, v6] {
                let what = format!("{head} of {mode} {family:?} {from}");
                let frames = [
                    Frame::udp(NOBODY, source, from, to, &next()),
                    Frame::tcp(NOBODY, source, from, to, &next()),
                    Frame::unknown(NOBODY, source, &next()),
                    Frame::udp(NOBODY, source, from, to, &next()).tagged(5),
                    Frame::tcp(NOBODY, source, from, to, &next()).tagged(5),
                    Frame::udp(NOBODY, source, from, to, &next()).tagged(5).tagged_as(QINQ, 6),
                ];
                for frame in &frames {
                    inside.send_in_parts(frame, head);
                    tap.wait_frame(&format!("sent in pieces, {what}"), LIMIT, |received| received == frame);
                }
                for frame in &frames {
                    outside.send_in_parts(&wrapped(&hosts, 0, frame), head);
                    tap.wait_frame(&format!("received in pieces, {what}"), LIMIT, |received| received == frame);
                }
                // Marked on the way: inside it becomes a mark, where it can be one.
                let capable = Frame::udp(NOBODY, source, from, to, &next()).with_tos(0xb8 | 2);
                outside.send_in_parts(&wrapped(&hosts, 3, &capable), head);
                let marked = capable.with_tos(0xb8 | 3);
                tap.wait_frame(&format!("marked in pieces, {what}"), LIMIT, |received| *received == marked);
                outside.send_in_parts(&wrapped(&hosts, 3, &frames[0]), head);
                unmarkable += 1;
            }
        }
        hosts[1].wait_counter("ce-not-ect", unmarkable);
        lab.assert_no_xdp_errors(&hosts);
    }
}

/// As the first host sends it to the second.
fn wrapped(hosts: &[Host; 2], tos: u8, inner: &Frame) -> Frame {
    let vxlan = [&[8, 0, 0, 0, 0, 0, 16, 0], inner.octets()].concat();
    let [near, far] = [(&hosts[0], 50_000), (&hosts[1], 4789)].map(|(host, port)| SocketAddr::new(host.vtep(), port));
    Frame::udp(hosts[1].mac("eth0"), hosts[0].mac("eth0"), near, far, &vxlan).with_tos(tos)
}
