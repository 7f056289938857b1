//! Bulk TCP between two hosts that reach each other through a third alone.

use std::{fmt::Write as _, fs, time::Duration};

use l2mesh_tests::{Agent, Host, Lab, Leg, Paths, Way, Wiring, traffic, traffic::Iperf};

use super::frames::{VNIS, bridged};
use crate::bench::contender::Kind;

/// Hosts, and their addresses on the network.
const NAMES: [&str; 3] = ["s", "m", "e"];
const INNER: [&str; 3] = ["10.8.0.1", "10.8.0.3", "10.8.0.2"];
/// What the network's interface is called everywhere.
const INTERFACE: &str = "vx0";
/// Until the relay is used.
const LIMIT: Duration = Duration::from_mins(1);

/// Sender, relay, receiver.
pub(super) struct Chain {
    pub(super) kind: Kind,
    hosts: [Host; 3],
    iperf: Iperf,
    _agents: Vec<Agent>,
    _cut: Vec<Leg>,
}

impl Chain {
    /// All hosts are on one switch.
    pub(super) fn all(lab: &Lab, kinds: impl Iterator<Item = Kind>) -> Vec<Self> {
        let [] = lab.switch([], &Wiring::default());
        kinds.map(|kind| Self::new(lab, kind)).collect()
    }

    fn new(lab: &Lab, kind: Kind) -> Self {
        let hosts = NAMES.map(|end| {
            let host = lab.host(&format!("{}-{end}", kind.key()));
            lab.add_uplink(&host, &Wiring::default());
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
            host
        });
        let [sender, relay, receiver] = &hosts;
        let (mut agents, mut cut) = (Vec::new(), Vec::new());
        if kind.is_l2mesh() {
            let file = configuration(lab, kind, &hosts);
            if kind == Kind::Xdp {
                hosts.iter().for_each(|host| lab.ready_for_xdp(host));
            }
            let args = [&["--config", &file], &super::modes(kind)[..]].concat();
            agents.extend(hosts.iter().map(|host| host.attach(&args)));
            cut.extend(lab.legs(sender, receiver));
            cut.iter_mut().for_each(Leg::cut);
            for (own, other) in [(sender, receiver), (receiver, sender)] {
                Paths::of(own).wait_way(other, &Way::via(relay), LIMIT);
            }
        } else {
            for (host, vni) in [(sender, VNIS[0]), (receiver, VNIS[1])] {
                let (local, remote) = (host.vtep(), relay.vtep());
                host.run(&format!(
                    "ip link add {INTERFACE} type vxlan id {vni} local {local} remote {remote} dstport 4789 dev eth0"
                ));
                host.run(&format!("ip link set dev {INTERFACE} up"));
            }
            bridged(relay, [sender, receiver].map(Host::vtep));
        }
        for (host, address) in [(sender, INNER[0]), (receiver, INNER[2])] {
            host.wait_carrier(INTERFACE);
            host.add_address(INTERFACE, &format!("{address}/24"));
        }
        let target: std::net::Ipv4Addr = INNER[2].parse().expect("an address");
        let report = traffic::ping(sender, target, 5);
        assert!(report.received > 0, "{kind}: the hosts do not reach each other: {report:?}");
        let iperf = Iperf::serve(receiver, target);
        Self { kind, hosts, iperf, _agents: agents, _cut: cut }
    }

    /// Gigabits per second.
    pub(super) fn measure(&mut self, time: Duration) -> f64 {
        self.iperf.tcp(&self.hosts[0], time, 1).bits_per_second / 1e9
    }
}

fn configuration(lab: &Lab, kind: Kind, hosts: &[Host; 3]) -> String {
    let mut text = String::new();
    for (host, end) in hosts.iter().zip(NAMES) {
        let (name, address, is_relay) = (host.name(), host.vtep(), end == NAMES[1]);
        _ = writeln!(text, "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nrelay = {is_relay}");
    }
    _ = writeln!(text, "[[network]]\nname = \"n\"\nvni = {}\ninterface = \"{INTERFACE}\"", VNIS[0]);
    let path = lab.directory().join(format!("{}-tcp.toml", kind.key()));
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}
