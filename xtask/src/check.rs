//! `cargo xtask check`: what needs no kernel.

use crate::{
    cargo::{cargo, command, status},
    setup::{self, Need},
};

/// Formatting, lints of both worlds, documentation.
///
/// # Errors
/// The first check that fails.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::run(&[Need::Build])?;
    cargo(&["fmt", "--all", "--check"])?;
    let deny = ["--", "-D", "warnings"];
    cargo(&[&["clippy", "--quiet", "--all-targets"][..], &deny].concat())?;
    // Kernel programs build for another target, without std; the default members do not have them.
    let ebpf = ["clippy", "--quiet", "--target", "bpfel-unknown-none", "-Zbuild-std=core"];
    let packages = ["--package", "l2mesh-ebpf", "--package", "l2mesh-bench-ebpf"];
    cargo(&[&ebpf[..], &packages, &deny].concat())?;
    let mut doc = command();
    doc.env("RUSTDOCFLAGS", "-D warnings");
    // All libraries; with examples, of which there are none, cargo chooses the features that clippy has: nothing is checked twice.
    doc.args(["doc", "--quiet", "--no-deps", "--document-private-items", "--lib", "--examples"]);
    status(&mut doc)
}
