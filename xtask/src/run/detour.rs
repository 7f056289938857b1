//! A path dies, frames go another way round, and back when the path is whole again: measured by a datagram every millisecond.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use l2mesh_tests::{Host, Lab, Leg, Paths, Way, flow::Flow};

use super::title;

/// Datagrams a second.
const RATE: u64 = 1000;
/// Until everybody knows everybody, and until a path is trusted again.
const LIMIT: Duration = Duration::from_secs(20);
/// How long each way is looked at.
const LOOK: u64 = 300;

/// Cuts the first two hosts off from each other; the third relays.
pub(super) fn show(lab: &Lab, hosts: &[Host; 3], addresses: [Ipv4Addr; 3]) {
    let [near, far, relay] = hosts;
    let (a, b) = (near.name(), far.name());
    title(&format!("The path between {a} and {b} dies; both still reach {}", relay.name()));
    println!("  {a} sends a numbered datagram to {b} every millisecond");
    let paths = Paths::of(near);
    paths.wait_way(far, &Way::Direct, LIMIT);
    paths.wait_ready(far, 1, LIMIT);
    let mut legs = lab.legs(near, far);
    let flow = Flow::start(near, far, addresses[1], RATE);
    flow.wait_more(LOOK);
    let _before = flow.take_gap();
    let start = Instant::now();
    let line = |text: &str| println!("  {:>6} ms  {text}", start.elapsed().as_millis());

    legs.iter_mut().for_each(Leg::cut);
    line("cut, in both directions: both links stay up, and nobody is told");
    paths.wait_way(far, &Way::via(relay), LIMIT);
    line(&format!("{a} has missed three answers to its probes: frames go through {}", relay.name()));
    flow.wait_more(LOOK);
    let hiccup = flow.take_gap().received;
    line(&format!("{b} received nothing for {} ms, and everything since", hiccup.as_millis()));
    let status = near.l2mesh_text(&["status"]);
    print!("{}", peers(&status).lines().map(|line| format!("             {line}\n")).collect::<Vec<_>>().concat());

    legs.iter_mut().for_each(Leg::heal);
    let healed = Instant::now();
    line("the path is whole again");
    paths.wait_way(far, &Way::Direct, LIMIT);
    let time = healed.elapsed().as_millis();
    line(&format!("it has answered long enough to be trusted, {time} ms: frames go directly"));
    flow.wait_more(LOOK);
    let back = flow.take_gap().received;
    let report = flow.stop();
    line(&format!("on the way back the longest time without a datagram was {} ms", back.as_millis()));
    println!(
        "  of {} datagrams {} were lost, all at the cut; {} arrived twice, {} out of order",
        report.sent, report.lost, report.duplicates, report.late
    );
}

/// The table of peers in what `l2mesh status` says.
fn peers(status: &str) -> String {
    let lines = status.lines().skip_while(|line| !line.trim_start().starts_with("peer "));
    let rows: Vec<_> = lines.map(str::trim).take_while(|line| !line.is_empty()).collect();
    rows.join("\n")
}
