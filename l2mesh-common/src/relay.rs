//! Who forwards for whom, and whose relayed frames are accepted (design.md 4). A frame is relayed once at most: what was is
//! marked so, and a mark of both kinds is none ([`crate::wire::VxlanHeader::mark`]).

use crate::{
    tables::{Members, Network, OWN_NODE, Peer, PeerId},
    verdict::Verdict,
};

/// A node as the tables know it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its place in `PEERS`.
    pub id: PeerId,
    /// What stands there.
    pub peer: &'a Peer,
}

/// What a node asks a relay for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who is at the outer source.
    pub from: Option<Known<'a>>,
    /// What `NODES` says of the destination's id.
    pub to: Option<PeerId>,
    /// What `PEERS` says of that.
    pub peer: Option<&'a Peer>,
    /// Who is in the frame's network; `None` if the configuration has no such network.
    pub members: Option<&'a Members>,
    /// Probes are in no network.
    pub is_probe: bool,
}

/// To which peer a frame is to be forwarded.
///
/// # Errors
/// Why it is not.
#[inline(always)]
pub fn forward(may_relay: bool, request: &Request<'_>) -> Result<PeerId, Verdict> {
    let Some(from) = request.from.filter(|from| from.peer.is_node()) else { return Err(Verdict::RelayStranger) };
    if !may_relay {
        return Err(Verdict::RelayForbidden);
    }
    let Some(to) = request.to else { return Err(Verdict::RelayUnknown) };
    if to == OWN_NODE {
        return Err(Verdict::RelaySelf);
    }
    if to == from.id {
        return Err(Verdict::RelayBack);
    }
    if !request.peer.is_some_and(Peer::is_node) {
        return Err(Verdict::RelayUnknown);
    }
    if !request.is_probe && !request.members.is_some_and(|members| members.has(from.id) && members.has(to)) {
        return Err(Verdict::RelayNotMember);
    }
    Ok(to)
}

/// True if what comes from this peer may have been relayed.
///
/// # Errors
/// It is no relay.
#[inline(always)]
pub fn comes_from_relay(relay: Option<Known<'_>>) -> Result<PeerId, Verdict> {
    match relay {
        Some(relay) if relay.peer.is_relay() => Ok(relay.id),
        _ => Err(Verdict::RelayedStranger),
    }
}

/// Whose a relayed frame is. `network` is `None` for a probe.
///
/// # Errors
/// Nobody's for whom a relay may send to us.
#[inline(always)]
pub fn origin(relay: PeerId, origin: Option<Known<'_>>, network: Option<&Network>) -> Result<PeerId, Verdict> {
    match origin {
        Some(Known { id, peer })
            if id != relay && peer.is_node() && network.is_none_or(|network| network.has_member(id)) =>
        {
            Ok(id)
        }
        _ => Err(Verdict::RelayedOrigin),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    fn peer(node_id: u32, flags: u32) -> Peer {
        Peer { flags, node_id, ..Peer::zeroed() }
    }

    fn members(of: &[PeerId]) -> Members {
        let mut members = Members::zeroed();
        of.iter().for_each(|&peer| members.add(peer));
        members
    }

    #[test]
    fn who_is_forwarded() {
        let (a, c, plain) = (peer(11, 0), peer(13, 0), peer(14, Peer::PLAIN));
        let (both, one) = (members(&[1, 3, 4]), members(&[1]));
        let from = Some(Known { id: 1, peer: &a });
        let good = Request { from, to: Some(3), peer: Some(&c), members: Some(&both), is_probe: false };
        assert_eq!(forward(true, &good), Ok(3));
        for (request, verdict) in [
            (Request { from: None, ..good }, Verdict::RelayStranger),
            (Request { from: Some(Known { id: 4, peer: &plain }), ..good }, Verdict::RelayStranger),
            (Request { to: None, peer: None, ..good }, Verdict::RelayUnknown),
            (Request { to: Some(4), peer: Some(&plain), ..good }, Verdict::RelayUnknown),
            (Request { to: Some(OWN_NODE), peer: None, ..good }, Verdict::RelaySelf),
            (Request { to: Some(1), peer: Some(&a), ..good }, Verdict::RelayBack),
            (Request { members: None, ..good }, Verdict::RelayNotMember),
            (Request { members: Some(&one), ..good }, Verdict::RelayNotMember),
        ] {
            assert_eq!(forward(true, &request), Err(verdict));
            let first = if verdict == Verdict::RelayStranger { verdict } else { Verdict::RelayForbidden };
            assert_eq!(forward(false, &request), Err(first));
        }
        assert_eq!(forward(false, &good), Err(Verdict::RelayForbidden));
        // Probes are in no network.
        assert_eq!(forward(true, &Request { members: None, is_probe: true, ..good }), Ok(3));
    }

    #[test]
    fn whose_relayed_frames_are_accepted() {
        let (node, relay, plain) = (peer(11, 0), peer(12, Peer::RELAY), peer(13, Peer::PLAIN | Peer::RELAY));
        let nobody = Peer::zeroed();
        let known = |id, peer| Some(Known { id, peer });
        assert_eq!(comes_from_relay(known(2, &relay)), Ok(2));
        for stranger in [None, known(1, &node), known(3, &plain), known(5, &nobody)] {
            assert_eq!(comes_from_relay(stranger), Err(Verdict::RelayedStranger));
        }
        let mut network = Network::zeroed();
        network.add_member(1);
        network.add_member(3);
        assert_eq!(origin(2, known(1, &node), Some(&network)), Ok(1));
        assert_eq!(origin(2, known(4, &node), None), Ok(4));
        for (origin_of, network) in [
            (None, Some(&network)),
            (known(4, &node), Some(&network)),
            (known(3, &plain), Some(&network)),
            (known(2, &relay), None),
        ] {
            assert_eq!(origin(2, origin_of, network), Err(Verdict::RelayedOrigin));
        }
    }
}
