use std::time::Duration;

use l2mesh_common::wire::Reached;
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::commands::{
    maps::{Matrix, PathRow, RoundTrip},
    top::{
        rates::Rates,
        sample::{MacLine, NetworkLine, PeerLine},
    },
};

fn path(relay: Option<&str>, up: bool, in_use: bool) -> PathRow {
    PathRow {
        peer: String::new(),
        path: relay.map_or_else(|| "direct".to_owned(), |relay| format!("via {relay}")),
        relay: relay.map(str::to_owned),
        up,
        in_use,
        probed: true,
        state: if up { "up" } else { "down" }.to_owned(),
        rtt_ms: Some(RoundTrip { min: 0.2, median: 12.3, p99: 20.0 }),
        loss: Some(0.02),
        probes: 600,
        since: None,
        reason: None,
        mtu: 1450,
        recover: 10,
        answers: 600,
        slot: 0,
    }
}

fn screen(peers: usize) -> Screen {
    let mut screen = Screen::new(Theme { has_colours: false });
    let rates = Rates { sent_frames: 1234.0, sent_bytes: 1.5e6, received_frames: 5.0, received_bytes: 0.0 };
    let plain = PathRow { probed: false, rtt_ms: None, loss: None, ..path(None, true, true) };
    let ways = [
        vec![path(None, true, true), path(Some("ovh"), true, false)],
        vec![path(None, false, false), path(Some("ovh"), true, true), path(Some("scaleway"), false, false)],
        vec![path(None, false, true)],
        vec![plain],
    ];
    let peers = (0..peers).map(|number| PeerLine {
        name: format!("peer-{number}"),
        paths: ways[number % ways.len()].clone(),
        rates,
    });
    screen.sample = Sample {
        node: "hetzner".to_owned(),
        interface: "eth0".to_owned(),
        mode: "tc".to_owned(),
        agent: Some(123),
        peers: peers.collect(),
        matrix: matrix(),
        networks: vec![NetworkLine { name: "lan".to_owned(), vni: "65281 (0xff01)".to_owned(), macs: 2, rates }],
        macs: vec![
            MacLine {
                mac: "02:00:00:00:00:01".to_owned(),
                network: "lan".to_owned(),
                peer: "peer-1".to_owned(),
                age: Some(Duration::from_secs(3)),
                moves: 9,
                is_frozen: true,
            },
            MacLine {
                mac: "02:00:00:00:00:02".to_owned(),
                network: "lan".to_owned(),
                peer: "a-name-that-is-longer-than-its-column".to_owned(),
                age: None,
                moves: 0,
                is_frozen: false,
            },
        ],
        total: rates,
    };
    screen.from_agent = true;
    for number in 0..3 {
        screen.happened(Happened {
            at: format!("2026-11-28T04:00:0{number}Z"),
            kind: "path-relayed".into(),
            level: "warn".into(),
            peer: None,
            vni: None,
            mac: None,
            text: format!("event {number}"),
        });
    }
    screen
}

fn shown(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    terminal.draw(|frame| screen.draw(frame)).expect("it cannot fail");
    let buffer = terminal.backend().buffer();
    let line = |row| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn eighty_by_twenty_four() {
    let expected = "\
l2mesh top  hetzner on eth0, mode tc  agent 123  out 1.23k/s in 5/s
1 mesh: 4 peers, 1 through a relay, 1 down
peer         D 1 2 3 path taken     rtt ms loss   out/s    B/s    in/s    B/s
peer-0       D r     direct           12.3   2%   1.23k  1.50M       5      0
peer-1       x R x   via ovh          12.3   2%   1.23k  1.50M       5      0
peer-2       X       direct           12.3   2%   1.23k  1.50M       5      0
peer-3       P       direct                       1.23k  1.50M       5      0
2 networks: 1, 2 MAC addresses
network              vni                    macs   out/s    B/s    in/s    B/s
lan                  65281 (0xff01)            2   1.23k  1.50M       5      0
3 MAC addresses: frozen, moved most, heard last
mac               network            behind                heard  moves
02:00:00:00:00:01 lan                peer-1              3 s ago      9  frozen
02:00:00:00:00:02 lan                a-name-that-is-lo~   static      0
4 events (UTC)
04:00:02 event 2
04:00:01 event 1
04:00:00 event 0





q quit  Tab part  arrows move  m matrix  p pause  D R taken  d r up  x X down";
    assert_eq!(shown(&mut screen(4), 80, 24).join("\n"), expected);
}

/// Three nodes, of which the last has not said anything.
fn matrix() -> Matrix {
    let (direct, relay, down, unknown) = (Reached::Directly, Reached::ByRelay, Reached::Not, Reached::Unknown);
    Matrix {
        nodes: ["enovance", "hetzner", "ovh"].map(str::to_owned).to_vec(),
        rows: vec![vec![unknown, direct, relay], vec![direct, unknown, down], vec![unknown; 3]],
    }
}

#[test]
fn who_reaches_whom() {
    let mut screen = screen(4);
    screen.key(KeyCode::Char('m').into());
    let expected = "\
1 mesh: 3 nodes, D direct R relayed X down
from \\ to      1 2 3
1 enovance     . D R
2 hetzner      D . X
3 ovh          ? ? .
2 networks: 1, 2 MAC addresses";
    assert_eq!(shown(&mut screen, 80, 24)[1..7].join("\n"), expected);
    screen.key(KeyCode::Char('m').into());
    assert!(shown(&mut screen, 80, 24)[1].starts_with("1 mesh: 4 peers, "));

    // More than there is room for: in parts.
    let nodes = 0..100;
    screen.sample.matrix = Matrix {
        nodes: nodes.clone().map(|node| format!("node-{node}")).collect(),
        rows: nodes.map(|_| vec![Reached::Directly; 100]).collect(),
    };
    screen.key(KeyCode::Char('m').into());
    let lines = shown(&mut screen, 80, 24);
    assert!(lines[1].contains(", columns 1-16 < >") && lines[1].ends_with("1-11 of 100"), "{lines:?}");
    assert!(lines[2].ends_with("  15  16") && lines[3].starts_with("  1 node-0         .   D   D"), "{lines:?}");
    for _ in 0..20 {
        assert_eq!(screen.key(KeyCode::Char('>').into()), Next::On);
    }
    let lines = shown(&mut screen, 80, 24);
    assert!(lines[2].ends_with("  99 100") && lines[1].contains("columns 85-100 < >"), "{lines:?}");
    screen.key(KeyCode::Char('<').into());
    assert!(shown(&mut screen, 80, 24)[1].contains("columns 75-90 < >"));
}

/// From nothing to more than anybody has: no panic, and the headline is there.
#[test]
fn any_size() {
    for peers in [0, 4, 300] {
        for (width, height) in [(1, 1), (2, 2), (20, 5), (40, 13), (80, 14), (80, 24), (200, 60), (500, 200)] {
            for focus in "1234m".chars() {
                let mut screen = screen(peers);
                assert_eq!(screen.key(KeyCode::Char(focus).into()), Next::On);
                let lines = shown(&mut screen, width, height);
                assert!(lines[0].starts_with("l2mesh top"[..10.min(usize::from(width))].trim_end()), "{lines:?}");
            }
        }
    }
}

#[test]
fn keys() {
    let mut screen = screen(100);
    let titles = |screen: &mut Screen, height| shown(screen, 80, height).swap_remove(1);
    assert_eq!(titles(&mut screen, 24), "1 mesh: 100 peers, 25 through a relay, 25 down  1-11 of 100");
    screen.key(KeyCode::PageDown.into());
    screen.key(KeyCode::Down.into());
    assert_eq!(titles(&mut screen, 24), "1 mesh: 100 peers, 25 through a relay, 25 down  13-23 of 100");
    screen.key(KeyCode::End.into());
    assert_eq!(titles(&mut screen, 24), "1 mesh: 100 peers, 25 through a relay, 25 down  90-100 of 100");
    screen.key(KeyCode::Up.into());
    assert!(titles(&mut screen, 24).ends_with("  89-99 of 100"));
    screen.key(KeyCode::Home.into());
    screen.key(KeyCode::Tab.into());
    assert_eq!(titles(&mut screen, 8), "2 networks: 1, 2 MAC addresses", "small: only what was chosen");
    screen.key(KeyCode::BackTab.into());
    screen.key(KeyCode::BackTab.into());
    assert_eq!(titles(&mut screen, 8), "4 events (UTC)");
    assert!(!screen.is_paused);
    screen.key(KeyCode::Char('p').into());
    assert!(screen.is_paused && shown(&mut screen, 80, 24)[0].ends_with("PAUSED"));
    assert_eq!(screen.key(KeyCode::Char('q').into()), Next::End);
    assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::End);
}

#[test]
fn without_colours_there_are_none() {
    for tone in [Tone::Plain, Tone::Good, Tone::Doubtful, Tone::Bad, Tone::Faint, Tone::Title, Tone::Chosen] {
        let style = Theme { has_colours: false }.style(tone);
        assert_eq!((style.fg, style.bg), (None, None), "{tone:?}");
    }
    assert_eq!(Theme { has_colours: true }.style(Tone::Bad).fg, Some(Color::Red));
}
