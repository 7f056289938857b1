//! What a valid configuration asks for that this version does not do: the mesh works without it, and attach warns. A feature
//! that arrives deletes its lines here.

use super::{Mesh, Node};

impl Mesh {
    /// What is asked for that this version does not do, a sentence each.
    #[must_use]
    pub(crate) fn not_yet(&self) -> Vec<String> {
        let probe = "[probe]: paths are not watched in this version, every peer is reached directly";
        let probe = self.probe_written.then(|| probe.to_owned());
        probe.into_iter().chain(self.nodes.iter().flat_map(of_node)).collect()
    }
}

fn of_node(node: &Node) -> impl Iterator<Item = String> {
    let Node { name, relay, relays, .. } = node;
    let relay = relay.then(|| format!("node {name:?}: relay: this version does not relay"));
    let relays = relays.as_ref().map(|_| format!("node {name:?}: relays: this version does not relay"));
    relay.into_iter().chain(relays)
}
