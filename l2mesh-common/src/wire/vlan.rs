//! VLAN tags (IEEE 802.1Q clause 9) that the kernel keeps beside a frame and encapsulation puts back into it.

use super::{Be16, EtherType, EthernetHeader};

/// At most two tags taken off a frame, the outermost first: 802.1Q, or 802.1ad with a customer tag inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tags {
    count: u32,
    first: Tag,
    second: Tag,
}

/// One tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag {
    /// [`EtherType::VLAN`] or [`EtherType::QINQ`].
    pub protocol: EtherType,
    /// Priority, drop eligibility and VLAN id.
    pub control: u16,
}

impl Tag {
    /// Octets on the wire.
    pub const LEN: u32 = 4;
}

impl Tags {
    /// An untagged frame.
    pub const NONE: Self = Self { count: 0, first: Tag::ZERO, second: Tag::ZERO };

    /// One tag.
    #[inline(always)]
    #[must_use]
    pub const fn one(tag: Tag) -> Self {
        Self { count: 1, first: tag, second: Tag::ZERO }
    }

    /// Two tags.
    #[inline(always)]
    #[must_use]
    pub const fn two(outer: Tag, inner: Tag) -> Self {
        Self { count: 2, first: outer, second: inner }
    }

    /// How many.
    #[inline(always)]
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Octets on the wire, all together.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> u32 {
        self.count * Tag::LEN
    }

    /// The outermost tag, if there is one.
    #[inline(always)]
    #[must_use]
    pub const fn first(&self) -> Tag {
        self.first
    }

    /// The tag behind it, if there are two.
    #[inline(always)]
    #[must_use]
    pub const fn second(&self) -> Tag {
        self.second
    }

    /// The Ethernet header of the tagged frame, and what stands behind it: as many words as there are tags, each as it is in
    /// memory. `untagged` is the header of the frame without the tags.
    #[inline(always)]
    #[must_use]
    pub fn around(&self, untagged: EthernetHeader) -> (EthernetHeader, [u32; 2]) {
        let (destination, source, carried) = (untagged.destination, untagged.source, untagged.ether_type());
        match self.count {
            0 => (untagged, [0; 2]),
            1 => {
                let header = EthernetHeader::new(destination, source, self.first.protocol);
                (header, [self.first.before(carried), 0])
            }
            _ => {
                let header = EthernetHeader::new(destination, source, self.first.protocol);
                (header, [self.first.before(self.second.protocol), self.second.before(carried)])
            }
        }
    }
}

impl Tag {
    const ZERO: Self = Self { protocol: EtherType(0), control: 0 };

    /// Control and what the frame goes on with.
    #[inline(always)]
    const fn before(self, next: EtherType) -> u32 {
        let (control, next) = (Be16::new(self.control).octets(), Be16::new(next.0).octets());
        control as u32 | (next as u32) << 16
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::MacAddr;

    proptest! {
        #[test]
        fn octets_as_on_the_wire(macs: [[u8; 6]; 2], controls: [u16; 2], count in 0..=2_u32) {
            let untagged = EthernetHeader::new(MacAddr(macs[0]), MacAddr(macs[1]), EtherType::IPV4);
            let outer = Tag { protocol: if count == 2 { EtherType::QINQ } else { EtherType::VLAN }, control: controls[0] };
            let inner = Tag { protocol: EtherType::VLAN, control: controls[1] };
            let tags = match count {
                0 => Tags::NONE,
                1 => Tags::one(outer),
                _ => Tags::two(outer, inner),
            };
            let (header, words) = tags.around(untagged);
            let written: Vec<u8> = [
                bytemuck::bytes_of(&header),
                &bytemuck::bytes_of(&words)[..tags.octets() as usize],
            ].concat();
            let expected: Vec<u8> = [
                macs[0].to_vec(), macs[1].to_vec(),
                if count == 2 { [&[0x88, 0xa8], &controls[0].to_be_bytes()[..]].concat() } else { Vec::new() },
                if count > 0 { [&[0x81, 0], &controls[count as usize - 1].to_be_bytes()[..]].concat() } else { Vec::new() },
                [8, 0].to_vec(),
            ].concat();
            prop_assert_eq!(written, expected);
        }
    }
}
