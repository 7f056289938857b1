//! Which node of the configuration this host is, and from which address it sends.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs as _},
    time::Duration,
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::own_address::{Local, Source};
use crate::{
    cli::AttachArgs,
    config::{Host, Mesh, MeshFlags, ResolveError},
    service,
    underlay::{Link, Netlink, watch::Watch},
};

/// How often a network that is not there yet is looked for when nothing tells of it, as a resolver does not.
const RETRY: Duration = Duration::from_secs(1);

/// Who this host is.
pub(super) struct Identity {
    pub(super) mesh: Mesh,
    pub(super) own: usize,
    pub(super) source: Source,
    pub(super) local: Local,
    pub(super) addresses: Vec<IpAddr>,
}

/// Waits until the configuration can be matched with the interface: at boot, addresses, routes and the resolver may come later.
pub(super) async fn identity(
    args: &AttachArgs,
    file: Option<&Mesh>,
    netlink: &Netlink,
    link: &Link,
    watch: &mut Watch,
) -> anyhow::Result<Identity> {
    let mut told = String::new();
    loop {
        let addresses = look_up(file.map(Mesh::host_names).unwrap_or_default()).await.unwrap_or_default();
        match try_identity(args, file, netlink, link, |name| answer(&addresses, name)).await? {
            Ok(identity) => return Ok(identity),
            Err(reason) => {
                if reason != told {
                    log::warn!("waiting: {reason}");
                    service::status(&format!("waiting: {reason}"));
                    told = reason;
                }
                tokio::select! {
                    change = watch.next() => drop(change?),
                    () = sleep(RETRY) => {}
                }
            }
        }
    }
}

/// What is known of host names.
pub(super) type Addresses = HashMap<String, io::Result<Vec<IpAddr>>>;

/// Asks for host names in a thread of its own, so that a resolver that does not answer holds up nobody. After one without an answer
/// no other is asked for: it may have taken half a minute.
pub(super) fn look_up(names: Vec<String>) -> JoinHandle<Addresses> {
    spawn_blocking(move || {
        let mut addresses = Addresses::new();
        for name in names {
            let found = (&*name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
            let is_over = found.is_err();
            addresses.insert(name, found);
            if is_over {
                break;
            }
        }
        addresses
    })
}

/// What is known of one.
pub(super) fn answer(addresses: &Addresses, name: &str) -> io::Result<Vec<IpAddr>> {
    match addresses.get(name) {
        Some(Ok(found)) => Ok(found.clone()),
        Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The outer error is final, the inner one may pass. `lookup` finds the addresses of host names.
pub(super) async fn try_identity(
    args: &AttachArgs,
    file: Option<&Mesh>,
    netlink: &Netlink,
    link: &Link,
    lookup: impl FnMut(&str) -> io::Result<Vec<IpAddr>>,
) -> anyhow::Result<Result<Identity, String>> {
    let mut addresses = netlink.addresses(link.index).await?;
    if file.is_none() {
        prefer_source(args, netlink, &mut addresses).await?;
    }
    match args.local {
        None if addresses.is_empty() => return Ok(Err(format!("{} has no address yet", link.name))),
        // An IPv6 address becomes one a second after it was given, when nobody else has claimed it.
        Some(local) if !netlink.route_to(local, None).await?.is_some_and(|route| route.local) => {
            return Ok(Err(format!(
                "--local: {local} is not an address of this host (yet): give one, or leave it out"
            )));
        }
        _ => {}
    }
    let host = Host { node: args.node.as_deref(), local: args.local, interface: &link.name, addresses: &addresses };
    let mut mesh = match file {
        Some(mesh) => mesh.clone(),
        None => Mesh::from_flags(&args.mesh, &host)?,
    };
    match mesh.resolve(lookup) {
        Ok(()) => {}
        Err(error @ ResolveError::Lookup { .. }) => return Ok(Err(error.to_string())),
        Err(ResolveError::Config(errors)) => return Err(errors.into()),
    }
    let own = mesh.this_node(&host)?;
    let source = Source {
        told: args.local,
        written: mesh.nodes[own].address.ip().into_iter().chain(mesh.nodes[own].from.values().copied()).collect(),
        others: (0..mesh.nodes.len())
            .filter(|&node| node != own)
            .filter_map(|node| mesh.address_of(node, own))
            .collect(),
    };
    let local = match source.find(netlink, &addresses).await? {
        Ok(local) => local,
        Err(reason) => return Ok(Err(reason.to_owned())),
    };
    Ok(Ok(Identity { mesh, own, source, local, addresses }))
}

/// Puts the address first from which the kernel reaches the first peer: of the many that an interface has with IPv6, the one
/// under which the others are most likely to know this host.
async fn prefer_source(args: &AttachArgs, netlink: &Netlink, addresses: &mut [IpAddr]) -> anyhow::Result<()> {
    let MeshFlags { peer, plain_peer, relay, .. } = &args.mesh;
    let Some(first) = peer.iter().chain(plain_peer).chain(relay).next() else { return Ok(()) };
    let preferred = netlink.route_to(*first, None).await?.and_then(|route| route.preferred_source);
    if let Some(place) = addresses.iter().position(|address| Some(*address) == preferred) {
        addresses[..=place].rotate_right(1);
    }
    Ok(())
}
