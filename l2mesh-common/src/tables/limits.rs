//! What limits are kept by: floods, and learned MAC addresses.

use bytemuck::{Pod, Zeroable};

use super::PeerId;
use crate::wire::MacAddr;

/// Places of `BUCKETS`. The oldest makes room: who has not flooded for long has a full bucket anyway.
pub const BUCKET_SLOTS: u32 = 16_384;
/// Places of `STAYS`.
pub const STAYS_SLOTS: u32 = 8_192;

/// Whose a [`Bucket`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BucketKey {
    /// VNI.
    pub vni: u32,
    /// Which of those below.
    kind: u16,
    /// The peer, or 0.
    peer: u16,
    /// The source, or zero.
    pub mac: MacAddr,
    /// Zero.
    reserved: u16,
}

impl BucketKey {
    const fn new(vni: u32, kind: u16, peer: PeerId, mac: MacAddr) -> Self {
        Self { vni, kind, peer: peer as u16, mac, reserved: 0 }
    }

    /// All that this host floods into a network.
    #[inline(always)]
    #[must_use]
    pub const fn sent(vni: u32) -> Self {
        Self::new(vni, 0, 0, MacAddr::ZERO)
    }

    /// What it floods for one source.
    #[inline(always)]
    #[must_use]
    pub const fn sent_by(vni: u32, mac: MacAddr) -> Self {
        Self::new(vni, 1, 0, mac)
    }

    /// All that this host receives for all of a network.
    #[inline(always)]
    #[must_use]
    pub const fn received(vni: u32) -> Self {
        Self::new(vni, 2, 0, MacAddr::ZERO)
    }

    /// What it receives from one peer.
    #[inline(always)]
    #[must_use]
    pub const fn received_from(vni: u32, peer: PeerId) -> Self {
        Self::new(vni, 3, peer, MacAddr::ZERO)
    }

    /// What of a peer's probes it sends back: those that came directly by themselves, so that a reader sees whether any do.
    #[inline(always)]
    #[must_use]
    pub const fn probes_of(peer: PeerId, relayed: bool) -> Self {
        Self::new(0, if relayed { 6 } else { 5 }, peer, MacAddr::ZERO)
    }

    /// What it receives of one source.
    #[inline(always)]
    #[must_use]
    pub const fn received_of(vni: u32, mac: MacAddr) -> Self {
        Self::new(vni, 4, 0, mac)
    }
}

/// A token bucket, and what was refused because it was empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Bucket {
    /// When it is full again, `CLOCK_MONOTONIC_COARSE` ([`crate::bucket`]).
    pub full_at_ns: u64,
    /// When a frame was last refused.
    pub dropped_at_ns: u64,
    /// When the agent was last told so.
    pub told_at_ns: u64,
    /// Frames refused since the storm began.
    pub dropped: u64,
}

/// One peer in one network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MemberKey {
    /// VNI.
    pub vni: u32,
    /// The peer.
    pub peer: PeerId,
}

/// MAC addresses learned behind one peer in one network that has a limit of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct MemberMacs {
    /// How many. The programs count up and down; the agent, which removes old ones, counts anew.
    pub count: u64,
    /// When the agent was last told that there are as many as may be.
    pub told_at_ns: u64,
}
