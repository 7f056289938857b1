//! The agent's half of paths: probes leave and are answered, the tables say so, and a path that dies is left.

use std::thread;
use std::time::{Duration, Instant};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use l2mesh_common::path::{Answered, is_up, reason::Reason};
use l2mesh_common::tables::{Change, HISTORY_SLOTS, PathNote, PathRx, PathTx, VtepAddress, path_slot};
use l2mesh_tests::{Agent, Host, Lab, Wiring, traffic, wait_for};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(5);

/// A pinned array.
fn table<T: Pod>(host: &Host, name: &str) -> Array<MapData, T> {
    let pin = host.pinned("eth0").directory().join(name);
    let map = MapData::from_pin(&pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    Array::try_from(Map::Array(map)).expect("an array")
}

fn tx(host: &Host, peer: u32, path: usize) -> PathTx {
    table(host, "PATH_TX").get(&path_slot(peer, path), 0).expect("a path")
}

fn rx(host: &Host, peer: u32, path: usize) -> PathRx {
    table(host, "PATH_RX").get(&path_slot(peer, path), 0).expect("a path")
}

fn note(host: &Host, peer: u32, path: usize) -> PathNote {
    table(host, "PATH_NOTES").get(&path_slot(peer, path), 0).expect("a path")
}

fn is_path_up(host: &Host, peer: u32, path: usize) -> bool {
    is_up(&tx(host, peer, path), Answered::from_bits(rx(host, peer, path).answered))
}

/// Newest first.
fn history(host: &Host) -> Vec<Change> {
    let table: Array<_, Change> = table(host, "HISTORY");
    let mut changes: Vec<Change> = (0..HISTORY_SLOTS).map(|place| table.get(&place, 0).expect("a place")).collect();
    changes.retain(|change| change.at_ns != 0);
    changes.sort_by_key(|change| std::cmp::Reverse(change.at_ns));
    changes
}

/// The id of a peer.
fn id(host: &Host, other: &Host) -> u32 {
    let pin = host.pinned("eth0").directory().join("VTEPS");
    let map = MapData::from_pin(&pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    let map = HashMap::<_, VtepAddress, u32>::try_from(Map::HashMap(map)).expect("a hash of addresses");
    map.get(&VtepAddress::from(other.vtep()), 0).expect("a peer")
}

#[derive(Debug)]
struct Mesh {
    hosts: [Host; 3],
    agents: Vec<Agent>,
    file: String,
}

/// Hosts a, b and relay in network 16, as 10.8.0.1, 10.8.0.2 and 10.8.0.3.
fn mesh(lab: &Lab, probe: &str) -> Mesh {
    let hosts = lab.switch(["a", "b", "relay"], &Wiring::default());
    let mut text = format!("[probe]\n{probe}\n");
    for host in &hosts {
        let (name, address) = (host.name(), host.vtep());
        let relay = name == "relay";
        text += &format!("[[node]]\nname = \"{name}\"\naddress = \"{address}\"\nrelay = {relay}\n");
    }
    text += "[[network]]\nname = \"lan\"\nvni = 16\naddresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\", relay = \"10.8.0.3/24\" }\n";
    let file = lab.directory().join("mesh.toml");
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    let agents = hosts.iter().map(|host| host.attach(&["--config", &file])).collect();
    Mesh { hosts, agents, file }
}

#[track_caller]
fn wait_paths_up(host: &Host, peer: u32) {
    wait_for("both paths are up", SOON, || {
        let seen: Vec<_> = [0, 1].map(|path| (tx(host, peer, path), rx(host, peer, path))).into();
        let up = [0, 1].iter().all(|&path| is_path_up(host, peer, path));
        let measured = (0..2).all(|path| note(host, peer, path).rtt_median_ns != 0);
        if up && measured { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn a_path_that_dies_is_left_and_returned_to() {
    let lab = Lab::new("prober");
    let mesh = mesh(&lab, "");
    let [a, b, _relay] = mesh.hosts.clone();
    let (a, b) = (&a, &b);
    let peer = id(a, b);
    wait_paths_up(a, peer);
    wait_paths_up(b, id(b, a));
    assert_eq!(tx(a, peer, 0).limit, 4, "misses and one that is on its way");
    assert_eq!(tx(a, peer, 0).order, 1);
    // Who comes first sees the others come.
    let before = history(a).len();
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 3).lost(), 0);

    lab.cut(a, b);
    wait_for("a's frames go through the relay", SOON, || {
        let seen = format!("{:?} {:?}", tx(a, peer, 0), rx(a, peer, 0));
        if history(a).len() > before { Ok(()) } else { Err(seen) }
    });
    let change = history(a)[0];
    assert_eq!((change.peer, change.before, change.now, change.is_up), (peer, 0, 1, 1));
    assert_eq!(Reason::from_number(change.reason.into()), Reason::Missed);
    assert!(note(a, peer, 1).has(PathNote::IN_USE | PathNote::UP) && !note(a, peer, 0).has(PathNote::UP));
    wait_for("b follows", SOON, || {
        let lost = traffic::ping(a, [10, 8, 0, 2], 3).lost();
        if lost == 0 { Ok(()) } else { Err(lost.to_string()) }
    });

    lab.heal(a, b);
    wait_for("they return", SOON, || {
        let changes = history(a);
        if changes.len() == before + 2 {
            Ok(())
        } else {
            Err(format!(
                "{:?} {:?} {} {}",
                tx(a, peer, 0),
                rx(a, peer, 0),
                a.run("ip neigh").stdout,
                a.l2mesh_text(&["maps", "counters"])
            ))
        }
    });
    let change = history(a)[0];
    assert_eq!((change.before, change.now, change.reason), (1, 0, Reason::Answered as u8));
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 3).lost(), 0);
    assert_eq!(history(a).len(), before + 2);
}

/// A link on the way takes less than both ends believe, and says nothing.
#[test]
fn a_black_hole_for_long_packets() {
    let lab = Lab::new("black hole");
    let mesh = mesh(&lab, "interval = \"20ms\"\nrelay-interval = \"500ms\"");
    let [a, b, relay] = mesh.hosts.clone();
    let (a, b) = (&a, &b);
    wait_paths_up(a, id(a, b));
    wait_paths_up(b, id(b, a));
    // A link takes four octets more, for a VLAN tag (`is_skb_forwardable` in net/core/dev.c).
    lab.fabric().run(&format!("ip link set dev {} mtu 1400", b.uplink(0).port));
    for (host, peer) in [(a, id(a, b)), (b, id(b, a))] {
        for path in [0, 1] {
            wait_for("what arrives is found out", 3 * SOON, || {
                let found = tx(host, peer, path);
                if found.mtu == 1354 && found.hold == 0 {
                    Ok(())
                } else {
                    Err(format!(
                        "{} {path}: {found:?} {:?} {:?}",
                        host.name(),
                        rx(host, peer, path),
                        note(host, peer, path)
                    ))
                }
            });
        }
    }
    assert_eq!(tx(a, id(a, &relay), 0).mtu, 0, "nothing is wrong with the relay");
    wait_for("the path is up again", SOON, || {
        let change = history(a)[0];
        if change.is_up == 1 && change.now == 0 { Ok(()) } else { Err(format!("{change:?}")) }
    });
    // What the kernel itself is told by then: 1354 octets and not more.
    wait_for("the greatest that fits", SOON, || {
        let sent = a.try_exec("ping", &["-c1", "-W1", "-Mdo", "-s1326", "10.8.0.2"]);
        if sent.success() { Ok(()) } else { Err(format!("{sent:?}")) }
    });
    let too_long = a.try_exec("ping", &["-c1", "-W1", "-Mdo", "-s1327", "10.8.0.2"]);
    let said = format!("{}{}", too_long.stdout, too_long.stderr);
    assert!(!too_long.success() && said.contains("mtu") && said.contains("1354"), "{said}");
}

/// A signal takes its time to stop every thread.
#[track_caller]
fn wait_stopped(pid: u32) {
    wait_for("every thread stands still", SOON, || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let stats: Vec<String> = tasks
            .map(|task| std::fs::read_to_string(task.expect("a thread").path().join("stat")).expect("its state"))
            .collect();
        if stats.iter().all(|stat| stat.contains(") T ")) { Ok(()) } else { Err(stats.join("")) }
    });
}

/// No agent, no probes: nothing changes state because of that, and none is caught up.
#[test]
fn an_agent_that_is_stopped_for_a_while() {
    let lab = Lab::new("stopped");
    let mut mesh = mesh(&lab, "");
    let [a, b, _relay] = mesh.hosts.clone();
    let (a, b) = (&a, &b);
    let peer = id(a, b);
    wait_paths_up(a, peer);
    let before = (history(a), history(b));
    mesh.agents[0].process().signal(Signal::SIGSTOP);
    wait_stopped(mesh.agents[0].process().pid());
    let stopped = Instant::now();
    let sequence = tx(a, peer, 0).sequence;
    while stopped.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(50));
        assert!(is_path_up(a, peer, 0), "{:?} {:?}", tx(a, peer, 0), rx(a, peer, 0));
    }
    assert_eq!(tx(a, peer, 0).sequence, sequence);
    mesh.agents[0].process().signal(Signal::SIGCONT);
    let continued = Instant::now();
    while continued.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(5));
        // Each probe is counted before it is sent: the second may be about to be.
        let sent = tx(a, peer, 0).sequence - sequence;
        let most = u32::try_from(continued.elapsed().as_millis() / 100).expect("few") + 2;
        assert!(sent <= most, "{sent} probes after {:?}", continued.elapsed());
        assert!(is_path_up(a, peer, 0), "{:?} {:?}", tx(a, peer, 0), rx(a, peer, 0));
    }
    assert!(tx(a, peer, 0).sequence - sequence > 10, "it goes on");
    assert_eq!((history(a), history(b)), before);
}

/// Its successor finds the paths as they are, and leaves them so.
#[test]
fn an_agent_that_dies_in_the_middle_of_a_failover() {
    let lab = Lab::new("dies");
    let mut mesh = mesh(&lab, "");
    let [a, b, relay] = mesh.hosts.clone();
    let (a, b) = (&a, &b);
    let peer = id(a, b);
    wait_paths_up(a, peer);
    wait_paths_up(b, id(b, a));
    lab.cut(a, b);
    wait_for("a's frames go through the relay", SOON, || {
        let changes = history(a);
        if changes.first().is_some_and(|change| change.now == 1) { Ok(()) } else { Err(format!("{changes:?}")) }
    });
    let before = (history(a), [0, 1].map(|path| (note(a, peer, path).since_ns, note(a, peer, path).reason)));
    mesh.agents.remove(0).kill();
    let killed = [0, 1].map(|path| (tx(a, peer, path), rx(a, peer, path)));
    wait_for("frames go on", SOON, || match traffic::ping(a, [10, 8, 0, 2], 3).lost() {
        0 => Ok(()),
        lost => Err(lost.to_string()),
    });
    mesh.agents.insert(0, a.attach(&["--config", &mesh.file]));
    assert_eq!((id(a, b), tx(a, peer, 1).relay), (peer, id(a, &relay)));
    let kept = |tx: &PathTx| (tx.nonce, tx.order, tx.relay);
    for (path, (tx_before, rx_before)) in killed.iter().enumerate() {
        assert_eq!(kept(&tx(a, peer, path)), kept(tx_before));
        assert!(tx(a, peer, path).sequence >= tx_before.sequence && rx(a, peer, path).answers >= rx_before.answers);
    }
    thread::sleep(Duration::from_secs(1));
    assert_eq!((history(a), [0, 1].map(|path| (note(a, peer, path).since_ns, note(a, peer, path).reason))), before);
    assert!(!is_path_up(a, peer, 0) && is_path_up(a, peer, 1));
    lab.heal(a, b);
    wait_for("they return", SOON, || {
        let change = history(a)[0];
        if change.now == 0 { Ok(()) } else { Err(format!("{change:?}")) }
    });
}
