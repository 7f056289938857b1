//! Frames sent as fast as a processor can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::frames::Frame;
use crate::tap::Tap;

/// A running storm. Dropping it ends it.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<StormReport>>,
}

/// What a storm was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StormReport {
    /// Frames sent.
    pub frames: u64,
    /// For how long.
    pub time: Duration,
}

impl StormReport {
    /// Frames per second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        u64::try_from(u128::from(self.frames) * 1000 / self.time.as_millis().max(1)).unwrap_or(u64::MAX)
    }
}

impl Storm {
    /// Sends these frames in turn through `tap`, again and again, until it is stopped.
    #[must_use = "dropping the storm ends it"]
    pub fn start(tap: Tap, frames: Vec<Frame>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let start = Instant::now();
                let mut sent = 0;
                for frame in frames.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // That it is dropped is the sender's to know, and no matter.
                    let _dropped = tap.try_send(frame);
                    sent += 1;
                }
                StormReport { frames: sent, time: start.elapsed() }
            }
        });
        Self { stop, sender: Some(sender) }
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(mut self) -> StormReport {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().expect("a storm is stopped once").join().expect("a sender that does not panic")
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
