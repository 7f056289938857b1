//! Forwarding entries of vxlan devices: what `bridge fdb` shows as `self`.

use std::net::IpAddr;

use l2mesh_common::wire::MacAddr;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Error, Netlink, links::mac};

/// States that do not age (`NUD_NOARP`, `NUD_PERMANENT` in linux/neighbour.h); routing daemons set both.
const STATIC: u16 = 0x40 | 0x80;

/// Who made an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FdbOrigin {
    /// Somebody by hand: `permanent` or `static`.
    Static,
    /// The kernel from received frames.
    Learned,
    /// A routing daemon: `extern_learn`.
    Daemon,
}

/// A forwarding entry, for one destination: an address with several has several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FdbEntry {
    /// Index of the vxlan device.
    pub device: u32,
    /// Inner destination; all zero is everything without an entry of its own.
    pub mac: MacAddr,
    /// Outer destination; none with a group of next hops.
    pub destination: Option<IpAddr>,
    /// `port`, where it is not the device's.
    pub port: Option<u16>,
    /// `vni`, where it is not the device's.
    pub vni: Option<u32>,
    /// `via`: index of the device to send on.
    pub via: Option<u32>,
    /// Who made it.
    pub origin: FdbOrigin,
}

impl Netlink {
    /// Every forwarding entry of every vxlan device, in the kernel's order.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn fdb(&self) -> Result<Vec<FdbEntry>, Error> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        let messages = self.dump("list the forwarding entries", RouteNetlinkMessage::GetNeighbour(question)).await?;
        let entry = |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => entry(message),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(entry).collect())
    }
}

/// None for an entry of a bridge. That a card's or veth's own list is told from a vxlan device's is the caller's part.
fn entry(NeighbourMessage { header, attributes, .. }: NeighbourMessage) -> Option<FdbEntry> {
    if !header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let mut found = FdbEntry {
        device: header.ifindex,
        mac: MacAddr::ZERO,
        destination: None,
        port: None,
        vni: None,
        via: None,
        origin: origin(header.flags, header.state),
    };
    let mut address = None;
    for attribute in attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => address = mac(&octets),
            NeighbourAttribute::Destination(NeighbourAddress::Other(octets)) => found.destination = ip(&octets),
            NeighbourAttribute::Port(port) => found.port = Some(port),
            NeighbourAttribute::Vni(vni) => found.vni = Some(vni),
            NeighbourAttribute::IfIndex(index) => found.via = Some(index),
            _ => {}
        }
    }
    Some(FdbEntry { mac: address?, ..found })
}

fn origin(flags: NeighbourFlags, state: NeighbourState) -> FdbOrigin {
    if flags.contains(NeighbourFlags::ExtLearned) {
        FdbOrigin::Daemon
    } else if u16::from(state) & STATIC != 0 {
        FdbOrigin::Static
    } else {
        FdbOrigin::Learned
    }
}

/// The family of the message is that of the bridge: the length tells which address it is.
fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || octets.try_into().ok().map(|octets: [u8; 4]| octets.into());
    octets.try_into().ok().map(|octets: [u8; 16]| octets.into()).or_else(v4)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{index, two_hosts},
        *,
    };

    #[test]
    fn every_kind_of_entry() {
        use FdbOrigin::{Daemon, Learned, Static};
        let (a, _b) = two_hosts();
        a.ip("link add vx0 type vxlan id 16 local 10.9.0.1 dstport 4789 ageing 3000");
        a.ip("link add vx6 type vxlan id 17 remote fd99::2 dev va dstport 4789");
        a.ip("link add br0 type bridge");
        a.ip("link set vx0 master br0");
        for entry in [
            "append 00:00:00:00:00:00 dst 10.9.0.2 dev vx0",
            "append 00:00:00:00:00:00 dst 10.9.0.3 port 4790 dev vx0",
            "add 52:54:00:00:00:01 dst 10.9.0.2 dev vx0 static",
            "add 52:54:00:00:00:02 dst 10.9.0.2 vni 77 via va dev vx0 self permanent",
            "add 52:54:00:00:00:03 dst 10.9.0.3 dev vx0 dynamic",
            "add 52:54:00:00:00:04 dst 10.9.0.3 dev vx0 extern_learn",
        ] {
            a.command("bridge", &format!("fdb {entry}"));
        }
        let [vx0, vx6, va] = ["vx0", "vx6", "va"].map(|name| index(&a, name));
        let mut found = a.block_on(async || Netlink::open().expect("a socket").fdb().await).expect("asked");
        found.retain(|entry| [vx0, vx6].contains(&entry.device));
        found.sort_by_key(|entry| (entry.device, entry.mac.0, entry.destination));
        let entry = |last: u8, destination: &str, origin| FdbEntry {
            device: vx0,
            mac: if last == 0 { MacAddr::ZERO } else { MacAddr([0x52, 0x54, 0, 0, 0, last]) },
            destination: Some(destination.parse().expect("an address")),
            port: None,
            vni: None,
            via: None,
            origin,
        };
        assert_eq!(
            found,
            [
                entry(0, "10.9.0.2", Static),
                FdbEntry { port: Some(4790), ..entry(0, "10.9.0.3", Static) },
                entry(1, "10.9.0.2", Static),
                FdbEntry { vni: Some(77), via: Some(va), ..entry(2, "10.9.0.2", Static) },
                entry(3, "10.9.0.3", Learned),
                entry(4, "10.9.0.3", Daemon),
                FdbEntry { device: vx6, via: Some(va), ..entry(0, "fd99::2", Static) },
            ]
        );
    }

    /// As routing daemons do it: both marks of an entry that does not age.
    #[test]
    fn noarp_and_permanent() {
        let none = NeighbourFlags::empty();
        for (state, expected) in [
            (0xc0, FdbOrigin::Static),
            (0x80, FdbOrigin::Static),
            (0x40, FdbOrigin::Static),
            (0x02, FdbOrigin::Learned),
        ] {
            assert_eq!(origin(none, NeighbourState::from(state)), expected, "{state:#x}");
        }
        assert_eq!(origin(NeighbourFlags::ExtLearned, NeighbourState::Permanent), FdbOrigin::Daemon);
    }
}
