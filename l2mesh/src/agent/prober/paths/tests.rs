//! A path with a far end that answers as the kernel programs do, and a link that loses what it is told to.

use l2mesh_common::path::answer;

use super::*;
use crate::dataplane::paths::first_limit;

const MS: u64 = 1_000_000;
const MOST: u32 = 1450;

struct Link {
    probe: Probe,
    path: Path,
    tx: PathTx,
    rx: PathRx,
    now: u64,
    rtt: u64,
    /// What it takes, octets.
    takes: u32,
    long: u32,
}

impl Link {
    fn new(probe: Probe) -> Self {
        let recover = probe.recover;
        let tx = PathTx { limit: first_limit(&probe), recover, ..PathTx::default() };
        let rx = PathRx { answered: Answered { sequence: 0, streak: recover }.to_bits(), ..PathRx::default() };
        let path = Path::new((0, 0), 0, &tx, &rx, &probe, 0);
        Self { probe, path, tx, rx, now: 0, rtt: MS, takes: 9000, long: 0 }
    }

    fn is_up(&self) -> bool {
        is_up(&self.tx, Answered::from_bits(self.rx.answered))
    }

    /// So many intervals; `is_lost` says which probes are.
    fn run(&mut self, turns: u32, mut is_lost: impl FnMut(u32) -> bool) {
        for turn in 0..turns {
            self.now += u64::try_from(self.probe.interval.as_nanos()).expect("short");
            let Self { probe, path, tx, rx, now, .. } = self;
            path.observe(tx, rx, probe, *now);
            let sends = path.turn(tx, rx, true, MOST, probe, *now);
            if let Some(size) = sends.search {
                tx.search += 1;
                if size <= self.takes {
                    rx.search = tx.search;
                }
            }
            tx.sequence += 1;
            path.sent(tx, sends.long.is_some());
            self.long += u32::from(sends.long.is_some());
            if !is_lost(turn) && sends.long.is_none_or(|size| size <= self.takes) {
                let answered = answer(tx, Answered::from_bits(rx.answered), tx.sequence).expect("the latest");
                *rx = PathRx { answered: answered.to_bits(), rtt_ns: self.rtt, answers: rx.answers + 1, ..*rx };
                if sends.long.is_some() {
                    rx.padded = tx.sequence;
                }
            }
            let up = is_up(tx, Answered::from_bits(rx.answered));
            if up != path.is_up {
                path.changed(tx, up, *now);
            }
            if turn % 10 == 0 {
                path.sum_up(*now);
            }
        }
    }
}

/// True for so many of a hundred, spread as chance would have it but without long runs.
fn some(percent: u32) -> impl FnMut(u32) -> bool {
    move |turn| turn.wrapping_mul(37) % 100 < percent
}

#[test]
fn loss_over_the_limit() {
    let mut link = Link::new(Probe::default());
    link.run(300, some(10));
    assert!(link.is_up() && link.path.loss().abs_diff(100) <= 40, "{}", link.path.loss());
    link.run(100, some(30));
    assert!(!link.is_up() && link.tx.hold == LOSS, "{:?}", link.tx);
    assert_eq!(why_down(&link.tx, &link.rx), Reason::Loss);
    link.run(500, some(30));
    assert!(link.tx.hold == LOSS, "it stays so");
    link.run(49, |_| false);
    link.run(60, |_| false);
    assert!(link.is_up() && link.tx.hold == 0, "{:?}", link.tx);
    assert_eq!(link.path.loss(), 0);
}

#[test]
fn an_outage_is_no_loss() {
    let mut link = Link::new(Probe::default());
    link.run(100, |_| false);
    assert_eq!(link.tx.limit, 4);
    link.run(3, |_| true);
    assert!(link.is_up());
    link.run(1, |_| true);
    assert!(!link.is_up());
    assert_eq!(why_down(&link.tx, &link.rx), Reason::Missed);
    link.run(200, |_| true);
    link.run(9, |_| false);
    assert!(!link.is_up());
    link.run(1, |_| false);
    assert!(link.is_up() && link.tx.hold == 0 && link.path.loss() == 0);
    // Down again soon after: twice as long.
    link.run(4, |_| true);
    assert_eq!((link.is_up(), link.tx.recover), (false, 20));
    link.run(20, |_| false);
    assert!(link.is_up());
    link.run(6_001, |_| false);
    assert_eq!((link.is_up(), link.tx.recover), (true, 10), "after ten quiet minutes");
}

#[test]
fn what_was_never_answered_does_not_come_back() {
    let mut link = Link::new(Probe::default());
    assert_eq!(link.tx.limit, 13, "a second is allowed for");
    link.run(12, |_| true);
    assert!(link.is_up());
    link.run(30, |_| true);
    assert!(!link.is_up());
    link.run(10, |_| false);
    assert!(link.is_up() && link.path.loss() == 0);
    link.run(4, |_| true);
    assert_eq!((link.is_up(), link.tx.recover), (false, 10));
}

#[test]
fn the_limit_follows_the_round_trip_time() {
    let mut link = Link::new(Probe::default());
    link.run(10, |_| false);
    assert_eq!(link.tx.limit, 4);
    link.rtt = 250 * MS;
    link.run(2, |_| false);
    assert_eq!(link.tx.limit, 6);
    link.rtt = MS;
    link.run(550, |_| false);
    assert_eq!(link.tx.limit, 6, "of the last minute");
    link.run(200, |_| false);
    assert_eq!(link.tx.limit, 4);
    // While the path is down nothing that is known of its answers brings it up.
    link.run(5, |_| true);
    link.path.greatest = Some(Duration::from_secs(3));
    link.run(1, |_| true);
    assert_eq!((link.is_up(), link.tx.limit), (false, 4));
}

#[test]
fn one_in_ten_is_long() {
    let mut link = Link::new(Probe::default());
    link.run(1003, |_| false);
    assert!((100..=101).contains(&link.long), "{}", link.long);
}

#[test]
fn what_arrives_is_searched() {
    // Long probes that are lost are no loss: this limit would be passed by them alone.
    let mut link = Link::new(Probe { loss_limit: 5, ..Probe::default() });
    link.run(100, |_| false);
    link.takes = 1333;
    link.run(25, |_| false);
    assert!(link.is_up(), "one or two may be lost by chance");
    link.run(9, |_| false);
    assert_eq!((link.is_up(), link.tx.hold), (false, BIG));
    assert_eq!(why_down(&link.tx, &link.rx), Reason::BigLost);
    link.run(30, |_| false);
    assert_eq!((link.is_up(), link.tx.mtu), (true, 1333));
    link.run(5_900, |_| false);
    link.takes = 9000;
    assert_eq!(link.tx.mtu, 1333);
    link.run(120, |_| false);
    assert_eq!((link.is_up(), link.tx.mtu), (true, 0), "tried again after ten minutes");
}

#[test]
fn not_even_the_least_arrives() {
    let mut link = Link::new(Probe::default());
    link.takes = 1000;
    link.run(300, |_| false);
    assert_eq!((link.tx.hold, link.tx.mtu), (BIG, LEAST_INNER));
    link.takes = 9000;
    link.run(30, |_| false);
    assert!(link.is_up() && link.tx.mtu == LEAST_INNER);
    link.run(6_001, |_| false);
    assert_eq!(link.tx.mtu, 0);
}

#[test]
fn a_search_in_an_outage_ends() {
    let mut link = Link::new(Probe::default());
    link.run(50, |_| false);
    link.takes = 1333;
    link.run(36, |_| false);
    assert!(link.path.is_searching());
    link.run(10, |_| true);
    assert!(!link.path.is_searching() && link.tx.hold == 0 && !link.is_up());
    link.run(120, |_| false);
    assert_eq!((link.is_up(), link.tx.mtu), (true, 1333));
}

/// An agent that comes later goes on where the last one was.
#[test]
fn a_successor() {
    let mut link = Link::new(Probe::default());
    link.run(50, |_| false);
    link.run(7, |_| true);
    link.path = Path::new((0, 0), 0, &link.tx, &link.rx, &link.probe, link.now);
    assert!(!link.path.is_up && !link.path.was_up);
    link.run(10, |_| true);
    assert_eq!((link.tx.limit, link.tx.recover), (4, 10));
    link.run(10, |_| false);
    assert!(link.is_up() && link.path.loss() == 0);
}
