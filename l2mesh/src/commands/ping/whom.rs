//! Which node is to be asked, through which other one.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, bail, ensure};
use l2mesh_common::{
    path::DIRECT,
    tables::{Fact, LabelKey, Peer, PeerId, path_slot},
};

use super::super::maps::is_probed;
use crate::dataplane::tables::Tables;

/// `--via` for the path without a relay.
const WITHOUT_RELAY: &str = "direct";

/// Another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Node {
    pub(super) id: PeerId,
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// Its id on the wire.
    pub(super) wire_id: u32,
    is_plain: bool,
    is_relay: bool,
    is_probed: bool,
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Directory {
    own: String,
    nodes: Vec<Node>,
}

/// Which path is to be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Via {
    /// The one that frames take at the moment of each probe.
    InUse,
    /// The direct one.
    Direct,
    /// Through this relay.
    Relay(PeerId),
}

/// Who is asked, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) node: Node,
    pub(super) via: Via,
    /// False where the configuration says that it answers none.
    pub(super) is_probed: bool,
    pub(super) directory: Directory,
}

impl Directory {
    /// The nodes that the tables know.
    pub(super) fn read(tables: &Tables) -> anyhow::Result<Self> {
        let vteps: BTreeMap<PeerId, IpAddr> = tables
            .vteps
            .iter()
            .map(|entry| entry.map(|(address, id)| (id, address.ip())))
            .collect::<Result<_, _>>()
            .context("cannot read VTEPS")?;
        let node = |(id, address)| {
            let peer = tables.peers.get(&id, 0).context("cannot read PEERS")?;
            Ok(Node {
                id,
                name: tables.label(LabelKey::peer(id)),
                address,
                wire_id: peer.node_id,
                is_plain: peer.flags & Peer::PLAIN != 0,
                is_relay: peer.is_relay(),
                is_probed: is_probed(&tables.path_tx.get(path_slot(id, DIRECT))),
            })
        };
        let nodes = vteps.into_iter().map(node).collect::<anyhow::Result<_>>()?;
        Ok(Self { own: tables.fact(Fact::Node), nodes })
    }

    fn at(&self, id: PeerId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// What a node is called.
    pub(super) fn name(&self, id: PeerId) -> String {
        self.at(id).map(|node| node.name.clone()).unwrap_or_default()
    }

    /// Where it is.
    pub(super) fn address(&self, id: PeerId) -> anyhow::Result<IpAddr> {
        Ok(self.at(id).context("the peer is gone")?.address)
    }

    fn names(&self, wanted: impl Fn(&Node) -> bool) -> String {
        self.nodes.iter().filter(|node| wanted(node)).map(|node| &*node.name).collect::<Vec<_>>().join(", ")
    }

    /// The node of this name or address.
    fn named(&self, name: &str) -> anyhow::Result<&Node> {
        let address: Option<IpAddr> = name.parse().ok();
        let found = self.nodes.iter().find(|node| node.name == name);
        let found = found.or_else(|| self.nodes.iter().find(|node| Some(node.address) == address));
        match found {
            Some(node) => Ok(node),
            None if name == self.own => {
                bail!("{name} is this node itself: name another, one of {}", self.names(|_| true))
            }
            None => bail!("no peer is called {name:?}: there are {}", self.names(|_| true)),
        }
    }

    /// Who is asked if somebody says so.
    ///
    /// # Errors
    /// There is no such node, or it does not do what is wanted of it.
    pub(super) fn find(self, name: &str, via: Option<&str>) -> anyhow::Result<Asked> {
        let node = self.named(name)?.clone();
        ensure!(
            !node.is_plain,
            "{} is a plain vxlan device, which does not know probes: ping it inside the network",
            node.name
        );
        let via = match via {
            None => Via::InUse,
            Some(WITHOUT_RELAY) => Via::Direct,
            Some(relay) => Via::Relay(self.relay_to(&node, relay)?),
        };
        let is_probed = node.is_probed;
        Ok(Asked { node, via, is_probed, directory: self })
    }

    fn relay_to(&self, node: &Node, name: &str) -> anyhow::Result<PeerId> {
        let relay = self.named(name)?;
        ensure!(relay.id != node.id, "{} is no way to itself: --via direct is the path without a relay", node.name);
        let may = |it: &Node| it.is_relay && it.id != node.id;
        if may(relay) {
            return Ok(relay.id);
        }
        match &*self.names(may) {
            "" => {
                bail!(
                    "{} does not relay, nor does any other third node: `relay = true` at its [[node]] allows it",
                    relay.name
                )
            }
            others => {
                bail!("{} does not relay: {others} would, and `relay = true` at its [[node]] allows it", relay.name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let node = |(id, name): (PeerId, &str)| Node {
            id,
            name: name.to_owned(),
            address: IpAddr::from([192, 0, 2, u8::try_from(id).expect("few")]),
            wire_id: id + 100,
            is_plain: name == "old-box",
            is_relay: name == "hetzner",
            is_probed: true,
        };
        Directory { own: "here".to_owned(), nodes: [(1, "hetzner"), (2, "ovh"), (3, "old-box")].map(node).to_vec() }
    }

    fn found(name: &str, via: Option<&str>) -> (PeerId, Via) {
        let asked = directory().find(name, via).expect("a node");
        (asked.node.id, asked.via)
    }

    fn refused(name: &str, via: Option<&str>) -> String {
        directory().find(name, via).expect_err("refused").to_string()
    }

    #[test]
    fn nodes() {
        assert_eq!(found("ovh", None), (2, Via::InUse));
        assert_eq!(found("192.0.2.2", Some("direct")), (2, Via::Direct));
        assert_eq!(found("ovh", Some("hetzner")), (2, Via::Relay(1)));
        assert_eq!(found("ovh", Some("192.0.2.1")), (2, Via::Relay(1)));
        assert_eq!(found("hetzner", None), (1, Via::InUse));
    }

    #[test]
    fn refusals() {
        for (name, via, expected) in [
            ("ovg", None, "no peer is called \"ovg\": there are hetzner, ovh, old-box"),
            ("here", None, "here is this node itself: name another, one of hetzner, ovh, old-box"),
            (
                "old-box",
                None,
                "old-box is a plain vxlan device, which does not know probes: ping it inside the network",
            ),
            ("ovh", Some("nobody"), "no peer is called \"nobody\": there are hetzner, ovh, old-box"),
            ("ovh", Some("ovh"), "ovh is no way to itself: --via direct is the path without a relay"),
            (
                "ovh",
                Some("old-box"),
                "old-box does not relay: hetzner would, and `relay = true` at its [[node]] allows it",
            ),
            (
                "hetzner",
                Some("ovh"),
                "ovh does not relay, nor does any other third node: `relay = true` at its [[node]] allows it",
            ),
        ] {
            assert_eq!(refused(name, via), expected);
        }
    }
}
