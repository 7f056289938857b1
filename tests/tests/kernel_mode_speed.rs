//! What mode kernel costs: side by side with the kernel's own vxlan device over the same `WireGuard`. Prints, judges nothing.
//!
//! `cargo test --release -p l2mesh-tests --test kernel_mode_speed -- --ignored --nocapture`

use std::net::Ipv4Addr;
use std::time::Duration;

use l2mesh_tests::traffic::Iperf;
use l2mesh_tests::wireguard::{self, WireGuard};
use l2mesh_tests::{Host, Lab, Segment, VxlanOptions, Wiring, traffic};

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(3);
const PINGS: u32 = 100;

/// Bits per second and milliseconds.
fn measure(hosts: &[Host; 2], address: Ipv4Addr) -> [f64; 2] {
    let tcp = Iperf::serve(&hosts[1], address).tcp(&hosts[0], TIME, 1).bits_per_second;
    let round_trip = traffic::ping(&hosts[0], address, PINGS).average.expect("answers");
    [tcp, round_trip]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement, a minute long"]
fn against_the_kernels_device() {
    let lab = Lab::new("speed");
    let hosts = lab.switch(["a", "b"], &Wiring::default());
    let _tunnels = WireGuard::between(&hosts);
    let _agents = Segment::of(&hosts, &["--mode", "kernel"]).up(&lab);
    for (own, other) in [(0, 1), (1, 0)] {
        let options = VxlanOptions { vni: 99, port: 8472, mtu: Some(wireguard::MTU - 50), ..VxlanOptions::default() };
        hosts[own].kernel_vxlan(WireGuard::v4(own), &[WireGuard::v4(other).into()], &options);
        hosts[own].add_address("vx0", &format!("10.9.0.{}/24", own + 1));
    }
    let contenders =
        [("mode kernel", Segment::v4(1)), ("vxlan device", Ipv4Addr::new(10, 9, 0, 2)), ("bare wg0", WireGuard::v4(1))];
    let mut all = contenders.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..ROUNDS {
        // Each is first and last by turns.
        for turn in 0..contenders.len() {
            let place = (round + turn) % contenders.len();
            let (name, address) = contenders[place];
            let [tcp, round_trip] = measure(&hosts, address);
            println!("{round} {name:<12} TCP {:6.0} Mbit/s, round trip {round_trip:.3} ms", tcp / 1e6);
            all[place][0].push(tcp);
            all[place][1].push(round_trip);
        }
    }
    let [ours, device, bare] = all.map(|values| values.map(median));
    println!("mode kernel / vxlan device: TCP {:.2}, round trip {:.2}", ours[0] / device[0], ours[1] / device[1]);
    println!("bare wg0 / vxlan device: TCP {:.2}, round trip {:.2}", bare[0] / device[0], bare[1] / device[1]);
}
