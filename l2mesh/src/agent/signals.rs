//! SIGINT, SIGTERM and SIGHUP, watched from before anything is made until everything is removed.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From here on these signals end nothing by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// What a signal wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// SIGINT or SIGTERM.
    End,
    /// SIGHUP.
    Reload,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let hang_up = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
        Ok(Self { interrupt, terminate, hang_up })
    }

    /// Waits for any of them, come since the last call or later.
    pub(crate) async fn next(&mut self) -> Wanted {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.terminate.recv() => Wanted::End,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }

    /// Waits for one that ends us.
    pub(crate) async fn end(&mut self) {
        while self.next().await != Wanted::End {}
    }
}
