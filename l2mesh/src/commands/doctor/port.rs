//! Checks of the UDP port: who has it, and whether the host itself lets it in.

use super::{
    facts::{Facts, PortFacts},
    finding::Finding,
    rules::Rule,
};
use crate::agent::Receive;

pub(super) fn owner(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "port";
    let PortFacts { port, own, is_private, owner, .. } = &facts.port;
    let Some(owner) = owner else {
        return vec![match (facts.host.is_attached, *is_private || own != port) {
            (true, false) => Finding::ok(CHECK, format!("UDP port {port} is ours")),
            (true, true) => Finding::ok(CHECK, format!("UDP port {port} is left to others, {own} is ours")),
            (false, _) => Finding::ok(CHECK, format!("UDP port {port} is free")),
        }];
    };
    let found = format!("UDP port {port} belongs to {owner}");
    vec![if *is_private {
        Finding::ok(CHECK, format!("{found}, as private-port wants; {own} is ours"))
    } else if facts.card.receive == Receive::Kernel {
        Finding::fault(
            CHECK,
            format!("{found}, and mode kernel needs it"),
            "free it, or give the mesh another port on every host",
        )
    } else if facts.host.is_attached {
        Finding::warning(
            CHECK,
            format!("{found}; both work, and {own} is ours"),
            format!(
                "the host's firewall must let {own} in too; free {port} and attach again, or say private-port if that is as it should be"
            ),
        )
    } else {
        Finding::warning(
            CHECK,
            format!("{found}: attach would take the next free one"),
            "free it, or say private-port if that is as it should be",
        )
    }]
}

/// A packet sent through the host's own firewall, and the rules that may have eaten it.
pub(super) fn firewall(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "firewall";
    let PortFacts { own, arrives, rules, .. } = &facts.port;
    let own = *own;
    let named = rules.iter().map(Rule::to_string).collect::<Vec<_>>().join("; ");
    let by = if rules.is_empty() { String::new() } else { format!(" ({named})") };
    let allow = if rules.is_empty() {
        format!(
            "allow it, before what drops it: as with `iptables -I INPUT -p udp --dport {own} -j ACCEPT` or `nft insert rule inet filter \
             input udp dport {own} accept`"
        )
    } else {
        // Each of them drops what the others let pass.
        let mut commands: Vec<String> = rules.iter().map(|rule| format!("`{}`", rule.allow(own))).collect();
        commands.dedup();
        format!("allow it: {}", commands.join(" and "))
    };
    vec![match (arrives, facts.card.receive) {
        (Some(true), _) => Finding::ok(CHECK, format!("this host lets UDP port {own} in")),
        (Some(false), Receive::Tc) => Finding::fault(
            CHECK,
            format!(
                "this host's own firewall drops UDP port {own}{by}: pings pass, but bulk TCP received in mode tc hangs"
            ),
            allow,
        ),
        (Some(false), Receive::Kernel) => Finding::fault(
            CHECK,
            format!("this host's own firewall drops UDP port {own}{by}: nothing is received in mode kernel"),
            allow,
        ),
        (Some(false), Receive::Xdp) => Finding::warning(
            CHECK,
            format!(
                "this host's own firewall drops UDP port {own}{by}: only mode xdp does without it, and fragments are lost"
            ),
            allow,
        ),
        (None, _) if !rules.is_empty() => {
            Finding::warning(CHECK, format!("this host's own firewall may drop UDP port {own}{by}"), allow)
        }
        (None, _) if facts.host.is_attached => Finding::ok(CHECK, "not tested: no peer is reached over the interface"),
        (None, _) => Finding::ok(CHECK, format!("no rule was found that drops UDP port {own}; attach tests it")),
    }]
}

/// Strict reverse path filtering drops what comes by another interface than answers would take.
pub(super) fn rp_filter(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "rp_filter";
    let name = &facts.card.name;
    let mode = match facts.port.rp_filter {
        0 => "off",
        1 => "strict",
        _ => "loose",
    };
    let crooked = facts.peers.iter().filter(|peer| peer.way.is_ok() && !peer.by_underlay && peer.address.is_ipv4());
    let crooked: Vec<&str> = crooked.map(|peer| &*peer.name).collect();
    vec![if facts.port.rp_filter == 1 && !crooked.is_empty() {
        Finding::fault(
            CHECK,
            format!(
                "strict on {name}, but the way to {} leaves by another interface: what arrives from there on {name} is dropped \
                 where the kernel receives it",
                crooked.join(", ")
            ),
            format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2 net.ipv4.conf.all.rp_filter=2, or a route by {name}"),
        )
    } else {
        Finding::ok(CHECK, mode)
    }]
}
