//! The socket of an agent: who may ask, and that nobody can hold it up.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use l2mesh_tests::changing::{Changing, With};
use l2mesh_tests::{traffic, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(15);

#[test]
fn who_is_there() {
    let mesh = Changing::new("who is there");
    let [a, ..] = &mesh.hosts;
    let said = mesh.refuses("reload");
    assert!(said.starts_with("no agent runs here"), "{said}");
    let before = a.state();
    let mut agent = mesh.attach(&[]);
    let metadata = fs::metadata(a.control_path()).expect("a socket");
    let group = fs::read_to_string("/etc/group").unwrap_or_default().lines().any(|line| line.starts_with("l2mesh:"));
    assert_eq!(metadata.mode() & 0o777, if group { 0o660 } else { 0o600 });
    let about = &a.ask("about")["about"];
    assert_eq!((&about["pid"], &about["node"]), (&json!(agent.process().pid()), &json!("a")), "{about}");
    // Several on one connection, also at once.
    let mut control = a.control();
    control.send(b"{\"do\":\"about\"}\n{\"do\":\"reload\"}\n").expect("an agent that listens");
    assert!(control.line().expect("an answer").contains("\"pid\""));
    assert_eq!(control.line().expect("an answer"), "{\"ok\":true}\n");
    assert!(mesh.refuses("reload --iface eth7").starts_with("no agent runs on eth7: there are agents on eth0"));
    assert_eq!(mesh.does("reload --iface eth0"), ["nothing changed"]);
    let second = a.l2mesh_refuses(&["attach", "--iface", "eth0", "--config", &mesh.file()]);
    assert!(second.contains(&format!("attached already by process {}", agent.process().pid())), "{second}");
    assert_eq!(mesh.does("reload"), ["nothing changed"], "the second one has not taken the socket away");

    // A killed one leaves its socket, and the next one puts its own there.
    agent.kill();
    assert!(mesh.refuses("reload").starts_with("no agent runs on eth0"));
    let agent = mesh.attach(&[]);
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
    agent.stop();
    a.assert_state(&before);
    // So does a detach after a crash.
    mesh.attach(&[]).kill();
    assert!(mesh.tries("detach --iface eth0").success());
    a.assert_state(&before);
    let agent = mesh.attach(&["--persist"]);
    agent.stop();
    assert!(!a.control_path().exists());
    assert!(mesh.tries("detach --iface eth0").success());
}

/// What a stranger is told, by whichever door it comes.
#[test]
fn strangers() {
    let mesh = Changing::new("strangers");
    let [a, ..] = &mesh.hosts;
    let mut agent = mesh.attach(&[]);
    // Where nobody but root may look, a copy for all.
    let binary = std::env::temp_dir().join(format!("l2mesh-for-strangers-{}", std::process::id()));
    fs::copy(l2mesh_tests::mesh::binary(), &binary).expect("a copy");
    fs::set_permissions(&binary, Permissions::from_mode(0o755)).expect("a mode");
    let as_stranger = || {
        let (binary, nobody) =
            (binary.display().to_string(), ["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        a.try_exec("setpriv", &[&nobody[..], &[&binary, "reload"]].concat())
    };
    let output = as_stranger();
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stderr.contains("only root and members of the group l2mesh may ask the agent of eth0"),
        "{output:?}"
    );
    // Somebody has opened the door.
    fs::set_permissions(a.control_path(), Permissions::from_mode(0o666)).expect("a mode");
    for _ in 0..20 {
        let output = as_stranger();
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains("may not ask the agent: that is for root"), "{output:?}");
    }
    let _gone = fs::remove_file(&binary);
    agent.process().wait_log_line("user 65534 (process ", LIMIT);
    let log = agent.process().stderr();
    assert_eq!(log.matches("is refused at the control socket").count(), 1, "said once, not for each: {log}");
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
}

/// Whoever says too much, nothing, or does not read what it asked for: the others are answered, and the mesh works.
#[test]
fn hostile_clients() {
    let mesh = Changing::new("hostile");
    let [a, ..] = &mesh.hosts;
    let mut agent = mesh.attach(&[]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0);
    let tables = mesh.tables();
    let pid = agent.process().pid();
    let opened = || fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that lives").count();
    let before = opened();

    let mut long = a.control();
    let _hung_up = long.send(&vec![b' '; 65 << 10]);
    let said = long.line().expect("an answer");
    assert!(said.contains("a request has 65536 octets at most"), "{said}");
    assert_eq!(long.line(), None);

    // They say half a word, and ask without reading.
    let mut silent: Vec<_> = (0..40).map(|_| a.control()).collect();
    let mut refused = 0;
    for (nth, control) in silent.iter_mut().enumerate() {
        let _hung_up = control.send(if nth % 2 == 0 { b"{\"do\":" } else { b"" });
    }
    for control in &mut silent[32..] {
        refused += usize::from(
            control.line().is_some_and(|line| line.contains("others are connected to the agent: try again")),
        );
    }
    assert!(refused >= 7, "{refused} of those over 32");
    wait_for("they are hung up on", LIMIT, || match mesh.tries("reload") {
        output if output.success() => Ok(()),
        output => Err(format!("{output:?}")),
    });
    let mut greedy = a.control();
    for _ in 0..20_000 {
        if greedy.send(b"{\"do\":\"about\"}\n").is_err() {
            break;
        }
    }
    assert_eq!(mesh.does("reload"), ["nothing changed"]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    drop((silent, greedy));
    wait_for("every connection ends", LIMIT, || match opened() {
        now if now <= before => Ok(()),
        now => Err(format!("{now} descriptors, {before} before{}", agent.process().last_words())),
    });
    assert_eq!(mesh.tables(), tables);
}

/// Where the socket cannot be made, the mesh works without.
#[test]
fn a_directory_that_cannot_be_written() {
    let mesh = Changing::new("read-only");
    let [a, ..] = &mesh.hosts;
    // A mount namespace of its own, in which /run is read-only.
    let pins = mesh.lab.pin_dir();
    let script = format!(
        "mount --bind /run /run && mount -o remount,bind,ro /run && exec {} --pin-dir {} attach --iface eth0 --config {}",
        l2mesh_tests::mesh::binary().display(),
        pins.display(),
        mesh.file()
    );
    let mut agent = a.spawn("unshare", &["--mount", "sh", "-c", &script]);
    agent.wait_log_line("up: node a on eth0", LIMIT);
    agent.wait_log_line("no control socket, so no changes while the mesh runs: cannot make /run/l2mesh/", LIMIT);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
    assert!(agent.stop().success());
}

/// A generator that says its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64* (Marsaglia, "Xorshift RNGs").
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).expect("a number")).expect("a place")
    }
}

/// Mutated requests to a live agent: those that are refused change nothing, and it stays alive.
#[track_caller]
fn mutated(count: usize) {
    let mesh = Changing::new("mutated");
    let [a, ..] = &mesh.hosts;
    let mut agent = mesh.attach(&[]);
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 1).lost(), 0);
    let seed = u64::from(std::process::id()) << 20 | 0x5eed;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let address = mesh.hosts[2].address();
    // None of these is taken as it is, and few mutations make them so.
    let requests = [
        json!({"do": "peer-add", "name": "b", "address": address.to_string()}),
        json!({"do": "peer-add", "name": "c", "address": mesh.hosts[1].address().to_string(), "relay": true, "id": 7}),
        json!({"do": "peer-del", "name": "x"}),
        json!({"do": "network-add", "name": "dmz", "vni": 16, "member": ["a", "b"], "address": ["10.9.0.1/24"]}),
        json!({"do": "network-del", "name": "dmz", "save": false}),
        json!({"do": "mac-add", "mac": "01:54:00:00:00:01", "vni": 16, "peer": "b"}),
        json!({"do": "mac-del", "mac": "52:54:00:00:00:01", "vni": 16}),
        json!({"do": "mac-flush", "vni": 99, "peer": "b", "mac": "52:54:00:00:00:01"}),
        json!({"do": "reload"}),
        json!({"do": "about"}),
    ];
    let (mut tables, mut taken) = (mesh.tables(), 0);
    for nth in 0..count {
        let mut octets = requests[random.below(requests.len())].to_string().into_bytes();
        for _ in 0..random.below(4) {
            let place = random.below(octets.len());
            match random.below(4) {
                0 => drop(octets.remove(place)),
                1 => octets.insert(place, u8::try_from(random.below(256)).expect("an octet")),
                2 => octets.truncate(place + 1),
                _ => octets[place] ^= 1 << random.below(8),
            }
            if octets.is_empty() {
                break;
            }
        }
        octets.retain(|octet| *octet != b'\n');
        octets.push(b'\n');
        let mut control = a.control();
        control.send(&octets).expect("an agent that listens");
        let shown = String::from_utf8_lossy(&octets).into_owned();
        let line = control.line().unwrap_or_else(|| panic!("no answer to {shown:?}{}", agent.process().last_words()));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if answer["ok"] == true && answer["changes"].as_array().is_some_and(|changes| !changes.is_empty()) {
            // One that was valid after all.
            taken += 1;
            tables = mesh.tables();
        } else if nth % 500 == 0 {
            assert_eq!(mesh.tables(), tables, "{shown:?}");
        }
    }
    assert_eq!(mesh.tables(), tables);
    println!("{count} requests, {taken} were valid");
    assert!(agent.process().is_running());
    let log = agent.process().stderr();
    assert!(!log.contains("panicked"), "{log}");
    mesh.write(&With::default());
    let _undone = mesh.does("reload");
    assert_eq!(traffic::ping(a, [10, 8, 0, 2], 2).lost(), 0);
}

#[test]
fn mutated_requests() {
    mutated(1_500);
}

#[test]
#[ignore = "10,000 requests: cargo test -p l2mesh-tests --test control -- --ignored --nocapture"]
fn ten_thousand_mutated_requests() {
    mutated(10_000);
}
