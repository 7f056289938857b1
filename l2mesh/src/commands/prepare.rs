//! `l2mesh prepare`: what the service needs and its sandbox does not allow, done before it starts. The agent then runs with
//! `CAP_BPF`, `CAP_NET_ADMIN` and `CAP_PERFMON`, and nothing else.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use anyhow::Context as _;
use nix::{
    sched::{CloneFlags, setns},
    unistd::Group,
};

use crate::{
    agent::control::server::GROUP,
    dataplane::{pins::mount_bpffs, sockets::SOCKETS},
    service,
    underlay::complaints,
};

/// The mount namespace of process 1, from which all services get theirs. This one has a copy, where nobody would see a mount.
const ALL_SERVICES: &str = "/proc/1/ns/mnt";

/// Mounts bpffs where there is none, and hands the raw sockets on which routers are heard to the service manager.
///
/// # Errors
/// It cannot be mounted. Without the sockets the mesh works, and says so.
pub(crate) fn run(pin_root: &Path) -> anyhow::Result<()> {
    let namespace = File::open(ALL_SERVICES).with_context(|| format!("cannot open {ALL_SERVICES}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNS).with_context(|| format!("cannot enter {ALL_SERVICES}"))?;
    if mount_bpffs()? {
        log::info!("mounted a BPF file system");
    }
    // Where the agent may write has to be there before its sandbox is made.
    fs::create_dir_all(pin_root).with_context(|| format!("cannot make {}", pin_root.display()))?;
    // What is made there belongs to this group by itself: the agent may not give its socket away.
    fs::create_dir_all(SOCKETS).with_context(|| format!("cannot make {SOCKETS}"))?;
    if let Some(group) = Group::from_name(GROUP).ok().flatten() {
        chown(SOCKETS, None, Some(group.gid.as_raw()))
            .and_then(|()| fs::set_permissions(SOCKETS, Permissions::from_mode(0o2755)))
            .with_context(|| format!("cannot give {SOCKETS} to the group {GROUP}"))?;
    }
    match complaints::sockets() {
        Ok(sockets) => service::keep(&sockets),
        Err(errno) => {
            log::warn!("cannot open raw ICMP sockets: {errno}");
            Ok(())
        }
    }
}
