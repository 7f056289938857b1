//! What routers say about packets of this host that were too big for them, and how far they are believed.
//!
//! Such a message is not authenticated, but it quotes the packet: who can quote one of ours, down to the VNI, is on the path
//! or guesses well (RFC 5927 section 7). What he says is bounded all the same: never below what IPv6 asks of every link,
//! once a second at most, and forgotten after ten minutes (RFC 1191 section 6.3, RFC 8201 section 5.3).

use core::{fmt, net::IpAddr};

use bytemuck::AnyBitPattern;

use crate::wire::{
    Ipv4Header, Ipv6Header, Protocol, UdpHeader, VxlanHeader,
    icmp::{self, IcmpHeader},
};

/// What IPv6 asks of every link (RFC 8200 section 5): no path is believed to take less of an inner packet.
pub const LEAST_INNER: u32 = 1280;
/// How long a path is believed to take less than its first link.
pub const LIFETIME_NS: u64 = 600_000_000_000;
/// How long nobody is believed after somebody was.
pub const PAUSE_NS: u64 = 1_000_000_000;

/// "Fragmentation needed" or "packet too big", and what it quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// Octets of an outer packet that the next link takes.
    pub mtu: u32,
    /// Who sent the packet that did not fit.
    pub source: IpAddr,
    /// Where it was to go.
    pub destination: IpAddr,
    /// To which UDP port.
    pub port: u16,
    /// Of which network it was.
    pub vni: u32,
}

/// Why a message changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is about something else.
    OtherMatter,
    /// It breaks off, or its checksum is wrong.
    Damaged,
    /// It does not say what would fit (RFC 1191 section 5: an old router).
    NoMtu,
    /// It quotes no UDP, or a fragment without its beginning.
    NotUdp,
    /// The quote ends before the VNI: old routers quote eight octets of what was in the packet (RFC 792).
    ShortQuote,
    /// It quotes no VXLAN.
    NotVxlan,
    /// The quoted packet is not from an address of ours to a peer's mesh port in one of its networks.
    NotOurs,
    /// It says less than any path is believed to take.
    TooSmall,
    /// It says no less than is known.
    NothingNew,
    /// Somebody was believed less than a second ago.
    TooSoon,
}

impl Refusal {
    /// False for what happens all the time: news of something else, and what packets say that were on their way already.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        !matches!(self, Self::OtherMatter | Self::NothingNew)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherMatter => "it is about something else",
            Self::Damaged => "it is damaged",
            Self::NoMtu => "it says no MTU",
            Self::NotUdp => "it quotes no UDP datagram",
            Self::ShortQuote => "its quote ends before the VNI",
            Self::NotVxlan => "it quotes no VXLAN",
            Self::NotOurs => "what it quotes this host did not send to a peer",
            Self::TooSmall => "no path is believed to take so little",
            Self::NothingNew => "that is known",
            Self::TooSoon => "the last one was believed less than a second ago",
        })
    }
}

impl core::error::Error for Refusal {}

/// Reads an IPv4 packet as a raw ICMP socket hands it over, from its IP header on (RFC 792, RFC 1191 section 4).
///
/// # Errors
/// Why it changes nothing.
pub fn complaint_v4(packet: &[u8]) -> Result<Complaint, Refusal> {
    let outer: Ipv4Header = read(packet, 0).ok_or(Refusal::Damaged)?;
    let message = packet.get(outer.header_len().max(Ipv4Header::LEN)..).ok_or(Refusal::Damaged)?;
    let header: IcmpHeader = read(message, 0).ok_or(Refusal::Damaged)?;
    if (header.kind, header.code) != icmp::FRAGMENTATION_NEEDED {
        return Err(Refusal::OtherMatter);
    }
    // Unlike that of ICMPv6, the kernel does not check it for raw sockets.
    if icmp::sum(message) != 0xffff {
        return Err(Refusal::Damaged);
    }
    let mtu = u32::from(header.mtu_v4());
    let quote = &message[IcmpHeader::LEN..];
    let ip: Ipv4Header = read(quote, 0).ok_or(Refusal::ShortQuote)?;
    if ip.version() != 4 || ip.header_len() < Ipv4Header::LEN || ip.protocol() != Protocol::UDP || ip.is_late_fragment()
    {
        return Err(Refusal::NotUdp);
    }
    let (port, vni) = vxlan(quote, ip.header_len())?;
    said(Complaint { mtu, source: ip.source.into(), destination: ip.destination.into(), port, vni })
}

/// Reads an `ICMPv6` message as a raw socket hands it over, without an IP header (RFC 4443 section 3.2).
///
/// # Errors
/// Why it changes nothing.
pub fn complaint_v6(message: &[u8]) -> Result<Complaint, Refusal> {
    let header: IcmpHeader = read(message, 0).ok_or(Refusal::Damaged)?;
    if (header.kind, header.code) != icmp::PACKET_TOO_BIG {
        return Err(Refusal::OtherMatter);
    }
    let quote = &message[IcmpHeader::LEN..];
    let ip: Ipv6Header = read(quote, 0).ok_or(Refusal::ShortQuote)?;
    // Behind an extension header is nothing of ours.
    if ip.version() != 6 || ip.next_header() != Protocol::UDP {
        return Err(Refusal::NotUdp);
    }
    let (port, vni) = vxlan(quote, Ipv6Header::LEN)?;
    let (source, destination) = (ip.source.into(), ip.destination.into());
    said(Complaint { mtu: header.mtu_v6(), source, destination, port, vni })
}

fn vxlan(quote: &[u8], udp: usize) -> Result<(u16, u32), Refusal> {
    let header: UdpHeader = read(quote, udp).ok_or(Refusal::ShortQuote)?;
    let vxlan: VxlanHeader = read(quote, udp + UdpHeader::LEN).ok_or(Refusal::ShortQuote)?;
    match vxlan.vni() {
        _ if !vxlan.has_vni() => Err(Refusal::NotVxlan),
        // Only probes are in no network.
        0 if vxlan.mark().is_none() => Err(Refusal::NotOurs),
        vni => Ok((header.destination(), vni)),
    }
}

const fn said(complaint: Complaint) -> Result<Complaint, Refusal> {
    if complaint.mtu == 0 { Err(Refusal::NoMtu) } else { Ok(complaint) }
}

fn read<T: AnyBitPattern>(octets: &[u8], at: usize) -> Option<T> {
    octets.get(at..)?.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// What a path is believed to take, for a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Octets of an outer packet.
    pub mtu: u32,
    /// Until when, on the clock of `now_ns`.
    pub until_ns: u64,
}

impl Limit {
    /// True while it holds.
    #[must_use]
    pub const fn holds(self, now_ns: u64) -> bool {
        now_ns < self.until_ns
    }

    const fn since_ns(self) -> u64 {
        self.until_ns.saturating_sub(LIFETIME_NS)
    }
}

/// What follows from somebody's saying that a path takes `said` octets of an outer packet, where the first link takes
/// `link` octets, `before` was believed so far, and outer headers have `overhead` octets.
///
/// # Errors
/// Why he is not believed.
pub fn believe(said: u32, link: u32, before: Option<Limit>, overhead: u32, now_ns: u64) -> Result<Limit, Refusal> {
    let before = before.filter(|limit| limit.holds(now_ns));
    if said >= before.map_or(link, |limit| limit.mtu.min(link)) {
        return Err(Refusal::NothingNew);
    }
    if said < LEAST_INNER + overhead {
        return Err(Refusal::TooSmall);
    }
    if before.is_some_and(|limit| now_ns.saturating_sub(limit.since_ns()) < PAUSE_NS) {
        return Err(Refusal::TooSoon);
    }
    Ok(Limit { mtu: said, until_ns: now_ns.saturating_add(LIFETIME_NS) })
}

#[cfg(test)]
mod tests;
