//! The lab does what the other tests rely on.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use l2mesh_tests::{
    Capture, Direction, Frame, Host, Lab, MacAddr, Tap, VxlanOptions, Wire, Wiring, dhcp, traffic, transfer, wait_for,
};

const LIMIT: Duration = Duration::from_secs(5);

/// TCP data enough for aggregates of every size.
const BULK: usize = 16 << 20;

fn assert_all_reach_all(hosts: &[Host]) {
    for from in hosts {
        for to in hosts {
            assert_eq!(traffic::ping(from, to.address(), 1).lost(), 0, "{} to {}", from.name(), to.name());
        }
    }
}

#[test]
fn pair_with_both_families_and_a_dotted_interface() {
    let lab = Lab::new("pair");
    let wiring = Wiring { interface: "eth0.100".to_owned(), ipv6: true, ..Wiring::default() };
    let hosts = lab.pair(["a", "b"], &wiring);
    assert_all_reach_all(&hosts);
    let [a, b] = &hosts;
    assert_eq!(a.interface(), "eth0.100");
    let r = traffic::ping(a, b.address6(), 1);
    println!("{r:?} {:?} {:?}", a.run("ip -6 neigh"), b.run("ip -6 neigh"));
    println!("{:?}", traffic::ping(a, b.address6(), 1));
    assert_eq!(r.lost(), 0);
    assert_eq!(traffic::arping(a, "eth0.100", b.address(), 2), 2);
    assert_eq!(traffic::ping_sized(a, b.address(), 1, 1472).lost(), 0);
    assert_eq!(transfer::tcp(a, b, b.address6(), BULK).octets, BULK);
    lab.assert_no_xdp_errors(&hosts);
}

#[test]
fn switch_of_five() {
    let lab = Lab::new("switch");
    let hosts = lab.switch(["h1", "h2", "h3", "h4", "h5"], &Wiring::default());
    assert_all_reach_all(&hosts);
    let text = lab.fabric().run("sysctl -n net.bridge.bridge-nf-call-iptables").stdout;
    assert_eq!(text.trim(), "0");
}

#[test]
fn routed_cut_healed_and_unplugged() {
    let lab = Lab::new("routed");
    let wiring = Wiring { ipv6: true, ..Wiring::default() };
    let hosts = lab.routed(["hetzner", "enovance", "ovh"], &wiring);
    assert_all_reach_all(&hosts);
    let [a, b, c] = &hosts;
    let gateway = a.uplink(0).gateway.expect("a router");
    assert_eq!(traffic::ping(a, gateway, 1).lost(), 0);

    lab.cut(a, b);
    assert_eq!(traffic::ping(a, b.address(), 1).received, 0);
    assert_eq!(traffic::ping(b, a.address6(), 1).received, 0);
    assert_eq!(traffic::ping(a, c.address(), 1).lost(), 0);
    assert_eq!(traffic::ping(c, b.address6(), 1).lost(), 0);
    lab.heal(a, b);
    assert_all_reach_all(&hosts);

    lab.unplug(c);
    let carrier = |host: &Host| host.link("eth0")["operstate"].as_str().unwrap_or_default().to_owned();
    wait_for("no carrier", LIMIT, || if carrier(c) == "UP" { Err(carrier(c)) } else { Ok(()) });
    lab.plug(c);
    assert_eq!(traffic::ping(a, c.address(), 3).lost(), 0);

    let second = lab.add_uplink(a, &wiring);
    assert_eq!((second.interface.as_str(), second.port.as_str()), ("eth1", "hetzner.1"));
    assert_eq!(traffic::ping(a, second.gateway.expect("a router"), 1).lost(), 0);
}

#[test]
fn frames_leave_as_on_a_real_wire() {
    for wire in [Wire::Frames, Wire::Plain] {
        let lab = Lab::new("wire");
        let [a, b] = lab.switch(["a", "b"], &Wiring { wire, ..Wiring::default() });
        let capture = Capture::start(&lab.fabric(), &b.uplink(0).port, Direction::Out, "tcp");
        transfer::tcp(&a, &b, b.address(), BULK);
        let pcap = capture.stop();
        assert!(pcap.count("tcp.len > 0") > 0);
        let long = pcap.count("ip.len > 1500");
        match wire {
            Wire::Frames => {
                assert_eq!(long, 0);
                assert!(pcap.bad_checksums().is_empty(), "{:?}", &pcap.bad_checksums()[..1]);
            }
            Wire::Plain => assert_ne!(long, 0),
        }
    }
}

#[test]
fn a_bad_checksum_is_found_in_the_inner_packet() {
    let lab = Lab::new("checksum");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let (from, to): (SocketAddr, SocketAddr) =
        ("10.8.0.1:1".parse().expect("an address"), "10.8.0.2:2".parse().expect("an address"));
    let good = Frame::udp(MacAddr::BROADCAST, MacAddr([2, 0, 0, 0, 0, 1]), from, to, b"inner");
    let mut octets = good.octets().to_vec();
    *octets.last_mut().expect("a payload") ^= 1;
    let bad = Frame::raw(octets);
    let tap = Tap::open(&a, "eth0");
    let capture = Capture::start(&b, "eth0", Direction::In, "udp port 4789");
    for inner in [&good, &bad] {
        let vxlan = [&[8, 0, 0, 0, 0, 0, 16, 0], inner.octets()].concat();
        let (from, to) = (SocketAddr::new(a.address().into(), 50_000), SocketAddr::new(b.address().into(), 4789));
        tap.send(&Frame::udp(b.mac("eth0"), tap.mac(), from, to, &vxlan));
    }
    let pcap = capture.stop();
    assert_eq!(pcap.fields("vxlan.vni == 16", &["vxlan.vni", "udp.dstport"]), [["16", "4789,2"], ["16", "4789,2"]]);
    assert_eq!(pcap.json("vxlan").len(), 2);
    let found = pcap.bad_checksums();
    assert!(found.len() == 1 && found[0].starts_with("frame.number=2 "), "{found:?}");
}

#[test]
fn kernel_vxlan_carries_ethernet() {
    for learning in [true, false] {
        let lab = Lab::new("kernel vxlan");
        let [a, b] = lab.routed(["a", "b"], &Wiring::default());
        let options = VxlanOptions { learning, ..VxlanOptions::default() };
        let device = a.kernel_vxlan(a.address(), &[b.address().into()], &options);
        b.kernel_vxlan(b.address(), &[a.address().into()], &options);
        for (host, last) in [(&a, 1), (&b, 2)] {
            host.add_address("vx0", &format!("10.8.0.{last}/24"));
            host.add_address("vx0", &format!("fd00::{last}/64"));
        }
        let [v4, v6]: [IpAddr; 2] = ["10.8.0.2", "fd00::2"].map(|text| text.parse().expect("an address"));
        assert_eq!(traffic::ping(&a, v4, 3).lost(), 0);
        assert_eq!(device.lookup(b.mac("vx0")), learning.then(|| b.address().into()));

        let capture = Capture::start(&lab.fabric(), "b", Direction::Out, "udp port 4789");
        transfer::tcp(&a, &b, v4, BULK);
        transfer::tcp(&a, &b, v6, BULK);
        transfer::udp(&a, &b, v4, &[0, 1, 1000, 1422]);
        assert_eq!(transfer::udp_segmented(&a, &b, v6, 1200, 50_000), 42);
        let pcap = capture.stop();
        assert_ne!(pcap.count("vxlan and tcp.len > 1000"), 0);
        assert!(pcap.bad_checksums().is_empty(), "{:?}", &pcap.bad_checksums()[..1]);
    }
}

#[test]
fn taps_see_each_frame_once_and_the_tag() {
    let lab = Lab::new("tap");
    let [a, b, c] = lab.switch(["a", "b", "c"], &Wiring::default());
    let [ta, mut tb, mut tc] = [&a, &b, &c].map(|host| Tap::open(host, "eth0"));
    let broadcast = Frame::unknown(MacAddr::BROADCAST, ta.mac(), b"to all");
    let tagged = Frame::unknown(tb.mac(), ta.mac(), b"to b").tagged(0x2007);
    // c has spoken, b has not: the bridge floods what is for b until then.
    let hello = tb.send_marker(tb.mac());
    assert_eq!(tc.count_until(&broadcast, &hello, LIMIT), 0);
    ta.send(&broadcast);
    ta.send(&tagged);
    let marker = ta.send_marker(ta.mac());
    let at_b = tb.until(&marker, LIMIT);
    assert_eq!(at_b.len(), 2, "{at_b:?}");
    assert_eq!(at_b[1].frame, tagged);
    assert_eq!(tc.count_until(&broadcast, &marker, LIMIT), 1);
}

#[test]
fn iperf_reports() {
    let lab = Lab::new("iperf");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let mut server = traffic::Iperf::serve(&b, b.address());
    let tcp = server.tcp(&a, Duration::from_secs(1), 2);
    assert!(tcp.bits_per_second > 1e6 && tcp.client_cpu > 0.0, "{tcp:?}");
    let udp = server.udp(&a, Duration::from_secs(1), 1000, 8_000_000);
    // On a busy machine the receiver's socket overflows: what is tested is that the numbers are read.
    assert!(udp.packets > 500 && udp.lost < udp.packets, "{udp:?}");
}

#[test]
fn dhcp_gives_a_lease() {
    let lab = Lab::new("dhcp");
    let [server, client] = [lab.host("server"), lab.host("client")];
    server.connect("lan0", &client, "lan0");
    server.add_address("lan0", "10.8.0.1/24");
    let resolver = fs::read("/etc/resolv.conf").ok();
    let _dnsmasq = dhcp::DhcpServer::start(&server, "lan0", [10, 8, 0, 100].into(), [10, 8, 0, 110].into());
    let lease = dhcp::Lease::acquire(&client, "lan0");
    assert!((100..=110).contains(&lease.address.octets()[3]), "{lease:?}");
    assert_eq!(traffic::ping(&server, lease.address, 2).lost(), 0);
    assert_eq!(fs::read("/etc/resolv.conf").ok(), resolver);
}

/// False also for a dead process that init has not yet reaped.
fn is_running(pid: &str) -> bool {
    let state = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X']));
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(state)
}

fn logs_are_kept() -> bool {
    std::env::var_os("L2MESH_KEEP_LOGS").is_some()
}

/// Namespaces, processes, pins and files of a lab are gone, also after a panic in its test.
#[test]
fn nothing_is_left() {
    if logs_are_kept() {
        return;
    }
    for panics in [false, true] {
        let mut names = Vec::new();
        let mut pids = Vec::new();
        let run = || {
            let lab = Lab::new("cleanup");
            let [a, b] = lab.switch(["a", "b"], &Wiring::default());
            fs::create_dir(lab.pin_dir()).expect("bpffs");
            let kept = a.spawn("sleep", &["1000"]);
            // One that no one holds: a daemon of a daemon.
            let orphan = b.exec("sh", &["-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"]).stdout;
            pids.extend([kept.pid().to_string(), orphan.trim().to_owned()]);
            let namespaces = [&a, &b, &lab.fabric()].map(|host| Path::new("/run/netns").join(host.namespace()));
            names.extend(namespaces.into_iter().chain([lab.pin_dir(), lab.directory()]));
            assert!(names.iter().all(|path| path.exists()), "{names:?}");
            assert!(!panics, "on purpose");
        };
        assert_eq!(catch_unwind(AssertUnwindSafe(run)).is_err(), panics);
        assert!(names.len() == 5 && pids.len() == 2, "{names:?} {pids:?}");
        let left: Vec<_> = names.iter().filter(|path| path.exists()).collect();
        assert!(left.is_empty() && !pids.iter().any(|pid| is_running(pid)), "{left:?} {pids:?}");
    }
}

#[test]
fn leftovers_of_the_dead_are_removed_and_the_living_spared() {
    let living = Lab::new("living");
    let host = living.host("here");
    // A process id above the kernel's limit of 2^22 is nobody's.
    let dead = ["l2mesh-lab-4194305-0-a", "l2mesh-lab-4194305-0-b"];
    for name in dead {
        host.exec("ip", &["netns", "add", name]);
    }
    let mut sleeper = host.spawn("nsenter", &[&format!("--net=/run/netns/{}", dead[0]), "sleep", "1000"]);
    wait_for("the sleeper is inside", LIMIT, || {
        let inside = host.exec("ip", &["netns", "pids", dead[0]]).stdout;
        if inside.trim().is_empty() { Err("nobody is".to_owned()) } else { Ok(()) }
    });
    let _next = Lab::new("next");
    for name in dead {
        assert!(!Path::new("/run/netns").join(name).exists(), "{name}");
    }
    assert!(!sleeper.is_running());
    host.run("ip link show lo");
}

#[test]
fn a_process_is_stopped_and_its_log_read() {
    let lab = Lab::new("process");
    let host = lab.host("a");
    let mut process =
        host.spawn("sh", &["-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]);
    assert_eq!(process.wait_log_line("read", LIMIT), "ready");
    assert!(process.is_running());
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_exit(LIMIT).code(), Some(3));
    assert_eq!(process.stdout(), "ready\nbye\n");
    let output = host.try_exec("sh", &["-c", "echo no >&2; exit 7"]);
    assert_eq!((output.code, output.stderr.as_str(), output.success()), (Some(7), "no\n", false));
    assert_eq!(host.in_namespace(|| host.links().len()), 1);
}

/// What the next test starts as a process of its own, to end it from outside.
#[test]
#[ignore = "a part of ended_from_outside"]
fn victim() {
    let lab = Lab::new("victim");
    let [a, _b] = lab.switch(["a", "b"], &Wiring::default());
    let _sleeper = a.spawn("sleep", &["1000"]);
    println!("\n{} {}", a.namespace(), lab.directory().display());
    if std::env::var_os("L2MESH_LAB_KEEP").is_some() {
        lab.keep();
        return;
    }
    loop {
        std::thread::park();
    }
}

/// A signal removes the lab; after SIGKILL the next lab does; a kept one stays until it is asked to go.
#[test]
fn ended_from_outside() {
    if logs_are_kept() {
        return;
    }
    let lab = Lab::new("outside");
    let host = lab.host("here");
    for (signal, code, remains) in
        [(Some(Signal::SIGINT), Some(130), false), (Some(Signal::SIGKILL), None, true), (None, Some(0), true)]
    {
        let program = std::env::current_exe().expect("this program");
        let keep: &[_] = if signal.is_none() { &[("L2MESH_LAB_KEEP", "1")] } else { &[] };
        let args = ["--exact", "victim", "--ignored", "--nocapture"];
        let mut victim = host.spawn_with(program, &args, keep);
        let line = victim.wait_log_line("l2mesh-lab-", LIMIT);
        let (namespace, directory) = line.split_once(' ').expect("two words");
        let paths = [Path::new("/run/netns").join(namespace), directory.into()];
        if let Some(signal) = signal {
            assert!(paths.iter().all(|path| path.exists()), "{paths:?}");
            victim.signal(signal);
        }
        assert_eq!(victim.wait_exit(LIMIT).code(), code, "{}", victim.last_words());
        assert!(paths.iter().all(|path| path.exists() == remains), "{signal:?} {paths:?}");
        drop(Lab::new("next"));
        assert!(paths.iter().all(|path| path.exists() == signal.is_none()), "{signal:?} {paths:?}");
        Lab::remove_kept("another");
        assert!(paths.iter().all(|path| path.exists() == signal.is_none()), "{signal:?} {paths:?}");
        Lab::remove_kept("victim");
        assert!(!paths.iter().any(|path| path.exists()), "{signal:?} {paths:?}");
    }
}
