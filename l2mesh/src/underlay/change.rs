//! Changing and removing devices.

use std::net::IpAddr;

use l2mesh_common::wire::MacAddr;
use nix::errno::Errno;
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkMessage},
};

use super::{Error, Netlink, create::private_group};

/// Devices that are removed in one step: the kernel then waits for its readers once, not once a device, but it holds up
/// everybody else's changes meanwhile (a third of a second for so many).
pub(crate) const TOGETHER: usize = 512;

impl Netlink {
    /// Switches a device on; it being on already is success.
    ///
    /// # Errors
    /// [`Error::PortTaken`]: a vxlan device of others is up on the port of this one.
    pub(crate) async fn set_up(&self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        match self.set(index, message).await? {
            Err(Errno::EADDRINUSE) => Err(Error::PortTaken { device: self.called(index).await }),
            result => self.told(result, "bring up", index).await,
        }
    }

    /// Changes the MTU, octets.
    ///
    /// # Errors
    /// When the kernel refuses, above all because the device cannot have that MTU.
    pub(crate) async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let result = self.set(index, message).await?;
        self.told(result, &format!("set an MTU of {mtu} on"), index).await
    }

    /// Changes the MAC address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        let result = self.set(index, message).await?;
        self.told(result, &format!("give the MAC address {mac} to"), index).await
    }

    /// Makes devices ports of a bridge, or of none.
    ///
    /// # Errors
    /// When the kernel refuses one: the others are ports all the same.
    pub(crate) async fn set_masters(&self, ports: &[u32], bridge: Option<u32>) -> Result<(), Error> {
        let doing = if bridge.is_some() { "put under a bridge" } else { "take from its bridge" };
        let attribute = LinkAttribute::Controller(bridge.unwrap_or(0));
        self.set_all(doing, ports.iter().map(|&port| (port, vec![attribute.clone()]))).await
    }

    /// Switches devices on.
    ///
    /// # Errors
    /// When the kernel refuses one: the others are on all the same.
    pub(crate) async fn set_all_up(&self, indexes: &[u32]) -> Result<(), Error> {
        let requests = indexes.iter().map(|&index| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            (RouteNetlinkMessage::SetLink(message), 0)
        });
        let outcomes = self.changes("change devices", requests).await?;
        self.first_refusal("bring up", indexes, &outcomes).await
    }

    /// Gives each device these attributes.
    pub(super) async fn set_all(
        &self,
        doing: &str,
        devices: impl Iterator<Item = (u32, Vec<LinkAttribute>)> + Clone,
    ) -> Result<(), Error> {
        let requests = devices.clone().map(|(index, attributes)| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes = attributes;
            (RouteNetlinkMessage::SetLink(message), 0)
        });
        let outcomes = self.changes("change devices", requests).await?;
        let indexes: Vec<u32> = devices.map(|(index, _)| index).collect();
        self.first_refusal(doing, &indexes, &outcomes).await
    }

    async fn first_refusal(&self, doing: &str, of: &[u32], outcomes: &[Result<(), Errno>]) -> Result<(), Error> {
        match of.iter().zip(outcomes).find(|(_, outcome)| outcome.is_err()) {
            Some((&index, &outcome)) => self.told(outcome, doing, index).await,
            None => Ok(()),
        }
    }

    /// Changes the name, also while the device is up (Linux 6.2).
    ///
    /// # Errors
    /// [`Error::NameTaken`], or the kernel refuses.
    pub(crate) async fn rename(&self, index: u32, name: &str) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        match self.set(index, message).await? {
            Err(Errno::EEXIST) => Err(Error::NameTaken { name: name.into() }),
            result => self.told(result, &format!("give the name {name} to"), index).await,
        }
    }

    /// Removes a device, and with one end of a veth pair the other. It being gone is success.
    ///
    /// # Errors
    /// When the kernel refuses, as for a card.
    pub(crate) async fn delete(&self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.change("remove a device", RouteNetlinkMessage::DelLink(message), 0).await? {
            Err(Errno::ENODEV) => Ok(()),
            result => self.told(result, "remove", index).await,
        }
    }

    /// Removes devices in one step, at best not more than [`TOGETHER`]. Those that are gone are success.
    ///
    /// # Errors
    /// When the kernel refuses to remove one of them: then all stay.
    pub(crate) async fn delete_together(&self, indexes: &[u32]) -> Result<(), Error> {
        if let [] | [_] = indexes {
            return match indexes.first() {
                Some(&index) => self.delete(index).await,
                None => Ok(()),
            };
        }
        // The kernel removes what is in a group: in one of ours there is nothing else.
        let group = private_group();
        let requests = indexes.iter().map(|&index| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes.push(LinkAttribute::Group(group));
            (RouteNetlinkMessage::SetLink(message), 0)
        });
        let mut outcomes = self.changes("remove devices", requests).await?;
        outcomes.iter_mut().filter(|outcome| **outcome == Err(Errno::ENODEV)).for_each(|outcome| *outcome = Ok(()));
        self.first_refusal("remove", indexes, &outcomes).await?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        match self.change("remove devices", RouteNetlinkMessage::DelLink(message), 0).await? {
            Ok(()) | Err(Errno::ENODEV) => Ok(()),
            Err(errno) => Err(Error::new("remove devices", errno)),
        }
    }

    pub(super) async fn set(&self, index: u32, mut message: LinkMessage) -> Result<Result<(), Errno>, Error> {
        message.header.index = index;
        self.change("change a device", RouteNetlinkMessage::SetLink(message), 0).await
    }

    /// Names the device in an error; the look-up costs nothing on success.
    async fn told(&self, result: Result<(), Errno>, doing: &str, index: u32) -> Result<(), Error> {
        match result {
            Ok(()) => Ok(()),
            Err(errno) => Err(Error::new(format!("{doing} {}", self.called(index).await), errno)),
        }
    }
}

pub(super) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Namespace, index},
        *,
    };

    #[test]
    fn each_change() {
        let host = Namespace::new();
        host.ip("link add va type veth peer name vb");
        let (va, vb) = (index(&host, "va"), index(&host, "vb"));
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            netlink.set_mtu(va, 9000).await.expect("the MTU");
            netlink.set_mac(va, MacAddr([2, 0, 0, 0, 0, 7])).await.expect("the MAC address");
            netlink.set_up(va).await.expect("up");
            netlink.set_up(va).await.expect("up again");
            let error = netlink.set_mtu(va, 70_000).await.expect_err("above what a veth can have");
            assert_eq!(error.to_string(), "cannot set an MTU of 70000 on va: Invalid argument (EINVAL)");
        });
        let shown = host.ip("link show dev va");
        for expected in [",UP", "mtu 9000", "link/ether 02:00:00:00:00:07 "] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            netlink.delete(va).await.expect("gone");
            netlink.delete(vb).await.expect("gone with the other end");
            assert_eq!(netlink.links().await.map(|links| links.len()), Ok(1));
        });
    }

    #[test]
    fn many_at_once() {
        let host = Namespace::new();
        host.ip("link add br0 type bridge");
        host.ip("link add other type veth peer name another");
        let pairs: Vec<[u32; 2]> = (0..70)
            .map(|number| {
                host.ip(&format!("link add a{number} type veth peer name b{number}"));
                [format!("a{number}"), format!("b{number}")].map(|name| index(&host, &name))
            })
            .collect();
        let (br0, ends): (_, Vec<u32>) = (index(&host, "br0"), pairs.iter().map(|pair| pair[0]).collect());
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            netlink.set_masters(&ends, Some(br0)).await.expect("ports");
            netlink.set_all_up(&ends).await.expect("up");
            let links = netlink.links().await.expect("asked");
            let ports = links.iter().filter(|link| link.master == Some(br0) && link.up);
            assert_eq!(ports.count(), 70);
            netlink.set_masters(&ends[..1], None).await.expect("no port");
            assert_eq!(netlink.link_by_index(ends[0]).await.expect("asked").and_then(|link| link.master), None);

            let gone = [&ends[..], &[77_777]].concat();
            let error = netlink.set_all_up(&gone).await.expect_err("one is not there");
            assert_eq!(error.to_string(), "cannot bring up interface 77777: no such device (see `ip link`)");
            netlink.delete_together(&gone).await.expect("removed");
            netlink.delete_together(&gone).await.expect("gone already");
            let left: Vec<_> = netlink.links().await.expect("asked").into_iter().map(|link| link.name).collect();
            assert_eq!(left, ["lo", "br0", "another", "other"]);
        });
    }

    #[test]
    fn a_device_that_is_gone() {
        let host = Namespace::new();
        let error = host.block_on(async || Netlink::open().expect("a socket").set_up(77).await).expect_err("none");
        assert_eq!(error.to_string(), "cannot bring up interface 77: no such device (see `ip link`)");
    }
}
