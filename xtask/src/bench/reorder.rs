//! Order: numbered datagrams of all sizes at a moderate rate, bulk TCP beside them.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

use super::{
    Sample, Step,
    contender::Contender,
    machine::{self, SENDER},
    metric::Metric,
};

/// Octets of data, by turns: what is small and what is large must not take ways of different length.
const SIZES: [usize; 6] = [22, 1400, 64, 700, 8, 1000];
/// Datagrams in a burst, and the time from one to the next: 16,000 a second.
const BURST: (usize, Duration) = (16, Duration::from_millis(1));
/// Nothing for this long is the end.
const SILENCE: Duration = Duration::from_millis(300);
/// Octets the receiver may lag behind.
const BUFFER: usize = 16 << 20;

/// Datagrams that arrive after a later one, per million.
///
/// # Errors
/// A socket fails.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let receiver = contender.b.in_namespace(|| UdpSocket::bind((contender.addresses[1], 0)))?;
    setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER)?;
    receiver.set_read_timeout(Some(SILENCE))?;
    let target = receiver.local_addr()?;
    let sender = contender.a.in_namespace(|| UdpSocket::bind((contender.addresses[0], 0)))?;
    sender.connect(target)?;
    let (iperf, a, time) = (&mut contender.iperf, &contender.a, step.time);
    let seen = thread::scope(|scope| {
        let seen = scope.spawn(|| receive(&receiver));
        let stream = scope.spawn(|| send(&sender, time));
        iperf.tcp(a, time, 1);
        stream.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        seen.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))
    })?;
    anyhow::ensure!(seen.received > 0, "{}: none of the numbered datagrams arrived", contender.kind);
    Ok(vec![(Metric::Reordered, super::float(seen.late) * 1e6 / super::float(seen.received))])
}

fn send(socket: &UdpSocket, time: Duration) -> anyhow::Result<()> {
    // A process that moves to another processor overtakes itself, whatever carries its frames.
    machine::pin(SENDER)?;
    let mut buffer = [0; 1400];
    let start = Instant::now();
    let (mut number, mut bursts) = (0_u64, 0);
    while start.elapsed() < time {
        for size in SIZES.into_iter().cycle().take(BURST.0) {
            buffer[..8].copy_from_slice(&number.to_ne_bytes());
            number += 1;
            socket.send(&buffer[..size])?;
        }
        bursts += 1;
        // Bursts that are late are not caught up with: the rate stays moderate.
        thread::sleep((BURST.1 * bursts).saturating_sub(start.elapsed()));
        bursts = bursts.max(u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX));
    }
    Ok(())
}

/// What arrived.
#[derive(Clone, Copy, Default, Debug)]
struct Seen {
    received: u64,
    /// After one with a higher number.
    late: u64,
}

fn receive(socket: &UdpSocket) -> Seen {
    let mut seen = Seen::default();
    let mut highest = 0;
    let mut buffer = [0; 2048];
    // The first one may take as long as TCP takes to connect.
    let end = Instant::now() + Duration::from_secs(3);
    while seen.received == 0 && Instant::now() < end || seen.received > 0 {
        let Ok(length) = socket.recv(&mut buffer) else {
            if seen.received > 0 {
                break;
            }
            continue;
        };
        let Some(number) = buffer[..length].first_chunk::<8>().map(|it| u64::from_ne_bytes(*it)) else { continue };
        seen.received += 1;
        if number < highest {
            seen.late += 1;
        }
        highest = highest.max(number);
    }
    seen
}
