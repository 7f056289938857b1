//! What the agent does when it is asked through its socket.

use super::{
    Agent,
    chronicle::Subject,
    control::{
        request::{About, Flush, Kept, Reply, Request},
        server::Order,
    },
    wishes::{What, Wish},
};
use crate::config::Edit;

impl Agent {
    /// Does what is asked, and answers.
    pub(super) async fn obey(&mut self, Order { request, answer }: Order) {
        let (what, why) = match request {
            Request::About => {
                return answer.reply(&Reply { ok: true, about: Some(self.about()), ..Reply::default() });
            }
            Request::Events { follow } => return self.chronicle.tell(answer, follow),
            Request::MacFlush(flush) => return answer.reply(&self.flush_reply(&flush)),
            Request::Reload => (What::Reload, "reload"),
            Request::PeerAdd(Kept { change, save }) => (What::Edit(Edit::AddNode(change), save), "peer add"),
            Request::PeerDel(Kept { change, save }) => (What::Edit(Edit::RemoveNode(change), save), "peer del"),
            Request::NetworkAdd(Kept { change, save }) => (What::Edit(Edit::AddNetwork(change), save), "network add"),
            Request::NetworkDel(Kept { change, save }) => {
                (What::Edit(Edit::RemoveNetwork(change), save), "network del")
            }
            Request::MacAdd(Kept { change, save }) => (What::Edit(Edit::AddMac(change), save), "mac add"),
            Request::MacDel(Kept { change, save }) => (What::Edit(Edit::RemoveMac(change), save), "mac del"),
        };
        self.wish(Wish { what, why, answer: Some(answer) }).await;
    }

    fn about(&self) -> About {
        About {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.view.node.clone(),
            interface: self.view.interface.clone(),
        }
    }

    fn flush_reply(&mut self, flush: &Flush) -> Reply {
        match self.flush(flush) {
            Ok(0) => Reply { ok: true, ..Reply::default() },
            Ok(count) => {
                let addresses = if count == 1 { "1 MAC address" } else { "MAC addresses" };
                let number = if count == 1 { String::new() } else { format!("{count} ") };
                let text = format!("{number}{addresses} forgotten");
                self.say(log::Level::Info, Subject::of("mac-flush"), format!("mac flush: {text}"));
                Reply { ok: true, changes: vec![text], ..Reply::default() }
            }
            Err(error) => Reply::refusal(format!("{error:#}")),
        }
    }
}
