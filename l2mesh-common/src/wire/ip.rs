//! IPv4 header (RFC 791 section 3.1), the fixed part of an IPv6 header (RFC 8200 section 3) and the
//! Internet checksum (RFC 1071).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// IPv6 fragment header, RFC 8200 section 4.5.
    pub const IPV6_FRAGMENT: Self = Self(44);
    /// RFC 792.
    pub const ICMP: Self = Self(1);
    /// RFC 4443.
    pub const ICMPV6: Self = Self(58);

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

impl Ipv4Octets {
    /// True for multicast and 255.255.255.255 (RFC 1122 section 3.2.1.3).
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        let [a, b, c, d] = self.0;
        a & 0xf0 == 0xe0 || a & b & c & d == 0xff
    }

    /// True for an address from which one host sends: no group, nothing of 0/8 and of 127/8.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid_source(self) -> bool {
        !self.is_group() && !matches!(self.0[0], 0 | 127)
    }
}

impl From<Ipv4Octets> for IpAddr {
    fn from(address: Ipv4Octets) -> Self {
        Self::from(address.0)
    }
}

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

    /// A header of `total_length` 0 and TOS 0 with a checksum that is right for it; [`with_added`] says which is right for
    /// others. DF is set: a VTEP must not fragment (RFC 7348 section 4.3), and an atomic
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

    /// A template with its length.
    #[inline(always)]
    #[must_use]
    pub const fn sized(self, total_length: u16) -> Self {
        let checksum = with_added(self.checksum.get(), total_length, 0);
        Self { total_length: Be16::new(total_length), checksum: Be16::new(checksum), ..self }
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

    /// True for a fragment without the beginning of what the datagram carries.
    #[inline(always)]
    #[must_use]
    pub const fn is_late_fragment(&self) -> bool {
        self.fragment.get() & Self::OFFSET != 0
    }

    /// True if nobody may fragment it on its way.
    #[inline(always)]
    #[must_use]
    pub const fn has_dont_fragment(&self) -> bool {
        self.fragment.get() & Self::DONT_FRAGMENT != 0
    }

    /// What it carries.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.tos
    }

    /// The same header with another TOS octet and a checksum as right or wrong as before (RFC 1624 equation 3).
    #[inline(always)]
    #[must_use]
    pub const fn with_tos(self, tos: u8) -> Self {
        let sum = !self.checksum.get() as u32 + !(self.tos as u16) as u32 + tos as u32;
        Self { tos, checksum: Be16::new(!fold(sum)), ..self }
    }
}

/// An IPv6 address in wire order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ipv6Octets(pub [Be16; 8]);

impl Ipv6Octets {
    /// True for IPv4 in IPv6 form (RFC 4291 section 2.5.5.2).
    #[inline(always)]
    #[must_use]
    pub const fn is_mapped(&self) -> bool {
        let all = &self.0;
        let zeros = all[0].octets() | all[1].octets() | all[2].octets() | all[3].octets() | all[4].octets();
        zeros == 0 && all[5].octets() == 0xffff
    }

    /// True for multicast (RFC 4291 section 2.7).
    #[inline(always)]
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0].get() >> 8 == 0xff
    }

    /// True for an address from which one host sends: neither a group nor `::` nor `::1`.
    #[inline(always)]
    #[must_use]
    pub const fn is_valid_source(self) -> bool {
        let (mut before, mut place) = (0, 0);
        while place < 7 {
            before |= self.0[place].get();
            place += 1;
        }
        !self.is_group() && (before != 0 || self.0[7].get() > 1)
    }

    #[inline(always)]
    fn words_sum(self) -> u32 {
        self.0.into_iter().map(|word| u32::from(word.get())).sum()
    }
}

impl From<Ipv6Octets> for IpAddr {
    fn from(address: Ipv6Octets) -> Self {
        Self::from(address.0.map(Be16::get))
    }
}

impl From<Ipv6Addr> for Ipv6Octets {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.segments().map(Be16::new))
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
    /// Who sent it.
    pub source: Ipv6Octets,
    /// Where it goes.
    pub destination: Ipv6Octets,
}

impl Ipv6Header {
    /// Octets on the wire.
    pub const LEN: usize = 40;

    /// A header of `payload_length` 0, traffic class 0 and flow label 0: the source port has the entropy.
    #[inline(always)]
    #[must_use]
    pub const fn template(next_header: Protocol, hop_limit: u8, source: Ipv6Octets, destination: Ipv6Octets) -> Self {
        Self {
            version_class_flow: [Be16::new(0x6000), Be16::new(0)],
            payload_length: Be16::new(0),
            next_header: next_header.0,
            hop_limit,
            source,
            destination,
        }
    }

    /// A template with its length.
    #[inline(always)]
    #[must_use]
    pub const fn sized(self, payload_length: u16) -> Self {
        Self { payload_length: Be16::new(payload_length), ..self }
    }

    /// What the pseudo-header adds to the sum over a payload that nothing stands before (RFC 8200 section 8.1).
    #[inline(always)]
    #[must_use]
    pub fn pseudo_header_sum(&self) -> u32 {
        let rest = u32::from(self.payload_length.get()) + u32::from(self.next_header);
        self.source.words_sum() + self.destination.words_sum() + rest
    }

    /// 6 in an IPv6 header.
    #[inline(always)]
    #[must_use]
    pub const fn version(&self) -> u8 {
        (self.version_class_flow[0].get() >> 12) as u8
    }

    /// DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_flow[0].get() >> 4) as u8
    }

    /// The same header with another traffic class.
    #[inline(always)]
    #[must_use]
    pub const fn with_traffic_class(self, class: u8) -> Self {
        let [first, flow] = self.version_class_flow;
        let first = first.get() & 0xf00f | (class as u16) << 4;
        Self { version_class_flow: [Be16::new(first), flow], ..self }
    }

    /// Octets behind this header.
    #[inline(always)]
    #[must_use]
    pub const fn payload_length(&self) -> u16 {
        self.payload_length.get()
    }

    /// The same header before this many octets.
    #[inline(always)]
    #[must_use]
    pub const fn with_payload_length(self, octets: u16) -> Self {
        Self { payload_length: Be16::new(octets), ..self }
    }

    /// 255 in what no router has passed on.
    #[inline(always)]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// What stands behind this header; an extension header is not looked through.
    #[inline(always)]
    #[must_use]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }
}

/// The checksum of a header whose length and TOS fields were zero under `checksum` and are `octets` and `tos` now
/// (RFC 1624 equation 3).
#[inline(always)]
#[must_use]
pub const fn with_added(checksum: u16, octets: u16, tos: u8) -> u16 {
    !fold(!checksum as u32 + octets as u32 + tos as u32)
}

/// Adds the carries of a one's complement sum of 16-bit words until 16 bits are left (RFC 1071 section 2).
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests;
