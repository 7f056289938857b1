//! Small frames received: native XDP frames from one processor, received by a thread on the other, counted where they
//! leave the interface that carries the traffic.

use super::{
    Sample, Step,
    contender::Contender,
    machine::{RECEIVER, SENDER},
    metric::Metric,
};

/// Frames that arrive, in thousands per second.
///
/// # Errors
/// The generator does not run.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let _napi = contender.b.thread_napi("eth0", RECEIVER);
    let _sink = step.programs.attach_sink(&contender.b, contender.kind.device())?;
    let frame = contender.wire_frame();
    let rate = step.programs.generate(&contender.a, "eth0", &frame, SENDER, step.time)?;
    Ok(vec![(Metric::Receive, rate / 1e3)])
}
