//! What is told: read from the tables as `l2mesh maps` reads them. What cannot be read at the moment is left out, and
//! `l2mesh_scrape_success` says so; the rest is told.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aya::{maps::MapInfo, programs::ProgramInfo};
use l2mesh_common::{
    layout::LAYOUT_VERSION,
    tables::{Fact, LabelKey, Network, NetworkCounter, Peer, PeerCounter, PeerId},
};

use super::exposition::{Exposition, Family, Format, Labels};
use crate::{
    agent::{Agent, BOUNDS_US, RoundTrips, Stats, Turn},
    commands::maps::{PathRow, Snapshot, counters},
    dataplane::{object, pins::PinDir, tables::Tables},
};

/// The MAC addresses are counted anew when this many times as long has passed as the last count took: a full table of a million
/// takes a good part of a second.
const REST: u32 = 50;

/// Reads the tables.
pub(super) struct Gatherer {
    tables: Tables,
    pins: PinDir,
    stats: Arc<Stats>,
    interface: String,
    began: Duration,
    macs: Option<Macs>,
}

/// MAC addresses by VNI.
#[derive(Debug)]
struct Macs {
    by_vni: BTreeMap<u32, u64>,
    at: Instant,
    took: Duration,
}

/// A network.
struct Net {
    name: String,
    vni: String,
    macs: u64,
    counter: NetworkCounter,
    network: Network,
}

/// A peer.
struct Other {
    id: PeerId,
    name: String,
    address: String,
    peer: Peer,
    counter: PeerCounter,
}

/// What is told of each.
type Value<T> = dyn Fn(&T) -> u64;

/// One part of the text.
type Part = (&'static str, fn(&mut Gatherer, &mut Exposition) -> anyhow::Result<()>);

const PARTS: [Part; 6] = [
    ("agent", Gatherer::agent),
    ("verdicts", Gatherer::verdicts),
    ("networks", Gatherer::networks),
    ("peers", Gatherer::peers),
    ("paths", Gatherer::paths),
    ("programs", Gatherer::programs),
];

impl Gatherer {
    pub(super) fn new(agent: &Agent) -> anyhow::Result<Self> {
        Ok(Self {
            tables: Tables::open(&agent.pins)?,
            pins: agent.pins.clone(),
            stats: Arc::clone(&agent.stats),
            interface: agent.view.interface.clone(),
            began: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            macs: None,
        })
    }

    /// All of it, as it is now.
    pub(super) fn text(&mut self, format: Format) -> String {
        let begin = Instant::now();
        let mut text = Exposition::new(format);
        let outcomes = PARTS.map(|(name, part)| {
            let outcome = part(self, &mut text);
            if let Err(error) = &outcome {
                log::debug!("metrics of {name}: {error:#}");
            }
            (name, outcome.is_ok())
        });
        let mut success =
            text.gauge("l2mesh_scrape_success", "1 if this part could be read for this answer, 0 if it is missing.");
        for (part, is_ok) in outcomes {
            success.sample(&[("part", part)], u8::from(is_ok));
        }
        text.gauge("l2mesh_scrape_duration_seconds", "How long it took to gather this answer.")
            .sample(&[], begin.elapsed().as_secs_f64());
        text.end()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other parts")]
    fn agent(&mut self, text: &mut Exposition) -> anyhow::Result<()> {
        let layout = LAYOUT_VERSION.to_string();
        text.gauge("l2mesh_build_info", "Version of the agent and of the layout of its tables.")
            .sample(&[("version", env!("CARGO_PKG_VERSION")), ("layout", &layout)], 1);
        text.gauge("l2mesh_agent_start_time_seconds", "When the agent started, seconds since 1970.")
            .sample(&[], self.began.as_secs_f64());
        let (node, mode) = (self.tables.fact(Fact::Node), self.tables.fact(Fact::Mode));
        let mode = mode.split(' ').next().unwrap_or_default();
        text.gauge("l2mesh_node_info", "This node, its underlay interface and how it receives.")
            .sample(&[("node", &node), ("interface", &self.interface), ("mode", mode)], 1);
        Ok(())
    }

    fn verdicts(&mut self, text: &mut Exposition) -> anyhow::Result<()> {
        let rows = counters(&self.tables)?;
        let help = "What became of frames (l2mesh maps counters); fate noted: counted under another verdict too.";
        let mut frames = text.counter("l2mesh_verdict_frames", help);
        for row in &rows {
            frames.sample(&[("verdict", row.verdict), ("fate", &row.fate.replace(' ', "-"))], row.frames);
        }
        let mut bytes = text.counter("l2mesh_verdict_bytes", "The same in bytes.");
        for row in &rows {
            bytes.sample(&[("verdict", row.verdict), ("fate", &row.fate.replace(' ', "-"))], row.octets);
        }
        Ok(())
    }

    fn networks(&mut self, text: &mut Exposition) -> anyhow::Result<()> {
        // The walk goes on where a network goes meanwhile.
        let networks: BTreeMap<u32, Network> = self.tables.networks.iter().filter_map(Result::ok).collect();
        let macs = self.macs();
        let mut rows = Vec::new();
        for (vni, network) in networks {
            let name = self.tables.label(LabelKey::network(vni));
            let counter = self.tables.network_counter(network.number)?;
            let macs = macs.get(&vni).copied().unwrap_or(0);
            rows.push(Net { name, vni: vni.to_string(), macs, counter, network });
        }
        let counters: [(&str, &str, &Value<Net>); 4] = [
            ("sent_frames", "Frames sent into the network; a flooded one counts once.", &|row| row.counter.sent.frames),
            ("sent_bytes", "Bytes sent into the network.", &|row| row.counter.sent.octets),
            ("received_frames", "Frames received from the network.", &|row| row.counter.received.frames),
            ("received_bytes", "Bytes received from the network.", &|row| row.counter.received.octets),
        ];
        for (name, help, value) in counters {
            let mut family = text.counter(&format!("l2mesh_network_{name}"), help);
            for row in &rows {
                family.sample(&[("network", &row.name), ("vni", &row.vni)], value(row));
            }
        }
        let mut family =
            text.counter("l2mesh_network_storm_drops", "Frames on the wire that went nowhere because of storm-limit.");
        for row in &rows {
            for (direction, frames) in [("sent", row.counter.storm_sent), ("received", row.counter.storm_received)] {
                family.sample(&[("network", &row.name), ("vni", &row.vni), ("direction", direction)], frames);
            }
        }
        let gauges: [(&str, &str, &Value<Net>); 3] = [
            ("macs", "MAC addresses known behind peers.", &|row| row.macs),
            ("storm_limit_frames", "Flooded frames per second that are carried (storm-limit).", &|row| {
                row.network.storm_limit.into()
            }),
            // A veth end takes 18 octets more than its MTU.
            ("mtu_bytes", "MTU of the overlay interface.", &|row| row.network.max_frame.saturating_sub(18).into()),
        ];
        for (name, help, value) in gauges {
            let mut family = text.gauge(&format!("l2mesh_network_{name}"), help);
            for row in &rows {
                family.sample(&[("network", &row.name), ("vni", &row.vni)], value(row));
            }
        }
        text.gauge("l2mesh_fdb_entries", "MAC addresses known in all networks.")
            .sample(&[], macs.values().sum::<u64>());
        let size = MapInfo::from_pin(self.pins.pin("FDB"))?.max_entries();
        text.gauge("l2mesh_fdb_limit_entries", "How many there is room for (fdb-size).").sample(&[], size);
        Ok(())
    }

    /// MAC addresses by VNI, as they are or were a moment ago.
    fn macs(&mut self) -> BTreeMap<u32, u64> {
        let begin = Instant::now();
        if let Some(macs) = &self.macs
            && begin.duration_since(macs.at) < macs.took * REST
        {
            return macs.by_vni.clone();
        }
        let mut by_vni: BTreeMap<u32, u64> = BTreeMap::new();
        for key in self.tables.fdb.keys().map_while(Result::ok) {
            *by_vni.entry(key.vni).or_default() += 1;
        }
        self.macs = Some(Macs { by_vni: by_vni.clone(), at: begin, took: begin.elapsed() });
        by_vni
    }

    /// Everyone's id, name, address and entry.
    fn each_peer(&self) -> anyhow::Result<Vec<(PeerId, String, IpAddr, Peer)>> {
        // The walk goes on where a peer goes meanwhile.
        let mut peers = Vec::new();
        for (address, id) in self.tables.vteps.iter().filter_map(Result::ok) {
            let name = self.tables.label(LabelKey::peer(id));
            peers.push((id, name, address.ip(), self.tables.peers.get(&id, 0)?));
        }
        peers.sort_by_key(|(id, ..)| *id);
        Ok(peers)
    }

    fn peers(&mut self, text: &mut Exposition) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for (id, name, address, peer) in self.each_peer()? {
            let counter = self.tables.peer_counter(id)?;
            rows.push(Other { id, name, address: address.to_string(), peer, counter });
        }
        let mut family = text.gauge("l2mesh_peer_info", "The other nodes, their addresses and what they are.");
        for Other { name, address, peer, .. } in &rows {
            let kind = if peer.flags & Peer::PLAIN == 0 { "l2mesh" } else { "vxlan" };
            let relay = if peer.flags & Peer::RELAY == 0 { "no" } else { "yes" };
            family.sample(&[("peer", name), ("address", address), ("kind", kind), ("relay", relay)], 1);
        }
        let counters: [(&str, &str, &Value<Other>); 4] = [
            ("sent_frames", "Frames sent to the peer, copies of flooded ones included.", &|row| {
                row.counter.sent.frames
            }),
            ("sent_bytes", "Bytes sent to the peer.", &|row| row.counter.sent.octets),
            ("received_frames", "Frames received from the peer.", &|row| row.counter.received.frames),
            ("received_bytes", "Bytes received from the peer.", &|row| row.counter.received.octets),
        ];
        for (name, help, value) in counters {
            let mut family = text.counter(&format!("l2mesh_peer_{name}"), help);
            for row in &rows {
                family.sample(&[("peer", &row.name)], value(row));
            }
        }
        let gauges: [(&str, &str, &Value<Other>); 2] = [
            ("next_hop_known", "1 if it is known where packets to the peer go first.", &|row| {
                row.peer.current().is_known().into()
            }),
            ("mtu_bytes", "What the way to the peer takes of an inner packet.", &|row| row.peer.current().mtu.into()),
        ];
        for (name, help, value) in gauges {
            let mut family = text.gauge(&format!("l2mesh_peer_{name}"), help);
            for row in &rows {
                family.sample(&[("peer", &row.name)], value(row));
            }
        }
        let help = "How often frames to the peer began to take such a path; to a relay: failovers.";
        let mut family = text.counter("l2mesh_peer_path_changes", help);
        for Other { id, name, .. } in &rows {
            for to in Turn::ALL {
                family.sample(&[("peer", name), ("to", to.label())], self.stats.turns(*id, to));
            }
        }
        Ok(())
    }

    fn paths(&mut self, text: &mut Exposition) -> anyhow::Result<()> {
        let snapshot = Snapshot::of(&self.tables);
        let peers = self.each_peer()?;
        let known: BTreeMap<PeerId, (&str, u32)> =
            peers.iter().map(|(id, name, _, peer)| (*id, (&**name, peer.current().mtu))).collect();
        let name = |id| known.get(&id).map_or_else(String::new, |(name, _)| (*name).to_owned());
        let mtu = |id| known.get(&id).map_or(0, |(_, mtu)| *mtu);
        let rows: Vec<PathRow> = peers.iter().flat_map(|(id, ..)| snapshot.rows(*id, &name, &mtu)).collect();
        let each: Vec<(&PathRow, [(&str, &str); 2])> =
            rows.iter().map(|row| (row, [("peer", &*row.peer), ("path", &*row.path)])).collect();
        let gauges: [(&str, &str, &Value<PathRow>); 3] = [
            ("up", "1 if frames may take the path.", &|row| row.up.into()),
            ("in_use", "1 if frames take the path.", &|row| row.in_use.into()),
            ("mtu_bytes", "What the path takes of an inner packet.", &|row| row.mtu.into()),
        ];
        for (name, help, value) in gauges {
            let mut family = text.gauge(&format!("l2mesh_path_{name}"), help);
            each.iter().for_each(|(row, labels)| family.sample(labels, value(row)));
        }
        let help = "Of the last 50 probes, those that were lost; 1 for a path that is dead.";
        let mut family = text.gauge("l2mesh_path_loss_ratio", help);
        for (row, labels) in &each {
            if let Some(loss) = row.loss {
                family.sample(labels, loss);
            }
        }
        let probed = || each.iter().filter(|(row, _)| row.probed && row.probes > 0);
        let mut family = text.counter("l2mesh_path_probes", "Probes sent since the agent began.");
        probed().for_each(|(row, labels)| family.sample(labels, row.probes));
        let mut family = text.counter("l2mesh_path_answers", "Probes answered since the path began.");
        probed().for_each(|(row, labels)| family.sample(labels, row.answers));
        let mut family = text.histogram("l2mesh_path_rtt_seconds", "Round-trip times of probes since the agent began.");
        for (row, labels) in &each {
            if let Some(times) = self.stats.round_trips(row.slot) {
                histogram(&mut family, labels, &times);
            }
        }
        Ok(())
    }

    /// Only where the kernel counts them (`kernel.bpf_stats_enabled`).
    #[expect(clippy::unnecessary_wraps, reason = "as the other parts")]
    fn programs(&mut self, text: &mut Exposition) -> anyhow::Result<()> {
        let names = object::PROGRAMS.into_iter();
        let ran: Vec<_> = names
            .filter_map(|name| Some((name, ProgramInfo::from_pin(self.pins.pin(name)).ok()?)))
            .filter(|(_, info)| info.run_count() > 0)
            .collect();
        if ran.is_empty() {
            return Ok(());
        }
        let mut family =
            text.counter("l2mesh_program_runs", "Runs of a kernel program, while kernel.bpf_stats_enabled was 1.");
        ran.iter().for_each(|(name, info)| family.sample(&[("program", name)], info.run_count()));
        let mut family = text.counter("l2mesh_program_run_seconds", "Time that they took.");
        ran.iter().for_each(|(name, info)| family.sample(&[("program", name)], info.run_time().as_secs_f64()));
        Ok(())
    }
}

fn histogram(family: &mut Family<'_>, labels: &Labels<'_>, times: &RoundTrips) {
    #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
    let bounds = BOUNDS_US.iter().map(|&bound| bound as f64 / 1e6);
    let count = times.cumulative.last().copied().unwrap_or(0);
    family.histogram(labels, bounds.zip(times.cumulative), count, times.sum.as_secs_f64());
}
