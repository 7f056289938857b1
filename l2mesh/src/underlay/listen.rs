//! What arrives at this host, before any program or firewall has dropped it, and questions that need no socket of a service:
//! ARP and ICMP echo.
#![expect(unsafe_code, reason = "nix has no wrapper for classic BPF filters of sockets, nor for packet sockets")]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use l2mesh_common::wire::{Fingerprint, MacAddr, Probe, ProbeKind};
use nix::errno::Errno;

use super::Error;

// linux/if_ether.h, linux/if_packet.h, linux/filter.h, linux/icmp.h, linux/icmpv6.h.
const ETH_P_ALL: u16 = 3;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
const PACKET_OUTGOING: u8 = 4;
const PROTOCOL: u32 = 0xffff_f000;
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const PORT_UNREACHABLE: u8 = 3;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const UNREACHABLE_V6: u8 = 1;
const PORT_UNREACHABLE_V6: u8 = 4;
/// A mesh's data may be longer; its probes, without padding, are not.
const SHORT: u32 = 200;
/// Octets of a packet that are looked at.
const ROOM: u32 = 128;
/// Of the receive buffer.
const BUFFER: libc::c_int = 4 << 20;

/// Something that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// A UDP datagram to the port; what it is of a probe, and what the configuration of who answered says.
    Udp { from: IpAddr, probe: Option<ProbeKind>, fingerprint: Fingerprint },
    /// Somebody says that an address is his.
    Arp { address: Ipv4Addr, mac: MacAddr },
    /// An answer to a ping.
    Echo { from: IpAddr },
    /// Nobody holds a UDP port there.
    Refused { from: IpAddr, port: u16 },
}

/// A packet socket on all interfaces of the calling thread's namespace. What is not ICMP counts on one of them only: inside a
/// network there may be ARP and VXLAN too.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    ifindex: u32,
}

impl Listener {
    /// Listens for ARP and ICMP.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub(crate) fn for_control(ifindex: u32) -> Result<Self, Error> {
        Self::open(ifindex, &control_filter())
    }

    /// Listens for short UDP datagrams to this port.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub(crate) fn for_udp(ifindex: u32, port: u16) -> Result<Self, Error> {
        Self::open(ifindex, &udp_filter(port))
    }

    fn open(ifindex: u32, filter: &[libc::sock_filter]) -> Result<Self, Error> {
        let fault = |errno| Error::new("listen on the interfaces", errno);
        // Protocol 0 hears nothing until the filter is there.
        // SAFETY: numbers only.
        let number =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        let number = Errno::result(number).map_err(fault)?;
        // SAFETY: the kernel has just made it for us.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let program =
            libc::sock_fprog { len: u16::try_from(filter.len()).unwrap_or(0), filter: filter.as_ptr().cast_mut() };
        set(&socket, libc::SO_ATTACH_FILTER, &program).map_err(fault)?;
        // Without the right to it the default has to do.
        let _default = set(&socket, libc::SO_RCVBUFFORCE, &BUFFER);
        let address = link_address(ETH_P_ALL, 0, MacAddr::ZERO);
        // SAFETY: the address lives until here and is as long as said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of(&address)) };
        Errno::result(bound).map_err(fault)?;
        Ok(Self { socket, ifindex })
    }

    /// All that arrived since the last time.
    pub(crate) fn drain(&self) -> Vec<Heard> {
        let mut all = Vec::new();
        let mut room = [0_u8; ROOM as usize];
        loop {
            // SAFETY: numbers only.
            let mut from: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
            let mut length = length_of(&from);
            // SAFETY: room and address are as long as said.
            let received = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    room.as_mut_ptr().cast(),
                    room.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            let Ok(octets) = usize::try_from(received) else { return all };
            let packet = room.get(..octets).unwrap_or_default();
            let is_here = from.sll_ifindex == self.ifindex.cast_signed();
            let counts = |heard: &Heard| is_here || matches!(heard, Heard::Echo { .. } | Heard::Refused { .. });
            if from.sll_pkttype != PACKET_OUTGOING {
                all.extend(parse(u16::from_be(from.sll_protocol), packet).filter(counts));
            }
        }
    }
}

/// Asks who has an IPv4 address: `sender` is ours, or 0.0.0.0 to ask without claiming anything (RFC 5227 section 2.1.1).
///
/// # Errors
/// It cannot be sent.
pub(crate) fn ask_arp(ifindex: u32, mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Result<(), Error> {
    let fault = |errno| Error::new(format!("ask who has {target}"), errno);
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(mac.0);
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    // SAFETY: numbers only.
    let number = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let number = Errno::result(number).map_err(fault)?;
    // SAFETY: the kernel has just made it for us.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let to = link_address(ETH_P_ARP, ifindex, MacAddr::BROADCAST);
    // SAFETY: packet and address live until here and are as long as said.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            length_of(&to),
        )
    };
    Errno::result(sent).map(drop).map_err(fault)
}

/// Sends a ping.
///
/// # Errors
/// It cannot be sent, as where there is no route.
pub(crate) fn ask_echo(source: Option<IpAddr>, target: IpAddr, sequence: u16) -> io::Result<()> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, sendto, socket,
    };
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
    if let Some(source) = source {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(std::net::SocketAddr::new(source, 0)))?;
    }
    let to = SockaddrStorage::from(std::net::SocketAddr::new(target, 0));
    sendto(socket.as_raw_fd(), &echo(target, sequence), &to, MsgFlags::empty())?;
    Ok(())
}

/// A question of eight octets and some data. The kernel fills that of `ICMPv6` in.
fn echo(target: IpAddr, sequence: u16) -> Vec<u8> {
    let kind = if target.is_ipv4() { ECHO } else { ECHO_V6 };
    let mut packet = vec![kind, 0, 0, 0, b'l', b'2'];
    packet.extend(sequence.to_be_bytes());
    packet.extend(b"l2mesh doctor...");
    if target.is_ipv4() {
        let sum =
            packet.chunks_exact(2).fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

fn parse(protocol: u16, packet: &[u8]) -> Option<Heard> {
    match protocol {
        ETH_P_ARP => {
            let mac = MacAddr(*packet.get(8..)?.first_chunk()?);
            let address = Ipv4Addr::from(*packet.get(14..)?.first_chunk::<4>()?);
            // Who asks without claiming has none.
            (!address.is_unspecified()).then_some(Heard::Arp { address, mac })
        }
        ETH_P_IP => {
            let from = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into();
            let behind = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
            match packet.get(9)? {
                1 => icmp(from, behind, [ECHO_REPLY, UNREACHABLE, PORT_UNREACHABLE], 20),
                17 => Some(udp(from, behind)),
                _ => None,
            }
        }
        ETH_P_IPV6 => {
            let from = Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into();
            let behind = packet.get(40..)?;
            match packet.get(6)? {
                58 => icmp(from, behind, [ECHO_REPLY_V6, UNREACHABLE_V6, PORT_UNREACHABLE_V6], 40),
                17 => Some(udp(from, behind)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn icmp(from: IpAddr, packet: &[u8], [reply, unreachable, port]: [u8; 3], header: usize) -> Option<Heard> {
    let [kind, code, ..] = *packet else { return None };
    if kind == reply && packet.get(4..6) == Some(b"l2") {
        return Some(Heard::Echo { from });
    }
    // What is quoted begins with its IP header.
    let quoted = packet.get(8 + header + 2..)?.first_chunk().map(|port| u16::from_be_bytes(*port))?;
    (kind == unreachable && code == port).then_some(Heard::Refused { from, port: quoted })
}

fn udp(from: IpAddr, datagram: &[u8]) -> Heard {
    const PROBE: usize = 16;
    const SAID: usize = PROBE + Probe::LEN;
    let probe = datagram.get(PROBE..SAID).map(bytemuck::pod_read_unaligned::<Probe>).and_then(|probe| probe.kind());
    let said = datagram.get(SAID..SAID + Fingerprint::LEN).filter(|_| probe == Some(ProbeKind::Reply));
    Heard::Udp { from, probe, fingerprint: said.map_or(Fingerprint::UNKNOWN, bytemuck::pod_read_unaligned) }
}

fn link_address(protocol: u16, ifindex: u32, mac: MacAddr) -> libc::sockaddr_ll {
    // SAFETY: numbers only.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&mac.0);
    address
}

fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0)
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the value lives until here and is as long as said.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(value).cast(), length)
    };
    Errno::result(outcome).map(drop)
}

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_OCTET: u16 = 0x30;
const LOAD_HALF_BEHIND_X: u16 = 0x48;
const X_IS_HEADER_LENGTH: u16 = 0xb1;
const LOAD_LENGTH: u16 = 0x80;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const GO_ON: u16 = 0x05;
const RETURN: u16 = 0x06;

const fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// ARP, ICMP, `ICMPv6`.
fn control_filter() -> [libc::sock_filter; 10] {
    [
        op(LOAD_WORD, PROTOCOL),
        jump(IF_EQUAL, ETH_P_ARP.into(), 7, 0),
        jump(IF_EQUAL, ETH_P_IP.into(), 0, 2),
        op(LOAD_OCTET, 9),
        jump(IF_EQUAL, 1, 4, 3),
        jump(IF_EQUAL, ETH_P_IPV6.into(), 0, 2),
        op(LOAD_OCTET, 6),
        jump(IF_EQUAL, 58, 1, 0),
        op(RETURN, 0),
        op(RETURN, ROOM),
    ]
}

/// Short UDP datagrams to a port.
fn udp_filter(port: u16) -> [libc::sock_filter; 16] {
    [
        op(LOAD_LENGTH, 0),
        jump(IF_GREATER, SHORT, 12, 0),
        op(LOAD_WORD, PROTOCOL),
        jump(IF_EQUAL, ETH_P_IP.into(), 0, 5),
        op(LOAD_OCTET, 9),
        jump(IF_EQUAL, 17, 0, 8),
        op(X_IS_HEADER_LENGTH, 0),
        op(LOAD_HALF_BEHIND_X, 2),
        op(GO_ON, 4),
        jump(IF_EQUAL, ETH_P_IPV6.into(), 0, 4),
        op(LOAD_OCTET, 6),
        jump(IF_EQUAL, 17, 0, 2),
        op(LOAD_HALF, 42),
        jump(IF_EQUAL, port.into(), 1, 0),
        op(RETURN, 0),
        op(RETURN, ROOM),
    ]
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::{
        super::testing::{eventually, index, two_hosts},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn what_arrives_is_heard() {
        let (a, b) = two_hosts();
        let va = index(&a, "va");
        let mac = |host: &super::super::testing::Namespace, name: &str| {
            let index = index(host, name);
            let link =
                host.block_on(async || super::super::Netlink::open().expect("a socket").link_by_index(index).await);
            link.expect("asked").expect("a device").mac.expect("a MAC")
        };
        let (own, other) = (mac(&a, "va"), mac(&b, "vb"));
        let far = b.run(|| UdpSocket::bind("10.9.0.2:0").expect("a socket"));
        let long = [0; 300];
        a.block_on(async || {
            let (control, udp) =
                (Listener::for_control(va).expect("a socket"), Listener::for_udp(va, 4789).expect("a socket"));
            for (target, answer) in
                [("10.9.0.2", Heard::Echo { from: ip("10.9.0.2") }), ("fd99::2", Heard::Echo { from: ip("fd99::2") })]
            {
                eventually("hear an answer", async || {
                    ask_echo(None, ip(target), 1).expect("sent");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    control.drain().contains(&answer).then_some(())
                })
                .await;
            }
            assert!(ask_echo(None, ip("10.99.0.1"), 1).is_err(), "no route");
            // Nobody has the port: the kernel there says so.
            let near = UdpSocket::bind("10.9.0.1:0").expect("a socket");
            let refused = Heard::Refused { from: ip("10.9.0.2"), port: 4789 };
            eventually("hear a refusal", async || {
                near.send_to(b"?", "10.9.0.2:4789").expect("sent");
                tokio::time::sleep(Duration::from_millis(50)).await;
                control.drain().contains(&refused).then_some(())
            })
            .await;
            let arp = Heard::Arp { address: Ipv4Addr::new(10, 9, 0, 2), mac: other };
            for sender in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 9, 0, 1)] {
                eventually("hear an owner", async || {
                    ask_arp(va, own, sender, Ipv4Addr::new(10, 9, 0, 2)).expect("sent");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    control.drain().contains(&arp).then_some(())
                })
                .await;
            }
            assert_eq!(udp.drain(), [], "what we send is not what arrives");
            let request = Probe::request(l2mesh_common::wire::ProbePath::path(0), false, 1, 2, 3);
            let probe = [&[9, 0, 0, 0, 0, 0, 0, 0][..], bytemuck::bytes_of(&request), &[0; 8]].concat();
            for (datagram, to) in [(&*probe, 4789), (&[8, 0], 4789), (&[8, 0], 4790), (&long, 4789)] {
                far.send_to(datagram, ("10.9.0.1", to)).expect("sent");
            }
            let mut heard = Vec::new();
            eventually("hear datagrams", async || {
                tokio::time::sleep(Duration::from_millis(10)).await;
                heard.extend(udp.drain());
                (heard.len() >= 2).then_some(())
            })
            .await;
            let datagram = |probe| Heard::Udp { from: ip("10.9.0.2"), probe, fingerprint: Fingerprint::UNKNOWN };
            assert_eq!(heard, [datagram(Some(ProbeKind::Request)), datagram(None)]);
        });
    }
}
