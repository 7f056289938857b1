//! Bulk TCP: throughput, and what a gigabyte costs the whole machine.

use super::{
    Sample, Step,
    contender::{Contender, Medium},
    machine::CpuTime,
    metric::Metric,
};

/// Flows at once, and the metrics of them.
type Flows = (u32, Metric, Metric);

/// One flow, and four where nothing is special.
///
/// # Errors
/// /proc/stat cannot be read.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let all: &[Flows] = match contender.medium {
        Medium::V4 => &[(1, Metric::Tcp1, Metric::Tcp1Cpu), (4, Metric::Tcp4, Metric::Tcp4Cpu)],
        Medium::V6 => &[(1, Metric::V6Tcp1, Metric::V6Tcp1Cpu)],
        Medium::Tagged => &[(1, Metric::TaggedTcp1, Metric::TaggedTcp1Cpu)],
    };
    let mut samples = Vec::new();
    for &(flows, throughput, cost) in all {
        let before = CpuTime::now()?;
        let report = contender.iperf.tcp(&contender.a, step.time, flows);
        let busy = before.busy_since()?;
        let gigabytes = report.json["end"]["sum_received"]["bytes"].as_f64().unwrap_or_default() / 1e9;
        samples.push((throughput, report.bits_per_second / 1e9));
        samples.push((cost, busy / gigabytes));
    }
    Ok(samples)
}
