//! How each peer is reached: routes and neighbours, kept current.

use std::{collections::BTreeSet, net::IpAddr};

use l2mesh_common::{
    tables::{NextHop, PeerId},
    wire::{Endpoint, Template},
};

use log::Level;

use super::{Agent, chronicle::Subject};
use crate::underlay::next_hop::{self, Writer};

impl Agent {
    /// Looks every peer's next hop up and writes those that changed.
    pub(crate) async fn look_up_next_hops(&mut self) -> anyhow::Result<()> {
        let overlays = self.overlay_indexes();
        for place in 0..self.view.peers.len() {
            let peer = &self.view.peers[place];
            if !peer.is_direct {
                continue;
            }
            let (id, address) = (peer.id, peer.address);
            let writer = if peer.way.is_by_helper() { Writer::Kernel } else { Writer::Program };
            let found = next_hop::next_hop(&self.netlink, address, self.view.source_towards(peer), writer).await?;
            let oif = match found {
                Ok(next_hop::NextHop { oif, .. }) | Err(next_hop::NoNextHop::Unresolved { oif, .. }) => Some(oif),
                Err(_) => None,
            };
            let found = match oif.filter(|oif| overlays.contains(oif)) {
                Some(oif) => Err(next_hop::NoNextHop::Overlay { peer: address, oif }),
                None => found,
            };
            match found {
                Ok(found) => self.reach(id, &found)?,
                // A neighbour that does not answer now answered before: its address is the best guess still.
                Err(reason @ next_hop::NoNextHop::Unresolved { .. }) => self.miss(id, &reason.to_string()),
                Err(reason) => {
                    if self.tables.peers.get(&id, 0)?.current().is_known() {
                        self.tables.set_next_hop(id, NextHop::UNKNOWN)?;
                    }
                    self.miss(id, &reason.to_string());
                }
            }
        }
        self.follow_paths()
    }

    /// The overlay interfaces and the bridges of which they are ports.
    fn overlay_indexes(&self) -> BTreeSet<u32> {
        let overlays = self.devices.networks.iter().filter_map(|pair| pair.overlay.as_ref());
        overlays.flat_map(|link| [Some(link.index), link.master]).flatten().collect()
    }

    /// Makes the kernel ask next hops whose entry it has not confirmed lately. What it sends itself it keeps fresh itself.
    pub(super) async fn refresh_neighbours(&self) -> anyhow::Result<()> {
        let mut asked = BTreeSet::new();
        for peer in self.view.peers.iter().filter(|peer| peer.is_direct && !peer.way.is_by_helper()) {
            if let Some(route) = self.netlink.route_to(peer.address, self.view.source_towards(peer)).await?
                && !route.local
            {
                let ip = route.gateway.unwrap_or(peer.address);
                if asked.insert((route.oif, ip))
                    && let Err(error) = self.netlink.solicit(route.oif, ip).await
                {
                    log::debug!("{error}");
                }
            }
        }
        Ok(())
    }

    fn reach(&mut self, id: PeerId, found: &next_hop::NextHop) -> anyhow::Result<()> {
        let path_mtu = self.path_mtu(id, found.underlay_mtu())?;
        let Some(next_hop) = self.next_hop(id, found, path_mtu) else { return Ok(()) };
        if *self.tables.peers.get(&id, 0)?.current() != next_hop {
            self.tables.set_next_hop(id, next_hop)?;
            log::debug!("{}: next hop {} on interface {}", self.name(id), found.destination_mac, found.oif);
        }
        if self.unreachable.remove(&id).is_some() && self.is_up {
            self.say(Level::Info, Subject::of("peer-reachable").peer(id), format!("{}: reachable", self.name(id)));
        }
        Ok(())
    }

    fn next_hop(&self, id: PeerId, found: &next_hop::NextHop, path_mtu: u32) -> Option<NextHop> {
        let peer = self.view.peers.iter().find(|peer| peer.id == id)?;
        let (from, to, port) = (found.source_mac, found.destination_mac, self.view.port);
        let template = match (found.source_ip, peer.address) {
            (IpAddr::V4(source), IpAddr::V4(address)) => Template::v4(
                Endpoint { mac: from, address: source.into() },
                Endpoint { mac: to, address: address.into() },
                port,
            ),
            (IpAddr::V6(source), IpAddr::V6(address)) => Template::v6(
                Endpoint { mac: from, address: source.into() },
                Endpoint { mac: to, address: address.into() },
                port,
            ),
            _ => return None,
        };
        Some(NextHop {
            ifindex: if peer.way.is_by_helper() { self.devices.helper.index } else { found.oif },
            mtu: path_mtu.saturating_sub(peer.overhead()),
            way: peer.way as u32,
            flags: if peer.udp_checksum { NextHop::CHECKSUM } else { 0 },
            template,
        })
    }

    /// Says once why a peer cannot be reached.
    fn miss(&mut self, id: PeerId, reason: &str) {
        if self.unreachable.get(&id).is_none_or(|before| before != reason) {
            // The first answers take a moment, and attach waits for them.
            if self.is_up {
                self.say_missing(id, reason);
            } else {
                log::debug!("{}: {reason}", self.name(id));
            }
            self.unreachable.insert(id, reason.to_owned());
        }
    }

    /// Says of every peer that is still missing why, once, when the mesh comes up.
    pub(crate) fn tell_missing(&mut self) {
        self.is_up = true;
        for (&id, reason) in &self.unreachable {
            self.say_missing(id, reason);
        }
    }

    fn say_missing(&self, id: PeerId, reason: &str) {
        self.say(Level::Warn, Subject::of("peer-unreachable").peer(id), format!("{}: {reason}", self.name(id)));
    }

    pub(super) fn name(&self, id: PeerId) -> String {
        self.view
            .peers
            .iter()
            .find(|peer| peer.id == id)
            .map(|peer| format!("{} ({})", peer.name, peer.address))
            .unwrap_or_default()
    }
}
