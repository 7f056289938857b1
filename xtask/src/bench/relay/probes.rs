//! What it costs to watch the paths of a mesh: one real node, and a crowd that plays the others.

use std::{fmt::Write as _, fs, time::Duration};

use aya::programs::xdp::XdpLink;
use l2mesh_tests::{
    Agent, Host, Lab, NapiThreads, Paths, Wiring,
    crowd::{Crowd, Mesh},
    wait_for,
};

use super::report::Row;
use crate::bench::{
    contender::Kind,
    float,
    machine::{RECEIVER, SENDER},
    programs::Programs,
};

/// Nodes of the mesh, the real one included.
pub(super) const NODES: u32 = 256;
const MESH: Mesh = Mesh {
    others: NODES - 1,
    relays: 3,
    is_relay: false,
    interval: Duration::from_millis(100),
    // The default of a mesh of that size.
    relay_interval: Duration::from_secs(10),
};
/// Until every path is up; first probes of relays are spread over half a minute.
const UP: Duration = Duration::from_secs(90);

/// The real node.
pub(super) struct Watched {
    mesh: Mesh,
    kind: Kind,
    agent: Agent,
    crowd: Crowd,
    threads: [NapiThreads; 2],
    /// Probes in both directions, those that were relayed, and the time.
    seen: (u64, u64, Duration),
    host: Host,
    _link: Option<XdpLink>,
}

impl Watched {
    /// Attaches it, and waits until all paths are up.
    ///
    /// # Errors
    /// XDP is refused.
    pub(super) fn new(lab: &Lab, kind: Kind, is_relay: bool, programs: &mut Programs) -> anyhow::Result<Self> {
        let mesh = Mesh { is_relay, ..MESH };
        let [node, others] = lab.pair(["node", "others"], &Wiring::default());
        for host in [&node, &others] {
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        }
        node.run(&format!("ip route add 198.18.0.0/16 via {}", others.address()));
        let file = configuration(lab, &node, mesh);
        // What the crowd receives is not the node's work.
        let threads = [node.thread_napi("eth0", RECEIVER), others.thread_napi("eth0", SENDER)];
        // Else each single frame wakes the thread that receives, on another processor: most of what is measured is that then. Cards
        // deliver what comes at about the same time together.
        let crowd = Crowd::start(&others, &node, mesh, Some(RECEIVER));
        let link = if kind == Kind::Xdp { Some(programs.attach_pass(&others, "eth0")?) } else { None };
        let agent = node.attach(&[&["--config", &file], &super::modes(kind)[..]].concat());
        let paths = Paths::of(&node);
        // Those to a relay through itself are none.
        let relays = mesh.others().filter(|id| mesh.is_relay(*id)).count();
        let all = (NODES as usize - 1) * (1 + relays) - relays;
        wait_for("all paths are up", UP, || match paths.count_up() {
            few if few < all => Err(format!("{few} of {all}, the crowd {:?}", crowd.counts())),
            _ => Ok(()),
        });
        Ok(Self { mesh, kind, agent, crowd, threads, seen: (0, 0, Duration::ZERO), host: node, _link: link })
    }

    /// Percent of a processor that the agent uses, and what receives, reflects and relays for it.
    pub(super) fn measure(&mut self, time: Duration) -> [(Row, f64); 2] {
        let look = |this: &mut Self| {
            let times = [this.agent.process().cpu_time(), this.threads[0].time()];
            let [answered, _, answers] = this.crowd.counts();
            (times, answered + answers, this.host.counter("relayed"))
        };
        let (before, start) = (look(self), std::time::Instant::now());
        std::thread::sleep(time);
        let (after, time) = (look(self), start.elapsed());
        self.seen.0 += after.1 - before.1;
        self.seen.1 += after.2 - before.2;
        self.seen.2 += time;
        let percent =
            |nth: usize| after.0[nth].saturating_sub(before.0[nth]).as_secs_f64() / time.as_secs_f64() * 100.0;
        let [agent, receiving] = [percent(0), percent(1)];
        let rows = if self.mesh.is_relay {
            [Row::RelayAgent, Row::RelayReceiving]
        } else {
            [Row::NodeAgent, Row::NodeReceiving]
        };
        [(rows[0], agent), (rows[1], receiving)]
    }

    /// How much there was to do.
    pub(super) fn note(&self) -> String {
        let (frames, relayed, time) = self.seen;
        let rate = |count| float(count) / time.as_secs_f64().max(0.001);
        let role = if self.mesh.is_relay { "relay" } else { "node" };
        let (probes, relayed) = (rate(frames), rate(relayed));
        format!("{role}, {}: {probes:.0} probes and answers a second sent, {relayed:.0} relayed", self.kind)
    }
}

fn configuration(lab: &Lab, node: &Host, mesh: Mesh) -> String {
    let mut text = String::new();
    let others = mesh.others().map(|id| (id, Mesh::address(id)));
    for (id, address) in [(1, node.address())].into_iter().chain(others) {
        let is_relay = mesh.is_relay(id);
        _ = writeln!(text, "[[node]]\nname = \"n{id}\"\nid = {id}\naddress = \"{address}\"\nrelay = {is_relay}");
    }
    _ = writeln!(text, "[[network]]\nname = \"lan\"\nvni = 16");
    let path = lab.directory().join("mesh.toml");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}
