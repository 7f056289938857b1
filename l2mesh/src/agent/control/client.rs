//! The other end: verbs that ask a live agent.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::request::{Reply, Request};
use crate::{
    dataplane::sockets::{SOCKETS, sockets_dir, unescape},
    underlay::processes::is_stopped,
};

/// How long an answer may take: a mesh of thousands of networks, and a resolver that does not answer.
const PATIENCE: Duration = Duration::from_mins(3);

/// A connection to an agent.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the agent of `interface`, or to the only one of this network namespace.
    ///
    /// # Errors
    /// There is none, there are several, or it may not be asked.
    pub(crate) fn connect(interface: Option<&str>) -> anyhow::Result<Self> {
        let (name, path) = find(interface)?;
        match UnixStream::connect(&path) {
            Ok(stream) => {
                // It would take the question, and answer nothing.
                let pid = getsockopt(&stream, PeerCredentials)?.pid();
                ensure!(!is_stopped(pid), "the agent of {name} is stopped: `kill -CONT {pid}` lets it go on");
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Self { stream: BufReader::new(stream) })
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                bail!("only root and members of the group l2mesh may ask the agent of {name}: run it as root")
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                bail!("no agent runs on {name}: `l2mesh attach` starts one")
            }
            Err(error) => Err(error).with_context(|| format!("cannot reach the agent of {name}: {}", path.display())),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The agent refuses, and says why; or it does not answer.
    pub(crate) fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        self.say(request)?;
        let Some(line) = self.line()? else { bail!("the agent hung up: see its log") };
        let reply: Reply = serde_json::from_str(&line).with_context(|| format!("the agent says {line:?}"))?;
        match reply.error {
            Some(reason) => bail!(reason),
            None if !reply.ok => bail!("the agent refuses and does not say why"),
            None => Ok(reply),
        }
    }

    /// Asks for a stream of lines: [`Self::line`] has one after another.
    ///
    /// # Errors
    /// It cannot be said.
    pub(crate) fn say(&mut self, request: &Request) -> anyhow::Result<()> {
        let text = serde_json::to_string(request)? + "\n";
        match self.stream.get_mut().write_all(text.as_bytes()) {
            // It has hung up, and said why before.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("cannot ask the agent"),
        }
    }

    /// Waits for the next line however long it takes.
    ///
    /// # Errors
    /// The socket refuses.
    pub(crate) fn be_patient(&self) -> anyhow::Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(None)?)
    }

    /// The next line of what it says; `None` when it has hung up.
    ///
    /// # Errors
    /// It says nothing for long.
    pub(crate) fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line.trim_end().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("the agent does not answer: see its log"),
            Err(error) => Err(error).context("cannot read what the agent says"),
        }
    }
}

/// The interface of an agent and its socket.
fn find(interface: Option<&str>) -> anyhow::Result<(String, PathBuf)> {
    let mut found = Vec::new();
    let directory = sockets_dir()?;
    match fs::read_dir(&directory) {
        Ok(entries) => {
            for path in entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|it| it == "sock"))
            {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                if let Some((_, escaped)) = stem.split_once('-') {
                    found.push((unescape(escaped), path.clone()));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    }
    found.sort();
    let names = || found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let place = match interface {
        Some(wanted) => found.iter().position(|(name, _)| name == wanted),
        None if found.len() > 1 => bail!("there are agents on {}: say which with --iface", names()),
        None => (!found.is_empty()).then_some(0),
    };
    match (place, interface) {
        (Some(place), _) => Ok(found.swap_remove(place)),
        (None, Some(wanted)) if !found.is_empty() => {
            bail!("no agent runs on {wanted}: there are agents on {}", names())
        }
        (None, _) => bail!(
            "no agent runs here, or it has no socket in {SOCKETS} (see its log): `l2mesh attach` starts one (an agent in another network \
             namespace is asked from there)"
        ),
    }
}
