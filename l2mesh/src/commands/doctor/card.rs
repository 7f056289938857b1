//! Checks of the underlay interface.

use super::{
    facts::{CardFacts, Facts},
    finding::Finding,
};
use crate::agent::Receive;

/// So few frames lost in a second are not told.
const FEW: u64 = 3;

pub(super) fn driver(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "interface";
    let CardFacts { name, driver, mode, up, has_carrier, has_ours, .. } = &facts.card;
    if !up {
        return vec![Finding::fault(CHECK, format!("{name} is down"), format!("ip link set {name} up"))];
    }
    if !has_carrier {
        return vec![Finding::fault(
            CHECK,
            format!("{name} has no carrier"),
            "look at the cable, or at the other end of the virtual one",
        )];
    }
    if facts.host.is_attached && !has_ours {
        return vec![Finding::fault(
            CHECK,
            format!("our program is not on {name} any more: nothing is received"),
            format!("l2mesh detach --iface {name}, then attach again"),
        )];
    }
    let driver = if driver.is_empty() { "no driver that says its name".to_owned() } else { format!("driver {driver}") };
    vec![Finding::ok(CHECK, format!("{name}: {driver}, mode {mode}"))]
}

/// Whether frames of one peer come to more than one processor.
pub(super) fn queues(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "rss";
    let CardFacts { name, rx_queues, spreads, .. } = &facts.card;
    if *rx_queues < 2 {
        return vec![Finding::ok(CHECK, format!("{name} has one receive queue"))];
    }
    let wrong: Vec<&str> =
        spreads.iter().filter(|(_, spreads)| *spreads == Some(false)).map(|(flow, _)| *flow).collect();
    if wrong.is_empty() {
        let said = spreads.iter().any(|(_, spreads)| spreads.is_some());
        let how = if said { "UDP ports count" } else { "the driver does not say by what" };
        return vec![Finding::ok(CHECK, format!("{name} has {rx_queues} receive queues: {how}"))];
    }
    let commands: Vec<String> =
        wrong.iter().map(|flow| format!("ethtool -N {name} rx-flow-hash {flow} sdfn")).collect();
    vec![Finding::warning(
        CHECK,
        format!(
            "{name} chooses among its {rx_queues} receive queues by addresses alone: all frames of a peer come to one processor"
        ),
        commands.join("; "),
    )]
}

pub(super) fn offloads(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "offloads";
    let CardFacts { name, lro, gro, receive, .. } = &facts.card;
    let mut findings = Vec::new();
    if *lro {
        findings.push(Finding::warning(
            CHECK,
            format!("{name} merges received packets (LRO) in a way that cannot be undone: what is forwarded or bridged is lost"),
            format!("ethtool -K {name} lro off"),
        ));
    }
    if !gro && *receive != Receive::Kernel {
        findings.push(Finding::warning(
            CHECK,
            format!("{name} merges no received packets (GRO): bulk TCP costs several times as much"),
            format!("ethtool -K {name} gro on"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "GRO is on, LRO is off"));
    }
    findings
}

/// Overlay interfaces against what the links to the peers take.
pub(super) fn mtu(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    let card = &facts.card;
    let mut findings = Vec::new();
    for network in facts.networks.iter().filter(|network| network.fits != 0 && network.mtu > network.fits) {
        let (interface, fits) = (&network.interface, network.fits);
        findings.push(Finding::fault(
            CHECK,
            format!(
                "{interface} ({}) has MTU {}, but with the outer headers only {fits} octets fit into the {} of {}",
                network.name, network.mtu, card.mtu, card.name
            ),
            format!(
                "ip link set {interface} mtu {fits}, for good `mtu = {fits}` in the [[network]] of every host's file; or a greater MTU for {}",
                card.name
            ),
        ));
    }
    if findings.is_empty() {
        let shown = facts.networks.iter().take(3).map(|it| format!("{} {}", it.interface, it.mtu));
        let shown = shown.collect::<Vec<_>>().join(", ");
        findings.push(Finding::ok(
            CHECK,
            format!("{} has {}, which takes those of the networks: {shown}", card.name, card.mtu),
        ));
    }
    findings
}

/// Programs of others in our way.
pub(super) fn others(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "programs";
    let CardFacts { name, before_us, foreign_xdp, .. } = &facts.card;
    let mut findings = Vec::new();
    if let Some(program) = foreign_xdp {
        findings.push(Finding::warning(
            CHECK,
            format!("the XDP program {program} of somebody else is on {name}: it sees received frames before us, and mode xdp is not possible"),
            format!("if frames are missing, `ip link set {name} xdp off` shows whether it takes them"),
        ));
    }
    if !before_us.is_empty() {
        findings.push(Finding::warning(
            CHECK,
            format!("at the TC ingress of {name}, before ours: {}: what they take we do not get", before_us.join(", ")),
            "attach l2mesh before them, or look at them if frames are missing: `bpftool net`",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("nobody else's is before ours on {name}")));
    }
    findings
}

/// Counters that grow.
pub(super) fn losses(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "losses";
    let CardFacts { losses, drops, seconds, .. } = &facts.card;
    let mut findings = Vec::new();
    for (interface, counter, count) in losses.iter().filter(|(.., count)| *count >= FEW) {
        findings.push(Finding::warning(
            CHECK,
            format!("{interface}: {counter} grew by {count} in {seconds:.1} s"),
            format!("`ip -s -s link show {interface}` and `ethtool -S {interface}` say more: rings too short, a processor that is busy, frames that nobody wants"),
        ));
    }
    // What becomes of probes is for the checks of peers to tell.
    for (verdict, count, meaning) in
        drops.iter().filter(|(verdict, count, _)| *count >= FEW && !verdict.starts_with("probe-"))
    {
        findings.push(Finding::warning(
            CHECK,
            format!("our programs dropped {count} frames in {seconds:.1} s as {verdict}: {meaning}"),
            "`l2mesh maps counters --watch`",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("no counter of lost frames grew in {seconds:.1} s")));
    }
    findings
}
