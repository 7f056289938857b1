//! Verbs for machines: the service manager's and the packager's. They are not shown.

use std::path::PathBuf;

use clap::Args;

/// What `dist-files` is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct DistFilesArgs {
    /// Where man pages and completions go
    pub directory: PathBuf,
}
