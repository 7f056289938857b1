//! What the verbs are told that show what goes on.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use crate::config::duration;

/// What `events` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh events
  l2mesh events --follow
  l2mesh events --follow --json

The agent keeps the last 512: changes of paths and modes, peers that are not reached, storms, MAC addresses that move too often,
full tables, reloads. Without an agent there are only the changes of paths that the tables remember.")]
pub(crate) struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub follow: bool,
    /// For programs: one object a line
    #[arg(long)]
    pub json: bool,
    /// The underlay interface; needed when there is more than one mesh
    #[arg(long)]
    pub iface: Option<String>,
}

/// What `top` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh top
  NO_COLOR=1 l2mesh top --interval 5s

Keys: Tab or 1 to 4 choose a part, arrows and Page Up/Down move in it, p pauses, q ends. Works without an agent; events are then only
the changes of paths that the tables remember.")]
pub(crate) struct TopArgs {
    /// How often the tables are read, with its unit
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// The underlay interface; needed when there is more than one mesh
    #[arg(long)]
    pub iface: Option<String>,
}

/// Where metrics are answered.
pub(super) fn listener(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, as 127.0.0.1:9472 or [::1]:9472")
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(interval) if interval >= Duration::from_millis(100) => Ok(interval),
        Some(_) => Err("100ms is the least".to_owned()),
        None => Err("write a whole number and its unit, as 500ms or 1s".to_owned()),
    }
}
