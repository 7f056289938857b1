use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{EtherType, Ipv4Octets, Ipv6Octets, MacAddr};

fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8) -> Ipv4Header {
    Ipv4Header::template(Protocol(protocol), 64, Ipv4Octets(source), Ipv4Octets(destination)).sized(1500)
}

fn v6(source: &str, destination: &str, next: u8) -> Ipv6Header {
    let address = |text: &str| Ipv6Octets::from(text.parse::<core::net::Ipv6Addr>().expect("an address"));
    Ipv6Header::template(Protocol(next), 64, address(source), address(destination))
}

/// The same with other flags and offset in the fragment field.
fn fragment(ip: Ipv4Header, field: u16) -> Ipv4Header {
    let mut octets: [u8; 20] = bytemuck::cast(ip);
    octets[6..8].copy_from_slice(&field.to_be_bytes());
    bytemuck::cast(octets)
}

const OVERSIZE: Oversize = Oversize { octets: 1451, mtu: 1450, behind: None, to_group: false, can_fragment: true };

#[test]
fn remedies_for_ipv4() {
    use Remedy::{Drop, Fragment, Tell};
    const HOST: [u8; 4] = [10, 8, 0, 1];
    const PEER: [u8; 4] = [10, 8, 0, 2];
    let ping = Some([8, 0, 0, 0]);
    let udp = v4(HOST, PEER, 17);
    for (name, ip, behind, octets, mtu, to_group, expected) in [
        ("UDP", udp, None, 1451, 1450, false, Tell(1450)),
        ("ping", v4(HOST, PEER, 1), ping, 1451, 1450, false, Tell(1450)),
        ("an error", v4(HOST, PEER, 1), Some([3, 4, 0, 0]), 1451, 1450, false, Drop),
        ("ICMP of no type", v4(HOST, PEER, 1), None, 1451, 1450, false, Drop),
        ("UDP that looks like an error", udp, Some([3, 4, 0, 0]), 1451, 1450, false, Tell(1450)),
        ("may be fragmented", fragment(udp, 0), None, 1451, 1450, false, Fragment),
        ("may be fragmented, to a group", fragment(udp, 0), None, 1451, 1450, true, Fragment),
        ("first fragment", fragment(udp, 0x2000), None, 1451, 1450, false, Fragment),
        ("first fragment, DF", fragment(udp, 0x6000), None, 1451, 1450, false, Tell(1450)),
        ("late fragment, DF", fragment(udp, 0x4001), None, 1451, 1450, false, Drop),
        ("group MAC", udp, None, 1451, 1450, true, Drop),
        ("less than everybody takes", udp, None, 576, 500, false, Fragment),
        ("more than everybody takes", udp, None, 577, 500, false, Tell(576)),
        ("a jumbo", udp, None, 66_000, 65_535, false, Tell(65_535)),
        ("from nowhere", v4([0; 4], PEER, 17), None, 1451, 1450, false, Drop),
        ("from this host", v4([127, 0, 0, 1], PEER, 17), None, 1451, 1450, false, Drop),
        ("from a group", v4([224, 0, 0, 5], PEER, 17), None, 1451, 1450, false, Drop),
        ("from all", v4([255; 4], PEER, 17), None, 1451, 1450, false, Drop),
        ("from 255.1.1.1", v4([255, 1, 1, 1], PEER, 17), None, 1451, 1450, false, Tell(1450)),
        ("to a group", v4(HOST, [239, 1, 1, 1], 17), None, 1451, 1450, false, Drop),
        ("to all", v4(HOST, [255; 4], 17), None, 1451, 1450, false, Drop),
    ] {
        let oversize = Oversize { octets, mtu, behind, to_group, can_fragment: true };
        assert_eq!(remedy_v4(&ip, &oversize), expected, "{name}");
        // Without fragments: told as if DF were set, unless that is no use.
        let otherwise = match expected {
            Fragment if octets <= LEAST_V4 || to_group => Drop,
            Fragment => Tell(u16::try_from(mtu).expect("an MTU")),
            other => other,
        };
        assert_eq!(remedy_v4(&ip, &Oversize { can_fragment: false, ..oversize }), otherwise, "{name}");
    }
    for first in [0x35, 0x44, 0x40, 0x65] {
        let mut octets: [u8; 20] = bytemuck::cast(fragment(udp, 0));
        octets[0] = first;
        assert_eq!(remedy_v4(&bytemuck::cast(octets), &OVERSIZE), Drop, "{first:#x}");
    }
}

#[test]
fn remedies_for_ipv6() {
    use Remedy::{Drop, Fragment, Tell};
    let udp = v6("fd00::1", "fd00::2", 17);
    let icmp = v6("fd00::1", "fd00::2", 58);
    let fragment = v6("fd00::1", "fd00::2", 44);
    for (name, ip, behind, octets, mtu, to_group, expected) in [
        ("UDP", udp, None, 1451, 1450, false, Tell(1450)),
        ("ping", icmp, Some([128, 0, 0, 0]), 1451, 1450, false, Tell(1450)),
        ("an error", icmp, Some([2, 0, 0, 0]), 1451, 1450, false, Drop),
        ("redirect", icmp, Some([137, 0, 0, 0]), 1451, 1450, false, Drop),
        ("ICMPv6 of no type", icmp, None, 1451, 1450, false, Drop),
        ("first fragment", fragment, Some([17, 0, 0, 1]), 1451, 1450, false, Tell(1450)),
        ("late fragment", fragment, Some([17, 0, 0, 8]), 1451, 1450, false, Drop),
        ("late fragment", fragment, Some([17, 0, 0xff, 0]), 1451, 1450, false, Drop),
        ("group MAC", udp, None, 1451, 1450, true, Drop),
        ("what every link takes", udp, None, 1280, 1200, false, Fragment),
        ("more than every link takes", udp, None, 1281, 1200, false, Tell(1280)),
        ("from nowhere", v6("::", "fd00::2", 17), None, 1451, 1450, false, Drop),
        ("from this host", v6("::1", "fd00::2", 17), None, 1451, 1450, false, Drop),
        ("from ::2", v6("::2", "fd00::2", 17), None, 1451, 1450, false, Tell(1450)),
        ("from a link", v6("fe80::1", "fd00::2", 17), None, 1451, 1450, false, Tell(1450)),
        ("from a group", v6("ff02::1", "fd00::2", 17), None, 1451, 1450, false, Drop),
        ("to a group", v6("fd00::1", "ff02::1", 17), None, 1451, 1450, false, Drop),
    ] {
        let oversize = Oversize { octets, mtu, behind, to_group, can_fragment: true };
        assert_eq!(remedy_v6(&ip, &oversize), expected, "{name}");
        let otherwise = if expected == Fragment { Drop } else { expected };
        assert_eq!(remedy_v6(&ip, &Oversize { can_fragment: false, ..oversize }), otherwise, "{name}");
    }
    let mut octets: [u8; 40] = bytemuck::cast(udp);
    octets[0] = 0x40;
    assert_eq!(remedy_v6(&bytemuck::cast(octets), &OVERSIZE), Drop);
}

#[test]
fn extension_headers() {
    for (kind, length, expected) in [
        (0, 0, Some(8)),
        (60, 3, Some(32)),
        (44, 9, Some(8)),
        (51, 4, Some(24)),
        (6, 0, None),
        (17, 1, None),
        (50, 0, None),
    ] {
        assert_eq!(extension_len(Protocol(kind), length), expected, "{kind}");
    }
}

/// RFC 1071, octet by octet.
fn sum(octets: &[u8]) -> u16 {
    icmp::sum(octets)
}

proptest! {
    /// Every octet before the quote, against the layout written out by hand.
    #[test]
    fn answer_to_ipv4(macs: [[u8; 6]; 2], addresses: [[u8; 4]; 2], mtu: u16, quote in prop::collection::vec(any::<u8>(), TooBigV4::QUOTED)) {
        let ethernet = EthernetHeader::new(MacAddr(macs[0]), MacAddr(macs[1]), EtherType::IPV4);
        let answer = TooBigV4::new(&ethernet, &v4(addresses[0], addresses[1], 6), mtu, sum(&quote));
        let octets = bytemuck::bytes_of(&answer);
        let expected: Vec<u8> = [
            &macs[1][..], &macs[0], &[8, 0], &[0x45, 0, 2, 0x40, 0, 0, 0x40, 0, 64, 1], &octets[24..26],
            &addresses[1], &addresses[0], &[3, 4], &octets[36..38], &[0, 0], &mtu.to_be_bytes(),
        ].concat();
        prop_assert_eq!(octets, &expected[..]);
        prop_assert_eq!(sum(&octets[14..34]), 0xffff);
        prop_assert_eq!(sum(&[&octets[34..], &quote].concat()), 0xffff);
        prop_assert_eq!(octets.len() - 14 + quote.len(), 576);
    }

    #[test]
    fn answer_to_ipv6(macs: [[u8; 6]; 2], addresses: [[u8; 16]; 2], mtu: u16, quote in prop::collection::vec(any::<u8>(), TooBigV6::QUOTED)) {
        let ethernet = EthernetHeader::new(MacAddr(macs[0]), MacAddr(macs[1]), EtherType::IPV6);
        let [source, destination] = addresses.map(|octets| Ipv6Octets::from(core::net::Ipv6Addr::from(octets)));
        let ip = Ipv6Header::template(Protocol::TCP, 64, source, destination);
        let answer = TooBigV6::new(&ethernet, &ip, mtu, sum(&quote));
        let octets = bytemuck::bytes_of(&answer);
        let expected: Vec<u8> = [
            &macs[1][..], &macs[0], &[0x86, 0xdd], &[0x60, 0, 0, 0, 4, 0xd8, 58, 64],
            &addresses[1], &addresses[0], &[2, 0], &octets[56..58], &[0, 0], &mtu.to_be_bytes(),
        ].concat();
        prop_assert_eq!(octets, &expected[..]);
        let pseudo_header = [&addresses[1][..], &addresses[0], &[0, 0, 4, 0xd8, 0, 0, 0, 58]].concat();
        prop_assert_eq!(sum(&[&pseudo_header, &octets[54..], &quote].concat()), 0xffff);
        prop_assert_eq!(octets.len() - 14 + quote.len(), 1280);
    }

    /// What the kernel's helper adds up word by word comes out as RFC 1071 has it.
    #[test]
    fn sums_of_the_kernel(octets in prop::collection::vec(any::<[u8; 4]>(), 1..300)) {
        let kernel = octets.iter().fold(0_u32, |sum, word| {
            let (sum, carry) = sum.overflowing_add(u32::from_ne_bytes(*word));
            sum + u32::from(carry)
        });
        prop_assert_eq!(fold_memory(kernel), sum(&octets.concat()));
    }

    /// However fast it asks: in any time no more answers than the time gives, and what is there at once.
    #[test]
    fn answers_are_limited(pauses in prop::collection::vec(0..300_000_000_u64, 1..400)) {
        let (mut now, mut full_at, mut answered) = (1_000_000_000_u64, 0, 0);
        let start = now;
        for pause in pauses {
            now += pause;
            if let Some(next) = after_answer(full_at, now) {
                full_at = next;
                answered += 1;
            }
            prop_assert!(answered <= 16 + (now - start) / 100_000_000, "{answered}");
        }
    }

    #[test]
    fn buckets_are_in_range(four: [u8; 20], six: [u8; 40]) {
        prop_assert!(bucket_v4(&bytemuck::cast(four)) < BUCKETS);
        prop_assert!(bucket_v6(&bytemuck::cast(six)) < BUCKETS);
    }

    #[test]
    fn any_header_has_a_remedy(
        four: [u8; 20], six: [u8; 40], behind: Option<[u8; 4]>, octets: u32, mtu: u32, to_group: bool, can_fragment: bool,
    ) {
        let oversize = Oversize { octets, mtu, behind, to_group, can_fragment };
        for (remedy, least) in [
            (remedy_v4(&bytemuck::cast(four), &oversize), LEAST_V4),
            (remedy_v6(&bytemuck::cast(six), &oversize), LEAST_V6),
        ] {
            prop_assert!(can_fragment || remedy != Remedy::Fragment);
            if let Remedy::Tell(told) = remedy {
                prop_assert!(u32::from(told) >= least && !to_group && octets > least);
            }
        }
    }
}
