//! Frames from the overlay: to one peer here, to all in `flood`.

use aya_ebpf::bindings::BPF_F_DONT_FRAGMENT;
use l2mesh_common::{
    ecn,
    entropy::{self, Ports},
    path::{self, Choice},
    tables::{FdbKey, Network, NextHop, PeerId, Port, path_slot},
    verdict::Verdict,
    wire::{
        EncapsulatedV4, EncapsulatedV6, EtherType, EthernetHeader, Ipv4Header, Ipv6Header, Mark, PerFrame, Tag, Tags,
        Vni,
    },
};

use crate::{
    Action, apart, capture,
    packet::{Family, Packet as _, Skb, write_headers},
    suppress, tables, too_big,
};

/// Where frames are taken from the overlay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Ingress of the hidden peer: here the kernel has put every frame into the one form that we know.
    Hidden,
    /// Egress of the overlay interface: what is not simple goes on to the hidden peer.
    Overlay,
    /// Ingress of the hidden peer, after that program has found that the frame does not fit the path.
    Oversize,
}

/// A frame on its way out: what encapsulation needs of it, read before anything is changed.
#[derive(Clone, Copy)]
pub(crate) struct Departing {
    pub(crate) frame: PerFrame,
    pub(crate) tags: Tags,
    /// What stands between the inner Ethernet header and the payload.
    tag_words: [u32; 2],
    /// What is behind the tags.
    pub(crate) carried: EtherType,
    /// Octets of the greatest packet that it is on the wire, tags included.
    pub(crate) packet: u32,
    pub(crate) is_gso: bool,
    /// What is behind the tags is IP.
    pub(crate) is_ip: bool,
    pub(crate) hook: Hook,
    /// [`Network::number`].
    pub(crate) network: u16,
}

impl Departing {
    /// Writes everything before the payload into the room that was made for it.
    #[inline(always)]
    pub(crate) fn write(&self, skb: &mut Skb, route: &Route, family: Family) -> Result<(), Verdict> {
        let frame = PerFrame { mark: route.mark, ..self.frame };
        write_headers(skb, family, &route.next_hop.template, &frame)?;
        match family {
            Family::V4 => self.write_tags::<{ EncapsulatedV4::LEN }>(skb),
            Family::V6 => self.write_tags::<{ EncapsulatedV6::LEN }>(skb),
        }
    }

    /// Of what a path takes, what is left for an IP packet.
    #[inline(always)]
    pub(crate) fn room(&self, mtu: u32) -> u32 {
        mtu.saturating_sub(self.tags.octets())
    }

    #[inline(always)]
    fn write_tags<const OFFSET: usize>(&self, skb: &mut Skb) -> Result<(), Verdict> {
        let [first, second] = self.tag_words;
        match self.tags.count() {
            0 => Ok(()),
            1 => skb.store::<1, _>(OFFSET, |_| first),
            _ => skb.store::<2, _>(OFFSET, |index| if index == 0 { first } else { second }),
        }
    }
}

/// How a frame leaves towards a peer.
pub(crate) struct Route {
    /// Of the peer, or of the relay on the way.
    pub(crate) next_hop: &'static NextHop,
    /// Nothing, or to whom the relay is to forward it.
    pub(crate) mark: Mark,
    /// Greatest inner packet that the path takes, octets.
    pub(crate) mtu: u32,
    /// False if it is tried although it is down.
    is_up: bool,
}

impl Route {
    /// The IP version of the outer header that our program puts on; `None` where the helper device does.
    #[inline(always)]
    pub(crate) fn family(&self) -> Option<Family> {
        Family::of(self.next_hop)
    }

    /// True if it goes through a relay.
    #[inline(always)]
    pub(crate) fn is_relayed(&self) -> bool {
        self.mark.flags != 0
    }

    /// Counts a frame that takes it to a peer.
    #[inline(always)]
    pub(crate) fn count(&self, departing: &Departing, peer: PeerId) {
        if self.is_relayed() {
            tables::count(Verdict::SentRelayed, departing.frame.len);
        }
        if !self.is_up {
            tables::count(Verdict::NoPathUp, departing.frame.len);
        }
        tables::count_sent(peer, departing.frame.len);
    }
}

/// Carries a frame that left through an overlay interface.
#[inline(always)]
pub(crate) fn overlay(skb: &mut Skb, port: &Port, hook: Hook) -> Result<Action, Verdict> {
    // With the ports behind a tag and the longest header, that all frames of a flow have the same entropy.
    skb.pull(Tag::LEN + (EthernetHeader::LEN + Ipv6Header::LEN + size_of::<Ports>()) as u32);
    let sent = *skb.header::<EthernetHeader>(0).ok_or(Verdict::Runt)?;
    let vni = Vni::new(port.vni).map_err(|_| Verdict::NoNetwork)?;
    if !sent.source.is_valid_source() {
        return Err(Verdict::SentGroupSource);
    }
    if sent.destination.is_link_local() && !port.has(Network::CARRY_LINK_LOCAL) {
        return Err(Verdict::LinkLocal);
    }
    let tags = match hook {
        Hook::Hidden | Hook::Oversize => skb.untag()?,
        Hook::Overlay if skb.is_tagged() || sent.ether_type().is_tag() => return Err(Verdict::Declined),
        Hook::Overlay => Tags::NONE,
    };
    let untagged = if tags.count() == 0 { sent } else { *skb.header::<EthernetHeader>(0).ok_or(Verdict::Runt)? };
    // What comes again because it is too long has been read.
    let reads = port.has(Network::SUPPRESS) && tags.count() == 0 && hook != Hook::Oversize;
    if reads && suppress::sent(skb, port.vni, &untagged, hook)? {
        return Ok(Action::Redirect(skb.ifindex()));
    }
    let flow = apart::flow(skb.raw(), &raw const untagged);
    let (source_port, inner_tos) = (flow as u16, (flow >> 16) as u8);
    let dscp = if port.tos == Port::INHERIT_TOS { inner_tos } else { port.tos as u8 };
    // Nobody puts a mark back behind a tag, so that the path must not make one there (RFC 6040 section 4.3): it drops instead.
    let ecn = if tags.count() == 0 { inner_tos } else { 0 };
    let (inner, tag_words) = tags.around(untagged);
    let departing = &Departing {
        frame: PerFrame {
            vni: vni.get(),
            inner,
            len: skb.frame_len() + tags.octets(),
            source_port,
            tos: ecn::outer_tos(dscp, ecn),
            mark: Mark::NONE,
        },
        tags,
        tag_words,
        carried: untagged.ether_type(),
        packet: apart::packet_len(skb.raw(), &raw const untagged) as u32 + tags.octets(),
        is_gso: skb.is_gso(),
        is_ip: matches!(untagged.ether_type(), EtherType::IPV4 | EtherType::IPV6),
        hook,
        network: port.number,
    };
    let known =
        if inner.destination.is_group() { None } else { tables::fdb(&FdbKey::new(port.vni, inner.destination)) };
    if hook != Hook::Oversize && port.has(Network::CLAMP_MSS) {
        let mtu = match known {
            Some(entry) => route_to(entry.peer).map_or(0, |route| route.mtu),
            None => tables::flood_list(port.vni).map_or(0, |list| list.mtu.into()),
        };
        apart::clamp_mss(skb.raw(), departing.room(mtu));
    }
    let raw = skb.raw();
    let outcome = match (known, hook) {
        (Some(entry), Hook::Oversize) => apart::unicast_too_big(raw, departing, entry.peer),
        (Some(entry), _) => apart::unicast(raw, departing, entry.peer),
        (None, _) => {
            if hook == Hook::Oversize {
                let outcome = apart::flooded_too_big(raw, departing, port.storm_limit);
                match apart::outcome(skb, outcome)? {
                    Action::DONE => {}
                    told => return Ok(told),
                }
            }
            apart::flood(raw, departing, port.storm_limit)
        }
    };
    match apart::outcome(skb, outcome) {
        // The frame is as it was.
        Err(Verdict::TooBig) if hook != Hook::Oversize => too_big::elsewhere(skb, departing),
        other => other,
    }
}

/// To the one peer behind which the destination is.
#[inline(always)]
pub(crate) fn unicast(skb: &mut Skb, departing: &Departing, peer: PeerId) -> Result<Action, Verdict> {
    let route = route(departing, peer)?;
    let family = route.family();
    match family {
        Some(family) => {
            skb.push_outer(family, &departing.tags, departing.is_ip)?;
            departing.write(skb, &route, family)?;
        }
        None => by_helper(skb, departing, route.next_hop)?,
    }
    capture::sent(skb, Verdict::Sent, departing.frame.vni, peer, family);
    tables::count(Verdict::Sent, departing.frame.len);
    tables::count_sent_into(departing.network, departing.frame.len);
    route.count(departing, peer);
    Ok(Action::Redirect(route.next_hop.ifindex))
}

/// Leaves the outer header to the kernel's vxlan device.
#[inline(always)]
pub(crate) fn by_helper(skb: &mut Skb, departing: &Departing, next_hop: &NextHop) -> Result<(), Verdict> {
    if departing.hook == Hook::Overlay {
        return Err(Verdict::Declined);
    }
    skb.tag(&departing.tags)?;
    apart::tunnel(skb, departing, next_hop, BPF_F_DONT_FRAGMENT)
}

/// How frames leave towards a peer: on the first of its paths that is up.
#[inline(always)]
pub(crate) fn route_to(peer: PeerId) -> Result<Route, Verdict> {
    let choice = if path::is_direct_up(&tables::PathTables, peer) {
        Choice::DIRECT
    } else {
        Choice::from_bits(apart::other_path(peer))
    };
    let far = tables::peer(peer).ok_or(Verdict::NoNextHop)?;
    let (near, mark) = if choice.is_relayed() {
        let relay = tables::peer(choice.relay).ok_or(Verdict::NoNextHop)?;
        (relay, Mark { flags: Mark::RELAY, node: far.node_id })
    } else {
        (far, Mark::NONE)
    };
    let next_hop = near.current();
    if !next_hop.is_known() {
        return Err(Verdict::NoNextHop);
    }
    let mtu = match tables::path_tx(path_slot(peer, choice.path)) {
        Some(tx) if tx.mtu != 0 && tx.mtu < next_hop.mtu => tx.mtu,
        _ => next_hop.mtu,
    };
    Ok(Route { next_hop, mark, mtu, is_up: choice.is_up })
}

/// The same for one frame, if it fits.
#[inline(always)]
pub(crate) fn route(departing: &Departing, peer: PeerId) -> Result<Route, Verdict> {
    let route = route_to(peer)?;
    if departing.packet <= route.mtu { Ok(route) } else { Err(Verdict::TooBig) }
}

/// The outer source port for a frame, the same for all frames of a flow whatever their size, and above it its TOS octet or
/// traffic class.
#[inline(always)]
pub(crate) fn flow(skb: &Skb, inner: &EthernetHeader) -> u64 {
    const L3: usize = EthernetHeader::LEN;
    let found = match inner.ether_type() {
        EtherType::IPV4 => skb.header::<Ipv4Header>(L3).map(|ip| {
            let ports = ip.protocol().has_ports() && !ip.is_fragment() && ip.header_len() == Ipv4Header::LEN;
            let ports = if ports { skb.header::<Ports>(L3 + Ipv4Header::LEN) } else { None };
            (entropy::ipv4(ip, ports.copied()), ip.tos())
        }),
        EtherType::IPV6 => skb.header::<Ipv6Header>(L3).map(|ip| {
            let ports = if ip.next_header().has_ports() { skb.header::<Ports>(L3 + Ipv6Header::LEN) } else { None };
            (entropy::ipv6(ip, ports.copied()), ip.traffic_class())
        }),
        _ => None,
    };
    let (hash, tos) = found.unwrap_or_else(|| (entropy::ethernet(inner), 0));
    u64::from(entropy::source_port(hash)) | u64::from(tos) << 16
}
