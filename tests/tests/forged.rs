//! Frames that nobody may believe: with the marks that mean something between l2mesh nodes, from whom, to whom or with a content
//! that must not be. The pinned programs of a live attach run under `BPF_PROG_TEST_RUN` with its real tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use l2mesh_common::verdict::Verdict;
use l2mesh_tests::fates::{Offsets, STRANGER, TC_ACT_REDIRECT, TC_ACT_SHOT, XDP_DROP, XDP_PASS, only};
use l2mesh_tests::pinned::{Pinned, Run};
use l2mesh_tests::{Agent, Family, Frame, Host, Lab, MacAddr, Paths, Wiring, wait_for};

/// linux/bpf.h
const XDP_TX: i32 = 3;
/// Flags of a VXLAN header (design.md 4).
const PLAIN: u8 = 0x08;
const PROBE: u8 = 0x01;
const RELAY: u8 = 0x02;
const RELAYED: u8 = 0x40;
/// Where the kind and the rest of a probe stand behind its Ethernet header.
const KIND: usize = 15;
const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Identifiers of the nodes: a runs, b is a relay, c and d are not, p is a plain device, and nobody has ever heard of gone.
const A: u32 = 1;
const B: u32 = 2;
const C: u32 = 3;
const D: u32 = 4;
const P: u32 = 5;
const GONE: u32 = 6;
const NOBODY: u32 = 77;

/// Only a runs. Network 16 is of a, b, c and p, 17 of c, d, p and gone.
struct Mesh {
    hosts: [Host; 5],
    pinned: Pinned,
    family: Family,
    gone: IpAddr,
    eth0: u32,
    _agent: Agent,
    _lab: Lab,
}

impl Mesh {
    fn new(family: Family, is_relay: bool) -> Self {
        let lab = Lab::new("forged");
        let hosts = lab.switch(["a", "b", "c", "d", "p"], &Wiring::over(family));
        let [a, ..] = &hosts;
        a.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let gone = match family {
            Family::V4 => IpAddr::from([192, 0, 2, 200]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 200]),
        };
        let mut text = String::new();
        let addresses = hosts.iter().map(|host| (host.name(), host.vtep())).chain([("gone", gone)]);
        for (id, (name, address)) in (A..).zip(addresses) {
            let more = match id {
                A => format!("relay = {is_relay}"),
                B => "relay = true".to_owned(),
                P => "kind = \"vxlan\"".to_owned(),
                _ => String::new(),
            };
            writeln!(text, "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nid = {id}\n{more}")
                .expect("a String takes everything");
        }
        for (vni, members) in [(16, r#""a", "b", "c", "p""#), (17, r#""c", "d", "p", "gone""#)] {
            writeln!(text, "[[network]]\nname = \"n{vni}\"\nvni = {vni}\nmembers = [{members}]")
                .expect("a String takes everything");
        }
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, text).expect("a file in the lab's directory");
        let agent = a.attach(&["--config", &path.display().to_string(), "--mode", "xdp", "--xdp-tx", "on"]);
        let pinned = a.pinned("eth0");
        let eth0 = a.link("eth0")["ifindex"].as_u64().and_then(|it| u32::try_from(it).ok()).expect("an index");
        Self { pinned, hosts, family, gone, eth0, _agent: agent, _lab: lab }
    }

    fn tc(&self, frame: &[u8]) -> Run {
        self.pinned.run_tc("underlay_tc", self.eth0, frame)
    }

    fn xdp(&self, frame: &[u8]) -> Run {
        self.pinned.run_xdp_at("underlay_xdp", self.eth0, frame)
    }

    fn at(&self) -> Offsets {
        Offsets::of(self.family)
    }

    fn host(&self, id: u32) -> &Host {
        &self.hosts[id as usize - 1]
    }

    fn address(&self, id: u32) -> IpAddr {
        match id {
            GONE => self.gone,
            NOBODY if self.family == Family::V4 => IpAddr::from([192, 0, 2, 99]),
            NOBODY => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 99]),
            _ => self.host(id).vtep(),
        }
    }

    /// From a node to another, whose MAC addresses are those of b and a: they are on one wire.
    fn outer(&self, (from, to): (u32, u32), port: u16, (flags, node, vni): (u8, u32, u32), inner: &[u8]) -> Vec<u8> {
        let [first, second, third, last] = node.to_be_bytes();
        let [_, high, middle, low] = vni.to_be_bytes();
        let header = [PLAIN | flags, first, second, third, high, middle, low, last];
        let [near, far] = [(from, port), (to, 4789)].map(|(id, port)| SocketAddr::new(self.address(id), port));
        let mac = |id| if id == NOBODY || id == GONE { MacAddr([2, 0, 0, 0, 0, 9]) } else { self.host(id).mac("eth0") };
        let frame = Frame::udp(mac(to), mac(from), near, far, &[&header[..], inner].concat());
        let mut octets = frame.octets().to_vec();
        let checksum = self.at().udp + 6;
        octets[checksum..checksum + 2].fill(0);
        octets
    }

    /// To a, with an inner frame that is like any other.
    fn data(&self, from: u32, mark: (u8, u32, u32)) -> Vec<u8> {
        let inner = Frame::unknown(MacAddr::BROADCAST, STRANGER, &[1; 46]);
        self.outer((from, A), 50_000, mark, inner.octets())
    }

    /// A probe to a.
    fn probe(&self, from: u32, mark: (u8, u32), probe: Probe) -> Vec<u8> {
        self.outer((from, A), 50_001, (PROBE | mark.0, mark.1, 0), &probe.octets())
    }

    /// Both programs drop it and count it under this verdict alone.
    #[track_caller]
    fn dropped(&self, what: &str, frame: &[u8], verdict: Verdict) {
        let both = [("TC", TC_ACT_SHOT, self.tc(frame)), ("XDP", XDP_DROP, self.xdp(frame))];
        for (program, code, run) in both {
            assert_eq!((run.code, &run.counted), (code, &only(verdict)), "{program}, {what}: {run:02x?}");
            assert_eq!(run.frame, frame, "{program}, {what}");
        }
    }

    /// Both programs send it back to the wire, changed in this way.
    #[track_caller]
    fn returned(&self, what: &str, frame: &[u8], verdict: Verdict, expected: &[u8]) {
        let both = [("TC", TC_ACT_REDIRECT, self.tc(frame)), ("XDP", XDP_TX, self.xdp(frame))];
        for (program, code, run) in both {
            assert_eq!((run.code, &run.counted), (code, &only(verdict)), "{program}, {what}: {run:02x?}");
            assert_eq!(self.comparable(&run.frame), self.comparable(expected), "{program}, {what}");
        }
    }

    /// Without what every sender may choose: TTL, IPv4 header checksum, identification and flow label.
    fn comparable(&self, frame: &[u8]) -> Vec<u8> {
        let (mut frame, ip) = (frame.to_vec(), self.at().ip);
        match self.family {
            Family::V4 => [4..6, 8..9, 10..12].into_iter().for_each(|it| frame[ip + it.start..ip + it.end].fill(0)),
            Family::V6 => [1..4, 7..8].into_iter().for_each(|it| frame[ip + it.start..ip + it.end].fill(0)),
        }
        frame
    }
}

/// What stands in a probe.
#[derive(Clone, Copy)]
struct Probe {
    version: u8,
    kind: u8,
    path: u8,
    sequence: u32,
    nonce: u64,
}

impl Probe {
    const REQUEST: Self = Self { version: 1, kind: 1, path: 0, sequence: 7, nonce: 0x0102_0304_0506_0708 };

    fn octets(self) -> Vec<u8> {
        let mut octets = [&[0; 12][..], &[0x88, 0xb5, self.version, self.kind, self.path, 0]].concat();
        octets.extend(self.sequence.to_be_bytes());
        octets.extend(self.nonce.to_be_bytes());
        octets.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        octets
    }
}

#[test]
fn to_be_relayed_over_ipv4() {
    to_be_relayed(&Mesh::new(Family::V4, true));
}

#[test]
fn to_be_relayed_over_ipv6() {
    to_be_relayed(&Mesh::new(Family::V6, true));
}

fn to_be_relayed(mesh: &Mesh) {
    wait_next_hops(mesh, 5);
    // What is allowed, so that the rest is refused for what it says: a itself is not in this network.
    let good = mesh.data(C, (RELAY, D, 17));
    let mut expected = mesh.outer((A, D), 50_000, (RELAYED, C, 17), &good[mesh.at().inner..]);
    expected[..12].copy_from_slice(&[mesh.host(D).mac("eth0").0, mesh.host(A).mac("eth0").0].concat());
    mesh.returned("from c to d", &good, Verdict::Relayed, &expected);
    for (what, from, mark, verdict) in [
        ("from a stranger", NOBODY, (RELAY, D, 17), Verdict::RelayStranger),
        ("from a plain device", P, (RELAY, D, 17), Verdict::RelayStranger),
        ("from itself", A, (RELAY, D, 17), Verdict::RelayStranger),
        ("to an id of nobody", C, (RELAY, NOBODY, 17), Verdict::RelayUnknown),
        ("to the id 0", C, (RELAY, 0, 16), Verdict::ReservedBits),
        ("to a plain device", C, (RELAY, P, 17), Verdict::RelayUnknown),
        ("to the relay itself", C, (RELAY, A, 16), Verdict::RelaySelf),
        ("to the relay itself, in a network that it is not in", C, (RELAY, A, 17), Verdict::RelaySelf),
        ("back to its sender", C, (RELAY, C, 17), Verdict::RelayBack),
        ("in a network without its sender", B, (RELAY, D, 17), Verdict::RelayNotMember),
        ("in a network without its receiver", C, (RELAY, B, 17), Verdict::RelayNotMember),
        ("in a network of the relay alone of the two", C, (RELAY, D, 16), Verdict::RelayNotMember),
        ("in a network that nobody has", C, (RELAY, D, 99), Verdict::RelayNotMember),
        ("to a node that is not there", C, (RELAY, GONE, 17), Verdict::RelayNoWay),
        ("to be relayed and relayed already", C, (RELAY | RELAYED, B, 16), Verdict::ReservedBits),
    ] {
        mesh.dropped(what, &mesh.data(from, mark), verdict);
    }
    // One octet more than the way from a to d takes.
    let mut long = good[mesh.at().inner..][..14].to_vec();
    long.resize(14 + 1500 - mesh.at().inner + 1, 0);
    let long = mesh.outer((C, A), 50_000, (RELAY, D, 17), &long);
    mesh.dropped("too long for the rest of the way", &long, Verdict::RelayTooBig);
}

#[test]
fn at_a_host_that_does_not_relay() {
    let mesh = Mesh::new(Family::V4, false);
    // Of d it knows nothing: they are in no network together.
    wait_next_hops(&mesh, 3);
    for mark in [(RELAY, D, 17), (RELAY, B, 16), (RELAY, A, 16), (RELAY, NOBODY, 99)] {
        mesh.dropped("to d", &mesh.data(C, mark), Verdict::RelayForbidden);
    }
    mesh.dropped("a probe", &mesh.probe(C, (RELAY, B), Probe::REQUEST), Verdict::RelayForbidden);
}

#[test]
fn relayed_over_ipv4() {
    relayed(&Mesh::new(Family::V4, true));
}

#[test]
fn relayed_over_ipv6() {
    relayed(&Mesh::new(Family::V6, true));
}

fn relayed(mesh: &Mesh) {
    let good = mesh.data(B, (RELAYED, C, 16));
    let run = mesh.tc(&good);
    assert_eq!((run.code, &run.frame[..]), (TC_ACT_REDIRECT, &good[mesh.at().inner..]), "{run:02x?}");
    let counted = BTreeMap::from([("received", 1), ("received-relayed", 1), ("learned", 1)]);
    assert_eq!(run.counted, counted);
    let run = mesh.xdp(&good);
    assert_eq!((run.code, &run.frame[..]), (XDP_PASS, &good[mesh.at().inner..]), "{run:02x?}");
    // Learned where it comes from.
    let row = mesh.host(A).mac_row(STRANGER).expect("it is learned");
    assert_eq!(row["peer"], "c", "{row}");
    for (what, from, mark, verdict) in [
        ("from a node that is no relay", C, (RELAYED, B, 16), Verdict::RelayedStranger),
        ("from a stranger", NOBODY, (RELAYED, C, 16), Verdict::RelayedStranger),
        ("from a plain device", P, (RELAYED, C, 16), Verdict::RelayedStranger),
        ("of nobody", B, (RELAYED, NOBODY, 16), Verdict::RelayedOrigin),
        ("of the id 0", B, (RELAYED, 0, 16), Verdict::ReservedBits),
        ("of a node that is not in the network", B, (RELAYED, D, 16), Verdict::RelayedOrigin),
        ("of a plain device", B, (RELAYED, P, 16), Verdict::RelayedOrigin),
        ("of the receiver", B, (RELAYED, A, 16), Verdict::RelayedOrigin),
        ("an id without a mark", B, (0, C, 16), Verdict::ReservedBits),
        ("another bit", B, (RELAYED | 0x80, C, 16), Verdict::ReservedBits),
        ("another bit to be relayed", C, (RELAY | 0x10, D, 16), Verdict::ReservedBits),
    ] {
        mesh.dropped(what, &mesh.data(from, mark), verdict);
    }
    // Never sent on, even by a relay and to a node that it could reach: it is a's, and of a network that a is not in.
    let on = mesh.data(B, (RELAYED, C, 17));
    for run in [mesh.tc(&on), mesh.xdp(&on)] {
        assert!(![TC_ACT_REDIRECT, XDP_TX].contains(&run.code) || run.code == XDP_PASS, "{run:02x?}");
        assert_eq!(run.frame, on, "{run:02x?}");
        assert!(!run.counted.contains_key("relayed"), "{run:02x?}");
    }
}

#[test]
fn requests_over_ipv4() {
    requests(&Mesh::new(Family::V4, true));
}

#[test]
fn requests_over_ipv6() {
    requests(&Mesh::new(Family::V6, true));
}

fn requests(mesh: &Mesh) {
    wait_next_hops(mesh, 5);
    let answer = Probe { kind: 2, ..Probe::REQUEST };
    let [a, b, c] = [A, B, C].map(|id| mesh.host(id).mac("eth0").0);
    let reply = |to, mark, macs: [[u8; 6]; 2], probe: Probe| {
        let mut frame = mesh.outer((A, to), 50_001, mark, &probe.octets());
        frame[..12].copy_from_slice(&macs.concat());
        frame
    };
    let expected = reply(C, (PROBE, 0, 0), [c, a], answer);
    let request = mesh.probe(C, (0, 0), Probe::REQUEST);
    mesh.returned("from c", &request, Verdict::ProbeReflected, &expected);
    // Through a relay it goes back through it.
    let expected = reply(B, (PROBE | RELAY, C, 0), [b, a], answer);
    let request_by_b = mesh.probe(B, (RELAYED, C), Probe::REQUEST);
    mesh.returned("from c through b", &request_by_b, Verdict::ProbeReflected, &expected);
    // To be answered elsewhere: another port, another MAC address. It goes where c is.
    let mut elsewhere = request.clone();
    elsewhere[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
    elsewhere[mesh.at().udp..mesh.at().udp + 2].copy_from_slice(&53_u16.to_be_bytes());
    let mut expected = reply(C, (PROBE, 0, 0), [c, a], answer);
    expected[mesh.at().udp..mesh.at().udp + 2].copy_from_slice(&53_u16.to_be_bytes());
    mesh.returned("elsewhere", &elsewhere, Verdict::ProbeReflected, &expected);
    for (what, from, mark, probe, verdict) in [
        ("from a stranger", NOBODY, (0, 0), Probe::REQUEST, Verdict::ProbeStranger),
        ("from a plain device", P, (0, 0), Probe::REQUEST, Verdict::ProbeStranger),
        ("relayed by no relay", C, (RELAYED, D), Probe::REQUEST, Verdict::ProbeStranger),
        ("relayed for nobody", B, (RELAYED, NOBODY), Probe::REQUEST, Verdict::ProbeStranger),
        ("version 2", C, (0, 0), Probe { version: 2, ..Probe::REQUEST }, Verdict::ProbeUnknown),
        ("kind 0", C, (0, 0), Probe { kind: 0, ..Probe::REQUEST }, Verdict::ProbeUnknown),
        ("kind 3", C, (0, 0), Probe { kind: 3, ..Probe::REQUEST }, Verdict::ProbeUnknown),
        ("from a node that is not there", GONE, (0, 0), Probe::REQUEST, Verdict::ProbeNoWay),
    ] {
        mesh.dropped(what, &mesh.probe(from, mark, probe), verdict);
    }
    flood(mesh, &request);
}

/// A peer that sends more than anybody needs is answered no more for a while; others are.
fn flood(mesh: &Mesh, request: &[u8]) {
    let burst = mesh.pinned.burst_xdp("underlay_xdp", mesh.eth0, request, 10_000);
    let [refused, answered] = [Verdict::ProbeFlood, Verdict::ProbeReflected].map(|it| burst.counted.get(it.label()));
    assert!(refused > Some(&1000) && answered > Some(&100), "10000 requests in a row: {:?}", burst.counted);
    let run = mesh.xdp(&mesh.probe(D, (0, 0), Probe::REQUEST));
    assert_eq!((run.code, run.counted), (XDP_TX, only(Verdict::ProbeReflected)));
}

#[test]
fn replies_over_ipv4() {
    replies(&Mesh::new(Family::V4, true));
}

#[test]
fn replies_over_ipv6() {
    replies(&Mesh::new(Family::V6, true));
}

fn replies(mesh: &Mesh) {
    let paths = Paths::of(mesh.host(A));
    // c answers nothing by itself.
    let direct = wait_for("probes to c", LIMIT, || {
        let (tx, _) = paths.path(mesh.host(C), 0);
        if tx.sequence > 3 { Ok(tx) } else { Err(format!("{tx:?}")) }
    });
    let by_b = wait_for("probes to c through b", std::time::Duration::from_secs(45), || {
        let found = (1..4).map(|place| (place, paths.path(mesh.host(C), place).0));
        let found = found.filter(|(_, tx)| tx.relay == paths.id(mesh.host(B)) && tx.sequence > 3 && tx.limit > 0);
        found.last().ok_or_else(|| paths.describe(mesh.host(C)))
    });
    let answer = |path: usize, sequence, nonce| Probe {
        version: 1,
        kind: 2,
        path: u8::try_from(path).expect("a place"),
        sequence,
        nonce,
    };
    let ways = [(C, (0, 0), 0, direct, [(B, (0, 0)), (B, (RELAYED, C))]), {
        let (place, tx) = by_b;
        (B, (RELAYED, C), place, tx, [(C, (0, 0)), (B, (RELAYED, D))])
    }];
    for (from, mark, place, tx, elsewhere) in ways {
        let probe = answer(place, tx.sequence, tx.nonce);
        assert_eq!(probe.octets()[KIND], 2);
        for (from, mark) in elsewhere {
            mesh.dropped("another way than it went", &mesh.probe(from, mark, probe), Verdict::ProbeForged);
        }
        let forged = answer(place, tx.sequence, tx.nonce ^ 1);
        mesh.dropped("another nonce", &mesh.probe(from, mark, forged), Verdict::ProbeForged);
        let future = answer(place, tx.sequence + 100_000, tx.nonce);
        mesh.dropped("not sent yet", &mesh.probe(from, mark, future), Verdict::ProbeFuture);
        let good = mesh.probe(from, mark, probe);
        let run = mesh.xdp(&good);
        assert_eq!((run.code, run.counted), (XDP_DROP, only(Verdict::ProbeAnswered)), "place {place}");
        mesh.dropped("once more", &good, Verdict::ProbeLate);
        let earlier = answer(place, tx.sequence - 1, tx.nonce);
        mesh.dropped("overtaken", &mesh.probe(from, mark, earlier), Verdict::ProbeLate);
        assert_eq!(paths.path(mesh.host(C), place).1.answers, 1);
    }
}

/// Until the agent knows where all are.
fn wait_next_hops(mesh: &Mesh, peers: usize) {
    wait_for("the next hops are known", LIMIT, || {
        let all = mesh.host(A).l2mesh(&["maps", "peers", "--json"]);
        let rows = all["peers"].as_array().cloned().unwrap_or_default();
        let unknown = rows.iter().filter(|row| row["name"] != "gone" && row["next_hop"].is_null()).count();
        if unknown == 0 && rows.len() == peers { Ok(()) } else { Err(all.to_string()) }
    });
}
