//! Round-trip time: a small datagram there and back, one at a time.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use super::{
    Sample, Step,
    contender::{Contender, SMALL},
    machine::{self, RECEIVER, SENDER},
    metric::Metric,
};

/// Not measured: caches, and processors that slept.
const WARM_UP: usize = 100;
/// Per second of a step.
const ROUNDS: f64 = 2000.0;
/// A datagram that did not come back is not waited for longer.
const LOST: Duration = Duration::from_millis(500);

/// Median and 99th percentile, in microseconds.
///
/// # Errors
/// A socket fails.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let server = contender.b.in_namespace(|| UdpSocket::bind((contender.addresses[1], 0)))?;
    let target = server.local_addr()?;
    let client = contender.a.in_namespace(|| UdpSocket::bind((contender.addresses[0], 0)))?;
    client.connect(target)?;
    client.set_read_timeout(Some(LOST))?;
    let rounds = WARM_UP + super::whole(ROUNDS * step.time.as_secs_f64());
    let mut times = thread::scope(|scope| {
        let echo = scope.spawn(|| echo(&server));
        let ping = scope.spawn(|| ping(&client, rounds));
        let times = ping.join().map_err(|_| anyhow::anyhow!("the sender of pings panicked"));
        // Nothing inside ends the echo.
        let end = UdpSocket::send(&client, &[]);
        echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
        end?;
        times?
    })?;
    times.drain(..WARM_UP.min(times.len()));
    times.sort_unstable();
    anyhow::ensure!(times.len() * 2 > rounds, "{}: most of {rounds} round trips are lost", contender.kind);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e6;
    Ok(vec![(Metric::RoundTrip, at(50)), (Metric::RoundTrip99, at(99))])
}

fn echo(socket: &UdpSocket) -> anyhow::Result<()> {
    machine::pin(RECEIVER)?;
    let mut buffer = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        socket.send_to(&buffer[..length], from)?;
    }
}

fn ping(socket: &UdpSocket, rounds: usize) -> anyhow::Result<Vec<Duration>> {
    machine::pin(SENDER)?;
    let mut buffer = [0; SMALL];
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let start = Instant::now();
        socket.send(&buffer)?;
        if socket.recv(&mut buffer).is_ok() {
            times.push(start.elapsed());
        }
    }
    Ok(times)
}
