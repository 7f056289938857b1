//! pcapng (draft-ietf-opsawg-pcapng) as far as it is needed here: one section, an interface for each point, packets with a comment.

use std::io::{self, Write};

use l2mesh_common::tables::Point;

use super::frame::Recorded;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

/// A file that is being written.
pub(super) struct Pcapng<W> {
    out: W,
}

impl<W: Write> Pcapng<W> {
    /// Writes what stands before the packets.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        const VERSION: [u8; 4] = [1, 0, 0, 0];
        const APPLICATION: u16 = 4;
        let application = concat!("l2mesh ", env!("CARGO_PKG_VERSION"));
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend(VERSION);
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, APPLICATION, application.as_bytes());
        end(&mut body);
        block(&mut out, SECTION, &body)?;
        for point in Point::ALL {
            const NAME: u16 = 2;
            const DESCRIPTION: u16 = 3;
            const RESOLUTION: u16 = 9;
            let mut body = Vec::new();
            body.extend(ETHERNET.to_le_bytes());
            body.extend([0; 2]);
            // No limit: that of the capture may be less by a tag.
            body.extend([0; 4]);
            option(&mut body, NAME, point.name().as_bytes());
            option(&mut body, DESCRIPTION, description(point).as_bytes());
            // Ten to the power of minus nine.
            option(&mut body, RESOLUTION, &[9]);
            end(&mut body);
            block(&mut out, INTERFACE, &body)?;
        }
        Ok(Self { out })
    }

    /// Writes a frame.
    pub(super) fn frame(&mut self, recorded: &Recorded, comment: &str) -> io::Result<()> {
        const COMMENT: u16 = 1;
        const FLAGS: u16 = 2;
        const IN: u32 = 1;
        const OUT: u32 = 2;
        let point = recorded.seen.point;
        let octets = u32::try_from(recorded.octets.len()).map_err(io::Error::other)?;
        let time = recorded.time_ns.to_le_bytes();
        let mut body = Vec::with_capacity(recorded.octets.len() + comment.len() + 64);
        body.extend((point as u32).to_le_bytes());
        // The upper half first.
        body.extend(&time[4..]);
        body.extend(&time[..4]);
        body.extend(octets.to_le_bytes());
        body.extend(recorded.len.max(octets).to_le_bytes());
        padded(&mut body, &recorded.octets);
        option(&mut body, COMMENT, comment.as_bytes());
        let direction = match point {
            Point::Encap | Point::Relay => OUT,
            Point::Decap => IN,
            Point::Drop => 0,
        };
        option(&mut body, FLAGS, &direction.to_le_bytes());
        end(&mut body);
        block(&mut self.out, PACKET, &body)
    }

    /// What was written so far is to be seen.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const fn description(point: Point) -> &'static str {
    match point {
        Point::Encap => "sent to a peer, without outer header",
        Point::Decap => "received from a peer, without outer header",
        Point::Relay => "forwarded for two others, with outer header",
        Point::Drop => "dropped, as it was then",
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A comment is some words, and a name a few letters.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    padded(body, &value[..length.into()]);
}

fn end(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn padded(body: &mut Vec<u8>, value: &[u8]) {
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use l2mesh_common::{
        tables::{ANYBODY, Seen},
        verdict::Verdict,
    };

    use super::*;

    /// That others read it as it is meant is a test with tshark; here is what no reader minds.
    #[test]
    fn blocks_are_whole() {
        let mut file = Pcapng::new(Vec::new()).expect("a Vec takes everything");
        for octets in [0, 1, 14, 61] {
            let recorded = Recorded {
                time_ns: 0x1122_3344_5566_7788,
                seen: Seen { point: Point::Drop, verdict: Verdict::TooBig, outer: 0 },
                vni: 16,
                peer: ANYBODY,
                origin: ANYBODY,
                segment: 0,
                len: 99,
                octets: vec![0xaa; octets],
            };
            file.frame(&recorded, "odd").expect("a Vec takes everything");
        }
        let mut rest = &file.out[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let number = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four"));
            let (kind, length) = (number(0), number(4) as usize);
            assert!(length.is_multiple_of(4));
            assert_eq!(number(length - 4) as usize, length);
            if kind == PACKET {
                assert_eq!((number(8), number(12), number(16), number(24)), (3, 0x1122_3344, 0x5566_7788, 99));
            }
            kinds.push(kind);
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION, 1, 1, 1, 1, PACKET, PACKET, PACKET, PACKET]);
    }
}
