//! Waiting for a condition, never for time to pass.

use std::thread;
use std::time::{Duration, Instant};

/// How long to rest between two looks.
const POLL: Duration = Duration::from_millis(10);

/// Looks until `look` returns `Ok`, and panics after `limit` with `what` was expected and what was
/// seen last (the `Err`). It looks at least once.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + limit;
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= end => panic!("{what}: not within {limit:?}; last seen: {seen}"),
            Err(_) => thread::sleep(POLL),
        }
    }
}
