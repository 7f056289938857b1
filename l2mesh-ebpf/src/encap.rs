//! Frames from the overlay: to one peer here, to all in `flood`.

use l2mesh_common::{
    entropy::{self, Ports},
    tables::{FdbKey, Network, NextHop, PeerId, Port},
    verdict::Verdict,
    wire::{EtherType, EthernetHeader, HeadersV4, Ipv4Header, Ipv6Header, Vni},
};

use crate::{
    Action, flood,
    packet::{Packet as _, Skb},
    tables,
};

/// A frame on its way out: what encapsulation needs of it, read before anything is changed.
#[derive(Clone, Copy)]
pub(crate) struct Departing {
    pub(crate) vni: Vni,
    pub(crate) inner: EthernetHeader,
    /// Octets, inner Ethernet header included.
    pub(crate) len: u32,
    pub(crate) is_gso: bool,
    pub(crate) source_port: u16,
}

impl Departing {
    /// What stands before the frame's payload on its way to one peer.
    #[inline(always)]
    pub(crate) fn headers(&self, next_hop: &NextHop) -> HeadersV4 {
        next_hop.template.for_frame(self.vni, self.inner, self.len, self.source_port)
    }
}

/// Carries a frame that left through an overlay interface.
#[inline(always)]
pub(crate) fn overlay(skb: &mut Skb, port: &Port) -> Result<Action, Verdict> {
    skb.pull(EthernetHeader::LEN as u32 + Ipv6Header::LEN as u32);
    let inner = *skb.header::<EthernetHeader>(0).ok_or(Verdict::Runt)?;
    let vni = Vni::new(port.vni).map_err(|_| Verdict::NoNetwork)?;
    if !inner.source.is_valid_source() {
        return Err(Verdict::SentGroupSource);
    }
    if skb.is_tagged() || matches!(inner.ether_type(), EtherType::VLAN | EtherType::QINQ) {
        return Err(Verdict::VlanTagged);
    }
    if inner.destination.is_link_local() && !tables::network(port.vni).is_some_and(Network::carries_link_local) {
        return Err(Verdict::LinkLocal);
    }
    let source_port = source_port(skb, &inner);
    let departing = Departing { vni, inner, len: skb.frame_len(), is_gso: skb.is_gso(), source_port };
    let known =
        if inner.destination.is_group() { None } else { tables::fdb(&FdbKey::new(port.vni, inner.destination)) };
    match known {
        Some(entry) => unicast(skb, &departing, entry.peer),
        None => flood::flood(skb, &departing),
    }
}

#[inline(always)]
fn unicast(skb: &mut Skb, departing: &Departing, peer: PeerId) -> Result<Action, Verdict> {
    let next_hop = next_hop(departing, peer)?;
    skb.push_outer(is_ip(&departing.inner))?;
    skb.store(departing.headers(next_hop).words())?;
    tables::count(Verdict::Sent, departing.len);
    tables::count_sent(peer, departing.len);
    Ok(Action::Redirect(next_hop.ifindex))
}

/// How a frame leaves towards a peer, if it can.
#[inline(always)]
pub(crate) fn next_hop(departing: &Departing, peer: PeerId) -> Result<&'static NextHop, Verdict> {
    let next_hop = tables::peer(peer).ok_or(Verdict::NoNextHop)?.current();
    if !next_hop.is_known() {
        Err(Verdict::NoNextHop)
    } else if !next_hop.takes(departing.len, departing.is_gso) {
        Err(Verdict::TooBig)
    } else {
        Ok(next_hop)
    }
}

/// What `push_outer` wants to know.
#[inline(always)]
pub(crate) fn is_ip(inner: &EthernetHeader) -> bool {
    matches!(inner.ether_type(), EtherType::IPV4 | EtherType::IPV6)
}

/// The outer source port for a frame: the same for all frames of a flow, whatever their size.
#[inline(always)]
fn source_port(skb: &Skb, inner: &EthernetHeader) -> u16 {
    const L3: usize = EthernetHeader::LEN;
    let hash = match inner.ether_type() {
        EtherType::IPV4 => skb.header::<Ipv4Header>(L3).map(|ip| {
            let ports = ip.protocol().has_ports() && !ip.is_fragment() && ip.header_len() == Ipv4Header::LEN;
            let ports = if ports { skb.header::<Ports>(L3 + Ipv4Header::LEN) } else { None };
            entropy::ipv4(ip, ports.copied())
        }),
        EtherType::IPV6 => skb.header::<Ipv6Header>(L3).map(|ip| {
            let ports = if ip.next_header().has_ports() { skb.header::<Ports>(L3 + Ipv6Header::LEN) } else { None };
            entropy::ipv6(ip, ports.copied())
        }),
        _ => None,
    };
    entropy::source_port(hash.unwrap_or_else(|| entropy::ethernet(inner)))
}
