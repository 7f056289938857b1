//! `cargo xtask test`: every check and every test.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{
    cargo::{as_root, command, l2mesh},
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
    let failed = tests(&["--no-fail-fast"], args.filter.as_deref())?;
    for target in &failed {
        // What failed is run once more, by itself: the clock of a shared machine stands still now and then. What is broken fails again.
        eprintln!("xtask: {target} failed: once more, alone");
        let target: Vec<&str> = target.split(' ').collect();
        ensure!(tests(&target, args.filter.as_deref())?.is_empty(), "{} failed twice", target.join(" "));
    }
    if !failed.is_empty() {
        eprintln!("xtask: passed at the second try: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs tests. Returns the arguments that choose each target which failed.
fn tests(targets: &[&str], filter: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut child = command()
        .arg("test")
        .args(targets)
        .args(filter)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let mut failed = BTreeSet::new();
    for line in BufReader::new(child.stderr.take().context("cargo's messages")?).lines() {
        let line = line?;
        eprintln!("{line}");
        failed.extend(target_that_failed(&line));
    }
    let status = child.wait()?;
    ensure!(status.success() || !failed.is_empty(), "cargo test failed: {status}");
    Ok(failed.into_iter().collect())
}

/// Of cargo's `error: test failed, to rerun pass ...`, what to pass.
fn target_that_failed(line: &str) -> Option<String> {
    let (_, quoted) = line.split_once("error: test failed, to rerun pass `")?;
    quoted.strip_suffix('`').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::target_that_failed;

    #[test]
    fn what_cargo_says() {
        let line = "error: test failed, to rerun pass `-p l2mesh-tests --test datapath`";
        assert_eq!(target_that_failed(line).as_deref(), Some("-p l2mesh-tests --test datapath"));
        assert_eq!(target_that_failed("error: 5 targets failed:"), None);
    }
}
