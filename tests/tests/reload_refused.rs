//! A configuration that cannot be had: nothing changes, and it is said why. And one that becomes another without a word of it changing.

use std::fs;
use std::time::Duration;

use l2mesh_tests::changing::{Changing, With};
use l2mesh_tests::traffic;
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);

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
    // What is no file and would be waited for.
    for instead in ["mkfifo FILE", "ln -s /dev/zero FILE", "ln -s FILE FILE", "mkdir FILE"] {
        let _gone = fs::remove_file(&file);
        a.run(&instead.replace("FILE", &file));
        assert!(mesh.refuses("reload").contains(&format!("{file}: cannot be read: ")), "{instead}");
    }
    fs::remove_dir(&file).expect("it is there");
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

/// The same file is another configuration when the underlay's MTU is another one.
#[test]
fn another_mtu_below() {
    let mesh = Changing::new("below");
    let mut agent = mesh.attach(&[]);
    let a = &mesh.hosts[0];
    for (underlay, said) in [("1400", "network lan: MTU 1450 -> 1350"), ("1500", "network lan: MTU 1350 -> 1450")] {
        a.run(&format!("ip link set eth0 mtu {underlay}"));
        assert_eq!(mesh.does("reload"), [format!("{said}, what fits over eth0")]);
        let fits = said.rsplit(' ').next().expect("a number");
        let link = a.exec("ip", &["link", "show", "l2m10"]);
        assert!(link.stdout.contains(&format!(" mtu {fits} ")), "{link:?}");
        assert_eq!(mesh.does("reload"), ["nothing changed"]);
    }
    a.run("ip link set eth0 mtu 100");
    let said = mesh.refuses("reload");
    assert!(said.contains("network \"lan\": an underlay MTU of 100 is too small"), "{said}");
    agent.process().wait_log_line("reload is refused: ", LIMIT);
}
