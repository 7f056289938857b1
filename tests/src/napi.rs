//! Where received frames are processed: in a kernel thread of the interface's own, on a processor of its own.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::host::Host;
use crate::wait::wait_for;

/// How long the kernel may take to start the threads.
const START_LIMIT: Duration = Duration::from_secs(2);

/// Threads have the interface's name, not the namespace's: which are new is only known to one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An interface receives in threads of its own. Dropping it undoes that.
#[derive(Debug)]
pub struct NapiThreads {
    host: Host,
    interface: String,
    pids: Vec<Pid>,
}

impl NapiThreads {
    /// Processor time that they have used so far.
    #[must_use]
    #[track_caller]
    pub fn time(&self) -> Duration {
        self.pids.iter().map(|pid| crate::process::cpu_time(pid.as_raw().cast_unsigned())).sum()
    }
}

impl Host {
    /// From now on what an interface receives is processed on this processor, and on no other (`threaded` NAPI). The
    /// interface needs NAPI: on a veth that is GRO, or an XDP program.
    #[must_use = "dropping it undoes it"]
    #[track_caller]
    pub fn thread_napi(&self, interface: &str, cpu: usize) -> NapiThreads {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let before = threads(interface);
        set(self, interface, true);
        let mut threads = NapiThreads { host: self.clone(), interface: interface.to_owned(), pids: Vec::new() };
        let mut set = CpuSet::new();
        set.set(cpu).unwrap_or_else(|error| panic!("processor {cpu}: {error}"));
        let what = format!("{} {interface} has NAPI threads", self.name());
        for (pid, name) in wait_for(&what, START_LIMIT, || new_threads(interface, &before)) {
            sched_setaffinity(pid, &set).unwrap_or_else(|error| panic!("{name} to processor {cpu}: {error}"));
            // Otherwise this is done in softirqs, which no process keeps waiting.
            self.run(&format!("renice --priority -20 --pid {pid}"));
            threads.pids.push(pid);
        }
        threads
    }
}

impl Drop for NapiThreads {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            set(&self.host, &self.interface, false);
        }
    }
}

/// Through `ip netns exec`, which shows the namespace's own `/sys`.
fn set(host: &Host, interface: &str, on: bool) {
    let line = format!("echo {} > /sys/class/net/{interface}/threaded", u8::from(on));
    let output = Command::new("ip").args(["netns", "exec", host.namespace(), "sh", "-c", &line]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: ip: {error}", host.name()));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {line}: {error}", host.name());
}

fn new_threads(interface: &str, before: &BTreeMap<i32, String>) -> Result<Vec<(Pid, String)>, String> {
    let mut now = threads(interface);
    now.retain(|pid, _| !before.contains_key(pid));
    let new: Vec<_> = now.into_iter().map(|(pid, name)| (Pid::from_raw(pid), name)).collect();
    if new.is_empty() { Err("none".to_owned()) } else { Ok(new) }
}

/// Kernel threads called `napi/<interface>-<NAPI id>`, of all namespaces.
fn threads(interface: &str) -> BTreeMap<i32, String> {
    let prefix = format!("napi/{interface}-");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
        name.starts_with(&prefix).then_some((pid, name))
    };
    entries.filter_map(thread).collect()
}
