//! The maps, and safe access to them. No other file touches a map.
#![expect(unsafe_code, reason = "map values are shared with other CPUs and the agent")]

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use l2mesh_common::{
    tables::{
        Counter, Event, FDB_SIZE, FdbEntry, FdbKey, FloodList, Label, LabelKey, MAX_NETWORKS, Meta, Network,
        PEER_SLOTS, Peer, PeerCounter, PeerId, Port, Settings, VtepAddress,
    },
    verdict::Verdict,
};

/// Only for the agent; the programs never look.
#[map]
static META: Array<Meta> = Array::with_max_entries(1, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static NETWORKS: HashMap<u32, Network> = HashMap::with_max_entries(MAX_NETWORKS, 0);
/// Two interfaces a network.
#[map]
static PORTS: HashMap<u32, Port> = HashMap::with_max_entries(2 * MAX_NETWORKS, 0);
#[map]
static PEERS: Array<Peer> = Array::with_max_entries(PEER_SLOTS, 0);
#[map]
static VTEPS: HashMap<VtepAddress, PeerId> = HashMap::with_max_entries(2 * PEER_SLOTS, 0);
#[map]
static FLOOD: HashMap<u32, FloodList> = HashMap::with_max_entries(MAX_NETWORKS, 0);
/// Preallocated, not LRU: an LRU writes on lookup and evicts under a lock; here a full table floods instead.
#[map]
static FDB: HashMap<FdbKey, FdbEntry> = HashMap::with_max_entries(FDB_SIZE, 0);
#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Verdict::SLOTS, 0);
#[map]
static PEER_COUNTERS: PerCpuArray<PeerCounter> = PerCpuArray::with_max_entries(PEER_SLOTS, 0);
/// Only for people; the programs never look.
#[map]
static LABELS: HashMap<LabelKey, Label> =
    HashMap::with_max_entries(2 * MAX_NETWORKS + PEER_SLOTS + 64, BPF_F_NO_PREALLOC);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

#[inline(always)]
pub(crate) fn network(vni: u32) -> Option<&'static Network> {
    // SAFETY: preallocated values are never unmapped while a program runs; a value replaced meanwhile may mix old
    // and new fields, each of which is valid by itself. So for all below.
    unsafe { NETWORKS.get(vni) }
}

#[inline(always)]
pub(crate) fn port(ifindex: u32) -> Option<&'static Port> {
    // SAFETY: see `network`.
    unsafe { PORTS.get(ifindex) }
}

#[inline(always)]
pub(crate) fn peer(id: PeerId) -> Option<&'static Peer> {
    PEERS.get(id)
}

#[inline(always)]
pub(crate) fn peer_at(source: &VtepAddress) -> Option<PeerId> {
    // SAFETY: see `network`.
    unsafe { VTEPS.get(source) }.copied()
}

#[inline(always)]
pub(crate) fn flood_list(vni: u32) -> Option<&'static FloodList> {
    // SAFETY: see `network`.
    unsafe { FLOOD.get(vni) }
}

#[inline(always)]
pub(crate) fn fdb(key: &FdbKey) -> Option<&'static FdbEntry> {
    // SAFETY: see `network`.
    unsafe { FDB.get(key) }
}

/// Changes an entry in place. Other CPUs may do the same: whoever writes a field last is as right as the other.
#[inline(always)]
pub(crate) fn fdb_change(key: &FdbKey, change: impl FnOnce(&mut FdbEntry)) {
    if let Some(entry) = FDB.get_ptr_mut(key) {
        // SAFETY: the verifier knows the value's size; see also `network`.
        change(unsafe { &mut *entry });
    }
}

/// False if the table is full.
#[inline(always)]
pub(crate) fn fdb_add(key: &FdbKey, entry: &FdbEntry) -> bool {
    const EEXIST: i32 = -17;
    // Another CPU may have been first.
    matches!(FDB.insert(key, entry, u64::from(BPF_NOEXIST)), Ok(()) | Err(EEXIST))
}

/// One frame more under this verdict.
#[inline(always)]
pub(crate) fn count(verdict: Verdict, octets: u32) {
    if !verdict.is_counted() {
        return;
    }
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict.number()) {
        // SAFETY: this CPU's own value, and programs do not preempt each other on it.
        add(unsafe { &mut *counter }, octets);
    }
}

#[inline(always)]
pub(crate) fn count_sent(peer: PeerId, octets: u32) {
    if let Some(counter) = PEER_COUNTERS.get_ptr_mut(peer) {
        // SAFETY: see `count`.
        add(unsafe { &mut (*counter).sent }, octets);
    }
}

#[inline(always)]
pub(crate) fn count_received(peer: PeerId, octets: u32) {
    if let Some(counter) = PEER_COUNTERS.get_ptr_mut(peer) {
        // SAFETY: see `count`.
        add(unsafe { &mut (*counter).received }, octets);
    }
}

#[inline(always)]
fn add(counter: &mut Counter, octets: u32) {
    counter.frames += 1;
    counter.octets += u64::from(octets);
}

/// Tells the agent, which looks once a second: a flood of events must not become a flood of wakeups.
#[inline(always)]
pub(crate) fn tell(event: &Event) {
    // A full buffer loses events, never counts.
    let _full = EVENTS.output::<Event>(event, u64::from(BPF_RB_NO_WAKEUP));
}
