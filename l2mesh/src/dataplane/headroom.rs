//! Room for the outer header in small frames that this host sends.
//!
//! They come with 16 octets of room, and `bpf_skb_adjust_room` then copies each. A bridge asks its ports to give as much room
//! as any of them needs (`br_add_if`, `veth_set_rx_headroom`), and vxlan devices need what an outer header takes: so the
//! hidden ends and a vxlan device become ports of a bridge that is never up; of several, where one has not ports enough.

use std::collections::HashMap;

use super::{devices::Pair, view::View};
use crate::underlay::{self, Link, Netlink};

/// Ports of a bridge for hidden ends: it has 1,023 (`BR_MAX_PORTS` in `net/bridge/br_private.h`), one is the vxlan device's.
const PORTS: usize = 1022;
/// UDP ports that are tried for vxlan devices that are never up and hold none: no other such device may have the same.
const UNUSED: std::ops::Range<u16> = 1..64;

/// Without it everything works too, a little slower.
pub(crate) async fn make_headroom(netlink: &Netlink, view: &View, helper: &Link, networks: &[Pair]) {
    if let Err(error) = ensure_headroom(netlink, view, helper, networks).await {
        log::info!("small frames are copied once to make room for the outer header: {error}");
    }
}

async fn ensure_headroom(
    netlink: &Netlink,
    view: &View,
    helper: &Link,
    networks: &[Pair],
) -> Result<(), underlay::Error> {
    let links = netlink.links().await?;
    let find = |alias: &str| links.iter().find(|link| link.alias.as_deref() == Some(alias)).cloned();
    let mut bridges = Vec::new();
    for nth in 0..networks.len().div_ceil(PORTS).max(1) {
        let suffix = if nth == 0 { String::new() } else { format!("x{nth}") };
        let alias = view.headroom_alias(nth);
        let bridge = match find(&alias) {
            Some(bridge) => bridge,
            None => netlink.create_bridge(&format!("l2mh{}{suffix}", view.ifindex), None, &alias).await?,
        };
        let alias = format!("{alias}:room");
        let source = match find(&alias) {
            _ if nth == 0 => helper.clone(),
            Some(source) => source,
            None => make_source(netlink, &format!("l2mk{}{suffix}", view.ifindex), &alias).await?,
        };
        if source.master != Some(bridge.index) {
            netlink.set_masters(&[source.index], Some(bridge.index)).await?;
        }
        bridges.push((bridge.index, 0));
    }
    // Those that are ports already stay where they are.
    let masters: HashMap<u32, u32> = links.iter().filter_map(|link| Some((link.index, link.master?))).collect();
    let mut new = Vec::new();
    for pair in networks {
        let master = masters.get(&pair.hidden).copied();
        match bridges.iter_mut().find(|(index, _)| Some(*index) == master) {
            Some((_, ports)) => *ports += 1,
            None => new.push(pair.hidden),
        }
    }
    for (bridge, ports) in bridges {
        let room = PORTS.saturating_sub(ports).min(new.len());
        netlink.set_masters(&new.drain(..room).collect::<Vec<_>>(), Some(bridge)).await?;
    }
    Ok(())
}

/// A device whose only use is that it needs room.
async fn make_source(netlink: &Netlink, name: &str, alias: &str) -> Result<Link, underlay::Error> {
    let mut last = None;
    for port in UNUSED {
        match netlink.create_vxlan_helper(name, port, alias).await {
            Err(error @ underlay::Error::PortTaken { .. }) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| underlay::Error::NoSuchDevice { doing: format!("create {name}") }))
}
