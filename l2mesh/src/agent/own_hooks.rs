//! Which networks have hooks of their own.
//!
//! A program on tcx costs the kernel 8 to 16 ms when it is attached, and again when its interface goes, with all other changes
//! of interfaces held up (`tcx_entry_sync` in kernel/bpf/tcx.c): two programs a network are nothing for a few and minutes for
//! thousands. So the hidden ends of many networks share one program ([`crate::underlay::blocks`]), which costs each frame some
//! 50 ns more and knows no shortcut, and those networks that have much to send get hooks of their own while they work.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use aya::programs::TcAttachType;

use super::Agent;
use crate::{
    dataplane::{
        devices::{Devices, Pair},
        hooks::{self, Hook, block},
        object::{Object, Tc},
        pins::PinDir,
    },
    underlay::{
        Netlink,
        traffic::{Frames, received_frames},
    },
};

/// Networks whose own hooks attach waits for.
const AT_ONCE: usize = 8;
/// Networks that can have hooks of their own: two seconds when the mesh goes.
const PLACES: usize = 64;
/// Time from one network to the next: others want to change their interfaces too.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// How often to look who is busy.
pub(super) const LOOK_AROUND: Duration = Duration::from_secs(3);
/// Frames in that time: below, there is nothing to win.
const BUSY: u64 = 300;

/// Networks by their place in [`crate::dataplane::view::View::networks`].
#[derive(Debug, Default)]
pub(crate) struct OwnHooks {
    /// Whose hidden ends have programs of their own.
    hidden: BTreeSet<usize>,
    /// Whose overlay interfaces have programs.
    egress: BTreeSet<usize>,
    /// Those that get theirs next.
    queue: VecDeque<usize>,
    /// One could not get its own: the shared program stays for it.
    failed: bool,
    /// What each device had received at the last look.
    frames: Frames,
}

impl OwnHooks {
    /// Puts the program onto the hidden ends: where one is pinned, in its place.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) async fn attach(
        object: &mut Object,
        pins: &PinDir,
        netlink: &Netlink,
        ifindex: u32,
        devices: &Devices,
    ) -> anyhow::Result<Self> {
        let (mut own, mut missing) = (Self::default(), Vec::new());
        for (place, pair) in devices.networks.iter().enumerate() {
            if hooks::update_tc(object, pins, hidden_hook(pair.vni, &pair.hidden_name))? {
                own.hidden.insert(place);
            } else {
                missing.push(place);
            }
        }
        let number = AT_ONCE.min(PLACES.saturating_sub(own.hidden.len())).min(missing.len());
        for place in missing.drain(..number) {
            let pair = &devices.networks[place];
            hooks::attach_tc(object, pins, hidden_hook(pair.vni, &pair.hidden_name))?;
            own.hidden.insert(place);
        }
        if missing.is_empty() {
            netlink.clear_block(block(ifindex)).await?;
        } else {
            let hidden: Vec<u32> = missing.iter().map(|&place| devices.networks[place].hidden).collect();
            hooks::attach_block(object, pins, netlink, ifindex, &hidden).await?;
        }
        if devices.networks.len() <= PLACES {
            own.queue.extend(missing);
        }
        Ok(own)
    }

    /// True if a network's overlay interface is to have an egress program.
    pub(super) fn wants_egress(&self, place: usize) -> bool {
        self.hidden.contains(&place)
    }

    /// True if it has.
    pub(super) fn has_egress(&self, place: usize) -> bool {
        self.egress.contains(&place)
    }

    /// It has.
    pub(super) fn got_egress(&mut self, place: usize) {
        self.egress.insert(place);
    }

    /// True if a network waits for its hooks.
    pub(super) fn is_at_work(&self) -> bool {
        !self.queue.is_empty()
    }

    fn free_places(&self) -> usize {
        PLACES.saturating_sub(self.hidden.len() + self.queue.len())
    }
}

impl Agent {
    /// Puts the egress program onto the overlay interfaces whose network has hooks of its own.
    pub(super) fn attach_egress_programs(&mut self) -> anyhow::Result<()> {
        for place in 0..self.devices.networks.len() {
            let pair = &self.devices.networks[place];
            let Some(name) = pair.overlay.as_ref().map(|overlay| overlay.name.clone()) else { continue };
            if self.own_hooks.wants_egress(place) {
                self.attach_egress(place, &name);
            } else if hooks::update_tc(&mut self.object, &self.pins, egress_hook(pair.vni, &name))? {
                // Killed between the one and the other.
                self.own_hooks.got_egress(place);
                self.own_hooks.queue.push_front(place);
            }
        }
        Ok(())
    }

    /// Gives the next network its own hooks.
    pub(super) async fn hook_one(&mut self) -> anyhow::Result<()> {
        let Some(place) = self.own_hooks.queue.pop_front() else { return Ok(()) };
        let pair = &self.devices.networks[place];
        let (vni, hidden) = (pair.vni, pair.hidden_name.clone());
        let overlay = pair.overlay.as_ref().map(|overlay| overlay.name.clone());
        if !self.broken.contains(&vni) {
            // From here on the shared program has nothing to do.
            match hooks::attach_tc(&mut self.object, &self.pins, hidden_hook(vni, &hidden)) {
                Ok(()) => drop(self.own_hooks.hidden.insert(place)),
                Err(error) => {
                    self.own_hooks.failed = true;
                    log::warn!("{hidden} keeps the program that it shares with others: {error:#}");
                }
            }
        }
        if let Some(name) = overlay {
            self.attach_egress(place, &name);
            self.decide(place)?;
        }
        if self.own_hooks.hidden.len() == self.devices.networks.len() && !self.own_hooks.failed {
            log::debug!("every network has hooks of its own");
            self.netlink.clear_block(block(self.view.ifindex)).await?;
        }
        Ok(())
    }

    /// Looks for networks that have much to send and no hooks of their own, as long as there are places.
    pub(super) fn look_for_busy(&mut self) -> anyhow::Result<()> {
        let own = &mut self.own_hooks;
        let free = own.free_places();
        if free == 0 || self.devices.networks.len() <= PLACES {
            return Ok(());
        }
        let before = std::mem::replace(&mut own.frames, received_frames()?);
        let frames = |pair: &Pair| Some(own.frames.of(pair.hidden)?.saturating_sub(before.of(pair.hidden)?));
        let idle = self.devices.networks.iter().enumerate().filter(|(place, _)| !own.hidden.contains(place));
        let busy = idle.filter_map(|(place, pair)| Some((frames(pair)?, place)));
        let mut busy: Vec<_> = busy.filter(|(frames, place)| *frames >= BUSY && !own.queue.contains(place)).collect();
        busy.sort_unstable_by_key(|(frames, _)| Reverse(*frames));
        own.queue.extend(busy.into_iter().take(free).map(|(_, place)| place));
        Ok(())
    }
}

/// Where frames to send are taken from a hidden end.
fn hidden_hook(vni: u32, interface: &str) -> Hook<'_> {
    Hook { interface, program: Tc::Overlay, side: TcAttachType::Ingress, vni: Some(vni) }
}

/// Where they are taken from an overlay interface.
pub(super) fn egress_hook(vni: u32, interface: &str) -> Hook<'_> {
    Hook { interface, program: Tc::OverlayEgress, side: TcAttachType::Egress, vni: Some(vni) }
}
