//! What is known when all has been asked. The checks judge by it, and by nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use l2mesh_common::wire::{Difference, MacAddr};

use super::rules::Rule;
use crate::agent::Receive;

/// All of it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Facts {
    pub(super) host: HostFacts,
    pub(super) card: CardFacts,
    pub(super) port: PortFacts,
    pub(super) networks: Vec<NetworkFacts>,
    pub(super) peers: Vec<PeerFacts>,
    pub(super) wire: WireFacts,
}

/// Kernel and agent.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HostFacts {
    /// Why the kernel takes no programs at tcx, if it does not.
    pub(super) no_tcx: Option<String>,
    /// Whether programs are compiled; `None` if that cannot be seen from here.
    pub(super) jit: Option<bool>,
    /// Where pins are, or would be.
    pub(super) pins: String,
    /// On a BPF file system.
    pub(super) is_bpffs: bool,
    /// There is one to be mounted by attach.
    pub(super) mounts_bpffs: bool,
    /// The mesh is attached.
    pub(super) is_attached: bool,
    /// The agent.
    pub(super) agent: Option<i32>,
    pub(super) is_stopped: bool,
    /// How the file that was named differs from what is attached.
    pub(super) file: Option<Difference>,
}

/// The underlay interface.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, PartialEq, Debug)]
pub(super) struct CardFacts {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) has_carrier: bool,
    pub(super) mtu: u32,
    pub(super) driver: String,
    /// The receive mode and why; before attach, what it would be.
    pub(super) mode: String,
    pub(super) receive: Receive,
    pub(super) rx_queues: u32,
    /// By IP version of the mesh: whether UDP is spread by ports, where the driver says.
    pub(super) spreads: Vec<(&'static str, Option<bool>)>,
    pub(super) lro: bool,
    pub(super) gro: bool,
    /// Programs of others that see received frames before ours.
    pub(super) before_us: Vec<String>,
    /// The XDP program of somebody else.
    pub(super) foreign_xdp: Option<String>,
    /// Ours is where it should be.
    pub(super) has_ours: bool,
    /// What this interface and ours lost meanwhile: interface, counter, how many.
    pub(super) losses: Vec<(String, &'static str, u64)>,
    /// Verdicts that dropped frames meanwhile: label, how many, meaning.
    pub(super) drops: Vec<(&'static str, u64, &'static str)>,
    /// How long that was, seconds.
    pub(super) seconds: f64,
}

/// The UDP port and who lets it in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PortFacts {
    pub(super) port: u16,
    /// What the helper device holds.
    pub(super) own: u16,
    pub(super) is_private: bool,
    /// Who else has the port.
    pub(super) owner: Option<String>,
    /// Whether a packet that was sent through the host's firewall arrived.
    pub(super) arrives: Option<bool>,
    /// Rules of the firewall that drop it.
    pub(super) rules: Vec<Rule>,
    /// `rp_filter` of the interface: 0 off, 1 strict, 2 loose.
    pub(super) rp_filter: u8,
}

/// A network and its interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NetworkFacts {
    pub(super) name: String,
    pub(super) interface: String,
    /// Of the interface as it is now, or would be.
    pub(super) mtu: u32,
    /// What the links to its members take.
    pub(super) fits: u32,
}

/// Another node.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PeerFacts {
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// From where we send to it.
    pub(super) source: Option<IpAddr>,
    pub(super) is_probed: bool,
    /// How frames leave for it, or why they cannot, and what to do.
    pub(super) way: Result<String, (String, String)>,
    /// Packets to it leave by the underlay interface.
    pub(super) by_underlay: bool,
    pub(super) pings: bool,
    pub(super) probe: Probed,
    /// Something of the mesh arrives from it, directly.
    pub(super) hears: bool,
    pub(super) configuration: Configuration,
    pub(super) long: Long,
}

/// What became of probes.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Probed {
    /// Answered after so many ms, if that is known.
    Answered(Option<f64>),
    Silence,
    /// There is no direct path to it.
    Untested,
    /// Nobody holds the port there.
    Refused,
    Unsent(String),
}

/// What the far end's configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Configuration {
    /// It has not said.
    Unknown,
    Same,
    Other(Difference),
}

/// What became of probes as long as frames may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Long {
    Untested,
    Answered(u16),
    /// So long ones are not answered; the greatest that was, if it was looked for.
    Lost(u16, Option<u16>),
    /// So long ones cannot be sent.
    Unsent(u16, String),
}

/// What was heard on the wire.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct WireFacts {
    /// Who says that an address is his.
    pub(super) claims: BTreeMap<Ipv4Addr, BTreeSet<MacAddr>>,
    /// Our own addresses on the interface.
    pub(super) own: BTreeSet<Ipv4Addr>,
    /// Addresses of no node from which something was sent to the port, and whether those were probes.
    pub(super) strangers: BTreeMap<IpAddr, bool>,
}

#[cfg(test)]
pub(super) fn healthy() -> Facts {
    let peer = PeerFacts {
        name: "b".to_owned(),
        address: IpAddr::from([192, 0, 2, 11]),
        source: Some(IpAddr::from([192, 0, 2, 10])),
        is_probed: true,
        way: Ok("on eth0 to 02:00:00:00:00:0b".to_owned()),
        by_underlay: true,
        pings: true,
        probe: Probed::Answered(Some(0.2)),
        hears: true,
        configuration: Configuration::Same,
        long: Long::Answered(1450),
    };
    Facts {
        host: HostFacts {
            no_tcx: None,
            jit: Some(true),
            pins: "/sys/fs/bpf/l2mesh".to_owned(),
            is_bpffs: true,
            mounts_bpffs: false,
            is_attached: true,
            agent: Some(7),
            is_stopped: false,
            file: None,
        },
        card: CardFacts {
            name: "eth0".to_owned(),
            up: true,
            has_carrier: true,
            mtu: 1500,
            driver: "veth".to_owned(),
            mode: "tc (veth copies every frame for XDP)".to_owned(),
            receive: Receive::Tc,
            rx_queues: 4,
            spreads: vec![("udp4", Some(true))],
            lro: false,
            gro: true,
            before_us: Vec::new(),
            foreign_xdp: None,
            has_ours: true,
            losses: Vec::new(),
            drops: Vec::new(),
            seconds: 1.2,
        },
        port: PortFacts {
            port: 4789,
            own: 4789,
            is_private: false,
            owner: None,
            arrives: Some(true),
            rules: Vec::new(),
            rp_filter: 0,
        },
        networks: vec![NetworkFacts { name: "lan".to_owned(), interface: "l2m10".to_owned(), mtu: 1450, fits: 1450 }],
        peers: vec![peer],
        wire: WireFacts::default(),
    }
}
