//! MAC addresses of the hosts on the underlay's links (ARP, IPv6 neighbour discovery).

use std::net::IpAddr;

use l2mesh_common::wire::MacAddr;
use nix::errno::Errno;
pub(crate) use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage},
    },
};

use super::{Error, Netlink, change::family, links::mac};

/// An entry that frames may be addressed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Neighbour {
    /// Where frames go.
    pub mac: MacAddr,
    /// Reachable, stale, delay, probe, permanent or noarp.
    pub state: NeighbourState,
}

impl Netlink {
    /// The neighbour `ip` on device `oif`, if its entry is usable.
    ///
    /// # Errors
    /// When the kernel cannot be asked; a device that is not there has no neighbours.
    pub(crate) async fn neighbour(&self, oif: u32, ip: IpAddr) -> Result<Option<Neighbour>, Error> {
        Ok(self.entry(oif, ip).await?.and_then(Entry::usable))
    }

    /// Makes the kernel resolve or refresh the entry as though a packet had been sent there:
    /// a missing or failed one is asked for at once, a stale one after the usual 5 s of grace.
    ///
    /// `NTF_USE` also does what nobody wants (measured on 6.18): it turns a permanent or noarp
    /// entry into an ordinary one without a MAC and clears the marks managed and extern-learned. So only
    /// entries that may need it are touched, and a mark of others is handed back.
    ///
    /// # Errors
    /// When the kernel refuses, as for a device that is not there or is down.
    pub(crate) async fn solicit(&self, oif: u32, ip: IpAddr) -> Result<(), Error> {
        let entry = self.entry(oif, ip).await?;
        let (only_if, kept) = match entry {
            None => (NLM_F_CREATE | NLM_F_EXCL, NeighbourFlags::empty()),
            Some(entry) if entry.wants_soliciting() => (0, entry.flags & NeighbourFlags::ExtLearned),
            Some(_) => return Ok(()),
        };
        let mut message = question(oif, ip);
        message.header.flags = NeighbourFlags::Use | kept;
        let doing = format!("resolve {ip}");
        match self.change(&doing, RouteNetlinkMessage::NewNeighbour(message), only_if).await? {
            // Somebody was faster, with an entry or by taking it away.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => Ok(()),
            Err(errno) => Err(Error::new(format!("{doing} on {}", self.called(oif).await), errno)),
        }
    }

    async fn entry(&self, oif: u32, ip: IpAddr) -> Result<Option<Entry>, Error> {
        let doing = format!("look up the neighbour {ip}");
        match self.get(&doing, RouteNetlinkMessage::GetNeighbour(question(oif, ip))).await? {
            Ok(Some(RouteNetlinkMessage::NewNeighbour(message))) => Ok(Some(Entry::parse(message))),
            Ok(_) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }
}

fn question(oif: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = oif;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message
}

/// An entry in any state.
#[derive(Clone, Copy, Debug)]
struct Entry {
    state: NeighbourState,
    mac: Option<MacAddr>,
    flags: NeighbourFlags,
    managed: bool,
}

impl Entry {
    fn parse(message: NeighbourMessage) -> Self {
        let NeighbourMessage { header, attributes, .. } = message;
        let mut entry = Self { state: header.state, mac: None, flags: header.flags, managed: false };
        for attribute in attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(octets) => entry.mac = mac(&octets),
                NeighbourAttribute::ExtFlags(flags) => entry.managed = flags.contains(NeighbourExtFlags::Managed),
                _ => {}
            }
        }
        entry
    }

    fn usable(self) -> Option<Neighbour> {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
        match self.state {
            Reachable | Stale | Delay | Probe | Permanent | Noarp => {
                Some(Neighbour { mac: self.mac?, state: self.state })
            }
            _ => None,
        }
    }

    /// The other states are fine, under way, or not ours to change. A managed entry the kernel
    /// itself keeps fresh.
    fn wants_soliciting(self) -> bool {
        use NeighbourState::{Failed, None, Stale};
        !self.managed && matches!(self.state, None | Failed | Stale)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Namespace, eventually, index, two_hosts},
        *,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn shown(host: &Namespace, ip: &str) -> String {
        host.ip(&format!("neigh show {ip} dev va"))
    }

    fn solicited(host: &Namespace, oif: u32, address: &str) -> String {
        host.block_on(async || Netlink::open().expect("a socket").solicit(oif, ip(address)).await).expect("solicited");
        shown(host, address)
    }

    #[test]
    fn missing_entry_is_resolved() {
        let (a, b) = two_hosts();
        let (va, vb) = (index(&a, "va"), index(&b, "vb"));
        let mac = b.block_on(async || Netlink::open().expect("a socket").link_by_index(vb).await.expect("asked"));
        let mac = mac.and_then(|link| link.mac).expect("a MAC");
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            for peer in [ip("10.9.0.2"), ip("fd99::2")] {
                assert_eq!(netlink.neighbour(va, peer).await, Ok(None));
                netlink.solicit(va, peer).await.expect("solicited");
                netlink.solicit(va, peer).await.expect("solicited while under way");
                let found = eventually("resolve", async || netlink.neighbour(va, peer).await.expect("asked")).await;
                assert_eq!(found, Neighbour { mac, state: NeighbourState::Reachable });
            }
            assert_eq!(netlink.neighbour(77, ip("10.9.0.2")).await, Ok(None));
            assert!(netlink.solicit(77, ip("10.9.0.2")).await.is_err());
        });
        // No flag stays behind: the entry is an ordinary one.
        assert_eq!(shown(&a, "10.9.0.2"), format!("10.9.0.2 lladdr {mac} REACHABLE \n"));
    }

    #[test]
    fn unusable_states() {
        let (a, _b) = two_hosts();
        let va = index(&a, "va");
        a.ip("neigh add 10.9.0.77 dev va nud failed");
        a.ip("neigh add 10.9.0.78 dev va lladdr 02:00:00:00:00:78 nud none");
        for address in ["10.9.0.77", "10.9.0.78"] {
            let found = a.block_on(async || Netlink::open().expect("a socket").neighbour(va, ip(address)).await);
            assert_eq!(found, Ok(None), "{address}");
        }
        assert!(solicited(&a, va, "10.9.0.77").contains("INCOMPLETE"));
    }

    #[test]
    fn entries_of_others_stay_theirs() {
        let (a, _b) = two_hosts();
        let va = index(&a, "va");
        for (number, kind, before, after) in [
            (50, "nud permanent", "PERMANENT", "PERMANENT"),
            (51, "nud noarp", "NOARP", "NOARP"),
            (52, "nud stale extern_learn", "extern_learn STALE", "extern_learn DELAY"),
            (53, "nud stale", "STALE", "DELAY"),
            (54, "nud reachable", "REACHABLE", "REACHABLE"),
        ] {
            let address = format!("10.9.0.{number}");
            a.ip(&format!("neigh add {address} dev va lladdr 02:00:00:00:00:{number} {kind}"));
            // `ip` shows entries in state noarp only when asked for.
            let show = || a.ip(&format!("neigh show {address} dev va nud all"));
            assert!(show().contains(before), "{}", show());
            solicited(&a, va, &address);
            assert!(show().contains(after), "{}", show());
            assert!(show().contains(&format!("lladdr 02:00:00:00:00:{number}")), "{}", show());
        }
        for setting in ["mcast_solicit=1", "retrans_time_ms=20"] {
            a.command("sysctl", &format!("-w net.ipv4.neigh.va.{setting}"));
        }
        a.ip("neigh add 10.9.0.77 dev va managed");
        let failed = async || shown(&a, "10.9.0.77").contains("FAILED").then_some(());
        a.block_on(async || eventually("no answer", failed).await);
        assert_eq!(solicited(&a, va, "10.9.0.77"), "10.9.0.77 managed FAILED \n");
    }
}
