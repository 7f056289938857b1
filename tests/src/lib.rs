//! The lab: hosts in network namespaces, the wires between them, and what a test does there.
//!
//! ```no_run
//! use l2mesh_tests::{Lab, Wiring, traffic};
//!
//! let lab = Lab::new("ping");
//! let [hetzner, ovh] = lab.routed(["hetzner", "ovh"], &Wiring::default());
//! assert_eq!(traffic::ping(&hetzner, ovh.address(), 3).lost(), 0);
//! ```
//!
//! Everything lives in namespaces whose names carry the process id of their maker; the machine's own
//! interfaces are never touched. Dropping the [`Lab`] removes all of it, also in a panic and on Ctrl-C;
//! what a killed run leaves behind is removed by the next one. A step that fails panics and says what
//! it saw: in a test that is the verdict, with a stack trace to the line.
//!
//! `/sys` belongs to the machine, not to the namespace a process was started in: `/sys/class/net`
//! shows the wrong interfaces, `/proc/sys/net` and netlink show the right ones.

#![expect(clippy::missing_panics_doc, reason = "every step of the lab panics where it fails, as the crate says")]
#![expect(clippy::must_use_candidate, reason = "a command is often run for its effect alone")]

pub mod capture;
pub mod changing;
pub mod clock;
pub mod control;
pub mod crowd;
mod delay;
pub mod dhcp;
pub mod doctor;
mod ethtool;
mod fabric;
pub mod fates;
pub mod flow;
pub mod foreign;
pub mod frames;
pub mod frozen;
mod host;
mod hurry;
pub mod import;
mod kernel_vxlan;
mod lab;
mod leftovers;
mod leg;
pub mod machine;
pub mod mesh;
mod napi;
pub mod narrow;
mod netns;
pub mod paths;
pub mod pinned;
pub mod place;
mod process;
pub mod relayed;
pub mod scrape;
mod segment;
mod site;
mod state;
pub mod steady;
pub mod storm;
mod tagging;
pub mod tap;
pub mod tmux;
pub mod traffic;
pub mod transfer;
pub mod tun;
mod virtio;
mod wait;
pub mod wireguard;

pub use capture::{Capture, Direction, Pcap};
pub use fabric::{Family, Uplink, Wire, Wiring};
pub use frames::Frame;
pub use host::{Host, Output};
pub use kernel_vxlan::{KernelVxlan, VxlanOptions};
pub use l2mesh_common::wire::MacAddr;
pub use lab::Lab;
pub use leg::Leg;
pub use machine::Machine;
pub use mesh::Agent;
pub use napi::NapiThreads;
pub use paths::{Paths, Way};
pub use process::Process;
pub use relayed::{Plan, RelayMesh};
pub use segment::{File, NOT_PROBED, Segment, assert_flooded, mesh_file, mesh_file_not_probed, taps};
pub use state::State;
pub use tagging::Tagging;
pub use tap::{Marker, Received, Tap};
pub use virtio::VirtioSender;
pub use wait::wait_for;
