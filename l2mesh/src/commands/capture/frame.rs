//! A record of the kernel programs, as it is shown.

use l2mesh_common::tables::{CaptureRecord, PeerId, Seen};

/// A frame and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recorded {
    /// `CLOCK_MONOTONIC` as recorded, by the host's clock once it is to be shown; nanoseconds.
    pub(super) time_ns: u64,
    pub(super) seen: Seen,
    /// 0 if it is not known.
    pub(super) vni: u32,
    pub(super) peer: PeerId,
    pub(super) origin: PeerId,
    /// Octets of payload in each segment of a frame that is many on the wire, else 0.
    pub(super) segment: u32,
    /// Octets that the frame had.
    pub(super) len: u32,
    /// What was recorded of it.
    pub(super) octets: Vec<u8>,
}

/// Where a VLAN tag stands: behind the MAC addresses.
const TAG: usize = 12;

impl Recorded {
    /// Reads a record: takes the outer header off, and puts the tag in that the kernel kept beside. `None` for what is none.
    pub(super) fn read(sample: &[u8], snaplen: u32) -> Option<Self> {
        let (header, rest) = sample.split_at_checked(size_of::<CaptureRecord>())?;
        let record: CaptureRecord = bytemuck::pod_read_unaligned(header);
        let seen = Seen::from_bits(record.seen);
        let frame = rest.get(..record.octets as usize)?;
        let mut octets = frame.get(seen.outer as usize..)?.to_vec();
        let mut len = record.len - seen.outer;
        if record.tag != 0 && octets.len() >= TAG {
            octets.splice(TAG..TAG, record.tag.to_be_bytes());
            len += 4;
        }
        octets.truncate(snaplen as usize);
        let CaptureRecord { time_ns, vni, peer, origin, segment, .. } = record;
        Some(Self { time_ns, seen, vni, peer, origin, segment, len, octets })
    }
}

#[cfg(test)]
mod tests {
    use l2mesh_common::{
        tables::{ANYBODY, Point},
        verdict::Verdict,
    };

    use super::*;

    fn sample(outer: u32, tag: u32, len: u32, octets: &[u8]) -> Vec<u8> {
        let seen = Seen { point: Point::Encap, verdict: Verdict::Sent, outer };
        let record = CaptureRecord {
            time_ns: 7,
            len,
            octets: u32::try_from(octets.len()).expect("few"),
            vni: 16,
            peer: 3,
            origin: ANYBODY,
            seen: seen.to_bits(),
            tag,
            segment: 0,
        };
        // The kernel fills up to a multiple of eight.
        [bytemuck::bytes_of(&record), octets, &[0xee; 5]].concat()
    }

    #[test]
    fn as_they_are_inside() {
        let inner: Vec<u8> = (0..20).collect();
        let plain = Recorded::read(&sample(0, 0, 20, &inner), 100).expect("a record");
        assert_eq!((plain.octets, plain.len, plain.vni, plain.peer), (inner.clone(), 20, 16, 3));

        let outer = [&[0xff; 50][..], &inner].concat();
        let stripped = Recorded::read(&sample(50, 0, 1050, &outer), 100).expect("a record");
        assert_eq!((stripped.octets, stripped.len), (inner.clone(), 1000));

        let tagged = Recorded::read(&sample(0, 0x8100_0005, 20, &inner), 100).expect("a record");
        assert_eq!(tagged.octets, [&inner[..12], &[0x81, 0, 0, 5], &inner[12..]].concat());
        assert_eq!(tagged.len, 24);

        let cut = Recorded::read(&sample(0, 0x8100_0005, 20, &inner), 14).expect("a record");
        assert_eq!((cut.octets.len(), cut.len), (14, 24));
    }

    #[test]
    fn what_is_none() {
        assert_eq!(Recorded::read(&[0; 39], 100), None);
        assert_eq!(Recorded::read(&sample(50, 0, 60, &[0; 49]), 100), None, "not even the outer header");
        let whole = sample(0, 0, 60, &[0; 60]);
        assert_eq!(Recorded::read(&whole[..99], 100), None, "less than it says");
    }
}
