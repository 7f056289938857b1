//! What `doctor` is told.

use std::path::PathBuf;

use clap::Args;

/// What `doctor` is told.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  l2mesh doctor
  l2mesh doctor --iface eth0 --config mesh.toml

Without an attached mesh, --iface and --config say what is to be attached: what can be looked at before is. It takes some
seconds, sends pings, probes and ARP questions, and changes nothing. The exit status is 1 if there is a fault.")]
pub(crate) struct DoctorArgs {
    /// The underlay interface; needed when there is more than one mesh, or none yet
    #[arg(long)]
    pub iface: Option<String>,
    /// The file that is to be attached, or that should be what is attached
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which node of the file this host is [default: the one whose address is on the interface]
    #[arg(long, value_name = "NAME", requires = "config")]
    pub node: Option<String>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}
