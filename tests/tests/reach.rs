//! Who reaches whom: every host knows it of all others, as they tell each other in answers to probes.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use l2mesh_tests::{Family, Host, Lab, Leg, Plan, RelayMesh, Wiring, mesh_file, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

/// Pairs that are not direct, as a host tells them: from, to, how.
fn told(host: &Host) -> BTreeMap<(String, String), String> {
    let maps = host.l2mesh(&["maps", "reach", "--json"]);
    let rows = maps["reach"].as_array().unwrap_or_else(|| panic!("no reach: {maps}"));
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let rows = rows.iter().map(|row| ((text(&row["from"]), text(&row["to"])), text(&row["how"])));
    rows.filter(|(_, how)| how != "direct").collect()
}

/// Waits until these hosts all tell these pairs, and that all others are direct.
#[track_caller]
fn wait_all(hosts: &[Host], expected: &[(&str, &str, &str)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(from, to, how)| (((*from).to_owned(), (*to).to_owned()), (*how).to_owned())).collect();
    for host in hosts {
        wait_for(&format!("{} tells {expected:?}", host.name()), LIMIT, || {
            let told = told(host);
            if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
        });
    }
}

/// A cut between two is seen by all, and so is its end; over this IP version, in these modes.
fn everybody_knows(over: Family, modes: &[&str]) {
    let plan = Plan { wiring: Wiring::over(over), modes, probe: "interval = \"20ms\"", ..Plan::default() };
    let mesh: RelayMesh<4> = RelayMesh::up("reach", ["a", "b", "c", "r"], 1, &plan);
    wait_all(&mesh.hosts, &[]);
    let mut legs = mesh.legs(0, 1);
    legs.iter_mut().for_each(Leg::cut);
    wait_all(&mesh.hosts, &[("a", "b", "relay"), ("b", "a", "relay")]);
    // Nor to the relay, in one direction.
    let [mut leg, _] = mesh.legs(0, 3);
    leg.cut();
    let down = ["a b", "b a", "a r", "r a"].map(|pair| {
        let (from, to) = pair.split_once(' ').expect("two");
        (from, to, "down")
    });
    wait_all(&mesh.hosts[2..3], &down);
    // Who does not hear a does not know what it would say.
    let unheard = ["b", "c", "r"].map(|to| ("a", to, "unknown"));
    wait_all(&mesh.hosts[3..], &[&unheard[..], &[("b", "a", "down"), ("r", "a", "down")]].concat());
    leg.heal();
    legs.iter_mut().for_each(Leg::heal);
    wait_all(&mesh.hosts, &[]);
}

#[test]
fn everybody_knows_in_mode_tc() {
    everybody_knows(Family::V4, &["tc"]);
}

#[test]
fn everybody_knows_in_mode_xdp_over_ipv6() {
    everybody_knows(Family::V6, &["xdp", "tc"]);
}

/// Another file has other nodes: what such a host says of them is not taken for ours. With flags nobody says anything.
#[test]
fn only_of_the_same_mesh() {
    let lab = Lab::new("reach, others");
    let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
    let [a, b, c] = &hosts;
    let network = "[[network]]\nname = \"lan\"\nvni = 16\n";
    let file = mesh_file(&lab, &hosts, network);
    let other = format!("{file}.other");
    let more = "[[node]]\nname = \"aa\"\naddress = \"192.0.2.99\"\nprobes = false\n";
    fs::write(&other, fs::read_to_string(&file).expect("a file").replace(network, &format!("{more}{network}")))
        .expect("a file");
    let _agents = [a, b].map(|host| host.attach(&["--config", &file]));
    let agent = c.attach(&["--config", &other]);
    let unknown = ["a", "b"].map(|to| ("c", to, "unknown"));
    wait_all(&hosts[..2], &unknown);
    // Every second it could be told otherwise.
    thread::sleep(Duration::from_millis(2_500));
    wait_all(&hosts[..2], &unknown);
    agent.stop();
    let _agent = c.attach(&["--config", &file]);
    wait_all(&hosts, &[]);
}
