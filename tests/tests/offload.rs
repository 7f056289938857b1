//! Frames that are many on the wire: they stay one as long as they can, and are right when they are cut up.

use std::net::IpAddr;
use std::time::Duration;

use l2mesh_tests::place::{ELSEWHERE, Place};
use l2mesh_tests::{
    Capture, Direction, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, traffic, transfer,
};

const LIMIT: Duration = Duration::from_secs(5);

/// TCP data where every segment is looked at afterwards, octets.
const WATCHED: usize = 3 << 20;

/// TCP data enough for the greatest aggregates, octets.
const BULK: usize = 32 << 20;

#[test]
fn direct_tc() {
    bulk_is_right_on_the_wire(Place::Direct, "tc");
}

#[test]
fn direct_xdp() {
    bulk_is_right_on_the_wire(Place::Direct, "xdp");
}

#[test]
fn bridged_tc() {
    bulk_is_right_on_the_wire(Place::Bridged, "tc");
}

#[test]
fn bridged_xdp() {
    bulk_is_right_on_the_wire(Place::Bridged, "xdp");
}

#[test]
fn moved_tc() {
    bulk_is_right_on_the_wire(Place::Moved, "tc");
}

#[test]
fn moved_xdp() {
    bulk_is_right_on_the_wire(Place::Moved, "xdp");
}

/// TCP and segmented UDP in both families and directions, and every checksum on the wire is right.
fn bulk_is_right_on_the_wire(place: Place, mode: &str) {
    let lab = Lab::new(&format!("{place:?} {mode}"));
    let hosts = lab.switch(["a", "b"], &Wiring::default());
    let args = ["--mode", mode];
    let _agents = Segment::of(&hosts, &args).up(&lab);
    let [a, b] = [0, 1].map(|index| place.settle(&lab, &hosts[index], index, Segment::MTU));
    // Neighbours are known, so that nothing but the transfers is captured.
    for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
        assert_eq!(traffic::ping(&a, address, 2).lost(), 0, "{address}");
    }
    let captures = ["a", "b"].map(|port| Capture::start(&lab.fabric(), port, Direction::Out, "udp port 4789"));
    for (from, to, index) in [(&a, &b, 1), (&b, &a, 0)] {
        for address in [IpAddr::from(Segment::v4(index)), Segment::v6(index).into()] {
            transfer::tcp(from, to, address, WATCHED);
            assert_eq!(transfer::udp_segmented(from, to, address, 1200, 50_000), 42);
        }
    }
    for capture in captures {
        let pcap = capture.stop();
        assert!(pcap.count("vxlan and tcp.len > 1300") > WATCHED / 1500, "TCP was captured");
        assert_eq!(pcap.count("vxlan and ip.len > 1500"), 0);
        let bad = pcap.bad_checksums();
        assert!(bad.is_empty(), "{} bad, the first: {}", bad.len(), bad[0]);
    }
    for host in &hosts {
        for verdict in ["encap-failed", "decap-failed", "too-big", "over-mtu", "store-failed"] {
            assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
        }
    }
    lab.assert_no_xdp_errors(&hosts);
}

#[test]
fn a_long_frame_stays_one_until_the_nic() {
    for (hook, transmit) in [("port", "hidden peer"), ("auto", "egress shortcut")] {
        let lab = Lab::new("one frame");
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        let args = ["--tx-hook", hook];
        let _agents = Segment::of(&hosts, &args).up(&lab);
        let [a, b] = &hosts;
        a.wait_transmit(transmit);
        for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
            let before = sent(a, b);
            transfer::tcp(a, b, address, BULK);
            let [frames, octets] = [0, 1].map(|which| sent(a, b)[which] - before[which]);
            let average = octets / frames;
            println!("{hook} {address}: {average} octets a frame");
            assert!(
                octets >= BULK as u64 && average > 10 << 10,
                "{hook} {address}: {octets} octets in {frames} frames"
            );
        }
    }
}

/// Frames and octets that `l2mesh maps peers` shows as sent.
fn sent(from: &Host, to: &Host) -> [u64; 2] {
    let row = from.peer(to);
    ["sent_frames", "sent_octets"].map(|key| row[key].as_u64().expect("a count"))
}

/// A vxlan device of the kernel's over l2m0: its long frames are encapsulated once already (dataplane.md pitfall 3).
#[test]
fn a_nested_vxlan_carries_tcp() {
    for (hook, transmit, mode) in [("port", "hidden peer", "tc"), ("auto", "egress shortcut", "xdp")] {
        let lab = Lab::new("nested");
        let hosts = lab.switch(["a", "b"], &Wiring::default());
        let args = ["--tx-hook", hook, "--mode", mode];
        let _agents = Segment::of(&hosts, &args).up(&lab);
        for (index, host) in hosts.iter().enumerate() {
            let peer = IpAddr::from(Segment::v4(1 - index));
            let options = VxlanOptions { vni: 77, port: 8472, mtu: Some(1400), ..VxlanOptions::default() };
            host.kernel_vxlan(Segment::v4(index), &[peer], &options);
            host.add_address("vx0", &format!("10.9.0.{}/24", index + 1));
            host.add_address("vx0", &format!("fd09::{}/64", index + 1));
            host.wait_transmit(transmit);
        }
        let [a, b] = &hosts;
        let addresses: [IpAddr; 2] = ["10.9.0.2", "fd09::2"].map(|text| text.parse().expect("an address"));
        for address in addresses {
            assert_eq!(traffic::ping(a, address, 3).lost(), 0, "{hook} {address}");
            transfer::tcp(a, b, address, WATCHED);
            assert_eq!(a.counter("encap-failed"), 0, "{hook} {address}");
        }
        let capture = Capture::start(&lab.fabric(), "b", Direction::Out, "udp port 4789");
        for address in addresses {
            transfer::tcp(a, b, address, 2 * WATCHED);
        }
        let pcap = capture.stop();
        assert_ne!(pcap.count("vxlan.vni == 77 and tcp.len > 1000"), 0);
        let bad = pcap.bad_checksums();
        assert!(bad.is_empty(), "{} bad, the first: {}", bad.len(), bad[0]);
        assert_eq!(a.counter("encap-failed"), 0, "{hook}");
    }
}

/// `ip -s link` of l2m0: right through the hidden peer; with the shortcut what it sent is not counted.
#[test]
fn counters_of_the_interface() {
    const FRAMES: u64 = 100;
    for (hook, transmit, mode) in
        [("port", "hidden peer", "tc"), ("port", "hidden peer", "xdp"), ("auto", "egress shortcut", "tc")]
    {
        let lab = Lab::new("counters");
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        let args = ["--tx-hook", hook, "--mode", mode];
        let _agents = Segment::of(&hosts, &args).up_silent();
        let [a, b] = &hosts;
        for host in &hosts {
            host.wait_transmit(transmit);
        }
        let before = hosts.each_ref().map(statistics);
        let peer_before = sent(a, b);
        let tap = Tap::sender(a, "l2m0");
        let frame = Frame::unknown(MacAddr::BROADCAST, tap.mac(), b"counted").padded(1000);
        (0..FRAMES).for_each(|_| tap.send(&frame));
        b.wait_counter("received", FRAMES);
        let octets = FRAMES * 1000;
        let [after_a, after_b] = hosts.each_ref().map(statistics);
        let seen = if transmit == "hidden peer" { [FRAMES, octets] } else { [0, 0] };
        assert_eq!([after_a[0] - before[0][0], after_a[1] - before[0][1]], seen, "{hook} {mode}: sent");
        assert_eq!([after_b[2] - before[1][2], after_b[3] - before[1][3]], [FRAMES, octets], "{hook} {mode}: received");
        let peer_after = sent(a, b);
        assert_eq!([0, 1].map(|which| peer_after[which] - peer_before[which]), [FRAMES, octets], "{hook}: true figure");
    }
}

/// Frames and octets sent, frames and octets received, of l2m0.
fn statistics(host: &Host) -> [u64; 4] {
    let link = host.link("l2m0");
    [("tx", "packets"), ("tx", "bytes"), ("rx", "packets"), ("rx", "bytes")]
        .map(|(side, what)| link["stats64"][side][what].as_u64().expect("a count"))
}

/// A member with a greater MTU: what is too long for l2m0 is received all the same, or counted where it cannot be.
#[test]
fn frames_above_the_mtu_are_delivered() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("above");
        let hosts = lab.switch(["a", "b"], &Wiring { mtu: 9000, ..Wiring::default() });
        let (nodes, plain) = hosts.split_at(1);
        let args = ["--mode", mode];
        let segment = Segment { nodes, plain, args: &args, file: None };
        let _agents = segment.up(&lab);
        segment.plain_up(&VxlanOptions { mtu: Some(8950), ..VxlanOptions::default() });
        let [a, b] = &hosts;
        assert_eq!(a.link("l2m0")["mtu"], Segment::MTU);
        // 1450 fits, 1454 does in a veth that leaves room for a VLAN tag, the others do not.
        let lengths = [100, 1422, 1423, 1426, 1427, 2000, 5000, 8922];
        transfer::udp(b, a, Segment::v4(0), &lengths);
        assert_eq!(a.counter("over-mtu"), 0);

        let guest = lab.host("guest");
        a.move_interface("l2m0", &guest);
        guest.run("ip link set dev l2m0 up");
        a.wait_transmit(ELSEWHERE);
        let mut tap = Tap::open(&guest, "l2m0");
        let sender = Tap::sender(b, "vx0");
        let long = Frame::unknown(MacAddr::BROADCAST, sender.mac(), &[7; 5000]);
        sender.send(&long);
        a.wait_counter("over-mtu", 1);
        let marker = sender.send_marker(sender.mac());
        assert_eq!(tap.count_until(&long, &marker, LIMIT), 0, "{mode}");
    }
}
