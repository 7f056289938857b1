//! Meshes over both IP versions: who is reached over which, what floods to both, and addresses that no interface has.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use l2mesh_tests::Family::{self, V4, V6};
use l2mesh_tests::{
    Agent, Capture, Direction, Frame, Host, Lab, MacAddr, Segment, Tap, VirtioSender, VxlanOptions, Wiring,
    assert_flooded, taps, traffic, transfer, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// TCP data between each pair of many hosts, octets.
const SOME: usize = 1 << 20;
/// TCP data enough for the greatest aggregates, octets.
const BULK: usize = 16 << 20;

/// Nobody has it.
const NOBODY: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);
/// A group of IPv6 multicast.
const MULTICAST: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 0x7b]);

/// Octets of an inner IP packet over an underlay of 1500 with IPv6 somewhere in it.
const MTU: u32 = Segment::MTU - 20;

/// Both versions on every host; the mesh is told which by a file.
fn dual() -> Wiring {
    Wiring { ipv6: true, ..Wiring::default() }
}

fn address(host: &Host, family: Family) -> IpAddr {
    match family {
        V4 => host.address().into(),
        V6 => host.address6().into(),
    }
}

/// A file in which hosts reach each other over the IP version that `family` says of two places. The hosts from `plain` on are
/// plain. Every address but the version of the first is given by `from`.
#[track_caller]
fn write(lab: &Lab, hosts: &[Host], plain: usize, family: impl Fn(usize, usize) -> Family, network: &str) -> String {
    let mut text = String::new();
    for (place, host) in hosts.iter().enumerate() {
        let main = family(place, usize::from(place == 0));
        let kind = if place >= plain { "vxlan" } else { "l2mesh" };
        writeln!(
            text,
            "[[node]]\nname = \"{}\"\naddress = \"{}\"\nkind = \"{kind}\"",
            host.name(),
            address(host, main)
        )
        .expect("a String takes everything");
        let others = (0..hosts.len()).filter(|other| *other != place && family(place, *other) != main);
        let from: Vec<String> = others
            .map(|other| format!("{} = \"{}\"", hosts[other].name(), address(host, family(place, other))))
            .collect();
        writeln!(text, "from = {{ {} }}", from.join(", ")).expect("a String takes everything");
    }
    text += &format!("[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n{network}\n");
    let path = lab.directory().join("mesh.toml");
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}

/// Attaches a host and gives it the inner addresses of its place.
#[must_use]
#[track_caller]
fn attach(host: &Host, place: usize, args: &[&str]) -> Agent {
    host.run("sysctl -qw net.ipv6.conf.default.addr_gen_mode=1");
    let agent = host.attach(args);
    Segment::address(host, "l2m0", place);
    agent
}

/// The plain ones over IPv6, the nodes among themselves over IPv4 but for one pair.
#[test]
fn five_hosts_tc() {
    let family = |a: usize, b: usize| if a.max(b) >= 3 || a + b == 2 { V6 } else { V4 };
    five_hosts("tc", "auto", family);
}

/// The other way round.
#[test]
fn five_hosts_xdp() {
    let family = |a: usize, b: usize| if a.max(b) >= 3 || a + b == 2 { V4 } else { V6 };
    five_hosts("xdp", "port", family);
}

/// Three nodes and two plain hosts: every pair pings and carries TCP, and what is for all arrives once at each.
fn five_hosts(mode: &str, tx_hook: &str, family: impl Fn(usize, usize) -> Family + Copy) {
    let lab = Lab::new("five");
    let hosts = lab.routed(["h1", "h2", "h3", "p1", "p2"], &dual());
    let (nodes, plain) = hosts.split_at(3);
    let file = write(&lab, &hosts, 3, family, "");
    let args = ["--config", &file, "--mode", mode, "--tx-hook", tx_hook];
    let agents: Vec<Agent> = nodes.iter().enumerate().map(|(place, host)| attach(host, place, &args)).collect();
    for (place, host) in plain.iter().enumerate().map(|(index, host)| (index + 3, host)) {
        let peers: Vec<IpAddr> =
            (0..5).filter(|other| *other != place).map(|other| address(&hosts[other], family(other, place))).collect();
        let options = VxlanOptions { mtu: Some(MTU), ..VxlanOptions::default() };
        host.kernel_vxlan(address(host, family(place, 0)), &peers, &options);
        Segment::address(host, "vx0", place);
    }
    for (place, host) in nodes.iter().enumerate() {
        // Also where a node reaches no other over IPv6.
        assert_eq!(host.link("l2m0")["mtu"], MTU, "{}", host.name());
        let peers = host.l2mesh(&["maps", "peers", "--json"]);
        for (other, peer) in hosts.iter().enumerate().filter(|(other, _)| *other != place) {
            let row = peers["peers"].as_array().into_iter().flatten().find(|row| row["name"] == *peer.name());
            let seen = row.unwrap_or_else(|| panic!("no {} in {peers}", peer.name()))["address"].clone();
            assert_eq!(seen, address(peer, family(other, place)).to_string(), "{} at {}", peer.name(), host.name());
        }
    }
    for (from, host) in hosts.iter().enumerate() {
        for to in (0..hosts.len()).filter(|to| *to != from) {
            for address in [IpAddr::from(Segment::v4(to)), Segment::v6(to).into()] {
                let report = traffic::ping(host, address, 2);
                assert_eq!((report.lost(), report.duplicates), (0, 0), "{from} to {to}");
                transfer::tcp(host, &hosts[to], address, SOME);
            }
        }
    }
    let mut all = taps(nodes, plain);
    assert_flooded(&mut all, broadcasts);
    long_frames_to_nobody(&lab, &hosts, &mut all);
    for host in nodes {
        for verdict in ["no-next-hop", "copy-failed", "encap-failed", "unknown-source", "store-failed", "too-big"] {
            assert_eq!(host.counter(verdict), 0, "{} {verdict}", host.name());
        }
    }
    agents.into_iter().for_each(Agent::stop);
    lab.assert_no_xdp_errors(&hosts);
}

/// For all: with and without IP inside, with and without tags, in every order of headers that there is.
fn broadcasts(tap: &Tap) -> Vec<Frame> {
    let own = tap.mac();
    let [v4, v6] = [
        [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7))),
        [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7))),
    ];
    let mut frames = vec![
        Frame::arp_request(own, Segment::v4(8), Segment::v4(9)),
        Frame::neighbour_solicitation(own, Segment::v6(8), Segment::v6(9)),
        Frame::unknown(MacAddr::BROADCAST, own, b"to all"),
        Frame::unknown(NOBODY, own, &[7; 1400]),
        Frame::udp(MULTICAST, own, v6[0], v6[1], b"to many"),
    ];
    for [from, to] in [v4, v6] {
        frames.push(Frame::udp(NOBODY, own, from, to, b"to nobody"));
        frames.push(Frame::udp(MacAddr::BROADCAST, own, from, to, &[8; 1300]));
    }
    let tagged: Vec<Frame> = frames
        .iter()
        .flat_map(|frame| [frame.clone().tagged(5), frame.clone().tagged(5).tagged_as(0x88a8, 6)])
        .collect();
    frames.into_iter().chain(tagged).collect()
}

/// TCP that is many frames on the wire, from the first to a station that nobody knows: all of it goes to all, over both IP
/// versions, right in every checksum.
#[track_caller]
fn long_frames_to_nobody(lab: &Lab, hosts: &[Host], taps: &mut [Tap]) {
    const DATA: usize = 40_000;
    let sender = 0;
    let data: Vec<u8> = (0..=250).cycle().take(DATA).collect();
    let own = taps[sender].mac();
    let [v4, v6] = [
        [8, 9].map(|place| SocketAddr::from((Segment::v4(place), 7))),
        [8, 9].map(|place| SocketAddr::from((Segment::v6(place), 7))),
    ];
    let long = VirtioSender::open(&hosts[sender], "l2m0");
    let others: Vec<usize> = (0..hosts.len()).filter(|other| *other != sender).collect();
    // The one is reached over IPv4, the other over IPv6.
    let captures =
        [1, 3].map(|other: usize| Capture::start(&lab.fabric(), hosts[other].name(), Direction::Out, "udp port 4789"));
    for ([from, to], tag) in [(v4, None), (v6, None), (v4, Some(5)), (v6, Some(5))] {
        let headers = if from.is_ipv4() { 54 } else { 74 };
        let mut frame = Frame::tcp(NOBODY, own, from, to, &data);
        if let Some(tag) = tag {
            frame = frame.tagged(tag);
        }
        taps.iter_mut().for_each(Tap::clear);
        long.send_tcp(&frame, 1300);
        for other in &others {
            let what = format!("{} octets from {sender} to {other} with tag {tag:?}", data.len());
            let mut seen = vec![0_u8; DATA];
            let mut first_sequence = None;
            wait_for(&what, LIMIT, || {
                // Merged again, or not.
                while let Some(received) = taps[*other].receive(Duration::from_millis(5)) {
                    let octets = received.frame.octets();
                    let headers = headers + if tag.is_some() { 4 } else { 0 };
                    if octets[..12] != frame.octets()[..12] || octets.len() <= headers {
                        continue;
                    }
                    let sequence = u32::from_be_bytes(octets[headers - 16..headers - 12].try_into().expect("four"));
                    let at = (sequence - *first_sequence.get_or_insert(1)) as usize;
                    let carried = &octets[headers..];
                    assert_eq!(carried, &data[at..at + carried.len()], "{what}: from {at} on");
                    seen[at..at + carried.len()].iter_mut().for_each(|times| *times += 1);
                }
                let whole = seen.iter().map(|times| usize::from(*times == 1)).sum::<usize>();
                if whole == DATA { Ok(()) } else { Err(format!("{whole} octets once")) }
            });
        }
    }
    for capture in captures {
        let pcap = capture.stop();
        assert!(pcap.count("vxlan and tcp.len >= 1000") >= 4 * (DATA / 1300), "all four");
        let bad = pcap.bad_checksums();
        assert!(bad.is_empty(), "{} bad, the first: {}", bad.len(), bad[0]);
    }
}

/// The same MTU on every host: that of the longer header, or what the file says.
#[test]
fn the_mtu_of_a_mesh_with_ipv6() {
    let lab = Lab::new("mtu");
    let hosts = lab.switch(["a", "b", "c"], &dual());
    // c is in no network with a: its longer header counts all the same.
    let family = |one: usize, other: usize| if one == 2 || other == 2 { V6 } else { V4 };
    for (network, expected) in [("members = [\"a\", \"b\"]", MTU), ("members = [\"a\", \"b\"]\nmtu = 1200", 1200)] {
        let file = write(&lab, &hosts, 3, family, network);
        let agents = [0, 1].map(|place| hosts[place].attach(&["--config", &file]));
        for host in &hosts[..2] {
            assert_eq!(host.link("l2m0")["mtu"], expected);
        }
        agents.into_iter().for_each(Agent::stop);
    }
    let file = write(&lab, &hosts, 3, family, "mtu = 1431");
    let sentence = hosts[0].l2mesh_refuses(&["attach", "--iface", "eth0", "--config", &file]);
    let expected = "network \"lan\": mtu 1431 and 70 octets of headers do not fit into the underlay MTU of 1500: 1430 is \
                    the greatest that fits";
    assert!(sentence.ends_with(expected), "{sentence}");
}

/// A host that has no IPv4 at all, and more addresses than the programs have places for.
#[test]
fn an_underlay_without_ipv4() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("only IPv6");
        let hosts = lab.routed(["a", "b"], &Wiring::over(V6));
        for host in &hosts {
            host.run("ip -4 address flush dev eth0");
            for last in 0x100..0x108 {
                host.add_address("eth0", &format!("fd01::{last:x}/64"));
            }
        }
        let args = ["--mode", mode];
        let _agents = Segment::of(&hosts, &args).up(&lab);
        exchange(&hosts);
    }
}

#[track_caller]
fn exchange(hosts: &[Host; 2]) {
    let [a, b] = hosts;
    for (from, to, place) in [(a, b, 1), (b, a, 0)] {
        assert_eq!(traffic::arping(from, "l2m0", Segment::v4(place), 1), 1);
        for address in [IpAddr::from(Segment::v4(place)), Segment::v6(place).into()] {
            assert_eq!(traffic::ping(from, address, 3).lost(), 0, "{} to {address}", from.name());
            transfer::tcp(from, to, address, 2 * SOME);
        }
    }
    for host in hosts {
        assert_eq!(host.counter("unknown-source"), 0, "{}", host.name());
    }
}

/// Both ends behind 1:1 NAT, which a router does: what the file has is on no interface.
#[test]
fn behind_nat() {
    for (family, mode, local) in [(V4, "tc", false), (V4, "xdp", true), (V6, "tc", true), (V6, "xdp", false)] {
        let lab = Lab::new("nat");
        let hosts = lab.routed(["a", "b"], &Wiring::over(family));
        let public: [IpAddr; 2] = match family {
            V4 => ["198.18.0.1", "198.18.0.2"],
            V6 => ["2001:db8:ffff::1", "2001:db8:ffff::2"],
        }
        .map(|text| text.parse().expect("an address"));
        let ip = if family == V4 { "ip" } else { "ip6" };
        let mut rules = format!(
            "add table {ip} nat; add chain {ip} nat in {{ type nat hook prerouting priority -100; }}; \
             add chain {ip} nat out {{ type nat hook postrouting priority 100; }};"
        );
        for (host, public) in hosts.iter().zip(public) {
            let private = host.vtep();
            write!(rules, "add rule {ip} nat in {ip} daddr {public} dnat to {private};").expect("a String");
            write!(rules, "add rule {ip} nat out {ip} saddr {private} snat to {public};").expect("a String");
        }
        lab.fabric().exec("nft", &[rules]);
        let text = hosts.iter().zip(public).fold(String::new(), |text, (host, public)| {
            text + &format!("[[node]]\nname = \"{}\"\naddress = \"{public}\"\n", host.name())
        });
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, text + "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n").expect("a file");
        let _agents: Vec<Agent> = hosts
            .iter()
            .enumerate()
            .map(|(place, host)| {
                let (file, own) = (path.display().to_string(), host.vtep().to_string());
                let mut args = vec!["--config", &file, "--node", host.name(), "--mode", mode];
                if local {
                    args.extend(["--local", &own]);
                }
                attach(host, place, &args)
            })
            .collect();
        exchange(&hosts);
        for (host, public) in hosts.iter().zip([public[1], public[0]]) {
            let peers = host.l2mesh(&["maps", "peers", "--json"]);
            assert_eq!(peers["peers"][0]["address"], public.to_string(), "{peers}");
            assert_eq!(host.l2mesh(&["status", "--json"])["local"], host.vtep().to_string());
        }
    }
}

/// An address of the host that is not the interface's, with and without `--local`: the route knows.
#[test]
fn an_address_on_the_loopback_interface() {
    for (family, mode) in [(V4, "tc"), (V6, "xdp"), (V6, "tc")] {
        let lab = Lab::new("loopback");
        let hosts = lab.switch(["a", "b"], &Wiring::over(family));
        let own: [IpAddr; 2] = match family {
            V4 => ["198.18.0.1", "198.18.0.2"],
            V6 => ["2001:db8:ffff::1", "2001:db8:ffff::2"],
        }
        .map(|text| text.parse().expect("an address"));
        for place in [0, 1] {
            let (host, other) = (&hosts[place], &hosts[1 - place]);
            host.add_address("lo", &format!("{}/{}", own[place], if family == V4 { 32 } else { 128 }));
            host.run(&format!("ip route add {} via {} src {}", own[1 - place], other.vtep(), own[place]));
        }
        let text: String = [0, 1].map(|it| format!("[[node]]\nname = \"n{it}\"\naddress = \"{}\"\n", own[it])).concat();
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, text + "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n").expect("a file");
        let file = path.display().to_string();
        let told = own[0].to_string();
        let _agents = [
            attach(&hosts[0], 0, &["--config", &file, "--node", "n0", "--mode", mode, "--local", &told]),
            attach(&hosts[1], 1, &["--config", &file, "--node", "n1", "--mode", mode]),
        ];
        exchange(&hosts);
    }
}

/// What changes on an IPv6 underlay is followed: the MAC address of a neighbour and of a router, the route, the MTU.
#[test]
fn next_hops_over_ipv6() {
    let lab = Lab::new("next hops");
    let hosts = lab.routed(["a", "b"], &Wiring::over(V6));
    let _agents = Segment::of(&hosts, &[]).up(&lab);
    let ([a, b], router) = (&hosts, lab.fabric());
    let next_hop = || a.l2mesh(&["maps", "peers", "--json"])["peers"][0].clone();
    let wait = |key: &str, wanted: serde_json::Value| {
        wait_for(&format!("{key} is {wanted}"), LIMIT, || {
            if next_hop()[key] == wanted { Ok(()) } else { Err(next_hop().to_string()) }
        });
    };
    let port = a.uplink(0).port;
    wait("next_hop", router.mac(&port).to_string().into());
    assert_eq!(traffic::ping(a, Segment::v6(1), 3).lost(), 0);

    // The router has another card, and says so.
    router.run(&format!("sysctl -qw net.ipv6.conf.{port}.ndisc_notify=1"));
    router.run(&format!("ip link set dev {port} address 02:00:00:00:00:b1"));
    wait("next_hop", "02:00:00:00:00:b1".into());
    assert_eq!(traffic::ping(a, Segment::v6(1), 3).lost(), 0, "through the router's other card");

    // Another router.
    router.run(&format!("ip link add link {port} name second type macvlan mode bridge"));
    router.run("sysctl -qw net.ipv6.conf.second.accept_dad=0");
    router.run("ip link set dev second up");
    router.add_address("second", "fe80::2/64");
    a.run("ip -6 route replace default via fe80::2 dev eth0");
    wait("next_hop", router.mac("second").to_string().into());
    assert_eq!(traffic::ping(a, Segment::v6(1), 3).lost(), 0, "through the other router");

    // What the route takes, and nothing beyond.
    a.run(&format!("ip -6 route add {} via fe80::1 dev eth0 mtu 1400", b.vtep()));
    wait("mtu", 1330.into());
    wait("next_hop", "02:00:00:00:00:b1".into());
    assert_eq!(traffic::ping_sized(a, Segment::v4(1), 1, 1330 - 28).lost(), 0);
    assert_eq!(traffic::ping_sized(a, Segment::v4(1), 1, 1331 - 28).received, 0);

    a.run(&format!("ip -6 route delete {}", b.vtep()));
    a.run("ip -6 route delete default");
    wait("next_hop", serde_json::Value::Null);
    a.run("ip -6 route add default via fe80::1 dev eth0");
    wait("next_hop", "02:00:00:00:00:b1".into());
    assert_eq!(traffic::ping(a, Segment::v6(1), 3).lost(), 0, "with a route again");
}

/// What the kernel's device makes of long frames for a peer that wants checksums: they stay long until the NIC.
#[test]
fn checksums_do_not_cost_long_frames() {
    for family in [V4, V6] {
        let lab = Lab::new("checksums");
        let hosts = lab.switch(["a", "b"], &Wiring::over(family));
        let text: String = hosts
            .each_ref()
            .map(|host| {
                format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\nudp-checksum = true\n", host.name(), host.vtep())
            })
            .concat();
        let path = lab.directory().join("mesh.toml");
        fs::write(&path, text + "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n").expect("a file");
        let file = path.display().to_string();
        let _agents = [0, 1].map(|place| attach(&hosts[place], place, &["--config", &file]));
        let [a, b] = &hosts;
        let helper =
            a.links().into_iter().find(|link| link["ifname"].as_str().is_some_and(|it| it.starts_with("l2mk")));
        let helper = helper.expect("a helper device")["ifname"].as_str().expect("a name").to_owned();
        let sent =
            || ["packets", "bytes"].map(|what| a.link(&helper)["stats64"]["tx"][what].as_u64().expect("a count"));
        for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
            let before = sent();
            let transfer = transfer::tcp(a, b, address, BULK);
            let [frames, octets] = [0, 1].map(|which| sent()[which] - before[which]);
            println!("{family:?} {address}: {} octets a frame, {:?}", octets / frames, transfer.time);
            assert!(octets >= BULK as u64 && octets / frames > 10 << 10, "{octets} octets in {frames} frames");
        }
        let capture = Capture::start(&lab.fabric(), "b", Direction::Out, "udp port 4789");
        transfer::tcp(a, b, Segment::v4(1), SOME);
        transfer::tcp(a, b, Segment::v6(1), SOME);
        let pcap = capture.stop();
        let all = pcap.count("vxlan and udp.dstport == 4789");
        assert!(all > 2 * SOME / 1500, "{all}");
        assert_eq!(pcap.count("vxlan and udp.dstport == 4789 and udp.checksum != 0"), all);
        let bad = pcap.bad_checksums();
        assert!(bad.is_empty(), "{} bad, the first: {}", bad.len(), bad[0]);
    }
}
