//! A UDP socket whose packets are like those that carry frames: no checksum, never fragmented.
#![expect(unsafe_code, reason = "nix has no wrapper for these socket options")]

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

/// `include/uapi/linux/udp.h`.
const UDP_NO_CHECK6_TX: libc::c_int = 101;

/// A socket with this source address. Answers go to the mesh port, where the kernel program takes them: it receives none.
pub(super) fn open(source: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
    if source.is_ipv4() {
        set(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
        set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        set(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    } else {
        set(&socket, libc::IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    Ok(socket)
}

/// True if the far end's kernel said that nobody holds the port there, since the last time. Any other complaint is taken off the
/// socket too: else the next probe could not be sent.
pub(super) fn is_refused(socket: &UdpSocket) -> bool {
    matches!(socket.take_error(), Ok(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a live value of the size said.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
