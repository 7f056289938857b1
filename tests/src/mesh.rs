//! The program under test on the lab's hosts.

use std::env;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use l2mesh_common::wire::MacAddr;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, Output};
use crate::process::Process;
use crate::wait::wait_for;

/// Overrides which binary is tested.
const BINARY: &str = "L2MESH_BIN";

/// How long an attach may take.
const UP_LIMIT: Duration = Duration::from_secs(30);

/// How long a detach may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long a counter may take to follow a frame.
const COUNT_LIMIT: Duration = Duration::from_secs(5);

/// A running `l2mesh attach`. Dropping it ends it.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    up: String,
}

impl Host {
    /// Panics unless `l2mesh events` has one of this kind, in this network and with these words.
    #[track_caller]
    pub fn assert_event(&self, kind: &str, vni: u32, words: &str) {
        let told = self.l2mesh_text(&["events", "--json"]);
        let events = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object a line"));
        let is_it = |event: Value| {
            event["kind"] == kind && event["vni"] == vni && event["text"].as_str().is_some_and(|it| it.contains(words))
        };
        assert!(events.into_iter().any(is_it), "no event {kind} of {vni} with {words:?}: {told}");
    }

    /// Runs `l2mesh attach` on the first underlay interface with these further arguments, and waits
    /// until it says that the mesh is up. Panics with its stderr if that takes longer than 30 s.
    #[must_use = "dropping the agent ends it"]
    #[track_caller]
    pub fn attach(&self, args: &[&str]) -> Agent {
        self.attach_on(&self.interface(), args)
    }

    /// [`Self::attach`] on a given interface.
    #[must_use = "dropping the agent ends it"]
    #[track_caller]
    pub fn attach_on(&self, interface: &str, args: &[&str]) -> Agent {
        self.attach_in(&[], interface, args)
    }

    /// [`Self::attach_on`] with variables added to the environment.
    #[must_use = "dropping the agent ends it"]
    #[track_caller]
    pub fn attach_in(&self, environment: &[(&str, &str)], interface: &str, args: &[&str]) -> Agent {
        self.attach_by(&self.binary(), environment, interface, args)
    }

    /// [`Self::attach_in`] of another build of l2mesh.
    #[must_use = "dropping the agent ends it"]
    #[track_caller]
    pub fn attach_by(
        &self,
        binary: &std::path::Path,
        environment: &[(&str, &str)],
        interface: &str,
        args: &[&str],
    ) -> Agent {
        let mut process = self.spawn_binary(binary, environment, &[&["attach", "--iface", interface], args].concat());
        let what = format!("l2mesh attach on {}", self.name());
        let up = wait_for(&what, UP_LIMIT, || {
            let running = process.is_running();
            match process.stdout().split_once('\n') {
                Some((line, _)) => Ok(line.to_owned()),
                None if running => Err(format!("no line on stdout{}", process.last_words())),
                None => panic!("{what}: it ended{}", process.last_words()),
            }
        });
        Agent { process, up }
    }

    /// Starts `l2mesh` with these arguments and leaves it running.
    #[must_use = "dropping the process ends it"]
    #[track_caller]
    pub fn spawn_l2mesh(&self, args: &[&str]) -> Process {
        self.spawn_l2mesh_in(&[], args)
    }

    #[track_caller]
    fn spawn_l2mesh_in(&self, environment: &[(&str, &str)], args: &[&str]) -> Process {
        self.spawn_binary(&self.binary(), environment, args)
    }

    #[track_caller]
    fn spawn_binary(&self, binary: &std::path::Path, environment: &[(&str, &str)], args: &[&str]) -> Process {
        let log = env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
        let environment = [&[("RUST_LOG", log.as_str())], environment].concat();
        self.spawn_with(binary, &self.with_pin_dir(args), &environment)
    }

    /// What a command such as `l2mesh maps macs --json` prints. Panics if it fails.
    #[must_use]
    #[track_caller]
    pub fn l2mesh(&self, args: &[&str]) -> Value {
        let text = self.l2mesh_text(args);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("l2mesh {args:?}: not JSON: {error}: {text:?}"))
    }

    /// What a command such as `l2mesh status` prints for people. Panics if it fails.
    #[track_caller]
    pub fn l2mesh_text(&self, args: &[&str]) -> String {
        self.exec(self.binary(), &self.with_pin_dir(args)).stdout
    }

    /// Runs `l2mesh` with these arguments and reports how it ended.
    #[must_use]
    #[track_caller]
    pub fn try_l2mesh(&self, args: &[&str]) -> Output {
        self.try_exec(self.binary(), &self.with_pin_dir(args))
    }

    fn binary(&self) -> PathBuf {
        self.site().binary.get().cloned().unwrap_or_else(binary)
    }

    /// Runs `l2mesh` with these arguments, which must end within 30 s with exit status 1, nothing on stdout and one
    /// sentence on stderr. Returns that sentence.
    #[track_caller]
    pub fn l2mesh_refuses(&self, args: &[&str]) -> String {
        let mut process = self.spawn_l2mesh(args);
        let status = process.wait_exit(UP_LIMIT);
        let (stdout, stderr) = (process.stdout(), process.stderr());
        assert_eq!(status.code(), Some(1), "l2mesh {args:?}: {stdout}{stderr}");
        sentence(&Output { stdout, stderr, code: status.code() })
    }

    /// How many frames `l2mesh maps counters` shows for a verdict. Panics on one that it does not know.
    #[must_use]
    #[track_caller]
    pub fn counter(&self, verdict: &str) -> u64 {
        self.counted(verdict, "frames")
    }

    /// The same in octets: merged frames count once as frames.
    #[track_caller]
    pub fn octets(&self, verdict: &str) -> u64 {
        self.counted(verdict, "octets")
    }

    #[track_caller]
    fn counted(&self, verdict: &str, unit: &str) -> u64 {
        let all = self.l2mesh(&["maps", "counters", "--json"]);
        let row = all["counters"].as_array().and_then(|rows| rows.iter().find(|row| row["verdict"] == verdict));
        let count = row.and_then(|row| row[unit].as_u64());
        count.unwrap_or_else(|| panic!("{}: no counter {verdict:?} in {all}", self.name()))
    }

    /// Waits until this verdict has been counted so often, and panics if it is more.
    #[track_caller]
    pub fn wait_counter(&self, verdict: &str, frames: u64) {
        let what = format!("{}: {frames} frames are {verdict}", self.name());
        let found = wait_for(&what, COUNT_LIMIT, || match self.counter(verdict) {
            few if few < frames => Err(few.to_string()),
            found => Ok(found),
        });
        assert_eq!(found, frames, "{what}");
    }

    /// The row of `l2mesh maps peers` for another host: `sent_frames`, `next_hop` and so on.
    #[must_use]
    #[track_caller]
    pub fn peer(&self, other: &Self) -> Value {
        let address = other.vtep().to_string();
        let mut all = self.l2mesh(&["maps", "peers", "--json"]);
        let row = all["peers"].as_array_mut().and_then(|rows| rows.iter_mut().find(|row| row["address"] == *address));
        let Some(row) = row.map(Value::take) else { panic!("{}: no peer {address} in {all}", self.name()) };
        row
    }

    /// The row of `l2mesh maps macs` for a MAC address, if it is known.
    #[must_use]
    #[track_caller]
    pub fn mac_row(&self, mac: MacAddr) -> Option<Value> {
        let mac = mac.to_string();
        let mut all = self.l2mesh(&["maps", "macs", "--json"]);
        all["macs"].as_array_mut()?.iter_mut().find(|row| row["mac"] == *mac).map(Value::take)
    }

    /// The row of `l2mesh maps neighbours` for an address, if it is known.
    #[must_use]
    #[track_caller]
    pub fn neighbour_row(&self, address: impl Into<IpAddr>) -> Option<Value> {
        let address = address.into().to_string();
        let mut all = self.l2mesh(&["maps", "neighbours", "--json"]);
        all["neighbours"].as_array_mut()?.iter_mut().find(|row| row["address"] == *address).map(Value::take)
    }

    /// Waits until what `l2mesh maps networks` says of the only network's transmit hook begins like this.
    #[track_caller]
    pub fn wait_transmit(&self, hook: &str) {
        wait_for(&format!("{} transmits by {hook}", self.name()), COUNT_LIMIT, || {
            let all = self.l2mesh(&["maps", "networks", "--json"]);
            let transmit = all["networks"][0]["transmit"].as_str().unwrap_or_default();
            if transmit.starts_with(hook) { Ok(()) } else { Err(all.to_string()) }
        });
    }

    fn with_pin_dir(&self, args: &[&str]) -> Vec<String> {
        let pin_dir = self.site().pin_dir().display().to_string();
        ["--pin-dir", &pin_dir].iter().chain(args).map(|arg| (*arg).to_owned()).collect()
    }
}

impl Agent {
    /// The line it printed when the mesh was up.
    #[must_use]
    pub fn up_line(&self) -> &str {
        &self.up
    }

    /// The process, for its logs and for other signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGTERM: it detaches what it made (unless attached with `--persist`). Panics unless it ends with
    /// exit status 0 within 10 s.
    #[track_caller]
    pub fn stop(mut self) {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait_exit(STOP_LIMIT);
        assert!(status.success(), "l2mesh attach ended with {status}{}", self.process.last_words());
    }

    /// SIGKILL: it detaches nothing.
    #[track_caller]
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait_exit(STOP_LIMIT);
    }
}

/// What a program that failed says: one line of its own after its log, and no result.
#[must_use]
#[track_caller]
pub fn sentence(output: &Output) -> String {
    let says: Vec<&str> = output.stderr.lines().filter_map(|line| line.strip_prefix("l2mesh: ")).collect();
    let [sentence] = says[..] else { panic!("not one sentence: {output:?}") };
    assert!(output.stdout.is_empty() && output.stderr.ends_with(&format!("{sentence}\n")), "{output:?}");
    sentence.to_owned()
}

/// A version of l2mesh with another layout of its tables, as an upgrade may bring. Built now, where that was not done yet.
#[must_use]
#[track_caller]
pub fn other_layout() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    // With examples, of which there are none, cargo chooses the features that tests have: all but l2mesh itself is built already.
    command.args([
        "build",
        "--quiet",
        "--features",
        "l2mesh/other-layout",
        "--bin",
        "l2mesh-other-layout",
        "--examples",
    ]);
    // As .cargo/config.toml has it, and not what cargo told the tests.
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env("RUSTC_BOOTSTRAP", "1");
    let status = command.status().expect("cargo");
    assert!(status.success(), "cargo built no l2mesh with another layout: {status}");
    let program = env::current_exe().expect("the path of this program");
    let target = program.ancestors().find(|directory| directory.ends_with("debug") || directory.ends_with("release"));
    target.and_then(std::path::Path::parent).expect("a target directory").join("debug/l2mesh-other-layout")
}

/// `L2MESH_BIN`, else the build beside the running program, of the same profile first.
#[must_use]
#[track_caller]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os(BINARY) {
        return path.into();
    }
    // target/<profile>/deps/<test> or target/<profile>/xtask.
    let program = env::current_exe().expect("the path of this program");
    let profile = program.ancestors().skip(1).find(|directory| !directory.ends_with("deps"));
    let profile = profile.expect("a program in a directory");
    let target = profile.parent().unwrap_or(profile);
    [profile.to_owned(), target.join("release"), target.join("debug")]
        .into_iter()
        .map(|directory| directory.join("l2mesh"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no l2mesh under {}: cargo build --package l2mesh", target.display()))
}
