//! What the programs do with frames that do not fit: who is told, what is fragmented, what ends.

use std::time::Duration;

use l2mesh_tests::{Capture, Direction, Host, Lab, Pcap, Segment, VxlanOptions, Wiring, traffic, wait_for};

const LIMIT: Duration = Duration::from_secs(5);

/// One line for each answer in a capture: where it goes, what it says, how long it is, and what it quotes.
fn answers(pcap: &Pcap) -> Vec<String> {
    let v4 = ["ip.src", "ip.dst", "ip.flags", "ip.len", "icmp.type", "icmp.code", "icmp.mtu", "icmp.checksum.status"];
    let v6 =
        ["ipv6.src", "ipv6.dst", "ipv6.plen", "icmpv6.type", "icmpv6.code", "icmpv6.mtu", "icmpv6.checksum.status"];
    let rows = [pcap.fields("icmp.type == 3 and icmp.code == 4", &v4), pcap.fields("icmpv6.type == 2", &v6)];
    rows.concat().into_iter().map(|row| row.join(" ")).collect()
}

/// A host that pings too big, with the kernel's vxlan device or with l2mesh as the port of its bridge: what is told.
#[track_caller]
fn told(lab: &Lab, hosts: &[Host; 2], by_kernel: bool) -> Vec<String> {
    let a = &hosts[0];
    let (agents, port) = if by_kernel {
        let options = VxlanOptions { mtu: Some(1500), ..VxlanOptions::default() };
        Segment { nodes: &[], plain: hosts, args: &[], file: None }.plain_up(&options);
        (Vec::new(), "vx0")
    } else {
        let agents = Segment::of(hosts, &[]).up(lab);
        hosts.iter().for_each(|host| drop(host.run("ip link set dev l2m0 mtu 1500")));
        (agents, "l2m0")
    };
    let guest = lab.host(if by_kernel { "kernel-guest" } else { "guest" });
    a.run(&format!("ip address flush dev {port}"));
    a.run(&format!("ip link add name br{port} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"));
    a.run(&format!("ip link set dev br{port} up"));
    a.run(&format!("ip link set dev {port} master br{port}"));
    a.connect(&format!("g{port}"), &guest, "eth0");
    a.run(&format!("ip link set dev g{port} master br{port}"));
    Segment::address(&guest, "eth0", 0);
    for address in [Segment::v4(1).into(), std::net::IpAddr::from(Segment::v6(1))] {
        wait_for("the bridge forwards", LIMIT, || match traffic::ping(&guest, address, 1).lost() {
            0 => Ok(()),
            _ => Err("no answer".to_owned()),
        });
    }
    let capture = Capture::start(&guest, "eth0", Direction::In, "");
    for (address, data) in [(Segment::v4(1).into(), 1472), (std::net::IpAddr::from(Segment::v6(1)), 1452)] {
        let said = guest
            .try_exec("ping", &["-n", "-M", "do", "-c", "1", "-W", "1", "-s", &data.to_string(), &address.to_string()]);
        let wanted = if address.is_ipv4() { "Frag needed and DF set (mtu = 1450)" } else { "Packet too big: mtu=1450" };
        assert!(said.stdout.contains(wanted), "{said:?}");
    }
    let pcap = capture.stop();
    assert_eq!(pcap.bad_checksums(), Vec::<String>::new());
    drop(agents);
    if by_kernel {
        hosts.iter().for_each(|host| drop(host.run("ip link del dev vx0")));
    }
    answers(&pcap)
}

/// The kernel's vxlan device answers as a port of a bridge: l2mesh says the same, from and to the same, to the octet of length.
#[test]
fn as_the_kernel_tells() {
    let lab = Lab::new("told");
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    let kernel = told(&lab, &hosts, true);
    let ours = told(&lab, &hosts, false);
    println!("{ours:#?}");
    assert_eq!(ours.len(), 2);
    assert_eq!(ours, kernel);
}
