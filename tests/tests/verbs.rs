//! `l2mesh peer`, `network` and `mac`: one thing changed while the mesh runs, and written into the file where that is wanted.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use l2mesh_tests::changing::{Changing, With};
use l2mesh_tests::traffic;

const UNSAVED: &str = "until the next reload or restart";

#[test]
fn until_the_next_reload() {
    let mesh = Changing::new("verbs");
    let agent = mesh.attach(&[]);
    let [a, _, c] = &mesh.hosts;
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let (before, text, c_address) = (a.state(), fs::read_to_string(mesh.file()).expect("the file"), c.address());

    let said = mesh.does(&format!("peer add c --address {c_address} --relay"));
    assert_eq!(said, [&*format!("node c added ({c_address})"), UNSAVED]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 3], 2).lost(), 0);
    let said = mesh.does("network add dmz --vni 17 --member a --member b --address 10.9.0.1/24");
    assert_eq!(said, ["network dmz added (VNI 17 (0x11))", UNSAVED]);
    assert_eq!(traffic::ping(a, [10, 9, 0, 2], 2).lost(), 0);
    let said = mesh.does("mac add 52:54:00:00:00:09 --vni 0x11 --peer b");
    assert_eq!(said[1], UNSAVED, "{said:?}");
    let mac = a.mac_row("52:54:00:00:00:09".parse().expect("a MAC address")).expect("an entry");
    assert_eq!((&mac["peer"], &mac["is_static"]), (&"b".into(), &true.into()), "{mac}");

    // Learned ones are forgotten, others stay.
    let learned = mesh.hosts[1].mac("l2m10");
    assert!(a.mac_row(learned).is_some());
    assert_eq!(mesh.does("mac flush --vni 17 --peer c"), ["nothing changed"]);
    assert_eq!(mesh.does(&format!("mac flush --vni 16 --peer b --mac {learned}")), ["1 MAC address forgotten"]);
    assert_eq!(a.mac_row(learned), None);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let _some = mesh.does("mac flush");
    assert!(a.mac_row("52:54:00:00:00:09".parse().expect("a MAC address")).is_some(), "static ones stay");

    for (line, says) in [
        ("peer add c --address 192.0.2.99", "\"c\" is also the name"),
        ("peer add d --address 300.0.0.1", "300.0.0.1"),
        ("peer del x", "no node is called \"x\": see `l2mesh maps peers`"),
        ("peer del a", "this host is node \"a\", which"),
        ("network add lan --vni 20", "\"lan\" is also the name of the network"),
        ("network add x --vni 20 --member y", "\"y\""),
        ("network del x", "no network is called \"x\": see `l2mesh maps networks`"),
        ("mac add 52:54:00:00:00:0a --vni 17", "behind which node is 52:54:00:00:00:0a? Say so with --peer"),
        ("mac add 52:54:00:00:00:0a --vni 18 --peer b", "no network has VNI 18 (0x12): see `l2mesh maps networks`"),
        ("mac add 52:54:00:00:00:0a --vni 17 --peer c", "\"c\" is no member"),
        ("mac del 52:54:00:00:00:0a --vni 17", "has no static entry for 52:54:00:00:00:0a"),
        ("mac flush --peer x", "no node is called \"x\""),
        ("mac flush --vni 99", "no network here has VNI 99"),
    ] {
        let tables = mesh.tables();
        let said = mesh.refuses(line);
        assert!(said.contains(says), "{line}: {said}");
        assert_eq!(mesh.tables(), tables, "{line}");
    }

    // What is said of c elsewhere goes with it.
    assert_eq!(mesh.does("mac add 52:54:00:00:00:0b --vni 16 --peer c").len(), 2);
    let said = mesh.does("peer del c");
    assert_eq!(said[0], "node c removed");
    assert_eq!(mesh.does("network del dmz")[0], "network dmz removed (VNI 17 (0x11))");
    a.assert_state(&before);
    assert_eq!(fs::read_to_string(mesh.file()).expect("the file"), text, "nobody wanted it saved");
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
    assert_eq!(mesh.does("network add dmz --vni 17").len(), 2);
    assert_eq!(mesh.does("reload"), ["network dmz removed (VNI 17 (0x11))"]);
    agent.stop();
}

/// The file is as it was, but for what was changed.
#[test]
fn saved() {
    let mesh = Changing::new("saved");
    // Behind a link, owned by somebody, with a mode: all of that stays.
    let (link, file) = (mesh.file(), mesh.lab.directory().join("real.toml"));
    let text = mesh.text(&With::default()) + "# The end.\n";
    fs::write(&file, &text).expect("a file in the lab's directory");
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("a mode");
    chown(&file, Some(65534), Some(65533)).expect("an owner");
    fs::remove_file(&link).expect("it is there");
    symlink(&file, &link).expect("a link");
    let agent = mesh.attach(&[]);
    let [a, _, c] = &mesh.hosts;
    let saved = format!("saved to {}", file.display());
    let read = || fs::read_to_string(&file).expect("the file");

    let c_address = c.address();
    let said = mesh.does(&format!("peer add c --address {c_address} --relay --save"));
    assert_eq!(said, [&*format!("node c added ({c_address})"), &saved]);
    let node = format!("\n[[node]]\nname = \"c\"\naddress = \"{c_address}\"\nrelay = true\n");
    assert_eq!(read(), text.replacen("[[network]]", &format!("{}[[network]]", &node[1..]), 1));
    let said = mesh.does("network add dmz --vni 17 --address 10.9.0.1/24 --address b=10.9.0.2/24");
    assert_eq!(said[1], UNSAVED);
    assert!(!read().contains("dmz"));
    let said = mesh.does("mac add 52:54:00:00:00:09 --vni 17 --peer b --save");
    assert_eq!(said[1], format!("{saved}, with what was changed before"));
    let now = read();
    for line in text.lines() {
        assert!(now.lines().any(|it| it == line), "{line:?} is missing: {now}");
    }
    assert!(now.contains("# this host") && now.contains("52:54:00:00:00:09"), "{now}");
    assert_eq!(mesh.does("reload"), ["nothing changed"], "the file says what is in force");
    assert_eq!(mesh.does("network del dmz --save").last(), Some(&saved));
    assert_eq!(mesh.does("peer del c --save").last(), Some(&saved));
    assert_eq!(read(), text, "there and back again");
    let metadata = fs::metadata(&file).expect("the file");
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o640, 65534, 65533));
    assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());

    // Somebody else has written to it: that is not lost.
    fs::write(&file, text.clone() + "# Another one.\n").expect("a file in the lab's directory");
    let before = mesh.tables();
    let said = mesh.refuses("network add dmz --vni 17 --save");
    assert!(said.contains("has been changed since it was read: `l2mesh reload` takes that up"), "{said}");
    assert_eq!(mesh.tables(), before, "neither in force nor saved");
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
    assert_eq!(mesh.does("network add dmz --vni 17 --save").last(), Some(&saved));
    assert!(read().contains("# Another one.\n"));
    // What is refused is not saved.
    let now = read();
    assert_eq!(mesh.tries("network add dmz --vni 17 --save").code, Some(1));
    assert_eq!(read(), now);
    assert_eq!(
        fs::read_dir(mesh.lab.directory())
            .expect("a directory")
            .flatten()
            .filter(|it| {
                it.file_name().to_string_lossy().contains("l2mesh-")
                    && it.file_name().to_string_lossy().starts_with('.')
            })
            .count(),
        0,
        "nothing is left beside it"
    );
    agent.stop();
    let _agent = mesh.attach(&[]);
    assert!(a.try_link("l2m11").is_some(), "after a restart it is there");
}

/// A list written in one line, or as a list of tables in braces, stays what it is.
#[test]
fn other_ways_to_write_it() {
    let mesh = Changing::new("other ways");
    let [a, b, c] = mesh.hosts.each_ref().map(l2mesh_tests::Host::address);
    let text = format!(
        "node = [ {{ name = \"a\", address = \"{a}\" }}, # here\n         {{ name = \"b\", address = \"{b}\" }} ]\n\
         [[network]]\nname = \"lan\"\nvni = \"0x10\"\nmembers = [\"a\", \"b\"] # not all\n\
         addresses.a = \"10.8.0.1/24\"\n"
    );
    fs::write(mesh.file(), &text).expect("a file in the lab's directory");
    let _agent = mesh.attach(&[]);
    let host = &mesh.hosts[0];
    let said = mesh.does(&format!("peer add c --address {c} --network lan --save"));
    assert_eq!(said[0], format!("node c added ({c})"));
    let now = fs::read_to_string(mesh.file()).expect("the file");
    let node = format!("         {{ name = \"c\", address = \"{c}\" }} ]");
    assert!(now.contains("# here\n") && now.contains(&node), "{now}");
    assert!(now.contains("members = [\"a\", \"b\", \"c\"] # not all\n"), "{now}");
    assert_eq!(traffic::ping(host, [10, 8, 0, 3], 2).lost(), 0);
    assert_eq!(mesh.does("mac add 52:54:00:00:00:09 --vni 16 --peer c --save").len(), 2);
    assert_eq!(mesh.does("peer del c --save").len(), 3);
    assert_eq!(fs::read_to_string(mesh.file()).expect("the file"), text);
}

/// Without a file there is a text all the same.
#[test]
fn attached_by_flags() {
    let mesh = Changing::new("by flags");
    let [a, b, c] = &mesh.hosts;
    let [peer, other] = [b, c].map(|host| host.address().to_string());
    // Nodes are called by their addresses here, and the others call this one "a": probes are answered all the same, as to
    // plain devices.
    let _agent = a.attach(&["--vni", "16", "--plain-peer", &peer, "--address", "10.8.0.1/24", "--storm-limit", "777"]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
    let said = mesh.does(&format!("peer add {other} --address {other} --plain"));
    assert_eq!(said, [&*format!("node {other} added ({other})"), UNSAVED]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 3], 2).lost(), 0);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    let said = mesh.refuses("network add dmz --vni 17 --save");
    assert!(said.contains("there is no file to save into"), "{said}");
    assert_eq!(mesh.does("network add dmz --vni 17")[0], "network dmz added (VNI 17 (0x11))");
    let said = mesh.refuses(&format!("peer del {}", a.address()));
    assert!(said.contains("is this host"), "{said}");
    assert_eq!(mesh.does("reload").len(), 2, "back to what the flags say");
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
}
