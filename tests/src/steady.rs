//! TCP connections that have to survive whatever happens meanwhile: one that is busy, one that is nearly idle.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::wait::wait_for;

/// How often the idle one says something, each way.
const PERIOD: Duration = Duration::from_millis(100);
/// Octets of the busy one in one write, and how often: more than 100 Mb/s would only warm the machine.
const CHUNK: usize = 12_500;
const TICK: Duration = Duration::from_millis(1);
/// How long what is on its way may take: the sender's timer may have backed off.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection on which both ends, or one, send all the time. Dropping it ends it.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    ways: Vec<Way>,
    what: String,
}

/// One direction.
#[derive(Debug)]
struct Way {
    sender: JoinHandle<Result<u64, String>>,
    receiver: JoinHandle<Result<u64, String>>,
    received: Arc<AtomicU64>,
    silence: Arc<AtomicU64>,
}

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SteadyReport {
    /// Octets that arrived, in both directions.
    pub octets: u64,
    /// The longest time without any, in one of the directions that are used.
    pub silence: Duration,
}

impl Steady {
    /// Bulk data, 100 Mb/s, from one host to an address of another.
    #[must_use = "dropping it ends it"]
    #[track_caller]
    pub fn bulk(from: &Host, to: &Host, address: impl Into<IpAddr>) -> Self {
        Self::start(from, to, address.into(), false)
    }

    /// An octet every 100 ms each way, as in a terminal session.
    #[must_use = "dropping it ends it"]
    #[track_caller]
    pub fn idle(from: &Host, to: &Host, address: impl Into<IpAddr>) -> Self {
        Self::start(from, to, address.into(), true)
    }

    #[track_caller]
    fn start(from: &Host, to: &Host, address: IpAddr, is_idle: bool) -> Self {
        let kind = if is_idle { "idle" } else { "bulk" };
        let what = format!("{kind} TCP from {} to {address} on {}", from.name(), to.name());
        let listener = to.in_namespace(|| TcpListener::bind((address, 0)));
        let listener = listener.unwrap_or_else(|error| panic!("{what}: listen: {error}"));
        let target = listener.local_addr().expect("the address of a listener");
        let client = from.in_namespace(|| TcpStream::connect_timeout(&target, LIMIT));
        let client = client.unwrap_or_else(|error| panic!("{what}: connect: {error}"));
        let (server, _) = listener.accept().unwrap_or_else(|error| panic!("{what}: accept: {error}"));
        let stop = Arc::new(AtomicBool::new(false));
        let (client, server) = (Arc::new(client), Arc::new(server));
        let mut ways = vec![Way::start(&client, &server, is_idle, &stop)];
        if is_idle {
            ways.push(Way::start(&server, &client, is_idle, &stop));
        }
        Self { stop, ways, what }
    }

    /// Waits until something more has arrived, in each direction that is used.
    #[track_caller]
    pub fn wait_more(&self) {
        for way in &self.ways {
            let before = way.received.load(Ordering::Relaxed);
            wait_for(&format!("{}: more", self.what), LIMIT, || {
                let now = way.received.load(Ordering::Relaxed);
                if now > before { Ok(()) } else { Err(format!("{now} octets so far")) }
            });
        }
    }

    /// The longest silence since the last call.
    #[must_use]
    pub fn take_silence(&self) -> Duration {
        let longest = self.ways.iter().map(|way| way.silence.swap(0, Ordering::Relaxed)).max();
        Duration::from_nanos(longest.unwrap_or(0))
    }

    /// Ends it and waits for what is on its way. Panics if the connection broke, or an octet is wrong or missing.
    #[track_caller]
    pub fn stop(mut self) -> SteadyReport {
        let silence = self.take_silence();
        self.stop.store(true, Ordering::Relaxed);
        let mut octets = 0;
        for way in self.ways.drain(..) {
            let sent = way.sender.join().expect("a sender that does not panic");
            let received = way.receiver.join().expect("a receiver that does not panic");
            match (sent, received) {
                (Ok(sent), Ok(received)) if sent == received => octets += received,
                broken => panic!("{}: sent and received: {broken:?}", self.what),
            }
        }
        SteadyReport { octets, silence }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Way {
    fn start(from: &Arc<TcpStream>, to: &Arc<TcpStream>, is_idle: bool, stop: &Arc<AtomicBool>) -> Self {
        let (received, silence) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sender = thread::spawn({
            let (from, stop) = (Arc::clone(from), Arc::clone(stop));
            move || send(&from, is_idle, &stop).map_err(|error| error.to_string())
        });
        let receiver = thread::spawn({
            let (to, received, silence) = (Arc::clone(to), Arc::clone(&received), Arc::clone(&silence));
            move || receive(&to, &received, &silence)
        });
        Self { sender, receiver, received, silence }
    }
}

/// The octet at a place of the stream.
#[expect(clippy::cast_possible_truncation, reason = "of every number some octet")]
const fn octet(place: u64) -> u8 {
    (place ^ place >> 8 ^ place >> 16) as u8
}

/// Sends until it is told to stop; then says so to the other end.
fn send(mut stream: &TcpStream, is_idle: bool, stop: &AtomicBool) -> std::io::Result<u64> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(LIMIT))?;
    let (count, period) = if is_idle { (1, PERIOD) } else { (CHUNK as u64, TICK) };
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = (sent..sent + count).map(octet).collect();
        stream.write_all(&chunk)?;
        sent += count;
        thread::sleep(period);
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(sent)
}

/// Compares what comes until its end.
fn receive(mut stream: &TcpStream, received: &AtomicU64, silence: &AtomicU64) -> Result<u64, String> {
    stream.set_read_timeout(Some(LIMIT)).map_err(|error| error.to_string())?;
    let mut buffer = vec![0; 1 << 16];
    let (mut place, mut last) = (0_u64, Instant::now());
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(place),
            Ok(length) => length,
            // A limit on the wait turns every signal into this.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("{place} octets, then: {error}")),
        };
        let waited = u64::try_from(last.elapsed().as_nanos()).unwrap_or(u64::MAX);
        silence.fetch_max(waited, Ordering::Relaxed);
        last = Instant::now();
        for got in &buffer[..length] {
            if *got != octet(place) {
                return Err(format!("octet {place} differs"));
            }
            place += 1;
        }
        received.store(place, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lab, Wiring};

    #[test]
    fn survives_a_short_cut() {
        let lab = Lab::new("steady");
        let [a, b] = lab.switch(["a", "b"], &Wiring::default());
        let (bulk, idle) = (Steady::bulk(&a, &b, b.address()), Steady::idle(&a, &b, b.address()));
        bulk.wait_more();
        idle.wait_more();
        let mut legs = lab.legs(&a, &b);
        legs.iter_mut().for_each(crate::Leg::cut);
        thread::sleep(Duration::from_millis(300));
        legs.iter_mut().for_each(crate::Leg::heal);
        bulk.wait_more();
        idle.wait_more();
        let (bulk, idle) = (bulk.stop(), idle.stop());
        assert!(bulk.silence >= Duration::from_millis(250) && bulk.octets > 100_000, "{bulk:?}");
        assert!(idle.silence >= Duration::from_millis(250) && idle.octets >= 4, "{idle:?}");
    }
}
