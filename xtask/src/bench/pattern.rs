//! What the bench's kernel programs send: a frame, and what changes from one to the next.

use std::ops::Range;

/// Words of the frame that are written anew for each.
const FRAME_WORDS: usize = 18;
/// Behind them: the interface, the end, places of octets, items (`Pattern` of xtask/ebpf).
pub(crate) const WORDS: usize = FRAME_WORDS + 4;

/// A frame, eight flows of it in turn, and any number of items in turn: MAC addresses or networks.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) frame: Vec<u8>,
    /// Octets into which a flow's number goes; 0 is none.
    pub(crate) flows: [u16; 2],
    /// Octets into which an item's number goes, high and low; 0 is none.
    pub(crate) item: [u16; 2],
    /// Which items.
    pub(crate) items: Range<u32>,
}

impl Pattern {
    /// The same frame again and again, but for its flow.
    pub(crate) const fn of(frame: Vec<u8>, flows: [u16; 2]) -> Self {
        Self { frame, flows, item: [0; 2], items: 0..1 }
    }

    /// As the kernel programs read it.
    pub(crate) fn words(&self, ifindex: u64, ended: bool) -> [u64; WORDS] {
        let mut octets = [0; FRAME_WORDS * 8];
        let length = self.frame.len().min(octets.len());
        octets[..length].copy_from_slice(&self.frame[..length]);
        let mut words = [0; WORDS];
        let (chunks, _) = octets.as_chunks();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u64::from_ne_bytes(*chunk);
        }
        let places = [self.flows, self.item].concat();
        words[FRAME_WORDS] = ifindex;
        words[FRAME_WORDS + 1] = u64::from(ended);
        words[FRAME_WORDS + 2] = places.iter().rev().fold(0, |all, &place| all << 16 | u64::from(place));
        words[FRAME_WORDS + 3] = u64::from(self.items.end) << 32 | u64::from(self.items.start);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_the_frame_and_what_changes() {
        let pattern =
            Pattern { frame: vec![1, 2, 3, 4, 5, 6, 7, 8, 9], flows: [35, 85], item: [0x102, 3], items: 5..4094 };
        let words = pattern.words(7, true);
        assert_eq!(words[0].to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(words[1].to_ne_bytes(), [9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(words[18..20], [7, 1]);
        assert_eq!(words[20].to_ne_bytes(), [35, 0, 85, 0, 2, 1, 3, 0]);
        assert_eq!(words[21].to_ne_bytes(), [5, 0, 0, 0, 0xfe, 0xf, 0, 0]);
    }
}
