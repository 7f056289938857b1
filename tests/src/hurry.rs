//! Threads that measure time, or make others' time, must not wait for a processor.

/// This thread goes before all that are not real-time.
#[expect(unsafe_code, reason = "nix has no setpriority")]
pub(crate) fn hurry() {
    // SAFETY: no pointers. Zero is the calling thread (setpriority(2), BUGS).
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    assert_eq!(result, 0, "setpriority: {}", std::io::Error::last_os_error());
}
