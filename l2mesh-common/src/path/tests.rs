//! Every state of a small world, and properties of the whole.

use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn tx(sequence: u32, limit: u32, recover: u32, hold: u32) -> PathTx {
    PathTx { sequence, limit, recover, hold, ..PathTx::default() }
}

/// Every sequence number, answer, streak, limit and `recover` of a small world, the numbers also where they wrap around.
#[test]
fn every_transition() {
    let mut seen = [0_u32; 4];
    for start in [0, u32::MAX - 3] {
        for (sent, limit, recover) in
            (0..8).flat_map(|sent| (0..5).flat_map(move |limit| (0..4).map(move |recover| (sent, limit, recover))))
        {
            let tx = tx(start.wrapping_add(sent), limit, recover, 0);
            for (acked, streak, sequence) in (0..=sent)
                .flat_map(|acked| (0..=recover).flat_map(move |streak| (0..10).map(move |to| (acked, streak, to))))
            {
                let before = Answered { sequence: start.wrapping_add(acked), streak };
                let up = sent - acked < limit && streak >= recover;
                assert_eq!(is_up(&tx, before), up);
                assert!(!is_up(&PathTx { hold: 1, ..tx }, before));
                let outcome = answer(&tx, before, start.wrapping_add(sequence));
                if sequence <= acked {
                    assert_eq!(outcome, Err(NoAnswer::Late));
                    seen[0] += 1;
                } else if sequence > sent {
                    assert_eq!(outcome, Err(NoAnswer::Future));
                    seen[1] += 1;
                } else {
                    let kept = if sent - acked >= limit { 0 } else { streak };
                    let after = Answered { sequence: start.wrapping_add(sequence), streak: (kept + 1).min(recover) };
                    assert_eq!(outcome, Ok(after));
                    seen[if kept < streak { 2 } else { 3 }] += 1;
                }
            }
        }
    }
    assert!(seen.iter().all(|&count| count > 100), "late, future, begun anew, counted: {seen:?}");
}

/// Who reads the two tables one after the other may see the answer to a probe that was not sent before.
#[test]
fn an_answer_that_is_newer_than_the_question() {
    for sent in [7, u32::MAX, 0] {
        let tx = tx(sent, 3, 10, 0);
        assert!(is_up(&tx, Answered { sequence: sent.wrapping_add(1), streak: 10 }));
        assert!(!is_up(&tx, Answered { sequence: sent.wrapping_sub(3), streak: 10 }));
        let answered = Answered { sequence: sent.wrapping_add(1), streak: 10 };
        assert_eq!(answer(&tx, answered, sent), Err(NoAnswer::Late));
        assert_eq!(answer(&tx, answered, sent.wrapping_add(2)), Err(NoAnswer::Future));
    }
}

#[test]
fn what_is_not_probed_is_always_up_and_what_is_not_there_never() {
    assert!(is_up(&tx(0, u32::MAX, 0, 0), Answered::default()));
    assert!(!is_up(&PathTx::default(), Answered::default()));
}

/// One peer with relays at places 1 to 3, whose own direct paths count too.
struct World {
    tx: Vec<PathTx>,
    rx: PathRx,
}

/// What a path may be.
const DEAD: u32 = 0;
const ANSWERED: u32 = 1;
const UP: u32 = 2;

impl World {
    /// States of: direct, three relay paths, three direct paths to the relays.
    fn new(states: [u32; 7], order: u32) -> Self {
        // One answer is enough for some.
        let path = |place: usize| tx(0, u32::from(states[place] != DEAD), if states[place] == UP { 1 } else { 2 }, 0);
        let mut tx = vec![PathTx::default(); 16];
        tx[0] = PathTx { order, ..path(0) };
        for place in 1..4 {
            tx[place] = PathTx { relay: place as u32, ..path(place) };
            tx[4 * place] = path(3 + place);
        }
        Self { tx, rx: PathRx { answered: Answered { sequence: 0, streak: 1 }.to_bits(), ..PathRx::default() } }
    }
}

impl Paths for World {
    fn tx(&self, peer: PeerId, path: usize) -> Option<&PathTx> {
        self.tx.get(peer as usize * MAX_PATHS + path)
    }

    fn rx(&self, _: PeerId, _: usize) -> Option<&PathRx> {
        Some(&self.rx)
    }
}

/// All 2187 states of the paths, in every order of none to three relays.
#[test]
fn every_choice() {
    let orders: Vec<Vec<usize>> = vec![
        vec![],
        vec![1],
        vec![2],
        vec![3],
        vec![1, 2],
        vec![2, 1],
        vec![1, 3],
        vec![3, 1],
        vec![2, 3],
        vec![3, 2],
        vec![1, 2, 3],
        vec![1, 3, 2],
        vec![2, 1, 3],
        vec![2, 3, 1],
        vec![3, 1, 2],
        vec![3, 2, 1],
    ];
    for wanted in orders {
        for number in 0..3_u32.pow(7) {
            let states: [u32; 7] = core::array::from_fn(|place| number / 3_u32.pow(place as u32) % 3);
            let world = World::new(states, order(&wanted));
            let best = |least: u32| wanted.iter().find(|path| states[**path].min(states[3 + **path]) >= least);
            let through = |&path: &usize| Choice { path, relay: path as u32, is_up: true };
            let expected = match (states[0], best(UP), best(ANSWERED)) {
                (UP, ..) => Choice::DIRECT,
                (_, Some(path), _) | (DEAD, None, Some(path)) => through(path),
                _ => Choice { is_up: false, ..Choice::DIRECT },
            };
            let choice = choose(&world, 0);
            assert_eq!(choice, expected, "{wanted:?} {states:?}");
            assert_eq!(Choice::from_bits(choice.to_bits()), choice);
        }
    }
}

proptest! {
    #[test]
    fn answered_round_trip(sequence: u32, streak: u32) {
        let answered = Answered { sequence, streak };
        prop_assert_eq!(Answered::from_bits(answered.to_bits()), answered);
    }

    /// Any answers in any order: the latest is the greatest accepted, each counts once, and only what was sent does.
    #[test]
    fn answers(sent in 1_u32..60, limit in 1_u32..8, recover in 1_u32..12, answers in prop::collection::vec(0_u32..80, 0..80)) {
        let tx = tx(sent, limit, recover, 0);
        let mut answered = Answered { sequence: 0, streak: recover };
        for sequence in answers {
            match answer(&tx, answered, sequence) {
                Ok(after) => {
                    prop_assert!(sequence > answered.sequence && sequence <= sent);
                    prop_assert!(after.sequence == sequence && after.streak <= recover);
                    answered = after;
                }
                Err(NoAnswer::Late) => prop_assert!(sequence <= answered.sequence),
                Err(NoAnswer::Future) => prop_assert!(sequence > sent),
            }
        }
    }
}
