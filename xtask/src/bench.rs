//! `cargo xtask bench`: l2mesh beside the kernel's vxlan device and the bare underlay, in one run, the rounds
//! interleaved.

mod broadcast;
mod contender;
mod instructions;
mod machine;
mod metric;
mod pattern;
mod programs;
mod receive;
mod relay;
mod reorder;
mod report;
mod round_trip;
mod scale;
mod tcp;
mod transmit;

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use l2mesh_tests::{Lab, Wire};
use serde_json::json;

use self::{
    broadcast::Crowd,
    contender::{Contender, Kind, Medium},
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
    /// What crosses the underlay; networks and MAC addresses are always measured on frames
    #[arg(long, value_enum, default_value_t = Wires::Both)]
    wire: Wires,
    /// Numbers of networks on one interface, the first is what the others are compared with
    #[arg(long, value_delimiter = ',', default_values_t = [1, 256, 4094], value_parser = clap::value_parser!(u32).range(1..=4094))]
    networks: Vec<u32>,
    /// Numbers of MAC addresses behind one peer, likewise
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1000, 65536], value_parser = clap::value_parser!(u32).range(1..=65536))]
    macs: Vec<u32>,
}

impl BenchArgs {
    fn rounds(&self) -> (u32, Duration) {
        let (rounds, seconds) = if self.quick { (2, 1.0) } else { (self.rounds, self.seconds) };
        (rounds, Duration::from_secs_f64(seconds))
    }

    fn wants(&self, what: Measurement) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }

    fn wants_kind(&self, kind: Kind) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|name| name == kind.key())
    }
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
    /// TCP and small frames, IPv6 inside and outside
    Ipv6,
    /// Bulk TCP in 802.1Q tags
    Tagged,
    /// Small frames of one network of many
    Networks,
    /// Small frames of one MAC address of many, and how fast they are learned
    Macs,
    /// Small frames and bulk TCP through a relay
    Relay,
    /// Processor time of probes in a mesh of 256 nodes
    Probes,
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
const PAIRS: [(Measurement, Medium, Measure); 9] = [
    (Measurement::Tcp, Medium::V4, tcp::measure),
    (Measurement::Transmit, Medium::V4, transmit::measure),
    (Measurement::Receive, Medium::V4, receive::measure),
    (Measurement::RoundTrip, Medium::V4, round_trip::measure),
    (Measurement::Reorder, Medium::V4, reorder::measure),
    (Measurement::Ipv6, Medium::V6, tcp::measure),
    (Measurement::Ipv6, Medium::V6, transmit::measure),
    (Measurement::Ipv6, Medium::V6, receive::measure),
    (Measurement::Tagged, Medium::Tagged, tcp::measure),
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
    let on_wires = PAIRS.iter().any(|(what, ..)| args.wants(*what)) || args.wants(Measurement::Broadcast);
    let wires = match args.wire {
        _ if !on_wires => &[][..],
        Wires::Both => &[Wire::Frames, Wire::Plain],
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
    let scale = scale::measure(args, &binary, &mut programs)?;
    let relay = relay::measure(args, &binary, &mut programs)?;
    if args.json {
        let instructions: serde_json::Map<_, _> =
            instructions.into_iter().map(|(name, count)| (name, count.into())).collect();
        let (scale, relay) = (scale.json(), relay.json());
        let all = json!({ "wires": all, "scale": scale, "relay": relay, "verified_instructions": instructions });
        println!("{all:#}");
    } else {
        print!("{}", scale.table());
        print!("{}", relay.table());
        if instructions.is_empty() {
            return Ok(());
        }
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
    let (rounds, time) = args.rounds();
    eprintln!("bench: building the contenders, {wire:?}");
    let pairs: Vec<_> = PAIRS.into_iter().filter(|(what, ..)| args.wants(*what)).collect();
    let mut contenders = Vec::new();
    for medium in [Medium::V4, Medium::V6, Medium::Tagged] {
        let all = if medium == Medium::V4 { &Kind::ALL[..] } else { &Kind::MAIN };
        for &kind in all.iter().filter(|kind| args.wants_kind(**kind)) {
            if pairs.iter().any(|pair| pair.1 == medium) {
                contenders.push(Contender::new(lab, wire, medium, kind, programs)?);
            }
        }
    }
    let crowds = if args.wants(Measurement::Broadcast) { Crowd::all(lab, wire) } else { Vec::new() };
    let mut results = Results::default();
    let mut disturbance = Vec::new();
    for round in 1..=rounds {
        disturbance.push(CpuTime::disturbance()?);
        for &(what, medium, measure) in &pairs {
            eprintln!("bench: {wire:?}, round {round} of {rounds}: {what:?}");
            for contender in contenders.iter_mut().filter(|contender| contender.medium == medium) {
                let mut step = Step { programs, time };
                for sample in measure(&mut step, contender)? {
                    results.add(contender.kind, sample);
                }
            }
        }
        if args.wants(Measurement::Broadcast) {
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
    results.notes.push(about_rounds(rounds, time, disturbance));
    Ok(results)
}

fn about_rounds(rounds: u32, time: Duration, mut disturbance: Vec<f64>) -> String {
    disturbance.sort_by(f64::total_cmp);
    let busy = metric::median(&disturbance).unwrap_or_default() * 100.0;
    let seconds = time.as_secs_f64();
    format!(
        "{rounds} rounds of {seconds} s; before a round the machine was {busy:.0} % busy with something else (median)"
    )
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds have fewer than 52 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn whole(number: f64) -> usize {
    number as usize
}
