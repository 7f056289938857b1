//! The MSS that TCP connections agree on: lowered to what the path takes where it is asked for, and by itself at the port of
//! a bridge.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use l2mesh_tests::{
    Agent, Family, File, Frame, Host, Lab, MacAddr, Segment, Tap, Wiring, mesh_file, taps, transfer, wait_for,
};

const LIMIT: Duration = Duration::from_secs(10);

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Nobody knows where it is.
const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xc]);
/// Type and content of tags.
const VLAN: (u16, u16) = (0x8100, 0x2005);
const SERVICE: (u16, u16) = (0x88a8, 0x0006);

/// The same segment with a MSS, which stands where an option of the connection begins.
type Options = fn(u16) -> Vec<u8>;

/// Alone, as Linux has it among others, behind an odd number of octets, last of all that there is room for.
const LAYOUTS: [Options; 4] = [
    |mss| mss_option(mss).to_vec(),
    |mss| [&mss_option(mss)[..], &[4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]].concat(),
    |mss| [&[1][..], &mss_option(mss), &[1, 1, 1]].concat(),
    |mss| [&[1; 36][..], &mss_option(mss)].concat(),
];

fn mss_option(mss: u16) -> [u8; 4] {
    let [high, low] = mss.to_be_bytes();
    [2, 4, high, low]
}

/// Two hosts of which one, the first, lowers the MSS or does not: whatever happens either way is its doing. They have no
/// addresses in the mesh and say nothing by themselves.
struct Pair {
    hosts: [Host; 2],
    taps: [Tap; 2],
    family: Family,
    agents: Vec<Agent>,
    lab: Lab,
}

impl Pair {
    #[track_caller]
    fn new(family: Family, network: &str, args: &[&str]) -> Self {
        let lab = Lab::new("mss");
        let hosts = lab.pair(["a", "b"], &Wiring::over(family));
        let b = attach(&lab, &hosts, 1, "mss-clamp = false", args);
        let agents = vec![attach(&lab, &hosts, 0, network, args), b];
        let taps: [Tap; 2] = taps(&hosts, &[]).try_into().expect("two");
        let mut pair = Self { hosts, taps, family, agents, lab };
        pair.acquaint();
        pair
    }

    /// Each host learns where the other's MAC address is.
    #[track_caller]
    fn acquaint(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let marker = self.taps[from].send_marker(self.taps[from].mac());
            self.taps[to].until(&marker, LIMIT);
        }
    }

    /// What the path takes of an inner packet where the underlay takes `underlay` octets.
    fn path(&self, underlay: u16) -> u16 {
        underlay - if self.family == Family::V4 { 50 } else { 70 }
    }

    /// Sends a segment with options, which must arrive with others and be the same otherwise, checksum included.
    #[track_caller]
    fn assert_arrives(&mut self, (from, to): (usize, MacAddr), segment: Segmented, sent: &[u8], expected: &[u8]) {
        let (ports, macs) = (fresh_ports(), (to, self.taps[from].mac()));
        self.taps[from].send(&segment.frame(macs, ports, sent));
        let wanted = segment.frame(macs, ports, expected);
        let what = format!("{segment:04x?} from host {from}, sent with {sent:02x?}, as {expected:02x?}");
        self.taps[1 - from].wait_frame(&what, LIMIT, |frame| frame.is_padded(&wanted));
    }

    /// What becomes of a MSS of 1460 in a SYN to the other host.
    #[track_caller]
    fn becomes(&mut self, from: usize) -> u16 {
        let (ports, to) = (fresh_ports(), self.taps[1 - from].mac());
        let segment = Segmented { inner: Family::V4, tags: &[], flags: SYN };
        self.taps[from].send(&segment.frame((to, self.taps[from].mac()), ports, &mss_option(1460)));
        let is_it =
            |frame: &Frame| frame.octets().get(34..38) == Some(&[ports.0, ports.1].map(u16::to_be_bytes).concat());
        let frame = self.taps[1 - from].wait_frame("a SYN", LIMIT, is_it).frame;
        u16::from_be_bytes([frame.octets()[56], frame.octets()[57]])
    }
}

/// One of the two joins network 16, with these lines.
#[track_caller]
fn attach(lab: &Lab, hosts: &[Host; 2], place: usize, lines: &str, args: &[&str]) -> Agent {
    hosts[place].run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    let network = format!("[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n{lines}\n");
    let file = mesh_file(lab, hosts, &network);
    hosts[place].attach(&[&["--config", &file], args].concat())
}

/// Of a connection that there has not been yet.
fn fresh_ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(1024);
    (NEXT.fetch_add(1, Ordering::Relaxed), 80)
}

/// A segment without data, but for its ends and options.
#[derive(Clone, Copy, Debug)]
struct Segmented {
    inner: Family,
    tags: &'static [(u16, u16)],
    flags: u8,
}

impl Segmented {
    fn frame(self, macs: (MacAddr, MacAddr), (from, to): (u16, u16), options: &[u8]) -> Frame {
        let ends: [IpAddr; 2] = match self.inner {
            Family::V4 => [0, 1].map(|place| Segment::v4(place).into()),
            Family::V6 => [0, 1].map(|place| Segment::v6(place).into()),
        };
        let frame =
            Frame::tcp_with(macs, (SocketAddr::new(ends[0], from), SocketAddr::new(ends[1], to)), self.flags, options);
        self.tags.iter().rev().fold(frame, |frame, (kind, content)| frame.tagged_as(*kind, *content))
    }

    /// The MSS for a path that takes inner packets of `mtu` octets.
    fn fitting(self, mtu: u16) -> u16 {
        let headers = if self.inner == Family::V4 { 40 } else { 60 };
        mtu - headers - 4 * u16::try_from(self.tags.len()).expect("few")
    }
}

/// All kinds of SYN, and what looks like one, both ways, to a known and to an unknown place.
#[track_caller]
fn lowers(family: Family, mode: &str, hook: &str) {
    let mut pair = Pair::new(family, "mss-clamp = true", &["--mode", mode, "--tx-hook", hook]);
    let a = pair.hosts[0].clone();
    a.wait_transmit(if hook == "auto" { "egress shortcut" } else { "hidden peer" });
    let what = format!("{mode}, {hook}, over {family:?}");
    let mut lowered = 0;
    let path = pair.path(1500);
    for (from, to) in [(0, pair.taps[1].mac()), (0, STRANGER), (1, pair.taps[0].mac())] {
        for inner in [Family::V4, Family::V6] {
            for tags in [&[][..], &[VLAN], &[SERVICE]] {
                let [syn, syn_ack, ack] = [SYN, SYN | ACK, ACK].map(|flags| Segmented { inner, tags, flags });
                let fits = syn.fitting(path);
                for layout in LAYOUTS {
                    for mss in [fits + 1, 1460, 8960, u16::MAX] {
                        pair.assert_arrives((from, to), syn, &layout(mss), &layout(fits));
                        lowered += 1;
                    }
                    // Never raised.
                    for mss in [0, 536, fits - 1, fits] {
                        pair.assert_arrives((from, to), syn, &layout(mss), &layout(mss));
                    }
                }
                pair.assert_arrives((from, to), syn_ack, &mss_option(1460), &mss_option(fits));
                lowered += 1;
                // Only what opens a connection has the option; one of another length is none, and none is added.
                pair.assert_arrives((from, to), ack, &mss_option(1460), &mss_option(1460));
                for options in [&[][..], &[2, 3, 5], &[2, 2, 0, 0], &[1, 1, 0, 2, 4, 5, 0xb4], &[3, 0, 2, 4, 5, 0xb4]] {
                    pair.assert_arrives((from, to), syn, options, options);
                }
            }
        }
    }
    let counts = [0, 1].map(|place: usize| pair.hosts[place].counter("mss-lowered"));
    assert_eq!(counts, [lowered, 0], "{what}");

    // Behind two tags, what is sent.
    let segment = Segmented { inner: Family::V4, tags: &[SERVICE, VLAN], flags: SYN };
    let to = pair.taps[1].mac();
    pair.assert_arrives((0, to), segment, &mss_option(1460), &mss_option(segment.fitting(path)));

    // It follows the path.
    let b = pair.hosts[1].vtep();
    let bits = if b.is_ipv4() { 32 } else { 128 };
    a.run(&format!("ip route replace {b}/{bits} dev eth0 mtu 1400"));
    let path = pair.path(1400);
    wait_for("a narrower path is followed", LIMIT, || match &a.peer(&pair.hosts[1])["mtu"] {
        mtu if *mtu == path => Ok(()),
        mtu => Err(mtu.to_string()),
    });
    for (from, to) in [(0, to), (0, STRANGER), (1, pair.taps[0].mac())] {
        let segment = Segmented { inner: Family::V6, tags: &[VLAN], flags: SYN };
        pair.assert_arrives((from, to), segment, &mss_option(1460), &mss_option(segment.fitting(path)));
    }
}

#[test]
fn lowered_over_ipv4() {
    lowers(Family::V4, "tc", "auto");
}

#[test]
fn lowered_over_ipv4_in_mode_xdp() {
    lowers(Family::V4, "xdp", "port");
}

#[test]
fn lowered_over_ipv6() {
    lowers(Family::V6, "tc", "port");
}

#[test]
fn lowered_over_ipv6_in_mode_xdp() {
    lowers(Family::V6, "xdp", "auto");
}

/// Machines behind a bridge were never told what the path takes; a host that has the interface for itself was.
#[test]
fn by_default_at_bridge_ports_only() {
    for mode in ["tc", "xdp"] {
        let args = ["--mode", mode];
        let mut pair = Pair::new(Family::V4, "", &args);
        let both = |pair: &mut Pair| [0, 1].map(|from| pair.becomes(from));
        assert_eq!(both(&mut pair), [1460; 2], "{mode}: no port");
        let a = pair.hosts[0].clone();
        a.run("ip link add name own type bridge");
        let wait = |pair: &mut Pair, what: &str, expected| {
            wait_for(&format!("{mode}: {what}"), LIMIT, || match both(pair) {
                found if found == expected => Ok(()),
                found => Err(format!("{found:?}")),
            });
        };
        a.run("ip link set dev l2m0 master own");
        wait(&mut pair, "it has become a port", [1410; 2]);
        a.run("ip link set dev l2m0 nomaster");
        wait(&mut pair, "it is none any more", [1460; 2]);

        for (lines, expected) in [
            ("bridge = \"own\"", 1410),
            ("bridge = \"own\"\nmss-clamp = false", 1460),
            ("bridge = \"made\"\nmss-clamp = true", 1410),
            ("mss-clamp = false", 1460),
            ("mss-clamp = true", 1410),
        ] {
            pair.agents.remove(0).stop();
            pair.agents.insert(0, attach(&pair.lab, &pair.hosts, 0, lines, &args));
            pair.taps[0] = Tap::open(&a, "l2m0");
            pair.acquaint();
            assert_eq!(both(&mut pair), [expected; 2], "{mode}: {lines}");
        }
    }
}

/// Connections of the kernel, whose checksums are still pending: not one segment is too big, where without it the first
/// ones are.
#[test]
fn no_segment_is_too_big() {
    for (mode, lines) in [("tc", "mss-clamp = false"), ("tc", "mss-clamp = true"), ("xdp", "mss-clamp = true")] {
        let lab = Lab::new("no segment");
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        let args = ["--mode", mode];
        let file = File { underlay: "", network: lines, ..File::default() };
        let _agents = Segment { nodes: &hosts, plain: &[], args: &args, file: Some(file) }.up(&lab);
        hosts.iter().for_each(|host| drop(host.run("ip link set dev l2m0 mtu 1500")));
        let [a, b] = &hosts;
        for (from, to, place) in [(a, b, 1), (b, a, 0)] {
            for address in [IpAddr::from(Segment::v4(place)), Segment::v6(place).into()] {
                transfer::tcp(from, to, address, 1 << 20);
            }
        }
        // Who has been told once announces less himself from then on: one of the hosts is told nothing.
        let sum = |verdict| hosts.iter().map(|host| host.counter(verdict)).sum::<u64>();
        let [lowered, told] = ["mss-lowered", "too-big-told"].map(sum);
        // At least a SYN and its answer of each, which are lowered where they are sent.
        let is_right = if lines.ends_with("true") { lowered >= 8 && told == 0 } else { lowered == 0 && told > 0 };
        assert!(is_right, "{mode} {lines}: {lowered} lowered, {told} told");
    }
}
