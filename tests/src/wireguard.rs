//! `WireGuard` between hosts, by wireguard-go: an underlay without Ethernet header that hides what it carries.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::host::Host;
use crate::process::Process;
use crate::traffic::ping;
use crate::wait::wait_for;

/// The interface's name on every host.
pub const INTERFACE: &str = "wg0";
/// Octets of an IP packet, as wireguard-go chooses them.
pub const MTU: u32 = 1420;
/// UDP port of what is seen outside.
pub const PORT: u16 = 51820;

/// How long the interface may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a handshake may take.
const SHAKE_LIMIT: Duration = Duration::from_secs(20);

/// `wg0` on one host. Dropping it ends it, and the interface goes.
#[derive(Debug)]
pub struct WireGuard {
    host: Host,
    process: Process,
    /// Where it is reached, outside.
    endpoint: Ipv4Addr,
    public_key: String,
}

impl WireGuard {
    /// `wg0` on each of these hosts, which all know each other. From now on it is their first uplink.
    #[must_use = "dropping them ends them"]
    #[track_caller]
    pub fn between(hosts: &[Host]) -> Vec<Self> {
        let all: Vec<Self> = hosts.iter().map(Self::start).collect();
        for (place, own) in all.iter().enumerate() {
            own.host.tunnelled(INTERFACE, (Self::v4(place), 24), Self::v6(place));
            for (other_place, other) in all.iter().enumerate().filter(|(other_place, _)| *other_place != place) {
                own.allow(other, &format!("{}/32,{}/128", Self::v4(other_place), Self::v6(other_place)));
            }
        }
        for (place, own) in all.iter().enumerate() {
            (0..place).for_each(|other| own.shake_hands(other));
        }
        all
    }

    /// The address of the host at this place, counted from 0.
    #[must_use]
    #[track_caller]
    pub fn v4(place: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(place + 1).expect("few hosts"))
    }

    /// Its IPv6 address.
    #[must_use]
    #[track_caller]
    pub fn v6(place: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::try_from(place + 1).expect("few hosts"))
    }

    /// All that is behind another host: its own addresses, and networks beyond. Separated by commas.
    #[track_caller]
    pub fn allow(&self, other: &Self, networks: &str) {
        let Self { endpoint, public_key, .. } = other;
        self.wg(&[
            "set",
            INTERFACE,
            "peer",
            public_key,
            "endpoint",
            &format!("{endpoint}:{PORT}"),
            "allowed-ips",
            networks,
        ]);
    }

    /// Like `wg-quick down` and `up`: the interface goes, and one with the same name, keys and addresses comes.
    #[must_use = "dropping it ends it"]
    #[track_caller]
    pub fn restart(self, place: usize, others: &[(usize, &Self)]) -> Self {
        let (host, endpoint) = (self.host.clone(), self.endpoint);
        self.process.stop();
        let new = Self::start_at(&host, endpoint);
        host.add_address(INTERFACE, &format!("{}/24", Self::v4(place)));
        host.add_address(INTERFACE, &format!("{}/64", Self::v6(place)));
        for (other_place, other) in others {
            new.allow(other, &format!("{}/32,{}/128", Self::v4(*other_place), Self::v6(*other_place)));
            other.allow(&new, &format!("{}/32,{}/128", Self::v4(place), Self::v6(place)));
            new.shake_hands(*other_place);
        }
        new
    }

    /// Where both begin at the same time, it may take 5 s until a packet passes.
    #[track_caller]
    fn shake_hands(&self, other: usize) {
        wait_for(&format!("{} reaches {}", self.host.name(), Self::v4(other)), SHAKE_LIMIT, || {
            let report = ping(&self.host, Self::v4(other), 1);
            if report.lost() == 0 { Ok(()) } else { Err(format!("{report:?}{}", self.process.last_words())) }
        });
    }

    #[track_caller]
    fn start(host: &Host) -> Self {
        Self::start_at(host, host.address())
    }

    #[track_caller]
    fn start_at(host: &Host, endpoint: Ipv4Addr) -> Self {
        // Its control socket is /run/wireguard/wg0.sock, whatever the network namespace: each has a /run of its own.
        let script = format!("mount -t tmpfs tmpfs /run && LOG_LEVEL=verbose exec wireguard-go -f {INTERFACE}");
        let mut process = host.spawn("unshare", &["--mount", "sh", "-c", &script]);
        process.wait_log_line("UAPI listener started", LIMIT);
        let key = host.site().file(&format!("{}-wg", host.name()), "key");
        let shell = |script: String| host.exec("sh", &["-c", &script]).stdout.trim().to_owned();
        let public_key = shell(format!("umask 077 && wg genkey > {0} && wg pubkey < {0}", key.display()));
        let new = Self { host: host.clone(), process, endpoint, public_key };
        new.wg(&["set", INTERFACE, "private-key", &key.display().to_string(), "listen-port", &PORT.to_string()]);
        host.run(&format!("ip link set dev {INTERFACE} addrgenmode none up"));
        new
    }

    #[track_caller]
    fn wg(&self, args: &[&str]) {
        let mounts = format!("--mount=/proc/{}/ns/mnt", self.process.pid());
        self.host.exec("nsenter", &[&[mounts.as_str(), "wg"], args].concat());
    }
}
