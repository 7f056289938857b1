//! Installs what building and the lab need and this machine lacks. Says what it installs; says
//! nothing when everything is there.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::target;

/// What a task needs on the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// To build: the source of `core` for the eBPF target, and the linker for it.
    Build,
    /// To run the lab: the programs it calls, and bpffs.
    Lab,
    /// To make packages: cargo-deb, and the target whose programs need no library.
    Dist,
    /// To test them: configuration management, and shells that have completions.
    DistTest,
}

/// The bpf-linker that goes with the pinned rustc: both have LLVM 22.
const BPF_LINKER: &str = "0.10.4";

/// What makes Debian packages.
const CARGO_DEB: &str = "3.8.0";

/// Grafana's own models of its dashboards, of Python's package index: Debian has no Grafana.
const GRAFANA_MODELS: &str = "grafana-foundation-sdk==1769699998!10.1.0";

/// What tests of packages call besides.
const DIST_PROGRAMS: &[(&str, &str)] = &[
    ("ansible-playbook", "ansible-core"),
    ("fish", "fish"),
    ("man", "man-db"),
    ("pip3", "python3-pip"),
    ("puppet", "puppet-agent"),
    ("zsh", "zsh"),
];

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// Programs that the lab, the demonstration and the tests call, and the Debian packages that have them.
const PROGRAMS: &[(&str, &str)] = &[
    ("arping", "iputils-arping"),
    ("bpftool", "bpftool"),
    ("bridge", "iproute2"),
    ("dhclient", "isc-dhcp-client"),
    ("dnsmasq", "dnsmasq-base"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("mount", "mount"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("ping", "iputils-ping"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("setpriv", "util-linux"),
    ("sysctl", "procps"),
    ("systemctl", "systemd"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("tmux", "tmux"),
    ("tshark", "tshark"),
    ("unshare", "util-linux"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
];

/// Installs what is missing.
///
/// # Errors
///
/// What could not be installed, and what to do about it.
pub(crate) fn run(needs: &[Need]) -> Result<()> {
    if needs.contains(&Need::Build) {
        rust_src()?;
        bpf_linker()?;
    }
    if needs.contains(&Need::Lab) {
        packages(PROGRAMS)?;
        bpffs()?;
    }
    if needs.contains(&Need::Dist) {
        musl()?;
        cargo_deb()?;
    }
    if needs.contains(&Need::DistTest) {
        packages(DIST_PROGRAMS)?;
        grafana_models()?;
    }
    Ok(())
}

/// The source of `core`, from which the eBPF target's is built.
fn rust_src() -> Result<()> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc --print sysroot")?;
    ensure!(output.status.success(), "rustc --print sysroot: {}", String::from_utf8_lossy(&output.stderr));
    let sysroot = String::from_utf8(output.stdout).context("the path of the sysroot")?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if source.exists() {
        return Ok(());
    }
    let advice = format!(
        "rust-src is missing and could not be installed. With a network: rustup component add rust-src. \
         Without: copy lib/rustlib/src of the same Rust version from another machine to {}",
        sysroot.trim()
    );
    say("the Rust component rust-src");
    ensure!(find("rustup").is_some(), "there is no rustup; {advice}");
    execute("rustup", &["component", "add", "rust-src"]).context(advice)
}

/// What links an eBPF program, with the LLVM of the pinned rustc.
fn bpf_linker() -> Result<()> {
    let version = Command::new("bpf-linker").arg("--version").output();
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(BPF_LINKER)) {
        return Ok(());
    }
    say(&format!("bpf-linker {BPF_LINKER} (takes some minutes)"));
    let source = ["bpf-linker", "--version", BPF_LINKER, "--locked"];
    let features = ["--no-default-features", "--features", "rust-llvm-22"];
    execute("cargo", &[&["install", "--force"], &source[..], &features].concat())
        .with_context(|| format!("bpf-linker {BPF_LINKER} could not be installed; it needs a network once"))?;
    ensure!(
        find("bpf-linker").is_some(),
        "bpf-linker is installed, but not in a directory of PATH: add cargo's bin directory (usually ~/.cargo/bin)"
    );
    Ok(())
}

/// The standard library for programs that are linked statically: glibc would want its own shared objects to resolve names.
fn musl() -> Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-musl";
    let output =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output().context("rustc")?;
    let directory = String::from_utf8(output.stdout).context("the path of the target")?;
    if fs::read_dir(directory.trim()).is_ok_and(|mut files| files.next().is_some()) {
        return Ok(());
    }
    say(&format!("the Rust target {TARGET}"));
    execute("rustup", &["target", "add", TARGET])
        .with_context(|| format!("{TARGET} is missing and could not be installed: rustup target add {TARGET}"))
}

fn cargo_deb() -> Result<()> {
    if find("cargo-deb").is_some() {
        return Ok(());
    }
    say(&format!("cargo-deb {CARGO_DEB} (takes some minutes)"));
    execute("cargo", &["install", "cargo-deb", "--version", CARGO_DEB, "--locked"])
}

/// They go beside what cargo builds, where no other program of the machine finds them.
fn grafana_models() -> Result<()> {
    let directory = target().join("grafana-models");
    if directory.join("grafana_foundation_sdk").is_dir() {
        return Ok(());
    }
    say(&format!("the Python package {GRAFANA_MODELS}"));
    let directory = directory.display().to_string();
    execute("pip3", &["install", "--quiet", "--no-deps", "--target", &directory, GRAFANA_MODELS])
}

/// Programs that are called, from Debian's packages.
fn packages(programs: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if find("apt-get").is_none() {
        bail!("this is no Debian, please install what has these programs (names of Debian's packages): {list}");
    }
    say(&format!("the Debian packages {list}"));
    // Noninteractive: tshark would ask who may capture, and gets its default, root alone.
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"];
    as_root(&[&apt[..], &["update"]].concat())?;
    as_root(&[&apt[..], &["install", "--yes", "--no-install-recommends"], &missing].concat())
        .with_context(|| format!("could not be installed: {list}"))?;
    if missing.contains(&"prometheus") && Path::new("/run/systemd/system").is_dir() {
        // The tests run the program themselves; the service that comes with it is not for them, and was not asked for.
        as_root(&["systemctl", "--quiet", "disable", "--now", "prometheus.service"])?;
    }
    Ok(())
}

/// Where the kernel keeps pinned maps and programs.
fn bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    println!("setup: mounting bpffs at {BPFFS}");
    as_root(&["mount", "-t", "bpf", "bpf", BPFFS])
}

fn say(what: &str) {
    println!("setup: installing {what}");
}

/// The program in PATH, or where root's programs are: many users do not have those in PATH.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Through sudo unless root already.
fn as_root(command: &[&str]) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        let [program, args @ ..] = command else { bail!("an empty command") };
        return execute(program, args);
    }
    ensure!(find("sudo").is_some(), "this needs root and there is no sudo; as root, run: {}", command.join(" "));
    execute("sudo", command)
}

fn execute(program: &str, args: &[impl AsRef<OsStr>]) -> Result<()> {
    let status = Command::new(program).args(args).status().with_context(|| format!("cannot run {program}"))?;
    let line = || args.iter().map(|arg| arg.as_ref().display().to_string()).collect::<Vec<_>>().join(" ");
    ensure!(status.success(), "{program} {}: {status}", line());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }

    #[test]
    fn the_list_is_sorted_and_has_no_program_twice() {
        assert!(PROGRAMS.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
