//! `l2mesh top` in a real terminal.

use std::fs;
use std::time::Duration;

use l2mesh_tests::frozen::with_a_relay;
use l2mesh_tests::mesh::{binary, sentence};
use l2mesh_tests::tmux::Tmux;
use l2mesh_tests::{Family, Host, Lab, Segment, traffic, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(40);

/// What a shell runs: then it says how that ended and how the terminal is.
fn command(lab: &Lab, before: &str) -> String {
    let (program, pins) = (binary(), lab.pin_dir());
    format!(
        "{before} {} --pin-dir {} top; echo ended $?; stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon | sort; exec sleep 1000",
        program.display(),
        pins.display()
    )
}

/// Waits for a line that begins like this.
#[track_caller]
fn wait_line(terminal: &Tmux, start: &str) -> String {
    wait_for(&format!("a line {start:?}"), LIMIT, || {
        let screen = terminal.screen();
        let found = screen.iter().find(|line| line.starts_with(start)).cloned();
        found.ok_or_else(|| screen.join("\n"))
    })
}

/// The terminal is as a shell wants it.
#[track_caller]
fn assert_restored(terminal: &Tmux) {
    wait_line(terminal, "ended 0");
    wait_line(terminal, "icanon");
    wait_line(terminal, "echo");
    assert_eq!(terminal.ask("#{alternate_on} #{cursor_flag}"), "0 1", "{:?}", terminal.screen());
}

/// True for a sequence (ECMA-48 SGR) that makes another colour than the terminal's own.
fn has_colours(text: &str) -> bool {
    let sequences = text.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
    let is_colour = |number: u32| matches!(number, 30..=38 | 40..=48 | 90..=97 | 100..=107);
    sequences.flat_map(|(numbers, _)| numbers.split(';')).any(|number| number.parse().is_ok_and(is_colour))
}

fn mesh(title: &str) -> (Lab, [Host; 3], [l2mesh_tests::Agent; 3]) {
    let lab = Lab::new(title);
    let (hosts, agents) = with_a_relay(&lab, Family::V4, "tc");
    (lab, hosts, agents)
}

#[test]
fn it_shows_a_failover_and_ends_well() {
    let (lab, hosts, agents) = mesh("top");
    let [a, _b, c] = &hosts;
    let [agent, _others @ ..] = agents;
    assert_eq!(traffic::ping(a, Segment::v4(2), 1).lost(), 0);
    let terminal = Tmux::start(&lab, a, (80, 24), &command(&lab, ""));
    wait_line(&terminal, "ovh          D r     direct");
    let screen = terminal.screen();
    assert_eq!(screen.len(), 24, "{screen:?}");
    assert!(screen[0].starts_with("l2mesh top  hetzner on eth0, mode tc  agent "), "{screen:?}");
    assert_eq!(screen[1], "1 mesh: 2 peers, 0 through a relay, 0 down");
    assert_eq!(screen[2], "peer         D 1 2 3 path taken     rtt ms loss   out/s    B/s    in/s    B/s");
    assert!(screen[3].starts_with("enovance     D       direct "), "{screen:?}");
    // One MAC address, or two if the other host has said something.
    assert!(screen[5].starts_with("2 networks: 1, ") && screen[5].ends_with(" MAC addresses"), "{screen:?}");
    assert!(screen[7].starts_with("lan                  16 (0x10)  "), "{screen:?}");
    assert_eq!(screen[8], "3 MAC addresses: frozen, moved most, heard last");
    let station = format!("{} lan                ovh ", c.mac("l2m0"));
    assert!(screen[10..12].iter().any(|line| line.starts_with(&station)), "{screen:?}");
    assert!(screen[11..13].contains(&"4 events (UTC)".to_owned()), "{screen:?}");
    assert!(screen.iter().any(|line| line.ends_with("the host's firewall lets UDP port 4789 in")), "{screen:?}");
    assert!(screen[23].starts_with("q quit  Tab part "), "{screen:?}");
    assert!(has_colours(&terminal.coloured()), "{:?}", terminal.coloured());

    // Rates are those of frames: 50 pings a second.
    let _pings = a.spawn("ping", &["-i", "0.02", "10.8.0.3"]);
    wait_for("rates", LIMIT, || {
        let line = wait_line(&terminal, "ovh ");
        let out = line.split_whitespace().nth_back(3).and_then(|rate| rate.parse::<f64>().ok());
        if out.is_some_and(|out| (35.0..65.0).contains(&out)) { Ok(()) } else { Err(line) }
    });
    lab.cut(a, c);
    wait_line(&terminal, "ovh          x R     via enovance");
    wait_line(&terminal, "1 mesh: 2 peers, 1 through a relay, 0 down");
    wait_for("the event", LIMIT, || {
        let screen = terminal.screen().join("\n");
        if screen.contains("frames go through enovance") { Ok(()) } else { Err(screen) }
    });

    // What the others have told.
    terminal.press(&["m"]);
    wait_line(&terminal, "1 mesh: 3 nodes, D direct R relayed X down");
    wait_line(&terminal, "1 enovance     . D D");
    wait_line(&terminal, "2 hetzner      D . R");
    wait_line(&terminal, "3 ovh          D R .");
    terminal.press(&["m"]);

    // Smaller: one part at a time.
    terminal.resize(60, 10);
    wait_for("a smaller screen", LIMIT, || {
        let screen = terminal.screen();
        let fits = screen.len() == 10 && screen.iter().all(|line| line.chars().count() <= 60);
        let has = |start: &str| screen.iter().any(|line| line.starts_with(start));
        if fits && has("1 mesh") && !has("2 networks") && has("q quit") { Ok(()) } else { Err(screen.join("\n")) }
    });
    terminal.press(&["Tab"]);
    wait_line(&terminal, "2 networks");
    terminal.press(&["4"]);
    wait_line(&terminal, "4 events");
    terminal.resize(80, 24);
    wait_line(&terminal, "1 mesh");
    terminal.press(&["p"]);
    wait_for("a pause", LIMIT, || {
        if terminal.screen()[0].contains("PAUSED") { Ok(()) } else { Err(terminal.screen().join("\n")) }
    });
    lab.heal(a, c);
    l2mesh_tests::Paths::of(a).wait_way(c, &l2mesh_tests::Way::Direct, LIMIT);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(terminal.screen().iter().any(|line| line.starts_with("ovh          x R ")), "it does not move");
    terminal.press(&["p"]);
    wait_line(&terminal, "ovh          D r     direct");

    // It needs no agent.
    agent.kill();
    wait_line(&terminal, "l2mesh top  hetzner on eth0, mode tc  no agent, paths frozen");
    wait_line(&terminal, "4 events (UTC): of paths only, without an agent");
    wait_line(&terminal, "ovh          D r     direct");
    terminal.press(&["q"]);
    assert_restored(&terminal);
}

#[test]
fn signals_and_colours() {
    let (lab, hosts, [agent, _others @ ..]) = mesh("top, signals");
    let a = &hosts[0];
    let terminal = Tmux::start(&lab, a, (80, 24), &command(&lab, "NO_COLOR=1"));
    wait_line(&terminal, "ovh          D");
    let coloured = terminal.coloured();
    assert!(!has_colours(&coloured), "{coloured:?}");
    terminal.signal(Signal::SIGTERM);
    assert_restored(&terminal);
    drop(terminal);
    // A mesh that goes and comes back, and a terminal that goes.
    let terminal = Tmux::start(&lab, a, (80, 24), &command(&lab, "trap '' HUP; exec"));
    wait_line(&terminal, "ovh          D");
    let top = terminal.ask("#{pane_pid}");
    agent.stop();
    wait_line(&terminal, "l2mesh top  hetzner on eth0, mode tc  no mesh is attached");
    let _agent = a.attach(&["--config", &lab.directory().join("mesh.toml").display().to_string(), "--mode", "tc"]);
    wait_line(&terminal, "l2mesh top  hetzner on eth0, mode tc  agent ");
    drop(terminal);
    wait_for("the end without a terminal", LIMIT, || match fs::read_to_string(format!("/proc/{top}/cmdline")) {
        Ok(line) if !line.is_empty() => Err(line),
        _ => Ok(()),
    });
    // Neither without a terminal nor without a mesh.
    let output = a.try_l2mesh(&["top"]);
    assert!(sentence(&output).starts_with("top needs a terminal"), "{output:?}");
    let other = lab.host("other");
    assert!(sentence(&other.try_l2mesh(&["top"])).starts_with("no mesh is attached here"));
}
