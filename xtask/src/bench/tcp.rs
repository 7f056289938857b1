//! Bulk TCP: throughput, and what a gigabyte costs the whole machine.

use super::{Sample, Step, contender::Contender, machine::CpuTime, metric::Metric};

/// One flow and four.
///
/// # Errors
/// /proc/stat cannot be read.
pub(crate) fn measure(step: &mut Step<'_>, contender: &mut Contender) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (flows, throughput, cost) in [(1, Metric::Tcp1, Metric::Tcp1Cpu), (4, Metric::Tcp4, Metric::Tcp4Cpu)] {
        let before = CpuTime::now()?;
        let report = contender.iperf.tcp(&contender.a, step.time, flows);
        let busy = before.busy_since()?;
        let gigabytes = report.json["end"]["sum_received"]["bytes"].as_f64().unwrap_or_default() / 1e9;
        samples.push((throughput, report.bits_per_second / 1e9));
        samples.push((cost, busy / gigabytes));
    }
    Ok(samples)
}
