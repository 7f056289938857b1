//! What the user asks for: one mesh, from a TOML file or from flags, checked as a whole.
//!
//! ```text
//! file.rs  --.                                 .-- host.rs     which node am I, MTU, host names
//!             >-- RawMesh -- validate.rs -- Mesh -- kernel_mode.rs  what a node in that mode cannot do
//! flags.rs --'    (node.rs, network.rs)        '-- relays.rs   who may stand between two nodes
//! ```

mod diff;
mod document;
mod edit;
mod error;
mod families;
mod file;
mod fingerprint;
mod flags;
#[cfg(test)]
mod fuzz;
mod host;
mod kernel_mode;
mod network;
mod node;
mod relays;
#[cfg(test)]
mod tests;
mod text;
mod validate;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use l2mesh_common::wire::{MacAddr, Vni};
use nix::fcntl::OFlag;

pub(crate) use diff::changes;
pub(crate) use document::Document;
pub(crate) use edit::{Edit, Named, NewNetwork, NewNode, StaticMac, edited};
pub(crate) use error::{ConfigError, ConfigErrors, Location};
pub(crate) use flags::MeshFlags;
pub(crate) use host::{Host, ResolveError};
pub(crate) use text::{Cidr, duration, interface_problem, is_host_name, name_problem, show_duration};

use error::Source;

/// Greatest number of peers in one network: a broadcast frame is copied to each.
pub(crate) const MAX_PEERS: usize = 512;

/// Greatest length of a file in octets: 500 nodes and 4000 networks have a tenth of it.
const FILE_MAX: u64 = 16 << 20;

/// Octets that the outer headers take from the underlay MTU: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20.
pub(crate) const OVERHEAD_IPV4: u32 = 50;
/// The same with the 40 octets of an IPv6 header.
pub(crate) const OVERHEAD_IPV6: u32 = 70;

/// A checked configuration. Nodes and networks are referred to by their index.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mesh {
    /// How frames are carried.
    pub underlay: Underlay,
    /// How paths are watched.
    pub probe: Probe,
    /// Every host, at least two.
    pub nodes: Vec<Node>,
    /// Every Ethernet segment, at least one.
    pub networks: Vec<Network>,
    /// This host's index where the configuration itself says it: flags do.
    own: Option<usize>,
}

/// What the file calls `[underlay]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Underlay {
    /// UDP destination port.
    pub port: u16,
    /// Where frames to send are taken from the overlay interface.
    pub tx_hook: TxHook,
    /// True if the helper device leaves `port` to others.
    pub private_port: bool,
    /// Greatest number of learned MAC addresses, all networks together.
    pub fdb_size: u32,
    /// Time after which a MAC address that was not heard is forgotten.
    pub fdb_age: Duration,
    /// How often a MAC address may move in ten seconds; 0 is no limit.
    pub move_limit: u32,
    /// How long one that moves more often is frozen.
    pub move_freeze: Duration,
}

impl Default for Underlay {
    fn default() -> Self {
        Self {
            port: l2mesh_common::wire::vxlan::PORT,
            tx_hook: TxHook::Auto,
            private_port: false,
            fdb_size: 65_536,
            fdb_age: Duration::from_mins(5),
            move_limit: 5,
            move_freeze: Duration::from_mins(1),
        }
    }
}

/// Where frames to send are taken from the overlay interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum TxHook {
    /// On the interface itself while nobody could miss them there, else at the hidden peer.
    Auto,
    /// Always at the hidden peer.
    Port,
}

/// What the file calls `[probe]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Probe {
    /// Time between two probes of a direct path.
    pub interval: Duration,
    /// Probes in a row without an answer that take a path down.
    pub misses: u32,
    /// Answers in a row that bring it back.
    pub recover: u32,
    /// Time between two probes of an idle path through a relay.
    pub relay_interval: Duration,
    /// Loss over which a path is avoided, in percent.
    pub loss_limit: u8,
}

impl Probe {
    /// What holds without `[probe]` in a mesh of so many nodes. A relay forwards probes for every pair: in a large mesh its
    /// paths are asked less often, or that alone would be a tenth of a processor at 256 nodes.
    pub(crate) fn of_mesh(nodes: usize) -> Self {
        const ALL_OFTEN: u32 = 128;
        let default = Self::default();
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(ALL_OFTEN);
        Self { relay_interval: default.relay_interval.saturating_mul(nodes) / ALL_OFTEN, ..default }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            misses: 3,
            recover: 10,
            relay_interval: Duration::from_secs(5),
            loss_limit: 20,
        }
    }
}

/// A host of the mesh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    /// Unique name.
    pub name: String,
    /// Unique identifier on the wire, not zero.
    pub id: u32,
    /// Where the others reach it.
    pub address: Address,
    /// What runs there.
    pub kind: NodeKind,
    /// True if it forwards for pairs of others.
    pub relay: bool,
    /// True if direct paths to it are probed.
    pub probes: bool,
    /// True if frames to it carry a UDP checksum.
    pub udp_checksum: bool,
    /// The relays that may stand between it and others; `None` is every relay.
    pub relays: Option<Vec<usize>>,
    /// Under which address some other nodes see it, instead of `address`.
    pub from: BTreeMap<usize, IpAddr>,
    /// Where `address` was written.
    pub location: Location,
}

impl Node {
    /// Where the others reach it, as far as that is known.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address.ip().into_iter().chain(self.from.values().copied())
    }
}

/// Where a node is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// Written as an address.
    Ip(IpAddr),
    /// Written as a host name.
    Host {
        /// The name as written.
        name: String,
        /// Its address, once [`Mesh::resolve`] has found it.
        resolved: Option<IpAddr>,
    },
}

impl Address {
    /// The address, unless it is a host name not resolved yet.
    #[must_use]
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Host { resolved, .. } => *resolved,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Host { name, resolved: None } => f.write_str(name),
            Self::Host { name, resolved: Some(ip) } => write!(f, "{name} ({ip})"),
        }
    }
}

/// What runs on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeKind {
    /// This program.
    L2mesh,
    /// A plain kernel vxlan device, or anything else that speaks RFC 7348.
    Vxlan,
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L2mesh => "l2mesh",
            Self::Vxlan => "vxlan",
        })
    }
}

/// An Ethernet segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Network {
    /// Unique name.
    pub name: String,
    /// Unique identifier.
    pub vni: Vni,
    /// The device that the host uses.
    pub interface: String,
    /// The bridge of which the device becomes a port.
    pub bridge: Option<String>,
    /// The nodes in it, ascending.
    pub members: Vec<usize>,
    /// What each node's device gets as addresses.
    pub addresses: BTreeMap<usize, Vec<Cidr>>,
    /// MTU of the device in octets; `None` follows the underlay, see [`Mesh::overlay_mtu`].
    pub mtu: Option<u32>,
    /// Where some MAC addresses are, never learned.
    pub macs: Vec<(MacAddr, usize)>,
    /// True if 01:80:c2:00:00:00 to :0f are carried.
    pub link_local: bool,
    /// True if the MSS of TCP connections is lowered to what the path takes; `None` leaves it to what the interface is.
    pub mss_clamp: Option<bool>,
    /// DSCP of the outer header; `None` is zero.
    pub tos: Option<Tos>,
    /// True if ARP and neighbour solicitations are answered on behalf of others.
    pub neighbour_suppression: bool,
    /// Greatest number of flooded frames per second, sent and received each; `None` follows the number of peers.
    pub storm_limit: Option<u32>,
    /// Greatest number of MAC addresses learned behind one peer.
    pub macs_per_peer: Option<u32>,
    /// Where the MTU was written, or else the network.
    pub location: Location,
}

/// All of a file, which may be a pipe, but not endless.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    all_of(File::open(path)?)
}

/// The same of a file that was read before: opened or read, a pipe or a device would hold up an agent for as long as it likes.
pub(crate) fn read_again(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() {
        return all_of(file);
    }
    Err(io::Error::other("it is a pipe or a device, and only a file can be read again"))
}

fn all_of(file: File) -> io::Result<String> {
    let mut text = String::new();
    let length = file.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length <= FILE_MAX) {
        Ok(text)
    } else {
        Err(io::Error::other("it has more than 16 MiB"))
    }
}

/// DSCP of the outer header. The two ECN bits follow RFC 6040 always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tos {
    /// As in the inner header.
    Inherit,
    /// The whole octet, ECN bits zero.
    Fixed(u8),
}

impl Mesh {
    /// The mesh that the file at `path` describes.
    ///
    /// # Errors
    /// The file cannot be read, or any of the reasons of [`Mesh::from_toml`].
    pub(crate) fn from_file(path: &Path) -> Result<Self, ConfigErrors> {
        Document::from_file(path)?.mesh()
    }

    /// The mesh that `text` describes; `file_name` is how errors call it.
    ///
    /// # Errors
    /// The first mistake of syntax, key or type, else every mistake of meaning at once.
    pub(crate) fn from_toml(text: &str, file_name: &str) -> Result<Self, ConfigErrors> {
        let raw = file::parse(text, file_name)?;
        validate::mesh(&raw, Source::File { name: file_name, text })
    }

    /// The mesh that the command line describes. `host` is node 0, then come the peers.
    ///
    /// # Errors
    /// Everything that does not fit together, at once.
    pub(crate) fn from_flags(flags: &MeshFlags, host: &Host<'_>) -> Result<Self, ConfigErrors> {
        let raw = flags::read(flags, host)?;
        let mesh = validate::mesh(&raw, Source::Flags)?;
        Ok(Self { own: Some(0), ..mesh })
    }

    /// The mesh of a text that was made from flags, whose node `own` this host is.
    ///
    /// # Errors
    /// Any of the reasons of [`Mesh::from_toml`], or there is no such node any more.
    pub(crate) fn from_flags_text(text: &str, name: &str, own: &str) -> Result<Self, ConfigErrors> {
        let raw = file::parse(text, name)?;
        let mesh = validate::mesh(&raw, Source::FlagsText { name })?;
        let Some(place) = mesh.nodes.iter().position(|node| node.name == own) else {
            let location = Location { place: name.to_owned(), line: None };
            return Err(ConfigError::new(location, format!("node {own:?} is this host: it has to stay")).into());
        };
        Ok(Self { own: Some(place), ..mesh })
    }

    /// The host names that [`Mesh::resolve`] asks for.
    pub(crate) fn host_names(&self) -> Vec<String> {
        let name = |node: &Node| match &node.address {
            Address::Host { name, .. } => Some(name.clone()),
            Address::Ip(_) => None,
        };
        self.nodes.iter().filter_map(name).collect()
    }
}
