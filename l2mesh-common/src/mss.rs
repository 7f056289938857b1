//! The greatest TCP segment that a connection's ends announce to each other (RFC 9293 section 3.7.1): lowered to what
//! the path takes, so that not even the first full segment is too big for it.

use bytemuck::{Pod, Zeroable};

use crate::wire::Be16;

/// The fixed part of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TcpHeader {
    ports: [Be16; 2],
    numbers: [Be16; 4],
    offset: u8,
    flags: u8,
    window: Be16,
    checksum: Be16,
    urgent: Be16,
}

impl TcpHeader {
    /// Octets without options.
    pub const LEN: usize = 20;
    /// Where the checksum stands.
    pub const CHECKSUM: u32 = 16;
    const SYN: u8 = 0x02;

    /// Octets of the header, options included; less than [`Self::LEN`] in a header that is none.
    #[inline(always)]
    #[must_use]
    pub const fn header_len(&self) -> u32 {
        (self.offset as u32 >> 4) * 4
    }

    /// True for SYN and SYN-ACK, the only segments that carry the option (RFC 9293 section 3.2).
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.flags & Self::SYN != 0
    }
}

/// Greatest length of options: what the four bits of the data offset can say. No search needs more turns.
pub const OPTIONS_MAX: u32 = 40;

/// The MSS option of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mss {
    /// Where its value stands, octets from the first option on.
    pub at: u32,
    /// Its value, octets.
    pub value: u16,
}

/// The search for the MSS option, option by option (RFC 9293 section 3.2). It finds nothing where there is none, and where the
/// options before it are not well formed: then it is not for us to touch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Search {
    at: u32,
    len: u32,
    found: bool,
}

impl Search {
    /// Among the first `len` octets of options.
    #[inline(always)]
    #[must_use]
    pub const fn new(len: u32) -> Self {
        Self { at: 0, len: if len < OPTIONS_MAX { len } else { OPTIONS_MAX }, found: false }
    }

    /// Where the next option stands, octets from the first on; `None` at the end.
    #[inline(always)]
    #[must_use]
    pub const fn next(&self) -> Option<u32> {
        if self.at < self.len && !self.found { Some(self.at) } else { None }
    }

    /// Takes the kind of the option at [`Self::next`] and the octet behind it, 0 if there is none.
    #[inline(always)]
    pub const fn take(&mut self, kind: u8, length: u8) {
        const END: u8 = 0;
        const NOTHING: u8 = 1;
        const MSS: u8 = 2;
        const MSS_LENGTH: u32 = 4;
        let length = length as u32;
        match kind {
            END => self.at = self.len,
            NOTHING => self.at += 1,
            MSS if length == MSS_LENGTH && self.at + MSS_LENGTH <= self.len => self.found = true,
            // Of an impossible length, as is an MSS of any other.
            _ if kind == MSS || length < 2 => self.at = self.len,
            _ => self.at += length,
        }
    }

    /// Where the value stands, once it is found.
    #[inline(always)]
    #[must_use]
    pub const fn value_at(&self) -> Option<u32> {
        if self.found { Some(self.at + 2) } else { None }
    }
}

/// The MSS for a path that takes IP packets of `mtu` octets: without options, which come off the segments that have them
/// (RFC 6691 section 2). `ip_header` is 20 or 40.
#[inline(always)]
#[must_use]
pub const fn for_path(mtu: u32, ip_header: u32) -> u16 {
    let mss = mtu.saturating_sub(ip_header + TcpHeader::LEN as u32);
    if mss > u16::MAX as u32 { u16::MAX } else { mss as u16 }
}

/// A value that changes under a checksum: before and after, as the 16-bit words in wire order that the sum is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// What goes out of the sum.
    pub from: Be16,
    /// What comes into it.
    pub to: Be16,
}

impl Change {
    /// The MSS at `mss` becomes `value`. Behind an odd number of octets its halves belong to two words of the sum, which for
    /// a sum of one's complement is the same as one word with its octets exchanged (RFC 1071 section 2).
    #[inline(always)]
    #[must_use]
    pub const fn new(mss: Mss, value: u16) -> Self {
        let (from, to) = (mss.value, value);
        if mss.at.is_multiple_of(2) {
            Self { from: Be16::new(from), to: Be16::new(to) }
        } else {
            Self { from: Be16::new(from.swap_bytes()), to: Be16::new(to.swap_bytes()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn find(options: &[u8], len: u32) -> Option<Mss> {
        let mut search = Search::new(len);
        let octet = |at: u32| options.get(at as usize).copied().unwrap_or(0);
        for _ in 0..OPTIONS_MAX {
            if let Some(at) = search.next() {
                search.take(octet(at), octet(at + 1));
            }
        }
        let at = search.value_at()?;
        Some(Mss { at, value: u16::from_be_bytes([octet(at), octet(at + 1)]) })
    }

    fn found(octets: &[u8]) -> Option<(u32, u16)> {
        find(octets, u32::try_from(octets.len()).expect("few")).map(|mss| (mss.at, mss.value))
    }

    #[test]
    fn where_it_stands() {
        // What Linux sends: MSS, SACK permitted, timestamps, NOP, window scale.
        let linux = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(found(&linux), Some((2, 1460)));
        assert_eq!(found(&[1, 2, 4, 5, 0xb4, 1, 1, 1]), Some((3, 1460)));
        assert_eq!(found(&[4, 2, 2, 4, 0, 1]), Some((4, 1)));
        assert_eq!(found(&[[1; 36].as_slice(), &[2, 4, 1, 2]].concat()), Some((38, 0x102)));
        for octets in [
            &[][..],
            &[1; 40],
            // Behind the end of the list; cut; of another length; behind an option that is none.
            &[0, 2, 4, 5, 0xb4],
            &[2, 4, 5],
            &[2],
            &[1, 1, 1, 2],
            &[2, 3, 5, 0xb4],
            &[2, 0, 5, 0xb4],
            &[8, 0, 2, 4, 5, 0xb4],
            &[8, 1, 2, 4, 5, 0xb4],
            &[8, 200, 2, 4, 5, 0xb4],
        ] {
            assert_eq!(found(octets), None, "{octets:?}");
        }
    }

    #[test]
    fn of_a_path() {
        assert_eq!((for_path(1450, 20), for_path(1450, 40)), (1410, 1390));
        assert_eq!((for_path(30, 20), for_path(100_000, 20)), (0, 65535));
    }

    /// RFC 1071, octet by octet.
    fn sum(octets: &[u8]) -> u16 {
        let mut sum: u32 =
            octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).expect("folded")
    }

    fn added(a: u16, b: u16) -> u16 {
        let (sum, carry) = a.overflowing_add(b);
        sum + u16::from(carry)
    }

    /// Options one after the other, and where the value of the first MSS option among them stands.
    fn well_formed() -> impl Strategy<Value = (Vec<u8>, Option<usize>)> {
        let one = prop_oneof![
            Just(vec![1]),
            any::<[u8; 2]>().prop_map(|[high, low]| vec![2, 4, high, low]),
            (3..=255_u8, 2..12_u8).prop_map(|(kind, length)| {
                let mut option = vec![0x55; usize::from(length)];
                (option[0], option[1]) = (kind, length);
                option
            }),
        ];
        proptest::collection::vec(one, 0..12).prop_map(|list| {
            let (mut all, mut place) = (Vec::new(), None);
            for option in list {
                if all.len() + option.len() > OPTIONS_MAX as usize {
                    break;
                }
                if option[0] == 2 && place.is_none() {
                    place = Some(all.len() + 2);
                }
                all.extend(option);
            }
            (all, place)
        })
    }

    proptest! {
        #[test]
        fn any_octets_are_searched_within_their_bounds(options: [u8; 64], len: u32) {
            if let Some(mss) = find(&options, len) {
                prop_assert!(mss.at >= 2 && mss.at + 2 <= len.min(OPTIONS_MAX));
                let at = mss.at as usize;
                prop_assert_eq!(&options[at - 2..at], &[2, 4]);
                prop_assert_eq!(mss.value.to_be_bytes(), [options[at], options[at + 1]]);
            }
        }

        #[test]
        fn well_formed_options_are_found((octets, place) in well_formed()) {
            let expected = place.map(|at| (u32::try_from(at).expect("small"), u16::from_be_bytes([octets[at], octets[at + 1]])));
            prop_assert_eq!(found(&octets), expected);
        }

        /// Whatever stands around it and at whatever offset: the sum with the change applied is the sum over the changed octets.
        #[test]
        fn the_checksum_follows(octets in proptest::collection::vec(any::<u8>(), 8..60), place: prop::sample::Index, value: u16) {
            let at = place.index(octets.len() - 2);
            let mss = Mss { at: u32::try_from(at).expect("small"), value: u16::from_be_bytes([octets[at], octets[at + 1]]) };
            let change = Change::new(mss, value);
            let mut changed = octets.clone();
            changed[at..at + 2].copy_from_slice(&value.to_be_bytes());
            // RFC 1624 equation 3, without the two complements around it.
            let updated = added(added(sum(&octets), !change.from.get()), change.to.get());
            let both_zeros = |sum: u16| if sum == 0xffff { 0 } else { sum };
            prop_assert_eq!(both_zeros(updated), both_zeros(sum(&changed)));
        }

        #[test]
        fn header(octets: [u8; 20]) {
            let header: TcpHeader = bytemuck::cast(octets);
            prop_assert_eq!(header.header_len(), u32::from(octets[12] >> 4) * 4);
            prop_assert_eq!(header.is_syn(), octets[13] & 2 != 0);
        }
    }
}
