//! What happens to the underlay: cut paths, pulled cables, narrow links.

use super::{Uplink, VOID};
use crate::host::Host;
use crate::lab::Lab;

impl Lab {
    /// Nothing from either host's uplinks reaches the other any more; both links stay up, and
    /// everyone else is reached.
    #[track_caller]
    pub fn cut(&self, a: &Host, b: &Host) {
        self.each_direction(a, b, |fabric, port, preference, to| {
            let qdiscs = fabric.exec("tc", &["qdisc", "show", "dev", port]).stdout;
            if !qdiscs.contains("clsact") {
                fabric.run(&format!("tc qdisc add dev {port} clsact"));
            }
            let filter = format!("tc filter add dev {port} ingress pref {preference}");
            let act = format!("action mirred egress redirect dev {VOID}");
            fabric.run(&format!("{filter} protocol ip u32 match ip dst {} {act}", to.address));
            if let Some(address) = to.address6 {
                let filter = format!("tc filter add dev {port} ingress pref {}", preference + 1);
                fabric.run(&format!("{filter} protocol ipv6 u32 match ip6 dst {address} {act}"));
            }
        });
    }

    /// Undoes [`Self::cut`].
    #[track_caller]
    pub fn heal(&self, a: &Host, b: &Host) {
        self.each_direction(a, b, |fabric, port, preference, to| {
            fabric.run(&format!("tc filter del dev {port} ingress pref {preference}"));
            if to.address6.is_some() {
                fabric.run(&format!("tc filter del dev {port} ingress pref {}", preference + 1));
            }
        });
    }

    /// The host's cable is pulled at the far end: its first uplink loses its carrier.
    #[track_caller]
    pub fn unplug(&self, host: &Host) {
        self.fabric().run(&format!("ip link set dev {} down", host.uplink(0).port));
    }

    /// Undoes [`Self::unplug`].
    #[track_caller]
    pub fn plug(&self, host: &Host) {
        let uplink = host.uplink(0);
        self.fabric().run(&format!("ip link set dev {} up", uplink.port));
        host.wait_carrier(&uplink.interface);
    }

    /// From now on the router sends no packet longer than `mtu` octets to the host's first uplink, and says so to whoever
    /// sent it (ICMP). The links' own MTU stays: nobody else knows.
    #[track_caller]
    pub fn narrow(&self, host: &Host, mtu: u32) {
        let (fabric, uplink) = (self.fabric(), host.uplink(0));
        let port = &uplink.port;
        // Routers look at the MTU of a route only where it is locked (ip_dst_mtu_maybe_forward in include/net/ip.h).
        fabric.run(&format!("ip route replace {}/32 dev {port} mtu lock {mtu}", uplink.address));
        if let Some(address) = uplink.address6 {
            fabric.run(&format!("ip route replace {address}/128 dev {port} mtu lock {mtu}"));
        }
    }

    fn each_direction(&self, a: &Host, b: &Host, change: impl Fn(&Host, &str, u32, &Uplink)) {
        let fabric = self.fabric();
        for (from, to) in [(a, b), (b, a)] {
            for uplink in from.uplinks().iter().filter(|uplink| !uplink.port.is_empty()) {
                for target in to.uplinks() {
                    // The last two octets are unique in a lab; two preferences each, one per family.
                    let [_, _, network, last] = target.address.octets();
                    change(&fabric, &uplink.port, u32::from(u16::from_be_bytes([network, last])) * 2, &target);
                }
            }
        }
    }
}
