//! `l2mesh dist-files`: man pages and completions, from the command line as it is.

use std::fs;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, service::DistFilesArgs};

/// Writes `man/*.1` and `completions/{l2mesh,_l2mesh,l2mesh.fish}`.
///
/// # Errors
/// They cannot be written.
pub(crate) fn run(args: &DistFilesArgs) -> anyhow::Result<()> {
    let [man, completions] = ["man", "completions"].map(|name| args.directory.join(name));
    for directory in [&man, &completions] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    clap_mangen::generate_to(Cli::command(), &man).with_context(|| format!("cannot write to {}", man.display()))?;
    for (shell, wanted) in [(Shell::Bash, Some("l2mesh")), (Shell::Zsh, None), (Shell::Fish, None)] {
        let made = clap_complete::generate_to(shell, &mut Cli::command(), "l2mesh", &completions)
            .with_context(|| format!("cannot write to {}", completions.display()))?;
        if let Some(name) = wanted {
            fs::rename(&made, completions.join(name))?;
        }
    }
    Ok(())
}
