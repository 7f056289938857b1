//! Which addresses uplinks get.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, Wiring};

/// Addresses of one uplink.
pub(super) struct Plan {
    pub(super) address: Ipv4Addr,
    pub(super) address6: Option<Ipv6Addr>,
    pub(super) family: Family,
    pub(super) prefix: u8,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) gateway6: Option<Ipv6Addr>,
}

impl Plan {
    /// One of many in 192.0.2.0/24 (RFC 5737) and `2001:db8::/64` (RFC 3849).
    pub(super) fn shared(index: u8, wiring: &Wiring) -> Self {
        let host = index.checked_add(10).filter(|host| *host < 255).expect("at most 244 uplinks on a switch");
        let address6 = wiring.has_ipv6().then(|| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)));
        let (address, family) = (Ipv4Addr::new(192, 0, 2, host), wiring.family);
        Self { address, address6, family, prefix: 24, gateway: None, gateway6: None }
    }

    /// The only one in a /28, the three documentation networks by turns, and in `2001:db8:n::/64`.
    pub(super) fn own(index: u8, wiring: &Wiring) -> Self {
        const NETWORKS: [[u8; 3]; 3] = [[203, 0, 113], [198, 51, 100], [192, 0, 2]];
        assert!(index < 48, "at most 48 uplinks behind a router");
        let [a, b, c] = NETWORKS[usize::from(index % 3)];
        let block = index / 3 * 16;
        let v6 = |host| wiring.has_ipv6().then(|| Ipv6Addr::new(0x2001, 0xdb8, u16::from(index) + 1, 0, 0, 0, 0, host));
        Self {
            address: Ipv4Addr::new(a, b, c, block + 10),
            address6: v6(10),
            family: wiring.family,
            prefix: 28,
            gateway: Some(Ipv4Addr::new(a, b, c, block + 1)),
            gateway6: v6(1),
        }
    }

    pub(super) fn link_local(&self) -> Ipv6Addr {
        let [.., host] = self.address.octets();
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(host))
    }

    pub(super) fn gateways(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v4 = self.gateway.map(|address| (address.into(), self.prefix));
        v4.into_iter().chain(self.gateway6.map(|address| (address.into(), 64)))
    }
}
