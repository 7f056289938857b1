//! What probes cost the host that sends them: 255 peers, three relays between all of them, every 100 ms.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use l2mesh_tests::{Lab, Wiring};

/// Clock ticks that a thread of a process has used, in hundredths of a second.
fn used(pid: u32, name: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let of_task = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(") ")?;
        let fields: Vec<u64> = after.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        before.ends_with(&format!("({name}")).then(|| fields.iter().sum::<u64>())
    };
    tasks.filter_map(|entry| of_task(entry.expect("a thread"))).sum()
}

#[test]
fn of_255_peers() {
    let lab = Lab::new("prober cost");
    let [a, b] = lab.pair(["a", "b"], &Wiring::default());
    let mut text = format!("[[node]]\nname = \"a\"\naddress = \"{}\"\n", a.address());
    for nth in 1..256 {
        let relay = nth < 4;
        write!(text, "[[node]]\nname = \"n{nth}\"\naddress = \"203.0.113.{nth}\"\nrelay = {relay}\n").expect("text");
    }
    text += "[[network]]\nname = \"lan\"\nvni = 16\n";
    let file = lab.directory().join("mesh.toml");
    std::fs::write(&file, text).expect("written");
    // All of them stand behind b, which drops what it gets: the worst case, in which every path is asked every 100 ms.
    a.run(&format!("ip route add 203.0.113.0/24 via {}", b.address()));
    let mut agent = a.attach(&["--config", file.to_str().expect("UTF-8")]);
    let pid = agent.process().pid();
    thread::sleep(Duration::from_secs(35));
    let sent = || -> u64 {
        let text = a.run("cat /proc/net/snmp").stdout;
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:")).map(str::split_whitespace);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let value = names.zip(values).find(|(name, _)| *name == "OutDatagrams").expect("a count").1;
        value.parse().expect("a number")
    };
    let (before, sent_before) = (used(pid, "prober"), sent());
    thread::sleep(Duration::from_secs(10));
    let (ticks, sent) = (used(pid, "prober") - before, sent() - sent_before);
    eprintln!(
        "{} probes a second, {:.1} % of a core; {}",
        sent / 10,
        ticks as f64 / 10.0,
        a.l2mesh_text(&["maps", "paths"]).lines().count()
    );
    eprintln!("{}", a.run("ip -s link show eth0").stdout);
    eprintln!("{}", a.l2mesh_text(&["status"]).lines().take(12).collect::<Vec<_>>().join("\n"));
}
