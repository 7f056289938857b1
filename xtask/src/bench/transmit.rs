//! Small frames sent: a socket in a tight loop on one processor, the frames dropped at the far end on the other.

use std::{
    io::IoSlice,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};

use super::{
    Sample, Step,
    contender::{Contender, DISCARD, SMALL},
    machine::{self, RECEIVER, SENDER},
    metric::Metric,
};

/// Frames in one system call.
const BATCH: usize = 64;
/// Octets that may be under way: the far end holds frames of ours in its ring.
const BUFFER: usize = 16 << 20;

/// Time per frame, in nanoseconds.
///
/// # Errors
/// The sink cannot be attached, or too few frames arrive for the number to mean anything.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let _napi = contender.b.thread_napi("eth0", RECEIVER);
    let _sink = step.programs.attach_sink(&contender.b, "eth0")?;
    let before = step.programs.arrived()?;
    let sent = contender.a.in_namespace(|| flood(contender.addresses[1], step.time))?;
    std::thread::sleep(Duration::from_millis(20));
    let arrived = step.programs.arrived()? - before;
    let share = super::float(arrived) / super::float(sent.frames);
    if share < 0.9 {
        eprintln!("bench: {}: only {:.0} % of the sent frames arrived", contender.kind, share * 100.0);
    }
    Ok(vec![(Metric::Transmit, sent.nanoseconds_per_frame())])
}

/// What [`flood`] did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) frames: u64,
    pub(crate) time: Duration,
}

impl Sent {
    fn nanoseconds_per_frame(self) -> f64 {
        self.time.as_secs_f64() * 1e9 / super::float(self.frames)
    }
}

/// Sends small frames to an address as fast as one processor can.
///
/// # Errors
/// What the socket says.
pub(crate) fn flood(target: Ipv4Addr, time: Duration) -> anyhow::Result<Sent> {
    machine::pin(SENDER)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    socket.connect((target, DISCARD))?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
    let payload = [0; SMALL];
    let slices = vec![[IoSlice::new(&payload)]; BATCH];
    let addresses = [None::<SockaddrIn>; BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let start = Instant::now();
    let mut frames = 0;
    while start.elapsed() < time {
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, addresses, [], MsgFlags::empty())?;
        frames += sent.count() as u64;
    }
    Ok(Sent { frames, time: start.elapsed() })
}
