//! Who may send into a network, and whose VXLAN is somebody else's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::{
    File, Frame, Host, Lab, MacAddr, Marker, Segment, Tap, VxlanOptions, Wiring, taps, traffic, transfer,
};

const LIMIT: Duration = Duration::from_secs(5);

/// TCP data, octets.
const BULK: usize = 4 << 20;

/// A frame that mode tc decapsulates itself, and one that it hands to the kernel first: inner TCP.
fn both_ways(source: MacAddr) -> [Frame; 2] {
    const IPV4_PROTOCOL: usize = 23;
    const TCP: u8 = 6;
    let [from, to] = [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7)));
    let udp = Frame::udp(MacAddr::BROADCAST, source, from, to, b"not for you, but long enough for TCP");
    let mut octets = udp.octets().to_vec();
    octets[IPV4_PROTOCOL] = TCP;
    [udp, Frame::raw(octets)]
}

/// Its interfaces send nothing of their own.
fn quiet(host: &Host) {
    host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
}

/// Sends from an intruder and then, after `counted`, a marker from a member; returns what of it arrived at the first tap.
fn intrude(victim: &Host, tap: &mut Tap, intruder: &Host, verdict: &str, marker: impl FnOnce() -> Marker) -> usize {
    let before = victim.counter(verdict);
    let sender = Tap::sender(intruder, "vx0");
    let frames = both_ways(sender.mac());
    for frame in &frames {
        sender.send(frame);
    }
    victim.wait_counter(verdict, before + frames.len() as u64);
    let marker = marker();
    let arrived = tap.until(&marker, LIMIT);
    arrived.iter().filter(|received| frames.iter().any(|frame| received.frame.is_padded(frame))).count()
}

#[test]
fn a_stranger_is_refused_and_counted() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("stranger");
        let [a, b, stranger] = lab.switch(["a", "b", "stranger"], &Wiring::default());
        let (nodes, args) = ([a.clone(), b], ["--mode", mode]);
        let _agents = Segment::of(&nodes, &args).up(&lab);
        quiet(&stranger);
        let options = VxlanOptions { mtu: Some(Segment::MTU), ..VxlanOptions::default() };
        stranger.kernel_vxlan(stranger.address(), &[a.address().into()], &options);
        let mut taps = taps(&nodes, &[]);
        let (tap, member) = taps.split_at_mut(1);
        let arrived = intrude(&a, &mut tap[0], &stranger, "unknown-source", || member[0].send_marker(member[0].mac()));
        assert_eq!(arrived, 0, "{mode}");
        assert_eq!(a.mac_row(stranger.mac("vx0")), None, "nothing is learned from it");
    }
}

#[test]
fn a_node_that_is_no_member_is_refused_and_counted() {
    const OTHER: &str = "members = [\"a\", \"b\"]\n[[network]]\nname = \"other\"\nvni = 17\ninterface = \"l2m1\"";
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("no member");
        let [a, b, other] = lab.switch(["a", "b", "other"], &Wiring::default());
        let (nodes, plain, args) = ([a.clone(), b], [other.clone()], ["--mode", mode]);
        let file = Some(File { underlay: "", network: OTHER, ..File::default() });
        let _agents = Segment { nodes: &nodes, plain: &plain, args: &args, file }.up(&lab);
        quiet(&other);
        for (name, vni) in [("vx0", 16), ("vx1", 17)] {
            let options = VxlanOptions { name: name.to_owned(), vni, mtu: Some(1450), ..VxlanOptions::default() };
            other.kernel_vxlan(other.address(), &[a.address().into()], &options);
        }
        let mut taps = taps(&nodes, &[]);
        let (tap, member) = taps.split_at_mut(1);
        let arrived = intrude(&a, &mut tap[0], &other, "not-member", || member[0].send_marker(member[0].mac()));
        assert_eq!(arrived, 0, "{mode}");

        // In the network of which it is one it is heard, and a frame for all of lan does not come to it.
        let mut inside = Tap::open(&a, "l2m1");
        let sender = Tap::open(&other, "vx1");
        for frame in both_ways(sender.mac()) {
            sender.send(&frame);
            inside.wait_frame("the member's frame", LIMIT, |received| received.is_padded(&frame));
        }
        let mut outside = Tap::open(&other, "vx0");
        let marker = tap[0].send_marker(tap[0].mac());
        member[0].until(&marker, LIMIT);
        assert_eq!(outside.receive(Duration::from_millis(10)), None);
    }
}

/// With `--private-port` somebody else's vxlan device lives on the same UDP port, whoever came first.
#[test]
fn a_foreign_vni_is_passed_on() {
    const FOREIGN: u32 = 99;
    for (mode, foreign_first) in [("tc", true), ("tc", false), ("xdp", true), ("xdp", false)] {
        let lab = Lab::new("foreign");
        let hosts = lab.routed(["a", "b"], &Wiring::default());
        let foreign = || {
            for (index, (own, other)) in [(0, 1), (1, 0)].into_iter().enumerate() {
                let options = VxlanOptions { vni: FOREIGN, mtu: Some(Segment::MTU), ..VxlanOptions::default() };
                let peer: IpAddr = hosts[other].address().into();
                hosts[own].kernel_vxlan(hosts[own].address(), &[peer], &options);
                hosts[own].add_address("vx0", &format!("10.9.0.{}/24", index + 1));
            }
        };
        let args = ["--mode", mode, "--private-port"];
        let up = || Segment::of(&hosts, &args).up(&lab);
        let _agents = if foreign_first {
            foreign();
            up()
        } else {
            let agents = up();
            foreign();
            agents
        };
        let theirs: IpAddr = [10, 9, 0, 2].into();
        for address in [theirs, Segment::v4(1).into(), Segment::v6(1).into()] {
            let what = format!("{mode}, foreign first: {foreign_first}, {address}");
            assert_eq!(traffic::ping(&hosts[0], address, 3).lost(), 0, "{what}");
            transfer::tcp(&hosts[0], &hosts[1], address, BULK);
        }
        for host in &hosts {
            assert_ne!(host.counter("other-vni"), 0, "{}: the foreign network was seen", host.name());
            for verdict in ["not-our-vni", "unknown-source", "not-member"] {
                assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
            }
        }
    }
}
