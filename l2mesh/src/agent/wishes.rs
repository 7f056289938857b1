//! What is to be changed while the mesh runs, one thing after another: signals, verbs, a file that has changed.

use std::collections::VecDeque;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::task::JoinHandle;

use log::Level;

use super::{
    Agent,
    chronicle::Subject,
    control::{request::Reply, server::Answer},
    identity::{Addresses, answer, look_up, try_identity},
};
use crate::{
    cli::AttachArgs,
    config::{Document, Edit, Mesh, edited},
    dataplane::view::View,
};

/// Why, for the log, where the file was seen to change.
const CHANGED_FILE: &str = "the changed file";

/// What is wished.
pub(super) enum What {
    /// The configuration is to be read again.
    Reload,
    /// One thing is to be changed, and perhaps written into the file.
    Edit(Edit, bool),
}

/// And by whom.
pub(super) struct Wish {
    pub(super) what: What,
    /// For the log.
    pub(super) why: &'static str,
    /// Who waits for an answer.
    pub(super) answer: Option<Answer>,
}

/// What waits to be done.
#[derive(Default)]
pub(crate) struct Wishes {
    queue: VecDeque<Wish>,
    looking_up: Option<LookUp>,
    /// The file was refused when it changed last.
    file_is_refused: bool,
}

/// A change whose host names are being looked up.
struct LookUp {
    change: Change,
    addresses: JoinHandle<Addresses>,
}

/// A configuration that is to be in force.
pub(super) struct Change {
    wish: Wish,
    document: Document,
    mesh: Mesh,
}

impl Wishes {
    /// A change whose host names are looked up. May stop being waited for at any time.
    pub(super) async fn looked_up(&mut self) -> (Change, Addresses) {
        if let Some(LookUp { addresses, .. }) = &mut self.looking_up {
            let found = addresses.await.unwrap_or_default();
            if let Some(LookUp { change, .. }) = self.looking_up.take() {
                return (change, found);
            }
        }
        std::future::pending().await
    }
}

impl Agent {
    /// Somebody wants something changed: it is done at once, or after what others want.
    pub(super) async fn wish(&mut self, wish: Wish) {
        // While a resolver does not answer, signals may come by the hundred.
        if wish.answer.is_none() && self.wishes.queue.iter().any(|it| matches!(it.what, What::Reload)) {
            log::debug!("{}: a reload waits already", wish.why);
            return;
        }
        self.wishes.queue.push_back(wish);
        self.work_off().await;
    }

    /// The file may have changed.
    pub(super) async fn look_at_file(&mut self) {
        if self.document.is_as_read() {
            log::debug!("{} is as it was read", self.document.name());
            if std::mem::take(&mut self.wishes.file_is_refused) {
                self.say(Level::Info, Subject::of("reload"), format!("{CHANGED_FILE}: it is again what is in force"));
            }
        } else {
            self.wish(Wish { what: What::Reload, why: CHANGED_FILE, answer: None }).await;
        }
    }

    /// Host names are looked up: what waited for that is done, and what waited for this.
    pub(super) async fn go_on(&mut self, (change, addresses): (Change, Addresses)) {
        self.change(change, &addresses).await;
        self.work_off().await;
    }

    async fn work_off(&mut self) {
        while self.wishes.looking_up.is_none()
            && let Some(wish) = self.wishes.queue.pop_front()
        {
            let (document, mesh) = match self.wanted(&wish.what) {
                Ok(wanted) => wanted,
                Err(error) => {
                    self.tell(wish, Err(error));
                    continue;
                }
            };
            let names = mesh.host_names();
            let change = Change { wish, document, mesh };
            if names.is_empty() {
                self.change(change, &Addresses::new()).await;
            } else {
                self.wishes.looking_up = Some(LookUp { change, addresses: look_up(names) });
            }
        }
    }

    /// The configuration that is wished.
    fn wanted(&self, what: &What) -> anyhow::Result<(Document, Mesh)> {
        let document = match what {
            What::Reload => self.document.reread()?,
            What::Edit(edit, _) => {
                let text = edited(self.document.text(), edit, &self.view.node).map_err(|reason| anyhow!(reason))?;
                self.document.with_text(text)
            }
        };
        let mesh = document.mesh()?;
        Ok((document, mesh))
    }

    async fn change(&mut self, change: Change, addresses: &Addresses) {
        let Change { wish, document, mesh } = change;
        let outcome = Box::pin(self.try_change(&wish.what, document, &mesh, addresses)).await;
        self.tell(wish, outcome);
    }

    /// What has changed, and what else there is to say.
    async fn try_change(
        &mut self,
        what: &What,
        mut document: Document,
        mesh: &Mesh,
        addresses: &Addresses,
    ) -> anyhow::Result<(Vec<String>, Option<String>)> {
        let View { interface, ifindex, .. } = &self.view;
        let link = self.netlink.link_by_index(*ifindex).await?;
        let link = link.with_context(|| format!("{interface} is gone: nothing can be changed until it is back"))?;
        let node = &self.view.node;
        ensure!(
            mesh.nodes.iter().any(|it| it.name == *node),
            "this host is node {node:?}, which {} has no more: nothing is changed; `l2mesh detach --iface {interface}` leaves the mesh",
            document.name()
        );
        let args = AttachArgs { node: Some(node.clone()), ..self.args.clone() };
        let lookup = |name: &str| answer(addresses, name);
        let identity = try_identity(&args, Some(mesh), &self.netlink, &link, lookup).await?;
        let identity = identity.map_err(|reason| anyhow!("{reason}: nothing is changed"))?;
        let prepared = match what {
            What::Edit(_, true) => Some(document.prepare().map_err(|reason| anyhow!(reason))?),
            _ => None,
        };
        let had_changes = self.document.is_changed();
        let changes = self.apply(identity).await?;
        let note = match (what, prepared) {
            (What::Edit(..), Some(prepared)) => {
                let path = match prepared.put() {
                    Ok(path) => path,
                    Err(reason) => {
                        self.document = document;
                        bail!("it is in force, but {reason}");
                    }
                };
                document.saved();
                let others = if had_changes { ", with what was changed before" } else { "" };
                Some(format!("saved to {}{others}", path.display()))
            }
            (What::Edit(..), None) => Some("until the next reload or restart".to_owned()),
            (What::Reload, _) => None,
        };
        self.document = document;
        Ok((changes, note))
    }

    /// Says what came of it: to whoever waits for that, and in the log.
    fn tell(&mut self, wish: Wish, outcome: anyhow::Result<(Vec<String>, Option<String>)>) {
        let why = wish.why;
        if matches!(wish.what, What::Reload) {
            self.wishes.file_is_refused = outcome.is_err();
        }
        let reply = match outcome {
            Ok((changes, note)) => {
                let count = match changes.len() {
                    0 => "nothing changed".to_owned(),
                    1 => "1 change".to_owned(),
                    many => format!("{many} changes"),
                };
                let say = |text| self.say(Level::Info, Subject::of("reload"), text);
                say(format!("{why}: {count}"));
                changes.iter().for_each(|change| say(format!("  {change}")));
                Reply { ok: true, changes, note, ..Reply::default() }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                self.say(Level::Error, Subject::of("reload"), format!("{why} is refused: {reason}"));
                Reply::refusal(reason)
            }
        };
        if let Some(answer) = wish.answer {
            answer.reply(&reply);
        }
    }
}
