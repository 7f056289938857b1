//! What `l2mesh capture` asks the programs for, and what they tell it.

use bytemuck::{Pod, Zeroable};

use super::PeerId;
use crate::verdict::Verdict;

/// Where on their way frames are recorded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Point {
    /// About to leave for a peer.
    Encap = 0,
    /// About to be delivered.
    Decap = 1,
    /// Forwarded for two others.
    Relay = 2,
    /// Dropped, or answered instead.
    Drop = 3,
}

impl Point {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Encap, Self::Decap, Self::Relay, Self::Drop];

    /// Its bit in [`CaptureFilter::points`].
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u32
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::Relay => "relay",
            Self::Drop => "drop",
        }
    }
}

/// Whoever it is, in a filter; nobody knows who, in a record.
pub const ANYBODY: PeerId = PeerId::MAX;

/// Which frames are recorded. Who asks must say so again and again: what a process that was killed asked for ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureFilter {
    /// A bit for each [`Point`]; 0 switches it off, as it nearly always is.
    pub points: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds: afterwards it is off.
    pub until_ns: u64,
    /// Records that were lost, because they came too fast or nobody was there to take them.
    pub lost: u64,
    /// Only this network; 0 for all.
    pub vni: u32,
    /// Only to or from this peer, or [`ANYBODY`].
    pub peer: PeerId,
    /// Octets of each frame, outer header not counted.
    pub snaplen: u32,
    /// Zero.
    pub reserved: u32,
}

impl CaptureFilter {
    /// The longest piece of a frame that is recorded: a record of the kernel's has a length of 16 bits (`perf_event_header`).
    pub const MAX_SNAPLEN: u32 = 65_000;

    /// True if a frame of this network and these peers is asked for at a point that is.
    #[inline(always)]
    #[must_use]
    pub const fn takes(&self, vni: u32, peers: [PeerId; 2]) -> bool {
        (self.vni == 0 || self.vni == vni) && (self.peer == ANYBODY || self.peer == peers[0] || self.peer == peers[1])
    }
}

/// What stands before the octets of a recorded frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureRecord {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Octets of the frame, outer header included where there is one.
    pub len: u32,
    /// How many of them follow.
    pub octets: u32,
    /// Network; 0 if it is not known.
    pub vni: u32,
    /// The other node, or [`ANYBODY`] if it is not known.
    pub peer: PeerId,
    /// Of a relayed frame, the node from which it is.
    pub origin: PeerId,
    /// [`Seen::to_bits`].
    pub seen: u32,
    /// VLAN tag that the kernel keeps beside the frame, TPID above TCI; 0 for none.
    pub tag: u32,
    /// Octets of payload in each segment of a frame that is many on the wire, else 0.
    pub segment: u32,
}

/// Where a frame was recorded and what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Where.
    pub point: Point,
    /// What became of it.
    pub verdict: Verdict,
    /// Octets of the outer header that is on it and is not to be shown.
    pub outer: u32,
}

impl Seen {
    /// As one number.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.point as u32 | self.verdict.number() << 8 | self.outer << 16
    }

    /// The number of [`Self::to_bits`].
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        let point = Point::ALL[(bits & 3) as usize];
        Self { point, verdict: Verdict::from_number(bits >> 8 & 0xff), outer: bits >> 16 }
    }

    /// The point in a number of [`Self::to_bits`], as its bit.
    #[inline(always)]
    #[must_use]
    pub const fn point_bit(bits: u32) -> u64 {
        1 << (bits & 3)
    }

    /// The outer header in a number of [`Self::to_bits`].
    #[inline(always)]
    #[must_use]
    pub const fn outer_of(bits: u32) -> u32 {
        bits >> 16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters() {
        let filter = |vni, peer| CaptureFilter { vni, peer, ..CaptureFilter::default() };
        for (vni, peer, expected) in [
            (0, ANYBODY, true),
            (16, ANYBODY, true),
            (17, ANYBODY, false),
            (0, 3, true),
            (0, 4, true),
            (0, 5, false),
            (16, 3, true),
            (17, 3, false),
        ] {
            assert_eq!(filter(vni, peer).takes(16, [3, 4]), expected, "{vni} {peer}");
        }
        assert!(!filter(0, 3).takes(16, [ANYBODY; 2]), "nobody knows whose it is");
        assert!(!filter(16, ANYBODY).takes(0, [3, 4]), "nobody knows in which network it is");
    }

    proptest! {
        #[test]
        fn seen(point in 0..4_usize, verdict in 0..Verdict::ALL.len(), outer in 0..1000_u32) {
            let seen = Seen { point: Point::ALL[point], verdict: Verdict::ALL[verdict], outer };
            let bits = seen.to_bits();
            prop_assert_eq!(Seen::from_bits(bits), seen);
            prop_assert_eq!(Seen::point_bit(bits), seen.point.bit());
            prop_assert_eq!(Seen::outer_of(bits), outer);
        }
    }
}
