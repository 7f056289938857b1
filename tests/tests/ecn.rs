//! Congestion marks and the class of service (RFC 6040, RFC 2983): what the kernel's vxlan device makes of a frame, ours does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::fates::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, XDP_DROP, XDP_PASS};
use l2mesh_tests::{
    Capture, Direction, Family, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

const SOURCE: MacAddr = MacAddr([2, 0, 0, 0, 0, 8]);
/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);
/// Behind the judge, and behind the one that insists on checksums, as the configuration says.
const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const STRICT_STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 10]);

// RFC 3168 section 5.
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// RFC 6040 section 4.2, figure 4: rows inside, columns outside, both in the order Not-ECT, ECT(0), ECT(1), CE.
const RFC_6040: [(u8, [Option<u8>; 4]); 4] = [
    (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
    (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
    (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
    (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
];

/// Classes inside and outside: the outer one never comes in.
const INNER_DSCP: u8 = 0xb8;
const OUTER_DSCP: u8 = 0x48;

/// A frame inside one outer octet, and what must come out.
struct Case {
    name: String,
    outer: u8,
    inner: Frame,
    expected: Option<Frame>,
    is_tcp: bool,
}

/// The whole table for each kind of packet. No two inner frames are the same.
fn cases() -> Vec<Case> {
    let v4 = [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7)));
    let v6 = [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7)));
    let mut cases = Vec::new();
    let mut add = |kind: &str, frame: &dyn Fn(&[u8]) -> Frame, is_tcp: bool, tag: Option<u16>| {
        for (inside, row) in RFC_6040 {
            for (outside, found) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(row) {
                let name = format!("{kind}, inner {inside:02b}, outer {outside:02b}");
                let plain = frame(format!("{name} and so on").as_bytes());
                let tagged = |frame: Frame| match tag {
                    Some(tag) => frame.tagged(tag),
                    None => frame,
                };
                let inner = tagged(plain.clone().with_tos(INNER_DSCP | inside));
                // Behind a tag neither looks.
                let expected = match tag {
                    Some(_) => Some(inner.clone()),
                    None => found.map(|ecn| plain.with_tos(INNER_DSCP | ecn)),
                };
                cases.push(Case { name, outer: OUTER_DSCP | outside, inner, expected, is_tcp });
            }
        }
    };
    for (version, [from, to]) in [("IPv4", v4), ("IPv6", v6)] {
        let udp = |payload: &[u8]| Frame::udp(NOBODY, SOURCE, from, to, payload);
        let tcp = |payload: &[u8]| Frame::tcp(NOBODY, SOURCE, from, to, payload);
        add(&format!("UDP in {version}"), &udp, false, None);
        add(&format!("TCP in {version}"), &tcp, true, None);
        add(&format!("tagged UDP in {version}"), &udp, false, Some(5));
        add(&format!("tagged TCP in {version}"), &tcp, true, Some(0x2010));
    }
    for outside in [NOT_ECT, ECT_0, ECT_1, CE] {
        let name = format!("no IP, outer {outside:02b}");
        let inner = Frame::unknown(NOBODY, SOURCE, &[&[7; 46], name.as_bytes()].concat());
        let expected = Some(inner.clone());
        cases.push(Case { name, outer: OUTER_DSCP | outside, inner, expected, is_tcp: false });
    }
    cases
}

#[test]
fn table_of_rfc_6040_over_ipv4() {
    what_comes_out(Family::V4);
}

#[test]
fn table_of_rfc_6040_over_ipv6() {
    what_comes_out(Family::V6);
}

/// The same frames to the kernel's vxlan device and to hosts in both modes; and to their programs under `TEST_RUN`.
fn what_comes_out(family: Family) {
    let lab = Lab::new("what comes out");
    let [peer, kernel, tc, xdp] = lab.switch(["peer", "kernel", "tc", "xdp"], &Wiring::over(family));
    for host in [&kernel, &tc, &xdp] {
        host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    }
    let address = peer.vtep().to_string();
    let _agents = [(&tc, "tc"), (&xdp, "xdp")]
        .map(|(host, mode)| host.attach(&["--vni", "16", "--overlay", "l2m0", "--peer", &address, "--mode", mode]));
    let options = VxlanOptions { mtu: Some(1400), ..VxlanOptions::default() };
    kernel.kernel_vxlan(kernel.vtep(), &[peer.vtep()], &options);

    let cases = cases();
    let judged = come_out(&peer, &kernel, "vx0", &cases);
    for (case, judged) in cases.iter().zip(judged) {
        assert_eq!(judged, case.expected, "the kernel's device: {}", case.name);
    }
    let dropped = cases.iter().filter(|case| case.expected.is_none()).count() as u64;
    assert_eq!(dropped, 4);
    for host in [&tc, &xdp] {
        for (case, found) in cases.iter().zip(come_out(&peer, host, "l2m0", &cases)) {
            assert_eq!(found, case.expected, "{}: {}", host.name(), case.name);
        }
        assert_eq!(host.counter("ce-not-ect"), dropped, "{}", host.name());
    }
    for case in &cases {
        run_tc(&peer, &tc, case);
        run_xdp(&peer, &xdp, case);
    }
}

/// As a peer sends it to a host.
fn wrapped(from: &Host, to: &Host, outer: u8, inner: &Frame) -> Frame {
    let vxlan = [&[8, 0, 0, 0, 0, 0, 16, 0], inner.octets()].concat();
    let [near, far] = [(from, 50_000), (to, 4789)].map(|(host, port)| SocketAddr::new(host.vtep(), port));
    Frame::udp(to.mac("eth0"), from.mac("eth0"), near, far, &vxlan).with_tos(outer)
}

/// What comes out of a host's interface of each case, if anything.
#[track_caller]
fn come_out(peer: &Host, host: &Host, interface: &str, cases: &[Case]) -> Vec<Option<Frame>> {
    let mut tap = Tap::open(host, interface);
    let sender = Tap::sender(peer, "eth0");
    for case in cases {
        sender.send(&wrapped(peer, host, case.outer, &case.inner));
    }
    let mut found: Vec<Option<Frame>> = vec![None; cases.len()];
    let expected = cases.iter().filter(|case| case.expected.is_some()).count();
    // TCP may be a little later than the others.
    wait_for(&format!("{expected} frames on {interface} of {}", host.name()), LIMIT, || {
        while let Some(received) = tap.receive(Duration::from_millis(20)) {
            let frame = received.frame;
            // Every one says what it is.
            let is_it = |case: &Case| case.inner.octets()[60..] == frame.octets()[frame.octets().len().min(60)..];
            if let Some(index) = cases.iter().position(is_it) {
                assert_eq!(found[index].replace(frame), None, "twice: {}", cases[index].name);
            }
        }
        let count = found.iter().flatten().count();
        if count >= expected { Ok(()) } else { Err(count.to_string()) }
    });
    found
}

#[track_caller]
fn run_tc(peer: &Host, host: &Host, case: &Case) {
    let frame = wrapped(peer, host, case.outer, &case.inner);
    let run = host.pinned("eth0").run_tc("underlay_tc", 0, frame.octets());
    let (code, verdict, out) = match &case.expected {
        None => (TC_ACT_SHOT, "ce-not-ect", frame.octets()),
        Some(_) if case.is_tcp => (TC_ACT_UNSPEC, "handed-to-helper", frame.octets()),
        Some(inner) => (TC_ACT_REDIRECT, "received", inner.octets()),
    };
    assert_eq!((run.code, run.counted), (code, BTreeMap::from([(verdict, 1)])), "TC, {}", case.name);
    assert_eq!(run.frame, out, "TC, {}", case.name);
}

#[track_caller]
fn run_xdp(peer: &Host, host: &Host, case: &Case) {
    let frame = wrapped(peer, host, case.outer, &case.inner);
    let run = host.pinned("eth0").run_xdp("underlay_xdp", frame.octets());
    let (code, counted, out) = match &case.expected {
        None => (XDP_DROP, BTreeMap::from([("ce-not-ect", 1)]), frame.octets()),
        Some(inner) => (XDP_PASS, BTreeMap::new(), inner.octets()),
    };
    assert_eq!((run.code, run.counted), (code, counted), "XDP, {}", case.name);
    assert_eq!(run.frame, out, "XDP, {}", case.name);
}

#[test]
fn outer_octet_over_ipv4() {
    what_goes_out(Family::V4, "auto", "egress shortcut");
}

#[test]
fn outer_octet_over_ipv6() {
    what_goes_out(Family::V6, "port", "hidden peer");
}

/// Network, what the file says of its `tos`, and what the kernel's device is told.
const NETWORKS: [(u32, &str, &str); 3] =
    [(16, "", "0"), (17, "tos = \"inherit\"", "inherit"), (18, "tos = 0xb8", "0xb8")];

/// The same frames into networks of ours and into vxlan devices, with every TOS octet and traffic class there is.
fn what_goes_out(family: Family, tx_hook: &str, hook: &str) {
    let lab = Lab::new("what goes out");
    let [ours, kernel, judge, strict] = lab.switch(["ours", "kernel", "judge", "strict"], &Wiring::over(family));
    for host in [&ours, &kernel] {
        host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    }
    let mut file = String::new();
    for (host, lines) in [(&ours, ""), (&judge, "kind = \"vxlan\""), (&strict, "kind = \"vxlan\"\nudp-checksum = true")]
    {
        writeln!(file, "[[node]]\nname = \"{}\"\naddress = \"{}\"\n{lines}", host.name(), host.vtep())
            .expect("a String");
    }
    for (vni, tos, _) in NETWORKS {
        writeln!(file, "[[network]]\nname = \"n{vni}\"\nvni = {vni}\ninterface = \"l2m{vni}\"\n{tos}")
            .expect("a String");
        for (mac, node) in [(STATION, "judge"), (STRICT_STATION, "strict")] {
            writeln!(file, "[[network.mac]]\nmac = \"{mac}\"\nnode = \"{node}\"").expect("a String");
        }
    }
    let path = lab.directory().join("mesh.toml");
    fs::write(&path, file).expect("a file in the lab's directory");
    let _agent = ours.attach(&["--config", &path.display().to_string(), "--tx-hook", tx_hook]);
    ours.wait_transmit(hook);

    let captures = [&judge, &strict].map(|host| Capture::start(&lab.fabric(), host.name(), Direction::Out, "udp"));
    let frames = departing();
    for (vni, _, tos) in NETWORKS {
        let options = VxlanOptions { name: format!("vx{vni}"), vni, mtu: Some(1400), tos, ..VxlanOptions::default() };
        kernel.kernel_vxlan(kernel.vtep(), &[judge.vtep()], &options);
        for (host, interface) in [(&ours, format!("l2m{vni}")), (&kernel, options.name)] {
            let sender = Tap::sender(host, &interface);
            frames.iter().for_each(|frame| sender.send(frame));
        }
    }
    let [at_judge, at_strict] = captures.map(|capture| outer_octets(&capture.stop().frames(), family));
    for (vni, _, tos) in NETWORKS {
        for frame in &frames {
            let of = |octets: &Octets, host: &Host| octets.get(&(host.vtep(), vni, frame.octets().to_vec())).copied();
            let theirs = of(&at_judge, &kernel).unwrap_or_else(|| panic!("tos {tos}: the kernel sent no {frame:?}"));
            // No mark can come back from behind a tag: ours says that it must not be made.
            let is_tagged = frame.ether_type() == 0x8100;
            let expected = if is_tagged { theirs & !CE } else { theirs };
            if frame.destination() != STRICT_STATION {
                assert_eq!(of(&at_judge, &ours), Some(expected), "tos {tos}: {frame:?}");
            }
            // There the kernel's device is asked to, and does as it does.
            if frame.destination() != STATION {
                assert_eq!(of(&at_strict, &ours), Some(theirs), "tos {tos}, by helper: {frame:?}");
            }
        }
    }
}

/// To nobody, so to all, with every octet; and a few to one.
fn departing() -> Vec<Frame> {
    let v4 = [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7)));
    let v6 = [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7)));
    let mut frames =
        vec![Frame::arp_request(SOURCE, Segment::v4(8), Segment::v4(9)), Frame::unknown(NOBODY, SOURCE, &[7; 46])];
    for [from, to] in [v4, v6] {
        for tos in 0..=0xff {
            frames.push(Frame::udp(NOBODY, SOURCE, from, to, b"to nobody").with_tos(tos));
        }
        for tos in [NOT_ECT, ECT_0, ECT_1, CE, 0xb8, 0x48 | CE, 0xfc | ECT_1] {
            for station in [STATION, STRICT_STATION] {
                frames.push(Frame::udp(station, SOURCE, from, to, b"to a station").with_tos(tos));
            }
            frames.push(Frame::udp(NOBODY, SOURCE, from, to, b"in a VLAN").with_tos(tos).tagged(5));
        }
    }
    frames
}

/// Outer source, VNI and inner frame: the outer TOS octet or traffic class.
type Octets = BTreeMap<(IpAddr, u32, Vec<u8>), u8>;

#[track_caller]
fn outer_octets(wire: &[Frame], family: Family) -> Octets {
    let mut all = Octets::new();
    for frame in wire {
        let octets = frame.octets();
        let (source, tos, udp) = match family {
            Family::V4 => (IpAddr::from(<[u8; 4]>::try_from(&octets[26..30]).expect("four")), octets[15], 34),
            Family::V6 => {
                let source = IpAddr::from(<[u8; 16]>::try_from(&octets[22..38]).expect("sixteen"));
                (source, octets[14] << 4 | octets[15] >> 4, 54)
            }
        };
        let vni = u32::from_be_bytes(octets[udp + 12..udp + 16].try_into().expect("four")) >> 8;
        let known = all.insert((source, vni, octets[udp + 16..].to_vec()), tos);
        assert_eq!(known, None, "twice on the wire: {frame:?}");
    }
    all
}
