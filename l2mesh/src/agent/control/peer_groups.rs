//! In which groups whoever connected is, besides its own.
#![expect(unsafe_code, reason = "nix has no wrapper for this socket option")]

use std::{mem::size_of, os::fd::AsRawFd};

/// More groups than this nobody needs; of whoever has more, none counts.
const MOST: usize = 256;

/// The supplementary groups of the process at the other end when it connected (socket(7), `SO_PEERGROUPS`, Linux 4.13).
pub(super) fn peer_groups(stream: &impl AsRawFd) -> Vec<u32> {
    let mut groups = vec![0_u32; MOST];
    let Ok(mut octets) = libc::socklen_t::try_from(MOST * size_of::<u32>()) else { return Vec::new() };
    // SAFETY: the buffer is as long as said.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut octets,
        )
    };
    groups.truncate(if outcome == 0 { octets as usize / size_of::<u32>() } else { 0 });
    groups
}
