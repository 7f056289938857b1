//! Small frames sent: a socket in a tight loop on one processor; the far end drops them before it looks at them.

use std::{
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, setsockopt, sockopt};

use super::{
    Sample, Step,
    contender::{Contender, DISCARD, Kind, Medium, small},
    machine::{self, SENDER},
    metric::Metric,
};

/// Frames in one system call.
const BATCH: usize = 64;
/// Octets that may be under way.
const BUFFER: usize = 16 << 20;

/// Time per frame, in nanoseconds, its reception on the same processor included: that is the same for all who send, and
/// what is over bare is the work of sending.
///
/// # Errors
/// The sink cannot be attached, or frames are lost, which makes the number worthless.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    // XDP changes what is received, not what is sent.
    if matches!(contender.kind, Kind::VxlanXdp | Kind::Xdp) {
        return Ok(Vec::new());
    }
    // Without NAPI a frame goes straight through the backlog of the processor that sent it, past GRO.
    contender.b.offload("eth0", &["gro", "off"]);
    let sink = step.programs.attach_sink(&contender.b, "eth0")?;
    let before = step.programs.arrived()?;
    let sent = contender.a.in_namespace(|| flood(contender.addresses[1], step.time))?;
    let arrived = step.programs.arrived()? - before;
    drop(sink);
    contender.b.offload("eth0", &["gro", "on"]);
    let share = super::float(arrived) / super::float(sent.frames);
    ensure!(share > 0.98, "{}: only {:.0} % of the sent frames arrived", contender.kind, share * 100.0);
    let metric = if contender.medium == Medium::V6 { Metric::V6Transmit } else { Metric::Transmit };
    Ok(vec![(metric, sent.nanoseconds_per_frame())])
}

/// What [`flood`] did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) frames: u64,
    pub(crate) time: Duration,
}

impl Sent {
    pub(crate) fn nanoseconds_per_frame(self) -> f64 {
        self.time.as_secs_f64() * 1e9 / super::float(self.frames)
    }
}

/// Sends small frames to an address as fast as one processor can.
///
/// # Errors
/// What the socket says.
pub(crate) fn flood(target: IpAddr, time: Duration) -> anyhow::Result<Sent> {
    machine::pin(SENDER)?;
    let socket = socket(target)?;
    let payload = vec![0; small(target)];
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

/// Towards a sink at this address, which may be a broadcast address.
///
/// # Errors
/// What the kernel says.
pub(crate) fn socket(target: IpAddr) -> anyhow::Result<UdpSocket> {
    let any = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_broadcast(true)?;
    socket.connect((target, DISCARD))?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
    Ok(socket)
}
