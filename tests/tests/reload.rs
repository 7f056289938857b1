//! Another configuration for a mesh that runs: what stays does not notice, what goes is gone.

use std::fs;
use std::time::Duration;

use l2mesh_tests::changing::{Changing, With, probes_to_b};
use l2mesh_tests::flow::Flow;
use l2mesh_tests::{Agent, Host, Paths, Way, traffic, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);

/// Where the kernel's own device sends and receives.
#[test]
fn in_mode_kernel() {
    let mesh = Changing::new("mode kernel");
    let write = |with: &With| {
        let text = mesh.text(with).replace("name = \"a\"", "probes = false\nname = \"a\"");
        fs::write(mesh.file(), text).expect("a file in the lab's directory");
    };
    write(&With::default());
    let _agent = mesh.attach(&["--mode", "kernel"]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let (state, flow) = (a.state(), Flow::start(a, b, [10, 8, 0, 2], 5_000));
    for with in With::FILES[1..].iter().chain(&With::FILES[..1]) {
        write(with);
        assert_ne!(mesh.does("reload"), ["nothing changed"], "{with:?}");
        flow.wait_more(200);
    }
    flow.stop().assert_whole();
    a.assert_state(&state);
    // What the others may expect of this node they may not expect now.
    mesh.write(&With::default());
    assert!(mesh.refuses("reload").contains("probes = false"));
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

/// While frames go through a relay they go on through it, whatever else changes.
#[test]
fn a_path_through_a_relay_goes_on() {
    let mesh = Changing::new("relayed");
    let with = With { c: true, relay: true, ..With::default() };
    mesh.write(&with);
    let _agent = mesh.attach(&[]);
    let [a, b, _] = &mesh.hosts;
    let paths = Paths::of(a);
    paths.wait_ready(b, 1, LIMIT);
    Paths::of(b).wait_ready(a, 1, LIMIT);
    let mut legs = mesh.lab.legs(a, b);
    legs.iter_mut().for_each(l2mesh_tests::Leg::cut);
    paths.wait_way(b, &Way::Via("c".to_owned()), LIMIT);
    Paths::of(b).wait_way(a, &Way::Via("c".to_owned()), LIMIT);
    let nonces = || [0, 1].map(|place| paths.path(b, place).0.nonce);
    let (before, probes) = (nonces(), probes_to_b(a));
    let flow = Flow::start(a, b, [10, 8, 0, 2], 5_000);
    for nth in 0..6 {
        mesh.write(&With { dmz: nth % 2 == 0, address: nth % 3 == 0, ..with });
        assert_ne!(mesh.does("reload"), ["nothing changed"]);
        assert_eq!(paths.way(b), Way::Via("c".to_owned()));
        flow.wait_more(200);
    }
    let report = flow.stop();
    println!("{report:?}");
    report.assert_whole();
    assert_eq!(nonces(), before);
    let sent = probes_to_b(a);
    assert!(sent >= probes + 3, "the prober has forgotten what it knew of b: {sent} probes, {probes} before");
    legs.iter_mut().for_each(l2mesh_tests::Leg::heal);
    paths.wait_way(b, &Way::Direct, LIMIT);
}

/// What only the agent does, it does as it is told now.
#[test]
fn ageing_and_probes() {
    let mesh = Changing::new("ageing");
    let mut agent = mesh.attach(&[]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let mac = b.mac("l2m10");
    assert!(a.mac_row(mac).is_some());
    let text = mesh.text(&With::default());
    fs::write(mesh.file(), format!("[probe]\ninterval = \"10ms\"\n{text}")).expect("a file in the lab's directory");
    assert_eq!(mesh.does("reload"), ["[probe] interval 100ms -> 10ms"]);
    let paths = Paths::of(a);
    let (tx, _) = paths.path(b, 0);
    wait_for("100 probes in less than 5 s", Duration::from_secs(5), || {
        let sent = paths.path(b, 0).0.sequence.wrapping_sub(tx.sequence);
        if sent >= 100 { Ok(()) } else { Err(sent.to_string()) }
    });
    assert_eq!((paths.path(b, 0).0.nonce, paths.way(b)), (tx.nonce, Way::Direct));
    b.run("ip link set dev l2m10 down");
    fs::write(mesh.file(), format!("[underlay]\nfdb-age = \"1s\"\n{text}")).expect("a file in the lab's directory");
    assert_eq!(mesh.does("reload"), ["[underlay] fdb-age 5min -> 1s", "[probe] interval 10ms -> 100ms"]);
    wait_for("it is forgotten in less than 5 s", Duration::from_secs(5), || {
        a.mac_row(mac).map_or(Ok(()), |row| Err(row.to_string()))
    });
    assert!(agent.process().is_running());
}

/// Somebody has removed a network's devices by hand: a reload makes new ones, whatever the file says.
#[test]
fn devices_that_somebody_removed() {
    let mesh = Changing::new("removed by hand");
    let mut agent = mesh.attach(&[]);
    let [a, ..] = &mesh.hosts;
    a.run("ip link delete l2m10");
    agent.process().wait_log_line("network lan is down until `l2mesh reload`", LIMIT);
    assert_eq!(mesh.does("reload"), ["network lan: its devices, which somebody removed, made anew"]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
}

/// Where hidden ends share one program, frames do not notice either that others come and go.
#[test]
fn many_networks() {
    let mesh = Changing::new("many networks");
    let text = mesh.text(&With::default());
    let more = |count: u32| {
        (0..count)
            .fold(text.clone(), |text, nth| format!("{text}[[network]]\nname = \"n{nth}\"\nvni = {}\n", 100 + nth))
    };
    let write = |count| fs::write(mesh.file(), more(count)).expect("a file in the lab's directory");
    write(70);
    let agent = mesh.attach(&[]);
    let [a, b, _] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let flow = Flow::start(a, b, [10, 8, 0, 2], 5_000);
    for count in [74, 66, 60, 64] {
        write(count);
        let _changes = mesh.does("reload");
        flow.wait_more(500);
        let links =
            a.links().iter().filter(|link| link["ifname"].as_str().is_some_and(|it| it.starts_with("l2m"))).count();
        // With lan, its hidden end not counted, the helper device and its bridge.
        assert_eq!(links, usize::try_from(count).expect("a count") + 1 + 2, "{count} networks");
    }
    flow.stop().assert_whole();
    agent.stop();
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
