//! Frames that do not fit the path to their peer: found in every program that sends, treated in one of their own.

use l2mesh_common::{
    tables::{FdbKey, FloodList, PeerId, Way},
    too_big::{self, Oversize, Remedy, TooBigV4, TooBigV6},
    verdict::Verdict,
    wire::{EtherType, EthernetHeader, Ipv4Header, Ipv6Header, Protocol},
};

use crate::{
    Action, apart,
    capture::{self, Place},
    encap::{Departing, Hook, Route, route_to},
    flood::{count_copy, peer_at},
    packet::{Packet as _, Skb, Step, now_ns, repeat},
    storm, tables,
};

const L3: u32 = EthernetHeader::LEN as u32;

/// Octets of the greatest packet that a frame will be on the wire, without tags: a GSO frame becomes many.
#[inline(always)]
pub(crate) fn packet_len(skb: &Skb, untagged: &EthernetHeader) -> u32 {
    match skb.gso_size() {
        0 => skb.frame_len().saturating_sub(L3),
        segment => headers_len(skb, untagged) + segment,
    }
}

/// IP and transport header of a GSO frame. What cannot be read, and what segments of is not known here, counts too little:
/// then encapsulation refuses it.
#[inline(always)]
fn headers_len(skb: &Skb, untagged: &EthernetHeader) -> u32 {
    const TCP_OFFSET: u32 = 12;
    const UDP: u32 = 8;
    let (protocol, ip) = match untagged.ether_type() {
        EtherType::IPV4 => match skb.header::<Ipv4Header>(L3 as usize) {
            Some(ip) => (ip.protocol(), ip.header_len() as u32),
            None => return 0,
        },
        EtherType::IPV6 => match skb.header::<Ipv6Header>(L3 as usize) {
            Some(ip) => behind_extensions(skb, ip.next_header()),
            None => return 0,
        },
        _ => return 0,
    };
    let transport = match protocol {
        Protocol::TCP => skb.load::<u8>(L3 + ip + TCP_OFFSET).map_or(0, |octet| u32::from(octet >> 4) * 4),
        Protocol::UDP => UDP,
        _ => 0,
    };
    ip + transport
}

/// What stands behind the IPv6 header and its extensions, and where.
#[inline(always)]
fn behind_extensions(skb: &Skb, first: Protocol) -> (Protocol, u32) {
    /// As many as anybody sends.
    const MOST: usize = 4;
    let (mut protocol, mut at) = (first, Ipv6Header::LEN as u32);
    for _ in 0..MOST {
        if protocol.has_ports() {
            break;
        }
        let Some([next, length]) = skb.load::<[u8; 2]>(L3 + at) else { break };
        let Some(octets) = too_big::extension_len(protocol, length) else { break };
        at += octets;
        protocol = Protocol(next);
    }
    (protocol, at)
}

/// Goes on in the program for such frames; at the overlay interface's egress, by way of the hidden peer.
#[inline(always)]
pub(crate) fn elsewhere(skb: &mut Skb, departing: &Departing) -> Result<Action, Verdict> {
    if departing.hook == Hook::Overlay {
        return Err(Verdict::Declined);
    }
    skb.tag(&departing.tags)?;
    tables::call_too_big(skb);
    // It is not there.
    Err(Verdict::TooBig)
}

/// For a frame to one peer.
#[inline(always)]
pub(crate) fn unicast(skb: &mut Skb, departing: &Departing, peer: PeerId) -> Result<Action, Verdict> {
    let route = route_to(peer)?;
    let helper = if can_fragment(&route) { fragmenter() } else { 0 };
    match remedy(skb, departing, route.mtu, helper != 0) {
        Remedy::Tell(mtu) => tell(skb, departing, mtu),
        Remedy::Fragment => {
            skb.tag(&departing.tags)?;
            apart::tunnel(skb, departing, route.next_hop, 0)?;
            capture::sent(skb, Verdict::Fragmented, departing.frame.vni, peer, None);
            tables::count(Verdict::Fragmented, departing.frame.len);
            tables::count_sent_into(departing.network, departing.frame.len);
            route.count(departing, peer);
            Ok(Action::Redirect(helper))
        }
        Remedy::Drop => Err(Verdict::TooBig),
    }
}

/// For a frame to all peers, of which some have a path that does not take it. Who sent it to an unknown destination is told what
/// fits every path. Else copies that do not fit are fragmented, if they may be, and the others are still to be sent ([`Action::DONE`]).
#[inline(always)]
pub(crate) fn flooded(skb: &mut Skb, departing: &Departing, storm_limit: u32) -> Result<Action, Verdict> {
    let list = tables::flood_list(departing.frame.vni).ok_or(Verdict::NoPeers)?;
    let helper = fragmenter();
    let remedy = remedy(skb, departing, list.mtu.into(), helper != 0);
    if let Remedy::Tell(mtu) = remedy {
        return tell(skb, departing, mtu);
    }
    let source = FdbKey::new(departing.frame.vni, departing.frame.inner.source);
    storm::send_apart(storm_limit, departing.network, &source, skb.frames())?;
    let helper = if remedy == Remedy::Fragment { helper } else { 0 };
    skb.tag(&departing.tags)?;
    repeat(list.peer_count(), &mut Oversized { skb, departing, list, helper });
    skb.untag()?;
    Ok(Action::DONE)
}

/// The loop over a flood list, for the copies that do not fit.
struct Oversized<'a> {
    skb: &'a mut Skb,
    departing: &'a Departing,
    list: &'static FloodList,
    /// What fragments them; 0 if they must not be.
    helper: u32,
}

impl Step for Oversized<'_> {
    #[inline(always)]
    fn step(&mut self, place: u32) {
        if let Err(verdict) = self.send(peer_at(self.list, place)) {
            tables::count(verdict, self.departing.frame.len);
        }
    }
}

impl Oversized<'_> {
    #[inline(always)]
    fn send(&mut self, peer: PeerId) -> Result<(), Verdict> {
        // The caller counts what has no next hop.
        let Ok(route) = route_to(peer) else { return Ok(()) };
        if self.departing.packet <= route.mtu {
            return Ok(());
        }
        if self.helper == 0 || !can_fragment(&route) {
            return Err(Verdict::CopyTooBig);
        }
        apart::tunnel(self.skb, self.departing, route.next_hop, 0)?;
        capture::sent(self.skb, Verdict::Fragmented, self.departing.frame.vni, peer, None);
        self.skb.clone_to(self.helper)?;
        tables::count(Verdict::Fragmented, self.departing.frame.len);
        count_copy(self.departing, peer, &route);
        Ok(())
    }
}

/// The kernel fragments what it encapsulates in IPv4 only: in IPv6 it drops it (`ip6_fragment` in `net/ipv6/ip6_output.c`,
/// where `ignore_df` is not set). And it knows nothing of relays.
#[inline(always)]
fn can_fragment(route: &Route) -> bool {
    !route.is_relayed() && matches!(route.next_hop.way(), Way::V4 | Way::HelperV4)
}

/// The helper device where it can fragment, else 0. A program can tell it no port: it sends to the one that it holds.
#[inline(always)]
fn fragmenter() -> u32 {
    tables::settings().filter(|it| it.helper_port == it.port).map_or(0, |it| it.helper_ifindex)
}

/// What is to be done for a frame whose tags have been taken off.
#[inline(never)]
fn remedy(skb: &Skb, departing: &Departing, mtu: u32, can_fragment: bool) -> Remedy {
    let oversize = |ip_header: u32| Oversize {
        octets: departing.packet,
        mtu: departing.room(mtu),
        behind: skb.load(L3 + ip_header),
        to_group: departing.frame.inner.destination.is_group(),
        can_fragment,
    };
    match departing.carried {
        EtherType::IPV4 => match skb.header::<Ipv4Header>(L3 as usize) {
            Some(ip) => too_big::remedy_v4(ip, &oversize(ip.header_len() as u32)),
            None => Remedy::Drop,
        },
        EtherType::IPV6 => match skb.header::<Ipv6Header>(L3 as usize) {
            Some(ip) => too_big::remedy_v6(ip, &oversize(Ipv6Header::LEN as u32)),
            None => Remedy::Drop,
        },
        _ => Remedy::Drop,
    }
}

/// Makes the frame the answer to itself, and sends it back to where it came from.
#[inline(always)]
fn tell(skb: &mut Skb, departing: &Departing, mtu: u16) -> Result<Action, Verdict> {
    let (raw, mtu) = (skb.raw(), mtu.into());
    apart::from_bits(if departing.carried == EtherType::IPV4 {
        apart::tell_v4(raw, mtu)
    } else {
        apart::tell_v6(raw, mtu)
    })?;
    skb.tag(&departing.tags)?;
    tables::count(Verdict::TooBigTold, departing.frame.len);
    Ok(Action::Redirect(skb.ifindex()))
}

#[inline(always)]
pub(crate) fn tell_v4(skb: &mut Skb, mtu: u16) -> Result<(), Verdict> {
    let quote = tables::quote().ok_or(Verdict::TooBig)?;
    skb.quote::<{ TooBigV4::QUOTED }>(quote)?;
    let quoted = quote.sum::<{ TooBigV4::QUOTED }>();
    let ip = skb.header::<Ipv4Header>(L3 as usize).ok_or(Verdict::TooBig)?;
    limit(too_big::bucket_v4(ip))?;
    capture::dropped(skb, Verdict::TooBigTold, Place::Overlay);
    let ethernet = skb.header::<EthernetHeader>(0).ok_or(Verdict::TooBig)?;
    let ip = skb.header::<Ipv4Header>(L3 as usize).ok_or(Verdict::TooBig)?;
    quote.v4 = TooBigV4::new(ethernet, ip, mtu, quoted);
    skb.reshape(too_big::LEAST_V4, Ipv4Header::LEN as u32)?;
    skb.replace(0, &quote.v4)?;
    skb.store_quote::<{ TooBigV4::QUOTED }>(size_of::<TooBigV4>(), quote)
}

#[inline(always)]
pub(crate) fn tell_v6(skb: &mut Skb, mtu: u16) -> Result<(), Verdict> {
    let quote = tables::quote().ok_or(Verdict::TooBig)?;
    skb.quote::<{ TooBigV6::QUOTED }>(quote)?;
    let quoted = quote.sum::<{ TooBigV6::QUOTED }>();
    let ip = skb.header::<Ipv6Header>(L3 as usize).ok_or(Verdict::TooBig)?;
    limit(too_big::bucket_v6(ip))?;
    capture::dropped(skb, Verdict::TooBigTold, Place::Overlay);
    let ethernet = skb.header::<EthernetHeader>(0).ok_or(Verdict::TooBig)?;
    let ip = skb.header::<Ipv6Header>(L3 as usize).ok_or(Verdict::TooBig)?;
    quote.v6 = TooBigV6::new(ethernet, ip, mtu, quoted);
    skb.reshape(too_big::LEAST_V6, Ipv6Header::LEN as u32)?;
    skb.replace(0, &quote.v6)?;
    skb.store_quote::<{ TooBigV6::QUOTED }>(size_of::<TooBigV6>(), quote)
}

/// So many answers to one source, and no more.
#[inline(always)]
fn limit(bucket: u32) -> Result<(), Verdict> {
    let full_at = tables::answers(bucket).ok_or(Verdict::TooBigSilent)?;
    // Two processors at once may give one too many.
    *full_at = too_big::after_answer(*full_at, now_ns()).ok_or(Verdict::TooBigSilent)?;
    Ok(())
}
