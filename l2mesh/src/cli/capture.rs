//! What `capture` is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use l2mesh_common::{
    tables::{CaptureFilter, Point},
    wire::Vni,
};

/// What `capture` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh capture
  l2mesh capture --point drop
  l2mesh capture --peer ovh --vni 0xff01 -w lan.pcapng
  ssh host l2mesh capture -w - | wireshark -k -i -

Ends at Ctrl-C. No agent is needed, and nothing stays switched on when it is killed.")]
pub(crate) struct CaptureArgs {
    /// The underlay interface; needed when there is more than one mesh
    #[arg(long)]
    pub iface: Option<String>,
    /// Only frames to and from this node: its name or its address
    #[arg(long, value_name = "NODE")]
    pub peer: Option<String>,
    /// Only this network: decimal or 0x and hexadecimal
    #[arg(long)]
    pub vni: Option<Vni>,
    /// Only frames at this point; can be given several times [default: all]
    #[arg(long, value_enum)]
    pub point: Vec<PointArg>,
    /// Into this file as pcapng, for Wireshark and tshark; - is stdout [default: a line for each frame]
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// End after so many frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Of each frame only its first octets
    #[arg(long, value_name = "OCTETS", default_value_t = CaptureFilter::MAX_SNAPLEN,
          value_parser = clap::value_parser!(u32).range(14..=i64::from(CaptureFilter::MAX_SNAPLEN)))]
    pub snaplen: u32,
}

/// A place on the way of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum PointArg {
    /// Sent to a peer: the frame as it is inside
    Encap,
    /// Received from a peer: the frame as it is inside
    Decap,
    /// Forwarded for two others: the packet as it leaves
    Relay,
    /// Dropped: as it was then
    Drop,
}

impl PointArg {
    /// As the kernel programs know it.
    pub(crate) const fn point(self) -> Point {
        match self {
            Self::Encap => Point::Encap,
            Self::Decap => Point::Decap,
            Self::Relay => Point::Relay,
            Self::Drop => Point::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use crate::cli::{Cli, Command};

    #[test]
    fn lines() {
        let parse = |line: &str| Cli::try_parse_from(["l2mesh", "capture"].into_iter().chain(line.split_whitespace()));
        let line = "--iface eth0 --peer ovh --vni 16 --point drop --point relay -w - --count 3 --snaplen 64";
        let Ok(Command::Capture(args)) = parse(line).map(|cli| cli.command) else { panic!("{line}") };
        assert_eq!((args.point.len(), args.count, args.snaplen), (2, Some(3), 64));
        assert!(parse("").is_ok());
        for (line, kind) in [
            ("--point everywhere", ErrorKind::InvalidValue),
            ("--count 0", ErrorKind::ValueValidation),
            ("--snaplen 13", ErrorKind::ValueValidation),
            ("--snaplen 65001", ErrorKind::ValueValidation),
            ("--vni 0", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(line).map(|_| ()).map_err(|error| error.kind()), Err(kind), "{line}");
        }
    }
}
