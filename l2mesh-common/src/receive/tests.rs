use core::net::{IpAddr, Ipv6Addr};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{
    EncapsulatedV4, EncapsulatedV6, Endpoint, Fingerprint, HeadersV4, HeadersV6, MacAddr, Mark, PerFrame, Template,
};

fn settings() -> Settings {
    Settings {
        port: 4789,
        helper_port: 4789,
        helper_ifindex: 9,
        underlay_ifindex: 2,
        local: [Ipv4Octets([203, 0, 113, 1]); 4],
        local_v6: [VtepAddress::from(IpAddr::V6(v6(1))); 4],
        move_limit: 0,
        move_freeze_ms: 0,
        flags: 0,
        node_id: 0,
        fingerprint: Fingerprint::UNKNOWN,
    }
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last))
}

const VNI: u32 = 0xff01;

fn frame(len: u32) -> PerFrame {
    PerFrame { vni: VNI, inner: EthernetHeader::default(), len, source_port: 50_000, tos: 0, mark: Mark::NONE }
}

fn headers(frame_len: u32) -> EncapsulatedV4 {
    let end = |last| Endpoint { mac: MacAddr([2, 0, 0, 0, 0, last]), address: Ipv4Octets([203, 0, 113, last]) };
    HeadersV4::new(&Template::v4(end(2), end(1), 4789), &frame(frame_len)).parsed()
}

fn headers_v6(frame_len: u32) -> EncapsulatedV6 {
    let end = |last| Endpoint { mac: MacAddr([2, 0, 0, 0, 0, last]), address: v6(last).into() };
    HeadersV6::new(&Template::v6(end(2), end(1), 4789), &frame(frame_len)).parsed()
}

/// What the kernel program does for a frame of these octets, as far as headers go.
fn verdict(frame: &[u8]) -> Result<u32, Verdict> {
    fn header<T: bytemuck::Pod>(frame: &[u8], offset: usize) -> Option<T> {
        frame.get(offset..offset + size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }
    let ethernet = header::<EthernetHeader>(frame, 0).ok_or(Verdict::NotVxlan)?;
    if ethernet.ether_type() == EtherType::IPV6 {
        return match header::<EncapsulatedV6>(frame, 0) {
            Some(stack) => classify_v6(&stack.outer, frame.len() as u32, &settings()),
            None => Err(classify_short_v6(header(frame, 14).as_ref(), header(frame, 54).as_ref(), &settings())),
        };
    }
    match header::<EncapsulatedV4>(frame, 0) {
        Some(stack) => classify(&stack.outer, frame.len() as u32, &settings()),
        None => Err(classify_short(&ethernet, header(frame, 14).as_ref(), header(frame, 34).as_ref(), &settings())),
    }
}

fn whole_frame() -> Vec<u8> {
    let mut frame = bytemuck::bytes_of(&headers(70)).to_vec();
    frame.resize(120, 0xaa);
    frame
}

fn whole_frame_v6() -> Vec<u8> {
    let mut frame = bytemuck::bytes_of(&headers_v6(70)).to_vec();
    frame.resize(140, 0xaa);
    frame
}

#[test]
fn a_whole_frame_is_ours() {
    assert_eq!(verdict(&whole_frame()), Ok(VNI));
    assert_eq!(verdict(&whole_frame_v6()), Ok(VNI));
}

#[test]
fn a_frame_cut_anywhere_is_not() {
    for length in 0..120 {
        let expected = if length < 14 { Verdict::NotVxlan } else { Verdict::Truncated };
        assert_eq!(verdict(&whole_frame()[..length]), Err(expected), "cut to {length} octets");
    }
    for length in 0..140 {
        let expected = if length < 14 { Verdict::NotVxlan } else { Verdict::Truncated };
        assert_eq!(verdict(&whole_frame_v6()[..length]), Err(expected), "cut to {length} octets");
    }
}

#[test]
fn one_field_wrong() {
    let cases: &[(usize, &[u8], Verdict)] = &[
        (12, &[0x86, 0xdd], Verdict::BadIpHeader),
        (12, &[0x08, 0x06], Verdict::NotVxlan),
        (14, &[0x65], Verdict::BadIpHeader),
        (14, &[0x44], Verdict::BadIpHeader),
        (14, &[0x46], Verdict::IpOptions),
        (16, &[0, 107], Verdict::Truncated),
        (20, &[0x20], Verdict::Fragment),
        (20, &[0x40, 1], Verdict::Fragment),
        (23, &[6], Verdict::NotVxlan),
        (30, &[203, 0, 113, 3], Verdict::NotVxlan),
        (36, &8472_u16.to_be_bytes(), Verdict::NotVxlan),
        (38, &[0, 29], Verdict::Truncated),
        (38, &[0, 87], Verdict::Truncated),
        (42, &[0], Verdict::NoVniFlag),
        (46, &[0, 0, 0], Verdict::OtherVni),
        (42, &[0x0a, 0, 0, 0, 0, 0, 0], Verdict::OtherVni),
    ];
    for &(offset, octets, expected) in cases {
        let mut frame = whole_frame();
        frame[offset..offset + octets.len()].copy_from_slice(octets);
        assert_eq!(verdict(&frame), Err(expected), "{octets:02x?} at {offset}");
    }
}

#[test]
fn one_field_wrong_over_ipv6() {
    let cases: &[(usize, &[u8], Verdict)] = &[
        (12, &[0x08, 0x00], Verdict::BadIpHeader),
        (14, &[0x45], Verdict::BadIpHeader),
        (18, &[0, 87], Verdict::Truncated),
        (20, &[44], Verdict::Fragment),
        (20, &[0], Verdict::NotVxlan),
        (20, &[6], Verdict::NotVxlan),
        (53, &[2], Verdict::NotVxlan),
        (22, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Verdict::UnknownSource),
        (38, &[0xfe, 0x80], Verdict::NotVxlan),
        (56, &8472_u16.to_be_bytes(), Verdict::NotVxlan),
        (58, &[0, 29], Verdict::Truncated),
        (58, &[0, 87], Verdict::Truncated),
        (62, &[0], Verdict::NoVniFlag),
        (66, &[0, 0, 0], Verdict::OtherVni),
        (62, &[0x0a, 0, 0, 0, 0, 0, 0], Verdict::OtherVni),
    ];
    for &(offset, octets, expected) in cases {
        let mut frame = whole_frame_v6();
        frame[offset..offset + octets.len()].copy_from_slice(octets);
        assert_eq!(verdict(&frame), Err(expected), "{octets:02x?} at {offset}");
    }
}

proptest! {
    #[test]
    fn any_octets_are_taken_only_if_addressed_to_us(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        if verdict(&frame).is_ok() {
            let (address, port): (&[u8], _) =
                if frame[12] == 8 { (&[203, 0, 113, 1], 36) } else { (&v6(1).octets(), 56) };
            prop_assert_eq!(&frame[port - 2 - address.len()..port - 2], address);
            prop_assert_eq!(&frame[port..port + 2], &4789_u16.to_be_bytes());
        }
    }

    #[test]
    fn what_encapsulation_writes_is_taken(frame_len in 14_u32..=65_499) {
        let (four, six) = (headers(frame_len).outer, headers_v6(frame_len).outer);
        prop_assert_eq!(classify(&four, frame_len + 50, &settings()), Ok(VNI));
        prop_assert_eq!(classify(&four, frame_len + 49, &settings()), Err(Verdict::Truncated));
        prop_assert_eq!(classify_v6(&six, frame_len + 70, &settings()), Ok(VNI));
        prop_assert_eq!(classify_v6(&six, frame_len + 69, &settings()), Err(Verdict::Truncated));
    }

    #[test]
    fn one_octet_of_the_headers_changed_never_yields_another_network(offset in 0_usize..46, octet: u8) {
        let mut frame = whole_frame();
        frame[offset] = octet;
        if let Ok(found) = verdict(&frame) {
            prop_assert_eq!(found, VNI);
        }
    }
}
