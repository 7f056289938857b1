//! The kernel's own vxlan devices, and the bridge that one may be a port of, as they are.

use std::{collections::BTreeMap, net::IpAddr};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{
        BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVxlan, LinkAttribute, LinkInfo,
        LinkMessage,
    },
};

use super::{
    Error, Link, Netlink,
    links::{parse, question},
};

/// Settings of a vxlan device (`IFLA_VXLAN_*`, `vxlan_fill_info` in `drivers/net/vxlan/vxlan_core.c`).
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own in the kernel")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Vxlan {
    /// VNI, 0 to 2^24 - 1; 0 with `external`.
    pub vni: u32,
    /// `local`: the outer source.
    pub local: Option<IpAddr>,
    /// `remote`, or `group` if it is a multicast address.
    pub remote: Option<IpAddr>,
    /// `dev`: index of the device below.
    pub dev: Option<u32>,
    /// `dstport`.
    pub port: u16,
    /// `srcport`; 0 and 0 is the range of local ports.
    pub source_ports: (u16, u16),
    /// `ttl`; 0 is the system's default.
    pub ttl: u8,
    /// `ttl inherit`.
    pub ttl_inherit: bool,
    /// `tos`; 1 is `inherit`.
    pub tos: u8,
    /// `flowlabel`.
    pub flow_label: u32,
    /// `learning`.
    pub learning: bool,
    /// `ageing` in seconds; 0 is never.
    pub ageing: u32,
    /// `maxaddress`: greatest number of forwarding entries; 0 is no limit.
    pub limit: u32,
    /// `proxy`: ARP and neighbour discovery are answered from the neighbour table.
    pub proxy: bool,
    /// `rsc`: frames to a router's MAC address are routed here.
    pub short_circuit: bool,
    /// `l2miss`: netlink messages about unknown MAC addresses.
    pub l2_miss: bool,
    /// `l3miss`: the same about IP addresses.
    pub l3_miss: bool,
    /// `udp6zerocsumrx`: a UDP checksum of zero is accepted over IPv6.
    pub takes_zero_checksum6: bool,
    /// `remcsumtx` or `remcsumrx`.
    pub remote_checksum: bool,
    /// `gbp`.
    pub group_policy: bool,
    /// `gpe`.
    pub generic_protocol: bool,
    /// `external`: somebody else picks VNI and remote of each frame.
    pub external: bool,
}

/// What `ip link add type vxlan` makes when it is told nothing.
impl Default for Vxlan {
    fn default() -> Self {
        Self {
            vni: 0,
            local: None,
            remote: None,
            dev: None,
            port: 8472,
            source_ports: (0, 0),
            ttl: 0,
            ttl_inherit: false,
            tos: 0,
            flow_label: 0,
            learning: true,
            ageing: 300,
            limit: 0,
            proxy: false,
            short_circuit: false,
            l2_miss: false,
            l3_miss: false,
            takes_zero_checksum6: false,
            remote_checksum: false,
            group_policy: false,
            generic_protocol: false,
            external: false,
        }
    }
}

/// A vxlan device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VxlanLink {
    /// As any device.
    pub link: Link,
    /// As a vxlan device.
    pub vxlan: Vxlan,
    /// As a port of a bridge: what differs from a new port, in `bridge link`'s words.
    pub port_settings: Vec<&'static str>,
    /// As a port of a bridge: ARP and neighbour discovery are answered by the bridge.
    pub neighbour_suppression: bool,
}

/// How a bridge treats what passes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct BridgeSettings {
    /// It sends and expects 01:80:c2:00:00:0x: STP runs, or such frames are forwarded.
    pub link_local: bool,
    /// Ports are in VLANs.
    pub vlan_filtering: bool,
}

impl Netlink {
    /// Every vxlan device of the namespace, l2mesh's own included.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn vxlan_links(&self) -> Result<Vec<VxlanLink>, Error> {
        let messages = self.dump("list the devices", RouteNetlinkMessage::GetLink(question())).await?;
        Ok(messages.into_iter().filter_map(vxlan_link).collect())
    }

    /// Every bridge of the namespace, by its index.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn bridges(&self) -> Result<BTreeMap<u32, BridgeSettings>, Error> {
        let messages = self.dump("list the devices", RouteNetlinkMessage::GetLink(question())).await?;
        let bridge = |message| match message {
            RouteNetlinkMessage::NewLink(message) => {
                let settings = infos(&message).find_map(|info| match info {
                    LinkInfo::Data(InfoData::Bridge(attributes)) => Some(bridge_settings(attributes)),
                    _ => None,
                });
                settings.map(|settings| (message.header.index, settings))
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(bridge).collect())
    }
}

fn bridge_settings(attributes: &[InfoBridge]) -> BridgeSettings {
    let mut settings = BridgeSettings::default();
    for attribute in attributes {
        match attribute {
            InfoBridge::StpState(state) => settings.link_local |= *state != BridgeStpState::Disabled,
            InfoBridge::GroupFwdMask(mask) => settings.link_local |= *mask != 0,
            InfoBridge::VlanFiltering(on) => settings.vlan_filtering = *on,
            _ => {}
        }
    }
    settings
}

fn infos(message: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })
        .flatten()
}

fn vxlan_link(message: RouteNetlinkMessage) -> Option<VxlanLink> {
    let RouteNetlinkMessage::NewLink(link) = &message else { return None };
    let (mut vxlan, mut port_settings, mut neighbour_suppression) = (None, Vec::new(), false);
    for info in infos(link) {
        match info {
            LinkInfo::Data(InfoData::Vxlan(attributes)) => vxlan = Some(settings(attributes)),
            LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => {
                neighbour_suppression = attributes.contains(&InfoBridgePort::NeighSupress(true));
                port_settings = attributes.iter().filter_map(unusual).collect();
            }
            _ => {}
        }
    }
    Some(VxlanLink { vxlan: vxlan?, link: parse(message)?, port_settings, neighbour_suppression })
}

fn settings(attributes: &[InfoVxlan]) -> Vxlan {
    // What the kernel does not say is off: its own defaults it does say.
    let mut vxlan = Vxlan { learning: false, ..Vxlan::default() };
    for attribute in attributes {
        match attribute {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Local(address) => vxlan.local = Some((*address).into()),
            InfoVxlan::Local6(address) => vxlan.local = Some((*address).into()),
            InfoVxlan::Group(address) => vxlan.remote = Some((*address).into()),
            InfoVxlan::Group6(address) => vxlan.remote = Some((*address).into()),
            InfoVxlan::Link(index) => vxlan.dev = Some(*index).filter(|&index| index != 0),
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::PortRange(range) => vxlan.source_ports = *range,
            InfoVxlan::Ttl(ttl) => vxlan.ttl = *ttl,
            InfoVxlan::TtlInherit(inherit) => vxlan.ttl_inherit = *inherit != 0,
            InfoVxlan::TtlInheritFlag => vxlan.ttl_inherit = true,
            InfoVxlan::Tos(tos) => vxlan.tos = *tos,
            InfoVxlan::Label(label) => vxlan.flow_label = *label,
            InfoVxlan::Learning(on) => vxlan.learning = *on,
            InfoVxlan::Ageing(seconds) => vxlan.ageing = *seconds,
            InfoVxlan::Limit(entries) => vxlan.limit = *entries,
            InfoVxlan::Proxy(on) => vxlan.proxy = *on,
            InfoVxlan::Rsc(on) => vxlan.short_circuit = *on,
            InfoVxlan::L2Miss(on) => vxlan.l2_miss = *on,
            InfoVxlan::L3Miss(on) => vxlan.l3_miss = *on,
            InfoVxlan::UDPZeroCsumRX(on) => vxlan.takes_zero_checksum6 = *on,
            InfoVxlan::RemCsumTX(on) | InfoVxlan::RemCsumRX(on) => vxlan.remote_checksum |= *on,
            InfoVxlan::Gbp => vxlan.group_policy = true,
            InfoVxlan::Gpe => vxlan.generic_protocol = true,
            InfoVxlan::CollectMetadata(on) => vxlan.external = *on,
            _ => {}
        }
    }
    vxlan
}

/// What a port of a bridge has that a new port has not.
const fn unusual(attribute: &InfoBridgePort) -> Option<&'static str> {
    Some(match attribute {
        InfoBridgePort::HairpinMode(true) => "hairpin on",
        InfoBridgePort::Guard(true) => "guard on",
        InfoBridgePort::Protect(true) => "root_block on",
        InfoBridgePort::FastLeave(true) => "mcast_fast_leave on",
        InfoBridgePort::Learning(false) => "learning off",
        InfoBridgePort::UnicastFlood(false) => "flood off",
        InfoBridgePort::MulticastFlood(false) => "mcast_flood off",
        InfoBridgePort::BroadcastFlood(false) => "bcast_flood off",
        InfoBridgePort::MulticastToUnicast(true) => "mcast_to_unicast on",
        InfoBridgePort::VlanTunnel(true) => "vlan_tunnel on",
        InfoBridgePort::Isolated(true) => "isolated on",
        InfoBridgePort::Locked(true) => "locked on",
        InfoBridgePort::Mab(true) => "mab on",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Namespace, *};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn vxlan_links(host: &Namespace) -> Vec<VxlanLink> {
        host.block_on(async || Netlink::open().expect("a socket").vxlan_links().await).expect("asked")
    }

    #[test]
    fn as_ip_link_makes_them() {
        let host = Namespace::new();
        host.ip("link add eth0 type veth peer name eth1");
        host.ip("link add vx0 type vxlan id 16 local 192.0.2.1 dstport 0");
        host.ip("link add vx1 type vxlan id 0xff01 local 2001:db8::1 remote 2001:db8::2 dev eth0 dstport 4789 \
                 srcport 40000 50000 ttl 5 tos inherit flowlabel 0x12345 nolearning ageing 60 maxaddress 100 proxy rsc \
                 l2miss l3miss udp6zerocsumrx gbp");
        host.ip("link add vx2 type vxlan external dstport 4790");
        let eth0 = super::super::testing::index(&host, "eth0");
        let found = vxlan_links(&host);
        let [plain, full, external] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((plain.link.name.as_str(), plain.link.mtu), ("vx0", 1500));
        assert_eq!(plain.vxlan, Vxlan { vni: 16, local: Some(ip("192.0.2.1")), ..Vxlan::default() });
        let expected = Vxlan {
            vni: 0xff01,
            local: Some(ip("2001:db8::1")),
            remote: Some(ip("2001:db8::2")),
            dev: Some(eth0),
            port: 4789,
            source_ports: (40000, 50000),
            ttl: 5,
            tos: 1,
            flow_label: 0x12345,
            learning: false,
            ageing: 60,
            limit: 100,
            proxy: true,
            short_circuit: true,
            l2_miss: true,
            l3_miss: true,
            takes_zero_checksum6: true,
            group_policy: true,
            ..Vxlan::default()
        };
        assert_eq!((&full.vxlan, full.link.mtu), (&expected, 1430));
        assert_eq!(external.vxlan, Vxlan { port: 4790, learning: false, external: true, ..Vxlan::default() });
    }

    #[test]
    fn under_a_bridge() {
        let host = Namespace::new();
        host.ip("link add br0 type bridge");
        host.ip("link add br1 type bridge stp_state 1");
        host.ip("link add vx0 type vxlan id 16 dstport 4789");
        host.ip("link set vx0 master br0");
        host.ip("link set vx0 type bridge_slave learning off isolated on neigh_suppress on");
        let found = vxlan_links(&host).pop().expect("vx0");
        assert!(found.neighbour_suppression && found.link.master.is_some(), "{found:?}");
        assert_eq!(found.port_settings, ["learning off", "isolated on"]);
        let [br0, br1] = ["br0", "br1"].map(|name| super::super::testing::index(&host, name));
        let bridges = host.block_on(async || Netlink::open().expect("a socket").bridges().await);
        let stp = BridgeSettings { link_local: true, vlan_filtering: false };
        assert_eq!(bridges, Ok(BTreeMap::from([(br0, BridgeSettings::default()), (br1, stp)])));
    }
}
