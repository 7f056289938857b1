//! `attach --metrics`: what the tables hold, as `OpenMetrics` over HTTP, gathered when somebody asks.
//!
//! A thread of its own with its own handles of the tables: however often it is asked, and however slowly the answers are read,
//! the agent and its probes do not wait.

mod exposition;
mod gather;

use std::{
    cell::RefCell,
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, oneshot},
    task::{AbortHandle, LocalSet, spawn_local},
    time::{sleep, timeout},
};

use self::{exposition::Format, gather::Gatherer};
use crate::agent::Agent;

/// Connections at a time; for another one the oldest has to go.
const CONNECTIONS: usize = 16;
/// But not before it has had so long.
const TURN: Duration = Duration::from_millis(500);
/// What a connection may take in all, so that one who says nothing or reads nothing holds its place no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a request: nobody who scrapes has more to say.
const REQUEST: usize = 16 * 1024;
/// Who asks more often gets the same text again.
const FRESH: Duration = Duration::from_millis(100);

/// The address is ours; nobody is answered yet.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: StdListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes the address, before anything else is touched.
    ///
    /// # Errors
    /// It is somebody else's, or none of this host's.
    pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = StdListener::bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow!("--metrics {address}: another program listens there (`ss -ltnp` names it): give another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                anyhow!("--metrics {address}: no interface of this network namespace has that address")
            }
            io::ErrorKind::PermissionDenied => anyhow!("--metrics {address}: not allowed: give a port above 1023"),
            _ => anyhow!("--metrics {address}: {error}"),
        })?;
        listener.set_nonblocking(true)?;
        // Of port 0, the one that it became.
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// The thread that answers. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Metrics {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Metrics {
    /// Answers from now on, of this agent.
    ///
    /// # Errors
    /// The tables cannot be opened, or there is no thread.
    pub(crate) fn serve(listener: Listener, agent: &Agent) -> anyhow::Result<Self> {
        let Listener { listener, address } = listener;
        let gatherer = Gatherer::new(agent)?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || {
            let local = LocalSet::new();
            if let Err(error) = local.block_on(&runtime, accept(listener, gatherer, stopped)) {
                log::error!("no metrics any more: {error:#}");
            }
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(body);
        let thread = Some(thread.context("cannot start the thread that answers for metrics")?);
        log::info!("metrics at http://{address}/metrics");
        if !address.ip().is_loopback() {
            log::warn!(
                "metrics at {address} are not for this host alone: whoever reaches that port reads the names, addresses and traffic of \
                 the mesh; close it in the firewall to others than your Prometheus"
            );
        }
        Ok(Self { stop: Some(stop), thread })
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that answered for metrics has failed");
        }
    }
}

/// What every connection needs.
struct Shared {
    gatherer: Gatherer,
    /// By format: the last answer, and when it was made.
    answers: [Option<(Instant, Bytes)>; 2],
}

async fn accept(listener: StdListener, gatherer: Gatherer, mut stop: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let shared = Rc::new(RefCell::new(Shared { gatherer, answers: [None, None] }));
    let mut connections: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // One that was hung up before we looked; or there are no file descriptors, and all that helps is time.
            Err(error) => {
                log::debug!("metrics: {error}");
                sleep(FRESH).await;
                continue;
            }
        };
        connections.retain(|(_, it)| !it.is_finished());
        let turn = connections.front().map_or(TURN, |(since, _)| TURN.saturating_sub(since.elapsed()));
        let place = if let Ok(place) = timeout(turn, Arc::clone(&places).acquire_owned()).await {
            place
        } else {
            // Who opens connections and says nothing must not keep Prometheus out.
            connections.pop_front().inspect(|(_, oldest)| oldest.abort());
            Arc::clone(&places).acquire_owned().await
        };
        let shared = Rc::clone(&shared);
        let task = spawn_local(async move {
            let _place = place;
            let service = service_fn(move |request| {
                let response = answer(&mut shared.borrow_mut(), &request);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE / 2)
                .max_buf_size(REQUEST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match timeout(PATIENCE, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::debug!("metrics: {error}"),
                Err(_) => log::debug!("metrics: a client took longer than {PATIENCE:?}"),
            }
        });
        connections.push_back((Instant::now(), task.abort_handle()));
    }
}

fn answer(shared: &mut Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let plain =
        |status, text: &'static str| response(status, Format::Text.content_type(), Bytes::from_static(text.as_bytes()));
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET is all there is here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let format = Format::accepted(accepted);
            response(StatusCode::OK, format.content_type(), shared.text(format))
        }
        "/" => plain(StatusCode::OK, "l2mesh: see /metrics\n"),
        _ => plain(StatusCode::NOT_FOUND, "there is nothing here: see /metrics\n"),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl Shared {
    fn text(&mut self, format: Format) -> Bytes {
        let now = Instant::now();
        let last = &mut self.answers[format as usize];
        if let Some((at, text)) = last
            && now.duration_since(*at) < FRESH
        {
            return text.clone();
        }
        let text = Bytes::from(self.gatherer.text(format));
        log::debug!("metrics: {} octets gathered in {:?}", text.len(), now.elapsed());
        *last = Some((now, text.clone()));
        text
    }
}
