//! Offload features and driver of a device (`ethtool -k`, `ethtool -i`), through SIOCETHTOOL.
//!
//! The device is looked up in the network namespace of the calling thread.

use std::{
    ffi::{CStr, c_char},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::Error;

// linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GRXFH: u32 = 0x29;
const UDP_V4_FLOW: u32 = 0x02;
const UDP_V6_FLOW: u32 = 0x06;
/// The first two and the last two octets behind the IP header: the ports.
const RXH_PORTS: u64 = 1 << 6 | 1 << 7;
/// Octets of `struct ethtool_rxnfc`, and some more.
const RXNFC_LEN: usize = 256;
/// The string set of feature names, in the order of their bits.
const ETH_SS_FEATURES: u32 = 4;
/// Octets of a name, zero padded.
const ETH_GSTRING_LEN: usize = 32;
/// Octets of `struct ethtool_drvinfo`.
const DRVINFO_LEN: usize = 196;

/// Switches features of some devices by their names in `ethtool -k`'s long form, as "tx-udp_tnl-segmentation". Names the
/// kernel does not know are passed over: such a kernel has no such offload. What a driver has fixed stays.
///
/// # Errors
/// When there is no such device or the kernel refuses.
pub(crate) fn switch_features<'a>(
    devices: impl IntoIterator<Item = &'a str>,
    names: &[&str],
    on: bool,
) -> Result<(), Error> {
    let mut command = None;
    for device in devices {
        let doing = format!("switch offloads of {device}");
        let control = Control::new(device).map_err(|errno| Error::new(&doing, errno))?;
        let mut switch = || {
            // Names and their bits are the kernel's: of one device as good as of another.
            let command = match &mut command {
                Some(command) => command,
                none => none.insert(switch_command(&control.features()?, names, on)?),
            };
            control.run(&mut command.clone())
        };
        switch().map_err(|errno| Error::new(&doing, errno))?;
    }
    Ok(())
}

/// Whether features are on, by their names as for [`switch_features`]; those that the kernel does not know are off.
///
/// # Errors
/// When there is no such device or the kernel refuses.
pub(crate) fn active_features<'a>(device: &str, names: &[&'a str]) -> Result<Vec<&'a str>, Error> {
    let doing = format!("ask for the offloads of {device}");
    let read = || {
        let control = Control::new(device)?;
        let all = control.features()?;
        let blocks = all.len().div_ceil(32);
        let number = u32::try_from(blocks).map_err(|_| Errno::EOVERFLOW)?;
        // Four words for each 32 features: available, requested, active, never changed.
        let mut command = command([ETHTOOL_GFEATURES, number], blocks * 16);
        control.run(&mut command)?;
        let is_on = |name: &&&str| {
            let bit = all.iter().position(|known| known == **name);
            bit.and_then(|bit| Some(word(&command, 2 + bit / 32 * 4 + 2)? >> (bit % 32) & 1)) == Some(1)
        };
        Ok(names.iter().filter(is_on).copied().collect())
    };
    read().map_err(|errno| Error::new(doing, errno))
}

/// Whether the device chooses the receive queue of UDP over IPv4 or IPv6 by its ports too. `None` if it does not say.
pub(crate) fn spreads_udp_by_ports(device: &str, v4: bool) -> Option<bool> {
    let flow = if v4 { UDP_V4_FLOW } else { UDP_V6_FLOW };
    let mut command = command([ETHTOOL_GRXFH, flow], RXNFC_LEN - 8);
    Control::new(device).ok()?.run(&mut command).ok()?;
    let fields = u64::from_ne_bytes(*command.get(8..)?.first_chunk()?);
    Some(fields & RXH_PORTS == RXH_PORTS)
}

/// The driver's name, as "veth" or "`virtio_net`".
///
/// # Errors
/// When there is no such device or its driver does not say.
pub(crate) fn driver(device: &str) -> Result<String, Error> {
    let doing = format!("ask for the driver of {device}");
    let control = Control::new(device).map_err(|errno| Error::new(&doing, errno))?;
    let mut command = command([ETHTOOL_GDRVINFO], DRVINFO_LEN - 4);
    control.run(&mut command).map_err(|errno| Error::new(&doing, errno))?;
    Ok(text(command.get(4..36).unwrap_or_default()))
}

/// A device under ethtool's control.
struct Control {
    socket: std::os::fd::OwnedFd,
    name: [c_char; libc::IFNAMSIZ],
}

impl Control {
    fn new(device: &str) -> Result<Self, Errno> {
        // The last octet stays zero.
        if device.len() >= libc::IFNAMSIZ {
            return Err(Errno::ENODEV);
        }
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(device.bytes()) {
            *to = c_char::from_ne_bytes([from]);
        }
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, name })
    }

    /// The name of every feature that the kernel knows, in the order of their bits.
    fn features(&self) -> Result<Vec<String>, Errno> {
        // cmd, reserved, a u64 with a bit for each set wanted, then the size of each.
        let mut sizes = command([ETHTOOL_GSSET_INFO, 0], 0);
        sizes.extend((1_u64 << ETH_SS_FEATURES).to_ne_bytes());
        sizes.extend(0_u32.to_ne_bytes());
        self.run(&mut sizes)?;
        let number = word(&sizes, 4).ok_or(Errno::EOPNOTSUPP)?;
        let names_len = usize::try_from(number).map_err(|_| Errno::EOVERFLOW)? * ETH_GSTRING_LEN;
        let mut names = command([ETHTOOL_GSTRINGS, ETH_SS_FEATURES, number], names_len);
        self.run(&mut names)?;
        Ok(names.get(12..).unwrap_or_default().chunks_exact(ETH_GSTRING_LEN).map(text).collect())
    }

    /// `command` holds one of ethtool's structs, which all start with their command, to its end.
    fn run(&self, command: &mut [u8]) -> Result<(), Errno> {
        let data = libc::__c_anonymous_ifr_ifru { ifru_data: command.as_mut_ptr().cast() };
        let mut request = libc::ifreq { ifr_name: self.name, ifr_ifru: data };
        #[expect(unsafe_code, reason = "there is no safe wrapper of SIOCETHTOOL")]
        // SAFETY: the kernel reads and writes `request` and, through its pointer, `command`. Both
        // live until it returns; it copies octet by octet, and the lengths that the callers put into
        // the command are those of the slice.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        Errno::result(result).map(drop)
    }
}

/// The command that switches some of all features.
fn switch_command(all: &[String], names: &[&str], on: bool) -> Result<Vec<u8>, Errno> {
    // A block of two words, valid and requested, for each 32 features.
    let mut blocks = vec![[0_u32; 2]; all.len().div_ceil(32)];
    for (bit, _) in all.iter().enumerate().filter(|(_, name)| names.contains(&name.as_str())) {
        if let Some([valid, requested]) = blocks.get_mut(bit / 32) {
            *valid |= 1 << (bit % 32);
            *requested |= u32::from(on) << (bit % 32);
        }
    }
    let number = u32::try_from(blocks.len()).map_err(|_| Errno::EOVERFLOW)?;
    let mut command = command([ETHTOOL_SFEATURES, number], 0);
    command.extend(blocks.as_flattened().iter().flat_map(|word| word.to_ne_bytes()));
    Ok(command)
}

/// The first words of a command and room for as many octets of answer.
fn command<const N: usize>(words: [u32; N], room: usize) -> Vec<u8> {
    let mut command: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    command.resize(command.len() + room, 0);
    command
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(at * 4..at * 4 + 4)?.try_into().ok()?))
}

fn text(octets: &[u8]) -> String {
    CStr::from_bytes_until_nul(octets).map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Namespace, *};

    const TUNNELS: [&str; 10] = [
        "tx-udp_tnl-segmentation",
        "tx-udp_tnl-csum-segmentation",
        "tx-gre-segmentation",
        "tx-gre-csum-segmentation",
        "tx-ipxip4-segmentation",
        "tx-ipxip6-segmentation",
        "tx-sctp-segmentation",
        "tx-gso-list",
        "tx-gso-partial",
        "tx-of-a-kernel-to-come",
    ];

    #[test]
    fn off_and_on() {
        let host = Namespace::new();
        host.ip("link add l2m10 type veth peer name l2m11");
        let shown = |name: &str, state: &str| {
            for device in ["l2m10", "l2m11"] {
                let all = host.command("ethtool", &format!("-k {device}"));
                let found = all.lines().any(|line| line.trim().starts_with(&format!("{name}: {state}")));
                assert!(found, "{device} {name}: {all}");
            }
        };
        let switch =
            |names: &[&str], on| host.run(|| switch_features(["l2m10", "l2m11"], names, on)).expect("switched");
        shown("tx-udp_tnl-segmentation", "on");
        for _ in 0..2 {
            switch(&TUNNELS, false);
            TUNNELS[..8].iter().for_each(|name| shown(name, "off"));
            shown("tx-tcp-segmentation", "on");
        }
        switch(&TUNNELS[..1], true);
        shown("tx-udp_tnl-segmentation", "on");
        shown("tx-gre-segmentation", "off");
        switch(&["rx-lro"], true);
        shown("large-receive-offload", "off [fixed]");
        let error = host.run(|| switch_features(["l2m10", "vz"], &TUNNELS, false)).expect_err("none");
        assert_eq!(error.to_string(), "cannot switch offloads of vz: no such device (see `ip link`)");
    }

    #[test]
    fn on_or_off() {
        let host = Namespace::new();
        host.ip("link add l2m10 type veth peer name l2m11");
        let names = ["rx-gro", "rx-lro", "tx-tcp-segmentation", "of-a-kernel-to-come"];
        let active = || host.run(|| active_features("l2m10", &names)).expect("asked");
        host.command("ethtool", "-K l2m10 gro on");
        assert_eq!(active(), ["rx-gro", "tx-tcp-segmentation"]);
        host.command("ethtool", "-K l2m10 gro off");
        assert_eq!(active(), ["tx-tcp-segmentation"]);
        assert_eq!(host.run(|| spreads_udp_by_ports("l2m10", true)), None, "veth does not say");
        assert!(host.run(|| active_features("vz", &names)).is_err());
    }

    #[test]
    fn drivers() {
        let host = Namespace::new();
        host.ip("link add l2m10 type veth peer name l2p10");
        assert_eq!(host.run(|| driver("l2m10")), Ok("veth".into()));
        let error = host.run(|| driver("vz")).expect_err("none");
        assert_eq!(error.to_string(), "cannot ask for the driver of vz: no such device (see `ip link`)");
        assert!(host.run(|| driver("a-name-too-long-for-a-device")).is_err());
    }
}
