//! What routers say about packets of this host: the raw sockets on which "too big" arrives, and nothing else.
//!
//! They hear what the host's firewall lets in, in the network namespace of the thread that opened them.

use std::{
    io::IoSliceMut,
    net::{IpAddr, UdpSocket as StdSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use l2mesh_common::{
    path_mtu::{Complaint, Refusal, complaint_v4, complaint_v6},
    wire::icmp::{FRAGMENTATION_NEEDED, PACKET_TOO_BIG},
};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg,
        setsockopt, socket, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};

use super::{Error, errno_of};
use crate::service;

/// More of a message than matters: the headers stand at the beginning of what it quotes.
const ROOM: usize = 2048;
// linux/icmp.h and linux/icmpv6.h, which have one number for their filters.
const SOL_RAW: libc::c_int = 255;
const FILTER: libc::c_int = 1;
/// What the service manager calls the sockets that it keeps for an agent without `CAP_NET_RAW`.
const NAMES: [&str; 2] = ["icmp", "icmpv6"];

/// The sockets as they are opened, under the names by which [`Complaints::open`] finds them.
pub(crate) fn sockets() -> Result<[(&'static str, OwnedFd); 2], Errno> {
    let [v4, v6] = NAMES;
    Ok([(v4, raw(AddressFamily::Inet)?), (v6, raw(AddressFamily::Inet6)?)])
}

fn raw(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let protocol = if family == AddressFamily::Inet { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
    socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)
}

/// The sockets; one that the kernel does not give is missing.
#[derive(Debug)]
pub(crate) struct Complaints {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Heard {
    /// Who sent it.
    pub from: IpAddr,
    /// The interface that received it.
    pub ifindex: u32,
    /// What it says.
    pub said: Result<Complaint, Refusal>,
}

impl Complaints {
    /// Opens what the kernel gives. Second is why it gave less.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub(crate) fn open() -> (Self, Option<Error>) {
        // A bit for each type that is kept away.
        let v4 = [!(1 << FRAGMENTATION_NEEDED.0)];
        let mut v6 = [u32::MAX; 8];
        v6[0] &= !(1 << PACKET_TOO_BIG.0);
        let v4 = open(AddressFamily::Inet, SOL_RAW, &v4);
        let v6 = open(AddressFamily::Inet6, libc::IPPROTO_ICMPV6, &v6);
        let refused = v4.as_ref().err().or(v6.as_ref().err());
        let reason = refused.map(|&errno| Error::new("open a raw ICMP socket", errno));
        (Self { v4: v4.ok(), v6: v6.ok() }, reason)
    }

    /// Waits for the next message.
    pub(crate) async fn next(&self) -> Heard {
        let (mut v4, mut v6) = ([0; ROOM], [0; ROOM]);
        loop {
            let heard = tokio::select! {
                (from, ifindex, octets) = receive(self.v4.as_ref(), &mut v4) => {
                    Heard { from, ifindex, said: complaint_v4(octets) }
                }
                (from, ifindex, octets) = receive(self.v6.as_ref(), &mut v6) => {
                    Heard { from, ifindex, said: complaint_v6(octets) }
                }
            };
            // Nobody needs to be woken for ports that are closed.
            if heard.said != Err(Refusal::OtherMatter) {
                return heard;
            }
        }
    }
}

/// What cannot be received is passed over: the next packet will bring another.
async fn receive<'a>(socket: Option<&UdpSocket>, room: &'a mut [u8]) -> (IpAddr, u32, &'a [u8]) {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        let heard = socket.async_io(Interest::READABLE, || Ok(one(socket, room)?)).await;
        if let Ok(Some((from, ifindex, octets))) = heard {
            return (from, ifindex, &room[..octets]);
        }
    }
}

/// One message: its sender, the interface that received it, its length.
fn one(socket: &UdpSocket, room: &mut [u8]) -> Result<Option<(IpAddr, u32, usize)>, Errno> {
    let mut parts = [IoSliceMut::new(room)];
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let from = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    let ifindex = message.cmsgs()?.find_map(|said| match said {
        ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
        _ => None,
    });
    Ok(from.zip(ifindex).map(|(from, ifindex)| (from, ifindex, message.bytes)))
}

fn open(family: AddressFamily, level: libc::c_int, filter: &[u32]) -> Result<UdpSocket, Errno> {
    let [v4, v6] = NAMES;
    let name = if family == AddressFamily::Inet { v4 } else { v6 };
    let socket = service::inherited(name).map_or_else(|| raw(family), Ok)?;
    let octets = libc::socklen_t::try_from(size_of_val(filter)).map_err(|_| Errno::EINVAL)?;
    #[expect(unsafe_code, reason = "nix has no wrapper for these socket options")]
    // SAFETY: `filter` is as long as said.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, FILTER, filter.as_ptr().cast(), octets) };
    Errno::result(outcome)?;
    match family {
        AddressFamily::Inet => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        _ => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    UdpSocket::from_std(StdSocket::from(socket)).map_err(|error| errno_of(&error))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::testing::{eventually, two_hosts},
        *,
    };

    /// Types that are not asked for stay away; this one is the kernel's own answer to a datagram that is longer than it can
    /// be sent on.
    #[test]
    fn only_what_is_too_big_is_heard() {
        let (a, b) = two_hosts();
        for (host, commands) in [
            (&b, &["link add out type veth peer name far", "link set out mtu 1280 up", "link set far up"][..]),
            (
                &b,
                &[
                    "addr add 10.77.0.1/24 dev out",
                    "addr add fd77::1/64 dev out nodad",
                    "neigh add 10.77.0.2 lladdr 02:00:00:00:00:77 dev out",
                    "neigh add fd77::2 lladdr 02:00:00:00:00:77 dev out",
                ],
            ),
            (&a, &["route add 10.77.0.0/24 via 10.9.0.2", "route add fd77::/64 via fd99::2"]),
        ] {
            for command in commands {
                host.ip(command);
            }
        }
        b.command("sysctl", "-qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        a.block_on(async || {
            let (complaints, refused) = Complaints::open();
            assert!(refused.is_none(), "{refused:?}");
            for (own, router, far) in
                [("0.0.0.0:0", "10.9.0.2", "10.77.0.2:4789"), ("[::]:0", "fd99::2", "[fd77::2]:4789")]
            {
                let socket = StdSocket::bind(own).expect("a socket");
                let router: IpAddr = router.parse().expect("an address");
                let vxlan = [&[8, 0, 0, 0, 0, 0, 16, 0][..], &[0; 1400]].concat();
                // Not at once: the link may still come up.
                let heard = eventually("hear the router", async || {
                    // Nobody listens there: port unreachable.
                    socket.send_to(b"?", (router, 9)).expect("sent");
                    drop(socket.send_to(&vxlan, far));
                    tokio::time::timeout(Duration::from_millis(100), complaints.next()).await.ok()
                })
                .await;
                let complaint = heard.said.expect("about VXLAN");
                assert_eq!((heard.from, complaint.mtu, complaint.port, complaint.vni), (router, 1280, 4789, 16));
            }
        });
    }
}
