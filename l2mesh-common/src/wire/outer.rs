//! Everything that encapsulation puts before a frame, as one value (RFC 7348 section 5).

use bytemuck::{Pod, Zeroable};

use super::{
    EtherType, EthernetHeader, MacAddr, UdpHeader, Vni, VxlanHeader,
    ip::{Ipv4Header, Ipv4Octets, Protocol},
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

/// The outer header and the inner frame's own: what encapsulation writes in one store and decapsulation reads behind one
/// bounds check. Aligned so that it is copied in eight words; unaligned, BPF would copy it octet by octet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct EncapsulatedV4 {
    /// The prepended header.
    pub outer: OuterV4,
    /// The first header of the frame carried.
    pub inner: EthernetHeader,
}

impl EncapsulatedV4 {
    /// Octets on the wire.
    pub const LEN: usize = 64;
    /// Octets between the outer IP header's end and the inner frame.
    const UDP_VXLAN: u16 = 16;
    /// What Linux's vxlan device uses too: the default hop limit.
    const TTL: u8 = 64;

    /// The part that is the same for every frame to one peer.
    #[must_use]
    pub fn template(source: Endpoint<Ipv4Octets>, destination: Endpoint<Ipv4Octets>, port: u16) -> Self {
        let outer = OuterV4 {
            ethernet: EthernetHeader::new(destination.mac, source.mac, EtherType::IPV4),
            ip: Ipv4Header::template(Protocol::UDP, Self::TTL, source.address, destination.address),
            udp: UdpHeader::new(0, port, 0),
            vxlan: VxlanHeader::default(),
        };
        Self { outer, inner: EthernetHeader::default() }
    }

    /// The headers of one frame: `frame_len` octets from the inner Ethernet header on. For a GSO frame the lengths wrap
    /// or exceed the MTU; segmentation writes them anew in each segment (`__skb_udp_tunnel_segment`, `inet_gso_segment`).
    #[inline(always)]
    #[must_use]
    pub fn for_frame(mut self, vni: Vni, inner: EthernetHeader, frame_len: u32, source_port: u16) -> Self {
        let udp_len = (frame_len as u16).wrapping_add(Self::UDP_VXLAN);
        self.outer.ip = self.outer.ip.with_total_length(udp_len.wrapping_add(Ipv4Header::LEN as u16));
        self.outer.udp = UdpHeader::new(source_port, self.outer.udp.destination(), udp_len);
        self.outer.vxlan = VxlanHeader::new(vni);
        self.inner = inner;
        self
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
            let whole = EncapsulatedV4::template(source, destination, port).for_frame(vni, inner, frame_len, source_port);
            prop_assert_eq!(whole.outer.ip.sum(), 0xffff);

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
