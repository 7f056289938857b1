//! Everything that encapsulation puts before a frame, as one value (RFC 7348 section 5).

use bytemuck::{Pod, Zeroable};

use super::{
    Be16, EtherType, EthernetHeader, MacAddr, UdpHeader, Vni, VxlanHeader,
    ip::{Ipv4Header, Ipv4Octets, Protocol, with_length},
};

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

/// The same 64 octets as encapsulation writes them: eight words, because BPF copies what is aligned to less octet by
/// octet. Only little-endian machines are built for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct HeadersV4([u64; 8]);

const _: () = assert!(cfg!(target_endian = "little"));

impl HeadersV4 {
    /// Octets between the outer IP header's end and the inner frame.
    const UDP_VXLAN: u16 = 16;
    /// What Linux's vxlan device uses too: the default hop limit.
    const TTL: u8 = 64;
    // Where the fields stand that differ from frame to frame.
    const TOTAL_LENGTH: usize = 16;
    const CHECKSUM: usize = 24;
    const SOURCE_PORT: usize = 34;
    const UDP_LENGTH: usize = 38;
    const VNI_HIGH: usize = 46;
    const VNI_LOW: usize = 48;
    const INNER: usize = 50;

    /// What is the same in every frame to one peer; the rest is zero.
    #[must_use]
    pub fn template(source: Endpoint<Ipv4Octets>, destination: Endpoint<Ipv4Octets>, port: u16) -> Self {
        let outer = OuterV4 {
            ethernet: EthernetHeader::new(destination.mac, source.mac, EtherType::IPV4),
            ip: Ipv4Header::template(Protocol::UDP, Self::TTL, source.address, destination.address),
            udp: UdpHeader::new(0, port, 0),
            vxlan: VxlanHeader::template(),
        };
        bytemuck::cast(EncapsulatedV4 { outer, inner: EthernetHeader::default() })
    }

    /// The headers of one frame: `frame_len` octets from the inner Ethernet header on. For a GSO frame the lengths wrap
    /// or exceed the MTU; segmentation writes them anew in each segment (`__skb_udp_tunnel_segment`, `inet_gso_segment`).
    #[inline(always)]
    #[must_use]
    pub fn for_frame(mut self, vni: Vni, inner: EthernetHeader, frame_len: u32, source_port: u16) -> Self {
        let udp_len = (frame_len as u16).wrapping_add(Self::UDP_VXLAN);
        let total_length = udp_len.wrapping_add(Ipv4Header::LEN as u16);
        let checksum = with_length(self.get(Self::CHECKSUM), total_length);
        let id = vni.get();
        let fields = [
            (Self::TOTAL_LENGTH, total_length),
            (Self::CHECKSUM, checksum),
            (Self::SOURCE_PORT, source_port),
            (Self::UDP_LENGTH, udp_len),
            (Self::VNI_HIGH, (id >> 8) as u16),
            (Self::VNI_LOW, (id << 8) as u16),
        ];
        for (offset, value) in fields {
            self.set(offset, Be16::new(value));
        }
        for (index, value) in inner.words().into_iter().enumerate() {
            self.set(Self::INNER + 2 * index, value);
        }
        self
    }

    /// In the units in which it is copied.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 8] {
        self.0
    }

    /// Field by field, as a receiver reads it.
    #[must_use]
    pub fn parsed(&self) -> EncapsulatedV4 {
        bytemuck::cast(*self)
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
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    proptest! {
        /// Every octet of the 50, against the layout written out by hand.
        #[test]
        fn octets(
            macs: [[u8; 6]; 2], addresses: [[u8; 4]; 2], port: u16, source_port: u16,
            id in 1..=Vni::MAX, frame_len in 14_u32..=65_499,
        ) {
            let [source, destination] = [0, 1].map(|end: usize| Endpoint {
                mac: MacAddr(macs[end]),
                address: Ipv4Octets(addresses[end]),
            });
            let vni = Vni::new(id).expect("in range");
            let inner = EthernetHeader::new(MacAddr(macs[0]), MacAddr(macs[1]), EtherType(port));
            let whole = HeadersV4::template(source, destination, port).for_frame(vni, inner, frame_len, source_port);
            prop_assert_eq!(whole.parsed().outer.ip.sum(), 0xffff);

            let octets: [u8; 64] = bytemuck::cast(whole);
            let length = |extra: u32| u16::try_from(frame_len + extra).expect("fits").to_be_bytes().to_vec();
            let expected: Vec<u8> = [
                macs[1].to_vec(), macs[0].to_vec(), [8, 0].to_vec(),
                [0x45, 0].to_vec(), length(36), [0, 0, 0x40, 0, 64, 17].to_vec(), octets[24..26].to_vec(),
                addresses[0].to_vec(), addresses[1].to_vec(),
                source_port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), length(16), [0, 0].to_vec(),
                [8, 0, 0, 0].to_vec(), (id << 8).to_be_bytes().to_vec(),
                macs[0].to_vec(), macs[1].to_vec(), port.to_be_bytes().to_vec(),
            ].concat();
            prop_assert_eq!(octets.as_slice(), expected.as_slice());
        }
    }
}
