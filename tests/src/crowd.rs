//! Hundreds of nodes that are not there: one host answers all probes that are for them, and asks as they would. Nothing of it is
//! shared with the program under test.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use l2mesh_common::wire::MacAddr;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use crate::host::Host;
use crate::hurry::hurry;
use crate::tap::Tap;

/// The flags of a VXLAN header (design.md 4).
const VNI: u8 = 0x08;
const PROBE: u8 = 0x01;
const RELAY: u8 = 0x02;
const RELAYED: u8 = 0x40;
/// Where things stand in a probe behind Ethernet, IPv4, UDP and VXLAN.
const SOURCE: usize = 26;
#[cfg(test)]
const DESTINATION: usize = 30;
const PORTS: usize = 34;
const VXLAN: usize = 42;
const KIND: usize = VXLAN + 8 + 15;
/// Ethernet, IPv4, UDP, VXLAN, a probe.
const LENGTH: usize = VXLAN + 8 + 38;
const PORT: [u8; 2] = 4789_u16.to_be_bytes();
/// How often those who are due ask.
const TICK: Duration = Duration::from_millis(1);
const LOOK: TimeVal = TimeVal::new(0, 100_000);

/// Who there is, and how often they ask. Identifiers are 1 for the real node, then the others in the order of their addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mesh {
    /// Nodes that are not there.
    pub others: u32,
    /// So many of the nodes relay for everybody: the real one and others, or the others alone.
    pub relays: u32,
    /// The real one is among them.
    pub is_relay: bool,
    /// How often direct paths are probed.
    pub interval: Duration,
    /// How often paths through relays are.
    pub relay_interval: Duration,
}

/// A running crowd. Dropping it ends it.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// What the crowd has done so far.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    asked: AtomicU64,
    answers: AtomicU64,
}

impl Mesh {
    /// The address of a node that is not there, by its identifier.
    #[must_use]
    pub fn address(id: u32) -> Ipv4Addr {
        let [.., high, low] = id.to_be_bytes();
        Ipv4Addr::new(198, 18, high, low)
    }

    /// Identifiers of all that are not there.
    pub fn others(self) -> impl Iterator<Item = u32> + Clone {
        2..self.others + 2
    }

    /// True if this one relays.
    #[must_use]
    pub const fn is_relay(self, id: u32) -> bool {
        if self.is_relay { id <= self.relays } else { id > 1 && id <= self.relays + 1 }
    }

    /// From whom, with which flags, naming whom, a probe comes to the real node; one round of everybody.
    fn direct(self) -> Vec<(u32, u8, u32)> {
        self.others().map(|id| (id, 0, 0)).collect()
    }

    /// The same through relays: those of others to the real node, and through the real node to others.
    fn relayed(self) -> Vec<(u32, u8, u32)> {
        let by_others = self.others().filter(|relay| self.is_relay(*relay));
        let to_it = by_others
            .flat_map(|relay| self.others().filter(move |id| *id != relay).map(move |id| (relay, RELAYED, id)));
        let pairs = self.others().flat_map(|from| self.others().map(move |to| (from, to)));
        let through_it = pairs.filter(|(from, to)| self.is_relay && from != to).map(|(from, to)| (from, RELAY, to));
        to_it.chain(through_it).collect()
    }
}

impl Crowd {
    /// Starts it on the first interface of a host, beside the real node on the same wire, which has to route 198.18.0.0/16 there.
    /// On the processor that receives for the real node, if one is named, its frames come in bursts, as from a network card.
    ///
    /// # Panics
    /// There is no such processor, or the interface cannot be had.
    #[must_use = "dropping it ends it"]
    #[track_caller]
    pub fn start(host: &Host, node: &Host, mesh: Mesh, processor: Option<usize>) -> Self {
        let interface = host.interface();
        let macs = (node.mac(&node.interface()), host.mac(&interface));
        let open = || Tap::open(host, &interface).into_socket();
        let (ears, mouth) = (open(), Tap::sender(host, &interface).into_socket());
        setsockopt(&ears, sockopt::ReceiveTimeout, &LOOK).expect("a receive timeout");
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        thread::spawn({
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            move || {
                stay_on(processor);
                answer(&ears, &stop, &counts);
            }
        });
        let node = node.address();
        thread::spawn({
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
            move || {
                stay_on(processor);
                ask(&mouth, macs, node, mesh, &stop, &counts);
            }
        });
        Self { stop, counts }
    }

    /// Probes that it has answered, that it has sent, and that were answered.
    #[must_use]
    pub fn counts(&self) -> [u64; 3] {
        let Counts { answered, asked, answers } = &*self.counts;
        [answered, asked, answers].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn stay_on(processor: Option<usize>) {
    if let Some(processor) = processor {
        let mut set = CpuSet::new();
        set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).expect("a processor");
    }
}

/// Sends back what is asked, the way it came.
fn answer(socket: &OwnedFd, stop: &AtomicBool, counts: &Counts) {
    hurry();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(_) => return,
        };
        let frame = &mut buffer[..length];
        if length < LENGTH || frame[PORTS + 2..PORTS + 4] != PORT || frame[VXLAN] & (VNI | PROBE) != VNI | PROBE {
            continue;
        }
        if frame[KIND] != 1 {
            counts.answers.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        reflect(frame);
        if send(socket.as_raw_fd(), frame, MsgFlags::empty()).is_ok() {
            counts.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A request as the one whom it is for sends it back. To a relay that is not there, it is as if that had handed it on already.
fn reflect(frame: &mut [u8]) {
    let (destination, source) = frame[..12].split_at_mut(6);
    destination.swap_with_slice(source);
    let (source, destination) = frame[SOURCE..SOURCE + 8].split_at_mut(4);
    source.swap_with_slice(destination);
    // The port that it came from stays: the answer goes to the mesh's.
    frame[PORTS + 2..PORTS + 4].copy_from_slice(&PORT);
    frame[PORTS + 6..PORTS + 8].fill(0);
    frame[KIND] = 2;
    let marks = frame[VXLAN] & (RELAY | RELAYED);
    if marks == RELAYED {
        // Through the relay, to the one who asked.
        frame[VXLAN] ^= RELAYED | RELAY;
    } else if marks == RELAY {
        // A relay that is not there: it comes from the relay, on behalf of the one who was asked.
        frame[VXLAN] ^= RELAYED | RELAY;
    }
}

/// Everybody asks once in an interval, evenly spread.
fn ask(socket: &OwnedFd, macs: (MacAddr, MacAddr), node: Ipv4Addr, mesh: Mesh, stop: &AtomicBool, counts: &Counts) {
    hurry();
    let frame = |&(from, flags, named): &(u32, u8, u32)| request(macs, Mesh::address(from), node, flags, named);
    let mut rounds = [(mesh.direct(), mesh.interval), (mesh.relayed(), mesh.relay_interval)]
        .map(|(all, interval)| (all.iter().map(frame).collect::<Vec<_>>(), interval, 0_u64));
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for (frames, interval, sent) in &mut rounds {
            let due = start.elapsed().as_nanos() * frames.len() as u128 / interval.as_nanos();
            let due = u64::try_from(due).unwrap_or(u64::MAX);
            // What a busy machine kept us from sending is not made up for.
            *sent = (*sent).max(due.saturating_sub(100));
            while *sent < due {
                let count = frames.len() as u64;
                let place = usize::try_from(*sent % count).expect("a place");
                let sequence = u32::try_from((*sent / count) & 0xffff_ffff).expect("masked");
                let frame = &mut frames[place];
                frame[KIND + 3..KIND + 7].copy_from_slice(&sequence.to_be_bytes());
                if send(socket.as_raw_fd(), frame, MsgFlags::empty()).is_ok() {
                    counts.asked.fetch_add(1, Ordering::Relaxed);
                }
                *sent += 1;
            }
        }
        thread::sleep(TICK);
    }
}

/// By hand, from RFC 791, RFC 768, RFC 7348 and design.md 4.
fn request(macs: (MacAddr, MacAddr), from: Ipv4Addr, to: Ipv4Addr, flags: u8, named: u32) -> Vec<u8> {
    let [first, second, third, last] = named.to_be_bytes();
    let header = [VNI | PROBE | flags, first, second, third, 0, 0, 0, last];
    let probe = [&[0; 12][..], &[0x88, 0xb5, 1, 1, 0, 0], &[0; 4], &[7; 8], &[0; 8]].concat();
    let payload = [&header[..], &probe].concat();
    let near = (from, 49_152 + u16::try_from(named % 16).expect("small")).into();
    let frame = crate::Frame::udp(macs.0, macs.1, near, (to, 4789).into(), &payload);
    let mut octets = frame.octets().to_vec();
    debug_assert_eq!(octets.len(), LENGTH);
    octets[PORTS + 6..PORTS + 8].fill(0);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: Mesh = Mesh {
        others: 4,
        relays: 2,
        is_relay: true,
        interval: Duration::from_millis(100),
        relay_interval: Duration::from_secs(5),
    };

    #[test]
    fn who_asks_whom() {
        assert_eq!(MESH.direct().len(), 4);
        // Through the other relay: three; through the real node: each of four to three.
        assert_eq!(MESH.relayed().len(), 3 + 12);
        assert!(MESH.is_relay(1) && MESH.is_relay(2) && !MESH.is_relay(3));
        let mesh = Mesh { is_relay: false, ..MESH };
        assert_eq!(mesh.relayed().len(), 2 * 3);
        assert!(!mesh.is_relay(1) && mesh.is_relay(3) && !mesh.is_relay(4));
    }

    #[test]
    fn answers_go_back_the_way_they_came() {
        let macs = (MacAddr([2; 6]), MacAddr([4; 6]));
        let (a, b) = (Mesh::address(300), Ipv4Addr::new(192, 0, 2, 1));
        let mut frame = request(macs, a, b, RELAYED, 0x0102_0304);
        reflect(&mut frame);
        let mut expected = request((macs.1, macs.0), b, a, RELAY, 0x0102_0304);
        expected[KIND] = 2;
        assert_eq!(frame, expected);
        assert_eq!(frame[DESTINATION..DESTINATION + 4], [198, 18, 1, 44]);
    }
}
