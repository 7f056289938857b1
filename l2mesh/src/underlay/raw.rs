//! Netlink messages as octets, where parsing all of one would fail on what a newer kernel adds.

use std::io;

use nix::errno::Errno;
use rtnetlink::sys::{Socket, SocketAddr};

// linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Octets of the longest datagram of a dump (`netlink_recvmsg`), and as much again.
const DATAGRAM: usize = 64 * 1024;

/// Sends a dump request to a kernel's netlink family and hands over the payload of each message of the answer.
pub(super) fn dump(family: isize, request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut socket = Socket::new(family)?;
    socket.bind_auto()?;
    socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
    // The kernel fills what it is offered, up to 32 KiB.
    let mut datagram = Vec::with_capacity(DATAGRAM);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0)?;
        let mut rest = datagram.as_slice();
        while let Some((kind, payload, after)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                // The first field is the negated errno.
                NLMSG_ERROR => {
                    let code = u32_at(payload, 0).map_or(Errno::EBADMSG as i32, |code| -code.cast_signed());
                    return Err(io::Error::from_raw_os_error(code));
                }
                _ => each(payload),
            }
            rest = after;
        }
    }
}

/// Attributes, by type: each is length with header and type (u16 both), the value, padding.
pub(super) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(octets, 0)?);
        let (kind, value) = (u16_at(octets, 2)?, octets.get(4..length)?);
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Splits off a message: type, payload, what follows. `struct nlmsghdr` is length, type, flags (u16), sequence, port.
pub(super) fn message(datagram: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    let kind = u16_at(datagram, 4)?;
    let payload = datagram.get(16..length.min(datagram.len()))?;
    let rest = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, payload, rest))
}

/// A number of this machine's byte order at an offset.
pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

/// The same with 32 bits.
pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}
