//! Paths that take less than their first link: nothing hangs. The hosts' overlay interfaces wrongly have the MTU of the
//! underlay, a router on the way takes less and says so.

use std::net::IpAddr;

use l2mesh_tests::{Agent, Family, File, Host, Lab, NOT_PROBED, Segment, Wiring, traffic, transfer};

/// What the router takes of the outer packets.
const NARROW: u32 = 1400;
/// Packets that may be lost before a transfer is healed: a window, and what tells the sender.
const BOUND: u64 = 40;

/// What the path is believed to take.
#[track_caller]
fn path_mtu(from: &Host, to: &Host) -> (u64, Option<u64>) {
    let peer = from.peer(to);
    (peer["mtu"].as_u64().expect("a number"), peer["learned"]["path_mtu"].as_u64())
}

/// Packets that senders were told about instead of being sent on.
fn told(hosts: &[Host]) -> u64 {
    hosts.iter().map(|host| host.counter("too-big-told") + host.counter("too-big-silent")).sum()
}

/// The hosts' own stacks forget what they were told.
fn forget(hosts: &[Host]) {
    for host in hosts {
        host.run("ip route flush cache");
        host.run("ip -6 route flush cache");
    }
}

#[derive(Clone, Copy, Debug)]
enum Traffic {
    Tcp,
    Udp,
}

impl Traffic {
    #[track_caller]
    fn run(self, from: &Host, to: &Host, address: IpAddr, mtu: u32) {
        match self {
            Self::Tcp => drop(transfer::tcp(from, to, address, 1 << 20)),
            // As long as fits the interface.
            Self::Udp => {
                let headers = if address.is_ipv4() { 28 } else { 48 };
                transfer::udp_persistently(from, to, address, mtu as usize - headers, 10);
            }
        }
    }
}

/// One transfer each way.
#[derive(Clone, Copy, Debug)]
struct Case {
    inner: Family,
    traffic: Traffic,
    /// The senders look for the path's MTU: DF in IPv4, always in IPv6.
    discovers: bool,
    /// Of the overlay interfaces.
    mtu: u32,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for traffic in [Traffic::Tcp, Traffic::Udp] {
            for (inner, discovers) in [(Family::V4, true), (Family::V4, false), (Family::V6, true)] {
                // As it should be over an underlay of 1500, and as it should not be.
                cases.extend([1430, 1500].map(|mtu| Self { inner, traffic, discovers, mtu }));
            }
        }
        cases
    }

    /// True if it has packets that may be fragmented outside and are too long for the first link already.
    fn is_fragmented_at_once(self) -> bool {
        !self.discovers && self.mtu == 1500
    }

    #[track_caller]
    fn run(self, lab: &Lab, hosts: &[Host; 2]) {
        let Self { inner, traffic, .. } = self;
        let [a, b] = hosts;
        let address = |place| match inner {
            Family::V4 => IpAddr::from(Segment::v4(place)),
            Family::V6 => Segment::v6(place).into(),
        };
        assert_eq!(traffic::ping(a, address(1), 2).lost(), 0);
        let before = lab.too_big_drops();
        traffic.run(a, b, address(1), self.mtu);
        // Else b would be told in the handshake.
        forget(hosts);
        traffic.run(b, a, address(0), self.mtu);
        let (dropped, told) = (lab.too_big_drops() - before, told(hosts));
        let fragmented: u64 = hosts.iter().map(|host| host.counter("fragmented")).sum();
        println!("{self:?}, both ways: {dropped} lost at the router, {told} told, {fragmented} fragmented");
        assert!(dropped + told <= BOUND, "{self:?}: {dropped} lost, {told} told");
        let overhead = if a.vtep().is_ipv4() { 50 } else { 70 };
        let learned = (u64::from(NARROW - overhead), Some(u64::from(NARROW)));
        let paths = [path_mtu(a, b), path_mtu(b, a)];
        match (self.is_fragmented_at_once(), overhead) {
            // Routers fragment what may be fragmented, and have nothing to say.
            (true, 50) => {
                assert!(dropped <= self.chance(), "{self:?}: {dropped} lost");
                assert_eq!(told, 0, "{self:?}");
            }
            // The kernel does not fragment what goes over IPv6: senders are told, whether they asked or not.
            (true, _) => assert!(told > 0, "{self:?}: {dropped} lost, none told"),
            (false, _) => assert!(dropped > 0 && paths == [learned; 2], "{self:?}: {dropped} lost, {paths:?}"),
        }
        let before = lab.too_big_drops();
        traffic.run(a, b, address(1), self.mtu);
        traffic.run(b, a, address(0), self.mtu);
        let after = lab.too_big_drops() - before;
        let chance = if overhead == 50 && self.is_fragmented_at_once() { self.chance() } else { 0 };
        assert!(after <= chance, "{self:?}: healed, and {after} lost");
    }

    /// Of packets that may be fragmented, TCP sends a last one now and then that the mesh need not fragment and the narrow link does
    /// not take: then the path is learned.
    fn chance(self) -> u64 {
        match self.traffic {
            Traffic::Tcp => 4,
            Traffic::Udp => 0,
        }
    }
}

/// Every transfer from scratch: the mesh attached anew, nothing remembered.
#[track_caller]
fn black_holes_heal(over: Family, mode: &str) {
    println!("over {over:?}, mode {mode}:");
    let lab = Lab::new("black hole");
    let hosts = lab.routed(["a", "b"], &Wiring::over(over));
    for host in &hosts {
        lab.narrow(host, NARROW);
    }
    for case in Case::all() {
        for host in &hosts {
            host.run(&format!("sysctl -qw net.ipv4.ip_no_pmtu_disc={}", u8::from(!case.discovers)));
        }
        forget(&hosts);
        let args = ["--mode", mode];
        // Long probes would be lost there too.
        let file = Some(File { node: NOT_PROBED, ..File::default() });
        let agents = Segment { file, ..Segment::of(&hosts, &args) }.up(&lab);
        for host in &hosts {
            host.run(&format!("ip link set dev l2m0 mtu {}", case.mtu));
        }
        case.run(&lab, &hosts);
        agents.into_iter().for_each(Agent::stop);
    }
}

#[test]
fn black_holes_heal_over_ipv4() {
    black_holes_heal(Family::V4, "tc");
}

#[test]
fn black_holes_heal_over_ipv4_in_mode_xdp() {
    black_holes_heal(Family::V4, "xdp");
}

#[test]
fn black_holes_heal_over_ipv6() {
    black_holes_heal(Family::V6, "tc");
}
