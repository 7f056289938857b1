//! IPv4 header (RFC 791 section 3.1), the start of an IPv6 header (RFC 8200 section 3) and the
//! Internet checksum (RFC 1071).

use core::net::Ipv4Addr;

use bytemuck::{Pod, Zeroable};

use super::Be16;

/// What an IP packet carries (IANA "Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol(pub u8);

impl Protocol {
    /// RFC 9293.
    pub const TCP: Self = Self(6);
    /// RFC 768.
    pub const UDP: Self = Self(17);
    /// RFC 9260: its ports stand where TCP has them.
    pub const SCTP: Self = Self(132);

    /// True if the four octets behind the IP header are two ports.
    #[inline(always)]
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

/// An IPv4 address in wire order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct Ipv4Octets(pub [u8; 4]);

impl From<Ipv4Addr> for Ipv4Octets {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.octets())
    }
}

/// The 20 octets of an IPv4 header without options.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_length: Be16,
    identification: Be16,
    fragment: Be16,
    ttl: u8,
    protocol: u8,
    checksum: Be16,
    /// Who sent it.
    pub source: Ipv4Octets,
    /// Where it goes.
    pub destination: Ipv4Octets,
}

impl Ipv4Header {
    /// Octets without options.
    pub const LEN: usize = 20;
    const DONT_FRAGMENT: u16 = 0x4000;
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;

    /// A header of `total_length` 0 with a checksum that is right for it; [`with_length`] says which is right for another. DF is set: a VTEP must not fragment (RFC 7348 section 4.3), and an atomic
    /// datagram needs no identification (RFC 6864 section 4).
    #[inline(always)]
    #[must_use]
    pub fn template(protocol: Protocol, ttl: u8, source: Ipv4Octets, destination: Ipv4Octets) -> Self {
        let mut header = Self {
            version_ihl: 0x45,
            tos: 0,
            total_length: Be16::new(0),
            identification: Be16::new(0),
            fragment: Be16::new(Self::DONT_FRAGMENT),
            ttl,
            protocol: protocol.0,
            checksum: Be16::new(0),
            source,
            destination,
        };
        header.checksum = Be16::new(!header.sum());
        header
    }

    /// The one's complement sum over the header: 0xffff where the checksum is right.
    #[must_use]
    pub fn sum(&self) -> u16 {
        let words: [Be16; 10] = bytemuck::cast(*self);
        fold(words.iter().map(|word| u32::from(word.get())).sum())
    }

    /// 4 in an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Octets of the header, options included.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) * 4
    }

    /// Octets of the packet, header included.
    #[inline(always)]
    #[must_use]
    pub const fn total_length(&self) -> u16 {
        self.total_length.get()
    }

    /// True for the first, a middle and the last fragment.
    #[inline(always)]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment.get() & (Self::MORE_FRAGMENTS | Self::OFFSET) != 0
    }

    /// What it carries.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }
}

/// The 40 octets of an IPv6 header, extension headers not included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct Ipv6Header {
    version_class_flow: [Be16; 2],
    payload_length: Be16,
    next_header: u8,
    hop_limit: u8,
    /// Who sent it, in wire order.
    pub source: [Be16; 8],
    /// Where it goes, in wire order.
    pub destination: [Be16; 8],
}

impl Ipv6Header {
    /// Octets on the wire.
    pub const LEN: usize = 40;

    /// What stands behind this header; an extension header is not looked through.
    #[inline(always)]
    #[must_use]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }
}

/// The checksum of a header whose length field was zero under `checksum` and is `octets` now (RFC 1624 equation 3).
#[inline(always)]
#[must_use]
pub const fn with_length(checksum: u16, octets: u16) -> u16 {
    !fold(!checksum as u32 + octets as u32)
}

/// Adds the carries of a one's complement sum of 16-bit words until 16 bits are left (RFC 1071 section 2).
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The worked example of RFC 1071 section 3: 0001 f203 f4f5 f6f7 sum to ddf2.
    #[test]
    fn rfc_1071_example() {
        assert_eq!(fold(0x0001 + 0xf203 + 0xf4f5 + 0xf6f7), 0xddf2);
    }

    proptest! {
        #[test]
        fn checksum_is_right_for_every_length(length: u16, source: [u8; 4], destination: [u8; 4], ttl: u8) {
            let mut header = Ipv4Header::template(Protocol::UDP, ttl, Ipv4Octets(source), Ipv4Octets(destination));
            header.checksum = Be16::new(with_length(header.checksum.get(), length));
            header.total_length = Be16::new(length);
            prop_assert_eq!(header.sum(), 0xffff);
            prop_assert_eq!(header.total_length(), length);
            prop_assert_eq!((header.version(), header.header_len(), header.is_fragment()), (4, 20, false));
        }
    }
}
