//! `l2mesh ping`: paths are measured by the kernels alone.

use std::time::Duration;

use l2mesh_common::path::{DIRECT, order};
use l2mesh_common::tables::PathTx;
use l2mesh_tests::frozen::{LONG_AGO, SHORTEST, UP, frozen, mesh_file, pinged, row, seen, set_path};
use l2mesh_tests::mesh::{binary, sentence};
use l2mesh_tests::{Capture, Direction, Family, File, Host, Lab, Output, Segment, VxlanOptions, Wiring, traffic};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(5);
const MODES: [&str; 2] = ["tc", "xdp"];

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
fn answered_by_the_far_end_without_agents() {
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
        assert!(lines[2].starts_with("1 probe sent, 1 answered, 0% lost; round trip min/median/max "), "{text}");
    }
}

#[test]
fn nobody_answers() {
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
fn through_a_relay_and_along_the_path_in_use() {
    for mode in MODES {
        let lab = Lab::new("ping relayed");
        let hosts = frozen(&lab, Family::V4, mode);
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
fn refused_what_cannot_be() {
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
            "old-box does not relay, nor does any other third node: `relay = true` at its [[node]] allows it",
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
fn mode_kernel() {
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
    let path = mesh_file(&lab, &text.concat());
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
        other.wait_log_line("seq=1 time=", LIMIT);
    }
    let says = a.l2mesh_refuses(&["ping", "enovance"]);
    assert!(says.starts_with("4 pings run on eth0 already"), "{says}");
    let mut first = others.remove(0);
    first.signal(Signal::SIGINT);
    let status = first.wait_exit(LIMIT);
    assert!(status.success() && first.stdout().contains("round trip min/median/max"), "{}", first.last_words());
    pinged(&a, &["enovance"], "direct", SHORTEST);
    assert_eq!(a.counter("probe-forged") + a.counter("probe-late") + b.counter("probe-flood"), 0);
}

#[test]
fn not_root() {
    let lab = Lab::new("ping not root");
    let [a, _b, _c] = frozen(&lab, Family::V4, "tc");
    let program = lab.directory().join("l2mesh");
    std::fs::copy(binary(), &program).expect("a copy in the lab's directory");
    let (program, pin_dir) = (program.display().to_string(), lab.pin_dir().display().to_string());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", &program, "--pin-dir", &pin_dir];
    let output = a.try_exec("setpriv", &[&nobody[..], &["ping", "enovance"]].concat());
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(sentence(&output).contains("run it as root"), "{output:?}");
}
