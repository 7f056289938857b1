//! IPv6 neighbour discovery (RFC 4861 section 4): solicitation, advertisement, and as much of a router advertisement as
//! says who is a router.

use bytemuck::{Pod, Zeroable};

use super::{Be16, EtherType, EthernetHeader, Ipv6Header, Ipv6Octets, MacAddr, Protocol, ip::fold};

/// RFC 4443.
const ICMPV6: Protocol = Protocol(58);

/// Kinds of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NdKind {
    /// 134.
    RouterAdvertisement,
    /// 135.
    NeighbourSolicitation,
    /// 136.
    NeighbourAdvertisement,
}

/// IPv6 header and the start of any `ICMPv6` message.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NdHeader {
    /// Who says it to whom.
    pub ip: Ipv6Header,
    kind: u8,
    code: u8,
    checksum: Be16,
}

impl NdHeader {
    /// No router changes it: the message is of this link (RFC 4861 section 7.1).
    const HOP_LIMIT: u8 = 255;

    /// What it is, if it is neighbour discovery that every host would take: directly behind the IPv6 header, and sent on
    /// this link.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> Option<NdKind> {
        if self.ip.version() != 6
            || self.ip.next_header() != ICMPV6
            || self.ip.hop_limit() != Self::HOP_LIMIT
            || self.code != 0
        {
            return None;
        }
        match self.kind {
            134 => Some(NdKind::RouterAdvertisement),
            135 => Some(NdKind::NeighbourSolicitation),
            136 => Some(NdKind::NeighbourAdvertisement),
            _ => None,
        }
    }
}

/// IPv6 header and a neighbour solicitation or advertisement without its options.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NdMessage {
    /// What all messages begin with.
    pub header: NdHeader,
    flags: [Be16; 2],
    /// Whose address is asked for or told.
    pub target: Ipv6Octets,
}

/// A link-layer address option (RFC 4861 section 4.6.1) of Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LinkLayerOption {
    kind: u8,
    length: u8,
    mac: MacAddr,
}

impl LinkLayerOption {
    /// Octets on the wire.
    pub const LEN: u16 = 8;
    const SOURCE: u8 = 1;
    const TARGET: u8 = 2;

    /// The sender's address.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> Option<MacAddr> {
        self.of(Self::SOURCE)
    }

    /// The target's address.
    #[inline(always)]
    #[must_use]
    pub const fn target(self) -> Option<MacAddr> {
        self.of(Self::TARGET)
    }

    #[inline(always)]
    const fn of(self, kind: u8) -> Option<MacAddr> {
        if self.kind == kind && self.length == 1 { Some(self.mac) } else { None }
    }
}

/// A frame of Ethernet, IPv6 and a message with one option in the units in which it can be copied.
pub type NdFrame = [Be16; 43];

impl NdMessage {
    /// Octets of `ICMPv6`, options not included.
    pub const LEN: u16 = 24;
    const ROUTER: u16 = 0x8000;
    const SOLICITED: u16 = 0x4000;
    const OVERRIDE: u16 = 0x2000;

    /// True in an advertisement of a router.
    #[inline(always)]
    #[must_use]
    pub const fn is_router(&self) -> bool {
        self.flags[0].get() & Self::ROUTER != 0
    }

    /// True in an advertisement that may replace what was known: neither a proxy's nor of an anycast address.
    #[inline(always)]
    #[must_use]
    pub const fn overrides(&self) -> bool {
        self.flags[0].get() & Self::OVERRIDE != 0
    }

    /// True if the message is whole and its checksum right (RFC 8200 section 8.1). `option` is what follows, if anything does.
    #[inline(always)]
    #[must_use]
    pub fn is_intact(&self, option: Option<&LinkLayerOption>) -> bool {
        let length = self.header.ip.payload_length();
        let words: &[Be16; 32] = bytemuck::must_cast_ref(self);
        let (option, expected) = match option {
            Some(option) => (sum(bytemuck::must_cast_ref::<_, [Be16; 4]>(option)), Self::LEN + LinkLayerOption::LEN),
            None => (0, Self::LEN),
        };
        // The first four words are no part of the pseudo-header.
        let [_, _, _, _, covered @ ..] = words;
        let pseudo = u32::from(length) + u32::from(ICMPV6.0);
        length == expected && fold(sum(covered) + option + pseudo) == 0xffff
    }

    /// The frame with which the owner of the target address, who is at `mac`, answers this solicitation (RFC 4861
    /// section 7.2.4) of a host at `asker`.
    #[inline(always)]
    #[must_use]
    pub fn answer(&self, asker: MacAddr, mac: MacAddr, router: bool) -> NdFrame {
        const CHECKSUM: usize = 28;
        let length = Self::LEN + LinkLayerOption::LEN;
        let ip = Ipv6Header::template(ICMPV6, NdHeader::HOP_LIMIT, self.target, self.header.ip.source);
        let flags = Self::SOLICITED | Self::OVERRIDE | if router { Self::ROUTER } else { 0 };
        let answer = Answer {
            ethernet: EthernetHeader::new(asker, mac, EtherType::IPV6),
            message: Self {
                header: NdHeader { ip: ip.with_payload_length(length), kind: 136, code: 0, checksum: Be16::new(0) },
                flags: [Be16::new(flags), Be16::new(0)],
                target: self.target,
            },
            option: LinkLayerOption { kind: LinkLayerOption::TARGET, length: 1, mac },
        };
        let mut frame: NdFrame = bytemuck::must_cast(answer);
        let [_, _, _, _, _, _, _, _, _, _, _, covered @ ..] = &frame;
        let pseudo = u32::from(length) + u32::from(ICMPV6.0);
        frame[CHECKSUM] = Be16::new(!fold(sum(covered) + pseudo));
        frame
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Answer {
    ethernet: EthernetHeader,
    message: NdMessage,
    option: LinkLayerOption,
}

#[inline(always)]
fn sum(words: &[Be16]) -> u32 {
    let mut sum = 0;
    for word in words {
        sum += u32::from(word.get());
    }
    sum
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    pub(crate) const NS: u8 = 135;
    pub(crate) const NA: u8 = 136;

    /// RFC 1071 over the pseudo-header of RFC 8200 section 8.1, octet by octet.
    fn checksum(source: [u8; 16], destination: [u8; 16], icmp: &[u8]) -> u16 {
        let length = u32::try_from(icmp.len()).expect("short").to_be_bytes();
        let all = [&source[..], &destination, &length, &[0, 0, 0, 58], icmp].concat();
        let mut sum: u64 = all.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("folded")
    }

    /// A packet from its IPv6 header on, written out by hand.
    pub(crate) fn octets(kind: u8, flags: u8, addresses: [[u8; 16]; 3], option: Option<(u8, [u8; 6])>) -> Vec<u8> {
        let [source, destination, target] = addresses;
        let option = option.map_or(Vec::new(), |(kind, mac)| [&[kind, 1][..], &mac].concat());
        let mut icmp = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target, &option].concat();
        let sum = checksum(source, destination, &icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        let length = u8::try_from(icmp.len()).expect("short");
        [&[0x60, 0, 0, 0, 0, length, 58, 255][..], &source, &destination, &icmp].concat()
    }

    pub(crate) fn parsed(octets: &[u8]) -> (NdMessage, Option<LinkLayerOption>) {
        let option = octets.get(64..72).map(bytemuck::pod_read_unaligned);
        (bytemuck::pod_read_unaligned(&octets[..64]), option)
    }

    proptest! {
        #[test]
        fn answered_as_rfc_4861_says(
            asker: ([u8; 16], [u8; 6]), group: [u8; 16], target: [u8; 16], owner: [u8; 6], router: bool,
        ) {
            let question = octets(NS, 0, [asker.0, group, target], Some((1, asker.1)));
            let (message, option) = parsed(&question);
            prop_assert_eq!(message.header.kind(), Some(NdKind::NeighbourSolicitation));
            prop_assert!(message.is_intact(option.as_ref()));
            prop_assert_eq!(option.and_then(LinkLayerOption::source), Some(MacAddr(asker.1)));

            let answer = message.answer(MacAddr(asker.1), MacAddr(owner), router);
            let flags = if router { 0xe0 } else { 0x60 };
            let packet = octets(NA, flags, [target, asker.0, target], Some((2, owner)));
            let expected = [asker.1.to_vec(), owner.to_vec(), [0x86, 0xdd].to_vec(), packet.clone()].concat();
            prop_assert_eq!(bytemuck::bytes_of(&answer), expected.as_slice());

            let (message, option) = parsed(&packet);
            prop_assert_eq!(message.header.kind(), Some(NdKind::NeighbourAdvertisement));
            prop_assert!(message.is_intact(option.as_ref()));
            prop_assert_eq!((message.is_router(), message.overrides()), (router, true));
            prop_assert_eq!(option.and_then(LinkLayerOption::target), Some(MacAddr(owner)));
        }

        /// One octet changed anywhere under the checksum is noticed, as is a wrong length.
        #[test]
        fn damage_is_noticed(addresses: [[u8; 16]; 3], mac: Option<[u8; 6]>, place: prop::sample::Index, flip in 1..=255_u8) {
            let mut packet = octets(NA, 0x20, addresses, mac.map(|mac| (2, mac)));
            let place = 8 + place.index(packet.len() - 8);
            packet[place] ^= flip;
            let (message, option) = parsed(&packet);
            prop_assert!(!message.is_intact(option.as_ref()));
            packet[place] ^= flip;
            packet[5] += 8;
            let (message, option) = parsed(&packet);
            prop_assert!(!message.is_intact(option.as_ref()));
        }
    }

    #[test]
    fn only_of_this_link() {
        let good = octets(NS, 0, [[0xfe; 16], [0xff; 16], [0xfe; 16]], None);
        for (index, octet, name) in [
            (0, 0x40, "version"),
            (6, 17, "next header"),
            (6, 0, "hop-by-hop options"),
            (7, 254, "hop limit"),
            (40, 128, "echo request"),
            (40, 133, "router solicitation"),
            (41, 1, "code"),
        ] {
            let mut packet = good.clone();
            packet[index] = octet;
            assert_eq!(parsed(&packet).0.header.kind(), None, "{name}");
        }
    }
}
