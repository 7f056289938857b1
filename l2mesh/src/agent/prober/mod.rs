//! Probes: a thread of its own sends them on time, whatever the agent is busy with, and says what follows (design.md 5).
//!
//! It alone writes `PATH_TX`, `PATH_NOTES` and `HISTORY` while it runs. Killed or stopped it sends nothing, and so nothing changes.

mod follow;
mod loss;
mod notes;
mod order;
mod paths;
mod retired;
mod rtt;
mod schedule;
mod size;
mod socket;
mod stats;
mod worker;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use l2mesh_common::{
    path::{Choice, reason::Reason},
    tables::PeerId,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(crate) use self::stats::{BOUNDS_US, RoundTrips, Stats, Turn};
pub(super) use self::{retired::Retired, socket::TooBig};
use self::{socket::Sockets, worker::Worker};
use crate::dataplane::{tables::Tables, view::View};

/// A tick that comes so late is counted.
const LATE: Duration = Duration::from_millis(10);

/// How a peer is reached now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    pub(super) peer: PeerId,
    /// From where probes are sent.
    pub(super) source: Option<IpAddr>,
    /// What the way to it takes of an inner packet; 0 while that is not known.
    pub(super) mtu: u32,
}

/// What the prober has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// Frames to a peer take another path.
    Changed {
        peer: PeerId,
        before: Choice,
        now: Choice,
        reason: Reason,
        /// How long they took the one before.
        lasted: Duration,
    },
    /// What a path takes was found out.
    Size { peer: PeerId, relay: Option<PeerId>, mtu: u32 },
    /// A router says that a probe was too big.
    TooBig(TooBig),
}

/// How late the thread was.
#[derive(Debug, Default)]
struct Lateness {
    /// In the last minute.
    greatest_ns: AtomicU64,
    /// How often by more than [`LATE`], since the start.
    late: AtomicU64,
}

/// The thread, seen from the agent. Dropped, it ends.
pub(crate) struct Prober {
    commands: Option<mpsc::Sender<Vec<Target>>>,
    events: UnboundedReceiver<Event>,
    lateness: Arc<Lateness>,
    thread: Option<JoinHandle<Worker>>,
}

impl Prober {
    /// Starts it where there is something to probe. What `before` knows of paths that are still the same goes on.
    ///
    /// # Errors
    /// No sockets, or no thread.
    pub(super) fn start(
        view: &View,
        tables: &Tables,
        targets: &[Target],
        stats: &Arc<Stats>,
        before: Option<Retired>,
    ) -> anyhow::Result<Option<Self>> {
        let probed = || view.peers.iter().filter(|peer| peer.is_probed && peer.is_direct);
        if probed().next().is_none() {
            return Ok(None);
        }
        let has = |is_v4: bool| probed().any(|peer| peer.address.is_ipv4() == is_v4);
        let (before, sockets) = before.map(Retired::parts).unzip();
        let sockets = Sockets::open(has(true), has(false), sockets)?;
        let (commands, orders) = mpsc::channel();
        let (sender, events) = unbounded_channel();
        let lateness = Arc::new(Lateness::default());
        let mut worker = Worker::new(view, tables, sockets, orders, sender, Arc::clone(&lateness), Arc::clone(stats))?;
        worker.begin(view, before);
        worker.aim(targets);
        let thread = thread::Builder::new().name("prober".into()).spawn(move || worker.run());
        let thread = Some(thread.context("cannot start the thread that sends probes")?);
        Ok(Some(Self { commands: Some(commands), events, lateness, thread }))
    }

    /// Ends it, so that somebody else may write the tables of paths: nothing changes until it is started again. What it had to say
    /// and nobody has heard comes with it.
    pub(super) fn retire(mut self) -> (Option<Retired>, Vec<Event>) {
        self.commands = None;
        let worker = self.thread.take().and_then(|thread| thread.join().ok());
        if worker.is_none() {
            log::error!("the thread that sent probes has failed");
        }
        let untold = std::iter::from_fn(|| self.events.try_recv().ok()).collect();
        (worker.map(Retired::new), untold)
    }

    /// Peers are reached otherwise now.
    pub(super) fn aim(&self, targets: Vec<Target>) {
        if let Some(commands) = &self.commands
            && commands.send(targets).is_err()
        {
            log::debug!("the prober has ended");
        }
    }

    /// What it says next. Without a prober, never.
    pub(super) async fn next(prober: &mut Option<Self>) -> Event {
        if let Some(prober) = prober
            && let Some(event) = prober.events.recv().await
        {
            return event;
        }
        std::future::pending().await
    }

    /// How late it was, for people and for tests.
    pub(super) fn lateness(&self) -> String {
        let greatest = Duration::from_nanos(self.lateness.greatest_ns.load(Ordering::Relaxed)).as_secs_f64() * 1e3;
        let late = self.lateness.late.load(Ordering::Relaxed);
        format!(
            "greatest lateness {greatest:.1} ms in the last minute, late {late} (ticks over 10 ms late since start)"
        )
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // It ends when there is nobody to command it.
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that sent probes has failed");
        }
    }
}
