//! Another configuration for a mesh that runs: what stays does not notice, what goes is gone.

use std::fs;
use std::time::Duration;

use l2mesh_tests::changing::{Changing, With};
use l2mesh_tests::flow::{Flow, FlowReport};
use l2mesh_tests::{Agent, Host, Paths, traffic, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);

/// Files that follow one another; the first is that of the beginning.
const FILES: [With; 6] = [
    With { c: false, relay: false, dmz: false, address: false, more: "" },
    With { c: true, relay: false, dmz: false, address: false, more: "" },
    With { c: true, relay: true, dmz: true, address: false, more: "" },
    With { c: false, relay: false, dmz: true, address: true, more: "" },
    With {
        c: true,
        relay: true,
        dmz: false,
        address: true,
        more: "mac = [{ mac = \"52:54:00:00:00:09\", node = \"c\" }]\n",
    },
    With { c: false, relay: false, dmz: false, address: true, more: "storm-limit = 5000\nmss-clamp = true\n" },
];

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that lives").count()
}

/// Memory of a process, KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

fn macs_behind_b(a: &Host) -> Vec<String> {
    let macs = a.l2mesh(&["maps", "macs", "--json"]);
    let rows = macs["macs"].as_array().into_iter().flatten().filter(|row| row["peer"] == "b");
    rows.map(|row| row["mac"].to_string()).collect()
}

/// Reloads so often under numbered datagrams both ways.
#[track_caller]
fn under_traffic(mode: &str, reloads: usize, rate: u64) {
    let mesh = Changing::new("reload under traffic");
    let mut agent = mesh.attach(&["--mode", mode]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 3).lost(), 0);
    let pid = agent.process().pid();
    let nonce = || Paths::of(a).path(b, 0).0.nonce;
    let cycle = || {
        for with in FILES[1..].iter().chain(&FILES[..1]) {
            mesh.write(with);
            let changes = mesh.does("reload");
            assert_ne!(changes, ["nothing changed"], "{with:?}");
        }
    };
    // What is allocated once is.
    cycle();
    let (state, before, opened) = (a.state(), nonce(), descriptors(pid));
    let known = macs_behind_b(a);
    assert!(!known.is_empty(), "b is known");
    let received = a.counter("received");
    let flows = [(a, b, [10, 8, 0, 2]), (b, a, [10, 8, 0, 1])];
    let flows = flows.map(|(from, to, address)| Flow::start(from, to, address, rate / 2));
    let used = memory(pid);
    for _ in 0..reloads.div_ceil(FILES.len()) {
        cycle();
        flows.iter().for_each(|flow| flow.wait_more(rate / 100));
    }
    let more = memory(pid).saturating_sub(used);
    let reports: [FlowReport; 2] = flows.map(Flow::stop);
    println!("{mode}: {more} KiB more of {used}");
    for report in &reports {
        println!(
            "{mode}: {} sent, {} lost, {} late, by {} at most",
            report.sent, report.lost, report.late, report.farthest
        );
        report.assert_whole();
    }
    assert!(reports.iter().all(|report| report.late * 1000 <= report.sent), "overtaken: {reports:?}");
    assert!(a.counter("received") > received, "counters are kept");
    assert_eq!(nonce(), before, "the path to b goes on");
    for mac in &known {
        assert!(macs_behind_b(a).contains(mac), "{mac} is forgotten");
    }
    assert_eq!(descriptors(pid), opened, "descriptors of the agent");
    assert!(more <= 256 + used / 20, "{more} KiB more of {used}");
    a.assert_state(&state);
}

#[test]
fn reload_under_traffic_in_mode_tc() {
    under_traffic("tc", 12, 20_000);
}

#[test]
fn reload_under_traffic_in_mode_xdp() {
    under_traffic("xdp", 12, 20_000);
}

#[test]
#[ignore = "100 reloads in each mode: cargo test -p l2mesh-tests --test reload -- --ignored --nocapture"]
fn a_hundred_reloads() {
    for mode in ["tc", "xdp"] {
        under_traffic(mode, 100, 50_000);
    }
}

/// What was added works, what was removed is gone wholly.
#[test]
fn what_comes_and_what_goes() {
    let mesh = Changing::new("comes and goes");
    let mut agent = mesh.attach(&[]);
    let [a, b, c] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let before = a.state();
    mesh.write(&With { c: true, relay: true, dmz: true, address: true, more: "" });
    let changes = mesh.does("reload");
    let c_address = c.address();
    assert_eq!(
        changes,
        [
            &*format!("node c added ({c_address})"),
            "network lan: address 10.18.0.1/24 of a added",
            "network lan: address 10.8.0.3/24 of c added",
            "network dmz added (VNI 17 (0x11))",
        ]
    );
    for change in &changes {
        agent.process().wait_log_line(change, LIMIT);
    }
    assert_eq!(traffic::ping(a, [10, 8, 0, 3], 2).lost(), 0);
    assert_eq!(traffic::ping(a, [10, 9, 0, 2], 2).lost(), 0);
    assert_eq!(traffic::ping(a, [10, 18, 0, 1], 1).lost(), 0);
    let paths = Paths::of(a);
    paths.wait_ready(b, 1, LIMIT);
    assert_eq!(paths.relays(b), ["c"]);

    mesh.write(&With::default());
    assert_eq!(mesh.does("reload").len(), 4);
    a.assert_state(&before);
    let all = a.l2mesh(&["maps", "--json"]);
    for (table, rows) in [("peers", 1), ("networks", 1), ("paths", 1)] {
        assert_eq!(all[table].as_array().map(Vec::len), Some(rows), "{table}: {all}");
    }
    let text = all["macs"].to_string() + &all["neighbours"].to_string();
    assert!(!text.contains("\"c\"") && !text.contains("17"), "{text}");
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
}

/// A node that moves is found at its new address, and its frames are taken from there.
#[test]
fn another_address() {
    let mesh = Changing::new("another address");
    let _agent = mesh.attach(&[]);
    let [a, b, _] = &mesh.hosts;
    let was = b.address().to_string();
    let mut octets = b.address().octets();
    octets[3] = 77;
    let is = std::net::Ipv4Addr::from(octets).to_string();
    fs::write(mesh.file(), mesh.text(&With::default()).replace(&was, &is)).expect("a file in the lab's directory");
    assert_eq!(mesh.does("reload"), [format!("node b: address {was} -> {is}")]);
    assert_eq!(a.l2mesh(&["maps", "peers", "--json"])["peers"][0]["address"], *is);
    assert_ne!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0);
    mesh.write(&With::default());
    assert_eq!(mesh.does("reload").len(), 1);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
}

/// What is not valid, or cannot be had while the mesh runs, changes nothing and says why.
#[test]
fn refused() {
    let mesh = Changing::new("refused");
    let mut agent = mesh.attach(&[]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    a.run("ip link add name dummy0 type veth peer name dummy1");
    let (state, tables) = (a.state(), mesh.tables());
    let text = mesh.text(&With { c: true, relay: true, dmz: true, address: true, more: "" });
    let (own, file) = (a.address().to_string(), mesh.file());
    let elsewhere = b.address().to_string();
    for (wrong, says) in [
        (text.replace("vni = 17", "vni = 16"), format!("{file}:18: network \"dmz\": vni 16 (0x10) is also that of")),
        (text.clone() + "[[", format!("{file}:")),
        (text.replace("name = \"b\"", "nam = \"b\""), "unknown key `nam`".to_owned()),
        (
            format!("[underlay]\nport = 4790\n{text}"),
            "[underlay] port cannot become 4790 while the mesh runs".to_owned(),
        ),
        (format!("[underlay]\nfdb-size = 9\n{text}"), "[underlay] fdb-size cannot become 9".to_owned()),
        (format!("[underlay]\nprivate-port = true\n{text}"), "[underlay] private-port cannot become true".to_owned()),
        (text.replace("name = \"a\"", "id = 7\nname = \"a\""), "this host's own id cannot become 7".to_owned()),
        (
            text.replace("name = \"a\"", "name = \"x\"").replace(" a = ", " x = "),
            format!("this host is node \"a\", which {file} has no more"),
        ),
        (text.replace(&own, &elsewhere), "address".to_owned()),
        (text.replace("vni = 17", "vni = 17\nmtu = 9000"), "mtu 9000 and 50 octets of headers do not fit".to_owned()),
        (
            // Not known before it is tried: what was done until then is undone.
            text.replace("vni = 17", "vni = 17\ninterface = \"dummy0\""),
            "dummy0".to_owned(),
        ),
        (text.replace(&elsewhere, "no-such-host.invalid"), "no-such-host.invalid cannot be resolved".to_owned()),
    ] {
        fs::write(&file, &wrong).expect("a file in the lab's directory");
        let said = mesh.refuses("reload");
        assert!(said.contains(&says), "{says:?}: {said}");
        a.assert_state(&state);
        assert_eq!(mesh.tables(), tables, "{says:?}");
        agent.process().signal(Signal::SIGHUP);
    }
    fs::remove_file(&file).expect("it is there");
    assert!(mesh.refuses("reload").contains(&format!("{file}: cannot be read: ")));
    agent.process().wait_log_line("SIGHUP is refused: ", LIMIT);
    assert_eq!(mesh.tables(), tables);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    mesh.write(&With { dmz: true, ..With::default() });
    assert_eq!(mesh.does("reload"), ["network dmz added (VNI 17 (0x11))"]);
}

/// What fails in the middle, when devices are there and tables half written, is taken back.
#[test]
fn a_failure_in_the_middle() {
    let mesh = Changing::new("middle");
    let text = mesh.text(&With { dmz: true, ..With::default() });
    let small = format!("[underlay]\nfdb-size = 8\n{text}");
    fs::write(mesh.file(), &small).expect("a file in the lab's directory");
    let mut agent = mesh.attach(&[]);
    let [a, ..] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let (state, tables) = (a.state(), mesh.tables());
    let macs =
        (0..200).map(|nth| format!("{{ mac = \"52:54:00:00:00:{nth:02x}\", node = \"b\" }}")).collect::<Vec<_>>();
    let more = format!("mac = [{}]\n[[network]]\nname = \"third\"\nvni = 18\n", macs.join(", "));
    fs::write(mesh.file(), small.clone() + &more).expect("a file in the lab's directory");
    let said = mesh.refuses("reload");
    assert!(said.contains("the mesh is as it was before") && said.contains("raise fdb-size"), "{said}");
    agent.process().wait_log_line("going back to the configuration before", LIMIT);
    a.assert_state(&state);
    assert_eq!(mesh.tables(), tables);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    fs::write(mesh.file(), small).expect("a file in the lab's directory");
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
}

/// Waits until a has the network dmz, or has it no more.
#[track_caller]
fn wait_dmz(a: &Host, agent: &mut Agent, expected: bool, how: &str) {
    wait_for(&format!("{how}: network dmz is {expected}"), LIMIT, || {
        let is_there = a.try_link("l2m11").is_some();
        if is_there == expected { Ok(()) } else { Err(agent.process().last_words()) }
    });
}

#[test]
fn triggers() {
    let mesh = Changing::new("triggers");
    let (file, directory) = (mesh.file(), mesh.lab.directory());
    let [a, ..] = &mesh.hosts;
    let mut agent = mesh.attach(&[]);
    mesh.write(&With { dmz: true, ..With::default() });
    agent.process().signal(Signal::SIGHUP);
    wait_dmz(a, &mut agent, true, "SIGHUP");
    agent.process().wait_log_line("SIGHUP: 1 change", LIMIT);
    mesh.write(&With::default());
    agent.process().signal(Signal::SIGHUP);
    wait_dmz(a, &mut agent, false, "SIGHUP");
    agent.stop();

    let mut agent = mesh.attach(&["--watch"]);
    mesh.write(&With { dmz: true, ..With::default() });
    wait_dmz(a, &mut agent, true, "written in place");
    let new = directory.join("new.toml");
    fs::write(&new, mesh.text(&With::default())).expect("a file in the lab's directory");
    fs::rename(&new, &file).expect("another file");
    wait_dmz(a, &mut agent, false, "replaced");
    fs::write(&file, "nonsense").expect("a file in the lab's directory");
    agent.process().wait_log_line("the changed file is refused: ", LIMIT);
    agent.stop();

    // As Kubernetes does it.
    for (name, with) in [("..1", With::default()), ("..2", With { dmz: true, ..With::default() })] {
        fs::create_dir(directory.join(name)).expect("a directory");
        fs::write(directory.join(name).join("a.toml"), mesh.text(&with)).expect("a file in the lab's directory");
    }
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, directory.join(name)).expect("a link");
    fs::remove_file(&file).expect("it is there");
    link("..1", "..data");
    link("..data/a.toml", "a.toml");
    let mut agent = mesh.attach(&["--watch"]);
    link("..2", "..tmp");
    fs::rename(directory.join("..tmp"), directory.join("..data")).expect("another link");
    wait_dmz(a, &mut agent, true, "a ConfigMap");
}
