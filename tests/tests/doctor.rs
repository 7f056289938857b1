//! Faults that somebody made, one after the other: `l2mesh doctor` says which, and nothing else. What cannot be made in a
//! namespace is judged by unit tests (`commands/doctor/tests.rs`).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::programs::TcAttachType::Ingress;
use l2mesh_tests::doctor::{attach, attach_with, file};
use l2mesh_tests::foreign::{Counter, Kind};
use l2mesh_tests::{Agent, Family, Frame, Host, Lab, MacAddr, Tap, Wiring, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(15);

fn switch<const N: usize>(title: &str, names: [&str; N]) -> (Lab, [Host; N]) {
    let lab = Lab::new(title);
    let hosts = lab.switch(names, &Wiring::default());
    // Nothing on the wires that nobody asked for.
    hosts.iter().for_each(|host| drop(host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")));
    (lab, hosts)
}

/// The switch lets no UDP from one host to the other through, as a security group would.
fn drop_udp(lab: &Lab, from: &Host, to: &Host) {
    let (fabric, port) = (lab.fabric(), from.uplink(0).port);
    fabric.run(&format!("tc qdisc replace dev {port} clsact"));
    let filter = format!("tc filter add dev {port} ingress pref 7 protocol ip u32");
    fabric.run(&format!(
        "{filter} match ip protocol 17 0xff match ip dst {}/32 action mirred egress redirect dev void",
        to.address()
    ));
}

fn let_udp(lab: &Lab, from: &Host) {
    lab.fabric().run(&format!("tc filter del dev {} ingress pref 7", from.uplink(0).port));
}

#[test]
fn a_healthy_mesh_and_what_can_be_wrong_with_a_host() {
    let (lab, hosts) = switch("doctor", ["a", "b"]);
    let [a, b] = &hosts;
    let file = file(&lab, &hosts, "");
    let mut agents = attach(&hosts, &file);
    for host in &hosts {
        host.doctor(&[]).assert_healthy();
    }
    a.doctor(&["--iface", "eth0", "--config", &file]).assert_healthy();
    let text = a.l2mesh_text(&["doctor"]);
    assert!(
        text.contains("UDP goes both ways: b answered probes") && text.ends_with("0 warnings, 0 faults\n"),
        "{text}"
    );
    assert!(text.contains("ok       configuration  the same here and at b\n"), "{text}");

    // The host's own firewall: nobody else can see that, and probes pass.
    let rules = "add table inet host; add chain inet host input { type filter hook input priority 0; }; \
                 add rule inet host input udp dport 4789 drop";
    a.exec("nft", &[rules]);
    let words = ["drops UDP port 4789", "nft table inet host, chain input: `udp dport 4789 drop`", "bulk TCP"];
    a.doctor(&[]).assert_only("firewall", "fault", &words);
    b.doctor(&[]).assert_healthy();
    a.exec("nft", &["delete table inet host"]);
    // What it does not let out.
    let rules = "add table inet host; add chain inet host output { type filter hook output priority 0; }; \
                 add rule inet host output udp dport 4789 drop";
    a.exec("nft", &[rules]);
    a.doctor(&[]).assert_only("peer", "fault", &["b (192.0.2.11)", "cannot be sent", "(OUTPUT)"]);
    a.exec("nft", &["delete table inet host"]);

    a.run("ip link set dev l2m10 mtu 1500");
    a.doctor(&[]).assert_says(
        "mtu",
        "fault",
        &["l2m10 (lan) has MTU 1500", "only 1450 octets", "ip link set l2m10 mtu 1450"],
    );
    a.run("ip link set dev l2m10 mtu 1450");

    let mut counter = Counter::load(a, Kind::Tc);
    counter.attach_tcx(a, "eth0", Ingress);
    a.doctor(&[]).assert_only("programs", "warning", &["at the TC ingress of eth0, before ours: id "]);
    drop(counter);
    Counter::load(a, Kind::Xdp).attach_xdp(a, "eth0");
    a.doctor(&[]).assert_only(
        "programs",
        "warning",
        &["the XDP program id ", "is on eth0", "ip link set eth0 xdp off"],
    );
    a.run("ip link set dev eth0 xdp off");

    agents[0].process().signal(Signal::SIGSTOP);
    let pid = agents[0].process().pid();
    wait_for("status says that the agent is stopped", LIMIT, || {
        let text = a.l2mesh_text(&["status"]);
        let line = format!("agent     process {pid} is stopped, paths frozen: `kill -CONT {pid}`");
        if text.contains(&line) { Ok(()) } else { Err(text) }
    });
    assert_eq!(a.l2mesh(&["status", "--json"])["agent_stopped"], true);
    // It would take the question and answer nothing.
    let refusal = a.l2mesh_refuses(&["reload"]);
    assert!(refusal.contains(&format!("is stopped: `kill -CONT {pid}`")), "{refusal}");
    a.doctor(&[]).assert_only("agent", "fault", &[&format!("process {pid} is stopped"), &format!("kill -CONT {pid}")]);
    agents[0].process().signal(Signal::SIGCONT);
    wait_for("the agent goes on", LIMIT, || {
        if a.l2mesh(&["status", "--json"])["agent_stopped"] == false { Ok(()) } else { Err("stopped".to_owned()) }
    });
    agents.remove(0).kill();
    a.doctor(&[]).assert_only("agent", "warning", &["does not run", "l2mesh attach --iface eth0"]);
    b.doctor(&[]).assert_healthy();
}

/// Frames that nobody wants, a hundred a second.
#[test]
fn counters_that_grow() {
    let (lab, hosts) = switch("losses", ["a", "b"]);
    let [a, b] = &hosts;
    let _agents = attach(&hosts, &file(&lab, &hosts, ""));
    let (tap, mac) = (Tap::sender(b, "eth0"), a.mac("eth0"));
    let frame = Frame::unknown(mac, tap.mac(), b"?").padded(60);
    let stop = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                tap.send(&frame);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // Also where this panics the thread is to end.
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| a.doctor(&[])));
        stop.store(true, Ordering::Relaxed);
        found
    });
    let found = found.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
    found.assert_only("losses", "warning", &["eth0: rx dropped grew by ", "ethtool -S eth0"]);
}

/// A security group that lets UDP in one way only is named, from both sides.
#[test]
fn one_way() {
    let (lab, hosts) = switch("one way", ["a", "b"]);
    let [a, b] = &hosts;
    let mut agents = attach(&hosts, &file(&lab, &hosts, ""));
    drop_udp(&lab, a, b);
    let (words, other) = (
        [
            "b (192.0.2.11) is reached one way only",
            "group of b must let UDP port 4789 in from 192.0.2.10",
            "pings are answered",
        ],
        ["a (192.0.2.10) answers no probe, and none of its own arrives: pings are answered", "here from 192.0.2.10"],
    );
    a.doctor(&[]).assert_only("peer", "fault", &words);
    b.doctor(&[]).assert_only("peer", "fault", &other);
    drop_udp(&lab, b, a);
    let words = ["b (192.0.2.11) answers no probe, and none of its own arrives: pings are answered"];
    a.doctor(&[]).assert_only("peer", "fault", &words);
    let_udp(&lab, a);
    let_udp(&lab, b);
    a.doctor(&[]).assert_healthy();

    agents.remove(1).stop();
    a.doctor(&[]).assert_only(
        "peer",
        "fault",
        &["b (192.0.2.11) is there", "nobody holds UDP port 4789", "`l2mesh attach` there"],
    );
    b.run("ip link set dev eth0 down");
    a.doctor(&[]).assert_only("peer", "fault", &["pings are not answered either", "is 192.0.2.11 its address"]);
    a.run("ip neigh flush dev eth0");
    a.doctor(&[]).assert_only("route", "fault", &["b: no answer yet from 192.0.2.11", "arping 192.0.2.11"]);
    b.run("ip link set dev eth0 up");
}

#[test]
fn another_configuration() {
    let (lab, hosts) = switch("configuration", ["a", "b"]);
    let [a, b] = &hosts;
    let same = file(&lab, &hosts, "");
    let other = lab.directory().join("other.toml");
    let text = fs::read_to_string(&same).expect("the file");
    fs::write(&other, text.replace("name = \"lan\"", "name = \"lan\"\nmtu = 1400")).expect("written");
    let other = other.display().to_string();
    let mut agents = attach(&hosts, &same);
    agents.remove(1).kill();
    let mut agent_b = b.attach(&["--config", &other]);
    let told = "its configuration says something else than ours about nodes, networks or the port";
    agents[0].process().wait_log_line(&format!("b (192.0.2.11): {told}"), LIMIT);
    agent_b.process().wait_log_line(&format!("a (192.0.2.10): {told}"), LIMIT);
    let status = a.l2mesh_text(&["status"]);
    assert!(status.contains("up, other configuration"), "{status}");
    for (host, name) in [(a, "b"), (b, "a")] {
        let words = [&*format!("{name} has another configuration than this host"), "the same file"];
        host.doctor(&[]).assert_only("configuration", "fault", &words);
    }
    b.doctor(&["--config", &same]).assert_says("file", "warning", &["what is attached is not what the file says"]);
    // A reload says another thing from then on.
    fs::copy(&same, &other).expect("written");
    b.l2mesh_text(&["reload"]);
    agents[0].process().wait_log_line("b (192.0.2.11): its configuration says the same as ours now", LIMIT);
    assert_eq!(agents[0].process().stderr().matches(told).count(), 1, "told once");
    a.doctor(&[]).assert_healthy();
    agent_b.stop();

    // The same file, but less fits there.
    b.run("ip link set dev eth0 mtu 1400");
    let mut agent_b = b.attach(&["--config", &same]);
    agent_b.process().wait_log_line("its networks have another MTU than ours", LIMIT);
    let found = a.doctor(&[]);
    // A veth takes room for a VLAN tag besides.
    found.assert_says("configuration", "fault", &["another MTU at b", "`mtu = ...`"]);
    found.assert_says("path mtu", "fault", &["packets of 1450 octets do not get to b and back, those of 135"]);
    // Where those are dropped, counters grow.
    b.doctor(&[]).assert_says("configuration", "fault", &["another MTU at a"]);
}

#[test]
fn the_way_takes_less_than_its_ends() {
    let lab = Lab::new("narrow");
    let hosts = lab.routed(["a", "b"], &Wiring::default());
    let [a, b] = &hosts;
    let _agents = attach(&hosts, &file(&lab, &hosts, ""));
    a.doctor(&[]).assert_healthy();
    lab.narrow(b, 1380);
    let words = ["packets of 1450 octets do not get to b and back, those of 1330 do", "`mtu = 1330`"];
    a.doctor(&[]).assert_only("path mtu", "fault", &words);
    a.run("ip route del default");
    a.doctor(&[]).assert_only("route", "fault", &["b: no route to 198.51.100.10", "ip route get 198.51.100.10"]);
}

#[test]
fn another_owner_of_the_port() {
    let (lab, hosts) = switch("owner", ["a", "b"]);
    let [a, _] = &hosts;
    let file = file(&lab, &hosts, "");
    a.run("ip link add name vx7 type vxlan id 7 dstport 4789");
    a.run("ip link set dev vx7 up");
    let agents = attach(&hosts, &file);
    let words = ["UDP port 4789 belongs to the vxlan device vx7; both work, and 4790 is ours"];
    a.doctor(&[]).assert_only("port", "warning", &words);
    drop(agents);
    a.run("ip link delete vx7");
    let socket = a.in_namespace(|| std::net::UdpSocket::bind("0.0.0.0:4789").expect("a socket"));
    let agent = a.attach(&["--config", &file]);
    let status = a.l2mesh(&["status", "--json"]);
    let port = status["udp_port"].as_str().unwrap_or_default();
    let holder = format!("(process {}), 4790 is ours", std::process::id());
    assert!(port.starts_with("4789 belongs to the program ") && port.ends_with(&holder), "{port}");
    a.doctor(&[]).assert_says("port", "warning", &["UDP port 4789 belongs to the program ", "4790 is ours"]);
    agent.stop();
    drop(socket);
}

/// Program and driver, IPv4 and IPv6: what answers say is heard.
#[test]
fn configurations_are_compared_in_every_mode() {
    for (family, args) in [(Family::V4, &["--mode", "xdp", "--xdp-tx", "on"][..]), (Family::V6, &["--mode", "tc"])] {
        let lab = Lab::new("modes");
        let hosts = lab.switch(["a", "b"], &Wiring::over(family));
        hosts.iter().for_each(|host| lab.ready_for_xdp(host));
        let _agents = attach_with(&hosts, &file(&lab, &hosts, ""), args);
        let found = hosts[0].doctor(&[]);
        found.assert_healthy();
        // Nothing known of the other is no fault.
        found.assert_found("configuration", "the same here and at b");
    }
}

/// Two hosts with one address, and two that run as one node.
#[test]
fn two_that_claim_to_be_one() {
    let (lab, hosts) = switch("two", ["a", "b", "c"]);
    let [a, b, c] = &hosts;
    let file = file(&lab, &hosts[..2], "");
    let _agents = attach(&hosts[..2], &file);
    let second: Agent = c.attach(&["--config", &file, "--node", "b"]);
    a.doctor(&[]).assert_only(
        "strangers",
        "fault",
        &["192.0.2.12 sends probes to UDP port 4789", "two hosts run as one node"],
    );
    second.stop();
    c.run("ip address add 192.0.2.11/24 dev eth0");
    let [mac, other]: [MacAddr; 2] = [b.mac("eth0"), c.mac("eth0")];
    let found = a.doctor(&[]);
    found.assert_says(
        "addresses",
        "fault",
        &["two hosts claim 192.0.2.11 (b): ", &mac.to_string(), &other.to_string()],
    );
    let words = [&*format!("192.0.2.11 is an address of this host, and {other} claims it too")];
    b.doctor(&[]).assert_says("addresses", "fault", &words);
}

#[test]
fn strict_and_crooked() {
    let (lab, hosts) = switch("crooked", ["a", "b"]);
    let [a, b] = &hosts;
    let second = lab.add_uplink(a, &Wiring::default());
    let _agents = attach(&hosts, &file(&lab, &hosts, ""));
    a.run("sysctl -qw net.ipv4.conf.eth0.rp_filter=1");
    a.doctor(&[]).assert_healthy();
    a.run(&format!("ip route add {}/32 dev {}", b.address(), second.interface));
    let words = ["strict on eth0, but the way to b leaves by another interface", "net.ipv4.conf.eth0.rp_filter=2"];
    wait_for("the next hop moves", LIMIT, || {
        let way = a.peer(b)["interface"].to_string();
        if way.contains(&second.interface) { Ok(()) } else { Err(way) }
    });
    a.doctor(&[]).assert_says("rp_filter", "fault", &words);
}

#[test]
fn pins_that_are_gone() {
    let (lab, hosts) = switch("pins", ["a", "b"]);
    let [a, _] = &hosts;
    let _agents = attach(&hosts, &file(&lab, &hosts, ""));
    let directory = a.pinned("eth0").directory().to_owned();
    fs::remove_file(directory.join("PATH_RX")).expect("a pin");
    a.doctor(&[]).assert_only("mesh", "fault", &["cannot open ", "PATH_RX", "l2mesh detach --iface"]);
    fs::remove_file(directory.join("META")).expect("a pin");
    a.doctor(&[]).assert_only("mesh", "fault", &["an agent runs here", "its pins are not under"]);
}

/// What can be looked at before anything is attached.
#[test]
fn before_attach() {
    let (lab, hosts) = switch("before", ["a", "b"]);
    let [a, b] = &hosts;
    let file = file(&lab, &hosts, "");
    let look = ["--iface", "eth0", "--config", &file];
    a.doctor(&[]).assert_only(
        "mesh",
        "fault",
        &["no mesh is attached here", "l2mesh doctor --iface IFACE --config FILE"],
    );
    a.doctor(&look).assert_only("peer", "fault", &["b (192.0.2.11) is there", "nobody holds UDP port 4789"]);
    let before = a.state();
    let agent = b.attach(&["--config", &file]);
    a.doctor(&look).assert_healthy();
    a.assert_state(&before);
    let text = a.l2mesh_text(&[&["doctor"][..], &look].concat());
    assert!(text.contains("tc to be expected (veth copies") && text.contains("the same here and at b"), "{text}");
    agent.stop();
    a.run("ip link set dev eth0 mtu 1400");
    let narrow = lab.directory().join("narrow.toml");
    let text = fs::read_to_string(&file).expect("the file").replace("name = \"lan\"", "name = \"lan\"\nmtu = 1450");
    fs::write(&narrow, text).expect("written");
    let narrow = narrow.display().to_string();
    a.doctor(&["--iface", "eth0", "--config", &narrow]).assert_says(
        "mtu",
        "fault",
        &["do not fit into the underlay MTU of 1400"],
    );
    fs::write(&narrow, "[[node]]\n").expect("written");
    a.doctor(&["--iface", "eth0", "--config", &narrow]).assert_says("file", "fault", &["narrow.toml:"]);
    a.doctor(&["--iface", "eth9", "--config", &file]).assert_only(
        "interface",
        "fault",
        &["there is no interface eth9"],
    );
}

/// An agent that is stopped cannot remove what it made: detach does, says so, and does not wait.
#[test]
fn detach_while_the_agent_is_stopped() {
    let (lab, hosts) = switch("stopped", ["a", "b"]);
    let [a, _] = &hosts;
    let before = a.state();
    let mut agent = a.attach(&["--config", &file(&lab, &hosts, "")]);
    agent.process().signal(Signal::SIGSTOP);
    let output = a.try_l2mesh(&["detach", "--iface", "eth0"]);
    assert!(output.success() && output.stdout.contains("removed l2m10"), "{output:?}");
    let pid = agent.process().pid();
    assert!(output.stderr.contains(&format!("process {pid} is the agent and is stopped")), "{output:?}");
    assert!(output.stderr.contains(&format!("`kill -CONT {pid}`")), "{output:?}");
    // But for its socket all is gone.
    agent.process().signal(Signal::SIGCONT);
    assert!(agent.process().wait_exit(LIMIT).success(), "{}", agent.process().last_words());
    a.assert_state(&before);
}
