//! `l2mesh maps networks`.

use std::collections::BTreeMap;

use l2mesh_common::tables::{LabelKey, Network};
use serde::Serialize;

use super::{super::output::table, interface, vni_text};
use crate::dataplane::tables::Tables;

/// A network.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkRow {
    pub(crate) name: String,
    pub(crate) vni: u32,
    /// Empty while the interface is in another namespace.
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) hidden_peer: String,
    pub(crate) mac: String,
    /// Octets.
    pub(crate) mtu: u32,
    /// Null unless the configuration names one.
    pub(crate) bridge: Option<String>,
    pub(crate) members: Vec<String>,
    pub(crate) macs: usize,
    /// Flooded frames per second.
    pub(crate) storm_limit: u32,
    /// MAC addresses behind one peer; null for no limit.
    pub(crate) macs_per_peer: Option<u32>,
    pub(crate) transmit: String,
    pub(crate) sent_frames: u64,
    pub(crate) sent_octets: u64,
    pub(crate) received_frames: u64,
    pub(crate) received_octets: u64,
    /// Frames on the wire that storm control ended.
    pub(crate) storm_sent: u64,
    pub(crate) storm_received: u64,
}

/// Every network, by VNI.
pub(crate) fn networks(tables: &Tables, vni: Option<u32>) -> anyhow::Result<Vec<NetworkRow>> {
    let mut macs: BTreeMap<u32, usize> = BTreeMap::new();
    for key in tables.fdb.keys().map_while(Result::ok) {
        *macs.entry(key.vni).or_default() += 1;
    }
    let networks: BTreeMap<u32, Network> = tables.networks.iter().collect::<Result<_, _>>()?;
    let names: Vec<String> = (0..tables.peers.len()).map(|peer| tables.label(LabelKey::peer(peer))).collect();
    let rows = networks.into_iter().filter(|(id, _)| vni.is_none_or(|vni| vni == *id)).map(|(id, network)| {
        let counter = tables.network_counter(network.number)?;
        Ok(NetworkRow {
            name: tables.label(LabelKey::network(id)),
            vni: id,
            interface: interface(network.overlay_ifindex),
            ifindex: network.overlay_ifindex,
            hidden_peer: interface(network.port_ifindex),
            mac: network.mac.to_string(),
            // A veth end takes 18 octets more than its MTU.
            mtu: network.max_frame.saturating_sub(18),
            bridge: tables.label(LabelKey::bridge(id)).parse().ok().map(interface),
            members: (0..)
                .zip(&names)
                .filter(|(peer, _)| network.has_member(*peer))
                .map(|(_, it)| it.clone())
                .collect(),
            macs: macs.get(&id).copied().unwrap_or(0),
            storm_limit: network.storm_limit,
            macs_per_peer: Some(network.macs_per_peer).filter(|&limit| limit > 0),
            transmit: tables.label(LabelKey::transmit(id)),
            sent_frames: counter.sent.frames,
            sent_octets: counter.sent.octets,
            received_frames: counter.received.frames,
            received_octets: counter.received.octets,
            storm_sent: counter.storm_sent,
            storm_received: counter.storm_received,
        })
    });
    rows.collect()
}

/// Networks for people.
pub(crate) fn networks_table(rows: &[NetworkRow]) -> String {
    let cells = rows.iter().map(|it| {
        let interface = match &*it.interface {
            "" if it.transmit.starts_with("down") => "(gone)".to_owned(),
            "" => "(in another namespace)".to_owned(),
            name => it.bridge.as_ref().map_or_else(|| name.to_owned(), |bridge| format!("{name} in {bridge}")),
        };
        vec![
            it.name.clone(),
            vni_text(it.vni),
            interface,
            it.mac.clone(),
            it.mtu.to_string(),
            it.macs.to_string(),
            it.members.len().to_string(),
            it.storm_limit.to_string(),
            (it.storm_sent + it.storm_received).to_string(),
            it.transmit.clone(),
        ]
    });
    table(
        "networks",
        &["name", "vni", "interface", "mac", "mtu", "macs", "peers", "storm limit", "storm drops", "transmit"],
        &cells.collect::<Vec<_>>(),
        &[4, 5, 6, 7, 8],
    )
}
