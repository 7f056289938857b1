//! What became of a frame. One number is one counter is one name; numbers are never reused.

/// What a verdict means for the frame itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was carried.
    Carried,
    /// It went on to the host's own stack, untouched or with another UDP port.
    Passed,
    /// It ended here.
    Dropped,
    /// Something besides its fate: the frame is counted under another verdict too.
    Noted,
}

macro_rules! verdicts {
    ($($name:ident = $number:literal, $fate:ident, $label:literal, $text:literal;)*) => {
        /// Why a frame left the programs, or what happened on its way.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Verdict {
            $(#[doc = $text] $name = $number,)*
        }

        impl Verdict {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The verdict of this number; [`Verdict::StoreFailed`] if there is none.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                match number { $($number => Self::$name,)* _ => Self::StoreFailed }
            }

            /// The name of its counter.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it means for the frame.
            #[inline(always)]
            #[must_use]
            pub const fn fate(self) -> Fate {
                match self { $(Self::$name => Fate::$fate,)* }
            }
        }
    };
}

verdicts! {
    Sent = 0, Carried, "sent", "Encapsulated to the one peer behind which the destination is";
    Flooded = 1, Carried, "flooded", "Broadcast, multicast or unknown destination: copied to every peer of the network";
    FloodCopies = 2, Noted, "flood-copies", "Copies made of flooded frames";
    Received = 3, Carried, "received", "Decapsulated and delivered to the overlay interface";
    HandedToHelper = 4, Passed, "handed-to-helper", "Left to the kernel's receive path, which feeds the helper device";

    NotVxlan = 8, Passed, "not-vxlan", "Nothing of ours";
    OtherVni = 9, Passed, "other-vni", "VXLAN of a network that is not ours";
    Fragment = 10, Passed, "fragment", "UDP fragment: the kernel reassembles, what is ours comes back through the helper device";
    IpOptions = 11, Passed, "ip-options", "UDP behind IP options: left to the kernel's receive path";
    NoMetadata = 12, Passed, "no-metadata", "The driver takes no XDP metadata: decapsulated in TC";
    Declined = 13, Passed, "shortcut-declined", "Not for the egress shortcut: goes on to the hidden peer";

    Truncated = 16, Dropped, "truncated", "Shorter than its headers say";
    BadIpHeader = 17, Dropped, "bad-ip-header", "Outer IP version or header length is impossible";
    NoVniFlag = 18, Dropped, "no-vni-flag", "VXLAN header without the I flag";
    ReservedBits = 19, Dropped, "reserved-bits", "A reserved bit is set in a VXLAN header of ours";
    UnknownSource = 20, Dropped, "unknown-source", "Outer source is no peer";
    NotMember = 21, Dropped, "not-member", "Outer source is a peer, but not in this network";
    GroupSource = 22, Dropped, "group-source", "Received inner source MAC is a group or zero";
    OwnSource = 23, Dropped, "own-source", "Received inner source MAC is our own: a loop";
    DecapFailed = 24, Dropped, "decap-failed", "The kernel refused to take the outer header off";
    OverMtu = 25, Dropped, "over-mtu", "Longer than the overlay interface takes, which is in another namespace";
    SelfTest = 26, Dropped, "self-test", "The frame with which the agent tests the host's firewall";
    LinkLocalReceived = 27, Dropped, "link-local-received", "Received for 01:80:c2:00:00:0x, which no bridge forwards";
    NotOurVni = 28, Dropped, "not-our-vni", "VXLAN of a network that is not ours, on the port that we hold alone";

    Unmarkable = 29, Dropped, "ce-not-ect", "Marked as congested on the way (CE), but inside is a packet whose ends know no ECN (RFC 6040)";

    NoNetwork = 32, Dropped, "no-network", "Sent on an interface that belongs to no network of ours";
    Runt = 33, Dropped, "runt", "Shorter than an Ethernet header";
    SentGroupSource = 34, Dropped, "sent-group-source", "Sent from a source MAC that is a group or zero";
    LinkLocal = 35, Dropped, "link-local", "Sent to 01:80:c2:00:00:0x, which no bridge forwards";
    VlanDepth = 36, Dropped, "vlan-depth", "Sent with more than two VLAN tags";
    TooBig = 37, Dropped, "too-big", "Sent with more octets than the path to the peer takes";
    NoNextHop = 38, Dropped, "no-next-hop", "The peer's next hop is not known";
    NoPeers = 39, Dropped, "no-peers", "To be flooded, but the network has no other member";
    EncapFailed = 40, Dropped, "encap-failed", "The kernel refused to put the outer header on";
    CopyFailed = 41, Noted, "copy-failed", "A copy of a flooded frame could not be made or queued";
    StoreFailed = 42, Dropped, "store-failed", "A header could not be written where room was made for it";

    Learned = 48, Noted, "learned", "MAC address learned";
    Moved = 49, Noted, "moved", "MAC address seen behind another peer than before";
    FdbFull = 50, Noted, "fdb-full", "MAC address not learned: the table is full, its frames are flooded";
    StaticElsewhere = 51, Noted, "static-elsewhere", "Source MAC is static behind another peer: not learned";

    TooBigTold = 56, Dropped, "too-big-told", "Sent with more octets than the path takes: the sender was told what fits (ICMP)";
    TooBigSilent = 57, Dropped, "too-big-silent", "Sent with more octets than the path takes, by a sender that was told often just before";
    Fragmented = 58, Carried, "fragmented", "Sent with more octets than the path takes: the kernel fragments the outer packet";
    CopyTooBig = 60, Noted, "copy-too-big", "A copy of a flooded frame had more octets than the path to its peer takes";
    MssLowered = 61, Noted, "mss-lowered", "TCP SYN whose MSS was lowered to what the path takes";
    PathMtuLowered = 62, Noted, "path-mtu-lowered", "ICMP said that the path to a peer takes less";
    PathMtuRefused = 63, Noted, "path-mtu-refused", "ICMP said that a path takes less, but not about a packet of ours, or too little, or too often";

    StormSentSource = 64, Dropped, "storm-sent-source", "Sent to everybody by a MAC address that uses up its share of the network's storm-limit";
    StormSent = 65, Dropped, "storm-sent", "Sent to everybody when the network's storm-limit was used up";
    StormReceivedSource = 66, Dropped, "storm-received-source", "Received for everybody from a MAC address that uses up its share of the network's storm-limit";
    StormReceivedPeer = 67, Dropped, "storm-received-peer", "Received for everybody from a peer that uses up its share of the network's storm-limit";
    StormReceived = 68, Dropped, "storm-received", "Received for everybody when the network's storm-limit was used up";
    Frozen = 69, Noted, "frozen", "MAC address moved more often than move-limit: kept where it was longest for a while";
    FrozenElsewhere = 70, Noted, "frozen-elsewhere", "Received from a frozen MAC address behind another peer: delivered, not learned";
    PeerFull = 71, Noted, "peer-full", "MAC address not learned: its peer has macs-per-peer already, its frames are flooded";

    NeighbourAnswered = 72, Carried, "neighbour-answered", "ARP request or neighbour solicitation answered here in the owner's place: nothing was flooded";
    NeighbourLearned = 73, Noted, "neighbour-learned", "Heard at which MAC address an IP address is";
    NeighbourMoved = 74, Noted, "neighbour-moved", "IP address heard at another MAC address than before";
    NeighboursFull = 75, Noted, "neighbours-full", "Not noted at which MAC address an IP address is: the table is full, questions for it are flooded";
    NeighbourUnknown = 76, Noted, "neighbour-unknown", "Asked for an IP address of which nothing is known: not answered here";
    NeighbourUnsure = 77, Noted, "neighbour-unsure", "Asked for an IP address that is on our side, or of which not enough is known: not answered here";
    NeighbourForgotten = 78, Noted, "neighbour-forgotten", "What was known of an IP address was contradicted by a frame that may not replace it";
    AskerTold = 79, Noted, "asker-told", "Not answered here, so that all others hear who asks";

    ProbeReflected = 80, Carried, "probe-reflected", "Probe of a peer, sent back to it";
    ProbeAnswered = 81, Carried, "probe-answered", "Answer to a probe of ours: its path works";
    ProbeStranger = 82, Dropped, "probe-stranger", "Probe from an address, or of an origin, that is no l2mesh node of this mesh";
    ProbeUnknown = 83, Dropped, "probe-unknown", "Probe of a version or kind that this version does not know";
    ProbeForged = 84, Dropped, "probe-forged", "Answer to a probe that does not quote what the probe said, or comes another way than it went";
    ProbeLate = 85, Dropped, "probe-late", "Answer to a probe that is answered already, or was overtaken by a later answer";
    ProbeFuture = 86, Dropped, "probe-future", "Answer to a probe that was not sent yet";
    ProbeFlood = 87, Dropped, "probe-flood", "Probe of a peer that sends more than anybody needs";
    ProbeNoWay = 88, Dropped, "probe-no-way", "Probe not sent back: the next hop to its sender is not known, or over another IP version";

    Relayed = 89, Carried, "relayed", "Forwarded for a pair of other nodes";
    RelayForbidden = 90, Dropped, "relay-forbidden", "Asked to forward, but this node is no relay";
    RelayStranger = 91, Dropped, "relay-stranger", "Asked to forward by an address that is no l2mesh node of this mesh";
    RelayUnknown = 92, Dropped, "relay-unknown", "Asked to forward to an id that is no l2mesh node of this mesh";
    RelaySelf = 93, Dropped, "relay-self", "Asked to forward to this very node";
    RelayBack = 94, Dropped, "relay-back", "Asked to forward back to the node that asks";
    RelayNotMember = 95, Dropped, "relay-not-member", "Asked to forward in a network in which not both nodes are";
    RelayNoWay = 96, Dropped, "relay-no-way", "Asked to forward to a node whose next hop is not known";
    RelayTooBig = 97, Dropped, "relay-too-big", "Asked to forward more octets than the path to the other node takes";
    RelayFailed = 98, Dropped, "relay-failed", "The kernel refused to change the outer header of what was to be forwarded";
    RelayedStranger = 99, Dropped, "relayed-stranger", "Received as relayed from an address that is no relay of this mesh";
    RelayedOrigin = 100, Dropped, "relayed-origin", "Received as relayed for a node that is unknown, or not in the network";
    SentRelayed = 101, Noted, "sent-relayed", "Sent through a relay, because the direct path is down";
    NoPathUp = 102, Noted, "no-path-up", "Sent although no path is up: through a relay that is answered at all, else directly";
    ReceivedRelayed = 103, Noted, "received-relayed", "Received through a relay";
}

impl Verdict {
    /// Slots of the counter map; room for later verdicts without a new layout.
    pub const SLOTS: u32 = 128;

    /// Its counter.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// False only for the host's own traffic, which nobody wants to pay for.
    #[inline(always)]
    #[must_use]
    pub const fn is_counted(self) -> bool {
        !matches!(self, Self::NotVxlan)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_ascend_and_labels_differ() {
        assert!(Verdict::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        assert!(Verdict::ALL.iter().all(|verdict| verdict.number() < Verdict::SLOTS));
        let labels: HashSet<&str> = Verdict::ALL.iter().map(|verdict| verdict.label()).collect();
        assert_eq!(labels.len(), Verdict::ALL.len());
    }
}
