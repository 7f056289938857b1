//! The kernel programs of the bench. Nothing here is part of l2mesh.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `pass` | native XDP | nothing |
//! | `generate` | none, run with live frames (`BPF_PROG_TEST_RUN`) | sends the frame in `FRAME`, eight flows in turn, as fast as the sink takes them |
//! | `sink` | TC ingress | counts and drops what goes to UDP port 9, inside VXLAN or not |

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
const WORDS: usize = 14;
/// Where in `FRAME` the interface stands that the frame leaves through.
const IFINDEX: usize = 14;
/// UDP source ports: of the first header, and of the one inside VXLAN. The flow goes into their last octets.
const PORTS: [(usize, u32); 2] = [(4, 24), (10, 40)];
/// Where a frame's UDP destination port is: without options, and behind an outer header of 50 octets.
const TARGETS: [usize; 2] = [36, 86];
/// Port 9, discard, as it is on the wire.
const DISCARD: [u8; 2] = [0, 9];

/// Where in `FRAME` something else than zero ends it.
const STOP: usize = 15;
/// Frames that may be under way, of the 256 that a veth's ring holds: what does not fit would cost the receiver time too,
/// in contention for the locks of rings and page pools.
const WINDOW: u64 = 160;
/// How many frames pass between two looks at the sink, so that its counter stays in its own processor's cache.
const LOOK: u64 = 32;
/// Looks before frames count as lost: a fraction of a millisecond.
const PATIENCE: u32 = 1 << 16;

/// 14 words of the frame, the interface, the end.
#[map]
static FRAME: Array<[u64; 16]> = Array::with_max_entries(1, 0);
/// What `ARRIVED` will be when everything sent has arrived. One processor writes it.
#[map]
static EXPECTED: Array<u64> = Array::with_max_entries(1, 0);
/// Frames that reached the sink.
#[map]
static ARRIVED: Array<u64> = Array::with_max_entries(1, 0);

#[xdp(frags)]
fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp]
fn generate(context: XdpContext) -> u32 {
    let (Some(frame), Some(expected)) = (FRAME.get(0), EXPECTED.get_ptr_mut(0)) else { return xdp_action::XDP_ABORTED };
    if frame[STOP] != 0 {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: only this program writes it, on one processor.
    let expected = unsafe { &mut *expected };
    *expected += 1;
    let flow = *expected & 7;
    if *expected & (LOOK - 1) == 0 {
        let mut wait = Wait { limit: expected.saturating_sub(WINDOW), arrived: 0 };
        // SAFETY: the callback has the type that the helper asks for and is done with `wait` when the helper returns.
        unsafe { bpf_loop(PATIENCE, look as *const () as *mut c_void, (&raw mut wait).cast(), 0) };
        if wait.arrived < wait.limit {
            *expected = wait.arrived;
        }
    }
    for (index, word) in frame.iter().enumerate().take(WORDS) {
        let start = context.data() + index * 8;
        if start + 8 > context.data_end() {
            break;
        }
        let port = PORTS.iter().find(|(place, _)| *place == index);
        let word = port.map_or(*word, |(_, shift)| *word ^ (flow << shift));
        // SAFETY: bounded by the check above.
        unsafe { (start as *mut u64).write_volatile(word) };
    }
    // SAFETY: notes the target; no pointers.
    unsafe { bpf_redirect(frame[IFINDEX] as u32, 0) as u32 }
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
