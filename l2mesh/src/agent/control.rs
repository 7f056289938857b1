//! One agent per underlay interface: an abstract Unix socket named after the interface's index. It belongs to the network
//! namespace and is gone with the process, so it can be neither left over nor in another's way. What else an agent can be asked
//! goes through a socket in the file system, which has permissions (`server`, `client`).

pub(crate) mod client;
mod peer_groups;
pub(crate) mod request;
pub(crate) mod server;

use std::{
    io,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::underlay::processes::is_stopped;

/// What `l2mesh detach` says.
const STOP: &[u8] = b"stop\n";
/// What the agent says while it is at it, which may take longer than that.
const BUSY: u8 = 0;
/// How long `l2mesh detach` waits for a sign of life.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the agent gives one before it has begun.
const BEAT: Duration = Duration::from_secs(1);

/// How long a connection may say nothing before it is taken for one that only wants to know whether we are here.
const SILENCE: Duration = Duration::from_millis(200);

/// The agent's end. A task of its own listens: whoever waits for [`Control::next`] may stop waiting at any time, and a
/// request that is half read must not be lost with that.
pub(crate) struct Control {
    requests: mpsc::Receiver<anyhow::Result<Request>>,
}

/// Somebody wants the agent to end.
pub(crate) struct Request {
    stream: Arc<UnixStream>,
    /// Says that we are alive until the request is taken up: the agent may be making thousands of devices just now.
    heartbeat: JoinHandle<()>,
}

impl Control {
    /// Becomes the agent of an interface.
    ///
    /// # Errors
    /// There is one already: its process id is named.
    pub(crate) fn claim(interface: &str, ifindex: u32) -> anyhow::Result<Self> {
        match StdListener::bind_addr(&address(ifindex)?) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                let (sender, requests) = mpsc::channel(1);
                tokio::spawn(listen(UnixListener::from_std(listener)?, sender));
                Ok(Self { requests })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let who =
                    live_agent(ifindex)?.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                bail!(
                    "{interface} is attached already by {who}: stop that first, or run `l2mesh detach --iface {interface}`"
                )
            }
            Err(error) => Err(error).context("cannot make the agent's socket"),
        }
    }

    /// The next request to end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Request> {
        let request = self.requests.recv().await.context("the agent's socket failed")??;
        request.heartbeat.abort();
        Ok(request)
    }
}

async fn listen(listener: UnixListener, requests: mpsc::Sender<anyhow::Result<Request>>) {
    loop {
        let request = match listener.accept().await {
            Ok((stream, _)) => match Request::read(stream).await {
                Some(request) => Ok(request),
                None => continue,
            },
            Err(error) => Err(error).context("the agent's socket failed"),
        };
        let failed = request.is_err();
        if requests.send(request).await.is_err() || failed {
            return;
        }
    }
}

impl Request {
    /// What a connection wants. Only root, or whoever runs the agent, may ask; others are hung up on.
    async fn read(mut stream: UnixStream) -> Option<Self> {
        let uid = stream.peer_cred().ok()?.uid();
        if uid != 0 && uid != geteuid().as_raw() {
            log::warn!("user {uid} asked the agent to stop: refused");
            return None;
        }
        let mut word = [0; STOP.len()];
        let read = timeout(SILENCE, stream.read_exact(&mut word)).await;
        if !matches!(read, Ok(Ok(_))) || word != STOP {
            return None;
        }
        let stream = Arc::new(stream);
        let waiting = Arc::clone(&stream);
        let heartbeat = tokio::spawn(async move {
            loop {
                sleep(BEAT).await;
                say_busy(&waiting);
            }
        });
        Some(Self { stream, heartbeat })
    }

    /// Removing gets on.
    pub(crate) fn still_at_it(&self) {
        say_busy(&self.stream);
    }

    /// Says what was removed, or why it could not be.
    pub(crate) async fn answer(self, removed: &anyhow::Result<Vec<String>>) {
        let text = match removed {
            Ok(names) => names.join("\n"),
            Err(error) => format!("!{error:#}"),
        };
        // Whoever asked may have lost patience; it looks for itself then.
        if let Err(error) = say(&self.stream, &text).await {
            log::debug!("nobody waits for the answer: {error}");
        }
    }
}

fn say_busy(stream: &UnixStream) {
    // Whoever does not read what it asked for has a full buffer, or is gone.
    let _nobody = stream.try_write(&[BUSY]);
}

async fn say(stream: &UnixStream, text: &str) -> io::Result<()> {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(shutdown(stream.as_raw_fd(), Shutdown::Write)?)
}

/// Process id of the agent of an interface, if one lives.
pub(crate) fn live_agent(ifindex: u32) -> anyhow::Result<Option<i32>> {
    match StdStream::connect_addr(&address(ifindex)?) {
        Ok(stream) => Ok(Some(getsockopt(&stream, PeerCredentials)?.pid())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error).context("cannot ask for the agent"),
    }
}

/// Asks a live agent to remove everything and end. `None` where there is no agent, or it died or did not answer in time:
/// there is still everything to be removed then.
pub(crate) async fn ask_to_stop(ifindex: u32) -> anyhow::Result<Option<Vec<String>>> {
    ask(ifindex, PATIENCE).await
}

async fn ask(ifindex: u32, patience: Duration) -> anyhow::Result<Option<Vec<String>>> {
    let stream = match StdStream::connect_addr(&address(ifindex)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error).context("cannot reach the agent"),
    };
    // Anybody can take an abstract name: what others answer is not believed.
    let holder = getsockopt(&stream, PeerCredentials)?;
    if holder.uid() != 0 && holder.uid() != geteuid().as_raw() {
        log::warn!("process {} of user {} holds the agent's socket and is no agent", holder.pid(), holder.uid());
        return Ok(None);
    }
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    let mut answer = Vec::new();
    if let Err(error) = stream.write_all(STOP).await {
        log::debug!("the agent hung up: {error}");
        return Ok(None);
    }
    if is_stopped(holder.pid()) {
        let pid = holder.pid();
        log::warn!(
            "process {pid} is the agent and is stopped: what it made is removed without it; `kill -CONT {pid}` lets it end"
        );
        return Ok(None);
    }
    // As long as something comes, it is at it: to begin the same from the other end would only be in its way.
    loop {
        match timeout(patience, stream.read_buf(&mut answer)).await {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                log::debug!("the agent hung up: {error}");
                return Ok(None);
            }
            Err(_) => return Ok(None),
        }
    }
    answer.retain(|&octet| octet != BUSY);
    let answer = String::from_utf8_lossy(&answer);
    match answer.strip_prefix('!') {
        Some(reason) => bail!("the agent says: {reason}"),
        None => Ok(Some(answer.lines().map(str::to_owned).collect())),
    }
}

/// Keeps attaches of an interface away while a detach is at work. `None` if somebody else is the agent, and stays it for a
/// moment: one that was asked to stop may take that long to end.
pub(crate) async fn hold(ifindex: u32) -> anyhow::Result<Option<StdListener>> {
    for _ in 0..20 {
        match StdListener::bind_addr(&address(ifindex)?) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error).context("cannot make the agent's socket"),
        }
    }
    Ok(None)
}

fn address(ifindex: u32) -> anyhow::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("l2mesh/{ifindex}")).context("cannot name the agent's socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `l2mesh detach` gets from an agent that takes the request up after `first`, and then gives so many signs of
    /// life, as long as that apart.
    fn answer(nth: u32, patience: Duration, first: Duration, signs: &[Duration]) -> Option<Vec<String>> {
        // No interface has such an index.
        let ifindex = 0x8000_0000 | std::process::id() << 4 | nth;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let signs = signs.to_vec();
        runtime.block_on(async move {
            let mut control = Control::claim("eth0", ifindex).expect("nobody else has it");
            let agent = async {
                sleep(first).await;
                let request = control.next().await.expect("a request");
                for pause in signs {
                    sleep(pause).await;
                    request.still_at_it();
                }
                request.answer(&Ok(vec!["l2m10".to_owned(), "l2p10".to_owned()])).await;
            };
            let (answer, ()) = tokio::join!(ask(ifindex, patience), agent);
            answer.expect("no error")
        })
    }

    #[test]
    fn patience_follows_progress() {
        const PATIENCE: Duration = Duration::from_millis(400);
        let removed = Some(vec!["l2m10".to_owned(), "l2p10".to_owned()]);
        assert_eq!(answer(0, PATIENCE, Duration::ZERO, &[]), removed);
        assert_eq!(answer(1, PATIENCE, Duration::ZERO, &[PATIENCE / 4; 8]), removed, "twice as long in all");
        assert_eq!(answer(2, PATIENCE, Duration::ZERO, &[PATIENCE * 2]), None, "nothing for twice as long");
        assert_eq!(answer(3, 2 * BEAT, 3 * BEAT, &[]), removed, "busy with something else, but alive");
    }
}
