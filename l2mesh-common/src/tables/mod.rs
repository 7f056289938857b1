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
//! | `NEIGHBOURS` | hash | [`NeighbourKey`] | [`Neighbour`] | kernel; agent ages |
//! | `COUNTERS` | per-CPU array | verdict | [`Counter`] | kernel |
//! | `PEER_COUNTERS` | per-CPU array | peer | [`PeerCounter`] | kernel |
//! | `NETWORK_COUNTERS` | per-CPU array | [`Network::number`] | [`NetworkCounter`] | kernel |
//! | `LABELS` | hash | [`LabelKey`] | [`Label`] | agent, for readers that come when it is gone |
//! | `BUCKETS` | LRU hash | [`BucketKey`] | [`Bucket`] | kernel |
//! | `STAYS` | LRU hash | [`FdbKey`] | [`crate::freeze::Stays`] | kernel |
//! | `MEMBER_MACS` | hash | [`MemberKey`] | [`MemberMacs`] | kernel; agent counts anew |
//! | `EVENTS` | ring buffer | | [`Event`] | kernel |
//! | `CALLS` | program array | [`CALL_TOO_BIG`] | program | agent |
//! | `PATH_TX` | array, mapped | [`path_slot`] | [`PathTx`] | agent |
//! | `PATH_RX` | array, mapped | [`path_slot`] | [`PathRx`] | kernel |
//! | `FINGERPRINTS` | array, mapped | [`path_slot`] | u64: the far end's [`Fingerprint`] in its latest answer | kernel |
//! | `REACHABILITY` | array, mapped | peer, or [`OWN_REACHABILITY`] | [`Reported`]: what a peer said last, or this node says | kernel; agent its own |
//! | `PATH_NOTES` | array, mapped | [`path_slot`] | [`PathNote`] | agent, for readers |
//! | `HISTORY` | array, mapped | n | [`Change`] | agent, for readers |
//! | `NODES` | hash | node id | peer, or [`OWN_NODE`] | agent |
//! | `RELAYED` | hash | VNI | [`Members`] | agent, on a relay |
//! | `CAPTURE` | array, mapped | 0 | [`CaptureFilter`] | `l2mesh capture`; kernel counts what is lost |
//! | `CAPTURED` | perf event array | CPU | [`CaptureRecord`] and a frame | kernel |

mod capture;
mod fdb;
mod labels;
mod limits;
mod neighbour;
mod path;
mod peer;

use bytemuck::{Pod, Zeroable};

pub use self::{
    capture::{ANYBODY, CaptureFilter, CaptureRecord, Point, Seen},
    fdb::{Event, FdbEntry, FdbKey},
    labels::{Fact, Label, LabelKey},
    limits::{BUCKET_SLOTS, Bucket, BucketKey, MemberKey, MemberMacs, STAYS_SLOTS},
    neighbour::{Neighbour, NeighbourKey},
    path::{
        Change, HISTORY_SLOTS, Members, PATH_SLOTS, PING_SLOT, PING_SLOTS, PathNote, PathRx, PathTx, Reported,
        path_slot,
    },
    peer::{FloodList, NextHop, PathLimit, Peer, VtepAddress, Way},
};
use crate::wire::{Fingerprint, Ipv4Octets, MacAddr};

/// Peers of one host, and so the longest flood list.
pub const MAX_PEERS: usize = 512;
/// Places of `PEERS`.
pub const PEER_SLOTS: u32 = MAX_PEERS as u32;
/// The place of what this node says in `REACHABILITY`, behind those of its peers.
pub const OWN_REACHABILITY: PeerId = PEER_SLOTS;
/// Networks of one underlay interface.
pub const MAX_NETWORKS: u32 = 4096;
/// Default size of the FDB.
pub const FDB_SIZE: u32 = 65_536;

/// Places of `CALLS`.
pub const CALL_SLOTS: u32 = 1;
/// The place of the program for frames that do not fit the path.
pub const CALL_TOO_BIG: u32 = 0;

/// Index into `PEERS`. It is stable for one configuration, not across changes of it.
pub type PeerId = u32;
/// What `NODES` says of this host's own id.
pub const OWN_NODE: PeerId = PeerId::MAX;

/// True if the bit of this peer is set. There are no peers from [`MAX_PEERS`] on: the mask alone is an index that the verifier can
/// bound, beside a comparison the compiler would leave it out.
#[inline(always)]
const fn has_bit(bits: &[u64; MAX_PEERS / 64], peer: PeerId) -> bool {
    bits[(peer as usize >> 6) & (MAX_PEERS / 64 - 1)] >> (peer & 63) & 1 == 1
}

/// Sets the bit of this peer. Peers from [`MAX_PEERS`] on are ignored.
const fn set_bit(bits: &mut [u64; MAX_PEERS / 64], peer: PeerId) {
    if (peer as usize) < MAX_PEERS {
        bits[peer as usize >> 6] |= 1 << (peer & 63);
    }
}

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
    /// Outer destinations that are this host; unused places repeat the first, or are zero.
    pub local: [Ipv4Octets; 4],
    /// The same over IPv6.
    pub local_v6: [VtepAddress; 4],
    /// A MAC address may move so often in ten seconds; 0 is no limit ([`crate::freeze`]).
    pub move_limit: u32,
    /// One that moves more often is frozen for so long, milliseconds.
    pub move_freeze_ms: u32,
    /// [`Settings::MAY_RELAY`], [`Settings::XDP_TX`].
    pub flags: u32,
    /// This host's node id.
    pub node_id: u32,
    /// What this host's configuration says: it goes into answers to probes.
    pub fingerprint: Fingerprint,
}

impl Settings {
    /// This host forwards for pairs of other nodes.
    pub const MAY_RELAY: u32 = 1;
    /// What the XDP program sends back out of the underlay interface arrives; else that is left to TC.
    pub const XDP_TX: u32 = 2;

    /// True if it does.
    #[inline(always)]
    #[must_use]
    pub const fn may_relay(&self) -> bool {
        self.flags & Self::MAY_RELAY != 0
    }

    /// True if the XDP program may send frames.
    #[inline(always)]
    #[must_use]
    pub const fn has_xdp_tx(&self) -> bool {
        self.flags & Self::XDP_TX != 0
    }
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
    /// [`Network::CARRY_LINK_LOCAL`] and so on.
    pub flags: u32,
    /// The overlay interface's own MAC address.
    pub mac: MacAddr,
    /// Its place in `NETWORK_COUNTERS`: of its own, and the same as long as it is configured.
    pub number: u16,
    /// Greatest number of frames flooded per second, and received to be; 0 is no limit ([`crate::bucket`]).
    pub storm_limit: u32,
    /// Greatest number of MAC addresses learned behind one peer; 0 is no limit.
    pub macs_per_peer: u32,
    /// Bit n is set if peer n is a member.
    pub members: [u64; MAX_PEERS / 64],
}

impl Network {
    /// Carry 01:80:c2:00:00:0x too.
    pub const CARRY_LINK_LOCAL: u32 = 1;
    /// Lower the MSS of TCP connections to what the path takes.
    pub const CLAMP_MSS: u32 = 2;
    /// Answer ARP and neighbour solicitations for addresses that are known.
    pub const SUPPRESS: u32 = 4;

    /// True if this peer may send frames of this network.
    #[inline(always)]
    #[must_use]
    pub const fn has_member(&self, peer: PeerId) -> bool {
        has_bit(&self.members, peer)
    }

    /// Makes this peer a member. Peers from [`MAX_PEERS`] on are ignored.
    pub const fn add_member(&mut self, peer: PeerId) {
        set_bit(&mut self.members, peer);
    }

    /// True if frames to the bridge group addresses are carried.
    #[inline(always)]
    #[must_use]
    pub const fn carries_link_local(&self) -> bool {
        self.flags & Self::CARRY_LINK_LOCAL != 0
    }
}

/// Which network an interface sends into, and all of that network which a unicast frame needs: one lookup instead of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Port {
    /// VNI.
    pub vni: u32,
    /// Those of the [`Network`], and [`Port::SHORTCUT`].
    pub flags: u32,
    /// The namespace in which the overlay interface was when the shortcut was allowed.
    pub netns_cookie: u64,
    /// DSCP of the outer header in its place in the TOS octet, or [`Port::INHERIT_TOS`].
    pub tos: u16,
    /// [`Network::number`].
    pub number: u16,
    /// As in the [`Network`].
    pub storm_limit: u32,
}

impl Port {
    /// The program on the overlay interface's egress may take frames.
    pub const SHORTCUT: u32 = 1 << 16;
    /// DSCP as in the inner header.
    pub const INHERIT_TOS: u16 = 0x100;

    /// True if the egress program may take a frame seen in the namespace of this cookie.
    #[inline(always)]
    #[must_use]
    pub const fn allows_shortcut(&self, netns_cookie: u64) -> bool {
        self.flags & Self::SHORTCUT != 0 && self.netns_cookie == netns_cookie
    }

    /// True if this flag of the [`Network`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
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

/// Frames of one network; a flooded one counts once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct NetworkCounter {
    /// Into it.
    pub sent: Counter,
    /// From it.
    pub received: Counter,
    /// Frames on the wire that were not sent because of storm control.
    pub storm_sent: u64,
    /// Frames on the wire that were received, and not let in because of storm control.
    pub storm_received: u64,
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
        fn members(set in proptest::collection::hash_set(0..MAX_PEERS as u32, 0..64), other in 0..MAX_PEERS as u32) {
            let mut network: Network = Zeroable::zeroed();
            for &peer in &set {
                network.add_member(peer);
            }
            prop_assert!(set.iter().all(|&peer| network.has_member(peer)));
            prop_assert_eq!(network.has_member(other), set.contains(&other));
        }
    }
}
