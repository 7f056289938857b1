//! Which way the kernel would send.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia},
};

use super::{Error, Netlink, change::family};

/// The kernel's answer for one destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// The device to send on.
    pub oif: u32,
    /// Who forwards; none if the destination is on the link. An IPv4 route may have an IPv6 gateway.
    pub gateway: Option<IpAddr>,
    /// The source the kernel would take: the one asked for, if one was.
    pub preferred_source: Option<IpAddr>,
    /// MTU of the route, octets, where one is configured.
    pub mtu: Option<u32>,
    /// MTU that the kernel has learned from ICMP and believes for a time, octets.
    pub learned_mtu: Option<u32>,
    /// The destination is an address of this host.
    pub local: bool,
}

impl Netlink {
    /// The route to one destination, with the rules and exceptions in force now. `None` if there is
    /// none or it refuses (unreachable, prohibit, blackhole, broadcast, multicast).
    ///
    /// From an IPv4 source that is not on this host there is no route; from such an IPv6 source
    /// the kernel names one all the same. A device without carrier keeps its routes.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn route_to(&self, destination: IpAddr, source: Option<IpAddr>) -> Result<Option<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = bits(destination);
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        if let Some(source) = source {
            message.header.source_prefix_length = bits(source);
            message.attributes.push(RouteAttribute::Source(source.into()));
        }
        let doing = format!("look up the route to {destination}");
        match self.get(&doing, RouteNetlinkMessage::GetRoute(message.clone())).await? {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => match parse(route, source) {
                // Then what is configured does not stand there.
                Some(route) if route.learned_mtu.is_some() => {
                    let mtu = self.configured_mtu(&doing, message).await?;
                    Ok(Some(Route { mtu, ..route }))
                }
                route => Ok(route),
            },
            // In turn: no route, or none from that source; unreachable; prohibit; blackhole.
            Ok(_) | Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }

    /// The MTU in the routing table, without what was learned.
    async fn configured_mtu(&self, doing: &str, mut message: RouteMessage) -> Result<Option<u32>, Error> {
        message.header.flags |= RouteFlags::FibMatch;
        let Ok(Some(RouteNetlinkMessage::NewRoute(route))) =
            self.get(doing, RouteNetlinkMessage::GetRoute(message)).await?
        else {
            return Ok(None);
        };
        Ok(route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => mtu_metric(metrics),
            _ => None,
        }))
    }
}

fn mtu_metric(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

fn parse(message: RouteMessage, source: Option<IpAddr>) -> Option<Route> {
    let local = match message.header.kind {
        RouteType::Unicast => false,
        RouteType::Local | RouteType::Anycast => true,
        _ => return None,
    };
    let mut oif = None;
    let mut expires = false;
    let mut route = Route { oif: 0, gateway: None, preferred_source: source, mtu: None, learned_mtu: None, local };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(index),
            RouteAttribute::Gateway(gateway) => route.gateway = address(&gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some(gateway.into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some(gateway.into()),
            RouteAttribute::PrefSource(address_) if source.is_none() => route.preferred_source = address(&address_),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = mtu_metric(&metrics);
            }
            RouteAttribute::CacheInfo(info) => expires = info.expires != 0,
            _ => {}
        }
    }
    if expires {
        route.learned_mtu = route.mtu.take();
    }
    Some(Route { oif: oif?, ..route })
}

pub(super) const fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{index, two_hosts},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_kind_of_route() {
        let (a, _b) = two_hosts();
        let va = index(&a, "va");
        for route in [
            "add 10.10.0.0/24 via 10.9.0.2",
            "add 10.14.0.0/24 via inet6 fe80::1 dev va",
            "add 10.15.0.0/24 via 10.9.0.2 mtu 1300",
            "add unreachable 10.11.0.0/24",
            "add prohibit 10.12.0.0/24",
            "add blackhole 10.13.0.0/24",
            "add fd14::/64 via fd99::2",
            "add unreachable fd11::/64",
            "add prohibit fd12::/64",
            "add blackhole fd13::/64",
        ] {
            a.ip(&format!("route {route}"));
        }
        let found = |gateway: Option<&str>, source: &str, mtu| {
            Some(Route {
                oif: va,
                gateway: gateway.map(ip),
                preferred_source: Some(ip(source)),
                mtu,
                learned_mtu: None,
                local: false,
            })
        };
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            for (destination, source, expected) in [
                ("10.9.0.2", None, found(None, "10.9.0.1", None)),
                ("10.10.0.1", None, found(Some("10.9.0.2"), "10.9.0.1", None)),
                ("10.10.0.1", Some("10.9.0.1"), found(Some("10.9.0.2"), "10.9.0.1", None)),
                ("10.14.0.1", None, found(Some("fe80::1"), "10.9.0.1", None)),
                ("10.15.0.1", None, found(Some("10.9.0.2"), "10.9.0.1", Some(1300))),
                ("fd99::2", None, found(None, "fd99::1", None)),
                ("fd14::1", None, found(Some("fd99::2"), "fd99::1", None)),
                ("fd14::1", Some("fd99::1"), found(Some("fd99::2"), "fd99::1", None)),
                ("10.11.0.1", None, None),
                ("10.12.0.1", None, None),
                ("10.13.0.1", None, None),
                ("10.17.0.1", None, None),
                ("10.9.0.255", None, None),
                ("10.10.0.1", Some("192.0.2.1"), None),
                ("fd11::1", None, None),
                ("fd12::1", None, None),
                ("fd13::1", None, None),
                ("fd15::1", None, None),
            ] {
                let route = netlink.route_to(ip(destination), source.map(ip)).await.expect("asked");
                assert_eq!(route, expected, "{destination} from {source:?}");
            }
            for own in ["10.9.0.1", "127.0.0.1", "fd99::1", "::1"] {
                let route = netlink.route_to(ip(own), None).await.expect("asked").expect("a route");
                assert!(route.local, "{own}: {route:?}");
            }
        });
    }
}
