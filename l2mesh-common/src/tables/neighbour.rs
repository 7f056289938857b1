//! Who has which address inside a network, for networks that answer for their neighbours.

use bytemuck::{Pod, Zeroable};

use super::{PeerId, VtepAddress};
use crate::wire::{Ipv4Octets, Ipv6Octets, MacAddr};

/// Where an inner address is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NeighbourKey {
    /// VNI.
    pub vni: u32,
    /// The address, of either family, in the form that outer addresses have.
    pub address: VtepAddress,
}

impl NeighbourKey {
    /// Of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(vni: u32, address: Ipv4Octets) -> Self {
        Self { vni, address: VtepAddress::v4(address) }
    }

    /// Of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(vni: u32, address: Ipv6Octets) -> Self {
        Self { vni, address: VtepAddress::v6(address) }
    }
}

/// At which MAC address an inner address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Neighbour {
    /// The MAC address.
    pub mac: MacAddr,
    /// [`Neighbour::WHOLE`], [`Neighbour::ROUTER`].
    pub flags: u16,
    /// From where that was heard last: a peer, or [`Neighbour::HERE`].
    pub from: PeerId,
    /// How often it was at another MAC address than before.
    pub moves: u32,
    /// When it was last heard, `CLOCK_MONOTONIC_COARSE`.
    pub heard_ns: u64,
    /// For one on our side: when every other node could hear it last.
    pub told_ns: u64,
    /// When it was last asked in a way that only its owner answers.
    pub doubted_ns: u64,
}

impl Neighbour {
    /// On our side of the mesh.
    pub const HERE: PeerId = PeerId::MAX;
    /// All is known that an answer says.
    pub const WHOLE: u16 = 1;
    /// It says of itself that it is a router (RFC 4861 section 4.4).
    pub const ROUTER: u16 = 2;

    /// True if its answers say that it is a router.
    #[inline(always)]
    #[must_use]
    pub const fn is_router(&self) -> bool {
        self.flags & Self::ROUTER != 0
    }
}
