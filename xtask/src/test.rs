//! `cargo xtask test`: every check and every test.

use std::thread;

use anyhow::ensure;
use clap::Args;

use crate::{
    cargo::{as_root, cargo},
    check,
    setup::{self, Need},
    targets::{self, Target},
};

/// These measure time, or fill the machine: one at a time. Others wait most of the time, so two of them get on with half of it.
const ALONE: &[&str] = &[
    "complaints",
    "failover",
    "kernel_mode",
    "kernel_mode_speed",
    "l2mesh_tests",
    "matrix",
    "metrics",
    "partial",
    "prober",
    "random",
    "relay",
    "reload",
    "reload_traffic",
    "soak",
    "storms",
    "too_big",
    "upgrade",
];

/// How many of the others run at a time.
const AT_ONCE: usize = 2;

/// What to test.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Skip formatting, lints and documentation
    #[arg(long)]
    no_check: bool,
    /// Only tests whose name contains this, as `cargo test` takes it
    filter: Option<String>,
}

/// Checks first, they are cheap; then unit and property tests, then tests with real frames.
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
    let filter = args.filter.as_deref();
    let (alone, others): (Vec<Target>, Vec<Target>) =
        targets::build()?.into_iter().partition(|target| ALONE.contains(&target.name.as_str()));
    let mut failed = thread::scope(|scope| {
        // Takes a processor for a minute, which is there now.
        let other_layout = filter.is_none().then(|| scope.spawn(l2mesh_tests::mesh::other_layout));
        let failed = targets::run(&others, AT_ONCE, filter);
        ensure!(other_layout.is_none_or(|build| build.join().is_ok()), "l2mesh with another layout does not build");
        failed
    })?;
    failed.extend(targets::run(&alone, 1, filter)?);
    cargo(&[&["test", "--doc"][..], filter.as_slice()].concat())?;
    for target in &failed {
        // What failed is run once more, by itself: the clock of a shared machine stands still now and then. What is broken fails again.
        eprintln!("xtask: {} failed: once more, alone", target.name);
        ensure!(targets::run(std::slice::from_ref(target), 1, filter)?.is_empty(), "{} failed twice", target.name);
    }
    if !failed.is_empty() {
        let names: Vec<&str> = failed.iter().map(|target| target.name.as_str()).collect();
        eprintln!("xtask: passed at the second try: {}", names.join(", "));
    }
    Ok(())
}
