//! Reloads under load: frames that pass meanwhile are neither lost nor overtaken.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use l2mesh_tests::changing::{Changing, ShortcutWatch, With, probes_to_b};
use l2mesh_tests::flow::{Flow, FlowReport};
use l2mesh_tests::steady::Steady;
use l2mesh_tests::{Host, Paths, traffic};

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that lives").count()
}

/// Memory of a process, KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

fn macs_behind_b(a: &Host) -> Vec<String> {
    let macs = a.l2mesh(&["maps", "macs", "--json"]);
    let rows = macs["macs"].as_array().into_iter().flatten().filter(|row| row["peer"] == "b");
    rows.map(|row| row["mac"].to_string()).collect()
}

/// One reload for each file.
#[track_caller]
fn cycle(mesh: &Changing) {
    for with in With::FILES[1..].iter().chain(&With::FILES[..1]) {
        mesh.write(with);
        let changes = mesh.does("reload");
        assert_ne!(changes, ["nothing changed"], "{with:?}");
    }
}

/// Reloads so often under numbered datagrams both ways.
#[track_caller]
fn under_traffic(mode: &str, reloads: usize, rate: u64) {
    let mesh = Changing::new("reload under traffic");
    let mut agent = mesh.attach(&["--mode", mode]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 3).lost(), 0);
    let pid = agent.process().pid();
    let nonce = || Paths::of(a).path(b, 0).0.nonce;
    // What is allocated once is.
    cycle(&mesh);
    let (state, before, opened) = (a.state(), nonce(), descriptors(pid));
    let known = macs_behind_b(a);
    assert!(!known.is_empty(), "b is known");
    let received = a.counter("received");
    let flows = [(a, b, [10, 8, 0, 2]), (b, a, [10, 8, 0, 1])];
    let flows = flows.map(|(from, to, address)| Flow::start(from, to, address, rate / 2));
    a.wait_transmit("egress shortcut");
    let (used, shortcut, probes) = (memory(pid), ShortcutWatch::start(a, "l2m10"), probes_to_b(a));
    for _ in 0..reloads.div_ceil(With::FILES.len()) {
        cycle(&mesh);
        flows.iter().for_each(|flow| flow.wait_more(rate / 100));
    }
    let more = memory(pid).saturating_sub(used);
    let (looks, closed) = shortcut.stop();
    assert!(looks > 100 && closed == 0, "the shortcut was closed {closed} of {looks} times");
    let sent = probes_to_b(a);
    assert!(sent >= probes + 5, "the prober has forgotten what it knew of b: {sent} probes, {probes} before");
    let reports: [FlowReport; 2] = flows.map(Flow::stop);
    println!("{mode}: {more} KiB more of {used}");
    for report in &reports {
        println!(
            "{mode}: {} sent, {} lost, {} late, by {} at most",
            report.sent, report.lost, report.late, report.farthest
        );
        report.assert_whole();
    }
    assert!(reports.iter().all(|report| report.late * 1000 <= report.sent), "overtaken: {reports:?}");
    if reloads >= 100 {
        // As long without any reload: what overtakes then is the machine's.
        let flows = [(a, b, [10, 8, 0, 2]), (b, a, [10, 8, 0, 1])];
        let flows = flows.map(|(from, to, address)| Flow::start(from, to, address, rate / 2));
        for _ in 0..reports[0].sent / rate * 2 {
            flows.iter().for_each(|flow| flow.wait_more(rate / 2));
        }
        for report in flows.map(Flow::stop) {
            println!("{mode}, nothing reloaded: {} sent, {} lost, {} late", report.sent, report.lost, report.late);
        }
    }
    assert!(a.counter("received") > received, "counters are kept");
    assert_eq!(nonce(), before, "the path to b goes on");
    for mac in &known {
        assert!(macs_behind_b(a).contains(mac), "{mac} is forgotten");
    }
    let log = agent.process().stderr();
    let is_path = |line: &str| line.contains(" b (") && (line.contains("frames go") || line.contains("no path"));
    assert!(!log.lines().any(is_path), "nothing happens to the path to b: {log}");
    assert_eq!(descriptors(pid), opened, "descriptors of the agent");
    assert!(more <= 256 + used / 20, "{more} KiB more of {used}");
    a.assert_state(&state);
}

#[test]
fn reload_under_traffic_in_mode_tc() {
    under_traffic("tc", 12, 20_000);
}

#[test]
fn reload_under_traffic_in_mode_xdp() {
    under_traffic("xdp", 12, 20_000);
}

#[test]
#[ignore = "100 reloads in each mode: cargo test -p l2mesh-tests --test reload_traffic -- --ignored --nocapture"]
fn a_hundred_reloads() {
    for mode in ["tc", "xdp"] {
        under_traffic(mode, 100, 50_000);
        beside_bulk(mode, 100, 50_000);
    }
}

/// With bulk TCP beside it, where the machine loses some by itself: not more than with nothing happening, in turns.
#[track_caller]
fn beside_bulk(mode: &str, reloads: usize, rate: u64) {
    let mesh = Changing::new("reload beside bulk");
    let _agent = mesh.attach(&["--mode", mode]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 3).lost(), 0);
    cycle(&mesh);
    let bulk = Steady::bulk(a, b, [10, 8, 0, 2]);
    bulk.wait_more();
    let (mut sent, mut lost, mut late, mut silence) = ([0; 2], [0; 2], [0; 2], [Duration::ZERO; 2]);
    for _ in 0..reloads.div_ceil(With::FILES.len()) {
        let mut took = Duration::ZERO;
        for turn in [0, 1] {
            let flows = [(a, b, [10, 8, 0, 2]), (b, a, [10, 8, 0, 1])];
            let flows = flows.map(|(from, to, address)| Flow::start(from, to, address, rate / 2));
            let _before = bulk.take_silence();
            let start = Instant::now();
            if turn == 0 {
                cycle(&mesh);
                took = start.elapsed();
            } else {
                // As long as it took.
                thread::sleep(took);
            }
            flows.iter().for_each(|flow| flow.wait_more(rate / 20));
            silence[turn] = silence[turn].max(bulk.take_silence());
            for report in flows.map(Flow::stop) {
                assert_eq!(report.duplicates, 0, "{report:?}");
                (sent[turn], lost[turn], late[turn]) =
                    (sent[turn] + report.sent, lost[turn] + report.lost, late[turn] + report.late);
            }
        }
    }
    let octets = bulk.stop().octets;
    println!(
        "{mode}, beside {octets} octets of TCP; with reloads, without: {sent:?} sent, {lost:?} lost, {late:?} late, \
         TCP silent for {silence:?}"
    );
    assert!(lost[0] <= 2 * lost[1] + 5, "with reloads {} are lost, without {}", lost[0], lost[1]);
    assert!(late[0] <= 2 * late[1] + 100, "with reloads {} are late, without {}", late[0], late[1]);
    assert!(silence[0] <= 2 * silence[1] + Duration::from_millis(100), "{silence:?}");
}

#[test]
fn reload_beside_bulk() {
    beside_bulk("tc", 6, 10_000);
}
