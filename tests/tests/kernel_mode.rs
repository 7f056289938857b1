//! Mode kernel over `WireGuard`: one segment, and on the wire nothing but ciphertext.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::dhcp::{DhcpServer, Lease};
use l2mesh_tests::flow::Flow;
use l2mesh_tests::wireguard::{self, WireGuard};
use l2mesh_tests::{
    Agent, Capture, Direction, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, assert_flooded, taps,
    traffic, transfer, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);
/// How long an agent may take to see what changed.
const SOON: Duration = Duration::from_secs(2);

/// TCP data, octets.
const BULK: usize = 4 << 20;
/// Datagrams in a row: wireguard-go's queues are short.
const BURST: usize = 50;

/// Octets of an inner IP packet over `WireGuard` over IPv4.
const MTU: u32 = wireguard::MTU - 50;

/// A group of IPv4 multicast.
const MULTICAST: MacAddr = MacAddr([0x01, 0, 0x5e, 0, 0, 0x7b]);
/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);

/// Hosts on a switch, with `WireGuard` between them.
#[track_caller]
fn secret<const N: usize>(lab: &Lab, names: [&str; N]) -> ([Host; N], Vec<WireGuard>) {
    let hosts = lab.switch(names, &Wiring::default());
    let tunnels = WireGuard::between(&hosts);
    (hosts, tunnels)
}

/// What `status` says of the mode.
#[track_caller]
fn mode(host: &Host) -> String {
    let status = host.l2mesh(&["status", "--json"]);
    status["mode"].as_str().unwrap_or_else(|| panic!("no mode: {status}")).to_owned()
}

#[track_caller]
fn mtu(host: &Host, interface: &str) -> u64 {
    host.link(interface)["mtu"].as_u64().expect("an MTU")
}

/// ARP or ND, ping, TCP, and UDP of many lengths.
#[track_caller]
fn exchange(from: &Host, to: &Host, addresses: impl IntoIterator<Item = IpAddr>, mtu: u32) {
    for address in addresses {
        let headers = if address.is_ipv4() { 28 } else { 48 };
        let longest = mtu as usize - headers;
        let what = format!("{} to {address}", from.name());
        // The first one waits for an answer to ARP or ND, and four times for wireguard-go.
        traffic::ping(from, address, 1);
        let report = traffic::ping(from, address, 3);
        assert_eq!((report.lost(), report.duplicates), (0, 0), "{what}");
        assert_eq!(traffic::ping_sized(from, address, 1, longest).lost(), 0, "{what}: a packet that fills the MTU");
        transfer::tcp(from, to, address, BULK);
        let lengths: Vec<usize> = (1..longest).step_by(9).chain([longest]).collect();
        lengths.chunks(BURST).for_each(|burst| transfer::udp(from, to, address, burst));
    }
}

#[track_caller]
fn both(place: usize) -> [IpAddr; 2] {
    [Segment::v4(place).into(), Segment::v6(place).into()]
}

/// A frame of every sort that is for all.
fn for_all(tap: &Tap) -> Vec<Frame> {
    let (own, [from, to]) = (tap.mac(), [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7))));
    vec![
        Frame::unknown(MacAddr::BROADCAST, own, b"to all"),
        Frame::unknown(MULTICAST, own, b"to many"),
        Frame::unknown(NOBODY, own, b"to nobody"),
        Frame::udp(MULTICAST, own, from, to, b"to many"),
        Frame::udp(NOBODY, own, from, to, b"to nobody").tagged(7),
        Frame::unknown(MacAddr::BROADCAST, own, b"tagged twice").tagged(7).tagged_as(0x88a8, 8),
        Frame::arp_request(own, Segment::v4(8), Segment::v4(9)),
    ]
}

#[test]
fn one_segment_over_wireguard() {
    let lab = Lab::new("wireguard");
    let (hosts, _tunnels) = secret(&lab, ["a", "b", "c", "plain"]);
    let fabric = lab.fabric();
    let outside = format!("not udp port {} and not arp", wireguard::PORT);
    let all = Capture::start(&fabric, "a", Direction::Both, "");
    let strays: Vec<Capture> =
        hosts.iter().map(|host| Capture::start(&fabric, host.name(), Direction::Both, &outside)).collect();
    let (nodes, plain) = hosts.split_at(3);
    let segment = Segment { nodes, plain, args: &[], file: None };
    let agents = segment.up(&lab);
    segment.plain_up(&VxlanOptions { mtu: Some(MTU), ..VxlanOptions::default() });
    for (host, agent) in nodes.iter().zip(&agents) {
        let line = agent.up_line();
        assert!(line.ends_with("mode kernel (wg0 has no Ethernet header)"), "{line}");
        assert_eq!(mode(host), "kernel (wg0 has no Ethernet header)");
        assert_eq!(mtu(host, "l2m0"), u64::from(MTU));
        let row = host.peer(&plain[0]);
        assert_eq!((&row["next_hop"], &row["mtu"]), (&"by the kernel".into(), &MTU.into()), "{row}");
        host.wait_transmit("hidden peer: in mode kernel there is no shortcut");
    }
    let interfaces = ["l2m0", "l2m0", "l2m0", "vx0"];
    for (from, to) in [(0, 1), (0, 3), (3, 1), (2, 0)] {
        assert_eq!(traffic::arping(&hosts[from], interfaces[from], Segment::v4(to), 1), 1, "{from} asks for {to}");
        exchange(&hosts[from], &hosts[to], both(to), MTU);
    }
    let row = nodes[0].mac_row(plain[0].mac("vx0")).expect("the plain host's MAC address");
    assert_eq!(row["peer"], WireGuard::v4(3).to_string());

    let mut taps = taps(nodes, plain);
    assert_flooded(&mut taps, for_all);
    drop(taps);

    let _server = DhcpServer::start(&hosts[0], "l2m0", [10, 8, 0, 100].into(), [10, 8, 0, 110].into());
    hosts[1].run("ip address flush dev l2m0");
    let lease = Lease::acquire(&hosts[1], "l2m0");
    assert_eq!(lease.server, Segment::v4(0));
    assert_eq!(traffic::ping(&hosts[0], lease.address, 3).lost(), 0);

    for host in nodes {
        for verdict in ["no-next-hop", "copy-failed", "unknown-source", "own-source", "too-big", "encap-failed"] {
            assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
        }
        let programs = ["wg0 Ingress: ", "wg0 Egress: ", "l2m0 Egress: "].map(|hook| host.state().lines(hook).len());
        assert_eq!(programs, [0; 3], "{:?}", host.state());
    }
    for wire in strays {
        assert_eq!(wire.stop().frames(), [], "only WireGuard, and ARP for its ends");
    }
    let (clear, frames) = (b"to nobody", all.stop().frames());
    assert!(frames.len() > 1000, "{} frames", frames.len());
    assert!(!frames.iter().any(|frame| frame.octets().windows(clear.len()).any(|it| it == clear)), "in the clear");
    agents.into_iter().for_each(Agent::stop);
}

/// Outer IPv6: 20 octets less for each frame.
#[test]
fn ipv6_inside_wireguard() {
    const MTU: u32 = wireguard::MTU - 70;
    let lab = Lab::new("wireguard v6");
    let (hosts, _tunnels) = secret(&lab, ["a", "b", "plain"]);
    let v6: [String; 3] = std::array::from_fn(|place| WireGuard::v6(place).to_string());
    let flags = ["--vni", "16", "--overlay", "l2m0", "--mode", "kernel", "--plain-peer", &v6[2]];
    let agents: Vec<Agent> = (0..2)
        .map(|own| {
            hosts[own].run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
            let agent = hosts[own].attach(&[&flags[..], &["--peer", &v6[1 - own]]].concat());
            Segment::address(&hosts[own], "l2m0", own);
            agent
        })
        .collect();
    let peers: [IpAddr; 2] = [0, 1].map(|place| WireGuard::v6(place).into());
    hosts[2].kernel_vxlan(WireGuard::v6(2), &peers, &VxlanOptions { mtu: Some(MTU), ..VxlanOptions::default() });
    Segment::address(&hosts[2], "vx0", 2);
    assert_eq!(mode(&hosts[0]), "kernel (as asked for)");
    assert_eq!(mtu(&hosts[0], "l2m0"), u64::from(MTU));
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        exchange(&hosts[from], &hosts[to], both(to), MTU);
    }
    assert_flooded(&mut taps(&hosts[..2], &hosts[2..]), for_all);
    agents.into_iter().for_each(Agent::stop);
}

/// A far host behind `WireGuard`, the gateway that it ends at, and a host of that site in an ordinary mode.
#[test]
fn a_site_behind_a_wireguard_gateway() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("site");
        let ([far, gateway], tunnels) = secret(&lab, ["far", "gateway"]);
        let site = lab.host("site");
        gateway.connect("lan0", &site, "eth0");
        gateway.run("sysctl -qw net.ipv4.ip_forward=1");
        gateway.add_address("lan0", "192.168.7.1/24");
        site.add_address("eth0", "192.168.7.2/24");
        site.run("ip route add default via 192.168.7.1");
        tunnels[0].allow(&tunnels[1], &format!("{}/32,192.168.7.0/24", WireGuard::v4(1)));
        far.run("ip route add 192.168.7.0/24 dev wg0");

        let tunnelled = |name, place| {
            format!("[[node]]\nname = \"{name}\"\naddress = \"{}\"\nprobes = false\n", WireGuard::v4(place))
        };
        let text = format!(
            "{}{}[[node]]\nname = \"site\"\naddress = \"192.168.7.2\"\n\
             [[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\nmtu = {MTU}\n",
            tunnelled("far", 0),
            tunnelled("gateway", 1)
        );
        let file = lab.directory().join("mesh.toml");
        fs::write(&file, text).expect("a file in the lab's directory");
        let file = file.display().to_string();
        let hosts = [&far, &gateway, &site];
        let agents: Vec<Agent> = [("wg0", "kernel"), ("wg0", "auto"), ("eth0", mode)]
            .into_iter()
            .enumerate()
            .map(|(place, (interface, mode))| {
                hosts[place].run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
                let agent = hosts[place].attach_on(interface, &["--config", &file, "--mode", mode]);
                Segment::address(hosts[place], "l2m0", place);
                agent
            })
            .collect();
        for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1), (0, 1)] {
            exchange(hosts[from], hosts[to], both(to), MTU);
        }
        let mut taps = taps(&[far, gateway, site], &[]);
        assert_flooded(&mut taps, for_all);
        agents.into_iter().for_each(Agent::stop);
    }
}

/// The agent is killed, frames go on, and the next one takes over the same devices.
#[test]
fn killed_and_adopted() {
    let lab = Lab::new("wireguard killed");
    let (hosts, _tunnels) = secret(&lab, ["a", "b"]);
    let before = hosts[0].state();
    let segment = Segment::of(&hosts, &["--mode", "kernel"]);
    let mut agents = segment.up(&lab);
    let b = agents.pop().expect("two agents");
    let flow = Flow::start(&hosts[0], &hosts[1], Segment::v4(1), 2000);
    let links = hosts[0].state().lines("link ").iter().map(ToString::to_string).collect::<Vec<_>>();
    let pins = hosts[0].state().lines("pin ").iter().map(ToString::to_string).collect::<Vec<_>>();
    agents.pop().expect("an agent").kill();
    flow.wait_more(2000);
    assert!(hosts[0].l2mesh_text(&["status"]).contains("not running, paths frozen"));
    let known = hosts[0].mac_row(hosts[1].mac("l2m0")).expect("b's MAC address")["mac"].clone();
    let peer = WireGuard::v4(1).to_string();
    let mut agent = hosts[0].attach(&["--vni", "16", "--overlay", "l2m0", "--peer", &peer]);
    assert_eq!(hosts[0].state().lines("link "), links, "the same devices");
    assert_eq!(hosts[0].state().lines("pin "), pins, "the same pins");
    assert_eq!(hosts[0].mac_row(hosts[1].mac("l2m0")).expect("b's MAC address")["mac"], known);
    flow.wait_more(2000);
    let report = flow.stop();
    assert_eq!((report.lost, report.duplicates), (0, 0), "{report:?}");

    // Somebody removes the helper: it comes back, and with it all that goes through it.
    let helper =
        hosts[0].links().iter().find_map(|link| Some(link["ifname"].as_str()?.strip_prefix("l2mk")?.to_owned()));
    let helper = format!("l2mk{}", helper.expect("a helper device"));
    hosts[0].run(&format!("ip link delete dev {helper}"));
    agent.process().wait_log_line("made anew", LIMIT);
    wait_for("frames go on", SOON, || match traffic::ping(&hosts[0], Segment::v4(1), 1).lost() {
        0 => Ok(()),
        lost => Err(lost.to_string()),
    });
    let taken = format!("{helper} Ingress:");
    assert_eq!(hosts[0].state().lines(&taken).len(), 1, "{:?}", hosts[0].state());
    agent.kill();
    let output = hosts[0].try_l2mesh(&["detach", "--iface", "wg0"]);
    assert!(output.success() && output.stdout.contains(&format!("removed {helper}")), "{output:?}");
    hosts[0].assert_state(&before);
    b.stop();
}

/// Like `wg-quick down wg0; wg-quick up wg0` under a mesh that runs.
#[test]
fn wireguard_restarts() {
    let lab = Lab::new("wireguard restarts");
    let (hosts, mut tunnels) = secret(&lab, ["a", "b"]);
    let mut agents = Segment::of(&hosts, &[]).up(&lab);
    let mut agents: Vec<_> = agents.iter_mut().map(Agent::process).collect();
    assert_eq!(traffic::ping(&hosts[0], Segment::v4(1), 3).lost(), 0);
    let [far, near] = [tunnels.pop(), tunnels.pop()].map(|it| it.expect("two"));
    let _near = near.restart(0, &[(1, &far)]);
    wait_for("frames go on", LIMIT, || match traffic::ping(&hosts[0], Segment::v4(1), 1).lost() {
        0 => Ok(()),
        lost => Err(format!("{lost} lost; {}", hosts[0].l2mesh(&["maps", "peers", "--json"]))),
    });
    assert_eq!(mode(&hosts[0]), "kernel (wg0 has no Ethernet header)");
    let again = ["attach", "--iface", "wg0", "--vni", "16", "--overlay", "l2m0", "--peer", "10.99.0.2"];
    let sentence = hosts[0].l2mesh_refuses(&again);
    let agent = agents[0].pid();
    assert!(
        sentence.starts_with(&format!("process {agent} is the agent of an interface wg0 that is gone")),
        "{sentence}"
    );
    let output = hosts[0].try_l2mesh(&["detach", "--iface", "wg0"]);
    assert!(output.success() && output.stdout.contains("removed l2m0"), "{output:?}");
    assert!(agents[0].wait_exit(LIMIT).success());
    assert!(hosts[0].state().lines("l2m").is_empty(), "{:?}", hosts[0].state());
}
