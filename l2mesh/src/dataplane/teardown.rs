//! Removing all that attach made, and nothing else.

use super::{hooks, pins::PinDir, view::View};
use crate::underlay::Netlink;

/// Removes programs, devices and pins of a mesh. Goes on after a failure, so that as little as possible is left, and
/// returns what it removed and what it could not.
pub(crate) async fn remove_all(netlink: &Netlink, interface: &str, pins: &PinDir) -> Removed {
    let mut removed = Removed::default();
    // Who is killed from here on leaves half a mesh, not one that the next attach would adopt.
    removed.note("", pins.disown().map(|()| false));
    // XDP first: with it and without TC, inner frames would enter the host's stack as the NIC's own.
    removed.note("XDP program", hooks::detach_xdp(pins));
    match netlink.links_with_alias(&View::alias_prefix(interface)).await {
        Ok(links) => {
            for link in links {
                // The other end of a pair may have gone with the first.
                match netlink.link_by_index(link.index).await {
                    Ok(None) => removed.done.push(link.name),
                    _ => removed.note(&link.name, netlink.delete(link.index).await.map(|()| true).map_err(Into::into)),
                }
            }
        }
        Err(error) => removed.failed.push(error.into()),
    }
    if pins.path().exists() {
        removed.note(&format!("pins in {pins}"), pins.remove().map(|()| true));
    }
    removed
}

/// What became of a removal.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// What is gone now, in words.
    pub(crate) done: Vec<String>,
    /// What stays, with the reason.
    pub(crate) failed: Vec<anyhow::Error>,
}

impl Removed {
    fn note(&mut self, what: &str, outcome: anyhow::Result<bool>) {
        match outcome {
            Ok(true) => self.done.push(what.to_owned()),
            Ok(false) => {}
            Err(error) => self.failed.push(error),
        }
    }

    /// All failures in one error.
    ///
    /// # Errors
    /// If there was any.
    pub(crate) fn result(self) -> anyhow::Result<Vec<String>> {
        match self.failed.as_slice() {
            [] => Ok(self.done),
            failed => {
                let reasons: Vec<String> = failed.iter().map(|error| format!("{error:#}")).collect();
                anyhow::bail!("not everything could be removed: {}; run `l2mesh detach` again", reasons.join("; "))
            }
        }
    }
}
