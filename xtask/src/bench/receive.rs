//! Small frames received: native XDP frames from one processor, received by a thread on the other, counted where they
//! leave the interface that carries the traffic.

use super::{
    Sample, Step,
    contender::{Contender, Medium},
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
    let rate = step.programs.generate(&contender.a, "eth0", &contender.pattern(), SENDER, step.time)?;
    let metric = if contender.medium == Medium::V6 { Metric::V6Receive } else { Metric::Receive };
    Ok(vec![(metric, rate / 1e3)])
}
