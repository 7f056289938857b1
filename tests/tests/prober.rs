//! The agent's half of paths: probes leave and are answered, the tables say so, and a path that dies is left.

use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use l2mesh_common::path::{Answered, is_up, reason::Reason};
use l2mesh_common::tables::{Change, HISTORY_SLOTS, PathNote, PathRx, PathTx, VtepAddress, path_slot};
use l2mesh_tests::{Agent, Host, Lab, Wiring, traffic, wait_for};

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
    let mut mesh = mesh(&lab, "");
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
    eprintln!("{:?}\n{}", note(a, peer, 0), mesh.agents[0].process().stderr());
    eprintln!("{}", a.l2mesh_text(&["status", "--json"]));
}
