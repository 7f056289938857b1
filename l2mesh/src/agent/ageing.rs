//! Forgetting MAC addresses and neighbours that were not heard for long.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use l2mesh_common::{fdb, neighbours, wire::MacAddr};
use nix::time::{ClockId, clock_gettime};

use super::{Agent, control::request::Flush};
use crate::dataplane::{census::Census, tables::remove};

/// How often to look, for this age: a tenth of it late at most.
pub(super) fn period(age: Duration) -> Duration {
    (age / 10).clamp(Duration::from_millis(100), Duration::from_secs(10))
}

impl Agent {
    /// Removes what is too old, and counts what is left.
    pub(super) fn age(&mut self) -> anyhow::Result<()> {
        let (now, age) = (coarse_now_ns()?, u64::try_from(self.fdb_age.as_nanos())?);
        let mut census = Census::begin(&self.tables)?;
        let mut aged = Vec::new();
        for entry in &self.tables.fdb {
            // A walk over a table that programs write to may miss or repeat a key: the next one makes up for it.
            let Ok((key, entry)) = entry else { break };
            if fdb::is_aged(&entry, now, age) {
                aged.push(key);
            } else {
                census.note(&key, &entry);
            }
        }
        for key in aged {
            remove(&mut self.tables.fdb, &key)?;
        }
        let full = census.end(&mut self.tables)?;
        self.full_peers(&full);
        remove_where(&mut self.tables.neighbours, |entry| neighbours::is_aged(entry, now, age))
    }
}

impl Agent {
    /// Forgets MAC addresses that were learned, and returns how many.
    ///
    /// # Errors
    /// There is no such network or node, or the tables cannot be read.
    pub(super) fn flush(&mut self, Flush { vni, peer, mac }: &Flush) -> anyhow::Result<usize> {
        let peer = peer.as_ref().map(|name| {
            let found = self.view.peers.iter().find(|peer| peer.name == *name);
            found.map(|peer| peer.id).with_context(|| format!("no node is called {name:?}: see `l2mesh maps peers`"))
        });
        let (peer, mac) = (peer.transpose()?, mac.as_ref().map(|mac| mac.parse::<MacAddr>()).transpose()?);
        if let Some(vni) = vni {
            let is_ours = self.view.networks.iter().any(|network| network.vni == *vni);
            ensure!(is_ours, "no network here has VNI {vni}: see `l2mesh maps networks`");
        }
        let mut census = Census::begin(&self.tables)?;
        let mut gone = Vec::new();
        for entry in &self.tables.fdb {
            let Ok((key, entry)) = entry else { break };
            let goes = !entry.is_static()
                && vni.is_none_or(|vni| key.vni == vni)
                && peer.is_none_or(|peer| entry.peer == peer)
                && mac.is_none_or(|mac| key.mac == mac);
            if goes { gone.push(key) } else { census.note(&key, &entry) }
        }
        for key in &gone {
            remove(&mut self.tables.fdb, key)?;
        }
        let full = census.end(&mut self.tables)?;
        self.full_peers(&full);
        Ok(gone.len())
    }
}

fn remove_where<K: Pod, V: Pod>(table: &mut HashMap<MapData, K, V>, goes: impl Fn(&V) -> bool) -> anyhow::Result<()> {
    let mut gone = Vec::new();
    for entry in &*table {
        // A walk over a table that programs write to may miss or repeat a key: the next one makes up for it.
        let Ok((key, value)) = entry else { break };
        if goes(&value) {
            gone.push(key);
        }
    }
    for key in gone {
        remove(table, &key)?;
    }
    Ok(())
}

/// The clock of `bpf_ktime_get_coarse_ns`.
pub(crate) fn coarse_now_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("cannot read the clock")?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}
