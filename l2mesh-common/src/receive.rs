//! Whose a received underlay frame is, from its headers alone.

use crate::{
    tables::{Settings, VtepAddress},
    verdict::Verdict,
    wire::{
        EtherType, EthernetHeader, Ipv4Header, Ipv4Octets, Ipv6Header, Ipv6Octets, OuterV4, OuterV6, Protocol,
        UdpHeader, VxlanHeader,
    },
};

/// Octets of UDP header, VXLAN header and the shortest inner frame.
const SHORTEST_DATAGRAM: u16 = (UdpHeader::LEN + VxlanHeader::LEN + EthernetHeader::LEN) as u16;

/// The VNI of a frame that is VXLAN to this host, 0 for a probe, or why it is not taken. `frame_len` counts from the outer
/// Ethernet header on. Whether VNI and source are ours is for the tables to say.
///
/// # Errors
/// A verdict that passes where somebody else may have a use for the frame, one that drops where nobody can.
#[inline(always)]
pub fn classify(outer: &OuterV4, frame_len: u32, settings: &Settings) -> Result<u32, Verdict> {
    let ip = &outer.ip;
    if outer.ethernet.ether_type() != EtherType::IPV4 {
        return Err(Verdict::NotVxlan);
    }
    if ip.version() != 4 || ip.header_len() < Ipv4Header::LEN {
        return Err(Verdict::BadIpHeader);
    }
    if ip.protocol() != Protocol::UDP {
        return Err(Verdict::NotVxlan);
    }
    if ip.is_fragment() {
        return Err(Verdict::Fragment);
    }
    if ip.header_len() > Ipv4Header::LEN {
        return Err(Verdict::IpOptions);
    }
    // A host that routes sees other people's VXLAN too.
    if outer.udp.destination() != settings.port || !is_local(settings, ip.destination) {
        return Err(Verdict::NotVxlan);
    }
    let (packet, datagram) = (ip.total_length(), outer.udp.length());
    if u32::from(packet) + EthernetHeader::LEN as u32 > frame_len
        || u32::from(datagram) + Ipv4Header::LEN as u32 > u32::from(packet)
        || datagram < SHORTEST_DATAGRAM
    {
        return Err(Verdict::Truncated);
    }
    vni(&outer.vxlan)
}

/// The same over IPv6. What stands behind an extension header is left to the kernel.
///
/// # Errors
/// As for [`classify`].
#[inline(always)]
pub fn classify_v6(outer: &OuterV6, frame_len: u32, settings: &Settings) -> Result<u32, Verdict> {
    let ip = &outer.ip;
    if outer.ethernet.ether_type() != EtherType::IPV6 {
        return Err(Verdict::NotVxlan);
    }
    if ip.version() != 6 {
        return Err(Verdict::BadIpHeader);
    }
    if ip.next_header() == Protocol::IPV6_FRAGMENT {
        return Err(Verdict::Fragment);
    }
    if ip.next_header() != Protocol::UDP {
        return Err(Verdict::NotVxlan);
    }
    if outer.udp.destination() != settings.port || !is_local_v6(settings, ip.destination) {
        return Err(Verdict::NotVxlan);
    }
    // The tables have IPv4 peers in that form, and nobody sends it (`ip6_rcv_core` in net/ipv6/ip6_input.c).
    if ip.source.is_mapped() {
        return Err(Verdict::UnknownSource);
    }
    let (payload, datagram) = (ip.payload_length(), outer.udp.length());
    if u32::from(payload) + (EthernetHeader::LEN + Ipv6Header::LEN) as u32 > frame_len
        || datagram > payload
        || datagram < SHORTEST_DATAGRAM
    {
        return Err(Verdict::Truncated);
    }
    vni(&outer.vxlan)
}

#[inline(always)]
fn vni(vxlan: &VxlanHeader) -> Result<u32, Verdict> {
    if !vxlan.has_vni() {
        return Err(Verdict::NoVniFlag);
    }
    match vxlan.vni() {
        0 if vxlan.mark().is_none() => Err(Verdict::OtherVni),
        vni => Ok(vni),
    }
}

/// What to do with a frame too short for [`classify`]: it is passed on unless it is IPv4 that breaks off before
/// its UDP ports, which no receiver can use, or breaks off behind them and goes to our port.
#[inline(always)]
#[must_use]
pub fn classify_short(
    ethernet: &EthernetHeader,
    ip: Option<&Ipv4Header>,
    udp: Option<&UdpHeader>,
    settings: &Settings,
) -> Verdict {
    if ethernet.ether_type() != EtherType::IPV4 {
        return Verdict::NotVxlan;
    }
    let Some(ip) = ip else { return Verdict::Truncated };
    if ip.version() != 4 || ip.header_len() < Ipv4Header::LEN {
        return Verdict::BadIpHeader;
    }
    if ip.protocol() != Protocol::UDP || ip.is_fragment() || ip.header_len() > Ipv4Header::LEN {
        return Verdict::NotVxlan;
    }
    match udp {
        Some(udp) if udp.destination() != settings.port || !is_local(settings, ip.destination) => Verdict::NotVxlan,
        Some(_) | None => Verdict::Truncated,
    }
}

/// What to do with a frame too short for [`classify_v6`].
#[inline(always)]
#[must_use]
pub fn classify_short_v6(ip: Option<&Ipv6Header>, udp: Option<&UdpHeader>, settings: &Settings) -> Verdict {
    let Some(ip) = ip else { return Verdict::Truncated };
    if ip.version() != 6 {
        return Verdict::BadIpHeader;
    }
    if ip.next_header() != Protocol::UDP {
        return Verdict::NotVxlan;
    }
    match udp {
        Some(udp) if udp.destination() != settings.port || !is_local_v6(settings, ip.destination) => Verdict::NotVxlan,
        Some(_) | None => Verdict::Truncated,
    }
}

#[inline(always)]
fn is_local(settings: &Settings, address: Ipv4Octets) -> bool {
    let [a, b, c, d] = settings.local;
    address == a || address == b || address == c || address == d
}

#[inline(always)]
fn is_local_v6(settings: &Settings, address: Ipv6Octets) -> bool {
    let [a, b, c, d] = settings.local_v6;
    let address = VtepAddress::v6(address);
    address == a || address == b || address == c || address == d
}

#[cfg(test)]
mod tests;
