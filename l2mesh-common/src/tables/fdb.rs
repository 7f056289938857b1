//! The table of MAC addresses, and what is told about it.

use bytemuck::{Pod, Zeroable};

use super::PeerId;
use crate::wire::MacAddr;

/// Where a MAC address is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FdbKey {
    /// VNI.
    pub vni: u32,
    /// The address.
    pub mac: MacAddr,
    /// Zero.
    pub reserved: u16,
}

impl FdbKey {
    /// The key of a MAC address in a network.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, mac: MacAddr) -> Self {
        Self { vni, mac, reserved: 0 }
    }
}

/// Behind which peer a MAC address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FdbEntry {
    /// The peer.
    pub peer: PeerId,
    /// [`FdbEntry::STATIC`].
    pub flags: u32,
    /// When a frame from it was last received, `CLOCK_MONOTONIC_COARSE`, to about a second.
    pub seen_ns: u64,
    /// When it came to be behind this peer.
    pub since_ns: u64,
    /// Until when it stays there whatever is received.
    pub frozen_until_ns: u64,
    /// How often it was found behind another peer than before.
    pub moves: u32,
    /// Zero.
    pub reserved: u32,
    /// What a later version might know.
    #[cfg(feature = "other-layout")]
    pub more: u64,
}

impl FdbEntry {
    /// Configured: never learned over, never aged.
    pub const STATIC: u32 = 1;

    /// True if the configuration put it there.
    #[inline(always)]
    #[must_use]
    pub const fn is_static(&self) -> bool {
        self.flags & Self::STATIC != 0
    }

    /// True while it is kept where it is, having moved too often.
    #[inline(always)]
    #[must_use]
    pub const fn is_frozen(&self, now_ns: u64) -> bool {
        now_ns < self.frozen_until_ns
    }
}

/// Something people want to know of, told once it happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// The number of the [`crate::verdict::Verdict`] that caused it.
    pub verdict: u32,
    /// VNI.
    pub vni: u32,
    /// The MAC address in question.
    pub mac: MacAddr,
    /// Zero.
    pub reserved: u16,
    /// Where it was before, for a move.
    pub from: PeerId,
    /// Where it is now.
    pub to: PeerId,
}
