//! What happened: each line that the agent logs about its mesh is an event, kept for a while for whoever asks
//! (`l2mesh events`).

use std::{borrow::Cow, cell::RefCell, collections::VecDeque};

use l2mesh_common::{tables::PeerId, wire::MacAddr};
use log::Level;
use serde::{Deserialize, Serialize};

use super::{Agent, control::server::Answer};
use crate::commands::clock::Moment;

/// So many are kept. The journal sees to it that storms do not push all others out.
const KEPT: usize = 512;

/// What an event is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Subject {
    pub(super) kind: &'static str,
    peer: Option<PeerId>,
    vni: Option<u32>,
    mac: Option<MacAddr>,
}

impl Subject {
    /// An event of this kind.
    pub(super) const fn of(kind: &'static str) -> Self {
        Self { kind, peer: None, vni: None, mac: None }
    }

    /// It happened to this peer, or because of it.
    pub(super) const fn peer(self, id: PeerId) -> Self {
        Self { peer: Some(id), ..self }
    }

    /// In this network.
    pub(super) const fn network(self, vni: u32) -> Self {
        Self { vni: Some(vni), ..self }
    }

    /// To this MAC address.
    pub(super) const fn mac(self, mac: MacAddr) -> Self {
        Self { mac: Some(mac), ..self }
    }
}

/// An event, as it is told.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Happened {
    /// RFC 3339, UTC.
    pub(crate) at: String,
    /// One word for programs: `path-relayed`, `storm-sent-source`, `mode`.
    pub(crate) kind: Cow<'static, str>,
    /// info, warn or error, as in the log.
    pub(crate) level: Cow<'static, str>,
    /// Name of the node in question; null where it is about none.
    pub(crate) peer: Option<String>,
    pub(crate) vni: Option<u32>,
    pub(crate) mac: Option<String>,
    /// For people, as in the log.
    pub(crate) text: String,
}

/// The first line of an answer to [`super::control::request::Request::Events`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) ok: bool,
    /// The oldest first.
    pub(crate) events: Vec<Happened>,
}

/// What is kept, and who is told at once.
#[derive(Default)]
pub(crate) struct Chronicle(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    events: VecDeque<Happened>,
    followers: Vec<Answer>,
}

impl Chronicle {
    fn add(&self, event: Happened) {
        let Inner { events, followers } = &mut *self.0.borrow_mut();
        // Who does not take it, or not fast enough, is not told any more.
        followers.retain(|follower| follower.line(&event));
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Tells what is kept, and goes on if that is wanted.
    pub(super) fn tell(&self, answer: Answer, follow: bool) {
        let Inner { events, followers } = &mut *self.0.borrow_mut();
        followers.retain(|follower| !follower.is_gone());
        let told = Told { ok: true, events: events.iter().cloned().collect() };
        if answer.line(&told) && follow {
            followers.push(answer);
        }
    }
}

impl Agent {
    /// Logs something, and keeps it.
    pub(super) fn say(&self, level: Level, subject: Subject, text: String) {
        log::log!(level, "{text}");
        let Subject { kind, peer, vni, mac } = subject;
        let level = match level {
            Level::Error => "error",
            Level::Warn => "warn",
            _ => "info",
        };
        let peer = peer.and_then(|id| self.view.peers.iter().find(|peer| peer.id == id)).map(|peer| peer.name.clone());
        self.chronicle.add(Happened {
            at: Moment::now().to_string(),
            kind: kind.into(),
            level: level.into(),
            peer,
            vni,
            mac: mac.map(|mac| mac.to_string()),
            text,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(number: usize) -> Happened {
        Happened {
            at: "2026-11-28T04:00:00Z".to_owned(),
            kind: "mode".into(),
            level: "info".into(),
            peer: None,
            vni: Some(16),
            mac: None,
            text: number.to_string(),
        }
    }

    #[test]
    fn the_last_ones_are_kept() {
        let chronicle = Chronicle::default();
        (0..KEPT + 3).for_each(|number| chronicle.add(happened(number)));
        let (answer, mut lines) = Answer::pair();
        chronicle.tell(answer, false);
        let told: Told = serde_json::from_str(&lines.try_recv().expect("a line")).expect("what is kept");
        assert_eq!((told.ok, told.events.len()), (true, KEPT));
        assert_eq!((&told.events[0], &told.events[KEPT - 1]), (&happened(3), &happened(KEPT + 2)));
        assert!(lines.try_recv().is_err(), "and nothing else");
    }

    #[test]
    fn followers_are_told_until_they_go() {
        let chronicle = Chronicle::default();
        chronicle.add(happened(1));
        let (answer, mut lines) = Answer::pair();
        chronicle.tell(answer, true);
        chronicle.add(happened(2));
        let read = |line: String| serde_json::from_str::<Happened>(&line).expect("an event");
        assert!(lines.try_recv().expect("a line").contains("\"events\""));
        assert_eq!(read(lines.try_recv().expect("a line")), happened(2));
        drop(lines);
        chronicle.add(happened(3));
        assert!(chronicle.0.borrow().followers.is_empty());
    }
}
