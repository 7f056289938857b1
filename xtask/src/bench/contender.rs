//! Who is compared: each with a pair of hosts of its own. Two vxlan sockets in one namespace would cost the kernel its
//! short way through GRO.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use aya::programs::xdp::XdpLink;
use l2mesh_tests::{Agent, Frame, Host, Lab, MacAddr, Wire, Wiring, traffic, traffic::Iperf};

use super::programs::Programs;

/// The network's number, everywhere.
const VNI: u32 = 16;
/// The mesh's UDP port.
const PORT: u16 = 4789;
/// What sinks take.
pub(crate) const DISCARD: u16 = 9;
/// UDP source ports of generated frames: the last three bits are the flow's.
const FLOWS: (u16, u16) = (49_152, 40_960);
/// Data that makes an Ethernet frame of 64 octets with the four of its checksum left out, as it is on a veth.
pub(crate) const SMALL: usize = 64 - 14 - 20 - 8;

/// Who is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// The underlay by itself.
    Bare,
    /// The kernel's vxlan device as `ip link add` makes it.
    Vxlan,
    /// The same, with an XDP program on eth0 that only passes: pays what a veth charges for XDP.
    VxlanXdp,
    /// `l2mesh --mode tc`.
    Tc,
    /// `l2mesh --mode xdp`.
    Xdp,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Bare, Self::Vxlan, Self::VxlanXdp, Self::Tc, Self::Xdp];

    /// In host names and in JSON.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Vxlan => "vxlan",
            Self::VxlanXdp => "vxlan-xdp",
            Self::Tc => "l2mesh-tc",
            Self::Xdp => "l2mesh-xdp",
        }
    }

    /// The interface that carries the traffic.
    pub(crate) const fn device(self) -> &'static str {
        match self {
            Self::Bare => "eth0",
            Self::Vxlan | Self::VxlanXdp => "vx0",
            Self::Tc | Self::Xdp => "l2m10",
        }
    }

    pub(crate) const fn is_l2mesh(self) -> bool {
        matches!(self, Self::Tc | Self::Xdp)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare",
            Self::Vxlan => "vxlan",
            Self::VxlanXdp => "vxlan+xdp",
            Self::Tc => "l2mesh tc",
            Self::Xdp => "l2mesh xdp",
        })
    }
}

/// A pair of hosts, `a` sends and `b` receives.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) a: Host,
    pub(crate) b: Host,
    /// Their addresses on [`Kind::device`].
    pub(crate) addresses: [Ipv4Addr; 2],
    pub(crate) iperf: Iperf,
    agents: Vec<Agent>,
    _links: Vec<XdpLink>,
}

impl Contender {
    /// Builds it and sees that the hosts reach each other.
    ///
    /// # Errors
    /// XDP is refused.
    pub(crate) fn new(lab: &Lab, wire: Wire, kind: Kind, programs: &mut Programs) -> anyhow::Result<Self> {
        let key = kind.key();
        let [a, b] = lab.pair([&format!("{key}-a"), &format!("{key}-b")], &Wiring { wire, ..Wiring::default() });
        let underlay = [a.address(), b.address()];
        let overlay = [Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(10, 8, 0, 2)];
        let mut links = Vec::new();
        let mut agents = Vec::new();
        for (nth, host) in [&a, &b].into_iter().enumerate() {
            let (local, remote, address) = (underlay[nth], underlay[1 - nth], format!("{}/24", overlay[nth]));
            match kind {
                Kind::Bare => {}
                Kind::Vxlan | Kind::VxlanXdp => {
                    vxlan(host, local, &[remote], &address);
                    if kind == Kind::VxlanXdp {
                        links.push(programs.attach_pass(host, "eth0")?);
                    }
                }
                Kind::Tc | Kind::Xdp => agents.push(l2mesh(host, kind, &[remote], &address)),
            }
        }
        let addresses = if kind == Kind::Bare { underlay } else { overlay };
        // Neighbours and learned addresses, both ways.
        let report = traffic::ping(&a, addresses[1], 5);
        anyhow::ensure!(report.received > 0, "{kind}: the hosts do not reach each other: {report:?}");
        let iperf = Iperf::serve(&b, addresses[1]);
        Ok(Self { kind, a, b, addresses, iperf, agents, _links: links })
    }

    /// The processes that hold the kernel programs.
    pub(crate) fn pids(&mut self) -> Vec<u32> {
        self.agents.iter_mut().map(|agent| agent.process().pid()).collect()
    }

    /// A small frame as it arrives at `b`'s underlay interface, on its way to a sink behind [`Kind::device`].
    pub(crate) fn wire_frame(&self) -> Vec<u8> {
        let device = self.kind.device();
        let mac = |interface| (self.b.mac(interface), self.a.mac(interface));
        let inner = udp(mac(device), (self.addresses[0], FLOWS.1), (self.addresses[1], DISCARD), &[0; SMALL]);
        if self.kind == Kind::Bare {
            return inner;
        }
        let [high, middle, low] = VNI.to_be_bytes().last_chunk().copied().unwrap_or_default();
        let vxlan = [&[8, 0, 0, 0, high, middle, low, 0], &inner[..]].concat();
        udp(mac("eth0"), (self.a.address(), FLOWS.0), (self.b.address(), PORT), &vxlan)
    }
}

/// Without UDP checksum: the generator changes ports, and tunnels have none.
fn udp(macs: (MacAddr, MacAddr), from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(from.0.into(), from.1), SocketAddr::new(to.0.into(), to.1));
    let mut octets = Frame::udp(macs.0, macs.1, from, to, payload).octets().to_vec();
    octets[40..42].fill(0);
    octets
}

/// The kernel's device, every flag as it comes.
pub(crate) fn vxlan(host: &Host, local: Ipv4Addr, remotes: &[Ipv4Addr], address: &str) {
    let remote = if let [remote] = remotes { format!("remote {remote}") } else { String::new() };
    host.run(&format!("ip link add vx0 type vxlan id {VNI} {remote} local {local} dstport {PORT} dev eth0"));
    if remotes.len() > 1 {
        for remote in remotes {
            host.run(&format!("bridge fdb append 00:00:00:00:00:00 dst {remote} dev vx0"));
        }
    }
    host.run("ip link set dev vx0 addrgenmode none");
    host.add_address("vx0", address);
    host.run("ip link set dev vx0 up");
}

/// l2mesh with these peers.
pub(crate) fn l2mesh(host: &Host, kind: Kind, peers: &[Ipv4Addr], address: &str) -> Agent {
    let mode = if kind == Kind::Xdp { "xdp" } else { "tc" };
    let (vni, peers) = (VNI.to_string(), peers.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>());
    // Broadcast is measured without a limit.
    let mut args = vec!["--vni", &vni, "--mode", mode, "--address", address, "--storm-limit", "4294967295"];
    args.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
    host.attach(&args)
}
