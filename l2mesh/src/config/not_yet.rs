//! What a valid configuration asks for that this version does not do. A feature that arrives deletes its lines here.

use serde::Serialize;

use super::{Mesh, Network, Node};

/// What attach does about something that is not there yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The user's traffic would break without a sign: attach refuses.
    Refuse,
    /// The mesh works without it: attach warns.
    Warn,
}

/// One thing that this version does not do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct NotYet {
    /// What attach does about it.
    pub severity: Severity,
    /// What was asked for and what happens instead, in one sentence.
    pub text: String,
}

impl Mesh {
    /// What is asked for that this version does not do, in the order of the tables. Wants host names resolved.
    #[must_use]
    pub(crate) fn not_yet(&self) -> Vec<NotYet> {
        let mut list = Vec::new();
        if self.probe_written {
            list.push(warn("[probe]: paths are not watched in this version, every peer is reached directly".into()));
        }
        list.extend(self.nodes.iter().flat_map(of_node));
        list.extend(self.networks.iter().flat_map(of_network));
        list
    }
}

fn of_node(node: &Node) -> Vec<NotYet> {
    let name = &node.name;
    let mut list = Vec::new();
    if node.relay {
        list.push(warn(format!("node {name:?}: relay: this version does not relay")));
    }
    if node.relays.is_some() {
        list.push(warn(format!("node {name:?}: relays: this version does not relay")));
    }
    list
}

fn of_network(network: &Network) -> Vec<NotYet> {
    let name = &network.name;
    let mut list = Vec::new();
    if let Some(bridge) = &network.bridge {
        let interface = &network.interface;
        let text = format!(
            "network {name:?}: bridge: this version makes no bridge, remove the key and make {interface} a port of \
             {bridge} yourself"
        );
        list.push(refuse(text));
    }
    list
}

fn refuse(text: String) -> NotYet {
    NotYet { severity: Severity::Refuse, text }
}

fn warn(text: String) -> NotYet {
    NotYet { severity: Severity::Warn, text }
}
