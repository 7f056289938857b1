//! UDP header (RFC 768).

use bytemuck::{Pod, Zeroable};

use super::Be16;

/// Eight octets. The checksum is 0, "not computed", in what l2mesh sends (RFC 7348 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct UdpHeader {
    source: Be16,
    destination: Be16,
    length: Be16,
    checksum: Be16,
}

impl UdpHeader {
    /// Octets on the wire.
    pub const LEN: usize = 8;

    /// A header without checksum; `length` counts these eight octets too.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: u16, destination: u16, length: u16) -> Self {
        Self {
            source: Be16::new(source),
            destination: Be16::new(destination),
            length: Be16::new(length),
            checksum: Be16::new(0),
        }
    }

    /// The same datagram to another port. Its checksum is withdrawn, which IPv4 allows: the inner
    /// packet has its own, and an incremental update would be wrong for a GRO aggregate, whose field
    /// holds a pseudo-header sum only (`udp_gro_complete` in `net/ipv4/udp_offload.c`).
    #[inline(always)]
    #[must_use]
    pub const fn redirected_to(self, destination: u16) -> Self {
        Self { destination: Be16::new(destination), checksum: Be16::new(0), ..self }
    }

    /// The port it comes from.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> u16 {
        self.source.get()
    }

    /// The port it goes to.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> u16 {
        self.destination.get()
    }

    /// Octets of header and data.
    #[inline(always)]
    #[must_use]
    pub const fn length(&self) -> u16 {
        self.length.get()
    }

    /// False where the sender left the checksum out.
    #[inline(always)]
    #[must_use]
    pub const fn has_checksum(&self) -> bool {
        self.checksum.get() != 0
    }
}
