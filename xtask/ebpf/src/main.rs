//! The kernel programs of the bench. Nothing here is part of l2mesh.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `pass` | native XDP | nothing |
//! | `generate` | none, run with live frames (`BPF_PROG_TEST_RUN`) | sends the frame in `FRAME`, eight flows and any number of items in turn, as fast as the sink takes them |
//! | `fan` | TC egress | gives each frame the next item's MAC address or sends it out of the next item's interface |
//! | `sink` | TC ingress | counts and drops what goes to UDP port 9, inside VXLAN or not |
//!
//! Items are MAC addresses or networks, numbered from zero; their numbers stand in two octets of a frame.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet and map access, helper calls")]
#![expect(clippy::missing_docs_in_private_items, reason = "aya's macros make undocumented items")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits in 64-bit registers")]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros pass the context so")]

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::{bpf_loop, bpf_redirect},
    macros::{classifier, map, xdp},
    maps::Array,
    programs::{TcContext, XdpContext},
};

/// Words of a frame that are written each time: pages come back from the receiver as it left them.
const WORDS: usize = 18;
/// Where a frame's UDP destination port is: IPv4 without options, IPv6; behind 50 octets of IPv4 and of IPv6 outside, behind
/// 70 of IPv6.
const TARGETS: [usize; 5] = [36, 86, 56, 106, 126];
/// Port 9, discard, as it is on the wire.
const DISCARD: [u8; 2] = [0, 9];
/// Greatest number of interfaces that `fan` sends out of.
const MAX_INTERFACES: u32 = 4096;
/// Frames that may be under way, of the 256 that a veth's ring holds: what does not fit would cost the receiver time too,
/// in contention for the locks of rings and page pools.
const WINDOW: u64 = 160;
/// How many frames pass between two looks at the sink, so that its counter stays in its own processor's cache.
const LOOK: u64 = 32;
/// Looks before frames count as lost, the most that the kernel allows: some ten milliseconds.
const PATIENCE: u32 = 1 << 23;

/// What is sent, as xtask/src/bench/programs.rs fills it in.
#[repr(C)]
struct Pattern {
    frame: [u64; WORDS],
    /// The interface that frames leave through; for `fan` the first one's place in `INTERFACES` is the first item's.
    ifindex: u64,
    /// Something else than zero ends the generator.
    stop: u64,
    /// Octets of the frame into which a flow's number goes, and an item's, high and low.
    flows: [u16; 2],
    item: [u16; 2],
    first: u32,
    /// The item behind the last one.
    end: u32,
}

#[map]
static FRAME: Array<Pattern> = Array::with_max_entries(1, 0);
/// What `ARRIVED` will be when everything sent has arrived. One processor writes it.
#[map]
static EXPECTED: Array<u64> = Array::with_max_entries(1, 0);
/// The next item.
#[map]
static ITEM: Array<u32> = Array::with_max_entries(1, 0);
/// Frames that reached the sink.
#[map]
static ARRIVED: Array<u64> = Array::with_max_entries(1, 0);
/// Where `fan` sends items; where there is one for all of them, it is the first.
#[map]
static INTERFACES: Array<u32> = Array::with_max_entries(MAX_INTERFACES, 0);

#[xdp(frags)]
fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp]
fn generate(context: XdpContext) -> u32 {
    let (Some(pattern), Some(expected)) = (FRAME.get(0), EXPECTED.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    if pattern.stop != 0 {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: only this program writes it, on one processor.
    let expected = unsafe { &mut *expected };
    *expected += 1;
    let flow = *expected as u8 & 7;
    if *expected & (LOOK - 1) == 0 {
        let mut wait = Wait { limit: expected.saturating_sub(WINDOW), arrived: 0 };
        // SAFETY: the callback has the type that the helper asks for and is done with `wait` when the helper returns.
        unsafe { bpf_loop(PATIENCE, look as *const () as *mut c_void, (&raw mut wait).cast(), 0) };
        if wait.arrived < wait.limit {
            *expected = wait.arrived;
        }
    }
    for (index, word) in pattern.frame.iter().enumerate() {
        let start = context.data() + index * 8;
        if start + 8 > context.data_end() {
            break;
        }
        // SAFETY: bounded by the check above.
        unsafe { (start as *mut u64).write_volatile(*word) };
    }
    let (start, end) = (context.data(), context.data_end());
    for offset in pattern.flows {
        change(start, end, offset, |octet| octet ^ flow);
    }
    let [high, low] = (next_item(pattern) as u16).to_be_bytes();
    change(start, end, pattern.item[0], |_| high);
    change(start, end, pattern.item[1], |_| low);
    // SAFETY: notes the target; no pointers.
    unsafe { bpf_redirect(pattern.ifindex as u32, 0) as u32 }
}

/// The item of this frame.
#[inline(always)]
#[expect(clippy::inline_always, reason = "runs per frame")]
fn next_item(pattern: &Pattern) -> u32 {
    let Some(next) = ITEM.get_ptr_mut(0) else { return 0 };
    // SAFETY: one program at a time uses it, on one processor.
    let next = unsafe { &mut *next };
    let item = *next;
    *next = if item + 1 < pattern.end { item + 1 } else { pattern.first };
    item
}

/// Changes an octet of a frame. At 0 there is none to change.
#[inline(always)]
#[expect(clippy::inline_always, reason = "runs per frame")]
fn change(start: usize, end: usize, offset: u16, to: impl FnOnce(u8) -> u8) {
    // The mask is for the verifier.
    let place = start + usize::from(offset & 0xff);
    // Two octets: what LLVM makes of one says nothing to the verifier. The last octet never changes.
    if offset == 0 || place + 2 > end {
        return;
    }
    // SAFETY: bounded by the check above.
    unsafe { (place as *mut u8).write_volatile(to((place as *const u8).read_volatile())) };
}

/// For the sink to catch up.
struct Wait {
    limit: u64,
    arrived: u64,
}

/// Ends the loop (1) when few enough frames are under way.
extern "C" fn look(_index: u64, wait: *mut Wait) -> i64 {
    let Some(arrived) = ARRIVED.get_ptr(0) else { return 1 };
    // SAFETY: `generate` passes a value of its own, and the counter is always there.
    unsafe {
        (*wait).arrived = arrived.read_volatile();
        i64::from((*wait).arrived >= (*wait).limit)
    }
}

#[classifier]
fn fan(context: TcContext) -> i32 {
    let Some(pattern) = FRAME.get(0) else { return TC_ACT_SHOT };
    let item = next_item(pattern);
    let (start, end) = (context.data(), context.data_end());
    // Both MAC addresses.
    if start + 12 > end {
        return TC_ACT_SHOT;
    }
    // SAFETY: bounded by the check above.
    unsafe {
        (start as *mut u64).write_volatile(pattern.frame[0]);
        ((start + 8) as *mut u32).write_volatile(pattern.frame[1] as u32);
    }
    let [high, low] = (item as u16).to_be_bytes();
    change(start, end, pattern.item[0], |_| high);
    change(start, end, pattern.item[1], |_| low);
    let by_mac = pattern.item[0] != 0;
    match INTERFACES.get(if by_mac { 0 } else { item }) {
        // SAFETY: notes the target; no pointers.
        Some(ifindex) => unsafe { bpf_redirect(*ifindex, 0) as i32 },
        None => TC_ACT_SHOT,
    }
}

#[classifier]
fn sink(context: TcContext) -> i32 {
    if !TARGETS.iter().any(|offset| goes_to_discard(&context, *offset)) {
        return TC_ACT_UNSPEC;
    }
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // Not atomic: a measurement has all its frames received on one processor.
        // SAFETY: the counter is always there, and aligned.
        unsafe { arrived.write_volatile(arrived.read_volatile() + 1) };
    }
    TC_ACT_SHOT
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "runs per frame")]
fn goes_to_discard(context: &TcContext, offset: usize) -> bool {
    let start = context.data() + offset;
    if start + 2 > context.data_end() {
        return false;
    }
    // SAFETY: bounded by the check above.
    unsafe { *(start as *const [u8; 2]) == DISCARD }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
