//! Paths that work in part, or now and then, or whose agents do: two TCP connections, a busy one and a nearly idle one, survive
//! each of it.

use std::thread;
use std::time::{Duration, Instant};

use l2mesh_tests::clock::Clock;
use l2mesh_tests::flow::Flow;
use l2mesh_tests::steady::Steady;
use l2mesh_tests::{Leg, Plan, RelayMesh, Segment, Way, traffic};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);
/// Every 20 ms, and 200 ms without an answer is a path that is down: a machine with other work to do takes some time for one.
const QUICK: &str = "interval = \"20ms\"\nmisses = 10";
const INTERVAL: Duration = Duration::from_millis(20);

/// a and b, and a relay or two.
fn mesh<const N: usize>(title: &str, names: [&str; N], probe: &str) -> RelayMesh<N> {
    RelayMesh::up(title, names, N - 2, &Plan { probe, ..Plan::default() })
}

/// What has to survive: TCP from a to b.
struct Survivors {
    bulk: Steady,
    idle: Steady,
}

impl Survivors {
    fn of<const N: usize>(mesh: &RelayMesh<N>) -> Self {
        let [a, b, ..] = &mesh.hosts[..] else { panic!("two hosts") };
        Self { bulk: Steady::bulk(a, b, Segment::v4(1)), idle: Steady::idle(a, b, Segment::v4(1)) }
    }

    fn wait_more(&self) {
        self.bulk.wait_more();
        self.idle.wait_more();
    }

    /// Whether they have.
    fn stop(self) {
        self.wait_more();
        let (bulk, idle) = (self.bulk.stop(), self.idle.stop());
        println!("bulk: {bulk:?}, idle: {idle:?}");
    }
}

/// Looks for a while how frames go from a to b, and returns each change.
fn watch<const N: usize>(mesh: &RelayMesh<N>, time: Duration, mut each: impl FnMut(Duration)) -> Vec<Way> {
    let (start, paths) = (Instant::now(), &mesh.paths[0]);
    let mut seen = vec![paths.way(&mesh.hosts[1])];
    while start.elapsed() < time {
        each(start.elapsed());
        let now = paths.way(&mesh.hosts[1]);
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        thread::sleep(Duration::from_millis(5));
    }
    seen
}

/// Probes that a has sent to b so far.
fn probes<const N: usize>(mesh: &RelayMesh<N>) -> u32 {
    mesh.paths[0].path(&mesh.hosts[1], 0).0.sequence
}

/// As many probes as are due since `start`, whatever else the machine did: some may be left out, none is made up for.
#[track_caller]
fn assert_sent_in_time<const N: usize>(mesh: &RelayMesh<N>, before: u32, start: Instant) {
    let sent = probes(mesh) - before;
    let time = start.elapsed();
    let due = u32::try_from(time.as_millis() / INTERVAL.as_millis()).expect("few");
    assert!(sent > due / 3 && sent <= due + 3, "{sent} probes in {time:?}");
}

#[test]
fn one_direction_cut() {
    let mesh = mesh("one direction", ["a", "b", "r"], QUICK);
    let survivors = Survivors::of(&mesh);
    let mut leg = mesh.lab.leg(&mesh.hosts[0], &mesh.hosts[1]);
    leg.cut();
    // The other direction is no use either: its probes are not answered.
    mesh.wait_ways(0, 1, &Way::via(&mesh.hosts[2]), LIMIT);
    survivors.wait_more();
    leg.heal();
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    survivors.stop();
}

/// What is too long for the path goes another way until it is known how much it takes; from then on that is said to who sends.
#[test]
fn long_packets_lost() {
    let mesh = mesh("long packets", ["a", "b", "r"], QUICK);
    let [a, b, relay] = &mesh.hosts;
    let survivors = Survivors::of(&mesh);
    let mut leg = mesh.lab.leg(a, b);
    leg.lose_longer_than(1400);
    mesh.paths[0].wait_way(b, &Way::via(relay), LIMIT);
    survivors.wait_more();
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    assert_eq!(mesh.paths[0].path(b, 0).0.mtu, 1350, "{}", mesh.paths[0].describe(b));
    assert_eq!(traffic::ping_sized(a, Segment::v4(1), 5, 1350 - 28).lost(), 0);
    survivors.wait_more();
    leg.heal();
    survivors.stop();
}

/// Not even what every path has to take: it is down, though short packets arrive all the time.
#[test]
fn all_but_short_packets_lost() {
    let mesh = mesh("short packets", ["a", "b", "r"], QUICK);
    let [a, b, relay] = &mesh.hosts;
    let survivors = Survivors::of(&mesh);
    let mut leg = mesh.lab.leg(a, b);
    leg.lose_longer_than(1300);
    mesh.wait_ways(0, 1, &Way::via(relay), LIMIT);
    // For it is tried once more with the least.
    thread::sleep(Duration::from_secs(3));
    mesh.wait_ways(0, 1, &Way::via(relay), LIMIT);
    survivors.wait_more();
    assert_eq!(watch(&mesh, Duration::from_secs(2), |_| {}), [Way::via(relay)]);
    let (tx, rx) = mesh.paths[0].path(b, 0);
    assert!(tx.hold != 0, "{tx:?} {rx:?}");
    // What a was told meanwhile it keeps for ten minutes.
    a.run("ip route flush cache");
    assert_eq!(traffic::ping_sized(a, Segment::v4(1), 5, 1422).lost(), 0, "the longest that fits");
    leg.heal();
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    survivors.stop();
}

#[test]
fn three_of_ten_lost() {
    let mesh = mesh("loss", ["a", "b", "r"], QUICK);
    let relay = Way::via(&mesh.hosts[2]);
    let survivors = Survivors::of(&mesh);
    let mut leg = mesh.lab.leg(&mesh.hosts[0], &mesh.hosts[1]);
    leg.lose(300);
    mesh.paths[0].wait_way(&mesh.hosts[1], &relay, LIMIT);
    // 50 probes later it is known how many are lost: from then on it is not tried again in between.
    thread::sleep(60 * INTERVAL);
    assert_eq!(watch(&mesh, Duration::from_secs(3), |_| {}), [relay]);
    assert_eq!(traffic::ping(&mesh.hosts[0], Segment::v4(1), 100).lost(), 0);
    leg.heal();
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    survivors.stop();
}

#[test]
fn a_little_loss_is_no_failure() {
    let mesh = mesh("little loss", ["a", "b", "r"], QUICK);
    let mut leg = mesh.lab.leg(&mesh.hosts[0], &mesh.hosts[1]);
    leg.lose(50);
    assert_eq!(watch(&mesh, Duration::from_secs(4), |_| {}), [Way::Direct]);
}

/// Half of each second it is there, which is too short to come back.
#[test]
fn flapping() {
    flaps("flapping", Duration::from_millis(500), Duration::from_secs(4));
}

/// It is there for long enough to come back, once: then the wait is doubled.
#[test]
fn flapping_slowly() {
    flaps("flapping slowly", Duration::from_millis(1500), Duration::from_secs(8));
}

/// With the defaults: cut for half a second, then there for `there`, again and again; after `first` frames stay on the relay.
fn flaps(title: &str, there: Duration, first: Duration) {
    const CUT: Duration = Duration::from_millis(500);
    let mesh = mesh(title, ["a", "b", "r"], "");
    let relay = Way::via(&mesh.hosts[2]);
    let survivors = Survivors::of(&mesh);
    let mut legs = mesh.legs(0, 1);
    let start = Instant::now();
    let mut flap = |_| {
        let is_cut = start.elapsed().as_millis() % (CUT + there).as_millis() < CUT.as_millis();
        legs.iter_mut().for_each(if is_cut { Leg::cut } else { Leg::heal });
    };
    let first = watch(&mesh, first, &mut flap);
    assert!(first.len() <= 5 && first.last() == Some(&relay), "{first:?}");
    assert_eq!(watch(&mesh, Duration::from_secs(6), &mut flap), [relay]);
    survivors.wait_more();
    legs.iter_mut().for_each(Leg::heal);
    // The wait has been doubled, perhaps more than once.
    mesh.wait_ways(0, 1, &Way::Direct, Duration::from_secs(20));
    survivors.stop();
}

#[test]
fn the_relay_dies() {
    let mesh = mesh("relay dies", ["a", "b", "r", "s"], QUICK);
    let [a, b, relays @ ..] = &mesh.hosts;
    let survivors = Survivors::of(&mesh);
    let mut legs = mesh.legs(0, 1);
    legs.iter_mut().for_each(Leg::cut);
    let ways = relays.each_ref().map(Way::via);
    let is_relayed = |way: &Way| ways.iter().position(|relayed| relayed == way);
    let first = l2mesh_tests::wait_for("a relay", LIMIT, || {
        let way = mesh.paths[0].way(b);
        is_relayed(&way).ok_or_else(|| format!("{way:?}"))
    });
    survivors.wait_more();
    let flow = Flow::start(a, b, Segment::v4(1), 1000);
    let _before = flow.take_gap();
    mesh.lab.unplug(&relays[first]);
    mesh.wait_ways(0, 1, &ways[1 - first], LIMIT);
    flow.wait_more(100);
    let gap = flow.take_gap();
    assert!(gap.received < Duration::from_millis(500), "{gap:?}");
    flow.stop();
    survivors.wait_more();
    mesh.lab.plug(&relays[first]);
    legs.iter_mut().for_each(Leg::heal);
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    survivors.stop();
}

#[test]
fn all_paths_dead() {
    let mesh = mesh("all dead", ["a", "b", "r"], QUICK);
    let [a, b, relay] = &mesh.hosts;
    let survivors = Survivors::of(&mesh);
    let (mut direct, mut relayed) = (mesh.legs(0, 1), mesh.legs(1, 2));
    direct.iter_mut().chain(&mut relayed).for_each(Leg::cut);
    mesh.wait_ways(0, 1, &Way::Dead, LIMIT);
    let before = a.counter("no-path-up");
    assert_eq!(traffic::ping(a, Segment::v4(1), 5).received, 0);
    assert!(a.counter("no-path-up") >= before + 5, "{before}");
    relayed.iter_mut().for_each(Leg::heal);
    mesh.wait_ways(0, 1, &Way::via(relay), LIMIT);
    survivors.wait_more();
    direct.iter_mut().for_each(Leg::heal);
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    assert_eq!(traffic::ping(b, Segment::v4(0), 5).lost(), 0);
    survivors.stop();
}

#[test]
fn agent_stopped() {
    stopped_for(Duration::from_secs(3));
}

#[test]
#[ignore = "takes more than a minute: cargo test -p l2mesh-tests --test partial -- --ignored"]
fn agent_stopped_for_a_minute() {
    stopped_for(Duration::from_mins(1));
}

/// Nothing changes state because an agent is stopped, and when it goes on it does not make up for what it missed.
fn stopped_for(time: Duration) {
    let mut mesh = mesh("stopped", ["a", "b", "r"], QUICK);
    let relay = Way::via(&mesh.hosts[2]);
    let survivors = Survivors::of(&mesh);
    let flow = Flow::start(&mesh.hosts[0], &mesh.hosts[1], Segment::v4(1), 1000);
    mesh.agents[0].process().signal(Signal::SIGSTOP);
    let before = probes(&mesh);
    assert_eq!(watch(&mesh, time, |_| {}), [Way::Direct]);
    assert_eq!(probes(&mesh), before);
    let start = Instant::now();
    mesh.agents[0].process().signal(Signal::SIGCONT);
    assert_eq!(watch(&mesh, Duration::from_millis(500), |_| {}), [Way::Direct]);
    assert_sent_in_time(&mesh, before, start);
    flow.stop().assert_whole();
    // Stopped while the path dies: a does not notice, b does. It does when it goes on.
    mesh.agents[0].process().signal(Signal::SIGSTOP);
    let mut legs = mesh.legs(0, 1);
    legs.iter_mut().for_each(Leg::cut);
    mesh.paths[1].wait_way(&mesh.hosts[0], &relay, LIMIT);
    assert_eq!(watch(&mesh, Duration::from_secs(1), |_| {}), [Way::Direct]);
    mesh.agents[0].process().signal(Signal::SIGCONT);
    mesh.paths[0].wait_way(&mesh.hosts[1], &relay, Duration::from_secs(2));
    survivors.wait_more();
    legs.iter_mut().for_each(Leg::heal);
    mesh.wait_ways(0, 1, &Way::Direct, LIMIT);
    survivors.stop();
}

/// An hour ahead, then one behind: time of day is nothing to a path.
#[test]
fn time_stepped() {
    let mut mesh = mesh("time", ["a", "b", "r"], QUICK);
    let clock = Clock::new(&mesh.lab);
    mesh.agents.remove(0).kill();
    let environment = clock.environment();
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut agent = mesh.hosts[0].attach_in(&environment, "eth0", &["--config", &mesh.file]);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", agent.process().pid())).expect("its memory");
    assert!(maps.contains("clock.so"), "it has the right time");
    let flow = Flow::start(&mesh.hosts[0], &mesh.hosts[1], Segment::v4(1), 1000);
    for seconds in [3600, -3600, 0] {
        let (start, before) = (Instant::now(), probes(&mesh));
        clock.set(seconds);
        assert_eq!(watch(&mesh, Duration::from_secs(1), |_| {}), [Way::Direct], "{seconds} s");
        assert_sent_in_time(&mesh, before, start);
    }
    flow.stop().assert_whole();
}

/// Killed while a relay is in use: frames go on that way; the next agent adopts it.
#[test]
fn agent_restarted_in_the_middle() {
    let mut mesh = mesh("restarted", ["a", "b", "r"], QUICK);
    let relay = Way::via(&mesh.hosts[2]);
    let survivors = Survivors::of(&mesh);
    let mut legs = mesh.legs(0, 1);
    legs.iter_mut().for_each(Leg::cut);
    mesh.wait_ways(0, 1, &relay, LIMIT);
    let flow = Flow::start(&mesh.hosts[0], &mesh.hosts[1], Segment::v4(1), 1000);
    mesh.agents.remove(0).kill();
    assert_eq!(watch(&mesh, Duration::from_secs(1), |_| {}), std::slice::from_ref(&relay));
    let again = mesh.attach_again(0, "auto");
    assert_eq!(watch(&mesh, Duration::from_secs(1), |_| {}), std::slice::from_ref(&relay));
    flow.wait_more(100);
    flow.stop().assert_whole();
    // Killed, it does not see that the path is back either.
    again.kill();
    legs.iter_mut().for_each(Leg::heal);
    mesh.paths[1].wait_way(&mesh.hosts[0], &Way::Direct, LIMIT);
    assert_eq!(watch(&mesh, Duration::from_millis(500), |_| {}), [relay]);
    let flow = Flow::start(&mesh.hosts[0], &mesh.hosts[1], Segment::v4(1), 1000);
    let _again = mesh.attach_again(0, "auto");
    mesh.paths[0].wait_way(&mesh.hosts[1], &Way::Direct, LIMIT);
    flow.wait_more(100);
    flow.stop().assert_whole();
    survivors.stop();
}
