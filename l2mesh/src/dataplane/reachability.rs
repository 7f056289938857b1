//! Who reaches whom, as the nodes of the mesh tell each other.

use std::{collections::HashSet, mem::offset_of, sync::atomic::Ordering};

use bytemuck::Zeroable as _;
use l2mesh_common::{
    path::{Choice, choose},
    tables::{OWN_REACHABILITY, PeerId, Reported},
    wire::{Reachability, Reached},
};

use super::{paths::Snapshot, tables::Tables, view::View};

/// Writes by which ranks the nodes speak of each other. `others` are ids that mean another peer than before: what that one said
/// is forgotten.
pub(super) fn write_ranks(tables: &Tables, view: &View, others: &HashSet<PeerId>) {
    for id in 0..OWN_REACHABILITY {
        let peer = view.peers.iter().find(|peer| peer.id == id);
        match peer {
            Some(peer) if !others.contains(&id) => {
                // The programs write the rest at any time.
                tables.reachability.field(id, offset_of!(Reported, rank)).store(peer.rank, Ordering::Relaxed);
            }
            _ => {
                let rank = peer.map_or(0, |peer| peer.rank);
                tables.reachability.set(id, &Reported { rank, ..Reported::zeroed() });
            }
        }
    }
}

/// Says to the others whom this node reaches now.
pub(crate) fn tell(tables: &Tables, view: &View) {
    let snapshot = Snapshot::read(tables);
    let mut said = Reachability::new(view.fingerprint);
    for peer in view.peers.iter().filter(|peer| peer.is_probed) {
        said.set(peer.rank as usize, reached(choose(&snapshot, peer.id)));
    }
    let own = Reported { said, rank: view.rank };
    if tables.reachability.get(OWN_REACHABILITY) != own {
        tables.reachability.set(OWN_REACHABILITY, &own);
    }
}

/// What it means that frames take this path.
pub(crate) const fn reached(choice: Choice) -> Reached {
    match (choice.is_up, choice.is_relayed()) {
        (false, _) => Reached::Not,
        (true, false) => Reached::Directly,
        (true, true) => Reached::ByRelay,
    }
}
