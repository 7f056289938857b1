//! What the prober says, and what it is told.

use std::time::Duration;

use l2mesh_common::{
    path::{Choice, reason::Reason},
    tables::{Fact, PeerId},
    wire::MacAddr,
};

use log::Level;

use super::{
    Agent,
    chronicle::Subject,
    coarse_now_ns,
    events::PATH_KINDS,
    journal::Topic,
    prober::{Event, Prober, Target},
};
use crate::dataplane::view::PeerView;

impl Agent {
    /// Starts the probes, where there is something to probe. What a prober knew that was paused goes on.
    pub(super) fn start_prober(&mut self) -> anyhow::Result<()> {
        self.targets = self.targets_now()?;
        let (stats, before) = (&self.stats, self.retired.take());
        self.prober = Prober::start(&self.view, &self.tables, &self.targets, stats, before)?;
        Ok(())
    }

    /// Stops the probes until [`Self::start_prober`]: meanwhile no path changes.
    pub(super) fn pause_prober(&mut self) {
        let Some(prober) = self.prober.take() else { return };
        let (retired, untold) = prober.retire();
        self.retired = retired;
        for event in untold {
            if let Err(error) = self.follow_prober(&event) {
                log::debug!("{error:#}");
            }
        }
    }

    /// How the peers that are probed are reached.
    fn targets_now(&self) -> anyhow::Result<Vec<Target>> {
        let target = |peer: &PeerView| {
            let mtu = self.tables.peers.get(&peer.id, 0)?.current().mtu;
            Ok(Target { peer: peer.id, source: self.view.source_towards(peer), mtu })
        };
        self.view.peers.iter().filter(|peer| peer.is_probed).map(target).collect()
    }

    /// Tells the prober where peers are reached now, if that has changed.
    pub(super) fn aim_prober(&mut self) -> anyhow::Result<()> {
        let Some(prober) = &self.prober else { return Ok(()) };
        let targets = self.targets_now()?;
        if targets != self.targets {
            prober.aim(targets.clone());
            self.targets = targets;
        }
        Ok(())
    }

    /// Takes up what the prober says.
    pub(super) fn follow_prober(&mut self, event: &Event) -> anyhow::Result<()> {
        match *event {
            Event::Changed { peer, before, now, reason, lasted } => {
                let text = format!(
                    "{}: {}, after {} for {}",
                    self.name(peer),
                    self.describe_change(now, reason),
                    self.describe_path(before),
                    span(lasted)
                );
                // One topic each: to leave and to return are two things to tell.
                let kind = match (now.is_relayed(), now.is_up) {
                    (false, true) => PATH_KINDS[0],
                    (true, _) => PATH_KINDS[1],
                    (false, false) => PATH_KINDS[2],
                };
                let topic = Topic { kind, vni: 0, mac: MacAddr::ZERO, peer };
                self.note_state(topic, &PATH_KINDS, text, coarse_now_ns()?);
                self.follow_paths()
            }
            Event::Size { peer, relay, mtu } => {
                let path =
                    relay.map_or_else(|| "directly".to_owned(), |relay| format!("through {}", self.short(relay)));
                let name = self.name(peer);
                let about = Subject::of("path-mtu").peer(peer);
                if mtu == 0 {
                    self.say(Level::Info, about, format!("{name}: {path} all that the links take arrives"));
                } else {
                    let text = format!("{name}: {path} {mtu} octets of a packet arrive, longer ones are lost");
                    self.say(Level::Warn, about, text);
                }
                self.follow_paths()
            }
            Event::TooBig(too_big) => self.hear_of_probe(too_big),
        }
    }

    fn describe_change(&self, now: Choice, reason: Reason) -> String {
        match (now.is_relayed(), now.is_up) {
            (true, _) => format!("frames go through {}, because {}", self.short(now.relay), reason.text()),
            (false, true) => format!("frames go directly, because {}", reason.text()),
            (false, false) => reason.text().to_owned(),
        }
    }

    fn describe_path(&self, path: Choice) -> String {
        match (path.is_relayed(), path.is_up) {
            (true, _) => format!("they went through {}", self.short(path.relay)),
            (false, true) => "they went directly".to_owned(),
            (false, false) => "no path was up".to_owned(),
        }
    }

    fn short(&self, id: PeerId) -> &str {
        self.view.peers.iter().find(|peer| peer.id == id).map_or("?", |peer| &peer.name)
    }

    /// Says how late the prober was, for tests and for people.
    pub(super) fn tell_lateness(&mut self) -> anyhow::Result<()> {
        let Some(prober) = &self.prober else { return Ok(()) };
        let text = prober.lateness();
        if self.told_lateness == text {
            return Ok(());
        }
        self.tables.set_fact(Fact::Prober, &text)?;
        self.told_lateness = text;
        Ok(())
    }
}

/// A time for people: the two greatest units.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
