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

use super::pattern::{Pattern, WORDS};
use crate::cargo;

/// Frames per second that no generator reaches: one system call, whose start and end take tens of milliseconds
/// (`synchronize_rcu` in `bpf_prog_change_xdp`), must last for a whole measurement.
const TOO_MANY: f64 = 4e6;
/// Until the first frame arrives.
const START: Duration = Duration::from_secs(1);
/// Until everybody does nothing else.
const WARM_UP: Duration = Duration::from_millis(50);
/// Frames in one bulk transmission, as many as a NAPI cycle has.
const BATCH: u32 = 64;
/// Frames that have not arrived by then will not.
const LOST: Duration = Duration::from_millis(500);

/// The bench's kernel programs, loaded once for all hosts.
pub(crate) struct Programs {
    object: Ebpf,
    frame: Array<MapData, [u64; WORDS]>,
    expected: Array<MapData, u64>,
    item: Array<MapData, u32>,
    arrived: Array<MapData, u64>,
    interfaces: Array<MapData, u32>,
}

/// A TC program on an interface while it lives.
pub(crate) struct Attached {
    _link: FdLink,
}

/// What became of one frame for each item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    pub(crate) arrived: u64,
    /// Frames per second, if it lasted long enough to tell.
    pub(crate) rate: Option<f64>,
}

impl Programs {
    /// Builds and loads them.
    ///
    /// # Errors
    /// They do not build or do not load.
    pub(crate) fn new() -> anyhow::Result<Self> {
        eprintln!("bench: building its kernel programs");
        let path = cargo::kernel_programs("l2mesh-bench-ebpf", "bench")?;
        let mut object = Ebpf::load_file(&path).with_context(|| format!("cannot load {}", path.display()))?;
        xdp(&mut object, "pass")?.load()?;
        xdp(&mut object, "generate")?.load()?;
        tc(&mut object, "sink")?.load()?;
        tc(&mut object, "fan")?.load()?;
        let mut map = |name| object.take_map(name).with_context(|| format!("no map {name}"));
        let (frame, expected, item) = (map("FRAME")?, map("EXPECTED")?, map("ITEM")?);
        let (arrived, interfaces) = (map("ARRIVED")?, map("INTERFACES")?);
        Ok(Self {
            object,
            frame: frame.try_into()?,
            expected: expected.try_into()?,
            item: item.try_into()?,
            arrived: arrived.try_into()?,
            interfaces: interfaces.try_into()?,
        })
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

    /// Counts and drops, before every other program on the interface's TC ingress.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(crate) fn attach_sink(&mut self, host: &Host, interface: &str) -> anyhow::Result<Attached> {
        let mut all = self.attach_sinks(host, &[interface.to_owned()])?;
        all.pop().context("no sink")
    }

    /// [`Self::attach_sink`] on many interfaces.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(crate) fn attach_sinks(&mut self, host: &Host, interfaces: &[String]) -> anyhow::Result<Vec<Attached>> {
        attach(tc(&mut self.object, "sink")?, host, interfaces, TcAttachType::Ingress)
    }

    /// Spreads what is sent through the interface as [`Self::aim`] says.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(crate) fn attach_fan(&mut self, host: &Host, interface: &str) -> anyhow::Result<Vec<Attached>> {
        attach(tc(&mut self.object, "fan")?, host, &[interface.to_owned()], TcAttachType::Egress)
    }

    /// From now on a fan gives frames the pattern's MAC addresses, and sends each item out of its interface; where the item is
    /// in the addresses, all out of the first.
    ///
    /// # Errors
    /// A map cannot be written.
    pub(crate) fn aim(&mut self, pattern: &Pattern, interfaces: &[u32]) -> anyhow::Result<()> {
        self.frame.set(0, pattern.words(0, false), 0)?;
        self.item.set(0, pattern.items.start, 0)?;
        for (index, interface) in (0..).zip(interfaces) {
            self.interfaces.set(index, interface, 0)?;
        }
        Ok(())
    }

    /// Frames that reached a sink since the start of the bench.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.arrived.get(&0, 0)?)
    }

    /// Sends a pattern out of an interface as often as the sink takes it, from one processor: native XDP frames. Returns how
    /// many reached the sink per second.
    ///
    /// # Errors
    /// The kernel refuses to run the program, or nothing arrives.
    pub(crate) fn generate(
        &mut self,
        host: &Host,
        interface: &str,
        pattern: &Pattern,
        cpu: usize,
        time: Duration,
    ) -> anyhow::Result<f64> {
        let times = u32::try_from(super::whole((time + START).as_secs_f64() * TOO_MANY))?;
        let rate = self.run(host, interface, pattern, (cpu, times), |arrived, before| rate(arrived, before, time))?;
        rate.with_context(|| format!("{}: nothing of what was generated arrived", host.name()))
    }

    /// Sends one frame for each item of a pattern, as [`Self::generate`] does.
    ///
    /// # Errors
    /// The kernel refuses to run the program.
    pub(crate) fn burst(
        &mut self,
        host: &Host,
        interface: &str,
        pattern: &Pattern,
        cpu: usize,
    ) -> anyhow::Result<Burst> {
        let count = pattern.items.end - pattern.items.start;
        self.run(host, interface, pattern, (cpu, count), |arrived, before| {
            let total = before + u64::from(count);
            let (mut last, mut change) = (before, Instant::now());
            let (mut first, mut rate) = (None, None);
            while last < total && change.elapsed() < if last == before { START } else { LOST } {
                thread::sleep(Duration::from_millis(1));
                let now = arrived.get(&0, 0)?;
                if now == last {
                    continue;
                }
                (last, change) = (now, Instant::now());
                // From one look to another in the middle of it: when it began and ended nobody saw.
                match first {
                    None => first = Some((now, change)),
                    Some((first, start)) if now < total => {
                        rate = Some(super::float(now - first) / (change - start).as_secs_f64());
                    }
                    Some(_) => {}
                }
            }
            Ok(Burst { arrived: last - before, rate })
        })
    }

    /// Has the generator send a pattern a number of times while somebody watches how many have arrived, and how many had
    /// before.
    fn run<R>(
        &mut self,
        host: &Host,
        interface: &str,
        pattern: &Pattern,
        (cpu, times): (usize, u32),
        watch: impl FnOnce(&Array<MapData, u64>, u64) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let ifindex = host.link(interface)["ifindex"].as_u64().context("an interface without index")?;
        let before = self.arrived()?;
        self.frame.set(0, pattern.words(ifindex, false), 0)?;
        self.item.set(0, pattern.items.start, 0)?;
        self.expected.set(0, before, 0)?;
        let program = xdp(&mut self.object, "generate")?;
        let run = || {
            super::machine::pin(cpu)?;
            program.test_run(TestRunOptions {
                data_in: Some(&pattern.frame),
                repeat: times,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })?;
            anyhow::Ok(())
        };
        thread::scope(|scope| {
            let generator = scope.spawn(|| host.in_namespace(run));
            let seen = watch(&self.arrived, before);
            // Whatever is left of the system call is over at once.
            let stopped = self.frame.set(0, pattern.words(ifindex, true), 0);
            generator.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
            stopped?;
            seen
        })
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

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn tc<'a>(object: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut SchedClassifier> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// Before every other program at that place.
fn attach(
    program: &mut SchedClassifier,
    host: &Host,
    interfaces: &[String],
    side: TcAttachType,
) -> anyhow::Result<Vec<Attached>> {
    let mut one = |interface: &String| {
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, side, options);
        let id = id.with_context(|| format!("{}: a program on {interface}", host.name()))?;
        let link: SchedClassifierLink = program.take_link(id)?;
        Ok(Attached { _link: FdLink::try_from(link)? })
    };
    host.in_namespace(|| interfaces.iter().map(&mut one).collect())
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
