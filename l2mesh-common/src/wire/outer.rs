//! Everything that encapsulation puts before a frame, as one value (RFC 7348 section 5).

use bytemuck::{Pod, Zeroable};

use super::{
    Be16, EtherType, EthernetHeader, MacAddr, UdpHeader, Vni, VxlanHeader,
    ip::{Ipv4Header, Ipv4Octets, Ipv6Header, Ipv6Octets, Protocol, with_added},
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
    /// The network.
    pub vni: Vni,
    /// The inner header up to the first tag or the payload.
    pub inner: EthernetHeader,
    /// Octets from the inner Ethernet header on, tags included.
    pub len: u32,
    /// Entropy.
    pub source_port: u16,
    /// DSCP and ECN of the outer header.
    pub tos: u8,
}

/// What is the same in every frame to one peer, the rest zero: `HeadersV4` or `HeadersV6`, whichever its next hop says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Template([u64; 11]);

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

/// The octets that encapsulation writes, as words: BPF copies what is aligned to less octet by octet. Only little-endian
/// machines are built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Words<const N: usize>([u64; N]);

const _: () = assert!(cfg!(target_endian = "little"));

impl<const N: usize> Words<N> {
    #[inline(always)]
    const fn first<const M: usize>(&self) -> Words<M> {
        let mut words = [0; M];
        let mut index = 0;
        while index < M {
            words[index] = self.0[index];
            index += 1;
        }
        Words(words)
    }

    #[inline(always)]
    const fn get(&self, offset: usize) -> u16 {
        ((self.0[offset / 8] >> (offset % 8 * 8)) as u16).swap_bytes()
    }

    /// Writes a field that is zero so far or is overwritten whole.
    #[inline(always)]
    fn set(&mut self, offset: usize, value: Be16) {
        let shift = offset % 8 * 8;
        let word = &mut self.0[offset / 8];
        *word = *word & !(0xffff << shift) | u64::from(value.octets()) << shift;
    }

    /// UDP header, VXLAN header and the inner frame's own, from `offset` on. Returns the length of the datagram.
    #[inline(always)]
    fn set_udp(&mut self, offset: usize, frame: &PerFrame) -> u16 {
        const LENGTH: usize = 4;
        const VNI_HIGH: usize = 12;
        const VNI_LOW: usize = 14;
        const INNER: usize = 16;
        // For a GSO frame the lengths wrap or exceed the MTU; segmentation writes them anew in each segment
        // (`__skb_udp_tunnel_segment`, `inet_gso_segment`, `ipv6_gso_segment`).
        let udp_len = (frame.len as u16).wrapping_add(UDP_VXLAN);
        let id = frame.vni.get();
        self.set(offset, Be16::new(frame.source_port));
        self.set(offset + LENGTH, Be16::new(udp_len));
        self.set(offset + VNI_HIGH, Be16::new((id >> 8) as u16));
        self.set(offset + VNI_LOW, Be16::new((id << 8) as u16));
        for (index, value) in frame.inner.words().into_iter().enumerate() {
            self.set(offset + INNER + 2 * index, value);
        }
        udp_len
    }
}

/// The 64 octets before the payload of a frame over IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadersV4(Words<8>);

impl HeadersV4 {
    /// The headers of one frame.
    #[inline(always)]
    #[must_use]
    pub fn new(template: &Template, frame: &PerFrame) -> Self {
        const VERSION_TOS: usize = 14;
        const TOTAL_LENGTH: usize = 16;
        const CHECKSUM: usize = 24;
        const UDP: usize = 34;
        let mut words = Words(template.0).first::<8>();
        let total_length = words.set_udp(UDP, frame).wrapping_add(Ipv4Header::LEN as u16);
        let checksum = with_added(words.get(CHECKSUM), total_length, frame.tos);
        words.set(VERSION_TOS, Be16::new(0x4500 | u16::from(frame.tos)));
        words.set(TOTAL_LENGTH, Be16::new(total_length));
        words.set(CHECKSUM, Be16::new(checksum));
        Self(words)
    }

    /// In the units in which it is copied.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 8] {
        self.0.0
    }

    /// Field by field, as a receiver reads it.
    #[must_use]
    pub fn parsed(&self) -> EncapsulatedV4 {
        bytemuck::cast(self.0.0)
    }
}

/// The 84 octets before the payload of a frame over IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadersV6(Words<11>);

impl HeadersV6 {
    /// The headers of one frame.
    #[inline(always)]
    #[must_use]
    pub fn new(template: &Template, frame: &PerFrame) -> Self {
        const VERSION_CLASS: usize = 14;
        const PAYLOAD_LENGTH: usize = 18;
        const UDP: usize = 54;
        let mut words = Words(template.0);
        let payload_length = words.set_udp(UDP, frame);
        words.set(VERSION_CLASS, Be16::new(0x6000 | u16::from(frame.tos) << 4));
        words.set(PAYLOAD_LENGTH, Be16::new(payload_length));
        Self(words)
    }

    /// In the units in which it is copied: ten words and half of one.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> ([u64; 10], u32) {
        (self.0.first::<10>().0, self.0.0[10] as u32)
    }

    /// Field by field, as a receiver reads it.
    #[must_use]
    pub fn parsed(&self) -> EncapsulatedV6 {
        bytemuck::pod_read_unaligned(&bytemuck::bytes_of(&self.0.0)[..EncapsulatedV6::LEN])
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
mod tests {
    use core::net::Ipv6Addr;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn frame(id: u32, macs: [[u8; 6]; 2], ether_type: u16, len: u32, source_port: u16, tos: u8) -> PerFrame {
        let vni = Vni::new(id).expect("in range");
        let inner = EthernetHeader::new(MacAddr(macs[0]), MacAddr(macs[1]), EtherType(ether_type));
        PerFrame { vni, inner, len, source_port, tos }
    }

    proptest! {
        /// Every octet of the 64, against the layout written out by hand.
        #[test]
        fn octets_over_ipv4(
            macs: [[u8; 6]; 2], addresses: [[u8; 4]; 2], port: u16, source_port: u16,
            id in 1..=Vni::MAX, frame_len in 14_u32..=65_499, tos: u8,
        ) {
            let [source, destination] = [0, 1].map(|end: usize| Endpoint {
                mac: MacAddr(macs[end]),
                address: Ipv4Octets(addresses[end]),
            });
            let template = Template::v4(source, destination, port);
            prop_assert_eq!(template.source_v4().to_ne_bytes(), addresses[0]);
            prop_assert_eq!(template.destination_v4().to_ne_bytes(), addresses[1]);
            let whole = HeadersV4::new(&template, &frame(id, macs, port, frame_len, source_port, tos));
            prop_assert_eq!(whole.parsed().outer.ip.sum(), 0xffff);

            let octets: [u8; 64] = bytemuck::cast(whole.words());
            let length = |extra: u32| u16::try_from(frame_len + extra).expect("fits").to_be_bytes().to_vec();
            let expected: Vec<u8> = [
                macs[1].to_vec(), macs[0].to_vec(), [8, 0].to_vec(),
                [0x45, tos].to_vec(), length(36), [0, 0, 0x40, 0, 64, 17].to_vec(), octets[24..26].to_vec(),
                addresses[0].to_vec(), addresses[1].to_vec(),
                source_port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), length(16), [0, 0].to_vec(),
                [8, 0, 0, 0].to_vec(), (id << 8).to_be_bytes().to_vec(),
                macs[0].to_vec(), macs[1].to_vec(), port.to_be_bytes().to_vec(),
            ].concat();
            prop_assert_eq!(octets.as_slice(), expected.as_slice());
        }

        /// Every octet of the 84.
        #[test]
        fn octets_over_ipv6(
            macs: [[u8; 6]; 2], addresses: [[u8; 16]; 2], port: u16, source_port: u16,
            id in 1..=Vni::MAX, frame_len in 14_u32..=65_499, tos: u8,
        ) {
            let [source, destination] = [0, 1].map(|end: usize| Endpoint {
                mac: MacAddr(macs[end]),
                address: Ipv6Octets::from(Ipv6Addr::from(addresses[end])),
            });
            let template = Template::v6(source, destination, port);
            prop_assert_eq!(bytemuck::cast::<_, [[u8; 16]; 2]>(template.addresses_v6()), addresses);
            let whole = HeadersV6::new(&template, &frame(id, macs, port, frame_len, source_port, tos));
            let (words, last) = whole.words();
            let octets: Vec<u8> = [bytemuck::bytes_of(&words), &last.to_le_bytes()].concat();
            let length = u16::try_from(frame_len + 16).expect("fits").to_be_bytes().to_vec();
            let expected: Vec<u8> = [
                macs[1].to_vec(), macs[0].to_vec(), [0x86, 0xdd].to_vec(),
                [0x60 | tos >> 4, tos << 4, 0, 0].to_vec(), length.clone(), [17, 64].to_vec(),
                addresses[0].to_vec(), addresses[1].to_vec(),
                source_port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), length, [0, 0].to_vec(),
                [8, 0, 0, 0].to_vec(), (id << 8).to_be_bytes().to_vec(),
                macs[0].to_vec(), macs[1].to_vec(), port.to_be_bytes().to_vec(),
            ].concat();
            prop_assert_eq!(octets.as_slice(), expected.as_slice());
            let parsed = whole.parsed();
            prop_assert_eq!(bytemuck::bytes_of(&parsed), expected.as_slice());
        }
    }
}
