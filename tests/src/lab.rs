//! The lab itself: makes hosts, and removes them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::unistd::geteuid;

use crate::fabric::Fabric;
use crate::host::Host;
use crate::leftovers::{self, BPFFS, Which};
use crate::site::{Site, lock};

/// A set of hosts and wires. Dropping it removes them.
#[derive(Debug)]
pub struct Lab {
    site: Arc<Site>,
    pub(crate) fabric: Mutex<Option<Fabric>>,
}

impl Lab {
    /// An empty lab. `title` stands in messages. Removes what dead earlier runs left, and mounts bpffs
    /// if it is not mounted. Panics when not root.
    #[must_use]
    #[track_caller]
    pub fn new(title: &str) -> Self {
        assert!(geteuid().is_root(), "the lab makes network namespaces: run it as root");
        leftovers::remove(Which::Dead);
        mount_bpffs();
        Self { site: Site::new(title), fabric: Mutex::default() }
    }

    /// A host that is connected to nothing, with `lo` up.
    #[must_use]
    #[track_caller]
    pub fn host(&self, name: &str) -> Host {
        Host::new(&self.site, name)
    }

    /// The switch or router in the middle, for captures on its ports ([`crate::Uplink::port`]).
    #[must_use]
    #[track_caller]
    pub fn fabric(&self) -> Host {
        lock(&self.fabric).as_ref().expect("a lab with a switch or a router").host.clone()
    }

    /// Directory for files that go with the lab.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.site.directory()
    }

    /// What `l2mesh --pin-dir` gets on all its hosts.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.site.pin_dir()
    }

    /// From now on the hosts run this `l2mesh`, not `L2MESH_BIN` or the build beside the running program.
    pub fn use_l2mesh(&self, binary: &Path) {
        self.site.binary.get_or_init(|| binary.to_owned());
    }

    /// Leaves everything running when the process ends, until [`Self::remove_kept`].
    pub fn keep(self) {
        self.site.keep();
    }

    /// Removes the labs of this title that were kept by processes that have ended.
    pub fn remove_kept(title: &str) {
        leftovers::remove(Which::Kept(title));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.site.remove();
    }
}

/// bpffs cannot be per namespace here: pins must be visible to every command of the run.
fn mount_bpffs() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
            return;
        }
        let status = Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot mount bpffs at {BPFFS}");
    });
}
