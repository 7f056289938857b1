//! The programs that cargo makes of tests, run without cargo: several at a time, and once more what failed.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::cargo::command;

/// A program with tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// As in the source: `failover`, `l2mesh-common`.
    pub(crate) name: String,
    /// Its package's directory, where cargo runs it.
    directory: PathBuf,
    program: PathBuf,
}

/// The lines that matter of cargo's `--message-format=json`.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    profile: Option<Profile>,
    target: Option<Named>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Builds all tests, and the programs that they test: together, so that cargo chooses the same features for all and builds each crate once.
///
/// # Errors
/// They do not build.
pub(crate) fn build() -> anyhow::Result<Vec<Target>> {
    let mut child = command()
        .args(["build", "--bins", "--tests", "--message-format=json-render-diagnostics"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo build")?;
    let mut targets = Vec::new();
    for line in BufReader::new(child.stdout.take().context("cargo's messages")?).lines() {
        targets.extend(target(&line?).context("cargo's messages")?);
    }
    let status = child.wait()?;
    ensure!(status.success(), "cargo build failed: {status}");
    ensure!(!targets.is_empty(), "cargo built no tests");
    // Cargo names them as they get ready, which is another order every time.
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

/// What a message of cargo's says of a test.
fn target(message: &str) -> anyhow::Result<Option<Target>> {
    let message: Message = serde_json::from_str(message)?;
    let Message {
        executable: Some(program),
        manifest_path: Some(manifest),
        profile: Some(profile),
        target: Some(target),
    } = message
    else {
        return Ok(None);
    };
    let directory = manifest.parent().context("the directory of a Cargo.toml")?.to_owned();
    Ok(profile.test.then_some(Target { name: target.name, directory, program }))
}

/// Runs them, so many at a time, and prints what each says when it ends. Returns those that failed.
///
/// # Errors
/// One cannot be run.
pub(crate) fn run(targets: &[Target], at_once: usize, filter: Option<&str>) -> anyhow::Result<Vec<Target>> {
    let (queue, failed) = (Mutex::new(targets.iter().collect::<VecDeque<_>>()), Mutex::new(Vec::new()));
    let next = || queue.lock().expect("nobody panics").pop_front();
    let lane = || -> anyhow::Result<()> {
        while let Some(target) = next() {
            if !target.run(filter)? {
                failed.lock().expect("nobody panics").push(target.clone());
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..at_once).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("a lane does not panic"))
    })?;
    Ok(failed.into_inner().expect("nobody panics"))
}

impl Target {
    /// Whether all its tests passed.
    fn run(&self, filter: Option<&str>) -> anyhow::Result<bool> {
        let (mut said, says) = io::pipe().context("a pipe")?;
        // As cargo would: from the package's directory, and with the path of cargo, which tests build with. Without input: none waits for any.
        let mut child = Command::new(&self.program)
            .args(filter)
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            .env("RUSTC_BOOTSTRAP", "1")
            .stdin(Stdio::null())
            .stdout(says.try_clone().context("a pipe")?)
            .stderr(says)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut text = Vec::new();
        said.read_to_end(&mut text).with_context(|| format!("what {} says", self.name))?;
        let status = child.wait()?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "\n     Running {} ({})", self.name, self.program.display())?;
        stdout.write_all(&text)?;
        if !status.success() {
            writeln!(stdout, "{}: {status}", self.name)?;
        }
        Ok(status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_says() {
        let message = |test| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{{"name":"mesh","kind":["test"]}},
                    "profile":{{"test":{test}}},"executable":"/w/target/debug/deps/mesh-1"}}"#
            )
        };
        let expected =
            Target { name: "mesh".into(), directory: "/w/tests".into(), program: "/w/target/debug/deps/mesh-1".into() };
        assert_eq!(target(&message(true)).expect("JSON"), Some(expected));
        assert_eq!(target(&message(false)).expect("JSON"), None);
        assert_eq!(target(r#"{"reason":"build-finished","success":true}"#).expect("JSON"), None);
        assert!(target("warning").is_err());
    }

    #[test]
    fn all_run_and_those_that_fail_are_returned() {
        let program =
            |name: &str, program: &str| Target { name: name.into(), directory: "/".into(), program: program.into() };
        let good = program("good", "true");
        let bad = program("bad", "false");
        let failed = run(&[good.clone(), bad.clone(), good.clone()], 2, None).expect("both are programs");
        assert_eq!(failed, [bad]);
        assert!(run(&[good], 1, Some("some")).expect("a program").is_empty());
    }
}
