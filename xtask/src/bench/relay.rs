//! A host that hands frames on for two others, and what it costs to watch the paths of a large mesh.

mod frames;
mod probes;
mod report;
mod tcp;

use std::path::Path;

use l2mesh_tests::Lab;

pub(crate) use self::report::Results;
use self::{frames::Relay, probes::Watched, report::Row, tcp::Chain};
use super::{BenchArgs, Measurement, contender::Kind, machine::CpuTime, programs::Programs};

/// Those that are compared.
const KINDS: [Kind; 3] = [Kind::Vxlan, Kind::Tc, Kind::Xdp];

/// Arguments of `l2mesh attach`. Wires of relays in mode xdp are ready for what XDP sends, which attach cannot know.
const fn modes(kind: Kind) -> [&'static str; 4] {
    match kind {
        Kind::Xdp => ["--mode", "xdp", "--xdp-tx", "on"],
        _ => ["--mode", kind.mode(), "--xdp-tx", "off"],
    }
}

/// Measures what is wanted of it.
///
/// # Errors
/// Something cannot be built, or a frame does not arrive.
pub(crate) fn measure(args: &BenchArgs, binary: &Path, programs: &mut Programs) -> anyhow::Result<Results> {
    let mut results = Results::default();
    let kinds = || KINDS.into_iter().filter(|kind| args.wants_kind(*kind));
    if args.wants(Measurement::Relay) {
        let lab = Lab::new("relay");
        lab.use_l2mesh(binary);
        eprintln!("bench: building relays");
        let relays: Vec<_> = kinds().map(|kind| Relay::new(&lab, kind, programs)).collect::<Result<_, _>>()?;
        let mut chains = Chain::all(&lab, kinds());
        rounds(args, "Relay", &mut results, |results, time| {
            for relay in &relays {
                results.add(Row::Frames, relay.kind, relay.measure(programs, time)?);
            }
            for chain in &mut chains {
                results.add(Row::Tcp, chain.kind, chain.measure(time));
            }
            Ok(())
        })?;
    }
    if args.wants(Measurement::Probes) {
        for is_relay in [false, true] {
            for kind in kinds().filter(|kind| kind.is_l2mesh()) {
                let lab = Lab::new("probes");
                lab.use_l2mesh(binary);
                eprintln!("bench: building a mesh of {}, {kind}", probes::NODES);
                let mut watched = Watched::new(&lab, kind, is_relay, programs)?;
                rounds(args, "Probes", &mut results, |results, time| {
                    for (row, percent) in watched.measure(time) {
                        results.add(row, kind, percent);
                    }
                    Ok(())
                })?;
                results.notes.push(watched.note());
            }
        }
    }
    Ok(results)
}

fn rounds(
    args: &BenchArgs,
    what: &str,
    results: &mut Results,
    mut round: impl FnMut(&mut Results, std::time::Duration) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (rounds, time) = args.rounds();
    let mut disturbance = Vec::new();
    for number in 1..=rounds {
        eprintln!("bench: {what}, round {number} of {rounds}");
        disturbance.push(CpuTime::disturbance()?);
        round(results, time)?;
    }
    let note = format!("{what}: {}", super::about_rounds(rounds, time, disturbance));
    if !results.notes.contains(&note) {
        results.notes.push(note);
    }
    Ok(())
}
