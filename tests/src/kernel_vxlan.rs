//! The independent judge: the kernel's own vxlan device as a member of the mesh.

use std::net::IpAddr;

use crate::host::Host;

/// How the device is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VxlanOptions {
    /// Its name.
    pub name: String,
    /// The VNI, 1 to 16777215.
    pub vni: u32,
    /// UDP port; design.md 7 has 4789, the kernel's own default would be 8472.
    pub port: u16,
    /// Learns from received frames; else it has only what [`KernelVxlan::add_mac`] says.
    pub learning: bool,
    /// Sends UDP checksums, in both families.
    pub udp_checksum: bool,
    /// Octets of an inner IP packet; the kernel's choice if `None`.
    pub mtu: Option<u32>,
    /// The outer TOS octet: a number, or `inherit`.
    pub tos: &'static str,
}

impl Default for VxlanOptions {
    fn default() -> Self {
        let name = "vx0".to_owned();
        Self { name, vni: 16, port: 4789, learning: true, udp_checksum: false, mtu: None, tos: "0" }
    }
}

/// A vxlan device on a host. It goes with the host.
#[derive(Clone, Debug)]
pub struct KernelVxlan {
    host: Host,
    name: String,
}

impl Host {
    /// Makes a vxlan device that sends from `local`, and floods to `peers`; it is up.
    #[track_caller]
    pub fn kernel_vxlan(&self, local: impl Into<IpAddr>, peers: &[IpAddr], options: &VxlanOptions) -> KernelVxlan {
        let VxlanOptions { name, vni, port, learning, udp_checksum, mtu, tos } = options;
        let local = local.into();
        let learning = if *learning { "learning" } else { "nolearning" };
        let checksum = match (local, udp_checksum) {
            (IpAddr::V4(_), true) => "udpcsum",
            (IpAddr::V4(_), false) => "noudpcsum",
            (IpAddr::V6(_), true) => "noudp6zerocsumtx noudp6zerocsumrx",
            (IpAddr::V6(_), false) => "udp6zerocsumtx udp6zerocsumrx",
        };
        let mtu = mtu.map_or_else(String::new, |mtu| format!("mtu {mtu}"));
        self.run(&format!(
            "ip link add name {name} {mtu} type vxlan id {vni} local {local} dstport {port} tos {tos} {learning} {checksum}"
        ));
        let device = KernelVxlan { host: self.clone(), name: name.clone() };
        for peer in peers {
            device.add_peer(*peer);
        }
        self.run(&format!("ip link set dev {name} up"));
        self.wait_carrier(name);
        device
    }
}

impl KernelVxlan {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Broadcast, multicast and unknown destinations go to this peer too.
    #[track_caller]
    pub fn add_peer(&self, peer: impl Into<IpAddr>) {
        self.fdb("append", "00:00:00:00:00:00", peer.into());
    }

    /// No longer floods to this peer.
    #[track_caller]
    pub fn remove_peer(&self, peer: impl Into<IpAddr>) {
        self.fdb("delete", "00:00:00:00:00:00", peer.into());
    }

    /// A static entry: this MAC address is at that peer.
    #[track_caller]
    pub fn add_mac(&self, mac: crate::MacAddr, peer: impl Into<IpAddr>) {
        self.fdb("replace", &mac.to_string(), peer.into());
    }

    /// Where it thinks a MAC address is; `None` if it floods.
    #[must_use]
    #[track_caller]
    pub fn lookup(&self, mac: crate::MacAddr) -> Option<IpAddr> {
        let text = self.host.exec("bridge", &["-j", "fdb", "show", "dev", &self.name]).stdout;
        let entries: serde_json::Value = serde_json::from_str(&text).expect("JSON of bridge fdb");
        let mac = mac.to_string();
        let entry = entries.as_array()?.iter().find(|entry| entry["mac"] == mac.as_str())?;
        entry["dst"].as_str()?.parse().ok()
    }

    fn fdb(&self, verb: &str, mac: &str, peer: IpAddr) {
        self.host.run(&format!("bridge fdb {verb} {mac} dst {peer} dev {}", self.name));
    }
}
