//! `cargo xtask test`: every check and every test.

use clap::Args;

use crate::{
    cargo::{as_root, cargo, l2mesh},
    check,
    setup::{self, Need},
};

/// What to test.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Skip formatting, lints and documentation
    #[arg(long)]
    no_check: bool,
    /// Only tests whose name contains this, as `cargo test` takes it
    filter: Option<String>,
}

/// Checks first, they are cheap; then unit and property tests; then tests with real frames.
///
/// # Errors
/// The first of them that fails.
pub(crate) fn run(args: &TestArgs) -> anyhow::Result<()> {
    setup::run(&[Need::Build, Need::Lab])?;
    if !args.no_check {
        check::run()?;
    }
    if as_root()? {
        return Ok(());
    }
    // The binary under test is no dependency that cargo knows of.
    l2mesh()?;
    let mut command = vec!["test", "--no-fail-fast"];
    command.extend(args.filter.as_deref());
    cargo(&command)
}
