//! `l2mesh attach`: join the mesh, say so in one line, stay as its agent.

use std::{io::Write as _, path::Path};

use tokio::signal::unix::{SignalKind, signal};

use crate::{agent::start::start, cli::AttachArgs};

/// Runs until SIGINT, SIGTERM or `l2mesh detach`.
///
/// # Errors
/// Nothing was attached, or not everything could be removed in the end.
pub(crate) async fn run(args: &AttachArgs, pin_root: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let agent = tokio::select! {
        // Start first: a signal ends only the waiting for a network that is not there; what follows is done whole.
        biased;
        agent = start(args, pin_root) => agent?,
        _ = terminate.recv() => return Ok(()),
        interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
    };
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", agent.up_line())?;
    stdout.flush()?;
    agent.run().await
}
