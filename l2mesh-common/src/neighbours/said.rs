//! What a frame says of who has which address, and what it asks.

use crate::{
    tables::{FdbKey, NeighbourKey},
    wire::{
        Arp, ArpOperation, Be16, DhcpHeader, EthernetHeader, Ipv4Octets, Ipv6Octets, LinkLayerOption, MacAddr,
        NdHeader, NdKind, NdMessage,
    },
};

/// An address is at a MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The address.
    pub key: NeighbourKey,
    /// Where it is.
    pub mac: MacAddr,
    /// By what it is said.
    pub kind: Kind,
}

impl Claim {
    /// Where the FDB has its MAC address.
    #[inline(always)]
    #[must_use]
    pub const fn station(&self) -> FdbKey {
        FdbKey::new(self.key.vni, self.mac)
    }
}

/// How a claim is made, and so what it may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// ARP, DHCP: that is all.
    Whole,
    /// The source of a neighbour solicitation (RFC 4861 section 7.2.3): whether it is a router is not said.
    Solicitation,
    /// A neighbour advertisement (section 7.2.5).
    Advertisement {
        /// The R flag.
        router: bool,
        /// The O flag, and a MAC address is given. Without, it is a proxy or one of several owners, or says only that
        /// nothing has changed: then `mac` is the frame's source.
        overrides: bool,
    },
    /// A router advertisement: `mac` is the frame's source (section 6.3.4).
    RouterAdvertisement,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Nothing that anybody would answer.
    None,
    /// Who has this address? Everyone is asked by someone who gives its own addresses.
    Anyone(NeighbourKey),
    /// Only the owner's own answer, or its silence, is of use.
    Owner(NeighbourKey),
}

/// A frame of ARP or neighbour discovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// What it claims.
    pub claim: Option<Claim>,
    /// What it asks.
    pub question: Question,
}

impl Said {
    /// Nothing of use.
    pub const NOTHING: Self = Self { claim: None, question: Question::None };

    #[inline(always)]
    const fn claim(key: NeighbourKey, mac: MacAddr, kind: Kind) -> Self {
        Self { claim: Some(Claim { key, mac, kind }), question: Question::None }
    }

    #[inline(always)]
    const fn owner(key: NeighbourKey) -> Self {
        Self { claim: None, question: Question::Owner(key) }
    }
}

/// An ARP packet (RFC 826, RFC 5227).
#[inline(always)]
#[must_use]
pub fn arp(vni: u32, ethernet: &EthernetHeader, arp: &Arp) -> Said {
    let Some(operation) = arp.operation() else { return Said::NOTHING };
    let target = NeighbourKey::v4(vni, arp.target);
    let asks = operation == ArpOperation::Request && is_host_v4(arp.target);
    if arp.sender == Ipv4Octets([0; 4]) {
        // A probe: is the address free? (RFC 5227 section 2.1.1)
        return if asks { Said::owner(target) } else { Said::NOTHING };
    }
    if !is_host_v4(arp.sender) {
        return Said::NOTHING;
    }
    let said = Said::claim(NeighbourKey::v4(vni, arp.sender), arp.sender_mac, Kind::Whole);
    // To itself: an announcement (RFC 5227 section 2.3).
    let question = if !asks || arp.target == arp.sender {
        Question::None
    } else if ethernet.destination != MacAddr::BROADCAST {
        Question::Owner(target)
    } else if arp.sender_mac == ethernet.source {
        Question::Anyone(target)
    } else {
        Question::None
    };
    Said { question, ..said }
}

/// A neighbour solicitation or advertisement with what follows it (RFC 4861 section 7), and what
/// [`NdMessage::is_intact`] says of both: the kernel program asks that in a function of its own.
#[inline(always)]
#[must_use]
pub fn nd(
    vni: u32,
    ethernet: &EthernetHeader,
    message: &NdMessage,
    option: Option<&LinkLayerOption>,
    is_intact: bool,
) -> Said {
    if !is_host_v6(message.target) {
        return Said::NOTHING;
    }
    let target = NeighbourKey::v6(vni, message.target);
    let source = message.header.ip.source;
    let is_advertisement = message.header.kind() == Some(NdKind::NeighbourAdvertisement);
    if message.header.ip.payload_length() > NdMessage::LEN + LinkLayerOption::LEN {
        // With options that are not read: it may say anything, so it only unsettles what is known.
        let about = if is_advertisement || !is_host_v6(source) { target } else { NeighbourKey::v6(vni, source) };
        return Said::owner(about);
    }
    if !is_intact {
        return Said::NOTHING;
    }
    if is_advertisement {
        let router = message.is_router();
        return match option.copied().and_then(LinkLayerOption::target) {
            Some(mac) => {
                let overrides = message.overrides();
                Said::claim(target, mac, Kind::Advertisement { router, overrides })
            }
            None => Said::claim(target, ethernet.source, Kind::Advertisement { router, overrides: false }),
        };
    }
    if !is_host_v6(source) {
        // From the unspecified address: duplicate address detection (RFC 4862 section 5.4.2).
        return Said::owner(target);
    }
    let is_to_all = message.header.ip.destination == solicited_node(message.target) && ethernet.destination.is_group();
    match option.copied().and_then(LinkLayerOption::source) {
        Some(mac) => {
            let question = if !is_to_all {
                Question::Owner(target)
            } else if mac == ethernet.source && source != message.target {
                Question::Anyone(target)
            } else {
                Question::None
            };
            Said { question, ..Said::claim(NeighbourKey::v6(vni, source), mac, Kind::Solicitation) }
        }
        None if is_to_all => Said::NOTHING,
        None => Said::owner(target),
    }
}

/// A router advertisement.
#[inline(always)]
#[must_use]
pub fn router(vni: u32, ethernet: &EthernetHeader, header: &NdHeader) -> Said {
    let source = header.ip.source;
    if source.0[0].get() & 0xffc0 == 0xfe80 {
        Said::claim(NeighbourKey::v6(vni, source), ethernet.source, Kind::RouterAdvertisement)
    } else {
        Said::NOTHING
    }
}

/// What a DHCP server has granted in an ACK.
#[inline(always)]
#[must_use]
pub fn granted(vni: u32, header: &DhcpHeader) -> Option<Claim> {
    if header.is_reply() && is_host_v4(header.granted) {
        Some(Claim { key: NeighbourKey::v4(vni, header.granted), mac: header.client_mac, kind: Kind::Whole })
    } else {
        None
    }
}

/// Neither "this network" nor loopback, multicast, reserved or broadcast (RFC 6890).
#[inline(always)]
const fn is_host_v4(address: Ipv4Octets) -> bool {
    !matches!(address.0[0], 0 | 127 | 224..)
}

/// Neither multicast nor of the first 2^64: unspecified, loopback, IPv4-mapped (RFC 4291 section 2).
#[inline(always)]
const fn is_host_v6(address: Ipv6Octets) -> bool {
    let [a, b, c, d, ..] = address.0;
    a.get() >> 8 != 0xff && a.get() | b.get() | c.get() | d.get() != 0
}

/// The group in which the owner of an address listens (RFC 4291 section 2.7.1).
#[inline(always)]
const fn solicited_node(address: Ipv6Octets) -> Ipv6Octets {
    const ZERO: Be16 = Be16::new(0);
    let [.., seventh, eighth] = address.0;
    let low = Be16::new(0xff00 | seventh.get() & 0xff);
    Ipv6Octets([Be16::new(0xff02), ZERO, ZERO, ZERO, ZERO, Be16::new(1), low, eighth])
}
