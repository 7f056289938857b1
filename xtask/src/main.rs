//! `cargo xtask`: everything a developer runs. One file a task.

mod bench;
mod cargo;
mod check;
mod dist;
mod run;
mod setup;
mod targets;
mod test;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development commands of l2mesh. Each installs what it needs and this machine lacks, and says so.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Without arguments: three hosts on this machine, with a DHCP lease across the mesh. With arguments: build l2mesh
    /// and run it with them
    Run(run::RunArgs),
    /// Every check and every test
    Test(test::TestArgs),
    /// Formatting, lints and documentation only
    Check,
    /// What the kernel's verifier says of the programs
    Verify,
    /// l2mesh beside the kernel's vxlan device and the bare underlay
    Bench(bench::BenchArgs),
    /// A Debian package and a static tarball, in target/dist
    Dist(dist::DistArgs),
    /// Install what building and testing need
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Check => check::run(),
        Task::Verify => verify::run(),
        Task::Bench(args) => bench::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Setup => setup::run(&[setup::Need::Build, setup::Need::Lab]),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
