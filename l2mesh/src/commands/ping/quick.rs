//! A few probes for other commands.

use std::time::Duration;

use l2mesh_common::wire::Fingerprint;

use super::{super::output::Attached, Directory, Ping};
use crate::cli::PingArgs;

/// What became of them.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::commands) enum Quick {
    /// One was answered: after how many ms, and what the far end's configuration says.
    Answered(f64, Fingerprint),
    /// None was.
    Silence,
    /// None was, and the far end's kernel said that nobody holds the port.
    Refused,
    /// None could be sent.
    Unsent(String),
}

/// Sends probes on the direct path until one is answered.
///
/// # Errors
/// There is no such node, or all places for pings are taken.
pub(in crate::commands) async fn quick(
    mesh: &Attached,
    node: &str,
    size: u16,
    (tries, timeout): (u32, Duration),
) -> anyhow::Result<Quick> {
    let asked = Directory::read(&mesh.tables)?.find(node, Some("direct"))?;
    let args = PingArgs {
        node: node.to_owned(),
        via: None,
        count: tries,
        interval: timeout,
        timeout,
        size: Some(size),
        iface: None,
        json: false,
    };
    let mut ping = Ping::new(&args, mesh, asked)?;
    let mut unsent = None;
    for seq in 1..=tries {
        let outcome = ping.probe(seq).await?;
        if let Some(rtt) = outcome.rtt_ms {
            return Ok(Quick::Answered(rtt, ping.slot.fingerprint()));
        }
        unsent = outcome.error;
    }
    Ok(match unsent {
        Some(error) => Quick::Unsent(error),
        None if ping.is_refused => Quick::Refused,
        None => Quick::Silence,
    })
}
