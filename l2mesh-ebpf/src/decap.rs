//! Frames from the underlay: the outer header off in XDP or in TC, the rest always in TC.

use l2mesh_common::{
    receive::{classify, classify_short},
    tables::{FdbKey, Metadata, Network, PeerId, Settings, VtepAddress},
    verdict::Verdict,
    wire::{EncapsulatedV4, EtherType, EthernetHeader, Ipv4Header, OuterV4, Protocol, UdpHeader, Vni},
};

use crate::{
    Action,
    learn::{learn, tell},
    packet::{Frame, Packet, Skb},
    tables,
};

/// A received frame of one of our networks, from one of its members.
struct Admitted {
    vni: Vni,
    peer: PeerId,
    network: &'static Network,
    inner: EthernetHeader,
}

/// Takes the outer header off and marks the frame for [`underlay_tc`], so that GRO merges what was inside.
#[inline(always)]
pub(crate) fn underlay_xdp(frame: &mut Frame) -> Result<(), Verdict> {
    let settings = tables::settings().ok_or(Verdict::NotVxlan)?;
    let (vni, stack) = headers(frame, settings)?;
    let admitted = admit(vni, VtepAddress::v4(stack.outer.ip.source), &stack)?;
    let mark = Metadata::new(admitted.vni.get(), admitted.peer);
    // First, because its failure leaves the frame whole: TC decapsulates then.
    frame.reserve_metadata::<Metadata>()?;
    frame.pop_outer()?;
    frame.store_metadata(&mark)
}

/// Delivers what [`underlay_xdp`] marked, decapsulates what is still whole, leaves the rest to others.
#[inline(always)]
pub(crate) fn underlay_tc(skb: &mut Skb) -> Result<Action, Verdict> {
    if let Some(mark) = skb.metadata::<Metadata>().copied()
        && mark.magic == Metadata::MAGIC
    {
        // Passed on, an inner frame would enter the host's stack as the NIC's own.
        let vni = Vni::new(mark.vni).map_err(|_| Verdict::NotOurVni)?;
        let network = tables::network(mark.vni).ok_or(Verdict::NotOurVni)?;
        let inner = *skb.header::<EthernetHeader>(0).ok_or(Verdict::Truncated)?;
        return deliver(skb, &Admitted { vni, peer: mark.peer.into(), network, inner });
    }
    // A tagged frame belongs to a VLAN interface above this one.
    if skb.is_tagged() {
        return Err(Verdict::NotVxlan);
    }
    let settings = tables::settings().ok_or(Verdict::NotVxlan)?;
    // With the inner protocol, where the frame has one.
    skb.pull(EncapsulatedV4::LEN as u32 + 10);
    skb.pull(EncapsulatedV4::LEN as u32);
    let (vni, stack) = headers(skb, settings)?;
    if is_for_helper(skb, &stack.inner) {
        return hand_over(skb, settings, vni, &stack.outer);
    }
    let admitted = admit(vni, VtepAddress::v4(stack.outer.ip.source), &stack)?;
    if stack.outer.udp.has_checksum() {
        skb.forget_outer_checksum();
    }
    if skb.pop_outer().is_err() {
        return hand_over(skb, settings, vni, &stack.outer);
    }
    skb.store_bytes(&stack.inner)?;
    deliver(skb, &admitted)
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
    let (peer, network) = member(vni, VtepAddress::v4(source)).map_err(|verdict| match verdict {
        Verdict::OtherVni => Verdict::NotOurVni,
        other => other,
    })?;
    check_inner(vni, peer, network, &inner)?;
    deliver(skb, &Admitted { vni, peer, network, inner })
}

/// The headers of a VXLAN frame to this host.
#[inline(always)]
fn headers(packet: &impl Packet, settings: &Settings) -> Result<(Vni, EncapsulatedV4), Verdict> {
    match packet.header::<EncapsulatedV4>(0) {
        Some(stack) => Ok((classify(&stack.outer, packet.frame_len(), settings)?, *stack)),
        None => Err(short(packet, settings)),
    }
}

#[inline(always)]
fn short(packet: &impl Packet, settings: &Settings) -> Verdict {
    const IP: usize = EthernetHeader::LEN;
    const UDP: usize = IP + Ipv4Header::LEN;
    let Some(ethernet) = packet.header::<EthernetHeader>(0) else { return Verdict::NotVxlan };
    classify_short(ethernet, packet.header::<Ipv4Header>(IP), packet.header::<UdpHeader>(UDP), settings)
}

/// Inner TCP is worth more merged than decapsulated early, and all frames of a flow must take one way: the choice is by
/// what a frame is, not by whether it happened to be merged. The firewall test must go the way that it tests.
#[inline(always)]
fn is_for_helper(skb: &Skb, inner: &EthernetHeader) -> bool {
    const IPV4_PROTOCOL: usize = EncapsulatedV4::LEN + 9;
    const IPV6_NEXT_HEADER: usize = EncapsulatedV4::LEN + 6;
    let is_tcp = |offset| skb.header::<u8>(offset).is_some_and(|&protocol| Protocol(protocol) == Protocol::TCP);
    skb.is_gso()
        || match inner.ether_type() {
            EtherType::IPV4 => is_tcp(IPV4_PROTOCOL),
            EtherType::IPV6 => is_tcp(IPV6_NEXT_HEADER),
            EtherType::VLAN | EtherType::QINQ => true,
            _ => inner.is_self_test(),
        }
}

/// Leaves a frame to the kernel's receive path, towards the port on which the helper device listens.
#[inline(always)]
fn hand_over(skb: &mut Skb, settings: &Settings, vni: Vni, outer: &OuterV4) -> Result<Action, Verdict> {
    const UDP: u32 = (EthernetHeader::LEN + Ipv4Header::LEN) as u32;
    if settings.helper_port != settings.port {
        // Somebody else holds the mesh port, and the networks that are not ours are theirs.
        tables::network(vni.get()).ok_or(Verdict::OtherVni)?;
        skb.store_summed(UDP, &outer.udp.redirected_to(settings.helper_port))?;
    }
    Err(Verdict::HandedToHelper)
}

/// Network, source and inner header checked.
#[inline(always)]
fn admit(vni: Vni, source: VtepAddress, stack: &EncapsulatedV4) -> Result<Admitted, Verdict> {
    let (peer, network) = member(vni, source)?;
    if !stack.outer.vxlan.is_plain() {
        return Err(Verdict::ReservedBits);
    }
    check_inner(vni, peer, network, &stack.inner)?;
    Ok(Admitted { vni, peer, network, inner: stack.inner })
}

/// The peer at an outer source, if it may send into this network.
#[inline(always)]
fn member(vni: Vni, source: VtepAddress) -> Result<(PeerId, &'static Network), Verdict> {
    let network = tables::network(vni.get()).ok_or(Verdict::OtherVni)?;
    let peer = tables::peer_at(&source).ok_or(Verdict::UnknownSource)?;
    if network.has_member(peer) { Ok((peer, network)) } else { Err(Verdict::NotMember) }
}

#[inline(always)]
fn check_inner(vni: Vni, peer: PeerId, network: &Network, inner: &EthernetHeader) -> Result<(), Verdict> {
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
    Ok(())
}

/// Learns where the frame came from and lets the overlay interface receive it. Never back to the underlay: split
/// horizon is that no way leads there from here.
#[inline(always)]
fn deliver(skb: &Skb, admitted: &Admitted) -> Result<Action, Verdict> {
    let Admitted { vni, peer, network, inner } = admitted;
    learn(vni.get(), inner.source, *peer);
    let len = skb.frame_len();
    let action = if len <= network.max_frame || skb.is_gso() {
        Action::Redirect(network.port_ifindex)
    } else if network.overlay_ifindex != 0 {
        Action::Receive(network.overlay_ifindex)
    } else {
        return Err(Verdict::OverMtu);
    };
    tables::count(Verdict::Received, len);
    tables::count_received(*peer, len);
    Ok(action)
}
