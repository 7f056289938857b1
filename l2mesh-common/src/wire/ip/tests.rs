use proptest::prelude::*;

use super::*;

/// The worked example of RFC 1071 section 3: 0001 f203 f4f5 f6f7 sum to ddf2.
#[test]
fn rfc_1071_example() {
    assert_eq!(fold(0x0001 + 0xf203 + 0xf4f5 + 0xf6f7), 0xddf2);
}

proptest! {
    #[test]
    fn checksum_is_right_for_every_length(
        length: u16, source: [u8; 4], destination: [u8; 4], ttl: u8, tos: u8, later: u8,
    ) {
        let mut header = Ipv4Header::template(Protocol::UDP, ttl, Ipv4Octets(source), Ipv4Octets(destination));
        header.checksum = Be16::new(with_added(header.checksum.get(), length, tos));
        header.total_length = Be16::new(length);
        header.tos = tos;
        prop_assert_eq!(header.sum(), 0xffff);
        let header = header.with_tos(later);
        prop_assert_eq!((header.sum(), header.tos()), (0xffff, later));
        prop_assert_eq!(header.total_length(), length);
        prop_assert_eq!((header.version(), header.header_len(), header.is_fragment()), (4, 20, false));
    }

    #[test]
    fn mapped_as_the_standard_library_says(address: u128, v4: [u8; 4]) {
        for address in [address, address & 0xffff_ffff_ffff, address | 0xffff_0000_0000] {
            let address = Ipv6Addr::from(address);
            prop_assert_eq!(Ipv6Octets::from(address).is_mapped(), address.to_ipv4_mapped().is_some());
        }
        prop_assert!(Ipv6Octets::from(Ipv4Addr::from(v4).to_ipv6_mapped()).is_mapped());
    }

    #[test]
    fn traffic_class_changes_nothing_else(words: [u8; 40], class: u8) {
        let header: Ipv6Header = bytemuck::cast(words);
        let changed = header.with_traffic_class(class);
        prop_assert_eq!(changed.traffic_class(), class);
        prop_assert_eq!(changed.with_traffic_class(header.traffic_class()), header);
        prop_assert_eq!(changed.version(), header.version());
    }
}
