//! Making the devices of l2mesh.

use std::hash::{BuildHasher, Hasher, RandomState};

use l2mesh_common::wire::MacAddr;
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute,
            LinkInfo, LinkMessage,
        },
    },
};

use super::{Error, Link, Netlink};

/// The greatest MTU of a veth: the hidden end takes what any overlay MTU lets through
/// (a veth drops frames above the receiver's MTU).
const HIDDEN_MTU: u32 = 65535;

/// UDP source ports of frames that a vxlan device sends: those that our programs use.
const SOURCE_PORTS: (u16, u16) = (49152, 65535);

/// What to make of a network: the interface the user sees and its hidden other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VethPair<'a> {
    /// Name of the user's end.
    pub overlay: &'a str,
    /// MTU of the user's end, octets.
    pub overlay_mtu: u32,
    /// MAC of the user's end. Without one the kernel invents one, and udev may then change it.
    pub overlay_mac: Option<MacAddr>,
    /// Name of the hidden end.
    pub hidden: &'a str,
    /// Alias of both ends, at most 255 octets.
    pub alias: &'a str,
}

/// Both ends as made: down, in our namespace.
#[derive(Clone, Debug)]
pub(crate) struct VethLinks {
    /// The end that the user sees.
    pub overlay: Link,
    /// The other end.
    pub hidden: Link,
}

impl Netlink {
    /// A veth pair; neither end is up.
    ///
    /// # Errors
    /// [`Error::NameTaken`] names the end whose name is in use; nothing is left behind.
    pub(crate) async fn create_veth_pair(&self, pair: VethPair<'_>) -> Result<VethLinks, Error> {
        let doing = format!("create {} and {}", pair.overlay, pair.hidden);
        let group = private_group();
        let mut hidden = LinkMessage::default();
        hidden.attributes.push(LinkAttribute::IfName(pair.hidden.into()));
        hidden.attributes.push(LinkAttribute::Mtu(HIDDEN_MTU));
        hidden.attributes.push(LinkAttribute::Group(group));
        let mut device = LinkMessage::default();
        device.attributes.push(LinkAttribute::IfName(pair.overlay.into()));
        device.attributes.push(LinkAttribute::Mtu(pair.overlay_mtu));
        device.attributes.push(LinkAttribute::Group(group));
        device.attributes.extend(pair.overlay_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        device.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(hidden))),
        ]));
        match self.create(&doing, device, group, pair.overlay, pair.alias).await? {
            Ok(overlay) => {
                let hidden = self.made(&doing, pair.hidden).await?;
                self.set_group(&doing, hidden.index, 0).await?;
                self.silence(&doing, hidden.index).await?;
                Ok(VethLinks { overlay, hidden })
            }
            Err(Errno::EEXIST) => {
                let overlay_taken = self.link_by_name(pair.overlay).await?.is_some();
                let name = if overlay_taken { pair.overlay } else { pair.hidden };
                Err(Error::NameTaken { name: name.into() })
            }
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }

    /// The kernel's own vxlan receiver for `port`: any VNI (`external`), no learning, IPv6
    /// checksum zero accepted. It is down; it takes the port when it comes up.
    ///
    /// # Errors
    /// [`Error::NameTaken`]; [`Error::PortTaken`] if another such device, up or not, has that port.
    pub(crate) async fn create_vxlan_helper(&self, name: &str, port: u16, alias: &str) -> Result<Link, Error> {
        let doing = format!("create {name}");
        let group = private_group();
        let mut device = LinkMessage::default();
        device.attributes.push(LinkAttribute::IfName(name.into()));
        device.attributes.push(LinkAttribute::Group(group));
        device.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(vec![
                InfoVxlan::CollectMetadata(true),
                InfoVxlan::UDPZeroCsumRX(true),
                InfoVxlan::Learning(false),
                InfoVxlan::Port(port),
                InfoVxlan::PortRange(SOURCE_PORTS),
            ])),
        ]));
        match self.create(&doing, device, group, name, alias).await? {
            Ok(link) => {
                self.silence(&doing, link.index).await?;
                Ok(link)
            }
            // The kernel says the same of a name in use and of a second such device on one port.
            Err(Errno::EEXIST) if self.link_by_name(name).await?.is_none() => {
                Err(Error::PortTaken { device: name.into() })
            }
            Err(Errno::EEXIST) => Err(Error::NameTaken { name: name.into() }),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }

    /// A bridge that stays down.
    ///
    /// # Errors
    /// [`Error::NameTaken`], or the kernel has no bridges.
    pub(crate) async fn create_bridge(&self, name: &str, alias: &str) -> Result<Link, Error> {
        let doing = format!("create {name}");
        let group = private_group();
        let mut device = LinkMessage::default();
        device.attributes.push(LinkAttribute::IfName(name.into()));
        device.attributes.push(LinkAttribute::Group(group));
        device.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        match self.create(&doing, device, group, name, alias).await? {
            Ok(link) => Ok(link),
            Err(Errno::EEXIST) => Err(Error::NameTaken { name: name.into() }),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }

    /// Creates a device that carries its alias from the creating datagram on.
    ///
    /// The kernel ignores `IFLA_IFALIAS` in a creating message, for the device and for the peer of
    /// a veth (measured on 6.18), so a kill between two messages would leave a device that nobody
    /// knows as ours. It does honour `IFLA_GROUP`, so both are made in a group of a random number
    /// and a second message in the same datagram sets the alias of that group: of nothing at all
    /// if the first message failed, where one by name would have changed a foreign device.
    async fn create(
        &self,
        doing: &str,
        device: LinkMessage,
        group: u32,
        name: &str,
        alias: &str,
    ) -> Result<Result<Link, Errno>, Error> {
        let mut name_it = LinkMessage::default();
        name_it.attributes.push(LinkAttribute::Group(group));
        name_it.attributes.push(LinkAttribute::IfAlias(alias.into()));
        let requests = [
            (RouteNetlinkMessage::NewLink(device), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL),
            (RouteNetlinkMessage::NewLink(name_it), NLM_F_ACK),
        ];
        let answers = self.batch(doing, requests).await?;
        let [created, named] = answers.as_slice() else {
            return Err(Error::Disconnected { doing: doing.into() });
        };
        if let Err(errno) = created.result {
            return Ok(Err(errno));
        }
        let link = self.made(doing, name).await?;
        if let Err(errno) = named.result {
            self.delete(link.index).await?;
            return Ok(Err(errno));
        }
        self.set_group(doing, link.index, 0).await?;
        Ok(Ok(link))
    }

    async fn made(&self, doing: &str, name: &str) -> Result<Link, Error> {
        self.link_by_name(name).await?.ok_or_else(|| Error::NoSuchDevice { doing: doing.into() })
    }

    async fn set_group(&self, doing: &str, index: u32, group: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        self.set(index, message).await?.map_err(|errno| Error::new(doing, errno))
    }

    /// Keeps the host's own IPv6 off a device that only programs use: without this, the hidden end
    /// of a pair sends neighbour and router solicitations into the user's segment (measured). The
    /// kernel refuses it in a creating message.
    async fn silence(&self, doing: &str, index: u32) -> Result<(), Error> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![inet6]));
        match self.set(index, message).await? {
            // A host without IPv6 is silent already.
            Ok(()) | Err(Errno::EAFNOSUPPORT) => Ok(()),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }
}

/// A device group that nobody else uses: 31 random bits, where people count from 0 (the default).
fn private_group() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]) | 0x8000_0000
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Namespace, *};

    const ALIAS: &str = "l2mesh:eth0:16";
    const PAIR: VethPair<'_> = VethPair {
        overlay: "l2m10",
        overlay_mtu: 1450,
        overlay_mac: Some(MacAddr([2, 0, 0, 0, 0, 16])),
        hidden: "l2p10",
        alias: ALIAS,
    };

    #[test]
    fn veth_pair() {
        let host = Namespace::new();
        let links = host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let links = netlink.create_veth_pair(PAIR).await.expect("a pair");
            assert_eq!(netlink.links_with_alias("l2mesh:eth0:").await.map(|found| found.len()), Ok(2));
            links
        });
        assert_eq!(links.overlay.peer_index, Some(links.hidden.index));
        assert_eq!(links.overlay.kind.as_deref(), Some("veth"));
        assert_eq!((links.overlay.mtu, links.hidden.mtu), (1450, 65535));
        assert!(links.overlay.has_ethernet && !links.overlay.up && !links.overlay.running);
        let overlay = host.ip("-d link show dev l2m10");
        for shown in ["mtu 1450", "addrgenmode eui64", "02:00:00:00:00:10", "alias l2mesh:eth0:16\n", "group default"] {
            assert!(overlay.contains(shown), "{shown}: {overlay}");
        }
        let hidden = host.ip("-d link show dev l2p10");
        for shown in ["mtu 65535", "addrgenmode none", "alias l2mesh:eth0:16\n", "group default", "state DOWN"] {
            assert!(hidden.contains(shown), "{shown}: {hidden}");
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for taken in ["l2m10", "l2p10"] {
            let host = Namespace::new();
            host.ip(&format!("link add {taken} type veth peer name other"));
            let before = host.ip("-d link");
            let error = host.block_on(async || Netlink::open().expect("a socket").create_veth_pair(PAIR).await);
            assert_eq!(error.map(drop), Err(Error::NameTaken { name: taken.into() }));
            assert_eq!(host.ip("-d link"), before);
        }
    }

    #[test]
    fn refused_alias_leaves_nothing() {
        let host = Namespace::new();
        let long = "l".repeat(256);
        let pair = VethPair { alias: &long, ..PAIR };
        let error = host.block_on(async || Netlink::open().expect("a socket").create_veth_pair(pair).await);
        assert!(matches!(error, Err(Error::Refused { .. })), "{error:?}");
        assert!(!host.ip("link").contains("l2"));
    }

    #[test]
    fn vxlan_helper() {
        let host = Namespace::new();
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let helper = netlink.create_vxlan_helper("l2mk2", 4789, ALIAS).await.expect("a helper");
            assert_eq!(helper.kind.as_deref(), Some("vxlan"));
            netlink.set_up(helper.index).await.expect("the port is free");
            let taken = netlink.create_vxlan_helper("l2mk2", 4790, ALIAS).await;
            assert_eq!(taken, Err(Error::NameTaken { name: "l2mk2".into() }));
        });
        let shown = host.ip("-d link show dev l2mk2");
        for attribute in [
            "vxlan external",
            "addrgenmode none",
            "dstport 4789",
            " nolearning",
            " udp6zerocsumrx",
            "alias l2mesh:eth0:16\n",
            ",UP",
        ] {
            assert!(shown.contains(attribute), "{attribute}: {shown}");
        }
        assert!(shown.contains("group default"), "{shown}");
    }

    #[test]
    fn port_of_a_foreign_vxlan_device() {
        let host = Namespace::new();
        host.ip("link add vx7 type vxlan id 7 dstport 4789");
        host.ip("link set vx7 up");
        host.ip("link add vx8 type vxlan external udp6zerocsumrx dstport 4790");
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            let helper = netlink.create_vxlan_helper("l2mk2", 4789, ALIAS).await.expect("creating takes no port yet");
            let taken = Error::PortTaken { device: "l2mk2".into() };
            assert_eq!(netlink.set_up(helper.index).await, Err(taken.clone()));
            netlink.delete(helper.index).await.expect("gone");
            // Another receiver of every VNI is refused earlier, even if it is down.
            assert_eq!(netlink.create_vxlan_helper("l2mk2", 4790, ALIAS).await, Err(taken));
            let helper = netlink.create_vxlan_helper("l2mk2", 4791, ALIAS).await.expect("a free port");
            netlink.set_up(helper.index).await.expect("a free port");
        });
    }

    #[test]
    fn needs_root() {
        let host = Namespace::new();
        host.block_on(async || {
            let nobody = 65534;
            #[expect(unsafe_code, reason = "the libc function would change every thread of the process")]
            // SAFETY: the system call takes three numbers. It takes away the privileges of this thread,
            // which ends with the test.
            let dropped = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
            assert_eq!(dropped, 0);
            let netlink = Netlink::open().expect("a socket");
            let error = netlink.create_veth_pair(PAIR).await.expect_err("not allowed");
            assert_eq!(error.to_string(), "cannot create l2m10 and l2p10: needs CAP_NET_ADMIN: run as root");
        });
    }
}
