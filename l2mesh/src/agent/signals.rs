//! SIGINT and SIGTERM, watched from before anything is made until everything is removed.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From here on these signals end nothing by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    /// Waits for either of them, come since the last call or later.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
