//! The two messages that say "too big": ICMP "fragmentation needed" (RFC 792, RFC 1191 section 4) and `ICMPv6` "packet too
//! big" (RFC 4443 section 3.2).

use bytemuck::{Pod, Zeroable};

use super::Be16;

/// Type and code of ICMP "destination unreachable, fragmentation needed".
pub const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
/// Type and code of `ICMPv6` "packet too big".
pub const PACKET_TOO_BIG: (u8, u8) = (2, 0);

/// What stands before the quoted packet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Over all of the message; in `ICMPv6` over a pseudo-header too (RFC 8200 section 8.1).
    pub checksum: Be16,
    rest: [Be16; 2],
}

impl IcmpHeader {
    /// Octets on the wire.
    pub const LEN: usize = 8;

    /// "Fragmentation needed", packets of `mtu` octets fit. The checksum is zero.
    #[inline(always)]
    #[must_use]
    pub const fn fragmentation_needed(mtu: u16) -> Self {
        let (kind, code) = FRAGMENTATION_NEEDED;
        Self { kind, code, checksum: Be16::new(0), rest: [Be16::new(0), Be16::new(mtu)] }
    }

    /// "Packet too big", packets of `mtu` octets fit. The checksum is zero.
    #[inline(always)]
    #[must_use]
    pub const fn packet_too_big(mtu: u16) -> Self {
        let (kind, code) = PACKET_TOO_BIG;
        Self { kind, code, checksum: Be16::new(0), rest: [Be16::new(0), Be16::new(mtu)] }
    }

    /// What fits, of an ICMP message; 0 where an old router does not say.
    #[must_use]
    pub const fn mtu_v4(&self) -> u16 {
        self.rest[1].get()
    }

    /// What fits, of an `ICMPv6` message.
    #[must_use]
    pub const fn mtu_v6(&self) -> u32 {
        (self.rest[0].get() as u32) << 16 | self.rest[1].get() as u32
    }

    /// The one's complement sum of these eight octets, not folded.
    #[inline(always)]
    #[must_use]
    pub fn words_sum(&self) -> u32 {
        bytemuck::must_cast::<_, [Be16; 4]>(*self).into_iter().map(|word| u32::from(word.get())).sum()
    }
}

/// True for an ICMP message that reports an error: none is ever answered with another (RFC 1122 section 3.2.2).
#[inline(always)]
#[must_use]
pub const fn is_error_v4(kind: u8) -> bool {
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// The same for `ICMPv6` (RFC 4443 section 2.1); a redirect counts as one (section 2.4 e).
#[inline(always)]
#[must_use]
pub const fn is_error_v6(kind: u8) -> bool {
    kind < 128 || kind == 137
}

/// The one's complement sum over octets as they stand on the wire (RFC 1071): 0xffff over a message whose checksum is right.
#[must_use]
pub fn sum(octets: &[u8]) -> u16 {
    let (pairs, last) = octets.as_chunks::<2>();
    let last = last.first().map_or(0, |&octet| u64::from(octet) << 8);
    let mut sum = pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum::<u64>() + last;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn octets() {
        let octets = |header: IcmpHeader| bytemuck::cast::<_, [u8; 8]>(header);
        assert_eq!(octets(IcmpHeader::fragmentation_needed(1450)), [3, 4, 0, 0, 0, 0, 5, 0xaa]);
        assert_eq!(octets(IcmpHeader::packet_too_big(1430)), [2, 0, 0, 0, 0, 0, 5, 0x96]);
        assert_eq!(IcmpHeader::fragmentation_needed(1450).words_sum(), 0x304 + 1450);
    }

    /// RFC 1071 section 3, and the padding of section 4.1.
    #[test]
    fn sums() {
        assert_eq!(sum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!((sum(&[0x12]), sum(&[])), (0x1200, 0));
    }

    proptest! {
        #[test]
        fn fields(octets: [u8; 8]) {
            let header: IcmpHeader = bytemuck::cast(octets);
            let [kind, code, _, _, a, b, c, d] = octets;
            prop_assert_eq!((header.kind, header.code), (kind, code));
            prop_assert_eq!(header.mtu_v4(), u16::from_be_bytes([c, d]));
            prop_assert_eq!(header.mtu_v6(), u32::from_be_bytes([a, b, c, d]));
        }

        #[test]
        fn a_checksum_makes_the_sum_whole(octets in proptest::collection::vec(any::<u8>(), 2..100)) {
            let mut octets = octets;
            octets[..2].fill(0);
            let checksum = !sum(&octets);
            octets[..2].copy_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(sum(&octets), 0xffff);
        }
    }
}
