//! What stands on the wire. Every header is a fixed-size value: one bounds check in the kernel
//! program, then safe code that host tests call unchanged.

pub mod arp;
mod be16;
pub mod dhcp;
pub mod ethernet;
mod fingerprint;
pub mod icmp;
pub mod ip;
pub mod nd;
pub mod outer;
pub mod probe;
mod reachability;
pub mod udp;
pub mod vlan;
pub mod vxlan;

pub use arp::{Arp, ArpFrame, ArpOperation};
pub use be16::Be16;
pub use dhcp::{DhcpCookie, DhcpHeader};
pub use ethernet::{EtherType, EthernetHeader, InvalidMac, MacAddr};
pub use fingerprint::{Difference, Digest, Fingerprint};
pub use icmp::IcmpHeader;
pub use ip::{Ipv4Header, Ipv4Octets, Ipv6Header, Ipv6Octets, Protocol};
pub use nd::{LinkLayerOption, NdFrame, NdHeader, NdKind, NdMessage};
pub use outer::{EncapsulatedV4, EncapsulatedV6, Endpoint, HeadersV4, HeadersV6, OuterV4, OuterV6, PerFrame, Template};
pub use probe::{Probe, ProbeKind, ProbePath};
pub use reachability::{Reachability, Reached};
pub use udp::UdpHeader;
pub use vlan::{Tag, Tags};
pub use vxlan::{InvalidVni, Mark, Vni, VxlanHeader};
