//! `l2mesh status`: the mesh at a glance.

mod changes;
mod peers;

use std::{io::Write as _, path::Path};

use l2mesh_common::{
    tables::{Fact, LabelKey, PeerId},
    verdict::{Fate, Verdict},
};
use serde::Serialize;

pub(super) use self::changes::{ChangeRow, changes};
use self::{
    changes::changes_table,
    peers::{PeerStatus, SAME, peers_text},
};
use super::{
    clock::Moment,
    maps::{CounterRow, NetworkRow, PeerRow, Snapshot, counters, networks, networks_table, peers, vni_text},
    output::{Attached, attached, table},
};
use crate::{
    agent::{control::live_agent, fingerprints},
    cli::StatusArgs,
    dataplane::tables::Tables,
    underlay::processes::is_stopped,
};

/// Shows who is here, how frames go, what is wrong.
///
/// # Errors
/// No mesh is attached, or it cannot be read.
pub(crate) fn run(args: &StatusArgs, pin_root: &Path) -> anyhow::Result<()> {
    let status = Status::read(&attached(pin_root, args.iface.as_deref())?)?;
    let text = if args.json { serde_json::to_string_pretty(&status)? + "\n" } else { status.to_string() };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

#[derive(Debug, Serialize)]
struct Status {
    node: String,
    interface: String,
    local: String,
    /// Process id; null while none runs.
    agent: Option<i32>,
    /// It runs, but somebody stopped it (SIGSTOP): it sends no probes.
    agent_stopped: bool,
    mode: String,
    udp_port: String,
    firewall: String,
    /// How punctual the probes are that the agent sends.
    prober: String,
    /// This node forwards for pairs of other nodes.
    relay: bool,
    networks: Vec<NetworkRow>,
    peers: Vec<PeerStatus>,
    /// Which path frames took to whom, the latest first.
    changes: Vec<ChangeRow>,
    /// Verdicts that dropped frames, and notes worth a look.
    notable: Vec<CounterRow>,
}

impl Status {
    fn read(attached: &Attached) -> anyhow::Result<Self> {
        let tables = &attached.tables;
        let notable = |row: &CounterRow| {
            row.frames > 0
                && Verdict::ALL.iter().any(|verdict| {
                    let is_news = matches!(
                        verdict,
                        Verdict::Moved
                            | Verdict::FdbFull
                            | Verdict::StaticElsewhere
                            | Verdict::CopyFailed
                            | Verdict::NoMetadata
                            | Verdict::CopyTooBig
                            | Verdict::PathMtuLowered
                            | Verdict::PathMtuRefused
                            | Verdict::NoPathUp
                    );
                    verdict.label() == row.verdict
                        && (is_news || verdict.fate() == Fate::Dropped && *verdict != Verdict::SelfTest)
                })
        };
        let name = |peer| tables.label(LabelKey::peer(peer));
        let mtu = |peer| tables.peers.get(&peer, 0).map_or(0, |peer| peer.current().mtu);
        let (snapshot, changes) = (Snapshot::of(tables), changes(tables, &name));
        let of_peer = |peer: PeerRow| {
            let change = changes.iter().find(|change| change.peer == peer.name);
            let paths = snapshot.rows(peer.id, &name, &mtu);
            let configuration = compared(tables, peer.id)?;
            Ok(PeerStatus::new(peer, paths, change).with_configuration(configuration))
        };
        let agent = live_agent(attached.ifindex)?;
        Ok(Self {
            node: tables.fact(Fact::Node),
            interface: attached.interface.clone(),
            local: tables.fact(Fact::Local),
            agent,
            agent_stopped: agent.is_some_and(is_stopped),
            mode: tables.fact(Fact::Mode),
            udp_port: tables.fact(Fact::UdpPort),
            firewall: tables.fact(Fact::Firewall),
            networks: networks(tables, None)?,
            prober: tables.fact(Fact::Prober),
            relay: tables.settings.get(&0, 0)?.may_relay(),
            peers: peers(tables, None)?.into_iter().map(of_peer).collect::<anyhow::Result<_>>()?,
            changes,
            notable: counters(tables)?.into_iter().filter(notable).collect(),
        })
    }
}

/// What is known of a peer's configuration, compared with ours.
fn compared(tables: &Tables, peer: PeerId) -> anyhow::Result<Option<&'static str>> {
    Ok(match fingerprints::difference(tables, peer)? {
        Some(difference) => Some(difference.text()),
        None => fingerprints::is_known(tables, peer)?.then_some(SAME),
    })
}

/// Every network, or how many there are if they are too many to look at.
fn networks_text(rows: &[NetworkRow]) -> String {
    const SHOWN: usize = 20;
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return networks_table(rows) };
    if rows.len() <= SHOWN {
        return networks_table(rows);
    }
    let (number, macs) = (rows.len(), rows.iter().map(|row| row.macs).sum::<usize>());
    let starts = |text: &str| rows.iter().filter(|row| row.transmit.starts_with(text)).count();
    let away = rows.iter().filter(|row| row.interface.is_empty()).count();
    let (shortcut, hidden, down) = (starts("egress shortcut"), starts("hidden peer"), starts("down"));
    let (from, to) = (vni_text(first.vni), vni_text(last.vni));
    format!(
        "networks\n  {number} with VNI {from} to {to}, {macs} MAC addresses: `l2mesh maps networks` lists them\n  \
         transmit: {shortcut} by the egress shortcut, {hidden} by the hidden peer ({away} interfaces are in other \
         namespaces), {down} are down\n"
    )
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let agent = match self.agent {
            None => "not running, paths frozen".to_owned(),
            Some(pid) if self.agent_stopped => format!("process {pid} is stopped, paths frozen: `kill -CONT {pid}`"),
            Some(pid) => format!("process {pid}"),
        };
        let firewall = if self.firewall.is_empty() { "not tested" } else { &self.firewall };
        for (name, value) in [
            ("node", format!("{} ({}) on {}", self.node, self.local, self.interface)),
            ("agent", agent),
            ("mode", self.mode.clone()),
            ("UDP port", self.udp_port.clone()),
            ("firewall", firewall.to_owned()),
            ("relay", if self.relay { "yes: forwards for pairs of other nodes" } else { "no" }.to_owned()),
        ] {
            writeln!(f, "{name:<9} {value}")?;
        }
        write!(f, "\n{}", networks_text(&self.networks))?;
        write!(f, "\n{}", peers_text(&self.peers, Moment::now()))?;
        if !self.changes.is_empty() {
            write!(f, "\n{}", changes_table(&self.changes))?;
        }
        if !self.notable.is_empty() {
            let cells = self.notable.iter().map(|it| vec![it.verdict.into(), it.frames.to_string(), it.meaning.into()]);
            write!(
                f,
                "\n{}",
                table("worth a look", &["verdict", "frames", "meaning"], &cells.collect::<Vec<_>>(), &[1])
            )?;
        }
        Ok(())
    }
}
