//! Links between five hosts are cut and healed at random: whoever can be reached directly or through one relay is, a second later,
//! nothing comes twice, and nothing goes round and round.

use std::env;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use l2mesh_tests::{Leg, Plan, RelayMesh, Segment};

const HOSTS: usize = 5;
/// Limit for every pair to reach the other after a step.
const LIMIT: Duration = Duration::from_secs(1);
/// How long it is looked at when it has.
const STEADY: Duration = Duration::from_millis(200);
/// From one datagram of a pair to the next.
const TICK: Duration = Duration::from_millis(10);
/// What else hosts send.
const SLACK: u64 = 100;

/// All pairs of hosts, in one direction or in both.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..HOSTS).flat_map(|a| (a + 1..HOSTS).map(move |b| (a, b)))
}

fn directions() -> impl Iterator<Item = (usize, usize)> {
    pairs().flat_map(|(a, b)| [(a, b), (b, a)])
}

/// What every host hears of every other.
#[derive(Default)]
struct Heard {
    /// The step in which the latest datagram was sent.
    step: [[AtomicU32; HOSTS]; HOSTS],
    duplicates: AtomicU64,
    sent: AtomicU64,
    /// The step that is sent now.
    now: AtomicU32,
    stop: AtomicBool,
}

/// Numbered datagrams from everybody to everybody. Dropping it ends it.
struct Chatter {
    heard: Arc<Heard>,
    _threads: Vec<JoinHandle<()>>,
}

impl Chatter {
    fn start(mesh: &RelayMesh<HOSTS>) -> Self {
        let heard = Arc::new(Heard::default());
        let bind = |place: usize| mesh.hosts[place].in_namespace(|| UdpSocket::bind((Segment::v4(place), 0)));
        let sockets: Vec<UdpSocket> = (0..HOSTS).map(|place| bind(place).expect("a socket")).collect();
        let targets: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().expect("an address")).collect();
        let mut threads = Vec::new();
        for (to, socket) in sockets.iter().enumerate() {
            let (socket, heard) = (socket.try_clone().expect("a descriptor"), Arc::clone(&heard));
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout that is not zero");
            threads.push(thread::spawn(move || receive(&socket, to, &heard)));
        }
        threads.push(thread::spawn({
            let heard = Arc::clone(&heard);
            move || send(&sockets, &targets, &heard)
        }));
        Self { heard, _threads: threads }
    }

    /// Pairs of which the second has heard nothing that the first sent in this step.
    fn silent(&self, step: u32) -> Vec<(usize, usize)> {
        directions().filter(|(from, to)| self.heard.step[*from][*to].load(Ordering::Relaxed) < step).collect()
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        self.heard.stop.store(true, Ordering::Relaxed);
    }
}

fn send(sockets: &[UdpSocket], targets: &[SocketAddr], heard: &Heard) {
    let mut number = 0_u64;
    while !heard.stop.load(Ordering::Relaxed) {
        for (from, to) in directions() {
            let step = heard.now.load(Ordering::Relaxed);
            let datagram =
                [&number.to_be_bytes()[..], &step.to_be_bytes(), &[u8::try_from(from).expect("few")]].concat();
            // A host whose peer is not reached may say so.
            if sockets[from].send_to(&datagram, targets[to]).is_ok() {
                heard.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        number += 1;
        thread::sleep(TICK);
    }
}

fn receive(socket: &UdpSocket, to: usize, heard: &Heard) {
    let mut seen: [Vec<bool>; HOSTS] = Default::default();
    let mut buffer = [0; 64];
    while !heard.stop.load(Ordering::Relaxed) {
        let Ok(13) = socket.recv(&mut buffer) else { continue };
        let number = u64::from_be_bytes(buffer[..8].try_into().expect("eight octets"));
        let step = u32::from_be_bytes(buffer[8..12].try_into().expect("four octets"));
        let (from, number) = (usize::from(buffer[12]), usize::try_from(number).expect("a count"));
        if seen[from].len() <= number {
            seen[from].resize(number + 1, false);
        }
        if std::mem::replace(&mut seen[from][number], true) {
            heard.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        heard.step[from][to].fetch_max(step, Ordering::Relaxed);
    }
}

/// Who is linked with whom.
struct Links {
    legs: Vec<((usize, usize), [Leg; 2])>,
    up: [[bool; HOSTS]; HOSTS],
}

impl Links {
    /// Cuts a link or heals it, whichever the dice say; heals one as long as not everybody reaches everybody.
    fn step(&mut self, dice: &mut Dice) {
        let (connected, count) = (self.is_connected(), self.legs.len());
        let first = dice.throw() % count;
        let number = (first..first + count).map(|number| number % count).find(|number| {
            let (a, b) = self.legs[*number].0;
            connected || !self.up[a][b]
        });
        let ((a, b), legs) = &mut self.legs[number.expect("a link that is cut, if not all reach all")];
        let up = !self.up[*a][*b];
        (self.up[*a][*b], self.up[*b][*a]) = (up, up);
        legs.iter_mut().for_each(if up { Leg::heal } else { Leg::cut });
    }

    /// Everybody reaches everybody with one relay at most.
    fn is_connected(&self) -> bool {
        pairs().all(|(a, b)| self.up[a][b] || (0..HOSTS).any(|relay| self.up[a][relay] && self.up[relay][b]))
    }

    fn down(&self) -> Vec<(usize, usize)> {
        pairs().filter(|(a, b)| !self.up[*a][*b]).collect()
    }
}

/// Xorshift64 (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits")
    }
}

/// Frames that have come to the fabric so far, and probes sent by all.
fn traffic(mesh: &RelayMesh<HOSTS>) -> (u64, u64) {
    let links = mesh.lab.fabric().links();
    let of = |host: &l2mesh_tests::Host| {
        let port = host.uplink(0).port;
        let link = links.iter().find(|link| link["ifname"] == *port).expect("a port");
        link["stats64"]["rx"]["packets"].as_u64().expect("a count")
    };
    let probes = directions().flat_map(|(a, b)| (0..4).map(move |place| (a, b, place)));
    let probes = probes.map(|(a, b, place)| u64::from(mesh.paths[a].path(&mesh.hosts[b], place).0.sequence)).sum();
    (mesh.hosts.iter().map(of).sum(), probes)
}

/// As many steps as it takes to have this many after which everybody reaches everybody.
fn run(wanted: u32) {
    let seed = env::var("L2MESH_SEED").ok().map_or_else(
        || u64::try_from(SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos()).unwrap_or(1) | 1,
        |text| text.parse().expect("L2MESH_SEED is a number"),
    );
    println!("L2MESH_SEED={seed}");
    let mut dice = Dice(seed);
    let plan = Plan { probe: "interval = \"20ms\"", ..Plan::default() };
    let mesh: RelayMesh<HOSTS> = RelayMesh::up("random", ["a", "b", "c", "d", "e"], HOSTS, &plan);
    for (from, to) in directions() {
        // What is tested is who reaches whom, not how long a host believes that somebody is gone.
        let (address, mac) = (Segment::v4(to), mesh.hosts[to].mac("l2m0"));
        mesh.hosts[from].run(&format!("ip neigh replace {address} lladdr {mac} dev l2m0 nud permanent"));
    }
    let mut links =
        Links { legs: pairs().map(|(a, b)| ((a, b), mesh.legs(a, b))).collect(), up: [[true; HOSTS]; HOSTS] };
    let chatter = Chatter::start(&mesh);
    let (mut worst, mut checked, mut step) = (Duration::ZERO, 0, 0);
    while checked < wanted {
        step += 1;
        for _ in 0..=dice.throw() % 2 {
            links.step(&mut dice);
        }
        let start = Instant::now();
        chatter.heard.now.store(step, Ordering::Relaxed);
        if !links.is_connected() {
            thread::sleep(STEADY);
            continue;
        }
        loop {
            let silent = chatter.silent(step);
            if silent.is_empty() {
                break;
            }
            if start.elapsed() > LIMIT {
                let all = silent.iter().map(|(from, to)| {
                    let (paths, to) = (&mesh.paths[*from], &mesh.hosts[*to]);
                    format!("{from} to {}: {:?} {}", to.name(), paths.way(to), paths.describe(to))
                });
                let all = all.collect::<Vec<_>>().join("\n");
                panic!("seed {seed}, step {step}, cut are {:?}: not within {LIMIT:?}:\n{all}", links.down());
            }
            thread::sleep(Duration::from_millis(2));
        }
        checked += 1;
        worst = worst.max(start.elapsed());
        let (duplicates, sent, (frames, probes)) = (
            chatter.heard.duplicates.load(Ordering::Relaxed),
            chatter.heard.sent.load(Ordering::Relaxed),
            traffic(&mesh),
        );
        thread::sleep(STEADY);
        let (more_frames, more_probes) = traffic(&mesh);
        let sent = chatter.heard.sent.load(Ordering::Relaxed) - sent;
        assert_eq!(chatter.heard.duplicates.load(Ordering::Relaxed), duplicates, "seed {seed}, step {step}: twice");
        let (frames, probes) = (more_frames - frames, more_probes.saturating_sub(probes));
        // A datagram takes two hops at most, a probe and its answer four.
        let most = 2 * sent + 4 * probes + SLACK;
        assert!(frames <= most, "seed {seed}, step {step}: {frames} frames for {sent} datagrams and {probes} probes");
    }
    println!("{checked} of {step} steps left everybody in reach: after {worst:?} at most");
}

#[test]
fn links_come_and_go() {
    run(10);
}

#[test]
#[ignore = "minutes: cargo test -p l2mesh-tests --test random -- --ignored --nocapture"]
fn links_come_and_go_for_long() {
    run(100);
}
