//! Ethernet frames made by hand, as the inner frames of a test.
//!
//! Nothing here is shared with the program under test but the type of a MAC address: what it
//! carries and what it should have carried must not have one common mistake.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use l2mesh_common::wire::MacAddr;

const ETH_IPV4: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_VLAN: u16 = 0x8100;
const ETH_IPV6: u16 = 0x86dd;
const ETH_QINQ: u16 = 0x88a8;
const ETH_LLDP: u16 = 0x88cc;
/// IEEE 802 OUI extended type: nothing in the kernel or in l2mesh knows it.
const ETH_UNKNOWN: u16 = 0x88b7;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Every host's IPv6 group.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// A frame from its destination address on, without frame check sequence.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// Any octets, also what is no frame.
    #[must_use]
    pub fn raw(octets: impl Into<Vec<u8>>) -> Self {
        Self(octets.into())
    }

    /// A frame of any type; not padded.
    #[must_use]
    pub fn ethernet(destination: MacAddr, source: MacAddr, ether_type: u16, payload: &[u8]) -> Self {
        Self([&destination.0[..], &source.0, &ether_type.to_be_bytes(), payload].concat())
    }

    /// A frame of a type that nobody knows (0x88b7).
    #[must_use]
    pub fn unknown(destination: MacAddr, source: MacAddr, payload: &[u8]) -> Self {
        Self::ethernet(destination, source, ETH_UNKNOWN, payload)
    }

    /// An LLDP-like frame (0x88cc) to 01:80:c2:00:00:0e, which bridges do not forward.
    #[must_use]
    pub fn lldp(source: MacAddr, payload: &[u8]) -> Self {
        Self::ethernet(MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]), source, ETH_LLDP, payload)
    }

    /// Who has `target`? To everyone (RFC 826).
    #[must_use]
    pub fn arp_request(source: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self::arp(MacAddr::BROADCAST, 1, (source, sender), (MacAddr::ZERO, target))
    }

    /// `sender` is at `source`. To one.
    #[must_use]
    pub fn arp_reply(source: MacAddr, sender: Ipv4Addr, to: MacAddr, target: Ipv4Addr) -> Self {
        Self::arp(to, 2, (source, sender), (to, target))
    }

    fn arp(to: MacAddr, operation: u8, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Self {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        let addresses = [sender, target].map(|(mac, address)| [&mac.0[..], &address.octets()].concat());
        Self::ethernet(to, sender.0, ETH_ARP, &[&head[..], &addresses.concat()].concat())
    }

    /// A UDP datagram in IPv4 or IPv6, checksums right. Both addresses are of one family.
    #[must_use]
    pub fn udp(destination: MacAddr, source: MacAddr, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        let length = u16::try_from(8 + payload.len()).expect("a payload that fits a datagram");
        let mut udp = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
        udp.extend(payload);
        Self::ip(destination, source, from.ip(), to.ip(), (UDP, 6), &udp)
    }

    /// A TCP segment without flags in IPv4 or IPv6, checksums right: nobody's.
    #[must_use]
    pub fn tcp(destination: MacAddr, source: MacAddr, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Self {
        let mut tcp = [from.port(), to.port(), 0, 1, 0, 0, 0x5000, 512, 0, 0].map(u16::to_be_bytes).concat();
        tcp.extend(payload);
        Self::ip(destination, source, from.ip(), to.ip(), (TCP, 16), &tcp)
    }

    /// A TCP segment without data, with these flags and options (RFC 9293 section 3.1). Options are padded with zeros, which
    /// end them.
    #[must_use]
    pub fn tcp_with(
        (destination, source): (MacAddr, MacAddr),
        (from, to): (SocketAddr, SocketAddr),
        flags: u8,
        options: &[u8],
    ) -> Self {
        let words = u8::try_from(options.len().div_ceil(4)).expect("few options");
        assert!(words <= 10, "at most 40 octets of options");
        let mut tcp = [from.port(), to.port(), 0, 1, 0, 0].map(u16::to_be_bytes).concat();
        tcp.extend([(5 + words) << 4, flags, 2, 0, 0, 0, 0, 0]);
        tcp.extend(options);
        tcp.resize(20 + 4 * usize::from(words), 0);
        Self::ip(destination, source, from.ip(), to.ip(), (TCP, 16), &tcp)
    }

    /// "Fragmentation needed" (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2): packets of `mtu` octets fit.
    /// Both addresses are of one family.
    #[must_use]
    pub fn too_big(
        destination: MacAddr,
        source: MacAddr,
        (from, to): (IpAddr, IpAddr),
        mtu: u32,
        quoted: &[u8],
    ) -> Self {
        let (protocol, kind, code) = if from.is_ipv4() { (ICMP, 3, 4) } else { (ICMPV6, 2, 0) };
        let message = [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), quoted].concat();
        Self::ip(destination, source, from, to, (protocol, 2), &message)
    }

    /// Who has `target`? To its solicited-node group (RFC 4861 section 4.3). From `::`, without an option: is it free?
    #[must_use]
    pub fn neighbour_solicitation(source: MacAddr, sender: Ipv6Addr, target: Ipv6Addr) -> Self {
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
        let mut body = [&[135, 0, 0, 0, 0, 0, 0, 0], &target.octets()[..], &[1, 1], &source.0].concat();
        if sender.is_unspecified() {
            body.truncate(24);
        }
        let to = MacAddr([0x33, 0x33, 0xff, a, b, c]);
        Self::ip(to, source, sender.into(), group.into(), (ICMPV6, 2), &body).with_hop_limit(255)
    }

    /// `sender` is at `source`. To one (RFC 4861 section 4.4).
    #[must_use]
    pub fn neighbour_advertisement(source: MacAddr, sender: Ipv6Addr, to: MacAddr, target: Ipv6Addr) -> Self {
        let body = [&[136, 0, 0, 0, 0x60, 0, 0, 0], &sender.octets()[..], &[2, 1], &source.0].concat();
        Self::ip(to, source, sender.into(), target.into(), (ICMPV6, 2), &body).with_hop_limit(255)
    }

    /// `sender` is at `source`. To all, with these flags: R 0x80, S 0x40, O 0x20.
    #[must_use]
    pub fn neighbour_announcement(source: MacAddr, sender: Ipv6Addr, flags: u8) -> Self {
        let body = [&[136, 0, 0, 0, flags, 0, 0, 0], &sender.octets()[..], &[2, 1], &source.0].concat();
        Self::ip(ALL_NODES_MAC, source, sender.into(), ALL_NODES.into(), (ICMPV6, 2), &body).with_hop_limit(255)
    }

    /// `sender` is a default router for half an hour (RFC 4861 section 4.2).
    #[must_use]
    pub fn router_advertisement(source: MacAddr, sender: Ipv6Addr) -> Self {
        let body = [&[134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], &source.0[..]].concat();
        Self::ip(ALL_NODES_MAC, source, sender.into(), ALL_NODES.into(), (ICMPV6, 2), &body).with_hop_limit(255)
    }

    /// An IP packet whose `payload` gets its checksum at `protocol.1`, over the pseudo-header too, but for ICMP (RFC 792). Both
    /// addresses are of one family.
    #[must_use]
    pub fn ip(
        destination: MacAddr,
        source: MacAddr,
        from: IpAddr,
        to: IpAddr,
        (protocol, at): (u8, usize),
        payload: &[u8],
    ) -> Self {
        let length = u16::try_from(payload.len()).expect("a payload that fits a packet");
        // The pseudo-header of RFC 768, RFC 9293 and of RFC 8200 section 8.1 sum to the same kind of number.
        let addresses = [octets(from), octets(to)].concat();
        let pseudo = [&addresses[..], &[0, protocol], &length.to_be_bytes()].concat();
        let pseudo = if protocol == ICMP { &[] } else { &pseudo[..] };
        let checksum = match checksum(&[pseudo, payload].concat()) {
            0 if protocol != ICMP => 0xffff,
            other => other,
        };
        let mut payload = payload.to_vec();
        payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let (ether_type, header) = match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (ETH_IPV4, ipv4_header(&addresses, protocol, length)),
            (IpAddr::V6(_), IpAddr::V6(_)) => (ETH_IPV6, ipv6_header(&addresses, protocol, length)),
            _ => panic!("{from} and {to} are of two families"),
        };
        Self::ethernet(destination, source, ether_type, &[header, payload].concat())
    }

    /// An untagged IPv6 packet with another hop limit.
    fn with_hop_limit(mut self, hops: u8) -> Self {
        self.0[21] = hops;
        self
    }

    /// An untagged IPv4 or IPv6 packet with this TOS octet or traffic class.
    #[must_use]
    pub fn with_tos(mut self, tos: u8) -> Self {
        if self.ether_type() == ETH_IPV4 {
            self.0[15] = tos;
            return self.with_header_checksum();
        }
        self.0[14] = self.0[14] & 0xf0 | tos >> 4;
        self.0[15] = self.0[15] & 0x0f | tos << 4;
        self
    }

    /// An untagged IPv4 packet that may be fragmented.
    #[must_use]
    pub fn without_df(mut self) -> Self {
        assert_eq!(self.ether_type(), ETH_IPV4, "{self:?}");
        self.0[20] &= !0x40;
        self.with_header_checksum()
    }

    /// An untagged IPv4 packet that is a fragment from this place on, octets.
    #[must_use]
    pub fn fragment_at(mut self, offset: u16) -> Self {
        assert_eq!((self.ether_type(), offset % 8), (ETH_IPV4, 0), "{self:?}");
        let [high, low] = (offset / 8).to_be_bytes();
        self.0[20] = self.0[20] & 0xe0 | high;
        self.0[21] = low;
        self.with_header_checksum()
    }

    fn with_header_checksum(mut self) -> Self {
        self.0[24..26].fill(0);
        let sum = checksum(&self.0[14..34]).to_be_bytes();
        self.0[24..26].copy_from_slice(&sum);
        self
    }

    /// Where the packet behind all tags starts, and of which type it is.
    pub(crate) fn packet(&self) -> (usize, u16) {
        let kind = |at: usize| u16::from_be_bytes([self.0[at - 2], self.0[at - 1]]);
        let mut at = 14;
        while matches!(kind(at), ETH_VLAN | ETH_QINQ) {
            at += 4;
        }
        (at, kind(at))
    }

    /// A TCP segment with the sum over the pseudo-header alone in place of its checksum: whoever cuts it up needs that.
    #[must_use]
    pub(crate) fn with_pending_tcp_checksum(&self) -> Self {
        let mut octets = self.0.clone();
        let (ip, kind) = self.packet();
        let (tcp, addresses) = if kind == ETH_IPV4 { (ip + 20, ip + 12) } else { (ip + 40, ip + 8) };
        let length = u32::try_from(octets.len() - tcp).expect("less than 4 GiB").to_be_bytes();
        let sum = !checksum(&[&octets[addresses..tcp], &length[..], &[0, TCP]].concat());
        octets[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        Self(octets)
    }

    /// To somebody else.
    #[must_use]
    pub fn to(mut self, destination: MacAddr) -> Self {
        self.0[..6].copy_from_slice(&destination.0);
        self
    }

    /// With an 802.1Q tag: priority, DEI and VLAN id as on the wire.
    #[must_use]
    pub fn tagged(self, tci: u16) -> Self {
        self.tagged_as(ETH_VLAN, tci)
    }

    /// With a tag of any type, in front of those it has.
    #[must_use]
    pub fn tagged_as(mut self, tag_type: u16, tci: u16) -> Self {
        let tag = [tag_type, tci].map(u16::to_be_bytes).concat();
        self.0.splice(12..12, tag);
        self
    }

    /// With zeros up to `length` octets.
    #[must_use]
    pub fn padded(mut self, length: usize) -> Self {
        self.0.resize(self.0.len().max(length), 0);
        self
    }

    /// Equal to `sent` up to the padding that a shorter frame gets on its way.
    #[must_use]
    pub fn is_padded(&self, sent: &Self) -> bool {
        self.0.strip_prefix(&sent.0[..]).is_some_and(|rest| rest.iter().all(|octet| *octet == 0))
    }

    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// Who it is for. Panics on less than 14 octets, as do the next two.
    #[must_use]
    pub fn destination(&self) -> MacAddr {
        MacAddr(self.0[..6].try_into().expect("six octets"))
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> MacAddr {
        MacAddr(self.0[6..12].try_into().expect("six octets"))
    }

    /// The type, or that of the first tag.
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets:", self.0.len())?;
        self.0.iter().try_for_each(|octet| write!(f, " {octet:02x}"))
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ipv4_header(addresses: &[u8], protocol: u8, payload: u16) -> Vec<u8> {
    let length = (20 + payload).to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
    header.extend(addresses);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}

fn ipv6_header(addresses: &[u8], protocol: u8, payload: u16) -> Vec<u8> {
    let length = payload.to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], protocol, 64], addresses].concat()
}

/// RFC 1071.
pub(crate) fn checksum(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum: u64 = octets.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x12]), !0x1200);
    }

    #[test]
    fn tags_stack_in_front() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let frame = Frame::unknown(MacAddr::BROADCAST, mac, b"x").tagged(7).tagged_as(0x88a8, 0x2005);
        assert_eq!(frame.octets()[12..], [0x88, 0xa8, 0x20, 5, 0x81, 0, 0, 7, 0x88, 0xb7, b'x']);
        assert_eq!((frame.destination(), frame.source(), frame.ether_type()), (MacAddr::BROADCAST, mac, 0x88a8));
    }
}
