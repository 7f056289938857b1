//! A real DHCP server and client (dnsmasq, ISC dhclient).

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::host::Host;
use crate::process::Process;

/// How long a lease may take: dhclient waits up to 4 s before it asks again.
const LEASE_LIMIT: Duration = Duration::from_secs(30);

/// A DHCP server on one interface of a host. Dropping it ends it.
#[derive(Debug)]
pub struct DhcpServer {
    process: Process,
}

/// A lease, renewed until it is dropped.
#[derive(Debug)]
pub struct Lease {
    /// The address the interface got.
    pub address: Ipv4Addr,
    /// The server that gave it.
    pub server: Ipv4Addr,
    process: Process,
}

/// The client's own script would write the machine's /etc/resolv.conf.
const SCRIPT: &str = r#"#!/bin/sh
case "$reason" in
PREINIT) ip link set "$interface" up ;;
BOUND | RENEW | REBIND | REBOOT) ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
EXPIRE | RELEASE | STOP) ip address delete "$old_ip_address/$old_subnet_mask" dev "$interface" ;;
esac
"#;

impl DhcpServer {
    /// Serves addresses of a /24, from `first` to `last`. The interface has one of the same network.
    #[must_use]
    #[track_caller]
    pub fn start(host: &Host, interface: &str, first: Ipv4Addr, last: Ipv4Addr) -> Self {
        let leases = host.site().file(&format!("{}-dhcp", host.name()), "leases");
        let args = [
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--user=root".to_owned(),
            "--log-facility=-".to_owned(),
            "--port=0".to_owned(),
            "--no-ping".to_owned(),
            "--dhcp-authoritative".to_owned(),
            "--bind-interfaces".to_owned(),
            "--except-interface=lo".to_owned(),
            format!("--interface={interface}"),
            format!("--dhcp-range={first},{last},255.255.255.0,1h"),
            format!("--dhcp-leasefile={}", leases.display()),
        ];
        let mut process = host.spawn("dnsmasq", &args);
        process.wait_log_line("DHCP, IP range", Duration::from_secs(5));
        Self { process }
    }

    /// What it has logged: DHCPDISCOVER, DHCPOFFER and so on.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr() + &self.process.stdout()
    }
}

impl Lease {
    /// Asks for a lease on an interface and sets the address. Panics after 30 s.
    #[must_use]
    #[track_caller]
    pub fn acquire(host: &Host, interface: &str) -> Self {
        let site = host.site();
        let file = |extension| site.file(&format!("{}-dhclient", host.name()), extension);
        let script = file("sh");
        fs::write(&script, SCRIPT).expect("a script in the lab's directory");
        fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("the mode of our own file");
        let [script, leases, pid] = [script, file("leases"), file("pid")].map(|path| path.display().to_string());
        let args = ["-4", "-d", "-v", "-cf", "/dev/null", "-sf", &script, "-lf", &leases, "-pf", &pid, interface];
        let mut process = host.spawn("dhclient", &args);
        process.wait_log_line("bound to ", LEASE_LIMIT);
        // `DHCPACK of 10.8.0.100 from 10.8.0.1` stands a line before.
        let line = process.wait_log_line("DHCPACK of ", LEASE_LIMIT);
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = |index: usize| words.get(index).and_then(|word| word.parse().ok());
        let (Some(address), Some(server)) = (address(2), address(4)) else { panic!("dhclient: {line}") };
        Self { address, server, process }
    }

    /// What the client has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }
}
