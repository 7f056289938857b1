//! Who listens on interfaces without saying so by promiscuity, as `tcpdump -p` does.

use std::collections::BTreeSet;

use nix::errno::Errno;
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;

use super::{
    Error, errno_of,
    raw::{attributes, dump, u16_at, u32_at},
};

// linux/sock_diag.h, linux/packet_diag.h, linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_PACKET: u8 = 17;
const PACKET_SHOW_INFO: u32 = 0x1;
const PACKET_SHOW_RING_CFG: u32 = 0x4;
const PACKET_DIAG_INFO: u16 = 0;
const PACKET_DIAG_RX_RING: u16 = 2;
const REQUEST_DUMP: u16 = 0x301;
/// Only such sockets see what an interface sends.
const ETH_P_ALL: u16 = 3;
/// Octets of `struct nlmsghdr` and of `struct packet_diag_msg`.
const HEADER: usize = 16;

/// Interfaces on which a packet socket captures everything into a ring, as libpcap's do; 0 is all interfaces. Sockets
/// without a ring belong to DHCP clients and the like, which do not look at what is sent.
///
/// # Errors
/// When the kernel gives no socket. One that cannot tell of packet sockets tells of none.
pub(crate) fn captured() -> Result<BTreeSet<u32>, Error> {
    let mut found = BTreeSet::new();
    match dump(NETLINK_SOCK_DIAG, &request(), |payload| found.extend(capturing(payload))) {
        Err(error) if errno_of(&error) != Errno::ENOENT => Err(Error::new("list the packet sockets", errno_of(&error))),
        // A kernel without packet_diag says ENOENT.
        _ => Ok(found),
    }
}

/// `struct nlmsghdr` and `struct packet_diag_req`: family, protocol, pad, inode, show, cookie.
fn request() -> Vec<u8> {
    let show = PACKET_SHOW_INFO | PACKET_SHOW_RING_CFG;
    let mut octets = Vec::new();
    octets.extend(36_u32.to_ne_bytes());
    octets.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    octets.extend(REQUEST_DUMP.to_ne_bytes());
    octets.extend([0; 8]);
    octets.extend([AF_PACKET, 0, 0, 0]);
    octets.extend([0; 4]);
    octets.extend(show.to_ne_bytes());
    octets.extend([0xff; 8]);
    octets
}

/// The interface of a socket that captures everything; `struct packet_diag_msg` is family, type, protocol, inode, cookie.
fn capturing(payload: &[u8]) -> Option<u32> {
    if u16_at(payload, 2)? != ETH_P_ALL {
        return None;
    }
    let (mut interface, mut has_ring) = (None, false);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            PACKET_DIAG_INFO => interface = u32_at(value, 0),
            PACKET_DIAG_RX_RING => has_ring = true,
            _ => {}
        }
    }
    interface.filter(|_| has_ring)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{
        super::testing::{Namespace, eventually, index},
        *,
    };

    #[test]
    fn a_capture_is_seen_while_it_lasts() {
        let host = Namespace::new();
        host.ip("link set lo up");
        let lo = index(&host, "lo");
        let capture = ["tcpdump", "-p", "-i", "lo", "-w", "/dev/null"];
        let mut tcpdump = host.run(|| {
            Command::new("nsenter")
                .args([&format!("--net={}", host.path())])
                .args(capture)
                .stderr(Stdio::null())
                .spawn()
        });
        let tcpdump = tcpdump.as_mut().expect("tcpdump");
        host.block_on(async || {
            eventually("tcpdump", async || captured().expect("an answer").contains(&lo).then_some(())).await;
        });
        tcpdump.kill().expect("our own process");
        tcpdump.wait().expect("our own process");
        host.block_on(async || {
            eventually("no tcpdump", async || captured().expect("an answer").is_empty().then_some(())).await;
        });
    }
}
