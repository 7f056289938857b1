//! What the programs report, in words, once a second.

use std::collections::{HashMap, HashSet};

use l2mesh_common::{
    bucket::{is_over, share_of_peer, share_of_source},
    tables::{BucketKey, Event, LabelKey, MemberKey, PeerId},
    verdict::Verdict,
    wire::{MacAddr, Vni},
};

use log::Level;

use super::{
    Agent, coarse_now_ns,
    journal::{Journal, Line, Topic},
};

/// Kinds of events about the path that frames take: one is true at a time.
pub(super) const PATH_KINDS: [&str; 3] = ["path-direct", "path-relayed", "path-none"];

/// The same about a peer's configuration.
pub(super) const CONFIGURATION_KINDS: [&str; 2] = ["configuration-same", "configuration"];

/// Storms whose end is told; of more at a time only the beginning.
const STORMS: usize = 256;

/// What is told and what was.
#[derive(Debug, Default)]
pub(crate) struct News {
    journal: Journal,
    /// Those that are not over, by the bucket that is empty.
    storms: HashMap<BucketKey, Storm>,
    /// Peers with as many MAC addresses as may be.
    full: HashSet<MemberKey>,
}

#[derive(Debug)]
struct Storm {
    /// Whose: for people.
    who: String,
    peer: PeerId,
    told_at_ns: u64,
}

impl Agent {
    /// A peer is in another of these states: that is told at once, but not each time if it happens all the time.
    pub(super) fn note_state(&mut self, topic: Topic, states: &[&str], text: String, now_ns: u64) {
        self.news.journal.overtake(&topic, states);
        self.news.journal.note(topic, Some(topic.peer), text, 1);
        self.say_lines(now_ns);
    }

    fn say_lines(&mut self, now_ns: u64) {
        for Line { about, text } in self.news.journal.lines(now_ns) {
            let is_good = [PATH_KINDS[0], CONFIGURATION_KINDS[0]].contains(&about.kind);
            let level = if is_good { Level::Info } else { Level::Warn };
            self.say(level, about, text);
        }
    }

    /// Logs what happened since the last time.
    pub(super) fn tell_events(&mut self) -> anyhow::Result<()> {
        let mut events: HashMap<Event, u64> = HashMap::new();
        while let Some(item) = self.tables.events.next() {
            if let Ok(event) = bytemuck::try_pod_read_unaligned(&item) {
                *events.entry(event).or_default() += 1;
            }
        }
        let now = coarse_now_ns()?;
        for (event, times) in events {
            self.tell_event(&event, times, now);
        }
        self.note_storms_over(now);
        self.say_lines(now);
        Ok(())
    }

    /// These are the peers with as many MAC addresses as may be: who is not among them is told anew.
    pub(super) fn full_peers(&mut self, full: &[MemberKey]) {
        self.news.full.retain(|key| full.contains(key));
    }

    fn tell_event(&mut self, event: &Event, times: u64, now: u64) {
        let Event { verdict, vni, to, .. } = *event;
        let Some(verdict) = Verdict::ALL.iter().copied().find(|it| it.number() == verdict) else { return };
        if verdict == Verdict::PeerFull && !self.news.full.insert(MemberKey { vni, peer: to }) {
            return;
        }
        let Some(text) = self.describe(verdict, event) else { return };
        if let Some((key, who)) = self.storm(verdict, event) {
            let known = self.news.storms.contains_key(&key);
            if known {
                return;
            }
            if self.news.storms.len() < STORMS {
                // The last straw of the network's storm is some peer's: its own storm is another topic.
                let peer = if verdict == Verdict::StormReceivedPeer { event.to } else { PeerId::MAX };
                self.news.storms.insert(key, Storm { who, peer, told_at_ns: now });
            }
        }
        self.news.journal.note(topic(verdict, event), culprit(verdict, event), text, times);
    }

    /// The bucket and in words the origin of a storm.
    fn storm(&self, verdict: Verdict, event: &Event) -> Option<(BucketKey, String)> {
        let Event { vni, mac, to, .. } = *event;
        Some(match verdict {
            Verdict::StormSent => (BucketKey::sent(vni), "this host".to_owned()),
            Verdict::StormSentSource => (BucketKey::sent_by(vni, mac), mac.to_string()),
            Verdict::StormReceived => (BucketKey::received(vni), "the network".to_owned()),
            Verdict::StormReceivedPeer => (BucketKey::received_from(vni, to), self.tables.label(LabelKey::peer(to))),
            Verdict::StormReceivedSource => (BucketKey::received_of(vni, mac), mac.to_string()),
            _ => return None,
        })
    }

    fn note_storms_over(&mut self, now: u64) {
        let News { journal, storms, .. } = &mut self.news;
        let buckets = &self.tables.buckets;
        storms.retain(|key, storm| {
            let bucket = buckets.get(key, 0).ok();
            if bucket.is_some_and(|bucket| !is_over(bucket.dropped_at_ns, now)) {
                return true;
            }
            let dropped = bucket.map_or_else(String::new, |bucket| format!(": {} frames were dropped", bucket.dropped));
            let seconds = now.saturating_sub(storm.told_at_ns) / 1_000_000_000;
            let text = format!("{}: the storm from {} is over after {seconds} s{dropped}", network(key.vni), storm.who);
            let topic = Topic { kind: "storm-over", vni: key.vni, mac: key.mac, peer: storm.peer };
            journal.note(topic, Some(storm.peer).filter(|&peer| peer != PeerId::MAX), text, 1);
            false
        });
    }

    fn describe(&self, verdict: Verdict, event: &Event) -> Option<String> {
        let Event { vni, mac, from, to, .. } = *event;
        let [from, to] = [from, to].map(|peer| self.tables.label(LabelKey::peer(peer)));
        let limit = || self.tables.networks.get(&vni, 0).map_or(0, |network| network.storm_limit);
        let storm = |who: &str, does: &str, limit: u32| {
            format!(
                "storm: {who} {does} more than {limit} frames a second for everybody: the others are dropped (storm-limit)"
            )
        };
        let text = match verdict {
            Verdict::Moved => format!("{mac} moved from {from} to {to}"),
            // Without the address: there may be thousands in a second.
            Verdict::FdbFull => {
                "the MAC table is full, frames to more addresses are flooded: raise fdb-size".to_owned()
            }
            Verdict::StaticElsewhere => format!("{mac} is configured behind {from}, but {to} sends from it"),
            Verdict::OwnSource => {
                format!("a frame from {to} came with our own MAC address {mac} as its source: somebody made a loop")
            }
            Verdict::Frozen => {
                let (limit, time) = self.view.moves;
                format!(
                    "{mac} moved more than {limit} times in 10 s: for {} s it stays behind {to}, where it was longest, and its \
                     frames are delivered wherever they come from: look for a loop, or for two stations with one address",
                    time.as_secs()
                )
            }
            Verdict::PeerFull => {
                let limit = self.tables.networks.get(&vni, 0).map_or(0, |network| network.macs_per_peer);
                format!("{to} has its {limit} MAC addresses (macs-per-peer): frames to more behind it are flooded")
            }
            Verdict::StormSent => storm("this host", &format!("sends (now from {mac})"), limit()),
            Verdict::StormSentSource => storm(&mac.to_string(), "sends", share_of_source(limit())),
            Verdict::StormReceived => storm("the network", &format!("brings (now from {mac} behind {to})"), limit()),
            Verdict::StormReceivedPeer => storm(&to, &format!("sends (now from {mac})"), share_of_peer(limit())),
            Verdict::StormReceivedSource => storm(&format!("{mac} behind {to}"), "sends", share_of_source(limit())),
            Verdict::Learned => {
                log::debug!("{}: {mac} is behind {to}", network(vni));
                return None;
            }
            _ => return None,
        };
        Some(format!("{}: {text}", network(vni)))
    }
}

/// Because of whom something happened; `None` where that is no peer.
fn culprit(verdict: Verdict, event: &Event) -> Option<PeerId> {
    let is_ours = matches!(verdict, Verdict::FdbFull | Verdict::StormSent | Verdict::StormSentSource);
    (!is_ours).then_some(event.to)
}

/// What a line about an event is about.
fn topic(verdict: Verdict, event: &Event) -> Topic {
    let (mac, peer) = match verdict {
        Verdict::FdbFull | Verdict::StormSent | Verdict::StormReceived => (MacAddr::ZERO, 0),
        Verdict::PeerFull | Verdict::StormReceivedPeer => (MacAddr::ZERO, event.to),
        _ => (event.mac, 0),
    };
    Topic { kind: verdict.label(), vni: event.vni, mac, peer }
}

fn network(vni: u32) -> String {
    Vni::new(vni).map(|vni| format!("VNI {vni}")).unwrap_or_default()
}
