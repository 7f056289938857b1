//! The machine under the bench: its processors and how busy they are.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, SysconfVar, sysconf},
};

/// Where senders run.
pub(crate) const SENDER: usize = 0;
/// Where receivers run.
pub(crate) const RECEIVER: usize = 1;

/// Keeps the calling thread on one processor.
///
/// # Errors
/// There is no such processor.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on processor {cpu}"))
}

/// Before everybody else on the machine: this thread, and what it starts from now on.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn hurry() -> anyhow::Result<()> {
    let pid = Pid::this().to_string();
    let output = Command::new("renice").args(["--priority", "-20", "--pid", &pid]).output().context("renice")?;
    ensure!(output.status.success(), "renice: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Time since boot that all processors together have spent, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTime {
    busy: f64,
    idle: f64,
}

impl CpuTime {
    /// Until now.
    ///
    /// # Errors
    /// /proc/stat is not as expected.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text, f64::from(i32::try_from(ticks)?)).context("/proc/stat without processors")
    }

    /// Columns: user nice system idle iowait irq softirq steal; what guests use is in user and nice already (proc(5)).
    fn parse(text: &str, ticks: f64) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let columns: Vec<f64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
        let idle = columns.get(3)? + columns.get(4)?;
        // What a hypervisor took is not work of ours.
        let stolen = columns.get(7)?;
        Some(Self { busy: (columns.iter().sum::<f64>() - idle - stolen) / ticks, idle: idle / ticks })
    }

    /// Busy processor time from `self` until now, in seconds.
    ///
    /// # Errors
    /// See [`Self::now`].
    pub(crate) fn busy_since(self) -> anyhow::Result<f64> {
        Ok(Self::now()?.busy - self.busy)
    }

    /// Share of the machine that is busy with something else: measure it while the bench does nothing.
    ///
    /// # Errors
    /// See [`Self::now`].
    pub(crate) fn disturbance() -> anyhow::Result<f64> {
        let before = Self::now()?;
        std::thread::sleep(Duration::from_millis(300));
        let after = Self::now()?;
        let (busy, idle) = (after.busy - before.busy, after.idle - before.idle);
        Ok(if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_stat() {
        let time = CpuTime::parse("cpu  100 0 50 800 50 0 25 75 3 3\ncpu0 1 2\n", 100.0).expect("a line");
        assert!((time.busy - 1.75).abs() < 1e-9, "{time:?}");
        assert!((time.idle - 8.5).abs() < 1e-9, "{time:?}");
        assert!(CpuTime::parse("intr 1\n", 100.0).is_none());
    }
}
