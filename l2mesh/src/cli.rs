//! The command line: clap types and help texts, no logic.

mod capture;
mod change;
mod doctor;
mod insight;
pub(crate) mod service;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use l2mesh_common::wire::Vni;

pub(crate) use self::{
    capture::CaptureArgs,
    change::{MacArgs, MacChange, NetworkArgs, NetworkChange, PeerArgs, PeerChange, ReloadArgs},
    doctor::DoctorArgs,
    insight::{EventsArgs, TopArgs},
};
use crate::{
    config::{MeshFlags, TxHook, duration},
    dataplane::pins::OWN_ROOT,
};

/// One Ethernet segment over hosts that share nothing but IP.
#[derive(Clone, Debug, Parser)]
#[command(name = "l2mesh", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  l2mesh attach --iface eth0 --config mesh.toml
  l2mesh status
  l2mesh detach --iface eth0

Only attach, detach, reload, peer, network and mac change anything. All but check and import need root; for what asks the agent
(reload, peer, network, mac, events) the group l2mesh will do. Logs go to stderr: RUST_LOG=debug.")]
pub(crate) struct Cli {
    /// Where maps, programs and links are pinned, in a bpf file system
    #[arg(long, global = true, value_name = "DIR", default_value = OWN_ROOT)]
    pub pin_dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Join the mesh and stay as its agent until SIGINT or SIGTERM
    Attach(Box<AttachArgs>),
    /// Remove everything that attach made, also after a crash
    Detach(DetachArgs),
    /// Have the agent read its configuration again, and print what has changed
    Reload(ReloadArgs),
    /// Add or remove a node while the mesh runs
    Peer(PeerArgs),
    /// Add or remove a network while the mesh runs
    Network(NetworkArgs),
    /// Add or remove static MAC addresses, forget learned ones
    Mac(MacArgs),
    /// Show what the kernel holds right now; no agent is needed
    Maps(MapsArgs),
    /// Show the mesh at a glance
    Status(StatusArgs),
    /// Show what happened, and what happens
    Events(EventsArgs),
    /// Follow the mesh on a terminal screen
    Top(TopArgs),
    /// Measure a path to another node the way data takes it; no agent is needed
    Ping(PingArgs),
    /// Record frames with what became of each; no agent is needed
    Capture(CaptureArgs),
    /// Find out why something does not work, and what to do
    Doctor(DoctorArgs),
    /// Validate a configuration file
    Check(CheckArgs),
    /// Print the configuration that equals vxlan devices, netplan files or a tinc network
    Import(ImportArgs),
    /// Before the service starts: mount bpffs, and open what its sandbox forbids
    #[command(hide = true)]
    Prepare,
    /// Write man pages and completions
    #[command(hide = true)]
    DistFiles(service::DistFilesArgs),
}

impl Command {
    /// True for verbs that change nothing.
    pub(crate) const fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Maps(_)
                | Self::Status(_)
                | Self::Events(_)
                | Self::Top(_)
                | Self::Ping(_)
                | Self::Capture(_)
                | Self::Doctor(_)
                | Self::Check(_)
                | Self::Import(_)
        )
    }
}

/// What `attach` is told.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "\
l2mesh attach --iface IFACE --config FILE [OPTIONS]
       l2mesh attach --iface IFACE --vni VNI --peer ADDRESS... [OPTIONS]")]
#[command(after_help = "\
Examples:
  l2mesh attach --iface eth0 --config mesh.toml
  l2mesh attach --iface eth0 --vni 16 --peer 192.168.226.5 --peer 192.168.226.6
  l2mesh attach --iface eth0 --vni 0xff01 --peer 203.0.113.20 --plain-peer 203.0.113.40 \\
                --overlay lan0 --address 10.8.0.1/24")]
pub(crate) struct AttachArgs {
    /// The underlay interface, which carries the frames
    #[arg(long)]
    pub iface: String,
    /// The mesh, as a TOML file: the same on every host
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "vni", "peer", "plain_peer", "relay", "allow_relay", "overlay", "address", "port", "private_port",
        "storm_limit",
    ])]
    pub config: Option<PathBuf>,
    /// Which node this host is [default: the one whose address is on the interface]
    #[arg(
        long,
        value_name = "NAME",
        long_help = "\
Which node this host is [default: the one whose address is on the interface]

Without a file a node is called by the address where the others reach it: give that one behind NAT."
    )]
    pub node: Option<String>,
    /// Outer source address [default: the node's, if the interface has it, else as routed]
    #[arg(long, value_name = "ADDRESS")]
    pub local: Option<IpAddr>,
    /// Where received frames are taken
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Where frames to send are taken [default: as in the file, else auto]
    #[arg(long, value_enum)]
    pub tx_hook: Option<TxHook>,
    /// Whether the XDP program sends probes and relayed frames back itself: not on veth, where the far end may take none
    #[arg(long, value_enum, default_value_t = XdpTx::Auto)]
    pub xdp_tx: XdpTx,
    /// Leave the mesh in place when the agent ends
    #[arg(long)]
    pub persist: bool,
    /// Answer with metrics for Prometheus over HTTP at this address, as 127.0.0.1:9472 [default: do not]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = insight::listener)]
    pub metrics: Option<SocketAddr>,
    /// Take up the file whenever it changes, as `l2mesh reload` does
    #[arg(long, conflicts_with = "vni")]
    pub watch: bool,
    /// The mesh without a file.
    #[command(flatten)]
    pub mesh: MeshFlags,
}

/// Whether the XDP program sends frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum XdpTx {
    /// Unless the interface is a veth.
    Auto,
    /// Whatever the interface is.
    On,
    /// TC does.
    Off,
}

/// Where received frames are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// The best that works on this interface
    Auto,
    /// In the driver, before a socket buffer is made
    Xdp,
    /// At the interface's ingress
    Tc,
    /// By the kernel's vxlan device, which sends too: for interfaces without Ethernet such as wg0
    Kernel,
}

/// What `detach` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh detach --iface eth0
  l2mesh detach --stale

Nothing to remove is success.")]
#[group(id = "what", required = true, multiple = false)]
pub(crate) struct DetachArgs {
    /// The underlay interface
    #[arg(long)]
    pub iface: Option<String>,
    /// What is left of network namespaces and interfaces that are gone
    #[arg(long)]
    pub stale: bool,
}

/// What `maps` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh maps
  l2mesh maps macs --vni 0xff01
  l2mesh maps counters --watch
  l2mesh maps peers --json")]
pub(crate) struct MapsArgs {
    /// Which table [default: all of them]
    #[arg(value_enum)]
    pub table: Option<Table>,
    /// The underlay interface; needed when there is more than one mesh
    #[arg(long)]
    pub iface: Option<String>,
    /// Only this network: decimal or 0x and hexadecimal
    #[arg(long)]
    pub vni: Option<Vni>,
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// Show it again every second until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// The tables of `maps`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Table {
    /// Which networks are carried, and by which interfaces
    Networks,
    /// The other hosts and how they are reached
    Peers,
    /// Every path to every peer and whether it is up
    Paths,
    /// Which nodes reach which, as each of them says
    Reach,
    /// Behind which peer each MAC address is
    Macs,
    /// At which MAC address each IP address is, in networks that answer for their neighbours
    Neighbours,
    /// How many frames went where, and why some did not
    Counters,
}

/// What `status` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh status
  l2mesh status --iface eth0 --json")]
pub(crate) struct StatusArgs {
    /// The underlay interface; needed when there is more than one mesh
    #[arg(long)]
    pub iface: Option<String>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What `ping` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh ping ovh
  l2mesh ping ovh --via hetzner
  l2mesh ping ovh --via direct --count 100 --interval 20ms
  l2mesh ping ovh --size 1450

The other node's kernel answers. The exit status is 1 if nothing was answered.")]
pub(crate) struct PingArgs {
    /// The other node: its name or its address
    pub node: String,
    /// Through this relay, or `direct` [default: the path in use, followed when it changes]
    #[arg(long, value_name = "RELAY")]
    pub via: Option<String>,
    /// How many probes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Time from one to the next, with its unit
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// How long to wait for each answer, with its unit
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub timeout: Duration,
    /// Of the inner packet, as an MTU counts: 1450 tests whether that MTU is right [default: the shortest]
    #[arg(long, value_name = "OCTETS", value_parser = clap::value_parser!(u16).range(24..=9000))]
    pub size: Option<u16>,
    /// The underlay interface; needed when there is more than one mesh
    #[arg(long)]
    pub iface: Option<String>,
    /// For programs, when all is over
    #[arg(long)]
    pub json: bool,
}

/// A far end answers so many probes a second that more often is no use.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text) {
        None => Err("write a whole number and its unit, as 100ms or 1s".to_owned()),
        Some(interval) if interval < LEAST_INTERVAL => Err("10ms is the least".to_owned()),
        Some(interval) => Ok(interval),
    }
}

/// What `check` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  l2mesh check --config mesh.toml")]
pub(crate) struct CheckArgs {
    /// The file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// What `import` is told.
#[derive(Clone, Debug, Args)]
#[command(override_usage = "\
l2mesh import [DEVICE]... [OPTIONS]
       l2mesh import --netplan FILE... [OPTIONS]
       l2mesh import --tinc DIR [OPTIONS]")]
#[command(after_help = "\
Examples:
  l2mesh import > mesh.toml
  l2mesh import provider0
  l2mesh import --netplan /etc/netplan/*.yaml
  l2mesh import --tinc /etc/tinc/lan

The configuration goes to stdout, with comments about what cannot be said in it. Nothing is changed.")]
pub(crate) struct ImportArgs {
    /// Kernel vxlan devices [default: all of this network namespace]
    #[arg(value_name = "DEVICE", conflicts_with_all = ["netplan", "tinc"])]
    pub devices: Vec<String>,
    /// Netplan files of one host instead; what a later one says replaces what an earlier one says
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "tinc")]
    pub netplan: Vec<PathBuf>,
    /// The directory of a tinc network instead
    #[arg(long, value_name = "DIR")]
    pub tinc: Option<PathBuf>,
    /// Another host that is not found there, by its IP address; once for each
    #[arg(long, value_name = "ADDRESS", conflicts_with = "tinc")]
    pub peer: Vec<IpAddr>,
    /// This host's address in the underlay [default: as found, else as routed]
    #[arg(long, value_name = "ADDRESS")]
    pub local: Option<IpAddr>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    fn attach(line: &str) -> Result<AttachArgs, ErrorKind> {
        match parse(&format!("l2mesh attach --iface eth0 {line}"))?.command {
            Command::Attach(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_finds_nothing_wrong() {
        Cli::command().debug_assert();
    }

    #[test]
    fn attach_by_flags() {
        let line = "--vni 0xff01 --peer 192.0.2.2 --plain-peer 192.0.2.3 --relay 192.0.2.4 --peer 2001:db8::5 \
                    --allow-relay --overlay lan0 --address 10.8.0.1/24 --address fd00::1/64 --port 8472 --private-port --storm-limit 5000 \
                    --node 192.0.2.1 --local 10.0.0.1 --mode tc --tx-hook port --persist";
        let args = attach(line).expect("a valid command line");
        assert_eq!(args.mesh.vni.map(Vni::get), Some(0xff01));
        assert_eq!(args.mesh.peer.len(), 2);
        assert_eq!(args.mesh.address.len(), 2);
        assert_eq!((args.mode, args.tx_hook), (Mode::Tc, Some(TxHook::Port)));
        assert!(args.persist && args.config.is_none());
    }

    #[test]
    fn attach_by_file() {
        let args = attach("--config mesh.toml --node ovh --local 10.0.0.1 --mode xdp").expect("a valid command line");
        assert_eq!(args.config, Some("mesh.toml".into()));
        assert_eq!(args.mesh, MeshFlags::default());
    }

    #[test]
    fn attach_refused() {
        use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument, ValueValidation};
        for (line, kind) in [
            ("", MissingRequiredArgument),
            ("--vni 16", MissingRequiredArgument),
            ("--peer 192.0.2.2", MissingRequiredArgument),
            ("--config mesh.toml --vni 16 --peer 192.0.2.2", ArgumentConflict),
            ("--config mesh.toml --peer 192.0.2.2", ArgumentConflict),
            ("--config mesh.toml --allow-relay", ArgumentConflict),
            ("--config mesh.toml --port 4789", ArgumentConflict),
            ("--config mesh.toml --private-port", ArgumentConflict),
            ("--config mesh.toml --storm-limit 9", ArgumentConflict),
            ("--config mesh.toml --overlay lan0", ArgumentConflict),
            ("--config mesh.toml --plain-peer 192.0.2.2", ArgumentConflict),
            ("--config mesh.toml --relay 192.0.2.2", ArgumentConflict),
            ("--config mesh.toml --vni 16", ArgumentConflict),
            ("--config mesh.toml --address 10.8.0.1/24", ArgumentConflict),
            ("--config mesh.toml --mode fast", InvalidValue),
            ("--vni 0 --peer 192.0.2.2", ValueValidation),
            ("--vni 16777216 --peer 192.0.2.2", ValueValidation),
            ("--vni 16 --peer host.example", ValueValidation),
            ("--vni 16 --peer 192.0.2.2 --address 10.8.0.1", ValueValidation),
            ("--vni 16 --peer 192.0.2.2 --port 0", ValueValidation),
        ] {
            assert_eq!(attach(line).map(|_| ()), Err(kind), "{line}");
        }
    }

    #[test]
    fn the_other_verbs() {
        assert!(parse("l2mesh detach --iface eth0").is_ok());
        assert!(parse("l2mesh detach --stale --pin-dir /tmp/pins").is_ok());
        assert_eq!(parse("l2mesh detach").map(|_| ()), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("l2mesh detach --iface eth0 --stale").map(|_| ()), Err(ErrorKind::ArgumentConflict));
        for table in ["networks", "peers", "paths", "macs", "neighbours", "counters"] {
            assert!(parse(&format!("l2mesh maps {table} --json --vni 16")).is_ok(), "{table}");
        }
        assert!(parse("l2mesh maps --watch").is_ok());
        assert_eq!(attach("--vni 16 --peer 192.0.2.2 --watch").map(|_| ()), Err(ErrorKind::ArgumentConflict));
        for line in [
            "reload --iface eth0",
            "peer add ovh --address 192.0.2.10 --relay --plain --id 7 --network lan --save --iface eth0",
            "peer del ovh --save",
            "network add dmz --vni 0x11 --interface d0 --bridge br0 --member a --member b --address a=10.9.0.1/24",
            "network del dmz",
            "mac add 52:54:00:12:34:56 --vni 16 --peer ovh --save",
            "mac del 52:54:00:12:34:56 --vni 16",
            "mac flush",
            "mac --iface eth0 flush --vni 16 --peer ovh --mac 52:54:00:12:34:56",
        ] {
            assert!(parse(&format!("l2mesh {line}")).is_ok(), "{line}");
        }
        assert!(parse("l2mesh status --json").is_ok());
        assert!(parse("l2mesh events --follow --json").is_ok());
        assert!(parse("l2mesh top --interval 500ms").is_ok());
        assert_eq!(parse("l2mesh top --interval 50ms").map(|_| ()), Err(ErrorKind::ValueValidation));
        assert!(parse("l2mesh check --config mesh.toml").is_ok());
        assert!(
            parse("l2mesh ping ovh --via hetzner --count 9 --interval 10ms --timeout 2s --size 1450 --json").is_ok()
        );
        assert_eq!(parse("l2mesh ping").map(|_| ()), Err(ErrorKind::MissingRequiredArgument));
        for line in ["--count 0", "--interval 1", "--interval 9ms", "--timeout 0s", "--size 23", "--size 9001"] {
            assert_eq!(
                parse(&format!("l2mesh ping ovh {line}")).map(|_| ()),
                Err(ErrorKind::ValueValidation),
                "{line}"
            );
        }
        assert_eq!(parse("l2mesh check").map(|_| ()), Err(ErrorKind::MissingRequiredArgument));
        for line in
            ["", "vxlan0 vxlan1 --local 192.0.2.1 --peer 192.0.2.2", "--netplan a b --peer ::1", "--tinc /etc/tinc/x"]
        {
            assert!(parse(&format!("l2mesh import {line}")).is_ok(), "{line}");
        }
        for line in ["vxlan0 --netplan a", "vxlan0 --tinc d", "--netplan a --tinc d", "--tinc d --peer 192.0.2.2"] {
            assert_eq!(parse(&format!("l2mesh import {line}")).map(|_| ()), Err(ErrorKind::ArgumentConflict), "{line}");
        }
    }
}
