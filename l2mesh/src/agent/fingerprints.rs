//! Peers whose configuration says something else than ours: told once when it begins, and when it is over.

use std::collections::BTreeMap;

use l2mesh_common::{
    tables::{PeerId, Settings},
    wire::{Difference, Fingerprint, MacAddr},
};

use super::{Agent, coarse_now_ns, events::CONFIGURATION_KINDS, journal::Topic};
use crate::dataplane::{paths::far_fingerprint, tables::Tables};

/// What was told.
pub(crate) type Told = BTreeMap<PeerId, Difference>;

impl Agent {
    /// Compares what peers answered since the last time.
    pub(super) fn compare_fingerprints(&mut self) -> anyhow::Result<()> {
        let Settings { fingerprint, .. } = self.tables.settings.get(&0, 0)?;
        let peers = self.view.peers.iter().filter(|peer| peer.is_probed);
        let seen: Vec<_> = peers.map(|peer| (peer.id, far_fingerprint(&self.tables, peer.id))).collect();
        for (id, far) in seen {
            let difference = fingerprint.difference(far);
            // Who has not answered yet, or has been forgotten, has not changed his mind.
            if far.is_unknown() || self.told_differences.get(&id) == difference.as_ref() {
                continue;
            }
            let name = self.name(id);
            let (kind, text) = if let Some(difference) = difference {
                self.told_differences.insert(id, difference);
                (CONFIGURATION_KINDS[1], format!("{name}: {}", explain(difference)))
            } else {
                self.told_differences.remove(&id);
                (CONFIGURATION_KINDS[0], format!("{name}: its configuration says the same as ours now"))
            };
            let topic = Topic { kind, vni: 0, mac: MacAddr::ZERO, peer: id };
            self.note_state(topic, &CONFIGURATION_KINDS, text, coarse_now_ns()?);
        }
        let known = |id: &PeerId| self.view.peers.iter().any(|peer| peer.id == *id);
        self.told_differences.retain(|id, _| known(id));
        Ok(())
    }
}

/// What it means, and what to do.
const fn explain(difference: Difference) -> &'static str {
    match difference {
        Difference::Mesh => {
            "its configuration says something else than ours about nodes, networks or the port: give both hosts the same file"
        }
        Difference::Mtu => {
            "its networks have another MTU than ours, because its underlay has: write `mtu` into the [[network]] of the file"
        }
    }
}

/// How a peer's configuration differs, as far as it has said.
pub(crate) fn difference(tables: &Tables, peer: PeerId) -> anyhow::Result<Option<Difference>> {
    Ok(tables.settings.get(&0, 0)?.fingerprint.difference(far_fingerprint(tables, peer)))
}

/// For commands: whether anything is known of a peer, and how it differs.
pub(crate) fn is_known(tables: &Tables, peer: PeerId) -> anyhow::Result<bool> {
    let own: Fingerprint = tables.settings.get(&0, 0)?.fingerprint;
    Ok(!own.is_unknown() && !far_fingerprint(tables, peer).is_unknown())
}
