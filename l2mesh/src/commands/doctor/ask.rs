//! Questions to the other nodes: pings, probes, ARP.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use l2mesh_common::{
    tables::BucketKey,
    wire::{Fingerprint, Mark, Probe, ProbeKind, ProbePath, VxlanHeader},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    super::ping::{Quick, quick},
    facts::{Long, Probed, WireFacts},
    scene::Scene,
};
use crate::underlay::{
    Error,
    listen::{Heard, Listener, ask_arp, ask_echo},
};

/// How long is listened at least.
const WINDOW: Duration = Duration::from_millis(1200);
/// Tries and time for each: a relative of `ping -W`.
const PATIENT: (u32, Duration) = (3, Duration::from_millis(250));
/// The same for the rest when many do not answer.
const SHORT: (u32, Duration) = (1, Duration::from_millis(250));
/// So many that do not answer are asked three times, and so many have the size that arrives looked for.
const MANY: usize = 16;
const SEARCHED: usize = 3;
/// The least inner packet of which anybody speaks, and one with room for what the far end says.
const LEAST: u16 = 576;
const WITH_ROOM: u16 = 32;

/// What came of all questions.
pub(super) struct Answers {
    /// In the order of [`Scene::peers`].
    pub(super) peers: Vec<Answer>,
    pub(super) wire: WireFacts,
    pub(super) seconds: f64,
}

/// What came of those to one peer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) pings: bool,
    pub(super) probe: Probed,
    pub(super) hears: bool,
    pub(super) fingerprint: Fingerprint,
    pub(super) long: Long,
}

/// Asks everybody. `on_link` are IPv4 addresses of the interface's own link.
///
/// # Errors
/// The kernel gives no sockets, or all places for pings are taken.
pub(super) async fn everybody(scene: &Scene, on_link: &BTreeSet<Ipv4Addr>) -> anyhow::Result<Answers> {
    let begin = Instant::now();
    let (control, udp) = (Listener::for_control(scene.link.index)?, Listener::for_udp(scene.link.index, scene.port)?);
    let before = requests(scene);
    let own: BTreeSet<Ipv4Addr> = scene.addresses.iter().filter_map(|it| v4(*it)).collect();
    ask(scene, &own, on_link);
    let silence = Answer {
        pings: false,
        probe: Probed::Silence,
        hears: false,
        fingerprint: Fingerprint::UNKNOWN,
        long: Long::Untested,
    };
    let mut answers = vec![silence; scene.peers.len()];
    let mut heard = Vec::new();
    if scene.attached.is_some() {
        by_slot(scene, &mut answers).await?;
    } else {
        by_socket(scene, &mut answers).await;
    }
    // Pings of the first turn may have waited for a neighbour.
    ask(scene, &own, on_link);
    heard.extend(control.drain());
    heard.extend(udp.drain());
    sleep_until(begin + WINDOW).await;
    heard.extend(control.drain());
    heard.extend(udp.drain());
    let after = requests(scene);
    let mut wire = WireFacts { own, ..WireFacts::default() };
    for (place, (before, after)) in before.iter().zip(&after).enumerate() {
        answers[place].hears |= before != after;
    }
    for heard in heard {
        note(scene, heard, &mut answers, &mut wire);
    }
    remove_own(scene, &mut wire).await?;
    Ok(Answers { peers: answers, wire, seconds: begin.elapsed().as_secs_f64() })
}

const fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// When the programs last sent back a probe of each peer that came directly.
fn requests(scene: &Scene) -> Vec<Option<u64>> {
    let at = |id| {
        let buckets = &scene.attached.as_ref()?.tables.buckets;
        buckets.get(&BucketKey::probes_of(id?, false), 0).ok().map(|bucket| bucket.full_at_ns)
    };
    scene.peers.iter().map(|peer| at(peer.id)).collect()
}

/// What cannot be sent is what is not answered.
fn ask(scene: &Scene, own: &BTreeSet<Ipv4Addr>, on_link: &BTreeSet<Ipv4Addr>) {
    for peer in &scene.peers {
        let _unsent: io::Result<()> = ask_echo(peer.source, peer.address, 1);
    }
    let Some(mac) = scene.link.mac.filter(|_| scene.link.has_ethernet) else { return };
    for &address in own {
        let _unsent: Result<(), Error> = ask_arp(scene.link.index, mac, Ipv4Addr::UNSPECIFIED, address);
    }
    let sender = own.iter().next().copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
    for &address in on_link {
        let _unsent: Result<(), Error> = ask_arp(scene.link.index, mac, sender, address);
    }
}

/// Probes that the attached programs follow.
async fn by_slot(scene: &Scene, answers: &mut [Answer]) -> anyhow::Result<()> {
    let Some(attached) = &scene.attached else { return Ok(()) };
    let (mut silent, mut searched) = (0, 0);
    for (place, peer) in scene.peers.iter().enumerate().filter(|(_, peer)| peer.is_probed) {
        let answer = &mut answers[place];
        if !peer.is_direct {
            answer.probe = Probed::Untested;
            continue;
        }
        let patience = if silent < MANY { PATIENT } else { SHORT };
        let node = peer.address.to_string();
        answer.probe = match quick(attached, &node, WITH_ROOM, patience).await? {
            Quick::Answered(rtt, fingerprint) => {
                answer.fingerprint = fingerprint;
                Probed::Answered(Some(rtt))
            }
            Quick::Silence => Probed::Silence,
            Quick::Refused => Probed::Refused,
            Quick::Unsent(reason) => Probed::Unsent(reason),
        };
        if !matches!(answer.probe, Probed::Answered(_)) {
            silent += 1;
            continue;
        }
        let sizes = scene.networks.iter().filter(|network| network.members.contains(&place)).map(|network| network.mtu);
        let Some(size) = sizes.max().and_then(|mtu| u16::try_from(mtu.min(9000)).ok()) else { continue };
        answer.long = match quick(attached, &node, size, PATIENT).await? {
            Quick::Answered(..) => Long::Answered(size),
            Quick::Unsent(reason) => Long::Unsent(size, reason),
            Quick::Silence | Quick::Refused if searched < SEARCHED => {
                searched += 1;
                Long::Lost(size, greatest(scene, &node, size).await?)
            }
            Quick::Silence | Quick::Refused => Long::Lost(size, None),
        };
    }
    Ok(())
}

/// The greatest packet below `size` that is answered.
async fn greatest(scene: &Scene, node: &str, size: u16) -> anyhow::Result<Option<u16>> {
    let Some(attached) = &scene.attached else { return Ok(None) };
    let (mut least, mut most) = (LEAST, size);
    if !matches!(quick(attached, node, least, PATIENT).await?, Quick::Answered(..)) {
        return Ok(None);
    }
    while most - least > 1 {
        let middle = least.midpoint(most);
        match quick(attached, node, middle, (2, Duration::from_millis(100))).await? {
            Quick::Answered(..) => least = middle,
            _ => most = middle,
        }
    }
    Ok(Some(least))
}

/// Probes of which nobody here knows: what the far end sends back is heard on the wire, if it knows this host.
async fn by_socket(scene: &Scene, answers: &mut [Answer]) {
    for sequence in 1..=PATIENT.0 {
        for (peer, answer) in scene.peers.iter().zip(answers.iter_mut()).filter(|(peer, _)| peer.is_probed) {
            let Some(source) = peer.source.filter(|_| peer.is_direct) else {
                answer.probe = Probed::Untested;
                continue;
            };
            if let Err(error) = send(source, SocketAddr::new(peer.address, scene.port), sequence) {
                answer.probe = Probed::Unsent(error.to_string());
            }
        }
        sleep(PATIENT.1).await;
    }
}

fn send(source: IpAddr, to: SocketAddr, sequence: u32) -> io::Result<()> {
    let header = VxlanHeader::marked(0, Mark { flags: Mark::PROBE, node: 0 });
    let probe = Probe::request(ProbePath::path(0), false, sequence, 1, 0);
    let datagram = [bytemuck::bytes_of(&header), bytemuck::bytes_of(&probe), &[0; Fingerprint::LEN]].concat();
    UdpSocket::bind(SocketAddr::new(source, 0))?.send_to(&datagram, to).map(drop)
}

fn note(scene: &Scene, heard: Heard, answers: &mut [Answer], wire: &mut WireFacts) {
    let place = |from| scene.peers.iter().position(|peer| peer.address == from);
    match heard {
        Heard::Echo { from } => {
            if let Some(place) = place(from) {
                answers[place].pings = true;
            }
        }
        Heard::Refused { from, port } if port == scene.port => {
            if let Some(place) = place(from)
                && answers[place].probe == Probed::Silence
                && scene.peers[place].is_probed
            {
                answers[place].probe = Probed::Refused;
            }
        }
        Heard::Udp { from, probe, fingerprint } => match place(from) {
            Some(place) => {
                let answer = &mut answers[place];
                answer.hears = true;
                if scene.attached.is_none() && probe == Some(ProbeKind::Reply) {
                    answer.probe = Probed::Answered(None);
                    answer.fingerprint = fingerprint;
                }
            }
            None if scene.addresses.contains(&from) => {}
            None => *wire.strangers.entry(from).or_default() |= probe.is_some(),
        },
        Heard::Arp { address, mac } => {
            wire.claims.entry(address).or_default().insert(mac);
        }
        Heard::Refused { .. } => {}
    }
}

/// Other interfaces of this host on the same link answer for it too; and who has no address of ours or of a next hop does not
/// matter.
async fn remove_own(scene: &Scene, wire: &mut WireFacts) -> anyhow::Result<()> {
    let links = scene.netlink.links().await?;
    let is_ours = |mac| links.iter().any(|link| link.mac == Some(mac));
    let claims = std::mem::take(&mut wire.claims);
    wire.claims = claims
        .into_iter()
        .map(|(address, macs)| (address, macs.into_iter().filter(|&mac| !is_ours(mac)).collect::<BTreeSet<_>>()))
        .collect::<BTreeMap<_, _>>();
    Ok(())
}
