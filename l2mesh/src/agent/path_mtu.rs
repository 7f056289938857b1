//! What the paths to the peers take: less than their first link where a router said so, until that is forgotten. And what
//! follows for what is flooded: it has to fit every path.
//!
//! A limit stands in the peer's entry of `PEERS`, not here: it outlives the agent, and whoever looks can see it.
//! The kernel hears the same messages and keeps exceptions to its routes. Those are not followed: it believes
//! whoever quotes as little as a ping (`icmp_err` in net/ipv4/icmp.c).

use std::net::IpAddr;

use anyhow::Context as _;
use l2mesh_common::{
    path_mtu::{Complaint, Limit, Refusal, believe},
    tables::{PathLimit, PeerId},
    verdict::Verdict,
};

use super::{Agent, chronicle::Subject, coarse_now_ns, prober::TooBig};
use crate::{
    dataplane::{
        fill::{flood_list, paths},
        view::PeerView,
    },
    underlay::complaints::Heard,
};

impl Agent {
    /// Believes or refuses what somebody said.
    pub(super) fn hear(&mut self, heard: &Heard) -> anyhow::Result<()> {
        // What the overlay says is about packets inside, also what our own programs answered this host.
        if !self.is_underlay(heard.ifindex)? {
            return Ok(());
        }
        let now_ns = coarse_now_ns()?;
        let from = heard.from;
        let outcome = match heard.said {
            Ok(complaint) => self.judge(&complaint, now_ns)?,
            Err(refusal) => Err(refusal),
        };
        self.settle(from, outcome)
    }

    /// True for an interface by which peers are reached.
    fn is_underlay(&self, ifindex: u32) -> anyhow::Result<bool> {
        if ifindex == self.view.ifindex {
            return Ok(true);
        }
        for peer in &self.view.peers {
            if self.tables.peers.get(&peer.id, 0)?.current().ifindex == ifindex {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Somebody said so of a probe. The kernel has seen that it came from a port of ours, and tells that to the prober.
    pub(super) fn hear_of_probe(&mut self, said: TooBig) -> anyhow::Result<()> {
        let TooBig { destination, mtu } = said;
        let Some(peer) = self.view.peers.iter().find(|peer| peer.address == destination) else { return Ok(()) };
        let outcome = self.weigh(peer, mtu, coarse_now_ns()?)?;
        self.settle(destination, outcome)
    }

    fn settle(&mut self, from: IpAddr, outcome: Result<(PeerId, Limit), Refusal>) -> anyhow::Result<()> {
        match outcome {
            Ok((id, limit)) => {
                let inner = self.limit(id, limit)?;
                let text = format!(
                    "{}: the path takes {} octets, says {from}: frames carry {inner} for the next ten minutes",
                    self.name(id),
                    limit.mtu
                );
                self.say(log::Level::Warn, Subject::of("mtu-lowered").peer(id), text);
                self.tables.count(Verdict::PathMtuLowered)
            }
            Err(refusal) if refusal.is_counted() => {
                log::debug!("{from} said that a packet was too big: {refusal}");
                self.tables.count(Verdict::PathMtuRefused)
            }
            Err(_) => Ok(()),
        }
    }

    /// Subject which peer it is, and what is believed from now on. The outer error is that of the tables.
    fn judge(&self, complaint: &Complaint, now_ns: u64) -> anyhow::Result<Result<(PeerId, Limit), Refusal>> {
        if complaint.vni == 0 {
            // Of a probe: here that would be too easy to say. See `hear_of_probe`.
            return Ok(Err(Refusal::OtherMatter));
        }
        let Some(peer) = self.view.peers.iter().find(|peer| self.is_ours_to(complaint, peer)) else {
            return Ok(Err(Refusal::NotOurs));
        };
        self.weigh(peer, complaint.mtu, now_ns)
    }

    fn weigh(&self, peer: &PeerView, said: u32, now_ns: u64) -> anyhow::Result<Result<(PeerId, Limit), Refusal>> {
        let Some(&link) = self.links.get(&peer.id) else { return Ok(Err(Refusal::NotOurs)) };
        let before = limit_of(&self.tables.peers.get(&peer.id, 0)?.limit);
        Ok(believe(said, link, before, peer.overhead(), now_ns).map(|limit| (peer.id, limit)))
    }

    /// True if the packet that did not fit can have been one of ours to this peer. Behind 1:1 NAT the quote may have our
    /// address as the others know it.
    fn is_ours_to(&self, complaint: &Complaint, peer: &PeerView) -> bool {
        let Complaint { source, destination, port, vni, .. } = *complaint;
        let in_network = self.view.networks.iter().any(|it| it.vni == vni && it.members.contains(&peer.id));
        let is_source = self.view.source_towards(peer) == Some(source) || self.source.written.contains(&source);
        destination == peer.address && port == self.view.port && in_network && is_source
    }

    /// Puts a limit in force. Returns what is left for inner packets.
    fn limit(&mut self, id: PeerId, limit: Limit) -> anyhow::Result<u32> {
        let mut peer = self.tables.peers.get(&id, 0)?;
        peer.limit = PathLimit { mtu: limit.mtu, reserved: 0, until_ns: limit.until_ns };
        self.tables.peers.set(id, peer, 0).context("cannot write PEERS")?;
        let mut next_hop = *peer.current();
        next_hop.mtu = next_hop.mtu.min(limit.mtu.saturating_sub(self.overhead(id)));
        self.tables.set_next_hop(id, next_hop)?;
        self.follow_paths()?;
        Ok(next_hop.mtu)
    }

    /// What the path to a peer takes whose first link takes `link` octets. A limit whose time is over is taken off.
    pub(super) fn path_mtu(&mut self, id: PeerId, link: u32) -> anyhow::Result<u32> {
        self.links.insert(id, link);
        let mut peer = self.tables.peers.get(&id, 0)?;
        let Some(limit) = limit_of(&peer.limit) else { return Ok(link) };
        if limit.holds(coarse_now_ns()?) {
            return Ok(link.min(limit.mtu));
        }
        peer.limit = PathLimit::default();
        self.tables.peers.set(id, peer, 0).context("cannot write PEERS")?;
        let text = format!(
            "{}: the path is tried with {link} octets again, after {} for ten minutes",
            self.name(id),
            limit.mtu
        );
        self.say(log::Level::Info, Subject::of("mtu-restored").peer(id), text);
        Ok(link)
    }

    fn overhead(&self, id: PeerId) -> u32 {
        self.view.peers.iter().find(|peer| peer.id == id).map_or(0, PeerView::overhead)
    }

    /// Says to each network what fits every path, if a path has changed.
    pub(super) fn follow_paths(&mut self) -> anyhow::Result<()> {
        self.aim_prober()?;
        let paths = paths(&self.tables, &self.view)?;
        if self.paths == paths {
            return Ok(());
        }
        for network in &self.view.networks {
            let list = flood_list(&paths, network);
            if !self.tables.flood.get(&network.vni, 0).is_ok_and(|found| found == list) {
                self.tables.flood.insert(network.vni, list, 0).context("cannot write FLOOD")?;
            }
        }
        self.paths = paths;
        Ok(())
    }
}

fn limit_of(limit: &PathLimit) -> Option<Limit> {
    (limit.mtu != 0).then_some(Limit { mtu: limit.mtu, until_ns: limit.until_ns })
}
