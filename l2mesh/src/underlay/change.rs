//! Changing and removing devices.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkAttribute, LinkFlags, LinkMessage},
    },
};

use super::{Error, Netlink};

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

    /// Makes a device a port of a bridge.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn set_master(&self, index: u32, bridge: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Controller(bridge));
        let result = self.set(index, message).await?;
        self.told(result, "put under a bridge", index).await
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

    /// Gives a device an address; the device having it already is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn add_address(&self, index: u32, address: IpAddr, prefix_len: u8) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix_len;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        let doing = format!("add {address}/{prefix_len} to");
        let message = RouteNetlinkMessage::NewAddress(message);
        match self.change(&doing, message, NLM_F_CREATE | NLM_F_EXCL).await? {
            Err(Errno::EEXIST) => Ok(()),
            result => self.told(result, &doing, index).await,
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
            for address in ["10.8.0.1", "fd99::1"] {
                let address: IpAddr = address.parse().expect("an address");
                let prefix_len = if address.is_ipv4() { 24 } else { 64 };
                netlink.add_address(va, address, prefix_len).await.expect("the address");
                netlink.add_address(va, address, prefix_len).await.expect("the address again");
            }
            netlink.set_up(va).await.expect("up");
            netlink.set_up(va).await.expect("up again");
            let error = netlink.set_mtu(va, 70_000).await.expect_err("above what a veth can have");
            assert_eq!(error.to_string(), "cannot set an MTU of 70000 on va: Invalid argument (EINVAL)");
        });
        let shown = host.ip("link show dev va") + &host.ip("addr show dev va");
        for expected in [",UP", "mtu 9000", "inet 10.8.0.1/24 ", "inet6 fd99::1/64 "] {
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
    fn a_device_that_is_gone() {
        let host = Namespace::new();
        let error = host.block_on(async || Netlink::open().expect("a socket").set_up(77).await).expect_err("none");
        assert_eq!(error.to_string(), "cannot bring up interface 77: no such device (see `ip link`)");
    }
}
