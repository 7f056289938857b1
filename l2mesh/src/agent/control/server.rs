//! The agent's end of its socket. Every connection has a task of its own, with limits on time, length and number: the agent gets
//! requests that are whole, and answers without waiting for whoever reads.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use nix::unistd::{Group, geteuid};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, UCred},
    },
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    peer_groups::peer_groups,
    request::{Reply, Request},
};
use crate::dataplane::sockets::remove_socket;

/// Who is in this group may ask too, where there is one.
pub(crate) const GROUP: &str = "l2mesh";
/// Connections at a time.
const CONNECTIONS: usize = 32;
/// The longest request, octets.
const LONGEST: u64 = 64 << 10;
/// How long a request may take to come, and a line of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines of an answer that may wait to be taken.
const WAITING: usize = 256;
/// Requests that may wait for the agent.
const ORDERS: usize = 16;
/// How long strangers are not told of after one was, and how long nobody is let in when the kernel lets nobody in.
const PAUSE: Duration = Duration::from_secs(10);

/// Somebody asks something of the agent.
pub(crate) struct Order {
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

/// Where the answer goes. Dropped, it ends.
#[derive(Clone)]
pub(crate) struct Answer {
    lines: mpsc::Sender<String>,
}

impl Answer {
    /// One with its other end.
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, mpsc::Receiver<String>) {
        let (lines, taken) = mpsc::channel(WAITING);
        (Self { lines }, taken)
    }

    /// True if nobody waits for it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.lines.is_closed()
    }

    /// A line of it. False if nobody takes it any more, or not fast enough.
    pub(crate) fn line(&self, value: &impl Serialize) -> bool {
        let text = serde_json::to_string(value).unwrap_or_else(|error| {
            log::error!("an answer that cannot be said: {error}");
            r#"{"ok":false,"error":"an answer that cannot be said"}"#.to_owned()
        });
        self.lines.try_send(text).is_ok()
    }

    /// All of it.
    pub(crate) fn reply(self, reply: &Reply) {
        if !self.line(reply) {
            log::debug!("nobody waits for the answer");
        }
    }
}

/// The socket.
#[derive(Default)]
pub(crate) struct Server {
    path: Option<PathBuf>,
    orders: Option<mpsc::Receiver<Order>>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes it. One that is there is that of an agent that was killed: there is only one agent, see [`super::Control`]. Without
    /// it the mesh works too.
    pub(crate) fn open(path: &Path) -> Self {
        match bind(path) {
            Ok((listener, group)) => {
                let (sender, orders) = mpsc::channel(ORDERS);
                let task = tokio::spawn(listen(listener, group, sender));
                Self { path: Some(path.to_owned()), orders: Some(orders), task: Some(task) }
            }
            Err(error) => {
                log::warn!("no control socket, so no changes while the mesh runs: {error:#}");
                Self::default()
            }
        }
    }

    /// What is asked next. May stop being waited for at any time.
    pub(crate) async fn next(&mut self) -> Order {
        if let Some(orders) = &mut self.orders
            && let Some(order) = orders.recv().await
        {
            return order;
        }
        std::future::pending().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(path) = &self.path {
            remove_socket(path);
        }
    }
}

/// Listens at `path`; returns who else may ask.
fn bind(path: &Path) -> anyhow::Result<(UnixListener, Option<u32>)> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.with_context(|| format!("cannot make {}", directory.display()))?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}, which an agent left", path.display()));
        }
        _ => {}
    }
    let what = || format!("cannot make {}", path.display());
    let listener = UnixListener::bind(path).with_context(what)?;
    // Where users and groups cannot be looked up, there is root.
    let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw());
    let mode = match group {
        Some(group) => {
            chown(path, None, Some(group)).with_context(what)?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(what)?;
    Ok((listener, group))
}

async fn listen(listener: UnixListener, group: Option<u32>, orders: mpsc::Sender<Order>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut strangers = Strangers::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("the control socket fails: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        if let Some(reason) = strangers.refusal(&stream, group) {
            hang_up(&stream, reason);
            continue;
        }
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let orders = orders.clone();
                tokio::spawn(async move {
                    serve(stream, &orders).await;
                    drop(place);
                });
            }
            Err(_) => hang_up(&stream, format!("{CONNECTIONS} others are connected to the agent: try again")),
        }
    }
}

/// Those who may not ask.
#[derive(Default)]
struct Strangers {
    told: Option<Instant>,
    untold: u32,
}

impl Strangers {
    /// Why a connection is refused. What is logged of it is limited: a stranger may try as often as it likes.
    fn refusal(&mut self, stream: &UnixStream, group: Option<u32>) -> Option<String> {
        let reason = match stream.peer_cred() {
            Ok(who) if may_ask(stream, &who, group) => return None,
            Ok(who) => {
                let pid = who.pid().map(|pid| format!(" (process {pid})")).unwrap_or_default();
                format!("user {}{pid}", who.uid())
            }
            Err(error) => format!("somebody unknown ({error})"),
        };
        if self.told.is_some_and(|told| told.elapsed() < PAUSE) {
            self.untold += 1;
        } else {
            let more = std::mem::take(&mut self.untold);
            let more = if more > 0 { format!(", {more} more since the last time") } else { String::new() };
            log::warn!("{reason} is refused at the control socket{more}");
            self.told = Some(Instant::now());
        }
        Some(format!("{reason} may not ask the agent: that is for root and for members of the group {GROUP}"))
    }
}

fn may_ask(stream: &UnixStream, who: &UCred, group: Option<u32>) -> bool {
    let is_in = |group| who.gid() == group || peer_groups(stream).contains(&group);
    who.uid() == 0 || who.uid() == geteuid().as_raw() || group.is_some_and(is_in)
}

/// Says why and ends. Whoever does not read it at once does not get it.
fn hang_up(stream: &UnixStream, reason: String) {
    if let Ok(text) = serde_json::to_string(&Reply::refusal(reason)) {
        let _nobody = stream.try_write(format!("{text}\n").as_bytes());
    }
}

/// One connection, until the other end hangs up, says nothing or takes nothing.
async fn serve(stream: UnixStream, orders: &mpsc::Sender<Order>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let request = match timeout(PATIENCE, next_request(&mut read)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Err(reason)) => {
                // What comes after it cannot be told from the rest of it.
                say(&mut write, &Reply::refusal(reason)).await;
                return;
            }
            Ok(Ok(None)) | Err(_) => return,
        };
        let is_stream = request.is_stream();
        let (lines, mut answer) = mpsc::channel(WAITING);
        if orders.send(Order { request, answer: Answer { lines } }).await.is_err() {
            return;
        }
        loop {
            let line = tokio::select! {
                line = answer.recv() => line,
                () = ended(&mut read), if is_stream => return,
            };
            let Some(line) = line else { break };
            if !write_line(&mut write, line).await {
                return;
            }
        }
    }
}

/// Returns when whoever asked has hung up; what it says before is not heard.
async fn ended(read: &mut BufReader<OwnedReadHalf>) {
    while let Ok(octets) = read.fill_buf().await
        && !octets.is_empty()
    {
        let length = octets.len();
        read.consume(length);
    }
}

/// The next line as a request; `None` at the end.
async fn next_request(read: &mut BufReader<OwnedReadHalf>) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    match read.take(LONGEST + 1).read_until(b'\n', &mut line).await {
        Ok(0) | Err(_) => return Ok(None),
        Ok(_) => {}
    }
    if u64::try_from(line.len()).is_ok_and(|length| length > LONGEST) {
        return Err(format!("a request has {LONGEST} octets at most"));
    }
    Request::from_json(&line).map(Some).map_err(|error| format!("not a request that this agent knows: {error}"))
}

async fn say(write: &mut OwnedWriteHalf, reply: &Reply) -> bool {
    match serde_json::to_string(reply) {
        Ok(line) => write_line(write, line).await,
        Err(_) => false,
    }
}

/// False if it was not taken.
async fn write_line(write: &mut OwnedWriteHalf, mut line: String) -> bool {
    line.push('\n');
    matches!(timeout(PATIENCE, write.write_all(line.as_bytes())).await, Ok(Ok(())))
}
