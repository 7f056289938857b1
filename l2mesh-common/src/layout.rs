//! The layout of the maps, pinned: sizes and that any bytes are a valid value.

use crate::{
    freeze::Stays,
    tables::{
        Bucket, BucketKey, Change, Counter, Event, FdbEntry, FdbKey, FloodList, Label, LabelKey, MemberKey, MemberMacs,
        Members, Meta, Metadata, Neighbour, NeighbourKey, Network, NextHop, PathLimit, PathNote, PathRx, PathTx, Peer,
        PeerCounter, Port, Settings, VtepAddress,
    },
};

/// Raised whenever a type below changes; pins of another layout are not adopted.
pub const LAYOUT_VERSION: u32 = 4;

macro_rules! shared {
    ($($type:ty => $size:literal,)*) => {$(
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
    Change => 24,
    Counter => 16,
    Event => 24,
    FdbEntry => 40,
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
    NextHop => 104,
    PathLimit => 16,
    PathNote => 48,
    PathRx => 40,
    PathTx => 48,
    Peer => 240,
    PeerCounter => 32,
    Port => 24,
    Settings => 116,
    Stays => 136,
    VtepAddress => 16,
}
