//! How long nothing arrives when the path between two hosts dies, and what the way back costs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use l2mesh_tests::flow::{Flow, FlowReport, Gap};
use l2mesh_tests::steady::Steady;
use l2mesh_tests::{Leg, Plan, RelayMesh, Segment, Way, Wiring};

/// Datagrams a second: one each millisecond.
const RATE: u64 = 1000;
/// What is on its way may take as long as a machine with other work to do lets it.
const IN_FLIGHT: u64 = 10;
/// Until an agent has said that its timer was over 10 ms late: what it could not send in time was not there to be missed.
const SAID: Duration = Duration::from_millis(2200);
const LIMIT: Duration = Duration::from_secs(10);

/// Time is measured: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is measured, and how good it has to be.
struct Trial {
    probe: &'static str,
    /// Each way of each host to the router.
    delay: Duration,
    /// Worst gap.
    limit: Duration,
    /// Cuts that count, and how many are tried for that.
    cuts: usize,
    tries: usize,
}

/// One cut.
struct Cut {
    gap: Duration,
    /// Of the sender.
    pause: Duration,
    /// How often the agents' timers were late.
    late: u64,
}

impl Trial {
    const DEFAULTS: Self =
        Self { probe: "", delay: Duration::ZERO, limit: Duration::from_millis(500), cuts: 3, tries: 6 };
    const FAST: Self = Self { probe: "interval = \"10ms\"", limit: Duration::from_millis(60), ..Self::DEFAULTS };

    /// A round trip takes 40 ms: it is on top of the time until a probe counts as lost, rounded up to whole intervals; and the
    /// relay is 20 ms farther away.
    const fn far(self) -> Self {
        let limit = self.limit.checked_add(Duration::from_millis(if self.probe.is_empty() { 160 } else { 100 }));
        Self { delay: Duration::from_millis(10), limit: limit.expect("a short time"), ..self }
    }

    /// 20 cuts of which 16 count.
    const fn whole(self) -> Self {
        Self { cuts: 16, tries: 20, ..self }
    }

    /// Each pair of hosts is cut once: one that comes back and goes again soon is mistrusted for longer.
    fn run<const N: usize>(&self, title: &str, names: [&str; N]) {
        let _alone = alone();
        let wiring = Wiring { delay: self.delay, ..Wiring::default() };
        let mesh = RelayMesh::up(title, names, 1, &Plan { wiring, probe: self.probe, ..Plan::default() });
        let pairs = (0..N - 1).flat_map(|a| (a + 1..N - 1).map(move |b| (a, b)));
        let (mut gaps, mut left_out) = (Vec::new(), Vec::new());
        for (number, (a, b)) in pairs.enumerate().take(self.tries) {
            // All 20, or as many as are needed.
            if self.tries < 20 && gaps.len() == self.cuts {
                break;
            }
            let Cut { gap, pause, late } = self.cut(&mesh, a, b);
            println!("{title}: cut {}: {gap:?}; sender paused {pause:?}, agents late {late} times", number + 1);
            // What is quick enough although an agent was late counts: it would be no slower if it had not been.
            let kept = if late > 0 && gap > self.limit { &mut left_out } else { &mut gaps };
            kept.push(gap);
        }
        gaps.sort_unstable();
        assert!(
            gaps.len() >= self.cuts,
            "{title}: only {} cuts count, too slow with a late agent: {left_out:?}",
            gaps.len()
        );
        let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        println!(
            "{title}: {} cuts, median {median:?}, worst {worst:?} (limit {:?}); left out as too slow with a late agent: {}",
            gaps.len(),
            self.limit,
            left_out.len()
        );
        assert!(worst <= self.limit, "{title}: {gaps:?}");
    }

    /// Cuts a pair, measures, and heals it.
    fn cut<const N: usize>(&self, mesh: &RelayMesh<N>, a: usize, b: usize) -> Cut {
        let relay = Way::via(&mesh.hosts[N - 1]);
        let mut legs = mesh.legs(a, b);
        let idle = Steady::idle(&mesh.hosts[a], &mesh.hosts[b], Segment::v4(b));
        let flows = flows(mesh, a, b);
        let late = || mesh.paths[a].late() + mesh.paths[b].late();
        let (before, start) = (late(), Instant::now());
        let _before = flows.each_ref().map(Flow::take_gap);
        legs.iter_mut().for_each(Leg::cut);
        mesh.wait_ways(a, b, &relay, LIMIT);
        flows.iter().for_each(|flow| flow.wait_more(100));
        let gaps: [Gap; 2] = flows.each_ref().map(Flow::take_gap);
        for report in flows.map(Flow::stop) {
            // A sender that is moved to the other CPU overtakes itself by what waits there, path or no path.
            let FlowReport { duplicates, farthest, .. } = report;
            assert_eq!(duplicates, 0, "failover: {report:?}");
            assert!(farthest <= IN_FLIGHT, "failover: {report:?}");
        }
        self.heal(mesh, (a, b), &mut legs);
        idle.wait_more();
        idle.stop();
        let [gap, pause] = [|gap: &Gap| gap.received, |gap: &Gap| gap.sent].map(|of| gaps.iter().map(of).max());
        thread::sleep(SAID.saturating_sub(start.elapsed()));
        let late = late() - before;
        Cut { gap: gap.unwrap_or_default(), pause: pause.unwrap_or_default(), late }
    }

    /// The way back loses nothing, and reorders what is on its way at most.
    fn heal<const N: usize>(&self, mesh: &RelayMesh<N>, (a, b): (usize, usize), legs: &mut [Leg; 2]) {
        let flows = flows(mesh, a, b);
        legs.iter_mut().for_each(Leg::heal);
        mesh.wait_ways(a, b, &Way::Direct, LIMIT);
        flows.iter().for_each(|flow| flow.wait_more(100));
        let in_flight = IN_FLIGHT + 4 * u64::try_from(self.delay.as_millis()).expect("a short time");
        for report in flows.map(Flow::stop) {
            let FlowReport { lost, duplicates, farthest, .. } = report;
            assert_eq!((lost, duplicates), (0, 0), "failback: {report:?}");
            assert!(farthest <= in_flight, "failback: {report:?}");
        }
    }
}

/// Both ways between two hosts.
fn flows<const N: usize>(mesh: &RelayMesh<N>, a: usize, b: usize) -> [Flow; 2] {
    [(a, b), (b, a)].map(|(from, to)| Flow::start(&mesh.hosts[from], &mesh.hosts[to], Segment::v4(to), RATE))
}

#[test]
fn defaults() {
    Trial::DEFAULTS.run("failover", ["a", "b", "c", "d", "r"]);
}

#[test]
fn every_10_ms() {
    Trial::FAST.run("failover, 10 ms", ["a", "b", "c", "d", "r"]);
}

#[test]
fn far_apart() {
    Trial { cuts: 2, ..Trial::DEFAULTS.far() }.run("failover, far apart", ["a", "b", "c", "d", "r"]);
}

#[test]
fn far_apart_every_10_ms() {
    Trial { cuts: 2, ..Trial::FAST.far() }.run("failover, far apart, 10 ms", ["a", "b", "c", "d", "r"]);
}

const MANY: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "r"];

#[test]
#[ignore = "20 cuts of each kind take minutes: cargo test -p l2mesh-tests --test failover -- --ignored --nocapture"]
fn twenty_cuts() {
    Trial::DEFAULTS.whole().run("failover", MANY);
    Trial::FAST.whole().run("failover, 10 ms", MANY);
    Trial::DEFAULTS.far().whole().run("failover, far apart", MANY);
    Trial::FAST.far().whole().run("failover, far apart, 10 ms", MANY);
}
