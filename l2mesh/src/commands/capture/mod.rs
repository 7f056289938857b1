//! `l2mesh capture`: the frames that pass the kernel programs, with what became of each.

mod frame;
mod line;
mod pcapng;
mod recorder;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use l2mesh_common::{
    tables::{ANYBODY, CaptureFilter, LabelKey, PeerId, Point},
    wire::Vni,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval},
};

use self::{frame::Recorded, pcapng::Pcapng, recorder::Recorder};
use super::output::{Attached, attached};
use crate::{cli::CaptureArgs, dataplane::tables::Tables};

/// How often what was recorded is fetched.
const FETCH: Duration = Duration::from_millis(20);

/// Records frames until it is interrupted, or there are as many as were asked for.
///
/// # Errors
/// No mesh is attached, somebody captures already, or the kernel does not let us.
pub(crate) async fn run(args: &CaptureArgs, pin_root: &Path) -> anyhow::Result<()> {
    let mesh = attached(pin_root, args.iface.as_deref())?;
    let filter = filter(args, &mesh)?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut names = Names { tables: &mesh.tables, known: HashMap::new() };
    let mut output = Output::open(args.write.as_deref(), mesh.tables.settings.get(&0, 0)?.port)?;
    let mut recorder = Recorder::start(&mesh, filter)?;
    eprintln!("capturing on {}: Ctrl-C ends it", mesh.interface);
    let mut ticks = interval(FETCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    let wanted = args.count.unwrap_or(u64::MAX);
    let (mut written, mut missed) = (0, Duration::ZERO);
    let end = loop {
        let is_over = tokio::select! {
            _ = ticks.tick() => false,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        };
        // We were stopped, or nobody took what we write: the programs have recorded nothing since, and have not counted it.
        missed += renewed.elapsed().saturating_sub(recorder::LEASE);
        let mut is_gone = false;
        if is_over {
            recorder.stop();
        } else if renewed.elapsed() >= recorder::RENEW {
            is_gone = !recorder.renew();
            renewed = Instant::now();
            names.known.clear();
        }
        for recorded in recorder.fetch(is_over || is_gone) {
            if written < wanted {
                output.write(&recorded, &mut names)?;
                written += 1;
            }
        }
        output.flush()?;
        if is_gone {
            break Some("the mesh was detached");
        }
        if is_over || written >= wanted {
            break None;
        }
    };
    recorder.stop();
    if let Some(end) = end {
        eprintln!("{end}");
    }
    eprintln!("{}", summary(written, recorder.lost(), missed));
    Ok(())
}

fn summary(written: u64, lost: u64, missed: Duration) -> String {
    let what = if written == 1 { "1 frame".to_owned() } else { format!("{written} frames") };
    let text = match lost {
        0 => format!("{what} captured, none lost"),
        _ => format!(
            "{what} captured, {lost} lost, which came faster than they could be written: --snaplen 128, --point, --peer and --vni \
             make it less"
        ),
    };
    if missed.is_zero() {
        return text;
    }
    format!("{text}; nothing was recorded for {:.1} s, while what was captured was not taken", missed.as_secs_f64())
}

fn filter(args: &CaptureArgs, mesh: &Attached) -> anyhow::Result<CaptureFilter> {
    let points = if args.point.is_empty() {
        Point::ALL.iter().map(|point| point.bit()).sum()
    } else {
        args.point.iter().fold(0, |bits, point| bits | point.point().bit())
    };
    if let Some(vni) = args.vni {
        // A relay forwards in networks that are not its own.
        ensure!(
            mesh.tables.networks.get(&vni.get(), 0).is_ok() || mesh.tables.relayed.get(&vni.get(), 0).is_ok(),
            "no network here has VNI {vni}: see `l2mesh maps networks`"
        );
    }
    let peer = args.peer.as_deref().map_or(Ok(ANYBODY), |name| peer(&mesh.tables, name))?;
    let vni = args.vni.map_or(0, Vni::get);
    Ok(CaptureFilter { points, vni, peer, snaplen: args.snaplen, ..CaptureFilter::default() })
}

/// The peer of this name or address.
fn peer(tables: &Tables, wanted: &str) -> anyhow::Result<PeerId> {
    let vteps = tables.vteps.iter().collect::<Result<Vec<_>, _>>().context("cannot read VTEPS")?;
    let address: Option<IpAddr> = wanted.parse().ok();
    let mut peers: Vec<(PeerId, String)> =
        vteps.iter().map(|&(_, id)| (id, tables.label(LabelKey::peer(id)))).collect();
    peers.sort();
    peers.dedup();
    let named = peers.iter().find(|(_, name)| name == wanted).map(|&(id, _)| id);
    let at = || vteps.iter().find(|(vtep, _)| Some(vtep.ip()) == address).map(|&(_, id)| id);
    if let Some(id) = named.or_else(at) {
        return Ok(id);
    }
    let names: Vec<&str> = peers.iter().map(|(_, name)| &**name).collect();
    bail!("no peer is called {wanted:?}: there are {}", names.join(", "))
}

/// What peers are called. A configuration may change meanwhile, and with it a name.
struct Names<'a> {
    tables: &'a Tables,
    known: HashMap<PeerId, Option<String>>,
}

impl Names<'_> {
    fn of(&mut self, peer: PeerId) -> Option<&str> {
        if peer == ANYBODY {
            return None;
        }
        let name = || Some(self.tables.label(LabelKey::peer(peer))).filter(|name| !name.is_empty());
        self.known.entry(peer).or_insert_with(name).as_deref()
    }
}

/// Where frames go.
enum Output {
    Pcapng(Pcapng<BufWriter<Box<dyn Write>>>),
    Lines { out: BufWriter<io::Stdout>, port: u16 },
}

impl Output {
    fn open(path: Option<&Path>, port: u16) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::Lines { out: BufWriter::new(io::stdout()), port }) };
        let writer: Box<dyn Write> = if path == Path::new("-") {
            ensure!(
                !io::stdout().is_terminal(),
                "stdout is a terminal: pipe it, as in `l2mesh capture -w - | tshark -r -`"
            );
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        };
        Ok(Self::Pcapng(Pcapng::new(BufWriter::new(writer))?))
    }

    fn write(&mut self, recorded: &Recorded, names: &mut Names<'_>) -> io::Result<()> {
        let peer = names.of(recorded.peer).map(str::to_owned);
        let origin = names.of(recorded.origin).map(str::to_owned);
        match self {
            Self::Pcapng(file) => file.frame(recorded, &comment(recorded, peer.as_deref(), origin.as_deref())),
            Self::Lines { out, port } => {
                writeln!(out, "{}", line::line(recorded, peer.as_deref(), origin.as_deref(), *port))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Pcapng(file) => file.flush(),
            Self::Lines { out, .. } => out.flush(),
        }
    }
}

/// What stands beside a frame in Wireshark.
fn comment(recorded: &Recorded, peer: Option<&str>, origin: Option<&str>) -> String {
    let Recorded { seen, vni, segment, .. } = recorded;
    let mut text = format!("verdict={} point={}", seen.verdict.label(), seen.point.name());
    for (key, name) in [("peer", peer), ("from", origin)] {
        if let Some(name) = name {
            text += &format!(" {key}={name}");
        }
    }
    if *vni != 0 {
        text += &format!(" vni={}", super::maps::vni_text(*vni));
    }
    if *segment != 0 {
        text += &format!(" segment={segment}");
    }
    text
}
