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
    let mut request = Vec::new();
    request.extend(28_u32.to_ne_bytes());
    request.extend(RTM_GETSTATS.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 16]);
    request.extend((1_u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
    let mut frames = Vec::new();
    dump(NETLINK_ROUTE, &request, |payload| frames.extend(received(payload)))
        .map_err(|error| Error::new("count received frames", errno_of(&error)))?;
    frames.sort_unstable();
    Ok(Frames(frames))
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
