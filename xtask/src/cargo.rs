//! Calls of cargo, and of what it built, as root where that is needed.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs us, in the workspace. The kernel programs need build-std of the pinned toolchain, as
/// .cargo/config.toml says, which cargo reads too late for its own flags.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root()).env("RUSTC_BOOTSTRAP", "1").env_remove("CARGO_TERM_QUIET");
    command
}

/// Runs cargo in the workspace.
///
/// # Errors
/// It cannot be started or fails.
pub(crate) fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    status(command().args(arguments))
}

/// The `l2mesh` binary of the debug profile, built now. The kernel programs in it are those that are released: aya-build knows
/// no other profile.
///
/// # Errors
/// It does not build.
pub(crate) fn l2mesh() -> anyhow::Result<PathBuf> {
    if !target().join("debug/l2mesh").exists() {
        eprintln!("building l2mesh: the first time takes some minutes");
    }
    cargo(&["build", "--quiet", "--package", "l2mesh"])?;
    let binary = target().join("debug/l2mesh");
    ensure!(binary.exists(), "cargo built no {}", binary.display());
    Ok(binary)
}

/// The object file of a crate of kernel programs, built now and for release, as aya-build does it: xtask has no build script of
/// its own for that, because it must build where bpf-linker is still missing.
///
/// # Errors
/// It does not build.
pub(crate) fn kernel_programs(package: &str, binary: &str) -> anyhow::Result<PathBuf> {
    let target = target().join("kernel-programs");
    let mut command = command();
    command
        .args(["build", "--quiet", "--release", "--package", package, "--bin", binary])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf");
    status(&mut command)?;
    Ok(target.join("bpfel-unknown-none/release").join(binary))
}

/// Runs this very task again under sudo if it is not root; true if that was done.
///
/// # Errors
/// There is no sudo, or what it ran failed.
pub(crate) fn as_root() -> anyhow::Result<bool> {
    if geteuid().is_root() {
        return Ok(false);
    }
    let this = env::current_exe().context("cannot find this program")?;
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg(this).args(env::args_os().skip(1));
    eprintln!("network namespaces and BPF need root: running this part under sudo");
    status(&mut command)?;
    Ok(true)
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started or fails.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{} failed: {status}", command.get_program().display());
    }
    Ok(())
}
