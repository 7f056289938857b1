//! `cargo xtask check`: what needs no kernel.

use std::process::Command;

use crate::{
    cargo::{cargo, root, status},
    setup::{self, Need},
};

/// Formatting, lints of both worlds, documentation.
///
/// # Errors
/// The first check that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::run(&[Need::Build])?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--quiet", "--workspace", "--exclude", "l2mesh-ebpf", "--all-targets", "--", "-D", "warnings"])?;
    // The kernel programs build for another target, without std.
    let ebpf = ["clippy", "--quiet", "--package", "l2mesh-ebpf", "--target", "bpfel-unknown-none", "-Zbuild-std=core"];
    cargo(&[&ebpf[..], &["--", "-D", "warnings"]].concat())?;
    let mut doc = Command::new("cargo");
    doc.current_dir(root()).env("RUSTDOCFLAGS", "-D warnings");
    doc.args([
        "doc",
        "--quiet",
        "--no-deps",
        "--document-private-items",
        "--package",
        "l2mesh-common",
        "--package",
        "l2mesh-tests",
    ]);
    status(&mut doc)
}
