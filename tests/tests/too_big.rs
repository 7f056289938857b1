//! What the programs do with frames that do not fit: who is told, what is fragmented, what ends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use l2mesh_tests::narrow::{LONG, Narrow, STRANGER, addresses, answer_to};
use l2mesh_tests::{
    Capture, Direction, Family, Frame, Host, Lab, MacAddr, Pcap, Segment, VxlanOptions, Wiring, traffic, wait_for,
};

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
    for address in [Segment::v4(1).into(), IpAddr::from(Segment::v6(1))] {
        wait_for("the bridge forwards", LIMIT, || match traffic::ping(&guest, address, 1).lost() {
            0 => Ok(()),
            _ => Err("no answer".to_owned()),
        });
    }
    let capture = Capture::start(&guest, "eth0", Direction::In, "");
    for (address, data) in [(Segment::v4(1).into(), 1472), (IpAddr::from(Segment::v6(1)), 1452)] {
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

/// Type and content of tags.
const VLAN: (u16, u16) = (0x8100, 0x2005);
const SERVICE: (u16, u16) = (0x88a8, 0x0006);

/// The answer has the tags of what it answers, and counts them.
#[test]
fn the_answer_carries_the_tags() {
    for mode in ["tc", "xdp"] {
        let mut mesh = Narrow::new(["a", "b"], 2, &["--mode", mode]);
        for destination in [mesh.taps[1].mac(), STRANGER] {
            for family in [Family::V4, Family::V6] {
                let plain = mesh.datagram(destination, addresses(family), LONG);
                for (tags, mtu) in [(&[][..], 1450), (&[VLAN], 1446), (&[SERVICE], 1446), (&[SERVICE, VLAN], 1442)] {
                    let tagged =
                        |frame: Frame| tags.iter().rev().fold(frame, |it, (kind, tci)| it.tagged_as(*kind, *tci));
                    let expected = tagged(answer_to(&plain, addresses(family), mtu));
                    assert_eq!(mesh.answers(&tagged(plain.clone())), [expected], "{mode} {tags:04x?}");
                    // As told, it fits.
                    let fits = tagged(mesh.datagram(destination, addresses(family), mtu as usize));
                    mesh.taps[0].send(&fits);
                    mesh.taps[1].wait_frame("what fits", LIMIT, |frame| *frame == fits);
                }
            }
        }
    }
}

/// Sixteen at once, then ten a second, for each source.
#[test]
fn answers_are_limited() {
    const BURST: u64 = 16;
    const SENT: u64 = 60;
    const OTHERS: u64 = 12;
    let mut mesh = Narrow::new(["a", "b"], 2, &["--mode", "tc"]);
    let (to, mut sent) = (mesh.taps[1].mac(), 0);
    for family in [Family::V4, Family::V6] {
        let ends = addresses(family);
        let question = mesh.datagram(to, ends, LONG);
        let before = ["too-big-told", "too-big-silent"].map(|verdict| mesh.count(verdict));
        mesh.taps[0].clear();
        let start = Instant::now();
        (0..SENT).for_each(|_| mesh.taps[0].send(&question));
        sent += SENT;
        let [told, silent] = wait_for("all are told or not", LIMIT, || {
            let counts = ["too-big-told", "too-big-silent"].map(|verdict| mesh.count(verdict));
            if counts.iter().sum::<u64>() >= sent { Ok(counts) } else { Err(format!("{counts:?} of {sent}")) }
        });
        let (told, silent) = (told - before[0], silent - before[1]);
        let more = u64::try_from(start.elapsed().as_millis()).expect("a short time") / 100 + 1;
        assert!((BURST..=BURST + more).contains(&told), "{family:?}: {told} told, {BURST} and {more} more expected");
        assert_eq!(told + silent, SENT, "{family:?}");
        let answer = answer_to(&question, ends, 1450);
        for nth in 0..told {
            let what = format!("{family:?}: answer {nth} of {told}");
            mesh.taps[0].wait_frame(&what, LIMIT, |frame| *frame == answer);
        }
        assert_eq!(mesh.taps[0].receive(Duration::from_millis(10)), None, "{family:?}: more than {told} answers");

        // Others have theirs: more than a bucket that is empty gets meanwhile.
        let other = match family {
            Family::V4 => (IpAddr::from(Segment::v4(2)), ends.1),
            Family::V6 => (IpAddr::from(Segment::v6(2)), ends.1),
        };
        let of_another = mesh.datagram(to, other, LONG);
        let answer_to_another = answer_to(&of_another, other, 1450);
        (0..OTHERS).for_each(|_| mesh.taps[0].send(&of_another));
        sent += OTHERS;
        for nth in 0..OTHERS {
            let what = format!("{family:?}: the answer {nth} to another");
            mesh.taps[0].wait_frame(&what, LIMIT, |frame| *frame == answer_to_another);
        }
        // And who is silent for a while has some more.
        wait_for("it is told again", LIMIT, || {
            mesh.taps[0].send(&question);
            sent += 1;
            match mesh.taps[0].receive(Duration::from_millis(20)) {
                Some(received) if received.frame == answer => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// What becomes of a frame that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Long {
    /// Its sender is told.
    Told,
    /// It ends here.
    Dropped(&'static str),
    /// The copies that do not fit do; there is no other.
    NoCopy,
}

/// Nobody is told who cannot have sent it, or about what is an error already (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
#[test]
fn who_is_never_told() {
    use Long::{Dropped, NoCopy, Told};
    const TOO_BIG: Long = Dropped("too-big");
    let mut mesh = Narrow::new(["a", "b"], 2, &["--mode", "tc"]);
    let (own, to) = (mesh.taps[0].mac(), mesh.taps[1].mac());
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (v4, v6) = (addresses(Family::V4), addresses(Family::V6));
    let group = MacAddr([0x01, 0, 0x5e, 0, 0, 9]);
    let packet = |(from, to_ip): (IpAddr, IpAddr), protocol: u8, first: u8| {
        let headers = if from.is_ipv4() { 20 } else { 40 };
        let mut payload = vec![7; LONG - headers];
        (payload[0], payload[1]) = (first, 0);
        Frame::ip(to, own, from, to_ip, (protocol, 2), &payload)
    };
    let mut rows: Vec<(String, Frame, Long)> = Vec::new();
    let mut add = |what: &str, frame: Frame, becomes: Long| rows.push((what.to_owned(), frame, becomes));
    for source in ["224.0.0.1", "239.255.255.250", "255.255.255.255", "0.0.0.0", "127.0.0.1"] {
        add(source, mesh.datagram(to, (ip(source), v4.1), LONG), TOO_BIG);
    }
    for source in ["ff02::1", "ff0e::5", "::", "::1"] {
        add(source, mesh.datagram(to, (ip(source), v6.1), LONG), TOO_BIG);
    }
    for (from, groups) in [(v4.0, ["224.0.0.251", "255.255.255.255"]), (v6.0, ["ff02::fb", "ff05::2"])] {
        for address in groups {
            add(address, mesh.datagram(to, (from, ip(address)), LONG), TOO_BIG);
        }
    }
    for (ends, what) in [(v4, "IPv4"), (v6, "IPv6")] {
        add(&format!("{what} to a group's MAC address"), mesh.datagram(group, ends, LONG), NoCopy);
        add(&format!("{what} to everybody"), mesh.datagram(MacAddr::BROADCAST, ends, LONG), NoCopy);
        let mut from_group = mesh.datagram(to, ends, LONG).octets().to_vec();
        from_group[6] |= 1;
        add(&format!("{what} from a group's MAC address"), Frame::raw(from_group), Dropped("sent-group-source"));
    }
    // Unreachable, source quench, redirect, time exceeded, parameter problem; what they are not: questions and answers.
    for (kind, becomes) in
        [(3, TOO_BIG), (4, TOO_BIG), (5, TOO_BIG), (11, TOO_BIG), (12, TOO_BIG), (0, Told), (8, Told)]
    {
        add(&format!("ICMP type {kind}"), packet(v4, 1, kind), becomes);
    }
    for (kind, becomes) in
        [(1, TOO_BIG), (2, TOO_BIG), (3, TOO_BIG), (4, TOO_BIG), (127, TOO_BIG), (128, Told), (129, Told)]
    {
        add(&format!("ICMPv6 type {kind}"), packet(v6, 58, kind), becomes);
    }
    add("a late fragment", mesh.datagram(to, v4, LONG).fragment_at(1480), TOO_BIG);
    add("no IP", Frame::unknown(to, own, &[7; LONG]), TOO_BIG);
    add("no IP, tagged", Frame::unknown(to, own, &[7; LONG - 4]).tagged(5), TOO_BIG);
    for (what, frame, becomes) in rows {
        let verdict = match becomes {
            Told => "too-big-told",
            Dropped(verdict) => verdict,
            NoCopy => "copy-too-big",
        };
        let before = mesh.count(verdict);
        let answers = mesh.answers(&frame);
        // And what is asked after it.
        let expected = before + if becomes == Told { 2 } else { 1 };
        assert_eq!(
            (answers.len(), mesh.count(verdict)),
            (usize::from(becomes == Told), expected),
            "{what}: {answers:?}"
        );
    }
    let marker = mesh.taps[0].send_marker(own);
    let arrived = mesh.taps[1].until(&marker, LIMIT);
    assert_eq!(arrived, [], "nothing of it arrives");
}
