//! Broadcast: one host floods many peers. All of them are addresses of one other host, which counts the copies and drops
//! them.

use std::{net::Ipv4Addr, thread, time::Duration};

use l2mesh_tests::{Agent, Host, Lab, Wire, Wiring};

use super::{
    Sample,
    contender::{self, Kind},
    machine::RECEIVER,
    metric::Metric,
    programs::Programs,
    transmit::flood,
};

/// Numbers of peers.
const PEERS: [(u8, Metric); 3] = [(2, Metric::Copies2), (32, Metric::Copies32), (128, Metric::Copies128)];
/// From here on a burst of copies does not fit a veth's ring of 256: eth0 gets a queue in front of it.
const QUEUE_ABOVE: u8 = 64;
/// The peers' addresses start here.
const FIRST_PEER: u8 = 100;
/// Everybody on the overlay.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 255);
/// Neighbours are asked for, which the first frames do.
const WARM_UP: Duration = Duration::from_millis(200);

/// A host, and a number of peers.
pub(crate) struct Crowd {
    pub(crate) kind: Kind,
    peers: u8,
    metric: Metric,
    a: Host,
    b: Host,
    _agent: Option<Agent>,
}

impl Crowd {
    /// For each number of peers the kernel's device and l2mesh; both modes of l2mesh send alike.
    pub(crate) fn all(lab: &Lab, wire: Wire) -> Vec<Self> {
        let kinds = [Kind::Vxlan, Kind::Tc];
        PEERS.into_iter().flat_map(|size| kinds.map(|kind| Self::new(lab, wire, kind, size))).collect()
    }

    fn new(lab: &Lab, wire: Wire, kind: Kind, (peers, metric): (u8, Metric)) -> Self {
        let key = format!("{}-{peers}", kind.key());
        let [a, b] = lab.pair([&format!("{key}-a"), &format!("{key}-b")], &Wiring { wire, ..Wiring::default() });
        if peers > QUEUE_ABOVE {
            a.run("tc qdisc add dev eth0 root pfifo limit 4096");
        }
        let [net_a, net_b, net_c, _] = b.address().octets();
        let remotes: Vec<_> =
            (0..peers).map(|nth| Ipv4Addr::new(net_a, net_b, net_c, FIRST_PEER.saturating_add(nth))).collect();
        for remote in &remotes {
            b.add_address("eth0", &format!("{remote}/32"));
            a.run(&format!("ip neigh replace {remote} lladdr {} dev eth0 nud permanent", b.mac("eth0")));
        }
        let agent = if kind.is_l2mesh() {
            Some(contender::l2mesh(&a, kind, &remotes, "10.8.0.1/24"))
        } else {
            contender::vxlan(&a, a.address(), &remotes, "10.8.0.1/24");
            None
        };
        Self { kind, peers, metric, a, b, _agent: agent }
    }

    /// Copies that arrive, in thousands per second.
    ///
    /// # Errors
    /// The sink cannot be attached, or nothing arrives.
    pub(crate) fn measure(&self, programs: &mut Programs, time: Duration) -> anyhow::Result<Sample> {
        let _napi = self.b.thread_napi("eth0", RECEIVER);
        let _sink = programs.attach_sink(&self.b, "eth0")?;
        self.a.in_namespace(|| flood(EVERYBODY, WARM_UP))?;
        settle();
        let before = programs.arrived()?;
        let sent = self.a.in_namespace(|| flood(EVERYBODY, time))?;
        settle();
        let arrived = programs.arrived()? - before;
        anyhow::ensure!(arrived > 0, "{} with {} peers: no copy arrived", self.kind, self.peers);
        Ok((self.metric, super::float(arrived) / sent.time.as_secs_f64() / 1e3))
    }

    /// Copies that l2mesh could not send, for each counter that says so.
    pub(crate) fn losses(&self) -> Option<String> {
        if !self.kind.is_l2mesh() {
            return None;
        }
        let counters = self.a.l2mesh(&["maps", "counters", "--json"]);
        Some(format!("{} peers: {}", self.peers, counters))
    }
}

fn settle() {
    thread::sleep(Duration::from_millis(50));
}
