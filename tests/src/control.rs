//! The control socket of an agent, as any program speaks to it.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::Host;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Host {
    /// The socket of the agent on the first underlay interface.
    #[must_use]
    #[track_caller]
    pub fn control_path(&self) -> PathBuf {
        let interface = self.interface();
        let index = &self.link(&interface)["ifindex"];
        self.sockets().join(format!("{index}-{}.sock", interface.replace('.', "%2E")))
    }

    /// Connects to the agent on the first underlay interface.
    #[must_use]
    #[track_caller]
    pub fn control(&self) -> Control {
        let path = self.control_path();
        let stream = UnixStream::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout that is not zero");
        stream.set_write_timeout(Some(LIMIT)).expect("a timeout that is not zero");
        Control { stream: BufReader::new(stream) }
    }

    /// Asks the agent one thing, by its verb alone.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, verb: &str) -> Value {
        self.control().ask(&json!({ "do": verb }))
    }
}

impl Control {
    /// Sends octets, whatever they are.
    ///
    /// # Errors
    /// The agent has hung up, or does not read.
    pub fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets)
    }

    /// The next line of what the agent says; `None` when it has hung up.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("the agent does not answer: {error}"),
        }
    }

    /// Asks, and waits for an answer of one line.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes()).expect("an agent that listens");
        let line = self.line().unwrap_or_else(|| panic!("the agent hung up: {request}"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}
