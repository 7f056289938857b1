//! How a frame for a peer leaves this host: device, MAC addresses, source address.

use std::{fmt, net::IpAddr};

use l2mesh_common::wire::MacAddr;

use super::{Error, Netlink};

/// All that an encapsulated frame to one peer needs of the underlay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NextHop {
    /// The device to send on.
    pub oif: u32,
    /// The MAC of that device; zero where the kernel writes the header.
    pub source_mac: MacAddr,
    /// The MAC of the peer, or of the gateway towards it; zero where the kernel writes the header.
    pub destination_mac: MacAddr,
    /// The source asked for, else the one the route prefers.
    pub source_ip: IpAddr,
    /// MTU of the device, octets.
    pub mtu: u32,
    /// MTU of the route, octets, where it has one of its own.
    pub route_mtu: Option<u32>,
}

impl NextHop {
    /// Octets of a packet that this way takes, as far as this host knows.
    pub(crate) fn underlay_mtu(&self) -> u32 {
        self.route_mtu.map_or(self.mtu, |mtu| mtu.min(self.mtu))
    }
}

/// Why a peer cannot be sent to now. All of them may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoNextHop {
    /// No route, or one that refuses.
    NoRoute {
        /// The peer.
        peer: IpAddr,
        /// The source that was asked for.
        source: Option<IpAddr>,
    },
    /// The route names no source address, and none was asked for.
    NoSource {
        /// The device of the route.
        oif: u32,
    },
    /// The peer's address is one of this host.
    Local {
        /// The peer.
        peer: IpAddr,
    },
    /// The route leaves through a device without Ethernet header, as that of a tunnel.
    NotEthernet {
        /// The device.
        oif: u32,
    },
    /// The route leaves through a device that went away or is switched off.
    Down {
        /// The device.
        oif: u32,
    },
    /// The route leads into the mesh itself.
    Overlay {
        /// The peer.
        peer: IpAddr,
        /// The overlay interface, or the bridge of which it is a port.
        oif: u32,
    },
    /// The MAC is not known yet; the kernel has been made to ask for it.
    Unresolved {
        /// The device.
        oif: u32,
        /// The peer, or the gateway towards it.
        ip: IpAddr,
    },
}

impl fmt::Display for NoNextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute { peer, source: None } => write!(f, "no route to {peer}"),
            Self::NoRoute { peer, source: Some(source) } => {
                write!(f, "no route to {peer} from {source} (is that an address of this host?)")
            }
            Self::NoSource { oif } => write!(f, "interface {oif} has no address to send from"),
            Self::Local { peer } => write!(f, "{peer} is an address of this host"),
            Self::NotEthernet { oif } => {
                write!(f, "the route leaves through interface {oif}, which has no Ethernet header: use --mode kernel")
            }
            Self::Down { oif } => write!(f, "the route leaves through interface {oif}, which is down or gone"),
            Self::Overlay { peer, oif } => write!(
                f,
                "the route to {peer} leads into the mesh itself, to interface {oif}: give the network addresses of another \
                 range than the underlay's"
            ),
            Self::Unresolved { oif, ip } => write!(f, "no answer yet from {ip} on interface {oif} about its MAC"),
        }
    }
}

impl std::error::Error for NoNextHop {}

/// Who writes the outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// Our programs: they need MAC addresses.
    Program,
    /// The kernel, which finds those itself where there are any.
    Kernel,
}

/// Resolves a peer's address; asks for the MAC of the next hop if it is needed and not known.
///
/// # Errors
/// The outer error when the kernel cannot be asked, the inner one when there is no way now.
pub(crate) async fn next_hop(
    netlink: &Netlink,
    peer: IpAddr,
    source: Option<IpAddr>,
    writer: Writer,
) -> Result<Result<NextHop, NoNextHop>, Error> {
    let Some(route) = netlink.route_to(peer, source).await? else {
        return Ok(Err(NoNextHop::NoRoute { peer, source }));
    };
    if route.local {
        return Ok(Err(NoNextHop::Local { peer }));
    }
    let oif = route.oif;
    let Some(link) = netlink.link_by_index(oif).await?.filter(|link| link.up) else {
        return Ok(Err(NoNextHop::Down { oif }));
    };
    let Some(source_ip) = route.preferred_source else {
        return Ok(Err(NoNextHop::NoSource { oif }));
    };
    // What the kernel has learned from ICMP matters where it sends itself: more it would not send.
    let learned = route.learned_mtu.filter(|_| writer == Writer::Kernel);
    let found = |[source_mac, destination_mac]: [MacAddr; 2]| NextHop {
        oif,
        source_mac,
        destination_mac,
        source_ip,
        mtu: link.mtu,
        route_mtu: route.mtu.into_iter().chain(learned).min(),
    };
    if writer == Writer::Kernel {
        return Ok(Ok(found([MacAddr::ZERO; 2])));
    }
    let Some(source_mac) = link.mac.filter(|_| link.has_ethernet) else {
        return Ok(Err(NoNextHop::NotEthernet { oif }));
    };
    let ip = route.gateway.unwrap_or(peer);
    let Some(neighbour) = netlink.neighbour(oif, ip).await? else {
        return match netlink.solicit(oif, ip).await {
            // Refused: its table of neighbours is full, or the device went down meanwhile.
            Ok(()) | Err(Error::Refused { .. }) => Ok(Err(NoNextHop::Unresolved { oif, ip })),
            Err(Error::NoSuchDevice { .. }) => Ok(Err(NoNextHop::Down { oif })),
            Err(error) => Err(error),
        };
    };
    Ok(Ok(found([source_mac, neighbour.mac])))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{eventually, index, two_hosts},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn through_a_gateway() {
        let (a, b) = two_hosts();
        b.ip("addr add 10.10.0.1/32 dev lo");
        a.ip("route add 10.10.0.0/24 via 10.9.0.2");
        a.ip("route add 10.11.0.0/24 via inet6 fd99::2 dev va mtu 1400");
        let (va, vb) = (index(&a, "va"), index(&b, "vb"));
        let gateway = b.block_on(async || Netlink::open().expect("a socket").link_by_index(vb).await.expect("asked"));
        let destination_mac = gateway.and_then(|link| link.mac).expect("a MAC");
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let own = netlink.link_by_index(va).await.expect("asked").expect("va");
            let source_mac = own.mac.expect("a MAC");
            for (peer, gateway, source, route_mtu) in [
                ("10.10.0.1", "10.9.0.2", None, None),
                ("10.10.0.1", "10.9.0.2", Some(ip("10.9.0.1")), None),
                ("10.11.0.1", "fd99::2", None, Some(1400)),
                ("fd99::2", "fd99::2", None, None),
            ] {
                if netlink.neighbour(va, ip(gateway)).await.expect("asked").is_none() {
                    let first = next_hop(&netlink, ip(peer), source, Writer::Program).await.expect("asked");
                    assert_eq!(first, Err(NoNextHop::Unresolved { oif: va, ip: ip(gateway) }));
                }
                let ask = async || next_hop(&netlink, ip(peer), source, Writer::Program).await.expect("asked").ok();
                let found = eventually("resolve", ask).await;
                let source_ip = if ip(peer).is_ipv4() { ip("10.9.0.1") } else { ip("fd99::1") };
                let expected = NextHop { oif: va, source_mac, destination_mac, source_ip, mtu: 1500, route_mtu };
                assert_eq!(found, expected, "{peer}");
            }
        });
    }

    #[test]
    fn no_way() {
        let (a, _b) = two_hosts();
        a.ip("tuntap add tun0 mode tun");
        a.ip("link set tun0 up");
        a.ip("addr add 10.20.0.1/24 dev tun0");
        let (va, tun) = (index(&a, "va"), index(&a, "tun0"));
        let (peer, foreign) = (ip("10.30.0.1"), ip("192.0.2.1"));
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            for (peer, source, expected, sentence) in [
                (peer, None, NoNextHop::NoRoute { peer, source: None }, "no route to 10.30.0.1"),
                (
                    ip("10.9.0.2"),
                    Some(foreign),
                    NoNextHop::NoRoute { peer: ip("10.9.0.2"), source: Some(foreign) },
                    "no route to 10.9.0.2 from 192.0.2.1 (is that an address of this host?)",
                ),
                (
                    ip("10.9.0.1"),
                    None,
                    NoNextHop::Local { peer: ip("10.9.0.1") },
                    "10.9.0.1 is an address of this host",
                ),
                (
                    ip("10.20.0.2"),
                    None,
                    NoNextHop::NotEthernet { oif: tun },
                    &format!(
                        "the route leaves through interface {tun}, which has no Ethernet header: use --mode kernel"
                    ),
                ),
                (
                    ip("10.9.0.77"),
                    None,
                    NoNextHop::Unresolved { oif: va, ip: ip("10.9.0.77") },
                    &format!("no answer yet from 10.9.0.77 on interface {va} about its MAC"),
                ),
            ] {
                let reason =
                    next_hop(&netlink, peer, source, Writer::Program).await.expect("asked").expect_err("no way");
                assert_eq!(reason, expected);
                assert_eq!(reason.to_string(), sentence);
            }
        });
    }

    #[test]
    fn the_kernel_needs_no_mac() {
        let (a, _b) = two_hosts();
        a.ip("tuntap add tun0 mode tun");
        a.ip("link set tun0 mtu 1420");
        a.ip("link set tun0 up");
        a.ip("addr add 10.20.0.1/24 dev tun0");
        a.ip("addr add fd20::1/64 dev tun0");
        a.ip("route add 10.21.0.0/24 dev tun0 mtu 1300");
        let (va, oif) = (index(&a, "va"), index(&a, "tun0"));
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let ask = async |peer| next_hop(&netlink, ip(peer), None, Writer::Kernel).await.expect("asked");
            let tun = NextHop {
                oif,
                source_mac: MacAddr::ZERO,
                destination_mac: MacAddr::ZERO,
                source_ip: ip("10.20.0.1"),
                mtu: 1420,
                route_mtu: None,
            };
            assert_eq!(ask("10.20.0.2").await, Ok(tun));
            assert_eq!(ask("fd20::2").await, Ok(NextHop { source_ip: ip("fd20::1"), ..tun }));
            assert_eq!(ask("10.21.0.2").await, Ok(NextHop { route_mtu: Some(1300), ..tun }));
            // Nor does it for an interface that has some: nobody answers here.
            let ethernet = NextHop { oif: va, source_ip: ip("10.9.0.1"), mtu: 1500, ..tun };
            assert_eq!(ask("10.9.0.77").await, Ok(ethernet));
            assert_eq!(netlink.neighbour(va, ip("10.9.0.77")).await, Ok(None), "nobody was asked");
            let nowhere = NoNextHop::NoRoute { peer: ip("10.30.0.1"), source: None };
            assert_eq!(ask("10.30.0.1").await, Err(nowhere));
        });
    }
}
