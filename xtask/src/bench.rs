//! `cargo xtask bench`: l2mesh beside the kernel's vxlan device and the bare underlay, in one run, the rounds
//! interleaved.

mod broadcast;
mod contender;
mod instructions;
mod machine;
mod metric;
mod programs;
mod receive;
mod reorder;
mod report;
mod round_trip;
mod tcp;
mod transmit;

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use l2mesh_tests::{Lab, Wire};
use serde_json::json;

use self::{
    broadcast::Crowd,
    contender::{Contender, Kind},
    machine::CpuTime,
    metric::Metric,
    programs::Programs,
    report::Results,
};
use crate::{
    cargo::as_root,
    setup::{self, Need},
};

/// What to measure, and how long.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The result as JSON
    #[arg(long)]
    json: bool,
    /// How often everything is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that one measurement of one contender takes
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// 2 rounds of 1 second
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Only these
    #[arg(long, value_delimiter = ',')]
    only: Vec<Measurement>,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// What crosses the underlay
    #[arg(long, value_enum, default_value_t = Wires::Both)]
    wire: Wires,
}

/// What crosses the underlay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Wires {
    /// First the one, then the other
    Both,
    /// Frames as a real wire has them
    Frames,
    /// veth as it is
    Plain,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Measurement {
    /// Bulk TCP
    Tcp,
    /// Small frames sent
    Transmit,
    /// Small frames received
    Receive,
    /// Round-trip time
    RoundTrip,
    /// Broadcast to 2, 32 and 128 peers
    Broadcast,
    /// Order of frames
    Reorder,
}

/// A number, and what it is of.
type Sample = (Metric, f64);

/// What a measurement gets.
struct Step<'a> {
    programs: &'a mut Programs,
    time: Duration,
}

type Measure = fn(&mut Step<'_>, &mut Contender) -> anyhow::Result<Vec<Sample>>;

/// Those that take two hosts.
const PAIRS: [(Measurement, Measure); 5] = [
    (Measurement::Tcp, tcp::measure),
    (Measurement::Transmit, transmit::measure),
    (Measurement::Receive, receive::measure),
    (Measurement::RoundTrip, round_trip::measure),
    (Measurement::Reorder, reorder::measure),
];

/// Measures and prints.
///
/// # Errors
/// Something does not build, or a contender does not work.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    ensure!(args.seconds > 0.0 && args.seconds < 3600.0, "--seconds is more than 0 and less than an hour");
    setup::run(&[Need::Build, Need::Lab])?;
    if as_root()? {
        return Ok(());
    }
    let binary = programs::build_l2mesh()?;
    let mut programs = Programs::new()?;
    machine::hurry()?;
    let wires = match args.wire {
        Wires::Both => &[Wire::Frames, Wire::Plain][..],
        Wires::Frames => &[Wire::Frames],
        Wires::Plain => &[Wire::Plain],
    };
    let mut instructions = BTreeMap::new();
    let mut all = serde_json::Map::new();
    for &wire in wires {
        let lab = Lab::new("bench");
        lab.use_l2mesh(&binary);
        let results = on_wire(args, wire, &lab, &mut programs, &mut instructions)?;
        if !args.json {
            print!("{}", results.table(wire));
        }
        all.insert(format!("{wire:?}").to_lowercase(), results.json());
    }
    if args.json {
        let instructions: serde_json::Map<_, _> =
            instructions.into_iter().map(|(name, count)| (name, count.into())).collect();
        println!("{:#}", json!({ "wires": all, "verified_instructions": instructions }));
    } else {
        println!("\nverified instructions:");
        for (name, count) in instructions {
            println!("{name:32}{count:>12}");
        }
    }
    Ok(())
}

fn on_wire(
    args: &BenchArgs,
    wire: Wire,
    lab: &Lab,
    programs: &mut Programs,
    counts: &mut BTreeMap<String, u32>,
) -> anyhow::Result<Results> {
    let (rounds, seconds) = if args.quick { (2, 1.0) } else { (args.rounds, args.seconds) };
    let time = Duration::from_secs_f64(seconds);
    let wanted = |what| args.only.is_empty() || args.only.contains(&what);
    eprintln!("bench: building the contenders, {wire:?}");
    let kinds = Kind::ALL
        .into_iter()
        .filter(|kind| args.contenders.is_empty() || args.contenders.iter().any(|name| name == kind.key()));
    let pairs = PAIRS.iter().any(|(what, _)| wanted(*what));
    let mut contenders = if pairs {
        kinds.map(|kind| Contender::new(lab, wire, kind, programs)).collect::<anyhow::Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let crowds = if wanted(Measurement::Broadcast) { Crowd::all(lab, wire) } else { Vec::new() };
    let mut results = Results::default();
    let mut disturbance = Vec::new();
    for round in 1..=rounds {
        disturbance.push(CpuTime::disturbance()?);
        for (what, measure) in PAIRS.iter().filter(|(what, _)| wanted(*what)) {
            eprintln!("bench: {wire:?}, round {round} of {rounds}: {what:?}");
            for contender in &mut contenders {
                let mut step = Step { programs, time };
                for sample in measure(&mut step, contender)? {
                    results.add(contender.kind, sample);
                }
            }
        }
        if wanted(Measurement::Broadcast) {
            eprintln!("bench: {wire:?}, round {round} of {rounds}: Broadcast");
        }
        for crowd in &crowds {
            let sample = crowd.measure(programs, time)?;
            results.add(crowd.kind, sample);
        }
    }
    results.notes.extend(crowds.iter().filter_map(Crowd::counted));
    let pids: Vec<u32> = contenders.iter_mut().flat_map(Contender::pids).collect();
    counts.extend(instructions::of(&pids)?);
    let mut sorted = disturbance;
    sorted.sort_by(f64::total_cmp);
    let busy = metric::median(&sorted).unwrap_or_default() * 100.0;
    results.notes.push(format!(
        "{rounds} rounds of {seconds} s; before a round the machine was {busy:.0} % busy with something else (median)"
    ));
    Ok(results)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds have fewer than 52 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn whole(number: f64) -> usize {
    number as usize
}
