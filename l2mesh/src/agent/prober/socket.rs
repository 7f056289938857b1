//! The sockets from which probes leave, and what comes back on their error queues. All system calls of the prober are here.
#![expect(unsafe_code, reason = "socket options and control messages for which nix allocates or has no wrapper")]

use std::{
    io::IoSliceMut,
    mem::{self, MaybeUninit},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
    time::Duration,
};

use anyhow::Context as _;
use l2mesh_common::wire::{Fingerprint, Probe, VxlanHeader};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage,
            bind, recvmsg, socket,
        },
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};

/// Source ports of each IP version: flows that the network spreads over several ways are all watched.
const PORTS: usize = 16;
/// The longest UDP payload of IPv4, octets.
const LONGEST: usize = 65_507;
/// Octets before the inner packet: VXLAN and Ethernet headers.
const BEFORE_PACKET: usize = VxlanHeader::LEN + 14;
/// What stands in every probe.
const WRITTEN: usize = VxlanHeader::LEN + Probe::LEN;
/// A probe without padding, with room for what the far end's configuration says.
const SHORT: usize = WRITTEN + Fingerprint::LEN;

/// Where probes go, in the words of the system call.
#[derive(Clone, Copy)]
pub(super) enum Way {
    V4 { to: libc::sockaddr_in, from: Control<libc::in_pktinfo> },
    V6 { to: libc::sockaddr_in6, from: Control<libc::in6_pktinfo> },
}

/// A control message; the source address is its only one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Control<T> {
    header: libc::cmsghdr,
    value: T,
    /// Of messages, the kernel counts with whole words (`CMSG_ALIGN`).
    padding: u32,
}

impl<T> Control<T> {
    fn new(level: libc::c_int, kind: libc::c_int, value: T) -> Self {
        // SAFETY: numbers only.
        let mut header: libc::cmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<T>()) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        Self { header, value, padding: 0 }
    }

    const LEN: usize = size_of::<libc::cmsghdr>() + size_of::<T>().next_multiple_of(size_of::<usize>());
}

impl Way {
    /// From an address of ours to the mesh port at a peer's. `None` if those are of different IP versions.
    pub(super) fn new(from: IpAddr, to: IpAddr, port: u16) -> Option<Self> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
                let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: libc::in_addr { s_addr: 0 } };
                let to = libc::sockaddr_in::from(SockaddrIn::from(SocketAddrV4::new(to, port)));
                Some(Self::V4 { to, from: Control::new(libc::IPPROTO_IP, libc::IP_PKTINFO, info) })
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: from.octets() }, ipi6_ifindex: 0 };
                let to = libc::sockaddr_in6::from(SockaddrIn6::from(SocketAddrV6::new(to, port, 0, 0)));
                Some(Self::V6 { to, from: Control::new(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) })
            }
            _ => None,
        }
    }
}

/// Somebody says that a packet of ours was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooBig {
    /// Where it was to go.
    pub(crate) destination: IpAddr,
    /// What would fit, octets of an outer packet.
    pub(crate) mtu: u32,
}

/// The sockets.
pub(super) struct Sockets {
    v4: Vec<OwnedFd>,
    v6: Vec<OwnedFd>,
    /// Headers, then zeros.
    room: Box<[u8]>,
}

impl Sockets {
    /// Those of the IP versions that are wanted, in the network namespace of this thread: `before` as far as it has them, with its
    /// ports, else new ones.
    pub(super) fn open(v4: bool, v6: bool, before: Option<Self>) -> anyhow::Result<Self> {
        let open = |family, wanted: bool, before: Vec<OwnedFd>| {
            if !wanted {
                return Ok(Vec::new());
            }
            if before.is_empty() { (0..PORTS).map(|_| open(family)).collect::<Result<Vec<_>, _>>() } else { Ok(before) }
        };
        let before = before.unwrap_or_else(|| Self {
            v4: Vec::new(),
            v6: Vec::new(),
            room: vec![0; LONGEST].into_boxed_slice(),
        });
        Ok(Self {
            v4: open(AddressFamily::Inet, v4, before.v4).context("cannot open sockets for probes over IPv4")?,
            v6: open(AddressFamily::Inet6, v6, before.v6).context("cannot open sockets for probes over IPv6")?,
            room: before.room,
        })
    }

    /// Sends a probe that is as long as a frame with an inner packet of `packet` octets, or as short as can be. The nth one
    /// leaves from the nth port.
    pub(super) fn send(
        &mut self,
        way: &Way,
        nth: u32,
        header: VxlanHeader,
        probe: &Probe,
        packet: Option<u32>,
    ) -> Result<(), Errno> {
        let len = packet.map_or(SHORT, |packet| SHORT.max(BEFORE_PACKET + packet as usize));
        let len = len.min(self.room.len());
        self.room[..VxlanHeader::LEN].copy_from_slice(bytemuck::bytes_of(&header));
        self.room[VxlanHeader::LEN..WRITTEN].copy_from_slice(bytemuck::bytes_of(probe));
        // What an error queue holds makes a send fail that has nothing to do with it, once.
        match self.send_once(way, nth, len) {
            Err(errno) if !matches!(errno, Errno::ENOBUFS | Errno::EMSGSIZE) => self.send_once(way, nth, len),
            outcome => outcome,
        }
    }

    fn send_once(&self, way: &Way, nth: u32, len: usize) -> Result<(), Errno> {
        let mut part = libc::iovec { iov_base: self.room.as_ptr().cast_mut().cast(), iov_len: len };
        // SAFETY: numbers and pointers that may be null.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        let mut way = *way;
        let sockets = match &mut way {
            Way::V4 { to, from } => {
                aim(&mut message, to, from);
                &self.v4
            }
            Way::V6 { to, from } => {
                aim(&mut message, to, from);
                &self.v6
            }
        };
        let socket = sockets.get(nth as usize % PORTS).ok_or(Errno::EAFNOSUPPORT)?;
        // SAFETY: what `message` points to lives until here, is as long as said, and is only read.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        Errno::result(sent).map(drop)
    }

    /// Empties the error queues, and calls `hear` for each who says that a packet of ours was too big.
    pub(super) fn drain(&self, mut hear: impl FnMut(TooBig)) {
        for socket in self.v4.iter().chain(&self.v6) {
            // Bounded: somebody who floods us with errors is not to hold us up.
            for _ in 0..64 {
                match one_error(socket) {
                    Ok(Some(too_big)) => hear(too_big),
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

fn aim<A, T>(message: &mut libc::msghdr, to: &mut A, from: &mut Control<T>) {
    message.msg_name = ptr::from_mut(to).cast();
    message.msg_namelen = libc::socklen_t::try_from(size_of::<A>()).unwrap_or(0);
    message.msg_control = ptr::from_mut(from).cast();
    message.msg_controllen = Control::<T>::LEN as _;
}

/// Takes one error off the queue.
fn one_error(socket: &OwnedFd) -> Result<Option<TooBig>, Errno> {
    // Of the packet that is quoted nothing is needed.
    let mut octets = [0; 64];
    let mut parts = [IoSliceMut::new(&mut octets)];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let destination = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    });
    let said = message.cmsgs()?.find_map(|said| match said {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error),
        _ => None,
    });
    Ok(match (destination, said) {
        // What the first link takes is known better elsewhere.
        (Some(destination), Some(error)) if is_too_big(&error) => Some(TooBig { destination, mtu: error.ee_info }),
        _ => None,
    })
}

fn is_too_big(error: &libc::sock_extended_err) -> bool {
    u32::try_from(libc::EMSGSIZE).is_ok_and(|number| error.ee_errno == number)
        && matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
        && error.ee_info != 0
}

fn open(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    let options = match family {
        AddressFamily::Inet => [
            (libc::SOL_SOCKET, libc::SO_NO_CHECK, 1),
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            (libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        ]
        .as_slice(),
        _ => &[
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1),
            (libc::IPPROTO_UDP, libc::UDP_NO_CHECK6_TX, 1),
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
        ],
    };
    for &(level, name, value) in options {
        set(&socket, level, name, value)?;
    }
    // The kernel gives each a port of its own.
    let fd = socket.as_raw_fd();
    match family {
        AddressFamily::Inet => bind(fd, &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)))?,
        _ => bind(fd, &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)))?,
    }
    Ok(socket)
}

fn set(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    let octets = libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the value is as long as said.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), octets) };
    Errno::result(outcome).map(drop)
}

/// Lets this thread go before all that is not as urgent: it needs little, but in time. A machine that does not allow it gets a
/// thread like any other.
pub(super) fn hurry() {
    // SAFETY: numbers only.
    let mut parameters: libc::sched_param = unsafe { MaybeUninit::zeroed().assume_init() };
    parameters.sched_priority = 1;
    // SAFETY: the parameters live until here; 0 is this thread.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    if let Err(errno) = Errno::result(outcome) {
        log::debug!("probes are sent without priority: {errno}");
    }
}

/// A clock's time, nanoseconds.
fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).unwrap_or_else(|_| TimeSpec::new(0, 0));
    u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of probes: that of `bpf_ktime_get_ns`.
pub(super) fn now_ns() -> u64 {
    clock_ns(ClockId::CLOCK_MONOTONIC)
}

/// The clock of people.
pub(super) fn wall_ns() -> u64 {
    clock_ns(ClockId::CLOCK_REALTIME)
}

const _: () = assert!(mem::offset_of!(Control<libc::in_pktinfo>, value) == size_of::<libc::cmsghdr>());
