//! Mode kernel packet by packet, on a wire without Ethernet header: what is sent, what is accepted, what is too long.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::tun::{Passed, Tunnel};
use l2mesh_tests::{Agent, Frame, Host, Lab, MacAddr, Segment, Tap, traffic, transfer, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(5);
/// The agent asks for routes every ten seconds: nothing tells of what the kernel has learned.
const REFRESHED: Duration = Duration::from_secs(15);

/// Octets of an IP packet on the wire.
const WIRE: u32 = 1420;
/// TCP data, octets.
const BULK: usize = 2 << 20;

const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const UDP: u8 = 17;
/// Octets of UDP and VXLAN headers.
const BOTH: usize = 16;

/// Two hosts with a tun device each, attached without traffic of their own.
struct Pair {
    taps: [Tap; 2],
    agents: [Agent; 2],
    hosts: [Host; 2],
    tunnel: Tunnel,
    lab: Lab,
}

impl Pair {
    /// `network` are further lines of the network.
    #[track_caller]
    fn new(title: &str, ipv6: bool, network: &str) -> Self {
        let lab = Lab::new(title);
        let hosts = ["a", "b"].map(|name| lab.host(name));
        let tunnel = Tunnel::between(hosts.each_ref(), WIRE);
        let file = lab.directory().join("mesh.toml");
        let address = |place| if ipv6 { IpAddr::from(Tunnel::v6(place)) } else { Tunnel::v4(place).into() };
        let node =
            |name, place| format!("[[node]]\nname = \"{name}\"\naddress = \"{}\"\nprobes = false\n", address(place));
        // Of another network only.
        let other = if ipv6 { "fd98::9" } else { "10.98.0.9" };
        let other = format!("[[node]]\nname = \"other\"\naddress = \"{other}\"\nkind = \"vxlan\"\n");
        let networks = format!(
            "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\nmembers = [\"a\", \"b\"]\n{network}\n\
             [[network]]\nname = \"more\"\nvni = 17\n"
        );
        let text = [node("a", 0), node("b", 1), other, networks].concat();
        fs::write(&file, text).expect("a file in the lab's directory");
        let file = file.display().to_string();
        let agents = hosts.each_ref().map(|host| {
            host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
            let agent = host.attach(&["--config", &file]);
            host.wait_carrier("l2m0");
            agent
        });
        let taps = hosts.each_ref().map(|host| Tap::open(host, "l2m0"));
        Self { taps, agents, hosts, tunnel, lab }
    }

    /// Sends a frame from the first host and returns what was on the wire, in both directions, until it arrived.
    #[track_caller]
    fn wire(&mut self, frame: &Frame) -> Vec<u8> {
        let _before = self.tunnel.passed();
        self.taps[0].send(frame);
        self.taps[1].wait_frame("the frame", LIMIT, |received| received.is_padded(frame));
        let passed: Vec<_> =
            self.tunnel.passed().into_iter().filter(|it| inner(&it.octets) == frame.octets()).collect();
        let [one] = &passed[..] else { panic!("not once: {passed:?}") };
        assert_eq!(one.from, 0);
        one.octets.clone()
    }

    /// What the second host sent since it was last asked, but for what its tunnel says of itself when it likes: IPv6 to groups.
    fn returned(&self) -> Vec<Passed> {
        let to_group = |octets: &[u8]| octets[0] >> 4 == 6 && octets[24] == 0xff;
        self.tunnel.passed().into_iter().filter(|it| it.from == 1 && !to_group(&it.octets)).collect()
    }

    #[track_caller]
    fn stop(self) {
        self.agents.into_iter().for_each(Agent::stop);
        drop(self.lab);
    }
}

fn outer_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// The frame that a packet carries; nothing if it carries none.
fn inner(packet: &[u8]) -> &[u8] {
    packet.get(outer_len(packet) + BOTH..).unwrap_or_default()
}

/// DSCP and ECN of the outer header.
fn tos(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

fn source_port(packet: &[u8]) -> u16 {
    let udp = outer_len(packet);
    u16::from_be_bytes([packet[udp], packet[udp + 1]])
}

/// A datagram between two stations with this TOS octet or traffic class.
fn datagram(from: MacAddr, to: MacAddr, port: u16, tos: u8, ipv6: bool) -> Frame {
    let ends: [SocketAddr; 2] = if ipv6 {
        [8, 9].map(|place| (Segment::v6(place), port).into())
    } else {
        [8, 9].map(|place| (Segment::v4(place), port).into())
    };
    let frame = Frame::udp(to, from, ends[0], ends[1], b"some octets of data");
    let mut octets = frame.octets().to_vec();
    if ipv6 {
        octets[14] = 0x60 | tos >> 4;
        octets[15] = tos << 4;
    } else {
        octets[15] = tos;
        // RFC 1624: the header's sum loses what the octet gains.
        let sum = u32::from(!u16::from_be_bytes([octets[24], octets[25]])) + u32::from(tos);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded");
        octets[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    Frame::raw(octets)
}

#[test]
fn the_outer_header() {
    for ipv6 in [false, true] {
        let mut pair = Pair::new("outer", ipv6, "");
        let own = pair.taps[0].mac();
        let mut ports = Vec::new();
        for (frame, same_flow) in [
            (datagram(own, MacAddr::BROADCAST, 7, 0, false), false),
            (datagram(own, MacAddr::BROADCAST, 7, 0, false), true),
            (datagram(own, MacAddr::BROADCAST, 8, 0, false), false),
            (datagram(own, STATION, 9, 0, true), false),
            (Frame::unknown(MacAddr::BROADCAST, own, b"of no known type").padded(60), false),
        ] {
            let packet = pair.wire(&frame);
            let header = outer_len(&packet);
            if ipv6 {
                let length = u16::try_from(packet.len() - 40).expect("a short packet").to_be_bytes();
                // No class, length, UDP, hop limit; the flow label is nobody's business.
                assert_eq!((packet[0], packet[1] >> 4, &packet[4..8]), (0x60, 0, &[length[0], length[1], UDP, 64][..]));
            } else {
                let length = u16::try_from(packet.len()).expect("a short packet").to_be_bytes();
                assert_eq!(packet[..4], [0x45, 0, length[0], length[1]], "no options, no DSCP");
                assert_eq!(packet[6..10], [0x40, 0, 64, UDP], "DF, TTL");
            }
            let length = u16::try_from(packet.len() - header).expect("a short packet").to_be_bytes();
            let udp = &packet[header..header + BOTH];
            assert_eq!(udp[2..8], [0x12, 0xb5, length[0], length[1], 0, 0], "port 4789, length, no checksum");
            assert_eq!(udp[8..], [8, 0, 0, 0, 0, 0, 16, 0], "flags, VNI");
            let port = source_port(&packet);
            assert!(port >= 49152, "{port}");
            assert!(!same_flow || ports.last() == Some(&port), "one flow, one source port: {ports:?} {port}");
            ports.push(port);
        }
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 1, "flows differ: {ports:?}");
        pair.stop();
    }
}

/// RFC 6040: what is inside is copied to the outside, and a mark on the way comes inside where that is allowed.
#[test]
fn congestion_marks() {
    const DSCP: u8 = 0xb8;
    for (ipv6, dscp, network) in [(false, 0, ""), (true, 0, ""), (false, DSCP, "tos = \"inherit\"")] {
        let mut pair = Pair::new("ECN", ipv6, network);
        let own = pair.taps[0].mac();
        for inner_v6 in [false, true] {
            // Not ECT, ECT(1), ECT(0), CE: outside, and inside after a mark on the way.
            for (ecn, outside, marked) in [(0, 0, None), (1, 1, Some(3)), (2, 2, Some(3)), (3, 2, Some(3))] {
                let what = format!("outer IPv6 {ipv6}, inner IPv6 {inner_v6}, ECN {ecn}");
                let frame = datagram(own, MacAddr::BROADCAST, 7, DSCP | ecn, inner_v6);
                assert_eq!(tos(&pair.wire(&frame)), dscp | outside, "{what}");
                pair.tunnel.congest(true);
                pair.taps[0].send(&frame);
                let marker = pair.taps[0].send_marker(own);
                let arrived = pair.taps[1].until(&marker, LIMIT);
                pair.tunnel.congest(false);
                let expected = marked.map(|ecn| datagram(own, MacAddr::BROADCAST, 7, DSCP | ecn, inner_v6));
                let arrived: Vec<Frame> = arrived.into_iter().map(|it| it.frame).collect();
                assert_eq!(arrived, Vec::from_iter(expected), "{what}, marked");
            }
        }
        pair.stop();
    }
}

/// What makes a good packet a bad one.
type Change<'a> = Box<dyn Fn(&mut [u8]) + 'a>;

/// Who may send, and what: as in the other modes.
#[test]
fn the_source_is_validated() {
    for ipv6 in [false, true] {
        let mut pair = Pair::new("source", ipv6, "");
        let (from, own) = (pair.taps[0].mac(), pair.taps[1].mac());
        let good = Frame::unknown(MacAddr::BROADCAST, from, b"to all").padded(60);
        let packet = pair.wire(&good);
        let frame = outer_len(&packet) + BOTH;
        let source = if ipv6 { 8 + 15 } else { 12 + 3 };
        let vni = outer_len(&packet) + 14;
        let cases: [(&str, Option<&str>, Change<'_>); 9] = [
            ("a stranger", Some("unknown-source"), Box::new(|it| it[source] = 77)),
            ("no member", Some("not-member"), Box::new(|it| it[source] = 9)),
            ("a network of nobody", Some("not-our-vni"), Box::new(|it| it[vni] = 99)),
            ("our own address", Some("own-source"), Box::new(|it| it[frame + 6..frame + 12].copy_from_slice(&own.0))),
            ("a group", Some("group-source"), Box::new(|it| it[frame + 6] |= 1)),
            ("no address", Some("group-source"), Box::new(|it| it[frame + 6..frame + 12].fill(0))),
            (
                "a bridge's group",
                Some("link-local-received"),
                Box::new(|it| it[frame..frame + 6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 3])),
            ),
            // These two the kernel drops.
            ("a reserved bit", None, Box::new(|it| it[vni - 6] |= 0x40)),
            ("no VNI flag", None, Box::new(|it| it[vni - 6] = 0)),
        ];
        for (what, verdict, change) in cases {
            let before = verdict.map(|verdict| pair.hosts[1].counter(verdict));
            let learned = pair.hosts[1].counter("learned");
            let mut bad = packet.clone();
            // Not what arrived before.
            bad[frame + 20] ^= 0xff;
            change(&mut bad);
            let _before = pair.tunnel.passed();
            pair.tunnel.inject(1, &bad);
            if let (Some(verdict), Some(before)) = (verdict, before) {
                pair.hosts[1].wait_counter(verdict, before + 1);
            }
            let marker = pair.taps[0].send_marker(from);
            assert_eq!(pair.taps[1].until(&marker, LIMIT), [], "{what}, outer IPv6 {ipv6}");
            assert_eq!(pair.hosts[1].counter("learned"), learned, "{what}");
            assert_eq!(pair.returned(), [], "{what}: nothing comes back");
        }
        // What is right arrives, is learned, and does not come back: split horizon.
        let mut moved = packet.clone();
        moved[frame + 6..frame + 12].copy_from_slice(&STATION.0);
        pair.tunnel.inject(1, &moved);
        let expected = Frame::raw(&moved[frame..]);
        pair.taps[1].wait_frame("the frame", LIMIT, |received| *received == expected);
        assert_eq!(pair.hosts[1].mac_row(STATION).expect("the station")["peer"], "a");
        let marker = pair.taps[0].send_marker(from);
        pair.taps[1].until(&marker, LIMIT);
        assert_eq!(pair.returned(), []);
        pair.stop();
    }
}

#[track_caller]
fn wait_mtu(host: &Host, octets: u32) {
    wait_for(&format!("{}: {octets} octets fit", host.name()), REFRESHED, || {
        let all = host.l2mesh(&["maps", "peers", "--json", "--vni", "16"]);
        if all["peers"][0]["mtu"] == octets { Ok(()) } else { Err(all.to_string()) }
    });
}

/// The MTU towards a peer is that of its route: the device's, or less.
#[test]
fn the_mtu_follows_the_route() {
    for (ipv6, overhead) in [(false, 50), (true, 70)] {
        let pair = Pair::new("MTU", ipv6, "");
        let a = &pair.hosts[0];
        assert_eq!(a.link("l2m0")["mtu"], WIRE - overhead);
        wait_mtu(a, WIRE - overhead);
        let destination = if ipv6 { "fd98::2/128" } else { "10.98.0.2/32" };
        a.run(&format!("ip route add {destination} dev tun0 mtu 1350"));
        wait_mtu(a, 1350 - overhead);
        a.run("ip link set dev tun0 mtu 1330");
        wait_mtu(a, 1330 - overhead);
        a.run(&format!("ip route del {destination} dev tun0"));
        a.run("ip link set dev tun0 mtu 1400");
        wait_mtu(a, 1400 - overhead);
        pair.stop();
    }
}

/// Somewhere on the way less fits than here: routers say so, the kernel learns it, and tells who sends. The agent, stopped
/// here for once, has no part in it.
#[test]
fn a_path_that_became_narrow() {
    // With IPv6 outside there is room for 1290 octets, and IPv6 inside needs 1280.
    const NARROW: u16 = 1360;
    for (ipv6, overhead) in [(false, 50), (true, 70)] {
        let mut pair = Pair::new("narrow", ipv6, "");
        pair.agents[0].process().signal(Signal::SIGSTOP);
        let [a, b] = &pair.hosts;
        for (place, host) in pair.hosts.iter().enumerate() {
            Segment::address(host, "l2m0", place);
        }
        assert_eq!(traffic::ping(a, Segment::v4(1), 2).lost(), 0);
        pair.tunnel.narrow(usize::from(NARROW));
        for (address, headers) in [(IpAddr::from(Segment::v4(1)), 28), (Segment::v6(1).into(), 48)] {
            let whole = WIRE - overhead - headers;
            let command = format!("ping -n -M do -c 1 -W 1 -s {whole} {address}");
            let words: Vec<&str> = command.split(' ').collect();
            wait_for(&format!("{address}: the sender is told"), LIMIT, || {
                let output = a.try_exec(words[0], &words[1..]);
                let text = output.stdout + &output.stderr;
                let told = format!("mtu={}", u32::from(NARROW) - overhead);
                if text.replace("mtu = ", "mtu=").replace("mtu: ", "mtu=").contains(&told) { Ok(()) } else { Err(text) }
            });
            transfer::tcp(a, b, address, BULK);
            let fits = usize::from(NARROW) - (overhead + headers) as usize;
            assert_eq!(traffic::ping_sized(a, address, 3, fits).lost(), 0, "{address}");
        }
        pair.agents[0].process().signal(Signal::SIGCONT);
        wait_mtu(a, u32::from(NARROW) - overhead);
        pair.stop();
    }
}
