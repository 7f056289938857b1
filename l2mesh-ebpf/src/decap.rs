//! Frames from the underlay: the outer header off in XDP or in TC, the rest always in TC.

use l2mesh_common::{
    ecn,
    receive::{classify, classify_short, classify_short_v6, classify_v6},
    tables::{FdbKey, Metadata, Network, PeerId, Point, Settings, VtepAddress},
    verdict::Verdict,
    wire::{
        Be16, EncapsulatedV4, EncapsulatedV6, EtherType, EthernetHeader, Ipv4Header, Ipv6Header, Mark, OuterV4,
        OuterV6, Protocol, Tag, UdpHeader, Vni, VxlanHeader,
    },
};

use crate::{
    Action, apart, capture,
    learn::{learn, tell},
    packet::{Family, Frame, Packet, Skb},
    relay::{self, Marked},
    storm, suppress, tables,
};

/// A frame with VXLAN headers to this host.
pub(crate) struct Arrived {
    pub(crate) family: Family,
    /// 0 for a probe.
    pub(crate) vni: u32,
    pub(crate) source: VtepAddress,
    /// DSCP and ECN of the outer header.
    pub(crate) tos: u8,
    pub(crate) udp: UdpHeader,
    pub(crate) vxlan: VxlanHeader,
    pub(crate) inner: EthernetHeader,
}

/// A received frame of one of our networks, from one of its members.
pub(crate) struct Admitted {
    vni: Vni,
    peer: PeerId,
    network: &'static Network,
    inner: EthernetHeader,
}

/// What XDP does with a frame.
pub(crate) enum Onward {
    /// Up into the host.
    Up,
    /// Back out of the interface.
    Back,
    /// It ends here, having said what it had to say.
    Ended,
}

/// Takes the outer header off and marks the frame for [`underlay_tc`], so that GRO merges what was inside.
#[inline(always)]
pub(crate) fn underlay_xdp(frame: &mut Frame) -> Result<Onward, Verdict> {
    let settings = tables::settings().ok_or(Verdict::NotVxlan)?;
    let arrived = headers(frame, settings)?;
    let mut origin = None;
    if !arrived.vxlan.is_plain() {
        match relay::marked(frame, settings, &arrived)? {
            Marked::Sent(_) => {
                capture::forwarded(frame);
                return Ok(Onward::Back);
            }
            Marked::Heard => return Ok(Onward::Ended),
            Marked::From(peer) => origin = Some(peer),
        }
    }
    let admitted = admit(&arrived, origin)?;
    let marked = congestion(frame, &arrived)?;
    let mark = Metadata::new(admitted.vni.get(), admitted.peer);
    // First, because its failure leaves the frame whole: TC decapsulates then.
    frame.reserve_metadata::<Metadata>()?;
    frame.pop_outer(arrived.family)?;
    frame.store_metadata(&mark)?;
    mark_congestion(frame, &arrived.inner, marked)?;
    Ok(Onward::Up)
}

/// Delivers what [`underlay_xdp`] marked, decapsulates what is still whole, leaves the rest to others.
#[inline(always)]
pub(crate) fn underlay_tc(skb: &mut Skb) -> Result<Action, Verdict> {
    let admitted = match marked(skb) {
        Some(admitted) => admitted?,
        None => match decapsulated(skb)? {
            Arrival::Admitted(admitted) => admitted,
            Arrival::Done(action) => return Ok(action),
        },
    };
    deliver(skb, &admitted)
}

/// A frame without outer header that [`underlay_xdp`] marked. Passed on, it would enter the host's stack as the NIC's own.
#[inline(always)]
fn marked(skb: &Skb) -> Option<Result<Admitted, Verdict>> {
    let mark = skb.metadata::<Metadata>().copied().filter(|mark| mark.magic == Metadata::MAGIC)?;
    let admitted = || {
        let vni = Vni::new(mark.vni).map_err(|_| Verdict::NotOurVni)?;
        let network = tables::network(mark.vni).ok_or(Verdict::NotOurVni)?;
        let inner = *skb.header::<EthernetHeader>(0).ok_or(Verdict::Truncated)?;
        Ok(Admitted { vni, peer: mark.peer.into(), network, inner })
    };
    Some(admitted())
}

/// What is left to do with a frame.
enum Arrival {
    /// It is to be delivered.
    Admitted(Admitted),
    /// Nothing but this.
    Done(Action),
}

#[inline(always)]
fn decapsulated(skb: &mut Skb) -> Result<Arrival, Verdict> {
    // A tagged frame belongs to a VLAN interface above this one.
    if skb.is_tagged() {
        return Err(Verdict::NotVxlan);
    }
    let settings = tables::settings().ok_or(Verdict::NotVxlan)?;
    // With the inner IP header, where the frame has one: cards that split frames leave little of it in one piece.
    skb.pull((EncapsulatedV6::LEN + Ipv6Header::LEN) as u32);
    let arrived = match headers(skb, settings) {
        Err(Verdict::Fragment) if settings.helper_port != settings.port => return Err(first_fragment(skb, settings)),
        other => other?,
    };
    let mut origin = None;
    if !arrived.vxlan.is_plain() {
        match apart::marked(skb)? {
            Marked::Sent(ifindex) => {
                capture::forwarded(skb);
                return Ok(Arrival::Done(Action::Redirect(ifindex)));
            }
            Marked::Heard => return Ok(Arrival::Done(Action::DONE)),
            Marked::From(peer) => origin = Some(peer),
        }
    }
    let marked = congestion(skb, &arrived)?;
    if is_for_helper(skb, &arrived) {
        if let Some(peer) = origin {
            // The kernel drops what has reserved bits set.
            let plain = VxlanHeader::marked(arrived.vni, Mark::NONE);
            skb.replace(arrived.family.outer() - VxlanHeader::LEN as u32, &plain)?;
            skb.set_origin(peer);
        }
        return Err(hand_over(skb, settings, &arrived));
    }
    let admitted = admit(&arrived, origin)?;
    if arrived.udp.has_checksum() {
        skb.forget_outer_checksum();
    }
    if skb.pop_outer(arrived.family).is_err() {
        return Err(hand_over(skb, settings, &arrived));
    }
    skb.store_bytes(&arrived.inner)?;
    mark_congestion(skb, &arrived.inner, marked)?;
    Ok(Arrival::Admitted(admitted))
}

/// [`relay::marked`] for a frame at TC, of which nothing is known but what is in it.
#[inline(always)]
pub(crate) fn marked_tc(skb: &mut Skb) -> Result<Marked, Verdict> {
    let settings = tables::settings().ok_or(Verdict::NotVxlan)?;
    let arrived = headers(skb, settings)?;
    relay::marked(skb, settings, &arrived)
}

/// What came through the kernel's own receive path: reassembled, or merged by its GRO. The helper device
/// listens alone, so that a frame which is not ours ends here.
#[inline(always)]
pub(crate) fn helper_tc(skb: &mut Skb) -> Result<Action, Verdict> {
    let inner = *skb.header::<EthernetHeader>(0).ok_or(Verdict::Truncated)?;
    if inner.is_self_test() {
        return Err(Verdict::SelfTest);
    }
    let (id, source) = skb.tunnel().ok_or(Verdict::UnknownSource)?;
    let vni = Vni::new(id).map_err(|_| Verdict::NotOurVni)?;
    let network = tables::network(id).ok_or(Verdict::NotOurVni)?;
    let peer = match skb.take_origin() {
        // What was known when it was handed over holds, unless somebody else can say so too.
        Some(origin) if network.has_member(origin) => relay::relayed_for(&source, origin)?,
        Some(_) => return Err(Verdict::RelayedOrigin),
        None => member(network, source)?,
    };
    check_inner(vni, peer, network, &inner, skb.frames())?;
    deliver(skb, &Admitted { vni, peer, network, inner })
}

/// The headers of a VXLAN frame to this host.
#[inline(always)]
pub(crate) fn headers(packet: &impl Packet, settings: &Settings) -> Result<Arrived, Verdict> {
    let Some(EncapsulatedV4 { outer, inner }) = packet.header(0) else { return Err(short(packet, settings)) };
    if outer.ethernet.ether_type() == EtherType::IPV6 {
        return headers_v6(packet, settings);
    }
    let vni = classify(outer, packet.frame_len(), settings)?;
    let &OuterV4 { ip, udp, vxlan, .. } = outer;
    let inner = *inner;
    Ok(Arrived { family: Family::V4, vni, source: VtepAddress::v4(ip.source), tos: ip.tos(), udp, vxlan, inner })
}

#[inline(always)]
fn headers_v6(packet: &impl Packet, settings: &Settings) -> Result<Arrived, Verdict> {
    let Some(EncapsulatedV6 { outer, inner }) = packet.header(0) else { return Err(short(packet, settings)) };
    let vni = classify_v6(outer, packet.frame_len(), settings)?;
    let &OuterV6 { ip, udp, vxlan, .. } = outer;
    let inner = *inner;
    let source = VtepAddress::v6(ip.source);
    Ok(Arrived { family: Family::V6, vni, source, tos: ip.traffic_class(), udp, vxlan, inner })
}

#[inline(always)]
fn short(packet: &impl Packet, settings: &Settings) -> Verdict {
    const IP: usize = EthernetHeader::LEN;
    let Some(ethernet) = packet.header::<EthernetHeader>(0) else { return Verdict::NotVxlan };
    if ethernet.ether_type() == EtherType::IPV6 {
        let udp = packet.header::<UdpHeader>(IP + Ipv6Header::LEN);
        classify_short_v6(packet.header::<Ipv6Header>(IP), udp, settings)
    } else {
        let udp = packet.header::<UdpHeader>(IP + Ipv4Header::LEN);
        classify_short(ethernet, packet.header::<Ipv4Header>(IP), udp, settings)
    }
}

/// What a congestion mark on the way makes of the inner TOS octet or traffic class (RFC 6040).
#[inline(always)]
fn congestion(packet: &impl Packet, arrived: &Arrived) -> Result<Option<u8>, Verdict> {
    const V4: usize = EncapsulatedV4::LEN;
    const V6: usize = EncapsulatedV6::LEN;
    if !ecn::matters(arrived.tos) {
        return Ok(None);
    }
    let inner = match arrived.family {
        Family::V4 => inner_tos::<V4>(packet, &arrived.inner),
        Family::V6 => inner_tos::<V6>(packet, &arrived.inner),
    };
    match inner {
        Some(inner) => ecn::inner_tos(arrived.tos, inner).map_err(|ecn::Unmarkable| Verdict::Unmarkable),
        None => Ok(None),
    }
}

/// DSCP and ECN of the IP header at an offset. Behind a tag there is no telling: neither can the kernel's vxlan device.
#[inline(always)]
fn inner_tos<const OFFSET: usize>(packet: &impl Packet, inner: &EthernetHeader) -> Option<u8> {
    match inner.ether_type() {
        EtherType::IPV4 => packet.header::<Ipv4Header>(OFFSET).map(Ipv4Header::tos),
        EtherType::IPV6 => packet.header::<Ipv6Header>(OFFSET).map(Ipv6Header::traffic_class),
        _ => None,
    }
}

/// Writes what [`congestion`] found into a frame without outer header.
#[inline(always)]
fn mark_congestion(packet: &mut impl Packet, inner: &EthernetHeader, marked: Option<u8>) -> Result<(), Verdict> {
    const L3: usize = EthernetHeader::LEN;
    let Some(tos) = marked else { return Ok(()) };
    if inner.ether_type() == EtherType::IPV4 {
        let ip = packet.header::<Ipv4Header>(L3).ok_or(Verdict::StoreFailed)?.with_tos(tos);
        packet.replace(L3 as u32, &ip)
    } else {
        let ip = packet.header::<Ipv6Header>(L3).ok_or(Verdict::StoreFailed)?.with_traffic_class(tos);
        packet.replace(L3 as u32, &ip)
    }
}

/// Inner TCP is worth more merged than decapsulated early, and all frames of a flow must take one way: the choice is by
/// what a frame is, not by whether it happened to be merged. The firewall test must go the way that it tests.
#[inline(always)]
fn is_for_helper(skb: &Skb, arrived: &Arrived) -> bool {
    const V4: usize = EncapsulatedV4::LEN;
    const V6: usize = EncapsulatedV6::LEN;
    skb.is_gso()
        || arrived.inner.is_self_test()
        || match arrived.family {
            Family::V4 => carries_tcp::<V4, { V4 + Tag::LEN as usize }>(skb, &arrived.inner),
            Family::V6 => carries_tcp::<V6, { V6 + Tag::LEN as usize }>(skb, &arrived.inner),
        }
}

/// TCP, also behind one tag; behind two nobody looks.
#[inline(always)]
fn carries_tcp<const L3: usize, const TAGGED_L3: usize>(skb: &Skb, inner: &EthernetHeader) -> bool {
    if !inner.ether_type().is_tag() {
        return is_tcp::<L3>(skb, inner.ether_type());
    }
    match skb.header::<Be16>(TAGGED_L3 - size_of::<Be16>()).map(|carried| EtherType(carried.get())) {
        Some(carried) => carried.is_tag() || is_tcp::<TAGGED_L3>(skb, carried),
        None => true,
    }
}

#[inline(always)]
fn is_tcp<const L3: usize>(skb: &Skb, carried: EtherType) -> bool {
    const IPV4_PROTOCOL: usize = 9;
    const IPV6_NEXT_HEADER: usize = 6;
    let is_tcp = |offset| skb.header::<u8>(offset).is_some_and(|&protocol| Protocol(protocol) == Protocol::TCP);
    match carried {
        EtherType::IPV4 => is_tcp(L3 + IPV4_PROTOCOL),
        EtherType::IPV6 => is_tcp(L3 + IPV6_NEXT_HEADER),
        _ => false,
    }
}

/// Leaves a frame to the kernel's receive path, towards the port on which the helper device listens: why it goes there, or
/// cannot.
#[inline(always)]
fn hand_over(skb: &mut Skb, settings: &Settings, arrived: &Arrived) -> Verdict {
    if settings.helper_port == settings.port {
        return Verdict::HandedToHelper;
    }
    // Somebody else holds the mesh port, and the networks that are not ours are theirs.
    if tables::network(arrived.vni).is_none() {
        return Verdict::OtherVni;
    }
    let udp = arrived.family.outer() - (UdpHeader::LEN + VxlanHeader::LEN) as u32;
    match skb.replace(udp, &arrived.udp.redirected_to(settings.helper_port)) {
        Ok(()) => Verdict::HandedToHelper,
        Err(verdict) => verdict,
    }
}

/// Sends a datagram in pieces to the port on which the helper device listens, where it is of a network of ours: its first piece has
/// the port, and is followed by the others (`ip_frag_queue` in `net/ipv4/ip_fragment.c`). Over IPv6 nobody fragments.
#[inline(always)]
fn first_fragment(skb: &mut Skb, settings: &Settings) -> Verdict {
    const UDP: u32 = (EthernetHeader::LEN + Ipv4Header::LEN) as u32;
    let Some(EncapsulatedV4 { outer, .. }) = skb.header(0) else { return Verdict::Fragment };
    let OuterV4 { ip, udp, vxlan, .. } = *outer;
    let is_ours = ip.version() == 4
        && ip.header_len() == Ipv4Header::LEN
        && !ip.is_late_fragment()
        && udp.destination() == settings.port
        && vxlan.has_vni()
        && tables::network(vxlan.vni()).is_some();
    if is_ours && skb.replace(UDP, &udp.redirected_to(settings.helper_port)).is_err() {
        return Verdict::StoreFailed;
    }
    Verdict::Fragment
}

/// Network, source and inner header checked. What was relayed has its origin checked already.
#[inline(always)]
fn admit(arrived: &Arrived, origin: Option<PeerId>) -> Result<Admitted, Verdict> {
    let Arrived { vni, inner, .. } = *arrived;
    let vni = Vni::new(vni).map_err(|_| Verdict::OtherVni)?;
    let (peer, network) = match origin {
        Some(peer) => (peer, tables::network(vni.get()).ok_or(Verdict::OtherVni)?),
        None => sender(arrived)?,
    };
    check_inner(vni, peer, network, &inner, 1)?;
    Ok(Admitted { vni, peer, network, inner })
}

/// The peer and the network from which a frame is that was not relayed.
#[inline(always)]
pub(crate) fn sender(arrived: &Arrived) -> Result<(PeerId, &'static Network), Verdict> {
    let network = tables::network(arrived.vni).ok_or(Verdict::OtherVni)?;
    Ok((member(network, arrived.source)?, network))
}

/// The peer at an outer source, if it may send into this network.
#[inline(always)]
fn member(network: &Network, source: VtepAddress) -> Result<PeerId, Verdict> {
    let peer = tables::peer_at(&source).ok_or(Verdict::UnknownSource)?;
    if network.has_member(peer) { Ok(peer) } else { Err(Verdict::NotMember) }
}

#[inline(always)]
fn check_inner(vni: Vni, peer: PeerId, network: &Network, inner: &EthernetHeader, frames: u32) -> Result<(), Verdict> {
    if !inner.source.is_valid_source() {
        return Err(Verdict::GroupSource);
    }
    if inner.source == network.mac {
        tell(Verdict::OwnSource, &FdbKey::new(vni.get(), inner.source), peer, peer);
        return Err(Verdict::OwnSource);
    }
    if inner.destination.is_link_local() && !network.carries_link_local() {
        return Err(Verdict::LinkLocalReceived);
    }
    if inner.destination.is_group() {
        storm::receive_apart(network, &FdbKey::new(vni.get(), inner.source), peer, frames)?;
    }
    Ok(())
}

/// Learns where the frame came from and lets the overlay interface receive it. Never back to the underlay: split
/// horizon is that no way leads there from here.
#[inline(always)]
fn deliver(skb: &mut Skb, admitted: &Admitted) -> Result<Action, Verdict> {
    let Admitted { vni, peer, network, inner } = admitted;
    if network.flags & Network::SUPPRESS != 0 {
        suppress::received(skb, vni.get(), inner, *peer);
    }
    learn(network, &FdbKey::new(vni.get(), inner.source), *peer);
    if network.flags & Network::CLAMP_MSS != 0 {
        apart::clamp_mss(skb.raw(), path_mtu(skb, *peer));
    }
    let len = skb.frame_len();
    let action = if len <= network.max_frame || skb.is_gso() {
        Action::Redirect(network.port_ifindex)
    } else if network.overlay_ifindex != 0 {
        Action::Receive(network.overlay_ifindex)
    } else {
        capture::received(skb, Point::Drop, Verdict::OverMtu, vni.get(), *peer);
        return Err(Verdict::OverMtu);
    };
    capture::received(skb, Point::Decap, Verdict::Received, vni.get(), *peer);
    tables::count(Verdict::Received, len);
    tables::count_received(*peer, len);
    tables::count_received_in(network.number, len);
    Ok(action)
}

/// What of an IP packet fits the path to a peer, behind the tag that the kernel keeps beside the frame.
#[inline(always)]
fn path_mtu(skb: &Skb, peer: PeerId) -> u32 {
    let mtu = tables::peer(peer).map_or(0, |peer| peer.current().mtu);
    mtu.saturating_sub(if skb.is_tagged() { Tag::LEN } else { 0 })
}
