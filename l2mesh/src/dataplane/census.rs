//! How many MAC addresses are behind each peer, where a network has a limit of them (`macs-per-peer`).
//!
//! The programs count what they learn. They do not see what the agent forgets, and a count that is wrong for whatever reason
//! would stay wrong: whenever the agent walks the FDB it counts anew.

use std::collections::HashMap;

use anyhow::Context as _;
use l2mesh_common::tables::{FdbEntry, FdbKey, MemberKey, MemberMacs};

use super::tables::{Tables, remove};

/// A count under way.
#[derive(Debug)]
pub(crate) struct Census {
    /// By VNI, those that have one.
    limits: HashMap<u32, u32>,
    /// What the programs had counted when it began.
    before: HashMap<MemberKey, MemberMacs>,
    found: HashMap<MemberKey, u64>,
}

impl Census {
    /// Before the walk.
    pub(crate) fn begin(tables: &Tables) -> anyhow::Result<Self> {
        let networks = tables.networks.iter().collect::<Result<Vec<_>, _>>().context("cannot read NETWORKS")?;
        let limits = networks.into_iter().map(|(vni, network)| (vni, network.macs_per_peer));
        // The walk goes on where a member comes in meanwhile, and may miss it: it is found the next time.
        let before = tables.member_macs.iter().map_while(Result::ok).collect();
        Ok(Self { limits: limits.filter(|(_, limit)| *limit > 0).collect(), before, found: HashMap::new() })
    }

    /// An entry that stays.
    pub(crate) fn note(&mut self, key: &FdbKey, entry: &FdbEntry) {
        if !entry.is_static() && self.limits.contains_key(&key.vni) {
            *self.found.entry(MemberKey { vni: key.vni, peer: entry.peer }).or_default() += 1;
        }
    }

    /// After the walk. What programs have counted since it began is added: at worst it is counted twice, until the next
    /// time. Returns those that are full.
    pub(crate) fn end(self, tables: &mut Tables) -> anyhow::Result<Vec<MemberKey>> {
        let mut full = Vec::new();
        for (&key, before) in &self.before {
            if !self.found.contains_key(&key) && before.count != 0 {
                write(tables, key, Some(*before), 0)?;
            }
            if !self.limits.contains_key(&key.vni) {
                remove(&mut tables.member_macs, &key)?;
            }
        }
        for (&key, &found) in &self.found {
            let count = write(tables, key, self.before.get(&key).copied(), found)?;
            if count >= u64::from(self.limits[&key.vni]) {
                full.push(key);
            }
        }
        Ok(full)
    }
}

/// Returns the count as it is now.
fn write(tables: &mut Tables, key: MemberKey, before: Option<MemberMacs>, found: u64) -> anyhow::Result<u64> {
    let now = tables.member_macs.get(&key, 0).unwrap_or_default();
    let count = found.wrapping_add(now.count.wrapping_sub(before.unwrap_or_default().count));
    if count != now.count {
        tables.member_macs.insert(key, MemberMacs { count, ..now }, 0).context("cannot write MEMBER_MACS")?;
    }
    Ok(count)
}
