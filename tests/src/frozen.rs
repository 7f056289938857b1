//! Three hosts whose agents were killed, so that a test can say in their place which paths are up: nobody else changes it
//! meanwhile. And what `l2mesh` says of paths.

use std::fs;
use std::thread;

use aya::Pod;
use aya::maps::{Array, Map, MapData};
use l2mesh_common::path::{Answered, DIRECT, order};
use l2mesh_common::tables::{PathNote, PathRx, PathTx, PeerId, path_slot};
use serde_json::Value;

use crate::fabric::{Family, Wiring};
use crate::foreign::{Counter, Kind};
use crate::host::Host;
use crate::lab::Lab;
use crate::mesh::Agent;
use crate::segment::Segment;

/// A path that is probed, and up with [`ANSWERED`].
pub const UP: PathTx = PathTx {
    sequence: 100,
    limit: 13,
    recover: 10,
    hold: 0,
    relay: 0,
    order: 0,
    mtu: 0,
    search: 0,
    nonce: 1,
    peer: 0,
    reserved: 0,
};
/// The last of its probes was answered, as those before.
pub const ANSWERED: Answered = Answered { sequence: 100, streak: 10 };
/// Thirteen probes were not: it is down.
pub const LONG_AGO: Answered = Answered { sequence: 87, streak: 10 };
/// Octets of an inner packet of the shortest probe.
pub const SHORTEST: u64 = 24;

/// hetzner, enovance and ovh in one network, enovance a relay. With live agents.
#[must_use = "dropping the agents ends them"]
#[track_caller]
pub fn with_a_relay(lab: &Lab, over: Family, mode: &str) -> ([Host; 3], [Agent; 3]) {
    let hosts = lab.switch(["hetzner", "enovance", "ovh"], &Wiring::over(over));
    if mode == "xdp" {
        // What XDP_TX puts into the far end of a veth without an XDP program waits there for the next frame that comes
        // otherwise (`veth_xdp_flush` in drivers/net/veth.c).
        let (fabric, pass) = (lab.fabric(), Counter::load(&lab.fabric(), Kind::Xdp));
        hosts.iter().for_each(|host| pass.attach_xdp(&fabric, &host.uplink(0).port));
    }
    let node = |host: &Host| {
        let relay = host.name() == "enovance";
        format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\nrelay = {relay}\n", host.name(), host.vtep())
    };
    let path = mesh_file(lab, &hosts.each_ref().map(node).concat());
    let attach = |host: &Host| host.attach(&["--config", &path, "--mode", mode]);
    // At the same time, so that none misses the others.
    let agents = thread::scope(|scope| {
        let attach = &attach;
        let threads = hosts.each_ref().map(|host| scope.spawn(move || attach(host)));
        threads.map(|thread| thread.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
    });
    for (place, host) in hosts.iter().enumerate() {
        Segment::address(host, "l2m0", place);
    }
    (hosts, agents)
}

/// A file with these nodes and one network on l2m0. Returns its path.
#[must_use]
#[track_caller]
pub fn mesh_file(lab: &Lab, nodes: &str) -> String {
    let path = lab.directory().join("mesh.toml");
    let text = format!("{nodes}[[network]]\nname = \"lan\"\nvni = {}\ninterface = \"l2m0\"\n", Segment::VNI);
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}

/// [`with_a_relay`], but the agents were killed and every path is up.
#[must_use]
#[track_caller]
pub fn frozen(lab: &Lab, over: Family, mode: &str) -> [Host; 3] {
    let (hosts, agents) = with_a_relay(lab, over, mode);
    agents.into_iter().for_each(Agent::kill);
    for (host, other) in hosts.iter().flat_map(|host| hosts.iter().map(move |other| (host, other))) {
        if host.name() != other.name() {
            set_path(host, other, DIRECT, &UP, ANSWERED);
        }
    }
    let [a, relay, c] = &hosts;
    for (host, other) in [(a, c), (c, a)] {
        set_path(host, other, 1, &PathTx { relay: id(host, relay), ..UP }, ANSWERED);
        set_path(host, other, DIRECT, &PathTx { order: order(&[1]), ..UP }, ANSWERED);
    }
    hosts
}

/// Changes a value of a pinned array.
#[track_caller]
pub fn change<V: Pod>(host: &Host, name: &str, place: u32, change: impl FnOnce(&mut V)) {
    let map = MapData::from_pin(host.pinned("eth0").directory().join(name));
    let map = map.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut array = Array::<_, V>::try_from(Map::Array(map)).expect("an array of these values");
    let mut value = array.get(&place, 0).expect("a value");
    change(&mut value);
    array.set(place, value, 0).expect("written");
}

/// Under which number a host knows another.
#[must_use]
#[track_caller]
pub fn id(host: &Host, other: &Host) -> PeerId {
    let id = host.peer(other)["id"].as_u64().expect("a number");
    id.try_into().expect("a small one")
}

/// Says in the agent's place how a path is.
#[track_caller]
pub fn set_path(host: &Host, other: &Host, path: usize, tx: &PathTx, answered: Answered) {
    let slot = path_slot(id(host, other), path);
    change::<PathTx>(host, "PATH_TX", slot, |value| *value = *tx);
    change::<PathRx>(host, "PATH_RX", slot, |value| value.answered = answered.to_bits());
    change::<PathNote>(host, "PATH_NOTES", slot, |value| *value = PathNote::default());
}

/// The rows of `l2mesh maps paths` for another host.
#[must_use]
#[track_caller]
pub fn paths(host: &Host, other: &Host) -> Vec<Value> {
    let mut all = host.l2mesh(&["maps", "paths", "--json"]);
    let rows = all["paths"].as_array_mut().expect("rows");
    rows.iter_mut().filter(|row| row["peer"] == *other.name()).map(Value::take).collect()
}

/// Of each path what it is called, its state, and whether frames take it.
pub type Seen = Vec<(String, String, bool)>;

/// What `l2mesh maps paths` says of another host.
#[must_use]
#[track_caller]
pub fn seen(host: &Host, other: &Host) -> Seen {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    paths(host, other)
        .iter()
        .map(|row| (text(&row["path"]), text(&row["state"]), row["in_use"].as_bool().expect("true or false")))
        .collect()
}

/// One path of [`seen`].
#[must_use]
pub fn row(path: &str, state: &str, in_use: bool) -> (String, String, bool) {
    (path.to_owned(), state.to_owned(), in_use)
}

/// Three probes of `l2mesh ping` are answered by this path, in a time that is measured.
#[track_caller]
pub fn pinged(host: &Host, args: &[&str], path: &str, size: u64) {
    let report = host.l2mesh(&[&["ping", "--json", "--count", "3", "--interval", "10ms"], args].concat());
    let expected = (&3.into(), &3.into(), &size.into());
    assert_eq!((&report["sent"], &report["answered"], &report["size"]), expected, "{report}");
    for probe in report["probes"].as_array().expect("probes") {
        let rtt = probe["rtt_ms"].as_f64().expect("a time");
        assert!(rtt > 0.001 && rtt < 1000.0 && probe["path"] == *path, "{report}");
    }
}
