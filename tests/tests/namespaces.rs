//! Overlay interfaces that move, several namespaces on one bpffs, interfaces with odd names, sniffers.

use std::time::{Duration, Instant};

use l2mesh_tests::{Host, Lab, Process, Wiring, traffic, transfer, wait_for};
use nix::sys::signal::Signal;

/// How long a sniffer may wait for what it wants to see.
const AT_ONCE: Duration = Duration::from_secs(1);

fn transmit(host: &Host) -> String {
    let networks = host.l2mesh(&["maps", "networks", "--json"]);
    networks["networks"][0]["transmit"].as_str().unwrap_or_else(|| panic!("{networks}")).to_owned()
}

#[track_caller]
fn wait_transmit(host: &Host, start: &str) {
    wait_for(&format!("transmit is {start:?}"), Duration::from_secs(2), || {
        let text = transmit(host);
        if text.starts_with(start) { Ok(()) } else { Err(text) }
    });
}

/// Whoever holds l2m10 now reaches b and is reached.
#[track_caller]
fn assert_carries(holder: &Host, b: &Host) {
    assert_eq!(traffic::ping(holder, [10, 8, 0, 2], 3).lost(), 0, "from {}", holder.name());
    assert_eq!(traffic::ping(b, [10, 8, 0, 1], 3).lost(), 0, "to {}", holder.name());
    transfer::tcp(holder, b, [10, 8, 0, 2], 4 << 20);
    transfer::tcp(b, holder, [10, 8, 0, 1], 4 << 20);
}

#[track_caller]
fn move_overlay(from: &Host, to: &Host) {
    from.move_interface("l2m10", to);
    to.run("ip link set dev l2m10 up");
    to.add_address("l2m10", "10.8.0.1/24");
}

#[track_caller]
fn moved_and_back(mode: &str) {
    let lab = Lab::new("moved");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let guest = lab.host("guest");
    // Its interfaces have other numbers there than at home.
    guest.run("ip link add name br0 type bridge");
    let [to_a, to_b] = [&a, &b].map(|host| host.address().to_string());
    let _b = b.attach(&["--vni", "16", "--peer", &to_a, "--mode", mode, "--address", "10.8.0.2/24"]);
    let before = [a.state(), guest.state()];
    let attach = || a.attach(&["--vni", "16", "--peer", &to_b, "--mode", mode]);
    let agent = attach();
    a.add_address("l2m10", "10.8.0.1/24");
    wait_transmit(&a, "egress shortcut");
    assert_carries(&a, &b);

    move_overlay(&a, &guest);
    assert_carries(&guest, &b);
    wait_transmit(&a, "hidden peer: the interface is in another namespace");
    assert!(a.l2mesh_text(&["status"]).contains("(in another namespace)"));
    assert_carries(&guest, &b);
    move_overlay(&guest, &a);
    assert_carries(&a, &b);
    wait_transmit(&a, "egress shortcut");
    assert_carries(&a, &b);

    agent.kill();
    move_overlay(&a, &guest);
    assert_carries(&guest, &b);
    move_overlay(&guest, &a);
    assert_carries(&a, &b);
    move_overlay(&a, &guest);
    // The next agent finds it there.
    let agent = attach();
    assert_carries(&guest, &b);
    move_overlay(&guest, &a);
    assert_carries(&a, &b);
    wait_transmit(&a, "egress shortcut");
    move_overlay(&a, &guest);
    // Wherever it is, it goes.
    agent.stop();
    a.assert_state(&before[0]);
    guest.assert_state(&before[1]);
}

#[test]
fn moved_and_back_in_mode_tc() {
    moved_and_back("tc");
}

#[test]
fn moved_and_back_in_mode_xdp() {
    moved_and_back("xdp");
}

/// Without an agent too, detach finds what is in another namespace by its other end.
#[test]
fn detached_while_away() {
    let lab = Lab::new("away");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let guest = lab.host("guest");
    let before = [a.state(), guest.state()];
    let agent = a.attach(&["--vni", "16", "--peer", &b.address().to_string()]);
    a.move_interface("l2m10", &guest);
    agent.kill();
    a.l2mesh_text(&["detach", "--iface", "eth0"]);
    a.assert_state(&before[0]);
    guest.assert_state(&before[1]);
}

/// Three namespaces, an eth0 in each, with equal interface numbers: one pin directory.
#[test]
fn namespaces_on_one_bpffs() {
    let lab = Lab::new("bpffs");
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let index = |host: &Host| host.link("eth0")["ifindex"].clone();
    assert!(index(&hosts[0]) == index(&hosts[1]) && index(&hosts[1]) == index(&hosts[2]));
    let before = hosts.each_ref().map(Host::state);
    let agents = hosts.each_ref().map(|host| {
        let peers = hosts.iter().filter(|peer| peer.name() != host.name()).map(|peer| peer.address().to_string());
        let peers: Vec<String> = peers.flat_map(|peer| ["--peer".to_owned(), peer]).collect();
        let address = format!("10.8.0.{}/24", host.address().octets()[3]);
        let mut args = vec!["--vni", "16", "--address", &address];
        args.extend(peers.iter().map(String::as_str));
        host.attach(&args)
    });
    for host in &hosts {
        let status = host.l2mesh(&["status", "--json"]);
        assert_eq!(
            (&status["node"], status["peers"].as_array().map(Vec::len)),
            (&host.address().to_string().into(), Some(2))
        );
        for to in hosts.iter().filter(|to| to.name() != host.name()) {
            assert_eq!(traffic::ping(host, [10, 8, 0, to.address().octets()[3]], 3).lost(), 0, "{}", to.name());
        }
    }
    let [a, b, c] = agents;
    a.stop();
    assert_eq!(traffic::ping(&hosts[1], [10, 8, 0, 12], 3).lost(), 0, "the others do not notice");
    b.kill();
    assert_eq!(hosts[1].try_l2mesh(&["detach", "--iface", "eth0"]).code, Some(0));
    assert_eq!(hosts[2].l2mesh(&["status", "--json"])["node"], "192.0.2.12");
    c.stop();
    for (host, before) in hosts.iter().zip(&before) {
        host.assert_state(before);
    }
}

/// bpffs refuses dots in names.
#[test]
fn interface_with_a_dot() {
    let lab = Lab::new("dot");
    let wiring = Wiring { interface: "eth0.100".to_owned(), ..Wiring::default() };
    let [a, b] = lab.pair(["a", "b"], &wiring);
    let before = a.state();
    let [to_a, to_b] = [&a, &b].map(|host| host.address().to_string());
    let _b = b.attach(&["--vni", "16", "--peer", &to_a, "--address", "10.8.0.2/24"]);
    let attach = || a.attach(&["--vni", "16", "--peer", &to_b, "--address", "10.8.0.1/24"]);
    attach().kill();
    assert_eq!(traffic::ping(&a, [10, 8, 0, 2], 3).lost(), 0);
    assert!(a.pinned("eth0.100").directory().exists());
    // Adopted, then removed.
    attach().stop();
    a.assert_state(&before);
    attach().kill();
    assert_eq!(a.try_l2mesh(&["detach", "--iface", "eth0.100"]).code, Some(0));
    a.assert_state(&before);
}

/// What stands for echo request and reply in tcpdump's lines.
fn sees_both(tcpdump: &Process) -> Result<(), String> {
    let text = tcpdump.stdout();
    if text.contains("echo request") && text.contains("echo reply") { Ok(()) } else { Err(text) }
}

/// The shortcut hides what leaves from sniffers; it is closed as soon as there is one.
#[test]
fn tcpdump_sees_both_directions() {
    let lab = Lab::new("tcpdump");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let [to_a, to_b] = [&a, &b].map(|host| host.address().to_string());
    let _b = b.attach(&["--vni", "16", "--peer", &to_a, "--address", "10.8.0.2/24"]);
    let _a = a.attach(&["--vni", "16", "--peer", &to_b, "--address", "10.8.0.1/24"]);
    let mut pings = a.spawn("ping", &["-n", "-i", "0.02", "10.8.0.2"]);
    pings.wait_log_line("icmp_seq=", Duration::from_secs(5));
    for interface in ["l2m10", "any"] {
        for promiscuous in [true, false] {
            wait_transmit(&a, "egress shortcut");
            let no: &[&str] = if promiscuous { &[] } else { &["-p"] };
            let args = [&["-n", "-l", "--immediate-mode", "-i", interface], no, &["icmp"]].concat();
            let mut tcpdump = a.spawn("tcpdump", &args);
            tcpdump.wait_log_line("listening on", Duration::from_secs(5));
            let start = Instant::now();
            wait_for(&format!("tcpdump -i {interface} {no:?} sees both"), AT_ONCE, || sees_both(&tcpdump));
            println!("{interface} {no:?}: {:?}", start.elapsed());
            tcpdump.signal(Signal::SIGTERM);
            tcpdump.wait_exit(Duration::from_secs(5));
        }
    }
    wait_transmit(&a, "egress shortcut");
}
