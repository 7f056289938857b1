//! `l2mesh`: one Ethernet segment over hosts that share nothing but IP.

mod agent;
mod cli;
mod commands;
mod config;
mod dataplane;
mod import;
mod metrics;
mod service;
mod underlay;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    service::log_to_stderr();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if cli.command.only_reads() && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            service::say_failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pins = &cli.pin_dir;
    let outcome = match &cli.command {
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
        Command::Capture(args) => runtime.block_on(commands::capture::run(args, pins)),
        Command::Doctor(args) => runtime.block_on(commands::doctor::run(args, pins)),
        Command::Check(args) => commands::check::run(args),
        Command::Import(args) => runtime.block_on(commands::import::run(args)),
        Command::Prepare => commands::prepare::run(pins),
        Command::DistFiles(args) => commands::dist_files::run(args),
    };
    // A resolver that does not answer is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Whoever reads our output may stop reading.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
