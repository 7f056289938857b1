//! A host in many networks, or with many stations behind its only peer.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use l2mesh_tests::{Host, Lab, MacAddr, Process, Wiring, wait_for};
use serde_json::Value;

use super::{Load, Subject};
use crate::bench::{
    contender::{self, Kind},
    float,
    machine::{RECEIVER, SENDER},
    pattern::Pattern,
    programs::{Attached, Burst, Programs},
    transmit,
};

/// VNIs are this and the number of the network.
const FIRST_VNI: u32 = 0x01_0000;
/// Where the last two octets of the VNI stand behind an outer header of IPv4.
const VNI_AT: [u16; 2] = [47, 48];
/// Where those of the inner source's MAC address do.
const SOURCE_AT: [u16; 2] = [60, 61];
/// Where those of the destination's do in a frame without outer header.
const DESTINATION_AT: [u16; 2] = [4, 5];
/// The first station behind the peer.
const STATION: MacAddr = MacAddr([2, 0, 0x5e, 0x10, 0, 0]);
/// Overlay addresses; nobody has them.
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 8, 0, 2), Ipv4Addr::new(10, 8, 0, 1)];
/// What is sent there passes the fan.
const BEHIND_FAN: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// How long thousands of networks may take.
const UP: Duration = Duration::from_mins(15);
/// So many networks have hooks of their own, and with them the shortcut.
const OWN_HOOKS: usize = 64;
const SHORTCUTS: Duration = Duration::from_mins(1);
/// What `l2mesh maps networks` says then.
const SHORTCUT: &str = "egress shortcut";
/// On a busy machine a receiver may be kept waiting until frames are lost.
const TRIES: u32 = 10;
/// Fewer learned addresses are over too soon to be timed.
const ENOUGH: u32 = 10_000;

/// Two hosts on one wire: `a` has the networks, and `b` is outside and plays the peer. Frames sent pass a fan on an interface
/// of their own, so that one socket can send into any number of networks.
pub(crate) struct Town {
    pub(crate) kind: Kind,
    /// Networks, or stations in one.
    pub(crate) size: u32,
    subject: Subject,
    a: Host,
    b: Host,
    /// The overlay interfaces.
    interfaces: Vec<u32>,
    mac: MacAddr,
    _attached: Vec<Attached>,
    _agent: Option<Process>,
}

impl Town {
    /// Builds it.
    ///
    /// # Errors
    /// A program cannot be attached.
    pub(crate) fn new(
        lab: &Lab,
        subject: Subject,
        kind: Kind,
        size: u32,
        programs: &mut Programs,
    ) -> anyhow::Result<Self> {
        let key = format!("{}{size}", kind.key());
        let [a, b] = lab.pair([&format!("{key}-a"), &format!("{key}-b")], &Wiring::default());
        a.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let networks = if subject == Subject::Networks { size } else { 1 };
        let names: Vec<_> = match kind {
            Kind::Bare => vec!["eth0".to_owned()],
            _ => (0..networks).map(|nth| format!("n{nth}")).collect(),
        };
        let agent = match kind {
            Kind::Bare => None,
            Kind::Vxlan | Kind::VxlanXdp => {
                vxlan(lab, &a, &b, &names);
                None
            }
            Kind::Tc | Kind::Xdp => Some(l2mesh(lab, &a, &b, kind, &names)),
        };
        // A device that asks for as much headroom as the networks have, and is never sent through.
        a.run("ip link add fan0 type vxlan external dstport 40000");
        a.run("ip link set dev fan0 up");
        a.add_address("fan0", "198.18.0.1/24");
        a.run(&format!("ip neigh replace {BEHIND_FAN} lladdr {STATION} dev fan0 nud permanent"));
        // The first thing that is sent asks for the peer's MAC address.
        a.run(&format!("ping -n -q -c 1 -W 2 {}", b.address()));
        let links = a.ip_json(&["link", "show"]);
        let index = |name: &String| {
            let link = links.iter().find(|link| link["ifname"] == **name)?;
            u32::try_from(link["ifindex"].as_u64()?).ok()
        };
        let interfaces: Option<Vec<_>> = names.iter().map(index).collect();
        let mut attached = programs.attach_fan(&a, "fan0")?;
        if kind != Kind::Bare {
            attached.extend(programs.attach_sinks(&a, &names)?);
        }
        let mac = a.mac(&names[0]);
        Ok(Self {
            kind,
            size,
            subject,
            a,
            b,
            interfaces: interfaces.context("an interface is missing")?,
            mac,
            _attached: attached,
            _agent: agent,
        })
    }

    /// Nanoseconds that a small frame to one station or to all in turn takes, its way into a sink on the wire's other end
    /// included.
    ///
    /// # Errors
    /// A frame does not arrive, or is flooded.
    pub(crate) fn sent(&self, programs: &mut Programs, load: Load, time: Duration) -> anyhow::Result<f64> {
        if self.kind != Kind::Bare {
            self.introduce(programs)?;
        }
        // See the `transmit` of pairs.
        self.b.offload("eth0", &["gro", "off"]);
        let sink = programs.attach_sink(&self.b, "eth0")?;
        programs.aim(&self.outgoing(load), &self.interfaces)?;
        let (before, flooded) = (programs.arrived()?, self.counter("flooded"));
        let sent = self.a.in_namespace(|| transmit::flood(BEHIND_FAN.into(), time))?;
        let arrived = programs.arrived()? - before;
        drop(sink);
        self.b.offload("eth0", &["gro", "on"]);
        let share = float(arrived) / float(sent.frames);
        ensure!(share > 0.98, "{self}: only {:.0} % of the sent frames arrived", share * 100.0);
        ensure!(self.counter("flooded") == flooded, "{self}: frames to a known station were flooded");
        Ok(sent.nanoseconds_per_frame())
    }

    /// Nanoseconds that a small frame from one station or from all in turn takes the processor that receives it.
    ///
    /// # Errors
    /// Nothing arrives.
    pub(crate) fn received(&self, programs: &mut Programs, load: Load, time: Duration) -> anyhow::Result<f64> {
        self.introduce(programs)?;
        let _napi = self.a.thread_napi("eth0", RECEIVER);
        Ok(1e9 / programs.generate(&self.b, "eth0", &self.incoming(self.items(load)), SENDER, time)?)
    }

    /// MAC addresses learned, in thousands per second; none where there are few.
    ///
    /// # Errors
    /// Not all of them are learned.
    pub(crate) fn learned(&self, programs: &mut Programs) -> anyhow::Result<Option<f64>> {
        if self.size < ENOUGH {
            return Ok(None);
        }
        let mut last = None;
        for _ in 0..TRIES {
            if self.kind.is_l2mesh() {
                self.a.pinned("eth0").forget_macs();
            } else {
                // It forgets what it learned.
                self.a.run("ip link set dev n0 down");
                self.a.run("ip link set dev n0 up");
            }
            let before = self.counter("learned");
            let burst = self.introduce_once(programs)?;
            last = Some(burst);
            if burst.arrived < u64::from(self.size) {
                continue;
            }
            if self.kind.is_l2mesh() {
                let learned = self.counter("learned") - before;
                ensure!(learned == burst.arrived, "{self}: learned {learned} of {} stations", burst.arrived);
            }
            return Ok(burst.rate.map(|rate| rate / 1e3));
        }
        bail!("{self}: frames are lost, {last:?}")
    }

    /// Every station sends a frame, so that it is known.
    fn introduce(&self, programs: &mut Programs) -> anyhow::Result<()> {
        let mut last = None;
        for _ in 0..TRIES {
            let burst = self.introduce_once(programs)?;
            if burst.arrived == u64::from(self.size) {
                return Ok(());
            }
            last = Some(burst);
        }
        bail!("{self}: frames are lost, {last:?}")
    }

    fn introduce_once(&self, programs: &mut Programs) -> anyhow::Result<Burst> {
        let _napi = self.a.thread_napi("eth0", RECEIVER);
        programs.burst(&self.b, "eth0", &self.incoming(0..self.size), SENDER)
    }

    fn items(&self, load: Load) -> Range<u32> {
        let middle = self.size / 2;
        match load {
            Load::One => middle..middle + 1,
            Load::Turn => 0..self.size,
        }
    }

    /// Frames from the stations, as `b` sends them.
    fn incoming(&self, items: Range<u32>) -> Pattern {
        let inner = contender::small_frame((self.mac, STATION), INNER.map(IpAddr::from));
        let underlay = [self.b.vtep(), self.a.vtep()];
        let frame = contender::encapsulated((self.a.uplink(0).mac, self.b.uplink(0).mac), underlay, FIRST_VNI, &inner);
        let item = if self.subject == Subject::Networks { VNI_AT } else { SOURCE_AT };
        Pattern { frame, flows: contender::flows(underlay[0], INNER[0].into()), item, items }
    }

    /// Frames to the stations, as the fan makes them.
    fn outgoing(&self, load: Load) -> Pattern {
        let to = if self.kind == Kind::Bare { self.b.uplink(0).mac } else { STATION };
        let frame = [to.0, self.mac.0].concat();
        let item = match (self.kind, self.subject) {
            (Kind::Bare, _) | (_, Subject::Networks) => [0; 2],
            (_, Subject::Macs) => DESTINATION_AT,
        };
        Pattern { frame, flows: [0; 2], item, items: self.items(load) }
    }

    /// Of l2mesh; 0 for others.
    fn counter(&self, verdict: &str) -> u64 {
        if self.kind.is_l2mesh() { self.a.counter(verdict) } else { 0 }
    }
}

impl std::fmt::Display for Town {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} {}", self.kind, self.size, self.subject.key())
    }
}

/// A vxlan device for each network.
fn vxlan(lab: &Lab, a: &Host, b: &Host, names: &[String]) {
    let mut batch = String::new();
    for (vni, name) in (FIRST_VNI..).zip(names) {
        let (local, remote) = (a.vtep(), b.vtep());
        _ = writeln!(
            batch,
            "link add {name} type vxlan id {vni} local {local} remote {remote} dstport 4789 dev eth0\n\
             link set dev {name} up"
        );
    }
    let path = lab.directory().join(format!("{}.batch", a.name()));
    fs::write(&path, batch).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    a.run(&format!("ip -batch {}", path.display()));
}

/// l2mesh in each network.
fn l2mesh(lab: &Lab, a: &Host, b: &Host, kind: Kind, names: &[String]) -> Process {
    let mut file = String::new();
    for host in [a, b] {
        _ = writeln!(file, "[[node]]\nname = \"{}\"\naddress = \"{}\"", host.name(), host.vtep());
    }
    for (vni, name) in (FIRST_VNI..).zip(names) {
        _ = writeln!(file, "[[network]]\nname = \"{name}\"\nvni = {vni}\ninterface = \"{name}\"");
    }
    let path = lab.directory().join(format!("{}.toml", a.name()));
    fs::write(&path, file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.display().to_string();
    let mut agent = a.spawn_l2mesh(&["attach", "--iface", "eth0", "--mode", kind.mode(), "--config", &path]);
    agent.wait_log_line("up: node", UP);
    // Of more, only those that are busy get it (`agent/own_hooks.rs`): they are measured as they are.
    if names.len() > OWN_HOOKS {
        return agent;
    }
    wait_for(&format!("{} transmits by the shortcut", a.name()), SHORTCUTS, || {
        let all = a.l2mesh(&["maps", "networks", "--json"]);
        let is_shortcut = |network: &Value| network["transmit"].as_str().is_some_and(|it| it.starts_with(SHORTCUT));
        match all["networks"].as_array() {
            Some(networks) => {
                networks.iter().find(|network| !is_shortcut(network)).map_or(Ok(()), |it| Err(it.to_string()))
            }
            None => Err(all.to_string()),
        }
    });
    agent
}
