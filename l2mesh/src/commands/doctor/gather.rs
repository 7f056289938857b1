//! Asks for everything that the checks judge by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    time::Duration,
};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use l2mesh_common::{
    tables::Fact,
    verdict::{Fate, Verdict},
};
use tokio::time::{Instant, sleep};

use super::{
    ask::{Answer, Answers, everybody},
    facts::{CardFacts, Configuration, Facts, HostFacts, NetworkFacts, PeerFacts, PortFacts},
    rules,
    scene::{Peer, Scene, overhead},
};
use crate::{
    agent::{Receive, control::live_agent, self_test},
    dataplane::{
        object::{Tc, XDP},
        pins::{OWN_ROOT, is_bpffs},
        tables::Tables,
    },
    underlay::{
        features::{active_features, spreads_udp_by_ports},
        next_hop::{NextHop, NoNextHop, Writer, next_hop},
        processes::{Holder, is_stopped, udp_holder},
        traffic::losses,
    },
};

/// How long a neighbour may take to answer.
const NEIGHBOURS: Duration = Duration::from_millis(1500);

/// All facts. Some seconds where peers do not answer.
///
/// # Errors
/// The kernel cannot be asked, or the tables cannot be read.
pub(super) async fn gather(scene: &Scene) -> anyhow::Result<Facts> {
    let (before, drops_before) = (losses()?, drops(scene)?);
    let ways = ways(scene).await?;
    let answers = everybody(scene, &on_link(scene).await?).await?;
    let (after, drops_after) = (losses()?, drops(scene)?);
    let devices = scene.networks.iter().map(|network| (network.index, &network.interface)).take(20);
    let devices: BTreeMap<u32, &String> = devices.chain([(scene.link.index, &scene.link.name)]).collect();
    let lost = devices.iter().flat_map(|(&index, &name)| {
        after.since(&before, index).into_iter().map(move |(counter, count)| (name.clone(), counter, count))
    });
    let dropped = drops_after.iter().zip(&drops_before).filter_map(|((verdict, now), (_, before))| {
        let count = now.saturating_sub(*before);
        (count > 0).then(|| (verdict.label(), count, verdict.text()))
    });
    let card = CardFacts { losses: lost.collect(), drops: dropped.collect(), seconds: answers.seconds, ..card(scene) };
    Ok(Facts {
        host: host(scene)?,
        card,
        port: port(scene).await?,
        networks: networks(scene),
        peers: peers(scene, ways, &answers),
        wire: answers.wire,
    })
}

/// What the programs dropped so far; what they drop for the agent's own tests is no loss.
fn drops(scene: &Scene) -> anyhow::Result<Vec<(Verdict, u64)>> {
    let Some(attached) = &scene.attached else { return Ok(Vec::new()) };
    let all = Verdict::ALL.iter().filter(|it| it.fate() == Fate::Dropped && **it != Verdict::SelfTest);
    all.map(|&verdict| Ok((verdict, attached.tables.counter(verdict)?.frames))).collect()
}

fn host(scene: &Scene) -> anyhow::Result<HostFacts> {
    let agent = live_agent(scene.link.index)?;
    let pins = scene.attached.as_ref().map_or(&*scene.pin_root, |attached| attached.pins.path());
    let there = pins.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    Ok(HostFacts {
        no_tcx: SchedClassifier::query_tcx(&scene.link.name, TcAttachType::Ingress)
            .err()
            .map(|error| error.to_string()),
        jit: jit(scene),
        pins: pins.display().to_string(),
        is_bpffs: is_bpffs(there),
        mounts_bpffs: pins.starts_with(OWN_ROOT),
        is_attached: scene.attached.is_some(),
        agent,
        is_stopped: agent.is_some_and(is_stopped),
        file: scene.file.and_then(|file| file.difference(scene.own)),
    })
}

/// A program that is loaded shows it, else the switch, which only the first network namespace has.
fn jit(scene: &Scene) -> Option<bool> {
    let ours = scene.attached.as_ref().and_then(|attached| {
        let info = ProgramInfo::from_pin(attached.pins.pin(Tc::Overlay.name())).ok()?;
        Some(info.size_jitted() > 0)
    });
    let switch = || Some(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok()?.trim() != "0");
    ours.or_else(switch)
}

/// Without counters.
fn card(scene: &Scene) -> CardFacts {
    let link = &scene.link;
    let programs =
        SchedClassifier::query_tcx(&link.name, TcAttachType::Ingress).map(|(_, all)| all).unwrap_or_default();
    let pinned = |name: &str| {
        let attached = scene.attached.as_ref()?;
        ProgramInfo::from_pin(attached.pins.pin(name)).ok().map(|info| info.id())
    };
    let own = pinned(Tc::Underlay.name());
    let place = own.and_then(|own| programs.iter().position(|program| program.id() == own));
    let before = programs.get(..place.unwrap_or(programs.len())).unwrap_or_default();
    let foreign = link.xdp_program.filter(|id| pinned(XDP) != Some(*id));
    let features = active_features(&link.name, &["rx-lro", "rx-gro"]).unwrap_or_default();
    let versions = [("udp4", true), ("udp6", false)];
    let spreads = versions.iter().filter(|(_, v4)| scene.peers.iter().any(|peer| peer.address.is_ipv4() == *v4));
    CardFacts {
        name: link.name.clone(),
        up: link.up,
        has_carrier: link.carrier,
        mtu: link.mtu,
        driver: scene.driver.clone(),
        mode: scene.mode.clone(),
        receive: scene.receive,
        rx_queues: link.num_rx_queues,
        spreads: spreads.map(|&(name, v4)| (name, spreads_udp_by_ports(&link.name, v4))).collect(),
        lro: features.contains(&"rx-lro"),
        gro: features.contains(&"rx-gro"),
        before_us: if scene.receive == Receive::Kernel { Vec::new() } else { before.iter().map(called).collect() },
        foreign_xdp: foreign.map(|id| {
            loaded_programs()
                .flatten()
                .find(|program| program.id() == id)
                .map_or_else(|| format!("id {id}"), |it| called(&it))
        }),
        has_ours: scene.receive == Receive::Kernel || place.is_some(),
        losses: Vec::new(),
        drops: Vec::new(),
        seconds: 0.0,
    }
}

fn called(program: &ProgramInfo) -> String {
    match program.name_as_str() {
        Some(name) if !name.is_empty() => format!("{name} (id {})", program.id()),
        _ => format!("id {}", program.id()),
    }
}

async fn port(scene: &Scene) -> anyhow::Result<PortFacts> {
    let port = scene.port;
    let tables = scene.attached.as_ref().map(|attached| &attached.tables);
    let settings = tables.map(|tables| tables.settings.get(&0, 0)).transpose()?;
    let own = settings.map_or(port, |settings| settings.helper_port);
    let ours = settings.map(|settings| settings.helper_ifindex);
    let owner = if settings.is_some() && own == port {
        None
    } else {
        let devices = scene.netlink.vxlan_links().await?;
        let device = devices.into_iter().find(|it| it.vxlan.port == port && it.link.up && Some(it.link.index) != ours);
        let process = || udp_holder(port).map(|Holder { pid, name }| format!("the program {name} (process {pid})"));
        device.map(|device| format!("the vxlan device {}", device.link.name)).or_else(process)
    };
    let rp_filter = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).unwrap_or_default();
        text.trim().parse::<u8>().unwrap_or(0)
    };
    Ok(PortFacts {
        port,
        own,
        is_private: tables.is_some_and(|tables| tables.fact(Fact::UdpPort).contains("private-port")),
        owner,
        arrives: self_tested(scene).await?,
        rules: rules::dropping(own),
        rp_filter: rp_filter("all").max(rp_filter(&scene.link.name)),
    })
}

/// Whether a packet that goes through this host's firewall arrives: from a peer to us, as the agent tests it.
async fn self_tested(scene: &Scene) -> anyhow::Result<Option<bool>> {
    let Some(attached) = &scene.attached else { return Ok(None) };
    let Some(vni) = first_network(&attached.tables)? else { return Ok(None) };
    for peer in &scene.peers {
        if let Some(source) = peer.source
            && scene.netlink.route_to(source, None).await?.is_some_and(|route| route.local)
            && let Some(route) = scene.netlink.route_to(peer.address, Some(source)).await?
            && route.oif == scene.link.index
            && !route.local
            && let Some(frame) = self_test::frame(scene.link.mac, (peer.address, source), vni, scene.port)
        {
            return self_test::run_pinned(&attached.pins, &attached.tables, &frame).await.map(Some);
        }
    }
    Ok(None)
}

fn first_network(tables: &Tables) -> anyhow::Result<Option<u32>> {
    Ok(tables.networks.keys().next().transpose()?)
}

fn networks(scene: &Scene) -> Vec<NetworkFacts> {
    let fits = |members: &[usize]| {
        let those = members.iter().filter_map(|&place| scene.peers.get(place));
        those.map(|peer| scene.link.mtu.saturating_sub(overhead(peer.address))).min().unwrap_or(0)
    };
    let facts = scene.networks.iter().map(|network| NetworkFacts {
        name: network.name.clone(),
        interface: network.interface.clone(),
        mtu: network.mtu,
        fits: fits(&network.members),
    });
    facts.collect()
}

type Way = Result<NextHop, NoNextHop>;

/// How each peer is reached, once neighbours have had the time to answer.
async fn ways(scene: &Scene) -> anyhow::Result<Vec<Way>> {
    let writer = if scene.receive == Receive::Kernel { Writer::Kernel } else { Writer::Program };
    let end = Instant::now() + NEIGHBOURS;
    let mut ways = Vec::new();
    for peer in &scene.peers {
        ways.push(next_hop(&scene.netlink, peer.address, peer.source, writer).await?);
    }
    while ways.iter().any(|way| matches!(way, Err(NoNextHop::Unresolved { .. }))) && Instant::now() < end {
        sleep(Duration::from_millis(50)).await;
        for (peer, way) in scene.peers.iter().zip(&mut ways) {
            if matches!(way, Err(NoNextHop::Unresolved { .. })) {
                *way = next_hop(&scene.netlink, peer.address, peer.source, writer).await?;
            }
        }
    }
    Ok(ways)
}

/// IPv4 addresses of peers and gateways on the interface's own link.
async fn on_link(scene: &Scene) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
    let mut all = BTreeSet::new();
    for peer in &scene.peers {
        let route = scene.netlink.route_to(peer.address, peer.source).await?;
        let Some(route) = route.filter(|route| route.oif == scene.link.index && !route.local) else { continue };
        if let std::net::IpAddr::V4(address) = route.gateway.unwrap_or(peer.address) {
            all.insert(address);
        }
    }
    Ok(all)
}

fn peers(scene: &Scene, ways: Vec<Way>, answers: &Answers) -> Vec<PeerFacts> {
    let facts = scene.peers.iter().zip(ways).zip(&answers.peers).map(|((peer, way), answer)| {
        let by_underlay = way.as_ref().is_ok_and(|way| way.oif == scene.link.index);
        let Answer { pings, probe, hears, fingerprint, long } = answer.clone();
        let is_known = !fingerprint.is_unknown() && !scene.own.is_unknown();
        PeerFacts {
            name: peer.name.clone(),
            address: peer.address,
            source: peer.source,
            is_probed: peer.is_probed,
            way: way.map(|way| described(scene, &way)).map_err(|reason| lost(peer, &reason)),
            by_underlay,
            pings,
            probe,
            hears,
            configuration: match scene.own.difference(fingerprint) {
                Some(difference) => Configuration::Other(difference),
                None if is_known => Configuration::Same,
                None => Configuration::Unknown,
            },
            long,
        }
    });
    facts.collect()
}

fn described(scene: &Scene, way: &NextHop) -> String {
    let oif = if way.oif == scene.link.index { scene.link.name.clone() } else { format!("interface {}", way.oif) };
    if scene.receive == Receive::Kernel {
        return format!("leaves by {oif}");
    }
    format!("leaves by {oif} to {}", way.destination_mac)
}

/// What is the matter with the way to a peer, and what to do.
fn lost(peer: &Peer, reason: &NoNextHop) -> (String, String) {
    let address = peer.address;
    let advice = match reason {
        NoNextHop::NoRoute { .. } | NoNextHop::NoSource { .. } => {
            format!("add a route: `ip route get {address}` must name one")
        }
        NoNextHop::Unresolved { ip, .. } => {
            format!("is {ip} up, and on this link? `ip neigh show {ip}` and `arping {ip}` tell")
        }
        NoNextHop::Local { .. } => "the file gives this host's address to another node: which one is right?".to_owned(),
        NoNextHop::Down { .. } => "bring the interface up".to_owned(),
        NoNextHop::NotEthernet { .. } | NoNextHop::Overlay { .. } => "see there".to_owned(),
    };
    (reason.to_string(), advice)
}
