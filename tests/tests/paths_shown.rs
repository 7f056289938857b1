//! What `maps paths` and `status` say of paths is what frames do.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use l2mesh_common::path::{Answered, DIRECT, order, reason::Reason};
use l2mesh_common::tables::{Change, PathNote, PathTx, PeerId, path_slot};
use l2mesh_tests::frozen::{
    ANSWERED, LONG_AGO, SHORTEST, UP, change, frozen, id, mesh_file, paths, pinged, row, seen, set_path, with_a_relay,
};
use l2mesh_tests::mesh::sentence;
use l2mesh_tests::{Family, Host, Lab, Segment, Wiring, traffic, wait_for};
use serde_json::Value;

/// How long agents may take to notice.
const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `maps paths` says this of another host.
#[track_caller]
fn wait_seen(host: &Host, other: &Host, expected: &[(String, String, bool)]) {
    wait_for(&format!("the paths to {}", other.name()), LIMIT, || {
        let seen = seen(host, other);
        if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn maps_and_status_show_the_path_that_frames_take() {
    let lab = Lab::new("paths shown");
    let hosts = frozen(&lab, Family::V4, "tc");
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

/// With live agents: what they note of a failover is what people are shown.
#[test]
fn a_failover_is_told() {
    let lab = Lab::new("failover told");
    let (hosts, _agents) = with_a_relay(&lab, Family::V4, "tc");
    let [a, _b, c] = &hosts;
    wait_seen(a, c, &[row("direct", "up", true), row("via enovance", "up", false)]);
    pinged(a, &["ovh", "--via", "enovance"], "via enovance", SHORTEST);
    lab.cut(a, c);
    wait_seen(a, c, &[row("direct", "down", false), row("via enovance", "up", true)]);
    pinged(a, &["ovh"], "via enovance", SHORTEST);
    let change = wait_for("a change is told", LIMIT, || {
        let status = a.l2mesh(&["status", "--json"]);
        let change = status["changes"][0].clone();
        if change["to"] == "via enovance" { Ok(change) } else { Err(status.to_string()) }
    });
    assert_eq!((&change["peer"], &change["from"], &change["up"]), (&"ovh".into(), &"direct".into(), &true.into()));
    assert_eq!(change["reason"], Reason::Missed.text());
    wait_for("all is lost on the dead path", LIMIT, || match &paths(a, c)[0]["loss"] {
        loss if *loss == 1.0 => Ok(()),
        loss => Err(loss.to_string()),
    });
    lab.heal(a, c);
    wait_seen(a, c, &[row("direct", "up", true), row("via enovance", "up", false)]);
    let rows = paths(a, c);
    assert!(rows.iter().all(|row| row["rtt_ms"]["median"].as_f64().is_some_and(|rtt| rtt > 0.0)), "{rows:?}");
}

/// One host has only IPv4, another only IPv6: the one between them is their only path, and neither is reported as lost.
#[test]
fn a_relay_between_ip_versions() {
    let lab = Lab::new("two versions");
    let wiring = Wiring { ipv6: true, ..Wiring::default() };
    let hosts = lab.switch(["old", "both", "new"], &wiring);
    let [old, both, new] = &hosts;
    let text = format!(
        "[[node]]\nname = \"old\"\naddress = \"{}\"\n\
         [[node]]\nname = \"both\"\naddress = \"{}\"\nrelay = true\nfrom = {{ new = \"{}\" }}\n\
         [[node]]\nname = \"new\"\naddress = \"{}\"\n",
        old.address(),
        both.address(),
        both.address6(),
        new.address6(),
    );
    // What nobody told them they do not use.
    old.run("ip -6 address flush dev eth0 scope global");
    new.run("ip -4 address flush dev eth0");
    let path = mesh_file(&lab, &text);
    let _agents = ["old", "both", "new"].map(|name| {
        let host = hosts.iter().find(|host| host.name() == name).expect("one of them");
        host.attach(&["--config", &path, "--mode", "tc", "--node", name])
    });
    for (host, other) in [(old, new), (new, old)] {
        let expected = [row("direct", "no such path", false), row("via both", "up", true)];
        wait_seen(host, other, &expected);
        pinged(host, &[other.name()], "via both", SHORTEST);
        let status = host.l2mesh(&["status", "--json"]);
        let peer = status["peers"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == *other.name()));
        let peer = peer.unwrap_or_else(|| panic!("no {} in {status}", other.name()));
        assert_eq!((&peer["path"], &peer["state"], &peer["up"]), (&"via both".into(), &"up".into(), &true.into()));
        let output = host.try_l2mesh(&["ping", other.name(), "--via", "direct"]);
        assert!(sentence(&output).starts_with(&format!("no next hop towards {} (", other.name())), "{output:?}");
    }
}
