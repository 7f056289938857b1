//! `l2mesh check`: what a configuration file says, or everything wrong with it.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    cli::CheckArgs,
    config::{ConfigError, ConfigErrors, Mesh, Network, Node, OVERHEAD_IPV6},
};

/// MTU of Ethernet in octets: the summary assumes it of the underlay.
const UNDERLAY_MTU: u32 = 1500;

/// Validates the file. The result goes to stdout; without `--json`, errors are the caller's to show.
///
/// # Errors
/// Everything wrong with the file, or stdout cannot be written.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let mesh = Mesh::from_file(&args.config);
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, &Summary::new(&mesh))?;
        writeln!(stdout)?;
    } else if let Ok(mesh) = &mesh {
        stdout.write_all(table(mesh).as_bytes())?;
    }
    mesh.map(drop).map_err(Into::into)
}

/// The result for programs.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    valid: bool,
    errors: &'a [ConfigError],
    nodes: Vec<NodeSummary<'a>>,
    networks: Vec<NetworkSummary<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeSummary<'a> {
    name: &'a str,
    id: u32,
    address: String,
    kind: String,
    relay: bool,
}

#[derive(Debug, Serialize)]
struct NetworkSummary<'a> {
    name: &'a str,
    vni: u32,
    interface: &'a str,
    /// Null follows the underlay.
    mtu: Option<u32>,
    members: Vec<&'a str>,
}

impl<'a> Summary<'a> {
    fn new(mesh: &'a Result<Mesh, ConfigErrors>) -> Self {
        match mesh {
            Ok(mesh) => Self {
                valid: true,
                errors: &[],
                nodes: mesh.nodes.iter().map(NodeSummary::new).collect(),
                networks: mesh.networks.iter().map(|network| NetworkSummary::new(mesh, network)).collect(),
            },
            Err(ConfigErrors(errors)) => Self { valid: false, errors, nodes: Vec::new(), networks: Vec::new() },
        }
    }
}

impl<'a> NodeSummary<'a> {
    fn new(node: &'a Node) -> Self {
        let (address, kind) = (node.address.to_string(), node.kind.to_string());
        Self { name: &node.name, id: node.id, address, kind, relay: node.relay }
    }
}

impl<'a> NetworkSummary<'a> {
    fn new(mesh: &'a Mesh, network: &'a Network) -> Self {
        let members = members(mesh, network);
        Self { name: &network.name, vni: network.vni.get(), interface: &network.interface, mtu: network.mtu, members }
    }
}

fn members<'a>(mesh: &'a Mesh, network: &Network) -> Vec<&'a str> {
    network.members.iter().map(|&node| mesh.nodes[node].name.as_str()).collect()
}

/// The result for people.
fn table(mesh: &Mesh) -> String {
    let mut nodes = vec![["NODE", "ID", "ADDRESS", "KIND"].map(String::from)];
    nodes.extend(mesh.nodes.iter().map(|node| {
        let kind = if node.relay { format!("{}, relay", node.kind) } else { node.kind.to_string() };
        [node.name.clone(), format!("{:#010x}", node.id), node.address.to_string(), kind]
    }));
    let mut networks = vec![["NETWORK", "VNI", "INTERFACE", "MTU", "MEMBERS"].map(String::from)];
    networks.extend(mesh.networks.iter().map(|network| {
        let members = if network.members.len() == mesh.nodes.len() {
            format!("all {}", mesh.nodes.len())
        } else {
            members(mesh, network).join(" ")
        };
        [network.name.clone(), network.vni.to_string(), network.interface.clone(), mtu(mesh, network), members]
    }));
    format!("{}\n{}", columns(&nodes), columns(&networks))
}

/// The MTU as far as a file can say it.
fn mtu(mesh: &Mesh, network: &Network) -> String {
    // A host name may turn out to be an IPv6 address, which takes more.
    let is_certain = mesh.overhead() == OVERHEAD_IPV6 || mesh.nodes.iter().all(|node| node.address.ip().is_some());
    match network.mtu {
        Some(mtu) => mtu.to_string(),
        None if is_certain => format!("{} (default)", UNDERLAY_MTU - mesh.overhead()),
        None => "default".into(),
    }
}

/// Rows of which each column is as wide as its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn for_people() {
        let mesh = Mesh::from_toml(include_str!("../../examples/mesh.toml"), "mesh.toml").expect("valid");
        let expected = "\
NODE     ID          ADDRESS       KIND
hetzner  0x799b4ab9  203.0.113.10  l2mesh, relay
ovh      0xbd1396f0  203.0.113.20  l2mesh
old-box  0x6a1af22e  203.0.113.40  vxlan

NETWORK  VNI             INTERFACE  MTU             MEMBERS
lan      65281 (0xff01)  l2mff01    1450 (default)  all 3
";
        assert_eq!(table(&mesh), expected);
    }

    #[test]
    fn for_programs() {
        let text = "[[node]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[node]]\nname = \"b\"\naddress = \"b.example\"\n\
                    [[network]]\nname = \"lan\"\nvni = 16\nmembers = [\"a\"]\n";
        let show = |mesh| serde_json::to_value(Summary::new(&mesh)).expect("no map with other keys than text");
        let node = |name: &str, id: u32, address: &str| {
            let (kind, relay) = ("l2mesh", false);
            serde_json::json!({ "name": name, "id": id, "address": address, "kind": kind, "relay": relay })
        };
        assert_eq!(
            show(Mesh::from_toml(text, "mesh.toml")),
            serde_json::json!({
                "valid": true, "errors": [],
                "nodes": [node("a", 0xe40c_292c, "192.0.2.1"), node("b", 0xe70c_2de5, "b.example")],
                "networks": [{ "name": "lan", "vni": 16, "interface": "l2m10", "mtu": null, "members": ["a"] }],
            })
        );
        let error = serde_json::json!({
            "place": "none.toml", "line": null,
            "text": "cannot be read: No such file or directory (os error 2)",
        });
        assert_eq!(
            show(Mesh::from_file(Path::new("none.toml"))),
            serde_json::json!({ "valid": false, "errors": [error], "nodes": [], "networks": [] })
        );
    }
}
