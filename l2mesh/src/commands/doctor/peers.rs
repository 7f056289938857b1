//! Checks of the other nodes: the way there, and what comes back.

use l2mesh_common::{verdict::Verdict, wire::Difference};

use super::{
    facts::{Configuration, Facts, Long, PeerFacts, Probed},
    finding::Finding,
};

/// Peers of which nothing is to be told are told together.
fn all_or_each(check: &'static str, findings: Vec<Finding>, all_is_well: String) -> Vec<Finding> {
    if findings.is_empty() { vec![Finding::ok(check, all_is_well)] } else { findings }
}

fn names<'a>(peers: impl Iterator<Item = &'a PeerFacts>) -> String {
    const SHOWN: usize = 5;
    let all: Vec<&str> = peers.map(|peer| &*peer.name).collect();
    match all.len() {
        0 => "nobody".to_owned(),
        1..=SHOWN => all.join(", "),
        more => format!("{} and {} more", all[..SHOWN].join(", "), more - SHOWN),
    }
}

/// Route and neighbour.
pub(super) fn ways(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "route";
    let lost = facts.peers.iter().filter_map(|peer| match &peer.way {
        Ok(_) => None,
        Err((found, advice)) => Some(Finding::fault(CHECK, format!("{}: {found}", peer.name), advice)),
    });
    let well = match facts.peers.as_slice() {
        [only] => {
            only.way.as_ref().map_or_else(|_| String::new(), |way| format!("{} ({}) {way}", only.name, only.address))
        }
        all => format!("{} peers have a route and a next hop", all.len()),
    };
    all_or_each(CHECK, lost.collect(), well)
}

/// Whether frames get there and back.
pub(super) fn reach(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "peer";
    let judged = facts.peers.iter().filter_map(|peer| judge(peer, facts));
    let probed = facts.peers.iter().filter(|peer| matches!(peer.probe, Probed::Answered(_)));
    let count = probed.clone().count();
    let mut findings: Vec<Finding> = judged.collect();
    let slowest = probed.clone().filter_map(|peer| match peer.probe {
        Probed::Answered(rtt) => rtt,
        _ => None,
    });
    let slowest = slowest.fold(None, |slowest: Option<f64>, rtt| Some(slowest.map_or(rtt, |it| it.max(rtt))));
    if count > 0 {
        let rtt = slowest.map_or_else(String::new, |rtt| format!(", after {rtt} ms at most"));
        findings.insert(0, Finding::ok(CHECK, format!("UDP goes both ways: {} answered probes{rtt}", names(probed))));
    }
    findings
}

/// `None` where all is well.
fn judge(peer: &PeerFacts, facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "peer";
    let PeerFacts { name, address, source, .. } = peer;
    let port = facts.port.port;
    let who = format!("{name} ({address})");
    let from = source.map_or_else(|| "this host".to_owned(), |source| source.to_string());
    let ping = if peer.pings { "pings are answered" } else { "pings are not answered either" };
    Some(match &peer.probe {
        Probed::Answered(_) | Probed::Untested => return None,
        // What is said about the way is enough.
        _ if peer.way.is_err() => return None,
        Probed::Unsent(reason) => Finding::fault(
            CHECK,
            format!("{who}: UDP to it cannot be sent: {reason}"),
            format!("a rule of this host's own firewall may drop what it sends (OUTPUT): allow UDP port {port} out"),
        ),
        Probed::Refused => Finding::fault(
            CHECK,
            format!("{who} is there, but its kernel says that nobody holds UDP port {port}"),
            "run `l2mesh attach` there, with the same port",
        ),
        Probed::Silence if !peer.is_probed && peer.pings => {
            Finding::ok(CHECK, format!("{who} answers pings; it is not probed (plain vxlan device, or probes = false)"))
        }
        Probed::Silence if !peer.is_probed => Finding::warning(
            CHECK,
            format!("{who} answers no pings, and it is not probed (plain vxlan device, or probes = false)"),
            "ping it inside the network",
        ),
        Probed::Silence if peer.hears => Finding::fault(
            CHECK,
            format!(
                "{who} is reached one way only: what it sends arrives here, what we send does not arrive there; {ping}"
            ),
            format!(
                "the firewall or security group of {name} must let UDP port {port} in from {from}; if it does, this side's must let \
                 it out"
            ),
        ),
        Probed::Silence => Finding::fault(
            CHECK,
            format!("{who} answers no probe, and none of its own arrives: {ping}"),
            if peer.pings {
                format!(
                    "firewalls and security groups must let UDP port {port} in: here from {address}, there from {from}; \
                     `l2mesh doctor` there says whether what we send arrives"
                )
            } else {
                format!(
                    "is it up, and is {address} its address? Security groups must let UDP port {port} in, at both ends"
                )
            },
        ),
    })
}

/// What both ends are configured to be.
pub(super) fn configuration(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let differing = facts.peers.iter().filter_map(|peer| {
        let name = &peer.name;
        let Configuration::Other(difference) = peer.configuration else { return None };
        Some(match difference {
            Difference::Mesh => Finding::fault(
                CHECK,
                format!("{name} has another configuration than this host: nodes, networks or the port differ"),
                "give both hosts the same file, then `l2mesh reload`",
            ),
            Difference::Mtu => Finding::fault(
                CHECK,
                format!("the networks have another MTU at {name} than here, because the underlays have"),
                "write `mtu = ...` with the least of them into the [[network]] of the file",
            ),
        })
    });
    let same = facts.peers.iter().filter(|peer| peer.configuration == Configuration::Same);
    let silent = facts.peers.iter().filter(|peer| peer.configuration == Configuration::Unknown).count();
    let well = match (same.clone().count(), silent) {
        (0, _) => "no peer has said what its configuration is (flags, another version, or not reached)".to_owned(),
        (_, 0) => format!("the same here and at {}", names(same)),
        (_, silent) => {
            let have = if silent == 1 { "peer has" } else { "peers have" };
            format!("the same here and at {}; {silent} {have} not said", names(same))
        }
    };
    all_or_each(CHECK, differing.collect(), well)
}

/// Probes as long as frames may be, there and back.
pub(super) fn long(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "path mtu";
    let lost = facts.peers.iter().filter_map(|peer| {
        let name = &peer.name;
        match &peer.long {
            Long::Untested | Long::Answered(_) => None,
            Long::Lost(size, Some(greatest)) => Some(Finding::fault(
                CHECK,
                format!("packets of {size} octets do not get to {name} and back, those of {greatest} do: the way takes less than its ends"),
                format!("write `mtu = {greatest}` into the [[network]] of the file, or have the way mended"),
            )),
            Long::Lost(size, None) => Some(Finding::fault(
                CHECK,
                format!("packets of {size} octets do not get to {name} and back, short ones do"),
                format!("`l2mesh ping {name} --size ...` tries others"),
            )),
            Long::Unsent(size, reason) => Some(Finding::fault(
                CHECK,
                format!("packets of {size} octets cannot be sent to {name}: {reason}"),
                "raise the MTU of the underlay interface, or write a lesser `mtu` into the [[network]] of the file",
            )),
        }
    });
    let sizes = facts.peers.iter().filter_map(|peer| match peer.long {
        Long::Answered(size) => Some(size),
        _ => None,
    });
    let well = sizes.max().map_or_else(
        || "not tested: no peer answers".to_owned(),
        |size| format!("packets of {size} octets go both ways"),
    );
    all_or_each(CHECK, lost.collect(), well)
}

/// Addresses that two hosts claim.
pub(super) fn duplicates(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "addresses";
    let wire = &facts.wire;
    let doubled = wire.claims.iter().filter_map(|(address, macs)| {
        let list = macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        if wire.own.contains(address) {
            return (!macs.is_empty()).then(|| {
                Finding::fault(
                    CHECK,
                    format!("{address} is an address of this host, and {list} claims it too"),
                    "give one of the two hosts another address: each takes the other's frames",
                )
            });
        }
        let owner = facts.peers.iter().find(|peer| peer.address == *address);
        let owner = owner.map_or_else(|| "a gateway".to_owned(), |peer| peer.name.clone());
        (macs.len() > 1).then(|| {
            Finding::fault(
                CHECK,
                format!("two hosts claim {address} ({owner}): {list}"),
                "give one of them another address: frames go to the one that was heard last",
            )
        })
    });
    all_or_each(CHECK, doubled.collect(), "nobody claims an address of somebody else".to_owned())
}

/// Who sends to the port and is no node.
pub(super) fn strangers(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "strangers";
    let port = facts.port.port;
    let strange = facts.wire.strangers.iter().map(|(address, &probes)| {
        if probes {
            Finding::fault(
                CHECK,
                format!("{address} sends probes to UDP port {port} as a node does, but no node has that address here"),
                "two hosts run as one node (--node), or NAT changes a node's address (`from`), or its file has another address than ours",
            )
        } else {
            Finding::warning(
                CHECK,
                format!("{address} sends to UDP port {port}, but no node has that address here: it is dropped"),
                "add it to the file, or keep it away by a firewall",
            )
        }
    });
    let mut strange: Vec<Finding> = strange.take(10).collect();
    let unheard = facts.card.drops.iter().find(|(verdict, ..)| *verdict == Verdict::ProbeStranger.label());
    // In mode xdp they are dropped before anybody can hear them.
    if let Some((_, count, _)) = unheard.filter(|_| strange.is_empty()) {
        strange.push(Finding::fault(
            CHECK,
            format!("{count} probes came to UDP port {port} from addresses of no node"),
            "two hosts run as one node (--node), or NAT changes a node's address (`from`), or its file has another address than ours; \
             a capture in front of this host shows the address",
        ));
    }
    all_or_each(CHECK, strange, format!("only nodes send to UDP port {port}"))
}
