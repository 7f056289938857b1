//! Devices and addresses as the kernel shows them.

use std::{cmp::Reverse, net::IpAddr};

use l2mesh_common::wire::MacAddr;
use nix::errno::Errno;
use rtnetlink::{
    packet_core::DefaultNla,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, State},
    },
};

use super::{Error, Netlink};

/// From `linux/if_link.h`; no crate has a name for it.
const IFLA_ALT_IFNAME: u16 = 53;

/// A network device.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own in the kernel")]
#[expect(clippy::struct_field_names, reason = "link-netnsid is what the field is called")]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Link {
    /// Interface index.
    pub index: u32,
    /// Name; a lookup by alternative name finds the device too, but this is its first one.
    pub name: String,
    /// Octets of payload after the Ethernet header.
    pub mtu: u32,
    /// Hardware address, if it has the form of a MAC address.
    pub mac: Option<MacAddr>,
    /// `IFF_UP`: somebody switched it on.
    pub up: bool,
    /// `IF_OPER_UP`: the kernel has noticed that it can carry frames, and lets it. A new device runs before that.
    pub oper_up: bool,
    /// `IFF_LOWER_UP`: there is a carrier, or the device knows of none.
    pub carrier: bool,
    /// `veth`, `vxlan`, `bridge`, ...; none for a card.
    pub kind: Option<String>,
    /// `ip link set alias`; l2mesh marks its devices so (design.md 7).
    pub alias: Option<String>,
    /// Index of the bridge, bond or VRF it is a port of.
    pub master: Option<u32>,
    /// The other end of a veth pair or the device below a VLAN, numbered as in its own namespace.
    pub peer_index: Option<u32>,
    /// The namespace of `peer_index`, if it is another one.
    pub link_netnsid: Option<i32>,
    /// How many wish for every frame: promiscuous sniffers, and one for being a bridge port.
    /// A sniffer that does not ask for promiscuous mode (`tcpdump -p`) does not show.
    pub promiscuity: u32,
    /// Root queueing discipline: `noqueue`, `fq_codel`, ...; `noop` before it is up for the first time in its namespace.
    pub qdisc: Option<String>,
    /// Device group, 0 unless somebody changed it.
    pub group: u32,
    /// `ARPHRD_ETHER`: frames have an Ethernet header.
    pub has_ethernet: bool,
    /// Receive queues, used or not.
    pub num_rx_queues: u32,
    /// Transmit queues, used or not.
    pub num_tx_queues: u32,
    /// The XDP program on it.
    pub xdp_program: Option<u32>,
}

impl Link {
    /// True until somebody brings it up; not if it was switched off after that.
    pub(crate) fn was_never_up(&self) -> bool {
        !self.up && self.qdisc.as_deref() == Some("noop")
    }
}

impl Netlink {
    /// The device with that name or alternative name.
    ///
    /// # Errors
    /// When the kernel cannot be asked; a device that is not there is `None`.
    pub(crate) async fn link_by_name(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut message = question();
        // Unlike IFLA_IFNAME this takes names of either kind and of up to 127 octets.
        let name_or_alternative = [name.as_bytes(), &[0]].concat();
        message.attributes.push(LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, name_or_alternative)));
        self.link(&format!("look up {name}"), message).await
    }

    /// The device with that index.
    ///
    /// # Errors
    /// When the kernel cannot be asked; a device that is not there is `None`.
    pub(crate) async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = question();
        message.header.index = index;
        self.link(&format!("look up interface {index}"), message).await
    }

    /// Every device of the namespace.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, Error> {
        let messages = self.dump("list the devices", RouteNetlinkMessage::GetLink(question())).await?;
        Ok(messages.into_iter().filter_map(parse).collect())
    }

    /// Every device whose alias starts with `prefix`.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn links_with_alias(&self, prefix: &str) -> Result<Vec<Link>, Error> {
        let mut links = self.links().await?;
        links.retain(|link| link.alias.as_deref().is_some_and(|alias| alias.starts_with(prefix)));
        Ok(links)
    }

    /// The device's own addresses: global ones first, in each scope primary ones first, and
    /// otherwise in the kernel's order (IPv4, then IPv6). Those that failed duplicate detection
    /// are left out.
    ///
    /// # Errors
    /// When the kernel cannot be asked; a device that is not there has no addresses.
    pub(crate) async fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, Error> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump("list the addresses", question).await?;
        let mut found: Vec<_> = messages
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) if message.header.index == index => ranked(&message),
                _ => None,
            })
            .collect();
        found.sort_by_key(|(rank, _)| *rank);
        Ok(found.into_iter().map(|(_, address)| address).collect())
    }

    /// How error messages name a device: by name where it still has one.
    pub(super) async fn called(&self, index: u32) -> String {
        match self.link_by_index(index).await {
            Ok(Some(link)) => link.name,
            _ => format!("interface {index}"),
        }
    }

    async fn link(&self, doing: &str, message: LinkMessage) -> Result<Option<Link>, Error> {
        match self.get(doing, RouteNetlinkMessage::GetLink(message)).await? {
            Ok(found) => Ok(found.and_then(parse)),
            // ERANGE and EINVAL: too long or malformed to be the name of any device.
            Err(Errno::ENODEV | Errno::ERANGE | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }
}

pub(super) fn question() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

pub(super) fn parse(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        has_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::OperState(state) => link.oper_up = state == State::Up,
            LinkAttribute::Address(address) => link.mac = mac(&address),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.peer_index = Some(index),
            LinkAttribute::LinkNetNsId(id) => link.link_netnsid = Some(id),
            LinkAttribute::Promiscuity(count) => link.promiscuity = count,
            LinkAttribute::Qdisc(name) => link.qdisc = Some(name),
            LinkAttribute::NumRxQueues(count) => link.num_rx_queues = count,
            LinkAttribute::NumTxQueues(count) => link.num_tx_queues = count,
            LinkAttribute::Xdp(said) => {
                link.xdp_program = said.into_iter().find_map(|it| match it {
                    LinkXdp::ProgId(id) => Some(id),
                    _ => None,
                });
            }
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}

/// A hardware address of six octets.
pub(super) fn mac(octets: &[u8]) -> Option<MacAddr> {
    octets.try_into().ok().map(MacAddr)
}

/// An address with what [`Netlink::addresses`] sorts by.
fn ranked(message: &AddressMessage) -> Option<((Reverse<bool>, bool), IpAddr)> {
    let header = &message.header;
    let global = header.scope == AddressScope::Universe;
    let secondary = header.flags.contains(AddressHeaderFlags::Secondary);
    let (mut local, mut prefix) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link the other attribute holds the other end.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed) => return None,
            _ => {}
        }
    }
    Some(((Reverse(global), secondary), local.or(prefix)?))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Namespace, two_hosts},
        *,
    };

    #[test]
    fn link_and_addresses() {
        let (a, _b) = two_hosts();
        a.ip("link add br0 type bridge");
        a.ip("link property add dev va altname an-alternative-name-of-va");
        a.ip("addr add 10.9.0.5/24 dev va");
        a.ip("addr add 10.99.0.1/24 dev va scope link");
        a.ip("addr add 192.0.2.1 peer 192.0.2.2 dev va");
        let shown = a.ip("-d link show dev va");
        a.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let link = netlink.link_by_name("va").await.expect("asked").expect("va");
            assert!(link.up && link.has_ethernet, "{link:?}");
            assert!(shown.contains(&format!("link/ether {}", link.mac.expect("a MAC"))), "{shown}");
            assert_eq!((link.kind.as_deref(), link.qdisc.as_deref(), link.mtu), (Some("veth"), Some("noqueue"), 1500));
            assert!(link.link_netnsid.is_some() && link.peer_index.is_some(), "{link:?}");
            let queues = format!("numtxqueues {} numrxqueues {} ", link.num_tx_queues, link.num_rx_queues);
            assert!(shown.contains(&queues), "{queues}: {shown}");
            assert_eq!(netlink.link_by_index(link.index).await, Ok(Some(link.clone())));
            assert_eq!(netlink.link_by_name("an-alternative-name-of-va").await, Ok(Some(link.clone())));
            assert!(netlink.links().await.expect("asked").contains(&link));
            for absent in ["vz", "", &"v".repeat(16), &"v".repeat(200)] {
                assert_eq!(netlink.link_by_name(absent).await, Ok(None), "{absent}");
            }
            assert_eq!(netlink.link_by_index(77).await, Ok(None));
            let lo = netlink.link_by_name("lo").await.expect("asked").expect("lo");
            assert!(!lo.has_ethernet && lo.kind.is_none(), "{lo:?}");

            let addresses = netlink.addresses(link.index).await.expect("asked");
            let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let Some((link_local, rest)) = texts.split_last() else { panic!("no addresses") };
            assert_eq!(rest, ["10.9.0.1", "192.0.2.1", "fd99::1", "10.9.0.5", "10.99.0.1"]);
            assert!(link_local.starts_with("fe80::"), "{link_local}");
            assert_eq!(netlink.addresses(77).await, Ok(Vec::new()));
        });
    }

    #[test]
    fn master_and_promiscuity() {
        let host = Namespace::new();
        host.ip("link add br0 type bridge");
        host.ip("link add va type veth peer name vb");
        host.ip("link set va master br0");
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let bridge = netlink.link_by_name("br0").await.expect("asked").expect("br0");
            let port = netlink.link_by_name("va").await.expect("asked").expect("va");
            assert_eq!((port.master, port.promiscuity), (Some(bridge.index), 1));
            assert_eq!(port.qdisc.as_deref(), Some("noop"));
        });
    }
}
