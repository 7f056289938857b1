//! What the verbs are told that change a mesh while it runs.

use clap::{Args, Subcommand};

use crate::{
    agent::control::request::{Flush, Kept},
    config::{Named, NewNetwork, NewNode, StaticMac},
};

/// What `reload` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh reload
  l2mesh reload --iface eth0

Prints what has changed. A file that is not valid changes nothing; SIGHUP to the agent does the same.")]
pub(crate) struct ReloadArgs {
    /// The underlay interface; needed when there is more than one agent
    #[arg(long)]
    pub iface: Option<String>,
}

/// What `peer` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh peer add ovh --address 192.0.2.10 --relay
  l2mesh peer del ovh --save

The other hosts need the same change.")]
pub(crate) struct PeerArgs {
    /// The underlay interface; needed when there is more than one agent
    #[arg(long, global = true)]
    pub iface: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub change: PeerChange,
}

/// What is done with nodes.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PeerChange {
    /// Add a node
    Add(Kept<NewNode>),
    /// Remove a node, and all that is said of it elsewhere
    Del(Kept<Named>),
}

/// What `network` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh network add dmz --vni 17 --address 10.9.0.1/24
  l2mesh network add dmz --vni 17 --member hetzner --member ovh --address ovh=10.9.0.2/24 --save
  l2mesh network del dmz")]
pub(crate) struct NetworkArgs {
    /// The underlay interface; needed when there is more than one agent
    #[arg(long, global = true)]
    pub iface: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub change: NetworkChange,
}

/// What is done with networks.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NetworkChange {
    /// Add a network
    Add(Kept<NewNetwork>),
    /// Remove a network, with its interface
    Del(Kept<Named>),
}

/// What `mac` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh mac add 52:54:00:12:34:56 --vni 16 --peer ovh
  l2mesh mac del 52:54:00:12:34:56 --vni 16
  l2mesh mac flush --vni 16 --peer ovh")]
pub(crate) struct MacArgs {
    /// The underlay interface; needed when there is more than one agent
    #[arg(long, global = true)]
    pub iface: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub change: MacChange,
}

/// What is done with MAC addresses.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MacChange {
    /// Say behind which node a MAC address is, whatever is heard of it
    Add(Kept<StaticMac>),
    /// Take a static MAC address back: it is learned again, as others are
    Del(Kept<StaticMac>),
    /// Forget MAC addresses that were learned: all, or those to which all that is said applies
    Flush(Flush),
}
