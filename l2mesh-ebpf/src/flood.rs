//! Broadcast, unknown unicast and multicast: head-end replication, one unicast copy to each peer.

use l2mesh_common::{
    tables::{FloodList, MAX_PEERS, PeerId},
    verdict::Verdict,
};

use crate::{
    Action,
    encap::{Departing, is_ip, next_hop},
    packet::{Packet as _, Skb, Step, repeat},
    tables,
};

/// Makes room once, then writes each peer's outer header over the one before and sends a copy. The last peer gets
/// the frame itself.
#[inline(always)]
pub(crate) fn flood(skb: &mut Skb, departing: &Departing) -> Result<Action, Verdict> {
    let peers = tables::flood_list(departing.vni.get()).ok_or(Verdict::NoPeers)?;
    if peers.count == 0 {
        return Err(Verdict::NoPeers);
    }
    skb.push_outer(is_ip(&departing.inner))?;
    tables::count(Verdict::Flooded, departing.len);
    let mut copies = Copies { skb, departing, peers, waiting: None };
    repeat(peers.count, &mut copies);
    let last = copies.waiting.ok_or(Verdict::NoNextHop)?;
    let ifindex = address(copies.skb, departing, last)?;
    Ok(Action::Redirect(ifindex))
}

/// The loop over a flood list.
struct Copies<'a> {
    skb: &'a mut Skb,
    departing: &'a Departing,
    peers: &'static FloodList,
    /// The peer before: only after the last one is it known to be the last.
    waiting: Option<PeerId>,
}

impl Step for Copies<'_> {
    #[inline(always)]
    fn step(&mut self, place: u32) {
        // The mask is for the verifier.
        let peer = PeerId::from(self.peers.peers[place as usize & (MAX_PEERS - 1)]);
        let outcome = match next_hop(self.departing, peer) {
            Ok(_) => self.waiting.replace(peer).map_or(Ok(()), |before| self.send(before)),
            Err(verdict) => Err(verdict),
        };
        if let Err(verdict) = outcome {
            tables::count(verdict, self.departing.len);
        }
    }
}

impl Copies<'_> {
    #[inline(always)]
    fn send(&mut self, peer: PeerId) -> Result<(), Verdict> {
        let ifindex = address(self.skb, self.departing, peer)?;
        self.skb.clone_to(ifindex)
    }
}

/// Writes the outer header for one peer and counts the copy. Returns the interface towards it.
#[inline(always)]
fn address(skb: &mut Skb, departing: &Departing, peer: PeerId) -> Result<u32, Verdict> {
    let next_hop = next_hop(departing, peer)?;
    skb.store(departing.headers(next_hop).words())?;
    tables::count(Verdict::FloodCopies, departing.len);
    tables::count_sent(peer, departing.len);
    Ok(next_hop.ifindex)
}
