//! Numbered datagrams at a steady rate: what is lost, late or there twice while something happens, and how long nothing came.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::host::Host;
use crate::hurry::hurry;
use crate::wait::wait_for;

/// What the receiving socket holds while its reader waits for a processor, octets.
const BUFFER: usize = 64 << 20;

/// How often a burst leaves.
const TICK: Duration = Duration::from_millis(1);

/// At most this many datagrams leave at once, however late the sender is: a veth's ring has 256 places.
const BURST: u64 = 64;

/// How long the last datagrams may be on their way.
const LIMIT: Duration = Duration::from_secs(5);

/// A running flow. Dropping it ends it.
#[derive(Debug)]
pub struct Flow {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    sender: Option<JoinHandle<io::Result<u64>>>,
    receiver: Option<JoinHandle<Receiver>>,
    what: String,
}

/// What became of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Numbers that never arrived: the first few.
    pub missing: Vec<u64>,
    /// How many never arrived.
    pub lost: u64,
    /// Datagrams that arrived twice.
    pub duplicates: u64,
    /// Datagrams that arrived after a later one.
    pub late: u64,
    /// How far the latest of them was behind, in datagrams.
    pub farthest: u64,
}

/// What can be asked while it runs.
#[derive(Debug, Default)]
struct Seen {
    received: AtomicU64,
    /// The longest time from one datagram to the next, and from one that was sent to the next, nanoseconds.
    gap: AtomicU64,
    pause: AtomicU64,
}

/// The longest times of a while without a datagram.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Gap {
    /// At the receiver.
    pub received: Duration,
    /// At the sender, whom a busy machine keeps waiting: that is nobody else's fault.
    pub sent: Duration,
}

#[derive(Debug, Default)]
struct Receiver {
    seen: Vec<bool>,
    highest: u64,
    duplicates: u64,
    late: u64,
    farthest: u64,
}

impl Flow {
    /// Sends `rate` datagrams a second from one host to an address of another, until it is stopped. When this returns,
    /// the first have arrived.
    #[must_use = "dropping the flow ends it"]
    #[track_caller]
    pub fn start(from: &Host, to: &Host, address: impl Into<IpAddr>, rate: u64) -> Self {
        let address = address.into();
        let what = format!("flow from {} to {address} on {}", from.name(), to.name());
        let socket = to.in_namespace(|| UdpSocket::bind((address, 0)));
        let socket = socket.unwrap_or_else(|error| panic!("{what}: bind: {error}"));
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("a receive buffer");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout that is not zero");
        let target = socket.local_addr().expect("the address of a bound socket");
        let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let sender = from.in_namespace(|| UdpSocket::bind(any).and_then(|it| it.connect(target).map(|()| it)));
        let sender = sender.unwrap_or_else(|error| panic!("{what}: connect: {error}"));
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let flow = Self {
            sender: Some(thread::spawn({
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                move || send(&sender, rate, &stop, &seen)
            })),
            receiver: Some(thread::spawn({
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                move || receive(&socket, &stop, &seen)
            })),
            stop,
            seen,
            what,
        };
        flow.wait_more(1);
        flow
    }

    /// Waits until `count` more datagrams have arrived.
    #[track_caller]
    pub fn wait_more(&self, count: u64) {
        let before = self.seen.received.load(Ordering::Relaxed);
        wait_for(&format!("{}: {count} more", self.what), LIMIT, || {
            let now = self.seen.received.load(Ordering::Relaxed);
            if now >= before + count { Ok(()) } else { Err(format!("{} more", now - before)) }
        });
    }

    /// The longest holes since the last call, or since the start.
    #[must_use]
    pub fn take_gap(&self) -> Gap {
        let take = |time: &AtomicU64| Duration::from_nanos(time.swap(0, Ordering::Relaxed));
        Gap { received: take(&self.seen.gap), sent: take(&self.seen.pause) }
    }

    /// Stops sending, waits for what is on its way and reports.
    #[track_caller]
    pub fn stop(mut self) -> FlowReport {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take().map(|thread| thread.join().expect("a sender that does not panic"));
        let sent = sent.transpose().unwrap_or_else(|error| panic!("{}: send: {error}", self.what)).unwrap_or(0);
        let receiver = self.receiver.take().map(|thread| thread.join().expect("a receiver that does not panic"));
        let mut receiver = receiver.unwrap_or_default();
        receiver.seen.resize(usize::try_from(sent).expect("a count"), false);
        let missing = || (0_u64..).zip(&receiver.seen).filter(|(_, seen)| !**seen).map(|(number, _)| number);
        FlowReport {
            sent,
            missing: missing().take(10).collect(),
            lost: missing().count() as u64,
            duplicates: receiver.duplicates,
            late: receiver.late,
            farthest: receiver.farthest,
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl FlowReport {
    /// Panics unless every datagram arrived, once.
    #[track_caller]
    pub fn assert_whole(&self) {
        assert!(self.sent > 0 && self.lost == 0 && self.duplicates == 0, "{self:?}");
    }
}

fn send(socket: &UdpSocket, rate: u64, stop: &AtomicBool, seen: &Seen) -> io::Result<u64> {
    hurry();
    let start = Instant::now();
    let mut last = start;
    let (mut sent, mut behind) = (0_u64, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(rate) / 1_000_000;
        // What a busy machine kept the sender from sending is not made up for.
        let burst = due.saturating_sub(sent + behind).min(BURST);
        behind = due - sent - burst;
        for _ in 0..burst {
            socket.send(&sent.to_be_bytes())?;
            sent += 1;
        }
        if burst > 0 {
            note(&seen.pause, &mut last);
        }
        thread::sleep(TICK);
    }
    Ok(sent)
}

/// The time since `last`, if it is the longest.
fn note(longest: &AtomicU64, last: &mut Instant) {
    let now = Instant::now();
    let time = u64::try_from((now - *last).as_nanos()).unwrap_or(u64::MAX);
    longest.fetch_max(time, Ordering::Relaxed);
    *last = now;
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, seen: &Seen) -> Receiver {
    hurry();
    let mut receiver = Receiver::default();
    let mut last = Instant::now();
    let mut buffer = [0; 64];
    loop {
        match socket.recv(&mut buffer) {
            Ok(8) => {
                let number = u64::from_be_bytes(buffer[..8].try_into().expect("eight octets"));
                receiver.note(number);
                note(&seen.gap, &mut last);
                seen.received.fetch_add(1, Ordering::Relaxed);
            }
            // Nothing for 50 ms after the end: what has not arrived by then never will.
            Err(_) if stop.load(Ordering::Relaxed) => return receiver,
            _ => {}
        }
    }
}

impl Receiver {
    fn note(&mut self, number: u64) {
        let place = usize::try_from(number).expect("a count");
        if place >= self.seen.len() {
            self.seen.resize(place + 1, false);
        }
        if std::mem::replace(&mut self.seen[place], true) {
            self.duplicates += 1;
        }
        self.late += u64::from(number < self.highest);
        self.farthest = self.farthest.max(self.highest.saturating_sub(number));
        self.highest = self.highest.max(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, Wiring};

    #[test]
    fn what_is_lost_is_missed() {
        let lab = Lab::new("flow");
        let [a, b] = lab.switch(["a", "b"], &Wiring::default());
        let flow = Flow::start(&a, &b, b.address(), 10_000);
        flow.wait_more(100);
        let mut leg = lab.leg(&a, &b);
        let (_before, start) = (flow.take_gap(), Instant::now());
        leg.cut();
        thread::sleep(Duration::from_millis(100));
        leg.heal();
        let cut = start.elapsed();
        flow.wait_more(100);
        let gap = flow.take_gap();
        assert!(gap.received >= Duration::from_millis(99), "{gap:?}");
        assert!(gap.received < gap.sent + cut + Duration::from_millis(20), "{gap:?} in a cut of {cut:?}");
        // It is no part of those after it. They may be interrupted themselves, but not every time.
        wait_for("no hole", LIMIT, || {
            flow.wait_more(10);
            let next = flow.take_gap();
            if next.received < Duration::from_millis(99) { Ok(()) } else { Err(format!("{next:?}")) }
        });
        let report = flow.stop();
        assert!(report.lost > 0 && report.lost < report.sent && report.duplicates == 0, "{report:?}");
        assert!(report.missing.len() as u64 <= report.lost && report.missing[0] >= 100, "{report:?}");
    }

    #[test]
    fn duplicates_and_late_ones() {
        let mut receiver = Receiver::default();
        for number in [0, 1, 4, 2, 3, 4] {
            receiver.note(number);
        }
        assert_eq!((receiver.seen, receiver.duplicates, receiver.late, receiver.farthest), (vec![true; 5], 1, 2, 2));
    }
}
