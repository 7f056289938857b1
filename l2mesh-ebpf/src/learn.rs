//! Source MAC addresses of received frames (design.md 6).

use bytemuck::Zeroable as _;
use l2mesh_common::{
    bucket::is_over,
    fdb::{Learning, learning},
    freeze::{Longest, Stays},
    tables::{Event, FdbEntry, FdbKey, MemberKey, Network, PeerId},
    verdict::Verdict,
};

use crate::{
    apart,
    packet::{Step, now_ns, repeat},
    tables::{self, Added, SharedMacs},
};

/// Notes that the source of a received frame is behind `peer`.
#[inline(always)]
pub(crate) fn learn(network: &Network, key: &FdbKey, peer: PeerId) {
    let now = now_ns();
    match tables::fdb(key).map(|entry| learning(entry, peer, now)) {
        Some(Learning::Keep) => {}
        Some(Learning::Refresh) => tables::fdb_change(key, |entry| entry.seen_ns = now),
        _ => {
            apart::learn_change(network, key, peer, now);
        }
    }
}

/// What is rare, out of the way of all frames.
#[inline(always)]
pub(crate) fn change(network: &Network, key: &FdbKey, peer: PeerId, now: u64) {
    let Some(entry) = tables::fdb(key) else {
        return add(network, key, peer, now);
    };
    match learning(entry, peer, now) {
        Learning::Keep | Learning::Refresh => {}
        Learning::Move => relocate(network, key, entry, peer, now),
        Learning::Refuse => note(Verdict::StaticElsewhere, key, entry.peer, peer),
        // Not told: it may be half of all frames.
        Learning::Frozen => tables::count(Verdict::FrozenElsewhere, 0),
    }
}

#[inline(always)]
fn add(network: &Network, key: &FdbKey, peer: PeerId, now: u64) {
    let Some(macs) = room(network, key, peer, now) else { return };
    let entry = FdbEntry { peer, seen_ns: now, since_ns: now, ..FdbEntry::zeroed() };
    match tables::fdb_add(key, &entry) {
        Added::Yes => {
            macs.add(1);
            note(Verdict::Learned, key, peer, peer);
        }
        Added::Before => {}
        Added::Full => {
            // Every frame of every address comes here again: told of each, the agent would hear of nothing else.
            const TOLD: u64 = 1024;
            if tables::count_nth(Verdict::FdbFull, 0) % TOLD == 1 {
                tell(Verdict::FdbFull, key, peer, peer);
            }
        }
    }
}

/// An address is behind another peer than before. One that moves too often stays where it was longest for a while.
#[inline(always)]
fn relocate(network: &Network, key: &FdbKey, entry: &FdbEntry, to: PeerId, now: u64) {
    let (from, since) = (entry.peer, entry.since_ns);
    let Some(macs) = room(network, key, to, now) else {
        // It is no more where it was: flooded, frames reach it.
        if tables::fdb_remove(key) {
            Macs::behind(network, key.vni, from).add(-1);
        }
        return;
    };
    let (limit, freeze_ms) = tables::settings().map_or((0, 0), |it| (it.move_limit, it.move_freeze_ms));
    let longest = tables::stays_change(key, |stays| {
        stays.moved(from, since, to, now, limit).then(|| {
            let longest = longest(stays, now);
            stays.clear();
            longest
        })
    });
    let longest = longest.flatten();
    let peer = longest.unwrap_or(to);
    tables::fdb_change(key, |entry| {
        // Another CPU may have frozen it meanwhile.
        if entry.is_frozen(now) {
            return;
        }
        if longest.is_some() {
            // First, or another CPU moves it once more.
            entry.frozen_until_ns = now + u64::from(freeze_ms) * 1_000_000;
        }
        entry.peer = peer;
        entry.seen_ns = now;
        entry.since_ns = now;
        entry.moves += 1;
    });
    note(Verdict::Moved, key, from, to);
    if longest.is_some() {
        note(Verdict::Frozen, key, from, peer);
    }
    if peer != from {
        Macs::behind(network, key.vni, from).add(-1);
        if peer == to { macs } else { Macs::behind(network, key.vni, peer) }.add(1);
    }
}

#[inline(always)]
fn longest(stays: &Stays, now: u64) -> PeerId {
    let mut search = Longest::new(stays, now);
    repeat(Longest::STEPS, &mut search);
    search.found()
}

impl Step for Longest<'_> {
    #[inline(always)]
    fn step(&mut self, index: u32) {
        Longest::step(self, index);
    }
}

/// The number of addresses behind a member, where the network has a limit of them.
struct Macs(Option<&'static SharedMacs>);

impl Macs {
    #[inline(always)]
    fn behind(network: &Network, vni: u32, peer: PeerId) -> Self {
        Self(if network.macs_per_peer == 0 { None } else { tables::member_macs(&MemberKey { vni, peer }) })
    }

    #[inline(always)]
    fn add(&self, more: i64) {
        if let Some(SharedMacs { count, .. }) = self.0 {
            count.add(more.cast_unsigned());
        }
    }
}

/// Where to count one address more behind a peer; `None` if it has as many as may be, which the agent is told now and then.
#[inline(always)]
fn room(network: &Network, key: &FdbKey, peer: PeerId, now: u64) -> Option<Macs> {
    let macs = Macs::behind(network, key.vni, peer);
    if let Some(SharedMacs { count, told_at_ns }) = macs.0
        && count.get().cast_signed() >= i64::from(network.macs_per_peer)
    {
        tables::count(Verdict::PeerFull, 0);
        if is_over(told_at_ns.get(), now) {
            told_at_ns.set(now);
            tell(Verdict::PeerFull, key, peer, peer);
        }
        return None;
    }
    Some(macs)
}

/// Counts something besides the frame's fate and tells the agent.
#[inline(always)]
fn note(verdict: Verdict, key: &FdbKey, from: PeerId, to: PeerId) {
    tables::count(verdict, 0);
    tell(verdict, key, from, to);
}

/// Tells the agent of something about a MAC address.
#[inline(always)]
pub(crate) fn tell(verdict: Verdict, key: &FdbKey, from: PeerId, to: PeerId) {
    tables::tell(&Event { verdict: verdict.number(), vni: key.vni, mac: key.mac, reserved: 0, from, to });
}
