//! Values written as text: durations, addresses, names of nodes and devices.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    time::Duration,
};

/// Greatest length of a device name in octets: `IFNAMSIZ` less the final zero.
const INTERFACE_NAME_MAX: usize = 15;
/// Greatest length of a host name in octets (RFC 1035 section 2.3.4, as text).
const HOST_NAME_MAX: usize = 253;
/// Greatest length of a label of a host name in octets (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;
/// Greatest length of the name of a node or network in octets, so that tables stay readable.
const NAME_MAX: usize = 64;

/// Units of a duration in ms, greatest first; the first name is the one shown.
const UNITS: [(&[&str], u64); 5] =
    [(&["d"], 86_400_000), (&["h"], 3_600_000), (&["min", "m"], 60_000), (&["s"], 1000), (&["ms"], 1)];

/// An interface address with the length of its network prefix: `10.8.0.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Length of the network part in bits, 0 to 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Not an address that a host can have on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InvalidCidr {
    /// Not an address, a slash and a number.
    Syntax,
    /// More bits than the address has.
    Prefix,
    /// No host can have this address, or every host has it for itself.
    NotUnicast,
    /// IPv4 in IPv6 form, which the kernel refuses.
    Mapped,
}

impl fmt::Display for InvalidCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not an address with its prefix length: write it as in 10.8.0.1/24",
            Self::Prefix => "the prefix length is at most 32 for IPv4 and 128 for IPv6",
            Self::NotUnicast => "no other host can reach this address: write a unicast address",
            Self::Mapped => "it is an IPv4 address in IPv6 form: write it as in 10.8.0.1/24",
        })
    }
}

impl std::error::Error for InvalidCidr {}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (address, prefix) = text.split_once('/').ok_or(InvalidCidr::Syntax)?;
        let address: IpAddr = address.parse().map_err(|_| InvalidCidr::Syntax)?;
        if prefix.is_empty() || !prefix.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(InvalidCidr::Syntax);
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|&prefix| prefix <= bits).ok_or(InvalidCidr::Prefix)?;
        let is_nobodys = address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST;
        if is_nobodys || address.is_loopback() {
            return Err(InvalidCidr::NotUnicast);
        }
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err(InvalidCidr::Mapped);
        }
        Ok(Self { address, prefix })
    }
}

/// A whole number and a unit, with or without a space between.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&unit.trim_ascii()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor).map(Duration::from_millis)
}

/// A duration of whole ms in the greatest unit that divides it: `100ms`, `5s`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let unit = UNITS.iter().find(|(_, factor)| ms.is_multiple_of(u128::from(*factor)));
    unit.map_or_else(|| format!("{ms}ms"), |(names, factor)| format!("{}{}", ms / u128::from(*factor), names[0]))
}

/// Why no other host can reach a node at `address`, and what to write instead.
///
/// A host name that resolves to 127.0.1.1 (Debian's own name in /etc/hosts) is the usual way to get here.
pub(super) fn unreachable_reason(address: IpAddr) -> Option<String> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Some(format!("it is an IPv4 address in IPv6 form: write {v4}"));
    }
    let kind = if address.is_unspecified() {
        "the unspecified"
    } else if address.is_loopback() {
        "a loopback"
    } else if address.is_multicast() {
        "a multicast"
    } else if address == Ipv4Addr::BROADCAST {
        "the broadcast"
    } else if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        return Some(
            "it is a link-local address, which another host may have too: write a global or unique local one".into(),
        );
    } else {
        return None;
    };
    Some(format!("it is {kind} address: write the one where the others reach the node"))
}

/// True for a host name (RFC 1123 section 2.1, and underscores, which resolvers take).
///
/// A last label of digits alone is no host name but an IPv4 address gone wrong.
pub(crate) fn is_host_name(text: &str) -> bool {
    let labels = || text.strip_suffix('.').unwrap_or(text).split('.');
    let is_label = |label: &str| {
        let characters = label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
        !label.is_empty() && label.len() <= LABEL_MAX && characters && !label.starts_with('-') && !label.ends_with('-')
    };
    let last_is_number = labels().next_back().is_some_and(|label| label.bytes().all(|octet| octet.is_ascii_digit()));
    text.len() <= HOST_NAME_MAX && labels().all(is_label) && !last_is_number
}

/// Why `name` cannot name a node or a network.
pub(crate) fn name_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > NAME_MAX {
        Some("it has more than 64 octets")
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("it has white space in it")
    } else {
        None
    }
}

/// Why the kernel would not take `name` for a device (`dev_valid_name`), or would take it for a pattern.
pub(crate) fn interface_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > INTERFACE_NAME_MAX {
        Some("it has more than 15 octets")
    } else if matches!(name, "." | "..") {
        Some("it is the name of a directory")
    } else if matches!(name, "all" | "default") {
        // Beside these stand the interfaces in /proc/sys/net/ipv4/conf (`sysctl_dev_name_is_allowed`).
        Some("sysctl needs that name for all interfaces")
    } else if name.contains(['/', ':', '%']) {
        Some("it has one of / : % in it")
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("it has white space in it")
    } else {
        None
    }
}

/// The hash of FNV-1a with 32 bits (RFC 9923): the node id that a name stands for.
pub(super) fn fnv_1a_32(text: &str) -> u32 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    text.bytes().fold(OFFSET_BASIS, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(PRIME))
}
