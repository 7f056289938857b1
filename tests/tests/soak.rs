//! Three hosts at full load while links are cut at random and the configuration changes: agents that stay as they are, and say nothing
//! without a cause.

use std::env;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use l2mesh_tests::flow::Flow;
use l2mesh_tests::steady::Steady;
use l2mesh_tests::traffic::{self, Iperf};
use l2mesh_tests::{Plan, RelayMesh, Segment, wait_for};
use nix::sys::signal::Signal;

/// How long, unless `SOAK` says so, seconds.
const LENGTH: u64 = 20 * 60;
/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Memory at the end, over that after a quarter of the time, per cent.
const GROWTH: u64 = 5;

/// What an agent may say while links are cut: of paths, and of next hops.
const CAUSED: [&str; 9] = [
    // One host takes a change up before the other.
    "its configuration says something else",
    // Whoever comes with the fifth change, and is not there.
    "later (198.51.100.77)",
    "frames go through",
    "frames go directly",
    "no path is up",
    "octets of a packet arrive",
    "more events of the kind path",
    "no answer from the next hop",
    "cannot be reached",
];

/// Lines of the files that hosts are told to take up, one after another.
const CHANGES: [&str; 5] = [
    "",
    "storm-limit = 5000\n",
    "[[network]]\nname = \"second\"\nvni = 17\n",
    "[[network.mac]]\nmac = \"02:00:00:00:00:77\"\nnode = \"r\"\n",
    "[[node]]\nname = \"later\"\naddress = \"198.51.100.77\"\n",
];

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// `SOAK=60 cargo test -p l2mesh-tests --test soak -- --ignored --nocapture`: a minute instead of twenty.
#[test]
#[ignore = "twenty minutes"]
fn full_load_reloads_and_cuts() {
    let length = env::var("SOAK").ok().map_or(LENGTH, |text| text.parse().expect("SOAK: seconds"));
    soak(Duration::from_secs(length));
}

#[test]
fn some_reloads_and_cuts() {
    soak(Duration::from_secs(8));
}

fn soak(length: Duration) {
    let seed = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos();
    println!("seed {seed}");
    let mut dice = Dice(u64::from(seed) | 1);
    let mut mesh = RelayMesh::<3>::up("soak", ["a", "b", "r"], 1, &Plan::default());
    let [a, b, r] = &mesh.hosts;
    let load =
        [Steady::bulk(a, b, Segment::v4(1)), Steady::bulk(b, r, Segment::v4(2)), Steady::idle(r, a, Segment::v4(0))];
    let flows = [Flow::start(a, b, Segment::v4(1), 10_000), Flow::start(b, r, Segment::v4(2), 10_000)];
    let stop = Arc::new(AtomicBool::new(false));
    // What is left of the machine.
    let bulk = thread::spawn({
        let (stop, mut iperf, from) = (Arc::clone(&stop), Iperf::serve(a, Segment::v4(0)), r.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                iperf.tcp(&from, Duration::from_secs(2), 1);
            }
        }
    });
    let text = fs::read_to_string(&mesh.file).expect("the file");
    let start = Instant::now();
    let (mut early, mut reloads, mut cuts) = (None, 0_u32, 0_u32);
    while start.elapsed() < length {
        if early.is_none() && start.elapsed() >= length / 4 {
            early = Some(memory(&mut mesh));
        }
        if dice.below(3) == 0 {
            cuts += 1;
            // Never the relay: whoever has no path left may lose more than a moment.
            let legs = mesh.legs(0, 1);
            let [mut there, mut back] = legs;
            if dice.below(2) == 0 {
                there.cut();
            }
            back.cut();
            thread::sleep(Duration::from_millis(500 + dice.below(1_500)));
            there.heal();
            back.heal();
        } else {
            reloads += 1;
            let more = CHANGES[usize::try_from(dice.below(CHANGES.len() as u64)).expect("few")];
            fs::write(&mesh.file, format!("{text}{more}")).expect("the file");
            for place in 0..mesh.agents.len() {
                mesh.agents[place].process().signal(Signal::SIGHUP);
                let host = &mesh.hosts[place];
                wait_for(&format!("{} takes up {more:?}", host.name()), LIMIT, || {
                    let has_second = host.try_link("l2m11").is_some();
                    if has_second == more.contains("second") { Ok(()) } else { Err(has_second.to_string()) }
                });
            }
        }
        thread::sleep(Duration::from_millis(dice.below(500)));
    }
    let late = memory(&mut mesh);
    stop.store(true, Ordering::Relaxed);
    bulk.join().expect("TCP that does not break");
    let octets: u64 = load.into_iter().map(|steady| steady.stop().octets).sum();
    let reports = flows.map(Flow::stop);
    println!("{reloads} reloads, {cuts} cuts, {octets} octets, {reports:?}; memory {early:?} {late:?} KiB");
    assert!(reports.iter().all(|report| report.duplicates == 0), "{reports:?}");
    for (host, other) in [(0, 1), (1, 2), (2, 0)] {
        let report = traffic::ping(&mesh.hosts[host], Segment::v4(other), 3);
        assert_eq!(report.lost(), 0, "{host} {other}");
    }
    let early = early.expect("a quarter of the time");
    for ((place, early), late) in early.iter().enumerate().zip(&late) {
        assert!(
            late.0 * 100 <= early.0 * (100 + GROWTH),
            "{}: {early:?} KiB and descriptors, then {late:?}",
            mesh.hosts[place].name()
        );
        assert!(late.1 <= early.1 + 4, "{}: {early:?} KiB and descriptors, then {late:?}", mesh.hosts[place].name());
    }
    for agent in &mut mesh.agents {
        let log = agent.process().stderr();
        let is_caused = |line: &&str| CAUSED.iter().any(|cause| line.contains(cause));
        let other: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked"))
            .filter(|line| !is_caused(line))
            .collect();
        assert!(other.is_empty(), "{other:#?}");
    }
}

/// Memory of the agents, KiB, and their descriptors.
fn memory(mesh: &mut RelayMesh<3>) -> Vec<(u64, usize)> {
    let of = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live agent");
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a live agent").count();
        (resident.expect("a number"), descriptors)
    };
    mesh.agents.iter_mut().map(|agent| of(agent.process().pid())).collect()
}
