//! A host: a network namespace, and what is done in it.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l2mesh_common::wire::MacAddr;
use serde_json::Value;

use crate::fabric::Uplink;
use crate::netns::Namespace;
use crate::process::{Process, enter};
use crate::site::{Site, lock};
use crate::wait::wait_for;

/// How long a carrier may take.
const CARRIER_LIMIT: Duration = Duration::from_secs(5);

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// What it wrote.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
}

impl Output {
    /// True for exit status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A host of the lab. A clone is the same host.
#[derive(Clone, Debug)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    site: Arc<Site>,
    name: String,
    namespace: Namespace,
    uplinks: Mutex<Vec<Uplink>>,
}

impl Host {
    pub(crate) fn new(site: &Arc<Site>, name: &str) -> Self {
        let namespace = site.namespace(name);
        Self(Arc::new(Inner { site: Arc::clone(site), name: name.to_owned(), namespace, uplinks: Mutex::default() }))
    }

    /// As given when it was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name of its namespace, for `ip -n`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.namespace.name()
    }

    /// What a person types to get a shell on it.
    #[must_use]
    pub fn enter_command(&self) -> String {
        format!("nsenter --net={}", self.0.namespace.path().display())
    }

    /// Its underlay IPv4 address, on the first uplink.
    #[must_use]
    #[track_caller]
    pub fn address(&self) -> Ipv4Addr {
        self.uplink(0).address
    }

    /// Its underlay IPv6 address, on the first uplink. Only with [`crate::Wiring::ipv6`].
    #[must_use]
    #[track_caller]
    pub fn address6(&self) -> Ipv6Addr {
        self.uplink(0).address6.unwrap_or_else(|| panic!("{} is wired without IPv6", self.name()))
    }

    /// The address that the mesh is told, on the first uplink ([`crate::Wiring::family`]).
    #[must_use]
    #[track_caller]
    pub fn vtep(&self) -> IpAddr {
        self.uplink(0).vtep
    }

    /// The name of its first underlay interface: `eth0` unless [`crate::Wiring::interface`] says otherwise.
    #[must_use]
    #[track_caller]
    pub fn interface(&self) -> String {
        self.uplink(0).interface
    }

    /// Its underlay interfaces in the order in which they were made.
    #[must_use]
    pub fn uplinks(&self) -> Vec<Uplink> {
        lock(&self.0.uplinks).clone()
    }

    /// One of them.
    #[must_use]
    #[track_caller]
    pub fn uplink(&self, index: usize) -> Uplink {
        let found = lock(&self.0.uplinks).get(index).cloned();
        found.unwrap_or_else(|| panic!("{} has no uplink {index}", self.name()))
    }

    pub(crate) fn add_uplink(&self, uplink: Uplink) {
        lock(&self.0.uplinks).push(uplink);
    }

    /// Gives a tunnel's interface its addresses; from now on it is the first underlay interface.
    #[track_caller]
    pub(crate) fn tunnelled(&self, interface: &str, (address, prefix): (Ipv4Addr, u8), address6: Ipv6Addr) {
        self.add_address(interface, &format!("{address}/{prefix}"));
        self.add_address(interface, &format!("{address6}/64"));
        let (interface, mac, port) = (interface.to_owned(), MacAddr::ZERO, String::new());
        let (vtep, address6, gateway, gateway6) = (address.into(), Some(address6), None, None);
        let uplink = Uplink { interface, mac, address, address6, vtep, prefix, gateway, gateway6, port };
        lock(&self.0.uplinks).insert(0, uplink);
    }

    /// Runs a program to its end; any exit status but 0 is a panic with its stderr.
    #[track_caller]
    pub fn exec(&self, program: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Output {
        let output = self.try_exec(&program, args);
        assert!(
            output.success(),
            "{}: {} {}: exit status {:?}\n{}{}",
            self.name(),
            program.as_ref().display(),
            args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" "),
            output.code,
            output.stdout,
            output.stderr
        );
        output
    }

    /// Runs a program to its end and reports how it ended.
    #[track_caller]
    pub fn try_exec(&self, program: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Output {
        let program = program.as_ref();
        let output = enter(&self.0.namespace, program).args(args).output();
        let output = output.unwrap_or_else(|error| panic!("{}: nsenter: {error}", self.name()));
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }

    /// A command line without quotes, split at white space: `host.run("ip link set dev eth0 down")`.
    #[track_caller]
    pub fn run(&self, line: &str) -> Output {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [program, args @ ..] = &words[..] else { panic!("an empty command line") };
        self.exec(program, args)
    }

    /// Starts a program and leaves it running.
    #[must_use = "dropping the process ends it"]
    #[track_caller]
    pub fn spawn(&self, program: impl AsRef<OsStr>, args: &[impl AsRef<OsStr>]) -> Process {
        self.spawn_with(program, args, &[])
    }

    /// [`Self::spawn`] with variables added to the environment.
    #[must_use = "dropping the process ends it"]
    #[track_caller]
    pub fn spawn_with(
        &self,
        program: impl AsRef<OsStr>,
        args: &[impl AsRef<OsStr>],
        environment: &[(&str, &str)],
    ) -> Process {
        Process::spawn(&self.0.site, &self.0.namespace, self.name(), program.as_ref(), args, environment)
    }

    /// Runs Rust code on a thread inside the namespace. A socket made there stays there.
    #[track_caller]
    pub fn in_namespace<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        self.0.namespace.enter(body)
    }

    /// An interface with its details and counters, as `ip -j -d -s link` shows it.
    #[must_use]
    #[track_caller]
    pub fn link(&self, interface: &str) -> Value {
        self.try_link(interface).unwrap_or_else(|| panic!("{} has no interface {interface}", self.name()))
    }

    /// [`Self::link`], or `None` without such an interface.
    #[must_use]
    #[track_caller]
    pub fn try_link(&self, interface: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == interface)
    }

    /// All interfaces, as [`Self::link`] shows them.
    #[must_use]
    #[track_caller]
    pub fn links(&self) -> Vec<Value> {
        self.ip_json(&["-d", "-s", "link", "show"])
    }

    /// What `ip -j` with these arguments lists.
    #[must_use]
    #[track_caller]
    pub fn ip_json(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<&str> = ["-j"].iter().chain(args).copied().collect();
        let text = self.exec("ip", &args).stdout;
        if text.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: ip {args:?}: {error}: {text}", self.name()))
    }

    /// Waits until an interface has a carrier and IPv6 knows it.
    ///
    /// The kernel delays that news by up to 1 s (`linkwatch`), and until then an IPv6 address
    /// is not answered for, although it shows as ready. To ask for this one interface delivers it at once.
    #[track_caller]
    pub fn wait_carrier(&self, interface: &str) {
        wait_for(&format!("{} {interface} has a carrier", self.name()), CARRIER_LIMIT, || {
            match &self.ip_json(&["link", "show", "dev", interface])[0]["operstate"] {
                // A device without a notion of carriers stays UNKNOWN.
                state if state == "UP" || state == "UNKNOWN" => Ok(()),
                state => Err(state.to_string()),
            }
        });
    }

    /// The MAC address of an interface.
    #[must_use]
    #[track_caller]
    pub fn mac(&self, interface: &str) -> MacAddr {
        let link = self.link(interface);
        let text = link["address"].as_str().unwrap_or_default();
        text.parse().unwrap_or_else(|error| panic!("{} {interface}: {text:?}: {error}", self.name()))
    }

    /// Gives an interface an address with prefix length, ready at once (no duplicate address detection).
    #[track_caller]
    pub fn add_address(&self, interface: &str, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.run(&format!("ip address add {address} dev {interface} {nodad}"));
    }

    /// A veth pair: `near` here, `far` on another host, both up. For a guest behind a bridge port.
    #[track_caller]
    pub fn connect(&self, near: &str, other: &Self, far: &str) {
        self.run(&format!("ip link add name {near} type veth peer name {far} netns {}", other.namespace()));
        self.run(&format!("ip link set dev {near} up"));
        other.run(&format!("ip link set dev {far} up"));
        self.wait_carrier(near);
        other.wait_carrier(far);
    }

    /// Moves an interface to another host.
    #[track_caller]
    pub fn move_interface(&self, interface: &str, other: &Self) {
        self.run(&format!("ip link set dev {interface} netns {}", other.namespace()));
    }

    /// Where its agents have their sockets.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.0.namespace.sockets().unwrap_or_default()
    }

    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.0.site
    }
}
