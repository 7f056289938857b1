//! The layout of the maps, pinned: sizes and that any bytes are a valid value.

use crate::{
    freeze::Stays,
    tables::{
        Bucket, BucketKey, CaptureFilter, CaptureRecord, Change, Counter, Event, FdbEntry, FdbKey, FloodList, Label,
        LabelKey, MemberKey, MemberMacs, Members, Meta, Metadata, Neighbour, NeighbourKey, Network, NetworkCounter,
        NextHop, PathLimit, PathNote, PathRx, PathTx, Peer, PeerCounter, Port, Reported, Settings, VtepAddress,
    },
};

/// Raised whenever a map comes, goes, or changes its format. Pins of another layout are adopted where [`format`] allows it.
pub const LAYOUT_VERSION: u32 = if OTHER { 1_000_000 } else { 4 };

/// In the build that stands for a later version of l2mesh in the tests of upgrades.
const OTHER: bool = cfg!(feature = "other-layout");

/// The layout version in which what a map holds, or what that means, last changed. Upgrades and rollbacks keep the maps for which both
/// versions name the same, so raise it with the type, or what they read is nonsense.
///
/// Not for `META` and `LABELS`: those every version has to be able to read, and a change there ends all upgrades in place.
#[must_use]
pub fn format(map: &str) -> u32 {
    match map {
        "FDB" if OTHER => LAYOUT_VERSION,
        "SETTINGS" | "FINGERPRINTS" | "NETWORK_COUNTERS" | "REACHABILITY" => 4,
        // `NETWORKS` and `PORTS` have had numbers for that since 4 in place of zeros: 0 counts together what is not numbered yet, and
        // each version writes its own when it attaches.
        _ => 3,
    }
}

macro_rules! shared {
    ($($type:ty => $size:expr,)*) => {$(
        const _: () = assert!(size_of::<$type>() == $size);
        const _: fn() = || { fn is_pod<T: bytemuck::Pod>() {} is_pod::<$type>(); };

        // The orphan rule wants this here.
        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]
        // SAFETY: the line above shows that the type is `bytemuck::Pod`, which asks for more.
        unsafe impl aya::Pod for $type {}
    )*};
}

shared! {
    Bucket => 32,
    BucketKey => 16,
    CaptureFilter => 40,
    CaptureRecord => 40,
    Change => 24,
    Counter => 16,
    Event => 24,
    FdbEntry => if cfg!(feature = "other-layout") { 48 } else { 40 },
    FdbKey => 12,
    FloodList => 1032,
    Label => 248,
    LabelKey => 8,
    MemberKey => 8,
    MemberMacs => 16,
    Members => 64,
    Meta => 48,
    Metadata => 8,
    Neighbour => 40,
    NeighbourKey => 20,
    Network => 96,
    NetworkCounter => 48,
    NextHop => 104,
    PathLimit => 16,
    PathNote => 48,
    PathRx => 32,
    PathTx => 48,
    Peer => 240,
    PeerCounter => 32,
    Port => 24,
    Reported => 136,
    Settings => 116,
    Stays => 136,
    VtepAddress => 16,
}
