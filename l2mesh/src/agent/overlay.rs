//! The overlay interfaces: where they are, what MAC address and MTU they have, and whether frames may be taken on their
//! egress, before taps and qdiscs see them.

use std::{collections::BTreeSet, fmt};

use anyhow::Context as _;
use aya::programs::TcAttachType;
use l2mesh_common::tables::{Fact, Label, LabelKey, Port};

use super::Agent;
use crate::{
    dataplane::{
        devices::{self, Known},
        fill::{self, network_value, port_value},
        hooks::{self, Hook},
        object::Tc,
        pins::netns_cookie,
        view::View,
    },
    underlay::{Link, sniffers::captured},
};

impl Agent {
    /// Looks at every overlay interface and writes what changed.
    pub(crate) async fn look_at_overlays(&mut self) -> anyhow::Result<()> {
        let links = self.netlink.links_with_alias(&View::alias_prefix(&self.view.interface)).await?;
        self.look_at_helper(&links).await?;
        let sniffed = captured()?;
        let clsact = self.netlink.links_with_clsact().await?;
        let cookie = netns_cookie()?;
        for place in 0..self.devices.networks.len() {
            let (vni, hidden) = (self.devices.networks[place].vni, self.devices.networks[place].hidden);
            let alias = self.view.alias(vni);
            let is_overlay = |link: &&Link| link.index != hidden && link.alias.as_deref() == Some(&*alias);
            let found = links.iter().find(is_overlay);
            let under_bridge = self.is_bridge_port(found).await?;
            self.update(place, found, under_bridge)?;
            if !links.iter().any(|link| link.index == hidden) {
                if self.broken.insert(vni) {
                    let network = &self.view.networks[place];
                    let gone = Label::new("down: somebody removed its devices, attach again");
                    self.tables.labels.insert(LabelKey::transmit(vni), gone, 0).context("cannot write LABELS")?;
                    log::error!(
                        "{}: somebody removed it, network {} is down until the next attach",
                        network.interface,
                        network.name
                    );
                }
                continue;
            }
            if links.iter().any(|link| link.index == hidden && !link.up) {
                log::warn!(
                    "the other end of {} was switched off: switched on again",
                    self.view.networks[place].interface
                );
                self.netlink.set_up(hidden).await?;
            }
            let transmit = match &self.devices.networks[place].overlay {
                Some(link) => self.transmit(link, under_bridge, &sniffed, &clsact),
                None => Transmit::Hidden("the interface is in another namespace".to_owned()),
            };
            self.decide(place, &transmit, cookie)?;
        }
        Ok(())
    }

    /// Makes the helper device anew if somebody removed it or switched it off: bulk TCP in mode tc would hang.
    async fn look_at_helper(&mut self, links: &[Link]) -> anyhow::Result<()> {
        let found = links.iter().find(|link| link.alias.as_deref() == Some(&*self.view.helper_alias()));
        // Without META a detach has been here, while we were stopped.
        if found.is_some_and(|link| link.up) || !self.pins.pin("META").exists() {
            return Ok(());
        }
        let known = Known::default();
        let (helper, port) =
            devices::ensure_helper(&self.netlink, &self.view, self.devices.is_private, found.cloned(), &known).await?;
        log::warn!("{}: somebody removed it or switched it off: made anew", helper.name);
        devices::make_headroom(&self.netlink, &self.view, &helper, &self.devices.networks).await;
        let hook = Hook { interface: &helper.name, program: Tc::Helper, side: TcAttachType::Ingress, vni: None };
        hooks::attach_tc(&mut self.object, &self.pins, hook)?;
        (self.devices.helper, self.devices.helper_port) = (helper, port);
        self.tables.set_fact(Fact::UdpPort, &self.devices.port_text(self.view.port))?;
        fill::write_settings(&mut self.tables, &self.view, &self.devices)
    }

    async fn is_bridge_port(&self, link: Option<&Link>) -> anyhow::Result<bool> {
        let Some(index) = link.and_then(|link| link.master) else { return Ok(false) };
        let master = self.netlink.link_by_index(index).await?;
        Ok(master.is_some_and(|master| master.kind.as_deref() == Some("bridge")))
    }

    /// The overlay interface came, went or changed.
    fn update(&mut self, place: usize, found: Option<&Link>, is_bridge_port: bool) -> anyhow::Result<()> {
        let pair = &mut self.devices.networks[place];
        let before = pair.overlay.take();
        (pair.overlay, pair.is_bridge_port) = (found.cloned(), is_bridge_port);
        if let Some(mac) = found.and_then(|link| link.mac) {
            pair.mac = mac;
        }
        let (index, index_before) = (found.map(|link| link.index), before.map(|link| link.index));
        let (vni, value) = (pair.vni, network_value(&self.view.networks[place], pair));
        if self.tables.networks.get(&vni, 0)? != value {
            self.tables.networks.insert(vni, value, 0).context("cannot write NETWORKS")?;
        }
        let (hidden, port) = (pair.hidden, port_value(&self.view.networks[place], pair));
        if !self.tables.ports.get(&hidden, 0).is_ok_and(|found| found == port) {
            self.tables.ports.insert(hidden, port, 0).context("cannot write PORTS")?;
        }
        if index != index_before {
            if let Some(gone) = index_before {
                crate::dataplane::tables::remove(&mut self.tables.ports, &gone)?;
            }
            if let Some(link) = found {
                self.attach_egress(vni, &link.name);
            }
        }
        Ok(())
    }

    /// Puts the egress program onto an overlay interface; without it everything goes through the hidden peer.
    pub(crate) fn attach_egress(&mut self, vni: u32, interface: &str) {
        if !self.may_shortcut {
            return;
        }
        let hook = Hook { interface, program: Tc::OverlayEgress, side: TcAttachType::Egress, vni: Some(vni) };
        if let Err(error) = hooks::attach_tc(&mut self.object, &self.pins, hook) {
            log::info!("no egress shortcut on {interface}: {error:#}");
            self.may_shortcut = false;
        }
    }

    /// Where frames of an overlay interface are taken: on its egress only if nobody misses them there.
    fn transmit(&self, link: &Link, under_bridge: bool, sniffed: &BTreeSet<u32>, clsact: &BTreeSet<u32>) -> Transmit {
        let name = &link.name;
        let qdisc = link.qdisc.as_deref().unwrap_or("noqueue");
        let objection = if self.view.by_kernel {
            "in mode kernel there is no shortcut".to_owned()
        } else if !self.may_shortcut {
            "the shortcut is switched off".to_owned()
        } else if qdisc != "noqueue" {
            format!("{name} has the qdisc {qdisc}")
        } else if link.promiscuity > u32::from(under_bridge) || sniffed.contains(&link.index) || sniffed.contains(&0) {
            format!("somebody sniffs on {name}")
        } else if clsact.contains(&link.index) {
            format!("{name} has a clsact qdisc")
        } else {
            match hooks::programs_at(name, TcAttachType::Egress) {
                Ok(0 | 1) => return Transmit::Shortcut,
                Ok(_) => format!("{name} has other TC programs on its egress"),
                Err(error) => format!("{error:#}"),
            }
        };
        Transmit::Hidden(objection)
    }

    /// Opens or closes the shortcut of a network and notes why.
    fn decide(&mut self, place: usize, transmit: &Transmit, netns_cookie: u64) -> anyhow::Result<()> {
        let pair = &self.devices.networks[place];
        let vni = pair.vni;
        if let Some(overlay) = &pair.overlay {
            let mut port = port_value(&self.view.networks[place], pair);
            if *transmit == Transmit::Shortcut {
                port = Port { flags: port.flags | Port::SHORTCUT, netns_cookie, ..port };
            }
            if !self.tables.ports.get(&overlay.index, 0).is_ok_and(|found| found == port) {
                self.tables.ports.insert(overlay.index, port, 0).context("cannot write PORTS")?;
            }
        }
        let (key, text) = (LabelKey::transmit(vni), transmit.to_string());
        if self.tables.label(key) != text {
            log::debug!("VNI {vni}: {text}");
            self.tables.labels.insert(key, Label::new(&text), 0).context("cannot write LABELS")?;
        }
        Ok(())
    }
}

/// Where a network's frames are taken.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Transmit {
    /// On the overlay interface's egress.
    Shortcut,
    /// At the hidden peer, for this reason.
    Hidden(String),
}

impl fmt::Display for Transmit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortcut => f.write_str("egress shortcut"),
            Self::Hidden(reason) => write!(f, "hidden peer: {reason}"),
        }
    }
}
