//! ARP for IPv4 over Ethernet (RFC 826).

use bytemuck::{Pod, Zeroable};

use super::{Be16, EtherType, EthernetHeader, Ipv4Octets, MacAddr};

impl EtherType {
    /// RFC 826.
    pub const ARP: Self = Self(0x0806);
    /// RFC 903; what a hypervisor sends for a guest that has moved.
    pub const RARP: Self = Self(0x8035);
}

/// What an ARP packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// The 28 octets behind the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Arp {
    hardware_type: Be16,
    protocol_type: Be16,
    address_lengths: Be16,
    operation: Be16,
    /// Whose addresses these are.
    pub sender_mac: MacAddr,
    /// 0.0.0.0 in a probe (RFC 5227 section 2.1.1).
    pub sender: Ipv4Octets,
    /// Of no meaning in a request.
    pub target_mac: MacAddr,
    /// Who is asked for, or told.
    pub target: Ipv4Octets,
}

/// A frame of Ethernet and ARP in the units in which it can be copied.
pub type ArpFrame = [Be16; 21];

impl Arp {
    /// Octets on the wire; Ethernet pads what follows.
    pub const LEN: usize = 28;
    const ETHERNET: u16 = 1;
    const LENGTHS: u16 = 0x0604;

    /// What it is; `None` for other kinds of addresses and for other operations.
    #[inline(always)]
    #[must_use]
    pub const fn operation(&self) -> Option<ArpOperation> {
        let known = self.hardware_type.get() == Self::ETHERNET
            && self.protocol_type.get() == EtherType::IPV4.0
            && self.address_lengths.get() == Self::LENGTHS;
        match self.operation.get() {
            1 if known => Some(ArpOperation::Request),
            2 if known => Some(ArpOperation::Reply),
            _ => None,
        }
    }

    /// The frame with which the owner of the target address, who is at `mac`, answers this request.
    #[inline(always)]
    #[must_use]
    pub fn answer(&self, mac: MacAddr) -> ArpFrame {
        let ethernet = EthernetHeader::new(self.sender_mac, mac, EtherType::ARP);
        let reply = Self {
            operation: Be16::new(2),
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
            ..*self
        };
        bytemuck::must_cast(Answer { ethernet, reply })
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Answer {
    ethernet: EthernetHeader,
    reply: Arp,
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    /// Octets as they stand in RFC 826, written out by hand.
    pub(crate) fn octets(operation: u16, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Vec<u8> {
        let head = [0, 1, 8, 0, 6, 4].to_vec();
        let operation = operation.to_be_bytes().to_vec();
        [head, operation, sender.0.to_vec(), sender.1.to_vec(), target.0.to_vec(), target.1.to_vec()].concat()
    }

    pub(crate) fn parsed(octets: &[u8]) -> Arp {
        bytemuck::pod_read_unaligned(octets)
    }

    proptest! {
        #[test]
        fn answered_as_rfc_826_says(
            asker: ([u8; 6], [u8; 4]), meaningless: [u8; 6], target: [u8; 4], owner: [u8; 6],
        ) {
            let request = parsed(&octets(1, asker, (meaningless, target)));
            prop_assert_eq!(request.operation(), Some(ArpOperation::Request));
            let answer = request.answer(MacAddr(owner));
            let expected = [
                asker.0.to_vec(), owner.to_vec(), [8, 6].to_vec(), octets(2, (owner, target), asker),
            ].concat();
            prop_assert_eq!(bytemuck::bytes_of(&answer), expected.as_slice());
            prop_assert_eq!(parsed(&expected[14..]).operation(), Some(ArpOperation::Reply));
        }

        /// Whatever is not Ethernet and IPv4 is nothing that is known here.
        #[test]
        fn other_kinds_are_not_taken(index in 0..8_usize, octet: u8, operation in 1..=2_u16) {
            let mut frame = octets(operation, ([2; 6], [10, 0, 0, 1]), ([0; 6], [10, 0, 0, 2]));
            let before = frame[index];
            frame[index] = octet;
            let taken = octet == before || index == 7 && (1..=2).contains(&octet);
            prop_assert_eq!(parsed(&frame).operation().is_some(), taken, "{} at {}", octet, index);
        }
    }
}
