//! The kernel side as the agent sees it: devices, pins, tables, programs, links.

pub(crate) mod bridges;
pub(crate) mod census;
pub(crate) mod devices;
pub(crate) mod fill;
pub(crate) mod headroom;
pub(crate) mod hooks;
pub(crate) mod mapped;
pub(crate) mod migrate;
pub(crate) mod object;
pub(crate) mod paths;
pub(crate) mod pins;
pub(crate) mod reachability;
pub(crate) mod sockets;
pub(crate) mod tables;
pub(crate) mod teardown;
pub(crate) mod view;
