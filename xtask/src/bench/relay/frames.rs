//! Small frames through a relay: all of them come from one host, which is the receiver too.

use std::{fmt::Write as _, fs, net::IpAddr, time::Duration};

use aya::programs::xdp::XdpLink;
use l2mesh_tests::{Agent, Host, Lab, MacAddr, Wiring, wait_for};

use crate::bench::{
    contender::{self, Kind},
    machine::{RECEIVER, SENDER},
    pattern::Pattern,
    programs::Programs,
};

/// Networks of the sender and, for bridged devices, of the receiver.
pub(super) const VNIS: [u32; 2] = [16, 17];
/// The receiver's address, on the sender too.
const FAR: [u8; 4] = [192, 0, 2, 100];
/// Who is inside, and who is asked to be.
const STATIONS: [MacAddr; 2] = [MacAddr([2, 0, 0x5e, 0x10, 0, 1]), MacAddr([2, 0, 0x5e, 0x10, 0, 2])];
const INNER: [[u8; 4]; 2] = [[10, 8, 0, 1], [10, 8, 0, 2]];
/// The receiver's identifier.
const FAR_ID: u32 = 0x0102_0304;
/// Please relay (design.md 4), and where that stands.
const RELAY: u8 = 0x02;
const VXLAN: usize = 42;
const LIMIT: Duration = Duration::from_secs(10);

/// A relay, and who keeps it busy.
pub(super) struct Relay {
    pub(super) kind: Kind,
    a: Host,
    r: Host,
    _agent: Option<Agent>,
    _link: Option<XdpLink>,
}

impl Relay {
    /// Builds it.
    ///
    /// # Errors
    /// The configuration cannot be written, or XDP is refused.
    pub(super) fn new(lab: &Lab, kind: Kind, programs: &mut Programs) -> anyhow::Result<Self> {
        let names = ["a", "r"].map(|end| format!("{}-{end}", kind.key()));
        let [a, r] = lab.pair([&names[0], &names[1]], &Wiring::default());
        for host in [&a, &r] {
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        }
        let far = IpAddr::from(FAR);
        a.add_address("eth0", &format!("{far}/32"));
        let agent = if kind.is_l2mesh() {
            let mut text = String::new();
            for (name, address, more) in
                [("a", a.vtep(), ""), ("far", far, &*format!("id = {FAR_ID}")), ("r", r.vtep(), "relay = true")]
            {
                writeln!(text, "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\n{more}")?;
            }
            writeln!(text, "[[network]]\nname = \"n\"\nvni = {}\ninterface = \"n0\"", VNIS[0])?;
            let path = lab.directory().join(format!("{}.toml", kind.key()));
            fs::write(&path, text)?;
            let agent = r.attach(&[&["--config", &path.display().to_string()], &super::modes(kind)[..]].concat());
            wait_for("the next hop is known", LIMIT, || {
                let peers = r.l2mesh(&["maps", "peers", "--json"]);
                let rows = peers["peers"].as_array().map_or(&[][..], Vec::as_slice);
                let known = rows.iter().filter(|row| !row["next_hop"].is_null()).count();
                if known == 2 { Ok(()) } else { Err(peers.to_string()) }
            });
            Some(agent)
        } else {
            bridged(&r, [a.vtep(), far]);
            r.run(&format!("bridge fdb add {} dev vx1 master static", STATIONS[1]));
            r.run(&format!("ip neigh replace {far} lladdr {} dev eth0 nud permanent", a.mac("eth0")));
            r.run(&format!("ip neigh replace {} lladdr {} dev eth0 nud permanent", a.vtep(), a.mac("eth0")));
            None
        };
        // A veth wakes up its peer for XDP_TX only if that has a program too.
        let link = if kind == Kind::Xdp { Some(programs.attach_pass(&a, "eth0")?) } else { None };
        Ok(Self { kind, a, r, _agent: agent, _link: link })
    }

    /// Frames that come through, in thousands per second.
    ///
    /// # Errors
    /// Nothing comes.
    pub(super) fn measure(&self, programs: &mut Programs, time: Duration) -> anyhow::Result<f64> {
        let _threads = [&self.r, &self.a].map(|host| host.thread_napi("eth0", RECEIVER));
        let _sink = programs.attach_sink(&self.a, "eth0")?;
        Ok(programs.generate(&self.a, "eth0", &self.pattern(), SENDER, time)? / 1e3)
    }

    /// As the sender's host sends them to the relay.
    fn pattern(&self) -> Pattern {
        let inner = contender::small_frame((STATIONS[1], STATIONS[0]), INNER.map(IpAddr::from));
        let (macs, underlay) = ((self.r.mac("eth0"), self.a.mac("eth0")), [self.a.vtep(), self.r.vtep()]);
        let mut frame = contender::encapsulated(macs, underlay, VNIS[0], &inner);
        if self.kind.is_l2mesh() {
            let [first, second, third, last] = FAR_ID.to_be_bytes();
            frame[VXLAN] |= RELAY;
            frame[VXLAN + 1..VXLAN + 4].copy_from_slice(&[first, second, third]);
            frame[VXLAN + 7] = last;
        }
        Pattern::of(frame, contender::flows(underlay[0], INNER[0].into()))
    }
}

/// The kernel's way: a vxlan device for each of two hosts, and a bridge.
pub(super) fn bridged(host: &Host, remotes: [IpAddr; 2]) {
    for table in ["iptables", "ip6tables", "arptables"] {
        host.try_exec("sysctl", &["-qw", &format!("net.bridge.bridge-nf-call-{table}=0")]);
    }
    host.run("ip link add name br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
    host.run("ip link set dev br0 addrgenmode none");
    host.run("ip link set dev br0 up");
    let local = host.vtep();
    for ((remote, vni), place) in remotes.into_iter().zip(VNIS).zip(0..) {
        let name = format!("vx{place}");
        host.run(&format!(
            "ip link add {name} type vxlan id {vni} local {local} remote {remote} dstport 4789 dev eth0"
        ));
        host.run(&format!("ip link set dev {name} addrgenmode none master br0"));
        host.run(&format!("ip link set dev {name} up"));
        host.wait_carrier(&name);
    }
}
