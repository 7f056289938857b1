//! Attach, adopt, detach: what stays, what goes, and that frames do not notice.

use std::fs;
use std::time::Duration;

use l2mesh_tests::flow::Flow;
use l2mesh_tests::{Agent, Host, Lab, Wiring, traffic, transfer, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(10);

/// Datagrams a second.
const RATE: u64 = 20_000;

/// Two hosts that are to be in network 16 as 10.8.0.1 and 10.8.0.2.
struct Two {
    a: Host,
    b: Host,
    lab: Lab,
}

impl Two {
    fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let [a, b] = lab.pair(["a", "b"], &Wiring::default());
        Self { a, b, lab }
    }

    /// Attaches one of them.
    #[track_caller]
    fn attach(&self, host: &Host, more: &[&str]) -> Agent {
        let (peer, address) = if host.name() == "a" { (&self.b, "10.8.0.1/24") } else { (&self.a, "10.8.0.2/24") };
        let peer = peer.address().to_string();
        host.attach(&[&["--vni", "16", "--peer", &peer, "--address", address], more].concat())
    }

    #[track_caller]
    fn assert_works(&self) {
        assert_eq!(traffic::ping(&self.a, [10, 8, 0, 2], 3).lost(), 0);
    }
}

fn agent_of(host: &Host) -> Value {
    host.l2mesh(&["status", "--json"])["agent"].clone()
}

fn macs(host: &Host) -> Vec<String> {
    let macs = host.l2mesh(&["maps", "macs", "--json"]);
    macs["macs"].as_array().into_iter().flatten().map(|mac| mac["mac"].to_string()).collect()
}

fn counter(host: &Host, name: &str) -> u64 {
    let counters = host.l2mesh(&["maps", "counters", "--json"]);
    let row = counters["counters"].as_array().into_iter().flatten().find(|row| row["verdict"] == name);
    row.and_then(|row| row["frames"].as_u64()).unwrap_or_else(|| panic!("no counter {name}: {counters}"))
}

#[test]
fn signals_remove_everything() {
    let two = Two::new("signals");
    let _b = two.attach(&two.b, &[]);
    let before = two.a.state();
    for mode in ["tc", "xdp"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut agent = two.attach(&two.a, &["--mode", mode]);
            two.assert_works();
            agent.process().signal(signal);
            assert!(agent.process().wait_exit(LIMIT).success(), "{signal}{}", agent.process().last_words());
            two.a.assert_state(&before);
        }
    }
}

#[test]
fn persist_and_adopt() {
    let two = Two::new("persist");
    let _b = two.attach(&two.b, &[]);
    let before = two.a.state();
    let agent = two.attach(&two.a, &["--persist"]);
    two.assert_works();
    agent.stop();
    two.assert_works();
    assert_eq!(agent_of(&two.a), Value::Null);
    let (links, known, received) = (two.a.links(), macs(&two.a), counter(&two.a, "received"));
    assert!(!known.is_empty() && received > 0, "{known:?} {received}");

    // Not to persist any more.
    let mut agent = two.attach(&two.a, &[]);
    assert_eq!(agent_of(&two.a), agent.process().pid());
    let index = |links: &[Value]| links.iter().map(|link| link["ifindex"].clone()).collect::<Vec<_>>();
    assert_eq!(index(&two.a.links()), index(&links), "the same devices");
    assert_eq!(macs(&two.a), known);
    assert!(counter(&two.a, "received") >= received);
    two.assert_works();
    agent.stop();
    two.a.assert_state(&before);
}

/// A peer that is no longer in the configuration gets nothing more, also if the one that has its place now is silent.
#[test]
fn adopted_with_another_peer() {
    let two = Two::new("another peer");
    let _b = two.attach(&two.b, &[]);
    let agent = two.attach(&two.a, &["--persist"]);
    two.assert_works();
    agent.stop();
    let mut silent = two.b.address().octets();
    silent[3] = 77;
    let silent = std::net::Ipv4Addr::from(silent).to_string();
    let _agent = two.a.attach(&["--vni", "16", "--peer", &silent]);
    assert_eq!(macs(&two.a), Vec::<String>::new());
    let all = two.a.l2mesh(&["maps", "peers", "--json"]);
    let peer = &all["peers"][0];
    assert_eq!((&peer["next_hop"], &peer["received_frames"]), (&Value::Null, &0.into()), "{all}");
}

/// What an earlier attach called the interface does not count.
#[test]
fn adopted_with_another_name() {
    let two = Two::new("another name");
    let _b = two.attach(&two.b, &[]);
    let before = two.a.state();
    two.attach(&two.a, &["--persist"]).stop();
    let agent = two.attach(&two.a, &["--overlay", "lan0"]);
    two.a.run("ip link show dev lan0");
    two.assert_works();
    agent.stop();
    two.a.assert_state(&before);
}

/// A configuration that cannot be had leaves what was there, and nothing more.
#[test]
fn adoption_that_fails() {
    let two = Two::new("fails");
    let (a, b) = (two.a.address(), two.b.address());
    let file = two.lab.directory().join("mesh.toml");
    let text = format!(
        "node = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]\n\
         network = [{{ name = \"x\", vni = 17 }}, {{ name = \"y\", vni = 18, interface = \"eth0\" }}]\n"
    );
    fs::write(&file, text).expect("a file in the lab's directory");
    two.attach(&two.a, &["--persist"]).stop();
    let before = two.a.state();
    two.a.l2mesh_refuses(&["attach", "--iface", "eth0", "--config", &file.display().to_string()]);
    two.a.assert_state(&before);
    let _detached = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
}

#[test]
fn detach_by_an_alternative_name() {
    let two = Two::new("alternative name");
    two.a.run("ip link property add dev eth0 altname underlay");
    let before = two.a.state();
    let peer = two.b.address().to_string();
    two.a.attach_on("underlay", &["--vni", "16", "--peer", &peer]).kill();
    let output = two.a.try_l2mesh(&["detach", "--iface", "underlay"]);
    assert!(output.stdout.contains("removed l2m10"), "{output:?}");
    two.a.assert_state(&before);
}

/// Bulk TCP in mode tc needs the helper device.
#[test]
fn helper_device_removed_or_switched_off() {
    let two = Two::new("helper");
    let _agents = [two.attach(&two.a, &["--mode", "tc"]), two.attach(&two.b, &["--mode", "tc"])];
    let helper = || {
        let links = two.b.links();
        let name = links.iter().find_map(|link| link["ifname"].as_str().filter(|name| name.starts_with("l2mk")));
        name.map(|name| {
            (name.to_owned(), links.iter().any(|link| link["ifname"] == name && link["operstate"] != "DOWN"))
        })
    };
    let (name, _) = helper().expect("a helper device");
    for command in ["delete", "set down dev"] {
        two.b.run(&format!("ip link {command} {name}"));
        wait_for("the helper device is back", LIMIT, || match helper() {
            Some((_, true)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        transfer::tcp(&two.a, &two.b, [10, 8, 0, 2], 4 << 20);
    }
}

/// What the programs are told lies in the pinned tables, and what replaces them replaces them at once.
#[track_caller]
fn killed_under_traffic(mode: &str) {
    let two = Two::new("killed");
    let _b = two.attach(&two.b, &["--mode", mode]);
    let mut agent = two.attach(&two.a, &["--mode", mode]);
    two.assert_works();
    let flows = [(&two.a, &two.b, [10, 8, 0, 2]), (&two.b, &two.a, [10, 8, 0, 1])];
    let flows = flows.map(|(from, to, address)| Flow::start(from, to, address, RATE / 2));
    let pass = || flows.iter().for_each(|flow| flow.wait_more(RATE / 20));
    for _ in 0..3 {
        pass();
        agent.kill();
        pass();
        let before = (macs(&two.a), counter(&two.a, "received"));
        agent = two.attach(&two.a, &["--mode", mode]);
        assert_eq!(macs(&two.a), before.0);
        assert!(counter(&two.a, "received") > before.1);
        pass();
    }
    for report in flows.map(Flow::stop) {
        println!("{mode}: {} sent, {} late", report.sent, report.late);
        report.assert_whole();
    }
}

#[test]
fn killed_under_traffic_in_mode_tc() {
    killed_under_traffic("tc");
}

#[test]
fn killed_under_traffic_in_mode_xdp() {
    killed_under_traffic("xdp");
}

#[test]
fn detach_after_a_crash() {
    let two = Two::new("crash");
    let _b = two.attach(&two.b, &[]);
    let before = two.a.state();
    for mode in ["tc", "xdp"] {
        two.attach(&two.a, &["--mode", mode]).kill();
        two.assert_works();
        let output = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        for word in ["removed l2p10", "removed l2m10", "removed l2mk", "removed pins in "] {
            assert!(output.stdout.contains(word), "{word}: {output:?}");
        }
        assert_eq!(output.stdout.contains("removed XDP program\n"), mode == "xdp", "{output:?}");
        two.a.assert_state(&before);
        let again = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
        assert_eq!((again.code, again.stdout.as_str()), (Some(0), "nothing to remove\n"), "{again:?}");
    }
}

#[test]
fn detach_of_a_live_agent() {
    let two = Two::new("detach");
    let _b = two.attach(&two.b, &[]);
    let before = two.a.state();
    for more in [&[][..], &["--persist"]] {
        let mut agent = two.attach(&two.a, more);
        let output = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        for word in ["removed l2p10", "removed l2m10", "removed l2mk", "removed pins in "] {
            assert!(output.stdout.contains(word), "{word}: {output:?}");
        }
        assert!(agent.process().wait_exit(LIMIT).success());
        two.a.assert_state(&before);
    }
}

/// The agent outlives its interface, but not a detach.
#[test]
fn detach_when_the_interface_is_gone() {
    let two = Two::new("interface gone");
    let mut agent = two.attach(&two.a, &["--mode", "xdp"]);
    two.a.run("ip link delete eth0");
    let output = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
    assert!(output.success() && output.stdout.contains("removed l2m10"), "{output:?}");
    assert!(agent.process().wait_exit(LIMIT).success());
    assert!(two.a.state().lines("l2m").is_empty(), "{:?}", two.a.state());
}

/// An agent that does not answer cannot keep detach from its work.
#[test]
fn detach_of_a_stopped_agent() {
    let two = Two::new("stopped");
    let before = two.a.state();
    let mut agent = two.attach(&two.a, &[]);
    agent.process().signal(Signal::SIGSTOP);
    let output = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("removed l2m10"), "{output:?}");
    agent.kill();
    two.a.assert_state(&before);
}

/// The programs go with their pins; the agent says so, and detach and attach mend it.
#[test]
fn pins_removed_by_hand() {
    let two = Two::new("unpinned");
    let before = two.a.state();
    let _b = two.attach(&two.b, &[]);
    let mut agent = two.attach(&two.a, &[]);
    fs::remove_dir_all(two.a.pinned("eth0").directory()).expect("pins");
    agent.process().wait_log_line("removed the pins in ", LIMIT);
    let output = two.a.try_l2mesh(&["detach", "--iface", "eth0"]);
    assert!(output.success(), "{output:?}");
    assert!(agent.process().wait_exit(LIMIT).success());
    two.a.assert_state(&before);
    let _agent = two.attach(&two.a, &[]);
    two.assert_works();
}

#[test]
fn read_without_an_agent() {
    let two = Two::new("frozen");
    let _b = two.attach(&two.b, &[]);
    let agent = two.attach(&two.a, &[]);
    two.assert_works();
    let status = two.a.l2mesh_text(&["status"]);
    assert!(status.lines().any(|line| line.starts_with("agent ") && line.contains("process")), "{status}");
    agent.kill();
    let status = two.a.l2mesh_text(&["status"]);
    assert!(
        status.lines().any(|line| line.starts_with("agent ") && line.ends_with("not running, paths frozen")),
        "{status}"
    );
    let maps = two.a.l2mesh(&["maps", "--json"]);
    for table in ["networks", "peers", "paths", "macs", "counters"] {
        assert!(maps[table].as_array().is_some_and(|rows| !rows.is_empty()), "{table}: {maps}");
    }
    assert!(counter(&two.a, "received") > 0);
}

/// Half an attach, and pins of a namespace that died with its agent.
#[test]
fn stale_pins() {
    let two = Two::new("stale");
    let (a, b) = (&two.a, &two.b);
    let _live = two.attach(b, &["--mode", "xdp"]);
    let before = a.state();
    let program = l2mesh_tests::mesh::binary().display().to_string();
    let pin_dir = two.lab.pin_dir();
    let pins = pin_dir.display().to_string();
    let script = "ip link add name eth0 type veth peer name far && ip link set dev eth0 up && ip link set dev far up && \
                  ip address add 192.0.2.1/24 dev eth0 && exec \"$@\"";
    let attach = ["attach", "--iface", "eth0", "--vni", "16", "--peer", "192.0.2.2"];
    let args = [&["--net", "sh", "-c", script, "-", &program, "--pin-dir", &pins], &attach[..]].concat();
    let mut agent = a.spawn("unshare", &args);
    agent.wait_log_line("up: ", LIMIT);
    let inode = fs::read_link(format!("/proc/{}/ns/net", agent.pid())).expect("a live process");
    let inode: String = inode.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    let stale = || a.try_l2mesh(&["detach", "--stale"]);
    assert_eq!(stale().stdout, "nothing to remove\n", "all are alive");
    agent.signal(Signal::SIGKILL);
    agent.wait_exit(LIMIT);
    // The kernel takes a namespace apart in its own time.
    let said = wait_for("the dead namespace is noticed", LIMIT, || {
        let output = stale();
        assert_eq!(output.code, Some(0), "{output:?}");
        if output.stdout.contains("nothing") { Err(output.stdout) } else { Ok(output.stdout) }
    });
    assert!(
        said.starts_with("removed stale pins in ") && said.contains(&*inode) && said.lines().count() == 1,
        "{said}"
    );
    assert!(!pin_dir.join(inode).exists() && b.pinned("eth0").directory().exists());
    a.assert_state(&before);
}

/// The interface went away and another of its name came: the pins are not its own.
#[test]
fn pins_of_an_interface_that_is_gone() {
    let two = Two::new("gone");
    let address = two.b.address().to_string();
    two.attach(&two.a, &["--mode", "xdp"]).kill();
    two.a.run("ip link delete eth0");
    two.a.run("ip link add name eth0 type veth peer name far");
    two.a.run("ip link set dev far up");
    two.a.run("ip link set dev eth0 up");
    two.a.add_address("eth0", "192.0.2.10/24");
    let agent = two.a.attach(&["--vni", "16", "--peer", &address]);
    assert!(two.a.pinned("eth0").directory().exists());
    agent.stop();
    let output = two.a.try_l2mesh(&["detach", "--stale"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(two.a.state().lines("l2m").is_empty(), "{:?}", two.a.state());
}
