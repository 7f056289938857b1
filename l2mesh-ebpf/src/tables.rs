//! The maps, and safe access to them. No other file touches a map.
#![expect(unsafe_code, reason = "map values are shared with other CPUs and the agent")]

mod capture;
mod paths;

use core::{
    cell::UnsafeCell,
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    mem::offset_of,
};

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use l2mesh_common::{
    freeze::Stays,
    tables::{
        BUCKET_SLOTS, Bucket, BucketKey, CALL_SLOTS, CALL_TOO_BIG, Counter, Event, FDB_SIZE, FdbEntry, FdbKey,
        FloodList, Label, LabelKey, MAX_NETWORKS, MemberKey, MemberMacs, Members, Meta, Neighbour, NeighbourKey,
        Network, NetworkCounter, PEER_SLOTS, Peer, PeerCounter, PeerId, Port, STAYS_SLOTS, Settings, VtepAddress,
    },
    too_big,
    verdict::Verdict,
};

pub(crate) use self::{
    capture::{Room, captures, record_room, recorder, write_record},
    paths::{PathTables, fingerprint, own_reachability, path_rx, path_tx, reported},
};
use crate::packet::{Quote, Skb};

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
/// Takes memory only where networks answer for their neighbours. An element that is replaced is used again at once, as a
/// preallocated one is.
#[map]
static NEIGHBOURS: HashMap<NeighbourKey, Neighbour> = HashMap::with_max_entries(FDB_SIZE, BPF_F_NO_PREALLOC);
#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Verdict::SLOTS, 0);
#[map]
static PEER_COUNTERS: PerCpuArray<PeerCounter> = PerCpuArray::with_max_entries(PEER_SLOTS, 0);
#[map]
static NETWORK_COUNTERS: PerCpuArray<NetworkCounter> = PerCpuArray::with_max_entries(MAX_NETWORKS, 0);
/// Only for people; the programs never look.
#[map]
static LABELS: HashMap<LabelKey, Label> =
    HashMap::with_max_entries(3 * MAX_NETWORKS + PEER_SLOTS + 64, BPF_F_NO_PREALLOC);
/// LRU: who floods from ever new addresses makes others' buckets full at worst.
#[map]
static BUCKETS: LruHashMap<BucketKey, Bucket> = LruHashMap::with_max_entries(BUCKET_SLOTS, 0);
#[map]
static STAYS: LruHashMap<FdbKey, Stays> = LruHashMap::with_max_entries(STAYS_SLOTS, 0);
/// As large as the FDB, whose every entry may be behind another member; few networks have the limit.
#[map]
static MEMBER_MACS: HashMap<MemberKey, MemberMacs> = HashMap::with_max_entries(FDB_SIZE, BPF_F_NO_PREALLOC);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

#[map]
static NODES: HashMap<u32, PeerId> = HashMap::with_max_entries(2 * PEER_SLOTS, 0);
#[map]
static RELAYED: HashMap<u32, Members> = HashMap::with_max_entries(MAX_NETWORKS, BPF_F_NO_PREALLOC);

/// What programs call in place of themselves.
#[map]
static CALLS: ProgramArray = ProgramArray::with_max_entries(CALL_SLOTS, 0);
/// When the buckets of the answers to what is too big are full again. Nobody else looks, so it is not pinned; as the next one.
#[map]
static ANSWERS: Array<u64> = Array::with_max_entries(too_big::BUCKETS, 0);
/// What is too long for the stack.
#[map]
static QUOTE: PerCpuArray<Quote> = PerCpuArray::with_max_entries(1, 0);

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

/// The peer of a node id.
#[inline(always)]
pub(crate) fn node(id: u32) -> Option<PeerId> {
    // SAFETY: see `network`.
    unsafe { NODES.get(id) }.copied()
}

/// Who may be relayed for in a network.
#[inline(always)]
pub(crate) fn relayed(vni: u32) -> Option<&'static Members> {
    // SAFETY: see `network`; without preallocation a value is used again only after all programs that have it end.
    unsafe { RELAYED.get(vni) }
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

/// What became of a new entry.
pub(crate) enum Added {
    Yes,
    /// Another CPU was first.
    Before,
    Full,
}

#[inline(always)]
pub(crate) fn fdb_add(key: &FdbKey, entry: &FdbEntry) -> Added {
    const EEXIST: i32 = -17;
    match FDB.insert(key, entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => Added::Yes,
        Err(EEXIST) => Added::Before,
        Err(_) => Added::Full,
    }
}

/// False if another CPU, or the agent, was first.
#[inline(always)]
pub(crate) fn fdb_remove(key: &FdbKey) -> bool {
    FDB.remove(key).is_ok()
}

/// A number that all CPUs change. The types of `core::sync::atomic` are no help: what this target has of them does not add,
/// and LLVM knows no atomic load for it, where every aligned one is.
#[repr(transparent)]
pub(crate) struct Word(UnsafeCell<u64>);

impl Word {
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        // SAFETY: the pointer is valid, and a load of a word is one instruction; so for all below.
        unsafe { self.0.get().read_volatile() }
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        // SAFETY: see `get`.
        unsafe { self.0.get().write_volatile(value) };
    }

    /// Puts another value in the place of `before`; false if it was not that any more.
    #[inline(always)]
    pub(crate) fn exchange(&self, before: u64, after: u64) -> bool {
        const { assert!(cfg!(target_pointer_width = "64")) };
        // SAFETY: see `get`.
        unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(self.0.get(), before, after).1
        }
    }

    /// Wraps around: to take away, add the negative.
    #[inline(always)]
    pub(crate) fn add(&self, value: u64) {
        // SAFETY: see `get`.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.0.get(), value) };
    }
}

/// A [`Bucket`] as the programs use it.
#[repr(C)]
pub(crate) struct SharedBucket {
    pub(crate) full_at_ns: Word,
    pub(crate) dropped_at_ns: Word,
    pub(crate) told_at_ns: Word,
    pub(crate) dropped: Word,
}
const _: () = assert!(size_of::<SharedBucket>() == size_of::<Bucket>());
const _: () = assert!(offset_of!(SharedBucket, told_at_ns) == offset_of!(Bucket, told_at_ns));

/// The bucket of this key, a full one if there is none yet.
#[inline(always)]
pub(crate) fn bucket(key: &BucketKey) -> Option<&'static SharedBucket> {
    static FULL: Bucket = Bucket { full_at_ns: 0, dropped_at_ns: 0, told_at_ns: 0, dropped: 0 };
    // By reference: a copy would be one on the stack.
    let full = &FULL;
    let bucket = BUCKETS.get_ptr_mut(key).or_else(|| {
        // Another CPU may be first, with what is as good.
        let _there_already = BUCKETS.insert(key, full, u64::from(BPF_NOEXIST));
        BUCKETS.get_ptr_mut(key)
    })?;
    // SAFETY: of the same layout, and every word may change at any time; see also `network`.
    Some(unsafe { &*bucket.cast::<SharedBucket>() })
}

/// [`MemberMacs`] as the programs use them.
#[repr(C)]
pub(crate) struct SharedMacs {
    pub(crate) count: Word,
    pub(crate) told_at_ns: Word,
}
const _: () = assert!(size_of::<SharedMacs>() == size_of::<MemberMacs>());
const _: () = assert!(offset_of!(SharedMacs, told_at_ns) == offset_of!(MemberMacs, told_at_ns));

/// The addresses behind a member, none if it is new.
#[inline(always)]
pub(crate) fn member_macs(key: &MemberKey) -> Option<&'static SharedMacs> {
    static NONE: MemberMacs = MemberMacs { count: 0, told_at_ns: 0 };
    let none = &NONE;
    let macs = MEMBER_MACS.get_ptr_mut(key).or_else(|| {
        let _there_already = MEMBER_MACS.insert(key, none, u64::from(BPF_NOEXIST));
        MEMBER_MACS.get_ptr_mut(key)
    })?;
    // SAFETY: see `bucket`.
    Some(unsafe { &*macs.cast::<SharedMacs>() })
}

/// Changes what is known of an address's stays, of which nothing may be known yet.
#[inline(always)]
pub(crate) fn stays_change<R>(key: &FdbKey, change: impl FnOnce(&mut Stays) -> R) -> Option<R> {
    static NONE: Stays = Stays::NONE;
    let none = &NONE;
    let stays = STAYS.get_ptr_mut(key).or_else(|| {
        // Another CPU may be first.
        let _there_already = STAYS.insert(key, none, u64::from(BPF_NOEXIST));
        STAYS.get_ptr_mut(key)
    })?;
    // SAFETY: see `fdb_change`.
    Some(change(unsafe { &mut *stays }))
}

#[inline(always)]
pub(crate) fn neighbour(key: &NeighbourKey) -> Option<&'static Neighbour> {
    // SAFETY: see `network`.
    unsafe { NEIGHBOURS.get(key) }
}

/// Changes an entry in place, if it is there.
#[inline(always)]
pub(crate) fn neighbour_change(key: &NeighbourKey, change: impl FnOnce(&mut Neighbour)) {
    if let Some(entry) = NEIGHBOURS.get_ptr_mut(key) {
        // SAFETY: see `fdb_change`.
        change(unsafe { &mut *entry });
    }
}

/// False if the table is full.
#[inline(always)]
pub(crate) fn neighbour_put(key: &NeighbourKey, entry: &Neighbour) -> bool {
    NEIGHBOURS.insert(key, entry, 0).is_ok()
}

#[inline(always)]
pub(crate) fn neighbour_remove(key: &NeighbourKey) {
    // Gone is gone.
    let _gone = NEIGHBOURS.remove(key);
}

/// One frame more under this verdict.
#[inline(always)]
pub(crate) fn count(verdict: Verdict, octets: u32) {
    if verdict.is_counted() {
        count_nth(verdict, octets);
    }
}

/// The same. Returns how many they are on this CPU.
#[inline(always)]
pub(crate) fn count_nth(verdict: Verdict, octets: u32) -> u64 {
    let Some(counter) = COUNTERS.get_ptr_mut(verdict.number()) else { return 0 };
    // SAFETY: this CPU's own value, and programs do not preempt each other on it.
    let counter = unsafe { &mut *counter };
    add(counter, octets);
    counter.frames
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

/// A frame sent into the network of this number.
#[inline(always)]
pub(crate) fn count_sent_into(network: u16, octets: u32) {
    if let Some(counter) = NETWORK_COUNTERS.get_ptr_mut(network.into()) {
        // SAFETY: see `count`.
        add(unsafe { &mut (*counter).sent }, octets);
    }
}

#[inline(always)]
pub(crate) fn count_received_in(network: u16, octets: u32) {
    if let Some(counter) = NETWORK_COUNTERS.get_ptr_mut(network.into()) {
        // SAFETY: see `count`.
        add(unsafe { &mut (*counter).received }, octets);
    }
}

/// Frames that storm control ends on their way into the network of this number.
#[inline(always)]
pub(crate) fn count_storm_sent(network: u16, frames: u32) {
    if let Some(counter) = NETWORK_COUNTERS.get_ptr_mut(network.into()) {
        // SAFETY: see `count`.
        unsafe { (*counter).storm_sent += u64::from(frames) };
    }
}

#[inline(always)]
pub(crate) fn count_storm_received(network: u16, frames: u32) {
    if let Some(counter) = NETWORK_COUNTERS.get_ptr_mut(network.into()) {
        // SAFETY: see `count`.
        unsafe { (*counter).storm_received += u64::from(frames) };
    }
}

/// Goes on in the program for frames that do not fit, with the frame as it is; returns if there is none.
#[inline(always)]
pub(crate) fn call_too_big(skb: &Skb) {
    // SAFETY: nothing here waits to be dropped.
    unsafe { CALLS.tail_call(skb.context(), CALL_TOO_BIG) };
}

/// When the bucket of these answers is full again.
#[inline(always)]
pub(crate) fn answers(bucket: u32) -> Option<&'static mut u64> {
    // SAFETY: a number that others may change meanwhile is as good as any.
    ANSWERS.get_ptr_mut(bucket).map(|full_at| unsafe { &mut *full_at })
}

/// Room for a quote.
#[inline(always)]
pub(crate) fn quote() -> Option<&'static mut Quote> {
    // SAFETY: see `count`; it is used up before the program sends anything.
    QUOTE.get_ptr_mut(0).map(|quote| unsafe { &mut *quote })
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
