//! `l2mesh ping`: measures a path the way data takes it. No agent is needed: the kernel programs at both ends do the work.

mod quick;
mod report;
mod slot;
mod socket;
mod whom;

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    pin::pin,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use bytemuck::bytes_of;
use l2mesh_common::{
    path::choose,
    tables::{Fact, NextHop, PeerId, Way},
    wire::{Mark, Probe, VxlanHeader},
};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    signal::ctrl_c,
    time::{Instant, sleep, sleep_until},
};

pub(super) use self::quick::{Quick, quick};
use self::{
    report::{Outcome, Report},
    slot::Slot,
    whom::{Asked, Directory, Via},
};
use super::{
    maps::{Snapshot, path_text},
    output::{Attached, attached},
};
use crate::{cli::PingArgs, dataplane::tables::Tables};

/// Octets of the Ethernet header, which an MTU does not count.
const ETHERNET: usize = 14;
/// What a probe has behind that.
const SHORTEST: u16 = 24;
const _: () = assert!(SHORTEST as usize + ETHERNET == Probe::LEN);
/// How often an answer is looked for; how long it took is measured in the kernel.
const LOOK: Duration = Duration::from_millis(1);

/// Sends the probes and says what became of them.
///
/// # Errors
/// There is nobody to ask, or nothing was answered.
pub(crate) async fn run(args: &PingArgs, pin_root: &Path) -> anyhow::Result<()> {
    let mesh = attached(pin_root, args.iface.as_deref())?;
    let tables = &mesh.tables;
    // The kernel's vxlan device drops what has a reserved bit set, and every probe has.
    ensure!(
        !tables.fact(Fact::Mode).starts_with("kernel"),
        "{} is in mode kernel, which knows no probes: ping inside the network",
        mesh.interface
    );
    let asked = Directory::read(tables)?.find(&args.node, args.via.as_deref())?;
    let mut ping = Ping::new(args, &mesh, asked)?;
    let mut stdout = io::stdout().lock();
    // Nobody who waits for the end of all should wait for what cannot begin.
    let relay = ping.relay();
    ping.route(relay)?;
    if !args.json {
        writeln!(stdout, "{}", ping.headline(relay))?;
    }
    let mut interrupted = pin!(ctrl_c());
    let begin = Instant::now();
    for seq in 1..=args.count {
        // What is late is not made up for.
        let outcome = tokio::select! {
            outcome = ping.probe(seq) => outcome?,
            _ = &mut interrupted => break,
        };
        if !args.json {
            writeln!(stdout, "{}", ping.report.line(&outcome))?;
            stdout.flush()?;
        }
        ping.report.probes.push(outcome);
        let next = begin + args.interval * seq;
        if seq < args.count {
            tokio::select! {
                () = sleep_until(next) => {}
                _ = &mut interrupted => break,
            }
        }
    }
    let summary = ping.report.summary();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &summary)?;
        writeln!(stdout)?;
    } else {
        writeln!(stdout, "{summary}")?;
    }
    if let Some(reason) = summary.why_none_was_sent() {
        bail!("no probe could be sent to {}: {reason}", ping.report.node);
    }
    ensure!(!summary.is_silence(), "{}", ping.silence());
    Ok(())
}

/// The outer source address of what is sent to a next hop.
pub(super) fn source(next_hop: &NextHop) -> IpAddr {
    match next_hop.way() {
        Way::V4 | Way::HelperV4 => IpAddr::from(next_hop.template.source_v4().to_ne_bytes()),
        Way::V6 | Way::HelperV6 => {
            IpAddr::from(bytemuck::cast::<[u32; 4], [u8; 16]>(next_hop.template.addresses_v6()[0]))
        }
    }
}

/// Probes to one node.
struct Ping<'a> {
    tables: &'a Tables,
    slot: Slot,
    asked: Asked,
    timeout: Duration,
    report: Report,
    /// The way that the last probe went.
    route: Option<Route>,
    /// The kernel at the other end said that nobody holds the port.
    is_refused: bool,
}

/// How probes get to the node, or to the relay.
struct Route {
    relay: Option<PeerId>,
    source: IpAddr,
    destination: SocketAddr,
    socket: UdpSocket,
}

impl<'a> Ping<'a> {
    fn new(args: &PingArgs, mesh: &'a Attached, asked: Asked) -> anyhow::Result<Self> {
        let report = Report {
            node: asked.node.name.clone(),
            address: asked.node.address.to_string(),
            size: args.size.unwrap_or(SHORTEST),
            timeout: args.timeout,
            probes: Vec::new(),
        };
        let slot = Slot::claim(&mesh.interface, mesh.ifindex, &mesh.tables)?;
        Ok(Self { tables: &mesh.tables, slot, asked, timeout: args.timeout, report, route: None, is_refused: false })
    }

    /// The relay of the path that is to be measured now.
    fn relay(&self) -> Option<PeerId> {
        match self.asked.via {
            Via::InUse => {
                let choice = choose(&Snapshot::of(self.tables), self.asked.node.id);
                choice.is_relayed().then_some(choice.relay)
            }
            Via::Direct => None,
            Via::Relay(relay) => Some(relay),
        }
    }

    fn path(&self, relay: Option<PeerId>) -> String {
        path_text(relay, &|peer| self.asked.directory.name(peer))
    }

    fn headline(&self, relay: Option<PeerId>) -> String {
        let Report { node, address, size, .. } = &self.report;
        let is_up = self.asked.via != Via::InUse || choose(&Snapshot::of(self.tables), self.asked.node.id).is_up;
        let state = if is_up { "" } else { " (no path is up)" };
        format!("{node} ({address}) {}{state}, packets of {size} octets", self.path(relay))
    }

    /// Makes the way ready, if it is another than that of the last probe.
    fn route(&mut self, relay: Option<PeerId>) -> anyhow::Result<()> {
        let hop = relay.unwrap_or(self.asked.node.id);
        let (name, address) = (self.asked.directory.name(hop), self.asked.directory.address(hop)?);
        let peer = self.tables.peers.get(&hop, 0).context("cannot read PEERS")?;
        let next_hop = peer.current();
        ensure!(next_hop.is_known(), "no next hop towards {name} ({address}) is known yet: is there a route to it?");
        let source = source(next_hop);
        let port = self.tables.settings.get(&0, 0).context("cannot read SETTINGS")?.port;
        let destination = SocketAddr::new(address, port);
        let is_same = |route: &Route| (route.relay, route.source, route.destination) == (relay, source, destination);
        if !self.route.as_ref().is_some_and(is_same) {
            let socket = socket::open(source).with_context(|| format!("cannot send from {source}"))?;
            self.route = Some(Route { relay, source, destination, socket });
            self.slot.ask(self.asked.node.id, relay);
        }
        Ok(())
    }

    /// One probe, and what became of it.
    async fn probe(&mut self, seq: u32) -> anyhow::Result<Outcome> {
        let relay = self.relay();
        let path = self.path(relay);
        if let Err(error) = self.route(relay) {
            return Ok(Outcome::unsent(seq, path, format!("{error:#}")));
        }
        let sequence = self.slot.advance();
        // What came of an earlier probe is not the fault of this one.
        self.is_refused |= self.route.as_ref().is_some_and(|route| socket::is_refused(&route.socket));
        if let Err(error) = self.send(sequence, relay) {
            self.slot.take_back();
            return Ok(Outcome::unsent(seq, path, self.why(&error, relay)));
        }
        let end = Instant::now() + self.timeout;
        loop {
            let is_answered = self.slot.is_answered(sequence);
            if !is_answered && Instant::now() >= end {
                self.is_refused |= self.route.as_ref().is_some_and(|route| socket::is_refused(&route.socket));
                return Ok(Outcome::new(seq, path, None));
            }
            sleep(LOOK).await;
            if is_answered {
                return Ok(Outcome::new(seq, path, Some(self.slot.round_trip_ns())));
            }
        }
    }

    fn send(&self, sequence: u32, relay: Option<PeerId>) -> io::Result<()> {
        let Some(route) = &self.route else { return Err(io::Error::other("no way there")) };
        let mark = match relay {
            None => Mark { flags: Mark::PROBE, node: 0 },
            Some(_) => Mark { flags: Mark::PROBE | Mark::RELAY, node: self.asked.node.wire_id },
        };
        let (vxlan, size) = (VxlanHeader::marked(0, mark), self.report.size);
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        let now = u64::try_from(now.as_nanos()).map_err(io::Error::other)?;
        let probe = Probe::request(self.slot.path(), size > SHORTEST, sequence, self.slot.nonce(), now);
        let mut datagram = [bytes_of(&vxlan), bytes_of(&probe)].concat();
        datagram.resize(VxlanHeader::LEN + ETHERNET + usize::from(size), 0);
        route.socket.send_to(&datagram, route.destination).map(drop)
    }

    /// Why a probe was not sent.
    fn why(&self, error: &io::Error, relay: Option<PeerId>) -> String {
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            let hop = relay.unwrap_or(self.asked.node.id);
            let mtu = self.tables.peers.get(&hop, 0).map_or(0, |peer| peer.current().mtu);
            return format!("longer than this host's way there takes (MTU {mtu})");
        }
        error.to_string()
    }

    /// Nothing was answered: what may be the matter.
    fn silence(&self) -> String {
        let (name, sent) = (&self.report.node, self.report.probes.len());
        if sent == 0 {
            return "interrupted before anything was answered".to_owned();
        }
        let size = self.report.size;
        let port = self.route.as_ref().map_or(0, |route| route.destination.port());
        let hint = if self.is_refused {
            format!("its kernel says that nobody there holds UDP port {port}: run `l2mesh attach` there")
        } else if self.asked.is_probed && size > SHORTEST {
            format!(
                "{size} octets may be too long for a link on the way: `l2mesh maps paths` has the MTU that arrives, and without --size \
                 a ping shows whether short packets do"
            )
        } else if self.asked.is_probed {
            format!(
                "`l2mesh maps paths` says what is up; a firewall on the way must let UDP port {port} in, at both ends"
            )
        } else {
            "the configuration says that it does not (probes = false, udp-checksum): ping it inside the network"
                .to_owned()
        };
        format!("{name} answered none of {sent} probes: {hint}")
    }
}
