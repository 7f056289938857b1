//! Addresses that we give to devices, which may be other people's.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage, AddressProtocol},
    },
};

use super::{Error, Netlink, change::family};

/// `IFA_PROTO` of what we add (Linux 5.18), "l": the kernel keeps it and does nothing with it. Known by it, an address of ours
/// is told from the same one that somebody else added.
const OURS: u8 = 0x6c;

/// An address on a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Owned {
    /// Index of the device.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

impl Netlink {
    /// The addresses that we added, on any device.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(crate) async fn our_addresses(&self) -> Result<Vec<Owned>, Error> {
        Ok(self.all_addresses().await?.iter().filter(|message| is_ours(message)).filter_map(owned).collect())
    }

    /// Adds addresses, marked as ours; a device that has one already keeps it as it is.
    ///
    /// # Errors
    /// When the kernel refuses one: the others are there all the same.
    pub(crate) async fn add_addresses(&self, addresses: &[Owned]) -> Result<(), Error> {
        let requests = addresses.iter().map(|address| {
            let mut message = address.message();
            message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OURS)));
            (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
        });
        let outcomes = self.changes("add addresses", requests).await?;
        self.refused("add", "to", addresses, &outcomes, &[Errno::EEXIST]).await
    }

    /// Removes addresses; those that are gone are success. What the kernel removes with them, IPv4 addresses of the same
    /// network that came later, comes back.
    ///
    /// # Errors
    /// When the kernel refuses one: the others are gone all the same.
    pub(crate) async fn remove_addresses(&self, addresses: &[Owned]) -> Result<(), Error> {
        if addresses.is_empty() {
            return Ok(());
        }
        let before = self.all_addresses().await?;
        let requests = addresses.iter().map(|address| (RouteNetlinkMessage::DelAddress(address.message()), 0));
        let outcomes = self.changes("remove addresses", requests).await?;
        let after: Vec<Owned> = self.all_addresses().await?.iter().filter_map(owned).collect();
        let lost = before.into_iter().filter(|message| {
            owned(message).is_some_and(|it| {
                it.address.is_ipv4()
                    && addresses.iter().any(|removed| removed.index == it.index)
                    && !addresses.contains(&it)
                    && !after.contains(&it)
            })
        });
        self.changes("add addresses", lost.map(|message| (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE)))
            .await?;
        self.refused("remove", "from", addresses, &outcomes, &[Errno::EADDRNOTAVAIL, Errno::ENODEV]).await
    }

    async fn all_addresses(&self) -> Result<Vec<AddressMessage>, Error> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump("list the addresses", question).await?;
        let addresses = messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => Some(message),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// The first refusal but for those that are none.
    async fn refused(
        &self,
        doing: &str,
        whither: &str,
        addresses: &[Owned],
        outcomes: &[Result<(), Errno>],
        fine: &[Errno],
    ) -> Result<(), Error> {
        for (Owned { index, address, prefix }, outcome) in addresses.iter().zip(outcomes) {
            if let Err(errno) = outcome
                && !fine.contains(errno)
            {
                let device = self.called(*index).await;
                return Err(Error::new(format!("{doing} {address}/{prefix} {whither} {device}"), *errno));
            }
        }
        Ok(())
    }
}

impl Owned {
    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(self.address);
        message.header.prefix_len = self.prefix;
        message.header.index = self.index;
        message.attributes.push(AddressAttribute::Local(self.address));
        message.attributes.push(AddressAttribute::Address(self.address));
        message
    }
}

fn is_ours(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(OURS)))
}

fn owned(message: &AddressMessage) -> Option<Owned> {
    let (mut local, mut prefix) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => prefix = Some(*address),
            _ => {}
        }
    }
    Some(Owned { index: message.header.index, address: local.or(prefix)?, prefix: message.header.prefix_len })
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Namespace, index},
        *,
    };

    fn addresses(host: &Namespace) -> Vec<String> {
        let shown = host.ip("-o addr show dev va scope global");
        shown.lines().filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)).collect()
    }

    #[test]
    fn ours_come_and_go_and_those_of_others_stay() {
        let host = Namespace::new();
        host.ip("link add va type veth peer name vb");
        let va = index(&host, "va");
        let at = |text: &str, prefix| Owned { index: va, address: text.parse().expect("an address"), prefix };
        let wanted = [at("10.8.0.1", 24), at("10.9.0.1", 24), at("fd99::1", 64)];
        host.ip("addr add 10.9.0.1/24 dev va");
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            for _ in 0..2 {
                netlink.add_addresses(&wanted).await.expect("added");
                let mut ours = netlink.our_addresses().await.expect("asked");
                ours.sort_unstable();
                assert_eq!(ours, [wanted[0], wanted[2]], "one of them was there before");
            }
        });
        // It would go with the first of its network.
        host.ip("addr add 10.8.0.2/24 dev va");
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            for _ in 0..2 {
                netlink.remove_addresses(&[wanted[0], wanted[2]]).await.expect("removed");
                assert_eq!(netlink.our_addresses().await, Ok(Vec::new()));
            }
        });
        assert_eq!(addresses(&host), ["10.9.0.1/24", "10.8.0.2/24"]);
    }

    #[test]
    fn a_device_that_is_gone() {
        let host = Namespace::new();
        let gone = [Owned { index: 77, address: [10, 8, 0, 1].into(), prefix: 24 }];
        host.block_on(async || {
            let netlink = Netlink::open().expect("a socket");
            netlink.remove_addresses(&gone).await.expect("gone with its device");
            let error = netlink.add_addresses(&gone).await.expect_err("no device");
            assert_eq!(error.to_string(), "cannot add 10.8.0.1/24 to interface 77: no such device (see `ip link`)");
        });
    }
}
