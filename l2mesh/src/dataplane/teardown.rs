//! Removing all that attach made, and nothing else.

use super::{bridges, hooks, pins::PinDir, view::View};
use crate::underlay::{Netlink, change::TOGETHER};

/// Removes programs, devices and pins of a mesh. Goes on after a failure, so that as little as possible is left, and
/// returns what it removed and what it could not. `progress` is called now and then, as long as it gets on.
pub(crate) async fn remove_all(
    netlink: &Netlink,
    interface: &str,
    pins: &PinDir,
    progress: &mut dyn FnMut(),
) -> Removed {
    let mut removed = Removed::default();
    // Who is killed from here on leaves half a mesh, not one that the next attach would adopt.
    removed.note("", pins.disown().map(|()| false));
    // XDP first: with it and without TC, inner frames would enter the host's stack as the NIC's own.
    removed.note("XDP program", hooks::detach_xdp(pins));
    match bridges::clear(netlink, pins).await {
        Ok(addresses) => removed.done.extend(addresses),
        Err(error) => removed.failed.push(error),
    }
    // Their interfaces would take them along, in one step during which nobody else can change any interface.
    removed.note("", pins.detach_overlays(|_| true, progress).map(|()| false));
    match netlink.links_with_alias(&View::alias_prefix(interface)).await {
        Ok(mut links) => {
            match bridges::in_use(netlink, &links).await {
                Ok(stay) => links.retain(|link| !stay.contains(&link.index)),
                Err(error) => removed.failed.push(error),
            }
            for some in links.chunks(TOGETHER) {
                progress();
                let indexes: Vec<u32> = some.iter().map(|link| link.index).collect();
                if netlink.delete_together(&indexes).await.is_ok() {
                    removed.done.extend(some.iter().map(|link| link.name.clone()));
                    continue;
                }
                for link in some {
                    removed.note(&link.name, netlink.delete(link.index).await.map(|()| true).map_err(Into::into));
                }
            }
        }
        Err(error) => removed.failed.push(error.into()),
    }
    progress();
    removed.note("", pins.beside().forget().map(|()| false));
    if pins.path().exists() {
        removed.note(&format!("pins in {pins}"), pins.remove().map(|()| true));
    }
    removed
}

/// What was removed, in one line.
pub(crate) fn summary(removed: &[String]) -> String {
    const SHOWN: usize = 20;
    match removed.split_at_checked(SHOWN) {
        Some((some, rest @ [_, .., last])) => format!("{} and {} more, {last}", some.join(", "), rest.len() - 1),
        _ => removed.join(", "),
    }
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
