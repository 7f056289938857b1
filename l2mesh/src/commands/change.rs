//! `l2mesh reload`, `peer`, `network` and `mac`: the agent is asked to change something while the mesh runs.

use std::io::Write as _;

use crate::{
    agent::control::{
        client::Client,
        request::{Reply, Request},
    },
    cli::{MacArgs, MacChange, NetworkArgs, NetworkChange, PeerArgs, PeerChange, ReloadArgs},
};

/// Reads the configuration again.
///
/// # Errors
/// There is no agent, or it refuses.
pub(crate) fn reload(args: &ReloadArgs) -> anyhow::Result<()> {
    ask(args.iface.as_deref(), &Request::Reload)
}

/// Adds or removes a node.
///
/// # Errors
/// There is no agent, or it refuses.
pub(crate) fn peer(args: &PeerArgs) -> anyhow::Result<()> {
    let request = match &args.change {
        PeerChange::Add(node) => Request::PeerAdd(node.clone()),
        PeerChange::Del(node) => Request::PeerDel(node.clone()),
    };
    ask(args.iface.as_deref(), &request)
}

/// Adds or removes a network.
///
/// # Errors
/// There is no agent, or it refuses.
pub(crate) fn network(args: &NetworkArgs) -> anyhow::Result<()> {
    let request = match &args.change {
        NetworkChange::Add(network) => Request::NetworkAdd(network.clone()),
        NetworkChange::Del(network) => Request::NetworkDel(network.clone()),
    };
    ask(args.iface.as_deref(), &request)
}

/// Adds or removes a static MAC address, or forgets learned ones.
///
/// # Errors
/// There is no agent, or it refuses.
pub(crate) fn mac(args: &MacArgs) -> anyhow::Result<()> {
    let request = match &args.change {
        MacChange::Add(mac) => Request::MacAdd(mac.clone()),
        MacChange::Del(mac) => Request::MacDel(mac.clone()),
        MacChange::Flush(flush) => Request::MacFlush(flush.clone()),
    };
    ask(args.iface.as_deref(), &request)
}

/// Asks, and prints what has changed, one thing a line.
fn ask(interface: Option<&str>, request: &Request) -> anyhow::Result<()> {
    let Reply { changes, note, .. } = Client::connect(interface)?.ask(request)?;
    let mut stdout = std::io::stdout().lock();
    if changes.is_empty() {
        writeln!(stdout, "nothing changed")?;
    }
    for line in changes.into_iter().chain(note) {
        writeln!(stdout, "{line}")?;
    }
    Ok(())
}
