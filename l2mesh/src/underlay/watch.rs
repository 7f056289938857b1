//! What changes in the host's network, as it happens.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::errno::Errno;
use rtnetlink::{
    MulticastGroup,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::{
    Error, errno_of,
    raw::{attributes, message, u32_at},
};

/// Everything that can alter a next hop or the way frames take over our devices.
const GROUPS: [MulticastGroup; 10] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
    MulticastGroup::Tc,
];

/// The kernel builds no notification greater than this, octets.
const DATAGRAM: usize = 32 * 1024;
/// Receive buffer, octets: a burst of a thousand or so changes (the kernel may grant less).
const BACKLOG: i32 = 1024 * 1024;

/// Something changed: a hint to look, not the news itself. Device indexes are of our namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Change {
    /// A device came or changed: state, MTU, MAC, name, master, promiscuity (each sniffer that
    /// comes or goes), alias (only while it is up). A change of its qdisc is no such event.
    Link(u32),
    /// A device went away, perhaps into another namespace.
    LinkGone(u32),
    /// Any route, rule or next-hop object.
    Route,
    /// A neighbour's entry came, changed or went.
    Neighbour {
        /// The device.
        oif: u32,
        /// The neighbour.
        ip: IpAddr,
    },
    /// An address of this device came or went.
    Address(u32),
    /// A queueing discipline of this device, clsact included.
    Qdisc(u32),
    /// A TC filter of this device, or of a block shared by several (`u32::MAX`). Programs on tcx or
    /// XDP make no such event.
    Filter(u32),
    /// Changes came faster than we read: look at everything again.
    Lost,
}

/// Changes of the network namespace of the thread that opened it.
pub(crate) struct Watch {
    socket: TokioSocket,
    datagram: Vec<u8>,
    ready: VecDeque<Change>,
}

impl Watch {
    /// Starts watching. Look at everything after this, not before it.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::with_backlog(BACKLOG).map_err(|error| Error::new("watch the network", errno_of(&error)))
    }

    fn with_backlog(octets: i32) -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().set_rx_buf_sz(octets)?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group as u32)?;
        }
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM), ready: VecDeque::new() })
    }

    /// The next change. Nothing is lost if the future is dropped before it is ready.
    ///
    /// # Errors
    /// When the socket fails.
    pub(crate) async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            self.datagram.clear();
            match self.socket.recv_from(&mut self.datagram).await {
                Ok(_) => self.ready.extend(changes(&self.datagram)),
                Err(error) if errno_of(&error) == Errno::ENOBUFS => return Ok(Change::Lost),
                Err(error) => return Err(Error::new("watch the network", errno_of(&error))),
            }
        }
    }
}

/// The changes in one datagram. Only what is needed is parsed: a kernel with new attributes must
/// not make us miss a change.
fn changes(mut datagram: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some((kind, payload, rest)) = message(datagram) {
        changes.extend(change(kind, payload));
        datagram = rest;
    }
    changes
}

fn change(kind: u16, payload: &[u8]) -> Option<Change> {
    let family = i32::from(*payload.first()?);
    // The index stands in the same place in ifinfomsg, ifaddrmsg, ndmsg and tcmsg.
    let index = u32_at(payload, 4)?;
    match kind {
        // With the family of bridges: a port left its bridge, the device is still there.
        libc::RTM_DELLINK if family == libc::AF_UNSPEC => Some(Change::LinkGone(index)),
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Some(Change::Link(index)),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Change::Address(index)),
        libc::RTM_NEWROUTE
        | libc::RTM_DELROUTE
        | libc::RTM_NEWRULE
        | libc::RTM_DELRULE
        | RTM_NEWNEXTHOP
        | RTM_DELNEXTHOP => Some(Change::Route),
        // Other families are a bridge's table of MAC addresses.
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            Some(Change::Neighbour { oif: index, ip: neighbour_address(family, payload.get(12..)?)? })
        }
        libc::RTM_NEWQDISC | libc::RTM_DELQDISC => Some(Change::Qdisc(index)),
        libc::RTM_NEWTFILTER | libc::RTM_DELTFILTER => Some(Change::Filter(index)),
        _ => None,
    }
}

/// linux/rtnetlink.h; libc has no names for these.
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// The `NDA_DST` attribute.
fn neighbour_address(family: i32, octets: &[u8]) -> Option<IpAddr> {
    let (_, value) = attributes(octets).find(|(kind, _)| *kind == libc::NDA_DST)?;
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::{
        super::testing::{Namespace, index, two_hosts},
        *,
    };

    /// What comes until nothing has for 200 ms.
    async fn drained(watch: &mut Watch) -> HashSet<Change> {
        let mut seen = HashSet::new();
        while let Ok(change) = tokio::time::timeout(Duration::from_millis(200), watch.next()).await {
            seen.insert(change.expect("a change"));
        }
        seen
    }

    #[test]
    fn each_change_is_seen() {
        let (a, _b) = two_hosts();
        a.ip("link add br0 type bridge");
        a.ip("link add vx type veth peer name vy");
        let (va, vx, vy) = (index(&a, "va"), index(&a, "vx"), index(&a, "vy"));
        let neighbour = |text: &str| Change::Neighbour { oif: va, ip: text.parse().expect("an address") };
        a.block_on(async || {
            let mut watch = Watch::open().expect("a socket");
            drained(&mut watch).await;
            for (program, arguments, expected) in [
                ("ip", "link set va mtu 1400", Change::Link(va)),
                ("ip", "link set va alias something", Change::Link(va)),
                ("ip", "link set va promisc on", Change::Link(va)),
                ("ip", "addr add 10.9.1.1/32 dev va", Change::Address(va)),
                ("ip", "addr del fd99::1/64 dev va", Change::Address(va)),
                ("ip", "route add 10.10.0.0/24 via 10.9.0.2", Change::Route),
                ("ip", "route add unreachable fd11::/64", Change::Route),
                ("ip", "rule add from 10.9.0.1 table 100", Change::Route),
                ("ip", "nexthop add id 7 via 10.9.0.2 dev va", Change::Route),
                ("ip", "neigh add 10.9.0.50 dev va lladdr 02:00:00:00:00:50 nud permanent", neighbour("10.9.0.50")),
                ("ip", "neigh del 10.9.0.50 dev va", neighbour("10.9.0.50")),
                ("ip", "neigh add fd99::50 dev va lladdr 02:00:00:00:00:50", neighbour("fd99::50")),
                ("tc", "qdisc add dev va clsact", Change::Qdisc(va)),
                ("tc", "qdisc add dev va root pfifo", Change::Qdisc(va)),
                ("tc", "filter add dev va ingress protocol ip u32 match u32 0 0 flowid 1:1", Change::Filter(va)),
                ("ip", "link set vx master br0", Change::Link(vx)),
                // This one also makes the kernel say that the bridge's port is deleted.
                ("ip", "link set vx nomaster", Change::Link(vx)),
                ("ip", "link del vy", Change::LinkGone(vy)),
            ] {
                a.command(program, arguments);
                let seen = drained(&mut watch).await;
                assert!(seen.contains(&expected), "{program} {arguments}: {seen:?}");
                let gone = |change: &&Change| matches!(change, Change::LinkGone(_));
                assert!(expected == Change::LinkGone(vy) || !seen.iter().any(|change| gone(&change)), "{seen:?}");
            }
            assert_eq!(drained(&mut watch).await, HashSet::new());
        });
    }

    #[test]
    fn too_many_changes() {
        let host = Namespace::new();
        host.ip("link add va type veth peer name vb");
        let va = index(&host, "va");
        host.block_on(async || {
            let mut watch = Watch::with_backlog(16 * 1024).expect("a socket");
            for mtu in 1400..1430 {
                host.ip(&format!("link set va mtu {mtu}"));
            }
            let seen = drained(&mut watch).await;
            assert!(seen.contains(&Change::Lost), "{seen:?}");
            // It goes on afterwards.
            host.ip("link set va mtu 1400");
            let seen = drained(&mut watch).await;
            assert!(seen.contains(&Change::Link(va)), "{seen:?}");
        });
    }

    #[test]
    fn any_octets_are_parsed_or_refused() {
        // A link message of 32 octets with index 5, twice, then cut short at every length.
        let mut one = vec![32, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0];
        one.resize(32, 0);
        let two = [one.clone(), one].concat();
        assert_eq!(changes(&two), [Change::Link(5), Change::Link(5)]);
        for length in 0..two.len() {
            assert!(changes(&two[..length]).len() < 3, "{length}");
        }
        assert_eq!(changes(&[0; 64]), []);
    }
}
