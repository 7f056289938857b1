//! Other people's programs, devices, ports and firewalls: they keep working, and l2mesh says what it does about them.

use std::time::Duration;

use aya::programs::TcAttachType::{Egress, Ingress};
use l2mesh_tests::foreign::{Counter, Kind};
use l2mesh_tests::{
    Agent, Frame, Host, Lab, MacAddr, State, Tap, VxlanOptions, Wiring, mesh_file_not_probed, traffic, transfer,
    wait_for,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Frames of a test.
const FRAMES: u64 = 20;

fn pair(title: &str) -> (Lab, [Host; 2]) {
    let lab = Lab::new(title);
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    (lab, hosts)
}

/// Network 16, 10.8.0.1 on a and 10.8.0.2 on b.
#[track_caller]
fn attach(host: &Host, peer: &Host, more: &[&str]) -> Agent {
    let address = if host.name() == "a" { "10.8.0.1/24" } else { "10.8.0.2/24" };
    host.attach(&[&["--vni", "16", "--peer", &peer.address().to_string(), "--address", address], more].concat())
}

#[track_caller]
fn assert_works(a: &Host) {
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 3).lost(), 0);
}

#[track_caller]
fn status(host: &Host, key: &str) -> String {
    let status = host.l2mesh(&["status", "--json"]);
    status[key].as_str().unwrap_or_else(|| panic!("no {key}: {status}")).to_owned()
}

/// A kernel vxlan device of VNI 7 with an address in 10.7.0.0/24.
#[track_caller]
fn plain_vxlan(host: &Host, peer: &Host) {
    let options = VxlanOptions { name: "vx7".to_owned(), vni: 7, ..VxlanOptions::default() };
    host.kernel_vxlan(host.address(), &[peer.address().into()], &options);
    host.add_address("vx7", if host.name() == "a" { "10.7.0.1/24" } else { "10.7.0.2/24" });
}

/// Bulk TCP too: in mode tc it goes through the helper device, behind another port then.
#[test]
fn port_held_by_a_plain_vxlan() {
    for mode in ["tc", "xdp"] {
        let (lab, [a, b]) = pair("port held");
        plain_vxlan(&a, &b);
        plain_vxlan(&b, &a);
        assert_eq!(traffic::ping(&a, [10, 7, 0, 2], 3).lost(), 0);
        let before = a.state();
        let agents = [attach(&a, &b, &["--mode", mode]), attach(&b, &a, &["--mode", mode])];
        for (network, third) in [(7, "vxlan"), (8, "l2mesh")] {
            assert_eq!(traffic::ping(&a, [10, network, 0, 2], 3).lost(), 0, "{third}");
            transfer::tcp(&a, &b, [10, network, 0, 2], 4 << 20);
            transfer::tcp(&b, &a, [10, network, 0, 1], 4 << 20);
        }
        let port = status(&a, "udp_port");
        assert_eq!(port, "4789 belongs to another vxlan device, 4790 is ours");
        lab.assert_no_xdp_errors(&[a.clone(), b]);
        agents.into_iter().for_each(Agent::stop);
        a.assert_state(&before);
    }
}

/// A device that comes later finds the port held, unless l2mesh was told to keep off it.
#[test]
fn plain_vxlan_after_us() {
    let (_lab, [a, b]) = pair("port wanted");
    plain_vxlan(&b, &a);
    let agent = attach(&a, &b, &[]);
    assert_eq!(status(&a, "udp_port"), "4789 is ours");
    a.run("ip link add name vx7 type vxlan id 7 dstport 4789");
    let output = a.try_exec("ip", &["link", "set", "dev", "vx7", "up"]);
    assert!(!output.success() && output.stderr.contains("Address already in use"), "{output:?}");
    a.run("ip link delete vx7");
    agent.stop();

    let _agents = [attach(&a, &b, &["--private-port"]), attach(&b, &a, &[])];
    assert_eq!(status(&a, "udp_port"), "4789 is left to others (private-port), 4790 is ours");
    plain_vxlan(&a, &b);
    for network in [7, 8] {
        assert_eq!(traffic::ping(&a, [10, network, 0, 2], 3).lost(), 0, "{network}");
        transfer::tcp(&b, &a, [10, network, 0, 1], 4 << 20);
    }
}

#[test]
fn another_xdp_program() {
    let (_lab, [a, b]) = pair("xdp");
    let counter = Counter::load(&a, Kind::Xdp);
    counter.attach_xdp(&a, "eth0");
    let before = a.state();
    let peer = b.address().to_string();
    let sentence = a.l2mesh_refuses(&["attach", "--iface", "eth0", "--vni", "16", "--peer", &peer, "--mode", "xdp"]);
    assert_eq!(sentence, "no mode xdp: another XDP program is on eth0: use --mode tc");
    a.assert_state(&before);

    let _b = attach(&b, &a, &[]);
    let agent = attach(&a, &b, &["--mode", "auto"]);
    assert!(agent.up_line().contains("mode tc ("), "{}", agent.up_line());
    let seen = counter.frames();
    assert_works(&a);
    assert!(counter.frames() > seen, "it still runs");
    agent.stop();
    a.assert_state(&before);
}

/// What auto finds on a driver that is not veth's.
#[test]
fn auto_says_why() {
    let lab = Lab::new("auto");
    let a = lab.host("a");
    a.run("ip tuntap add dev tap0 mode tap");
    a.run("ip link set dev tap0 up");
    a.add_address("tap0", "192.0.2.10/24");
    let args = ["--vni", "16", "--peer", "192.0.2.11"];
    let agent = a.attach_on("tap0", &args);
    assert!(agent.up_line().ends_with("mode xdp (the driver tun takes XDP programs)"), "{}", agent.up_line());
    agent.stop();
    Counter::load(&a, Kind::Xdp).attach_xdp(&a, "tap0");
    let before = a.state();
    let agent = a.attach_on("tap0", &args);
    assert!(agent.up_line().ends_with("mode tc (another XDP program is on tap0)"), "{}", agent.up_line());
    assert_eq!(status(&a, "mode"), "tc (another XDP program is on tap0)");
    agent.stop();
    a.assert_state(&before);
}

/// A packet socket that has not read yet, as a DHCP client's or lldpd's, holds every frame: the kernel copies what a program
/// would write to, and the copy has no metadata.
#[test]
fn packet_sockets_on_the_underlay() {
    for mode in ["tc", "xdp"] {
        let (_lab, [a, b]) = pair("packet sockets");
        let _agents = [attach(&a, &b, &["--mode", mode]), attach(&b, &a, &["--mode", mode])];
        let _unread = [Tap::open(&a, "eth0"), Tap::open(&b, "eth0")];
        assert_works(&a);
        transfer::tcp(&a, &b, [10, 8, 0, 2], 4 << 20);
    }
}

/// On eth0 and on l2m0, before us and behind us, tcx and clsact: each sees every frame that is not ours, and every
/// frame of the overlay, once.
#[test]
fn programs_on_the_same_hooks() {
    for mode in ["tc", "xdp"] {
        let (lab, [a, b]) = pair("programs");
        for host in [&a, &b] {
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        }
        let underlay = Hooks::new(&a, "eth0");
        underlay.assert_each_frame(&a, &b, "eth0");
        let before = a.state();
        // Answers to probes are ours, and seen by those before us only.
        let network = "[[network]]\nname = \"x\"\nvni = 16\naddresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\" }\n";
        let file = mesh_file_not_probed(&lab, &[a.clone(), b.clone()], network);
        let attach = |host: &Host| host.attach(&["--config", &file, "--mode", mode]);
        let _b = attach(&b);
        let agent = attach(&a);
        underlay.assert_each_frame(&a, &b, "eth0");
        // The shortcut hides sent frames from nobody who was there to see them.
        let overlay = Hooks::new(&a, "l2m10");
        wait_for("the shortcut is closed", Duration::from_secs(2), || {
            let networks = a.l2mesh(&["maps", "networks", "--json"]);
            let text = networks["networks"][0]["transmit"].as_str().unwrap_or_default().to_owned();
            if text.starts_with("hidden peer: ") { Ok(()) } else { Err(text) }
        });
        overlay.assert_each_frame(&a, &b, "l2m10");
        agent.kill();
        overlay.assert_each_frame(&a, &b, "l2m10");
        underlay.assert_each_frame(&a, &b, "eth0");
        let agent = attach(&a);
        overlay.assert_each_frame(&a, &b, "l2m10");
        drop(overlay);
        agent.stop();
        a.assert_state(&before);
    }
}

/// Programs that count, on every hook of one interface.
struct Hooks {
    counters: Vec<(&'static str, Counter)>,
}

impl Hooks {
    fn new(host: &Host, interface: &str) -> Self {
        let place = |name, side| {
            let mut first = Counter::load(host, Kind::Tc);
            first.attach_tcx(host, interface, side);
            let mut last = Counter::load(host, Kind::Tc);
            last.attach_clsact(host, interface, side);
            [(name, first), (name, last)]
        };
        let counters = [place("in", Ingress), place("out", Egress)];
        Self { counters: counters.into_iter().flatten().collect() }
    }

    /// Frames of a type that nobody knows, both ways: the host has nothing to say about them.
    #[track_caller]
    fn assert_each_frame(&self, host: &Host, other: &Host, interface: &str) {
        let [mut near, mut far] = [host, other].map(|host| Tap::open(host, interface));
        // Whatever the interface is still busy with from before.
        near.clear();
        let before: Vec<u64> = self.counters.iter().map(|(_, counter)| counter.frames()).collect();
        for (from, to) in [(&near, far.mac()), (&far, near.mac())] {
            for number in 0..FRAMES {
                from.send(&Frame::unknown(to, from.mac(), &number.to_be_bytes()).padded(60));
            }
        }
        let markers = [near.send_marker(near.mac()), far.send_marker(far.mac())];
        let count = |frames: &[l2mesh_tests::Received], from: MacAddr| {
            frames.iter().filter(|it| it.frame.source() == from && it.frame.ether_type() == 0x88b7).count() as u64
        };
        let (near_mac, far_mac) = (near.mac(), far.mac());
        assert_eq!(count(&far.until(&markers[0], LIMIT), near_mac), FRAMES, "{interface}: out");
        assert_eq!(count(&near.until(&markers[1], LIMIT), far_mac), FRAMES, "{interface}: in");
        let now: Vec<_> = self.counters.iter().map(|(name, counter)| (*name, counter.frames())).collect();
        let seen: Vec<_> = now.iter().zip(before).map(|((name, now), before)| (*name, now - before)).collect();
        // The marker is one more. ARP of the host itself may be among them, seen by both of a side.
        assert!(seen[0] == seen[1] && seen[2] == seen[3], "{interface}: tcx and clsact see different frames: {seen:?}");
        for (name, count) in seen {
            assert!((FRAMES + 1..FRAMES + 5).contains(&count), "{interface} {name}: {count}");
        }
    }
}

/// A device with one of our names or aliases of another mesh is not ours.
#[test]
fn devices_of_others_stay() {
    let (_lab, [a, b]) = pair("devices");
    for (name, alias) in [("l2mff", ""), ("l2pff", "l2mesh"), ("l2mk99", "l2mesh:eth1:255"), ("own", "l2mesh:eth")] {
        a.run(&format!("ip link add name {name} type bridge"));
        if !alias.is_empty() {
            a.run(&format!("ip link set dev {name} alias {alias}"));
        }
    }
    let before: State = a.state();
    attach(&a, &b, &[]).stop();
    a.assert_state(&before);
    attach(&a, &b, &[]).kill();
    a.l2mesh_text(&["detach", "--iface", "eth0"]);
    a.assert_state(&before);
}

/// What the programs hand to the kernel's receive path passes the host's INPUT chains.
#[test]
fn firewall_that_drops_the_port() {
    let (_lab, [a, b]) = pair("firewall");
    let _b = attach(&b, &a, &[]);
    let rules = "add table inet host; add chain inet host input { type filter hook input priority 0; }; \
                 add rule inet host input udp dport 4789 drop";
    a.exec("nft", &[rules]);
    let before = a.state();
    // As asked for, though bulk TCP will hang.
    let mut agent = attach(&a, &b, &["--mode", "tc"]);
    let line = agent.process().wait_log_line("drops UDP port 4789", LIMIT);
    assert!(line.contains("iptables -I INPUT -p udp --dport 4789 -j ACCEPT") && line.contains("nft "), "{line}");
    assert_eq!(status(&a, "firewall"), "drops UDP port 4789 (tested every minute)");
    assert!(a.l2mesh_text(&["status"]).contains("firewall  drops UDP port 4789"));
    assert!(agent.up_line().contains("mode tc (as asked for)"), "{}", agent.up_line());
    assert_works(&a);
    agent.stop();
    a.assert_state(&before);

    let agent = attach(&a, &b, &["--mode", "auto"]);
    assert!(agent.up_line().contains("mode xdp (the host's firewall drops the mesh port"), "{}", agent.up_line());
    assert_eq!(status(&a, "firewall"), "drops UDP port 4789 (tested every minute)");
    assert!(status(&a, "mode").starts_with("xdp "));
    transfer::tcp(&b, &a, [10, 8, 0, 1], 4 << 20);
    agent.stop();
    a.assert_state(&before);

    a.exec("nft", &["delete table inet host"]);
    let agent = attach(&a, &b, &[]);
    assert!(agent.up_line().contains("mode tc ("), "{}", agent.up_line());
    assert_eq!(status(&a, "firewall"), "lets UDP port 4789 in");
    transfer::tcp(&b, &a, [10, 8, 0, 1], 4 << 20);
}
