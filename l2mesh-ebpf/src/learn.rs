//! Source MAC addresses of received frames (design.md 6).

use l2mesh_common::{
    fdb::{Learning, learning},
    tables::{Event, FdbEntry, FdbKey, PeerId},
    verdict::Verdict,
    wire::MacAddr,
};

use crate::{packet::now_ns, tables};

/// Notes that `mac` is behind `peer`.
#[inline(always)]
pub(crate) fn learn(vni: u32, mac: MacAddr, peer: PeerId) {
    let key = FdbKey::new(vni, mac);
    let now = now_ns();
    let Some(entry) = tables::fdb(&key) else {
        return add(&key, peer, now);
    };
    match learning(entry, peer, now) {
        Learning::Keep => {}
        Learning::Refresh => tables::fdb_change(&key, |entry| entry.seen_ns = now),
        Learning::Move => {
            let from = entry.peer;
            tables::fdb_change(&key, |entry| {
                entry.peer = peer;
                entry.seen_ns = now;
                entry.moves += 1;
            });
            note(Verdict::Moved, &key, from, peer);
        }
        Learning::Refuse => note(Verdict::StaticElsewhere, &key, entry.peer, peer),
    }
}

#[inline(always)]
fn add(key: &FdbKey, peer: PeerId, now: u64) {
    let entry = FdbEntry { peer, flags: 0, seen_ns: now, moves: 0, reserved: 0 };
    let verdict = if tables::fdb_add(key, &entry) { Verdict::Learned } else { Verdict::FdbFull };
    note(verdict, key, peer, peer);
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
