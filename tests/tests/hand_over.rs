//! From a vxlan device to l2mesh by `l2mesh import`: what worked before works after, with the others as they were.

use std::net::IpAddr;

use l2mesh_tests::import::{assert_lines, attach_as_told, check, import, write};
use l2mesh_tests::{Frame, Host, Lab, MacAddr, Tap, Wiring, assert_flooded, traffic, transfer};

/// TCP data, octets.
const BULK: usize = 4 << 20;

/// The recipe of `shared/seeds`, word for word, on a host with one of its addresses.
#[track_caller]
fn recipe(host: &Host, own: u8, others: [u8; 2], inner: u8) {
    host.add_address("eth0", &format!("192.168.226.{own}/24"));
    host.run(&format!("ip link add provider0 type vxlan id 16 local 192.168.226.{own} dstport 0"));
    for other in others {
        host.run(&format!("bridge fdb append to 00:00:00:00:00:00 dst 192.168.226.{other} dev provider0"));
    }
    host.run(&format!("ip addr add 192.168.234.{inner}/23 dev provider0"));
    host.run("ip link set up dev provider0");
}

/// Three hosts of which one is handed over: the other two keep what they have.
#[test]
fn hand_over() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("hand over");
        let hosts = lab.switch(["bastion", "host-00", "host-01"], &Wiring::default());
        for host in &hosts {
            // Nothing of the interfaces' own between the frames of the test.
            host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
        }
        let [bastion, host_00, host_01] = &hosts;
        recipe(bastion, 4, [5, 6], 1);
        recipe(host_00, 5, [4, 6], 2);
        recipe(host_01, 6, [4, 5], 3);
        assert_eq!(traffic::ping(bastion, [192, 168, 234, 3], 3).lost(), 0, "as it was");

        let text = import(bastion, &["provider0"]);
        check(&lab, bastion, &text);
        assert_lines(
            &text,
            &["port = 8472", "#   ip link delete dev provider0", "#   l2mesh attach --iface eth0 --config FILE"],
        );
        let path = write(&lab, "mesh.toml", &text);
        let attach = ["attach", "--iface", "eth0", "--config", &path];
        let refused = bastion.l2mesh_refuses(&attach);
        assert!(refused.contains("a device named provider0 exists"), "{refused}");
        bastion.run("ip link delete dev provider0");
        let agent = attach_as_told(&lab, bastion, &text, &["--mode", mode]);

        assert_eq!(bastion.link("provider0")["mtu"], 1450, "{mode}");
        for (place, other) in [(2, host_00), (3, host_01)] {
            let (there, here) = ([192, 168, 234, place], [192, 168, 234, 1]);
            assert_eq!(traffic::ping(bastion, there, 3).lost(), 0, "{mode}: to {place}");
            assert_eq!(traffic::ping(other, here, 3).lost(), 0, "{mode}: from {place}");
            transfer::tcp(bastion, other, there, BULK);
            transfer::tcp(other, bastion, here, BULK);
            assert_eq!(
                traffic::arping(bastion, "provider0", there.into(), 2),
                2,
                "{mode}: one answer to each question"
            );
            assert_eq!(traffic::arping(other, "provider0", here.into(), 2), 2, "{mode}");
        }
        let mut taps = hosts.each_ref().map(|host| Tap::open(host, "provider0"));
        assert_flooded(&mut taps, |tap| vec![Frame::unknown(MacAddr::BROADCAST, tap.mac(), b"everybody").padded(60)]);
        for verdict in ["unknown-source", "not-member"] {
            assert_eq!(bastion.counter(verdict), 0, "{mode}: {verdict}");
        }
        agent.stop();
    }
}

/// One network over IPv6, whose other end insists on UDP checksums, and one over IPv4 with another host: one mesh.
#[test]
fn hand_over_in_both_families() {
    let lab = Lab::new("both families");
    let [a, six, four] = lab.switch(["a", "six", "four"], &Wiring { ipv6: true, ..Wiring::default() });
    let devices = |host: &Host, name: &str, vni: u32, local: IpAddr, remote: IpAddr, inner: &str| {
        host.run(&format!(
            "ip link add {name} type vxlan id {vni} local {local} remote {remote} dev eth0 dstport 8472"
        ));
        host.add_address(name, inner);
        host.run(&format!("ip link set {name} up"));
    };
    devices(&a, "vx6", 6, a.address6().into(), six.address6().into(), "10.6.0.1/24");
    devices(&six, "vx6", 6, six.address6().into(), a.address6().into(), "10.6.0.2/24");
    devices(&a, "vx4", 4, a.address().into(), four.address().into(), "10.4.0.1/24");
    devices(&four, "vx4", 4, four.address().into(), a.address().into(), "10.4.0.2/24");
    let text = import(&a, &[]);
    check(&lab, &a, &text);
    a.run("ip link delete vx4");
    a.run("ip link delete vx6");
    let _agent = attach_as_told(&lab, &a, &text, &[]);
    for (network, other) in [(6, &six), (4, &four)] {
        assert_eq!(traffic::ping(&a, [10, network, 0, 2], 3).lost(), 0, "over IPv{network}");
        transfer::tcp(&a, other, [10, network, 0, 2], BULK);
        transfer::tcp(other, &a, [10, network, 0, 1], BULK);
    }
}

/// An address of the host that is not the interface's, as in fabrics that route to loopback addresses; and one that is
/// nobody's here, as behind 1:1 NAT.
#[test]
fn an_address_that_is_elsewhere() {
    let lab = Lab::new("loopback");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    a.add_address("lo", "10.255.0.1/32");
    b.run(&format!("ip route add 10.255.0.1/32 via {}", a.address()));
    for (host, local, remote, inner) in [
        (&a, IpAddr::from([10, 255, 0, 1]), IpAddr::from(b.address()), "10.8.0.1/24"),
        (&b, b.address().into(), [10, 255, 0, 1].into(), "10.8.0.2/24"),
    ] {
        host.run(&format!("ip link add vx0 type vxlan id 16 local {local} remote {remote} dstport 8472"));
        host.add_address("vx0", inner);
        host.run("ip link set vx0 up");
    }
    let text = import(&a, &["vx0"]);
    check(&lab, &a, &text);
    assert_lines(&text, &["#   l2mesh attach --iface eth0 --config FILE --node 10.255.0.1 --local 10.255.0.1"]);
    let nat = import(&a, &["vx0", "--local", "203.0.113.10"]);
    check(&lab, &a, &nat);
    assert_lines(&nat, &["#   l2mesh attach --iface eth0 --config FILE --node 203.0.113.10"]);
    a.run("ip link delete vx0");
    let agent = attach_as_told(&lab, &a, &text, &[]);
    assert_eq!(traffic::ping(&b, [10, 8, 0, 1], 3).lost(), 0);
    transfer::tcp(&a, &b, [10, 8, 0, 2], BULK);
    agent.stop();
    attach_as_told(&lab, &a, &nat, &[]).stop();
}

/// An underlay without Ethernet header asks for mode kernel, and the file says what that needs.
#[test]
fn over_a_tunnel() {
    let lab = Lab::new("tunnel");
    let a = lab.host("a");
    a.run("ip tuntap add dev tun0 mode tun");
    a.run("ip link set dev tun0 up");
    a.add_address("tun0", "10.20.0.1/24");
    a.run("ip link add vx0 type vxlan id 16 remote 10.20.0.2 dstport 8472");
    let text = import(&a, &["vx0"]);
    check(&lab, &a, &text);
    assert_lines(&text, &["probes = false", "#   l2mesh attach --iface tun0 --config FILE --mode kernel"]);
    a.run("ip link delete vx0");
    let agent = attach_as_told(&lab, &a, &text, &[]);
    assert!(agent.up_line().contains("vx0") && agent.up_line().contains("mode kernel"), "{}", agent.up_line());
}
