//! Broadcast: one host floods many peers. All of them are addresses of one other host, which counts the copies and drops
//! them.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use l2mesh_tests::{Agent, Host, Lab, Wire, Wiring};

use super::{
    Sample,
    contender::{self, Kind, SMALL},
    machine::{self, RECEIVER, SENDER},
    metric::Metric,
    programs::Programs,
    transmit,
};

/// Numbers of peers.
const PEERS: [(u8, Metric); 3] = [(2, Metric::Copies2), (32, Metric::Copies32), (128, Metric::Copies128)];
/// Of l2mesh, about copies.
const COUNTERS: [&str; 4] = ["flooded", "flood-copies", "copy-failed", "no-next-hop"];
/// The peers' addresses start here.
const FIRST_PEER: u8 = 100;
/// Everybody on the overlay.
const EVERYBODY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 255);
/// Copies that may be under way when more are sent: these and another 128 fit into a veth's ring.
const WINDOW: u64 = 100;
/// Copies that have not arrived by then will not.
const LOST: Duration = Duration::from_millis(50);
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
        let [net_a, net_b, net_c, _] = b.address().octets();
        let remotes: Vec<_> =
            (0..peers).map(|nth| IpAddr::from([net_a, net_b, net_c, FIRST_PEER.saturating_add(nth)])).collect();
        for remote in &remotes {
            b.add_address("eth0", &format!("{remote}/32"));
            a.run(&format!("ip neigh replace {remote} lladdr {} dev eth0 nud permanent", b.mac("eth0")));
        }
        let agent = if kind.is_l2mesh() {
            Some(contender::l2mesh(&a, kind, &remotes))
        } else {
            contender::vxlan(&a, &remotes);
            None
        };
        a.add_address(kind.device(), "10.8.0.1/24");
        Self { kind, peers, metric, a, b, _agent: agent }
    }

    /// Copies that arrive, in thousands per second.
    ///
    /// # Errors
    /// The sink cannot be attached, or nothing arrives.
    pub(crate) fn measure(&self, programs: &mut Programs, time: Duration) -> anyhow::Result<Sample> {
        let _napi = self.b.thread_napi("eth0", RECEIVER);
        let _sink = programs.attach_sink(&self.b, "eth0")?;
        let peers = u64::from(self.peers);
        self.a.in_namespace(|| {
            flood(programs, peers, WARM_UP)?;
            let sent = flood(programs, peers, time)?;
            ensure!(sent.arrived > 0, "{} with {peers} peers: no copy arrived", self.kind);
            let share = super::float(sent.arrived) / super::float(sent.frames * peers);
            if share < 0.99 {
                eprintln!("bench: {} with {peers} peers: {:.0} % of the copies arrived", self.kind, share * 100.0);
            }
            Ok((self.metric, super::float(sent.arrived) / sent.time.as_secs_f64() / 1e3))
        })
    }

    /// What l2mesh counted of its copies, lost ones too.
    pub(crate) fn counted(&self) -> Option<String> {
        if !self.kind.is_l2mesh() {
            return None;
        }
        let counters = self.a.l2mesh(&["maps", "counters", "--json"]);
        let count = |verdict: &str| {
            let counters = counters["counters"].as_array()?;
            counters.iter().find(|counter| counter["verdict"] == verdict)?["frames"].as_u64()
        };
        let counts =
            COUNTERS.map(|name| format!("{name} {}", count(name).map_or_else(|| "?".to_owned(), |n| n.to_string())));
        Some(format!("{}, {} peers: {}", self.kind, self.peers, counts.join(", ")))
    }
}

/// What [`flood`] did.
#[derive(Clone, Copy, Debug)]
struct Sent {
    frames: u64,
    /// Copies of them.
    arrived: u64,
    time: Duration,
}

/// Sends small broadcast frames as fast as their copies arrive: with more under way a veth's ring of 256 loses some. A
/// queue in front of it (`pfifo limit 4096`) is no way out: when the ring is full, the veth of Linux 6.18 stops the queue,
/// and sometimes for good.
fn flood(programs: &Programs, peers: u64, time: Duration) -> anyhow::Result<Sent> {
    machine::pin(SENDER)?;
    let socket = transmit::socket(EVERYBODY.into())?;
    let burst = (WINDOW / peers).max(1);
    let first = programs.arrived()?;
    let (start, mut frames, mut expected) = (Instant::now(), 0, first);
    while start.elapsed() < time {
        for _ in 0..burst {
            socket.send(&[0; SMALL])?;
        }
        frames += burst;
        expected += burst * peers;
        let waiting = Instant::now();
        let mut arrived = programs.arrived()?;
        while arrived + WINDOW < expected && waiting.elapsed() < LOST {
            arrived = programs.arrived()?;
        }
        if waiting.elapsed() >= LOST {
            expected = arrived;
        }
    }
    let time = start.elapsed();
    thread::sleep(LOST);
    Ok(Sent { frames, arrived: programs.arrived()? - first, time })
}
