//! The kernel programs of the bench. Nothing here is part of l2mesh.
//!
//! | program | hook | does |
//! |---|---|---|
//! | `pass` | native XDP | nothing |
//! | `generate` | none, run with live frames (`BPF_PROG_TEST_RUN`) | sends the frame in `FRAME`, eight flows in turn |
//! | `sink` | TC ingress | counts and drops what goes to UDP port 9, inside VXLAN or not |

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "packet and map access, helper calls")]
#![expect(clippy::missing_docs_in_private_items, reason = "aya's macros make undocumented items")]
#![expect(clippy::cast_possible_truncation, reason = "an ifindex has 32 bits; BPF has 64-bit registers")]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::bpf_redirect,
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray},
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

/// 14 words of the frame, the interface, unused.
#[map]
static FRAME: Array<[u64; 16]> = Array::with_max_entries(1, 0);
/// Frames generated: the flow's number.
#[map]
static TURN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Frames that reached the sink.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[xdp(frags)]
fn pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[xdp]
fn generate(context: XdpContext) -> u32 {
    let (Some(frame), Some(turn)) = (FRAME.get(0), TURN.get_ptr_mut(0)) else { return xdp_action::XDP_ABORTED };
    // SAFETY: this CPU's own value.
    let flow = unsafe {
        *turn += 1;
        *turn & 7
    };
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

#[classifier]
fn sink(context: TcContext) -> i32 {
    if !TARGETS.iter().any(|offset| goes_to_discard(&context, *offset)) {
        return TC_ACT_UNSPEC;
    }
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own value, and programs do not preempt each other on it.
        unsafe { *arrived += 1 };
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
