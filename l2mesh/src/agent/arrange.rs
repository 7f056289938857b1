//! The one sequence that makes a mesh what its configuration says: at attach, when a mesh is adopted, and at every reload. What
//! is right already stays untouched, so that frames of what stays do not notice.

use std::{collections::HashSet, mem, net::IpAddr};

use aya::programs::TcAttachType;
use l2mesh_common::tables::{Fact, PeerId};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::{Agent, own_hooks::OwnHooks};
use crate::{
    dataplane::{
        bridges,
        devices::{self, Devices, Known},
        fill::fill,
        hooks::{self, Hook},
        object::Tc,
        tables::Tables,
        view::{PeerView, View},
    },
    underlay::watch::Change,
};

/// How long the carriers of new devices are waited for, which others' changes of interfaces can hold up.
const CARRIER: Duration = Duration::from_secs(10);

impl Agent {
    /// Devices, tables, bridges and addresses, programs on hidden ends, in the order in which a failure does the least harm:
    /// what is refused is refused first, what is new is made before what is old goes.
    pub(super) async fn arrange(&mut self, view: View, private_port: bool) -> anyhow::Result<()> {
        let (_, known) = known(&self.tables)?;
        devices::refuse_port(&view, private_port, &known)?;
        let mut devices = devices::ensure(&self.netlink, &view, private_port, &known, &self.pins).await?;
        keep_seen(&self.devices, &mut devices);
        // The tables of paths have one writer at a time.
        self.pause_prober();
        let before = mem::replace(&mut self.view, view);
        self.devices = devices;
        let filled = fill(&mut self.tables, &self.view, &self.devices);
        self.forget_gone(&before.peers);
        if self.is_up {
            self.start_prober()?;
        }
        filled?;
        self.tables.set_fact(Fact::UdpPort, &self.devices.port_text(self.view.port))?;
        bridges::ensure(&self.netlink, &self.view, &mut self.devices, &mut self.tables).await?;
        let (ifindex, devices) = (self.view.ifindex, &self.devices);
        self.own_hooks = OwnHooks::attach(&mut self.object, &self.pins, &self.netlink, ifindex, devices).await?;
        let helper = ingress(&self.devices.helper.name, Tc::Helper);
        hooks::attach_tc(&mut self.object, &self.pins, helper)
    }

    /// Egress programs, interfaces up, first next hops: what comes when all is there. Waits so long for the first answers of those
    /// that were not missing before.
    pub(super) async fn bring_up(&mut self, first_answers: Duration) -> anyhow::Result<()> {
        let networks = &self.devices.networks;
        // Those that were there before are as their user left them.
        let new = networks.iter().filter(|pair| pair.is_new);
        let overlays = new.filter_map(|pair| Some(pair.overlay.as_ref()?.index));
        let ends: Vec<u32> = networks.iter().map(|pair| pair.hidden).chain(overlays).collect();
        self.attach_egress_programs()?;
        self.netlink.set_all_up(&ends).await?;
        self.wait_for_carrier().await?;
        self.look_at_overlays().await?;
        let missing: HashSet<PeerId> = self.unreachable.keys().copied().collect();
        let deadline = Instant::now() + first_answers;
        loop {
            self.look_up_next_hops().await?;
            if self.unreachable.keys().all(|id| missing.contains(id)) || Instant::now() > deadline {
                return Ok(());
            }
            // An answer is a change of a neighbour; there may be thousands of others.
            let pause = Instant::now() + Duration::from_millis(100);
            while let Ok(change) = timeout_at(pause, self.watch.next()).await {
                let change = change?;
                if self.note(change) && matches!(change, Change::Neighbour { .. }) {
                    break;
                }
            }
        }
    }

    /// Of a pair, the end that came up first sends once the kernel has noticed that the other is there too
    /// (`linkwatch_do_dev`): what it is given before is lost.
    async fn wait_for_carrier(&self) -> anyhow::Result<()> {
        let new: HashSet<u32> = self.devices.networks.iter().filter(|it| it.is_new).map(|it| it.hidden).collect();
        let deadline = Instant::now() + CARRIER;
        while !new.is_empty() {
            let start = Instant::now();
            let links = self.netlink.links().await?;
            let waiting = links.iter().filter(|link| new.contains(&link.index) && !link.oper_up).count();
            if waiting == 0 || start > deadline {
                break;
            }
            sleep(start.elapsed()).await;
        }
        Ok(())
    }

    /// What was known of peers that are no peers any more, or are others.
    fn forget_gone(&mut self, before: &[PeerView]) {
        let is_same = |id: &PeerId| {
            let address = |peers: &[PeerView]| peers.iter().find(|peer| peer.id == *id).map(|peer| peer.address);
            address(before).is_some() && address(before) == address(&self.view.peers)
        };
        self.unreachable.retain(|id, _| is_same(id));
        self.links.retain(|id, _| is_same(id));
        // The tables were written anew, and devices that were missing are there.
        self.paths.clear();
        self.broken.clear();
    }
}

/// What was seen of devices that stay and is nowhere else.
fn keep_seen(before: &Devices, now: &mut Devices) {
    for pair in &mut now.networks {
        let same = before.networks.iter().find(|it| (it.vni, it.hidden) == (pair.vni, pair.hidden));
        if let Some(seen) = same.filter(|it| it.is_bridge_port) {
            (pair.is_bridge_port, pair.mac) = (seen.is_bridge_port, seen.mac);
        }
    }
}

/// What the tables say about peers and devices.
pub(super) fn known(tables: &Tables) -> anyhow::Result<(Vec<(IpAddr, PeerId)>, Known)> {
    let peers = tables.vteps.iter().map(|entry| entry.map(|(address, id)| (address.ip(), id)));
    let pairs =
        tables.networks.iter().map(|entry| entry.map(|(vni, network)| (vni, (network.port_ifindex, network.mac))));
    let settings = tables.settings.get(&0, 0)?;
    let helper = Some((settings.helper_ifindex, settings.helper_port, settings.port));
    Ok((peers.collect::<Result<_, _>>()?, Known { pairs: pairs.collect::<Result<_, _>>()?, helper }))
}

pub(super) fn ingress(interface: &str, program: Tc) -> Hook<'_> {
    Hook { interface, program, side: TcAttachType::Ingress, vni: None }
}
