//! `l2mesh events`: what happened, and what happens.

use std::time::Duration;

use l2mesh_tests::frozen::with_a_relay;
use l2mesh_tests::mesh::sentence;
use l2mesh_tests::{Family, Host, Lab, wait_for};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(40);

fn events(host: &Host) -> Vec<Value> {
    let text = host.l2mesh_text(&["events", "--json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits for an event of this kind about this node.
#[track_caller]
fn wait_event(host: &Host, kind: &str, peer: &Value) -> Value {
    wait_for(&format!("an event {kind} of {peer}"), LIMIT, || {
        let all = events(host);
        all.iter()
            .rfind(|event| event["kind"] == kind && event["peer"] == *peer)
            .cloned()
            .ok_or_else(|| format!("{all:?}"))
    })
}

#[test]
fn what_is_logged_is_told() {
    let lab = Lab::new("events");
    let (hosts, agents) = with_a_relay(&lab, Family::V4, "tc");
    let [a, _b, c] = &hosts;
    let [mut agent, _others @ ..] = agents;
    wait_event(a, "firewall", &Value::Null);
    l2mesh_tests::Paths::of(a).wait_ready(c, 1, LIMIT);
    let mut follower = a.spawn_l2mesh(&["events", "--follow", "--json"]);
    let mut reader = a.spawn_l2mesh(&["events", "--follow"]);
    follower.wait_log_line("\"kind\":\"firewall\"", LIMIT);
    reader.wait_log_line("  firewall  ", LIMIT);
    lab.cut(a, c);
    let line = follower.wait_log_line("\"kind\":\"path-relayed\"", LIMIT);
    let event: Value = serde_json::from_str(&line).expect("an object a line");
    assert_eq!(
        (&event["peer"], &event["level"], &event["vni"]),
        (&"ovh".into(), &"warn".into(), &Value::Null),
        "{event}"
    );
    let text = event["text"].as_str().expect("a text");
    assert!(text.contains("frames go through enovance, because probes are not answered"), "{event}");
    let logged = agent.process().wait_log_line(text, LIMIT);
    assert!(logged.contains(event["at"].as_str().and_then(|at| at.get(..16)).expect("a time")), "{logged}: {event}");
    assert_eq!(wait_event(a, "path-relayed", &"ovh".into()), event);
    let line = reader.wait_log_line("path-relayed", LIMIT);
    assert!(line.ends_with(&format!("  warn   path-relayed       {text}")), "{line}");
    lab.heal(a, c);
    follower.wait_log_line("\"kind\":\"path-direct\"", LIMIT);

    // A reload.
    a.l2mesh_text(&["reload"]);
    let event = wait_event(a, "reload", &Value::Null);
    assert_eq!((&event["level"], &event["text"]), (&"info".into(), &"reload: nothing changed".into()));

    // Those who have gone are not waited for.
    drop((0..8).map(|_| a.spawn_l2mesh(&["events", "--follow"])).collect::<Vec<_>>());
    wait_event(a, "reload", &Value::Null);

    agent.kill();
    assert_eq!(follower.wait_exit(LIMIT).code(), Some(1));
    assert!(follower.stderr().contains("l2mesh: the agent has ended"), "{}", follower.stderr());
    let output = a.try_l2mesh(&["events", "--follow"]);
    assert!(sentence(&output).starts_with("no agent runs"), "{output:?}");
    // Without an agent the tables remember changes of paths.
    let event = wait_event(a, "path-relayed", &"ovh".into());
    assert_eq!(event["text"], "ovh: direct -> via enovance, because probes are not answered");
}
