//! All pointer work on frames. Everything that may move a frame's data takes `&mut self`, so that the borrow
//! checker asks for what the verifier asks for: headers are looked up anew afterwards.
#![expect(unsafe_code, reason = "packet access and helper calls")]

mod frame;
mod onward;
mod reshape;
mod skb;

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_loop, bpf_redirect},
};
use bytemuck::{AnyBitPattern, NoUninit};
use l2mesh_common::{
    tables::{NextHop, Settings, Way},
    verdict::Verdict,
    wire::{HeadersV4, HeadersV6, OuterV4, OuterV6, PerFrame, Reachability, Template},
};

pub(crate) use self::{frame::Frame, reshape::Quote, skb::Skb};

/// The IP version of an outer header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Octets of the outer headers.
    #[inline(always)]
    pub(crate) const fn outer(self) -> u32 {
        match self {
            Self::V4 => OuterV4::LEN as u32,
            Self::V6 => OuterV6::LEN as u32,
        }
    }
}

impl Family {
    /// The IP version of what our programs send there; `None` where the helper device does.
    #[inline(always)]
    pub(crate) const fn of(next_hop: &NextHop) -> Option<Self> {
        match next_hop.way() {
            Way::V4 => Some(Self::V4),
            Way::V6 => Some(Self::V6),
            Way::HelperV4 | Way::HelperV6 => None,
        }
    }
}

/// Received frames that can be sent on with another outer header.
pub(crate) trait Underlay: Packet {
    /// Puts another outer header in the place of the one that is there, and the inner Ethernet header behind it.
    fn rewrite(&mut self, from: Family, to: Family, template: &Template, frame: &PerFrame) -> Result<(), Verdict>;

    /// True if the frame can leave by this interface from this hook.
    fn can_leave_by(&self, settings: &Settings, ifindex: u32) -> bool;

    /// Writes what this host says of others into an answer.
    fn say(&mut self, offset: u32, said: &Reachability) -> Result<(), Verdict>;

    /// Notes what another says in its answer, which is long enough.
    fn hear(&self, offset: u32, noted: *mut Reachability);

    /// Octets of the greatest inner packet that a frame is on the wire, whose inner frame has `len` octets.
    fn greatest_packet(&self, family: Family, len: u32) -> u32;
}

/// What XDP and TC frames have in common: headers at constant offsets.
pub(crate) trait Packet {
    fn data(&self) -> usize;
    fn data_end(&self) -> usize;

    /// Octets from the Ethernet header on.
    fn frame_len(&self) -> u32;

    /// Writes a header over the one at `offset`.
    fn replace<T: NoUninit>(&mut self, offset: u32, value: &T) -> Result<(), Verdict>;

    /// The header at `offset`, or `None` where the frame, or its directly readable part, ends before.
    #[inline(always)]
    fn header<T: AnyBitPattern>(&self, offset: usize) -> Option<&T> {
        let start = self.data() + offset;
        if start + size_of::<T>() > self.data_end() {
            return None;
        }
        // SAFETY: the check above bounds the access and any bits are a T. Headers lie at even addresses, as
        // Ethernet frames do; where not, the JITs that we run on allow it, else the verifier refuses the load.
        Some(unsafe { &*(start as *const T) })
    }

    /// Writes words from `offset` on, each made when its turn comes: all at once they would not fit the registers.
    #[inline(always)]
    fn store<const N: usize, W: NoUninit>(&mut self, offset: usize, word: impl Fn(usize) -> W) -> Result<(), Verdict> {
        let start = self.data() + offset;
        if start + N * size_of::<W>() > self.data_end() {
            return Err(Verdict::StoreFailed);
        }
        for index in 0..N {
            // Volatile, or the words become a call of memmove, which goes octet by octet here.
            // SAFETY: as in `header`; `&mut self` says that no header is borrowed.
            unsafe { (start as *mut W).add(index).write_volatile(word(index)) };
        }
        Ok(())
    }
}

/// Writes everything up to the inner payload, tags not counted, at the start of a frame.
#[inline(always)]
pub(crate) fn write_headers(
    packet: &mut impl Packet,
    family: Family,
    template: &Template,
    frame: &PerFrame,
) -> Result<(), Verdict> {
    match family {
        Family::V4 => {
            let headers = HeadersV4::new(template, frame);
            packet.store::<{ HeadersV4::WORDS }, _>(0, |index| headers.word(index))
        }
        Family::V6 => {
            const WORDS: usize = HeadersV6::WORDS;
            let headers = HeadersV6::new(template, frame);
            packet.store::<WORDS, _>(0, |index| headers.word(index))?;
            packet.store::<1, _>(WORDS * size_of::<u64>(), |_| headers.word(WORDS) as u32)
        }
    }
}

/// Sends the frame out of an interface.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> i32 {
    // SAFETY: notes the target; no pointers.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Lets an interface receive the frame.
#[inline(always)]
pub(crate) fn receive(ifindex: u32) -> i32 {
    // SAFETY: notes the target; no pointers.
    unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: good to a tick, a third of the price of the exact one.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[inline(always)]
pub(crate) fn exact_now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The body of a loop.
pub(crate) trait Step {
    fn step(&mut self, index: u32);
}

/// Runs a body for 0 up to `times`. The verifier looks at it once (`bpf_loop`), where an ordinary loop would be
/// followed turn by turn.
#[inline(always)]
pub(crate) fn repeat<S: Step>(times: u32, body: &mut S) {
    // SAFETY: the callback has the type that the helper asks for and is done with `body` when the helper returns.
    unsafe {
        bpf_loop(times, turn::<S> as *const () as *mut c_void, core::ptr::from_mut(body).cast(), 0);
    }
}

extern "C" fn turn<S: Step>(index: u64, body: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a body of this type, which nobody else uses meanwhile.
    unsafe { (*body.cast::<S>()).step(index as u32) };
    0
}
