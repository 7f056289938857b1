//! Local users and programs that hold things up, on purpose or not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use l2mesh_tests::changing::{Changing, With};
use l2mesh_tests::{traffic, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(15);

/// A key that is not known might have been a condition: without it `mac-flush` would forget all.
#[test]
fn a_request_with_an_unknown_key() {
    let mesh = Changing::new("unknown key");
    let [a, ..] = &mesh.hosts;
    let _agent = mesh.attach(&[]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0);
    let macs = || a.l2mesh(&["maps", "macs", "--json"])["macs"].as_array().map_or(0, Vec::len);
    let before = macs();
    assert!(before > 0);
    let said = a.control().ask(&json!({"do": "mac-flush", "node": "c"}));
    assert_eq!(said, json!({"ok": false, "error": "not a request that this agent knows: unknown key `node`"}));
    assert_eq!(macs(), before);
}

/// Connections that say nothing have to make room for one that does.
#[test]
fn metrics_beside_many_silent_connections() {
    let mesh = Changing::new("silent");
    let [a, ..] = &mesh.hosts;
    let address: SocketAddr = "127.0.0.1:9472".parse().expect("an address");
    let _agent = mesh.attach(&["--metrics", &address.to_string()]);
    a.in_namespace(|| {
        let _silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let start = Instant::now();
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout that is not zero");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").expect("somebody reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(start.elapsed() < Duration::from_secs(9), "Prometheus waits for 10 s: {:?}", start.elapsed());
    });
}

/// Stopped, or with nobody who reads its output, a capture misses frames which nobody counts: it says for how long.
#[test]
fn a_capture_that_is_held_up() {
    let mesh = Changing::new("held up");
    let [a, ..] = &mesh.hosts;
    let _agent = mesh.attach(&[]);
    let pins = mesh.lab.pin_dir().display().to_string();
    let program = l2mesh_tests::mesh::binary().display().to_string();
    let mut capture = a.spawn(&program, &["--pin-dir", &pins, "capture", "--point", "encap"]);
    capture.wait_log_line("capturing on eth0", LIMIT);
    capture.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(4));
    capture.signal(Signal::SIGCONT);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    wait_for("it goes on", LIMIT, || match capture.stdout() {
        text if text.contains("ICMP") => Ok(()),
        text => Err(text),
    });
    capture.signal(Signal::SIGINT);
    assert!(capture.wait_exit(LIMIT).success());
    let said = capture.stderr();
    assert!(said.contains("; nothing was recorded for ") && said.contains(" s, while"), "{said}");
}

/// An attach that was killed before its interfaces were up: the next one finishes that. One that somebody switched off stays off.
#[test]
fn interfaces_that_were_never_up() {
    let mesh = Changing::new("never up");
    let [a, ..] = &mesh.hosts;
    let other = mesh.lab.host("other");
    mesh.write(&With { more: "bridge = \"br0\"\n", ..With::default() });
    mesh.attach(&[]).kill();
    // In another namespace and back, an interface is as one that was just made.
    a.move_interface("l2m10", &other);
    other.move_interface("l2m10", a);
    a.run("ip link delete br0");
    a.run("ip link add br0 type bridge");
    a.run("ip link set br0 alias l2mesh:eth0:16:bridge");
    assert_eq!([a.link("l2m10"), a.link("br0")].map(|link| link["qdisc"].clone()), ["noop", "noop"]);
    let agent = mesh.attach(&[]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    a.run("ip link set l2m10 down");
    agent.kill();
    let agent = mesh.attach(&[]);
    assert_eq!(a.link("l2m10")["operstate"], "DOWN");
    agent.stop();
}

/// A peer whose configuration is another one all the time does not fill the log.
#[test]
fn a_configuration_that_changes_all_the_time() {
    let mesh = Changing::new("changes its mind");
    let mut agent = mesh.attach(&[]);
    agent.process().wait_log_line("its configuration says something else than ours", LIMIT);
    for nth in 0..6 {
        let is_same = nth % 2 == 0;
        mesh.write(&With { c: is_same, relay: is_same, dmz: is_same, ..With::default() });
        mesh.does("reload");
        // The agent compares once a second.
        std::thread::sleep(Duration::from_millis(1_200));
    }
    let log = agent.process().stderr();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("b (") && line.contains("its configuration")).collect();
    assert!((2..=3).contains(&lines.len()), "{lines:#?}");
}

/// A resolver that does not answer holds up neither the end of an agent nor that of an attach which waits for it.
#[test]
fn a_resolver_that_does_not_answer() {
    let mesh = Changing::new("deaf resolver");
    let [a, ..] = &mesh.hosts;
    // Nobody is at that address, and the route leads to one who says nothing.
    let resolver = mesh.lab.directory().join("resolv.conf");
    fs::write(&resolver, "nameserver 198.18.0.53\n").expect("a file in the lab's directory");
    a.run(&format!("ip route add 198.18.0.0/15 via {}", mesh.hosts[1].address()));
    mesh.hosts[1].run("sysctl -qw net.ipv4.ip_forward=0");
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec {} --pin-dir {} attach --iface eth0 --config {}",
        resolver.display(),
        l2mesh_tests::mesh::binary().display(),
        mesh.lab.pin_dir().display(),
        mesh.file()
    );
    let attach = || a.spawn("unshare", &["--mount", "sh", "-c", &script]);
    let mut agent = attach();
    agent.wait_log_line("up: node a on eth0", LIMIT);
    let named = mesh.text(&With { c: true, ..With::default() });
    let named = named.replace(&mesh.hosts[2].address().to_string(), "c.example.org");
    fs::write(mesh.file(), named).expect("a file in the lab's directory");
    agent.signal(Signal::SIGHUP);
    // Others are answered meanwhile.
    assert_eq!(a.ask("about")["ok"], true);
    agent.signal(Signal::SIGTERM);
    assert!(agent.wait_exit(Duration::from_secs(4)).success(), "a resolver is asked for 10 s");
    let mut agent = attach();
    wait_for("it asks", LIMIT, || match a.exec("ss", &["-Hun"]).stdout {
        text if text.contains("198.18.0.53") => Ok(()),
        text => Err(text),
    });
    agent.signal(Signal::SIGINT);
    agent.wait_exit(Duration::from_secs(4));
}
