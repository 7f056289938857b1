//! Where a host's own end of the overlay is.

use crate::host::Host;
use crate::lab::Lab;
use crate::segment::Segment;

/// What `l2mesh maps networks` says of transmission when l2m0 has left.
pub const ELSEWHERE: &str = "hidden peer: the interface is in another namespace";

/// Where the hosts' own end of the overlay is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// l2m0 itself.
    Direct,
    /// A veth behind a bridge of which l2m0 is a port.
    Bridged,
    /// l2m0 in another namespace.
    Moved,
}

impl Place {
    /// Brings the host's end where it belongs, from l2m0 of this MTU; returns the host that has the inner addresses, on
    /// [`Self::interface`].
    #[must_use]
    #[track_caller]
    pub fn settle(self, lab: &Lab, host: &Host, index: usize, mtu: u32) -> Host {
        match self {
            Self::Direct => host.clone(),
            Self::Bridged => {
                let guest = lab.host(&format!("guest{index}"));
                host.run("ip address flush dev l2m0");
                host.run("ip link add name br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
                host.run(&format!("ip link set dev br0 mtu {mtu} up"));
                host.run("ip link set dev l2m0 master br0");
                host.connect("guest", &guest, "eth0");
                host.run(&format!("ip link set dev guest mtu {mtu} master br0"));
                guest.run(&format!("ip link set dev eth0 mtu {mtu}"));
                Segment::address(&guest, "eth0", index);
                guest
            }
            Self::Moved => {
                let guest = lab.host(&format!("guest{index}"));
                host.move_interface("l2m0", &guest);
                guest.run("ip link set dev l2m0 up");
                Segment::address(&guest, "l2m0", index);
                host.wait_transmit(ELSEWHERE);
                guest
            }
        }
    }

    /// The interface of the host that has the inner addresses.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Bridged => "eth0",
            Self::Direct | Self::Moved => "l2m0",
        }
    }
}
