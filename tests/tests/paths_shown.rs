//! What `maps paths`, `status` and `ping` say of paths. The agents are killed and the tests say in their place what is up: so what
//! is shown is what frames do, and nobody else changes it meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use l2mesh_common::path::{Answered, DIRECT, order, reason::Reason};
use l2mesh_common::tables::{Change, Members, OWN_NODE, PathNote, PathRx, PathTx, Peer, PeerId, Settings, path_slot};
use l2mesh_tests::foreign::{Counter, Kind};
use l2mesh_tests::mesh::sentence;
use l2mesh_tests::{
    Agent, Capture, Direction, Family, File, Host, Lab, Output, Segment, VxlanOptions, Wiring, traffic, wait_for,
};
use serde_json::Value;

/// Octets of an inner packet of the shortest probe.
const SHORTEST: u64 = 24;
const MODES: [&str; 2] = ["tc", "xdp"];

/// Three hosts of one network whose agents were killed.
fn frozen(lab: &Lab, over: Family, mode: &str) -> [Host; 3] {
    let hosts = lab.switch(["hetzner", "enovance", "ovh"], &Wiring::over(over));
    if mode == "xdp" {
        // What XDP_TX puts into the far end of a veth without an XDP program waits there for the next frame that comes
        // otherwise (`veth_xdp_flush` in drivers/net/veth.c).
        let (fabric, pass) = (lab.fabric(), Counter::load(&lab.fabric(), Kind::Xdp));
        hosts.iter().for_each(|host| pass.attach_xdp(&fabric, &host.uplink(0).port));
    }
    let args = ["--mode", mode];
    let file = Some(File::default());
    Segment { nodes: &hosts, plain: &[], args: &args, file }.up(lab).into_iter().for_each(Agent::kill);
    for (host, other) in hosts.iter().flat_map(|host| hosts.iter().map(move |other| (host, other))) {
        if host.name() != other.name() {
            set_path(host, other, DIRECT, &UP, ANSWERED);
        }
    }
    hosts
}

fn map(host: &Host, name: &str) -> MapData {
    MapData::from_pin(host.pinned("eth0").directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Changes a value of a pinned array.
fn change<V: Pod>(host: &Host, name: &str, place: u32, change: impl FnOnce(&mut V)) {
    let mut array = Array::<_, V>::try_from(Map::Array(map(host, name))).expect("an array of these values");
    let mut value = array.get(&place, 0).expect("a value");
    change(&mut value);
    array.set(place, value, 0).expect("written");
}

fn insert<V: Pod>(host: &Host, name: &str, key: u32, value: V) {
    let mut hash = HashMap::<_, u32, V>::try_from(Map::HashMap(map(host, name))).expect("a hash of these values");
    hash.insert(key, value, 0).expect("written");
}

fn id(host: &Host, other: &Host) -> PeerId {
    let id = host.peer(other)["id"].as_u64().expect("a number");
    id.try_into().expect("a small one")
}

const UP: PathTx = PathTx {
    sequence: 100,
    limit: 13,
    recover: 10,
    hold: 0,
    relay: 0,
    order: 0,
    mtu: 0,
    search: 0,
    nonce: 1,
    peer: 0,
    reserved: 0,
};
const ANSWERED: Answered = Answered { sequence: 100, streak: 10 };
/// Thirteen probes before that.
const LONG_AGO: Answered = Answered { sequence: 87, streak: 10 };

/// Says in the agent's place how a path is.
fn set_path(host: &Host, other: &Host, path: usize, tx: &PathTx, answered: Answered) {
    let slot = path_slot(id(host, other), path);
    change::<PathTx>(host, "PATH_TX", slot, |value| *value = *tx);
    change::<PathRx>(host, "PATH_RX", slot, |value| value.answered = answered.to_bits());
    change::<PathNote>(host, "PATH_NOTES", slot, |value| *value = PathNote::default());
}

/// Makes one host forward for the two others, who believe what comes through it, and have such a path to each other.
fn relay_through([a, relay, c]: &[Host; 3]) {
    let wire_id = |host: &Host| {
        let id = a.peer(host)["node_id"].as_u64().expect("a number");
        u32::try_from(id).expect("32 bits")
    };
    let own = c.peer(a)["node_id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("32 bits");
    let ids = [(a, own), (relay, wire_id(relay)), (c, wire_id(c))];
    for (host, own) in ids {
        for (other, wire_id) in ids.into_iter().filter(|(other, _)| other.name() != host.name()) {
            insert(host, "NODES", wire_id, id(host, other));
        }
        insert(host, "NODES", own, OWN_NODE);
        change::<Settings>(host, "SETTINGS", 0, |settings| settings.node_id = own);
    }
    let mut members = Members { bits: [0; 8] };
    members.add(id(relay, a));
    members.add(id(relay, c));
    insert(relay, "RELAYED", Segment::VNI, members);
    change::<Settings>(relay, "SETTINGS", 0, |settings| settings.flags |= Settings::MAY_RELAY);
    for (host, other) in [(a, c), (c, a)] {
        change::<Peer>(host, "PEERS", id(host, relay), |peer| peer.flags |= Peer::RELAY);
        set_path(host, other, 1, &PathTx { relay: id(host, relay), ..UP }, ANSWERED);
        let direct = path_slot(id(host, other), DIRECT);
        change::<PathTx>(host, "PATH_TX", direct, |tx| tx.order = order(&[1]));
    }
}

fn paths(host: &Host, other: &Host) -> Vec<Value> {
    let mut all = host.l2mesh(&["maps", "paths", "--json"]);
    let rows = all["paths"].as_array_mut().expect("rows");
    rows.iter_mut().filter(|row| row["peer"] == *other.name()).map(Value::take).collect()
}

/// Path, state, and whether frames take it.
fn seen(host: &Host, other: &Host) -> Vec<(String, String, bool)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    paths(host, other)
        .iter()
        .map(|row| (text(&row["path"]), text(&row["state"]), row["in_use"].as_bool().expect("true or false")))
        .collect()
}

fn row(path: &str, state: &str, in_use: bool) -> (String, String, bool) {
    (path.to_owned(), state.to_owned(), in_use)
}

/// Every probe is answered, in a time that is measured.
#[track_caller]
fn pinged(host: &Host, args: &[&str], path: &str, size: u64) {
    let report = host.l2mesh(&[&["ping", "--json", "--count", "3", "--interval", "10ms"], args].concat());
    assert_eq!(
        (&report["sent"], &report["answered"], &report["size"]),
        (&3.into(), &3.into(), &size.into()),
        "{report}"
    );
    for probe in report["probes"].as_array().expect("probes") {
        let rtt = probe["rtt_ms"].as_f64().expect("a time");
        assert!(rtt > 0.001 && rtt < 1000.0 && probe["path"] == *path, "{report}");
    }
}

#[track_caller]
fn not_answered(host: &Host, args: &[&str]) -> Output {
    let output =
        host.try_l2mesh(&[&["ping", "--count", "2", "--interval", "10ms", "--timeout", "100ms"], args].concat());
    assert_eq!(output.code, Some(1), "{output:?}");
    output
}

/// What it says when nothing was answered: the result, and a sentence.
#[track_caller]
fn last_words(output: &Output) -> (&str, &str) {
    let result = output.stdout.lines().last().expect("a result");
    (result, output.stderr.trim_end().strip_prefix("l2mesh: ").expect("a sentence"))
}

#[test]
fn ping_is_answered_by_the_far_end_without_agents() {
    for (over, mode) in [Family::V4, Family::V6].into_iter().flat_map(|over| MODES.map(|mode| (over, mode))) {
        let lab = Lab::new("ping");
        let [a, b, _c] = frozen(&lab, over, mode);
        let counters = || (b.counter("probe-reflected"), a.counter("probe-answered"));
        let before = counters();
        let capture = Capture::start(&a, "eth0", Direction::Out, "udp port 4789");
        pinged(&a, &["enovance"], "direct", SHORTEST);
        pinged(&a, &[&b.vtep().to_string(), "--via", "direct"], "direct", SHORTEST);
        assert_eq!(counters(), (before.0 + 6, before.1 + 6), "{over:?} {mode}");
        let sent = capture.stop();
        // As data: no checksum, no fragments.
        let plain = match over {
            Family::V4 => "udp.dstport == 4789 && udp.checksum == 0 && ip.flags.df == 1 && udp.length == 54",
            Family::V6 => "udp.dstport == 4789 && udp.checksum == 0 && udp.length == 54",
        };
        assert_eq!(sent.count(plain), 6, "{over:?} {mode}");

        // Exactly as long as the wire takes, and one more.
        let mtu = a.peer(&b)["mtu"].as_u64().expect("a number");
        pinged(&a, &["enovance", "--size", &mtu.to_string()], "direct", mtu);
        let output = not_answered(&a, &["enovance", "--size", &(mtu + 1).to_string()]);
        let (result, says) = last_words(&output);
        assert_eq!(result, "0 probes sent, 0 answered");
        let expected =
            format!("no probe could be sent to enovance: longer than this host's way there takes (MTU {mtu})");
        assert_eq!(says, expected);

        let text = a.l2mesh_text(&["ping", "enovance", "--count", "1"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], format!("enovance ({}) direct, packets of 24 octets", b.vtep()));
        assert!(lines[1].starts_with("24 octets from enovance: seq=1 time=") && lines[1].ends_with(" ms"), "{text}");
        assert!(lines[2].starts_with("1 probes sent, 1 answered, 0% lost; round trip min/median/max 0."), "{text}");
    }
}

#[test]
fn ping_that_nobody_answers() {
    let lab = Lab::new("ping lost");
    let [a, b, _c] = frozen(&lab, Family::V4, "tc");
    lab.cut(&a, &b);
    let output = not_answered(&a, &["enovance"]);
    let (result, says) = last_words(&output);
    assert_eq!(result, "2 probes sent, 0 answered, 100% lost");
    assert!(says.starts_with("enovance answered none of 2 probes: "), "{says}");
    assert!(output.stdout.contains("no answer from enovance: seq=2 within 100ms\n"), "{output:?}");
    lab.heal(&a, &b);
    // What comes of it later is nobody's any more.
    pinged(&a, &["enovance"], "direct", SHORTEST);
}

#[test]
fn ping_goes_through_a_relay_and_follows_the_path_in_use() {
    for mode in MODES {
        let lab = Lab::new("ping relayed");
        let hosts = frozen(&lab, Family::V4, mode);
        relay_through(&hosts);
        let [a, b, c] = &hosts;
        let counters = || (b.counter("relayed"), c.counter("probe-reflected"));
        let before = counters();
        pinged(a, &["ovh", "--via", "enovance"], "via enovance", SHORTEST);
        assert_eq!(counters(), (before.0 + 6, before.1 + 3), "{mode}: there and back");
        pinged(a, &["ovh"], "direct", SHORTEST);
        lab.cut(a, c);
        set_path(a, c, DIRECT, &PathTx { order: order(&[1]), ..UP }, LONG_AGO);
        pinged(a, &["ovh"], "via enovance", SHORTEST);
        let output = not_answered(a, &["ovh", "--via", "direct"]);
        assert!(output.stdout.starts_with(&format!("ovh ({}) direct, packets", c.vtep())), "{output:?}");
        let text = a.l2mesh_text(&["ping", "ovh", "--count", "1"]);
        assert!(text.contains("\n24 octets from ovh via enovance: seq=1 time="), "{text}");
        // And data as well.
        set_path(c, a, DIRECT, &PathTx { order: order(&[1]), ..UP }, LONG_AGO);
        assert_eq!(traffic::ping(a, Segment::v4(2), 3).lost(), 0);
        assert!(a.counter("sent-relayed") >= 3 && c.counter("received-relayed") >= 3);
    }
}

#[test]
fn ping_refuses_what_cannot_be() {
    let lab = Lab::new("ping refused");
    let hosts = lab.switch(["a", "b", "old-box"], &Wiring::default());
    let [a, b, old] = &hosts;
    let (nodes, plain) = ([a.clone(), b.clone()], [old.clone()]);
    let segment = Segment { nodes: &nodes, plain: &plain, args: &[], file: Some(File::default()) };
    let _agents = segment.up(&lab);
    segment.plain_up(&VxlanOptions::default());
    for (args, says) in [
        (&["c"][..], "no peer is called \"c\": there are b, old-box"),
        (&["a"], "a is this node itself: name another, one of b, old-box"),
        (&["old-box"], "old-box is a plain vxlan device, which does not know probes: ping it inside the network"),
        (&["b", "--via", "b"], "b is no way to itself: --via direct is the path without a relay"),
        (
            &["b", "--via", "old-box"],
            "old-box does not relay, and nobody else does: `relay = true` at its [[node]] allows it",
        ),
    ] {
        assert_eq!(a.l2mesh_refuses(&[&["ping"], args].concat()), says);
    }
    // With an agent as without.
    pinged(a, &["b"], "direct", SHORTEST);
    let not_probed = a.l2mesh(&["maps", "paths", "--json"]);
    let rows = not_probed["paths"].as_array().expect("rows").iter().find(|row| row["peer"] == "old-box");
    assert_eq!(rows.map(|row| &row["state"]), Some(&"not probed: always up".into()), "{not_probed}");
}

#[test]
fn ping_in_mode_kernel() {
    let lab = Lab::new("ping kernel");
    let hosts = lab.switch(["a", "b"], &Wiring::default());
    let text = hosts.each_ref().map(|host| {
        format!(
            "[[node]]\nname = \"{}\"\naddress = \"{}\"\nprobes = {}\n",
            host.name(),
            host.vtep(),
            host.name() != "a"
        )
    });
    let path = lab.directory().join("mesh.toml");
    let network = "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n";
    std::fs::write(&path, text.concat() + network).expect("a file in the lab's directory");
    let path = path.display().to_string();
    let [a, b] = &hosts;
    let _agents = [(a, "kernel"), (b, "tc")].map(|(host, mode)| host.attach(&["--config", &path, "--mode", mode]));
    let says = a.l2mesh_refuses(&["ping", "b"]);
    assert_eq!(says, "eth0 is in mode kernel, which knows no probes: ping inside the network");
    let output = not_answered(b, &["a"]);
    let (_, says) = last_words(&output);
    assert!(says.contains("(probes = false, udp-checksum): ping it inside the network"), "{says}");
    assert_eq!(seen(b, a), [row("direct", "not probed: always up", true)]);
}

#[test]
fn four_pings_at_once() {
    let lab = Lab::new("pings");
    let [a, b, _c] = frozen(&lab, Family::V4, "tc");
    let args = ["ping", "enovance", "--count", "1000", "--interval", "10ms"];
    let mut others: Vec<_> = (0..4).map(|_| a.spawn_l2mesh(&args)).collect();
    for other in &mut others {
        other.wait_log_line("seq=1 time=", Duration::from_secs(5));
    }
    let says = a.l2mesh_refuses(&["ping", "enovance"]);
    assert!(says.starts_with("4 pings run on eth0 already"), "{says}");
    let mut first = others.remove(0);
    first.signal(nix::sys::signal::Signal::SIGINT);
    let status = first.wait_exit(Duration::from_secs(5));
    assert!(status.success() && first.stdout().contains("round trip min/median/max"), "{}", first.last_words());
    pinged(&a, &["enovance"], "direct", SHORTEST);
    assert_eq!(a.counter("probe-forged") + a.counter("probe-late") + b.counter("probe-flood"), 0);
}

#[test]
fn maps_and_status_show_the_path_that_frames_take() {
    let lab = Lab::new("paths shown");
    let hosts = frozen(&lab, Family::V4, "tc");
    relay_through(&hosts);
    let [a, b, c] = &hosts;
    assert_eq!(seen(a, b), [row("direct", "up", true)]);
    assert_eq!(seen(a, c), [row("direct", "up", true), row("via enovance", "up", false)]);

    let direct = PathTx { order: order(&[1]), mtu: 1400, ..UP };
    let answers = |streak| Answered { sequence: 100, streak };
    for (tx, answered, state) in [
        (direct, LONG_AGO, "down"),
        (direct, answers(4), "down: 4 of 10 answers"),
        (PathTx { hold: PathTx::HELD_FOR_LOSS, ..direct }, ANSWERED, "held: loss"),
        (PathTx { hold: PathTx::HELD_FOR_BIG, ..direct }, ANSWERED, "held: big packets"),
    ] {
        set_path(a, c, DIRECT, &tx, answered);
        assert_eq!(seen(a, c), [row("direct", state, false), row("via enovance", "up", true)]);
        let before = a.counter("sent-relayed");
        assert_eq!(traffic::ping(a, Segment::v4(2), 1).lost(), 0, "{state}");
        assert!(a.counter("sent-relayed") > before, "{state}: frames do what is shown");
    }

    // What the agent noted, and when.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos();
    let now = u64::try_from(now).expect("before 2554");
    let minutes = |number: u64| now - number * 60_000_000_000;
    change::<PathNote>(a, "PATH_NOTES", path_slot(id(a, c), 1), |note| {
        *note = PathNote {
            since_ns: minutes(5),
            rtt_min_ns: 400_000,
            rtt_median_ns: 512_000,
            rtt_p99_ns: 7_000_000,
            loss: 40,
            probes: 321,
            ..PathNote::default()
        };
    });
    change::<Change>(a, "HISTORY", 3, |change| {
        *change = Change {
            at_ns: minutes(3),
            peer: id(a, c),
            now: 1,
            is_up: 1,
            reason: Reason::Missed as u8,
            relay_before: PeerId::MAX,
            relay_now: id(a, b),
            ..Change::default()
        };
    });
    let rows = paths(a, c);
    assert_eq!((&rows[0]["mtu"], &rows[0]["rtt_ms"]), (&1400.into(), &Value::Null), "{rows:?}");
    let times = serde_json::json!({ "min": 0.4, "median": 0.512, "p99": 7.0 });
    assert_eq!((&rows[1]["rtt_ms"], &rows[1]["loss"], &rows[1]["probes"]), (&times, &0.04.into(), &321.into()));

    let status = a.l2mesh(&["status", "--json"]);
    let peer = status["peers"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "ovh"));
    let peer = peer.unwrap_or_else(|| panic!("no ovh in {status}"));
    assert_eq!((&peer["path"], &peer["up"]), (&"via enovance".into(), &true.into()), "{peer}");
    assert_eq!(peer["reason"], Reason::Missed.text(), "{peer}");
    assert_eq!((&status["agent"], &status["relay"]), (&Value::Null, &false.into()), "{status}");
    assert_eq!(
        (&status["changes"][0]["from"], &status["changes"][0]["to"]),
        (&"direct".into(), &"via enovance".into())
    );
    assert_eq!(b.l2mesh(&["status", "--json"])["relay"], true);

    let text = a.l2mesh_text(&["status"]);
    let line = |start: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(start));
        line.unwrap_or_else(|| panic!("no {start:?} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let address = c.vtep();
    let expected = format!("ovh {address} via enovance up 0.512 4% 1450 3 min ago: probes are not answered");
    assert_eq!(line("ovh"), expected);
    assert_eq!(line("agent"), "agent not running, paths frozen");
    assert!(text.contains("  ovh   direct -> via enovance  probes are not answered\n"), "{text}");
    let shown = text.split("\nworth a look").next().and_then(|text| text.split_once("\npeers\n")).expect("peers").1;
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// As when a firewall lets nobody else in: the sentence for who may not look.
#[test]
fn ping_needs_root() {
    let lab = Lab::new("ping not root");
    let [a, _b, _c] = frozen(&lab, Family::V4, "tc");
    let program = lab.directory().join("l2mesh");
    std::fs::copy(l2mesh_tests::mesh::binary(), &program).expect("a copy in the lab's directory");
    let (program, pin_dir) = (program.display().to_string(), lab.pin_dir().display().to_string());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", &program, "--pin-dir", &pin_dir];
    let output = a.try_exec("setpriv", &[&nobody[..], &["ping", "enovance"]].concat());
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(sentence(&output).contains("run it as root"), "{output:?}");
}

/// With live agents: what they note of a failover is what people are shown.
#[test]
fn a_failover_is_told() {
    const LIMIT: Duration = Duration::from_secs(15);
    let lab = Lab::new("failover told");
    let hosts = lab.switch(["hetzner", "enovance", "ovh"], &Wiring::default());
    let node = |host: &Host| {
        let relay = host.name() == "enovance";
        format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\nrelay = {relay}\n", host.name(), host.vtep())
    };
    let rest = "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n";
    let path = lab.directory().join("mesh.toml");
    std::fs::write(&path, hosts.each_ref().map(node).concat() + rest).expect("a file in the lab's directory");
    let path = path.display().to_string();
    let _agents = hosts.each_ref().map(|host| host.attach(&["--config", &path, "--mode", "tc"]));
    for (place, host) in hosts.iter().enumerate() {
        Segment::address(host, "l2m0", place);
    }
    let [a, _b, c] = &hosts;
    let wait = |expected: &[(String, String, bool)]| {
        wait_for("the paths to ovh", LIMIT, || {
            let seen = seen(a, c);
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    };
    wait(&[row("direct", "up", true), row("via enovance", "up", false)]);
    pinged(a, &["ovh", "--via", "enovance"], "via enovance", SHORTEST);
    lab.cut(a, c);
    wait(&[row("direct", "down", false), row("via enovance", "up", true)]);
    pinged(a, &["ovh"], "via enovance", SHORTEST);
    let change = wait_for("a change is told", LIMIT, || {
        let status = a.l2mesh(&["status", "--json"]);
        let change = status["changes"][0].clone();
        if change["to"] == "via enovance" { Ok(change) } else { Err(status.to_string()) }
    });
    assert_eq!((&change["peer"], &change["from"], &change["up"]), (&"ovh".into(), &"direct".into(), &true.into()));
    assert_eq!(change["reason"], Reason::Missed.text());
    lab.heal(a, c);
    wait(&[row("direct", "up", true), row("via enovance", "up", false)]);
    let rows = paths(a, c);
    assert!(rows.iter().all(|row| row["rtt_ms"]["median"].as_f64().is_some_and(|rtt| rtt > 0.0)), "{rows:?}");
}
