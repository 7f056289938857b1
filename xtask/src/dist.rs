//! `cargo xtask dist`: a Debian package and a tarball of the same files, with a program that needs no library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{
    cargo::{as_root, cargo, command, l2mesh, status, target},
    setup::{self, Need},
};

/// Of the machines for which it is built.
const TRIPLE: &str = "x86_64-unknown-linux-musl";

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// Then install, use, upgrade and purge it on machines of their own, by dpkg, Ansible and Puppet
    #[arg(long)]
    test: bool,
}

/// Builds, and says where the files are.
///
/// # Errors
/// Something cannot be built or installed, or a test fails.
pub(crate) fn run(args: &DistArgs) -> anyhow::Result<()> {
    setup::run(&[Need::Build, Need::Dist])?;
    let (directory, files) = (target().join("dist"), target().join("dist/files"));
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    cargo(&["build", "--quiet", "--release", "--package", "l2mesh", "--bin", "l2mesh", "--target", TRIPLE])?;
    let binary = target().join(TRIPLE).join("release/l2mesh");
    status(Command::new(&binary).arg("dist-files").arg(&files))?;
    let package = debian(&directory)?;
    let tarball = tarball(&directory, &package)?;
    println!("{}\n{}", package.display(), tarball.display());
    if !args.test {
        return Ok(());
    }
    setup::run(&[Need::Lab, Need::DistTest])?;
    if as_root()? {
        return Ok(());
    }
    l2mesh()?;
    let mut test = command();
    test.args([
        "test",
        "--package",
        "l2mesh-tests",
        "--test",
        "package",
        "--",
        "--include-ignored",
        "--test-threads=1",
    ]);
    status(&mut test)
}

fn debian(directory: &Path) -> anyhow::Result<PathBuf> {
    let mut deb = command();
    // Without what a debugger needs, which is six sevenths of it.
    deb.args(["deb", "--quiet", "--no-build", "--strip", "--package", "l2mesh", "--target", TRIPLE, "--output"])
        .arg(directory);
    // It prints the package's path, as we do in the end.
    let output = deb.stderr(Stdio::inherit()).output().context("cannot run cargo deb")?;
    ensure!(output.status.success(), "cargo deb failed: {}", output.status);
    let packages = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut packages = packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.next().context("cargo-deb made no package")
}

/// The files of the package, to be unpacked at the root of any system with a kernel that is new enough.
fn tarball(directory: &Path, package: &Path) -> anyhow::Result<PathBuf> {
    let name = format!("l2mesh-{}-x86_64", env!("CARGO_PKG_VERSION"));
    let tree = directory.join(&name);
    status(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&tree))?;
    let tarball = directory.join(format!("{name}.tar.gz"));
    status(
        Command::new("tar").args(["--owner=0", "--group=0", "-czf"]).arg(&tarball).arg("-C").arg(directory).arg(&name),
    )?;
    Ok(tarball)
}
