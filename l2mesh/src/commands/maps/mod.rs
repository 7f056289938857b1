//! `l2mesh maps`: what the kernel holds right now, read from the pinned maps. No agent is needed. One file a table.

mod counters;
mod macs;
mod neighbours;
mod networks;
mod paths;
mod peers;
mod reach;

use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    thread::sleep,
    time::Duration,
};

use anyhow::ensure;
use l2mesh_common::wire::Vni;
use serde::Serialize;

#[cfg(test)]
pub(crate) use self::paths::RoundTrip;
use self::{
    counters::counters_table,
    macs::{MacRow, macs, macs_table},
    neighbours::{NeighbourRow, neighbours, neighbours_table},
    paths::paths_table,
    peers::peers_table,
    reach::reach_table,
};
pub(crate) use self::{
    counters::{CounterRow, counters},
    networks::{NetworkRow, networks, networks_table},
    paths::{PathRow, Snapshot, is_probed, path_text, paths, reason_text},
    peers::{PeerRow, peers},
    reach::{Matrix, ReachRow},
};
use super::output::{Attached, attached};
use crate::cli::{MapsArgs, Table};

/// How often `--watch` shows it again.
const WATCH: Duration = Duration::from_secs(1);

/// Clears the terminal and goes to its first place (ECMA-48 ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows one table or all.
///
/// # Errors
/// No mesh is attached, or it cannot be read.
pub(crate) fn run(args: &MapsArgs, pin_root: &Path) -> anyhow::Result<()> {
    let vni = args.vni.map(Vni::get);
    loop {
        let mesh = attached(pin_root, args.iface.as_deref())?;
        if let Some(vni) = vni {
            ensure!(
                mesh.tables.networks.get(&vni, 0).is_ok(),
                "no network here has VNI {vni}: see `l2mesh maps networks`"
            );
        }
        let maps = Maps::read(&mesh, args.table, vni)?;
        let text = if args.json { serde_json::to_string_pretty(&maps)? + "\n" } else { maps.to_string() };
        let mut stdout = std::io::stdout().lock();
        if args.watch && !args.json && stdout.is_terminal() {
            stdout.write_all(CLEAR.as_bytes())?;
        }
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        if !args.watch {
            return Ok(());
        }
        sleep(WATCH);
    }
}

/// The tables asked for.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Maps {
    #[serde(skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<NetworkRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Vec<PeerRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<PathRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reach: Option<Vec<ReachRow>>,
    #[serde(skip)]
    matrix: Option<Matrix>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs: Option<Vec<MacRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbours: Option<Vec<NeighbourRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Vec<CounterRow>>,
}

impl Maps {
    /// Reads what is asked for; `None` is everything.
    fn read(attached: &Attached, wanted: Option<Table>, vni: Option<u32>) -> anyhow::Result<Self> {
        let tables = &attached.tables;
        let wants = |table| wanted.is_none_or(|wanted| wanted == table);
        let mut maps = Self::default();
        if wants(Table::Networks) {
            maps.networks = Some(networks(tables, vni)?);
        }
        if wants(Table::Peers) {
            maps.peers = Some(peers(tables, vni)?);
        }
        if wants(Table::Paths) {
            maps.paths = Some(paths(tables, vni)?);
        }
        if wants(Table::Reach) {
            let matrix = Matrix::of(tables, &Snapshot::of(tables))?;
            (maps.reach, maps.matrix) = (Some(matrix.pairs()), Some(matrix));
        }
        if wants(Table::Macs) {
            maps.macs = Some(macs(tables, vni)?);
        }
        if wants(Table::Neighbours) {
            maps.neighbours = Some(neighbours(tables, vni)?);
        }
        if wants(Table::Counters) {
            maps.counters = Some(counters(tables)?);
        }
        Ok(maps)
    }
}

/// Name of an interface of our namespace; its number where it has none, nothing for 0.
pub(crate) fn interface(ifindex: u32) -> String {
    match ifindex {
        0 => String::new(),
        _ => nix::net::if_::if_indextoname(ifindex)
            .map_or_else(|_| ifindex.to_string(), |name| name.to_string_lossy().into_owned()),
    }
}

/// A VNI as people need it: both ways.
pub(crate) fn vni_text(vni: u32) -> String {
    Vni::new(vni).map_or_else(|_| vni.to_string(), |vni| vni.to_string())
}

impl std::fmt::Display for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            self.networks.as_deref().map(networks_table),
            self.peers.as_deref().map(peers_table),
            self.paths.as_deref().map(paths_table),
            self.matrix.as_ref().map(reach_table),
            self.macs.as_deref().map(macs_table),
            self.neighbours.as_deref().map(neighbours_table),
            self.counters.as_deref().map(counters_table),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }
}
