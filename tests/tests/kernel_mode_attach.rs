//! Mode kernel: when it is refused, from one mode to another, and what the host's firewall has to do with it.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use l2mesh_tests::flow::Flow;
use l2mesh_tests::tun::{self, Tunnel};
use l2mesh_tests::{Agent, Capture, Direction, Host, Lab, State, VxlanOptions, Wiring, traffic, transfer};

const LIMIT: Duration = Duration::from_secs(10);
/// TCP data, octets.
const BULK: usize = 4 << 20;

/// Two hosts on one wire that are to be in network 16 as 10.8.0.1 and 10.8.0.2.
struct Two {
    hosts: [Host; 2],
    lab: Lab,
}

impl Two {
    fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let hosts = lab.pair(["a", "b"], &Wiring::default());
        Self { hosts, lab }
    }

    fn flags(&self, own: usize) -> [String; 6] {
        let address = format!("10.8.0.{}/24", own + 1);
        let peer = self.hosts[1 - own].address().to_string();
        ["--vni".to_owned(), "16".to_owned(), "--peer".to_owned(), peer, "--address".to_owned(), address]
    }

    #[track_caller]
    fn attach(&self, own: usize, more: &[&str]) -> Agent {
        let flags = self.flags(own);
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let agent = self.hosts[own].attach(&flags);
        self.hosts[own].wait_carrier("l2m10");
        agent
    }

    /// Attaches the first host, which is refused for the reason returned, and changes nothing.
    #[track_caller]
    fn refused(&self, more: &[&str]) -> String {
        let (flags, interface) = (self.flags(0), self.hosts[0].interface());
        let args = ["attach", "--iface", &interface];
        let args: Vec<&str> =
            args.into_iter().chain(flags.iter().map(String::as_str)).chain(more.iter().copied()).collect();
        let before = self.hosts[0].state();
        let sentence = self.hosts[0].l2mesh_refuses(&args);
        self.hosts[0].assert_state(&before);
        sentence
    }

    #[track_caller]
    fn assert_works(&self) {
        assert_eq!(traffic::ping(&self.hosts[0], [10, 8, 0, 2], 3).lost(), 0);
        for (from, to, address) in [(0, 1, [10, 8, 0, 2]), (1, 0, [10, 8, 0, 1])] {
            transfer::tcp(&self.hosts[from], &self.hosts[to], address, BULK);
        }
    }
}

/// The file has to say that this node answers no probes: the others would take it for dead.
#[test]
fn the_file_must_agree() {
    let two = Two::new("probes");
    let [a, b] = &two.hosts;
    let file = two.lab.directory().join("mesh.toml");
    let attach = ["attach", "--iface", "eth0", "--mode", "kernel", "--config", &file.display().to_string()];
    let write = |own: &str, rest: &str| {
        let text = format!(
            "{rest}\n[[node]]\nname = \"a\"\naddress = \"{}\"\n{own}\n[[node]]\nname = \"b\"\naddress = \"{}\"\n\
             [[network]]\nname = \"lan\"\nvni = 16\n",
            a.address(),
            b.address()
        );
        fs::write(&file, text).expect("a file in the lab's directory");
    };
    let before = a.state();
    for (own, rest, words) in [
        ("", "", ["mesh.toml:4", "add `probes = false`"]),
        ("probes = true", "", ["mesh.toml:4", "add `probes = false`"]),
        ("probes = false\nrelay = true", "", ["mesh.toml:6", "remove `relay = true`"]),
        ("probes = false", "[underlay]\nprivate-port = true", ["private-port", "4789 is where the others listen"]),
    ] {
        write(own, rest);
        let sentence = a.l2mesh_refuses(&attach);
        assert!(words.iter().all(|word| sentence.contains(word)), "{own} {rest}: {sentence}");
    }
    a.assert_state(&before);
    write("probes = false", "");
    let agent = a.attach(&attach[3..]);
    assert!(agent.up_line().ends_with("mode kernel (as asked for)"), "{}", agent.up_line());
    agent.stop();
    a.assert_state(&before);
}

/// The helper sends to the port that it holds.
#[test]
fn the_port_must_be_free() {
    let two = Two::new("port");
    let a = &two.hosts[0];
    let sentence = two.refused(&["--mode", "kernel", "--private-port"]);
    assert!(sentence.starts_with("private-port: in mode kernel the helper device sends too"), "{sentence}");
    let sentence = two.refused(&["--mode", "kernel", "--allow-relay"]);
    assert!(sentence.contains("cannot relay in mode kernel: remove --allow-relay"), "{sentence}");

    let foreign = VxlanOptions { vni: 99, ..VxlanOptions::default() };
    a.kernel_vxlan(a.address(), &[], &foreign);
    let sentence = two.refused(&["--mode", "kernel"]);
    assert!(sentence.starts_with("UDP port 4789 belongs to another program or vxlan device"), "{sentence}");
    // A mesh that gets on with another port is not harmed by the attempt.
    let _b = two.attach(1, &[]);
    two.attach(0, &["--mode", "tc", "--persist"]).stop();
    two.assert_works();
    let sentence = two.refused(&["--mode", "kernel"]);
    assert!(sentence.contains("the mesh keeps forwarding as before, without an agent"), "{sentence}");
    two.assert_works();
    a.run("ip link delete dev vx0");
    let _agent = two.attach(0, &["--mode", "kernel"]);
    two.assert_works();
}

#[test]
fn only_mode_kernel_goes_without_ethernet() {
    let lab = Lab::new("no ethernet");
    let hosts = ["a", "b"].map(|name| lab.host(name));
    let _tunnel = Tunnel::between(hosts.each_ref(), 1400);
    let two = Two { hosts, lab };
    for mode in ["tc", "xdp"] {
        let sentence = two.refused(&["--mode", mode]);
        assert_eq!(
            sentence,
            "tun0 has no Ethernet header, which modes xdp and tc need: use --mode kernel, or leave --mode out"
        );
    }
    let before = two.hosts[0].state();
    let agents = [0, 1].map(|own| two.attach(own, &[]));
    assert!(agents[0].up_line().ends_with("mode kernel (tun0 has no Ethernet header)"), "{}", agents[0].up_line());
    two.assert_works();
    agents.into_iter().for_each(Agent::stop);
    two.hosts[0].assert_state(&before);
}

/// Programs, links and pins, without what differs from one attach to the next.
fn shape(state: &State) -> Vec<String> {
    let hooks = state.lines("gress: ").into_iter().filter_map(|line| {
        let (place, program) = line.split_once("gress: ")?;
        Some(format!("{place}gress {}", program.split_once(' ')?.1))
    });
    hooks.chain(state.lines("pin ").into_iter().map(str::to_owned)).collect()
}

/// From each mode to each other, the mesh in place all the time: only what the new mode needs is there then.
#[test]
fn from_one_mode_to_another() {
    let two = Two::new("modes");
    let a = &two.hosts[0];
    let _b = two.attach(1, &[]);
    let before = a.state();
    // Nothing leaves without its outer header meanwhile.
    let strays = Capture::start(a, "eth0", Direction::Out, "not udp port 4789 and not arp and not icmp");
    let mut flow = None;
    let mut kernel = None;
    let mut known = None;
    for mode in ["kernel", "tc", "kernel", "xdp", "kernel", "kernel", "tc", "xdp", "tc"] {
        let agent = two.attach(0, &["--mode", mode, "--persist"]);
        assert!(agent.up_line().contains(&format!("mode {mode} (as asked for)")), "{mode}: {}", agent.up_line());
        two.assert_works();
        let flow = flow.get_or_insert_with(|| Flow::start(a, &two.hosts[1], [10, 8, 0, 2], 2000));
        flow.wait_more(100);
        let row = a.mac_row(two.hosts[1].mac("l2m10")).expect("b's MAC address");
        assert_eq!(
            known.get_or_insert(row["moves"].clone()),
            &row["moves"],
            "{mode}: the table of MAC addresses stays"
        );
        let state = a.state();
        let has = |hook: &str| !state.lines(hook).is_empty();
        let is_kernel = mode == "kernel";
        assert_eq!(has("eth0 Ingress: "), !is_kernel, "{mode}: {state:?}");
        assert_eq!(has("l2m10 Egress: "), !is_kernel, "{mode}: {state:?}");
        let xdp = !a.link("eth0")["xdp"].is_null();
        assert_eq!(xdp, mode == "xdp", "{mode}: {state:?}");
        if is_kernel {
            assert_eq!(kernel.get_or_insert(shape(&state)), &shape(&state), "{mode}");
            let row = a.peer(&two.hosts[1]);
            assert_eq!(row["next_hop"], "by the kernel", "{row}");
        }
        agent.stop();
    }
    let report = flow.expect("a flow").stop();
    assert_eq!(report.duplicates, 0, "{report:?}");
    assert_eq!(strays.stop().frames(), []);
    two.attach(0, &["--mode", "kernel"]).stop();
    a.assert_state(&before);
}

/// Everything that is received passes the host's INPUT chain.
#[test]
fn the_firewall_is_tested() {
    let lab = Lab::new("firewall");
    let hosts = ["a", "b"].map(|name| lab.host(name));
    let _tunnel = Tunnel::between(hosts.each_ref(), 1400);
    let two = Two { hosts, lab };
    let a = &two.hosts[0];
    let firewall = |host: &Host| host.l2mesh(&["status", "--json"])["firewall"].as_str().map(str::to_owned);
    for line in [
        "add table inet filter",
        "add chain inet filter input { type filter hook input priority 0 ; }",
        "add rule inet filter input iifname tun0 udp dport 4789 drop",
    ] {
        a.run(&format!("nft {line}"));
    }
    let mut agent = two.attach(0, &[]);
    assert_eq!(firewall(a).as_deref(), Some("drops UDP port 4789 (tested every minute)"));
    let line = agent.process().wait_log_line("firewall drops", LIMIT);
    assert!(line.contains("nothing is received in mode kernel") && line.contains("nft insert rule"), "{line}");
    a.run("nft flush ruleset");
    agent.stop();
    let _agents = [0, 1].map(|own| two.attach(own, &[]));
    assert_eq!(firewall(a).as_deref(), Some("lets UDP port 4789 in"));
    two.assert_works();
    // Nor does the other end see anything of the test.
    for verdict in ["unknown-source", "not-our-vni"] {
        assert_eq!(two.hosts[1].counter(verdict), 0, "{verdict}");
    }
    let peer: IpAddr = Tunnel::v4(1).into();
    assert_eq!(traffic::ping(a, peer, 1).lost(), 0, "{}", tun::INTERFACE);
}

/// The helper device has an MTU of 1500 itself, which is nobody's limit.
#[test]
fn jumbo_frames() {
    let lab = Lab::new("jumbo");
    let hosts = lab.pair(["a", "b"], &Wiring { mtu: 9000, ..Wiring::default() });
    let nodes = hosts.each_ref().map(|host| {
        format!("[[node]]\nname = \"{}\"\naddress = \"{}\"\nprobes = false\n", host.name(), host.address())
    });
    let network = "addresses = { a = \"10.8.0.1/24\", b = \"10.8.0.2/24\" }";
    let file = lab.directory().join("mesh.toml");
    let text = format!("{}[[network]]\nname = \"lan\"\nvni = 16\nmtu = 8950\n{network}\n", nodes.concat());
    fs::write(&file, text).expect("a file in the lab's directory");
    let file = file.display().to_string();
    let _agents = hosts.each_ref().map(|host| host.attach(&["--config", &file, "--mode", "kernel"]));
    hosts.iter().for_each(|host| host.wait_carrier("l2m10"));
    assert_eq!(traffic::ping_sized(&hosts[0], [10, 8, 0, 2], 3, 8950 - 28).lost(), 0);
    transfer::tcp(&hosts[0], &hosts[1], [10, 8, 0, 2], BULK);
}
