use proptest::prelude::*;
use std::vec::Vec;

use super::*;
use crate::wire::{EncapsulatedV4, Endpoint, HeadersV4, MacAddr};

const SETTINGS: Settings = Settings {
    port: 4789,
    helper_port: 4789,
    helper_ifindex: 9,
    underlay_ifindex: 2,
    local: [Ipv4Octets([203, 0, 113, 1]); 4],
};

fn vni() -> Vni {
    Vni::new(0xff01).expect("a VNI")
}

fn headers(frame_len: u32) -> HeadersV4 {
    let end = |last| Endpoint { mac: MacAddr([2, 0, 0, 0, 0, last]), address: Ipv4Octets([203, 0, 113, last]) };
    HeadersV4::template(end(2), end(1), 4789).for_frame(vni(), EthernetHeader::default(), frame_len, 50_000)
}

/// What the kernel program does for a frame of these octets, as far as headers go.
fn verdict(frame: &[u8]) -> Result<Vni, Verdict> {
    fn header<T: bytemuck::Pod>(frame: &[u8], offset: usize) -> Option<T> {
        frame.get(offset..offset + size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }
    if let Some(stack) = header::<EncapsulatedV4>(frame, 0) {
        return classify(&stack.outer, frame.len() as u32, &SETTINGS);
    }
    let ethernet = header::<EthernetHeader>(frame, 0).ok_or(Verdict::NotVxlan)?;
    Err(classify_short(&ethernet, header(frame, 14).as_ref(), header(frame, 34).as_ref(), &SETTINGS))
}

fn whole_frame() -> Vec<u8> {
    let mut frame = bytemuck::bytes_of(&headers(70)).to_vec();
    frame.resize(120, 0xaa);
    frame
}

#[test]
fn a_whole_frame_is_ours() {
    assert_eq!(verdict(&whole_frame()), Ok(vni()));
}

#[test]
fn a_frame_cut_anywhere_is_not() {
    for length in 0..120 {
        let expected = if length < 14 { Verdict::NotVxlan } else { Verdict::Truncated };
        assert_eq!(verdict(&whole_frame()[..length]), Err(expected), "cut to {length} octets");
    }
}

#[test]
fn one_field_wrong() {
    let cases: &[(usize, &[u8], Verdict)] = &[
        (12, &[0x86, 0xdd], Verdict::NotVxlan),
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
    ];
    for &(offset, octets, expected) in cases {
        let mut frame = whole_frame();
        frame[offset..offset + octets.len()].copy_from_slice(octets);
        assert_eq!(verdict(&frame), Err(expected), "{octets:02x?} at {offset}");
    }
}

proptest! {
    #[test]
    fn any_octets_are_taken_only_if_addressed_to_us(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        if verdict(&frame).is_ok() {
            prop_assert_eq!(&frame[30..34], &SETTINGS.local[0].0);
            prop_assert_eq!(&frame[36..38], &SETTINGS.port.to_be_bytes());
        }
    }

    #[test]
    fn what_encapsulation_writes_is_taken(frame_len in 14_u32..=65_499) {
        prop_assert_eq!(classify(&headers(frame_len).parsed().outer, frame_len + 50, &SETTINGS), Ok(vni()));
        prop_assert_eq!(classify(&headers(frame_len).parsed().outer, frame_len + 49, &SETTINGS), Err(Verdict::Truncated));
    }

    #[test]
    fn one_octet_of_the_headers_changed_never_yields_another_network(offset in 0_usize..46, octet: u8) {
        let mut frame = whole_frame();
        frame[offset] = octet;
        if let Ok(found) = verdict(&frame) {
            prop_assert_eq!(found, vni());
        }
    }
}
