//! Broadcast, unknown unicast and multicast: head-end replication, one unicast copy to each peer.

use core::num::NonZeroU32;

use aya_ebpf::bindings::BPF_F_DONT_FRAGMENT;
use l2mesh_common::{
    tables::{FdbKey, FloodList, MAX_PEERS, PeerId},
    verdict::Verdict,
    wire::{Ipv4Header, Ipv6Header, PerFrame},
};

use crate::{
    Action, apart, capture,
    encap::{Departing, Hook, Route, route},
    packet::{Family, Skb, Step, repeat},
    storm, tables,
};

/// Makes room once for each IP version, then writes each peer's outer header over the one before and sends a copy. The
/// last peer gets the frame itself.
#[inline(always)]
pub(crate) fn flood(skb: &mut Skb, departing: &Departing, storm_limit: u32) -> Result<Action, Verdict> {
    let PerFrame { vni, inner, .. } = departing.frame;
    let list = tables::flood_list(vni).ok_or(Verdict::NoPeers)?;
    if list.peer_count() == 0 {
        return Err(Verdict::NoPeers);
    }
    if list.by_helper != 0 && departing.hook == Hook::Overlay {
        return Err(Verdict::Declined);
    }
    // What is too big comes here once more, when it has paid.
    if departing.hook != Hook::Oversize {
        if !list.takes(departing.packet) {
            return Err(Verdict::TooBig);
        }
        storm::send_apart(storm_limit, departing.network, &FdbKey::new(vni, inner.source), skb.frames())?;
    }
    if list.by_helper != 0 {
        raw_copies(skb, departing, list)?;
    }
    let last = match (list.has_version(FloodList::V6), list.has_version(FloodList::V4)) {
        (false, false) => None,
        (false, true) => {
            skb.push_outer(Family::V4, &departing.tags, departing.is_ip)?;
            send_copies(skb, departing, Family::V4, list)
        }
        (true, false) => {
            skb.push_outer(Family::V6, &departing.tags, departing.is_ip)?;
            send_copies(skb, departing, Family::V6, list)
        }
        (true, true) => over_both(skb, departing, list)?,
    };
    tables::count(Verdict::Flooded, departing.frame.len);
    tables::count_sent_into(departing.network, departing.frame.len);
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
fn over_both(skb: &mut Skb, departing: &Departing, list: &FloodList) -> Result<Option<NonZeroU32>, Verdict> {
    const DIFFERENCE: u32 = (Ipv6Header::LEN - Ipv4Header::LEN) as u32;
    if departing.is_ip && skb.push_behind(Family::V6, &departing.tags)? {
        let last = send_copies(skb, departing, Family::V6, list);
        send_last(skb, departing, last);
        skb.shrink_to_v4()?;
        return Ok(send_copies(skb, departing, Family::V4, list));
    }
    if departing.is_gso {
        return Err(Verdict::EncapFailed);
    }
    skb.push_before(Family::V4.outer() + departing.tags.octets())?;
    let last = send_copies(skb, departing, Family::V4, list);
    send_last(skb, departing, last);
    skb.push_before(DIFFERENCE)?;
    Ok(send_copies(skb, departing, Family::V6, list))
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

#[inline(always)]
pub(crate) fn peer_at(list: &FloodList, place: u32) -> PeerId {
    // The mask is for the verifier.
    PeerId::from(list.peers[place as usize & (MAX_PEERS - 1)])
}

/// The outer header's family, known when the loop's body is compiled.
pub(crate) trait Version {
    const FAMILY: Family;
}

pub(crate) struct V4;
impl Version for V4 {
    const FAMILY: Family = Family::V4;
}

pub(crate) struct V6;
impl Version for V6 {
    const FAMILY: Family = Family::V6;
}

/// [`copies`], in a room of its own. The interface is not zero: see [`Action::DONE`].
#[inline(always)]
fn send_copies(skb: &Skb, departing: &Departing, family: Family, list: &FloodList) -> Option<NonZeroU32> {
    let ready = match family {
        Family::V4 => apart::copies_v4(skb.raw(), departing, list),
        Family::V6 => apart::copies_v6(skb.raw(), departing, list),
    };
    NonZeroU32::new(ready as u32)
}

/// Sends a copy to every peer whose path is over this IP version but the last one: for that one the frame itself is
/// ready, and the interface is returned, else 0.
#[inline(always)]
pub(crate) fn copies<V: Version>(skb: &mut Skb, departing: &Departing, list: &FloodList) -> u32 {
    let mut copies =
        Copies::<V> { skb, departing, list, waiting: NOBODY, ready: 0, version: core::marker::PhantomData };
    // One turn more, for the frame itself.
    repeat(u32::from(list.by_program) + 1, &mut copies);
    copies.ready
}

/// Not an `Option`: beside its `None` the compiler would carry along whatever is in that register.
const NOBODY: PeerId = PeerId::MAX;

/// The loop over a list.
struct Copies<'a, V> {
    skb: &'a mut Skb,
    departing: &'a Departing,
    list: &'a FloodList,
    /// The peer before, or [`NOBODY`]: only after the last one is it known to be the last.
    waiting: PeerId,
    /// The interface towards the peer whose outer header the frame itself has; 0 before that.
    ready: u32,
    version: core::marker::PhantomData<V>,
}

impl<V: Version> Step for Copies<'_, V> {
    #[inline(always)]
    fn step(&mut self, place: u32) {
        let outcome = self.turn(place);
        count_failure(self.departing, outcome);
    }
}

impl<V: Version> Copies<'_, V> {
    #[inline(always)]
    fn turn(&mut self, place: u32) -> Result<(), Verdict> {
        let is_last = place >= u32::from(self.list.by_program);
        let next = if is_last { NOBODY } else { peer_at(self.list, u32::from(self.list.by_helper) + place) };
        if !is_last && route(self.departing, next)?.family() != Some(V::FAMILY) {
            return Ok(());
        }
        let before = core::mem::replace(&mut self.waiting, next);
        if before == NOBODY {
            return Ok(());
        }
        let ifindex = self.address(before)?;
        if is_last {
            self.ready = ifindex;
            Ok(())
        } else {
            self.skb.clone_to(ifindex)
        }
    }

    /// Writes the outer header for one peer and counts the copy. Returns the interface towards it.
    #[inline(always)]
    fn address(&mut self, peer: PeerId) -> Result<u32, Verdict> {
        let route = route(self.departing, peer)?;
        // Its path may have changed since.
        if route.family() != Some(V::FAMILY) {
            return Err(Verdict::CopyFailed);
        }
        self.departing.write(self.skb, &route, V::FAMILY)?;
        capture::sent(self.skb, Verdict::Flooded, self.departing.frame.vni, peer, Some(V::FAMILY));
        count_copy(self.departing, peer, &route);
        Ok(route.next_hop.ifindex)
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
        let route = route(self.departing, peer)?;
        apart::tunnel(self.skb, self.departing, route.next_hop, BPF_F_DONT_FRAGMENT)?;
        capture::sent(self.skb, Verdict::Flooded, self.departing.frame.vni, peer, None);
        self.skb.clone_to(route.next_hop.ifindex)?;
        count_copy(self.departing, peer, &route);
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
pub(crate) fn count_copy(departing: &Departing, peer: PeerId, route: &Route) {
    tables::count(Verdict::FloodCopies, departing.frame.len);
    route.count(departing, peer);
}
