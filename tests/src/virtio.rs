//! Frames as a virtual machine hands them over: longer than the MTU, to be cut up later, or in pieces.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{MsgFlags, send};

use crate::frames::Frame;
use crate::host::Host;
use crate::tap::{Tap, set_packet_option};

/// Sends frames with what a `struct virtio_net_hdr` says of them (`linux/virtio_net.h`).
#[derive(Debug)]
pub struct VirtioSender {
    socket: OwnedFd,
    what: String,
}

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`.
const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// Octets of a TCP header without options, and where the checksum stands in it.
const TCP: u16 = 20;
const TCP_CHECKSUM: u16 = 16;

impl VirtioSender {
    /// Opens it on an interface.
    #[must_use]
    #[track_caller]
    pub fn open(host: &Host, interface: &str) -> Self {
        let what = format!("{} {interface}", host.name());
        let socket = Tap::sender(host, interface).into_socket();
        set_packet_option(&socket, libc::PACKET_VNET_HDR).unwrap_or_else(|error| panic!("{what}: {error}"));
        Self { socket, what }
    }

    /// Sends a TCP segment without IP and TCP options, however long, to be cut up into ones with `mss` octets of data.
    #[track_caller]
    pub fn send_tcp(&self, frame: &Frame, mss: u16) {
        let (ip, kind) = frame.packet();
        let (gso, length) = if kind == 0x0800 { (GSO_TCPV4, 20) } else { (GSO_TCPV6, 40) };
        let tcp = u16::try_from(ip + length).expect("few tags");
        self.send([NEEDS_CHECKSUM, gso], [tcp + TCP, mss, tcp, TCP_CHECKSUM], &frame.with_pending_tcp_checksum());
    }

    /// Sends a frame of at least a page of which only the first `head` octets are in one piece.
    #[track_caller]
    pub fn send_in_parts(&self, frame: &Frame, head: u16) {
        assert!(frame.octets().len() >= 4096, "the kernel puts less than a page into one piece");
        self.send([0, 0], [head, 0, 0, 0], frame);
    }

    #[track_caller]
    fn send(&self, flags: [u8; 2], fields: [u16; 4], frame: &Frame) {
        let octets = [&flags[..], &fields.map(u16::to_ne_bytes).concat(), frame.octets()].concat();
        let sent = send(self.socket.as_raw_fd(), &octets, MsgFlags::empty());
        let sent = sent.unwrap_or_else(|error| panic!("{}: {} octets: {error}", self.what, frame.octets().len()));
        assert_eq!(sent, octets.len(), "{}: octets sent", self.what);
    }
}
