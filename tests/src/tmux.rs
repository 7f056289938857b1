//! A real terminal: a tmux server of its own on a host of the lab.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Host;
use crate::lab::Lab;

/// A terminal of which the screen can be read. Dropping it ends what runs in it.
#[derive(Debug)]
pub struct Tmux {
    host: Host,
    socket: PathBuf,
}

impl Tmux {
    /// Starts a shell command in a terminal of this size.
    #[must_use = "dropping it ends what runs in it"]
    #[track_caller]
    pub fn start(lab: &Lab, host: &Host, (width, height): (u16, u16), command: &str) -> Self {
        let terminal = Self { host: host.clone(), socket: lab.directory().join("tmux") };
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, command]);
        terminal
    }

    /// What is seen, without the room at the ends of lines.
    #[must_use]
    #[track_caller]
    pub fn screen(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p"]).lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The same with the sequences that make colours.
    #[must_use]
    #[track_caller]
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-e", "-p"])
    }

    /// Presses keys by their names.
    #[track_caller]
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Another size.
    #[track_caller]
    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// A format, as `#{alternate_on}`.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, format: &str) -> String {
        self.tmux(&["display-message", "-p", format]).trim().to_owned()
    }

    /// Sends a signal to what the shell runs.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let shell = self.ask("#{pane_pid}");
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        let child = child.unwrap_or_else(|| panic!("the shell runs nothing: {:?}", self.screen()));
        kill(Pid::from_raw(child), signal).expect("it runs");
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.socket.display().to_string();
        self.host.exec("tmux", &[&["-S", &socket], args].concat()).stdout
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let socket = self.socket.display().to_string();
        // What has ended has ended.
        let _gone = self.host.try_exec("tmux", &["-S", &socket, "kill-server"]);
    }
}
