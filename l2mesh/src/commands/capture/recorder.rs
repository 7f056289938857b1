//! Switches the recording on, fetches what was recorded, and switches it off. It ends by itself within [`LEASE`] if this process
//! does not go on asking for it, and nothing is recorded from the moment on in which the process ends: the kernel takes its
//! buffers out of the map (`perf_event_fd_array_release`).

use std::{
    io,
    mem::offset_of,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use aya::{
    maps::{
        Map, MapData, MapInfo,
        perf::{PerfEvent, PerfEventArray, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use l2mesh_common::tables::CaptureFilter;
use nix::time::{ClockId, clock_gettime};

use super::{super::output::Attached, frame::Recorded};
use crate::dataplane::{mapped::Mapped, pins::PinDir};

/// For so long is it asked for, and so often anew.
pub(super) const LEASE: Duration = Duration::from_secs(2);
const LEASE_NS: u64 = LEASE.as_secs() * 1_000_000_000;
pub(super) const RENEW: Duration = Duration::from_millis(500);

/// Room for what all processors record between two fetches, octets.
const ROOM: usize = 64 << 20;
/// For each processor at most.
const ROOM_EACH: usize = 4 << 20;

/// A recording.
pub(super) struct Recorder {
    pins: PinDir,
    /// Which map it is: the mesh may be detached and attached again.
    map: u32,
    shared: Mapped<CaptureFilter>,
    filter: CaptureFilter,
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    /// What is yet to be put in order with what other processors recorded.
    waiting: Vec<Recorded>,
    /// When it was fetched last, by the clock of the records.
    fetched_ns: u64,
    /// The host's clock at zero of that clock.
    epoch_ns: u64,
    _held: UnixDatagram,
}

impl Recorder {
    /// Switches it on.
    ///
    /// # Errors
    /// Somebody else captures, or the kernel refuses.
    pub(super) fn start(mesh: &Attached, filter: CaptureFilter) -> anyhow::Result<Self> {
        let held = claim(mesh)?;
        let pins = mesh.pins.clone();
        let pin = pins.pin("CAPTURE");
        if !pin.exists() {
            bail!(
                "the programs on {} are of a version that knows no capture: end its agent and attach again with this one",
                mesh.interface
            );
        }
        let map = MapInfo::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?.id();
        let shared = Mapped::open(&pin)?;
        shared.set(0, &CaptureFilter { points: 0, ..filter });
        let buffers = buffers(&pins)?;
        let now = monotonic_ns()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the host's clock is before 1970")?;
        let epoch_ns = u64::try_from(since.as_nanos())?.saturating_sub(now);
        let recorder =
            Self { pins, map, shared, filter, buffers, waiting: Vec::new(), fetched_ns: now, epoch_ns, _held: held };
        recorder.ask(now);
        Ok(recorder)
    }

    /// Goes on asking. False if nobody would hear it: the mesh is gone.
    pub(super) fn renew(&self) -> bool {
        let is_there = MapInfo::from_pin(self.pins.pin("CAPTURE")).is_ok_and(|map| map.id() == self.map);
        if is_there && let Ok(now) = monotonic_ns() {
            self.ask(now);
        }
        is_there
    }

    fn ask(&self, now: u64) {
        // The time first: a program that finds it over switches it off.
        self.shared.word(0, offset_of!(CaptureFilter, until_ns)).store(now + LEASE_NS, Ordering::Release);
        self.shared.word(0, offset_of!(CaptureFilter, points)).store(self.filter.points, Ordering::Release);
    }

    /// Switches it off.
    pub(super) fn stop(&self) {
        self.shared.word(0, offset_of!(CaptureFilter, points)).store(0, Ordering::Release);
    }

    /// What was recorded and not taken by this process.
    pub(super) fn lost(&self) -> u64 {
        self.shared.get(0).lost
    }

    /// What was recorded, in order. What is so new that another processor may yet have something older waits for the next time,
    /// unless there is none.
    pub(super) fn fetch(&mut self, is_last: bool) -> Vec<Recorded> {
        let until = if is_last { u64::MAX } else { self.fetched_ns };
        self.fetched_ns = monotonic_ns().unwrap_or(self.fetched_ns);
        let (snaplen, waiting) = (self.filter.snaplen, &mut self.waiting);
        for buffer in &mut self.buffers {
            buffer.for_each(|event| match event {
                PerfEvent::Sample { head, tail: [] } => waiting.extend(Recorded::read(head, snaplen)),
                PerfEvent::Sample { head, tail } => waiting.extend(Recorded::read(&[head, tail].concat(), snaplen)),
                // The programs count that themselves.
                PerfEvent::Lost { .. } => {}
            });
        }
        waiting.sort_by_key(|recorded| recorded.time_ns);
        let ready = waiting.partition_point(|recorded| recorded.time_ns <= until);
        let mut ready: Vec<Recorded> = waiting.drain(..ready).collect();
        ready.iter_mut().for_each(|recorded| recorded.time_ns += self.epoch_ns);
        ready
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One at a time: there is one filter, and one buffer for each processor.
fn claim(mesh: &Attached) -> anyhow::Result<UnixDatagram> {
    let address = SocketAddr::from_abstract_name(format!("l2mesh/{}/capture", mesh.ifindex));
    match UnixDatagram::bind_addr(&address.context("cannot name the socket of a capture")?) {
        Ok(held) => Ok(held),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("a capture runs on {} already: there can be one at a time", mesh.interface)
        }
        Err(error) => Err(error).context("cannot make the socket of a capture"),
    }
}

fn buffers(pins: &PinDir) -> anyhow::Result<Vec<PerfEventArrayBuffer<MapData>>> {
    let pin = pins.pin("CAPTURED");
    let map = MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let mut array = PerfEventArray::try_from(Map::from_map_data(map)?)
        .with_context(|| format!("{} is not the map that it should be", pin.display()))?;
    let cpus = online_cpus().map_err(|(what, error)| anyhow::Error::new(error).context(what))?;
    let octets = (ROOM / cpus.len().max(1)).clamp(1 << 17, ROOM_EACH);
    let page = usize::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096))?;
    let pages = (octets / page).max(1);
    let pages = 1 << pages.ilog2();
    let open =
        |cpu| array.open(cpu, Some(pages)).with_context(|| format!("the kernel gives no buffer for processor {cpu}"));
    cpus.into_iter().map(open).collect()
}

/// The clock of the records.
fn monotonic_ns() -> anyhow::Result<u64> {
    Ok(u64::try_from(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_nanos())?)
}
