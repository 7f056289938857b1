//! A whole machine of its own around a host: systemd as process 1 on a copy of this machine's root that is thrown away. Packages,
//! units and configuration management do there what they do to real machines, and nothing of it is left here.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::{Host, Output};
use crate::lab::Lab;
use crate::process::Process;
use crate::wait::wait_for;

/// How long systemd may take to get up, and a command in it.
const BOOT_LIMIT: Duration = Duration::from_mins(1);

/// Puts itself into a control group of its own, which is the root of the machine's. Its mounts are seen by nobody else.
const ENTER: &str = r#"
set -e
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
if [ -z "$groups" ]; then
    groups="$1/groups"
    mkdir "$groups"
    mount -t cgroup2 cgroup2 "$groups"
fi
for old in "$groups"/l2mesh-lab-*; do
    find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
mkdir "$groups/$2"
echo $$ > "$groups/$2/cgroup.procs"
exec unshare --pid --uts --ipc --cgroup --fork --kill-child sh "$1/boot" "$1"
"#;

/// Makes the root, then becomes process 1. Everything it writes is in memory. The machine's own kernel settings are read-only, and
/// what would set clocks, devices or modules is left out.
const BOOT: &str = r#"
set -e
cd "$1"
mount --make-rprivate /
mkdir memory
mount -t tmpfs tmpfs memory
mkdir memory/upper memory/work memory/root
mount -t overlay overlay -o lowerdir=/,upperdir=memory/upper,workdir=memory/work memory/root
cd memory/root
mount -t proc proc proc
for settings in kernel vm fs; do
    mount --bind proc/sys/$settings proc/sys/$settings
    mount -o remount,bind,ro proc/sys/$settings
done
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
: > etc/machine-id
for unit in systemd-sysctl.service systemd-udevd.service systemd-udev-trigger.service systemd-modules-load.service \
    systemd-timesyncd.service systemd-random-seed.service systemd-hwdb-update.service kmod-static-nodes.service networking.service \
    systemd-udevd-kernel.socket systemd-udevd-control.socket dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount; do
    ln -sf /dev/null etc/systemd/system/$unit
done
mkdir outside
pivot_root . outside
cd /
umount -l outside
rmdir outside
exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio \
    env -i container=l2mesh-lab PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 /lib/systemd/systemd --unit=basic.target --show-status=0
"#;

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    host: Host,
    init: Process,
    /// Of process 1, as it is seen from outside.
    pid: String,
}

impl Machine {
    /// Boots one in a host's network namespace. Panics unless it is up within a minute.
    #[must_use]
    #[track_caller]
    pub fn boot(lab: &Lab, host: &Host) -> Self {
        let directory = lab.directory().join(format!("{}-machine", host.name()));
        fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for (name, script) in [("enter", ENTER), ("boot", BOOT)] {
            let path = directory.join(name);
            fs::write(&path, script).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let (enter, own) = (directory.join("enter").display().to_string(), directory.display().to_string());
        let mut init = host.spawn("unshare", &["--mount", "sh", &enter, &own, host.namespace()]);
        let children = format!("/proc/{0}/task/{0}/children", init.pid());
        let pid = wait_for("process 1 of the machine", BOOT_LIMIT, || {
            assert!(init.is_running(), "the machine ended{}", init.last_words());
            let pid = fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim() == "systemd" { Ok(pid) } else { Err(format!("{pid:?} {name:?}{}", init.last_words())) }
        });
        let machine = Self { host: host.clone(), init, pid };
        wait_for("the machine is up", BOOT_LIMIT, || {
            let state = machine.try_run("systemctl", &["is-system-running"]);
            if ["running", "degraded"].contains(&state.stdout.trim()) { Ok(()) } else { Err(format!("{state:?}")) }
        });
        machine
    }

    /// The host around which it is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A path of the machine, as it is reached from outside.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.pid).join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file on the machine, and makes the directories above it.
    #[track_caller]
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        let written = fs::create_dir_all(path.parent().expect("a directory")).and_then(|()| fs::write(&path, text));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Copies a file or a directory of this machine's to the same path of that one.
    #[track_caller]
    pub fn copy(&self, from: &Path, to: &str) {
        let output = Command::new("cp").arg("-aT").arg(from).arg(self.path(to)).output().expect("cp");
        assert!(output.status.success(), "{}: {}", from.display(), String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a program there to its end and reports how it ended.
    #[track_caller]
    pub fn try_run(&self, program: &str, args: &[impl AsRef<OsStr>]) -> Output {
        let output = Command::new("nsenter")
            .args(["--target", &self.pid, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--"])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG=C.UTF-8",
                "HOME=/root",
                "DEBIAN_FRONTEND=noninteractive",
            ])
            .arg(program)
            .args(args)
            .output()
            .unwrap_or_else(|error| panic!("nsenter: {error}"));
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// The same for a command line of the shell; any exit status but 0 is a panic with the last of its journal.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let output = self.try_run("sh", &["-ec", line]);
        assert!(output.success(), "{line}: {:?}\n{}{}\n{}", output.code, output.stdout, output.stderr, self.journal());
        output.stdout
    }

    /// What was logged there, newest last.
    #[must_use]
    #[track_caller]
    pub fn journal(&self) -> String {
        self.try_run("journalctl", &["--no-pager", "--output=short-precise", "--lines=100"]).stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Process 1 obeys no other, and `unshare` ends it with itself.
        if self.init.is_running() {
            self.init.signal(Signal::SIGKILL);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let groups = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let Some(groups) = groups.and_then(|line| line.split(' ').nth(1)) else { return };
        let own = Path::new(groups).join(self.host.namespace());
        // Not before all of its processes are gone. What is left is removed by the next one.
        for _ in 0..100 {
            let _busy =
                Command::new("find").arg(&own).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]).output();
            if !own.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
