//! What a DHCP server grants (RFC 2131 section 2, options of RFC 2132).

use bytemuck::{Pod, Zeroable};

use super::{Be16, Ipv4Octets, MacAddr};

/// From where a server answers, and where clients listen (RFC 2131 section 4.1). To a relay it goes to port 67.
pub const SERVER_TO_CLIENT: [Be16; 2] = [Be16::new(67), Be16::new(68)];

/// Options that are looked at before the message type is given up: servers write it first, or in the order of the numbers.
const MOST_OPTIONS: u32 = 16;

/// The start of a message, behind the UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct DhcpHeader {
    operation: u8,
    hardware_type: u8,
    hardware_length: u8,
    hops: u8,
    transaction: [Be16; 2],
    seconds: Be16,
    flags: Be16,
    client: Ipv4Octets,
    /// The address that the client gets.
    pub granted: Ipv4Octets,
    server: Ipv4Octets,
    relay: Ipv4Octets,
    /// The client's MAC address.
    pub client_mac: MacAddr,
}

impl DhcpHeader {
    /// From the header to the options: 192 octets of names and the four of the cookie lie between.
    pub const OPTIONS: u32 = 240;
    /// From the header to what says that options follow.
    pub const COOKIE: usize = 236;
    const REPLY: u8 = 2;
    const ETHERNET: u8 = 1;

    /// True in an answer to a client on Ethernet.
    #[inline(always)]
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        self.operation == Self::REPLY && self.hardware_type == Self::ETHERNET && self.hardware_length == 6
    }
}

/// The four octets before the options (RFC 2131 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct DhcpCookie([Be16; 2]);

impl DhcpCookie {
    /// True before options.
    #[inline(always)]
    #[must_use]
    pub const fn is_right(self) -> bool {
        self.0[0].get() == 0x6382 && self.0[1].get() == 0x5363
    }
}

/// True if the options say that this is an ACK. `read` gives two octets at an offset from the first option, if there are
/// that many.
#[inline(always)]
#[must_use]
pub fn is_ack(read: impl Fn(u32) -> Option<[u8; 2]>) -> bool {
    const PAD: u8 = 0;
    const END: u8 = 255;
    const MESSAGE_TYPE: u8 = 53;
    const ACK: u8 = 5;
    let mut offset = 0;
    let mut options = 0;
    while options < MOST_OPTIONS {
        match read(offset) {
            None | Some([END, _]) => return false,
            Some([PAD, _]) => offset += 1,
            Some([MESSAGE_TYPE, length]) => return length == 1 && matches!(read(offset + 2), Some([ACK, _])),
            Some([_, length]) => offset += 2 + u32::from(length),
        }
        options += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn acks(options: &[u8]) -> bool {
        is_ack(|offset| options.get(offset as usize..offset as usize + 2)?.try_into().ok())
    }

    #[test]
    fn header_as_in_rfc_2131() {
        let mut octets = [0; 34];
        octets[..3].copy_from_slice(&[2, 1, 6]);
        octets[16..20].copy_from_slice(&[10, 8, 0, 100]);
        octets[28..].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
        let header: DhcpHeader = bytemuck::pod_read_unaligned(&octets);
        assert!(header.is_reply());
        assert_eq!((header.granted, header.client_mac), (Ipv4Octets([10, 8, 0, 100]), MacAddr([2, 0, 0, 0, 0, 7])));
        for (index, octet) in [(0, 1), (1, 6), (2, 8)] {
            let mut octets = octets;
            octets[index] = octet;
            let header: DhcpHeader = bytemuck::pod_read_unaligned(&octets);
            assert!(!header.is_reply(), "{octet} at {index}");
        }
        let cookie = |octets: [u8; 4]| bytemuck::cast::<_, DhcpCookie>(octets.map(u8::from)).is_right();
        assert!(cookie([0x63, 0x82, 0x53, 0x63]) && !cookie([0x63, 0x82, 0x53, 0x64]) && !cookie([0; 4]));
    }

    #[test]
    fn options() {
        for (options, expected) in [
            (&[53, 1, 5, 255][..], true),
            (&[1, 4, 255, 255, 255, 0, 53, 1, 5, 255], true),
            (&[0, 0, 0, 53, 1, 5, 255], true),
            (&[53, 1, 2, 255], false),
            (&[53, 1, 6, 255], false),
            (&[53, 2, 5, 5, 255], false),
            (&[255, 53, 1, 5], false),
            (&[51, 4, 53, 1, 5, 0, 255], false),
            (&[53, 1], false),
            (&[53], false),
            (&[12, 200, 53, 1, 5], false),
            (&[], false),
        ] {
            assert_eq!(acks(options), expected, "{options:?}");
        }
        assert!(!acks(&[&[0; 32][..], &[53, 1, 5, 255]].concat()), "after so many options it is given up");
    }

    proptest! {
        #[test]
        fn found_among_others(before in prop::collection::vec((1..=52_u8, prop::collection::vec(any::<u8>(), 0..20)), 0..15)) {
            let octets = |(code, data): &(u8, Vec<u8>)| [&[*code, data.len() as u8][..], data].concat();
            let others: Vec<u8> = before.iter().flat_map(octets).collect();
            prop_assert!(acks(&[&others[..], &[53, 1, 5, 255]].concat()));
            prop_assert!(!acks(&[&others[..], &[53, 1, 4, 255]].concat()));
            prop_assert!(!acks(&others));
        }

        #[test]
        fn any_octets(options: Vec<u8>) {
            acks(&options);
        }
    }
}
