//! What belongs to an interface and goes with it: addresses, routes, neighbours.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol},
    neighbour::{NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType, RouteVia},
};

use super::{Error, Netlink, routes::address};

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InterfaceAddress {
    /// The interface's own.
    pub address: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix: u8,
    /// The other end, on a point-to-point link.
    pub peer: Option<IpAddr>,
    /// False if it expires: DHCP and router advertisements give such.
    pub permanent: bool,
    /// The kernel made it itself: the IPv6 link-local one.
    pub automatic: bool,
}

/// A route that somebody added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AddedRoute {
    /// Destination and length of its prefix; none is everything.
    pub destination: Option<(IpAddr, u8)>,
    /// Who forwards.
    pub gateway: Option<IpAddr>,
}

/// As `ip route` shows it.
impl fmt::Display for AddedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            Some((address, prefix)) => write!(f, "{address}/{prefix}")?,
            None => f.write_str("default")?,
        }
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
}

/// What belongs to the interfaces of a namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Belongings {
    /// In the kernel's order: IPv4, then IPv6.
    pub addresses: Vec<InterfaceAddress>,
    /// The unicast routes that neither the kernel nor a router advertisement made, in all tables.
    pub routes: Vec<AddedRoute>,
    /// Number of neighbours that somebody entered by hand.
    pub neighbours: usize,
}

impl Netlink {
    /// What belongs to every interface of the namespace, by its index; one without anything is not in it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn belongings(&self) -> Result<BTreeMap<u32, Belongings>, Error> {
        let mut all = BTreeMap::<u32, Belongings>::new();
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for message in self.dump("list the addresses", question).await? {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                all.entry(message.header.index).or_default().addresses.extend(interface_address(&message));
            }
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            for message in self.dump("list the routes", RouteNetlinkMessage::GetRoute(question)).await? {
                if let RouteNetlinkMessage::NewRoute(message) = message
                    && let Some((index, route)) = added_route(&message)
                {
                    all.entry(index).or_default().routes.push(route);
                }
            }
            let mut question = NeighbourMessage::default();
            question.header.family = family;
            for message in self.dump("list the neighbours", RouteNetlinkMessage::GetNeighbour(question)).await? {
                if let RouteNetlinkMessage::NewNeighbour(NeighbourMessage { header, .. }) = message
                    && header.state == NeighbourState::Permanent
                {
                    all.entry(header.ifindex).or_default().neighbours += 1;
                }
            }
        }
        Ok(all)
    }
}

fn interface_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let (mut local, mut prefix, mut automatic) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link the other attribute holds the other end.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            AddressAttribute::Protocol(protocol) => automatic = *protocol == AddressProtocol::LinkLocal,
            _ => {}
        }
    }
    let address = local.or(prefix)?;
    Some(InterfaceAddress {
        address,
        prefix: message.header.prefix_len,
        peer: prefix.filter(|&peer| peer != address),
        permanent: message.header.flags.contains(AddressHeaderFlags::Permanent),
        automatic,
    })
}

/// The route with the interface that it leaves through.
fn added_route(message: &RouteMessage) -> Option<(u32, AddedRoute)> {
    let by_itself = matches!(
        message.header.protocol,
        RouteProtocol::Kernel | RouteProtocol::Ra | RouteProtocol::IcmpRedirect | RouteProtocol::Unspec
    );
    if by_itself || message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = AddedRoute { destination: None, gateway: None };
    let mut through = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => through = Some(*oif),
            RouteAttribute::Destination(destination) => {
                let prefix = message.header.destination_prefix_length;
                route.destination = address(destination).map(|address| (address, prefix));
            }
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            _ => {}
        }
    }
    Some((through?, route))
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
    fn all_of_it() {
        let (a, _b) = two_hosts();
        a.ip("addr add 192.0.2.1 peer 192.0.2.2 dev va");
        a.ip("addr add 10.9.1.7/24 dev va valid_lft 600 preferred_lft 600");
        a.ip("addr add fe80::77/64 dev va nodad");
        for route in ["10.10.0.0/24 via 10.9.0.2", "10.11.0.0/24 dev va", "default via fd99::2", "fd14::/64 dev lo"] {
            a.ip(&format!("route add {route}"));
        }
        a.ip("neigh add 10.9.0.50 dev va lladdr 02:00:00:00:00:50 nud permanent");
        a.ip("neigh add fd99::50 dev va lladdr 02:00:00:00:00:50 nud permanent");
        a.ip("neigh add 10.9.0.51 dev va lladdr 02:00:00:00:00:51 nud stale");
        let va = index(&a, "va");
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let mut all = netlink.belongings().await.expect("asked");
            let Belongings { addresses: mut found, routes, neighbours } = all.remove(&va).expect("something");
            found.sort_by_key(|address| address.address);
            let [va4, dynamic, point, va6, by_hand, link_local] = found.as_slice() else { panic!("{found:?}") };
            let address = |text: &str, prefix| InterfaceAddress {
                address: ip(text),
                prefix,
                peer: None,
                permanent: true,
                automatic: false,
            };
            assert_eq!(*va4, address("10.9.0.1", 24));
            assert_eq!(*dynamic, InterfaceAddress { permanent: false, ..address("10.9.1.7", 24) });
            assert_eq!(*point, InterfaceAddress { peer: Some(ip("192.0.2.2")), ..address("192.0.2.1", 32) });
            assert_eq!(*va6, address("fd99::1", 64));
            let link_locals = [by_hand, link_local];
            assert!(link_locals.contains(&&address("fe80::77", 64)), "{found:?}");
            assert!(link_locals.iter().any(|it| it.automatic && it.permanent), "{found:?}");

            let texts: Vec<_> = routes.iter().map(ToString::to_string).collect();
            assert_eq!(texts, ["10.10.0.0/24 via 10.9.0.2", "10.11.0.0/24", "default via fd99::2"]);
            assert_eq!(neighbours, 2);
        });
    }
}
