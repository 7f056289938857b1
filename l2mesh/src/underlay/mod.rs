//! The host's own network, over rtnetlink: devices, routes, neighbours, and what changes in them.
//!
//! A [`Netlink`] or [`watch::Watch`] sees the network namespace of the thread that opened it. Every
//! device index is one of that namespace.

pub(crate) mod addresses;
pub(crate) mod belongings;
pub(crate) mod blocks;
pub(crate) mod change;
pub(crate) mod complaints;
pub(crate) mod create;
pub(crate) mod error;
pub(crate) mod fdb;
pub(crate) mod features;
pub(crate) mod links;
pub(crate) mod listen;
pub(crate) mod neighbours;
pub(crate) mod next_hop;
pub(crate) mod processes;
pub(crate) mod qdiscs;
mod raw;
pub(crate) mod routes;
pub(crate) mod sniffers;
#[cfg(test)]
mod testing;
pub(crate) mod traffic;
pub(crate) mod vxlan;
pub(crate) mod watch;

use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    proto::{self, ConnectionHandle},
    sys::{SocketAddr, protocols::NETLINK_ROUTE},
};

pub(crate) use self::{error::Error, links::Link};

/// How often a dump is repeated that the kernel marks as torn by a change.
const DUMP_TRIES: usize = 20;
/// Requests in one datagram: each answer takes up to 1.3 KB of the socket's receive buffer, which has 200 KB by default, and
/// answers that do not fit are lost.
const DATAGRAM: usize = 64;

/// Requests to the kernel. Clones share one socket, which closes with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Netlink {
    connection: ConnectionHandle<RouteNetlinkMessage>,
}

/// The kernel's answer to one request.
#[derive(Debug)]
struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    result: Result<(), Errno>,
    /// Something changed between the parts of a dump.
    torn: bool,
}

impl Netlink {
    /// A socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub(crate) fn open() -> Result<Self, Error> {
        let (mut connection, handle, _unsolicited) = proto::new_connection(NETLINK_ROUTE)
            .map_err(|error| Error::new("open a netlink socket", errno_of(&error)))?;
        // Without these two an answer that never came looks like success.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self { connection: handle })
    }

    /// The parts of a dump, in the kernel's order.
    async fn dump(&self, doing: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_TRIES {
            let answer = self.ask(doing, message.clone(), NLM_F_DUMP).await?;
            answer.result.map_err(|errno| Error::new(doing, errno))?;
            if !answer.torn {
                return Ok(answer.messages);
            }
        }
        Err(Error::new(doing, Errno::EINTR))
    }

    /// One object. The acknowledgement ends the answer even if the object could not be parsed.
    async fn get(
        &self,
        doing: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Result<Option<RouteNetlinkMessage>, Errno>, Error> {
        let mut answer = self.ask(doing, message, NLM_F_ACK).await?;
        Ok(answer.result.map(|()| answer.messages.pop()))
    }

    /// A change; `flags` go beyond request and acknowledgement.
    async fn change(&self, doing: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Result<(), Errno>, Error> {
        Ok(self.ask(doing, message, NLM_F_ACK | flags).await?.result)
    }

    async fn ask(&self, doing: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, Error> {
        let mut answers = self.batch(doing, vec![(message, flags)]).await?;
        answers.pop().ok_or_else(|| Error::Disconnected { doing: doing.into() })
    }

    /// Several requests in one datagram, with an answer to each.
    ///
    /// The kernel works a datagram off inside the one system call that sends it: a killed process
    /// leaves all of it done or none. It goes on after a request that failed.
    async fn batch(&self, doing: &str, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Answer>, Error> {
        let disconnected = || Error::Disconnected { doing: doing.into() };
        let number = requests.len();
        let requests = requests.into_iter().map(|(message, flags)| {
            let mut request = NetlinkMessage::from(message);
            request.header.flags = NLM_F_REQUEST | flags;
            request
        });
        let kernel = SocketAddr::new(0, 0);
        let mut replies = self.connection.request_batch(requests, kernel).map_err(|_| disconnected())?;
        let mut answers = Vec::with_capacity(number);
        let (mut messages, mut torn) = (Vec::new(), false);
        while let Some(reply) = replies.next().await {
            torn |= reply.header.flags & NLM_F_DUMP_INTR != 0;
            let code = match reply.payload {
                NetlinkPayload::InnerMessage(message) => {
                    messages.push(message);
                    continue;
                }
                NetlinkPayload::Error(error) => error.raw_code(),
                NetlinkPayload::Done(done) => done.code,
                _ => continue,
            };
            // Netlink errors are negated; a dump's "done" may carry one, or a positive length.
            let result = if code < 0 { Err(Errno::from_raw(-code)) } else { Ok(()) };
            answers.push(Answer { messages: std::mem::take(&mut messages), result, torn: std::mem::take(&mut torn) });
        }
        if answers.len() == number { Ok(answers) } else { Err(disconnected()) }
    }

    /// Any number of changes, as many in one datagram as its answers allow, with an outcome for each in their order.
    async fn changes(
        &self,
        doing: &str,
        requests: impl IntoIterator<Item = (RouteNetlinkMessage, u16)>,
    ) -> Result<Vec<Result<(), Errno>>, Error> {
        let mut requests = requests.into_iter().map(|(message, flags)| (message, NLM_F_ACK | flags));
        let mut outcomes = Vec::new();
        loop {
            let datagram: Vec<_> = requests.by_ref().take(DATAGRAM).collect();
            if datagram.is_empty() {
                return Ok(outcomes);
            }
            outcomes.extend(self.batch(doing, datagram).await?.into_iter().map(|answer| answer.result));
        }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
