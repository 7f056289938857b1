//! A packet socket on one interface: frames in and out as they are.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use l2mesh_common::wire::MacAddr;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::frames::Frame;
use crate::host::Host;

/// Room for received frames that nobody has read yet, octets.
const BUFFER: usize = 32 << 20;

/// The longest aggregate that GRO makes by default, with room for headers.
const LONGEST: usize = 66_000;

/// How long to look on after a marker: in another queue, a frame sent before it can be a little later.
const GRACE: Duration = Duration::from_millis(10);

/// Struct `tpacket_auxdata` of `linux/if_packet.h`.
const AUXDATA_LEN: usize = 20;

/// Sends and receives on one interface. What was sent from its own host is not received.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    name: String,
    mac: MacAddr,
    /// Received while looking for something else.
    pending: VecDeque<Received>,
}

/// A received frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// As on the wire: a tag that the kernel has taken off is put back.
    pub frame: Frame,
    /// The checksum is left to a card that does not exist: right here, but not filled in.
    pub checksum_pending: bool,
}

/// A frame that tells its receivers that what was sent before it has arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marker(Frame);

impl Tap {
    /// Opens it; from now on it receives.
    #[must_use]
    #[track_caller]
    pub fn open(host: &Host, interface: &str) -> Self {
        Self::open_for(host, interface, libc::ETH_P_ALL)
    }

    /// Opens one that only sends: for who looks at the list of packet sockets, nobody sniffs here.
    #[must_use]
    #[track_caller]
    pub fn sender(host: &Host, interface: &str) -> Self {
        Self::open_for(host, interface, 0)
    }

    #[track_caller]
    fn open_for(host: &Host, interface: &str, protocol: libc::c_int) -> Self {
        let name = format!("{} {interface}", host.name());
        let mac = host.mac(interface);
        let socket = host.in_namespace(|| {
            // Protocol 0 receives nothing until bind says where.
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING)?;
            set_packet_option(&socket, libc::PACKET_AUXDATA)?;
            bind(&socket, if_nametoindex(interface)?, protocol)?;
            Ok::<_, Errno>(socket)
        });
        let socket = socket.unwrap_or_else(|error| panic!("packet socket on {name}: {error}"));
        Self { socket, name, mac, pending: VecDeque::new() }
    }

    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// The interface's own address when it was opened.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Sends a frame. Longer than the interface's MTU is a panic.
    #[track_caller]
    pub fn send(&self, frame: &Frame) {
        if let Err(error) = self.try_send(frame) {
            panic!("{}: send {frame:?}: {error}", self.name);
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// What the kernel says: `EMSGSIZE` for a frame longer than the MTU.
    pub fn try_send(&self, frame: &Frame) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), frame.octets(), MsgFlags::empty()).map(drop)
    }

    /// Sends a broadcast that no other marker equals.
    #[track_caller]
    pub fn send_marker(&self, source: MacAddr) -> Marker {
        static SENT: AtomicU32 = AtomicU32::new(0);
        let text = format!("l2mesh lab marker {} {}", std::process::id(), SENT.fetch_add(1, Ordering::Relaxed));
        let frame = Frame::unknown(MacAddr::BROADCAST, source, text.as_bytes()).padded(60);
        self.send(&frame);
        Marker(frame)
    }

    /// The next frame, or `None` if none came within `limit`.
    #[track_caller]
    pub fn receive(&mut self, limit: Duration) -> Option<Received> {
        self.pending.pop_front().or_else(|| self.receive_new(Instant::now() + limit))
    }

    /// Waits for a frame for which `wanted` holds; others stay for later. Panics after `limit`.
    #[track_caller]
    pub fn wait_frame(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Frame) -> bool) -> Received {
        if let Some(index) = self.pending.iter().position(|received| wanted(&received.frame)) {
            return self.pending.remove(index).expect("the index just found");
        }
        let end = Instant::now() + limit;
        while let Some(received) = self.receive_new(end) {
            if wanted(&received.frame) {
                return received;
            }
            self.pending.push_back(received);
        }
        panic!("{}: {what}: not within {limit:?}; {}", self.name, self.describe_pending());
    }

    /// Everything that arrived before the marker (and a few milliseconds after), without the marker.
    /// Panics if the marker has not arrived after `limit`, or arrives twice.
    #[track_caller]
    pub fn until(&mut self, marker: &Marker, limit: Duration) -> Vec<Received> {
        self.wait_frame("the marker", limit, |frame| is_marker(frame, marker));
        let end = Instant::now() + GRACE;
        while let Some(received) = self.receive_new(end) {
            self.pending.push_back(received);
        }
        let all: Vec<Received> = self.pending.drain(..).collect();
        assert!(!all.iter().any(|received| is_marker(&received.frame, marker)), "{}: the marker came twice", self.name);
        all
    }

    /// How often exactly this frame arrived before the marker.
    #[track_caller]
    pub fn count_until(&mut self, frame: &Frame, marker: &Marker, limit: Duration) -> usize {
        self.until(marker, limit).iter().filter(|received| received.frame.is_padded(frame)).count()
    }

    /// Forgets what has arrived so far.
    #[track_caller]
    pub fn clear(&mut self) {
        self.pending.clear();
        let end = Instant::now() + GRACE;
        while self.receive_new(end).is_some() {}
    }

    fn describe_pending(&self) -> String {
        let frames: Vec<String> = self.pending.iter().map(|received| format!("{:?}", received.frame)).collect();
        format!("{} other frames seen {}", frames.len(), frames.join("; "))
    }

    #[track_caller]
    fn receive_new(&self, end: Instant) -> Option<Received> {
        let mut buffer = vec![0; LONGEST];
        let mut control = [0; 128];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // Zero would mean for ever.
            let left = left.max(Duration::from_millis(1));
            let timeout = TimeVal::new(left.as_secs().cast_signed(), left.subsec_micros().into());
            setsockopt(&self.socket, sockopt::ReceiveTimeout, &timeout).expect("a receive timeout");
            let mut parts = [IoSliceMut::new(&mut buffer)];
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
                Ok(message) => {
                    let length = message.bytes;
                    let auxdata = message.cmsgs().ok().and_then(|mut messages| messages.find_map(auxiliary));
                    buffer.truncate(length);
                    return Some(Received::new(buffer, auxdata));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => panic!("{}: receive: {error}", self.name),
            }
        }
    }
}

impl Received {
    fn new(octets: Vec<u8>, auxdata: Option<[u8; AUXDATA_LEN]>) -> Self {
        let Some(auxdata) = auxdata else { return Self { frame: Frame::raw(octets), checksum_pending: false } };
        let short = |at: usize| u16::from_ne_bytes([auxdata[at], auxdata[at + 1]]);
        let status = u32::from_ne_bytes([auxdata[0], auxdata[1], auxdata[2], auxdata[3]]);
        let mut frame = Frame::raw(octets);
        if status & libc::TP_STATUS_VLAN_VALID != 0 {
            let tag_type = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { short(18) } else { 0x8100 };
            frame = frame.tagged_as(tag_type, short(16));
        }
        Self { frame, checksum_pending: status & libc::TP_STATUS_CSUMNOTREADY != 0 }
    }
}

fn is_marker(frame: &Frame, marker: &Marker) -> bool {
    frame.is_padded(&marker.0)
}

fn auxiliary(message: ControlMessageOwned) -> Option<[u8; AUXDATA_LEN]> {
    let ControlMessageOwned::Unknown(message) = message else { return None };
    let header = message.cmsg_header;
    let wanted = (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA);
    wanted.then(|| message.data_bytes.get(..AUXDATA_LEN)?.try_into().ok()).flatten()
}

#[expect(unsafe_code, reason = "nix has no packet socket options")]
pub(crate) fn set_packet_option(socket: &OwnedFd, option: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length are those of a c_int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            socklen(size_of_val(&on)),
        )
    };
    Errno::result(result).map(drop)
}

#[expect(unsafe_code, reason = "nix makes no sockaddr_ll")]
fn bind(socket: &OwnedFd, interface: u32, protocol: libc::c_int) -> Result<(), Errno> {
    // SAFETY: all zero is a sockaddr_ll: it has nothing but integers.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small constant");
    address.sll_protocol = u16::try_from(protocol).expect("a small constant").to_be();
    address.sll_ifindex = interface.cast_signed();
    // SAFETY: the pointer and the length are those of a sockaddr_ll that outlives the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), socklen(size_of_val(&address))) };
    Errno::result(result).map(drop)
}

fn socklen(length: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(length).expect("the size of a small struct")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_no_difference() {
        let sent = Frame::raw([1, 2, 3]);
        assert!(Frame::raw([1, 2, 3, 0, 0]).is_padded(&sent));
        assert!(!Frame::raw([1, 2, 3, 4]).is_padded(&sent));
        assert!(!Frame::raw([1, 2]).is_padded(&sent));
    }
}
