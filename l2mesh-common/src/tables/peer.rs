//! The other nodes: how frames reach them, by address and by network.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

use super::{MAX_PEERS, PeerId};
use crate::wire::{Be16, Ipv4Octets, Ipv6Octets, Template};

/// Another node, seen from this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// Which of the two next hops is in force. The agent writes the other one first, then turns
    /// this over in a second update, so that no program reads half of each.
    pub active: u32,
    /// [`Peer::PLAIN`], [`Peer::RELAY`].
    pub flags: u32,
    /// Node id (design.md 4).
    pub node_id: u32,
    /// Zero.
    pub reserved: u32,
    /// The two next hops.
    pub next_hop: [NextHop; 2],
    /// What was learned about the path; all zero is nothing. The next hops have it in their `mtu` already.
    pub limit: PathLimit,
}

impl Peer {
    /// A kernel vxlan device: direct path only, reserved bits always zero.
    pub const PLAIN: u32 = 1;
    /// It may forward for others.
    pub const RELAY: u32 = 2;

    /// True for a node that knows probes and relaying.
    #[inline(always)]
    #[must_use]
    pub const fn is_node(&self) -> bool {
        self.node_id != 0 && self.flags & Self::PLAIN == 0
    }

    /// True if what it relays is accepted.
    #[inline(always)]
    #[must_use]
    pub const fn is_relay(&self) -> bool {
        self.is_node() && self.flags & Self::RELAY != 0
    }

    /// The next hop in force.
    #[inline(always)]
    #[must_use]
    pub const fn current(&self) -> &NextHop {
        // Two places named, not indexed: no bounds check in the kernel program.
        if self.active == 0 { &self.next_hop[0] } else { &self.next_hop[1] }
    }
}

/// What a path is believed to take, and until when ([`crate::path_mtu`]): kept here because it is to outlive the agent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PathLimit {
    /// Octets of an outer packet; 0 if nothing was learned.
    pub mtu: u32,
    /// Zero.
    pub reserved: u32,
    /// `CLOCK_MONOTONIC_COARSE`.
    pub until_ns: u64,
}

/// How frames to a peer leave this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NextHop {
    /// The interface; 0 while the next hop is not known.
    pub ifindex: u32,
    /// Greatest inner frame without its Ethernet header (the inner MTU of this path), octets.
    pub mtu: u32,
    /// A [`Way`].
    pub way: u32,
    /// [`NextHop::CHECKSUM`].
    pub flags: u32,
    /// The outer header without what differs from frame to frame.
    pub template: Template,
}

impl NextHop {
    /// The peer wants UDP checksums, which only the kernel's vxlan device can give without losing GSO.
    pub const CHECKSUM: u32 = 1;
    /// Not known.
    pub const UNKNOWN: Self = Self { ifindex: 0, mtu: 0, way: 0, flags: 0, template: Template::EMPTY };

    /// True if frames can be sent.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.ifindex != 0
    }

    /// How the outer header gets onto a frame.
    #[inline(always)]
    #[must_use]
    pub const fn way(&self) -> Way {
        match self.way {
            0 => Way::V4,
            1 => Way::V6,
            2 => Way::HelperV4,
            _ => Way::HelperV6,
        }
    }

    /// True if the UDP checksum must not be left out.
    #[inline(always)]
    #[must_use]
    pub const fn wants_checksum(&self) -> bool {
        self.flags & Self::CHECKSUM != 0
    }
}

/// Who puts the outer header on, and of which family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Way {
    /// Our program, IPv4.
    V4 = 0,
    /// Our program, IPv6.
    V6 = 1,
    /// The kernel's vxlan device, IPv4: for underlays without Ethernet header, and peers that want UDP checksums.
    HelperV4 = 2,
    /// The kernel's vxlan device, IPv6.
    HelperV6 = 3,
}

impl Way {
    /// True if the kernel's vxlan device puts the outer header on.
    #[must_use]
    pub const fn is_by_helper(self) -> bool {
        matches!(self, Self::HelperV4 | Self::HelperV6)
    }
}

/// An outer address of either family: 16 octets, IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), in wire order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct VtepAddress([u32; 4]);

impl VtepAddress {
    /// Of an IPv4 header's address.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: Ipv4Octets) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(address.0)])
    }

    /// Of an IPv6 header's address.
    #[inline(always)]
    #[must_use]
    pub const fn v6(address: Ipv6Octets) -> Self {
        let half = &address.0;
        // Wire order: the first octet has the lowest address.
        Self([pair(half[0], half[1]), pair(half[2], half[3]), pair(half[4], half[5]), pair(half[6], half[7])])
    }

    /// Of the words of an IPv6 address in wire order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Back to what people read.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(self.0)).to_canonical()
    }
}

#[inline(always)]
const fn pair(first: Be16, second: Be16) -> u32 {
    first.octets() as u32 | (second.octets() as u32) << 16
}

impl From<IpAddr> for VtepAddress {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        Self(bytemuck::cast(octets))
    }
}

impl From<Ipv4Addr> for VtepAddress {
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.into())
    }
}

/// Every peer of one network that gets a copy of what is flooded. The outer header goes on once for each IP version; which one a
/// copy has is for its path to say, because a relay may be reached over another than the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FloodList {
    /// Peers that the helper device sends to: the first places.
    pub by_helper: u16,
    /// Peers that our programs send to: the places behind those.
    pub by_program: u16,
    /// [`FloodList::V4`] and [`FloodList::V6`]: versions of the outer headers that paths to the latter may have.
    pub versions: u16,
    /// What fits the path to every peer whose next hop is known, as [`NextHop::mtu`]; 0 while that is not known.
    pub mtu: u16,
    /// Peer ids.
    pub peers: [u16; MAX_PEERS],
}

impl FloodList {
    /// Some path may be over IPv4.
    pub const V4: u16 = 1;
    /// Some path may be over IPv6.
    pub const V6: u16 = 2;

    /// A list of these peers; what exceeds [`MAX_PEERS`] is left out.
    #[must_use]
    pub fn new(peers: &[(PeerId, Way)]) -> Self {
        let mut list = Self::zeroed();
        let mut places = list.peers.iter_mut();
        let mut take = |by_helper: bool| {
            let mut count = 0;
            let those = peers.iter().filter(|(_, way)| way.is_by_helper() == by_helper);
            for ((peer, _), place) in those.zip(&mut places) {
                *place = *peer as u16;
                count += 1;
            }
            count
        };
        (list.by_helper, list.by_program) = (take(true), take(false));
        for (_, way) in peers {
            list.add_version(*way);
        }
        list
    }

    /// Some path may be of this way.
    pub const fn add_version(&mut self, way: Way) {
        match way {
            Way::V4 => self.versions |= Self::V4,
            Way::V6 => self.versions |= Self::V6,
            Way::HelperV4 | Way::HelperV6 => {}
        }
    }

    /// True if copies may need a header of this version.
    #[inline(always)]
    #[must_use]
    pub const fn has_version(&self, version: u16) -> bool {
        self.versions & version != 0
    }

    /// How many peers it has.
    #[inline(always)]
    #[must_use]
    pub const fn peer_count(&self) -> u32 {
        self.by_helper as u32 + self.by_program as u32
    }

    /// True if a packet of `octets` octets fits the path to every peer, or nobody knows yet: what is behind the Ethernet header, tags
    /// included, or of a GSO frame the same for one of its segments.
    #[inline(always)]
    #[must_use]
    pub const fn takes(&self, octets: u32) -> bool {
        self.mtu == 0 || octets <= self.mtu as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn address_round_trip(octets: [u8; 4], wide: [u8; 16]) {
            let four = IpAddr::from(octets);
            prop_assert_eq!(VtepAddress::from(four).ip(), four);
            prop_assert_eq!(VtepAddress::from(four), VtepAddress::v4(Ipv4Octets(octets)));
            let six = Ipv6Addr::from(wide);
            prop_assert_eq!(VtepAddress::from(IpAddr::V6(six)).ip(), IpAddr::V6(six).to_canonical());
            prop_assert_eq!(VtepAddress::from(IpAddr::V6(six)), VtepAddress::v6(six.into()));
        }
    }

    #[test]
    fn flood_list_is_cut_at_its_size() {
        let list = FloodList::new(&(0..600).map(|peer| (peer, Way::V4)).collect::<std::vec::Vec<_>>());
        assert_eq!((list.by_helper, list.by_program, list.versions), (0, 512, FloodList::V4));
    }

    #[test]
    fn flood_list_has_the_helpers_first() {
        let list = FloodList::new(&[(7, Way::V4), (9, Way::HelperV6), (3, Way::V6), (4, Way::HelperV4), (5, Way::V4)]);
        assert_eq!((list.by_helper, list.by_program, list.versions), (2, 3, FloodList::V4 | FloodList::V6));
        assert_eq!(list.peers[..6], [9, 4, 7, 3, 5, 0]);
    }
}
