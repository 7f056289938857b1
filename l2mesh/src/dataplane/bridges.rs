//! The bridges that networks ask for, and the addresses of this host in its networks.
//!
//! A bridge that is missing is made, and removed with the mesh. One that was there gets a port and the configured addresses,
//! nothing else: its MTU follows its ports by itself unless somebody set it, its MAC address stays (see `view::OF_PORT`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail, ensure};
use aya::maps::{HashMap, MapData};
use l2mesh_common::tables::{Label, LabelKey};

use super::{
    devices::{Devices, Pair},
    pins::PinDir,
    tables::{self, Tables, remove},
    view::{NetworkView, View},
};
use crate::underlay::{Link, Netlink, addresses::Owned};

const KIND: &str = "bridge";

/// Refuses what cannot become a bridge of a network, before anything is changed.
pub(super) async fn refuse(netlink: &Netlink, view: &View, links: &[Link]) -> anyhow::Result<()> {
    for network in &view.networks {
        let Some(name) = &network.bridge else { continue };
        let Some(found) = netlink.link_by_name(name).await? else { continue };
        let whose = format!("network {:?}: bridge {name:?}", network.name);
        ensure!(found.index != view.ifindex, "{whose} is the underlay interface: write another name");
        if !is_bridge(&found) {
            let kind = found.kind.as_deref().unwrap_or("a card");
            bail!("{whose}: a device of that name exists and is no bridge ({kind}): remove it or write another name");
        }
        let is_foreign =
            |link: &&Link| link.alias.as_deref().is_some_and(|it| it.starts_with("l2mesh:")) && !view.owns(link);
        let ports = links.iter().filter(|link| link.master == Some(found.index));
        if let Some(other) = std::iter::once(&found).chain(ports).find(is_foreign) {
            let mesh = other.alias.as_deref().unwrap_or_default();
            bail!("{whose} belongs to another mesh ({mesh}): one bridge would join both: write another name");
        }
    }
    Ok(())
}

/// Makes bridges, ports and addresses what the configuration says.
pub(crate) async fn ensure(
    netlink: &Netlink,
    view: &View,
    devices: &mut Devices,
    tables: &mut Tables,
) -> anyhow::Result<()> {
    let before = recorded(&tables.labels)?;
    if !before.is_empty() || view.networks.iter().any(|network| network.bridge.is_some()) {
        let ours: Vec<Link> = netlink.links().await?.into_iter().filter(|link| view.owns(link)).collect();
        let bridge_of = |vni| view.networks.iter().find(|it| it.vni == vni).and_then(|it| it.bridge.as_ref());
        let is_unwanted = |link: &&Link| view.vni_of_bridge(link).is_some_and(|vni| bridge_of(vni) != Some(&link.name));
        let unwanted: Vec<u32> = ours.iter().filter(is_unwanted).map(|link| link.index).collect();
        if !unwanted.is_empty() {
            let stay = in_use(netlink, &ours).await?;
            for index in unwanted.into_iter().filter(|index| !stay.contains(index)) {
                netlink.delete(index).await?;
            }
        }
    }
    let mut wanted = BTreeSet::new();
    for (network, pair) in view.networks.iter().zip(&mut devices.networks) {
        let device = if let Some(name) = &network.bridge {
            Some(join(netlink, view, network, name, pair, tables).await?)
        } else {
            leave(netlink, pair, before.get(&network.vni).copied(), tables).await?;
            pair.overlay.as_ref().map(|overlay| overlay.index)
        };
        let Some(index) = device else { continue };
        wanted.extend(network.addresses.iter().map(|it| Owned { index, address: it.address, prefix: it.prefix }));
    }
    let overlays = devices.networks.iter().filter_map(|pair| Some(pair.overlay.as_ref()?.index));
    let mut places: BTreeSet<u32> = overlays.chain(before.values().copied()).collect();
    places.extend(wanted.iter().map(|it| it.index));
    let ours: BTreeSet<Owned> =
        netlink.our_addresses().await?.into_iter().filter(|it| places.contains(&it.index)).collect();
    netlink.remove_addresses(&ours.difference(&wanted).copied().collect::<Vec<_>>()).await?;
    netlink.add_addresses(&wanted.difference(&ours).copied().collect::<Vec<_>>()).await?;
    for vni in before.into_keys().filter(|vni| view.networks.iter().all(|network| network.vni != *vni)) {
        remove(&mut tables.labels, &LabelKey::bridge(vni))?;
    }
    Ok(())
}

/// Makes a network's overlay interface a port of its bridge, which is made if it is missing. Returns the bridge's index.
async fn join(
    netlink: &Netlink,
    view: &View,
    network: &NetworkView,
    name: &str,
    pair: &mut Pair,
    tables: &mut Tables,
) -> anyhow::Result<u32> {
    let found = netlink.link_by_name(name).await?;
    let is_new = found.is_none();
    let bridge = match found {
        Some(bridge) => bridge,
        None => netlink.create_bridge(name, Some(network.bridge_mac()), &view.bridge_alias(network.vni)).await?,
    };
    let is_ours = is_new || view.vni_of_bridge(&bridge) == Some(network.vni);
    if is_ours && bridge.mtu != network.mtu {
        // Set by hand it stays, whatever ports come.
        netlink.set_mtu(bridge.index, network.mtu).await?;
    }
    // Noted first: whoever removes the mesh must know where to look for addresses.
    let key = LabelKey::bridge(network.vni);
    tables.labels.insert(key, Label::new(&bridge.index.to_string()), 0).context("cannot write LABELS")?;
    match &mut pair.overlay {
        Some(overlay) => {
            if overlay.master != Some(bridge.index) {
                netlink.set_masters(&[overlay.index], Some(bridge.index)).await?;
                overlay.master = Some(bridge.index);
            }
            pair.is_bridge_port = true;
        }
        None => log::warn!(
            "{}: it is in another namespace: it becomes a port of {name} when it comes back",
            network.interface
        ),
    }
    if is_new || is_ours && bridge.was_never_up() {
        netlink.set_up(bridge.index).await?;
    } else if !is_ours && let Some(now) = netlink.link_by_index(bridge.index).await? {
        if now.mtu > network.mtu {
            log::warn!(
                "bridge {name} has an MTU of {}, set by hand, and network {} one of {}: what is longer is lost: `ip link set {name} mtu {}`",
                now.mtu,
                network.name,
                network.mtu,
                network.mtu
            );
        }
        if !now.up {
            log::warn!("bridge {name} is down: bring it up, `ip link set {name} up`");
        }
    }
    Ok(bridge.index)
}

/// The configuration says nothing of a bridge: if it did before, that ends; a bridge that somebody chose by hand stays.
async fn leave(netlink: &Netlink, pair: &mut Pair, before: Option<u32>, tables: &mut Tables) -> anyhow::Result<()> {
    let Some(before) = before else { return Ok(()) };
    if let Some(overlay) = &mut pair.overlay
        && overlay.master == Some(before)
    {
        netlink.set_masters(&[overlay.index], None).await?;
        overlay.master = None;
    }
    remove(&mut tables.labels, &LabelKey::bridge(pair.vni))
}

/// An overlay interface that was in another namespace is back, without its bridge.
pub(crate) async fn rejoin(netlink: &Netlink, tables: &Tables, vni: u32, overlay: &Link) -> anyhow::Result<()> {
    let Ok(bridge) = tables.label(LabelKey::bridge(vni)).parse() else { return Ok(()) };
    if overlay.master.is_none() {
        netlink.set_masters(&[overlay.index], Some(bridge)).await?;
    }
    Ok(())
}

/// Removes our addresses from bridges that stay; what it removed, for people. Those that were made for the mesh go as devices do.
pub(super) async fn clear(netlink: &Netlink, pins: &PinDir) -> anyhow::Result<Vec<String>> {
    if !pins.pin("LABELS").exists() {
        return Ok(Vec::new());
    }
    let bridges: BTreeSet<u32> = recorded(&tables::labels(pins)?)?.into_values().collect();
    if bridges.is_empty() {
        return Ok(Vec::new());
    }
    let mut ours = netlink.our_addresses().await?;
    ours.retain(|it| bridges.contains(&it.index));
    netlink.remove_addresses(&ours).await?;
    let name = |index| {
        nix::net::if_::if_indextoname(index).map_or_else(|_| String::new(), |it| it.to_string_lossy().into_owned())
    };
    Ok(ours.iter().map(|it| format!("{}/{} from {}", it.address, it.prefix, name(it.index))).collect())
}

/// Those of our bridges to which somebody else has connected something: machines on them go on talking to each other. They
/// keep their alias: the next attach takes them up again.
pub(super) async fn in_use(netlink: &Netlink, ours: &[Link]) -> anyhow::Result<BTreeSet<u32>> {
    let mut stay = BTreeSet::new();
    if !ours.iter().any(is_bridge) {
        return Ok(stay);
    }
    let indexes: BTreeSet<u32> = ours.iter().map(|link| link.index).collect();
    for port in netlink.links().await?.iter().filter(|link| !indexes.contains(&link.index)) {
        let bridge = ours.iter().find(|link| is_bridge(link) && port.master == Some(link.index));
        if let Some(bridge) = bridge
            && stay.insert(bridge.index)
        {
            log::warn!("bridge {} stays: {} is a port of it", bridge.name, port.name);
        }
    }
    Ok(stay)
}

/// By VNI: the bridge that a network asked for, when it was last attached.
fn recorded(labels: &HashMap<MapData, LabelKey, Label>) -> anyhow::Result<BTreeMap<u32, u32>> {
    let mut bridges = BTreeMap::new();
    for entry in labels {
        let (key, label) = entry?;
        if key.kind == LabelKey::BRIDGE
            && let Ok(index) = label.text().parse()
        {
            bridges.insert(key.id, index);
        }
    }
    Ok(bridges)
}

pub(crate) fn is_bridge(link: &Link) -> bool {
    link.kind.as_deref() == Some(KIND)
}
