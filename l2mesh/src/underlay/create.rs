//! Making the devices of l2mesh.

use std::{
    collections::{HashMap, HashSet},
    fs,
    hash::{BuildHasher, Hasher, RandomState},
};

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

use super::{DATAGRAM, Error, Link, Netlink};

/// The greatest MTU of a veth: the hidden end takes what any overlay MTU lets through
/// (a veth drops frames above the receiver's MTU).
const HIDDEN_MTU: u32 = 65535;
/// The bit that all of our device groups have, see [`private_group`].
const PRIVATE: u32 = 0x8000_0000;

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
    /// Veth pairs, no end of which is up.
    ///
    /// # Errors
    /// [`Error::NameTaken`] names the end whose name is in use; nothing is left behind.
    pub(crate) async fn create_veth_pairs(&self, pairs: &[VethPair<'_>]) -> Result<Vec<VethLinks>, Error> {
        let first = private_group();
        let groups: Vec<u32> = (0..).map(|nth| first.wrapping_add(nth) | PRIVATE).take(pairs.len()).collect();
        let each: Vec<_> = pairs.iter().zip(&groups).collect();
        let mut refused = None;
        for datagram in each.chunks(DATAGRAM / 2) {
            let requests =
                datagram.iter().flat_map(|&(pair, &group)| create_and_name(pair.device(group), group, pair.alias));
            let answers = self.batch("create veth pairs", requests.collect()).await?;
            let outcomes = answers.chunks_exact(2).map(|both| both[0].result.and(both[1].result));
            refused = datagram.iter().zip(outcomes).find_map(|((pair, _), outcome)| Some((pair, outcome.err()?)));
            if refused.is_some() {
                break;
            }
        }
        let links = self.links().await?;
        if let Some((pair, errno)) = refused {
            let made: HashSet<u32> = groups.iter().copied().collect();
            let made: Vec<u32> = links.iter().filter(|it| made.contains(&it.group)).map(|it| it.index).collect();
            self.delete_together(&made).await?;
            return Err(match errno {
                Errno::EEXIST if links.iter().any(|it| it.name == pair.overlay) => {
                    Error::NameTaken { name: pair.overlay.into() }
                }
                Errno::EEXIST => Error::NameTaken { name: pair.hidden.into() },
                errno => Error::new(pair.doing(), errno),
            });
        }
        let mut ends: HashMap<u32, Vec<Link>> = HashMap::new();
        for link in links.into_iter().filter(|link| link.group & PRIVATE != 0) {
            ends.entry(link.group).or_default().push(Link { group: 0, ..link });
        }
        let both = each.iter().map(|&(pair, group)| {
            let mut ends = ends.remove(group)?;
            let overlay = ends.swap_remove(ends.iter().position(|link| link.name == pair.overlay)?);
            Some(VethLinks { overlay, hidden: ends.pop()? })
        });
        let both: Option<Vec<VethLinks>> = both.collect();
        let both = both.ok_or_else(|| Error::NoSuchDevice { doing: "create veth pairs".into() })?;
        let all = both.iter().flat_map(|it| [it.overlay.index, it.hidden.index]);
        self.set_all("take out of its group", all.map(|index| (index, vec![LinkAttribute::Group(0)]))).await?;
        self.silence(&both.iter().map(|it| &it.hidden).collect::<Vec<_>>()).await?;
        Ok(both)
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
                self.silence(&[&link]).await?;
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

    /// A bridge, not up. Without a MAC address it takes that of a port.
    ///
    /// # Errors
    /// [`Error::NameTaken`], or the kernel has no bridges.
    pub(crate) async fn create_bridge(&self, name: &str, mac: Option<MacAddr>, alias: &str) -> Result<Link, Error> {
        let doing = format!("create {name}");
        let group = private_group();
        let mut device = LinkMessage::default();
        device.attributes.push(LinkAttribute::IfName(name.into()));
        device.attributes.push(LinkAttribute::Group(group));
        device.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        device.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        match self.create(&doing, device, group, name, alias).await? {
            Ok(link) => Ok(link),
            Err(Errno::EEXIST) => Err(Error::NameTaken { name: name.into() }),
            Err(errno) => Err(Error::new(doing, errno)),
        }
    }

    /// One device, see [`create_and_name`].
    async fn create(
        &self,
        doing: &str,
        device: LinkMessage,
        group: u32,
        name: &str,
        alias: &str,
    ) -> Result<Result<Link, Errno>, Error> {
        let answers = self.batch(doing, create_and_name(device, group, alias).into()).await?;
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
        self.set_all(doing, [(link.index, vec![LinkAttribute::Group(0)])].into_iter()).await?;
        Ok(Ok(Link { group: 0, ..link }))
    }

    async fn made(&self, doing: &str, name: &str) -> Result<Link, Error> {
        self.link_by_name(name).await?.ok_or_else(|| Error::NoSuchDevice { doing: doing.into() })
    }

    /// Keeps the host's own IPv6 off devices that only programs use: without this, the hidden end of a pair sends neighbour
    /// and router solicitations into the user's segment (measured).
    async fn silence(&self, devices: &[&Link]) -> Result<(), Error> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let silent = vec![LinkAttribute::AfSpecUnspec(vec![inet6])];
        // The kernel refuses it in a creating message.
        match self.set_all("silence", devices.iter().map(|it| (it.index, silent.clone()))).await {
            // A host without IPv6 is silent already.
            Ok(()) | Err(Error::Refused { errno: Errno::EAFNOSUPPORT, .. }) => {}
            Err(error) => return Err(error),
        }
        // More than needed, but each device with IPv6 on it makes the next one's way up longer: 4,094 pairs take 20 s without
        // this and 3 s with it (`fib6_ifup` walks all routes). Who may not write there waits.
        for Link { name, .. } in devices {
            if let Err(error) = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1") {
                log::debug!("IPv6 stays on {name}: {error}");
            }
        }
        Ok(())
    }
}

impl VethPair<'_> {
    fn device(&self, group: u32) -> LinkMessage {
        let mut hidden = LinkMessage::default();
        hidden.attributes.push(LinkAttribute::IfName(self.hidden.into()));
        hidden.attributes.push(LinkAttribute::Mtu(HIDDEN_MTU));
        hidden.attributes.push(LinkAttribute::Group(group));
        let mut device = LinkMessage::default();
        device.attributes.push(LinkAttribute::IfName(self.overlay.into()));
        device.attributes.push(LinkAttribute::Mtu(self.overlay_mtu));
        device.attributes.push(LinkAttribute::Group(group));
        device.attributes.extend(self.overlay_mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        device.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(hidden))),
        ]));
        device
    }

    fn doing(&self) -> String {
        format!("create {} and {}", self.overlay, self.hidden)
    }
}

/// Creates a device that carries its alias from the creating datagram on.
///
/// The kernel ignores `IFLA_IFALIAS` in a creating message, for the device and for the peer of
/// a veth (measured on 6.18), so a kill between two messages would leave a device that nobody
/// knows as ours. It does honour `IFLA_GROUP`, so both are made in a group of a random number
/// and a second message in the same datagram sets the alias of that group: of nothing at all
/// if the first message failed, where one by name would have changed a foreign device.
fn create_and_name(device: LinkMessage, group: u32, alias: &str) -> [(RouteNetlinkMessage, u16); 2] {
    let mut name = LinkMessage::default();
    name.attributes.push(LinkAttribute::Group(group));
    name.attributes.push(LinkAttribute::IfAlias(alias.into()));
    [
        (RouteNetlinkMessage::NewLink(device), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL),
        (RouteNetlinkMessage::NewLink(name), NLM_F_ACK),
    ]
}

/// A device group that nobody else uses: 31 random bits, where people count from 0 (the default).
pub(super) fn private_group() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]) | PRIVATE
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
            let links = netlink.create_veth_pairs(&[PAIR]).await.expect("a pair").remove(0);
            assert_eq!(netlink.links_with_alias("l2mesh:eth0:").await.map(|found| found.len()), Ok(2));
            links
        });
        assert_eq!(links.overlay.peer_index, Some(links.hidden.index));
        assert_eq!(links.overlay.kind.as_deref(), Some("veth"));
        assert_eq!((links.overlay.mtu, links.hidden.mtu), (1450, 65535));
        assert!(links.overlay.has_ethernet && !links.overlay.up && !links.overlay.oper_up);
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
            let error = host.block_on(async || {
                let before = VethPair { overlay: "l2m11", hidden: "l2p11", ..PAIR };
                Netlink::open().expect("a socket").create_veth_pairs(&[before, PAIR]).await
            });
            assert_eq!(error.map(drop), Err(Error::NameTaken { name: taken.into() }));
            assert_eq!(host.ip("-d link"), before);
        }
    }

    #[test]
    fn refused_alias_leaves_nothing() {
        let host = Namespace::new();
        let long = "l".repeat(256);
        let pair = VethPair { alias: &long, ..PAIR };
        let error = host.block_on(async || Netlink::open().expect("a socket").create_veth_pairs(&[pair]).await);
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
            let error = netlink.create_veth_pairs(&[PAIR]).await.expect_err("not allowed");
            assert_eq!(error.to_string(), "cannot create l2m10 and l2p10: needs CAP_NET_ADMIN: run as root");
        });
    }
}
