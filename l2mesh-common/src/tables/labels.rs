//! Texts for readers that come when the agent is gone. The kernel programs never look.

use bytemuck::{Pod, Zeroable};

use super::PeerId;

/// What a text in `LABELS` is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct LabelKey {
    /// [`LabelKey::PEER`], [`LabelKey::NETWORK`], [`LabelKey::TRANSMIT`], [`LabelKey::BRIDGE`], [`LabelKey::FORMAT`] or [`LabelKey::FACT`].
    pub kind: u32,
    /// Peer, VNI, or which fact.
    pub id: u32,
}

impl LabelKey {
    /// The node name of a peer.
    pub const PEER: u32 = 0;
    /// The name of a network.
    pub const NETWORK: u32 = 1;
    /// Which transmit hook a network uses and why.
    pub const TRANSMIT: u32 = 3;
    /// Index of the bridge that a network asks for, as a decimal number.
    pub const BRIDGE: u32 = 4;
    /// A map's name and the number of its format ([`crate::layout::format`]).
    pub const FORMAT: u32 = 5;
    /// Something about this host, see [`Fact`].
    pub const FACT: u32 = 2;

    /// The key of a peer's name.
    #[must_use]
    pub const fn peer(peer: PeerId) -> Self {
        Self { kind: Self::PEER, id: peer }
    }

    /// The key of a network's name.
    #[must_use]
    pub const fn network(vni: u32) -> Self {
        Self { kind: Self::NETWORK, id: vni }
    }

    /// The key of what is said about a network's transmit hook.
    #[must_use]
    pub const fn transmit(vni: u32) -> Self {
        Self { kind: Self::TRANSMIT, id: vni }
    }

    /// The key of a network's bridge.
    #[must_use]
    pub const fn bridge(vni: u32) -> Self {
        Self { kind: Self::BRIDGE, id: vni }
    }

    /// The key of a map's format in a layout; `nth` only tells the maps apart.
    #[must_use]
    pub const fn format(layout_version: u32, nth: u8) -> Self {
        Self { kind: Self::FORMAT, id: layout_version << 8 | nth as u32 }
    }

    /// The key of a fact.
    #[must_use]
    pub const fn fact(fact: Fact) -> Self {
        Self { kind: Self::FACT, id: fact as u32 }
    }
}

/// What `l2mesh status` says of this host besides numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Fact {
    /// This node's own name.
    Node = 0,
    /// The receive mode and why.
    Mode = 1,
    /// Who holds the UDP port.
    UdpPort = 2,
    /// Whether the host's firewall lets the mesh port in.
    Firewall = 3,
    /// Outer source address.
    Local = 4,
    /// How late the thread that sends probes was.
    Prober = 5,
}

/// UTF-8 text, cut at a character and padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Label([u8; Label::SIZE]);

impl Label {
    /// Octets.
    pub const SIZE: usize = 248;

    /// As much of the text as fits.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut octets = [0; Self::SIZE];
        let end = text.floor_char_boundary(Self::SIZE);
        octets[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(octets)
    }

    /// The text; empty where it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        let end = self.0.iter().position(|&octet| octet == 0).unwrap_or(Self::SIZE);
        core::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn label_round_trip(text in "\\PC{0,300}") {
            let label = Label::new(&text);
            prop_assert!(text.starts_with(label.text()));
            prop_assert!(text.len() > 244 || label.text() == text);
        }
    }
}
