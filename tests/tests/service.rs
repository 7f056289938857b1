//! The systemd unit, on a machine of its own with a real systemd: sandbox, readiness, watchdog, and that nothing it does is seen by frames.

use std::path::Path;
use std::time::Duration;

use l2mesh_tests::flow::Flow;
use l2mesh_tests::{Agent, Host, Lab, Machine, Wiring, traffic, wait_for};

const LIMIT: Duration = Duration::from_secs(30);
/// `systemd-analyze security` says at most that.
const EXPOSURE: f64 = 2.5;
const UNIT: &str = "l2mesh@eth0.service";

fn packaging(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path)
}

/// Host `a` is a machine, with the unit and the program but no package; `b` is a host like any other. Both are to be in network 16.
struct Two {
    machine: Machine,
    a: Host,
    b: Host,
    _agent: Agent,
    _lab: Lab,
}

impl Two {
    fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let [a, b] = lab.pair(["a", "b"], &Wiring::default());
        let machine = Machine::boot(&lab, &a);
        machine.copy(&l2mesh_tests::mesh::binary(), "/usr/sbin/l2mesh");
        machine.copy(&packaging("systemd/l2mesh@.service"), "/etc/systemd/system/l2mesh@.service");
        let file = l2mesh_tests::mesh_file(
            &lab,
            &[a.clone(), b.clone()],
            "[[network]]\nname = \"lan\"\nvni = 16\naddresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\" }\n",
        );
        machine.write("/etc/l2mesh/mesh.toml", std::fs::read(&file).expect("the file"));
        let agent = b.attach(&["--config", &file]);
        machine.run("systemctl daemon-reload; groupadd --system l2mesh");
        Self { machine, a, b, _agent: agent, _lab: lab }
    }

    fn start(&self) {
        self.machine.run(&format!("systemctl start {UNIT}"));
    }

    #[track_caller]
    fn property(&self, name: &str) -> String {
        self.machine.run(&format!("systemctl show --value --property={name} {UNIT}")).trim().to_owned()
    }

    /// The process id of the agent, as the machine sees it.
    #[track_caller]
    fn pid(&self) -> u32 {
        self.property("MainPID").parse().expect("a number")
    }

    #[track_caller]
    fn assert_works(&self) {
        assert_eq!(traffic::ping(&self.a, [10, 8, 0, 2], 3).lost(), 0);
    }

    #[track_caller]
    fn wait_new_agent(&self, before: u32) {
        wait_for("another agent", LIMIT, || {
            let (pid, state) = (self.pid(), self.property("ActiveState"));
            if pid != before && pid != 0 && state == "active" {
                Ok(())
            } else {
                Err(format!("{pid} {state}\n{}", self.machine.journal()))
            }
        });
    }
}

#[test]
fn the_sandbox() {
    let two = Two::new("sandbox");
    let analysis = two
        .machine
        .try_run("systemd-analyze", &["security", "--offline=true", "/etc/systemd/system/l2mesh@.service"])
        .stdout;
    let score = analysis
        .rsplit_once("exposure level for ")
        .and_then(|(_, rest)| rest.split_whitespace().nth(1))
        .and_then(|it| it.parse::<f64>().ok());
    assert!(score.is_some_and(|score| score <= EXPOSURE), "{score:?}\n{analysis}");

    two.start();
    two.assert_works();
    let status = two.machine.run(&format!("cat /proc/{}/status", two.pid()));
    // CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF: 12, 38, 39 (linux/capability.h).
    let wanted = format!("{:016x}", 1_u64 << 12 | 1 << 38 | 1 << 39);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t{wanted}")), "{set}: {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    // The probes' thread has its place, routers are heard, sysctls are set: nothing is missing under the sandbox.
    let pid = two.pid();
    // A test machine without CAP_SYS_RESOURCE cannot give what the unit asks for.
    let limits = two.machine.run(&format!("grep 'realtime priority' /proc/{pid}/limits"));
    let threads = two.machine.run(&format!("chrt --pid --all-tasks {pid}"));
    assert_eq!(threads.contains("SCHED_RR"), limits.contains(" 1 "), "{limits}{threads}");
    let sockets = two.machine.run(&format!("ls -l /proc/{pid}/fd; cat /proc/net/raw /proc/net/raw6"));
    assert!(
        sockets.lines().filter(|line| line.contains(":0001 ") || line.contains(":003A ")).count() == 2,
        "{sockets}"
    );
    assert_eq!(two.machine.run("cat /proc/sys/net/ipv6/conf/l2p10/disable_ipv6").trim(), "1");
    assert_eq!(two.machine.run("stat -c '%U %G %a' /run/l2mesh/*/*.sock").trim(), "root l2mesh 660");
    // What it says has a priority and no time of its own.
    // A change of the file is taken up; a file that is no configuration fails the reload and changes nothing.
    let file = two.machine.run("cat /etc/l2mesh/mesh.toml");
    two.machine.write("/etc/l2mesh/mesh.toml", format!("{file}\n[[network]]\nname = \"second\"\nvni = 17\n"));
    two.machine.run(&format!("systemctl reload {UNIT}"));
    assert!(two.a.try_link("l2m11").is_some());
    two.machine.write("/etc/l2mesh/mesh.toml", "nonsense");
    assert!(!two.machine.try_run("systemctl", &["reload", UNIT]).success());
    assert!(two.a.try_link("l2m11").is_some());
    two.machine.write("/etc/l2mesh/mesh.toml", &file);
    two.machine.run(&format!("systemctl reload {UNIT}"));
    assert!(two.a.try_link("l2m11").is_none() && two.property("ActiveState") == "active");
    two.assert_works();
    let log =
        two.machine.run(&format!("journalctl --no-pager --output=json --output-fields=PRIORITY,MESSAGE --unit={UNIT}"));
    let own: Vec<&str> = log.lines().filter(|line| line.contains("firewall") || line.contains("up: node")).collect();
    assert!(!own.is_empty() && own.iter().all(|line| line.contains("\"6\"") && !line.contains("[20")), "{log}");
    let bad: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"4\""].iter().any(|it| line.contains(&format!("\"PRIORITY\":{it}")))
        })
        .collect();
    // The file that was no configuration, by reload and by `--watch`.
    let bad: Vec<&&str> = bad
        .iter()
        .filter(|line| {
            !line.contains("its configuration says something else")
                && !line.contains("mesh.toml")
                && !line.contains("Reload failed")
        })
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(two.property("StatusText").starts_with("up: node a on eth0"), "{}", two.property("StatusText"));
}

/// What the machine does with the service under a stream: the frames notice nothing.
#[test]
fn restarts_and_a_hung_agent() {
    let two = Two::new("restarts");
    two.machine.write("/etc/systemd/system/l2mesh@.service.d/test.conf", "[Service]\nWatchdogSec=1\n");
    two.machine.run("systemctl daemon-reload");
    two.start();
    two.assert_works();
    let flow = Flow::start(&two.a, &two.b, [10, 8, 0, 2], 10_000);
    let pass = || flow.wait_more(1_000);
    pass();
    // The program is restarted; killed; hangs, and the watchdog notices.
    let before = two.pid();
    two.machine.run(&format!("systemctl restart {UNIT}"));
    two.wait_new_agent(before);
    // Three times the watchdog's patience.
    flow.wait_more(30_000);
    for signal in ["KILL", "STOP"] {
        let before = two.pid();
        two.machine.run(&format!("kill -{signal} {before}"));
        two.wait_new_agent(before);
        pass();
    }
    let journal = two.machine.journal();
    assert!(journal.contains("Watchdog timeout (limit 1s)"), "{journal}");
    // Killed and hung, and never for nothing.
    assert_eq!(two.property("NRestarts"), "2", "{journal}");
    // Stopped, it leaves the mesh; that is removed by name.
    two.machine.run(&format!("systemctl stop {UNIT}"));
    pass();
    flow.stop().assert_whole();
    two.machine.run("l2mesh detach --iface eth0");
    assert!(two.a.state().lines("l2m").is_empty(), "{:?}", two.a.state());
    assert_eq!(two.machine.run("find /sys/fs/bpf -name 'l2mesh*'"), "");
}
