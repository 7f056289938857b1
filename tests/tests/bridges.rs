//! `bridge = "..."`: made where it is missing, left as it was where it is not.

use std::net::Ipv4Addr;
use std::time::Duration;

use l2mesh_tests::dhcp::{DhcpServer, Lease};
use l2mesh_tests::{Agent, Host, Lab, Wiring, mesh_file, traffic, transfer, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);

/// Octets of a TCP transfer.
const BULK: usize = 4 << 20;

/// Two hosts on one wire, in network 16 with these lines more.
struct Two {
    lab: Lab,
    hosts: [Host; 2],
}

impl Two {
    fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        Self { lab, hosts }
    }

    fn file(&self, lines: &str) -> String {
        let network =
            "[[network]]\nname = \"lan\"\nvni = 16\naddresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\" }\n";
        mesh_file(&self.lab, &self.hosts, &format!("{network}{lines}\n"))
    }

    #[track_caller]
    fn attach(&self, host: &Host, lines: &str) -> Agent {
        host.attach(&["--config", &self.file(lines)])
    }

    #[track_caller]
    fn assert_works(&self) {
        assert_eq!(traffic::ping(&self.hosts[0], [10, 8, 0, 2], 3).lost(), 0);
        transfer::tcp(&self.hosts[0], &self.hosts[1], [10, 8, 0, 2], BULK);
    }

    /// A host that is plugged into a bridge of another: its eth0.
    fn guest(&self, name: &str, of: &Host, bridge: &str) -> Host {
        let guest = self.lab.host(name);
        of.connect(name, &guest, "eth0");
        // The path is 50 octets shorter than Ethernet, as a DHCP server would have to say.
        guest.run("ip link set dev eth0 mtu 1450 up");
        of.run(&format!("ip link set dev {name} mtu 1450 master {bridge} up"));
        guest
    }
}

/// The IPv4 addresses of an interface, with their prefix lengths.
fn addresses(host: &Host, interface: &str) -> Vec<String> {
    let shown = host.ip_json(&["-4", "address", "show", "dev", interface]);
    let all = shown.iter().flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    all.map(|it| format!("{}/{}", it["local"].as_str().unwrap_or_default(), it["prefixlen"])).collect()
}

/// The bridge of which an interface is a port.
fn master(host: &Host, interface: &str) -> String {
    host.link(interface)["master"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn made_and_removed() {
    let two = Two::new("bridge made");
    let [a, b] = &two.hosts;
    let before = two.hosts.each_ref().map(Host::state);
    let mut macs = Vec::new();
    for _ in 0..2 {
        let agents = [two.attach(a, "bridge = \"br0\""), two.attach(b, "bridge = \"br0\"")];
        for (host, address) in [(a, "10.8.0.1/24"), (b, "10.8.0.2/24")] {
            let bridge = host.link("br0");
            assert_eq!(bridge["linkinfo"]["info_kind"], "bridge", "{bridge}");
            assert_eq!(bridge["ifalias"], "l2mesh:eth0:16:bridge", "{bridge}");
            assert_eq!((&bridge["mtu"], &host.link("l2m10")["mtu"]), (&1450.into(), &1450.into()));
            assert_eq!(addresses(host, "br0"), [address]);
            assert_eq!((addresses(host, "l2m10"), master(host, "l2m10")), (Vec::new(), "br0".to_owned()));
        }
        two.assert_works();
        a.wait_transmit("egress shortcut");
        assert_eq!(a.l2mesh(&["maps", "networks", "--json"])["networks"][0]["bridge"], "br0");
        // Ports with greater MTUs and lesser MAC addresses come and go: the bridge stays as it is.
        macs.push(a.mac("br0"));
        a.run("ip link add name tap9 address 00:00:00:00:00:09 master br0 type veth peer name tap8");
        assert_eq!((a.mac("br0"), &a.link("br0")["mtu"]), (macs[0], &1450.into()));
        a.run("ip link delete tap9");
        agents.into_iter().for_each(Agent::stop);
        two.hosts.iter().zip(&before).for_each(|(host, before)| host.assert_state(before));
    }
    assert_eq!(macs[0], macs[1], "leases outlive a restart");
    assert_ne!(macs[0], b.mac("eth0"));
}

/// What the bridge is for: machines behind it that know nothing of a mesh.
#[test]
fn guests_on_both_sides() {
    let two = Two::new("bridge guests");
    let [a, b] = &two.hosts;
    let _agents = [two.attach(a, "bridge = \"br0\""), two.attach(b, "bridge = \"br0\"")];
    let [near, far] = [two.guest("near", a, "br0"), two.guest("far", b, "br0")];
    far.add_address("eth0", "10.8.0.20/24");
    let _server = DhcpServer::start(&far, "eth0", Ipv4Addr::new(10, 8, 0, 100), Ipv4Addr::new(10, 8, 0, 110));
    let lease = Lease::acquire(&near, "eth0");
    assert_eq!(lease.server, Ipv4Addr::new(10, 8, 0, 20));
    for (from, to) in [(&near, [10, 8, 0, 20]), (&near, [10, 8, 0, 1]), (&near, [10, 8, 0, 2]), (a, [10, 8, 0, 20])] {
        assert_eq!(traffic::ping(from, to, 3).lost(), 0, "{} to {to:?}", from.name());
    }
    transfer::tcp(&near, &far, [10, 8, 0, 20], BULK);
    transfer::tcp(&far, &near, lease.address, BULK);
}

/// Guests on a bridge that was made for the mesh keep their switch, and the next attach finds them on it.
#[test]
fn made_and_in_use() {
    let two = Two::new("bridge in use");
    let [a, b] = &two.hosts;
    let before = a.state();
    let _b = two.attach(b, "bridge = \"br0\"");
    let mut agent = two.attach(a, "bridge = \"br0\"");
    let guest = two.guest("guest", a, "br0");
    guest.add_address("eth0", "10.8.0.10/24");
    assert_eq!(traffic::ping(&guest, [10, 8, 0, 2], 3).lost(), 0);
    agent.process().signal(Signal::SIGTERM);
    agent.process().wait_log_line("bridge br0 stays: ", LIMIT);
    assert!(agent.process().wait_exit(LIMIT).success());
    assert_eq!((addresses(a, "br0"), a.try_link("l2m10")), (Vec::new(), None));

    let agent = two.attach(a, "bridge = \"br0\"");
    assert_eq!(traffic::ping(&guest, [10, 8, 0, 2], 3).lost(), 0);
    a.run("ip link delete guest");
    agent.stop();
    a.assert_state(&before);
}

/// Somebody removes the bridge of a running mesh.
#[test]
fn removed_by_hand() {
    let two = Two::new("bridge removed");
    let [a, b] = &two.hosts;
    let _b = two.attach(b, "bridge = \"br0\"");
    let mut agent = two.attach(a, "bridge = \"br0\"");
    two.assert_works();
    a.run("ip link delete br0");
    agent.process().wait_log_line("l2m10 is no port of br0 any more", LIMIT);
    agent.kill();
    let _agent = two.attach(a, "bridge = \"br0\"");
    two.assert_works();
}

/// A bridge with a port, addresses and a MAC address of its own gets a port and an address, and loses both.
#[test]
fn one_that_was_there_stays_as_it_was() {
    let two = Two::new("bridge kept");
    let [a, b] = &two.hosts;
    a.run("ip link add name br0 type bridge");
    a.run("ip link set dev br0 up");
    let guest = two.guest("guest", a, "br0");
    a.add_address("br0", "10.8.0.9/24");
    a.add_address("br0", "10.9.0.1/24");
    // A local MAC address as virtual machines have them: less than most.
    let mac = a.mac("br0");
    guest.add_address("eth0", "10.8.0.10/24");
    let before = a.state();
    let _b = two.attach(b, "");
    for killed in [false, true] {
        let agent = two.attach(a, "bridge = \"br0\"");
        assert_eq!(addresses(a, "br0"), ["10.8.0.9/24", "10.9.0.1/24", "10.8.0.1/24"]);
        assert_eq!((a.mac("br0"), master(a, "l2m10")), (mac, "br0".to_owned()));
        two.assert_works();
        assert_eq!(traffic::ping(&guest, [10, 8, 0, 2], 3).lost(), 0);
        if killed {
            agent.kill();
            let said = a.l2mesh_text(&["detach", "--iface", "eth0"]);
            assert!(said.contains("removed 10.8.0.1/24 from br0\n") && !said.contains("removed br0"), "{said}");
        } else {
            agent.stop();
        }
        a.assert_state(&before);
    }
}

/// An address that is there already belongs to whoever added it.
#[test]
fn an_address_of_somebody_else_stays() {
    let two = Two::new("bridge address");
    let [a, _] = &two.hosts;
    a.run("ip link add name br0 address 02:00:00:00:00:b0 type bridge");
    a.add_address("br0", "10.8.0.1/24");
    let before = a.state();
    two.attach(a, "bridge = \"br0\"").stop();
    a.assert_state(&before);
}

/// A MTU that somebody set is theirs: said, not changed.
#[test]
fn a_greater_mtu_set_by_hand_is_told() {
    let two = Two::new("bridge mtu");
    let [a, _] = &two.hosts;
    a.run("ip link add name br0 type bridge");
    a.run("ip link set dev br0 mtu 1499");
    a.run("ip link set dev br0 mtu 1500");
    let mut agent = two.attach(a, "bridge = \"br0\"");
    let line = agent.process().wait_log_line("bridge br0 has an MTU of 1500", LIMIT);
    assert!(line.contains("ip link set br0 mtu 1450"), "{line}");
    agent.process().wait_log_line("bridge br0 is down", LIMIT);
    assert_eq!(a.link("br0")["mtu"], 1500);
}

#[test]
fn a_name_that_is_no_bridge_is_refused() {
    let two = Two::new("bridge refused");
    let [a, _] = &two.hosts;
    a.run("ip link add name br0 type veth peer name br1");
    a.run("ip link property add dev br1 altname the-other-end");
    a.run("ip link add name br2 type bridge");
    a.run("ip link set dev br2 alias l2mesh:eth9:16:bridge");
    let before = a.state();
    for (name, expected) in [
        ("br0", "a device of that name exists and is no bridge (veth): remove it or write another name"),
        ("the-other-end", "a device of that name exists and is no bridge (veth): remove it or write another name"),
        ("eth0", "is the underlay interface: write another name"),
        ("br2", "belongs to another mesh (l2mesh:eth9:16:bridge): one bridge would join both: write another name"),
    ] {
        let file = two.file(&format!("bridge = \"{name}\""));
        let sentence = a.l2mesh_refuses(&["attach", "--iface", "eth0", "--config", &file]);
        let start = format!("network \"lan\": bridge \"{name}\"");
        assert!(sentence.starts_with(&start) && sentence.ends_with(expected), "{sentence}");
        a.assert_state(&before);
    }
}

/// The next attach makes what is there what its configuration says, also after a crash.
#[test]
fn another_configuration() {
    let two = Two::new("bridge changed");
    let [a, b] = &two.hosts;
    // Else it takes the MAC address of its only port, and the kernel leaves it none when that goes.
    a.run("ip link add name own address 02:00:00:00:00:b0 type bridge");
    a.run("ip link set dev own addrgenmode none up");
    let before = a.state();
    let _b = two.attach(b, "");
    let mac = |bridge: bool| {
        let mac = a.mac("l2m10");
        assert_eq!(mac.0[0], if bridge { 0xfe } else { 0x02 }, "{mac}");
    };
    for (lines, bridge) in [
        ("", ""),
        ("bridge = \"br0\"", "br0"),
        ("bridge = \"br0\"", "br0"),
        ("bridge = \"br1\"", "br1"),
        ("bridge = \"own\"", "own"),
        ("", ""),
        ("bridge = \"own\"", "own"),
        ("bridge = \"br1\"", "br1"),
    ] {
        let agent = two.attach(a, lines);
        assert_eq!(master(a, "l2m10"), bridge, "{lines}");
        let bridges: Vec<&str> = ["br0", "br1"].into_iter().filter(|name| a.try_link(name).is_some()).collect();
        assert_eq!(bridges, if bridge.starts_with("br") { vec![bridge] } else { Vec::new() }, "{lines}");
        for place in ["l2m10", "own"].iter().chain(&bridges) {
            let expected: &[&str] =
                if *place == bridge || bridge.is_empty() && *place == "l2m10" { &["10.8.0.1/24"] } else { &[] };
            assert_eq!(addresses(a, place), expected, "{lines}: {place}");
        }
        mac(!bridge.is_empty());
        two.assert_works();
        agent.kill();
        two.assert_works();
    }
    a.l2mesh_text(&["detach", "--iface", "eth0"]);
    a.assert_state(&before);
}

/// A container that had the interface for a while gives it back: it is a port again.
#[test]
fn moved_and_back() {
    let two = Two::new("bridge moved");
    let [a, b] = &two.hosts;
    let guest = two.lab.host("guest");
    let before = [a.state(), guest.state()];
    let _b = two.attach(b, "");
    let mut agent = two.attach(a, "bridge = \"br0\"");
    two.assert_works();
    a.move_interface("l2m10", &guest);
    guest.run("ip link set dev l2m10 up");
    guest.add_address("l2m10", "10.8.0.7/24");
    assert_eq!(traffic::ping(&guest, [10, 8, 0, 2], 3).lost(), 0);
    agent.kill();
    agent = two.attach(a, "bridge = \"br0\"");
    agent.process().wait_log_line("it becomes a port of br0 when it comes back", LIMIT);
    guest.move_interface("l2m10", a);
    a.run("ip link set dev l2m10 up");
    wait_for("it is a port again", LIMIT, || match master(a, "l2m10") {
        bridge if bridge == "br0" => Ok(()),
        other => Err(other),
    });
    two.assert_works();
    // Whoever takes it out by hand is obeyed, and whoever removes the bridge is survived.
    a.run("ip link set dev l2m10 nomaster");
    a.run("ip link delete br0");
    a.add_address("l2m10", "10.8.0.1/24");
    two.assert_works();
    agent.stop();
    a.assert_state(&before[0]);
    guest.assert_state(&before[1]);
}
