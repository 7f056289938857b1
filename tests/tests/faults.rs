//! Faults of use: each gives one clear sentence and an exit code, and leaves nothing behind.

use std::fs;
use std::time::Duration;

use l2mesh_tests::mesh::{binary, sentence};
use l2mesh_tests::{Host, Lab, Wiring, traffic, wait_for};

const LIMIT: Duration = Duration::from_secs(10);

fn pair(title: &str) -> (Lab, [Host; 2]) {
    let lab = Lab::new(title);
    let hosts = lab.pair(["a", "b"], &Wiring::default());
    (lab, hosts)
}

/// `attach` by flags, with one peer.
fn flags(peer: &Host) -> Vec<String> {
    let peer = peer.address().to_string();
    ["attach", "--iface", "eth0", "--vni", "16", "--peer", &peer].map(str::to_owned).to_vec()
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// The sentence of an attach that is refused and leaves all as it was.
#[track_caller]
fn refused(host: &Host, args: &[&str]) -> String {
    let before = host.state();
    let sentence = host.l2mesh_refuses(args);
    host.assert_state(&before);
    sentence
}

#[test]
fn not_root() {
    let (lab, [a, b]) = pair("not root");
    // Where nobody may read it.
    let program = lab.directory().join("l2mesh");
    fs::copy(binary(), &program).expect("a copy in the lab's directory");
    let config = lab.directory().join("mesh.toml");
    fs::write(&config, config_text(&a, &b, "")).expect("a file in the lab's directory");
    let (program, config) = (program.display().to_string(), config.display().to_string());
    let pin_dir = lab.pin_dir().display().to_string();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--", &program, "--pin-dir", &pin_dir];
    let attach = flags(&b);
    let run = |args: &[&str]| a.try_exec("setpriv", &[&nobody, args].concat());
    let _agent = a.attach(&borrowed(&attach)[3..]);
    let before = a.state();
    for (args, says) in [
        (&borrowed(&attach)[..], "run it as root"),
        (&["status"], "run it as root"),
        (&["maps"], "run it as root"),
        (&["detach", "--iface", "eth0"], "run it as root"),
        (&["detach", "--stale"], "run it as root"),
    ] {
        let output = run(args);
        assert_eq!(output.code, Some(1), "{args:?}: {output:?}");
        assert!(sentence(&output).contains(says), "{args:?}: {output:?}");
    }
    let output = run(&["check", "--config", &config]);
    assert!(output.success(), "{output:?}");
    a.assert_state(&before);
}

#[test]
fn interface_missing_down_or_loopback() {
    let (_lab, [a, b]) = pair("interface");
    let peer = b.address().to_string();
    let on = |interface: &str| refused(&a, &["attach", "--iface", interface, "--vni", "16", "--peer", &peer]);
    assert_eq!(on("eth7"), "there is no interface \"eth7\": there are eth0");
    a.run("ip link add name eth1 type bridge");
    assert_eq!(on("eth1"), "eth1 is down: bring it up first, `ip link set eth1 up`");
    let sentence = on("lo");
    assert!(sentence.contains("127.0.0.1: it is a loopback address"), "{sentence}");
}

#[test]
fn pin_dir_not_on_bpffs() {
    let (lab, [a, b]) = pair("pin dir");
    let [missing, empty] = ["missing", "empty"].map(|name| lab.directory().join(name));
    fs::create_dir(&empty).expect("a directory in the lab's");
    for directory in [&missing, &empty] {
        let before = (a.state(), directory.exists());
        let text = directory.display().to_string();
        let output = a.try_exec(binary(), &[&["--pin-dir", &text], &borrowed(&flags(&b))[..]].concat());
        assert_eq!(output.code, Some(1), "{output:?}");
        let sentence = sentence(&output);
        assert!(sentence.contains(&text) && sentence.contains("is not on a BPF file system"), "{sentence}");
        a.assert_state(&before.0);
        assert_eq!(directory.exists(), before.1, "{text}");
    }
    assert_eq!(fs::read_dir(&empty).expect("a directory").count(), 0);
}

/// In a mount namespace of its own, where nothing is at /sys/fs/bpf.
#[test]
fn bpffs_not_mounted() {
    let (lab, [a, b]) = pair("no bpffs");
    let _other = b.attach(&["--vni", "16", "--peer", &a.address().to_string(), "--address", "10.8.0.2/24"]);
    let before = a.state();
    let program = binary().display().to_string();
    let pin_dir = lab.pin_dir().display().to_string();
    let script = "umount --lazy /sys/fs/bpf && exec \"$@\"";
    let attach = flags(&b);
    let tail = ["--address", "10.8.0.1/24"];
    let args = [&["--mount", "sh", "-c", script, "-", &program, "--pin-dir", &pin_dir], &borrowed(&attach)[..], &tail];
    let mut agent = a.spawn("unshare", &args.concat());
    agent.wait_log_line("up: ", LIMIT);
    assert!(agent.stderr().contains("mounted a BPF file system at /sys/fs/bpf"), "{}", agent.stderr());
    assert_eq!(traffic::ping(&a, [10, 8, 0, 2], 2).lost(), 0);
    let inside = ["-t", &agent.pid().to_string(), "--mount", "--", &program, "--pin-dir", &pin_dir, "status"];
    assert!(a.exec("nsenter", &inside).stdout.contains(&format!("process {}", agent.pid())));
    assert!(agent.stop().success());
    a.assert_state(&before);
}

#[test]
fn attach_twice() {
    let (_lab, [a, b]) = pair("twice");
    let attach = flags(&b);
    let mut first = a.attach(&borrowed(&attach)[3..]);
    let sentence = refused(&a, &borrowed(&attach));
    let pid = first.process().pid();
    assert!(sentence.contains(&format!("eth0 is attached already by process {pid}")), "{sentence}");
    assert!(first.process().is_running());
    first.stop();
}

/// A device of somebody else's with one of our names is left alone, and what was made before it was found is removed.
#[test]
fn names_taken_by_others() {
    let (_lab, [a, b]) = pair("names");
    let attach = flags(&b);
    let index = a.link("eth0")["ifindex"].clone();
    let helper = format!("l2mk{index}");
    for name in ["l2m10", &helper] {
        a.run(&format!("ip link add name {name} type bridge"));
        let sentence = refused(&a, &borrowed(&attach));
        assert!(sentence.contains(name), "{sentence}");
        a.run(&format!("ip link delete {name}"));
    }
    // The hidden end takes another name then.
    a.run("ip link add name l2p10 type bridge");
    let before = a.state();
    let agent = a.attach(&borrowed(&attach)[3..]);
    assert!(a.try_link(&format!("l2p10x{index}")).is_some());
    agent.stop();
    a.assert_state(&before);
    let output = a.try_l2mesh(&["detach", "--iface", "eth0"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "nothing to remove\n"), "{output:?}");
    a.assert_state(&before);
}

fn config_text(a: &Host, b: &Host, more: &str) -> String {
    let node = |host: &Host| format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\n", host.name(), host.address());
    format!("{}{}[[network]]\nname = \"lan\"\nvni = 16\n{more}", node(a), node(b))
}

/// One of each kind; the unit tests of the configuration have the rest.
#[test]
fn invalid_configuration() {
    let (lab, [a, b]) = pair("configuration");
    let file = lab.directory().join("mesh.toml");
    let path = file.display().to_string();
    for (more, line, says) in [
        ("vni", 10, "key"),
        ("colour = 1\n", 10, "unknown key `colour`"),
        ("mtu = true\n", 10, "expected a whole number"),
        ("mtu = 1501\n", 10, "1501"),
        ("interface = \"a-name-of-16-oct\"\n", 10, "15"),
        ("members = [\"a\", \"nobody\"]\n", 10, "nobody"),
        ("[[network]]\nname = \"lan\"\nvni = 17\n", 11, "\"lan\" is also the name"),
        ("[[network]]\nname = \"two\"\nvni = 16\n", 12, "vni 16"),
        ("[[network]]\nname = \"two\"\nvni = 0\n", 12, "reserved"),
        ("[[network]]\nname = \"two\"\nvni = 16777216\n", 12, "24 bits"),
        ("[[node]]\nname = \"a\"\naddress = \"192.0.2.77\"\n", 11, "\"a\" is also the name"),
        ("[[node]]\nname = \"c\"\naddress = \"192.0.2.11\"\n", 12, "192.0.2.11"),
        ("[underlay]\nport = 0\n", 11, "port 0"),
    ] {
        fs::write(&file, config_text(&a, &b, more)).expect("a file in the lab's directory");
        let attach = ["attach", "--iface", "eth0", "--config", &path];
        let sentence = refused(&a, &attach);
        assert!(sentence.starts_with(&format!("{path}:{line}: ")) && sentence.contains(says), "{more:?}: {sentence}");
        if more != "mtu = 1501\n" {
            assert_eq!(a.l2mesh_refuses(&["check", "--config", &path]), sentence, "{more:?}");
        }
    }
    fs::remove_file(&file).expect("our own file");
    let sentence = refused(&a, &["attach", "--iface", "eth0", "--config", &path]);
    assert!(sentence.contains(&path) && sentence.contains("No such file"), "{sentence}");
}

/// The file is right, but not for this host.
#[test]
fn configuration_of_others() {
    let (lab, [a, b]) = pair("others");
    let file = lab.directory().join("mesh.toml");
    let path = file.display().to_string();
    let attach = ["attach", "--iface", "eth0", "--config", &path];
    let nodes =
        "[[node]]\nname = \"x\"\naddress = \"198.51.100.1\"\n[[node]]\nname = \"y\"\naddress = \"198.51.100.2\"\n";
    fs::write(&file, format!("{nodes}[[network]]\nname = \"lan\"\nvni = 16\n")).expect("a file in the lab's directory");
    let sentence = refused(&a, &attach);
    for word in ["192.0.2.10", "198.51.100.1", "198.51.100.2", "--node"] {
        assert!(sentence.contains(word), "{word}: {sentence}");
    }
    let sentence = refused(&a, &[&attach[..], &["--node", "z"]].concat());
    assert!(sentence.contains("\"z\""), "{sentence}");
    fs::write(&file, config_text(&a, &b, "members = [\"b\"]\n")).expect("a file in the lab's directory");
    let sentence = refused(&a, &attach);
    assert_eq!(sentence, "node \"a\" is a member of no network: add it to `members` of one");
}

#[test]
fn usage() {
    let (_lab, [a, _b]) = pair("usage");
    let before = a.state();
    for args in [
        &["attach"][..],
        &["attach", "--iface", "eth0"],
        &["attach", "--iface", "eth0", "--vni", "0", "--peer", "192.0.2.11"],
        &["attach", "--iface", "eth0", "--vni", "16", "--peer", "192.0.2.11", "--mode", "fast"],
        &["detach"],
        &["maps", "everything"],
        &["frobnicate"],
    ] {
        let output = a.try_l2mesh(args);
        assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{args:?}: {output:?}");
        assert!(output.stderr.contains("error: "), "{args:?}: {output:?}");
    }
    for args in [&["status"][..], &["maps"], &["status", "--iface", "eth0"]] {
        let sentence = a.l2mesh_refuses(args);
        assert!(sentence.starts_with("no mesh is attached here"), "{args:?}: {sentence}");
    }
    let output = a.try_l2mesh(&["detach", "--iface", "eth7"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "nothing to remove\n"), "{output:?}");
    a.assert_state(&before);
}

/// At boot, attach may come before the network does.
#[test]
fn before_the_network() {
    let (_lab, [a, b]) = pair("before the network");
    let _other = b.attach(&["--vni", "16", "--peer", &a.address().to_string(), "--address", "10.8.0.2/24"]);
    a.run("ip address flush dev eth0");
    let attach = flags(&b);
    let attach = [&borrowed(&attach)[..], &["--address", "10.8.0.1/24"]].concat();
    let before = a.state();
    let mut waiting = a.spawn_l2mesh(&attach);
    waiting.wait_log_line("waiting: eth0 has no address yet", LIMIT);
    assert!(waiting.is_running() && waiting.stdout().is_empty());
    assert!(waiting.stop().success());
    a.assert_state(&before);

    let mut agent = a.spawn_l2mesh(&attach);
    agent.wait_log_line("waiting: eth0 has no address yet", LIMIT);
    // Not of the peer's network: there is no route to it yet.
    a.add_address("eth0", "192.0.2.10/32");
    let up = agent.wait_log_line("up: ", LIMIT);
    assert!(up.contains("1 not reachable yet"), "{up}");
    assert!(agent.stderr().contains("no route to 192.0.2.11"), "{}", agent.stderr());
    a.run("ip route add 192.0.2.0/24 dev eth0");
    wait_for("the peer is reached", Duration::from_secs(2), || {
        let report = traffic::ping(&a, [10, 8, 0, 2], 1);
        if report.lost() == 0 { Ok(()) } else { Err(format!("{report:?}")) }
    });
    assert!(agent.stop().success());
}
