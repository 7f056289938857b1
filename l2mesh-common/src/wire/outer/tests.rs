use core::net::Ipv6Addr;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::Vni;

fn frame(id: u32, macs: [[u8; 6]; 2], ether_type: u16, len: u32, source_port: u16, tos: u8) -> PerFrame {
    let inner = EthernetHeader::new(MacAddr(macs[0]), MacAddr(macs[1]), EtherType(ether_type));
    PerFrame { vni: id, inner, len, source_port, tos, mark: Mark::NONE }
}

proptest! {
    /// The VXLAN header is the one that `vxlan.rs` writes, whatever the mark.
    #[test]
    fn marks(id in 1..=Vni::MAX, flags: u8, node: u32) {
        let mark = Mark { flags, node };
        let frame = PerFrame { mark, ..frame(id, [[1; 6], [2; 6]], 0x800, 100, 50_000, 0) };
        let expected = VxlanHeader::marked(id, mark);
        prop_assert_eq!(HeadersV4::new(&Template::EMPTY, &frame).parsed().outer.vxlan, expected);
        prop_assert_eq!(HeadersV6::new(&Template::EMPTY, &frame).parsed().outer.vxlan, expected);
    }
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
        let frame = frame(id, macs, port, frame_len, source_port, tos);
        let whole = HeadersV4::new(&template, &frame).parsed();
        prop_assert_eq!(whole.outer.ip.sum(), 0xffff);

        let octets = bytemuck::bytes_of(&whole);
        let length = |extra: u32| u16::try_from(frame_len + extra).expect("fits").to_be_bytes().to_vec();
        let expected: Vec<u8> = [
            macs[1].to_vec(), macs[0].to_vec(), [8, 0].to_vec(),
            [0x45, tos].to_vec(), length(36), [0, 0, 0x40, 0, 64, 17].to_vec(), octets[24..26].to_vec(),
            addresses[0].to_vec(), addresses[1].to_vec(),
            source_port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), length(16), [0, 0].to_vec(),
            [8, 0, 0, 0].to_vec(), (id << 8).to_be_bytes().to_vec(),
            macs[0].to_vec(), macs[1].to_vec(), port.to_be_bytes().to_vec(),
        ].concat();
        prop_assert_eq!(octets, expected.as_slice());
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
        let frame = frame(id, macs, port, frame_len, source_port, tos);
        let whole = HeadersV6::new(&template, &frame).parsed();
        let length = u16::try_from(frame_len + 16).expect("fits").to_be_bytes().to_vec();
        let expected: Vec<u8> = [
            macs[1].to_vec(), macs[0].to_vec(), [0x86, 0xdd].to_vec(),
            [0x60 | tos >> 4, tos << 4, 0, 0].to_vec(), length.clone(), [17, 64].to_vec(),
            addresses[0].to_vec(), addresses[1].to_vec(),
            source_port.to_be_bytes().to_vec(), port.to_be_bytes().to_vec(), length, [0, 0].to_vec(),
            [8, 0, 0, 0].to_vec(), (id << 8).to_be_bytes().to_vec(),
            macs[0].to_vec(), macs[1].to_vec(), port.to_be_bytes().to_vec(),
        ].concat();
        prop_assert_eq!(bytemuck::bytes_of(&whole), expected.as_slice());
    }
}
