//! A process that runs on a host while the test does something else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Namespace;
use crate::site::{Site, tail};
use crate::wait::wait_for;

/// How long a process has to obey SIGTERM before it is killed.
const TERM_LIMIT: Duration = Duration::from_secs(5);

/// A running process with its output in two files. Dropping it ends it: SIGTERM, SIGKILL after 5 s.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
    site: Arc<Site>,
}

impl Process {
    pub(crate) fn spawn(
        site: &Arc<Site>,
        namespace: &Namespace,
        host: &str,
        program: &OsStr,
        args: &[impl AsRef<OsStr>],
        environment: &[(&str, &str)],
    ) -> Self {
        let base = Path::new(program).file_name().unwrap_or(program).display();
        let name = format!("{base} on {host}");
        let stdout = site.file(&format!("{host}-{base}"), "out");
        let stderr = stdout.with_extension("err");
        let create = |path: &Path| File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let child = enter(namespace, program)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            // Ctrl-C on the terminal is for the lab alone, which then ends its processes.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: nsenter: {error}"));
        Self { child, name, stdout, stderr, site: Arc::clone(site) }
    }

    /// The process id of the program itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// True until it has ended.
    #[track_caller]
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none()
    }

    /// Sends a signal; one that has ended is a panic.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "{}: {signal} to an ended process{}", self.name, self.last_words());
        kill(self.id(), signal).unwrap_or_else(|error| panic!("{}: {signal}: {error}", self.name));
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_for(&what, limit, || self.try_wait().ok_or_else(|| format!("running{}", self.last_words())))
    }

    /// SIGTERM, then waits until it ends.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_exit(TERM_LIMIT)
    }

    /// Waits for a line with `pattern` in it on stdout or stderr, the earliest, and returns it. Ended
    /// without such a line is a panic with what it said last.
    #[track_caller]
    pub fn wait_log_line(&mut self, pattern: &str, limit: Duration) -> String {
        let what = format!("{} says {pattern:?}", self.name);
        wait_for(&what, limit, || {
            let ended = self.try_wait();
            let texts = [self.stdout(), self.stderr()];
            // A line that is still being written is not one yet.
            let mut lines =
                texts.iter().flat_map(|text| text.split_inclusive('\n')).filter(|line| line.ends_with('\n'));
            if let Some(line) = lines.find(|line| line.contains(pattern)) {
                return Ok(line.trim_end().to_owned());
            }
            match ended {
                Some(status) => panic!("{what}: it ended with {status}{}", self.last_words()),
                None => Err(self.last_words()),
            }
        })
    }

    /// Processor time that all its threads have used so far.
    #[must_use]
    #[track_caller]
    pub fn cpu_time(&self) -> Duration {
        cpu_time(self.pid())
    }

    /// The ends of both logs.
    #[must_use]
    pub fn last_words(&self) -> String {
        let part =
            |name, text: String| if text.is_empty() { String::new() } else { format!("\n{name}: {}", tail(&text)) };
        part("stdout", self.stdout()) + &part("stderr", self.stderr())
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.site.is_kept() {
            return;
        }
        let end = Instant::now() + TERM_LIMIT;
        // A child that is not waited for yet keeps its id: no other process can be hit.
        let mut signal = Some(Signal::SIGTERM);
        while let Ok(None) = self.child.try_wait() {
            if let Some(signal) = signal.take() {
                let _: nix::Result<()> = kill(self.id(), signal);
            }
            if Instant::now() >= end {
                let _: nix::Result<()> = kill(self.id(), Signal::SIGKILL);
                let _: std::io::Result<ExitStatus> = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Of all threads of a process, or of a kernel thread: the first number in `schedstat` is nanoseconds on a processor.
#[track_caller]
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let directory = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let time = |task: fs::DirEntry| {
        // One that has ended meanwhile has no time any more.
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(time).sum())
}

/// `program` inside the namespace. `ip netns exec` would hide bpffs behind a fresh /sys.
pub(crate) fn enter(namespace: &Namespace, program: &OsStr) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.path().display())).arg("--").arg(program);
    command
}

fn read(path: &Path) -> String {
    // A log that another thread's panic has removed reads as empty.
    fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}
