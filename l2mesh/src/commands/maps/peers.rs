//! `l2mesh maps peers`: the other nodes, and how they are reached.

use std::{collections::BTreeMap, time::Duration};

use l2mesh_common::tables::{LabelKey, PathLimit, Peer, PeerId};
use serde::Serialize;

use super::{super::output::table, interface};
use crate::{agent::coarse_now_ns, dataplane::tables::Tables};

/// Next hop of a peer towards which the kernel puts the outer header on.
const BY_KERNEL: &str = "by the kernel";

/// Another node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PeerRow {
    pub(crate) id: PeerId,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) kind: &'static str,
    pub(crate) node_id: u32,
    /// Empty while the next hop is not known.
    pub(crate) interface: String,
    /// A MAC address, or [`BY_KERNEL`].
    pub(crate) next_hop: Option<String>,
    /// Of the inner frames, octets.
    pub(crate) mtu: u32,
    /// Why that is less than the way there would take; null if it is not.
    pub(crate) learned: Option<Learned>,
    pub(crate) sent_frames: u64,
    pub(crate) sent_octets: u64,
    pub(crate) received_frames: u64,
    pub(crate) received_octets: u64,
}

impl PeerRow {
    /// The MTU, and why it is what it is.
    pub(crate) fn mtu_text(&self) -> String {
        match &self.learned {
            Some(Learned { path_mtu, seconds_left }) => {
                format!("{} (ICMP: path takes {path_mtu}, for {seconds_left} s)", self.mtu)
            }
            None => self.mtu.to_string(),
        }
    }
}

/// What ICMP said of a path.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Learned {
    /// Of the outer packets, octets.
    pub(crate) path_mtu: u32,
    /// How long it is believed.
    pub(crate) seconds_left: u64,
}

impl Learned {
    fn new(limit: PathLimit, now_ns: u64) -> Option<Self> {
        let left = limit.until_ns.checked_sub(now_ns).filter(|_| limit.mtu != 0)?;
        Some(Self { path_mtu: limit.mtu, seconds_left: Duration::from_nanos(left).as_secs() })
    }
}

/// Every peer, in the order of its id; with `vni`, only members.
pub(crate) fn peers(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<PeerRow>> {
    let now = coarse_now_ns()?;
    each_peer(tables, vni)?
        .into_iter()
        .map(|(id, address, peer)| {
            let next_hop = peer.current();
            let counter = tables.peer_counter(id)?;
            Ok(PeerRow {
                id,
                name: tables.label(LabelKey::peer(id)),
                address,
                kind: if peer.flags & Peer::PLAIN == 0 { "l2mesh" } else { "vxlan" },
                node_id: peer.node_id,
                interface: interface(next_hop.ifindex),
                next_hop: next_hop.is_known().then(|| {
                    if next_hop.way().is_by_helper() {
                        BY_KERNEL.to_owned()
                    } else {
                        next_hop.template.ethernet().destination.to_string()
                    }
                }),
                mtu: next_hop.mtu,
                learned: Learned::new(peer.limit, now),
                sent_frames: counter.sent.frames,
                sent_octets: counter.sent.octets,
                received_frames: counter.received.frames,
                received_octets: counter.received.octets,
            })
        })
        .collect()
}

/// Every peer with its address; with `vni`, only members.
pub(super) fn each_peer(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<(PeerId, String, Peer)>> {
    let network = vni.map(|vni| tables.networks.get(&vni, 0)).transpose();
    // A network that is not here has no members here.
    let Ok(network) = network else { return Ok(Vec::new()) };
    let vteps: BTreeMap<PeerId, String> = tables
        .vteps
        .iter()
        .map(|entry| entry.map(|(address, id)| (id, address.ip().to_string())))
        .collect::<Result<_, _>>()?;
    let members = vteps.into_iter().filter(|(id, _)| network.as_ref().is_none_or(|network| network.has_member(*id)));
    members.map(|(id, address)| Ok((id, address, tables.peers.get(&id, 0)?))).collect()
}

/// Peers for people.
pub(crate) fn peers_table(rows: &[PeerRow]) -> String {
    let cells = rows.iter().map(|it| {
        let next_hop = it
            .next_hop
            .as_ref()
            .map_or_else(|| "not known".to_owned(), |next_hop| format!("{next_hop} on {}", it.interface));
        vec![
            it.name.clone(),
            it.address.clone(),
            it.kind.into(),
            next_hop,
            it.mtu_text(),
            it.sent_frames.to_string(),
            it.sent_octets.to_string(),
            it.received_frames.to_string(),
            it.received_octets.to_string(),
        ]
    });
    let header = ["peer", "address", "kind", "next hop", "mtu", "sent", "octets", "received", "octets"];
    table("peers", &header, &cells.collect::<Vec<_>>(), &[4, 5, 6, 7, 8])
}
