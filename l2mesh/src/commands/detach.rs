//! `l2mesh detach`: remove all that attach made, with or without a live agent.

use std::{collections::BTreeSet, io::Write as _, path::Path};

use anyhow::Context as _;

use crate::{
    agent::{control, start::require_privileges},
    cli::DetachArgs,
    dataplane::{
        pins::{Owner, PinDir, PinnedMeta, interface_name, netns_cookie},
        teardown,
    },
    underlay::Netlink,
};

/// Says what it removed; nothing to remove is success.
///
/// # Errors
/// Something could not be removed.
pub(crate) async fn run(args: &DetachArgs, pin_root: &Path) -> anyhow::Result<()> {
    require_privileges("detach")?;
    let removed = match &args.iface {
        Some(interface) => detach(interface, pin_root).await?,
        None => detach_stale(pin_root).await?,
    };
    let mut stdout = std::io::stdout();
    if removed.is_empty() {
        writeln!(stdout, "nothing to remove")?;
    }
    for what in removed {
        writeln!(stdout, "removed {what}")?;
    }
    Ok(())
}

async fn detach(interface: &str, pin_root: &Path) -> anyhow::Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let link = netlink.link_by_name(interface).await?;
    // As attach calls it, where an alternative name was given.
    let interface = link.as_ref().map_or(interface, |link| &link.name);
    // The agent may have been killed; the interface may be gone, or have come back with another index.
    let mut agents: BTreeSet<u32> = link.iter().map(|link| link.index).collect();
    let mut pins: Vec<PinDir> = Vec::new();
    for found in PinDir::all(pin_root)? {
        match found.meta()? {
            PinnedMeta::Found(meta) if interface_name(&meta) == interface => {
                agents.insert(meta.ifindex);
                pins.push(found);
            }
            PinnedMeta::Found(meta) if !interface_name(&meta).is_empty() => {}
            _ if found.is_named_after(interface) => pins.push(found),
            _ => {}
        }
    }
    let (mut removed, mut held) = (Vec::new(), Vec::new());
    for ifindex in agents {
        match (control::ask_to_stop(ifindex).await?, control::hold(ifindex).await?) {
            // All is gone, and an attach has begun since: what there is now is its.
            (Some(answer), None) => return Ok(answer),
            (answer, holding) => {
                removed.extend(answer.unwrap_or_default());
                held.extend(holding);
            }
        }
    }
    if pins.is_empty()
        && let Some(link) = &link
    {
        pins.push(PinDir::of(pin_root, &Owner::new(interface, link.index)?)?);
    }
    for found in pins {
        removed.extend(teardown::remove_all(&netlink, interface, &found, &mut || ()).await.result()?);
    }
    drop(held);
    Ok(removed)
}

/// Pins of namespaces, interfaces and boots that are gone. A namespace is gone when nothing says otherwise: no process is
/// in it and nothing holds it open, which is to say that its cookie is not found among the namespaces that we can see.
async fn detach_stale(pin_root: &Path) -> anyhow::Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let own = netns_cookie()?;
    let mut removed = Vec::new();
    for found in PinDir::everywhere(pin_root)? {
        match found.meta()? {
            PinnedMeta::Found(meta) if meta.netns_cookie == own => {
                let link = netlink.link_by_index(meta.ifindex).await?;
                let interface = interface_name(&meta);
                let owner = Owner { interface: interface.clone(), ifindex: meta.ifindex, netns_cookie: own };
                if link.is_none_or(|link| link.name != interface) || owner.meta()?.boot_id != meta.boot_id {
                    // With devices, and an agent that may still be there.
                    removed.extend(detach(&interface, pin_root).await?);
                }
            }
            PinnedMeta::Found(_) if found.links_are_dead().with_context(|| format!("cannot look at {found}"))? => {
                found.remove()?;
                removed.push(format!("stale pins in {found}"));
            }
            PinnedMeta::Found(_) | PinnedMeta::Missing | PinnedMeta::OtherSize => {}
        }
    }
    Ok(removed)
}
