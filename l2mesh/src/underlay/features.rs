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
/// The string set of feature names, in the order of their bits.
const ETH_SS_FEATURES: u32 = 4;
/// Octets of a name, zero padded.
const ETH_GSTRING_LEN: usize = 32;
/// Octets of `struct ethtool_drvinfo`.
const DRVINFO_LEN: usize = 196;

/// What became of the features that were to be switched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Switched {
    /// Those that were the other way before.
    pub changed: Vec<String>,
    /// Those that stayed the other way: the driver has them fixed, or another feature needs them.
    pub fixed: Vec<String>,
}

/// Switches features by their names in `ethtool -k`'s long form, as "tx-udp_tnl-segmentation".
/// Names the kernel does not know are passed over: such a kernel has no such offload.
///
/// # Errors
/// When there is no such device or the kernel refuses altogether.
pub(crate) fn switch_features(device: &str, names: &[&str], on: bool) -> Result<Switched, Error> {
    let doing = format!("switch offloads of {device}");
    let control = Control::new(device).map_err(|errno| Error::new(&doing, errno))?;
    control.switch(names, on).map_err(|errno| Error::new(&doing, errno))
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

/// One feature: its name, its bit, whether it is on.
struct Feature {
    name: String,
    bit: usize,
    on: bool,
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

    fn switch(&self, names: &[&str], on: bool) -> Result<Switched, Errno> {
        let mut features = self.features()?;
        let words = features.len().div_ceil(32);
        features.retain(|feature| names.contains(&feature.name.as_str()) && feature.on != on);
        if features.is_empty() {
            return Ok(Switched::default());
        }
        // A block of two words, valid and requested, for each 32 features.
        let mut blocks = vec![[0_u32; 2]; words];
        for feature in &features {
            if let Some([valid, requested]) = blocks.get_mut(feature.bit / 32) {
                *valid |= 1 << (feature.bit % 32);
                *requested |= u32::from(on) << (feature.bit % 32);
            }
        }
        let mut command = command([ETHTOOL_SFEATURES, count(words)?], 0);
        command.extend(blocks.as_flattened().iter().flat_map(|word| word.to_ne_bytes()));
        self.run(&mut command)?;
        // The answer does not say which ones did not follow: the state does.
        let after = self.features()?;
        let follows = |feature: &Feature| after.iter().any(|now| now.bit == feature.bit && now.on == on);
        let (changed, fixed): (Vec<_>, Vec<_>) = features.into_iter().partition(follows);
        let names = |features: Vec<Feature>| features.into_iter().map(|feature| feature.name).collect();
        Ok(Switched { changed: names(changed), fixed: names(fixed) })
    }

    /// Every feature that the kernel knows, in the order of their bits.
    fn features(&self) -> Result<Vec<Feature>, Errno> {
        // cmd, reserved, a u64 with a bit for each set wanted, then the size of each.
        let mut sizes = command([ETHTOOL_GSSET_INFO, 0], 0);
        sizes.extend((1_u64 << ETH_SS_FEATURES).to_ne_bytes());
        sizes.extend(0_u32.to_ne_bytes());
        self.run(&mut sizes)?;
        let number = word(&sizes, 4).ok_or(Errno::EOPNOTSUPP)?;
        let names_len = usize::try_from(number).map_err(|_| Errno::EOVERFLOW)? * ETH_GSTRING_LEN;
        let mut names = command([ETHTOOL_GSTRINGS, ETH_SS_FEATURES, number], names_len);
        self.run(&mut names)?;
        // A block of four words, available, requested, active and never changed, for 32 features.
        let words = number.div_ceil(32);
        let blocks_len = usize::try_from(words).map_err(|_| Errno::EOVERFLOW)? * 16;
        let mut states = command([ETHTOOL_GFEATURES, words], blocks_len);
        self.run(&mut states)?;
        let active = |bit: usize| word(&states, 2 + bit / 32 * 4 + 2).unwrap_or_default() >> (bit % 32) & 1 == 1;
        let names = names.get(12..).unwrap_or_default().chunks_exact(ETH_GSTRING_LEN).map(text);
        Ok(names.enumerate().map(|(bit, name)| Feature { name, bit, on: active(bit) }).collect())
    }

    /// `command` holds one of ethtool's structs, which all start with their command, to its end.
    fn run(&self, command: &mut [u8]) -> Result<(), Errno> {
        let data = libc::__c_anonymous_ifr_ifru { ifru_data: command.as_mut_ptr().cast() };
        let mut request = libc::ifreq { ifr_name: self.name, ifr_ifru: data };
        #[expect(unsafe_code, reason = "there is no safe wrapper of SIOCETHTOOL")]
        // SAFETY: the kernel reads and writes `request` and, through its pointer, `command`. Both
        // live until it returns; it copies octet by octet, and the lengths that the callers put into
        // the command are those of the slice.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        Errno::result(result).map(drop)
    }
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

fn count(number: usize) -> Result<u32, Errno> {
    u32::try_from(number).map_err(|_| Errno::EOVERFLOW)
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
        host.ip("link add l2m10 type veth peer name l2p10");
        let shown = |name: &str, state: &str| {
            let all = host.command("ethtool", "-k l2m10");
            assert!(all.lines().any(|line| line.trim().starts_with(&format!("{name}: {state}"))), "{name}: {all}");
        };
        shown("tx-udp_tnl-segmentation", "on");
        let off = host.run(|| switch_features("l2m10", &TUNNELS, false)).expect("switched");
        for name in &TUNNELS[..6] {
            assert!(off.changed.iter().any(|changed| changed == name), "{name}: {off:?}");
            shown(name, "off");
        }
        assert_eq!(off.fixed, Vec::<String>::new());
        shown("tx-sctp-segmentation", "off");
        shown("tx-tcp-segmentation", "on");
        let again = host.run(|| switch_features("l2m10", &TUNNELS, false)).expect("switched");
        assert_eq!(again, Switched::default());
        let on = host.run(|| switch_features("l2m10", &TUNNELS[..1], true)).expect("switched");
        assert_eq!(on.changed, ["tx-udp_tnl-segmentation"]);
        shown("tx-udp_tnl-segmentation", "on");
        shown("large-receive-offload", "off [fixed]");
        let fixed = host.run(|| switch_features("l2m10", &["rx-lro"], true)).expect("asked");
        assert_eq!(fixed, Switched { changed: Vec::new(), fixed: vec!["rx-lro".into()] });
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
