//! One agent per underlay interface: an abstract Unix socket named after the interface's index. It belongs to the network
//! namespace and is gone with the process, so it can be neither left over nor in another's way.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::{sleep, timeout},
};

/// What `l2mesh detach` says.
const STOP: &[u8] = b"stop\n";
/// How long it waits for the agent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may say nothing before it is taken for one that only wants to know whether we are here.
const SILENCE: Duration = Duration::from_millis(200);

/// The agent's end. A task of its own listens: whoever waits for [`Control::next`] may stop waiting at any time, and a
/// request that is half read must not be lost with that.
pub(crate) struct Control {
    requests: mpsc::Receiver<anyhow::Result<Request>>,
}

/// Somebody wants the agent to end.
pub(crate) struct Request {
    stream: UnixStream,
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
        self.requests.recv().await.context("the agent's socket failed")?
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
        (matches!(read, Ok(Ok(_))) && word == STOP).then_some(Self { stream })
    }

    /// Says what was removed, or why it could not be.
    pub(crate) async fn answer(mut self, removed: &anyhow::Result<Vec<String>>) {
        let text = match removed {
            Ok(names) => names.join("\n"),
            Err(error) => format!("!{error:#}"),
        };
        // Whoever asked may have lost patience; it looks for itself then.
        if let Err(error) = stream_text(&mut self.stream, &text).await {
            log::debug!("nobody waits for the answer: {error}");
        }
    }
}

async fn stream_text(stream: &mut UnixStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
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
    let mut answer = String::new();
    let exchange = async {
        stream.write_all(STOP).await?;
        stream.read_to_string(&mut answer).await
    };
    match timeout(PATIENCE, exchange).await {
        Ok(Ok(_)) if answer.starts_with('!') => bail!("the agent says: {}", &answer[1..]),
        Ok(Ok(_)) => Ok(Some(answer.lines().map(str::to_owned).collect())),
        Ok(Err(error)) => {
            log::debug!("the agent hung up: {error}");
            Ok(None)
        }
        Err(_) => Ok(None),
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
