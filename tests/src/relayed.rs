//! A mesh in which some nodes relay for the others.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::fabric::Wiring;
use crate::host::Host;
use crate::lab::Lab;
use crate::leg::Leg;
use crate::mesh::Agent;
use crate::paths::{Paths, Way};
use crate::segment::Segment;

/// Until every relay path has come up: their first probes are spread over half a minute.
const READY: Duration = Duration::from_secs(45);

/// Hosts behind a router, in one network with VNI 16 on l2m0; the last ones are relays. Inner addresses as in [`Segment`].
#[derive(Debug)]
pub struct RelayMesh<const N: usize> {
    /// All hosts.
    pub hosts: [Host; N],
    /// Their agents.
    pub agents: Vec<Agent>,
    /// Their paths.
    pub paths: Vec<Paths>,
    /// How many of them, at the end, are relays.
    pub relays: usize,
    /// The configuration file.
    pub file: String,
    /// Last: all of it goes with the lab.
    pub lab: Lab,
}

/// What is special about a mesh.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The wires.
    pub wiring: Wiring,
    /// Lines in `[probe]`.
    pub probe: &'a str,
    /// Mode of each host, as [`attach`] takes it; the last one's for all that follow.
    pub modes: &'a [&'a str],
    /// Further tables of the configuration file.
    pub more: &'a str,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Self { wiring: Wiring::default(), probe: "", modes: &["auto"], more: "" }
    }
}

impl<const N: usize> RelayMesh<N> {
    /// [`Self::attached`], and waits until everybody can reach everybody through every relay.
    #[must_use]
    #[track_caller]
    pub fn up(title: &str, names: [&str; N], relays: usize, plan: &Plan<'_>) -> Self {
        let mesh = Self::attached(title, names, relays, plan);
        mesh.wait_ready();
        mesh
    }

    /// Attaches all hosts; the last ones are relays.
    #[must_use]
    #[track_caller]
    pub fn attached(title: &str, names: [&str; N], relays: usize, plan: &Plan<'_>) -> Self {
        let lab = Lab::new(title);
        let hosts = lab.routed(names, &plan.wiring);
        let mut text = String::new();
        for (place, host) in hosts.iter().enumerate() {
            let (name, address, relay) = (host.name(), host.vtep(), place + relays >= N);
            writeln!(text, "[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nrelay = {relay}")
                .expect("a String takes everything");
        }
        let network = format!("[[network]]\nname = \"lan\"\nvni = {}\ninterface = \"l2m0\"\n", Segment::VNI);
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, format!("{text}[probe]\n{}\n{network}{}", plan.probe, plan.more))
            .expect("a file in the lab's directory");
        let file = path.display().to_string();
        let mode = |place: usize| *plan.modes.get(place).or(plan.modes.last()).expect("a mode");
        let attach = |(place, host): (usize, &Host)| attach(&lab, host, place, &file, mode(place));
        let agents = thread::scope(|scope| {
            let attach = &attach;
            let threads: Vec<_> = hosts.iter().enumerate().map(|one| scope.spawn(move || attach(one))).collect();
            threads.into_iter().map(|thread| thread.join().expect("an attach")).collect()
        });
        let paths = hosts.iter().map(Paths::of).collect();
        Self { hosts, agents, paths, relays, file, lab }
    }

    /// Waits until every pair can use every relay that is neither of them.
    #[track_caller]
    pub fn wait_ready(&self) {
        let first_relay = N - self.relays;
        for (a, paths) in self.paths.iter().enumerate() {
            for (b, peer) in self.hosts.iter().enumerate().filter(|(b, _)| *b != a) {
                let between = (first_relay..N).filter(|relay| *relay != a && *relay != b).count();
                paths.wait_ready(peer, between.min(3), READY);
                paths.wait_way(peer, &Way::Direct, READY);
            }
        }
    }

    /// Both directions between two hosts, by their places.
    #[must_use = "dropping them heals them"]
    #[track_caller]
    pub fn legs(&self, a: usize, b: usize) -> [Leg; 2] {
        self.lab.legs(&self.hosts[a], &self.hosts[b])
    }

    /// Waits until frames go this way in both directions.
    #[track_caller]
    pub fn wait_ways(&self, a: usize, b: usize, way: &Way, limit: Duration) {
        self.paths[a].wait_way(&self.hosts[b], way, limit);
        self.paths[b].wait_way(&self.hosts[a], way, limit);
    }

    /// Attaches a host whose agent has ended, as [`Self::up`] did; what it left is adopted.
    #[must_use = "dropping the agent ends it"]
    #[track_caller]
    pub fn attach_again(&self, place: usize, mode: &str) -> Agent {
        self.hosts[place].attach(&["--config", &self.file, "--mode", mode])
    }
}

/// Attaches a host of a mesh to l2m0, with the inner addresses of its place. Mode `xdp-tx` is xdp with a wire that takes what the
/// XDP program sends.
#[must_use = "dropping the agent ends it"]
#[track_caller]
pub fn attach(lab: &Lab, host: &Host, place: usize, file: &str, mode: &str) -> Agent {
    // No router solicitations or MLD reports of l2m0's own between the frames of a test.
    host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
    let mode = if mode == "xdp-tx" {
        lab.ready_for_xdp(host);
        &["--mode", "xdp", "--xdp-tx", "on"][..]
    } else {
        &["--mode", mode]
    };
    let agent = host.attach(&[&["--config", file], mode].concat());
    Segment::address(host, "l2m0", place);
    agent
}
