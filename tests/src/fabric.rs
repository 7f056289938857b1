//! The underlay: wires between hosts, a switch or a router in the middle.

mod cuts;
mod plan;

use std::array;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use l2mesh_common::wire::MacAddr;

use self::plan::Plan;
use crate::delay::Delay;
use crate::foreign;
use crate::host::Host;
use crate::lab::Lab;
use crate::site::lock;

/// What travels on a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wire {
    /// Frames as a real wire has them: no longer than the MTU, checksums filled in.
    #[default]
    Frames,
    /// veth as it is: 64 KiB frames without checksums cross it.
    Plain,
}

/// Of which IP version the addresses are that the mesh is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// How hosts are wired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wiring {
    /// What travels on the wires.
    pub wire: Wire,
    /// The hosts' underlay interface.
    pub interface: String,
    /// Octets of an IP packet.
    pub mtu: u32,
    /// Queues each way; native XDP needs as many receive queues as the far end has transmit queues.
    pub queues: u32,
    /// Adds IPv6 addresses to the underlay.
    pub ipv6: bool,
    /// Which of its addresses a host is called by ([`Host::vtep`]); IPv6 adds those too.
    pub family: Family,
    /// How long every frame between a host and the switch or router takes, each way.
    pub delay: Duration,
}

impl Default for Wiring {
    fn default() -> Self {
        let (wire, interface, family) = (Wire::Frames, "eth0".to_owned(), Family::V4);
        Self { wire, interface, mtu: 1500, queues: 2, ipv6: false, family, delay: Duration::ZERO }
    }
}

impl Wiring {
    /// As by default, with the mesh over one IP version.
    #[must_use]
    pub fn over(family: Family) -> Self {
        Self { family, ..Self::default() }
    }

    fn has_ipv6(&self) -> bool {
        self.ipv6 || self.family == Family::V6
    }
}

/// One underlay interface of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplink {
    /// Its name on the host.
    pub interface: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its address with [`Wiring::ipv6`].
    pub address6: Option<Ipv6Addr>,
    /// The one of the two that the mesh is told ([`Wiring::family`]).
    pub vtep: IpAddr,
    /// Bits of the IPv4 prefix; IPv6 has 64.
    pub prefix: u8,
    /// The router, where there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The router's IPv6 address.
    pub gateway6: Option<Ipv6Addr>,
    /// The other end, on [`Lab::fabric`]; on a pair, the other host's interface; of a tunnel there is none, and it is empty.
    pub port: String,
}

/// The middle: a bridge or a router, with a port for each uplink.
#[derive(Debug)]
pub(crate) struct Fabric {
    pub(crate) host: Host,
    kind: Kind,
    /// Uplinks so far.
    uplinks: u8,
    /// Where wires with a delay end, and what hands their frames on.
    slow: Option<Host>,
    delays: Vec<Delay>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Switch,
    Router,
}

/// The bridge of a switch.
const BRIDGE: &str = "switch";
/// Where cut traffic goes: a bridge without ports.
const VOID: &str = "void";
/// The router's link-local address on every port.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Lab {
    /// Two hosts on one wire.
    #[must_use]
    #[track_caller]
    pub fn pair(&self, names: [&str; 2], wiring: &Wiring) -> [Host; 2] {
        let hosts = names.map(|name| self.host(name));
        let [a, b] = &hosts;
        let dev = &wiring.interface;
        add_veth(a, dev, b, dev, wiring);
        for (index, host) in [(0, a), (1, b)] {
            connect_uplink(host, &Plan::shared(index, wiring), dev.clone(), dev);
        }
        for host in &hosts {
            host.wait_carrier(dev);
        }
        hosts
    }

    /// Hosts on one thin bridge: no STP, no multicast snooping, no netfilter.
    #[must_use]
    #[track_caller]
    pub fn switch<const N: usize>(&self, names: [&str; N], wiring: &Wiring) -> [Host; N] {
        self.build(Kind::Switch, names, wiring)
    }

    /// Hosts in a subnet each, behind one router: every frame to another host goes to the gateway's MAC.
    #[must_use]
    #[track_caller]
    pub fn routed<const N: usize>(&self, names: [&str; N], wiring: &Wiring) -> [Host; N] {
        self.build(Kind::Router, names, wiring)
    }

    fn build<const N: usize>(&self, kind: Kind, names: [&str; N], wiring: &Wiring) -> [Host; N] {
        {
            let mut fabric = lock(&self.fabric);
            assert!(fabric.is_none(), "a lab has one switch or router");
            let slow = (!wiring.delay.is_zero()).then(|| self.host("slow"));
            *fabric = Some(Fabric::new(self.host("fabric"), kind, slow, wiring));
        }
        let hosts = array::from_fn(|index| self.host(names[index]));
        for host in &hosts {
            self.add_uplink(host, wiring);
        }
        hosts
    }

    /// One more interface for a host, or the first for a new one, on the switch or router there is.
    /// Behind a router it gets a subnet of its own; the default route stays with the first uplink.
    #[track_caller]
    pub fn add_uplink(&self, host: &Host, wiring: &Wiring) -> Uplink {
        let mut fabric = lock(&self.fabric);
        fabric.as_mut().expect("a lab with a switch or a router").connect(host, wiring)
    }

    /// How many packets the router has not forwarded because they were too big.
    #[must_use]
    #[track_caller]
    pub fn too_big_drops(&self) -> u64 {
        let fabric = self.fabric();
        // Two lines a protocol: names, then values.
        let text = fabric.run("cat /proc/net/snmp").stdout;
        let mut lines = text.lines().filter(|line| line.starts_with("Ip:")).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let v4 = names.zip(values).find(|(name, _)| *name == "FragFails").map(|(_, value)| value);
        let text = fabric.run("cat /proc/net/snmp6").stdout;
        let v6 = text.lines().find_map(|line| line.strip_prefix("Ip6InTooBigErrors")).map(str::trim);
        [v4, v6].iter().flatten().map(|value| value.parse::<u64>().expect("a count")).sum()
    }

    /// Wakes up the far end of a host's wire for what XDP sends back (`XDP_TX`): on a veth that has no XDP program at the other
    /// end, such frames wait until something else is sent (`veth_xdp_flush` in drivers/net/veth.c). Real cards do not need it.
    #[track_caller]
    pub fn ready_for_xdp(&self, host: &Host) {
        let fabric = self.fabric();
        let program = foreign::Counter::load(&fabric, foreign::Kind::Xdp);
        for uplink in host.uplinks() {
            program.attach_xdp(&fabric, &uplink.port);
        }
    }

    /// Panics if a veth of the underlay lost a frame that XDP sent: at every host and every port.
    #[track_caller]
    pub fn assert_no_xdp_errors(&self, hosts: &[Host]) {
        let fabric = lock(&self.fabric).as_ref().map(|fabric| fabric.host.clone());
        for host in hosts {
            for uplink in host.uplinks() {
                host.assert_no_xdp_errors(&uplink.interface);
                if let Some(fabric) = &fabric {
                    fabric.assert_no_xdp_errors(&uplink.port);
                }
            }
        }
    }
}

impl Fabric {
    fn new(host: Host, kind: Kind, slow: Option<Host>, wiring: &Wiring) -> Self {
        host.run(&format!("ip link add name {VOID} type bridge"));
        host.run(&format!("ip link set dev {VOID} addrgenmode none"));
        host.run(&format!("ip link set dev {VOID} up"));
        match kind {
            Kind::Switch => {
                for table in ["iptables", "ip6tables", "arptables"] {
                    // Without the module the switch is off anyway.
                    host.try_exec("sysctl", &["-qw", &format!("net.bridge.bridge-nf-call-{table}=0")]);
                }
                host.run(&format!(
                    "ip link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                ));
                host.run(&format!("ip link set dev {BRIDGE} mtu {} addrgenmode none", wiring.mtu));
                host.run(&format!("ip link set dev {BRIDGE} up"));
            }
            Kind::Router => {
                host.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
            }
        }
        Self { host, kind, uplinks: 0, slow, delays: Vec::new() }
    }

    fn connect(&mut self, host: &Host, wiring: &Wiring) -> Uplink {
        let nth = host.uplinks().len();
        let port = if nth == 0 { host.name().to_owned() } else { format!("{}.{nth}", host.name()) };
        let plan = match self.kind {
            Kind::Switch => Plan::shared(self.uplinks, wiring),
            Kind::Router => Plan::own(self.uplinks, wiring),
        };
        self.uplinks += 1;
        let interface =
            if nth == 0 || wiring.interface != "eth0" { wiring.interface.clone() } else { format!("eth{nth}") };
        self.wire(&port, host, &interface, wiring);
        match self.kind {
            Kind::Switch => {
                self.host.run(&format!("ip link set dev {port} master {BRIDGE}"));
            }
            Kind::Router => {
                if plan.gateway6.is_some() {
                    ready_for_ipv6(&self.host, &port, ROUTER);
                }
                for (address, bits) in plan.gateways() {
                    self.host.add_address(&port, &format!("{address}/{bits}"));
                }
            }
        }
        self.host.run(&format!("ip link set dev {port} up"));
        let uplink = connect_uplink(host, &plan, port, &interface);
        host.wait_carrier(&uplink.interface);
        self.host.wait_carrier(&uplink.port);
        uplink
    }

    /// One wire, or two with somebody between them who takes his time.
    fn wire(&mut self, port: &str, host: &Host, interface: &str, wiring: &Wiring) {
        let Some(slow) = &self.slow else { return add_veth(&self.host, port, host, interface, wiring) };
        let ends = ["n", "f"].map(|end| format!("{port}-{end}"));
        let [near, far] = &ends;
        add_veth(slow, near, host, interface, wiring);
        add_veth(&self.host, port, slow, far, wiring);
        for end in &ends {
            slow.run(&format!("ip link set dev {end} up"));
        }
        self.delays.push(Delay::between(slow, [near, far], wiring.delay));
    }
}

/// A wire between two hosts, with names and offloads, not yet up.
fn add_veth(near_host: &Host, near: &str, far_host: &Host, far: &str, wiring: &Wiring) {
    let Wiring { queues, mtu, .. } = wiring;
    let queues = format!("mtu {mtu} numtxqueues {queues} numrxqueues {queues}");
    near_host.run(&format!(
        "ip link add name {near} {queues} type veth peer name {far} {queues} netns {}",
        far_host.namespace()
    ));
    for (host, interface) in [(near_host, near), (far_host, far)] {
        // No router solicitations or MLD reports of the underlay's own between the frames of a test.
        host.run(&format!("ip link set dev {interface} addrgenmode none"));
        // GRO means NAPI: without it what XDP sends into the far end is lost. It changes nothing for
        // frames that their sender has not cut up.
        host.offload(interface, &["gro", "on"]);
        if wiring.wire == Wire::Frames {
            host.offload(interface, &["tso", "off", "gso", "off", "tx", "off"]);
        }
    }
}

fn connect_uplink(host: &Host, plan: &Plan, port: String, interface: &str) -> Uplink {
    let &Plan { address, address6, family, prefix, gateway, gateway6 } = plan;
    host.add_address(interface, &format!("{address}/{prefix}"));
    if let Some(address) = address6 {
        ready_for_ipv6(host, interface, plan.link_local());
        host.add_address(interface, &format!("{address}/64"));
    }
    host.run(&format!("ip link set dev {interface} up"));
    if host.uplinks().is_empty() {
        if let Some(gateway) = gateway {
            host.run(&format!("ip route add default via {gateway}"));
        }
        if gateway6.is_some() {
            // As routers announce themselves (RFC 4861 section 6.1.2).
            host.run(&format!("ip route add default via {ROUTER} dev {interface}"));
        }
    }
    let interface = interface.to_owned();
    let mac = host.mac(&interface);
    let vtep = match (family, address6) {
        (Family::V6, Some(address)) => address.into(),
        _ => address.into(),
    };
    let uplink = Uplink { interface, mac, address, address6, vtep, prefix, gateway, gateway6, port };
    host.add_uplink(uplink.clone());
    uplink
}

/// The link-local address without which the kernel solicits no neighbour; no address comes by itself.
fn ready_for_ipv6(host: &Host, interface: &str, link_local: Ipv6Addr) {
    host.run(&format!("sysctl -qw net/ipv6/conf/{interface}/accept_ra=0"));
    host.add_address(interface, &format!("{link_local}/64"));
}
