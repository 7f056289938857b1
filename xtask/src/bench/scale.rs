//! Many networks on one interface, many MAC addresses behind one peer: what a small frame costs beside what it costs where
//! there is one of them. On wire-size frames over IPv4.

mod report;
mod town;

use std::{path::Path, time::Duration};

use l2mesh_tests::Lab;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub(crate) use self::report::Results;
use self::{
    report::{Load, Row},
    town::Town,
};
use super::{BenchArgs, Measurement, contender::Kind, machine::CpuTime, programs::Programs};

/// What there is many of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Subject {
    Networks,
    Macs,
}

impl Subject {
    const ALL: [Self; 2] = [Self::Networks, Self::Macs];

    const fn measurement(self) -> Measurement {
        match self {
            Self::Networks => Measurement::Networks,
            Self::Macs => Measurement::Macs,
        }
    }

    /// In JSON.
    const fn key(self) -> &'static str {
        match self {
            Self::Networks => "networks",
            Self::Macs => "macs",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Networks => "networks on one interface",
            Self::Macs => "MAC addresses behind one peer",
        }
    }

    fn sizes(self, args: &BenchArgs) -> &[u32] {
        match self {
            Self::Networks => &args.networks,
            Self::Macs => &args.macs,
        }
    }
}

/// Measures what is wanted of it.
///
/// # Errors
/// Something cannot be built, or a frame does not arrive.
pub(crate) fn measure(args: &BenchArgs, binary: &Path, programs: &mut Programs) -> anyhow::Result<Results> {
    let mut results = Results::default();
    for subject in Subject::ALL.into_iter().filter(|subject| args.wants(subject.measurement())) {
        // Each sink on each interface is a descriptor.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let lab = Lab::new("scale");
        lab.use_l2mesh(binary);
        measure_subject(args, subject, &lab, programs, &mut results)?;
    }
    Ok(results)
}

fn measure_subject(
    args: &BenchArgs,
    subject: Subject,
    lab: &Lab,
    programs: &mut Programs,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (rounds, time) = args.rounds();
    let bare = Town::new(lab, subject, Kind::Bare, 1, programs)?;
    let mut towns = Vec::new();
    for &size in subject.sizes(args) {
        for kind in [Kind::Vxlan, Kind::Tc, Kind::Xdp].into_iter().filter(|kind| args.wants_kind(*kind)) {
            eprintln!("bench: building {subject:?}, {kind}, {size}");
            towns.push(Town::new(lab, subject, kind, size, programs)?);
        }
    }
    let mut disturbance = Vec::new();
    for round in 1..=rounds {
        eprintln!("bench: {subject:?}, round {round} of {rounds}");
        disturbance.push(CpuTime::disturbance()?);
        results.add(Row::bare(subject), 1, bare.sent(programs, Load::One, time)?);
        for town in &towns {
            measure_town(town, subject, time, programs, results)?;
        }
    }
    results.notes.push(format!("{subject:?}: {}", super::about_rounds(rounds, time, disturbance)));
    Ok(())
}

fn measure_town(
    town: &Town,
    subject: Subject,
    time: Duration,
    programs: &mut Programs,
    results: &mut Results,
) -> anyhow::Result<()> {
    let (kind, size) = (town.kind, town.size);
    let loads = if size == 1 { &[Load::One][..] } else { &[Load::One, Load::Turn] };
    for &load in loads {
        // XDP changes what is received, not what is sent.
        if kind != Kind::Xdp {
            results.add(Row::sent(subject, kind, load), size, town.sent(programs, load, time)?);
        }
        results.add(Row::received(subject, kind, load), size, town.received(programs, load, time)?);
    }
    if subject == Subject::Macs
        && let Some(rate) = town.learned(programs)?
    {
        results.add(Row::learned(kind), size, rate);
    }
    Ok(())
}
