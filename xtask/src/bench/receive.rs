//! Small frames received: native XDP frames from one processor, received by a thread on the other, counted where they
//! leave the interface that carries the traffic.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Sample, Step,
    contender::Contender,
    machine::{RECEIVER, SENDER},
    metric::Metric,
};

/// Until the rings are full and the receiver does nothing else.
const WARM_UP: Duration = Duration::from_millis(100);

/// Frames that arrive, in thousands per second.
///
/// # Errors
/// The generator does not run.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let _napi = contender.b.thread_napi("eth0", RECEIVER);
    let _sink = step.programs.attach_sink(&contender.b, contender.kind.device())?;
    let frame = contender.wire_frame();
    step.programs.generate(&contender.a, "eth0", &frame, SENDER, WARM_UP)?;
    let (before, start) = (step.programs.arrived()?, Instant::now());
    step.programs.generate(&contender.a, "eth0", &frame, SENDER, step.time)?;
    let (arrived, time) = (step.programs.arrived()? - before, start.elapsed());
    // What is still in rings belongs to nobody's measurement.
    thread::sleep(Duration::from_millis(20));
    anyhow::ensure!(arrived > 0, "{}: nothing of what was generated arrived", contender.kind);
    Ok(vec![(Metric::Receive, super::float(arrived) / time.as_secs_f64() / 1e3)])
}
