//! A wire for IP packets without Ethernet header: two tun devices that this process joins, and so sees and changes all that
//! passes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::frames::checksum;
use crate::host::Host;
use crate::site::lock;

/// The device's name on both hosts.
pub const INTERFACE: &str = "tun0";

/// The longest packet.
const LONGEST: usize = 65_535;

/// Two hosts with a tun device each. Dropping it removes both devices.
#[derive(Debug)]
pub struct Tunnel {
    hosts: [Host; 2],
    ends: [Arc<File>; 2],
    wire: Arc<Wire>,
}

/// What happens to packets on their way.
#[derive(Debug, Default)]
struct Wire {
    seen: Mutex<Vec<Passed>>,
    /// Longer packets do not get through; 0 is no limit.
    mtu: AtomicUsize,
    congested: AtomicBool,
}

/// A packet that one end sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    /// 0 or 1: the end that sent it.
    pub from: usize,
    /// From the IP header on, as it was sent.
    pub octets: Vec<u8>,
}

impl Tunnel {
    /// Makes both ends; from now on they are the hosts' first uplinks.
    #[must_use]
    #[track_caller]
    pub fn between(hosts: [&Host; 2], mtu: u32) -> Self {
        let ends = hosts.map(|host| Arc::new(open(host)));
        for (place, host) in hosts.into_iter().enumerate() {
            host.run(&format!("ip link set dev {INTERFACE} mtu {mtu} addrgenmode none up"));
            host.tunnelled(INTERFACE, (Self::v4(place), 24), Self::v6(place));
        }
        let wire = Arc::new(Wire::default());
        for from in [0, 1] {
            let (wire, [own, other]) = (Arc::clone(&wire), [from, 1 - from].map(|end| Arc::clone(&ends[end])));
            // It ends when the device is gone.
            thread::spawn(move || wire.carry(from, &own, &other));
        }
        Self { hosts: hosts.map(Clone::clone), ends, wire }
    }

    /// The address of one end.
    #[must_use]
    #[track_caller]
    pub fn v4(place: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, 0, u8::try_from(place + 1).expect("two ends"))
    }

    /// Its IPv6 address.
    #[must_use]
    #[track_caller]
    pub fn v6(place: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, u16::try_from(place + 1).expect("two ends"))
    }

    /// What has passed since the last call.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        std::mem::take(&mut lock(&self.wire.seen))
    }

    /// From now on packets longer than this are answered with ICMP, as a router does; 0 is no limit.
    pub fn narrow(&self, mtu: usize) {
        self.wire.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Whether packets arrive with a congestion mark (CE).
    pub fn congest(&self, congested: bool) {
        self.wire.congested.store(congested, Ordering::Relaxed);
    }

    /// Lets one end receive a packet that nobody sent. The header checksum of IPv4 is filled in.
    #[track_caller]
    pub fn inject(&self, to: usize, packet: &[u8]) {
        let mut packet = packet.to_vec();
        if is_v4(&packet) {
            fill_checksum(&mut packet);
        }
        write(&self.ends[to], &packet).unwrap_or_else(|error| panic!("{INTERFACE}: write: {error}"));
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for host in &self.hosts {
            host.try_exec("ip", &["link", "delete", "dev", INTERFACE]);
        }
    }
}

impl Wire {
    fn carry(&self, from: usize, own: &File, other: &File) {
        let mut buffer = vec![0; LONGEST];
        let mut reader = own;
        while let Ok(length) = reader.read(&mut buffer) {
            let mut packet = buffer[..length].to_vec();
            lock(&self.seen).push(Passed { from, octets: packet.clone() });
            let mtu = self.mtu.load(Ordering::Relaxed);
            let sent = if mtu > 0 && length > mtu {
                write(own, &too_big(&packet, mtu))
            } else {
                if self.congested.load(Ordering::Relaxed) {
                    mark(&mut packet);
                }
                write(other, &packet)
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

fn write(mut end: &File, packet: &[u8]) -> std::io::Result<()> {
    // The device takes a packet whole or not at all.
    end.write(packet).map(drop)
}

/// Sets CE.
fn mark(packet: &mut [u8]) {
    if is_v4(packet) {
        packet[1] |= 3;
        fill_checksum(packet);
    } else {
        // The class' last two bits are in the upper half of the second octet.
        packet[1] |= 3 << 4;
    }
}

fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// Of an IPv4 header without options.
fn fill_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = checksum(&packet[..20]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
}

/// Fragmentation needed (RFC 1191) or packet too big (RFC 4443), from the one that the packet was for.
fn too_big(packet: &[u8], mtu: usize) -> Vec<u8> {
    let mtu = u32::try_from(mtu).expect("a small number").to_be_bytes();
    let is_v4 = is_v4(packet);
    // As much as Linux quotes (RFC 1812 section 4.3.2.3), and at least the inner headers.
    let quoted = &packet[..packet.len().min(500)];
    let (kind, code) = if is_v4 { (3, 4) } else { (2, 0) };
    let mut icmp = [&[kind, code, 0, 0][..], &mtu, quoted].concat();
    let length = icmp.len();
    let mut header = if is_v4 {
        let total = u16::try_from(20 + length).expect("a short packet").to_be_bytes();
        let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0];
        header.extend([&packet[16..20], &packet[12..16]].concat());
        fill_checksum(&mut header);
        header
    } else {
        let payload = u16::try_from(length).expect("a short packet").to_be_bytes();
        [&[0x60, 0, 0, 0, payload[0], payload[1], 58, 64], &packet[24..40], &packet[8..24]].concat()
    };
    let sum = if is_v4 {
        checksum(&icmp)
    } else {
        let length = u32::try_from(length).expect("a short packet").to_be_bytes();
        checksum(&[&header[8..], &length, &[0, 0, 0, 58], &icmp].concat())
    };
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    header.extend(icmp);
    header
}

#[track_caller]
fn open(host: &Host) -> File {
    let opened = host.in_namespace(|| {
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        set_name(&file)?;
        Ok::<_, std::io::Error>(file)
    });
    opened.unwrap_or_else(|error| panic!("{}: {INTERFACE}: {error}", host.name()))
}

#[expect(unsafe_code, reason = "nix has no tun devices")]
fn set_name(file: &File) -> std::io::Result<()> {
    // SAFETY: all zero is an ifreq: it has nothing but integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, octet) in request.ifr_name.iter_mut().zip(INTERFACE.bytes()) {
        *place = libc::c_char::from_ne_bytes([octet]);
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("two small constants");
    // SAFETY: the pointer is to an ifreq that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
