//! What does not fit its path and may be fragmented: outside, by the kernel, or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use l2mesh_tests::narrow::{LONG, Narrow, STRANGER, addresses, answer_to};
use l2mesh_tests::{
    Capture, Direction, Family, Frame, Host, Lab, MacAddr, Segment, Tap, VxlanOptions, Wiring, taps, transfer, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// Fragments outside, for a capture. (tshark would count those that an inner host makes too.)
const FRAGMENTS: &str = "ip[6:2] & 0x3fff != 0";

/// What may be fragmented arrives whole, tags and all, at a kernel's vxlan device and from there.
#[test]
fn fragmented_towards_a_plain_host() {
    for mode in ["tc", "xdp"] {
        let mut mesh = Narrow::new(["a", "plain"], 1, &["--mode", mode]);
        let to = mesh.taps[1].mac();
        let frames: Vec<Frame> = [1451, 1500, 2901, 8000]
            .into_iter()
            .map(|octets| mesh.fragmentable(to, octets))
            .chain([mesh.fragmentable(STRANGER, LONG), mesh.fragmentable(MacAddr::BROADCAST, LONG)])
            .chain([mesh.fragmentable(to, 1450).tagged(5), mesh.fragmentable(to, LONG).tagged(5).tagged_as(0x88a8, 6)])
            .collect();
        let capture = Capture::start(&mesh.hosts[1], "eth0", Direction::In, FRAGMENTS);
        for (nth, frame) in frames.iter().enumerate() {
            mesh.taps[0].send(frame);
            mesh.taps[1].wait_frame(&format!("{mode}: frame {nth}, whole"), LIMIT, |received| received == frame);
            mesh.a().wait_counter("fragmented", nth as u64 + 1);
        }
        // UDP and VXLAN header and the frame, in pieces of what stands behind an IP header of 1500 octets.
        let pieces: usize = frames.iter().map(|frame| (frame.octets().len() + 16).div_ceil(1480)).sum();
        let fragments = capture.stop().frames();
        assert_eq!(fragments.len(), pieces, "{mode}");
        assert!(fragments.iter().all(|frame| frame.octets()[20] & 0x40 == 0), "{mode}: may be fragmented again");
        let told = ["too-big-told", "too-big-silent", "too-big", "copy-too-big"].map(|verdict| mesh.count(verdict));
        assert_eq!(told, [0; 4], "{mode}: nobody is told");
        // What is as long as the path takes is not fragmented, and what must not be neither.
        let fits = mesh.fragmentable(to, 1450);
        mesh.taps[0].send(&fits);
        mesh.taps[1].wait_frame("what fits", LIMIT, |frame| *frame == fits);
        let asked = mesh.datagram(to, addresses(Family::V4), LONG);
        mesh.taps[0].send(&asked);
        mesh.a().wait_counter("too-big-told", 1);
        assert_eq!(mesh.count("fragmented"), frames.len() as u64, "{mode}");

        // And back: the kernel's device fragments by itself.
        let (near, far) = mesh.taps.split_first_mut().expect("two");
        let back = Frame::udp(
            near.mac(),
            far[0].mac(),
            SocketAddr::from((Segment::v4(1), 1000)),
            SocketAddr::from((Segment::v4(0), 2000)),
            &[7; 4000],
        );
        far[0].send(&back);
        near.wait_frame(&format!("{mode}: back, whole"), LIMIT, |frame| *frame == back);
    }
}

/// Of the copies for everybody, those that do not fit are fragmented or missing, the others as always. Who asks for an
/// unknown place is told what all paths take.
#[test]
fn paths_of_two_widths() {
    let mut mesh = Narrow::new(["a", "b", "c"], 3, &["--mode", "tc"]);
    let a = mesh.a().clone();
    a.run(&format!("ip route replace {}/32 dev eth0 mtu 1400", mesh.hosts[1].vtep()));
    wait_for("a narrower path is followed", LIMIT, || match &a.peer(&mesh.hosts[1])["mtu"] {
        mtu if *mtu == 1350 => Ok(()),
        mtu => Err(mtu.to_string()),
    });
    let ends = addresses(Family::V4);
    let arrive = |mesh: &mut Narrow, what: &str, frame: &Frame, expected: [usize; 2]| {
        mesh.taps.iter_mut().for_each(Tap::clear);
        mesh.taps[0].send(frame);
        // Fragments go another way, and may take longer.
        for (place, expected) in (1..).zip(expected) {
            if expected > 0 {
                let received = mesh.taps[place].wait_frame(what, LIMIT, |received| received == frame);
                assert!(!received.checksum_pending, "{what}");
            }
        }
        let marker = mesh.taps[0].send_marker(mesh.taps[0].mac());
        for place in [1, 2] {
            assert_eq!(mesh.taps[place].until(&marker, LIMIT), [], "{what}: nothing else arrives at {place}");
        }
    };
    for octets in [1351, 1450] {
        let everybody = mesh.datagram(MacAddr::BROADCAST, ends, octets);
        let (copies, fragmented) = (mesh.count("copy-too-big"), mesh.count("fragmented"));
        arrive(&mut mesh, "for everybody", &everybody, [0, 1]);
        assert_eq!(mesh.count("copy-too-big"), copies + 1, "{octets}");
        arrive(&mut mesh, "for everybody, in fragments", &everybody.without_df(), [1, 1]);
        let stranger = mesh.fragmentable(STRANGER, octets);
        arrive(&mut mesh, "for a stranger, in fragments", &stranger, [1, 1]);
        assert_eq!((mesh.count("copy-too-big"), mesh.count("fragmented")), (copies + 1, fragmented + 2), "{octets}");
        let stranger = mesh.datagram(STRANGER, ends, octets);
        assert_eq!(mesh.answers(&stranger), [answer_to(&stranger, ends, 1350)], "{octets}");
    }
    // Where the one path takes it, nothing is in its way.
    let whole = mesh.datagram(mesh.taps[2].mac(), ends, 1450);
    arrive(&mut mesh, "by the wide path", &whole, [0, 1]);
    let whole = mesh.datagram(mesh.taps[1].mac(), ends, 1350);
    arrive(&mut mesh, "by the narrow path", &whole, [1, 0]);
}

/// Where another device holds the mesh port, or is to have it, the kernel can fragment nothing for us: its device sends to
/// the port that it holds. The sender is told then, whether it asked or not, and Linux listens.
#[test]
fn without_the_port_senders_are_told() {
    for (mode, is_held) in [("tc", false), ("tc", true), ("xdp", false)] {
        let what = format!("{mode}, held {is_held}");
        let lab = Lab::new("no port");
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        let [a, b] = &hosts;
        if is_held {
            let options = VxlanOptions { name: "vx7".to_owned(), vni: 7, ..VxlanOptions::default() };
            a.kernel_vxlan(a.address(), &[b.address().into()], &options);
        }
        let args: &[&str] = if is_held { &["--mode", mode] } else { &["--mode", mode, "--private-port"] };
        let _agents = Segment::of(&hosts, args).up(&lab);
        let port = a.l2mesh(&["status", "--json"])["udp_port"].as_str().unwrap_or_default().to_owned();
        assert!(port.ends_with("4790 is ours"), "{what}: {port}");
        for host in &hosts {
            host.run("ip link set dev l2m0 mtu 1500");
            // No socket asks not to be fragmented.
            host.run("sysctl -qw net.ipv4.ip_no_pmtu_disc=1");
        }
        let capture = Capture::start(a, "eth0", Direction::Out, FRAGMENTS);
        let lost = transfer::udp_persistently(a, b, Segment::v4(1), LONG - 28, 5);
        assert_eq!(lost, 1, "{what}: the first one, which was told");
        transfer::tcp(a, b, Segment::v4(1), 1 << 20);
        assert_eq!(capture.stop().frames(), [], "{what}");
        let counts = ["too-big-told", "too-big-silent", "too-big", "fragmented"].map(|verdict| a.counter(verdict));
        assert!(counts[0] > 0 && counts[1..] == [0; 3], "{what}: {counts:?}");

        // Frames that nobody can be told about end here, for one and for all.
        let mut taps: [Tap; 2] = taps(&hosts, &[]).try_into().expect("two");
        let to = taps[1].mac();
        let late = Frame::udp(
            to,
            taps[0].mac(),
            SocketAddr::from((Segment::v4(0), 1000)),
            SocketAddr::from((Segment::v4(1), 2000)),
            &[7; LONG - 28],
        )
        .without_df();
        taps[1].clear();
        taps[0].send(&late.clone().fragment_at(2960));
        a.wait_counter("too-big", 1);
        taps[0].send(&late.to(MacAddr::BROADCAST));
        a.wait_counter("copy-too-big", 1);
        let marker = taps[0].send_marker(taps[0].mac());
        let is_long = |received: &l2mesh_tests::Received| received.frame.octets().len() >= LONG;
        assert!(!taps[1].until(&marker, LIMIT).iter().any(is_long), "{what}");
    }
}

/// Fragments are put together by the kernel, which gives them to whoever holds the mesh port at the far end: where that is
/// another device, they are lost there, and nobody is told.
#[test]
fn the_far_end_must_hold_the_port() {
    for is_held in [false, true] {
        let lab = Lab::new("far port");
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        let [a, b] = &hosts;
        let args = |host: &Host| {
            host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
            let other = if host.name() == "a" { b } else { a };
            ["--vni", "16", "--overlay", "l2m0", "--peer"]
                .map(str::to_owned)
                .into_iter()
                .chain([other.vtep().to_string()])
        };
        let attach = |host: &Host, more: &[&str]| {
            let args: Vec<String> = args(host).chain(more.iter().map(|arg| (*arg).to_owned())).collect();
            host.attach(&args.iter().map(String::as_str).collect::<Vec<_>>())
        };
        if is_held {
            let options = VxlanOptions { name: "vx7".to_owned(), vni: 7, ..VxlanOptions::default() };
            b.kernel_vxlan(b.address(), &[a.address().into()], &options);
        }
        let _agents = [attach(a, &[]), attach(b, if is_held { &[] } else { &["--private-port"] })];
        a.run("ip link set dev l2m0 mtu 1500");
        let mut taps: [Tap; 2] = taps(&hosts, &[]).try_into().expect("two");
        let marker = taps[1].send_marker(taps[1].mac());
        taps[0].until(&marker, LIMIT);
        let ends = [(Segment::v4(0), 1000), (Segment::v4(1), 2000)].map(SocketAddr::from);
        let long = Frame::udp(taps[1].mac(), taps[0].mac(), ends[0], ends[1], &[7; LONG - 28]).without_df();
        taps[0].send(&long);
        a.wait_counter("fragmented", 1);
        b.wait_counter("fragment", 2);
        let marker = taps[0].send_marker(taps[0].mac());
        assert_eq!(taps[1].until(&marker, LIMIT), [], "held {is_held}");
        assert_eq!(["too-big-told", "too-big"].map(|verdict| a.counter(verdict)), [0; 2], "held {is_held}");
    }
}
