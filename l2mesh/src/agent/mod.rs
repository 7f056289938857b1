//! The process that stays: keeps next hops current, ages MAC addresses, watches the overlay interfaces, tells people.
//!
//! The dataplane does not need it from frame to frame: killed, it leaves everything forwarding as it was.

mod ageing;
mod arrange;
pub(crate) mod chronicle;
pub(crate) use ageing::coarse_now_ns;
pub(crate) mod control;
mod events;
mod file_watch;
pub(crate) mod fingerprints;
mod identity;
mod journal;
mod kernel_mode;
mod next_hops;
mod orders;
mod overlay;
pub(crate) mod own_address;
mod own_hooks;
mod path_mtu;
mod paths;
mod prober;
pub(crate) use prober::{BOUNDS_US, RoundTrips, Stats, Turn};
mod reload;
pub(crate) mod self_test;
pub(crate) mod signals;
pub(crate) mod start;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use l2mesh_common::tables::{Fact, PeerId};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until};

use log::Level;

use self::{
    chronicle::Subject,
    file_watch::FileWatch,
    prober::{Prober, Retired, Target},
    signals::{Signals, Wanted},
    wishes::{What, Wish, Wishes},
};

use crate::{
    cli::AttachArgs,
    config::{Document, Mesh, TxHook},
    dataplane::{
        devices::Devices, fill::Paths, hooks, object::Object, pins::PinDir, tables::Tables, teardown, view::View,
    },
    service,
    underlay::{self, Netlink, complaints::Complaints, watch::Watch},
};

/// Changes of the network come in bursts; they are looked at together after this long.
const SETTLE: Duration = Duration::from_millis(20);
/// How often to ask who listens on overlay interfaces: a sniffer may wait a second for what it wants to see.
const OVERLAY_CHECK: Duration = Duration::from_millis(500);
/// How often events are told and the driver's refusals looked for.
const NEWS: Duration = Duration::from_secs(1);
/// How often next hops are asked for a sign of life: what a BPF program sends keeps no neighbour entry fresh.
const REFRESH: Duration = Duration::from_secs(10);
/// How long faults are not told after one was.
const FAULT_PAUSE: Duration = Duration::from_secs(10);
/// How often the host's firewall is tested.
const FIREWALL_CHECK: Duration = Duration::from_mins(1);

/// Who takes the outer header off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Receive {
    /// Our program in the driver.
    Xdp,
    /// Our program at the underlay interface's ingress.
    Tc,
    /// The kernel's vxlan device, which puts it on too.
    Kernel,
}

/// How frames are received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReceiveMode {
    pub(crate) receive: Receive,
    /// True if nobody asked for this one by name.
    pub(crate) is_automatic: bool,
    /// Why.
    pub(crate) reason: String,
}

impl ReceiveMode {
    /// Before it is known.
    const UNDECIDED: Self = Self { receive: Receive::Tc, is_automatic: true, reason: String::new() };
}

impl std::fmt::Display for ReceiveMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let receive = match self.receive {
            Receive::Xdp => "xdp",
            Receive::Tc => "tc",
            Receive::Kernel => "kernel",
        };
        write!(f, "{receive} ({})", self.reason)
    }
}

/// One mesh, running.
pub(crate) struct Agent {
    /// How it was told to attach.
    args: AttachArgs,
    /// The configuration in force.
    mesh: Mesh,
    /// Which of its nodes this host is.
    own: usize,
    /// Its text.
    document: Document,
    wishes: Wishes,
    /// With `--watch`.
    file_watch: Option<FileWatch>,
    pub(crate) view: View,
    pub(crate) pins: PinDir,
    pub(crate) tables: Tables,
    pub(crate) object: Object,
    pub(crate) devices: Devices,
    pub(crate) mode: ReceiveMode,
    pub(crate) netlink: Netlink,
    pub(crate) watch: Watch,
    /// What can be asked of it. Before `control`: it ends before another agent may begin.
    pub(crate) server: control::server::Server,
    pub(crate) control: control::Control,
    /// Whether the egress shortcut may be used at all.
    pub(crate) may_shortcut: bool,
    pub(crate) fdb_age: Duration,
    pub(crate) persist: bool,
    /// Where the outer source address comes from.
    pub(crate) source: own_address::Source,
    /// Why a peer cannot be reached, for those that cannot.
    pub(crate) unreachable: BTreeMap<PeerId, String>,
    /// False while attach still waits for first answers.
    pub(crate) is_up: bool,
    /// Networks whose devices somebody removed, by VNI.
    pub(crate) broken: BTreeSet<u32>,
    /// The overlay interfaces as last seen.
    pub(crate) overlays: overlay::Overlays,
    /// Which networks have hooks of their own.
    pub(crate) own_hooks: own_hooks::OwnHooks,
    /// `SO_NETNS_COOKIE` of our namespace.
    pub(crate) netns_cookie: u64,
    /// Since when the pins are gone.
    pub(crate) unpinned: Option<Instant>,
    /// When the last passing fault was told.
    pub(crate) told_fault: Option<Instant>,
    /// What the programs reported.
    pub(crate) news: events::News,
    /// What routers say.
    pub(crate) complaints: Complaints,
    /// What the first link to each peer takes, octets.
    pub(crate) links: BTreeMap<PeerId, u32>,
    /// What the flood lists know of the paths to the peers.
    pub(crate) paths: Paths,
    /// Sends probes, if there is anybody to probe.
    prober: Option<Prober>,
    /// What it has counted.
    pub(crate) stats: Arc<Stats>,
    /// What happened.
    chronicle: chronicle::Chronicle,
    /// What it knew, while it does not run.
    retired: Option<Retired>,
    /// What it was told last.
    targets: Vec<Target>,
    /// What was last said of its lateness.
    told_lateness: String,
    /// Peers of which it was said that their configuration is another one.
    told_differences: fingerprints::Told,
    /// What the service manager was told last.
    told_status: String,
}

/// Why the agent ends.
enum End {
    Signal,
    /// `l2mesh detach` asked; it is told what was removed.
    Asked(control::Request),
}

impl Agent {
    /// Runs until it is told to stop, then removes everything unless it is to persist.
    ///
    /// # Errors
    /// The kernel cannot be asked any more, or something could not be removed.
    pub(crate) async fn run(mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let end = self.serve(signals).await.context("the mesh keeps forwarding without an agent: attach again")?;
        self.prober = None;
        service::stopping();
        match end {
            End::Signal if self.persist => {
                log::info!(
                    "leaving the mesh in place (--persist): `l2mesh detach --iface {}` removes it",
                    self.view.interface
                );
                Ok(())
            }
            End::Signal => self.remove(&mut || ()).await.map(drop),
            End::Asked(request) => {
                let removed = self.remove(&mut || request.still_at_it()).await;
                request.answer(&removed).await;
                removed.map(drop)
            }
        }
    }

    async fn remove(&self, progress: &mut dyn FnMut()) -> anyhow::Result<Vec<String>> {
        let removed = teardown::remove_all(&self.netlink, &self.view.interface, &self.pins, progress).await.result()?;
        log::info!("removed {}", teardown::summary(&removed));
        Ok(removed)
    }

    async fn serve(&mut self, signals: &mut Signals) -> anyhow::Result<End> {
        let mut ageing_period = ageing::period(self.fdb_age);
        let periods =
            [OVERLAY_CHECK, NEWS, REFRESH, FIREWALL_CHECK, ageing_period, own_hooks::PAUSE, own_hooks::LOOK_AROUND];
        let [mut overlay, mut news, mut refresh, mut firewall, mut ageing, mut hook, mut busy] = periods.map(ticks);
        let pet_period = service::pet_period();
        let mut pet = pet_period.map_or_else(|| interval(REFRESH), interval);
        pet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settled: Option<Instant> = None;
        let mut settle = SETTLE;
        loop {
            if ageing_period != ageing::period(self.fdb_age) {
                ageing_period = ageing::period(self.fdb_age);
                ageing = ticks(ageing_period);
            }
            tokio::select! {
                wanted = signals.next() => match wanted {
                    Wanted::End => return Ok(End::Signal),
                    Wanted::Reload => self.wish(Wish { what: What::Reload, why: "SIGHUP", answer: None }).await,
                },
                request = self.control.next() => return Ok(End::Asked(request?)),
                order = self.server.next() => self.obey(order).await,
                () = FileWatch::next(&mut self.file_watch) => self.look_at_file().await,
                found = self.wishes.looked_up() => self.go_on(found).await,
                change = self.watch.next() => {
                    if self.note(change?) {
                        settled.get_or_insert_with(|| Instant::now() + settle);
                    }
                }
                () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => {
                    settled = None;
                    let start = Instant::now();
                    let done = self.follow_changes().await;
                    // Where it takes long, in a burst of changes to thousands of devices, it is not done all the time.
                    settle = SETTLE.max(4 * start.elapsed());
                    self.endure(done)?;
                }
                _ = pet.tick(), if pet_period.is_some() => service::pet(),
                event = Prober::next(&mut self.prober) => {
                    let done = self.follow_prober(&event);
                    self.endure(done)?;
                }
                heard = self.complaints.next() => {
                    let done = self.hear(&heard);
                    self.endure(done)?;
                }
                _ = overlay.tick() => {
                    let done = self.take_a_turn().await;
                    self.endure(done)?;
                }
                _ = hook.tick(), if self.own_hooks.is_at_work() => {
                    let done = self.hook_one().await;
                    self.endure(done)?;
                }
                _ = busy.tick() => {
                    let done = self.look_for_busy();
                    self.endure(done)?;
                }
                _ = news.tick() => {
                    self.check_pins();
                    self.tell_status();
                    let done = self.tell_events().and_then(|()| self.tell_lateness()).and_then(|()| self.check_metadata());
                    self.endure(done)?;
                    crate::dataplane::reachability::tell(&self.tables, &self.view);
                    let done = self.compare_fingerprints();
                    self.endure(done)?;
                }
                _ = refresh.tick() => {
                    let done = self.refresh().await;
                    self.endure(done)?;
                }
                _ = firewall.tick() => {
                    self.look_again();
                    let done = self.test_firewall().await;
                    self.endure(done)?;
                }
                _ = ageing.tick() => {
                    let done = self.age();
                    self.endure(done)?;
                }
            }
        }
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        self.refresh_neighbours().await?;
        self.look_up_next_hops().await
    }

    /// What failed once is tried again at the next turn: devices that come and go faster than they can be listed must
    /// not cost the agent its life. Without its netlink socket it has none.
    fn endure(&mut self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        if let Some(underlay::Error::Disconnected { .. }) = error.downcast_ref() {
            return Err(error);
        }
        if self.told_fault.is_none_or(|told| told.elapsed() > FAULT_PAUSE) {
            self.told_fault = Some(Instant::now());
            self.say(Level::Warn, Subject::of("fault"), format!("trying again: {error:#}"));
        }
        Ok(())
    }

    /// What `systemctl status` shows, when that has changed.
    fn tell_status(&mut self) {
        let line = self.up_line();
        if line != self.told_status {
            service::status(&line);
            self.told_status = line;
        }
    }

    /// With its pins the programs are gone from the interfaces, and nothing else says so.
    fn check_pins(&mut self) {
        if self.pins.pin("META").exists() {
            self.unpinned = None;
        } else if self.unpinned.is_none() {
            self.unpinned = Some(Instant::now());
            let text = format!(
                "somebody removed the pins in {} or their file system, and with them the mesh: run `l2mesh detach --iface {}` \
                 and attach again",
                self.pins, self.view.interface
            );
            self.say(Level::Error, Subject::of("pins-gone"), text);
        }
    }

    /// A driver that takes XDP programs but no metadata makes the XDP program pass every frame on: then it is only a cost.
    fn check_metadata(&mut self) -> anyhow::Result<()> {
        use l2mesh_common::verdict::Verdict;
        if self.mode.receive == Receive::Xdp
            && self.mode.is_automatic
            && self.tables.counter(Verdict::NoMetadata)?.frames > 0
        {
            hooks::detach_xdp(&self.pins)?;
            self.set_mode(Receive::Tc, "the driver passes no XDP metadata")?;
        }
        Ok(())
    }

    /// Takes up what the configuration says to the agent alone.
    fn take_settings(&mut self) {
        let underlay = &self.mesh.underlay;
        let tx_hook = self.args.tx_hook.unwrap_or(underlay.tx_hook);
        self.may_shortcut = !self.view.by_kernel && tx_hook == TxHook::Auto;
        self.fdb_age = underlay.fdb_age;
    }

    /// Notes and tells how frames are received from now on.
    pub(crate) fn set_mode(&mut self, receive: Receive, reason: &str) -> anyhow::Result<()> {
        self.mode = ReceiveMode { receive, reason: reason.to_owned(), ..self.mode };
        self.say(Level::Info, Subject::of("mode"), format!("mode {}", self.mode));
        self.tables.set_fact(Fact::Mode, &self.mode.to_string())
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    // After a stop, once is enough.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
