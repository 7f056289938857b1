//! Agents that are killed, restarted, upgraded and rolled back under numbered datagrams: none is lost, and nothing is left over.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use l2mesh_tests::flow::{Flow, FlowReport};
use l2mesh_tests::steady::Steady;
use l2mesh_tests::{Agent, Host, Lab, MacAddr, State, Wiring, mesh, traffic};

/// Two hosts in network 16 as 10.8.0.1 and 10.8.0.2, both to be attached with `--persist`.
struct Two {
    a: Host,
    b: Host,
    _lab: Lab,
}

/// What could be left over on a host.
#[derive(Debug)]
struct Held {
    state: State,
    /// Descriptors of the agent.
    descriptors: usize,
    /// Programs, maps and links of the whole machine, if the test is alone there.
    objects: Option<[usize; 3]>,
}

impl Two {
    fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let [a, b] = lab.pair(["a", "b"], &Wiring::default());
        Self { a, b, _lab: lab }
    }

    #[track_caller]
    fn attach(&self, host: &Host, binary: &Path, mode: &str) -> Agent {
        let (peer, address) = if host.name() == "a" { (&self.b, "10.8.0.1/24") } else { (&self.a, "10.8.0.2/24") };
        let peer = peer.address().to_string();
        let args = ["--vni", "16", "--peer", &peer, "--address", address, "--mode", mode, "--persist"];
        host.attach_by(binary, &[], "eth0", &args)
    }

    fn held(&self, agent: &mut Agent, is_alone: bool) -> Held {
        let pid = agent.process().pid();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a live agent").count();
        let objects = is_alone.then(|| [loaded_programs().count(), loaded_maps().count(), loaded_links().count()]);
        Held { state: without_ids(&self.a), descriptors, objects }
    }
}

/// The state of a host but for the ids of programs, which are others after each attach.
fn without_ids(host: &Host) -> State {
    host.state().map_lines(|line| match (line.split_once("gress: "), line.split_once("{\"attached\"")) {
        (Some((place, program)), _) => format!("{place}gress: {}", program.split_once(' ').map_or(program, |it| it.1)),
        (_, Some((link, xdp))) => format!("{link} {}", xdp.matches("underlay_xdp").count()),
        _ => line.to_owned(),
    })
}

/// What happens to an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// SIGKILL, and attach again.
    Kill,
    /// SIGTERM, and attach again.
    Restart,
    /// SIGTERM, and the other build attaches; the first build when that was the other: a rollback.
    Upgrade,
}

/// So many of each, with as many controls in between, under `rate` datagrams a second in both directions together.
fn run(mode: &str, kills: usize, restarts: usize, upgrades: usize, rate: u64, is_alone: bool) {
    let two = Two::new("upgrade");
    let builds = [mesh::binary(), mesh::other_layout()];
    let _b = two.attach(&two.b, &builds[0], mode);
    two.attach(&two.a, &builds[0], mode).stop();
    // What adopts holds no links of its own making.
    let mut agent = two.attach(&two.a, &builds[0], mode);
    assert_eq!(traffic::ping(&two.a, [10, 8, 0, 2], 3).lost(), 0);
    let before = two.held(&mut agent, is_alone);
    let counted = two.a.counter("received");
    let bulk = is_alone.then(|| Steady::bulk(&two.a, &two.b, [10, 8, 0, 2]));
    let events = [(Event::Kill, kills), (Event::Restart, restarts), (Event::Upgrade, upgrades)];
    let (mut late, mut silence) = ([0_u64; 2], [Duration::ZERO; 2]);
    let mut build = 0;
    for event in events.iter().flat_map(|(event, count)| std::iter::repeat_n(*event, *count)) {
        let mut took = Duration::from_millis(300);
        // As long as it takes, and with nothing happening.
        for is_event in [true, false] {
            let flows = [(&two.a, &two.b, [10, 8, 0, 2]), (&two.b, &two.a, [10, 8, 0, 1])];
            let flows = flows.map(|(from, to, address)| Flow::start(from, to, address, rate / 2));
            let start = std::time::Instant::now();
            if is_event {
                build = if event == Event::Upgrade { 1 - build } else { build };
                if event == Event::Kill {
                    agent.kill();
                } else {
                    agent.stop();
                }
                agent = two.attach(&two.a, &builds[build], mode);
                took = start.elapsed();
            } else {
                std::thread::sleep(took);
            }
            flows.iter().for_each(|flow| flow.wait_more(rate / 20));
            let reports = flows.map(Flow::stop);
            reports.iter().for_each(FlowReport::assert_whole);
            late[usize::from(is_event)] += reports.iter().map(|report| report.late).sum::<u64>();
            if let Some(bulk) = &bulk {
                silence[usize::from(is_event)] = silence[usize::from(is_event)].max(bulk.take_silence());
            }
        }
    }
    println!(
        "{mode}: {} late with events, {} without; TCP silent for {:?} and {:?}",
        late[1], late[0], silence[1], silence[0]
    );
    // Softirqs that change their processor let some overtake others with and without events.
    assert!(late[1] <= 2 * late[0] + 100, "{late:?}");
    if let Some(bulk) = bulk {
        bulk.stop();
    }
    if build == 1 {
        agent.stop();
        agent = two.attach(&two.a, &builds[0], mode);
    }
    assert!(two.a.counter("received") > counted, "the counters go on");
    let after = two.held(&mut agent, is_alone);
    after.state.assert_is(&before.state);
    assert_eq!((after.descriptors, after.objects), (before.descriptors, before.objects));
}

#[test]
fn nobody_notices_in_mode_tc() {
    run("tc", 1, 1, 2, 20_000, false);
}

#[test]
fn nobody_notices_in_mode_xdp() {
    run("xdp", 1, 0, 2, 20_000, false);
}

/// `cargo test -p l2mesh-tests --test upgrade -- --ignored --nocapture --test-threads=1`
#[test]
#[ignore = "takes minutes, and nobody else may use BPF meanwhile"]
fn fifty_kills_fifty_restarts_twenty_upgrades() {
    let rate = env::var("RATE").ok().and_then(|rate| rate.parse().ok()).unwrap_or(50_000);
    run("tc", 50, 50, 20, rate, true);
}

/// What is carried over by an upgrade to another layout, and what begins anew and says so.
#[test]
fn other_layout() {
    let two = Two::new("other layout");
    let builds = [mesh::binary(), mesh::other_layout()];
    let _b = two.attach(&two.b, &builds[0], "tc");
    two.attach(&two.a, &builds[0], "tc").stop();
    assert_eq!(traffic::ping(&two.a, [10, 8, 0, 2], 3).lost(), 0);
    let mac: MacAddr = two.b.mac("l2m10");
    assert!(two.a.mac_row(mac).is_some());
    let received = two.a.counter("received");
    let mut agent = two.attach(&two.a, &builds[1], "tc");
    let line = agent.process().wait_log_line("another version", Duration::from_secs(1));
    assert!(line.ends_with("these tables begin anew: FDB"), "{line}");
    // The first build cannot read them now.
    assert!(two.a.l2mesh_refuses(&["status"]).contains("attached by another version"));
    agent.stop();
    // Back again.
    let _agent = two.attach(&two.a, &builds[0], "tc");
    assert!(two.a.counter("received") >= received, "counters go on");
    assert_eq!(traffic::ping(&two.a, [10, 8, 0, 2], 3).lost(), 0);
    assert!(two.a.mac_row(mac).is_some(), "learned again");
}

/// A layout that cannot be taken over is refused before anything is lost.
#[test]
fn a_layout_that_nobody_knows() {
    let two = Two::new("nobody knows");
    let binary = mesh::binary();
    let _b = two.attach(&two.b, &binary, "tc");
    two.attach(&two.a, &binary, "tc").stop();
    two.a.pinned("eth0").set_layout(77);
    let before = two.a.state();
    let peer = two.b.address().to_string();
    let said = two.a.l2mesh_refuses(&["attach", "--iface", "eth0", "--vni", "16", "--peer", &peer]);
    assert!(said.contains("keeps forwarding as before") && said.contains("`l2mesh detach --iface eth0`"), "{said}");
    two.a.assert_state(&before);
    assert_eq!(traffic::ping(&two.a, [10, 8, 0, 2], 3).lost(), 0);
    // What it names works.
    assert!(two.a.try_l2mesh(&["detach", "--iface", "eth0"]).success());
    let _agent = two.attach(&two.a, &binary, "tc");
    assert_eq!(traffic::ping(&two.a, [10, 8, 0, 2], 3).lost(), 0);
}
