//! The underlay changes while the mesh runs: frames follow within two seconds.

use std::time::Duration;

use l2mesh_tests::{Agent, Host, Lab, Wiring, traffic, wait_for};

/// How soon frames must follow.
const SOON: Duration = Duration::from_secs(2);

/// Two or more hosts in network 16, as 10.8.0.1, 10.8.0.2 and so on.
#[track_caller]
fn attach_all<const N: usize>(hosts: &[Host; N]) -> [Agent; N] {
    std::array::from_fn(|own| {
        let address = format!("10.8.0.{}/24", own + 1);
        let mut args = vec!["--vni".to_owned(), "16".to_owned(), "--address".to_owned(), address];
        for peer in hosts.iter().filter(|peer| peer.name() != hosts[own].name()) {
            args.extend(["--peer".to_owned(), peer.address().to_string()]);
        }
        hosts[own].attach(&args.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

#[track_caller]
fn assert_follows(what: &str, from: &Host, to: [u8; 4]) {
    wait_for(what, SOON, || {
        let report = traffic::ping(from, to, 1);
        if report.lost() == 0 { Ok(()) } else { Err(format!("{report:?}")) }
    });
    assert_eq!(traffic::ping(from, to, 5).lost(), 0, "{what}: and stays");
}

/// Next hop and interface of the only peer, or of the first.
#[track_caller]
fn peer(host: &Host) -> (String, String) {
    let peers = host.l2mesh(&["maps", "peers", "--json"]);
    let text = |key: &str| peers["peers"][0][key].as_str().unwrap_or_default().to_owned();
    (text("next_hop"), text("interface"))
}

#[track_caller]
fn wait_peer(host: &Host, next_hop: &str, interface: &str) {
    wait_for(&format!("{}: next hop {next_hop} on {interface}", host.name()), SOON, || {
        let found = peer(host);
        if found == (next_hop.to_owned(), interface.to_owned()) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Another card: the old address is nobody's any more. Its new owner says so, as cards do (gratuitous ARP).
#[test]
fn the_mac_address_of_a_neighbour() {
    let lab = Lab::new("mac");
    let hosts = lab.switch(["a", "b"], &Wiring::default());
    let _agents = attach_all(&hosts);
    let [a, b] = &hosts;
    assert_follows("at first", a, [10, 8, 0, 2]);
    for mac in ["02:00:00:00:00:b1", "02:00:00:00:00:b2"] {
        b.run(&format!("ip link set dev eth0 address {mac}"));
        // Its own neighbours are gone with that: it asks for them and thereby tells.
        b.run("ip neigh flush dev eth0");
        assert_eq!(traffic::ping(b, a.address(), 1).lost(), 0);
        wait_peer(a, mac, "eth0");
        assert_follows("to the new address", a, [10, 8, 0, 2]);
        assert_follows("from the new address", b, [10, 8, 0, 1]);
    }
}

/// By an entry that no ARP has made, and back.
#[test]
fn a_neighbour_that_is_replaced_by_hand() {
    let lab = Lab::new("permanent");
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    let _agents = attach_all(&hosts);
    let [a, b] = &hosts;
    let wrong = "02:00:00:00:00:99";
    a.run(&format!("ip neigh replace {} lladdr {wrong} dev eth0 nud permanent", b.address()));
    wait_peer(a, wrong, "eth0");
    a.run(&format!("ip neigh replace {} lladdr {} dev eth0 nud reachable", b.address(), b.mac("eth0")));
    wait_peer(a, &b.mac("eth0").to_string(), "eth0");
    assert_follows("back", a, [10, 8, 0, 2]);
}

#[test]
fn the_gateway_and_the_route() {
    let lab = Lab::new("gateway");
    let hosts = lab.routed(["a", "b"], &Wiring::default());
    let second = lab.add_uplink(&hosts[0], &Wiring::default());
    let _agents = attach_all(&hosts);
    let [a, b] = &hosts;
    let router = lab.fabric();
    let first = router.mac(&a.uplink(0).port).to_string();
    wait_peer(a, &first, "eth0");
    assert_follows("at first", a, [10, 8, 0, 2]);

    // A second router in the same subnet.
    let gateway = a.uplink(0).gateway.expect("a router");
    let another = std::net::Ipv4Addr::from_bits(gateway.to_bits() + 1);
    // Each answers for its own address only.
    router.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    router.run(&format!("ip link add link {} name gw2 type macvlan mode bridge", a.uplink(0).port));
    router.add_address("gw2", &format!("{another}/28"));
    router.run("ip link set dev gw2 up");
    a.run(&format!("ip route replace default via {another}"));
    wait_peer(a, &router.mac("gw2").to_string(), "eth0");
    assert_follows("through the other gateway", a, [10, 8, 0, 2]);

    // Another way for this peer alone.
    let through = second.gateway.expect("a router");
    a.run(&format!("ip route add {} via {through} dev {} src {}", b.address(), second.interface, a.address()));
    wait_peer(a, &router.mac(&second.port).to_string(), &second.interface);
    assert_follows("over the other interface", a, [10, 8, 0, 2]);

    a.run(&format!("ip route delete {}", b.address()));
    a.run(&format!("ip route replace default via {gateway}"));
    wait_peer(a, &first, "eth0");
    assert_follows("back", a, [10, 8, 0, 2]);

    // No way at all: said, and taken up again.
    a.run("ip route delete default");
    wait_peer(a, "", "");
    a.run(&format!("ip route add default via {gateway}"));
    wait_peer(a, &first, "eth0");
    assert_follows("with a route again", a, [10, 8, 0, 2]);
}

/// The own address goes and comes back, as with a DHCP lease that ran out; the interface goes down and up.
#[test]
fn the_own_address_and_the_interface() {
    let lab = Lab::new("address");
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    let _agents = attach_all(&hosts);
    let [a, b] = &hosts;
    let next_hop = b.mac("eth0").to_string();
    assert_follows("at first", a, [10, 8, 0, 2]);
    let address = format!("{}/24", a.address());
    a.run(&format!("ip address delete {address} dev eth0"));
    wait_peer(a, "", "");
    a.add_address("eth0", &address);
    wait_peer(a, &next_hop, "eth0");
    assert_follows("with its address again", a, [10, 8, 0, 2]);

    a.run("ip link set dev eth0 down");
    wait_peer(a, "", "");
    a.run("ip link set dev eth0 up");
    a.wait_carrier("eth0");
    wait_peer(a, &next_hop, "eth0");
    assert_follows("up again", a, [10, 8, 0, 2]);
}

/// A new lease behind 1:1 NAT: the node's address is not the interface's, and the others know the new one.
#[test]
fn another_own_address() {
    let lab = Lab::new("lease");
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    let [a, b] = &hosts;
    let file = lab.directory().join("mesh.toml");
    let path = file.display().to_string();
    let write = |seen: &str| {
        let node = |name: &str, address: &str| format!("[[node]]\nname = \"{name}\"\naddress = \"{address}\"\n");
        let text = node("a", "203.0.113.77") + &format!("from = {{ b = \"{seen}\" }}\n") + &node("b", "192.0.2.11");
        let network =
            "[[network]]\nname = \"lan\"\nvni = 16\naddresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\" }\n";
        std::fs::write(&file, text + network).expect("a file in the lab's directory");
    };
    write("192.0.2.10");
    let mut agent = a.attach(&["--config", &path, "--node", "a"]);
    let other = b.attach(&["--config", &path]);
    assert_follows("at first", a, [10, 8, 0, 2]);

    a.run("ip address delete 192.0.2.10/24 dev eth0");
    a.add_address("eth0", "192.0.2.50/24");
    agent.process().wait_log_line("sending from 192.0.2.50, no longer from 192.0.2.10", SOON);
    other.kill();
    write("192.0.2.50");
    let _other = b.attach(&["--config", &path]);
    assert_follows("from the new address", a, [10, 8, 0, 2]);
    assert_follows("to the new address", b, [10, 8, 0, 1]);
    assert_eq!(a.l2mesh(&["status", "--json"])["local"], "192.0.2.50");
    // The programs themselves took it: nothing was left to the kernel's receive path but the firewall's tests.
    let counters = a.l2mesh(&["maps", "counters", "--json"]);
    let handed = counters["counters"].as_array().into_iter().flatten().find(|row| row["verdict"] == "handed-to-helper");
    assert!(handed.is_some_and(|row| row["frames"].as_u64() < Some(5)), "{counters}");
}

/// An underlay with a smaller MTU takes smaller frames only; nothing is sent that it would lose.
#[test]
fn the_mtu() {
    let lab = Lab::new("mtu");
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    let _agents = attach_all(&hosts);
    let [a, _b] = &hosts;
    let mtu = |host: &Host| host.l2mesh(&["maps", "peers", "--json"])["peers"][0]["mtu"].clone();
    assert_eq!(traffic::ping_sized(a, [10, 8, 0, 2], 1, 1450 - 28).lost(), 0);
    a.run("ip link set dev eth0 mtu 1400");
    wait_for("1350 fit", SOON, || if mtu(a) == 1350 { Ok(()) } else { Err(mtu(a).to_string()) });
    assert_eq!(traffic::ping_sized(a, [10, 8, 0, 2], 1, 1350 - 28).lost(), 0);
    assert_eq!(traffic::ping_sized(a, [10, 8, 0, 2], 1, 1351 - 28).received, 0);
    // It was told that 1350 fit, and remembers that for ten minutes.
    a.run("ip route flush cache");
    a.run("ip link set dev eth0 mtu 1500");
    wait_for("1450 fit", SOON, || if mtu(a) == 1450 { Ok(()) } else { Err(mtu(a).to_string()) });
    assert_eq!(traffic::ping_sized(a, [10, 8, 0, 2], 1, 1450 - 28).lost(), 0);
}

/// Overlay addresses that cover the underlay's: frames for the peer must not go into the mesh itself.
#[test]
fn a_route_into_the_mesh_itself() {
    let lab = Lab::new("into itself");
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    let [a, b] = &hosts;
    let [mut agent, _other] = attach_all(&hosts);
    assert_follows("at first", a, [10, 8, 0, 2]);
    // The lab's addresses are in the lower half of a /24.
    let [network @ .., host] = b.address().octets();
    assert!(host < 126, "{}", b.address());
    let [first, second, third] = network;
    let covering = format!("{first}.{second}.{third}.126/25 dev l2m10");
    a.run(&format!("ip address add {covering}"));
    agent.process().wait_log_line("leads into the mesh itself", SOON);
    wait_peer(a, "", "");
    a.run(&format!("ip address delete {covering}"));
    wait_peer(a, &b.mac("eth0").to_string(), "eth0");
    assert_follows("without it", a, [10, 8, 0, 2]);
}
