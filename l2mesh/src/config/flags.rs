//! The same mesh from flags: this host is node 0, then come the peers in the order of their kinds.

use std::{collections::BTreeMap, net::IpAddr};

use l2mesh_common::wire::Vni;

use super::{
    Cidr,
    error::{ConfigErrors, Origin, Report, Source},
    file::{At, OneOrMore, RawMesh, RawNetwork, RawNode, RawUnderlay, Scalar},
    host::Host,
    text,
};

/// A mesh of one network, described on the command line instead of in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
#[command(next_help_heading = "The mesh, without a file")]
#[command(group(clap::ArgGroup::new("any_peer").args(["peer", "plain_peer", "relay"]).multiple(true)))]
pub(crate) struct MeshFlags {
    /// The network's identifier: 1 to 16777215, decimal or 0x and hexadecimal
    #[arg(long, required_unless_present = "config", requires = "any_peer")]
    pub vni: Option<Vni>,
    /// Another host of the mesh, by its IP address; once for each
    #[arg(long, value_name = "ADDRESS", value_parser = ip_address)]
    pub peer: Vec<IpAddr>,
    /// The same for a host with a plain kernel vxlan device
    #[arg(long, value_name = "ADDRESS", value_parser = ip_address)]
    pub plain_peer: Vec<IpAddr>,
    /// The same for a host that may relay for us
    #[arg(long, value_name = "ADDRESS", value_parser = ip_address)]
    pub relay: Vec<IpAddr>,
    /// Relay for the others, who say --relay
    #[arg(long)]
    pub allow_relay: bool,
    /// Name of the overlay interface [default: l2m and the VNI in hexadecimal]
    #[arg(long, value_name = "NAME")]
    pub overlay: Option<String>,
    /// An address of the overlay interface, as in 10.8.0.1/24; may be repeated
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub address: Vec<Cidr>,
    /// UDP port of the mesh [default: 4789]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Leave the port free for a plain vxlan device of this host
    #[arg(long)]
    pub private_port: bool,
    /// Frames for everybody per second, sent and received each [default: 10000, less with more than 50 peers]
    #[arg(long, value_name = "FRAMES", value_parser = clap::value_parser!(u32).range(1..))]
    pub storm_limit: Option<u32>,
}

fn ip_address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address; a file (--config) may have host names")
}

/// The tables that a file for the same mesh would have.
///
/// # Errors
/// This host has no address to go by, or a peer is given twice or is this host.
pub(super) fn read(flags: &MeshFlags, host: &Host<'_>) -> Result<RawMesh, ConfigErrors> {
    let mut report = Report::new(Source::Flags);
    let peers = peers(flags);
    let own = own_address(&mut report, host, peers.first().map(|(_, peer)| *peer));
    distinct_peers(&mut report, &peers, own, host);
    if flags.vni.is_none() {
        report.error(Origin::Flag("--vni"), "is missing: say which network, or describe the mesh with --config");
    }
    if peers.is_empty() {
        report.error(Origin::Flag("--peer"), "no peer is given: add one for every other host");
    }
    let own = report.finish(own)?;

    let this_node = own.map(|(flag, address)| RawNode {
        relay: Some(At::flag("--allow-relay", flags.allow_relay)),
        ..node(flag, address)
    });
    let nodes = this_node.into_iter().chain(peers.iter().map(|&(flag, address)| peer(flag, address)));
    Ok(RawMesh {
        underlay: RawUnderlay {
            port: flags.port.map(|port| At::flag("--port", Scalar::Integer(port.into()))),
            private_port: Some(flags.private_port),
            ..RawUnderlay::default()
        },
        probe: None,
        node: nodes.map(|node| At { value: node, origin: Origin::Whole }).collect(),
        network: vec![At { value: network(flags, own.map(|(_, address)| address)), origin: Origin::Flag("--vni") }],
    })
}

/// Every peer with the flag that gives it.
fn peers(flags: &MeshFlags) -> Vec<(&'static str, IpAddr)> {
    let lists = [("--peer", &flags.peer), ("--plain-peer", &flags.plain_peer), ("--relay", &flags.relay)];
    lists.into_iter().flat_map(|(flag, peers)| peers.iter().map(move |&peer| (flag, peer))).collect()
}

/// Where the others reach this host: `--node`, else `--local`, else an address of the interface,
/// of the first peer's family and not link-local if there is one.
fn own_address(report: &mut Report<'_>, host: &Host<'_>, peer: Option<IpAddr>) -> Option<(&'static str, IpAddr)> {
    if let Some(node) = host.node {
        let address = node.parse().ok().map(|address| ("--node", address));
        if address.is_none() {
            let text = format!("{node:?} is no IP address: without a file a node's name is where the others reach it");
            report.error(Origin::Flag("--node"), text);
        }
        return address;
    }
    if let Some(local) = host.local {
        return Some(("--local", local));
    }
    let rank = |address: &IpAddr| {
        let other_family = peer.is_some_and(|peer| peer.is_ipv4() != address.is_ipv4());
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        (other_family, link_local)
    };
    // Of equals, min_by_key takes the first.
    let address = host.addresses.iter().copied().min_by_key(rank);
    if address.is_none() {
        let text = format!("{} has no IP address: add one, or say which to use with --local", host.interface);
        report.error(Origin::Flag("--iface"), text);
    }
    address.map(|address| ("--iface", address))
}

fn distinct_peers(
    report: &mut Report<'_>,
    peers: &[(&'static str, IpAddr)],
    own: Option<(&'static str, IpAddr)>,
    host: &Host<'_>,
) {
    for (index, &(flag, peer)) in peers.iter().enumerate() {
        if let Some((first, _)) = peers[..index].iter().find(|(_, other)| *other == peer) {
            let text = format!("{peer} is given before with {first}: give every peer once");
            report.error(Origin::Flag(flag), text);
        } else if own.is_some_and(|(_, own)| own == peer) || host.local == Some(peer) {
            report.error(Origin::Flag(flag), format!("{peer} is this host: give the other hosts only"));
        } else if host.addresses.contains(&peer) {
            let text = format!("{peer} is on {}, so it is this host: give the other hosts only", host.interface);
            report.error(Origin::Flag(flag), text);
        }
    }
}

/// A node called by its address.
fn node(flag: &'static str, address: IpAddr) -> RawNode {
    let text = address.to_string();
    RawNode { name: Some(At::flag(flag, text.clone())), address: Some(At::flag(flag, text)), ..RawNode::default() }
}

fn peer(flag: &'static str, address: IpAddr) -> RawNode {
    let kind = if flag == "--plain-peer" { "vxlan" } else { "l2mesh" };
    RawNode {
        kind: Some(At::flag(flag, kind.into())),
        relay: Some(At::flag(flag, flag == "--relay")),
        ..node(flag, address)
    }
}

/// The one network: called like its device.
fn network(flags: &MeshFlags, own: Option<IpAddr>) -> RawNetwork {
    let vni = flags.vni.map(Vni::get);
    // A device name that cannot be is reported as such: once.
    let overlay = flags.overlay.clone().filter(|name| text::interface_problem(name).is_none());
    let name = overlay.unwrap_or_else(|| format!("l2m{:x}", vni.unwrap_or_default()));
    let addresses: Vec<String> = flags.address.iter().map(ToString::to_string).collect();
    let addresses = own
        .filter(|_| !addresses.is_empty())
        .map(|own| BTreeMap::from([(own.to_string(), At::flag("--address", OneOrMore::More(addresses)))]));
    RawNetwork {
        name: Some(At::flag("--overlay", name)),
        vni: vni.map(|vni| At::flag("--vni", Scalar::Integer(vni.into()))),
        interface: flags.overlay.clone().map(|name| At::flag("--overlay", name)),
        addresses: addresses.unwrap_or_default(),
        storm_limit: flags.storm_limit.map(|limit| At::flag("--storm-limit", Scalar::Integer(limit.into()))),
        ..RawNetwork::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Mesh, NodeKind};

    #[derive(Parser)]
    struct Line {
        #[arg(long)]
        config: Option<String>,
        #[arg(long)]
        node: Option<String>,
        #[arg(long)]
        local: Option<IpAddr>,
        #[command(flatten)]
        mesh: MeshFlags,
    }

    /// A host with two addresses on eth0.
    fn mesh(line: &str) -> Result<Mesh, String> {
        mesh_on(&["2001:db8::1", "192.0.2.1"], line)
    }

    fn mesh_on(addresses: &[&str], line: &str) -> Result<Mesh, String> {
        let line = Line::try_parse_from(["l2mesh"].into_iter().chain(line.split(' '))).expect(line);
        assert_eq!(line.config, None);
        let addresses: Vec<_> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        let host = Host { node: line.node.as_deref(), local: line.local, interface: "eth0", addresses: &addresses };
        let mesh = Mesh::from_flags(&line.mesh, &host).map_err(|errors| errors.to_string())?;
        assert_eq!(mesh.this_node(&host), Ok(0));
        Ok(mesh)
    }

    #[test]
    fn a_mesh() {
        let mesh = mesh(
            "--vni 0xff01 --peer 192.0.2.2 --plain-peer 192.0.2.3 --relay 192.0.2.4 --peer 192.0.2.5 --allow-relay \
             --address 10.8.0.1/24 --address fd00::1/64 --port 8472 --private-port --storm-limit 77",
        );
        let mesh = mesh.expect("valid");
        let nodes: Vec<_> = mesh.nodes.iter().map(|node| (node.name.as_str(), node.kind, node.relay)).collect();
        assert_eq!(
            nodes,
            [
                ("192.0.2.1", NodeKind::L2mesh, true),
                ("192.0.2.2", NodeKind::L2mesh, false),
                ("192.0.2.5", NodeKind::L2mesh, false),
                ("192.0.2.3", NodeKind::Vxlan, false),
                ("192.0.2.4", NodeKind::L2mesh, true),
            ]
        );
        assert_eq!((mesh.underlay.port, mesh.underlay.private_port), (8472, true));
        let [network] = mesh.networks.as_slice() else { panic!("one network") };
        assert_eq!((network.name.as_str(), network.interface.as_str()), ("l2mff01", "l2mff01"));
        assert_eq!(network.members, [0, 1, 2, 3, 4]);
        assert_eq!((network.addresses[&0].len(), network.storm_limit), (2, Some(77)));
    }

    #[test]
    fn both_sides_call_a_node_the_same() {
        let here = mesh("--vni 16 --peer 192.0.2.2 --overlay lan0").expect("valid");
        let there = mesh_on(&["10.0.0.2"], "--vni 16 --peer 192.0.2.1 --node 192.0.2.2").expect("valid");
        assert_eq!(here.nodes[0].id, there.nodes[1].id);
        assert_eq!(here.nodes[1].id, there.nodes[0].id);
        assert_eq!((here.networks[0].name.as_str(), here.networks[0].interface.as_str()), ("lan0", "lan0"));
    }

    #[test]
    fn own_address() {
        for (line, own) in [
            ("--vni 16 --peer 192.0.2.2", "192.0.2.1"),
            ("--vni 16 --peer 2001:db8::2", "2001:db8::1"),
            ("--vni 16 --peer 2001:db8::2 --local 2001:DB8:0::9", "2001:db8::9"),
            ("--vni 16 --peer 192.0.2.2 --local 10.0.0.1 --node 203.0.113.1", "203.0.113.1"),
        ] {
            assert_eq!(mesh(line).expect("valid").nodes[0].name, own, "{line}");
        }
        let mesh = mesh_on(&["fe80::1", "2001:db8::1"], "--vni 16 --peer 2001:db8::2").expect("valid");
        assert_eq!(mesh.nodes[0].name, "2001:db8::1");
    }

    #[test]
    fn refused() {
        for (line, error) in [
            (
                "--vni 16 --peer 192.0.2.2 --peer 192.0.2.2",
                "--peer: 192.0.2.2 is given before with --peer: give every peer once",
            ),
            (
                "--vni 16 --peer 192.0.2.2 --relay 192.0.2.2",
                "--relay: 192.0.2.2 is given before with --peer: give every peer once",
            ),
            ("--vni 16 --peer 192.0.2.1", "--peer: 192.0.2.1 is this host: give the other hosts only"),
            (
                "--vni 16 --peer 192.0.2.2 --plain-peer 2001:db8::1",
                "--plain-peer: 2001:db8::1 is on eth0, so it is this host: give the other hosts only",
            ),
            (
                "--vni 16 --peer 192.0.2.2 --local 10.0.0.1 --node 203.0.113.1 --peer 10.0.0.1",
                "--peer: 10.0.0.1 is this host: give the other hosts only",
            ),
            (
                "--vni 16 --peer 192.0.2.2 --node ovh",
                "--node: \"ovh\" is no IP address: without a file a node's name is where the others reach it",
            ),
            (
                "--vni 16 --peer 127.0.0.1",
                "--peer: node \"127.0.0.1\": address 127.0.0.1: it is a loopback address: write the one where the \
                 others reach the node",
            ),
            (
                "--vni 16 --peer 192.0.2.2 --overlay sixteen-octets--",
                "--overlay: network \"l2m10\": interface \"sixteen-octets--\": it has more than 15 octets: write \
                 another name",
            ),
            (
                "--vni 16 --peer 192.0.2.2 --overlay l2mk3",
                "--overlay: network \"l2mk3\": interface \"l2mk3\": l2mesh needs that name itself: write another",
            ),
            (
                "--vni 16 --peer 192.0.2.2 --address 10.8.0.1/24 --address 10.8.0.1/16",
                "--address: network \"l2m10\": addresses: \"192.0.2.1\": 10.8.0.1 is also that of node \"192.0.2.1\": \
                 write another",
            ),
        ] {
            assert_eq!(mesh(line), Err(error.into()), "{line}");
        }
        assert_eq!(
            mesh_on(&[], "--vni 16 --peer 192.0.2.2"),
            Err("--iface: eth0 has no IP address: add one, or say which to use with --local".into())
        );
    }
}
