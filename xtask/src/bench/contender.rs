//! Who is compared: each with a pair of hosts of its own. Two vxlan sockets in one namespace would cost the kernel its
//! short way through GRO.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use aya::programs::xdp::XdpLink;
use l2mesh_tests::{Agent, Family, Frame, Host, Lab, MacAddr, Tagging, Wire, Wiring, traffic, traffic::Iperf};

use super::{pattern::Pattern, programs::Programs};

/// The network's number, everywhere.
const VNI: u32 = 16;
/// The mesh's UDP port.
const PORT: u16 = 4789;
/// What sinks take.
pub(crate) const DISCARD: u16 = 9;
/// UDP source ports of generated frames, outside and inside: the last three bits are the flow's.
const FLOWS: [u16; 2] = [49_152, 40_960];
/// Data that makes an Ethernet frame of 64 octets with the four of its checksum left out, as it is on a veth.
pub(crate) const SMALL: usize = 64 - 14 - 20 - 8;
/// The tag, type and content, and how much of the MTU it takes.
const TAG: (u16, u16) = (0x8100, 100);
const TAG_LEN: u64 = 4;

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
    /// Without the one that only shows what XDP costs on a veth.
    pub(crate) const MAIN: [Self; 4] = [Self::Bare, Self::Vxlan, Self::Tc, Self::Xdp];

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

    /// As `l2mesh --mode` has it.
    pub(crate) const fn mode(self) -> &'static str {
        if matches!(self, Self::Xdp) { "xdp" } else { "tc" }
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

/// Of what frames are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    /// IPv4 inside and outside.
    V4,
    /// IPv6 inside and outside.
    V6,
    /// IPv4, with an 802.1Q tag inside.
    Tagged,
}

impl Medium {
    /// In host names.
    const fn key(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => "v6-",
            Self::Tagged => "tag-",
        }
    }

    const fn family(self) -> Family {
        match self {
            Self::V4 | Self::Tagged => Family::V4,
            Self::V6 => Family::V6,
        }
    }

    /// The hosts' addresses on the network, with their prefix.
    fn overlay(self) -> ([IpAddr; 2], u8) {
        match self {
            Self::V4 | Self::Tagged => ([[10, 8, 0, 1], [10, 8, 0, 2]].map(IpAddr::from), 24),
            Self::V6 => ([1, 2].map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host])), 64),
        }
    }
}

/// A pair of hosts, `a` sends and `b` receives.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) medium: Medium,
    pub(crate) a: Host,
    pub(crate) b: Host,
    /// Their addresses on [`Kind::device`].
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) iperf: Iperf,
    agents: Vec<Agent>,
    _links: Vec<XdpLink>,
    _tagging: Vec<Tagging>,
}

impl Contender {
    /// Builds it and sees that the hosts reach each other.
    ///
    /// # Errors
    /// XDP is refused.
    pub(crate) fn new(
        lab: &Lab,
        wire: Wire,
        medium: Medium,
        kind: Kind,
        programs: &mut Programs,
    ) -> anyhow::Result<Self> {
        let names = ["a", "b"].map(|end| format!("{}{}-{end}", medium.key(), kind.key()));
        let [a, b] = lab.pair([&names[0], &names[1]], &Wiring { wire, ..Wiring::over(medium.family()) });
        let (overlay, prefix) = medium.overlay();
        let (mut links, mut agents, mut tagging) = (Vec::new(), Vec::new(), Vec::new());
        for (host, other, address) in [(&a, &b, overlay[0]), (&b, &a, overlay[1])] {
            match kind {
                Kind::Bare => {}
                Kind::Vxlan | Kind::VxlanXdp => {
                    vxlan(host, &[other.vtep()]);
                    if kind == Kind::VxlanXdp {
                        links.push(programs.attach_pass(host, "eth0")?);
                    }
                }
                Kind::Tc | Kind::Xdp => agents.push(l2mesh(host, kind, &[other.vtep()])),
            }
            let device = kind.device();
            if kind != Kind::Bare {
                host.add_address(device, &format!("{address}/{prefix}"));
            }
            if medium == Medium::Tagged {
                let mtu = host.link(device)["mtu"].as_u64().unwrap_or_default().saturating_sub(TAG_LEN);
                host.run(&format!("ip link set dev {device} mtu {mtu}"));
                tagging.push(Tagging::start(host, device, &[TAG]));
            }
        }
        let addresses = if kind == Kind::Bare { [a.vtep(), b.vtep()] } else { overlay };
        if medium == Medium::V6 {
            // Without a link-local address the kernel solicits no neighbour.
            for (host, other, address) in [(&a, &b, addresses[1]), (&b, &a, addresses[0])] {
                let (device, mac) = (kind.device(), other.mac(kind.device()));
                host.run(&format!("ip neigh replace {address} lladdr {mac} dev {device} nud permanent"));
            }
        }
        // Neighbours and learned addresses, both ways.
        let report = traffic::ping(&a, addresses[1], 5);
        anyhow::ensure!(report.received > 0, "{kind}: the hosts do not reach each other: {report:?}");
        let iperf = Iperf::serve(&b, addresses[1]);
        Ok(Self { kind, medium, a, b, addresses, iperf, agents, _links: links, _tagging: tagging })
    }

    /// The processes that hold the kernel programs.
    pub(crate) fn pids(&mut self) -> Vec<u32> {
        self.agents.iter_mut().map(|agent| agent.process().pid()).collect()
    }

    /// Small frames as they arrive at `b`'s underlay interface, on their way to a sink behind [`Kind::device`].
    pub(crate) fn pattern(&self) -> Pattern {
        let device = self.kind.device();
        let mac = |interface| (self.b.mac(interface), self.a.mac(interface));
        let inner = small_frame(mac(device), self.addresses);
        if self.kind == Kind::Bare {
            return Pattern::of(inner, [flow_at(self.addresses[0]), 0]);
        }
        let underlay = [self.a.vtep(), self.b.vtep()];
        Pattern::of(encapsulated(mac("eth0"), underlay, VNI, &inner), flows(underlay[0], self.addresses[0]))
    }
}

/// Octets of data of a small frame.
pub(crate) const fn small(address: IpAddr) -> usize {
    if address.is_ipv6() { SMALL - 20 } else { SMALL }
}

/// Octets of an outer header.
const fn outer_len(address: IpAddr) -> u16 {
    if address.is_ipv6() { 70 } else { 50 }
}

/// Where the low octet of the UDP source port stands in a frame.
const fn flow_at(address: IpAddr) -> u16 {
    if address.is_ipv6() { 55 } else { 35 }
}

/// Where the low octets of both UDP source ports stand in an encapsulated frame; an address of each family.
pub(crate) const fn flows(outer: IpAddr, inner: IpAddr) -> [u16; 2] {
    [flow_at(outer), outer_len(outer) + flow_at(inner)]
}

/// A small frame to a sink: MAC addresses of destination and source, IP addresses of source and destination.
pub(crate) fn small_frame(macs: (MacAddr, MacAddr), [from, to]: [IpAddr; 2]) -> Vec<u8> {
    udp(macs, SocketAddr::new(from, FLOWS[1]), SocketAddr::new(to, DISCARD), &vec![0; small(to)])
}

/// A frame of a network as it crosses the underlay.
pub(crate) fn encapsulated(macs: (MacAddr, MacAddr), [from, to]: [IpAddr; 2], vni: u32, inner: &[u8]) -> Vec<u8> {
    let vxlan = [&[8, 0, 0, 0], &(vni << 8).to_be_bytes()[..], inner].concat();
    udp(macs, SocketAddr::new(from, FLOWS[0]), SocketAddr::new(to, PORT), &vxlan)
}

/// Without UDP checksum: the generator changes ports, and tunnels have none.
fn udp(macs: (MacAddr, MacAddr), from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    const CHECKSUM_BEHIND_FLOW: usize = 5;
    let mut octets = Frame::udp(macs.0, macs.1, from, to, payload).octets().to_vec();
    let checksum = usize::from(flow_at(to.ip())) + CHECKSUM_BEHIND_FLOW;
    octets[checksum..checksum + 2].fill(0);
    octets
}

/// The kernel's device, every flag as it comes, but without checksums over IPv6 too.
pub(crate) fn vxlan(host: &Host, remotes: &[IpAddr]) {
    let local = host.vtep();
    let remote = if let [remote] = remotes { format!("remote {remote}") } else { String::new() };
    let checksums = if local.is_ipv6() { "udp6zerocsumtx udp6zerocsumrx" } else { "" };
    host.run(&format!(
        "ip link add vx0 type vxlan id {VNI} {remote} local {local} dstport {PORT} dev eth0 {checksums}"
    ));
    if remotes.len() > 1 {
        for remote in remotes {
            host.run(&format!("bridge fdb append 00:00:00:00:00:00 dst {remote} dev vx0"));
        }
    }
    host.run("ip link set dev vx0 addrgenmode none");
    host.run("ip link set dev vx0 up");
}

/// l2mesh with these peers.
pub(crate) fn l2mesh(host: &Host, kind: Kind, peers: &[IpAddr]) -> Agent {
    // As the kernel's device: nothing of its own on the wire.
    host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
    let (vni, peers) = (VNI.to_string(), peers.iter().map(IpAddr::to_string).collect::<Vec<_>>());
    // Broadcast is measured without a limit.
    let mut args = vec!["--vni", &vni, "--mode", kind.mode(), "--storm-limit", "4294967295"];
    args.extend(peers.iter().flat_map(|peer| ["--peer", peer]));
    host.attach(&args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_point_at_source_ports() {
        let macs = (MacAddr::BROADCAST, MacAddr([2, 0, 0, 0, 0, 1]));
        for address in [IpAddr::from([10, 8, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])] {
            let inner = small_frame(macs, [address; 2]);
            let whole = encapsulated(macs, [address; 2], VNI, &inner);
            let port = |at: u16| u16::from_be_bytes([whole[usize::from(at) - 1], whole[usize::from(at)]]);
            assert_eq!((inner.len(), whole.len() - inner.len()), (64, usize::from(outer_len(address))));
            assert_eq!(port(flow_at(address)), FLOWS[0]);
            assert_eq!(port(outer_len(address) + flow_at(address)), FLOWS[1]);
        }
    }
}
