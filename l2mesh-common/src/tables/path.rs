//! The paths to the peers: what was asked, what was answered, and what readers want to know of them.

use bytemuck::{Pod, Zeroable};

use super::{PEER_SLOTS, PeerId};
use crate::{path::MAX_PATHS, wire::Reachability};

/// Places of `PATH_TX`, `PATH_RX` and `PATH_NOTES`: four for each peer, and behind them those of `l2mesh ping`.
pub const PATH_SLOTS: u32 = PING_SLOT + PING_SLOTS;
/// The first place for `l2mesh ping`.
pub const PING_SLOT: u32 = PEER_SLOTS * MAX_PATHS as u32;
/// How many can run at once.
pub const PING_SLOTS: u32 = 4;
/// Places of `HISTORY`.
pub const HISTORY_SLOTS: u32 = 256;

/// Whom a node reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Reported {
    /// As it said last.
    pub said: Reachability,
    /// Its own rank, by which others speak of it.
    pub rank: u32,
}

/// The place of a peer's path.
#[inline(always)]
#[must_use]
pub const fn path_slot(peer: PeerId, path: usize) -> u32 {
    peer * MAX_PATHS as u32 + (path & (MAX_PATHS - 1)) as u32
}

/// What the agent says of a path; it alone writes, through a mapping of the map into its memory.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PathTx {
    /// Sequence number of the latest probe sent.
    pub sequence: u32,
    /// So many probes without an answer take the path down. `u32::MAX` for a peer that is not probed: always up; 0 for a
    /// path that does not exist: never.
    pub limit: u32,
    /// So many answers in a row bring it back.
    pub recover: u32,
    /// Not 0 while it must not be taken although probes are answered: [`PathTx::HELD_FOR_LOSS`], [`PathTx::HELD_FOR_BIG`].
    pub hold: u32,
    /// The peer through which it goes, for every path but the direct one. At a place of `l2mesh ping`: through which the
    /// answer is to come, the relay or the peer itself.
    pub relay: PeerId,
    /// At the place of the direct path: in which order the others are tried, an octet each, the first lowest; 0 ends it.
    pub order: u32,
    /// Greatest inner packet that padded probes showed to arrive, octets; 0 if nothing is known against what the links take.
    pub mtu: u32,
    /// Sequence number of the latest probe of a search for that size.
    pub search: u32,
    /// What answers must quote.
    pub nonce: u64,
    /// At a place of `l2mesh ping`: the peer that is to answer.
    pub peer: PeerId,
    /// Zero.
    pub reserved: u32,
}

impl PathTx {
    /// Too many probes are lost.
    pub const HELD_FOR_LOSS: u32 = 1;
    /// Long packets are.
    pub const HELD_FOR_BIG: u32 = 2;
}

/// What answers to the probes of a path showed; the kernel programs alone write, but for the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PathRx {
    /// A [`crate::path::Answered`].
    pub answered: u64,
    /// Round-trip time of the latest answer, nanoseconds.
    pub rtt_ns: u64,
    /// Answers so far.
    pub answers: u64,
    /// Sequence number of the latest padded probe that was answered.
    pub padded: u32,
    /// The same for a search for the size that arrives.
    pub search: u32,
}

/// What readers are told of a path: by the agent, about once a second and at every change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PathNote {
    /// Since when it is as it is, `CLOCK_REALTIME`, nanoseconds; 0 if there is no such path.
    pub since_ns: u64,
    /// Round-trip times of the last minute, nanoseconds; 0 if none was measured.
    pub rtt_min_ns: u64,
    /// The one in the middle.
    pub rtt_median_ns: u64,
    /// What 99 of 100 do not exceed.
    pub rtt_p99_ns: u64,
    /// Of the last 50 probes, those without an answer, in thousandths.
    pub loss: u32,
    /// Probes sent since the agent began.
    pub probes: u32,
    /// [`PathNote::UP`] and so on.
    pub flags: u32,
    /// Why it last changed: a [`crate::path::reason::Reason`].
    pub reason: u32,
}

impl PathNote {
    /// It is up.
    pub const UP: u32 = 1;
    /// Frames take it.
    pub const IN_USE: u32 = 2;
    /// It is probed.
    pub const PROBED: u32 = 4;

    /// True if this flag is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// A change of a path, or of the path in use, kept for readers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Change {
    /// When, `CLOCK_REALTIME`, nanoseconds; 0 is an empty place.
    pub at_ns: u64,
    /// The peer.
    pub peer: PeerId,
    /// The path that frames took before, and now ([`crate::path`]), an octet each, and whether it is up.
    pub before: u8,
    /// See above.
    pub now: u8,
    /// 1 if the path that is taken now is up, 0 if none is.
    pub is_up: u8,
    /// A [`crate::path::reason::Reason`].
    pub reason: u8,
    /// The relay of the path before, [`PeerId::MAX`] for the direct one.
    pub relay_before: PeerId,
    /// The relay now.
    pub relay_now: PeerId,
}

/// Who may be relayed for in a network: bit n for peer n. Only a relay has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Members {
    /// As [`super::Network::members`].
    pub bits: [u64; super::MAX_PEERS / 64],
}

impl Members {
    /// True if this peer is a member.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, peer: PeerId) -> bool {
        super::has_bit(&self.bits, peer)
    }

    /// Makes this peer a member. Peers from [`super::MAX_PEERS`] on are ignored.
    pub const fn add(&mut self, peer: PeerId) {
        super::set_bit(&mut self.bits, peer);
    }
}
