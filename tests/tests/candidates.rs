//! A pair has three places for relays: of more, the nearest.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use l2mesh_tests::{Lab, Leg, Paths, Way, Wiring, relayed, wait_for};

/// Every way takes so long, but that to the last relay.
const FAR: Duration = Duration::from_millis(5);
/// A relay has to be nearer for ten seconds, and to be measured before.
const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn the_nearest_of_four() {
    let lab = Lab::new("candidates");
    let [a, b, r1, r2, r3] = lab.routed(["a", "b", "r1", "r2", "r3"], &Wiring { delay: FAR, ..Wiring::default() });
    let near = lab.host("near");
    lab.add_uplink(&near, &Wiring::default());
    let mut text = String::from("[probe]\ninterval = \"20ms\"\nmisses = 10\n");
    let hosts = [&a, &b, &r1, &r2, &r3, &near];
    for (place, host) in hosts.iter().enumerate() {
        writeln!(text, "[[node]]\nname = \"{}\"\naddress = \"{}\"\nrelay = {}", host.name(), host.vtep(), place > 1)
            .expect("a String takes everything");
    }
    text += "[[network]]\nname = \"lan\"\nvni = 16\ninterface = \"l2m0\"\n";
    let file = lab.directory().join("mesh.toml");
    fs::write(&file, text).expect("a file in the lab's directory");
    let file = file.display().to_string();
    let _agents: Vec<_> =
        hosts.iter().enumerate().map(|(place, host)| relayed::attach(&lab, host, place, &file, "tc")).collect();
    let paths = Paths::of(&a);
    let places = || {
        let mut relays = paths.relays(&b);
        relays.sort();
        relays
    };
    paths.wait_way(&b, &Way::Direct, LIMIT);
    assert_eq!(places(), ["r1", "r2", "r3"], "in the order of the configuration until they are measured");
    wait_for("the nearest has a place", LIMIT, || {
        assert_eq!(paths.way(&b), Way::Direct, "nobody is moved");
        if places().contains(&"near".to_owned()) { Ok(()) } else { Err(format!("{:?}", places())) }
    });
    assert_eq!(places().len(), 3);
    wait_for("it works", LIMIT, || {
        let ready = paths.ready(&b);
        if ready.contains(&"near".to_owned()) { Ok(()) } else { Err(format!("{ready:?}")) }
    });
    let mut legs = lab.legs(&a, &b);
    legs.iter_mut().for_each(Leg::cut);
    wait_for("frames go through a relay", LIMIT, || match paths.way(&b) {
        Way::Via(_) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
