//! The maps of paths.
#![expect(unsafe_code, reason = "map values are shared with other CPUs and the agent")]

use core::mem::offset_of;

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use l2mesh_common::{
    path::Paths,
    tables::{
        Change, HISTORY_SLOTS, OWN_REACHABILITY, PATH_SLOTS, PathNote, PathRx, PathTx, PeerId, Reported, path_slot,
    },
    wire::Reachability,
};

use super::Word;

/// Mapped into the agent's memory, as the next five: it writes and reads with every probe.
#[map]
static PATH_TX: Array<PathTx> = Array::with_max_entries(PATH_SLOTS, BPF_F_MMAPABLE);
#[map]
static PATH_RX: Array<PathRx> = Array::with_max_entries(PATH_SLOTS, BPF_F_MMAPABLE);
/// What answers said; the agent and people compare it with what this host says.
#[map]
static FINGERPRINTS: Array<u64> = Array::with_max_entries(PATH_SLOTS, BPF_F_MMAPABLE);
/// What they said of others, and behind that what this host says.
#[map]
static REACHABILITY: Array<Reported> = Array::with_max_entries(OWN_REACHABILITY + 1, BPF_F_MMAPABLE);
/// Only for people; the programs never look. As the next one.
#[map]
static PATH_NOTES: Array<PathNote> = Array::with_max_entries(PATH_SLOTS, BPF_F_MMAPABLE);
#[map]
static HISTORY: Array<Change> = Array::with_max_entries(HISTORY_SLOTS, BPF_F_MMAPABLE);

/// The tables of paths.
pub(crate) struct PathTables;

impl Paths for PathTables {
    #[inline(always)]
    fn tx(&self, peer: PeerId, path: usize) -> Option<&PathTx> {
        path_tx(path_slot(peer, path))
    }

    #[inline(always)]
    fn rx(&self, peer: PeerId, path: usize) -> Option<&PathRx> {
        PATH_RX.get(path_slot(peer, path))
    }
}

#[inline(always)]
pub(crate) fn path_tx(slot: u32) -> Option<&'static PathTx> {
    PATH_TX.get(slot)
}

/// A [`PathRx`] as the programs use it.
#[repr(C)]
pub(crate) struct SharedRx {
    pub(crate) answered: Word,
    pub(crate) rtt_ns: Word,
    pub(crate) answers: Word,
    /// Two numbers; of two CPUs that write at once one may be lost, and the next probe says it again.
    sizes: Word,
}
const _: () = assert!(size_of::<SharedRx>() == size_of::<PathRx>());
const _: () = assert!(offset_of!(SharedRx, answers) == offset_of!(PathRx, answers));
const _: () = assert!(offset_of!(SharedRx, sizes) == offset_of!(PathRx, padded) && cfg!(target_endian = "little"));

impl SharedRx {
    #[inline(always)]
    pub(crate) fn search(&self) -> u32 {
        (self.sizes.get() >> 32) as u32
    }

    #[inline(always)]
    pub(crate) fn set_search(&self, sequence: u32) {
        self.sizes.set(self.sizes.get() & 0xffff_ffff | u64::from(sequence) << 32);
    }

    #[inline(always)]
    pub(crate) fn set_padded(&self, sequence: u32) {
        self.sizes.set(self.sizes.get() & !0xffff_ffff | u64::from(sequence));
    }
}

#[inline(always)]
pub(crate) fn path_rx(slot: u32) -> Option<&'static SharedRx> {
    // SAFETY: see `bucket`.
    PATH_RX.get_ptr_mut(slot).map(|rx| unsafe { &*rx.cast::<SharedRx>() })
}

/// Where the far end's configuration is noted.
#[inline(always)]
pub(crate) fn fingerprint(slot: u32) -> Option<&'static Word> {
    // SAFETY: see `bucket`.
    FINGERPRINTS.get_ptr_mut(slot).map(|noted| unsafe { &*noted.cast::<Word>() })
}

/// What this host says of all others.
#[inline(always)]
pub(crate) fn own_reachability() -> Option<&'static Reachability> {
    REACHABILITY.get(OWN_REACHABILITY).map(|own| &own.said)
}

/// Where it is noted what a peer says. Whoever reads it while it is written may see some of the old and some of the new.
#[inline(always)]
pub(crate) fn reported(peer: PeerId) -> Option<*mut Reachability> {
    // SAFETY: a place in the value that the map has there.
    REACHABILITY.get_ptr_mut(peer).map(|reported| unsafe { &raw mut (*reported).said })
}
