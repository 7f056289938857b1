//! The addresses from which this host sends: found at attach, and followed when they change, as with a new DHCP lease
//! behind 1:1 NAT.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use l2mesh_common::tables::Fact;

use super::{Agent, chronicle::Subject};
use crate::{dataplane::fill, underlay::Netlink};

/// Where the outer source addresses come from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// `--local`.
    pub(crate) told: Option<IpAddr>,
    /// The node's own address in the configuration, and those under which single nodes see it.
    pub(crate) written: Vec<IpAddr>,
    /// Those of the other nodes, as this one sees them.
    pub(crate) others: Vec<IpAddr>,
}

/// The outer source addresses, one for each IP version that has peers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Local {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Local {
    /// The one from which `peer` is reached.
    pub(crate) fn towards(&self, peer: IpAddr) -> Option<IpAddr> {
        match peer {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (None, None) => f.write_str("no address"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (Some(v4), Some(v6)) => write!(f, "{v4}, {v6}"),
        }
    }
}

impl Source {
    /// For each IP version `--local`, else what the configuration gives this node if it is on the interface, else the
    /// preferred source of the route to a peer (behind 1:1 NAT). An error may pass.
    pub(crate) async fn find(
        &self,
        netlink: &Netlink,
        addresses: &[IpAddr],
    ) -> anyhow::Result<Result<Local, &'static str>> {
        let mut local = Local::default();
        for is_v4 in [true, false] {
            let same = |address: &&IpAddr| address.is_ipv4() == is_v4;
            let told = self.told.iter().find(same);
            let written = self.written.iter().filter(same).find(|address| addresses.contains(address));
            let mut found = told.or(written).copied();
            for node in self.others.iter().filter(same) {
                if found.is_some() {
                    break;
                }
                found = netlink.route_to(*node, None).await?.and_then(|route| route.preferred_source);
            }
            if let Some(address) = found.filter(|_| self.others.iter().any(|node| node.is_ipv4() == is_v4)) {
                local.set(address);
            }
        }
        Ok(if local == Local::default() { Err("no route to any peer yet") } else { Ok(local) })
    }
}

impl Agent {
    /// Takes up another address of the underlay interface. While it has none, the last one is the best guess.
    pub(super) async fn look_at_own_address(&mut self) -> anyhow::Result<()> {
        let addresses = self.netlink.addresses(self.view.ifindex).await?;
        if addresses.is_empty() {
            return Ok(());
        }
        if let Ok(Ok(found)) = self.source.find(&self.netlink, &addresses).await {
            // One IP version may lose its address while the other keeps it.
            let local = Local { v4: found.v4.or(self.view.local.v4), v6: found.v6.or(self.view.local.v6) };
            if local != self.view.local {
                let text = format!("{}: sending from {local}, no longer from {}", self.view.interface, self.view.local);
                self.say(log::Level::Info, Subject::of("source-address"), text);
                self.view.local = local;
                self.tables.set_fact(Fact::Local, &local.to_string())?;
            }
        }
        self.view.addresses = addresses;
        self.aim_prober()?;
        fill::write_settings(&mut self.tables, &self.view, &self.devices)
    }
}
