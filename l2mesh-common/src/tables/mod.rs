//! Keys and values of the maps that the kernel programs and the agent share.
//!
//! | map | kind | key | value | written by |
//! |---|---|---|---|---|
//! | `META` | array, 1 | 0 | [`Meta`] | agent |
//! | `SETTINGS` | array, 1 | 0 | [`Settings`] | agent |
//! | `NETWORKS` | hash | VNI | [`Network`] | agent |
//! | `PORTS` | hash | ifindex of l2m0-p or l2m0 | [`Port`] | agent |
//! | `PEERS` | array | peer | [`Peer`] | agent |
//! | `VTEPS` | hash | [`VtepAddress`] | peer | agent |
//! | `FLOOD` | hash | VNI | [`FloodList`] | agent |
//! | `FDB` | hash | [`FdbKey`] | [`FdbEntry`] | kernel; agent ages and adds static ones |
//! | `COUNTERS` | per-CPU array | verdict | [`Counter`] | kernel |
//! | `PEER_COUNTERS` | per-CPU array | peer | [`PeerCounter`] | kernel |
//! | `LABELS` | hash | [`LabelKey`] | [`Label`] | agent, for readers that come when it is gone |
//! | `EVENTS` | ring buffer | | [`Event`] | kernel |

mod labels;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

pub use self::labels::{Fact, Label, LabelKey};
use crate::wire::{HeadersV4, Ipv4Octets, MacAddr};

/// Peers of one host, and so the longest flood list.
pub const MAX_PEERS: usize = 512;
/// Places of `PEERS`.
pub const PEER_SLOTS: u32 = MAX_PEERS as u32;
/// Networks of one underlay interface.
pub const MAX_NETWORKS: u32 = 4096;
/// Default size of the FDB.
pub const FDB_SIZE: u32 = 65_536;

/// Index into `PEERS`. It is stable for one configuration, not across changes of it.
pub type PeerId = u32;

/// To whom the pins belong; pins for which this no longer holds are stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Meta {
    /// [`crate::layout::LAYOUT_VERSION`] of the programs that own the maps.
    pub layout_version: u32,
    /// The underlay interface.
    pub ifindex: u32,
    /// Cookie of the network namespace (`SO_NETNS_COOKIE`).
    pub netns_cookie: u64,
    /// Kernel's boot id, `/proc/sys/kernel/random/boot_id` without dashes.
    pub boot_id: [u8; 16],
    /// Name of the underlay interface, zero padded.
    pub interface: [u8; 16],
}

/// What the programs need to know about this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// UDP port of the mesh, host order.
    pub port: u16,
    /// UDP port that the helper device holds; differs from `port` where somebody else has that one.
    pub helper_port: u16,
    /// The helper device.
    pub helper_ifindex: u32,
    /// The underlay interface.
    pub underlay_ifindex: u32,
    /// Outer destinations that are this host; unused places repeat the first.
    pub local: [Ipv4Octets; 4],
}

/// One network, by VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Network {
    /// The hidden peer: frames redirected to it come out of the overlay interface.
    pub port_ifindex: u32,
    /// The overlay interface while it is in our namespace, else 0.
    pub overlay_ifindex: u32,
    /// Greatest inner frame that goes through the port, Ethernet header included, octets.
    pub max_frame: u32,
    /// [`Network::CARRY_LINK_LOCAL`].
    pub flags: u32,
    /// The overlay interface's own MAC address.
    pub mac: MacAddr,
    /// Zero.
    pub reserved: u16,
    /// Bit n is set if peer n is a member.
    pub members: [u64; MAX_PEERS / 64],
}

impl Network {
    /// Carry 01:80:c2:00:00:0x too.
    pub const CARRY_LINK_LOCAL: u32 = 1;

    /// True if this peer may send frames of this network.
    #[inline(always)]
    #[must_use]
    pub const fn has_member(&self, peer: PeerId) -> bool {
        // The mask is for the verifier: an index that it can bound.
        let word = self.members[(peer as usize >> 6) & (MAX_PEERS / 64 - 1)];
        (peer as usize) < MAX_PEERS && word >> (peer & 63) & 1 == 1
    }

    /// Makes this peer a member. Peers from [`MAX_PEERS`] on are ignored.
    pub const fn add_member(&mut self, peer: PeerId) {
        if (peer as usize) < MAX_PEERS {
            self.members[peer as usize >> 6] |= 1 << (peer & 63);
        }
    }

    /// True if frames to the bridge group addresses are carried.
    #[inline(always)]
    #[must_use]
    pub const fn carries_link_local(&self) -> bool {
        self.flags & Self::CARRY_LINK_LOCAL != 0
    }
}

/// Which network an interface sends into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// VNI.
    pub vni: u32,
    /// [`Port::SHORTCUT`].
    pub flags: u32,
    /// The namespace in which the overlay interface was when the shortcut was allowed.
    pub netns_cookie: u64,
}

impl Port {
    /// The program on the overlay interface's egress may take frames.
    pub const SHORTCUT: u32 = 1;

    /// True if the egress program may take a frame seen in the namespace of this cookie.
    #[inline(always)]
    #[must_use]
    pub const fn allows_shortcut(&self, netns_cookie: u64) -> bool {
        self.flags & Self::SHORTCUT != 0 && self.netns_cookie == netns_cookie
    }
}

/// Another node, seen from this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Peer {
    /// Which of the two next hops is in force. The agent writes the other one first, then turns
    /// this over in a second update, so that no program reads half of each.
    pub active: u32,
    /// [`Peer::PLAIN`].
    pub flags: u32,
    /// Node id (design.md 4).
    pub node_id: u32,
    /// How many places of `paths` are used.
    pub path_count: u32,
    /// Over which peer each path leaves: place 0 is the peer itself, the others relays ([`crate::path`]).
    pub paths: [PeerId; crate::path::MAX_PATHS],
    /// The two next hops.
    pub next_hop: [NextHop; 2],
}

impl Peer {
    /// A kernel vxlan device: direct path only, reserved bits always zero.
    pub const PLAIN: u32 = 1;

    /// The next hop in force.
    #[inline(always)]
    #[must_use]
    pub const fn current(&self) -> &NextHop {
        // Two places named, not indexed: no bounds check in the kernel program.
        if self.active == 0 { &self.next_hop[0] } else { &self.next_hop[1] }
    }
}

/// How frames to a peer leave this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NextHop {
    /// The interface; 0 while the next hop is not known.
    pub ifindex: u32,
    /// Greatest inner frame without its Ethernet header (the inner MTU of this path), octets.
    pub mtu: u32,
    /// The outer header without what differs from frame to frame.
    pub template: HeadersV4,
}

impl NextHop {
    /// Not known.
    pub const UNKNOWN: Self = Self { ifindex: 0, mtu: 0, template: bytemuck::must_cast([0_u64; 8]) };

    /// True if frames can be sent.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.ifindex != 0
    }

    /// True if a frame of `frame_len` octets, Ethernet header included, fits; GSO frames always do, because
    /// the overlay's MTU bounds their segments.
    #[inline(always)]
    #[must_use]
    pub const fn takes(&self, frame_len: u32, is_gso: bool) -> bool {
        is_gso || frame_len <= self.mtu + crate::wire::EthernetHeader::LEN as u32
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

    /// Back to what people read.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(self.0)).to_canonical()
    }
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

/// Every peer of one network that gets a copy of what is flooded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct FloodList {
    /// Places used, at most [`MAX_PEERS`].
    pub count: u32,
    /// Peer ids.
    pub peers: [u16; MAX_PEERS],
}

impl FloodList {
    /// A list of these peers; what exceeds [`MAX_PEERS`] is left out.
    #[must_use]
    pub fn new(peers: impl IntoIterator<Item = PeerId>) -> Self {
        let mut list = Self { count: 0, peers: [0; MAX_PEERS] };
        for (place, peer) in list.peers.iter_mut().zip(peers) {
            *place = peer as u16;
            list.count += 1;
        }
        list
    }
}

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
    /// How often it was found behind another peer than before.
    pub moves: u32,
    /// Zero.
    pub reserved: u32,
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
}

/// Frames as the kernel hands them over: a GSO or GRO aggregate counts once, as in `ip -s link`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub frames: u64,
    /// Octets of the inner frames where there is one, else of the whole frame.
    pub octets: u64,
}

/// Frames exchanged with one peer, flooded copies included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct PeerCounter {
    /// To it.
    pub sent: Counter,
    /// From it.
    pub received: Counter,
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

/// What the XDP program tells the TC program behind it, in the frame's metadata. Constant for one peer
/// and network: GRO does not merge frames whose metadata differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Metadata {
    /// VNI.
    pub vni: u32,
    /// The peer.
    pub peer: u16,
    /// [`Metadata::MAGIC`].
    pub magic: u16,
}

impl Metadata {
    /// Tells our metadata from another program's.
    pub const MAGIC: u16 = 0x6c32;

    /// The mark of a frame received from this peer.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, peer: PeerId) -> Self {
        Self { vni, peer: peer as u16, magic: Self::MAGIC }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members(set in proptest::collection::hash_set(0..MAX_PEERS as u32, 0..64), other: u32) {
            let mut network: Network = Zeroable::zeroed();
            for &peer in &set {
                network.add_member(peer);
            }
            prop_assert!(set.iter().all(|&peer| network.has_member(peer)));
            prop_assert_eq!(network.has_member(other), set.contains(&other));
        }

        #[test]
        fn address_round_trip(octets: [u8; 4], wide: [u8; 16]) {
            let four = IpAddr::from(octets);
            prop_assert_eq!(VtepAddress::from(four).ip(), four);
            prop_assert_eq!(VtepAddress::from(four), VtepAddress::v4(Ipv4Octets(octets)));
            let six = IpAddr::from(wide);
            prop_assert_eq!(VtepAddress::from(six).ip(), six.to_canonical());
        }
    }

    #[test]
    fn flood_list_is_cut_at_its_size() {
        assert_eq!(FloodList::new(0..600).count, 512);
        assert_eq!(FloodList::new([7, 9]).peers[..3], [7, 9, 0]);
    }
}
