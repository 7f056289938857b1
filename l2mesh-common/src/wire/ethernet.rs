//! Ethernet II header (IEEE 802.3 clause 3.2) and MAC addresses.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::Be16;

/// A 48-bit MAC address, in wire order.
///
/// Two-byte alignment holds for every header field behind an Ethernet header and spares the
/// kernel programs byte-wise loads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// Source of the frame with which attach tests the host's firewall: locally administered and never seen on any wire.
    pub const SELF_TEST: Self = Self([2, 0x6c, 0x32, 0, 0, 1]);
    /// 00:00:00:00:00:00, no valid source or destination.
    pub const ZERO: Self = Self([0; 6]);

    /// The address of a node's interface in a network: locally administered (IEEE 802 8.4) and always the same, so
    /// that DHCP leases and neighbour entries outlive a restart. FNV-1a over both numbers, folded to 40 bits.
    #[must_use]
    pub fn derived(node_id: u32, vni: u32) -> Self {
        let octets = node_id.to_be_bytes().into_iter().chain(vni.to_be_bytes());
        let hash = octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let [_, _, _, rest @ ..] = (hash ^ (hash >> 40)).to_be_bytes();
        let mut address = [0x02; 6];
        address[1..].copy_from_slice(&rest);
        Self(address)
    }

    /// True for broadcast and multicast: the I/G bit, first on the wire (IEEE 802 8.2).
    #[inline(always)]
    #[must_use]
    pub fn is_group(self) -> bool {
        self.words()[0] & 0x0100 != 0
    }

    /// True for 01:80:c2:00:00:00 to :0f, which no bridge forwards (IEEE 802.1Q table 8-1).
    #[inline(always)]
    #[must_use]
    pub fn is_link_local(self) -> bool {
        let [first, second, last] = self.words();
        first == 0x0180 && second == 0xc200 && last <= 0x000f
    }

    /// True if a station may send from it: neither a group nor all zero.
    #[inline(always)]
    #[must_use]
    pub fn is_valid_source(self) -> bool {
        let [first, second, last] = self.words();
        first & 0x0100 == 0 && first | second | last != 0
    }

    /// Three numbers: BPF would take six octets apart one by one.
    #[inline(always)]
    fn words(self) -> [u16; 3] {
        bytemuck::must_cast::<_, [Be16; 3]>(self).map(Be16::get)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|octet| write!(f, ":{octet:02x}"))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not a MAC address: six hexadecimal octets separated by colons are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidMac;

impl fmt::Display for InvalidMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address: write six octets in hexadecimal, as in 52:54:00:12:34:56")
    }
}

impl core::error::Error for InvalidMac {}

impl core::str::FromStr for MacAddr {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(InvalidMac)?;
            let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !digits || part.is_empty() || part.len() > 2 {
                return Err(InvalidMac);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMac)?;
        }
        parts.next().is_none().then_some(Self(octets)).ok_or(InvalidMac)
    }
}

/// What an Ethernet frame carries (IANA "IEEE 802 Numbers"), host order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4, RFC 894.
    pub const IPV4: Self = Self(0x0800);
    /// IPv6, RFC 2464.
    pub const IPV6: Self = Self(0x86dd);
    /// 802.1Q customer tag.
    pub const VLAN: Self = Self(0x8100);
    /// 802.1ad service tag.
    pub const QINQ: Self = Self(0x88a8);
    /// IEEE 802 local experimental type 1: l2mesh probes (design.md 4).
    pub const PROBE: Self = Self(0x88b5);
    /// IEEE 802 local experimental type 2: the frame with which attach tests the host's firewall.
    pub const SELF_TEST: Self = Self(0x88b6);

    /// True if a VLAN tag begins here.
    #[inline(always)]
    #[must_use]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::QINQ)
    }
}

/// Destination, source, type: 14 octets, before any tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct EthernetHeader {
    /// Where the frame goes.
    pub destination: MacAddr,
    /// Who sent it.
    pub source: MacAddr,
    ether_type: Be16,
}

impl EthernetHeader {
    /// Octets on the wire.
    pub const LEN: usize = 14;

    /// A header from its three fields.
    #[inline(always)]
    #[must_use]
    pub const fn new(destination: MacAddr, source: MacAddr, ether_type: EtherType) -> Self {
        Self { destination, source, ether_type: Be16::new(ether_type.0) }
    }

    /// The whole header in the units in which it can be copied.
    #[inline(always)]
    #[must_use]
    pub fn words(self) -> [Be16; 7] {
        bytemuck::must_cast(self)
    }

    /// True for the frame with which attach tests the host's firewall. Others may use its type.
    #[inline(always)]
    #[must_use]
    pub fn is_self_test(&self) -> bool {
        self.ether_type() == EtherType::SELF_TEST && self.source == MacAddr::SELF_TEST
    }

    /// The type field.
    #[inline(always)]
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::format;

    use super::*;

    #[test]
    fn group_link_local_and_valid_source() {
        let mac = |text: &str| text.parse::<MacAddr>().expect("a MAC address");
        assert!(MacAddr::BROADCAST.is_group());
        assert!(mac("33:33:00:00:00:01").is_group());
        assert!(!mac("52:54:00:00:00:01").is_group());
        assert!(mac("01:80:c2:00:00:0e").is_link_local());
        assert!(!mac("01:80:c2:00:00:10").is_link_local());
        assert!(!mac("01:80:c2:01:00:00").is_link_local());
        assert!(mac("02:00:00:00:00:00").is_valid_source());
        assert!(!MacAddr::ZERO.is_valid_source());
        assert!(!MacAddr::BROADCAST.is_valid_source());
    }

    proptest! {
        #[test]
        fn text_round_trip(octets: [u8; 6]) {
            let mac = MacAddr(octets);
            prop_assert_eq!(format!("{mac}").parse::<MacAddr>(), Ok(mac));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _: Result<MacAddr, InvalidMac> = text.parse();
        }
    }

    #[test]
    fn derived_addresses_are_local_unicast_and_differ() {
        let all: std::collections::HashSet<MacAddr> =
            (0..64).flat_map(|node| (1..64).map(move |vni| MacAddr::derived(node, vni))).collect();
        assert_eq!(all.len(), 64 * 63);
        assert!(all.iter().all(|mac| mac.is_valid_source() && mac.0[0] == 2));
    }

    #[test]
    fn text_refused() {
        for text in ["", "1", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:+6", "1:2:3:4:5:100", "1::3:4:5:6"] {
            assert_eq!(text.parse::<MacAddr>(), Err(InvalidMac), "{text}");
        }
    }
}
