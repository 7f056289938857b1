//! The kernel programs' entry points, and the only place where a verdict becomes an action.
//!
//! | program | hook | room |
//! |---|---|---|
//! | `underlay_xdp` | eth0, native XDP | `decap`, `relay`, `probe` |
//! | `underlay_tc` | eth0, TC ingress | `decap`, `relay`, `probe` |
//! | `helper_tc` | l2mk0, TC ingress | `decap` |
//! | `overlay_tc` | l2m0-p, TC ingress | `encap`, `flood`, `suppress` |
//! | `too_big_tc` | none, called by `overlay_tc` | `too_big` |
//! | `overlay_egress` | l2m0, TC egress | `encap`, `flood` |
//! | `self_test_tc` | none, run by the agent | here |

#![no_std]
#![no_main]
// Atomic addition: aya-ebpf has none, and core not for this target.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "see above")]
// See l2mesh-common.
#![expect(clippy::inline_always, reason = "these run per frame in the kernel")]
#![expect(clippy::cast_possible_truncation, reason = "wire fields are narrower than Rust's lengths")]
#![expect(clippy::missing_docs_in_private_items, reason = "aya's macros make undocumented items")]

mod apart;
mod capture;
mod decap;
mod encap;
mod flood;
mod learn;
mod mss;
mod packet;
mod probe;
mod relay;
mod storm;
mod suppress;
mod tables;
mod too_big;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_STOLEN, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use l2mesh_common::{
    tables::Port,
    verdict::{Fate, Verdict},
};

use crate::{
    capture::Place,
    decap::Onward,
    encap::Hook,
    packet::{Frame, Packet as _, Skb},
};

/// Where a carried frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Out of this interface.
    Redirect(u32),
    /// Into this interface, as if it had received it.
    Receive(u32),
}

impl Action {
    /// Nowhere more: copies have gone everywhere. Not a variant without a number: beside it the compiler would carry along
    /// whatever is in that register, and the verifier minds what that may be.
    pub(crate) const DONE: Self = Self::Redirect(0);
}

/// Outer header off and mark on, or the frame as it came.
#[xdp(frags)]
fn underlay_xdp(context: XdpContext) -> u32 {
    let mut frame = Frame::new(context);
    match decap::underlay_xdp(&mut frame) {
        Ok(Onward::Up) => xdp_action::XDP_PASS,
        Ok(Onward::Back) => xdp_action::XDP_TX,
        Ok(Onward::Ended) => xdp_action::XDP_DROP,
        Err(verdict) => {
            tables::count(verdict, frame.frame_len());
            match verdict.fate() {
                Fate::Dropped => {
                    capture::dropped_xdp(&frame, verdict);
                    xdp_action::XDP_DROP
                }
                Fate::Carried | Fate::Passed | Fate::Noted => xdp_action::XDP_PASS,
            }
        }
    }
}

#[classifier]
fn underlay_tc(context: TcContext) -> i32 {
    let mut skb = Skb::new(context);
    let outcome = decap::underlay_tc(&mut skb);
    act(&skb, outcome, Place::Underlay)
}

#[classifier]
fn helper_tc(context: TcContext) -> i32 {
    let mut skb = Skb::new(context);
    let outcome = decap::helper_tc(&mut skb);
    act(&skb, outcome, Place::Helper)
}

#[classifier]
fn overlay_tc(context: TcContext) -> i32 {
    let mut skb = Skb::new(context);
    let outcome = match tables::port(skb.ifindex()) {
        Some(port) => encap::overlay(&mut skb, port, Hook::Hidden),
        None => Err(Verdict::NoNetwork),
    };
    act(&skb, outcome, Place::Overlay)
}

/// Called by [`overlay_tc`] for what does not fit the path: a program of its own, because nobody is in a hurry there.
#[classifier]
fn too_big_tc(context: TcContext) -> i32 {
    let mut skb = Skb::new(context);
    let outcome = match tables::port(skb.ifindex()) {
        Some(port) => encap::overlay(&mut skb, port, Hook::Oversize),
        None => Err(Verdict::NoNetwork),
    };
    act(&skb, outcome, Place::Overlay)
}

/// The same without the veth hop, for frames that need nothing which the hop does. Whatever is refused here goes
/// on to the hidden peer, where it is counted.
#[classifier]
fn overlay_egress(context: TcContext) -> i32 {
    let mut skb = Skb::new(context);
    let allowed = |port: &&Port| port.allows_shortcut(skb.netns_cookie());
    let Some(port) = tables::port(skb.ifindex()).filter(allowed) else { return TC_ACT_UNSPEC };
    let outcome = encap::overlay(&mut skb, port, Hook::Overlay);
    // A frame that has its outer header already cannot go on as if nothing were; one too many would be counted twice.
    let ends = |verdict| skb.has_outer() || matches!(verdict, Verdict::StormSent | Verdict::StormSentSource);
    act(&skb, outcome.map_err(|verdict| if ends(verdict) { verdict } else { Verdict::Declined }), Place::Overlay)
}

/// Lets the underlay interface receive the frame that it is run with (`BPF_PROG_TEST_RUN`).
#[classifier]
fn self_test_tc(context: TcContext) -> i32 {
    let mut skb = Skb::new(context);
    let outcome = tables::settings().ok_or(Verdict::NotVxlan).and_then(|it| skb.clone_into(it.underlay_ifindex));
    if outcome.is_ok() { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[inline(always)]
fn act(skb: &Skb, outcome: Result<Action, Verdict>, place: Place) -> i32 {
    match outcome {
        Ok(Action::DONE) => TC_ACT_STOLEN,
        Ok(Action::Redirect(ifindex)) => packet::redirect(ifindex),
        Ok(Action::Receive(ifindex)) => packet::receive(ifindex),
        Err(verdict) => {
            tables::count(verdict, skb.frame_len());
            match verdict.fate() {
                Fate::Dropped => {
                    capture::dropped(skb, verdict, place);
                    TC_ACT_SHOT
                }
                // Not TC_ACT_OK: that would switch off other people's programs behind us.
                Fate::Carried | Fate::Passed | Fate::Noted => TC_ACT_UNSPEC,
            }
        }
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

#[expect(unsafe_code, reason = "the loader finds the licence by section name")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
