//! The outer UDP source port: entropy that keeps one inner flow on one path (RFC 7348 section 5).
//!
//! Not `bpf_get_hash_recalc`: for anything but local TCP that dissects the packet again and hashes
//! it with `SipHash`, and the fields stand in the cache already.

use crate::wire::{Be16, EthernetHeader, Ipv4Header, Ipv6Header};

/// The two ports of TCP, UDP and SCTP, as they stand on the wire.
pub type Ports = [Be16; 2];

/// The one source port that does not arrive: Azure keeps it for its hosts.
const RESERVED: u16 = 65_330;

/// A source port from 49152 to 65535, the dynamic range that RFC 7348 recommends.
#[inline(always)]
#[must_use]
pub const fn source_port(hash: u32) -> u16 {
    match 0xc000 | (hash & 0x3fff) as u16 {
        RESERVED => RESERVED - 1,
        port => port,
    }
}

/// The flow of an IPv4 packet. `ports` only where the packet is no fragment: all fragments of a
/// datagram must take the same path as each other.
#[inline(always)]
#[must_use]
pub const fn ipv4(header: &Ipv4Header, ports: Option<Ports>) -> u32 {
    let addresses = (be32(header.source.0) as u64) << 32 | be32(header.destination.0) as u64;
    mix(addresses, pack(header.protocol().0, ports))
}

/// The flow of an IPv6 packet.
#[inline(always)]
#[must_use]
pub fn ipv6(header: &Ipv6Header, ports: Option<Ports>) -> u32 {
    let mut sum = 0_u64;
    let mut index = 0;
    while index < 8 {
        let pair = u64::from(header.source.0[index].get()) << 16 | u64::from(header.destination.0[index].get());
        sum = sum.rotate_left(9) ^ pair;
        index += 1;
    }
    mix(sum, pack(header.next_header().0, ports))
}

/// The conversation of any other frame: both MAC addresses and the type.
#[inline(always)]
#[must_use]
pub const fn ethernet(header: &EthernetHeader) -> u32 {
    mix(octets6(header.source.0), octets6(header.destination.0) ^ ((header.ether_type().0 as u64) << 48))
}

#[inline(always)]
const fn pack(protocol: u8, ports: Option<Ports>) -> u64 {
    let [from, to] = match ports {
        Some(ports) => [ports[0].get(), ports[1].get()],
        None => [0; 2],
    };
    (protocol as u64) << 32 | (from as u64) << 16 | to as u64
}

#[inline(always)]
const fn be32(octets: [u8; 4]) -> u32 {
    u32::from_be_bytes(octets)
}

#[inline(always)]
const fn octets6(octets: [u8; 6]) -> u64 {
    let high = u16::from_be_bytes([octets[0], octets[1]]) as u64;
    let low = u32::from_be_bytes([octets[2], octets[3], octets[4], octets[5]]) as u64;
    high << 32 | low
}

/// Two rounds of multiply and fold with the constants of `SplitMix64`: every input bit reaches the low ones.
#[inline(always)]
const fn mix(a: u64, b: u64) -> u32 {
    let mut hash = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 32;
    hash = (hash ^ b).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Ipv4Octets, Protocol};

    fn flow(source: [u8; 4], destination: [u8; 4], ports: Option<[u16; 2]>) -> u32 {
        let header = Ipv4Header::template(Protocol::UDP, 64, Ipv4Octets(source), Ipv4Octets(destination));
        ipv4(&header, ports.map(|ports| ports.map(Be16::new)))
    }

    #[test]
    fn the_port_that_does_not_arrive() {
        assert_eq!([0x3f31, 0x3f32, 0x3f33].map(source_port), [65_329, 65_329, 65_331]);
    }

    #[test]
    fn one_port_changed_spreads_over_the_range() {
        let ports: HashSet<u16> =
            (0..1024).map(|from| source_port(flow([10, 8, 0, 1], [10, 8, 0, 2], Some([from, 53])))).collect();
        // 1,024 balls in 16,384 bins leave about 31 collisions.
        assert!(ports.len() > 960, "{} different ports of 1024", ports.len());
    }

    proptest! {
        #[test]
        fn range(hash: u32) {
            prop_assert!(source_port(hash) >= 49152 && source_port(hash) != RESERVED);
        }
    }
}
