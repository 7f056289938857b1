//! Records of frames for `l2mesh capture`. While nobody captures, a frame pays for one look into a map.

use l2mesh_common::{
    tables::{ANYBODY, FdbKey, Metadata, PeerId, Point, Seen, VtepAddress},
    verdict::Verdict,
    wire::{EtherType, EthernetHeader, Mark, OuterV4, OuterV6},
};

use crate::{
    Action, apart, decap,
    encap::{Departing, Hook},
    packet::{Family, Frame, Packet, Skb, exact_now_ns},
    tables::{self, Room},
};

/// The network and the peers of a frame, as far as anybody knows.
#[derive(Clone, Copy)]
pub(crate) struct Whose {
    pub(crate) vni: u32,
    pub(crate) peer: PeerId,
    /// Of a relayed frame.
    pub(crate) origin: PeerId,
}

/// A frame that leaves for a peer, with its outer header on if our program puts it on.
#[inline(always)]
pub(crate) fn sent(skb: &Skb, verdict: Verdict, vni: u32, peer: PeerId, family: Option<Family>) {
    if tables::captures() {
        let outer = match family {
            Some(family) => family.outer(),
            None => 0,
        };
        let seen = Seen { point: Point::Encap, verdict, outer };
        apart::record(skb.raw(), seen.to_bits(), vni, peer, ANYBODY);
    }
}

/// A frame without outer header that is delivered, or would be.
#[inline(always)]
pub(crate) fn received(skb: &Skb, point: Point, verdict: Verdict, vni: u32, peer: PeerId) {
    if tables::captures() {
        apart::record(skb.raw(), Seen { point, verdict, outer: 0 }.to_bits(), vni, peer, ANYBODY);
    }
}

/// A frame that leaves again by the underlay, with its new outer header. What is no data of others is not recorded.
#[inline(always)]
pub(crate) fn forwarded(packet: &impl Recorded) {
    if tables::captures() {
        packet.record_forwarded();
    }
}

/// [`forwarded`], in a room of its own.
#[inline(always)]
pub(crate) fn record_forwarded(packet: &impl Recorded) {
    let seen = Seen { point: Point::Relay, verdict: Verdict::Relayed, outer: 0 }.to_bits();
    let Some(ethernet) = packet.header::<EthernetHeader>(0) else { return };
    let (vxlan, to) = if ethernet.ether_type() == EtherType::IPV6 {
        let Some(OuterV6 { ip, vxlan, .. }) = packet.header(0) else { return };
        (*vxlan, VtepAddress::v6(ip.destination))
    } else {
        let Some(OuterV4 { ip, vxlan, .. }) = packet.header(0) else { return };
        (*vxlan, VtepAddress::v4(ip.destination))
    };
    if let Some(mark) = vxlan.mark().filter(|mark| mark.has(Mark::RELAYED)) {
        let origin = tables::node(mark.node).unwrap_or(ANYBODY);
        packet.record(seen, Whose { vni: vxlan.vni(), peer: at(&to), origin });
    }
}

/// Gives a frame that is to be dropped its tags again, so that it is recorded as it was sent.
#[inline(always)]
pub(crate) fn tag_again(skb: &mut Skb, departing: &Departing, outcome: &Result<Action, Verdict>) {
    let Err(verdict) = outcome else { return };
    // The program for frames that are too big does that itself.
    let is_dropped = *verdict != Verdict::TooBig || departing.hook == Hook::Oversize;
    if departing.tags.count() != 0 && is_dropped && !skb.has_outer() && tables::captures() {
        let _untagged = skb.tag(&departing.tags);
    }
}

/// Where a program stands that drops frames.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The underlay interface.
    Underlay,
    /// The helper device.
    Helper,
    /// The overlay interface, or its hidden peer.
    Overlay,
}

/// A frame about which nothing is known here but what it says itself.
#[inline(always)]
pub(crate) fn dropped(skb: &Skb, verdict: Verdict, place: Place) {
    // What is too long for the interface was recorded where more was known.
    if tables::captures() && verdict != Verdict::OverMtu {
        let raw = skb.raw();
        let whose = match place {
            Place::Underlay => apart::of_underlay(raw),
            Place::Helper => apart::of_helper(raw),
            Place::Overlay => apart::of_overlay(raw),
        };
        apart::record(raw, dropped_as(verdict), whose as u32, (whose >> 32) as u32, ANYBODY);
    }
}

/// The same in XDP.
#[inline(always)]
pub(crate) fn dropped_xdp(frame: &Frame, verdict: Verdict) {
    if tables::captures() {
        let whose = apart::of_underlay_xdp(frame.raw());
        apart::record_xdp(frame.raw(), dropped_as(verdict), whose as u32, (whose >> 32) as u32, ANYBODY);
    }
}

#[inline(always)]
fn dropped_as(verdict: Verdict) -> u32 {
    Seen { point: Point::Drop, verdict, outer: 0 }.to_bits()
}

/// Frames that can be recorded.
pub(crate) trait Recorded: Packet {
    /// [`record_forwarded`], in a room of its own.
    fn record_forwarded(&self);

    /// [`record`], in a room of its own.
    fn record(&self, seen: u32, whose: Whose);

    /// The VLAN tag that the kernel keeps beside it, TPID above TCI; 0 for none.
    fn tag_beside(&self) -> u32;

    /// Octets of payload in each segment of a GSO frame, else 0.
    fn segment(&self) -> u32;

    /// [`tables::write_record`].
    fn write(&self, record: &Room, octets: u32) -> bool;
}

impl Recorded for Skb {
    #[inline(always)]
    fn record_forwarded(&self) {
        apart::record_forwarded(self.raw());
    }

    #[inline(always)]
    fn record(&self, seen: u32, Whose { vni, peer, origin }: Whose) {
        apart::record(self.raw(), seen, vni, peer, origin);
    }

    #[inline(always)]
    fn tag_beside(&self) -> u32 {
        self.tag_word()
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        self.gso_size()
    }

    #[inline(always)]
    fn write(&self, record: &Room, octets: u32) -> bool {
        tables::write_record(self.raw().cast(), record, octets)
    }
}

impl Recorded for Frame {
    #[inline(always)]
    fn record_forwarded(&self) {
        apart::record_forwarded_xdp(self.raw());
    }

    #[inline(always)]
    fn record(&self, seen: u32, Whose { vni, peer, origin }: Whose) {
        apart::record_xdp(self.raw(), seen, vni, peer, origin);
    }

    #[inline(always)]
    fn tag_beside(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn write(&self, record: &Room, octets: u32) -> bool {
        tables::write_record(self.raw().cast(), record, octets)
    }
}

/// Records a frame, if it is asked for. What it is told stays in the record while it looks: the stack is full where it is called.
#[inline(always)]
pub(crate) fn record(packet: &impl Recorded, seen: u32, whose: Whose) {
    let Some(room) = tables::record_room() else { return };
    room.set_seen(seen, whose);
    let Some(recorder) = tables::recorder() else { return };
    let now = exact_now_ns();
    if now > recorder.until_ns.get() {
        // Who asked for it is gone, and did not say so.
        recorder.points.set(0);
        return;
    }
    if !recorder.takes(room) {
        return;
    }
    let len = packet.frame_len();
    let octets = len.min(recorder.snaplen.saturating_add(Seen::outer_of(room.seen())));
    room.set_frame(now, (len, octets), packet.tag_beside(), packet.segment());
    if !packet.write(room, octets) {
        recorder.lost.add(1);
    }
}

/// [`Whose`] as one number, of a frame that was not relayed.
#[inline(always)]
const fn to_bits(vni: u32, peer: PeerId) -> u64 {
    vni as u64 | (peer as u64) << 32
}

/// A frame of which nothing is known.
const UNKNOWN: u64 = to_bits(0, ANYBODY);

/// The network and the peer of a frame at the underlay interface.
#[inline(always)]
pub(crate) fn of_underlay(packet: &impl Packet) -> u64 {
    let Some(settings) = tables::settings() else { return UNKNOWN };
    match decap::headers(packet, settings) {
        Ok(arrived) => to_bits(arrived.vni, at(&arrived.source)),
        Err(_) => UNKNOWN,
    }
}

/// The same of one that the XDP program has seen before.
#[inline(always)]
pub(crate) fn of_underlay_tc(skb: &Skb) -> u64 {
    match skb.metadata::<Metadata>() {
        Some(mark) if mark.magic == Metadata::MAGIC => to_bits(mark.vni, mark.peer.into()),
        _ => of_underlay(skb),
    }
}

/// The same at the helper device.
#[inline(always)]
pub(crate) fn of_helper(skb: &Skb) -> u64 {
    skb.tunnel().map_or(UNKNOWN, |(vni, source)| to_bits(vni, at(&source)))
}

/// The same of a frame from the overlay: whose it would have been.
#[inline(always)]
pub(crate) fn of_overlay(skb: &Skb) -> u64 {
    let vni = tables::port(skb.ifindex()).map_or(0, |port| port.vni);
    let Some(ethernet) = skb.header::<EthernetHeader>(0) else { return to_bits(vni, ANYBODY) };
    to_bits(vni, tables::fdb(&FdbKey::new(vni, ethernet.destination)).map_or(ANYBODY, |entry| entry.peer))
}

#[inline(always)]
fn at(source: &VtepAddress) -> PeerId {
    tables::peer_at(source).unwrap_or(ANYBODY)
}
