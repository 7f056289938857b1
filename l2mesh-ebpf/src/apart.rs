//! Functions that the verifier looks at one by one ("global functions", `btf_prepare_func_args` in kernel/bpf/btf.c): it follows
//! each only once for the whole program, knowing nothing but the types of its arguments, and forgets at the return what it
//! learned inside. Without them the cost of verifying a program is the product of its rooms, with them the sum.
//!
//! The price: a call of a few instructions, arguments that are numbers, the frame, or what a pointer names, five at most, and
//! one number as result. So the rooms have the functions, and this file has their entries.
#![expect(unsafe_code, reason = "names and pointers, which the verifier checks")]

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use l2mesh_common::{
    path,
    tables::{FdbKey, FloodList, Network, NextHop, PeerId},
    verdict::Verdict,
    wire::{EthernetHeader, PerFrame, Vni},
};

use crate::{
    Action,
    capture::{self, Whose},
    decap,
    encap::{self, Departing},
    flood, learn, mss,
    packet::{Frame, Skb},
    relay::Marked,
    storm, suppress,
    tables::PathTables,
    too_big,
};

/// An outcome as one number: 0 is success.
#[inline(always)]
pub(crate) fn to_bits(outcome: Result<(), Verdict>) -> u64 {
    match outcome {
        Ok(()) => 0,
        Err(verdict) => u64::from(verdict.number()) + 1,
    }
}

/// The outcome of [`to_bits`].
#[inline(always)]
pub(crate) fn from_bits(bits: u64) -> Result<(), Verdict> {
    match (bits as u32).checked_sub(1) {
        None => Ok(()),
        Some(number) => Err(Verdict::from_number(number)),
    }
}

/// What became of a frame, as one number: what is done, or why not, and if it has its outer header already.
mod fate {
    /// The lower half is an interface out of which it goes ([`crate::Action::Redirect`]).
    pub(super) const REDIRECT: u64 = 0;
    /// The lower half is an interface which receives it.
    pub(super) const RECEIVE: u64 = 1 << 32;
    /// The lower half is a verdict.
    pub(super) const REFUSED: u64 = 2 << 32;
    /// The outer header is on.
    pub(super) const HAS_OUTER: u64 = 4 << 32;
}

#[inline(always)]
fn fate_of(skb: &Skb, outcome: Result<Action, Verdict>) -> u64 {
    let has_outer = if skb.has_outer() { fate::HAS_OUTER } else { 0 };
    has_outer
        | match outcome {
            Ok(Action::Redirect(ifindex)) => fate::REDIRECT | u64::from(ifindex),
            Ok(Action::Receive(ifindex)) => fate::RECEIVE | u64::from(ifindex),
            Err(verdict) => fate::REFUSED | u64::from(verdict.number()),
        }
}

/// What a function that has a frame as its first argument says became of it.
#[inline(always)]
pub(crate) fn outcome(skb: &mut Skb, bits: u64) -> Result<Action, Verdict> {
    if bits & fate::HAS_OUTER != 0 {
        skb.note_outer();
    }
    if bits & fate::REFUSED != 0 {
        Err(Verdict::from_number(bits as u32))
    } else if bits & fate::RECEIVE != 0 {
        Ok(Action::Receive(bits as u32))
    } else {
        Ok(Action::Redirect(bits as u32))
    }
}

/// What became of a marked frame, as one number.
mod mark {
    /// The lower half is an interface out of which it goes ([`crate::relay::Marked::Sent`]).
    pub(super) const SENT: u64 = 0;
    /// It ends here.
    pub(super) const HEARD: u64 = 1 << 32;
    /// The lower half is the peer from which it is.
    pub(super) const FROM: u64 = 2 << 32;
    /// The lower half is a verdict.
    pub(super) const REFUSED: u64 = 3 << 32;
}

/// [`decap::marked_tc`], in a room of its own.
#[inline(always)]
pub(crate) fn marked(skb: &Skb) -> Result<Marked, Verdict> {
    let bits = marked_frame(skb.raw());
    match bits & !u64::from(u32::MAX) {
        mark::SENT => Ok(Marked::Sent(bits as u32)),
        mark::HEARD => Ok(Marked::Heard),
        mark::FROM => Ok(Marked::From(bits as u32)),
        _ => Err(Verdict::from_number(bits as u32)),
    }
}

#[unsafe(no_mangle)]
extern "C" fn marked_frame(frame: *mut __sk_buff) -> u64 {
    match decap::marked_tc(&mut skb(frame)) {
        Ok(Marked::Sent(ifindex)) => mark::SENT | u64::from(ifindex),
        Ok(Marked::Heard) => mark::HEARD,
        Ok(Marked::From(peer)) => mark::FROM | u64::from(peer),
        Err(verdict) => mark::REFUSED | u64::from(verdict.number()),
    }
}

#[inline(always)]
fn skb(frame: *mut __sk_buff) -> Skb {
    Skb::new(TcContext::new(frame))
}

/// [`set_tunnel`].
#[inline(always)]
pub(crate) fn tunnel(skb: &Skb, departing: &Departing, next_hop: &NextHop, flags: u32) -> Result<(), Verdict> {
    let PerFrame { vni, tos, .. } = departing.frame;
    from_bits(set_tunnel(skb.raw(), vni, next_hop, tos.into(), flags))
}

/// What a pointer names. The verifier knows that it is valid, but not that it is not null.
#[inline(always)]
fn named<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: see above; made from a reference of the caller's.
    unsafe { pointer.as_ref() }
}

/// [`encap::flow`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn flow(frame: *mut __sk_buff, inner: *const EthernetHeader) -> u64 {
    named(inner).map_or(0, |inner| encap::flow(&skb(frame), inner))
}

/// [`too_big::packet_len`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn packet_len(frame: *mut __sk_buff, untagged: *const EthernetHeader) -> u64 {
    named(untagged).map_or(0, |untagged| too_big::packet_len(&skb(frame), untagged).into())
}

/// [`path::other`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn other_path(peer: PeerId) -> u64 {
    path::other(&PathTables, peer).to_bits()
}

/// [`encap::unicast`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn unicast(frame: *mut __sk_buff, departing: *const Departing, peer: PeerId) -> u64 {
    let Some(departing) = named(departing) else { return 0 };
    let mut skb = skb(frame);
    let outcome = encap::unicast(&mut skb, departing, peer);
    capture::tag_again(&mut skb, departing, &outcome);
    fate_of(&skb, outcome)
}

/// [`flood::flood`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn flood(frame: *mut __sk_buff, departing: *const Departing, storm_limit: u32) -> u64 {
    let Some(departing) = named(departing) else { return 0 };
    let mut skb = skb(frame);
    let outcome = flood::flood(&mut skb, departing, storm_limit);
    capture::tag_again(&mut skb, departing, &outcome);
    fate_of(&skb, outcome)
}

/// [`too_big::unicast`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn unicast_too_big(frame: *mut __sk_buff, departing: *const Departing, peer: PeerId) -> u64 {
    let Some(departing) = named(departing) else { return 0 };
    let mut skb = skb(frame);
    let outcome = too_big::unicast(&mut skb, departing, peer);
    capture::tag_again(&mut skb, departing, &outcome);
    fate_of(&skb, outcome)
}

/// [`too_big::flooded`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn flooded_too_big(frame: *mut __sk_buff, departing: *const Departing, storm_limit: u32) -> u64 {
    let Some(departing) = named(departing) else { return 0 };
    let mut skb = skb(frame);
    let outcome = too_big::flooded(&mut skb, departing, storm_limit);
    capture::tag_again(&mut skb, departing, &outcome);
    fate_of(&skb, outcome)
}

/// [`flood::copies`] over IPv4.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn copies_v4(frame: *mut __sk_buff, departing: *const Departing, list: *const FloodList) -> u64 {
    let (Some(departing), Some(list)) = (named(departing), named(list)) else { return 0 };
    flood::copies::<flood::V4>(&mut skb(frame), departing, list).into()
}

/// [`flood::copies`] over IPv6.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn copies_v6(frame: *mut __sk_buff, departing: *const Departing, list: *const FloodList) -> u64 {
    let (Some(departing), Some(list)) = (named(departing), named(list)) else { return 0 };
    flood::copies::<flood::V6>(&mut skb(frame), departing, list).into()
}

/// [`Skb::set_tunnel`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn set_tunnel(
    frame: *mut __sk_buff,
    vni: u32,
    next_hop: *const NextHop,
    tos: u32,
    flags: u32,
) -> u64 {
    let (Some(next_hop), Ok(vni)) = (named(next_hop), Vni::new(vni)) else { return to_bits(Err(Verdict::EncapFailed)) };
    to_bits(skb(frame).set_tunnel(vni, next_hop, tos as u8, flags))
}

/// [`storm::send`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn storm_send(limit: u32, network: u16, source: *const FdbKey, frames: u32) -> u64 {
    named(source).map_or(0, |source| to_bits(storm::send(limit, network, source, frames)))
}

/// [`storm::receive`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn storm_receive(
    limit: u32,
    network: u16,
    source: *const FdbKey,
    peer: PeerId,
    frames: u32,
) -> u64 {
    named(source).map_or(0, |source| to_bits(storm::receive(limit, network, source, peer, frames)))
}

/// [`learn::change`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn learn_change(network: *const Network, key: *const FdbKey, peer: PeerId, now: u64) -> u64 {
    if let (Some(network), Some(key)) = (named(network), named(key)) {
        learn::change(network, key, peer, now);
    }
    0
}

/// [`mss::clamp`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn clamp_mss(frame: *mut __sk_buff, mtu: u32) -> u64 {
    mss::clamp(&mut skb(frame), mtu);
    0
}

/// [`capture::record`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn record(frame: *mut __sk_buff, seen: u32, vni: u32, peer: PeerId, origin: PeerId) -> u64 {
    capture::record(&skb(frame), seen, Whose { vni, peer, origin });
    0
}

/// [`capture::record`] in XDP.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn record_xdp(frame: *mut xdp_md, seen: u32, vni: u32, peer: PeerId, origin: PeerId) -> u64 {
    capture::record(&Frame::new(XdpContext::new(frame)), seen, Whose { vni, peer, origin });
    0
}

/// [`capture::record_forwarded`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn record_forwarded(frame: *mut __sk_buff) -> u64 {
    capture::record_forwarded(&skb(frame));
    0
}

/// [`capture::record_forwarded`] in XDP.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn record_forwarded_xdp(frame: *mut xdp_md) -> u64 {
    capture::record_forwarded(&Frame::new(XdpContext::new(frame)));
    0
}

/// [`capture::of_underlay_tc`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn of_underlay(frame: *mut __sk_buff) -> u64 {
    capture::of_underlay_tc(&skb(frame))
}

/// [`capture::of_underlay`] in XDP.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn of_underlay_xdp(frame: *mut xdp_md) -> u64 {
    capture::of_underlay(&Frame::new(XdpContext::new(frame)))
}

/// [`capture::of_helper`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn of_helper(frame: *mut __sk_buff) -> u64 {
    capture::of_helper(&skb(frame))
}

/// [`capture::of_overlay`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn of_overlay(frame: *mut __sk_buff) -> u64 {
    capture::of_overlay(&skb(frame))
}

/// [`suppress::sent_arp`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sent_arp(frame: *mut __sk_buff, vni: u32) -> u64 {
    suppress::sent_arp(&mut skb(frame), vni)
}

/// [`suppress::sent_nd`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn sent_nd(frame: *mut __sk_buff, vni: u32) -> u64 {
    suppress::sent_nd(&mut skb(frame), vni)
}

/// [`suppress::received_arp`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn received_arp(frame: *mut __sk_buff, vni: u32, peer: PeerId) -> u64 {
    suppress::received_arp(&mut skb(frame), vni, peer);
    0
}

/// [`suppress::received_nd`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn received_nd(frame: *mut __sk_buff, vni: u32, peer: PeerId) -> u64 {
    suppress::received_nd(&mut skb(frame), vni, peer);
    0
}

/// [`suppress::nd_is_intact`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nd_is_intact(frame: *mut __sk_buff) -> u64 {
    suppress::nd_is_intact(&mut skb(frame)).into()
}

/// [`suppress::write_arp`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn write_arp(frame: *mut __sk_buff, answer: u64) -> u64 {
    to_bits(suppress::write_arp(&mut skb(frame), answer))
}

/// [`suppress::write_nd`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn write_nd(frame: *mut __sk_buff, answer: u64) -> u64 {
    to_bits(suppress::write_nd(&mut skb(frame), answer))
}

/// [`suppress::lease`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn lease(frame: *mut __sk_buff, vni: u32) -> u64 {
    suppress::lease(&mut skb(frame), vni);
    0
}

/// [`too_big::tell_v4`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn tell_v4(frame: *mut __sk_buff, mtu: u32) -> u64 {
    to_bits(too_big::tell_v4(&mut skb(frame), mtu as u16))
}

/// [`too_big::tell_v6`].
#[unsafe(no_mangle)]
pub(crate) extern "C" fn tell_v6(frame: *mut __sk_buff, mtu: u32) -> u64 {
    to_bits(too_big::tell_v6(&mut skb(frame), mtu as u16))
}
