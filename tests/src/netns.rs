//! Network namespaces with names, as `ip netns` has them.

use std::fs::{self, File};
use std::os::linux::fs::MetadataExt as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers;

/// Where agents have their sockets, by namespace.
const SOCKETS: &str = "/run/l2mesh";

/// Where iproute2 keeps the names.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// How long a killed process may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A named network namespace. Dropping the value leaves the namespace: [`crate::Lab`] removes it.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with `lo` up.
    pub(crate) fn create(name: &str) -> Self {
        for args in [&["netns", "add", name][..], &["-n", name, "link", "set", "lo", "up"]] {
            if let Err(error) = ip(args) {
                panic!("cannot make namespace {name}: {error}");
            }
        }
        Self::existing(name)
    }

    /// The namespace of this name, which exists.
    pub(crate) fn existing(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Where agents inside have their sockets; `None` if the namespace is gone.
    pub(crate) fn sockets(&self) -> Option<PathBuf> {
        let inode = fs::metadata(self.path()).ok()?.st_ino();
        Some(Path::new(SOCKETS).join(inode.to_string()))
    }

    /// Runs `body` on a thread inside the namespace; its panic is passed on.
    pub(crate) fn enter<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        let file = File::open(self.path()).unwrap_or_else(|error| panic!("namespace {}: {error}", self.name));
        let inside = move || {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|error| panic!("cannot enter {}: {error}", self.name));
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|cause| panic::resume_unwind(cause))
    }

    /// The processes inside, this one excepted.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let Ok(namespace) = fs::metadata(self.path()) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let own = Pid::this();
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
            .filter(|pid| *pid != own)
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|of| of.st_ino() == namespace.st_ino() && of.st_dev() == namespace.st_dev())
            })
            .collect()
    }

    /// Kills what runs inside, then removes it. A namespace that is gone already is success.
    ///
    /// # Errors
    ///
    /// What `ip netns` says, or the processes that did not die.
    pub(crate) fn remove(&self) -> Result<(), String> {
        if !self.path().exists() {
            return Ok(());
        }
        self.kill_processes()?;
        if let Some(sockets) = self.sockets() {
            leftovers::remove_directory(&sockets);
        }
        match ip(&["netns", "del", &self.name]) {
            Err(error) if self.path().exists() => Err(error),
            _ => Ok(()),
        }
    }

    fn kill_processes(&self) -> Result<(), String> {
        let end = Instant::now() + KILL_LIMIT;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("namespace {}: processes {left:?} survive SIGKILL", self.name));
            }
            for pid in left {
                // One that ended by itself meanwhile is no error.
                let _: nix::Result<()> = kill(pid, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}
