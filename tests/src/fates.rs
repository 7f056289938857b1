//! A mesh of which one node runs: what its programs do with a frame, under `BPF_PROG_TEST_RUN` and with its real tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use l2mesh_common::verdict::Verdict;
use l2mesh_common::wire::MacAddr;

use crate::fabric::{Family, Wiring};
use crate::frames::Frame;
use crate::host::Host;
use crate::lab::Lab;
use crate::mesh::Agent;
use crate::pinned::{Pinned, Run};
use crate::segment::NOT_PROBED;

/// On with the next program (`linux/pkt_cls.h`).
pub const TC_ACT_UNSPEC: i32 = -1;
/// Dropped.
pub const TC_ACT_SHOT: i32 = 2;
/// To another interface.
pub const TC_ACT_REDIRECT: i32 = 7;
/// Dropped (linux/bpf.h).
pub const XDP_DROP: i32 = 1;
/// On into the host.
pub const XDP_PASS: i32 = 2;

/// Behind b, as the configuration says.
pub const KNOWN: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xb]);
/// Behind b, as nothing says.
pub const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xc]);

/// Where things stand in a frame of VXLAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The outer IP header.
    pub ip: usize,
    /// The outer UDP header.
    pub udp: usize,
    /// The VXLAN header.
    pub vxlan: usize,
    /// The inner frame.
    pub inner: usize,
}

impl Offsets {
    /// Over this IP version.
    #[must_use]
    pub const fn of(family: Family) -> Self {
        let udp = match family {
            Family::V4 => 34,
            Family::V6 => 54,
        };
        Self { ip: 14, udp, vxlan: udp + 8, inner: udp + 16 }
    }
}

/// Three nodes. Only a runs; network 16 is a's and b's, 17 a's and c's, 18 everyone's, 19 a's alone.
#[derive(Debug)]
pub struct Mesh {
    /// a, b and c.
    pub hosts: [Host; 3],
    /// What a has pinned.
    pub pinned: Pinned,
    /// How a reaches b and c.
    pub families: [Family; 2],
    _agent: Agent,
    /// Last: all of it goes with the lab.
    _lab: Lab,
}

impl Mesh {
    /// In mode xdp, over IPv4.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self::over([Family::V4; 2], "xdp")
    }

    /// b is reached over the first IP version, c over the second.
    #[must_use]
    #[track_caller]
    pub fn over(families: [Family; 2], mode: &str) -> Self {
        let lab = Lab::new("fates");
        let hosts = lab.switch(["a", "b", "c"], &Wiring { ipv6: families.contains(&Family::V6), ..Wiring::default() });
        let [a, b, c] = &hosts;
        // No frames but those of the test.
        a.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let mut file = String::new();
        for host in [a, b] {
            let [main, towards_c] = families.map(|family| address(host, family));
            let from = if main == towards_c { String::new() } else { format!("from = {{ c = \"{towards_c}\" }}\n") };
            let from = if host.name() == "a" { from } else { from + NOT_PROBED };
            node(&mut file, host, main, &from);
        }
        node(&mut file, c, address(c, families[1]), NOT_PROBED);
        let known = format!("[[network.mac]]\nmac = \"{KNOWN}\"\nnode = \"b\"\n");
        for (vni, members, more) in
            [(16, r#""a", "b""#, &*known), (17, r#""a", "c""#, ""), (18, r#""a", "b", "c""#, ""), (19, r#""a""#, "")]
        {
            writeln!(file, "[[network]]\nname = \"n{vni}\"\nvni = {vni}\nmembers = [{members}]\n{more}")
                .expect("a String takes everything");
        }
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, file).expect("a file in the lab's directory");
        let agent = a.attach(&["--config", &path.display().to_string(), "--mode", mode]);
        let pinned = a.pinned("eth0");
        Self { pinned, hosts, families, _agent: agent, _lab: lab }
    }

    /// The one that runs.
    #[must_use]
    pub fn a(&self) -> &Host {
        &self.hosts[0]
    }

    /// The number of one of a's interfaces.
    #[must_use]
    #[track_caller]
    pub fn index(&self, name: &str) -> u32 {
        self.a().link(name)["ifindex"].as_u64().and_then(|index| u32::try_from(index).ok()).expect("an index")
    }

    /// Where things stand in what comes from b.
    #[must_use]
    pub fn at(&self) -> Offsets {
        Offsets::of(self.families[0])
    }

    /// As b would send it in network 16.
    #[must_use]
    #[track_caller]
    pub fn wrap(&self, inner: &Frame) -> Vec<u8> {
        outer(&self.hosts[1], self.a(), self.families[0], (50_000, 16), inner)
    }

    /// As a must send it to a host, with the source port that `like` has.
    #[must_use]
    #[track_caller]
    pub fn encapsulated(&self, to: usize, vni: u32, frame: &Frame, like: &[u8]) -> Vec<u8> {
        let family = self.families[to - 1];
        let udp = Offsets::of(family).udp;
        let source_port = u16::from_be_bytes([like[udp], like[udp + 1]]);
        assert!(source_port >= 49152, "{source_port}");
        outer(self.a(), &self.hosts[to], family, (source_port, vni), frame)
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self::new()
    }
}

/// By hand, from RFC 791, RFC 8200, RFC 768 and RFC 7348 section 5.
#[track_caller]
fn outer(from: &Host, to: &Host, family: Family, (source_port, vni): (u16, u32), inner: &Frame) -> Vec<u8> {
    let vxlan = [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], inner.octets()].concat();
    let [near, far] =
        [(from, source_port), (to, 4789)].map(|(host, port)| SocketAddr::new(address(host, family), port));
    let mut frame = Frame::udp(to.mac("eth0"), from.mac("eth0"), near, far, &vxlan).octets().to_vec();
    let checksum = Offsets::of(family).udp + 6;
    frame[checksum..checksum + 2].fill(0);
    frame
}

fn address(host: &Host, family: Family) -> IpAddr {
    match family {
        Family::V4 => host.address().into(),
        Family::V6 => host.address6().into(),
    }
}

fn node(file: &mut String, host: &Host, address: IpAddr, more: &str) {
    let name = host.name();
    writeln!(file, "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\n{more}").expect("a String takes everything");
}

/// What becomes of a frame from the underlay.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Delivered without its outer header.
    Delivered,
    /// Ended, and counted.
    Dropped(Verdict),
    /// On to the host's stack as it came, and counted.
    Passed(Verdict),
}

/// Name, frame, fate in TC, fate in XDP.
pub type Row = (String, Vec<u8>, Fate, Fate);

/// What the program counted besides what it learned.
fn counted(run: &Run) -> BTreeMap<&'static str, u64> {
    let mut counted = run.counted.clone();
    counted.remove(Verdict::Learned.label());
    counted
}

/// One frame under this verdict, and nothing else.
#[must_use]
pub fn only(verdict: Verdict) -> BTreeMap<&'static str, u64> {
    if verdict.is_counted() { BTreeMap::from([(verdict.label(), 1)]) } else { BTreeMap::new() }
}

/// A frame with its inner one at `inner` came to this end in TC.
#[track_caller]
pub fn check_tc(name: &str, run: &Run, frame: &[u8], inner: usize, fate: Fate) {
    let (code, verdict, out) = match fate {
        Fate::Delivered => (TC_ACT_REDIRECT, Verdict::Received, &frame[inner..]),
        Fate::Dropped(verdict) => (TC_ACT_SHOT, verdict, frame),
        Fate::Passed(verdict) => (TC_ACT_UNSPEC, verdict, frame),
    };
    assert_eq!((run.code, counted(run)), (code, only(verdict)), "TC, {name}: {run:02x?}");
    assert_eq!(run.frame, out, "TC, {name}");
}

/// The same in XDP; a delivered one has this mark.
#[track_caller]
pub fn check_xdp(name: &str, run: &Run, frame: &[u8], inner: usize, fate: Fate, mark: &[u8]) {
    let (code, expected, out, metadata) = match fate {
        // TC counts it.
        Fate::Delivered => (XDP_PASS, BTreeMap::new(), &frame[inner..], mark),
        Fate::Dropped(verdict) => (XDP_DROP, only(verdict), frame, &[][..]),
        Fate::Passed(verdict) => (XDP_PASS, only(verdict), frame, &[][..]),
    };
    assert_eq!((run.code, counted(run)), (code, expected), "XDP, {name}: {run:02x?}");
    assert_eq!((&run.frame[..], &run.metadata[..]), (out, metadata), "XDP, {name}");
}
