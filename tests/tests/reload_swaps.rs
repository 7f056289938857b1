//! Reloads after which a device has the name of another, or another bridge.

use std::fs;

use l2mesh_tests::changing::{Changing, With};
use l2mesh_tests::{Host, traffic};

/// A file of a with these networks instead of its own.
#[track_caller]
fn write(mesh: &Changing, networks: &str) {
    let text = mesh.text(&With { c: true, relay: true, ..With::default() });
    let (nodes, _) = text.split_once("[[network]]").expect("networks");
    fs::write(mesh.file(), format!("{nodes}{networks}")).expect("a file in the lab's directory");
}

/// A network with an interface of this name.
fn network(name: &str, vni: u32, interface: &str, more: &str) -> String {
    format!("[[network]]\nname = \"{name}\"\nvni = {vni}\ninterface = \"{interface}\"\n{more}\n")
}

fn alias(host: &Host, interface: &str) -> String {
    host.link(interface)["ifalias"].as_str().unwrap_or_default().to_owned()
}

/// Names go from one network to another, in a circle too; one that somebody else has is refused before any is changed.
#[test]
fn interfaces_take_the_names_of_others() {
    const ADDRESS: &str = "addresses = { a = \"10.8.0.1/24\" }";
    let mesh = Changing::new("names swapped");
    let [a, ..] = &mesh.hosts;
    let before = a.state();
    write(&mesh, &(network("lan", 16, "lan0", ADDRESS) + &network("dmz", 17, "lan1", "")));
    let agent = mesh.attach(&[]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0);
    let index = a.link("lan0")["ifindex"].clone();
    for (networks, names) in [
        // The VNIs change places: to the kernel, the names.
        (network("lan", 17, "lan0", "") + &network("dmz", 16, "lan1", ADDRESS), ["lan1", "lan0"]),
        (network("lan", 16, "lan0", ADDRESS) + &network("dmz", 17, "lan1", ""), ["lan0", "lan1"]),
        // That of a network that goes, and to one that comes.
        (network("lan", 16, "lan1", ADDRESS) + &network("new", 18, "lan0", ""), ["lan1", ""]),
    ] {
        write(&mesh, &networks);
        mesh.does("reload");
        for (name, vni) in names.into_iter().zip([16, 17]).filter(|(name, _)| !name.is_empty()) {
            assert_eq!(alias(a, name), format!("l2mesh:eth0:{vni}"), "{networks}");
        }
        assert_eq!(a.link(names[0])["ifindex"], index, "it is the same device");
        assert_eq!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0);
    }
    a.run("ip link add name taken type veth peer name other");
    let state = a.state();
    write(&mesh, &(network("lan", 16, "lan0", ADDRESS) + &network("new", 18, "taken", "")));
    let said = mesh.refuses("reload");
    assert!(said.contains("a device named taken exists, and this mesh did not make it"), "{said}");
    a.assert_state(&state);
    a.run("ip link delete taken");
    agent.stop();
    a.assert_state(&before);
}

/// A bridge that was made for the mesh and is wanted no more is removed, unless somebody else's machines are on it.
#[test]
fn another_bridge() {
    let mesh = Changing::new("another bridge");
    let [a, ..] = &mesh.hosts;
    let before = a.state();
    let on = |bridge: &str| {
        write(
            &mesh,
            &network("lan", 16, "l2m10", &format!("bridge = \"{bridge}\"\naddresses = {{ a = \"10.8.0.1/24\" }}")),
        );
    };
    on("br0");
    let agent = mesh.attach(&[]);
    on("br1");
    assert_eq!(mesh.does("reload"), ["network lan: bridge br0 -> br1"]);
    assert_eq!(a.try_link("br0"), None);
    a.run("ip link add name guest0 master br1 type veth peer name guest1");
    on("br2");
    assert_eq!(mesh.does("reload"), ["network lan: bridge br1 -> br2"]);
    assert_eq!(a.link("guest0")["master"], "br1");
    assert_eq!(a.link("l2m10")["master"], "br2");
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0, "its address has gone along");
    a.run("ip link delete guest0");
    agent.stop();
    a.assert_state(&before);
}
