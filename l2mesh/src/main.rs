//! `l2mesh`: one Ethernet segment over hosts that share nothing but IP.

mod agent;
mod cli;
mod commands;
mod config;
mod dataplane;
mod import;
mod metrics;
mod underlay;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).format_target(false).init();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if cli.command.only_reads() && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("l2mesh: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pins = &cli.pin_dir;
    match &cli.command {
        Command::Attach(args) => runtime.block_on(commands::attach::run(args, pins)),
        Command::Detach(args) => runtime.block_on(commands::detach::run(args, pins)),
        Command::Reload(args) => commands::change::reload(args),
        Command::Peer(args) => commands::change::peer(args),
        Command::Network(args) => commands::change::network(args),
        Command::Mac(args) => commands::change::mac(args),
        Command::Maps(args) => commands::maps::run(args, pins),
        Command::Status(args) => commands::status::run(args, pins),
        Command::Events(args) => commands::events::run(args, pins),
        Command::Top(args) => commands::top::run(args, pins),
        Command::Ping(args) => runtime.block_on(commands::ping::run(args, pins)),
        Command::Check(args) => commands::check::run(args),
        Command::Import(args) => runtime.block_on(commands::import::run(args)),
    }
}

/// Whoever reads our output may stop reading.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
