//! Several networks on one underlay interface, up to as many as there can be: kept apart, quickly there and quickly gone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use l2mesh_tests::flow::Flow;
use l2mesh_tests::{Frame, Host, Lab, MacAddr, Process, Tap, Wiring, mesh_file, traffic, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);

/// A station that is in several networks.
const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// As many networks as a test run has the patience for; two bridges for headroom, and more than have hooks of their own.
const MANY: u32 = 1100;

/// The first VNI of many.
const FIRST: u32 = 0x1001;

/// Of two hosts that are quiet themselves.
fn pair(title: &str) -> (Lab, [Host; 2]) {
    let lab = Lab::new(title);
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    for host in &hosts {
        host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    }
    (lab, hosts)
}

/// Networks with these VNIs, called by their number.
fn tables(vnis: impl IntoIterator<Item = u32>) -> String {
    vnis.into_iter().fold(String::new(), |mut text, vni| {
        writeln!(text, "[[network]]\nname = \"n{vni}\"\nvni = {vni}").expect("a String takes everything");
        text
    })
}

fn interface(vni: u32) -> String {
    format!("l2m{vni:x}")
}

/// Attaches to thousands of networks, which may take a while.
#[track_caller]
fn attach(host: &Host, file: &str) -> (Process, Duration) {
    let start = Instant::now();
    let mut agent = host.spawn_l2mesh(&["attach", "--iface", "eth0", "--config", file]);
    agent.wait_log_line("up: ", Duration::from_mins(5));
    (agent, start.elapsed())
}

/// What `maps networks` says of a network's transmit hook.
#[track_caller]
fn transmit(host: &Host, vni: u32) -> String {
    let all = host.l2mesh(&["maps", "networks", "--json", "--vni", &vni.to_string()]);
    all["networks"][0]["transmit"].as_str().unwrap_or_else(|| panic!("{all}")).to_owned()
}

#[track_caller]
fn wait_shortcut(host: &Host, vni: u32) {
    wait_for(&format!("{} has its own hooks", interface(vni)), LIMIT, || match transmit(host, vni) {
        text if text == "egress shortcut" => Ok(()),
        other => Err(other),
    });
}

/// Devices of l2mesh on a host.
fn devices(host: &Host) -> usize {
    host.links().iter().filter(|link| link["ifname"].as_str().is_some_and(|name| name.starts_with("l2"))).count()
}

/// The same MAC and IP addresses in two networks have nothing to do with each other.
#[test]
fn equal_addresses_in_two_networks() {
    for mode in ["tc", "xdp"] {
        let lab = Lab::new("two networks");
        let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
        let file = mesh_file(&lab, &hosts, &tables([16, 17]));
        let _agents = hosts.each_ref().map(|host| host.attach(&["--config", &file, "--mode", mode]));
        // The same station speaks behind b in one network, behind c in the other.
        let [mut x, mut y] = ["l2m10", "l2m11"].map(|name| hosts.each_ref().map(|host| Tap::open(host, name)));
        for (taps, place) in [(&mut x, 1), (&mut y, 2)] {
            let hello = Frame::unknown(taps[0].mac(), STATION, b"here I am");
            taps[place].send(&hello);
            taps[0].wait_frame("the station", LIMIT, |frame| frame.is_padded(&hello));
        }
        for (name, taps, expected) in [("l2m10", &mut x, [1, 0]), ("l2m11", &mut y, [0, 1])] {
            let frame = Frame::unknown(STATION, taps[0].mac(), name.as_bytes());
            taps[0].send(&frame);
            let marker = taps[0].send_marker(taps[0].mac());
            let [_, b, c] = taps;
            let arrived = [b, c].map(|tap| tap.count_until(&frame, &marker, LIMIT));
            assert_eq!(arrived, expected, "{mode} {name}");
        }
        assert_eq!(hosts[0].counter("moved"), 0);

        // Two guests on each side, with one MAC and one IP address.
        let guests = hosts[..2].iter().enumerate().map(|(place, host)| {
            ["l2m10", "l2m11"].map(|name| {
                let guest = lab.host(&format!("{}-{name}", host.name()));
                host.move_interface(name, &guest);
                guest.run(&format!("ip link set dev {name} address 02:00:00:00:aa:0{place} up"));
                guest.add_address(name, &format!("10.8.0.{}/24", place + 1));
                guest
            })
        });
        let guests: Vec<[Host; 2]> = guests.collect();
        let [near, far] = guests.as_slice() else { panic!("two hosts") };
        for guest in near {
            assert_eq!(traffic::ping(guest, [10, 8, 0, 2], 3).lost(), 0, "{mode} {}", guest.name());
        }
        far[1].run("ip link set dev l2m11 down");
        assert_eq!(traffic::ping(&near[0], [10, 8, 0, 2], 3).lost(), 0, "{mode}");
        assert_eq!(traffic::ping(&near[1], [10, 8, 0, 2], 1).received, 0, "{mode}: nobody else answers");
    }
}

/// Decimal, hexadecimal, with and without quotes: one number.
#[test]
fn numbers_either_way() {
    let (lab, hosts) = pair("numbers");
    let [a, b] = &hosts;
    let text = "[[network]]\nname = \"x\"\nvni = \"65281\"\n[[network]]\nname = \"y\"\nvni = 0xff02\n\
                [[network]]\nname = \"z\"\nvni = \"0XFF03\"\ninterface = \"fifteen-octets-\"\n";
    let _agents = [a, b].map(|host| host.attach(&["--config", &mesh_file(&lab, &hosts, text)]));
    for (told, vni, name) in [
        ("0xff01", 65281, "l2mff01"),
        ("65281", 65281, "l2mff01"),
        ("65282", 0xff02, "l2mff02"),
        ("0xFF03", 0xff03, "fifteen-octets-"),
    ] {
        let all = a.l2mesh(&["maps", "networks", "--json", "--vni", told]);
        let network = &all["networks"][0];
        assert_eq!((&network["vni"], &network["interface"]), (&vni.into(), &name.into()), "{told}: {all}");
        let [sender, mut receiver] = [a, b].map(|host| Tap::open(host, name));
        let frame = Frame::unknown(MacAddr::BROADCAST, sender.mac(), told.as_bytes());
        sender.send(&frame);
        let got = receiver.receive(Duration::from_secs(2));
        if got.is_none() {
            for h in &hosts {
                eprintln!(
                    "{}\n{}\n{}\n{}",
                    h.name(),
                    h.l2mesh_text(&["maps"]),
                    h.run("ip -s -d link").stdout,
                    h.run("ip neigh").stdout
                );
            }
        }
        let _ = got.expect("a frame");
    }
    let shown = a.l2mesh_text(&["maps", "networks"]);
    assert!(shown.contains("65281 (0xff01)"), "{shown}");
    for (told, expected) in [("0", "VNI 0 is reserved"), ("ff01", "not a VNI"), ("0x1000000", "a VNI has 24 bits")] {
        let output = a.try_l2mesh(&["maps", "networks", "--vni", told]);
        assert!(output.code == Some(2) && output.stderr.contains(expected), "{told}: {output:?}");
    }
}

/// Each frame in the network in which it was sent and in no other, a thousand times; then they all go, once.
#[test]
fn many_networks() {
    let (lab, hosts) = pair("many networks");
    let [a, b] = &hosts;
    let before = a.state();
    let vnis = FIRST..FIRST + MANY;
    let file = mesh_file(&lab, &hosts, &tables(vnis.clone()));
    let (mut agent, took) = attach(a, &file);
    let (_b, _) = attach(b, &file);
    println!("{MANY} networks are up after {took:?}");
    assert_eq!(devices(a), 2 * MANY as usize + 4, "with a helper, two bridges and one more vxlan device");
    assert_kept_apart(&hosts, &vnis.clone().step_by(97).chain([FIRST + MANY - 1]).collect::<Vec<_>>());

    // Every hidden end has room for the outer header to give, also those on the second bridge.
    let links = a.links();
    let hidden = links.iter().filter(|link| link["ifname"].as_str().is_some_and(|name| name.starts_with("l2p")));
    let masters: BTreeSet<&str> = hidden.map(|link| link["master"].as_str().unwrap_or_default()).collect();
    assert_eq!(masters, ["l2mh2", "l2mh2x1"].into());

    let status = a.l2mesh_text(&["status"]);
    assert!(status.lines().count() < 20 && status.contains("1100 with VNI 4097 (0x1001) to 5196 (0x144c)"), "{status}");
    let maps = a.l2mesh(&["maps", "networks", "--json"]);
    assert_eq!(maps["networks"].as_array().map(Vec::len), Some(MANY as usize));

    let output = a.try_l2mesh(&["detach", "--iface", "eth0"]);
    assert!(output.success(), "{}", output.stderr);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let distinct: BTreeSet<&str> = lines.iter().copied().collect();
    assert!(lines.len() == distinct.len() && lines.len() > 2 * MANY as usize, "{}", output.stdout);
    assert!(agent.wait_exit(LIMIT).success(), "{}", agent.last_words());
    a.assert_state(&before);
}

/// The same frame, but for what says where it belongs, is sent into each of these networks.
#[track_caller]
fn assert_kept_apart(hosts: &[Host; 2], vnis: &[u32]) {
    let taps = |host: &Host| vnis.iter().map(|vni| Tap::open(host, &interface(*vni))).collect::<Vec<_>>();
    let (near, mut far) = (taps(&hosts[0]), taps(&hosts[1]));
    let frame = |vni: u32| Frame::unknown(MacAddr::BROADCAST, STATION, &vni.to_be_bytes());
    for (tap, &vni) in near.iter().zip(vnis) {
        tap.send(&frame(vni));
    }
    for ((from, to), vni) in near.iter().zip(&mut far).zip(vnis) {
        let marker = from.send_marker(from.mac());
        let arrived = to.until(&marker, LIMIT);
        let own = arrived.iter().filter(|received| received.frame.is_padded(&frame(*vni))).count();
        let foreign =
            arrived.iter().filter(|it| vnis.iter().any(|other| other != vni && it.frame.is_padded(&frame(*other))));
        assert_eq!((own, foreign.count()), (1, 0), "{}", interface(*vni));
    }
}

/// Killed, adopted with other networks, killed, removed: with thousands as with one.
#[test]
fn many_networks_without_an_agent() {
    const SOME: u32 = 150;
    const FEW: u32 = 40;
    let (lab, hosts) = pair("many adopted");
    let [a, b] = &hosts;
    let before = a.state();
    let file = |number| mesh_file(&lab, &hosts, &tables(FIRST..FIRST + number));
    let (_b, _) = attach(b, &file(2 * SOME));
    let kill = |mut agent: Process| {
        agent.signal(Signal::SIGKILL);
        agent.wait_exit(LIMIT);
    };
    let index = |vni: u32| a.link(&interface(vni))["ifindex"].clone();
    kill(attach(a, &file(SOME)).0);
    let sample = [FIRST, FIRST + 20, FIRST + SOME - 1];
    assert_kept_apart(&hosts, &sample);
    let indexes = sample.map(index);

    kill(attach(a, &file(2 * SOME)).0);
    assert_eq!(sample.map(index), indexes, "the same devices");
    assert_kept_apart(&hosts, &[FIRST, FIRST + SOME - 1, FIRST + SOME, FIRST + 2 * SOME - 1]);

    // Few enough that each gets its own hooks, and more than at once.
    let last = format!("l2p{:x}", FIRST + FEW - 1);
    let shared = || a.run(&format!("tc filter show dev {last} ingress")).stdout;
    assert!(shared().contains("overlay_tc"), "what they share: {}", shared());
    let (agent, _) = attach(a, &file(FEW));
    assert_eq!(devices(a), 2 * FEW as usize + 2);
    (FIRST..FIRST + FEW).for_each(|vni| wait_shortcut(a, vni));
    assert_kept_apart(&hosts, &[FIRST, FIRST + FEW - 1]);
    wait_for("what they shared has nothing to do any more", LIMIT, || match shared() {
        text if text.is_empty() => Ok(()),
        text => Err(text),
    });
    kill(agent);
    let said = a.l2mesh_text(&["detach", "--iface", "eth0"]);
    assert!(said.contains(&format!("removed {last}\n")), "{said}");
    a.assert_state(&before);
}

/// Of many networks those that are used get hooks of their own; frames are not lost over it.
#[test]
fn a_busy_network_gets_its_own_hooks() {
    const NETWORKS: u32 = 80;
    const BUSY: u32 = FIRST + 70;
    let (lab, hosts) = pair("busy");
    let [a, b] = &hosts;
    let file = mesh_file(&lab, &hosts, &tables(FIRST..FIRST + NETWORKS));
    let _agents = [attach(a, &file), attach(b, &file)];
    for (place, host) in hosts.iter().enumerate() {
        host.add_address(&interface(BUSY), &format!("10.8.0.{}/24", place + 1));
    }
    wait_shortcut(a, FIRST);
    assert!(transmit(a, BUSY).starts_with("hidden peer: the shortcut comes later"), "{}", transmit(a, BUSY));
    let flow = Flow::start(a, b, [10, 8, 0, 2], 2000);
    wait_shortcut(a, BUSY);
    flow.wait_more(1000);
    flow.stop().assert_whole();
    assert!(transmit(a, BUSY - 1).starts_with("hidden peer"), "{}", transmit(a, BUSY - 1));
}

/// Without an event, an interface that was changed behind the agent's back is as it should be soon.
#[test]
fn one_of_many_is_watched() {
    let (lab, hosts) = pair("watched");
    let [a, b] = &hosts;
    let file = mesh_file(&lab, &hosts, &tables(FIRST..FIRST + 12));
    let (mut agent, _) = attach(a, &file);
    let (_b, _) = attach(b, &file);
    let last = FIRST + 11;
    (FIRST..=last).for_each(|vni| wait_shortcut(a, vni));
    let hidden = format!("l2p{last:x}");
    a.run(&format!("ip link set dev {hidden} down"));
    agent.wait_log_line(&format!("the other end of {} was switched off", interface(last)), LIMIT);
    wait_for("it is switched on again", LIMIT, || match &a.link(&hidden)["operstate"] {
        state if state == "UP" => Ok(()),
        state => Err(state.to_string()),
    });
    // What is received goes through it; what is sent may take the shortcut.
    assert_kept_apart(&[b.clone(), a.clone()], &[FIRST, last]);
    assert_kept_apart(&hosts, &[FIRST, last]);
    a.run(&format!("tc qdisc add dev {} clsact", interface(last)));
    wait_for("the shortcut is closed", LIMIT, || match transmit(a, last) {
        text if text.ends_with("has a clsact qdisc") => Ok(()),
        other => Err(other),
    });
    assert_eq!(transmit(a, FIRST), "egress shortcut");
    a.run(&format!("tc qdisc delete dev {} clsact", interface(last)));
    wait_shortcut(a, last);
    a.run(&format!("ip link delete {hidden}"));
    wait_for("it is down", LIMIT, || match transmit(a, last) {
        text if text.starts_with("down: somebody removed its devices") => Ok(()),
        other => Err(other),
    });
    assert_kept_apart(&hosts, &[FIRST, last - 1]);
}

/// As many networks as VNIs in a VLAN's number space, beside the same veth pairs from `ip -batch`; run it by name with
/// `--ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn as_many_networks_as_there_can_be() {
    const ALL: u32 = 4094;
    let lab = Lab::new("4094");
    let [bare, a, b] = lab.switch(["bare", "a", "b"], &Wiring::default());
    let batch = lab.directory().join("batch");
    let pairs = (FIRST..FIRST + ALL).map(|vni| {
        format!(
            "link add name l2m{vni:x} mtu 1450 type veth peer name l2p{vni:x} mtu 65535\n\
             link set dev l2m{vni:x} up\nlink set dev l2p{vni:x} up\n"
        )
    });
    std::fs::write(&batch, pairs.collect::<String>()).expect("a file in the lab's directory");
    let start = Instant::now();
    bare.run(&format!("ip -batch {}", batch.display()));
    let bare_took = start.elapsed();

    let file = mesh_file(&lab, &[a.clone(), b.clone()], &tables(FIRST..FIRST + ALL));
    let (mut agent, took) = attach(&a, &file);
    let ratio = took.as_secs_f64() / bare_took.as_secs_f64();
    println!("bare pairs: {bare_took:?}, networks: {took:?}, ratio {ratio:.2}");
    assert!(ratio < 2.0, "{ratio}");

    let (_b, _) = attach(&b, &file);
    assert_kept_apart(&[a.clone(), b], &[FIRST, FIRST + 2000, FIRST + ALL - 1]);
    for command in [&["status"][..], &["maps", "networks"]] {
        let start = Instant::now();
        a.l2mesh_text(command);
        println!("{command:?}: {:?}", start.elapsed());
    }
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).expect("a live process");
        let ticks = stat.split_whitespace().skip(13).take(2).map(|it| it.parse::<f64>().expect("a number"));
        ticks.sum::<f64>() / 100.0
    };
    // Events of its own making are over.
    std::thread::sleep(Duration::from_secs(20));
    let (start, used) = (Instant::now(), cpu());
    std::thread::sleep(Duration::from_secs(20));
    let share = (cpu() - used) / start.elapsed().as_secs_f64();
    println!("the idle agent takes {:.2} % of a processor", share * 100.0);
    assert!(share < 0.02, "{share}");

    let start = Instant::now();
    agent.signal(Signal::SIGINT);
    assert!(agent.wait_exit(Duration::from_mins(2)).success(), "{}", agent.last_words());
    println!("gone after {:?}", start.elapsed());
    assert_eq!(devices(&a), 0);
}
