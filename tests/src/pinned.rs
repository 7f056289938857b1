//! The programs and tables of a live attach, as they are pinned: run by `BPF_PROG_TEST_RUN`, and read.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::linux::fs::MetadataExt as _;
use std::path::PathBuf;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;
use l2mesh_common::tables::{Counter, FdbEntry, FdbKey, Meta, Neighbour, NeighbourKey, Peer};
use l2mesh_common::verdict::Verdict;

use crate::host::Host;

/// Room for what a program hands back.
const ROOM: usize = 4096;
/// Where the interface index stands in `struct __sk_buff` (linux/bpf.h), and how much of it is given.
const SKB_IFINDEX: usize = 40;
/// Where the octets of a segment stand, and all of it.
const SKB_GSO_SIZE: usize = 176;
const SKB_CONTEXT: usize = 184;
/// `struct xdp_md`: data, `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`, `egress_ifindex`.
const XDP_CONTEXT: usize = 24;

/// The pin directory of one mesh.
#[derive(Clone, Debug)]
pub struct Pinned {
    host: Host,
    directory: PathBuf,
}

/// What a program did with a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its return code.
    pub code: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What stands before the frame (XDP only).
    pub metadata: Vec<u8>,
    /// Counters that changed, `SelfTest` and what belongs to it excepted, and by how many frames.
    pub counted: BTreeMap<&'static str, u64>,
}

impl Host {
    /// The pins of the mesh on an interface.
    #[must_use]
    #[track_caller]
    pub fn pinned(&self, interface: &str) -> Pinned {
        let index = &self.link(interface)["ifindex"];
        let name = format!("{index}-{}", interface.replace('.', "%2E"));
        Pinned { host: self.clone(), directory: self.pin_dir().join(name) }
    }

    /// Where the pins of this host's meshes are.
    #[must_use]
    #[track_caller]
    pub fn pin_dir(&self) -> PathBuf {
        let inode = self.in_namespace(|| fs::metadata("/proc/thread-self/ns/net").expect("a namespace").st_ino());
        self.site().pin_dir().join(inode.to_string())
    }
}

impl Pinned {
    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// What the kernel says of each pinned program, by name.
    #[must_use]
    #[track_caller]
    pub fn programs(&self) -> BTreeMap<String, ProgramInfo> {
        let entries =
            fs::read_dir(&self.directory).unwrap_or_else(|error| panic!("{}: {error}", self.directory.display()));
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        // Maps have capitals, links their prefix.
        let programs = names
            .filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()) && !name.starts_with("link-"));
        programs
            .map(|name| {
                let info = ProgramInfo::from_pin(self.directory.join(&name));
                let info = info.unwrap_or_else(|error| panic!("{name}: {error}"));
                (name, info)
            })
            .collect()
    }

    /// Frames by verdict, those that never happened included.
    #[must_use]
    #[track_caller]
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let map = MapData::from_pin(self.directory.join("COUNTERS")).expect("the pinned counters");
        let map = PerCpuArray::<_, Counter>::try_from(Map::PerCpuArray(map)).expect("an array of counters");
        let frames = |verdict: &Verdict| {
            let values = map.get(&verdict.number(), 0).expect("a counter");
            values.iter().map(|counter| counter.frames).sum::<u64>()
        };
        Verdict::ALL.iter().map(|verdict| (verdict.label(), frames(verdict))).collect()
    }

    /// Makes the pins those of another layout.
    #[track_caller]
    pub fn set_layout(&self, version: u32) {
        let map = MapData::from_pin(self.directory.join("META")).expect("the pinned META");
        let mut map = Array::<_, Meta>::try_from(Map::Array(map)).expect("an array");
        let meta = Meta { layout_version: version, ..map.get(&0, 0).expect("a value") };
        map.set(0, meta, 0).expect("a place that is there");
    }

    /// Changes what is known of an address in a network. Panics if nothing is.
    #[track_caller]
    pub fn change_neighbour(&self, vni: u32, address: impl Into<IpAddr>, change: impl FnOnce(&mut Neighbour)) {
        let map = MapData::from_pin(self.directory.join("NEIGHBOURS")).expect("the pinned neighbours");
        let mut map = HashMap::<_, NeighbourKey, Neighbour>::try_from(Map::HashMap(map)).expect("a hash of neighbours");
        let key = NeighbourKey { vni, address: address.into().into() };
        let mut neighbour = map.get(&key, 0).expect("a neighbour");
        change(&mut neighbour);
        map.insert(key, neighbour, 0).expect("room for what was there");
    }

    /// Changes what is known of a peer. Returns what it was. The agent writes there too, when it finds something new.
    #[track_caller]
    pub fn change_peer(&self, peer: u32, change: impl FnOnce(&mut Peer)) -> Peer {
        let map = MapData::from_pin(self.directory.join("PEERS")).expect("the pinned peers");
        let mut map = Array::<_, Peer>::try_from(Map::Array(map)).expect("an array of peers");
        let before = map.get(&peer, 0).expect("a peer");
        let mut after = before;
        change(&mut after);
        map.set(peer, after, 0).expect("a place that is there");
        before
    }

    /// Empties the table of MAC addresses, static ones included.
    #[track_caller]
    pub fn forget_macs(&self) {
        let map = MapData::from_pin(self.directory.join("FDB")).expect("the pinned FDB");
        let mut map = HashMap::<_, FdbKey, FdbEntry>::try_from(Map::HashMap(map)).expect("a table of MAC addresses");
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>().expect("keys");
        for key in keys {
            // One that ageing removed meanwhile is as good.
            let _gone = map.remove(&key);
        }
    }

    /// Runs a TC program on a frame that is at an interface (0: `lo`).
    #[track_caller]
    pub fn run_tc(&self, program: &str, ifindex: u32, frame: &[u8]) -> Run {
        self.run_tc_gso(program, ifindex, frame, 0)
    }

    /// The same on a frame that is to be cut into segments of so many octets.
    #[track_caller]
    pub fn run_tc_gso(&self, program: &str, ifindex: u32, frame: &[u8], segment: u32) -> Run {
        let pinned = SchedClassifier::from_pin(self.directory.join(program));
        let pinned = pinned.unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut context = [0; SKB_CONTEXT];
        for (at, value) in [(SKB_IFINDEX, ifindex), (SKB_GSO_SIZE, segment)] {
            context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let before = self.counters();
        let (code, frame) = self.host.in_namespace(|| {
            let mut room = vec![0; ROOM];
            let options = TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut room),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            };
            let result =
                pinned.test_run(options).unwrap_or_else(|error| panic!("{program} on {frame:02x?}: {error:?}"));
            room.truncate(result.data_size_out as usize);
            (result.return_value.cast_signed(), room)
        });
        Run { code, frame, metadata: Vec::new(), counted: self.counted_since(&before) }
    }

    /// Runs an XDP program on a frame that came from nowhere.
    #[track_caller]
    pub fn run_xdp(&self, program: &str, frame: &[u8]) -> Run {
        self.run_xdp_at(program, 0, frame)
    }

    /// Runs an XDP program on a frame that is at an interface, which has native XDP.
    #[track_caller]
    pub fn run_xdp_at(&self, program: &str, ifindex: u32, frame: &[u8]) -> Run {
        self.burst_xdp(program, ifindex, frame, 1)
    }

    /// The same on a frame from nowhere before which another program has left metadata.
    #[track_caller]
    pub fn run_xdp_behind(&self, program: &str, metadata: &[u8], frame: &[u8]) -> Run {
        self.run_xdp_with(program, 0, metadata, frame, 1)
    }

    /// Runs an XDP program so many times, on the same frame each time. Says what the last one came to, and what all were counted as.
    #[track_caller]
    pub fn burst_xdp(&self, program: &str, ifindex: u32, frame: &[u8], times: u32) -> Run {
        self.run_xdp_with(program, ifindex, &[], frame, times)
    }

    #[track_caller]
    fn run_xdp_with(&self, program: &str, ifindex: u32, metadata: &[u8], frame: &[u8], times: u32) -> Run {
        let pinned = Xdp::from_pin(self.directory.join(program), XdpAttachType::Interface);
        let pinned = pinned.unwrap_or_else(|error| panic!("{program}: {error}"));
        let whole_in = [metadata, frame].concat();
        let before = self.counters();
        let [start, end] = [metadata.len(), whole_in.len()].map(|octets| u32::try_from(octets).expect("a frame"));
        let context_in = [start, end, 0, ifindex, 0, 0].map(u32::to_ne_bytes).concat();
        let once = || {
            let mut room = vec![0; ROOM];
            let mut context = [0; XDP_CONTEXT];
            let options = TestRunOptions {
                data_in: Some(&whole_in),
                data_out: Some(&mut room),
                ctx_in: Some(&context_in),
                ctx_out: Some(&mut context),
                ..TestRunOptions::default()
            };
            let result =
                pinned.test_run(options).unwrap_or_else(|error| panic!("{program} on {frame:02x?}: {error:?}"));
            room.truncate(result.data_size_out as usize);
            (result.return_value.cast_signed(), room, context)
        };
        let last = self.host.in_namespace(|| (0..times).map(|_| once()).reduce(|_, last| last));
        let (code, mut whole, context) = last.expect("at least one");
        let data = u32::from_ne_bytes(context[..4].try_into().expect("four octets"));
        let frame = whole.split_off(data as usize);
        Run { code, frame, metadata: whole, counted: self.counted_since(&before) }
    }

    fn counted_since(&self, before: &BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
        let now = self.counters();
        let change = |(label, count): (&'static str, u64)| (label, count - before[label]);
        now.into_iter().map(change).filter(|(_, count)| *count > 0).collect()
    }
}
