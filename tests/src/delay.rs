//! A wire that takes its time: every frame is handed on some milliseconds after it came, in order.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::host::Host;
use crate::hurry::hurry;
use crate::tap::Tap;

/// The longest frame.
const LONGEST: usize = 66_000;
/// How often a thread looks whether it is to end.
const LOOK: TimeVal = TimeVal::new(0, 100_000);

/// Hands frames on between two interfaces of a host. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Delay {
    stop: Arc<AtomicBool>,
}

impl Delay {
    #[track_caller]
    pub(crate) fn between(host: &Host, interfaces: [&str; 2], time: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let open = |interface| Arc::new(Tap::open(host, interface).into_socket());
        let [a, b] = interfaces.map(open);
        for (from, to) in [(&a, &b), (&b, &a)] {
            setsockopt(from, sockopt::ReceiveTimeout, &LOOK).expect("a receive timeout");
            let (from, to, stop) = (Arc::clone(from), Arc::clone(to), Arc::clone(&stop));
            let (queue, waiting) = mpsc::channel();
            thread::spawn(move || take(&from, &queue, time, &stop));
            thread::spawn(move || hand_on(&to, &waiting));
        }
        Self { stop }
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

type Waiting = (Instant, Vec<u8>);

/// Ends with the interface, or when it is told to.
fn take(from: &OwnedFd, queue: &mpsc::Sender<Waiting>, time: Duration, stop: &AtomicBool) {
    hurry();
    let mut buffer = vec![0; LONGEST];
    while !stop.load(Ordering::Relaxed) {
        match recv(from.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                if queue.send((Instant::now() + time, buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

fn hand_on(to: &OwnedFd, waiting: &mpsc::Receiver<Waiting>) {
    hurry();
    while let Ok((due, frame)) = waiting.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // An interface that is down loses it, as a wire would.
        let _lost = send(to.as_raw_fd(), &frame, MsgFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;
    use crate::{Lab, Wiring, traffic};

    /// The machine's other work only adds to a time, and a sender that is moved to another processor overtakes itself: each is looked at
    /// until it was left alone once, or so often.
    const ROUNDS: u32 = 5;

    #[test]
    fn every_way_takes_its_time_and_keeps_the_order() {
        let lab = Lab::new("delay");
        let wiring = Wiring { delay: Duration::from_millis(10), ..Wiring::default() };
        let [a, b] = lab.routed(["a", "b"], &wiring);
        let mut seen = Vec::new();
        let in_time = (0..ROUNDS).any(|_| {
            let times = traffic::ping_times(&a, b.address(), 50);
            // Sorted: never less, and mostly not much more.
            assert!(times.len() == 50 && times[0] >= 40.0, "{times:?}");
            seen.push(times[times.len() / 4]);
            times[times.len() / 4] < 42.0
        });
        assert!(in_time, "three of four took longer than {seen:?}");
        let mut late = Vec::new();
        let in_order = (0..ROUNDS).any(|_| {
            let flow = Flow::start(&a, &b, b.address(), 2000);
            flow.wait_more(1000);
            let report = flow.stop();
            report.assert_whole();
            late.push(report.late);
            report.late == 0
        });
        assert!(in_order, "datagrams that others overtook: {late:?}");
    }
}
