//! What becomes of a packet that does not fit the path to its peer: its sender is told what does (RFC 792, RFC 1191,
//! RFC 4443), or the outer packet is fragmented, where the sender does not ask to be told or cannot go lower.
//!
//! The answer is the one that the kernel's vxlan device gives as a port of a bridge (`iptunnel_pmtud_build_icmp` and
//! `iptunnel_pmtud_build_icmpv6` in `net/ipv4/ip_tunnel_core.c`): it comes from where the packet was to go, because nobody
//! on the way has an address in the overlay.

use bytemuck::{Pod, Zeroable};

use crate::wire::{Be16, EthernetHeader, IcmpHeader, Ipv4Header, Ipv6Header, Protocol, icmp, ip::fold};

/// What every IPv4 host takes (RFC 791 section 3.1): nobody is told less, and Linux would not believe it
/// (`ip_rt_min_pmtu`).
pub const LEAST_V4: u32 = 576;
/// What IPv6 asks of every link, by fragmentation below it where need be (RFC 8200 section 5): nobody is told less.
pub const LEAST_V6: u32 = 1280;

/// Octets of a packet that are quoted at most.
pub const QUOTED_MAX: usize = TooBigV6::QUOTED;
/// Hop limit of an answer.
const TTL: u8 = 64;

/// What is done for a packet that does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Its sender is told that packets of so many octets fit.
    Tell(u16),
    /// The outer packet is fragmented.
    Fragment,
    /// None: it ends here.
    Drop,
}

/// A packet that does not fit, besides its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Oversize {
    /// Octets of it, or of the greatest segment of a GSO frame.
    pub octets: u32,
    /// Octets that fit.
    pub mtu: u32,
    /// The four octets behind the IP header.
    pub behind: Option<[u8; 4]>,
    /// Its frame goes to a group MAC address.
    pub to_group: bool,
    /// The outer packet can be fragmented. Where it cannot, a sender is told that did not ask to be (RFC 792 has it with DF
    /// only): it is that or silence, and Linux listens.
    pub can_fragment: bool,
}

/// For an IPv4 packet.
#[inline(always)]
#[must_use]
pub fn remedy_v4(ip: &Ipv4Header, oversize: &Oversize) -> Remedy {
    let &Oversize { octets, mtu, behind, to_group, can_fragment } = oversize;
    if ip.version() != 4 || ip.header_len() < Ipv4Header::LEN {
        return Remedy::Drop;
    }
    let is_least = octets <= LEAST_V4;
    if can_fragment && (is_least || !ip.has_dont_fragment()) {
        return Remedy::Fragment;
    }
    // RFC 1122 section 3.2.2.
    let is_error = ip.protocol() == Protocol::ICMP && behind.is_none_or(|[kind, ..]| icmp::is_error_v4(kind));
    if is_least
        || to_group
        || is_error
        || ip.is_late_fragment()
        || !ip.source.is_valid_source()
        || ip.destination.is_group()
    {
        return Remedy::Drop;
    }
    Remedy::Tell(told(mtu, LEAST_V4))
}

/// The same for IPv6, which is told always. What stands behind extension headers is not looked for.
#[inline(always)]
#[must_use]
pub fn remedy_v6(ip: &Ipv6Header, oversize: &Oversize) -> Remedy {
    let &Oversize { octets, mtu, behind, to_group, can_fragment } = oversize;
    if ip.version() != 6 {
        return Remedy::Drop;
    }
    let is_least = octets <= LEAST_V6;
    if can_fragment && is_least {
        return Remedy::Fragment;
    }
    // RFC 4443 section 2.4 (e).
    let is_refused = match ip.next_header() {
        Protocol::ICMPV6 => behind.is_none_or(|[kind, ..]| icmp::is_error_v6(kind)),
        Protocol::IPV6_FRAGMENT => behind.is_none_or(|[_, _, high, low]| u16::from_be_bytes([high, low]) & !7 != 0),
        _ => false,
    };
    if is_least || to_group || is_refused || !ip.source.is_valid_source() || ip.destination.is_group() {
        return Remedy::Drop;
    }
    Remedy::Tell(told(mtu, LEAST_V6))
}

/// Buckets of the rate limit.
pub const BUCKETS: u32 = 256;

/// The bucket of the packet's source.
#[inline(always)]
#[must_use]
pub const fn bucket_v4(ip: &Ipv4Header) -> u32 {
    let [a, b, c, d] = ip.source.0;
    (a ^ b ^ c ^ d) as u32
}

/// The bucket of the packet's source.
#[inline(always)]
#[must_use]
pub fn bucket_v6(ip: &Ipv6Header) -> u32 {
    let [high, low] = ip.source.0.iter().fold(0, |sum, word| sum ^ word.get()).to_be_bytes();
    u32::from(high ^ low)
}

/// A source is told ten times a second, and 16 times at once: it keeps what it was told, for each of its destinations
/// (RFC 1191 section 6.3). `full_at_ns` is when its bucket is full again; returns the same after one answer more.
#[inline(always)]
#[must_use]
pub const fn after_answer(full_at_ns: u64, now_ns: u64) -> Option<u64> {
    const INTERVAL_NS: u64 = 100_000_000;
    const DEPTH_NS: u64 = 16 * INTERVAL_NS;
    let from = if full_at_ns > now_ns { full_at_ns } else { now_ns };
    if from - now_ns < DEPTH_NS { Some(from + INTERVAL_NS) } else { None }
}

#[inline(always)]
const fn told(mtu: u32, least: u32) -> u16 {
    let mtu = if mtu < least { least } else { mtu };
    if mtu > u16::MAX as u32 { u16::MAX } else { mtu as u16 }
}

/// Octets behind an IPv6 extension header's first two, from `next_header` of the header before: how far the next one is.
/// `None` for what is no such header (RFC 8200 section 4, RFC 4302 section 2.2).
#[inline(always)]
#[must_use]
pub const fn extension_len(kind: Protocol, length: u8) -> Option<u32> {
    match kind.0 {
        // Hop by hop, routing, destination options, mobility, HIP, shim6.
        0 | 43 | 60 | 135 | 139 | 140 => Some((length as u32 + 1) * 8),
        44 => Some(8),
        51 => Some((length as u32 + 2) * 4),
        _ => None,
    }
}

/// What stands before the quoted part of an IPv4 packet that was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TooBigV4 {
    ethernet: EthernetHeader,
    ip: Ipv4Header,
    icmp: IcmpHeader,
}

impl TooBigV4 {
    /// Octets that are quoted: the answer is of the size that every host takes (RFC 1812 section 4.3.2.3).
    pub const QUOTED: usize = LEAST_V4 as usize - Ipv4Header::LEN - IcmpHeader::LEN;

    /// The answer to a packet: packets of `mtu` octets fit. `quoted` is the one's complement sum of what is quoted.
    #[inline(always)]
    #[must_use]
    pub fn new(ethernet: &EthernetHeader, ip: &Ipv4Header, mtu: u16, quoted: u16) -> Self {
        let mut icmp = IcmpHeader::fragmentation_needed(mtu);
        icmp.checksum = Be16::new(!fold(icmp.words_sum() + u32::from(quoted)));
        let ip = Ipv4Header::template(Protocol::ICMP, TTL, ip.destination, ip.source).sized(LEAST_V4 as u16);
        Self { ethernet: back(ethernet), ip, icmp }
    }
}

/// What stands before the quoted part of an IPv6 packet that was too big.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct TooBigV6 {
    ethernet: EthernetHeader,
    ip: Ipv6Header,
    icmp: IcmpHeader,
}

impl TooBigV6 {
    /// Octets that are quoted: as much as possible (RFC 4443 section 3.2).
    pub const QUOTED: usize = LEAST_V6 as usize - Ipv6Header::LEN - IcmpHeader::LEN;

    /// The answer to a packet: packets of `mtu` octets fit. `quoted` is the one's complement sum of what is quoted.
    #[inline(always)]
    #[must_use]
    pub fn new(ethernet: &EthernetHeader, ip: &Ipv6Header, mtu: u16, quoted: u16) -> Self {
        let payload = LEAST_V6 as u16 - Ipv6Header::LEN as u16;
        let ip = Ipv6Header::template(Protocol::ICMPV6, TTL, ip.destination, ip.source).sized(payload);
        let mut icmp = IcmpHeader::packet_too_big(mtu);
        icmp.checksum = Be16::new(!fold(icmp.words_sum() + ip.pseudo_header_sum() + u32::from(quoted)));
        Self { ethernet: back(ethernet), ip, icmp }
    }
}

#[inline(always)]
const fn back(to: &EthernetHeader) -> EthernetHeader {
    EthernetHeader::new(to.source, to.destination, to.ether_type())
}

/// Folds what `bpf_csum_diff` returns, a sum over 32-bit words as they are in memory, to a sum of 16-bit words in host order.
#[inline(always)]
#[must_use]
pub const fn fold_memory(sum: u32) -> u16 {
    u16::from_be(fold((sum & 0xffff) + (sum >> 16)))
}

#[cfg(test)]
mod tests;
