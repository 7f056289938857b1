//! `l2mesh status`: the mesh at a glance.

use std::{io::Write as _, path::Path};

use l2mesh_common::{
    tables::Fact,
    verdict::{Fate, Verdict},
};
use serde::Serialize;

use super::{
    maps::{CounterRow, NetworkRow, PeerRow, counters, networks, networks_table, peers, vni_text},
    output::{Attached, attached, table},
};
use crate::{agent::control::live_agent, cli::StatusArgs};

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
    mode: String,
    udp_port: String,
    firewall: String,
    networks: Vec<NetworkRow>,
    peers: Vec<PeerStatus>,
    /// Verdicts that dropped frames, and notes worth a look.
    notable: Vec<CounterRow>,
}

#[derive(Debug, Serialize)]
struct PeerStatus {
    #[serde(flatten)]
    peer: PeerRow,
    /// direct, or a relay's name.
    path: &'static str,
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
                    );
                    verdict.label() == row.verdict
                        && (is_news || verdict.fate() == Fate::Dropped && *verdict != Verdict::SelfTest)
                })
        };
        Ok(Self {
            node: tables.fact(Fact::Node),
            interface: attached.interface.clone(),
            local: tables.fact(Fact::Local),
            agent: live_agent(attached.ifindex)?,
            mode: tables.fact(Fact::Mode),
            udp_port: tables.fact(Fact::UdpPort),
            firewall: tables.fact(Fact::Firewall),
            networks: networks(tables, None)?,
            peers: peers(tables, None)?.into_iter().map(|peer| PeerStatus { path: "direct", peer }).collect(),
            notable: counters(tables)?.into_iter().filter(notable).collect(),
        })
    }
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
        let agent = self.agent.map_or_else(|| "not running, paths frozen".to_owned(), |pid| format!("process {pid}"));
        let firewall = if self.firewall.is_empty() { "not tested" } else { &self.firewall };
        for (name, value) in [
            ("node", format!("{} ({}) on {}", self.node, self.local, self.interface)),
            ("agent", agent),
            ("mode", self.mode.clone()),
            ("UDP port", self.udp_port.clone()),
            ("firewall", firewall.to_owned()),
        ] {
            writeln!(f, "{name:<9} {value}")?;
        }
        let cells = self.peers.iter().map(|it| {
            // Whether it answers is for probes to say, which are still to come.
            let state = if it.peer.next_hop.is_some() { "next hop known" } else { "no next hop" };
            vec![
                it.peer.name.clone(),
                it.peer.address.clone(),
                it.peer.kind.into(),
                it.path.into(),
                state.into(),
                it.peer.mtu_text(),
                it.peer.sent_frames.to_string(),
                it.peer.received_frames.to_string(),
            ]
        });
        let header = ["peer", "address", "kind", "path", "state", "mtu", "sent", "received"];
        write!(f, "\n{}", networks_text(&self.networks))?;
        write!(f, "\n{}", table("peers", &header, &cells.collect::<Vec<_>>(), &[5, 6, 7]))?;
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
