//! The maps of `l2mesh capture`.
#![expect(unsafe_code, reason = "map values are shared with other CPUs and the one who captures")]

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_CPU, BPF_F_MMAPABLE},
    helpers::generated::bpf_perf_event_output,
    macros::map,
    maps::{Array, PerCpuArray, PerfEventArray},
};
use l2mesh_common::tables::{ANYBODY, CaptureFilter, CaptureRecord, PeerId, Seen};

use super::Word;
use crate::capture::Whose;

/// Mapped into the memory of who captures.
#[map]
static CAPTURE: Array<CaptureFilter> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Its places are emptied when the process ends that filled them (`perf_event_fd_array_release` in kernel/bpf/arraymap.c).
#[map]
static CAPTURED: PerfEventArray<CaptureRecord> = PerfEventArray::new(0);
/// What is too long for the stack. Nobody else looks, so it is not pinned.
#[map]
static RECORD: PerCpuArray<CaptureRecord> = PerCpuArray::with_max_entries(1, 0);

/// A [`CaptureFilter`] as the programs use it.
#[repr(C)]
pub(crate) struct Recorder {
    pub(crate) points: Word,
    pub(crate) until_ns: Word,
    pub(crate) lost: Word,
    vni: u32,
    peer: PeerId,
    pub(crate) snaplen: u32,
    reserved: u32,
}
const _: () = assert!(size_of::<Recorder>() == size_of::<CaptureFilter>());
const _: () = assert!(offset_of!(Recorder, lost) == offset_of!(CaptureFilter, lost));
const _: () = assert!(offset_of!(Recorder, peer) == offset_of!(CaptureFilter, peer));
const _: () = assert!(offset_of!(Recorder, snaplen) == offset_of!(CaptureFilter, snaplen));

impl Recorder {
    /// True if this frame is asked for.
    #[inline(always)]
    pub(crate) fn takes(&self, room: &Room) -> bool {
        let [vni, peer, origin] = [&room.vni, &room.peer, &room.origin].map(read);
        self.points.get() & Seen::point_bit(room.seen()) != 0
            && (self.vni == 0 || self.vni == vni)
            && (self.peer == ANYBODY || self.peer == peer || self.peer == origin)
    }
}

/// A [`CaptureRecord`] of which no part is remembered elsewhere, which would be on the stack.
#[repr(transparent)]
pub(crate) struct Room(CaptureRecord);

impl core::ops::Deref for Room {
    type Target = CaptureRecord;

    #[inline(always)]
    fn deref(&self) -> &CaptureRecord {
        &self.0
    }
}

impl Room {
    #[inline(always)]
    pub(crate) fn set_seen(&mut self, seen: u32, Whose { vni, peer, origin }: Whose) {
        let record = &mut self.0;
        write(&mut record.seen, seen);
        write(&mut record.vni, vni);
        write(&mut record.peer, peer);
        write(&mut record.origin, origin);
    }

    #[inline(always)]
    pub(crate) fn seen(&self) -> u32 {
        read(&self.0.seen)
    }

    #[inline(always)]
    pub(crate) fn set_frame(&mut self, now: u64, (len, octets): (u32, u32), tag: u32, segment: u32) {
        let record = &mut self.0;
        (record.time_ns, record.len, record.octets, record.tag, record.segment) = (now, len, octets, tag, segment);
    }
}

#[inline(always)]
fn read(value: &u32) -> u32 {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::from_ref(value).read_volatile() }
}

#[inline(always)]
fn write(place: &mut u32, value: u32) {
    // SAFETY: see `read`.
    unsafe { core::ptr::from_mut(place).write_volatile(value) };
}

/// The only thing that is asked for every frame: is anything recorded at all?
#[inline(always)]
pub(crate) fn captures() -> bool {
    recorder().is_some_and(|recorder| recorder.points.get() != 0)
}

#[inline(always)]
pub(crate) fn recorder() -> Option<&'static Recorder> {
    // SAFETY: of the same layout, and every word may change at any time; see also `network`.
    CAPTURE.get_ptr_mut(0).map(|capture| unsafe { &*capture.cast::<Recorder>() })
}

/// Room for a record.
#[inline(always)]
pub(crate) fn record_room() -> Option<&'static mut Room> {
    // SAFETY: see `count`; it is written out before the program does anything else, and a `Room` is a `CaptureRecord`.
    RECORD.get_ptr_mut(0).map(|record| unsafe { &mut *record.cast::<Room>() })
}

/// Hands over a record and the first octets of the frame. False if nobody takes it, or he is too slow.
#[inline(always)]
pub(crate) fn write_record(context: *mut c_void, record: &Room, octets: u32) -> bool {
    let flags = u64::from(octets) << 32 | BPF_F_CURRENT_CPU;
    let map = (&raw const CAPTURED).cast_mut().cast();
    let data = core::ptr::from_ref(record).cast_mut().cast();
    // SAFETY: `data` is as long as said, and the kernel copies it; the context is the program's own.
    unsafe { bpf_perf_event_output(context, map, flags, data, size_of::<CaptureRecord>() as u64) == 0 }
}
