//! A vxlan device, as the kernel has it or as netplan asks for it, and what of it a mesh can say.

use std::net::IpAddr;

use l2mesh_common::wire::MacAddr;

use crate::{
    config::{Cidr, Tos},
    underlay::{fdb::FdbOrigin, vxlan::Vxlan},
};

/// What l2mesh sends with.
const TTL: u8 = 64;
/// The ECN bits of the TOS octet (RFC 3168 section 5).
const TOS_ECN: u8 = 0b11;
/// `tos inherit`, as the kernel writes it.
const TOS_INHERIT: u8 = 1;

/// A device and what is around it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Device {
    pub name: String,
    pub vxlan: Vxlan,
    /// This host's address in the underlay: `local`, else as routed.
    pub source: Option<IpAddr>,
    pub entries: Vec<Entry>,
    pub mtu: Option<u32>,
    /// The interface below, where it is known.
    pub underlay: Option<String>,
    pub underlay_mtu: Option<u32>,
    /// The interface below has no Ethernet header, as wg0.
    pub mode_kernel: bool,
    /// The bridge of which it is a port.
    pub bridge: Option<String>,
    /// It carries 01:80:c2:00:00:0x, and somebody uses that.
    pub link_local: bool,
    pub neighbour_suppression: bool,
    pub addresses: Vec<Cidr>,
    /// What was found and is not as it was in the mesh.
    pub notes: Vec<String>,
    /// Why it cannot be a network of a mesh, if the settings do not say it already.
    pub problem: Option<String>,
}

/// A forwarding entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub mac: MacAddr,
    pub destination: Option<IpAddr>,
    pub port: Option<u16>,
    pub vni: Option<u32>,
    /// The interface to send on, where it is not the device's.
    pub via: Option<String>,
    pub origin: FdbOrigin,
}

impl Entry {
    /// Everything without an entry of its own goes there too.
    pub(super) const fn flood(destination: IpAddr) -> Self {
        Self {
            mac: MacAddr::ZERO,
            destination: Some(destination),
            port: None,
            vni: None,
            via: None,
            origin: FdbOrigin::Static,
        }
    }
}

/// Where the frames of a device go, in the words of a mesh.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Forwarding {
    /// Every remote once, those flooded to first.
    pub members: Vec<IpAddr>,
    pub macs: Vec<(MacAddr, IpAddr)>,
    pub notes: Vec<String>,
}

impl Device {
    /// Why it cannot be a network of a mesh: a sentence that begins with its name.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { name, vxlan, .. } = self;
        let told = |problem: &str| Some(format!("{name} {problem}"));
        if vxlan.external {
            return told(
                "is `external`: routes, tc or a bridge's VLAN tunnels pick VNI and remote of each frame, which no \
                 configuration of l2mesh says",
            );
        }
        if vxlan.generic_protocol {
            return told("uses the generic protocol extension (gpe): l2mesh carries Ethernet frames as RFC 7348 says");
        }
        if vxlan.vni == 0 {
            return told("has VNI 0: l2mesh has 1 to 16777215");
        }
        if let Some(problem) = &self.problem {
            return told(problem);
        }
        if self.forwarding().members.is_empty() {
            return match vxlan.remote.filter(IpAddr::is_multicast) {
                Some(group) => told(&format!(
                    "floods to the multicast group {group} and nobody has been heard yet: l2mesh sends unicast, so name \
                     the other hosts with --peer"
                )),
                None => told("has no remote: name the other hosts with --peer, or add them by `bridge fdb append`"),
            };
        }
        if self.source.is_none() {
            return told("has no `local`, and no route to its remotes tells it: name this host's address with --local");
        }
        None
    }

    /// Floods to `--peer` too, those of its address family.
    pub(super) fn add_peers(&mut self, peers: &[IpAddr]) {
        let Self { vxlan: Vxlan { local, remote, .. }, entries, .. } = self;
        let known = local.or(*remote).or(entries.iter().find_map(|entry| entry.destination));
        let fits = |peer: &&IpAddr| known.is_none_or(|known| known.is_ipv4() == peer.is_ipv4());
        entries.extend(peers.iter().filter(fits).copied().map(Entry::flood));
    }

    /// What becomes of the forwarding entries.
    pub(super) fn forwarding(&self) -> Forwarding {
        let mut found = Forwarding::default();
        let (mut flooded, mut others) = (Vec::new(), Vec::new());
        let (mut by_daemon, mut groups, mut next_hops) = (0, 0, 0);
        for entry in &self.entries {
            let Some(destination) = entry.destination else {
                next_hops += 1;
                continue;
            };
            if destination.is_multicast() || destination.is_unspecified() {
                continue;
            }
            if let Some(reason) = self.elsewhere(entry) {
                found.notes.push(format!("{} at {destination}: left out: {reason}.", what(entry.mac)));
                continue;
            }
            if Some(destination) == self.source {
                found.notes.push(format!("{} at {destination}: left out: that is this host.", what(entry.mac)));
                continue;
            }
            if let Some(via) = &entry.via {
                let text = format!("{} at {destination} via {via}: l2mesh follows the routes.", what(entry.mac));
                found.notes.push(text);
            }
            let list = if entry.mac == MacAddr::ZERO { &mut flooded } else { &mut others };
            if !list.contains(&destination) {
                list.push(destination);
            }
            match entry.origin {
                FdbOrigin::Static if entry.mac == MacAddr::ZERO => {}
                FdbOrigin::Static if entry.mac.is_group() => groups += 1,
                FdbOrigin::Static => found.macs.push((entry.mac, destination)),
                FdbOrigin::Learned => {}
                FdbOrigin::Daemon => by_daemon += 1,
            }
        }
        others.retain(|other| !flooded.contains(other));
        if !others.is_empty() && !flooded.is_empty() {
            let list = list(&others);
            found.notes.push(format!(
                "{list}: frames came from there or have an entry, but it is not flooded to: l2mesh takes frames from \
                 members only, and floods to all of them."
            ));
        }
        let counted = [
            (next_hops, "with a group of next hops (nhid): left out: l2mesh has one way to each node"),
            (groups, "for multicast addresses: left out: l2mesh floods multicast"),
            (by_daemon, "from a routing daemon (extern_learn): left out: l2mesh learns from frames"),
        ];
        for (count, text) in counted.into_iter().filter(|(count, _)| *count > 0) {
            let entries = if count == 1 { "entry" } else { "entries" };
            found.notes.push(format!("{count} forwarding {entries} {text}."));
        }
        found.members = [flooded, others].concat();
        found
    }

    /// What is different about an entry that no node of a mesh can have of its own.
    fn elsewhere(&self, entry: &Entry) -> Option<String> {
        if let Some(port) = entry.port.filter(|&port| port != self.vxlan.port) {
            return Some(format!("it listens on UDP port {port}, and a mesh has one port"));
        }
        let vni = entry.vni.filter(|&vni| vni != self.vxlan.vni)?;
        Some(format!("it has VNI {vni}, and a network has one VNI"))
    }

    /// What the settings ask for that l2mesh does otherwise.
    pub(super) fn settings(&self) -> Vec<String> {
        let vxlan = &self.vxlan;
        let mut notes = Vec::new();
        let mut note = |applies: bool, text: &str| {
            if applies {
                notes.push(text.to_owned());
            }
        };
        if let Some(group) = vxlan.remote.filter(IpAddr::is_multicast) {
            let text = format!(
                "group {group}: l2mesh sends unicast. The members are those of which something was heard, and --peer: add \
                 the others."
            );
            note(true, &text);
        }
        note(vxlan.ttl_inherit, "ttl inherit: l2mesh sends with 64.");
        let text = format!("ttl {}: l2mesh sends with {TTL}.", vxlan.ttl);
        note(!vxlan.ttl_inherit && ![0, TTL].contains(&vxlan.ttl), &text);
        let text = format!("tos {:#x}: its last two bits are ECN, which follows RFC 6040 in l2mesh.", vxlan.tos);
        note(vxlan.tos != TOS_INHERIT && vxlan.tos & TOS_ECN != 0, &text);
        let (first, last) = vxlan.source_ports;
        note(last != 0, &format!("srcport {first} {last}: l2mesh sends from 49152 to 65535."));
        note(vxlan.flow_label != 0, &format!("flowlabel {:#x}: l2mesh sends with none.", vxlan.flow_label));
        note(
            !vxlan.learning,
            "nolearning: l2mesh learns from received frames where a MAC address is; static entries are never learned over.",
        );
        note(vxlan.ageing == 0, "ageing 0: l2mesh forgets what was not heard for fdb-age, 30 days at most.");
        let text = format!("maxaddress {}: [underlay] fdb-size limits all networks together.", vxlan.limit);
        note(vxlan.limit != 0, &text);
        note(
            vxlan.proxy,
            "proxy: neighbour-suppression answers from what the mesh has learned, not from the device's neighbour table.",
        );
        note(vxlan.short_circuit, "rsc: l2mesh routes nothing.");
        note(vxlan.l2_miss || vxlan.l3_miss, "l2miss, l3miss: l2mesh asks nobody for an unknown address: it floods.");
        note(vxlan.remote_checksum, "remcsum: l2mesh does not know it: switch it off on the others.");
        note(vxlan.group_policy, "gbp: l2mesh carries no group policy: switch it off on the others.");
        notes
    }

    /// The `tos` key.
    pub(super) const fn tos(&self) -> Option<Tos> {
        match self.vxlan.tos {
            0 => None,
            TOS_INHERIT => Some(Tos::Inherit),
            tos => match tos & !TOS_ECN {
                0 => None,
                tos => Some(Tos::Fixed(tos)),
            },
        }
    }
}

fn what(mac: MacAddr) -> String {
    if mac == MacAddr::ZERO { "flooding".into() } else { mac.to_string() }
}

pub(super) fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn device() -> Device {
        Device {
            name: "vx0".into(),
            vxlan: Vxlan { vni: 16, ..Vxlan::default() },
            source: Some(ip("192.0.2.1")),
            entries: vec![Entry::flood(ip("192.0.2.2"))],
            ..Device::default()
        }
    }

    fn entry(last: u8, destination: &str) -> Entry {
        Entry { mac: MacAddr([0x52, 0x54, 0, 0, 0, last]), ..Entry::flood(ip(destination)) }
    }

    #[test]
    fn entries() {
        let learned = Entry { origin: FdbOrigin::Learned, ..entry(3, "192.0.2.4") };
        let entries = vec![
            learned.clone(),
            learned,
            Entry::flood(ip("192.0.2.2")),
            Entry::flood(ip("192.0.2.3")),
            Entry { port: Some(8472), vni: Some(16), via: Some("eth1".into()), ..Entry::flood(ip("192.0.2.3")) },
            Entry { port: Some(4789), ..Entry::flood(ip("192.0.2.9")) },
            entry(1, "192.0.2.2"),
            Entry { vni: Some(17), ..entry(2, "192.0.2.2") },
            Entry { origin: FdbOrigin::Daemon, ..entry(4, "192.0.2.3") },
            Entry { mac: MacAddr([1, 0, 0x5e, 0, 0, 5]), ..entry(5, "192.0.2.3") },
            Entry { destination: None, ..entry(6, "192.0.2.3") },
            Entry::flood(ip("192.0.2.1")),
            Entry::flood(ip("239.1.1.1")),
        ];
        let found = Device { entries, ..device() }.forwarding();
        assert_eq!(found.members, ["192.0.2.2", "192.0.2.3", "192.0.2.4"].map(ip));
        assert_eq!(found.macs, [(MacAddr([0x52, 0x54, 0, 0, 0, 1]), ip("192.0.2.2"))]);
        assert_eq!(
            found.notes,
            [
                "flooding at 192.0.2.3 via eth1: l2mesh follows the routes.",
                "flooding at 192.0.2.9: left out: it listens on UDP port 4789, and a mesh has one port.",
                "52:54:00:00:00:02 at 192.0.2.2: left out: it has VNI 17, and a network has one VNI.",
                "flooding at 192.0.2.1: left out: that is this host.",
                "192.0.2.4: frames came from there or have an entry, but it is not flooded to: l2mesh takes frames from \
                 members only, and floods to all of them.",
                "1 forwarding entry with a group of next hops (nhid): left out: l2mesh has one way to each node.",
                "1 forwarding entry for multicast addresses: left out: l2mesh floods multicast.",
                "1 forwarding entry from a routing daemon (extern_learn): left out: l2mesh learns from frames.",
            ]
        );
    }

    #[test]
    fn what_no_mesh_can_say() {
        let with = |change: fn(&mut Device)| {
            let mut device = device();
            change(&mut device);
            device.problem()
        };
        assert_eq!(with(|_| {}), None);
        for (change, word) in [
            ((|it| it.vxlan.external = true) as fn(&mut Device), "external"),
            (|it| it.vxlan.generic_protocol = true, "(gpe)"),
            (|it| it.vxlan.vni = 0, "VNI 0"),
            (|it| it.source = None, "--local"),
            (|it| it.entries.clear(), "no remote"),
            (|it| it.problem = Some("is elsewhere".into()), "is elsewhere"),
            (
                |it| {
                    it.entries = vec![Entry::flood(IpAddr::from([239, 1, 1, 1]))];
                    it.vxlan.remote = Some(IpAddr::from([239, 1, 1, 1]));
                },
                "group 239.1.1.1",
            ),
        ] {
            let problem = with(change).expect("a problem");
            assert!(problem.starts_with("vx0 ") && problem.contains(word), "{problem}");
        }
    }

    #[test]
    fn settings() {
        assert_eq!(device().settings(), Vec::<String>::new());
        let vxlan = Vxlan {
            ttl: 5,
            tos: 0xb9,
            source_ports: (40000, 50000),
            flow_label: 7,
            learning: false,
            ageing: 0,
            limit: 9,
            proxy: true,
            short_circuit: true,
            l2_miss: true,
            remote_checksum: true,
            group_policy: true,
            remote: Some(ip("ff05::100")),
            ..Vxlan::default()
        };
        let device = Device { vxlan, ..device() };
        let notes = device.settings();
        let words: Vec<_> = notes.iter().filter_map(|note| note.split([' ', ':']).next()).collect();
        let expected = "group ttl tos srcport flowlabel nolearning ageing maxaddress proxy rsc l2miss, remcsum gbp";
        assert_eq!(words.join(" "), expected);
        assert_eq!(device.tos(), Some(Tos::Fixed(0xb8)));
        for (tos, expected) in [(0, None), (1, Some(Tos::Inherit)), (2, None), (0x20, Some(Tos::Fixed(0x20)))] {
            let device = Device { vxlan: Vxlan { tos, ..Vxlan::default() }, ..device.clone() };
            assert_eq!(device.tos(), expected, "{tos}");
        }
        let inherit = Vxlan { ttl: 5, ttl_inherit: true, ..Vxlan::default() };
        assert_eq!(Device { vxlan: inherit, ..device }.settings(), ["ttl inherit: l2mesh sends with 64."]);
    }
}
