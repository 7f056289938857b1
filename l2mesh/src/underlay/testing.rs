//! Network namespaces for tests: nothing here touches the machine's own interfaces.

use std::{
    fs::File,
    os::fd::AsRawFd,
    panic::resume_unwind,
    process::{Command, id},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as this value (and what was started in it).
pub(super) struct Namespace(File);

impl Namespace {
    /// An empty namespace with `lo` up.
    pub(super) fn new() -> Self {
        let namespace = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("cannot make a network namespace: these tests need root: run them with sudo");
            Self(File::open("/proc/thread-self/ns/net").expect("the namespace of this thread"))
        });
        namespace.ip("link set lo up");
        namespace
    }

    /// How the tools that we start name this namespace.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.0.as_raw_fd())
    }

    /// Runs `work` inside, on a thread of its own.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        })
    }

    /// Runs `work` inside, in a runtime of its own.
    pub(super) fn block_on<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work())
        })
    }

    /// What `ip` says to these arguments, separated by spaces.
    ///
    /// # Panics
    /// When it fails.
    pub(super) fn ip(&self, arguments: &str) -> String {
        self.command("ip", arguments)
    }

    /// What a command prints.
    ///
    /// # Panics
    /// When it fails.
    pub(super) fn command(&self, program: &str, arguments: &str) -> String {
        let output = self.run(|| Command::new(program).args(arguments.split_whitespace()).output());
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments}: {shown}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Two hosts on one wire: `va` has 10.9.0.1/24 and `fd99::1/64`, `vb` the same with 2.
pub(super) fn two_hosts() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new(), Namespace::new());
    a.ip(&format!("link add va type veth peer name vb netns {}", b.path()));
    for (host, device, number) in [(&a, "va", 1), (&b, "vb", 2)] {
        host.ip(&format!("link set {device} up"));
        host.ip(&format!("addr add 10.9.0.{number}/24 dev {device}"));
        host.ip(&format!("addr add fd99::{number}/64 dev {device} nodad"));
    }
    (a, b)
}

/// The index of a device, as `ip` shows it.
pub(super) fn index(namespace: &Namespace, device: &str) -> u32 {
    let shown = namespace.ip(&format!("-o link show dev {device}"));
    shown.split(':').next().and_then(|index| index.parse().ok()).expect("an index")
}

/// Asks again until the answer is there, for 5 s at most.
pub(super) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..250 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{what}: not within 5 s")
}
