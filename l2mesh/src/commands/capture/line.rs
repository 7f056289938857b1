//! A frame as a line for people.

use std::net::{Ipv4Addr, Ipv6Addr};

use l2mesh_common::wire::{MacAddr, VxlanHeader};

use super::{super::maps::vni_text, frame::Recorded};

const ETHERNET: usize = 14;
const UDP: usize = 8;

/// Time (UTC), point, verdict, peer, VNI, MAC addresses, type, length.
pub(super) fn line(recorded: &Recorded, peer: Option<&str>, origin: Option<&str>, port: u16) -> String {
    let Recorded { seen, vni, len, segment, octets, .. } = recorded;
    let peers = match (origin, peer) {
        (Some(origin), Some(peer)) => format!("{origin} > {peer}"),
        (_, peer) => peer.unwrap_or("-").to_owned(),
    };
    let vni = if *vni == 0 { "-".to_owned() } else { vni_text(*vni) };
    let segment = if *segment == 0 { String::new() } else { format!(", segments of {segment}") };
    format!(
        "{} {:<5} {:<12} {peers:<12} {vni:<14} {}, {len} octets{segment}",
        time(recorded.time_ns),
        seen.point.name(),
        seen.verdict.label(),
        frame(octets, port).unwrap_or_else(|| "cut off".to_owned()),
    )
}

fn time(ns: u64) -> String {
    let (seconds, micros) = (ns / 1_000_000_000, ns / 1000 % 1_000_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// MAC addresses and what is in it; of an encapsulated frame those inside, which tell more.
fn frame(octets: &[u8], port: u16) -> Option<String> {
    if let Some((outer, inner)) = encapsulated(octets, port) {
        return Some(format!("{outer} VXLAN, {}", frame(inner, 0).unwrap_or_else(|| "cut off".to_owned())));
    }
    let mac = |at: usize| -> Option<MacAddr> { Some(MacAddr(octets.get(at..at + 6)?.try_into().ok()?)) };
    let (to, from) = (mac(0)?, mac(6)?);
    let (mut kind, mut at) = (number(octets, 12)?, ETHERNET);
    let mut tags = String::new();
    while matches!(kind, 0x8100 | 0x88a8) {
        tags += &format!("VLAN {} ", number(octets, at)? & 0xfff);
        kind = number(octets, at + 2)?;
        at += 4;
    }
    Some(format!("{from} > {to} {tags}{}", packet(kind, octets.get(at..).unwrap_or_default())))
}

fn number(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn packet(kind: u16, octets: &[u8]) -> String {
    let text = match kind {
        0x0800 => v4(octets),
        0x86dd => v6(octets),
        0x0806 => arp(octets),
        _ => None,
    };
    text.unwrap_or_else(|| match kind {
        0x0800 => "IPv4".to_owned(),
        0x86dd => "IPv6".to_owned(),
        0x0806 => "ARP".to_owned(),
        0x8035 => "RARP".to_owned(),
        0x88cc => "LLDP".to_owned(),
        0..0x600 => "802.3".to_owned(),
        _ => format!("type {kind:#06x}"),
    })
}

fn arp(octets: &[u8]) -> Option<String> {
    let (sender, target) = (address4(octets, 14)?, address4(octets, 24)?);
    match number(octets, 6)? {
        1 => Some(format!("ARP who has {target}? tell {sender}")),
        2 => Some(format!("ARP {sender} is here, to {target}")),
        _ => None,
    }
}

fn address4(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets.get(at..at + 4)?).ok()?))
}

fn address6(octets: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets.get(at..at + 16)?).ok()?))
}

fn v4(octets: &[u8]) -> Option<String> {
    let (from, to) = (address4(octets, 12)?, address4(octets, 16)?);
    let header = usize::from(octets[0] & 15) * 4;
    let is_late = number(octets, 6)? & 0x1fff != 0;
    let ports = if is_late { None } else { ports(octets[9], octets, header) };
    Some(format!("IPv4 {} {}", transport(octets[9]), between(&from.to_string(), &to.to_string(), ports)))
}

fn v6(octets: &[u8]) -> Option<String> {
    let (from, to) = (address6(octets, 8)?, address6(octets, 24)?);
    let ports = ports(octets[6], octets, 40);
    let [from, to] = [from, to].map(|it| if ports.is_some() { format!("[{it}]") } else { it.to_string() });
    Some(format!("IPv6 {} {}", transport(octets[6]), between(&from, &to, ports)))
}

fn transport(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".to_owned(),
        2 => "IGMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        112 => "VRRP".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn ports(protocol: u8, octets: &[u8], at: usize) -> Option<(u16, u16)> {
    matches!(protocol, 6 | 17).then_some(())?;
    Some((number(octets, at)?, number(octets, at + 2)?))
}

fn between(from: &str, to: &str, ports: Option<(u16, u16)>) -> String {
    match ports {
        Some((source, destination)) => format!("{from}:{source} > {to}:{destination}"),
        None => format!("{from} > {to}"),
    }
}

/// The outer addresses and the inner frame of VXLAN to this port; 0: of none.
fn encapsulated(octets: &[u8], port: u16) -> Option<(String, &[u8])> {
    let (udp, protocol, text) = match number(octets, 12)? {
        0x0800 => {
            let text = format!("{} > {}", address4(octets, 26)?, address4(octets, 30)?);
            (ETHERNET + usize::from(*octets.get(14)? & 15) * 4, *octets.get(23)?, text)
        }
        0x86dd => {
            let text = format!("{} > {}", address6(octets, 22)?, address6(octets, 38)?);
            (ETHERNET + 40, *octets.get(20)?, text)
        }
        _ => return None,
    };
    if port == 0 || protocol != 17 || number(octets, udp + 2)? != port {
        return None;
    }
    Some((text, octets.get(udp + UDP + VxlanHeader::LEN..)?))
}

#[cfg(test)]
mod tests {
    use l2mesh_common::{
        tables::{ANYBODY, Point, Seen},
        verdict::Verdict,
    };

    use super::*;

    const MACS: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1];

    fn udp4() -> Vec<u8> {
        let mut octets = [&MACS[..], &[8, 0, 0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
        octets.extend([10, 8, 0, 1, 10, 8, 0, 2, 0xc3, 0x50, 0x12, 0xb5, 0, 40, 0, 0]);
        octets
    }

    #[test]
    fn frames() {
        let inner = [&MACS[..], &[0x81, 0, 0, 5, 8, 6], &[0, 1, 8, 0, 6, 4, 0, 1], &[2, 0, 0, 0, 0, 1, 10, 8, 0, 1]];
        let inner = [&inner.concat()[..], &[0, 0, 0, 0, 0, 0, 10, 8, 0, 2]].concat();
        let arp = "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff VLAN 5 ARP who has 10.8.0.2? tell 10.8.0.1";
        let udp = "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff IPv4 UDP 10.8.0.1:50000 > 10.8.0.2:4789";
        for (octets, port, expected) in [
            (inner.clone(), 4789, arp.to_owned()),
            (udp4(), 8472, udp.to_owned()),
            (
                [udp4(), vec![8, 0, 0, 0, 0, 0, 16, 0], inner].concat(),
                4789,
                format!("10.8.0.1 > 10.8.0.2 VXLAN, {arp}"),
            ),
            ([&MACS[..], &[0x88, 0xcc]].concat(), 4789, "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff LLDP".to_owned()),
        ] {
            assert_eq!(frame(&octets, port).as_deref(), Some(&*expected));
            // Whatever is cut off is no reason to panic.
            for length in 0..octets.len() {
                let _any = frame(&octets[..length], port);
            }
        }
    }

    #[test]
    fn lines() {
        let recorded = Recorded {
            time_ns: (3600 + 62) * 1_000_000_000 + 1_234_999,
            seen: Seen { point: Point::Relay, verdict: Verdict::Relayed, outer: 0 },
            vni: 16,
            peer: 1,
            origin: ANYBODY,
            segment: 0,
            len: 60,
            octets: [&MACS[..], &[0x88, 0xcc]].concat(),
        };
        let expected = "01:01:02.001234 relay relayed      a > b        16 (0x10)      02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff LLDP, 60 octets";
        assert_eq!(line(&recorded, Some("b"), Some("a"), 4789), expected);
        let text = line(&Recorded { vni: 0, segment: 1398, octets: Vec::new(), ..recorded }, None, None, 4789);
        assert_eq!(
            text,
            "01:01:02.001234 relay relayed      -            -              cut off, 60 octets, segments of 1398"
        );
    }
}
