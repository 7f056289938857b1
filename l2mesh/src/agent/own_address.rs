//! The address from which this host sends: found at attach, and followed when it changes, as with a new DHCP lease
//! behind 1:1 NAT.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::bail;
use l2mesh_common::tables::Fact;

use super::Agent;
use crate::{dataplane::fill, underlay::Netlink};

/// Where the outer source address comes from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `--local`.
    pub(crate) told: Option<IpAddr>,
    /// The node's own address in the configuration.
    pub(crate) written: Option<IpAddr>,
    /// Those of the other nodes.
    pub(crate) others: Vec<IpAddr>,
}

impl Source {
    /// `--local`, else the node's address if it is on the interface, else the preferred source of the route to a peer
    /// (behind 1:1 NAT). The outer error is final, the inner one may pass.
    pub(crate) async fn find(
        &self,
        netlink: &Netlink,
        addresses: &[IpAddr],
    ) -> anyhow::Result<Result<Ipv4Addr, String>> {
        let mut found = self.told.or(self.written.filter(|address| addresses.contains(address)));
        for node in &self.others {
            if found.is_some() {
                break;
            }
            found = netlink.route_to(*node, None).await?.and_then(|route| route.preferred_source);
        }
        match found {
            Some(IpAddr::V4(address)) => Ok(Ok(address)),
            Some(IpAddr::V6(address)) => {
                bail!("{address} is an IPv6 address: this version carries frames over IPv4 only")
            }
            None => Ok(Err("no route to any peer yet".to_owned())),
        }
    }
}

impl Agent {
    /// Takes up another address of the underlay interface. While it has none, the last one is the best guess.
    pub(super) async fn look_at_own_address(&mut self) -> anyhow::Result<()> {
        let addresses = self.netlink.addresses(self.view.ifindex).await?;
        if addresses.is_empty() {
            return Ok(());
        }
        if let Ok(Ok(local)) = self.source.find(&self.netlink, &addresses).await
            && local != self.view.local
        {
            log::info!("{}: sending from {local}, no longer from {}", self.view.interface, self.view.local);
            self.view.local = local;
            self.tables.set_fact(Fact::Local, &local.to_string())?;
        }
        fill::write_settings(&mut self.tables, &self.view, &self.devices, &addresses)
    }
}
