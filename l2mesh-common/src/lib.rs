//! The contract between the l2mesh kernel programs and the agent, and every pure decision.
//!
//! No I/O and no clock: time is always an argument. Everything here runs in the kernel and in
//! host tests unchanged.

#![no_std]
// Lengths on the wire have fewer bits than usize; each narrowing is bounded by the format it serves.
#![expect(clippy::cast_possible_truncation, reason = "wire fields are narrower than Rust's lengths")]
// Without it bpf-linker leaves calls in the frame's way, and the verifier loses what it knew of pointers.
#![expect(clippy::inline_always, reason = "these run per frame in the kernel")]

#[cfg(test)]
extern crate std;

pub mod bucket;
pub mod ecn;
pub mod entropy;
pub mod fdb;
pub mod freeze;
pub mod layout;
pub mod mss;
pub mod neighbours;
pub mod path;
pub mod path_mtu;
pub mod receive;
pub mod relay;
pub mod tables;
pub mod too_big;
pub mod verdict;
pub mod wire;
