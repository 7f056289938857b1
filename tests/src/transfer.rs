//! Transfers whose every octet is compared.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use crate::host::Host;

/// Without progress for this long a transfer has failed.
const STALL: Duration = Duration::from_secs(5);

/// However much progress there is.
const LIMIT: Duration = Duration::from_secs(30);

/// How long to wait for a datagram before it is sent again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A datagram that overtakes more is another one.
const OVERTAKEN: usize = 64;

/// Octets per write.
const CHUNK: usize = 1 << 16;

/// What a socket holds for a receiver that is not there yet, octets.
const BUFFER: usize = 16 << 20;

/// What [`tcp`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// Data.
    pub octets: usize,
    /// From the connection to the last octet received.
    pub time: Duration,
}

/// Sends `octets` octets over TCP from one host to an address of another and compares every one.
/// Panics where they differ, and when nothing arrives for 5 s.
#[track_caller]
pub fn tcp(from: &Host, to: &Host, address: impl Into<IpAddr>, octets: usize) -> Transfer {
    let address = address.into();
    let what = format!("TCP from {} to {address} on {}", from.name(), to.name());
    let listener = to.in_namespace(|| TcpListener::bind((address, 0)));
    let listener = listener.unwrap_or_else(|error| panic!("{what}: listen: {error}"));
    let target = listener.local_addr().expect("the address of a listener");
    let client = from.in_namespace(|| TcpStream::connect_timeout(&target, STALL));
    let client = client.unwrap_or_else(|error| panic!("{what}: connect: {error}"));
    // The handshake is complete: this does not block.
    let (server, _) = listener.accept().unwrap_or_else(|error| panic!("{what}: accept: {error}"));
    let start = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(|| write_pattern(&client, octets));
        let received = compare_pattern(&server, octets);
        let sent = sender.join().expect("a sender that does not panic");
        if let Err(error) = received.and_then(|()| sent.map_err(|error| format!("send: {error}"))) {
            panic!("{what}: {error}");
        }
    });
    Transfer { octets, time: start.elapsed() }
}

/// Sends one UDP datagram of each length and compares each. Panics if one is missing after 5 s, differs, or if another one
/// comes, or if more than one in a hundred overtakes others.
#[track_caller]
pub fn udp(from: &Host, to: &Host, address: impl Into<IpAddr>, lengths: &[usize]) {
    let pair = UdpPair::new(from, to, address.into());
    let mut pattern = Pattern::new();
    for &length in lengths {
        pair.send(&pattern.take(length));
    }
    pair.compare(lengths);
}

/// Sends `count` datagrams of `length` octets, each again and again until it arrives. Returns how many were sent in vain.
/// Panics if one has not arrived after 5 s.
#[track_caller]
pub fn udp_persistently(from: &Host, to: &Host, address: impl Into<IpAddr>, length: usize, count: usize) -> usize {
    let pair = UdpPair::new(from, to, address.into());
    pair.receiver.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    let (mut pattern, mut buffer, mut lost) = (Pattern::new(), vec![0; CHUNK], 0);
    for number in 0..count {
        let datagram = pattern.take(length);
        let end = Instant::now() + STALL;
        loop {
            match pair.sender.send(&datagram) {
                // What the socket heard of the one before; none was sent.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => continue,
                sent => assert_eq!(sent.ok(), Some(length), "{}: octets sent", pair.what),
            }
            // One that was late is none that was lost.
            match pair.receiver.recv(&mut buffer) {
                Ok(octets) if buffer[..octets] == datagram => break,
                _ => lost += 1,
            }
            assert!(Instant::now() < end, "{}: datagram {number} of {length} octets does not arrive", pair.what);
        }
    }
    lost
}

/// Hands the kernel one buffer of `octets` octets with `UDP_SEGMENT`: it leaves as datagrams of
/// `segment` octets, the last one shorter, cut up as late as possible. Compares each as [`udp`] does;
/// returns how many there were. At most 64 segments and 65,507 octets.
#[track_caller]
pub fn udp_segmented(from: &Host, to: &Host, address: impl Into<IpAddr>, segment: u16, octets: usize) -> usize {
    let pair = UdpPair::new(from, to, address.into());
    setsockopt(&pair.sender, sockopt::UdpGsoSegment, &i32::from(segment)).expect("UDP_SEGMENT, Linux 4.18");
    pair.send(&Pattern::new().take(octets));
    let segment = usize::from(segment);
    let lengths: Vec<usize> = (0..octets).step_by(segment).map(|start| segment.min(octets - start)).collect();
    pair.compare(&lengths);
    lengths.len()
}

/// Keeps this thread on one processor while it lives: a sender that moves takes another queue of its interface, and what it
/// sent before may come behind.
struct Stays(CpuSet);

impl Stays {
    fn here() -> Self {
        let before = sched_getaffinity(Pid::from_raw(0)).expect("the processors of a thread");
        let first = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu) == Ok(true)).expect("a processor");
        let mut one = CpuSet::new();
        one.set(first).expect("a processor that there is");
        sched_setaffinity(Pid::from_raw(0), &one).expect("a processor of its own");
        Self(before)
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.0).expect("the processors as they were");
    }
}

/// A connected sender and its receiver.
struct UdpPair {
    sender: UdpSocket,
    receiver: UdpSocket,
    what: String,
    _stays: Stays,
}

impl UdpPair {
    #[track_caller]
    fn new(from: &Host, to: &Host, address: IpAddr) -> Self {
        let stays = Stays::here();
        let what = format!("UDP from {} to {address} on {}", from.name(), to.name());
        let receiver = to.in_namespace(|| UdpSocket::bind((address, 0)));
        let receiver = receiver.unwrap_or_else(|error| panic!("{what}: bind: {error}"));
        setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER).expect("a receive buffer");
        receiver.set_read_timeout(Some(STALL)).expect("a timeout that is not zero");
        let target = receiver.local_addr().expect("the address of a bound socket");
        let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("an address");
        let sender =
            from.in_namespace(|| UdpSocket::bind(any).and_then(|socket| socket.connect(target).map(|()| socket)));
        let sender = sender.unwrap_or_else(|error| panic!("{what}: connect: {error}"));
        setsockopt(&sender, sockopt::SndBuf, &BUFFER).expect("a send buffer");
        Self { sender, receiver, what, _stays: stays }
    }

    #[track_caller]
    fn send(&self, datagram: &[u8]) {
        let sent = self.sender.send(datagram).unwrap_or_else(|error| panic!("{}: send: {error}", self.what));
        assert_eq!(sent, datagram.len(), "{}: octets sent", self.what);
    }

    #[track_caller]
    fn compare(&self, lengths: &[usize]) {
        let mut pattern = Pattern::new();
        let mut buffer = vec![0; CHUNK];
        let mut receive = || loop {
            match self.receiver.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(|length| buffer[..length].to_vec()),
            }
        };
        let mut missing: VecDeque<Vec<u8>> = lengths.iter().map(|&length| pattern.take(length)).collect();
        let mut overtook = 0;
        while let Some(wanted) = missing.front() {
            let (count, length) = (missing.len(), wanted.len());
            let got = receive().unwrap_or_else(|error| {
                panic!(
                    "{}: {count} of {} are missing, the first has {length} octets: {error}",
                    self.what,
                    lengths.len()
                )
            });
            let Some(place) = missing.iter().take(OVERTAKEN).position(|wanted| *wanted == got) else {
                let at = first_difference(&got, wanted);
                panic!("{}: {} octets for {length}, differs at {at}", self.what, got.len());
            };
            overtook += usize::from(place > 0);
            missing.remove(place);
        }
        // The kernel's softirqs may go on on another processor in the middle of a flow; a way of ours that is faster shows more.
        assert!(overtook <= 1 + lengths.len() / 100, "{}: {overtook} of {} overtook others", self.what, lengths.len());
        self.receiver.set_nonblocking(true).expect("a socket option");
        assert!(receive().is_err(), "{}: more datagrams than the {} sent", self.what, lengths.len());
    }
}

fn write_pattern(mut stream: &TcpStream, octets: usize) -> std::io::Result<()> {
    stream.set_write_timeout(Some(STALL))?;
    let mut pattern = Pattern::new();
    let mut left = octets;
    while left > 0 {
        let chunk = pattern.take(left.min(CHUNK));
        stream.write_all(&chunk)?;
        left -= chunk.len();
    }
    stream.shutdown(Shutdown::Write)
}

fn compare_pattern(mut stream: &TcpStream, octets: usize) -> Result<(), String> {
    stream.set_read_timeout(Some(STALL)).map_err(|error| error.to_string())?;
    let mut pattern = Pattern::new();
    let mut buffer = vec![0; CHUNK];
    let (mut at, start) = (0, Instant::now());
    loop {
        if start.elapsed() > LIMIT {
            return Err(format!("only {at} of {octets} octets in {LIMIT:?}"));
        }
        match stream.read(&mut buffer) {
            Ok(0) if at == octets => return Ok(()),
            Ok(0) => return Err(format!("{at} of {octets} octets, then the end")),
            Ok(length) => {
                let wanted = pattern.take(length);
                if buffer[..length] != wanted {
                    return Err(format!("octet {} differs", at + first_difference(&buffer[..length], &wanted)));
                }
                at += length;
            }
            // A limit on the wait turns every signal into this, also one that stops and continues the process.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("{at} of {octets} octets, then: {error}")),
        }
    }
}

fn first_difference(got: &[u8], wanted: &[u8]) -> usize {
    got.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count()
}

/// Octets that do not repeat, the same each time: xorshift64 (Marsaglia 2003).
struct Pattern {
    state: u64,
    /// Octets of the current word not yet taken.
    rest: Vec<u8>,
}

impl Pattern {
    fn new() -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, rest: Vec::new() }
    }

    /// The next octets.
    fn take(&mut self, octets: usize) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.rest);
        all.reserve(octets + 8);
        while all.len() < octets {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            all.extend(self.state.to_le_bytes());
        }
        self.rest = all.split_off(octets);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_does_not_depend_on_how_it_is_taken() {
        let whole = Pattern::new().take(1000);
        let mut pattern = Pattern::new();
        let parts: Vec<u8> = [1, 0, 2, 497, 500].iter().flat_map(|&octets| pattern.take(octets)).collect();
        assert_eq!(parts, whole);
    }
}
