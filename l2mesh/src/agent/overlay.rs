//! The overlay interfaces: where they are, what MAC address and MTU they have, and whether frames may be taken on their
//! egress, before taps and qdiscs see them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, mem,
};

use anyhow::Context as _;
use aya::programs::TcAttachType;
use l2mesh_common::tables::{Fact, Label, LabelKey, Port};

use super::{Agent, own_hooks::egress_hook};
use crate::{
    dataplane::{
        bridges::{self, is_bridge},
        devices::{self, Known, Pair},
        fill::{self, network_value, port_value},
        headroom::make_headroom,
        hooks::{self, Hook},
        object::Tc,
        tables::remove,
        view::NetworkView,
    },
    underlay::{Link, sniffers::captured, watch::Change},
};

/// Looked at one by one if events named no more devices than that.
const FEW: usize = 64;
/// Overlay interfaces that are looked at for other people's TC programs in one turn: no event tells of those.
const AT_A_TURN: usize = 256;

/// What is known of the overlay interfaces, and what is to be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Overlays {
    /// Place in [`View::networks`] by VNI.
    by_vni: HashMap<u32, usize>,
    /// The same by the index of either end.
    by_index: HashMap<u32, usize>,
    /// Devices that events named since the last look.
    changed: BTreeSet<u32>,
    /// Events were lost, or a look failed.
    all_changed: bool,
    /// Something changed that can matter for next hops.
    underlay_changed: bool,
    /// Interfaces with captures, 0 for those that capture on all.
    sniffed: BTreeSet<u32>,
    /// Interfaces with a clsact qdisc.
    clsact: BTreeSet<u32>,
    /// Where the next turn begins.
    turn: usize,
}

impl Agent {
    /// Notes what an event names. False if nothing of it can matter to us.
    pub(super) fn note(&mut self, change: Change) -> bool {
        let overlays = &mut self.overlays;
        let is_ours = |index: &u32| overlays.by_index.contains_key(index);
        match change {
            // Neighbours and addresses of the overlay come and go with its traffic and its users.
            Change::Neighbour { oif: index, .. } | Change::Address(index) if is_ours(&index) => return false,
            // Of the hidden ends, each of which gets one.
            Change::Filter(u32::MAX) => return false,
            Change::Neighbour { .. } | Change::Address(_) | Change::Route => overlays.underlay_changed = true,
            Change::Link(index) | Change::LinkGone(index) | Change::Qdisc(index) | Change::Filter(index) => {
                overlays.underlay_changed |= !is_ours(&index);
                overlays.changed.insert(index);
            }
            Change::Lost => (overlays.all_changed, overlays.underlay_changed) = (true, true),
        }
        true
    }

    /// Follows what was noted. What fails is tried again.
    pub(super) async fn follow_changes(&mut self) -> anyhow::Result<()> {
        let changed = mem::take(&mut self.overlays.changed);
        let done = if mem::take(&mut self.overlays.all_changed) || changed.len() > FEW {
            self.look_at_overlays().await
        } else {
            self.look_at_devices(&changed).await
        };
        self.overlays.all_changed |= done.is_err();
        done?;
        if mem::take(&mut self.overlays.underlay_changed) {
            let done = async {
                self.look_at_own_address().await?;
                self.look_up_next_hops().await
            };
            let done = done.await;
            self.overlays.underlay_changed |= done.is_err();
            done?;
        }
        Ok(())
    }

    /// Looks at every overlay interface and writes what changed.
    pub(crate) async fn look_at_overlays(&mut self) -> anyhow::Result<()> {
        let links = self.netlink.links().await?;
        let helper = links.iter().find(|link| link.alias.as_deref() == Some(&*self.view.helper_alias()));
        self.look_at_helper(helper).await?;
        self.overlays.sniffed = captured()?;
        self.overlays.clsact = self.netlink.links_with_clsact().await?;
        let mut ends: HashMap<u32, Vec<&Link>> = HashMap::new();
        for link in &links {
            if let Some(vni) = self.view.vni_of(link) {
                ends.entry(vni).or_default().push(link);
            }
        }
        let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        self.overlays.by_vni = self.view.networks.iter().enumerate().map(|(place, it)| (it.vni, place)).collect();
        self.overlays.by_index.clear();
        for place in 0..self.devices.networks.len() {
            let Pair { vni, hidden, .. } = self.devices.networks[place];
            let ends = ends.get(&vni).map_or(&[][..], Vec::as_slice);
            let overlay = ends.iter().find(|link| link.index != hidden).copied();
            let master = overlay.and_then(|link| by_index.get(&link.master?)).copied();
            self.update(place, overlay, master).await?;
            self.look_at_hidden(place, by_index.get(&hidden).copied()).await?;
            self.decide(place)?;
        }
        Ok(())
    }

    /// Looks at those devices that have to do with us.
    async fn look_at_devices(&mut self, devices: &BTreeSet<u32>) -> anyhow::Result<()> {
        let mut places = BTreeSet::new();
        for &index in devices {
            let link = self.netlink.link_by_index(index).await?;
            if index == self.devices.helper.index {
                self.look_at_helper(link.as_ref()).await?;
            }
            let named = link.as_ref().and_then(|link| self.overlays.by_vni.get(&self.view.vni_of(link)?));
            if let Some(&place) = named.or(self.overlays.by_index.get(&index)) {
                if index == self.devices.networks[place].hidden {
                    self.look_at_hidden(place, link.as_ref()).await?;
                } else if named.is_some() || self.overlay(place).is_some_and(|it| it.index == index) {
                    self.look_at_overlay(place, link.as_ref()).await?;
                }
                places.insert(place);
            }
            let is_port = |place: &usize| self.overlay(*place).is_some_and(|it| it.master == Some(index));
            for place in (0..self.devices.networks.len()).filter(is_port).collect::<Vec<_>>() {
                let overlay = self.overlay(place).cloned();
                self.look_at_overlay(place, overlay.as_ref()).await?;
            }
        }
        if !places.is_empty() {
            self.overlays.clsact = self.netlink.links_with_clsact().await?;
        }
        places.into_iter().try_for_each(|place| self.decide(place))
    }

    async fn look_at_overlay(&mut self, place: usize, found: Option<&Link>) -> anyhow::Result<()> {
        let master = match found.and_then(|link| link.master) {
            Some(master) => self.netlink.link_by_index(master).await?,
            None => None,
        };
        self.update(place, found, master.as_ref()).await
    }

    fn overlay(&self, place: usize) -> Option<&Link> {
        self.devices.networks[place].overlay.as_ref()
    }

    /// What no event tells of: captures, and other people's TC programs on some of the interfaces.
    pub(super) async fn take_a_turn(&mut self) -> anyhow::Result<()> {
        let sniffed = captured()?;
        let before = mem::replace(&mut self.overlays.sniffed, sniffed.clone());
        let mut places: BTreeSet<usize> = BTreeSet::new();
        for index in sniffed.symmetric_difference(&before) {
            match index {
                0 => places.extend(0..self.devices.networks.len()),
                index => places.extend(self.overlays.by_index.get(index)),
            }
        }
        let number = self.devices.networks.len();
        let turn = (self.overlays.turn..).take(AT_A_TURN.min(number)).map(|place| place % number);
        places.extend(turn);
        self.overlays.turn = (self.overlays.turn + AT_A_TURN) % number.max(1);
        places.into_iter().try_for_each(|place| self.decide(place))?;
        let Overlays { all_changed, underlay_changed, changed, .. } = &self.overlays;
        if *all_changed || *underlay_changed || !changed.is_empty() { self.follow_changes().await } else { Ok(()) }
    }

    /// At the next turn everything is looked at, in case that an event did not come.
    pub(super) fn look_again(&mut self) {
        self.overlays.all_changed = true;
    }

    /// Somebody may have removed or switched off the other end of an overlay interface.
    async fn look_at_hidden(&mut self, place: usize, found: Option<&Link>) -> anyhow::Result<()> {
        let Pair { vni, hidden, .. } = self.devices.networks[place];
        let network = &self.view.networks[place];
        match found {
            None if self.broken.insert(vni) => {
                let gone = Label::new("down: somebody removed its devices, `l2mesh reload` makes new ones");
                self.tables.labels.insert(LabelKey::transmit(vni), gone, 0).context("cannot write LABELS")?;
                log::error!(
                    "{}: somebody removed it, network {} is down until `l2mesh reload`, which makes new devices",
                    network.interface,
                    network.name
                );
            }
            None => {}
            Some(link) => {
                self.overlays.by_index.insert(hidden, place);
                if !link.up {
                    log::warn!("the other end of {} was switched off: switched on again", network.interface);
                    self.netlink.set_up(hidden).await?;
                }
            }
        }
        Ok(())
    }

    /// Makes the helper device anew if somebody removed it or switched it off: bulk TCP in mode tc would hang.
    async fn look_at_helper(&mut self, found: Option<&Link>) -> anyhow::Result<()> {
        // Without META a detach has been here, while we were stopped.
        if found.is_some_and(|link| link.up) || !self.pins.pin("META").exists() {
            return Ok(());
        }
        let known = Known::default();
        let (helper, port) =
            devices::ensure_helper(&self.netlink, &self.view, self.devices.is_private, found.cloned(), &known).await?;
        log::warn!("{}: somebody removed it or switched it off: made anew", helper.name);
        make_headroom(&self.netlink, &self.view, &helper, &self.devices.networks).await;
        let hook = Hook { interface: &helper.name, program: Tc::Helper, side: TcAttachType::Ingress, vni: None };
        hooks::attach_tc(&mut self.object, &self.pins, hook)?;
        (self.devices.helper, self.devices.helper_port) = (helper, port);
        self.tables.set_fact(Fact::UdpPort, &self.devices.port_text(self.view.port))?;
        fill::write_settings(&mut self.tables, &self.view, &self.devices)
    }

    /// The overlay interface came, went or changed; `master` is what it is a port of.
    async fn update(&mut self, place: usize, found: Option<&Link>, master: Option<&Link>) -> anyhow::Result<()> {
        let pair = &mut self.devices.networks[place];
        let before = pair.overlay.take();
        pair.overlay = found.cloned();
        let bridge = master.filter(|link| is_bridge(link));
        let was_port = mem::replace(&mut pair.is_bridge_port, bridge.is_some());
        if let NetworkView { name, interface, bridge: Some(wanted), .. } = &self.view.networks[place]
            && was_port
            && bridge.is_none()
            && found.is_some()
        {
            log::warn!(
                "{interface} is no port of {wanted} any more, by somebody else's hand: network {name} ends here until it is one \
                 again or the next attach"
            );
        }
        // What this host sends into a bridge comes from the bridge's address.
        if let Some(mac) = bridge.or(found).and_then(|link| link.mac) {
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
                remove(&mut self.tables.ports, &gone)?;
                self.overlays.by_index.remove(&gone);
            }
            if let Some(link) = found {
                if self.view.networks[place].bridge.is_some() {
                    bridges::rejoin(&self.netlink, &self.tables, vni, link).await?;
                }
                if self.own_hooks.wants_egress(place) {
                    self.attach_egress(place, &link.name);
                }
            }
        }
        if let Some(index) = index {
            self.overlays.by_index.insert(index, place);
        }
        Ok(())
    }

    /// Puts the egress program onto an overlay interface; without it everything goes through the hidden peer.
    pub(crate) fn attach_egress(&mut self, place: usize, interface: &str) {
        if !self.may_shortcut {
            return;
        }
        let hook = egress_hook(self.devices.networks[place].vni, interface);
        match hooks::attach_tc(&mut self.object, &self.pins, hook) {
            Ok(()) => self.own_hooks.got_egress(place),
            Err(error) => {
                log::info!("no egress shortcut on {interface}: {error:#}");
                self.may_shortcut = false;
            }
        }
    }

    /// Where frames of an overlay interface are taken: on its egress only if nobody misses them there.
    fn transmit(&self, place: usize) -> Transmit {
        let Pair { overlay: Some(link), is_bridge_port, .. } = &self.devices.networks[place] else {
            return Transmit::Hidden("the interface is in another namespace".to_owned());
        };
        let (name, Overlays { sniffed, clsact, .. }) = (&link.name, &self.overlays);
        let qdisc = link.qdisc.as_deref().unwrap_or("noqueue");
        let objection = if self.view.by_kernel {
            "in mode kernel there is no shortcut".to_owned()
        } else if !self.may_shortcut {
            "the shortcut is switched off".to_owned()
        } else if !self.own_hooks.has_egress(place) {
            "the shortcut comes later, or when it is busy: there are many networks".to_owned()
        } else if qdisc != "noqueue" {
            format!("{name} has the qdisc {qdisc}")
        } else if link.promiscuity > u32::from(*is_bridge_port) || sniffed.contains(&link.index) || sniffed.contains(&0)
        {
            format!("somebody sniffs on {name}")
        } else if clsact.contains(&link.index) {
            format!("{name} has a clsact qdisc")
        } else {
            match hooks::programs_at_egress(link.index) {
                Ok(0 | 1) => return Transmit::Shortcut,
                Ok(_) => format!("{name} has other TC programs on its egress"),
                Err(error) => format!("cannot ask for the TC programs of {name}: {error}"),
            }
        };
        Transmit::Hidden(objection)
    }

    /// Opens or closes the shortcut of a network and notes why.
    pub(super) fn decide(&mut self, place: usize) -> anyhow::Result<()> {
        let pair = &self.devices.networks[place];
        let vni = pair.vni;
        if self.broken.contains(&vni) {
            return Ok(());
        }
        let transmit = self.transmit(place);
        if let Some(overlay) = &pair.overlay {
            let mut port = port_value(&self.view.networks[place], pair);
            if transmit == Transmit::Shortcut {
                port = Port { flags: port.flags | Port::SHORTCUT, netns_cookie: self.netns_cookie, ..port };
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
