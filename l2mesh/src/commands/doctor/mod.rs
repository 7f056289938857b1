//! `l2mesh doctor`: what is wrong, and what to do about it.
//!
//! Facts are gathered once; each check is a function of them, in the list below.

mod ask;
mod card;
mod facts;
mod finding;
mod gather;
mod host;
mod peers;
mod port;
mod rules;
mod scene;
#[cfg(test)]
mod tests;

use std::{io::Write as _, path::Path};

use anyhow::bail;

use self::{
    facts::Facts,
    finding::{Finding, Level, Report},
};
use crate::cli::DoctorArgs;

/// What is looked at, in the order in which one thing rests on another.
const CHECKS: [fn(&Facts) -> Vec<Finding>; 20] = [
    host::kernel,
    host::jit,
    host::pins,
    host::agent,
    host::file,
    card::driver,
    card::queues,
    card::offloads,
    card::mtu,
    card::others,
    peers::ways,
    port::firewall,
    port::rp_filter,
    port::owner,
    peers::duplicates,
    peers::strangers,
    peers::reach,
    peers::configuration,
    peers::long,
    card::losses,
];

/// Looks at everything and says what it found.
///
/// # Errors
/// There is a fault, or stdout cannot be written.
pub(crate) async fn run(args: &DoctorArgs, pin_root: &Path) -> anyhow::Result<()> {
    let findings = match scene::find(args, pin_root).await? {
        Ok((scene, mut findings)) => {
            let facts = gather::gather(&scene).await?;
            findings.splice(0..0, judge(&facts));
            findings
        }
        Err(findings) => findings,
    };
    let report = Report::new(findings);
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    match report.count(Level::Fault) {
        0 => Ok(()),
        1 => bail!("1 fault was found"),
        more => bail!("{more} faults were found"),
    }
}

fn judge(facts: &Facts) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(facts)).collect()
}
