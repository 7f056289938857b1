//! Another configuration for a mesh that runs: what is different is changed, the rest does not notice.

use anyhow::{Context as _, bail, ensure};

use super::{Agent, arrange::known, identity::Identity, own_address::Source, start::place};
use crate::{
    config::{Mesh, changes},
    dataplane::view::{Place, View},
    service,
};

/// How long a reload waits for the first answers of next hops that are new.
const FIRST_ANSWERS: std::time::Duration = std::time::Duration::from_millis(500);

/// A configuration as this host sees it.
struct Plan {
    mesh: Mesh,
    own: usize,
    source: Source,
    view: View,
}

impl Agent {
    /// Makes the running mesh the one of `identity`. Returns what has changed, in words.
    ///
    /// # Errors
    /// It cannot be had while the mesh runs, or at all: then everything is as it was before.
    pub(super) async fn apply(&mut self, identity: Identity) -> anyhow::Result<Vec<String>> {
        let mut changes = changes(&self.mesh, &identity.mesh);
        for network in self.view.networks.iter().filter(|it| self.broken.contains(&it.vni)) {
            changes.push(format!("network {}: its devices, which somebody removed, made anew", network.name));
        }
        changes.extend(self.other_mtus(&identity.mesh).await?);
        if changes.is_empty() {
            // Lines may have moved.
            (self.mesh, self.own) = (identity.mesh, identity.own);
            return Ok(changes);
        }
        self.refuse_fixed(&identity)?;
        let plan = self.plan(identity).await?;
        let before =
            Plan { mesh: self.mesh.clone(), own: self.own, source: self.source.clone(), view: self.view.clone() };
        service::reloading();
        let done = self.take_up_or_go_back(plan, before).await;
        service::ready(&self.up_line());
        done.map(|()| changes)
    }

    /// MTUs that no configuration says and that have become others, because the underlay interface has another one or the nodes
    /// have addresses of another IP version.
    async fn other_mtus(&self, mesh: &Mesh) -> anyhow::Result<Vec<String>> {
        let View { interface, ifindex, networks, .. } = &self.view;
        let Some(link) = self.netlink.link_by_index(*ifindex).await? else { return Ok(Vec::new()) };
        let mut changes = Vec::new();
        for network in mesh.networks.iter().filter(|network| network.mtu.is_none()) {
            let (name, mtu) = (&network.name, mesh.overlay_mtu(network, link.mtu)?);
            if let Some(before) = networks.iter().find(|before| before.vni == network.vni.get() && before.mtu != mtu) {
                changes.push(format!("network {name}: MTU {} -> {mtu}, what fits over {interface}", before.mtu));
            }
        }
        Ok(changes)
    }

    async fn take_up_or_go_back(&mut self, plan: Plan, before: Plan) -> anyhow::Result<()> {
        let Err(error) = self.take_up(plan).await else { return Ok(()) };
        log::error!("going back to the configuration before: {error:#}");
        match self.take_up(before).await {
            Ok(()) => Err(error.context("nothing is changed, the mesh is as it was before")),
            Err(second) => {
                let interface = &self.view.interface;
                bail!(
                    "{error:#}; and to go back failed too: {second:#}: the mesh is neither as it was nor as it should be: run `l2mesh \
                     detach --iface {interface}` and attach again"
                )
            }
        }
    }

    /// What would cost frames of everybody, or make another host of this one.
    fn refuse_fixed(&self, identity: &Identity) -> anyhow::Result<()> {
        let (before, now) = (&self.mesh.underlay, &identity.mesh.underlay);
        let fixed = [
            ("port", before.port.to_string(), now.port.to_string()),
            ("private-port", before.private_port.to_string(), now.private_port.to_string()),
            ("fdb-size", before.fdb_size.to_string(), now.fdb_size.to_string()),
        ];
        let again = format!("run `l2mesh detach --iface {}`, then attach again", self.view.interface);
        for (key, before, now) in fixed {
            ensure!(
                before == now,
                "[underlay] {key} cannot become {now} while the mesh runs, it stays {before} and nothing else is changed: {again}"
            );
        }
        let node = &identity.mesh.nodes[identity.own];
        ensure!(
            node.name == self.view.node,
            "this host is node {:?} and would become node {:?}: nothing is changed: {again}",
            self.view.node,
            node.name
        );
        ensure!(
            node.id == self.view.node_id,
            "this host's own id cannot become {} while the mesh runs, it stays {} and nothing else is changed: {again}",
            node.id,
            self.view.node_id
        );
        if self.view.by_kernel {
            identity.mesh.allows_mode_kernel(identity.own)?;
        }
        Ok(())
    }

    async fn plan(&self, identity: Identity) -> anyhow::Result<Plan> {
        let View { interface, ifindex, by_kernel, .. } = &self.view;
        let link = self.netlink.link_by_index(*ifindex).await?;
        let link = link.with_context(|| format!("{interface} is gone: nothing can be changed until it is back"))?;
        let (peers, _) = known(&self.tables)?;
        // Whatever it is called now: our devices are named after what it was called.
        let place = Place { interface, xdp_tx: self.view.xdp_tx, ..place(&self.args, &identity, &link, *by_kernel) };
        let view = View::new(&identity.mesh, identity.own, place, &peers)?;
        let Identity { mesh, own, source, .. } = identity;
        Ok(Plan { mesh, own, source, view })
    }

    async fn take_up(&mut self, plan: Plan) -> anyhow::Result<()> {
        let Plan { mesh, own, source, view } = plan;
        let private_port = mesh.underlay.private_port;
        let done = self.arrange(view, private_port).await;
        (self.mesh, self.own, self.source) = (mesh, own, source);
        self.take_settings();
        done?;
        self.bring_up(FIRST_ANSWERS).await
    }
}
