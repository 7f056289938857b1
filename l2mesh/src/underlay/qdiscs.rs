//! Queueing disciplines, as far as they are places for other people's TC filters.

use std::collections::BTreeSet;

use nix::errno::Errno;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage},
};

use super::{Error, Netlink};

impl Netlink {
    /// Every device with a clsact qdisc, the place for filters on what a device sends.
    ///
    /// # Errors
    /// When the kernel cannot be asked; one without traffic control has none.
    pub(crate) async fn links_with_clsact(&self) -> Result<BTreeSet<u32>, Error> {
        let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let messages = match self.dump("list the qdiscs", question).await {
            Err(Error::Refused { errno: Errno::EOPNOTSUPP, .. }) => Vec::new(),
            other => other?,
        };
        let clsact = |message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message) => {
                let is_clsact =
                    message.attributes.iter().any(|it| matches!(it, TcAttribute::Kind(kind) if kind == "clsact"));
                u32::try_from(message.header.index).ok().filter(|_| is_clsact)
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(clsact).collect())
    }
}
