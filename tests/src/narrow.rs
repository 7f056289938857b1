//! Meshes whose overlay interfaces let in what is too long for the paths.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use l2mesh_common::wire::MacAddr;

use crate::fabric::{Family, Wiring};
use crate::frames::Frame;
use crate::host::Host;
use crate::kernel_vxlan::VxlanOptions;
use crate::lab::Lab;
use crate::mesh::Agent;
use crate::segment::{Segment, taps};
use crate::tap::Tap;

const LIMIT: Duration = Duration::from_secs(5);

/// Octets of an inner packet that is too long for every path, 1450, and fits the overlay interfaces as they are set.
pub const LONG: usize = 1500;
/// Nobody knows where it is: frames for it are flooded.
pub const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xc]);

/// Hosts whose overlay interfaces let in what is too long for the paths. They have no addresses in the mesh and say nothing
/// by themselves.
#[derive(Debug)]
pub struct Narrow {
    /// Nodes first.
    pub hosts: Vec<Host>,
    /// On everyone's overlay interface.
    pub taps: Vec<Tap>,
    _agents: Vec<Agent>,
    /// Last: all of it goes with the lab.
    _lab: Lab,
}

impl Narrow {
    /// The first `nodes` run l2mesh, the others have a vxlan device of the kernel.
    #[must_use]
    #[track_caller]
    pub fn new<const N: usize>(names: [&str; N], nodes: usize, args: &[&str]) -> Self {
        let lab = Lab::new("too big");
        let hosts = lab.switch(names, &Wiring::default()).to_vec();
        hosts.iter().for_each(|host| drop(host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")));
        let (nodes, plain) = hosts.split_at(nodes);
        let agents = Segment { nodes, plain, args, file: None }.up_silent();
        let all: Vec<IpAddr> = hosts.iter().map(Host::vtep).collect();
        for host in plain {
            let peers: Vec<IpAddr> = all.iter().copied().filter(|peer| *peer != host.vtep()).collect();
            host.kernel_vxlan(host.vtep(), &peers, &VxlanOptions { mtu: Some(9000), ..VxlanOptions::default() });
        }
        nodes.iter().for_each(|host| drop(host.run("ip link set dev l2m0 mtu 9000")));
        let taps = taps(nodes, plain);
        let mut mesh = Self { hosts, taps, _agents: agents, _lab: lab };
        mesh.acquaint();
        mesh
    }

    /// Everyone learns where everyone's MAC address is.
    #[track_caller]
    fn acquaint(&mut self) {
        for from in 0..self.taps.len() {
            let marker = self.taps[from].send_marker(self.taps[from].mac());
            for to in (0..self.taps.len()).filter(|to| *to != from) {
                self.taps[to].until(&marker, LIMIT);
            }
        }
    }

    /// The first one.
    #[must_use]
    pub fn a(&self) -> &Host {
        &self.hosts[0]
    }

    /// Its counters.
    #[must_use]
    #[track_caller]
    pub fn count(&self, verdict: &str) -> u64 {
        self.a().counter(verdict)
    }

    /// A datagram of the first host, `octets` octets with its IP header, to one address or another.
    #[must_use]
    #[track_caller]
    pub fn datagram(&self, destination: MacAddr, (from, to): (IpAddr, IpAddr), octets: usize) -> Frame {
        let headers = if from.is_ipv4() { 28 } else { 48 };
        let data: Vec<u8> = (0..octets - headers).map(|at| u8::try_from(at % 251).expect("less than 251")).collect();
        let [from, to] = [(from, 1000), (to, 2000)].map(SocketAddr::from);
        Frame::udp(destination, self.taps[0].mac(), from, to, &data)
    }

    /// The same over IPv4 to another host, which may be fragmented.
    #[must_use]
    #[track_caller]
    pub fn fragmentable(&self, destination: MacAddr, octets: usize) -> Frame {
        self.datagram(destination, addresses(Family::V4), octets).without_df()
    }

    /// Sends a frame, and returns what comes back before a question that is answered anyway.
    #[must_use]
    #[track_caller]
    pub fn answers(&mut self, frame: &Frame) -> Vec<Frame> {
        // Each from another source: they are told only so often.
        static SOURCE: AtomicU8 = AtomicU8::new(1);
        self.taps[0].clear();
        self.taps[0].send(frame);
        let source = Ipv4Addr::new(172, 16, 0, SOURCE.fetch_add(1, Ordering::Relaxed));
        let control = self.datagram(self.taps[1].mac(), (source.into(), Segment::v4(1).into()), LONG);
        self.taps[0].send(&control);
        let is_answer = |answer: &Frame| answer.octets().get(30..34) == Some(&source.octets());
        self.taps[0].wait_frame("the answer to the question after it", LIMIT, is_answer);
        let mut all = Vec::new();
        while let Some(received) = self.taps[0].receive(Duration::from_millis(10)) {
            all.push(received.frame);
        }
        all
    }
}

/// Of the first two hosts.
#[must_use]
#[track_caller]
pub fn addresses(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => (Segment::v4(0).into(), Segment::v4(1).into()),
        Family::V6 => (Segment::v6(0).into(), Segment::v6(1).into()),
    }
}

/// What is told about an untagged packet: by whom it was to reach, and quoting as much as fits the least packet that is
/// taken everywhere (RFC 1812 section 4.3.2.3, RFC 4443 section 3.2).
#[must_use]
#[track_caller]
pub fn answer_to(frame: &Frame, (from, to): (IpAddr, IpAddr), mtu: u32) -> Frame {
    let quoted = if from.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    Frame::too_big(frame.source(), frame.destination(), (to, from), mtu, &frame.octets()[14..14 + quoted])
}
