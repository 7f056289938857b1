//! Which path a frame takes to a peer (design.md 5).
//!
//! Each peer has a list of paths: place 0 is direct, the others go through a relay. Only the direct
//! one is used until relaying is built; the tables have the room.

/// Paths of one peer: direct, and three relays.
pub const MAX_PATHS: usize = 4;
/// The place of the direct path.
pub const DIRECT: usize = 0;
