//! Broadcast, unknown unicast and multicast: head-end replication, one unicast copy to each peer.

use core::num::NonZeroU32;

use aya_ebpf::bindings::BPF_F_DONT_FRAGMENT;
use l2mesh_common::{
    tables::{FdbKey, FloodList, MAX_PEERS, PeerId},
    verdict::Verdict,
    wire::{Ipv4Header, Ipv6Header, PerFrame},
};

use crate::{
    Action,
    encap::{Departing, Hook, next_hop},
    packet::{Family, Skb, Step, repeat},
    storm, tables, too_big,
};

/// Makes room once for each IP version, then writes each peer's outer header over the one before and sends a copy. The
/// last peer gets the frame itself.
#[inline(always)]
pub(crate) fn flood(skb: &mut Skb, departing: &Departing, storm_limit: u32) -> Result<Action, Verdict> {
    let PerFrame { vni, inner, .. } = departing.frame;
    let list = tables::flood_list(vni.get()).ok_or(Verdict::NoPeers)?;
    let (helper, v6, v4) = (u32::from(list.by_helper), u32::from(list.over_v6), u32::from(list.over_v4));
    if helper + v6 + v4 == 0 {
        return Err(Verdict::NoPeers);
    }
    if helper != 0 && departing.hook == Hook::Overlay {
        return Err(Verdict::Declined);
    }
    // What is too big comes here once more, when it has paid.
    if departing.hook != Hook::Oversize {
        if !list.takes(departing.packet) {
            return too_big::elsewhere(skb, departing);
        }
        storm::send(storm_limit, &FdbKey::new(vni.get(), inner.source), skb.frames())?;
    }
    if helper != 0 {
        raw_copies(skb, departing, list)?;
    }
    let over_v6 = Section { list, start: helper, count: v6 };
    let over_v4 = Section { list, start: helper + v6, count: v4 };
    let last = match (v6, v4) {
        (0, 0) => None,
        (0, _) => {
            skb.push_outer(Family::V4, &departing.tags, departing.is_ip)?;
            copies::<V4>(skb, departing, over_v4)
        }
        (_, 0) => {
            skb.push_outer(Family::V6, &departing.tags, departing.is_ip)?;
            copies::<V6>(skb, departing, over_v6)
        }
        _ => over_both(skb, departing, over_v6, over_v4)?,
    };
    tables::count(Verdict::Flooded, departing.frame.len);
    Ok(last.map_or(Action::DONE, |interface| Action::Redirect(interface.get())))
}

/// Leaves the copies for the first peers of a list to the kernel's vxlan device.
#[inline(always)]
fn raw_copies(skb: &mut Skb, departing: &Departing, list: &'static FloodList) -> Result<(), Verdict> {
    skb.tag(&departing.tags)?;
    repeat(u32::from(list.by_helper), &mut RawCopies { skb, departing, list });
    skb.untag().map(drop)
}

/// The kernel's helper that grows a frame of IP knows segments, and the one that shrinks it does too: the longer header goes
/// first. For other frames there is only one, and it grows.
#[inline(always)]
fn over_both(skb: &mut Skb, departing: &Departing, v6: Section, v4: Section) -> Result<Option<NonZeroU32>, Verdict> {
    const DIFFERENCE: u32 = (Ipv6Header::LEN - Ipv4Header::LEN) as u32;
    if departing.is_ip && skb.push_behind(Family::V6, &departing.tags)? {
        let last = copies::<V6>(skb, departing, v6);
        send_last(skb, departing, last);
        skb.shrink_to_v4()?;
        return Ok(copies::<V4>(skb, departing, v4));
    }
    if departing.is_gso {
        return Err(Verdict::EncapFailed);
    }
    skb.push_before(Family::V4.outer() + departing.tags.octets())?;
    let last = copies::<V4>(skb, departing, v4);
    send_last(skb, departing, last);
    skb.push_before(DIFFERENCE)?;
    Ok(copies::<V6>(skb, departing, v6))
}

/// What [`copies`] left to its caller, sent as a copy too.
#[inline(always)]
fn send_last(skb: &mut Skb, departing: &Departing, last: Option<NonZeroU32>) {
    if let Some(ifindex) = last
        && let Err(verdict) = skb.clone_to(ifindex.get())
    {
        tables::count(verdict, departing.frame.len);
    }
}

/// A part of a flood list.
#[derive(Clone, Copy)]
struct Section {
    list: &'static FloodList,
    start: u32,
    count: u32,
}

impl Section {
    #[inline(always)]
    fn peer(&self, place: u32) -> PeerId {
        peer_at(self.list, self.start + place)
    }
}

#[inline(always)]
pub(crate) fn peer_at(list: &FloodList, place: u32) -> PeerId {
    // The mask is for the verifier.
    PeerId::from(list.peers[place as usize & (MAX_PEERS - 1)])
}

/// The outer header's family, known when the loop's body is compiled.
trait Version {
    const FAMILY: Family;
}

struct V4;
impl Version for V4 {
    const FAMILY: Family = Family::V4;
}

struct V6;
impl Version for V6 {
    const FAMILY: Family = Family::V6;
}

/// Sends a copy to every peer of a section but the last one that can be reached: for that one the frame itself is ready, and
/// the interface is returned (not zero: see [`Action::DONE`]).
#[inline(always)]
fn copies<V: Version>(skb: &mut Skb, departing: &Departing, section: Section) -> Option<NonZeroU32> {
    let mut copies = Copies::<V> { skb, departing, section, waiting: None, version: core::marker::PhantomData };
    repeat(section.count, &mut copies);
    let last = copies.waiting?;
    match copies.address(last) {
        Ok(ifindex) => NonZeroU32::new(ifindex),
        Err(verdict) => {
            tables::count(verdict, departing.frame.len);
            None
        }
    }
}

/// The loop over a section.
struct Copies<'a, V> {
    skb: &'a mut Skb,
    departing: &'a Departing,
    section: Section,
    /// The peer before: only after the last one is it known to be the last.
    waiting: Option<PeerId>,
    version: core::marker::PhantomData<V>,
}

impl<V: Version> Step for Copies<'_, V> {
    #[inline(always)]
    fn step(&mut self, place: u32) {
        let peer = self.section.peer(place);
        let outcome = match next_hop(self.departing, peer) {
            Ok(_) => self.waiting.replace(peer).map_or(Ok(()), |before| self.send(before)),
            Err(verdict) => Err(verdict),
        };
        count_failure(self.departing, outcome);
    }
}

impl<V: Version> Copies<'_, V> {
    #[inline(always)]
    fn send(&mut self, peer: PeerId) -> Result<(), Verdict> {
        let ifindex = self.address(peer)?;
        self.skb.clone_to(ifindex)
    }

    /// Writes the outer header for one peer and counts the copy. Returns the interface towards it.
    #[inline(always)]
    fn address(&mut self, peer: PeerId) -> Result<u32, Verdict> {
        let next_hop = next_hop(self.departing, peer)?;
        self.departing.write(self.skb, next_hop, V::FAMILY)?;
        count_copy(self.departing, peer);
        Ok(next_hop.ifindex)
    }
}

/// The loop over the peers that the helper device sends to.
struct RawCopies<'a> {
    skb: &'a mut Skb,
    departing: &'a Departing,
    list: &'static FloodList,
}

impl Step for RawCopies<'_> {
    #[inline(always)]
    fn step(&mut self, place: u32) {
        let outcome = self.send(peer_at(self.list, place));
        count_failure(self.departing, outcome);
    }
}

impl RawCopies<'_> {
    #[inline(always)]
    fn send(&mut self, peer: PeerId) -> Result<(), Verdict> {
        let next_hop = next_hop(self.departing, peer)?;
        let frame = &self.departing.frame;
        self.skb.set_tunnel(frame.vni, next_hop, frame.tos, BPF_F_DONT_FRAGMENT)?;
        self.skb.clone_to(next_hop.ifindex)?;
        count_copy(self.departing, peer);
        Ok(())
    }
}

/// Counts a copy that could not be sent.
#[inline(always)]
fn count_failure(departing: &Departing, outcome: Result<(), Verdict>) {
    match outcome {
        // Seen to before.
        Err(Verdict::TooBig) if departing.hook == Hook::Oversize => {}
        Err(Verdict::TooBig) => tables::count(Verdict::CopyTooBig, departing.frame.len),
        Err(verdict) => tables::count(verdict, departing.frame.len),
        Ok(()) => {}
    }
}

#[inline(always)]
pub(crate) fn count_copy(departing: &Departing, peer: PeerId) {
    tables::count(Verdict::FloodCopies, departing.frame.len);
    tables::count_sent(peer, departing.frame.len);
}
