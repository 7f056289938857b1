//! MAC addresses that move too often, and peers with too many of them.

use std::time::Duration;

use l2mesh_tests::storm::Storm;
use l2mesh_tests::{Agent, File, Frame, Host, Lab, MacAddr, Segment, Tap, Wiring, taps, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// A station behind one host or another.
const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// A station out of many.
fn station(nth: u16) -> MacAddr {
    let [high, low] = nth.to_be_bytes();
    MacAddr([2, 0, 0, 1, high, low])
}

/// Lines of an agent's log with a word in them.
fn log_lines(agent: &mut Agent, word: &str) -> Vec<String> {
    agent.process().stderr().lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}

/// Three hosts on a switch with a tap on each.
fn three(lab: &Lab, args: &[&str], file: File<'_>) -> ([Host; 3], Vec<Agent>, [Tap; 3]) {
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let agents = Segment { nodes: &hosts, plain: &[], args, file: Some(file) }.up(lab);
    let taps = taps(&hosts, &[]).try_into().expect("three");
    (hosts, agents, taps)
}

/// The station speaks behind b (1) or c (2), and a hears it: its frame is delivered.
#[track_caller]
fn speaks([a, b, c]: &mut [Tap; 3], place: usize, source: MacAddr) {
    static TIMES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let nth = TIMES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let hello = Frame::unknown(a.mac(), source, format!("here I am {nth}").as_bytes());
    [b, c][place - 1].send(&hello);
    a.wait_frame("the station", LIMIT, |frame| frame.is_padded(&hello));
}

/// Where a thinks it is.
#[track_caller]
fn peer_of(a: &Host, mac: MacAddr) -> Option<String> {
    a.mac_row(mac).map(|row| row["peer"].as_str().unwrap_or_default().to_owned())
}

/// Twenty moves in two seconds: it stays where it was longest, everything arrives, and later it may move again.
#[test]
fn a_mac_that_moves_too_often_is_frozen_for_a_while() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("freeze");
        let file = File { underlay: "move-freeze = \"3s\"", network: "", ..File::default() };
        let (hosts, mut agents, mut taps) = three(&lab, &["--mode", mode], file);
        let [a, ..] = &hosts;
        speaks(&mut taps, 1, STATION);
        // Longest at b; the moves give c more than b.
        std::thread::sleep(Duration::from_millis(1_500));
        for _ in 0..10 {
            speaks(&mut taps, 2, STATION);
            std::thread::sleep(Duration::from_millis(120));
            speaks(&mut taps, 1, STATION);
            std::thread::sleep(Duration::from_millis(60));
        }
        let row = a.mac_row(STATION).expect("the station");
        let counts = ["moved", "frozen", "frozen-elsewhere"].map(|verdict| a.counter(verdict));
        println!("{mode}: {row} {counts:?}");
        assert_eq!((row["peer"].as_str(), row["moves"].as_u64()), (Some("b"), Some(6)), "{row}");
        assert!(row["frozen"].as_f64().is_some_and(|left| left > 0.0 && left <= 3.0), "{row}");
        // The sixth move was to b; of the fourteen frames that follow seven come from c.
        assert_eq!(counts, [6, 1, 7]);
        let frame = Frame::unknown(STATION, taps[0].mac(), b"to the station");
        taps[0].send(&frame);
        let marker = taps[0].send_marker(taps[0].mac());
        let [_, b, c] = &mut taps;
        assert_eq!([b, c].map(|tap| tap.count_until(&frame, &marker, LIMIT)), [1, 0]);
        let line = agents[0].process().wait_log_line("02:00:00:00:00:09 moved more than 5 times in 10 s", LIMIT);
        assert!(line.contains("for 3 s it stays behind b"), "{line}");
        a.assert_event("moved", Segment::VNI, "02:00:00:00:00:09 moved from");
        a.assert_event("frozen", Segment::VNI, "for 3 s it stays behind b");
        wait_for("it is no longer frozen", LIMIT, || {
            let row = a.mac_row(STATION).expect("the station");
            if row["frozen"].is_null() { Ok(()) } else { Err(row.to_string()) }
        });
        speaks(&mut taps, 2, STATION);
        assert_eq!(peer_of(a, STATION).as_deref(), Some("c"), "after the frost");
        assert!(log_lines(&mut agents[0], "02:00:00:00:00:09").len() <= 3, "{}", agents[0].process().stderr());
    }
}

/// A failover and its end, and once more: no loop.
#[test]
fn a_mac_that_moves_in_measure_is_followed() {
    let lab = Lab::new("no freeze");
    let file = File { underlay: "", network: "", ..File::default() };
    let (hosts, _agents, mut taps) = three(&lab, &[], file);
    for (place, peer) in [(1, "b"), (2, "c"), (1, "b"), (2, "c"), (1, "b"), (2, "c")] {
        speaks(&mut taps, place, STATION);
        assert_eq!(peer_of(&hosts[0], STATION).as_deref(), Some(peer));
    }
    assert_eq!(["moved", "frozen"].map(|verdict| hosts[0].counter(verdict)), [5, 0]);
}

#[test]
fn without_a_limit_a_mac_is_never_frozen() {
    let lab = Lab::new("no limit");
    let file = File { underlay: "move-limit = 0", network: "", ..File::default() };
    let (hosts, _agents, mut taps) = three(&lab, &[], file);
    (0..20).for_each(|nth| speaks(&mut taps, 1 + nth % 2, STATION));
    assert_eq!(["moved", "frozen"].map(|verdict| hosts[0].counter(verdict)), [19, 0]);
}

/// What is configured does not move, so it does not freeze.
#[test]
fn a_static_mac_is_never_frozen() {
    let lab = Lab::new("static");
    let network = format!("[[network.mac]]\nmac = \"{STATION}\"\nnode = \"b\"");
    let (hosts, _agents, mut taps) = three(&lab, &[], File { underlay: "", network: &network, ..File::default() });
    (0..20).for_each(|nth| speaks(&mut taps, 1 + nth % 2, STATION));
    let counts = ["moved", "frozen", "frozen-elsewhere", "static-elsewhere"].map(|verdict| hosts[0].counter(verdict));
    assert_eq!(counts, [0, 0, 0, 10]);
}

/// Hundreds that move to and fro without end: some lines, not thousands.
#[test]
fn a_storm_of_moves_does_not_fill_the_log() {
    let lab = Lab::new("moves");
    let (hosts, mut agents, [_, b, c]) =
        three(&lab, &[], File { underlay: "move-limit = 0", network: "", ..File::default() });
    let (a, stations) = (hosts[0].mac("l2m0"), 300);
    let frames = |tag: &str| (0..stations).map(|nth| Frame::unknown(a, station(nth), tag.as_bytes())).collect();
    let storms = [Storm::start(b, frames("behind b")), Storm::start(c, frames("behind c"))];
    std::thread::sleep(Duration::from_secs(8));
    let sent = storms.map(|storm| storm.stop().frames);
    let moved = hosts[0].counter("moved");
    wait_for("what is over the budget is summed up", LIMIT, || {
        let lines = log_lines(&mut agents[0], "more events of the kind moved");
        if lines.is_empty() { Err(agents[0].process().stderr()) } else { Ok(()) }
    });
    let lines = log_lines(&mut agents[0], "");
    println!("{sent:?} frames, {moved} moves, {} lines", lines.len());
    assert!(moved > 1_000 && lines.len() <= 24, "{moved} moves: {}", lines.join("\n"));
}

/// How many MAC addresses a has behind b.
fn macs_behind_b(a: &Host) -> usize {
    let all = a.l2mesh(&["maps", "macs", "--json"]);
    all["macs"].as_array().into_iter().flatten().filter(|row| row["peer"] == "b").count()
}

/// From every one of these stations behind b a frame, after which a has looked at all.
#[track_caller]
fn appear(taps: &mut [Tap; 3], stations: std::ops::Range<u16>) {
    let to = taps[0].mac();
    for nth in stations {
        taps[1].send(&Frame::unknown(to, station(nth), b"here I am"));
    }
    let marker = taps[1].send_marker(station(0));
    taps[0].until(&marker, LIMIT);
}

#[test]
fn a_peer_has_so_many_macs_and_no_more() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("macs");
        let file = File { underlay: "fdb-size = 300", network: "macs-per-peer = 100", ..File::default() };
        let (hosts, mut agents, mut taps) = three(&lab, &["--mode", mode], file);
        let [a, _, _] = &hosts;
        appear(&mut taps, 0..1_000);
        assert_eq!(macs_behind_b(a), 100, "{mode}");
        // b's own interface may be one of them.
        let counts = ["peer-full", "fdb-full"].map(|verdict| a.counter(verdict));
        assert!((900..=905).contains(&counts[0]) && counts[1] == 0, "{mode}: {counts:?}");
        // Who was not learned is reached all the same: by everybody.
        let frame = Frame::unknown(station(999), taps[0].mac(), b"to the last one");
        taps[0].send(&frame);
        let marker = taps[0].send_marker(taps[0].mac());
        {
            let [_, b, c] = &mut taps;
            assert_eq!([b, c].map(|tap| tap.count_until(&frame, &marker, LIMIT)), [1, 1], "{mode}");
        }
        // Others have their own places.
        speaks(&mut taps, 2, STATION);
        assert_eq!(peer_of(a, STATION).as_deref(), Some("c"), "{mode}");
        // A full peer takes nobody's: what speaks behind it is flooded, and learned where there is room.
        speaks(&mut taps, 1, STATION);
        assert_eq!(peer_of(a, STATION), None, "{mode}");
        speaks(&mut taps, 2, STATION);
        assert_eq!(peer_of(a, STATION).as_deref(), Some("c"), "{mode}");
        // One moves away: its place is free, once.
        speaks(&mut taps, 2, station(0));
        assert_eq!((macs_behind_b(a), peer_of(a, station(0)).as_deref()), (99, Some("c")), "{mode}");
        appear(&mut taps, 500..600);
        assert_eq!(macs_behind_b(a), 100, "{mode}");
        agents[0].process().wait_log_line("b has its 100 MAC addresses (macs-per-peer)", LIMIT);
        assert_eq!(log_lines(&mut agents[0], "macs-per-peer").len(), 1, "{}", agents[0].process().stderr());
        hosts[0].assert_event("peer-full", Segment::VNI, "b has its 100 MAC addresses");
    }
}

/// A full table is told, but not with every frame.
#[test]
fn a_full_table_is_one_line() {
    let lab = Lab::new("full");
    let file = File { underlay: "fdb-size = 50", network: "", ..File::default() };
    let (hosts, mut agents, mut taps) = three(&lab, &[], file);
    (0..5).for_each(|_| appear(&mut taps, 0..500));
    let full = hosts[0].counter("fdb-full");
    assert!(full >= 5 * 449, "{full}");
    agents[0].process().wait_log_line("the MAC table is full", LIMIT);
    assert_eq!(log_lines(&mut agents[0], "table is full").len(), 1, "{}", agents[0].process().stderr());
    hosts[0].assert_event("fdb-full", Segment::VNI, "the MAC table is full");
}

/// Whoever counts, the kernel or the next agent, the count is right.
#[test]
fn macs_are_counted_anew_after_a_restart() {
    let lab = Lab::new("recount");
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let file = |network| File { underlay: "", network, ..File::default() };
    let segment = |network| Segment { nodes: &hosts, plain: &[], args: &[], file: Some(file(network)) };
    let mut agents = segment("").up(&lab);
    let mut taps: [Tap; 3] = taps(&hosts, &[]).try_into().expect("three");
    let [a, ..] = &hosts;
    appear(&mut taps, 0..80);
    let known = macs_behind_b(a);
    assert!(known >= 80, "{known}");
    for (limit, expected) in [(100, 100), (120, 120)] {
        agents.remove(0).kill();
        let path = lab.directory().join("limited.toml");
        let text = std::fs::read_to_string(lab.directory().join("mesh.toml")).expect("the segment's file");
        std::fs::write(&path, format!("{text}macs-per-peer = {limit}\n")).expect("a file in the lab's directory");
        agents.insert(0, a.attach(&["--config", &path.display().to_string()]));
        appear(&mut taps, 0..200);
        assert_eq!(macs_behind_b(a), expected);
    }
}

/// Ageing gives places back.
#[test]
fn an_aged_mac_leaves_its_place() {
    let lab = Lab::new("places");
    let file = File { underlay: "fdb-age = \"1s\"", network: "macs-per-peer = 10", ..File::default() };
    let (hosts, mut agents, mut taps) = three(&lab, &[], file);
    let [a, ..] = &hosts;
    for round in 0..3 {
        let first = round * 100;
        appear(&mut taps, first..first + 100);
        assert_eq!(macs_behind_b(a), 10, "round {round}");
        wait_for("all are forgotten", LIMIT, || match macs_behind_b(a) {
            0 => Ok(()),
            some => Err(some.to_string()),
        });
        // The count follows with the same look at the table.
        wait_for("places are free", LIMIT, || {
            speaks(&mut taps, 1, STATION);
            peer_of(a, STATION).map(drop).ok_or_else(|| "not learned".to_owned())
        });
        wait_for("the station is forgotten", LIMIT, || peer_of(a, STATION).map_or(Ok(()), Err));
    }
    assert_eq!(log_lines(&mut agents[0], "macs-per-peer").len(), 1, "{}", agents[0].process().stderr());
}
