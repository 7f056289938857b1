//! Frames whose VXLAN header is marked: to be forwarded, forwarded for another node, or probes (design.md 4).

use l2mesh_common::{
    relay::{self, Known, Request},
    tables::{PeerId, Settings, VtepAddress},
    verdict::Verdict,
    wire::{Mark, PerFrame},
};

use crate::{
    decap::{Arrived, sender},
    packet::{Family, Underlay},
    probe, tables,
};

/// What becomes of a marked frame.
#[derive(Clone, Copy)]
pub(crate) enum Marked {
    /// It leaves by this interface, with another outer header.
    Sent(u32),
    /// It has said what it had to say.
    Heard,
    /// It is this peer's, whoever is at the outer source.
    From(PeerId),
}

#[inline(always)]
pub(crate) fn marked(packet: &mut impl Underlay, settings: &Settings, arrived: &Arrived) -> Result<Marked, Verdict> {
    let Some(mark) = arrived.vxlan.mark() else {
        return Err(sender(arrived).err().unwrap_or(Verdict::ReservedBits));
    };
    if mark.has(Mark::RELAY) {
        return forward(packet, settings, arrived, mark).map(Marked::Sent);
    }
    if mark.has(Mark::PROBE) {
        return probe::take(packet, settings, arrived, mark);
    }
    let network = tables::network(arrived.vni).ok_or(Verdict::OtherVni)?;
    let relay = relay::comes_from_relay(known_at(&arrived.source))?;
    let origin = relay::origin(relay, known(mark.node), Some(network))?;
    tables::count(Verdict::ReceivedRelayed, packet.frame_len());
    Ok(Marked::From(origin))
}

/// Sends a frame on to the node that its mark names, marked with the node it is from.
#[inline(always)]
fn forward(packet: &mut impl Underlay, settings: &Settings, arrived: &Arrived, mark: Mark) -> Result<u32, Verdict> {
    let from = known_at(&arrived.source);
    let to = tables::node(mark.node);
    let request = Request {
        from,
        to,
        peer: to.and_then(tables::peer),
        members: tables::relayed(arrived.vni),
        is_probe: mark.has(Mark::PROBE),
    };
    let to = relay::forward(settings.may_relay(), &request)?;
    let next_hop = tables::peer(to).ok_or(Verdict::RelayNoWay)?.current();
    let family = Family::of(next_hop).filter(|_| next_hop.is_known()).ok_or(Verdict::RelayNoWay)?;
    let node = from.map_or(0, |from| from.peer.node_id);
    let mark = Mark { flags: mark.flags & Mark::PROBE | Mark::RELAYED, node };
    let frame = PerFrame::forwarded(&arrived.udp, arrived.vni, arrived.tos, arrived.inner, mark);
    if packet.greatest_packet(arrived.family, frame.len) > next_hop.mtu {
        return Err(Verdict::RelayTooBig);
    }
    if !packet.can_leave_by(settings, next_hop.ifindex) {
        return Err(Verdict::NotVxlan);
    }
    let len = packet.frame_len();
    packet.rewrite(arrived.family, family, &next_hop.template, &frame).map_err(|_| Verdict::RelayFailed)?;
    tables::count(Verdict::Relayed, len);
    Ok(next_hop.ifindex)
}

/// The peer from which a frame is, if it came through a relay.
#[inline(always)]
pub(crate) fn relayed_for(source: &VtepAddress, origin: PeerId) -> Result<PeerId, Verdict> {
    relay::comes_from_relay(known_at(source)).map(|_| origin)
}

/// The peer at an outer source.
#[inline(always)]
pub(crate) fn known_at(source: &VtepAddress) -> Option<Known<'static>> {
    let id = tables::peer_at(source)?;
    Some(Known { id, peer: tables::peer(id)? })
}

/// The peer of a node id.
#[inline(always)]
pub(crate) fn known(node: u32) -> Option<Known<'static>> {
    let id = tables::node(node)?;
    Some(Known { id, peer: tables::peer(id)? })
}
