//! Networks that answer for their neighbours: what is answered here, what is carried, and that nobody can tell the difference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use l2mesh_tests::dhcp::{DhcpServer, Lease};
use l2mesh_tests::{
    Agent, Capture, Direction, File, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, assert_flooded,
    taps, traffic, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);
const ON: File<'_> = File { underlay: "", network: "neighbour-suppression = true", node: "" };
const TC: [&str; 2] = ["--mode", "tc"];
/// Who is asked for, in a capture.
const QUESTIONS: &str = "arp.opcode == 1 or icmpv6.type == 135";
/// Stations that are no host of the lab, and their address.
const FIRST: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x11]);
const SECOND: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x12]);
const STATION: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 50);
const STATION6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x50);

/// Nodes and plain hosts; everyone's overlay interface is tapped. The first node asks.
struct Mesh {
    hosts: Vec<Host>,
    taps: Vec<Tap>,
    agents: Vec<Agent>,
    lab: Lab,
}

impl Mesh {
    fn new<const N: usize>(names: [&str; N], nodes: usize, file: File<'_>, args: &[&str]) -> Self {
        let lab = Lab::new("suppression");
        let hosts = lab.switch(names, &Wiring::default()).to_vec();
        let (nodes, plain) = hosts.split_at(nodes);
        let segment = Segment { nodes, plain, args, file: Some(file) };
        let agents = segment.up(&lab);
        segment.plain_up(&VxlanOptions::default());
        let taps = taps(nodes, plain);
        Self { hosts, taps, agents, lab }
    }

    /// Three nodes.
    fn on() -> Self {
        Self::new(["a", "b", "c"], 3, ON, &TC)
    }

    fn mac(&self, place: usize) -> MacAddr {
        self.taps[place].mac()
    }

    /// The first host's question for an address, as its kernel would ask.
    fn question(&self, address: impl Into<IpAddr>) -> Frame {
        match address.into() {
            IpAddr::V4(address) => Frame::arp_request(self.mac(0), Segment::v4(0), address),
            IpAddr::V6(address) => Frame::neighbour_solicitation(self.mac(0), Segment::v6(0), address),
        }
    }

    /// Asks, and returns the owner's answer.
    fn ask(&mut self, address: impl Into<IpAddr>, owner: MacAddr) -> Frame {
        let question = self.question(address);
        let tap = &mut self.taps[0];
        tap.clear();
        tap.send(&question);
        let is_answer = |frame: &Frame| frame.source() == owner && frame.ether_type() == question.ether_type();
        tap.wait_frame("an answer", LIMIT, is_answer).frame
    }

    fn answered(&self) -> u64 {
        self.hosts[0].counter("neighbour-answered")
    }

    /// The first host asks for another by both protocols: whoever hears it knows both.
    fn acquaint(&mut self, other: usize) {
        for address in [IpAddr::from(Segment::v4(other)), Segment::v6(other).into()] {
            self.ask(address, self.mac(other));
            let row = self.hosts[0].neighbour_row(address).expect("a neighbour");
            assert_eq!((&row["mac"], &row["answered"]), (&self.mac(other).to_string().into(), &true.into()), "{row}");
        }
    }

    /// A question, or anything else, of the first host reaches the last one, and is not answered here.
    fn assert_carried(&mut self, what: &str, frame: &Frame) {
        let before = self.answered();
        let (first, others) = self.taps.split_first_mut().expect("taps");
        let last = others.last_mut().expect("another");
        last.clear();
        first.send(frame);
        let marker = first.send_marker(first.mac());
        assert_eq!(last.count_until(frame, &marker, LIMIT), 1, "{what}: carried");
        assert_eq!(self.answered(), before, "{what}: not answered here");
    }

    /// Another sends a frame, and the first host has it.
    fn send(&mut self, from: usize, frame: &Frame) {
        self.taps[from].send(frame);
        self.taps[0].wait_frame("what another sent", LIMIT, |received| received.is_padded(frame));
    }

    /// What of the mesh is on any wire while `body` runs, as far as it matches a display filter.
    fn on_the_wires(&mut self, filter: &str, body: impl FnOnce(&mut Self)) -> usize {
        let fabric = self.lab.fabric();
        let start = |host: &Host| Capture::start(&fabric, &host.uplink(0).port, Direction::Both, "udp port 4789");
        let captures: Vec<Capture> = self.hosts.iter().map(start).collect();
        body(self);
        captures.into_iter().map(|capture| capture.stop().count(filter)).sum()
    }
}

/// The second question for an owner is answered in its place, with the octets that it would send itself.
#[test]
fn the_second_question_stays_here() {
    for (mode, hook) in [("tc", "auto"), ("tc", "port"), ("xdp", "auto")] {
        let mut mesh = Mesh::new(["a", "b", "c"], 3, ON, &["--mode", mode, "--tx-hook", hook]);
        stays_here(&mut mesh, 1);
        // The kernel takes the answers for what they look like.
        let (before, host) = (mesh.answered(), mesh.hosts[0].clone());
        for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
            host.run("ip neighbour flush dev l2m0");
            let asked = mesh.on_the_wires(&format!("({QUESTIONS}) and eth.src == {}", mesh.mac(0)), |_| {
                assert_eq!(traffic::ping(&host, address, 1).lost(), 0, "{mode} {hook} {address}");
            });
            assert_eq!(asked, 0, "{mode} {hook} {address}");
        }
        assert_eq!(mesh.answered(), before + 2, "{mode} {hook}");
    }
}

/// A kernel's vxlan device is a neighbour as any other.
#[test]
fn a_plain_member_is_answered_for() {
    let mut mesh = Mesh::new(["a", "b", "plain"], 2, ON, &TC);
    stays_here(&mut mesh, 2);
    mesh.send(2, &Frame::arp_request(FIRST, Segment::v4(2), Segment::v4(2)));
    assert_eq!(mesh.ask(Segment::v4(2), FIRST).source(), FIRST, "it has moved");
}

fn stays_here(mesh: &mut Mesh, other: usize) {
    for address in [IpAddr::from(Segment::v4(other)), Segment::v6(other).into()] {
        let (owner, before) = (mesh.mac(other), mesh.answered());
        let mut first = None;
        let asked = mesh.on_the_wires(QUESTIONS, |mesh| first = Some(mesh.ask(address, owner)));
        assert_ne!(asked, 0, "{address}: the owner is asked first");
        assert_eq!(mesh.answered(), before, "{address}");
        // Of this conversation: the owner's kernel may have questions of its own.
        let filter = format!(
            "({QUESTIONS}) and eth.src == {} or (arp.opcode == 2 or icmpv6.type == 136) and eth.src == {owner}",
            mesh.mac(0)
        );
        let on_the_wires = mesh.on_the_wires(&filter, |mesh| {
            for _ in 0..3 {
                assert_eq!(Some(mesh.ask(address, owner)), first, "{address}");
            }
        });
        assert_eq!(on_the_wires, 0, "{address}");
        assert_eq!(mesh.answered(), before + 3, "{address}");
    }
}

#[test]
fn what_is_not_known_is_carried() {
    let mut mesh = Mesh::on();
    for address in [IpAddr::from(STATION), STATION6.into()] {
        for _ in 0..2 {
            let question = mesh.question(address);
            mesh.assert_carried("unknown", &question);
        }
    }
    assert_eq!(mesh.hosts[0].counter("neighbour-unknown"), 4);
}

/// Everyone goes on knowing who asks: a new host, or one that has moved, is not hidden by the answers that it gets.
#[test]
fn a_new_asker_is_heard_by_all() {
    let mut mesh = Mesh::on();
    mesh.acquaint(1);
    let before = mesh.answered();
    for mac in [FIRST, SECOND] {
        let question = Frame::arp_request(mac, STATION, Segment::v4(1));
        mesh.assert_carried("from a new MAC address", &question);
        mesh.taps[0].send(&question);
        mesh.taps[0].wait_frame("an answer", LIMIT, |frame| frame.destination() == mac);
    }
    assert_eq!(mesh.answered(), before + 2);
    assert_eq!(mesh.hosts[0].counter("asker-told"), 2);
    let row = mesh.hosts[2].neighbour_row(STATION).expect("the others know it");
    assert_eq!(row["mac"], SECOND.to_string());
}

/// An address that moves without a word: the kernel that finds its neighbour silent reaches whoever has the address now.
#[test]
fn a_silent_move_heals() {
    let mut mesh = Mesh::on();
    let [a, b, c] = [0, 1, 2].map(|place: usize| mesh.hosts[place].clone());
    for family in ["ipv4", "ipv6"] {
        let key = format!("net.{family}.neigh.l2m0");
        a.run(&format!("sysctl -qw {key}.base_reachable_time_ms=500 {key}.delay_first_probe_time=1"));
        a.run(&format!("sysctl -qw {key}.retrans_time_ms=100"));
    }
    // From no other source does the kernel ask a neighbour whether it is still there (`ndisc_send_ns`).
    a.add_address("l2m0", "fe80::a/64");
    mesh.acquaint(1);
    for (address, bits) in [(IpAddr::from(Segment::v4(1)), 24), (Segment::v6(1).into(), 64)] {
        let before = mesh.answered();
        assert_eq!(traffic::ping(&a, address, 1).lost(), 0);
        assert_eq!(mesh.answered(), before + 1, "the kernel has its neighbour from here");
        b.run(&format!("ip address delete {address}/{bits} dev l2m0"));
        c.add_address("l2m0", &format!("{address}/{bits}"));
        wait_for(&format!("{address} is found where it is"), Duration::from_secs(15), || {
            match traffic::ping(&a, address, 1).lost() {
                0 => Ok(()),
                _ => Err(a.run("ip neighbour show dev l2m0").stdout + &a.l2mesh_text(&["maps", "neighbours"])),
            }
        });
        let row = a.neighbour_row(address).expect("a neighbour");
        assert_eq!(row["mac"], mesh.mac(2).to_string());
    }
}

#[test]
fn off_unless_asked_for() {
    let mut mesh = Mesh::new(["a", "b", "c"], 3, File::default(), &TC);
    for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
        for _ in 0..3 {
            mesh.ask(address, mesh.mac(1));
            let question = mesh.question(address);
            mesh.assert_carried("off", &question);
        }
        assert_eq!(mesh.hosts[0].neighbour_row(address), None);
    }
}

/// Probes, announcements, what is asked in person, whatever has a tag: everyone hears it, once.
#[test]
fn what_only_the_owner_answers_is_carried() {
    let mut mesh = Mesh::on();
    mesh.acquaint(1);
    mesh.acquaint(2);
    let (owner, owner6) = (Segment::v4(1), Segment::v6(1));
    let nobody = Ipv4Addr::UNSPECIFIED;
    assert_flooded(&mut mesh.taps, |tap| {
        let mac = tap.mac();
        vec![
            Frame::arp_request(mac, nobody, owner),
            Frame::arp_request(mac, STATION, STATION),
            Frame::arp_reply(mac, STATION, MacAddr::BROADCAST, STATION),
            Frame::neighbour_solicitation(mac, Ipv6Addr::UNSPECIFIED, owner6),
            Frame::neighbour_announcement(mac, STATION6, 0x20),
            Frame::arp_request(mac, STATION, owner).tagged(5),
            Frame::neighbour_solicitation(mac, STATION6, owner6).tagged(5),
        ]
    });
    assert_eq!(mesh.answered(), 0);
    for address in [IpAddr::from(owner), owner6.into()] {
        // Heard again, it is answered for; asked in person, it answers itself.
        let real = mesh.ask(address, mesh.mac(1));
        let local = mesh.ask(address, mesh.mac(1));
        let before = mesh.answered();
        let in_person = mesh.question(address).to(mesh.mac(1));
        mesh.taps[0].send(&in_person);
        let owner = mesh.mac(1);
        let answer = mesh.taps[0].wait_frame("an answer", LIMIT, |frame| frame.source() == owner).frame;
        assert_eq!((&local, mesh.answered()), (&real, before), "{address}");
        assert_eq!(answer.ether_type(), real.ether_type());
    }
}

/// What a tagged frame says holds in its VLAN only. Whether the tag is in the frame or beside it is another in each mode.
#[test]
fn nothing_is_learned_from_tagged_frames() {
    for mode in ["tc", "xdp"] {
        let mut mesh = Mesh::new(["a", "b", "c"], 3, ON, &["--mode", mode]);
        mesh.acquaint(1);
        for frame in [
            Frame::arp_request(FIRST, Segment::v4(1), Segment::v4(1)).tagged(5),
            Frame::neighbour_announcement(FIRST, Segment::v6(1), 0x20).tagged(5),
        ] {
            mesh.send(2, &frame);
        }
        for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
            let before = mesh.answered();
            mesh.ask(address, mesh.mac(1));
            assert_eq!(mesh.answered(), before + 1, "{mode} {address}");
        }
    }
}

/// The kernel's own duplicate address detection finds an owner for whom questions are answered here.
#[test]
fn a_duplicate_address_is_found() {
    let mut mesh = Mesh::on();
    mesh.acquaint(1);
    let host = &mesh.hosts[0];
    let probe = host.try_exec("arping", &["-D", "-I", "l2m0", "-c", "2", "-w", "5", &Segment::v4(1).to_string()]);
    assert!(!probe.success() && probe.stdout.contains("Received 1 response"), "{probe:?}");
    host.run(&format!("ip address add {}/64 dev l2m0", Segment::v6(1)));
    wait_for("the duplicate is found", LIMIT, || {
        let all = host.run("ip -6 address show dev l2m0").stdout;
        if all.lines().any(|line| line.contains("fd00::2/64") && line.contains("dadfailed")) {
            Ok(())
        } else {
            Err(all)
        }
    });
    assert_eq!(mesh.answered(), 0);
    for place in [1, 2] {
        assert_eq!(mesh.hosts[place].counter("neighbour-answered"), 0);
    }
}

/// An address that moves is found where it is by the very next question.
#[test]
fn a_move_is_followed_at_once() {
    let mut mesh = Mesh::on();
    mesh.acquaint(1);
    let announce = |mac, v6: bool| {
        if v6 {
            (IpAddr::from(STATION6), Frame::neighbour_announcement(mac, STATION6, 0x20))
        } else {
            (STATION.into(), Frame::arp_request(mac, STATION, STATION))
        }
    };
    for v6 in [false, true] {
        let before = mesh.answered();
        for (from, mac) in [(1, FIRST), (2, SECOND), (1, FIRST), (2, FIRST)] {
            let (address, announcement) = announce(mac, v6);
            mesh.send(from, &announcement);
            mesh.ask(address, mac);
        }
        assert_eq!(mesh.answered(), before + 4, "v6: {v6}");
        let (address, announcement) = announce(FIRST, v6);
        assert_eq!(mesh.hosts[0].neighbour_row(address).expect("a neighbour")["moves"], 2);
        let question = mesh.question(address);
        // As with VRRP: the same MAC address takes over on our side, and is lost again.
        mesh.assert_carried("announced on our side", &announcement);
        mesh.assert_carried("its owner is on our side", &question);
        mesh.send(1, &announcement);
        mesh.ask(address, FIRST);
        // As with a guest that has moved here: only its MAC address is heard.
        let rarp = Frame::ethernet(MacAddr::BROADCAST, FIRST, 0x8035, &[0; 28]);
        mesh.assert_carried("RARP", &rarp);
        mesh.assert_carried("its MAC address is on our side", &question);
        assert_eq!(mesh.answered(), before + 5, "v6: {v6}");
    }
    assert_eq!(mesh.hosts[0].counter("neighbour-moved"), 4);
}

/// The server's side knows its client from the lease alone.
#[test]
fn a_lease_is_enough() {
    let mut mesh = Mesh::on();
    let _server = DhcpServer::start(&mesh.hosts[0], "l2m0", [10, 8, 0, 100].into(), [10, 8, 0, 110].into());
    let mut lease = None;
    let client = mesh.mac(1);
    let heard = mesh.on_the_wires(&format!("arp.src.hw_mac == {client}"), |mesh| {
        let granted = Lease::acquire(&mesh.hosts[1], "l2m0");
        let announcement = Frame::arp_request(mesh.mac(0), Segment::v4(0), Segment::v4(0));
        mesh.assert_carried("the asker announces itself", &announcement);
        let (before, address) = (mesh.answered(), granted.address);
        let answer = mesh.ask(address, client);
        assert_eq!(mesh.answered(), before + 1);
        lease = Some((granted, answer));
    });
    assert_eq!(heard, 0, "no ARP has told where it is");
    let (granted, answer) = lease.expect("a lease");
    let in_person = mesh.question(granted.address).to(client);
    mesh.taps[0].send(&in_person);
    let real = mesh.taps[0].wait_frame("the client's own answer", LIMIT, |frame| frame.ether_type() == 0x0806).frame;
    assert_eq!(answer, real);
}

/// A host keeps its default router when the router's address is answered for: an answer without the R flag would take it
/// away (RFC 4861 section 7.2.5).
#[test]
fn a_router_stays_one() {
    const ROUTER: &str = "fe80::1";
    let mut mesh = Mesh::on();
    let [host, router] = [0, 1].map(|place: usize| mesh.hosts[place].clone());
    router.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
    router.add_address("l2m0", &format!("{ROUTER}/64"));
    host.add_address("l2m0", "fe80::2/64");
    mesh.send(1, &Frame::router_advertisement(mesh.mac(1), ROUTER.parse().expect("an address")));
    let route = || host.run("ip -6 route show default").stdout;
    wait_for("a default router", LIMIT, || if route().contains(ROUTER) { Ok(()) } else { Err(route()) });
    for _ in 0..3 {
        // The kernel looks for it anew, and remembers that it was a router.
        host.run(&format!("ip neighbour replace {ROUTER} dev l2m0 router nud failed"));
        let output = host.run(&format!("ping -n -q -c 1 -W 2 {ROUTER}%l2m0")).stdout;
        assert!(output.contains(" 0% packet loss"), "{output}");
        assert!(route().contains(ROUTER), "{}", route());
    }
    assert!(mesh.answered() >= 2, "{}", mesh.answered());
    let row = host.neighbour_row(ROUTER.parse::<IpAddr>().expect("an address")).expect("a neighbour");
    assert_eq!((&row["router"], &row["from"]), (&true.into(), &"b".into()), "{row}");
}

/// A guest behind a bridge asks; another guest there answers for itself.
#[test]
fn guests_of_a_bridge() {
    let mut mesh = Mesh::on();
    let a = mesh.hosts[0].clone();
    let guests = ["g1", "g2"].map(|name| mesh.lab.host(name));
    a.run("ip link add name br0 type bridge");
    a.run("ip link set dev br0 up");
    a.run("ip link set dev l2m0 master br0");
    for (place, guest) in guests.iter().enumerate() {
        let port = format!("p{place}");
        a.connect(&port, guest, "eth0");
        a.run(&format!("ip link set dev {port} master br0"));
        guest.add_address("eth0", &format!("10.8.0.{}/24", 101 + place));
    }
    mesh.taps[0] = Tap::open(&guests[0], "eth0");
    let owner = mesh.mac(1);
    let first = mesh.ask(Segment::v4(1), owner);
    assert_eq!(mesh.ask(Segment::v4(1), owner), first);
    assert_eq!(mesh.answered(), 1);
    let forwarding = a.exec("bridge", &["fdb", "show", "br", "br0"]).stdout;
    let entry = format!("{owner} dev l2m0");
    assert!(forwarding.contains(&entry), "{forwarding}");
    for _ in 0..2 {
        let received = traffic::arping(&guests[0], "eth0", [10, 8, 0, 102].into(), 1);
        assert_eq!(received, 1, "the other guest, and nobody for it");
    }
    assert_eq!(mesh.answered(), 1);
}

#[test]
fn what_is_not_heard_is_forgotten() {
    let file = File { underlay: "fdb-age = \"1s\"", ..ON };
    let mut mesh = Mesh::new(["a", "b", "c"], 3, file, &TC);
    mesh.acquaint(1);
    for address in [IpAddr::from(Segment::v4(1)), Segment::v6(1).into()] {
        let row = || mesh.hosts[0].neighbour_row(address).map_or(Ok(()), |row| Err(row.to_string()));
        wait_for("it is forgotten", LIMIT, row);
        let question = mesh.question(address);
        mesh.assert_carried("forgotten", &question);
    }
}

/// Without an agent nobody ages anything: the kernel keeps to the limit by itself.
#[test]
fn a_dead_agent_leaves_no_old_answers() {
    const TOO_OLD: u64 = 301_000_000_000;
    let mut mesh = Mesh::on();
    mesh.acquaint(1);
    mesh.agents.remove(0).kill();
    let (before, address) = (mesh.answered(), Segment::v4(1));
    mesh.ask(address, mesh.mac(1));
    assert_eq!(mesh.answered(), before + 1);
    let pinned = mesh.hosts[0].pinned("eth0");
    pinned.change_neighbour(Segment::VNI, address, |neighbour| neighbour.heard_ns -= TOO_OLD);
    let question = mesh.question(address);
    mesh.assert_carried("too old", &question);
    // The next attach keeps what is known.
    mesh.ask(address, mesh.mac(1));
    let file = mesh.lab.directory().join("mesh.toml").display().to_string();
    mesh.agents.push(mesh.hosts[0].attach(&["--config", &file]));
    let before = mesh.answered();
    mesh.ask(address, mesh.mac(1));
    assert_eq!(mesh.answered(), before + 1);
}

#[test]
fn a_full_table_floods() {
    let file = File { underlay: "fdb-size = 2", ..ON };
    let mut mesh = Mesh::new(["a", "b", "c"], 3, file, &TC);
    let (b, c) = (mesh.mac(1), mesh.mac(2));
    mesh.ask(Segment::v4(1), b);
    let before = mesh.answered();
    for _ in 0..3 {
        mesh.ask(Segment::v4(2), c);
    }
    assert_eq!(mesh.answered(), before, "no room for it");
    assert!(mesh.hosts[0].counter("neighbours-full") >= 3);
    mesh.ask(Segment::v4(1), b);
    assert_eq!(mesh.answered(), before + 1, "that one is known");
}
