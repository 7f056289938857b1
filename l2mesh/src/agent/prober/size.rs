//! The search for the greatest packet that a path takes.

use l2mesh_common::path_mtu::LEAST_INNER;

/// Between a size that arrives and one that does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Search {
    /// Arrives, or is the least that a path has to take.
    good: u32,
    /// Does not arrive.
    bad: u32,
    trying: u32,
    /// Probes of this size without an answer.
    lost: u32,
    /// So many are not lost by chance.
    tries: u32,
}

impl Search {
    /// Packets of `in_force` octets are lost. `None` if nothing less is to be tried.
    pub(super) fn shrink(in_force: u32, tries: u32) -> Option<Self> {
        Self { good: LEAST_INNER, bad: in_force, trying: 0, lost: 0, tries }.aim()
    }

    /// Packets of `known` octets arrive: do longer ones, `most` octets at most? That one is tried first.
    pub(super) fn grow(known: u32, most: u32, tries: u32) -> Option<Self> {
        let search = Self { good: known, bad: most.checked_add(1)?, trying: 0, lost: 0, tries }.aim()?;
        Some(Self { trying: most, ..search })
    }

    fn aim(self) -> Option<Self> {
        (self.bad > self.good.saturating_add(1)).then(|| Self { trying: self.good.midpoint(self.bad), lost: 0, ..self })
    }

    /// The size to send.
    pub(super) const fn size(&self) -> u32 {
        self.trying
    }

    /// It was answered, or was not. What is to be tried next, or the greatest size that arrives.
    pub(super) fn note(self, is_answered: bool) -> Result<Self, u32> {
        let next = if is_answered {
            Self { good: self.trying, ..self }
        } else if self.lost + 1 < self.tries {
            return Ok(Self { lost: self.lost + 1, ..self });
        } else {
            Self { bad: self.trying, ..self }
        };
        next.aim().ok_or(next.good)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a search on a path that takes `takes` octets and loses the probes that `is_lost` says. Returns how many were sent.
    fn run(search: Search, takes: u32, mut is_lost: impl FnMut(u32) -> bool) -> (u32, u32) {
        let mut search = search;
        for sent in 1..200 {
            match search.note(search.size() <= takes && !is_lost(sent)) {
                Ok(next) => search = next,
                Err(found) => return (found, sent),
            }
        }
        panic!("it does not end: {search:?}");
    }

    #[test]
    fn every_size_of_ethernet() {
        for in_force in [1282, 1283, 1400, 1450, 8950] {
            for takes in 1280..in_force {
                let search = Search::shrink(in_force, 3).expect("something to try");
                assert_eq!(run(search, takes, |_| false).0, takes);
            }
            let search = Search::shrink(in_force, 3).expect("something to try");
            assert_eq!(run(search, 500, |_| false).0, 1280, "no less is believed");
        }
        for takes in 1300..=1450 {
            let search = Search::grow(1300, 1450, 3).expect("something to try");
            assert_eq!(run(search, takes, |_| false).0, takes);
        }
        assert_eq!(run(Search::grow(1300, 1450, 3).expect("something"), 9000, |_| false), (1450, 1), "tried first");
    }

    #[test]
    fn nothing_to_try() {
        assert_eq!([1280, 1281, 68].map(|it| Search::shrink(it, 3)), [None; 3]);
        assert_eq!(
            [(1450, 1450), (1450, 1400), (1, u32::MAX)].map(|(known, most)| Search::grow(known, most, 3)),
            [None; 3]
        );
    }

    proptest! {
        /// Of three probes of a size one may get lost by chance, or two.
        #[test]
        fn chance(takes in 1280_u32..8950, lost in 0_u32..3) {
            let (found, sent) = run(Search::shrink(8950, 3).expect("something to try"), takes, |sent| lost > 0 && sent % (4 - lost) != 0 && sent % 3 != 0);
            prop_assert!(found <= takes && sent <= 39, "{found} of {takes} after {sent}");
        }
    }
}
