//! Everything that encapsulation puts before a frame, as one value (RFC 7348 section 5).

use bytemuck::{Pod, Zeroable};

use super::{
    EtherType, EthernetHeader, MacAddr, UdpHeader, VxlanHeader,
    ip::{Ipv4Header, Ipv4Octets, Ipv6Header, Ipv6Octets, Protocol, with_added},
    vxlan::Mark,
};

/// Octets between the outer IP header's end and the inner frame.
const UDP_VXLAN: u16 = (UdpHeader::LEN + VxlanHeader::LEN) as u16;
/// What Linux's vxlan device uses too: the default hop limit.
pub const TTL: u8 = 64;

/// Ethernet, IPv4, UDP, VXLAN: the 50 octets before the inner frame on an IPv4 underlay.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct OuterV4 {
    /// To the next hop, not to the peer: a gateway between is the normal case.
    pub ethernet: EthernetHeader,
    /// VTEP to VTEP.
    pub ip: Ipv4Header,
    /// Entropy in the source port, the mesh port as destination.
    pub udp: UdpHeader,
    /// Which network.
    pub vxlan: VxlanHeader,
}

impl OuterV4 {
    /// Octets on the wire.
    pub const LEN: usize = 50;
}

/// Ethernet, IPv6, UDP, VXLAN: the 70 octets before the inner frame on an IPv6 underlay.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct OuterV6 {
    /// To the next hop.
    pub ethernet: EthernetHeader,
    /// VTEP to VTEP.
    pub ip: Ipv6Header,
    /// Entropy in the source port, the mesh port as destination.
    pub udp: UdpHeader,
    /// Which network.
    pub vxlan: VxlanHeader,
}

impl OuterV6 {
    /// Octets on the wire.
    pub const LEN: usize = 70;
}

/// The outer header and the inner frame's own, as decapsulation reads them behind one bounds check.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EncapsulatedV4 {
    /// The prepended header.
    pub outer: OuterV4,
    /// The first header of the frame carried.
    pub inner: EthernetHeader,
}

impl EncapsulatedV4 {
    /// Octets on the wire.
    pub const LEN: usize = 64;
}

/// The same over IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct EncapsulatedV6 {
    /// The prepended header.
    pub outer: OuterV6,
    /// The first header of the frame carried.
    pub inner: EthernetHeader,
}

impl EncapsulatedV6 {
    /// Octets on the wire.
    pub const LEN: usize = 84;
}

/// What differs from frame to frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PerFrame {
    /// The network's VNI, 0 for a probe.
    pub vni: u32,
    /// The inner header up to the first tag or the payload.
    pub inner: EthernetHeader,
    /// Octets from the inner Ethernet header on, tags included.
    pub len: u32,
    /// Entropy.
    pub source_port: u16,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
    /// What the VXLAN header's reserved bits say.
    pub mark: Mark,
}

/// What is the same in every frame to one peer, the rest zero: `HeadersV4` or `HeadersV6`, whichever its next hop says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Template([u64; 11]);

impl PerFrame {
    /// What goes on of a frame that came with these headers: the same, but for the mark.
    #[inline(always)]
    #[must_use]
    pub const fn forwarded(udp: &UdpHeader, vni: u32, tos: u8, inner: EthernetHeader, mark: Mark) -> Self {
        let len = udp.length().saturating_sub(UDP_VXLAN) as u32;
        Self { vni, inner, len, source_port: udp.source(), tos, mark }
    }
}

impl Template {
    /// Nothing yet.
    pub const EMPTY: Self = Self([0; 11]);

    /// Towards a peer over IPv4.
    #[must_use]
    pub fn v4(source: Endpoint<Ipv4Octets>, destination: Endpoint<Ipv4Octets>, port: u16) -> Self {
        let outer = OuterV4 {
            ethernet: EthernetHeader::new(destination.mac, source.mac, EtherType::IPV4),
            ip: Ipv4Header::template(Protocol::UDP, TTL, source.address, destination.address),
            udp: UdpHeader::new(0, port, 0),
            vxlan: VxlanHeader::template(),
        };
        let mut template = Self::EMPTY;
        let octets: &mut [u8] = bytemuck::bytes_of_mut(&mut template);
        octets[..OuterV4::LEN].copy_from_slice(bytemuck::bytes_of(&outer));
        template
    }

    /// Towards a peer over IPv6. The UDP checksum stays zero (RFC 6935: the inner packet has its own).
    #[must_use]
    pub fn v6(source: Endpoint<Ipv6Octets>, destination: Endpoint<Ipv6Octets>, port: u16) -> Self {
        let outer = OuterV6 {
            ethernet: EthernetHeader::new(destination.mac, source.mac, EtherType::IPV6),
            ip: Ipv6Header::template(Protocol::UDP, TTL, source.address, destination.address),
            udp: UdpHeader::new(0, port, 0),
            vxlan: VxlanHeader::template(),
        };
        let mut template = Self::EMPTY;
        let octets: &mut [u8] = bytemuck::bytes_of_mut(&mut template);
        octets[..OuterV6::LEN].copy_from_slice(bytemuck::bytes_of(&outer));
        template
    }

    /// The outer Ethernet header, of either kind.
    #[must_use]
    pub fn ethernet(&self) -> EthernetHeader {
        bytemuck::pod_read_unaligned(&bytemuck::bytes_of(self)[..EthernetHeader::LEN])
    }

    /// Where frames go, under [`Template::v4`].
    #[inline(always)]
    #[must_use]
    pub const fn destination_v4(&self) -> u32 {
        (self.0[3] >> 48 | self.0[4] << 16) as u32
    }

    /// Where frames come from, under [`Template::v4`].
    #[inline(always)]
    #[must_use]
    pub const fn source_v4(&self) -> u32 {
        (self.0[3] >> 16) as u32
    }

    /// Where frames come from and go, under [`Template::v6`], as words in wire order.
    #[inline(always)]
    #[must_use]
    pub fn addresses_v6(&self) -> [[u32; 4]; 2] {
        // They stand at octets 22 and 38: two octets before a word's end.
        let words = &self.0;
        let pair = |at: usize| [(words[at] >> 48 | words[at + 1] << 16) as u32, (words[at + 1] >> 16) as u32];
        [2, 4].map(|at| [pair(at), pair(at + 1)]).map(|[high, low]| [high[0], high[1], low[0], low[1]])
    }
}

/// One word of the octets that encapsulation writes: BPF copies what is aligned to less octet by octet. Each is made when it is
/// written, so that they need not all be kept until then. Only little-endian machines are built for.
struct Word {
    index: usize,
    bits: u64,
}

const _: () = assert!(cfg!(target_endian = "little"));

impl Word {
    #[inline(always)]
    const fn of(template: &Template, index: usize) -> Self {
        Self { index, bits: template.0[index] }
    }

    /// Writes a field, if it is in this word.
    #[inline(always)]
    fn set(&mut self, offset: usize, value: u16) {
        if offset / 8 == self.index {
            let shift = offset % 8 * 8;
            self.bits = self.bits & !(0xffff << shift) | u64::from(value.swap_bytes()) << shift;
        }
    }

    /// UDP header, VXLAN header and the inner frame's own, from `offset` on.
    #[inline(always)]
    fn set_udp(&mut self, offset: usize, frame: &PerFrame) {
        const LENGTH: usize = 4;
        const FLAGS: usize = 8;
        const NODE: usize = 10;
        const VNI_HIGH: usize = 12;
        const VNI_LOW: usize = 14;
        const INNER: usize = 16;
        let (id, Mark { flags, node }) = (frame.vni, frame.mark);
        self.set(offset, frame.source_port);
        self.set(offset + LENGTH, udp_len(frame));
        self.set(offset + FLAGS, u16::from(VxlanHeader::FLAG_VNI | flags) << 8 | (node >> 24) as u16);
        self.set(offset + NODE, (node >> 8) as u16);
        self.set(offset + VNI_HIGH, (id >> 8) as u16);
        self.set(offset + VNI_LOW, (id << 8) as u16 | node as u16 & 0xff);
        for (index, value) in frame.inner.words().into_iter().enumerate() {
            self.set(offset + INNER + 2 * index, value.get());
        }
    }
}

/// Octets of the UDP datagram. For a GSO frame the lengths wrap or exceed the MTU; segmentation writes them anew in each
/// segment (`__skb_udp_tunnel_segment`, `inet_gso_segment`, `ipv6_gso_segment`).
#[inline(always)]
const fn udp_len(frame: &PerFrame) -> u16 {
    (frame.len as u16).wrapping_add(UDP_VXLAN)
}

/// The 64 octets before the payload of a frame over IPv4.
#[derive(Clone, Copy, Debug)]
pub struct HeadersV4<'a> {
    template: &'a Template,
    frame: &'a PerFrame,
    total_length: u16,
    checksum: u16,
}

impl<'a> HeadersV4<'a> {
    /// Words that [`HeadersV4::word`] has.
    pub const WORDS: usize = EncapsulatedV4::LEN / 8;

    /// The headers of one frame.
    #[inline(always)]
    #[must_use]
    pub fn new(template: &'a Template, frame: &'a PerFrame) -> Self {
        const CHECKSUM_WORD: usize = 3;
        let total_length = udp_len(frame).wrapping_add(Ipv4Header::LEN as u16);
        let without = (template.0[CHECKSUM_WORD] as u16).swap_bytes();
        Self { template, frame, total_length, checksum: with_added(without, total_length, frame.tos) }
    }

    /// A word of them, in the order of the wire.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        const VERSION_TOS: usize = 14;
        const TOTAL_LENGTH: usize = 16;
        const CHECKSUM: usize = 24;
        const UDP: usize = 34;
        let mut word = Word::of(self.template, index);
        word.set(VERSION_TOS, 0x4500 | u16::from(self.frame.tos));
        word.set(TOTAL_LENGTH, self.total_length);
        word.set(CHECKSUM, self.checksum);
        word.set_udp(UDP, self.frame);
        word.bits
    }

    /// Field by field, as a receiver reads it.
    #[must_use]
    pub fn parsed(&self) -> EncapsulatedV4 {
        bytemuck::cast::<[u64; HeadersV4::WORDS], _>(core::array::from_fn(|index| self.word(index)))
    }
}

/// The 84 octets before the payload of a frame over IPv6.
#[derive(Clone, Copy, Debug)]
pub struct HeadersV6<'a> {
    template: &'a Template,
    frame: &'a PerFrame,
}

impl<'a> HeadersV6<'a> {
    /// Whole words that [`HeadersV6::word`] has; the first half of one more belongs to the headers.
    pub const WORDS: usize = EncapsulatedV6::LEN / 8;

    /// The headers of one frame.
    #[inline(always)]
    #[must_use]
    pub const fn new(template: &'a Template, frame: &'a PerFrame) -> Self {
        Self { template, frame }
    }

    /// A word of them, in the order of the wire.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        const VERSION_CLASS: usize = 14;
        const PAYLOAD_LENGTH: usize = 18;
        const UDP: usize = 54;
        let mut word = Word::of(self.template, index);
        word.set(VERSION_CLASS, 0x6000 | u16::from(self.frame.tos) << 4);
        word.set(PAYLOAD_LENGTH, udp_len(self.frame));
        word.set_udp(UDP, self.frame);
        word.bits
    }

    /// Field by field, as a receiver reads it.
    #[must_use]
    pub fn parsed(&self) -> EncapsulatedV6 {
        let words: [u64; HeadersV6::WORDS + 1] = core::array::from_fn(|index| self.word(index));
        bytemuck::pod_read_unaligned(&bytemuck::bytes_of(&words)[..EncapsulatedV6::LEN])
    }
}

/// One end of a hop: whose MAC and whose IP address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint<A> {
    /// Link-layer address on the underlay.
    pub mac: MacAddr,
    /// VTEP address.
    pub address: A,
}

#[cfg(test)]
mod tests;
