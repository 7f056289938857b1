//! What the programs report, in words, once a second.

use std::collections::{BTreeMap, HashMap};

use l2mesh_common::{
    tables::{Event, LabelKey, PeerId},
    verdict::Verdict,
    wire::Vni,
};

use super::Agent;

/// Lines per second; a storm is summed up in one more.
const LINES: usize = 10;

impl Agent {
    /// Logs what happened since the last time. What happened often is one line.
    pub(super) fn tell_events(&mut self) {
        let mut events: HashMap<Event, u32> = HashMap::new();
        while let Some(item) = self.tables.events.next() {
            if let Ok(event) = bytemuck::try_pod_read_unaligned(&item) {
                *events.entry(event).or_default() += 1;
            }
        }
        let name = |peer| self.tables.label(LabelKey::peer(peer));
        let lines: BTreeMap<String, u32> =
            events.into_iter().filter_map(|(event, times)| Some((describe(&event, name)?, times))).collect();
        let suppressed = lines.len().saturating_sub(LINES);
        for (line, times) in lines.into_iter().take(LINES) {
            if times == 1 { log::warn!("{line}") } else { log::warn!("{line} ({times} times)") }
        }
        if suppressed > 0 {
            log::warn!("{suppressed} more kinds of events in this second: see `l2mesh maps counters`");
        }
    }
}

fn describe(event: &Event, name: impl Fn(PeerId) -> String) -> Option<String> {
    let Event { verdict, vni, mac, from, to, .. } = *event;
    let verdict = Verdict::ALL.iter().copied().find(|it| it.number() == verdict)?;
    let network = Vni::new(vni).map(|vni| format!("VNI {vni}")).unwrap_or_default();
    match verdict {
        Verdict::Moved => Some(format!("{network}: {mac} moved from {} to {}", name(from), name(to))),
        // Without the address: there may be thousands in a second.
        Verdict::FdbFull => {
            Some(format!("{network}: the MAC table is full, frames to more addresses are flooded: raise fdb-size"))
        }
        Verdict::StaticElsewhere => {
            Some(format!("{network}: {mac} is configured behind {}, but {} sends from it", name(from), name(to)))
        }
        Verdict::OwnSource => Some(format!(
            "{network}: a frame from {} came with our own MAC address {mac} as its source: somebody made a loop",
            name(to)
        )),
        Verdict::Learned => {
            log::debug!("{network}: {mac} is behind {}", name(to));
            None
        }
        _ => None,
    }
}
