//! What the bench measures with: l2mesh as it is released, and kernel programs of its own.

use std::{
    env,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::{
    Ebpf, TestRun as _,
    maps::{Array, MapData},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, TestRunAttrs, TestRunOptions, Xdp, XdpMode,
        links::FdLink,
        tc::{SchedClassifierLink, TcAttachOptions},
        xdp::XdpLink,
    },
};
use l2mesh_tests::Host;

use crate::cargo;

/// Words of `FRAME`: 14 of the frame, the interface, one to spare (xtask/ebpf).
const FRAME_WORDS: usize = 16;
/// The last of them: something else than zero ends the generator.
const STOP: usize = 15;
/// Octets of the frame that are written anew for each.
const FRAME_OCTETS: usize = 112;
/// Frames per second that no generator reaches: one system call, whose start and end take tens of milliseconds
/// (`synchronize_rcu` in `bpf_prog_change_xdp`), must last for a whole measurement.
const TOO_MANY: f64 = 4e6;
/// Until the first frame arrives.
const START: Duration = Duration::from_secs(1);
/// Until everybody does nothing else.
const WARM_UP: Duration = Duration::from_millis(50);
/// Frames in one bulk transmission, as many as a NAPI cycle has.
const BATCH: u32 = 64;

/// The bench's kernel programs, loaded once for all hosts.
pub(crate) struct Programs {
    object: Ebpf,
    frame: Array<MapData, [u64; FRAME_WORDS]>,
    expected: Array<MapData, u64>,
    arrived: Array<MapData, u64>,
}

/// Counts and drops on an interface while it lives.
pub(crate) struct Sink {
    _link: FdLink,
}

impl Programs {
    /// Builds and loads them.
    ///
    /// # Errors
    /// They do not build or do not load.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let path = build_programs()?;
        let mut object = Ebpf::load_file(&path).with_context(|| format!("cannot load {}", path.display()))?;
        xdp(&mut object, "pass")?.load()?;
        xdp(&mut object, "generate")?.load()?;
        sink(&mut object)?.load()?;
        let mut map = |name| object.take_map(name).with_context(|| format!("no map {name}"));
        let (frame, expected, arrived) = (map("FRAME")?, map("EXPECTED")?, map("ARRIVED")?);
        Ok(Self { object, frame: frame.try_into()?, expected: expected.try_into()?, arrived: arrived.try_into()? })
    }

    /// A native XDP program that only passes, while the link lives.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(crate) fn attach_pass(&mut self, host: &Host, interface: &str) -> anyhow::Result<XdpLink> {
        let program = xdp(&mut self.object, "pass")?;
        let id = host.in_namespace(|| program.attach(interface, XdpMode::Driver));
        let id = id.with_context(|| format!("{}: XDP on {interface}", host.name()))?;
        Ok(program.take_link(id)?)
    }

    /// Before every other program on the interface's TC ingress.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(crate) fn attach_sink(&mut self, host: &Host, interface: &str) -> anyhow::Result<Sink> {
        let program = sink(&mut self.object)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = host.in_namespace(|| program.attach_with_options(interface, TcAttachType::Ingress, options));
        let id = id.with_context(|| format!("{}: sink on {interface}", host.name()))?;
        let link: SchedClassifierLink = program.take_link(id)?;
        Ok(Sink { _link: FdLink::try_from(link)? })
    }

    /// Frames that reached a sink since the start of the bench.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.arrived.get(&0, 0)?)
    }

    /// Sends a frame out of an interface as often as the sink takes it, from one processor: native XDP frames, eight flows
    /// in turn. Returns how many reached the sink per second.
    ///
    /// # Errors
    /// The kernel refuses to run the program, or nothing arrives.
    pub(crate) fn generate(
        &mut self,
        host: &Host,
        interface: &str,
        frame: &[u8],
        cpu: usize,
        time: Duration,
    ) -> anyhow::Result<f64> {
        let ifindex = host.link(interface)["ifindex"].as_u64().context("an interface without index")?;
        let mut words = words(frame, ifindex);
        let before = self.arrived()?;
        self.frame.set(0, words, 0)?;
        self.expected.set(0, before, 0)?;
        let program = xdp(&mut self.object, "generate")?;
        let run = || {
            super::machine::pin(cpu)?;
            program.test_run(TestRunOptions {
                data_in: Some(frame),
                repeat: u32::try_from(super::whole((time + START).as_secs_f64() * TOO_MANY))?,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })?;
            anyhow::Ok(())
        };
        let rate = thread::scope(|scope| {
            let generator = scope.spawn(|| host.in_namespace(run));
            let rate = rate(&self.arrived, before, time);
            // Whatever is left of the system call is over at once.
            words[STOP] = 1;
            let stopped = self.frame.set(0, words, 0);
            generator.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
            stopped?;
            rate
        })?;
        rate.with_context(|| format!("{}: nothing of what was generated arrived", host.name()))
    }
}

/// Frames per second over a time that begins some time after the first one arrived; none if none arrives.
fn rate(arrived: &Array<MapData, u64>, before: u64, time: Duration) -> anyhow::Result<Option<f64>> {
    let begin = Instant::now();
    while arrived.get(&0, 0)? == before {
        if begin.elapsed() > START {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(WARM_UP);
    let (first, start) = (arrived.get(&0, 0)?, Instant::now());
    thread::sleep(time);
    let (last, time) = (arrived.get(&0, 0)?, start.elapsed());
    Ok((last > first).then(|| super::float(last - first) / time.as_secs_f64()))
}

/// The frame as the generator writes it.
fn words(frame: &[u8], ifindex: u64) -> [u64; FRAME_WORDS] {
    let mut octets = [0; FRAME_OCTETS];
    let length = frame.len().min(FRAME_OCTETS);
    octets[..length].copy_from_slice(&frame[..length]);
    let mut words = [0; FRAME_WORDS];
    let (chunks, _) = octets.as_chunks();
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u64::from_ne_bytes(*chunk);
    }
    words[FRAME_OCTETS / 8] = ifindex;
    words
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn sink(object: &mut Ebpf) -> anyhow::Result<&mut SchedClassifier> {
    Ok(object.program_mut("sink").context("no program sink")?.try_into()?)
}

/// `l2mesh` of the release profile, built now; or `L2MESH_BIN`.
///
/// # Errors
/// It does not build.
pub(crate) fn build_l2mesh() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os("L2MESH_BIN") {
        return Ok(path.into());
    }
    eprintln!("bench: building l2mesh (release)");
    cargo::cargo(&["build", "--quiet", "--release", "--package", "l2mesh"])?;
    Ok(cargo::target().join("release/l2mesh"))
}

/// Not from a build script: xtask must build where bpf-linker is still missing.
fn build_programs() -> anyhow::Result<PathBuf> {
    eprintln!("bench: building its kernel programs");
    let target = cargo::target().join("bench-ebpf");
    let mut command = cargo::command();
    command
        .args(["build", "--quiet", "--release", "--package", "l2mesh-bench-ebpf", "--bin", "bench"])
        .args(["--target", "bpfel-unknown-none", "-Zbuild-std=core", "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf");
    cargo::status(&mut command)?;
    Ok(target.join("bpfel-unknown-none/release/bench"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_the_frame_and_the_interface() {
        let words = words(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 7);
        assert_eq!(words[0].to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(words[1].to_ne_bytes(), [9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(words[14], 7);
    }
}
