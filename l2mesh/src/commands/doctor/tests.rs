//! What the checks say of facts that cannot be made in a namespace, or that tests with frames would take long to make.

use std::net::{IpAddr, Ipv4Addr};

use l2mesh_common::wire::{Difference, MacAddr};

use super::{
    facts::{Configuration, Facts, Long, Probed, healthy},
    finding::{Finding, Level},
    judge,
    rules::Rule,
};
use crate::agent::Receive;

/// All that is not well.
fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<Finding> {
    let mut facts = healthy();
    change(&mut facts);
    judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok).collect()
}

/// The only thing that is not well.
#[track_caller]
fn only(change: impl FnOnce(&mut Facts)) -> (Level, String) {
    let findings = wrong(change);
    let [Finding { check, level, found, advice: Some(advice) }] = &findings[..] else {
        panic!("not one: {findings:#?}")
    };
    (*level, format!("{check}: {found}: {advice}"))
}

#[track_caller]
fn assert_says(change: impl FnOnce(&mut Facts), level: Level, words: &[&str]) {
    let (found, text) = only(change);
    assert_eq!(found, level, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
}

#[test]
fn a_healthy_mesh() {
    assert_eq!(wrong(|_| ()), []);
    let checks: Vec<_> = judge(&healthy()).into_iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        [
            "kernel",
            "jit",
            "bpffs",
            "agent",
            "interface",
            "rss",
            "offloads",
            "mtu",
            "programs",
            "route",
            "firewall",
            "rp_filter",
            "port",
            "addresses",
            "strangers",
            "peer",
            "configuration",
            "path mtu",
            "losses"
        ]
    );
}

#[test]
fn kernel_and_agent() {
    use Level::{Fault, Warning};
    assert_says(|it| it.host.no_tcx = Some("EINVAL".into()), Fault, &["kernel: ", "tcx: EINVAL", "6.6"]);
    assert_says(|it| it.host.jit = Some(false), Fault, &["jit: ", "interpreted", "bpf_jit_enable=1"]);
    assert_eq!(wrong(|it| it.host.jit = None), []);
    assert_says(|it| it.host.is_bpffs = false, Fault, &["bpffs: /sys/fs/bpf/l2mesh is not on a BPF file system"]);
    assert_says(|it| it.host.agent = None, Warning, &["agent: does not run", "l2mesh attach --iface eth0"]);
    assert_says(|it| it.host.is_stopped = true, Fault, &["process 7 is stopped", "kill -CONT 7"]);
    assert_says(
        |it| it.host.file = Some(Difference::Mesh),
        Warning,
        &["file: what is attached is not what the file says"],
    );
}

#[test]
fn the_card() {
    use Level::{Fault, Warning};
    assert_says(|it| it.card.up = false, Fault, &["eth0 is down", "ip link set eth0 up"]);
    assert_says(|it| it.card.has_carrier = false, Fault, &["eth0 has no carrier"]);
    assert_says(|it| it.card.has_ours = false, Fault, &["our program is not on eth0 any more"]);
    let flow = |it: &mut Facts| it.card.spreads = vec![("udp4", Some(false)), ("udp6", Some(true))];
    assert_says(flow, Warning, &["rss: eth0 chooses among its 4", "ethtool -N eth0 rx-flow-hash udp4 sdfn"]);
    let one = |it: &mut Facts| {
        flow(it);
        it.card.rx_queues = 1;
    };
    assert_eq!(wrong(one), []);
    assert_says(|it| it.card.lro = true, Warning, &["(LRO)", "ethtool -K eth0 lro off"]);
    assert_says(|it| it.card.gro = false, Warning, &["(GRO)", "ethtool -K eth0 gro on"]);
    assert_says(
        |it| it.networks[0].mtu = 1500,
        Fault,
        &["l2m10 (lan) has MTU 1500", "only 1450 octets", "ip link set l2m10 mtu 1450"],
    );
    assert_says(
        |it| it.card.foreign_xdp = Some("filter (id 9)".into()),
        Warning,
        &["programs: the XDP program filter (id 9)"],
    );
    assert_says(|it| it.card.before_us = vec!["cilium (id 3)".into()], Warning, &["before ours: cilium (id 3)"]);
    assert_says(
        |it| it.card.losses = vec![("eth0".into(), "rx missed", 90)],
        Warning,
        &["eth0: rx missed grew by 90 in 1.2 s"],
    );
    assert_eq!(wrong(|it| it.card.losses = vec![("eth0".into(), "rx dropped", 1)]), [], "one is none");
    assert_says(
        |it| it.card.drops = vec![("no-next-hop", 8, "why")],
        Warning,
        &["dropped 8 frames in 1.2 s as no-next-hop: why"],
    );
}

#[test]
fn the_port() {
    use Level::{Fault, Warning};
    let dropped = |receive| {
        move |it: &mut Facts| {
            it.port.arrives = Some(false);
            it.card.receive = receive;
            it.port.rules =
                vec![Rule { table: "inet host".into(), chain: "input".into(), text: "`udp dport 4789 drop`".into() }];
        }
    };
    let words = [
        "firewall: this host's own firewall drops UDP port 4789 (nft table inet host",
        "nft insert rule inet host input udp dport 4789 accept",
    ];
    assert_says(dropped(Receive::Tc), Fault, &[&words[..], &["bulk TCP"]].concat());
    assert_says(dropped(Receive::Kernel), Fault, &[&words[..], &["nothing is received"]].concat());
    assert_says(dropped(Receive::Xdp), Warning, &words);
    let held = |it: &mut Facts| (it.port.owner, it.port.own) = (Some("the vxlan device vx7".into()), 4790);
    assert_says(held, Warning, &["port: UDP port 4789 belongs to the vxlan device vx7; both work, and 4790 is ours"]);
    let kernel = |it: &mut Facts| {
        held(it);
        it.card.receive = Receive::Kernel;
    };
    assert_says(kernel, Fault, &["mode kernel needs it"]);
    let private = |it: &mut Facts| {
        held(it);
        it.port.is_private = true;
    };
    assert_eq!(wrong(private), []);
    let crooked = |it: &mut Facts| (it.port.rp_filter, it.peers[0].by_underlay) = (1, false);
    assert_says(crooked, Fault, &["rp_filter: strict on eth0", "the way to b leaves by another", "rp_filter=2"]);
    assert_eq!(wrong(|it| it.port.rp_filter = 1), [], "straight");
}

#[test]
fn peers() {
    use Level::{Fault, Warning};
    let no_way = |it: &mut Facts| {
        it.peers[0].way = Err(("no route to 192.0.2.11".into(), "add a route".into()));
        it.peers[0].probe = Probed::Silence;
    };
    assert_says(no_way, Fault, &["route: b: no route to 192.0.2.11: add a route"]);
    let probed = |probe, hears, pings| {
        move |it: &mut Facts| (it.peers[0].probe, it.peers[0].hears, it.peers[0].pings) = (probe, hears, pings)
    };
    assert_says(
        probed(Probed::Silence, true, true),
        Fault,
        &[
            "b (192.0.2.11) is reached one way only",
            "what we send does not arrive there",
            "of b must let UDP port 4789 in from 192.0.2.10",
        ],
    );
    assert_says(
        probed(Probed::Silence, false, true),
        Fault,
        &[
            "answers no probe, and none of its own arrives: pings are answered",
            "in: here from 192.0.2.11, there from 192.0.2.10",
        ],
    );
    assert_says(probed(Probed::Silence, false, false), Fault, &["pings are not answered either", "is it up"]);
    assert_says(probed(Probed::Refused, false, true), Fault, &["nobody holds UDP port 4789", "l2mesh attach` there"]);
    assert_says(probed(Probed::Unsent("EPERM".into()), true, true), Fault, &["cannot be sent: EPERM", "(OUTPUT)"]);
    let plain = |pings| {
        move |it: &mut Facts| {
            (it.peers[0].is_probed, it.peers[0].probe, it.peers[0].pings) = (false, Probed::Silence, pings);
        }
    };
    assert_eq!(wrong(plain(true)), []);
    assert_says(plain(false), Warning, &["answers no pings, and it is not probed"]);
    let other = |difference| move |it: &mut Facts| it.peers[0].configuration = Configuration::Other(difference);
    assert_says(other(Difference::Mesh), Fault, &["configuration: b has another configuration", "the same file"]);
    assert_says(other(Difference::Mtu), Fault, &["another MTU at b", "write `mtu"]);
    assert_eq!(wrong(|it| it.peers[0].configuration = Configuration::Unknown), []);
    let long = |long| move |it: &mut Facts| it.peers[0].long = long;
    assert_says(
        long(Long::Lost(1450, Some(1350))),
        Fault,
        &["path mtu: packets of 1450", "to b and back, those of 1350 do", "`mtu = 1350`"],
    );
    assert_says(long(Long::Lost(1450, None)), Fault, &["packets of 1450", "l2mesh ping b"]);
    assert_says(long(Long::Unsent(1450, "too long".into())), Fault, &["cannot be sent to b: too long"]);
}

#[test]
fn addresses() {
    let (own, other) = (Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 11));
    let macs = [1, 2].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    let claimed = |address, macs: &[MacAddr]| {
        let macs = macs.iter().copied().collect();
        move |it: &mut Facts| {
            it.wire.own.insert(own);
            it.wire.claims.insert(address, macs);
        }
    };
    assert_says(
        claimed(own, &macs[..1]),
        Level::Fault,
        &["192.0.2.10 is an address of this host, and 02:00:00:00:00:01 claims it"],
    );
    assert_says(
        claimed(other, &macs),
        Level::Fault,
        &["two hosts claim 192.0.2.11 (b): 02:00:00:00:00:01 and 02:00:00:00:00:02"],
    );
    assert_eq!(wrong(claimed(other, &macs[..1])), []);
    let stranger = |probes| move |it: &mut Facts| it.wire.strangers.extend([(IpAddr::from([192, 0, 2, 12]), probes)]);
    assert_says(stranger(true), Level::Fault, &["192.0.2.12 sends probes", "two hosts run as one node"]);
    assert_says(stranger(false), Level::Warning, &["192.0.2.12 sends to UDP port 4789"]);
    let unheard = |it: &mut Facts| it.card.drops = vec![("probe-stranger", 12, "why")];
    assert_says(unheard, Level::Fault, &["strangers: 12 probes came to UDP port 4789 from addresses of no node"]);
}
