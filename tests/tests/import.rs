//! What `l2mesh import` makes of what exists today: the kernel's vxlan devices of a host, and its files.

use l2mesh_tests::import::{assert_lines, check, import, write};
use l2mesh_tests::mesh::{binary, sentence};
use l2mesh_tests::{Lab, VxlanOptions, Wiring, traffic};
use serde_json::Value;

/// The values of a key in a list of objects.
fn each(list: &Value, key: &str) -> Vec<String> {
    let values = list.as_array().into_iter().flatten().map(|object| &object[key]);
    values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect()
}

/// Every kind of device at once, read without any privilege.
#[test]
fn several_devices() {
    let lab = Lab::new("import");
    let [a, b] = lab.switch(["a", "b"], &Wiring { ipv6: true, ..Wiring::default() });
    let (own, own6) = (a.address(), a.address6());
    let other = b.address();
    for line in [
        // The underlay's address is not said: it follows from the route.
        format!("ip link add vxlan16 type vxlan id 16 remote {other} dev eth0 dstport 8472"),
        "bridge fdb append 00:00:00:00:00:00 dst 10.99.0.9 dev vxlan16".to_owned(),
        "bridge fdb add 52:54:00:00:00:01 dst 10.99.0.9 dev vxlan16".to_owned(),
        format!("bridge fdb add 52:54:00:00:00:02 dst {other} dev vxlan16 static"),
        format!("bridge fdb add 52:54:00:00:00:03 dst {other} port 4790 dev vxlan16"),
        format!("bridge fdb add 52:54:00:00:00:04 dst {other} via eth0 dev vxlan16 extern_learn"),
        "bridge fdb add 52:54:00:00:00:05 dst 10.99.0.10 dev vxlan16 dynamic".to_owned(),
        "ip address add 10.8.0.1/24 dev vxlan16".to_owned(),
        "ip address add fd08::1/64 dev vxlan16 nodad".to_owned(),
        "ip address add 10.8.0.9/24 dev vxlan16 valid_lft 600 preferred_lft 600".to_owned(),
        "ip link set vxlan16 up".to_owned(),
        "ip route add 10.77.0.0/16 via 10.8.0.2".to_owned(),
        // uncloud's names: hexadecimal, a port of a bridge.
        "ip link add brff01 type bridge stp_state 1".to_owned(),
        "ip address add 10.9.0.1/24 dev brff01".to_owned(),
        format!(
            "ip -6 link add vxlanff01 mtu 1400 type vxlan id 0xff01 local {own6} remote {} dstport 8472 ttl 5",
            b.address6()
        ),
        "ip link set vxlanff01 master brff01".to_owned(),
        "ip link set vxlanff01 type bridge_slave isolated on".to_owned(),
        "ip link add external0 type vxlan external dstport 4790".to_owned(),
    ] {
        a.run(&line);
    }
    let before = a.state();
    // Root without capabilities: it may read what anybody may.
    let program = binary().display().to_string();
    let output = a.exec("setpriv", &["--inh-caps=-all", "--bounding-set=-all", &program, "import"]);
    a.assert_state(&before);
    let text = output.stdout;
    let found = check(&lab, &a, &text);
    let other6 = b.address6().to_string();
    let nodes = [&own.to_string(), &other.to_string(), "10.99.0.9", "10.99.0.10", &other6];
    assert_eq!(each(&found["nodes"], "address"), nodes);
    assert_eq!(each(&found["nodes"], "kind"), ["l2mesh", "vxlan", "vxlan", "vxlan", "vxlan"]);
    let networks = &found["networks"];
    assert_eq!(each(networks, "interface"), ["vxlan16", "vxlanff01"]);
    assert_eq!(each(networks, "vni"), ["16", "65281"]);
    assert_eq!(each(networks, "mtu"), ["null", "1400"]);
    assert_eq!(networks[0]["members"].as_array().map(Vec::len), Some(4));
    assert_eq!(each(&networks[1], "members"), Vec::<String>::new());
    assert_eq!(networks[1]["members"], serde_json::json!([own.to_string(), other6]));
    assert_lines(
        &text,
        &[
            &format!("from = {{ \"{other6}\" = \"{own6}\" }}"),
            &format!("addresses = {{ \"{own}\" = [\"10.8.0.1/24\", \"fd08::1/64\"] }}"),
            "vni = 65281    # 0xff01",
            "bridge = \"brff01\"",
            "link-local = true",
            "udp-checksum = true",
            "# Not imported: external0 is `external`: routes, tc or a bridge's VLAN tunnels pick VNI and remote of each \
             frame, which no configuration of l2mesh says.",
            "mac = \"52:54:00:00:00:01\"",
            "node = \"10.99.0.9\"",
            "mac = \"52:54:00:00:00:02\"",
            &format!("# 52:54:00:00:00:03 at {other}: left out: it listens on UDP port 4790, and a mesh has one port."),
            "# 1 forwarding entry from a routing daemon (extern_learn): left out: l2mesh learns from frames.",
            "# 10.99.0.10: frames came from there or have an entry, but it is not flooded to: l2mesh takes frames from members \
             only, and floods to all of them.",
            "# 10.8.0.9/24 is a lease (DHCP) or from a router advertisement: left out, it comes again.",
            "# routes go with vxlan16: add them to the new interface: 10.77.0.0/16 via 10.8.0.2",
            "# bridge port: isolated on: set that on the new port (`bridge link set`).",
            "# brff01 keeps its addresses (10.9.0.1/24): they are not l2mesh's.",
            "# link-local: brff01 speaks STP, or forwards 01:80:c2:00:00:0x.",
            "# ttl 5: l2mesh sends with 64.",
        ],
    );
    assert!(!text.contains("fe80::") && !text.contains("52:54:00:00:00:04"), "{text}");

    // One of them, by an alternative name too.
    a.run("ip link property add dev vxlanff01 altname the-overlay-of-uncloud");
    let text = import(&a, &["the-overlay-of-uncloud", "--local", "2001:db8::1"]);
    let found = check(&lab, &a, &text);
    assert_eq!(each(&found["nodes"], "address"), ["2001:db8::1", &other6]);
}

/// A host from which frames came is a member, although nobody floods to it.
#[test]
fn learned_remotes_are_members() {
    let lab = Lab::new("learned");
    let [a, b, c] = lab.switch(["a", "b", "c"], &Wiring::default());
    let options = VxlanOptions { name: "vx0".to_owned(), port: 8472, ..VxlanOptions::default() };
    a.kernel_vxlan(a.address(), &[b.address().into()], &options);
    a.add_address("vx0", "10.8.0.1/24");
    c.kernel_vxlan(c.address(), &[a.address().into()], &options);
    c.add_address("vx0", "10.8.0.3/24");
    assert_eq!(traffic::ping(&c, [10, 8, 0, 1], 3).lost(), 0);
    let text = import(&a, &[]);
    let found = check(&lab, &a, &text);
    let [a, b, c] = [a, b, c].map(|host| host.address().to_string());
    assert_eq!(each(&found["nodes"], "name"), [&a, &b, &c].map(String::as_str));
    let note = format!(
        "# {c}: frames came from there or have an entry, but it is not flooded to: l2mesh takes frames from members only, \
         and floods to all of them."
    );
    assert_lines(&text, &[&note]);
}

/// The MTU is written where it is another than the default and can be right.
#[test]
fn mtu_of_the_underlay() {
    let lab = Lab::new("jumbo");
    let [a, b] = lab.pair(["a", "b"], &Wiring { mtu: 9000, ..Wiring::default() });
    let peer = b.address();
    for (line, expected) in [
        // With `dev` the kernel takes 50 off what is below.
        (format!("type vxlan id 16 remote {peer} dev eth0 dstport 8472"), "8950"),
        // Without, it has 1500, and here that fits.
        (format!("type vxlan id 16 remote {peer} dstport 8472"), "1500"),
        (format!("mtu 1450 type vxlan id 16 remote {peer} dstport 8472"), "null"),
        (format!("mtu 9000 type vxlan id 16 remote {peer} dstport 8472"), "null"),
    ] {
        a.run(&format!("ip link add vx0 {line}"));
        let text = import(&a, &["vx0"]);
        assert_eq!(each(&check(&lab, &a, &text)["networks"], "mtu"), [expected], "{line}");
        let too_large =
            text.contains("# mtu: vx0 has 9000, which with 50 octets of headers does not fit into the 9000");
        assert_eq!(too_large, line.starts_with("mtu 9000"), "{text}");
        a.run("ip link delete vx0");
    }
}

#[test]
fn refused() {
    let lab = Lab::new("refused");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let peer = b.address().to_string();
    let refuses = |args: &[&str]| {
        let before = a.state();
        let sentence = a.l2mesh_refuses(&[&["import"], args].concat());
        a.assert_state(&before);
        sentence
    };
    assert!(refuses(&[]).starts_with("no vxlan device is in this network namespace"));
    let agent = a.attach(&["--vni", "16", "--peer", &peer]);
    assert!(refuses(&[]).starts_with("no vxlan device is in this network namespace"), "l2mesh's own is none");
    let helper = a
        .links()
        .into_iter()
        .find_map(|link| link["ifname"].as_str().filter(|it| it.starts_with("l2mk")).map(str::to_owned));
    let helper = helper.expect("the helper");
    assert_eq!(refuses(&[&helper]), format!("{helper} belongs to l2mesh: that needs no import"));
    agent.stop();

    a.run(&format!("ip link add vx0 type vxlan id 16 remote {peer} dstport 8472"));
    a.run(&format!("ip link add vx1 type vxlan id 17 remote {peer} dstport 4789"));
    a.run("ip link add vx2 type vxlan id 18 group 239.1.1.1 dev eth0 dstport 8472");
    a.run("ip link add vx3 type vxlan id 19 dstport 8472");
    // The kernel keeps the families apart.
    a.run("ip link add vx4 type vxlan id 16 local 2001:db8::1 remote 2001:db8::2 dstport 8472");
    let own = a.address();
    for (args, expected) in [
        (&["vx9"][..], "vx9: no such device in this network namespace; its vxlan devices are: vx0, vx1, vx2, vx3, vx4".to_owned()),
        (&["eth0"], "eth0 is of the kind veth, not a vxlan device (see `ip -d link show dev eth0`)".to_owned()),
        (&["lo"], "lo is no virtual device, not a vxlan device (see `ip -d link show dev lo`)".to_owned()),
        (&["vx0", "vx0"], "vx0 is named twice".to_owned()),
        (
            &["vx0", "vx1"],
            format!(
                "these are 2 meshes, for a mesh has one UDP port and this host one address in it: \
                 vx0 (UDP port 8472, from {own}); vx1 (UDP port 4789, from {own}): name the devices of one of them; the \
                 others can stay kernel devices beside it"
            ),
        ),
        (&["vx0", "vx4"], "vx0 and vx4 both have VNI 16, and a mesh has each network once: name only one of them".to_owned()),
        (
            &["vx2"],
            "vx2 floods to the multicast group 239.1.1.1 and nobody has been heard yet: l2mesh sends unicast, so name the \
             other hosts with --peer"
                .to_owned(),
        ),
        (
            &["vx3"],
            "vx3 has no remote: name the other hosts with --peer, or add them by `bridge fdb append`".to_owned(),
        ),
        (
            &["vx0", "--peer", "2001:db8::5"],
            "--peer 2001:db8::5: it is this host, or no device sends over that version of IP".to_owned(),
        ),
        (&["--netplan", "/no/such.yaml"], "/no/such.yaml: cannot be read: No such file or directory (os error 2)".to_owned()),
        (&["--tinc", "/no/such"], "/no/such/tinc.conf: cannot be read: No such file or directory (os error 2)".to_owned()),
    ] {
        assert_eq!(refuses(args), expected, "{args:?}");
    }
    check(&lab, &a, &import(&a, &["vx2", "--peer", &peer]));
    check(&lab, &a, &import(&a, &["vx3", "--peer", &peer, "--local", "192.0.2.77"]));

    // Its socket stays where it was made.
    a.move_interface("vx0", &b);
    let output = b.try_l2mesh(&["import", "vx0"]);
    assert!(sentence(&output).starts_with("vx0 sends from another network namespace than this one"), "{output:?}");
}

/// The alternative of the recipe, and the tinc network that l2mesh once was.
#[test]
fn files() {
    let lab = Lab::new("files");
    let host = lab.host("bastion");
    let netplan = "network:\n  tunnels:\n    provider0:\n      mode: vxlan\n      id: 16\n      local: 192.168.226.4\n      \
                   addresses: [ 192.168.234.1/23 ]\n  version: 2\n";
    let path = write(&lab, "netplan.yaml", netplan);
    let text = import(&host, &["--netplan", &path, "--peer", "192.168.226.5", "--peer", "192.168.226.6"]);
    let found = check(&lab, &host, &text);
    assert_eq!(each(&found["nodes"], "address"), ["192.168.226.4", "192.168.226.5", "192.168.226.6"]);
    assert_lines(&text, &["port = 8472", "addresses = { \"192.168.226.4\" = \"192.168.234.1/23\" }"]);

    write(&lab, "tinc/L2M/tinc.conf", "Name = hetzner\nMode = switch\nConnectTo = ovh\n");
    write(&lab, "tinc/L2M/tinc-up", "#!/bin/sh\nip addr add 10.8.0.1/24 dev $INTERFACE\nip link set $INTERFACE up\n");
    for (name, address) in [("hetzner", "203.0.113.10"), ("enovance", "198.51.100.10"), ("ovh", "192.0.2.10 655")] {
        write(&lab, &format!("tinc/L2M/hosts/{name}"), &format!("Address = {address}\nSubnet = 10.8.0.0/24\n"));
    }
    let directory = lab.directory().join("tinc/L2M").display().to_string();
    let text = import(&host, &["--tinc", &directory]);
    let found = check(&lab, &host, &text);
    assert_eq!(each(&found["nodes"], "name"), ["enovance", "hetzner", "ovh"]);
    assert_eq!(each(&found["nodes"], "kind"), ["l2mesh"; 3]);
    assert_eq!(each(&found["networks"], "interface"), ["L2M"]);
    assert_lines(&text, &["addresses = { hetzner = \"10.8.0.1/24\" }", "address = \"203.0.113.10\"    # this host"]);

    write(&lab, "tinc/L2M/tinc.conf", "Name = hetzner\n");
    let sentence = host.l2mesh_refuses(&["import", "--tinc", &directory]);
    assert!(sentence.contains("/L2M/tinc.conf: Mode is router, tinc's default: "), "{sentence}");
}
