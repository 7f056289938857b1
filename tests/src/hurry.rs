//! Threads that measure time, or make others' time, must not wait for a processor.

/// This thread goes before all that are not real-time. It must sleep most of the time.
#[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
pub(crate) fn hurry() {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a value that outlives the call. Zero is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
    assert_eq!(result, 0, "sched_setscheduler: {}", std::io::Error::last_os_error());
}
