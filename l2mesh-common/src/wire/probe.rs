//! Probes: sent by an agent, reflected by the kernel program of the far end, counted by the one at home (design.md 4).

use bytemuck::{Pod, Zeroable};

use super::{Be16, EtherType, EthernetHeader, MacAddr};
use crate::path::MAX_PATHS;

/// What stands behind the VXLAN header of a probe. Padding may follow.
///
/// ```text
/// Ethernet header: zero addresses, type 0x88b5
/// u8 version 1 | u8 kind | u8 path | u8 flags
/// u32 sequence
/// u64 nonce
/// u64 when it was sent, by the sender's monotonic clock, nanoseconds
/// ```
///
/// Then, if the sender left room for them, a [`super::Fingerprint`] and a [`super::Reachability`]: zero in a question, the reflecting
/// node's in its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Probe {
    ethernet: EthernetHeader,
    version: u8,
    kind: u8,
    path: u8,
    flags: u8,
    sequence: [Be16; 2],
    nonce: [Be16; 4],
    sent_ns: [Be16; 4],
}

/// Which number of which path a probe is. The far end copies it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbePath(pub u8);

impl ProbePath {
    /// A search for the greatest size that arrives: sequence numbers of its own.
    const SEARCH: u8 = 0x80;
    /// A place of `l2mesh ping` instead of a path.
    const PING: u8 = 0x40;
    const PLACE: u8 = MAX_PATHS as u8 - 1;

    /// A path of the peer.
    #[inline(always)]
    #[must_use]
    pub const fn path(path: usize) -> Self {
        Self(path as u8 & Self::PLACE)
    }

    /// The same, searching.
    #[inline(always)]
    #[must_use]
    pub const fn search(path: usize) -> Self {
        Self(path as u8 & Self::PLACE | Self::SEARCH)
    }

    /// A place of `l2mesh ping`.
    #[inline(always)]
    #[must_use]
    pub const fn ping(place: u32) -> Self {
        Self(place as u8 & Self::PLACE | Self::PING)
    }

    /// The path, or the place of `l2mesh ping`.
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> usize {
        (self.0 & Self::PLACE) as usize
    }

    /// True for a search.
    #[inline(always)]
    #[must_use]
    pub const fn is_search(self) -> bool {
        self.0 & Self::SEARCH != 0
    }

    /// True for `l2mesh ping`.
    #[inline(always)]
    #[must_use]
    pub const fn is_ping(self) -> bool {
        self.0 & Self::PING != 0
    }

    /// True if it is any of those.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 & !(Self::PLACE | Self::SEARCH | Self::PING) == 0 && !(self.is_search() && self.is_ping())
    }
}

/// Question or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeKind {
    /// To be reflected.
    Request,
    /// Reflected; never again.
    Reply,
}

impl Probe {
    /// Octets on the wire without padding.
    pub const LEN: usize = 38;
    /// Octet of [`Probe::kind`] in it.
    pub const KIND: usize = 15;
    const VERSION: u8 = 1;
    const REQUEST: u8 = 1;
    /// What [`Probe::KIND`] is in an answer.
    pub const REPLY: u8 = 2;
    const PADDED: u8 = 1;
    const ETHERNET: EthernetHeader = EthernetHeader::new(MacAddr::ZERO, MacAddr::ZERO, EtherType::PROBE);

    /// A question.
    #[must_use]
    pub fn request(path: ProbePath, is_padded: bool, sequence: u32, nonce: u64, sent_ns: u64) -> Self {
        Self {
            ethernet: Self::ETHERNET,
            version: Self::VERSION,
            kind: Self::REQUEST,
            path: path.0,
            flags: if is_padded { Self::PADDED } else { 0 },
            sequence: [Be16::new((sequence >> 16) as u16), Be16::new(sequence as u16)],
            nonce: words(nonce),
            sent_ns: words(sent_ns),
        }
    }

    /// What it is; `None` for what this version does not know.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> Option<ProbeKind> {
        let is_known = self.version == Self::VERSION
            && self.ethernet.ether_type() == EtherType::PROBE
            && self.path().is_known()
            && self.flags & !Self::PADDED == 0;
        match self.kind {
            Self::REQUEST if is_known => Some(ProbeKind::Request),
            Self::REPLY if is_known => Some(ProbeKind::Reply),
            _ => None,
        }
    }

    /// Which of the sender's paths.
    #[inline(always)]
    #[must_use]
    pub const fn path(&self) -> ProbePath {
        ProbePath(self.path)
    }

    /// True if it is as long as frames on that path may be.
    #[inline(always)]
    #[must_use]
    pub const fn is_padded(&self) -> bool {
        self.flags & Self::PADDED != 0
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        let [high, low] = self.sequence;
        (high.get() as u32) << 16 | low.get() as u32
    }

    /// What only the asked know.
    #[inline(always)]
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        number(self.nonce)
    }

    /// When it was sent.
    #[inline(always)]
    #[must_use]
    pub const fn sent_ns(&self) -> u64 {
        number(self.sent_ns)
    }
}

pub(super) fn words(value: u64) -> [Be16; 4] {
    [48, 32, 16, 0].map(|shift| Be16::new((value >> shift) as u16))
}

#[inline(always)]
pub(super) const fn number([a, b, c, d]: [Be16; 4]) -> u64 {
    (a.get() as u64) << 48 | (b.get() as u64) << 32 | (c.get() as u64) << 16 | d.get() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn octets(place in 0..4_usize, is_padded: bool, sequence: u32, nonce: u64, sent_ns: u64) {
            for path in [ProbePath::path(place), ProbePath::search(place), ProbePath::ping(place as u32)] {
                let probe = Probe::request(path, is_padded, sequence, nonce, sent_ns);
                let octets: [u8; Probe::LEN] = bytemuck::cast(probe);
                let expected = [
                    &[0; 12][..], &[0x88, 0xb5, 1, 1, path.0, u8::from(is_padded)],
                    &sequence.to_be_bytes(), &nonce.to_be_bytes(), &sent_ns.to_be_bytes(),
                ].concat();
                prop_assert_eq!(&octets[..], &expected[..]);
                prop_assert_eq!(octets[Probe::KIND], 1);
                prop_assert_eq!(probe.kind(), Some(ProbeKind::Request));
                prop_assert_eq!((probe.sequence(), probe.nonce(), probe.sent_ns()), (sequence, nonce, sent_ns));
                prop_assert_eq!((probe.path(), probe.path().place(), probe.is_padded()), (path, place, is_padded));
            }
        }

        /// Whatever differs in a field of fixed meaning is unknown.
        #[test]
        fn unknown(at in 12..18_usize, value: u8) {
            let mut octets: [u8; Probe::LEN] = bytemuck::cast(Probe::request(ProbePath::path(0), false, 1, 2, 3));
            octets[at] = value;
            let known: &[u8] = match at {
                12 => &[0x88],
                13 => &[0xb5],
                14 => &[1],
                15 => &[1, 2],
                16 => &[0, 1, 2, 3, 0x80, 0x81, 0x82, 0x83, 0x40, 0x41, 0x42, 0x43],
                _ => &[0, 1],
            };
            prop_assert_eq!(bytemuck::cast::<_, Probe>(octets).kind().is_some(), known.contains(&value));
        }
    }
}
