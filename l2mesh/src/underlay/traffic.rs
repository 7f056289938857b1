//! How much each device has received, of all devices at once: 5 ms for 8,000 of them.

use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::{
    Error, errno_of,
    raw::{attributes, dump, u32_at},
};

// linux/rtnetlink.h, linux/if_link.h, linux/netlink.h.
const RTM_GETSTATS: u16 = 94;
const REQUEST_DUMP: u16 = 0x301;
const IFLA_STATS_LINK_64: u16 = 1;
/// Octets of `struct if_stats_msg`: family and padding, interface index, filter mask.
const HEADER: usize = 12;

/// Frames that devices have received, by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Frames(Vec<(u32, u64)>);

impl Frames {
    /// Those of one device.
    pub(crate) fn of(&self, index: u32) -> Option<u64> {
        let place = self.0.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.0.get(place).map(|(_, frames)| *frames)
    }
}

/// What each device of the calling thread's namespace has received.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn received_frames() -> Result<Frames, Error> {
    let mut frames = Vec::new();
    dump(NETLINK_ROUTE, &request(), |payload| frames.extend(received(payload)))
        .map_err(|error| Error::new("count received frames", errno_of(&error)))?;
    frames.sort_unstable();
    Ok(Frames(frames))
}

/// What devices have lost so far, by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Losses(pub std::collections::BTreeMap<u32, Vec<(&'static str, u64)>>);

/// Fields of `struct rtnl_link_stats64` that say so, by their place, and what `ip -s -s link` calls them.
const LOSSES: [(usize, &str); 6] = [
    (4, "rx errors"),
    (5, "tx errors"),
    (6, "rx dropped"),
    (7, "tx dropped"),
    (12, "rx fifo errors"),
    (14, "rx missed"),
];

/// What each device of the calling thread's namespace has lost.
///
/// # Errors
/// When the kernel cannot be asked.
pub(crate) fn losses() -> Result<Losses, Error> {
    let mut all = Losses::default();
    dump(NETLINK_ROUTE, &request(), |payload| all.0.extend(lost(payload)))
        .map_err(|error| Error::new("count lost frames", errno_of(&error)))?;
    Ok(all)
}

fn lost(payload: &[u8]) -> Option<(u32, Vec<(&'static str, u64)>)> {
    let (_, stats) = attributes(payload.get(HEADER..)?).find(|(kind, _)| *kind == IFLA_STATS_LINK_64)?;
    let field = |place: usize| stats.get(place * 8..)?.first_chunk().map(|octets| u64::from_ne_bytes(*octets));
    let fields = LOSSES.iter().filter_map(|&(place, name)| Some((name, field(place)?)));
    Some((u32_at(payload, 4)?, fields.collect()))
}

impl Losses {
    /// What a device has lost since `before`.
    pub(crate) fn since(&self, before: &Self, index: u32) -> Vec<(&'static str, u64)> {
        let (Some(now), Some(before)) = (self.0.get(&index), before.0.get(&index)) else { return Vec::new() };
        let grown = now.iter().zip(before).map(|((name, now), (_, before))| (*name, now.saturating_sub(*before)));
        grown.filter(|(_, count)| *count > 0).collect()
    }
}

fn request() -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(28_u32.to_ne_bytes());
    request.extend(RTM_GETSTATS.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 16]);
    request.extend((1_u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
    request
}

/// The first field of `struct rtnl_link_stats64`.
fn received(payload: &[u8]) -> Option<(u32, u64)> {
    let (_, stats) = attributes(payload.get(HEADER..)?).find(|(kind, _)| *kind == IFLA_STATS_LINK_64)?;
    Some((u32_at(payload, 4)?, u64::from_ne_bytes(*stats.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{index, two_hosts},
        *,
    };

    #[test]
    fn what_arrives_is_counted() {
        let (a, b) = two_hosts();
        let (va, vb) = (index(&a, "va"), index(&b, "vb"));
        let before = b.run(received_frames).expect("asked");
        a.command("ping", "-n -c 3 -i 0.01 10.9.0.2");
        let after = b.run(received_frames).expect("asked");
        assert!((3..20).contains(&(after.of(vb).expect("vb") - before.of(vb).expect("vb"))), "{before:?} {after:?}");
        let frames = a.run(received_frames).expect("asked");
        assert_eq!((frames.0.len(), frames.of(va).is_some(), frames.of(77)), (2, true, None), "lo and va: {frames:?}");
    }
}
