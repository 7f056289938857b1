//! Which of the last 50 probes were lost.

/// How many are looked at.
pub(super) const WINDOW: u32 = 50;
const MASK: u64 = (1 << WINDOW) - 1;

/// A bit for each probe, the latest lowest: 1 is lost.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Losses {
    bits: u64,
    known: u32,
}

impl Losses {
    /// What became of some probes, of which the last was answered.
    pub(super) fn note(&mut self, lost: u32, answered: u32) {
        for (count, bit) in [(lost, 1), (answered, 0)] {
            for _ in 0..count.min(WINDOW) {
                self.bits = (self.bits << 1 | bit) & MASK;
            }
            self.known = self.known.saturating_add(count).min(WINDOW);
        }
    }

    /// In thousandths of those that are known.
    pub(super) fn thousandths(self) -> u32 {
        (self.bits.count_ones() * 1000).checked_div(self.known).unwrap_or(0)
    }

    /// So many in a row are not lost by chance: less than once in a million times, where single ones are lost as often as these.
    pub(super) fn never_in_a_row(self) -> u32 {
        match self.thousandths() {
            0..=10 => 3,
            11..=30 => 4,
            31..=60 => 5,
            61..=100 => 6,
            101..=200 => 9,
            201..=300 => 12,
            _ => 20,
        }
    }

    /// True if more than `percent` of 50 were lost; `None` while fewer than 50 are known.
    pub(super) fn is_over(self, percent: u8) -> Option<bool> {
        (self.known == WINDOW).then(|| self.bits.count_ones() * 100 > u32::from(percent) * WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_last_fifty(turns in prop::collection::vec((0_u32..4, 0_u32..3), 0..200)) {
            let mut losses = Losses::default();
            let mut all = Vec::new();
            for (lost, answered) in turns {
                losses.note(lost, answered);
                all.extend((0..lost).map(|_| true).chain((0..answered).map(|_| false)));
            }
            let last = &all[all.len().saturating_sub(50)..];
            let lost = last.iter().filter(|is_lost| **is_lost).count();
            prop_assert_eq!(losses.thousandths() as usize, (lost * 1000).checked_div(last.len()).unwrap_or(0));
            prop_assert_eq!(losses.is_over(20), (all.len() >= 50).then_some(lost > 10));
        }
    }

    #[test]
    fn chance() {
        for lost in 0..=25 {
            let mut losses = Losses::default();
            losses.note(lost, 50 - lost);
            let in_a_row = losses.never_in_a_row();
            let chance = (f64::from(lost) / 50.0).powi(i32::try_from(in_a_row).expect("few"));
            assert!(in_a_row >= 3 && chance <= 1.01e-6, "{lost}: {in_a_row}: {chance}");
        }
    }

    #[test]
    fn a_long_outage() {
        let mut losses = Losses::default();
        losses.note(u32::MAX, 1);
        assert_eq!((losses.thousandths(), losses.is_over(97), losses.is_over(98)), (980, Some(true), Some(false)));
    }
}
