//! `cargo xtask run`: the demonstration, or `l2mesh` itself.

mod detour;

use std::{fs, net::Ipv4Addr, os::unix::process::CommandExt as _, path::Path, process::Command, time::Duration};

use anyhow::bail;
use clap::Args;
use l2mesh_tests::{
    Agent, Host, Lab, Wiring,
    dhcp::{DhcpServer, Lease},
    traffic::{self, Iperf},
};

use crate::{
    cargo::{as_root, l2mesh},
    setup::{self, Need},
};

/// The network's interface on every host.
const OVERLAY: &str = "l2mff01";
/// The host with the DHCP server.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// The host that hands on what others cannot send directly.
const RELAY: &str = "ovh";
const FIRST_LEASE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 100);
const LAST_LEASE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 199);

/// What to run.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// Leave the demonstration running, to look around
    #[arg(long)]
    keep: bool,
    /// Arguments for l2mesh; without any, the demonstration
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    l2mesh: Vec<String>,
}

/// The demonstration, or `l2mesh` with arguments.
///
/// # Errors
/// Something cannot be built or installed, or `l2mesh` cannot be started.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    if args.l2mesh.is_empty() {
        setup::run(&[Need::Build, Need::Lab])?;
        let binary = l2mesh()?;
        return if as_root()? { Ok(()) } else { demonstrate(args.keep, &binary) };
    }
    if args.keep {
        bail!("--keep belongs to the demonstration, which takes no further arguments");
    }
    setup::run(&[Need::Build])?;
    let error = Command::new(l2mesh()?).args(&args.l2mesh).exec();
    bail!("cannot run l2mesh: {error}")
}

/// Three hosts at three providers, behind a router: one Ethernet segment.
fn demonstrate(keep: bool, binary: &Path) -> anyhow::Result<()> {
    Lab::remove_kept("demo");
    let lab = Lab::new("demo");
    let hosts = lab.routed(["hetzner", "enovance", "ovh"], &Wiring::default());
    title("Three hosts, each in its own network behind a router");
    for host in &hosts {
        let uplink = host.uplink(0);
        println!(
            "  {:<9} {}/{} via {}",
            host.name(),
            uplink.address,
            uplink.prefix,
            uplink.gateway.map_or_else(String::new, |it| it.to_string())
        );
    }
    let file = lab.directory().join("mesh.toml");
    fs::write(&file, configuration(&hosts))?;
    title("One file, the same on every host, and one command");
    print!("{}", indent(&configuration(&hosts)));
    let agents = hosts.each_ref().map(|host| attach(host, &file.display().to_string()));

    title("A DHCP server on hetzner's interface, leases for the others");
    let [hetzner, enovance, ovh] = &hosts;
    let server = DhcpServer::start(hetzner, OVERLAY, FIRST_LEASE, LAST_LEASE);
    let leases = [enovance, ovh].map(|host| {
        let lease = Lease::acquire(host, OVERLAY);
        println!("  {:<9} {} from {}", host.name(), lease.address, lease.server);
        lease
    });

    title("Everybody reaches everybody");
    let addresses = [SERVER, leases[0].address, leases[1].address];
    for (from, _) in hosts.iter().zip(addresses) {
        for (to, address) in hosts.iter().zip(addresses).filter(|(to, _)| to.name() != from.name()) {
            let report = traffic::ping(from, address, 3);
            let average = report.average.map_or_else(|| "-".to_owned(), |time| format!("{time:.2} ms"));
            println!(
                "  {:<9} pings {:<9} {} of {} answered, {average}",
                from.name(),
                to.name(),
                report.received,
                report.sent
            );
        }
    }
    let mut iperf = Iperf::serve(hetzner, SERVER);
    let report = iperf.tcp(ovh, Duration::from_secs(2), 1);
    println!("  ovh       sends TCP to hetzner at {:.2} Gb/s", report.bits_per_second / 1e9);
    drop(iperf);

    detour::show(&lab, &hosts, addresses);

    title("l2mesh status, on hetzner");
    print!("{}", indent(&hetzner.l2mesh_text(&["status"])));
    title("l2mesh maps, on ovh");
    print!("{}", indent(&ovh.l2mesh_text(&["maps"])));
    if keep {
        explain(&lab, &hosts, binary);
        // What is dropped ends.
        std::mem::forget((agents, server, leases));
        lab.keep();
        return Ok(());
    }
    title("Everything is taken down");
    drop((server, leases));
    for (host, agent) in hosts.iter().zip(agents) {
        agent.stop();
        let left: Vec<String> =
            host.links().iter().filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect();
        println!("  {:<9} has {} again, and nothing else", host.name(), left.join(" and "));
    }
    Ok(())
}

fn attach(host: &Host, file: &str) -> Agent {
    println!("  {}# l2mesh attach --iface eth0 --config mesh.toml", host.name());
    let agent = host.attach(&["--config", file]);
    println!("  {}", agent.up_line());
    agent
}

fn configuration(hosts: &[Host]) -> String {
    let node = |host: &Host| {
        let relay = if host.name() == RELAY { "relay = true\n" } else { "" };
        format!("[[node]]\nname = {:?}\naddress = \"{}\"\n{relay}\n", host.name(), host.address())
    };
    let nodes = hosts.iter().map(node);
    let network = format!("[[network]]\nname = \"lan\"\nvni = 0xff01\naddresses = {{ hetzner = \"{SERVER}/24\" }}\n");
    nodes.collect::<String>() + &network
}

fn explain(lab: &Lab, hosts: &[Host], binary: &Path) {
    title("It stays up. Enter a host, and look inside:");
    for host in hosts {
        println!("  {:<9} {}", host.name(), host.enter_command());
    }
    println!("  then      ip -d link, ping the others' addresses as above, tcpdump -i {OVERLAY}, ...");
    println!("            {} --pin-dir {} status", binary.display(), lab.pin_dir().display());
    println!("  the next `cargo xtask run` removes it");
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn indent(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}
