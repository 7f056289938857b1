//! `cargo xtask verify`: what the kernel's verifier says of the programs, without building anything else.

use anyhow::{Context as _, ensure};
use aya::{Ebpf, programs::Program};

use crate::{
    cargo::{self, as_root},
    setup::{self, Need},
};

/// Builds the kernel programs, loads each and prints how many instructions the verifier looked at. Nothing is attached.
///
/// # Errors
/// They do not build, or the kernel refuses one: then with the end of the verifier's log.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::run(&[Need::Build])?;
    if as_root()? {
        return Ok(());
    }
    let path = cargo::kernel_programs("l2mesh-ebpf", "l2mesh")?;
    let mut object = Ebpf::load_file(&path).with_context(|| format!("cannot load {}", path.display()))?;
    let mut refused = Vec::new();
    for (name, program) in object.programs_mut() {
        let outcome = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::Xdp(program) => program.load(),
            _ => continue,
        };
        match outcome {
            Ok(()) => {
                let count = program.info()?.verified_instruction_count().context("Linux 5.16 tells")?;
                println!("{name:>16}: {count:>7} instructions verified");
            }
            Err(error) => {
                let log = error.to_string();
                let lines: Vec<&str> = log.lines().collect();
                println!("{name:>16}: refused\n{}", lines[lines.len().saturating_sub(24)..].join("\n"));
                refused.push(name.to_owned());
            }
        }
    }
    ensure!(refused.is_empty(), "the kernel refused {}", refused.join(", "));
    Ok(())
}
