//! `l2mesh capture`: what it writes is read back with tshark.

use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use l2mesh_common::path::{DIRECT, order};
use l2mesh_common::tables::{CaptureFilter, PathTx};
use l2mesh_tests::frozen::{LONG_AGO, UP, frozen, set_path};
use l2mesh_tests::mesh::sentence;
use l2mesh_tests::{
    Agent, Family, File, Frame, Host, Lab, MacAddr, Pcap, Process, Segment, Tap, Wiring, traffic, transfer, wait_for,
};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);
const MODES: [&str; 2] = ["tc", "xdp"];
/// What is shown of a frame.
const SHOWN: [&str; 2] = ["frame.interface_name", "frame.comment"];

/// A capture into a file that runs.
struct Capturing {
    process: Process,
    path: std::path::PathBuf,
}

impl Capturing {
    #[track_caller]
    fn start(lab: &Lab, host: &Host, args: &[&str]) -> Self {
        let path = lab.directory().join(format!("{}.pcapng", host.name()));
        let mut process = host.spawn_l2mesh(&[&["capture", "-w", &path.display().to_string()], args].concat());
        process.wait_log_line("capturing on eth0", LIMIT);
        Self { process, path }
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    fn stop(mut self) -> Pcap {
        self.process.signal(Signal::SIGINT);
        let status = self.process.wait_exit(LIMIT);
        assert!(status.success(), "{status}{}", self.process.last_words());
        self.process.wait_log_line("captured, none lost", LIMIT);
        Pcap::at(self.path)
    }
}

fn three(title: &str, mode: &str) -> (Lab, [Host; 3], Vec<Agent>) {
    let lab = Lab::new(title);
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let args = ["--mode", mode];
    let segment = Segment { args: &args, file: Some(File::default()), ..Segment::of(&hosts, &[]) };
    let agents = segment.up(&lab);
    (lab, hosts, agents)
}

/// Points and comments of the frames that match a display filter.
#[track_caller]
fn seen(pcap: &Pcap, filter: &str) -> Vec<String> {
    pcap.fields(filter, &SHOWN).into_iter().map(|row| row.join(": ")).collect()
}

#[track_caller]
fn assert_all(rows: &[String], times: usize, expected: &str) {
    assert_eq!(rows, vec![expected; times], "{expected}");
}

fn filter_of(host: &Host) -> CaptureFilter {
    let map = MapData::from_pin(host.pinned("eth0").directory().join("CAPTURE")).expect("the pinned filter");
    Array::<_, CaptureFilter>::try_from(Map::Array(map)).expect("an array").get(&0, 0).expect("a filter")
}

#[test]
fn sent_and_received() {
    for mode in MODES {
        let (lab, hosts, _agents) = three("capture", mode);
        let [a, b, _c] = &hosts;
        assert_eq!(traffic::ping(a, Segment::v4(1), 1).lost(), 0, "{mode}");
        let capturing = Capturing::start(&lab, a, &[]);
        assert_eq!(traffic::ping(a, Segment::v4(1), 3).lost(), 0, "{mode}");
        // Every copy of a broadcast, with its tag; the tap is the same as a machine behind a bridge.
        let mut taps = [a, b].map(|host| Tap::open(host, "l2m0"));
        let tagged = Frame::arp_request(taps[0].mac(), Segment::v4(0), Segment::v4(9)).tagged(5).padded(64);
        taps[0].send(&tagged);
        taps[1].wait_frame("the broadcast", LIMIT, |frame| frame.is_padded(&tagged));
        // And what comes from there.
        let back = Frame::arp_request(taps[1].mac(), Segment::v4(1), Segment::v4(9)).tagged(6).padded(64);
        taps[1].send(&back);
        taps[0].wait_frame("the answer", LIMIT, |frame| frame.is_padded(&back));
        let pcap = capturing.stop();

        let (sent, received) = (
            "encap: verdict=sent point=encap peer=b vni=16 (0x10)",
            "decap: verdict=received point=decap peer=b vni=16 (0x10)",
        );
        assert_all(&seen(&pcap, "icmp.type == 8"), 3, sent);
        assert_all(&seen(&pcap, "icmp.type == 0"), 3, received);
        let flooded = |peer| format!("encap: verdict=flooded point=encap peer={peer} vni=16 (0x10)");
        let mut copies = seen(&pcap, "vlan.id == 5");
        copies.sort();
        assert_eq!(copies, [flooded("b"), flooded("c")], "{mode}");
        assert_all(&seen(&pcap, "vlan.id == 6"), 1, received);
        // Nothing else is on such a frame than what was sent, and nothing is missing.
        let lengths = pcap.fields("icmp", &["frame.len", "frame.cap_len", "eth.src", "_ws.malformed"]);
        for row in &lengths {
            assert_eq!((&*row[0], &*row[1], &*row[3]), ("98", "98", ""), "{mode}: {lengths:?}");
        }
        assert_eq!(pcap.bad_checksums(), Vec::<String>::new(), "{mode}");
        assert_eq!(pcap.count("vlan.id == 5 && frame.len == 64 && arp.dst.proto_ipv4 == 10.8.0.10"), 2, "{mode}");
        let times = pcap.fields("icmp", &["frame.time_epoch"]);
        let times: Vec<f64> = times.iter().map(|row| row[0].parse().expect("a time")).collect();
        assert!(times.is_sorted(), "{times:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!(times.iter().all(|time| (now - 60.0..now).contains(time)), "{now}: {times:?}");
    }
}

#[test]
fn long_frames_are_cut_and_say_how_long_they_were() {
    for mode in MODES {
        let (lab, hosts, _agents) = three("capture long", mode);
        let [a, b, _c] = &hosts;
        let capturing = Capturing::start(&lab, a, &["--snaplen", "60", "--point", "encap"]);
        transfer::tcp(a, b, Segment::v4(1), 400_000);
        let pcap = capturing.stop();
        // One frame until the wire: that is what passes here.
        let long = pcap.count("tcp.dstport && frame.len > 2000 && frame.cap_len == 60");
        assert!(long > 2, "{mode}: {long} long frames");
        assert_eq!(pcap.count("frame.cap_len > 60"), 0, "{mode}");
        assert!(
            seen(&pcap, "frame.len > 2000")[0].contains(" segment=1398"),
            "{mode}: {:?}",
            seen(&pcap, "frame.len > 2000")
        );

        let capturing = Capturing::start(&lab, b, &["--point", "decap"]);
        transfer::tcp(a, b, Segment::v6(1), 400_000);
        let whole = capturing.stop();
        assert_eq!(whole.count("frame.cap_len != frame.len"), 0, "{mode}");
        assert!(whole.count("tcp && frame.len > 1000") > 5, "{mode}");
    }
}

#[test]
fn drops() {
    for mode in MODES {
        let lab = Lab::new("capture drops");
        let hosts = lab.switch(["a", "b", "stranger"], &Wiring::default());
        let [a, b, stranger] = &hosts;
        let nodes = [a.clone(), b.clone()];
        let args = ["--mode", mode];
        let segment = Segment { args: &args, file: Some(File::default()), ..Segment::of(&nodes, &[]) };
        let _agents = segment.up(&lab);
        assert_eq!(traffic::ping(a, Segment::v4(1), 1).lost(), 0, "{mode}");
        let capturing = Capturing::start(&lab, a, &["--point", "drop"]);
        // Somebody who is not in the mesh.
        let options = l2mesh_tests::VxlanOptions { mtu: Some(1450), ..Default::default() };
        let device = stranger.kernel_vxlan(stranger.vtep(), &[a.vtep()], &options);
        Segment::address(stranger, device.name(), 2);
        let before = a.counter("unknown-source");
        traffic::arping(stranger, device.name(), Segment::v4(0), 2);
        let unknown = a.counter("unknown-source") - before;
        assert!(unknown >= 2, "{mode}");
        // A group as source, in a tag; what is too long for the path; and what no bridge forwards.
        let tap = Tap::open(a, "l2m0");
        tap.send(&Frame::unknown(b.mac("l2m0"), MacAddr([3, 0, 0, 0, 0, 1]), &[7; 60]).tagged(9));
        tap.send(&Frame::lldp(tap.mac(), &[1; 60]));
        a.run("ip link set dev l2m0 mtu 1500");
        a.wait_counter("link-local", 1);
        let refused = traffic::ping_sized(a, Segment::v4(1), 1, 1460);
        assert_eq!(refused.received, 0, "{mode}");
        let pcap = capturing.stop();
        let strangers = seen(&pcap, "vxlan");
        assert!(strangers.len() as u64 >= unknown, "{mode}: {strangers:?}");
        for row in &strangers {
            assert_eq!(row, "drop: verdict=unknown-source point=drop vni=16 (0x10)", "{mode}");
        }
        let from = format!("vxlan && ip.src == {} && arp", stranger.vtep());
        assert!(pcap.count(&from) >= 2, "{mode}: with its outer header");
        assert_all(
            &seen(&pcap, "eth.src == 03:00:00:00:00:01 && vlan.id == 9"),
            1,
            "drop: verdict=sent-group-source point=drop peer=b vni=16 (0x10)",
        );
        assert_all(
            &seen(&pcap, "eth.dst == 01:80:c2:00:00:0e"),
            1,
            "drop: verdict=link-local point=drop vni=16 (0x10)",
        );
        let told = seen(&pcap, "icmp.type == 8");
        assert_all(&told, 1, "drop: verdict=too-big-told point=drop peer=b vni=16 (0x10)");
        assert_eq!(pcap.count("icmp.type == 8 && frame.len == 1502"), 1, "{mode}: before it became the answer");
    }
}

/// Without agents, on the relay and on both sides of it; and only what is asked for.
#[test]
fn relayed_and_filtered() {
    for (mode, over) in MODES.into_iter().flat_map(|mode| [(mode, Family::V4), (mode, Family::V6)]) {
        let lab = Lab::new("capture relay");
        let hosts = frozen(&lab, over, mode);
        let [a, b, c] = &hosts;
        assert_eq!(traffic::ping(a, Segment::v4(1), 1).lost(), 0, "{mode}");
        for (from, to) in [(a, c), (c, a)] {
            set_path(from, to, DIRECT, &PathTx { order: order(&[1]), ..UP }, LONG_AGO);
        }
        assert_eq!(traffic::ping(a, Segment::v4(2), 1).lost(), 0, "{mode}");
        let all =
            Capturing::start(&lab, b, &["--vni", "0x10", "--peer", "hetzner", "--point", "relay", "--point", "decap"]);
        let others = Capturing::start(&lab, a, &["--peer", &c.vtep().to_string(), "--point", "encap"]);
        assert_eq!(traffic::ping(a, Segment::v4(2), 3).lost(), 0, "{mode}");
        assert_eq!(traffic::ping(a, Segment::v4(1), 2).lost(), 0, "{mode}");
        assert_eq!(traffic::ping(c, Segment::v4(1), 2).lost(), 0, "{mode}");
        let (relay, sender) = (all.stop(), others.stop());
        let way = |from, to| format!("relay: verdict=relayed point=relay peer={to} from={from} vni=16 (0x10)");
        assert_all(&seen(&relay, "icmp.type == 8 && vxlan"), 3, &way("hetzner", "ovh"));
        assert_all(&seen(&relay, "icmp.type == 0 && vxlan"), 3, &way("ovh", "hetzner"));
        let version = if over == Family::V4 { "ip" } else { "ipv6" };
        let onward = format!("{version}.src == {} && {version}.dst == {} && icmp.type == 8", b.vtep(), c.vtep());
        assert_eq!(relay.count(&onward), 3, "{mode}: as it leaves");
        assert_all(
            &seen(&relay, "icmp && !vxlan"),
            2,
            "decap: verdict=received point=decap peer=hetzner vni=16 (0x10)",
        );
        assert_eq!(sender.count("icmp"), 3, "{mode}: {:?}", seen(&sender, "icmp"));
        assert_all(&seen(&sender, "icmp"), 3, "encap: verdict=sent point=encap peer=ovh vni=16 (0x10)");
    }
}

/// Where the kernel's own device makes and takes the outer headers.
#[test]
fn in_mode_kernel() {
    let lab = Lab::new("capture kernel");
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let _agents = Segment { args: &["--mode", "kernel"], ..Segment::of(&hosts, &[]) }.up(&lab);
    let [a, b, _c] = &hosts;
    assert_eq!(traffic::ping(a, Segment::v4(1), 1).lost(), 0);
    let peer = b.vtep().to_string();
    let capturing = Capturing::start(&lab, a, &["--peer", &peer]);
    assert_eq!(traffic::ping(a, Segment::v4(1), 3).lost(), 0);
    assert_eq!(traffic::ping(a, Segment::v4(2), 1).lost(), 0);
    let pcap = capturing.stop();
    assert_all(
        &seen(&pcap, "icmp.type == 8"),
        3,
        &format!("encap: verdict=sent point=encap peer={peer} vni=16 (0x10)"),
    );
    assert_all(
        &seen(&pcap, "icmp.type == 0"),
        3,
        &format!("decap: verdict=received point=decap peer={peer} vni=16 (0x10)"),
    );
    assert_eq!(pcap.count("icmp && frame.len == 98"), 6);
}

/// Whoever switched it on may be gone.
#[test]
fn a_killed_capture_leaves_nothing_on() {
    let (lab, hosts, agents) = three("capture killed", "tc");
    let a = &hosts[0];
    let ping = || assert_eq!(traffic::ping(a, Segment::v4(1), 1).lost(), 0);
    assert_eq!(filter_of(a).points, 0);
    let programs = || {
        let programs = a.pinned("eth0").programs();
        programs.into_iter().map(|(name, program)| (name, program.id())).collect::<Vec<_>>()
    };
    let before = programs();
    let mut capturing = Capturing::start(&lab, a, &[]);
    assert_eq!(filter_of(a).points, 15);
    ping();
    capturing.process.signal(Signal::SIGKILL);
    let _killed = capturing.process.wait_exit(LIMIT);
    // From now on nobody takes records: the kernel has emptied the places of the map.
    let lost = filter_of(a).lost;
    ping();
    let filter = filter_of(a);
    assert!(filter.points == 0 || filter.lost > lost, "{filter:?}");
    wait_for("it is off", Duration::from_secs(4), || {
        ping();
        match filter_of(a) {
            CaptureFilter { points: 0, .. } => Ok(()),
            filter => Err(format!("{filter:?}")),
        }
    });
    let off = filter_of(a);
    ping();
    assert_eq!(filter_of(a), off);

    // The next one works, one that ends in order is off at once, and agents come and go beside it.
    let capturing = Capturing::start(&lab, a, &["--point", "encap"]);
    let again = a.try_l2mesh(&["capture"]);
    assert_eq!(sentence(&again), "a capture runs on eth0 already: there can be one at a time");
    drop(agents);
    let mut capturing = capturing;
    assert!(capturing.process.wait_exit(LIMIT).success());
    assert!(
        capturing.process.stderr().contains("the mesh was detached\n0 frames captured"),
        "{}",
        capturing.process.last_words()
    );
    let _agents = Segment { file: Some(File::default()), ..Segment::of(&hosts, &[]) }.up(&lab);
    let capturing = Capturing::start(&lab, a, &[]);
    ping();
    let pcap = capturing.stop();
    assert_eq!(filter_of(a).points, 0);
    assert_eq!(pcap.count("icmp"), 2);
    assert!(!before.is_empty());
    let before = programs();
    let capturing = Capturing::start(&lab, a, &[]);
    ping();
    drop(capturing);
    assert_eq!(programs(), before, "the programs are the same");
}

#[test]
fn for_people() {
    let (_lab, hosts, _agents) = three("capture lines", "tc");
    let [a, b, _c] = &hosts;
    assert_eq!(traffic::ping(a, Segment::v4(1), 1).lost(), 0);
    let mut process = a.spawn_l2mesh(&["capture", "--count", "20", "--vni", "16", "--peer", "b"]);
    process.wait_log_line("capturing on eth0", LIMIT);
    assert_eq!(traffic::ping(a, Segment::v4(1), 12).lost(), 0);
    assert!(process.wait_exit(LIMIT).success());
    let text = process.stdout();
    assert_eq!(text.lines().count(), 20, "{text}");
    // IPv6 of new interfaces is there too.
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" IPv4 ICMP ")).collect();
    let macs = [a, b].map(|host| host.mac("l2m0"));
    let [sent, received, ..] = lines[..] else { panic!("{text}") };
    let expected = format!(
        " encap sent         b            16 (0x10)      {} > {} IPv4 ICMP 10.8.0.1 > 10.8.0.2, 98 octets",
        macs[0], macs[1]
    );
    assert_eq!(&sent[15..], expected);
    let expected = format!(
        " decap received     b            16 (0x10)      {} > {} IPv4 ICMP 10.8.0.2 > 10.8.0.1, 98 octets",
        macs[1], macs[0]
    );
    assert_eq!(&received[15..], expected);
    assert!(process.stderr().contains("20 frames captured"), "{}", process.stderr());

    for (args, says) in [
        (&["--peer", "d"][..], "no peer is called \"d\": there are b, c"),
        (&["--vni", "17"], "no network here has VNI 17 (0x11): see `l2mesh maps networks`"),
        (&["--iface", "eth1"], "no mesh is attached to eth1: there are meshes on eth0"),
    ] {
        let output = a.try_l2mesh(&[&["capture"], args].concat());
        assert_eq!(output.code, Some(1), "{output:?}");
        assert_eq!(sentence(&output), says);
    }
}
