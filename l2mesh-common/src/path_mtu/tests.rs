use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{EtherType, EthernetHeader, Ipv4Octets, Ipv6Octets, MacAddr, Vni};

const OVERHEAD: u32 = 50;
const SECOND: u64 = 1_000_000_000;

/// What the quote is about, and how much of it there is.
#[derive(Clone, Debug)]
struct Quote {
    source: [u8; 16],
    destination: [u8; 16],
    port: u16,
    vni: u32,
    payload: Vec<u8>,
}

impl Quote {
    fn v4(&self) -> Vec<u8> {
        let address = |octets: [u8; 16]| Ipv4Octets(*octets.first_chunk().expect("four of sixteen"));
        let ip = Ipv4Header::template(Protocol::UDP, 64, address(self.source), address(self.destination));
        [bytemuck::bytes_of(&ip), &self.udp()].concat()
    }

    fn v6(&self) -> Vec<u8> {
        let address = |octets: [u8; 16]| Ipv6Octets::from(core::net::Ipv6Addr::from(octets));
        let ip = Ipv6Header::template(Protocol::UDP, 64, address(self.source), address(self.destination));
        [bytemuck::bytes_of(&ip), &self.udp()].concat()
    }

    fn udp(&self) -> Vec<u8> {
        let udp = UdpHeader::new(50_000, self.port, 1400);
        let vxlan = VxlanHeader::new(Vni::new(self.vni).expect("in range"));
        let inner = EthernetHeader::new(MacAddr::BROADCAST, MacAddr::ZERO, EtherType::IPV4);
        [bytemuck::bytes_of(&udp), bytemuck::bytes_of(&vxlan), bytemuck::bytes_of(&inner), &self.payload].concat()
    }

    fn says(&self, mtu: u32, is_v6: bool) -> Complaint {
        let address = |octets: [u8; 16]| {
            if is_v6 {
                IpAddr::from(octets)
            } else {
                IpAddr::from(*octets.first_chunk::<4>().expect("four of sixteen"))
            }
        };
        let (source, destination) = (address(self.source), address(self.destination));
        Complaint { mtu, source, destination, port: self.port, vni: self.vni }
    }
}

fn quote() -> impl Strategy<Value = Quote> {
    (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u16>(), 1..=Vni::MAX, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(source, destination, port, vni, payload)| Quote { source, destination, port, vni, payload })
}

fn example() -> Quote {
    Quote { source: [1; 16], destination: [2; 16], port: 4789, vni: 16, payload: Vec::new() }
}

/// As a raw socket hands it over: behind the IP header of the router, with `options` octets of options.
fn icmp_v4(header: IcmpHeader, quote: &[u8], options: usize) -> Vec<u8> {
    let router = Ipv4Header::template(Protocol(1), 64, Ipv4Octets([10, 0, 0, 1]), Ipv4Octets([10, 0, 0, 2]));
    let mut ip = [bytemuck::bytes_of(&router), &[1; 40][..options]].concat();
    ip[0] = 0x45 + u8::try_from(options / 4).expect("few");
    [ip, summed([bytemuck::bytes_of(&header), quote].concat())].concat()
}

fn summed(mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let checksum = !icmp::sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn icmp_v6(header: IcmpHeader, quote: &[u8]) -> Vec<u8> {
    [bytemuck::bytes_of(&header), quote].concat()
}

proptest! {
    #[test]
    fn what_is_quoted_is_read(quote in quote(), mtu in 1..=u16::MAX, options in 0..=10_usize) {
        let packet = icmp_v4(IcmpHeader::fragmentation_needed(mtu), &quote.v4(), options * 4);
        prop_assert_eq!(complaint_v4(&packet), Ok(quote.says(mtu.into(), false)));
        let message = icmp_v6(IcmpHeader::packet_too_big(mtu), &quote.v6());
        prop_assert_eq!(complaint_v6(&message), Ok(quote.says(mtu.into(), true)));
    }

    /// No length of a quote shows something else than the whole would: it is read or refused.
    #[test]
    fn a_short_quote_is_refused(quote in quote(), mtu in 1..=u16::MAX, length in 0..200_usize) {
        let (v4, v6) = (quote.v4(), quote.v6());
        let packet = icmp_v4(IcmpHeader::fragmentation_needed(mtu), &v4[..length.min(v4.len())], 0);
        let expected = if length < 36 { Err(Refusal::ShortQuote) } else { Ok(quote.says(mtu.into(), false)) };
        prop_assert_eq!(complaint_v4(&packet), expected);
        let message = icmp_v6(IcmpHeader::packet_too_big(mtu), &v6[..length.min(v6.len())]);
        let expected = if length < 56 { Err(Refusal::ShortQuote) } else { Ok(quote.says(mtu.into(), true)) };
        prop_assert_eq!(complaint_v6(&message), expected);
    }

    #[test]
    fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _: Result<Complaint, Refusal> = complaint_v4(&octets);
        let _: Result<Complaint, Refusal> = complaint_v6(&octets);
    }

    /// Octets of a good one changed, checksum made right again: what comes out differs from what went in, or is the same.
    #[test]
    fn mutated_ones_are_read_or_refused(
        quote in quote(), mtu: u16, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut message = icmp_v4(IcmpHeader::fragmentation_needed(mtu), &quote.v4(), 0).split_off(Ipv4Header::LEN);
        for (place, value) in edits {
            let place = place.index(message.len());
            message[place] = value;
        }
        let router = [0x45; Ipv4Header::LEN];
        if let Ok(complaint) = complaint_v4(&[&router[..], &summed(message.clone())].concat()) {
            prop_assert_eq!(complaint.mtu, u32::from(u16::from_be_bytes([message[6], message[7]])));
            prop_assert!(complaint.mtu > 0);
        }
        let _: Result<Complaint, Refusal> = complaint_v6(&message);
    }

    /// A message with a bit turned over is damaged: the checksum says so, unless it was the type that turned.
    #[test]
    fn a_wrong_checksum_is_refused(quote in quote(), mtu in 1..=u16::MAX, place: prop::sample::Index, bit in 0..8_u32) {
        let mut packet = icmp_v4(IcmpHeader::fragmentation_needed(mtu), &quote.v4(), 0);
        let place = Ipv4Header::LEN + place.index(packet.len() - Ipv4Header::LEN);
        packet[place] ^= 1 << bit;
        let found = complaint_v4(&packet);
        prop_assert!(matches!(found, Err(Refusal::Damaged | Refusal::OtherMatter)), "{found:?}");
    }

    /// Whoever says what: a path is never believed to take less than the least, more than its link, or anything for longer
    /// than ten minutes, and what is believed changes once a second at most.
    #[test]
    fn belief_is_bounded(said in prop::collection::vec((any::<u32>(), 0..3 * SECOND), 1..100), link in 1400..9000_u32) {
        let (mut now, mut limit, mut changed) = (SECOND, None, None::<u64>);
        for (mtu, pause) in said {
            now += pause;
            // Half of them in the range in which they matter.
            let mtu = if mtu % 2 == 0 { 1200 + mtu % 8000 } else { mtu };
            if let Ok(next) = believe(mtu, link, limit, OVERHEAD, now) {
                prop_assert!(next.mtu == mtu && mtu >= LEAST_INNER + OVERHEAD && mtu < link);
                prop_assert!(limit.is_none_or(|limit: Limit| next.mtu < limit.mtu || !limit.holds(now)));
                prop_assert!(changed.is_none_or(|changed| now - changed >= PAUSE_NS));
                prop_assert!(next.holds(now) && next.holds(now + LIFETIME_NS - 1) && !next.holds(now + LIFETIME_NS));
                (limit, changed) = (Some(next), Some(now));
            }
        }
    }
}

#[test]
fn what_is_not_about_us() {
    let quote = example();
    let (v4, v6) = (quote.v4(), quote.v6());
    let needed = IcmpHeader::fragmentation_needed(1400);
    let too_big = IcmpHeader::packet_too_big(1400);
    let of = |(kind, code), mut header: IcmpHeader| {
        (header.kind, header.code) = (kind, code);
        header
    };
    let changed = |octets: &[u8], changes: &[(usize, u8)]| {
        let mut octets = octets.to_vec();
        for &(at, value) in changes {
            octets[at] = value;
        }
        octets
    };
    for (name, header, quote, expected) in [
        ("port unreachable", of((3, 3), needed), v4.clone(), Refusal::OtherMatter),
        ("time exceeded", of((11, 4), needed), v4.clone(), Refusal::OtherMatter),
        ("no MTU", IcmpHeader::fragmentation_needed(0), v4.clone(), Refusal::NoMtu),
        ("TCP", needed, changed(&v4, &[(9, 6)]), Refusal::NotUdp),
        ("IPv6 in ICMP", needed, v6.clone(), Refusal::NotUdp),
        ("header of 16", needed, changed(&v4, &[(0, 0x44)]), Refusal::NotUdp),
        ("late fragment", needed, changed(&v4, &[(7, 1)]), Refusal::NotUdp),
        ("no I flag", needed, changed(&v4, &[(28, 0)]), Refusal::NotVxlan),
    ] {
        assert_eq!(complaint_v4(&icmp_v4(header, &quote, 0)), Err(expected), "{name}");
    }
    for (name, header, quote, expected) in [
        ("unreachable", of((1, 0), too_big), v6.clone(), Refusal::OtherMatter),
        ("code 1", of((2, 1), too_big), v6.clone(), Refusal::OtherMatter),
        ("no MTU", IcmpHeader::packet_too_big(0), v6.clone(), Refusal::NoMtu),
        ("IPv4 in ICMPv6", too_big, [&v4[..], &[0; 40]].concat(), Refusal::NotUdp),
        ("fragment header", too_big, changed(&v6, &[(6, 44)]), Refusal::NotUdp),
        ("no I flag", too_big, changed(&v6, &[(48, 0)]), Refusal::NotVxlan),
    ] {
        assert_eq!(complaint_v6(&icmp_v6(header, &quote)), Err(expected), "{name}");
    }
    // The first of several fragments has the headers.
    let first = changed(&v4, &[(6, 0x20)]);
    assert_eq!(complaint_v4(&icmp_v4(needed, &first, 0)), Ok(quote.says(1400, false)));
}

#[test]
fn belief() {
    let limit = |mtu, since: u64| Limit { mtu, until_ns: since + LIFETIME_NS };
    let now = 1000 * SECOND;
    for (said, before, expected) in [
        (1400, None, Ok(limit(1400, now))),
        (1500, None, Err(Refusal::NothingNew)),
        (9000, None, Err(Refusal::NothingNew)),
        (1330, None, Ok(limit(1330, now))),
        (1329, None, Err(Refusal::TooSmall)),
        (1, None, Err(Refusal::TooSmall)),
        (1400, Some(limit(1400, now - 5 * SECOND)), Err(Refusal::NothingNew)),
        (1450, Some(limit(1400, now - 5 * SECOND)), Err(Refusal::NothingNew)),
        (1380, Some(limit(1400, now - 5 * SECOND)), Ok(limit(1380, now))),
        (1380, Some(limit(1400, now - SECOND + 1)), Err(Refusal::TooSoon)),
        (1380, Some(limit(1400, now - SECOND)), Ok(limit(1380, now))),
        // Forgotten: everything is new.
        (1400, Some(limit(1400, now - LIFETIME_NS)), Ok(limit(1400, now))),
        (1450, Some(limit(1400, now - LIFETIME_NS)), Ok(limit(1450, now))),
        // The link has become smaller than what was learned.
        (1480, Some(limit(1600, now - 5 * SECOND)), Ok(limit(1480, now))),
        (1550, Some(limit(1600, now - 5 * SECOND)), Err(Refusal::NothingNew)),
    ] {
        assert_eq!(believe(said, 1500, before, OVERHEAD, now), expected, "{said} after {before:?}");
    }
}
