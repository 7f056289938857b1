//! What was found, in the configuration's terms, and how it is written: TOML with comments.

use std::net::IpAddr;

use l2mesh_common::wire::MacAddr;
use toml_edit::{Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, Table, Value};

use crate::config::{Cidr, Tos};

/// Greatest length of a comment line in characters.
const LINE: usize = 110;
/// Greatest number of members on one line.
const MEMBERS_ON_A_LINE: usize = 6;

/// A configuration to be written. Nodes are referred to by their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Draft {
    /// Comments above all.
    pub head: Vec<Comment>,
    /// UDP port.
    pub port: u16,
    /// Seconds after which a MAC address is forgotten, if not the default.
    pub fdb_age: Option<u32>,
    /// Every host.
    pub nodes: Vec<DraftNode>,
    /// Every segment.
    pub networks: Vec<DraftNetwork>,
}

/// A paragraph of comments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Comment {
    /// Prose, wrapped.
    Text(String),
    /// A command line, as it is.
    Command(String),
}

impl Comment {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// A `[[node]]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct DraftNode {
    pub name: String,
    /// Address or host name.
    pub address: String,
    /// Behind the address.
    pub remark: &'static str,
    /// `kind = "vxlan"`.
    pub plain: bool,
    pub udp_checksum: bool,
    /// `probes = false`: it runs in mode kernel.
    pub no_probes: bool,
    /// Node by which it is seen, and as what.
    pub from: Vec<(String, IpAddr)>,
    pub notes: Vec<String>,
}

/// A `[[network]]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct DraftNetwork {
    pub name: String,
    pub vni: u32,
    /// None is the default.
    pub interface: Option<String>,
    pub bridge: Option<String>,
    pub members: Vec<String>,
    pub addresses: Vec<(String, Vec<Cidr>)>,
    pub mtu: Option<u32>,
    pub link_local: bool,
    pub tos: Option<Tos>,
    pub neighbour_suppression: bool,
    pub macs: Vec<(MacAddr, String)>,
    /// What is not as it was.
    pub notes: Vec<String>,
}

impl Draft {
    /// The file.
    pub(super) fn to_toml(&self) -> String {
        let mut document = DocumentMut::new();
        let mut underlay = Table::new();
        underlay["port"] = value(i64::from(self.port));
        if let Some(seconds) = self.fdb_age {
            underlay["fdb-age"] = value(format!("{seconds}s"));
        }
        let mut head: String = self.head.iter().map(comment).collect();
        if !head.is_empty() {
            head.push('\n');
        }
        underlay.decor_mut().set_prefix(head);
        document["underlay"] = Item::Table(underlay);
        document["node"] = tables(self.nodes.iter().map(node));
        let everybody = self.nodes.len();
        document["network"] = tables(self.networks.iter().map(|it| network(it, everybody)));
        document.to_string()
    }
}

fn node(node: &DraftNode) -> Table {
    let mut table = with_notes(&node.notes);
    table["name"] = value(&node.name);
    table["address"] = remarked(value(&node.address), node.remark);
    if node.plain {
        table["kind"] = remarked(value("vxlan"), "delete this line when that host runs l2mesh");
    }
    if node.udp_checksum {
        table["udp-checksum"] = value(true);
    }
    if node.no_probes {
        table["probes"] = value(false);
    }
    if !node.from.is_empty() {
        let pairs = node.from.iter().map(|(viewer, address)| (viewer.as_str(), Value::from(address.to_string())));
        table["from"] = Item::Value(Value::InlineTable(pairs.collect::<InlineTable>()));
    }
    table
}

fn network(network: &DraftNetwork, everybody: usize) -> Table {
    let mut table = with_notes(&network.notes);
    table["name"] = value(&network.name);
    table["vni"] = remarked(value(i64::from(network.vni)), &format!("{:#x}", network.vni));
    if let Some(interface) = &network.interface {
        table["interface"] = value(interface);
    }
    if let Some(bridge) = &network.bridge {
        table["bridge"] = value(bridge);
    }
    if network.members.len() < everybody {
        table["members"] = Item::Value(Value::Array(members(&network.members)));
    }
    let addresses = network.addresses.iter().filter(|(_, addresses)| !addresses.is_empty());
    let addresses: InlineTable = addresses.map(|(node, addresses)| (node.as_str(), one_or_more(addresses))).collect();
    if !addresses.is_empty() {
        table["addresses"] = Item::Value(Value::InlineTable(addresses));
    }
    if let Some(mtu) = network.mtu {
        table["mtu"] = value(i64::from(mtu));
    }
    if network.link_local {
        table["link-local"] = value(true);
    }
    match network.tos {
        None => {}
        Some(Tos::Inherit) => table["tos"] = value("inherit"),
        Some(Tos::Fixed(tos)) => table["tos"] = remarked(value(i64::from(tos)), &format!("{tos:#x}")),
    }
    if network.neighbour_suppression {
        table["neighbour-suppression"] = value(true);
    }
    if !network.macs.is_empty() {
        table["mac"] = tables(network.macs.iter().map(|(mac, node)| {
            let mut table = Table::new();
            table["mac"] = value(mac.to_string());
            table["node"] = value(node);
            table
        }));
    }
    table
}

fn value(value: impl Into<Value>) -> Item {
    Item::Value(value.into())
}

/// A value with a comment behind it.
fn remarked(item: Item, remark: &str) -> Item {
    match item {
        Item::Value(value) if !remark.is_empty() => {
            Item::Value(value.decorated(" ", format!("    # {}", printable(remark))))
        }
        item => item,
    }
}

fn tables(tables: impl Iterator<Item = Table>) -> Item {
    Item::ArrayOfTables(tables.collect::<ArrayOfTables>())
}

/// A table that begins with a blank line and comments.
fn with_notes(notes: &[String]) -> Table {
    let mut table = Table::new();
    let notes: String = notes.iter().map(|note| comment(&Comment::text(note))).collect();
    *table.decor_mut() = Decor::new(format!("\n{notes}"), "");
    table
}

fn one_or_more(addresses: &[Cidr]) -> Value {
    match addresses {
        [only] => only.to_string().into(),
        many => Value::Array(many.iter().map(ToString::to_string).collect()),
    }
}

fn members(members: &[String]) -> Array {
    let mut array: Array = members.iter().map(String::as_str).collect();
    if members.len() > MEMBERS_ON_A_LINE {
        for member in array.iter_mut() {
            member.decor_mut().set_prefix("\n    ");
        }
        array.set_trailing("\n");
        array.set_trailing_comma(true);
    }
    array
}

fn comment(comment: &Comment) -> String {
    match comment {
        Comment::Command(line) => format!("#   {}\n", printable(line)),
        Comment::Text(text) => wrapped(&printable(text)),
    }
}

/// Comment lines; those after the first are indented.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut line = String::from("#");
    for word in text.split(' ') {
        let length = line.chars().count() + 1 + word.chars().count();
        if length > LINE && line.len() > 3 {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + line.trim_end() + "\n"
}

/// TOML allows no control characters in comments, and a line of a file that was read may have any.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mesh;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn node(name: &str, address: &str) -> DraftNode {
        DraftNode { name: name.into(), address: address.into(), ..DraftNode::default() }
    }

    #[test]
    fn everything_at_once() {
        let cidr = |text: &str| -> Cidr { text.parse().expect("an address") };
        let draft = Draft {
            head: vec![
                Comment::text("One line."),
                Comment::text(format!("{}end", "words that wrap ".repeat(8))),
                Comment::Command("ip link delete vx0".into()),
            ],
            port: 8472,
            fdb_age: Some(60),
            nodes: vec![
                DraftNode {
                    remark: "this host",
                    from: vec![("fd00::2".into(), cidr("fd00::1/64").address)],
                    ..node("a", "192.0.2.1")
                },
                DraftNode { plain: true, notes: strings(&["seen\n\"once\"\u{7f}"]), ..node("b\"\\", "192.0.2.2") },
                DraftNode { plain: true, udp_checksum: true, ..node("fd00::2", "fd00::2") },
            ],
            networks: vec![
                DraftNetwork {
                    name: "vx0".into(),
                    vni: 16,
                    interface: Some("vx0".into()),
                    bridge: Some("br0".into()),
                    members: strings(&["a", "b\"\\"]),
                    addresses: vec![
                        ("a".into(), vec![cidr("10.8.0.1/24"), cidr("fd01::1/64")]),
                        ("b\"\\".into(), vec![]),
                    ],
                    mtu: Some(1400),
                    link_local: true,
                    tos: Some(Tos::Fixed(0xb8)),
                    neighbour_suppression: true,
                    macs: vec![(MacAddr([0x52, 0x54, 0, 0, 0, 1]), "b\"\\".into())],
                    notes: strings(&["vx0 had more."]),
                },
                DraftNetwork {
                    name: "vx1".into(),
                    vni: 0xff01,
                    members: strings(&["a", "fd00::2"]),
                    tos: Some(Tos::Inherit),
                    ..DraftNetwork::default()
                },
            ],
        };
        let text = draft.to_toml();
        let expected = r#"# One line.
# words that wrap words that wrap words that wrap words that wrap words that wrap words that wrap words that
#   wrap words that wrap end
#   ip link delete vx0

[underlay]
port = 8472
fdb-age = "60s"

[[node]]
name = "a"
address = "192.0.2.1"    # this host
from = { "fd00::2" = "fd00::1" }

# seen\n"once"\u{7f}
[[node]]
name = 'b"\'
address = "192.0.2.2"
kind = "vxlan"    # delete this line when that host runs l2mesh

[[node]]
name = "fd00::2"
address = "fd00::2"
kind = "vxlan"    # delete this line when that host runs l2mesh
udp-checksum = true

# vx0 had more.
[[network]]
name = "vx0"
vni = 16    # 0x10
interface = "vx0"
bridge = "br0"
members = ["a", 'b"\']
addresses = { a = ["10.8.0.1/24", "fd01::1/64"] }
mtu = 1400
link-local = true
tos = 184    # 0xb8
neighbour-suppression = true

[[network.mac]]
mac = "52:54:00:00:00:01"
node = 'b"\'

[[network]]
name = "vx1"
vni = 65281    # 0xff01
members = ["a", "fd00::2"]
tos = "inherit"
"#;
        assert_eq!(text, expected);
        let mesh = Mesh::from_toml(&text, "import").expect("valid");
        assert_eq!((mesh.nodes.len(), mesh.networks[1].members.len()), (3, 2));
    }

    #[test]
    fn many_members() {
        let names: Vec<String> = (1..=8).map(|number| format!("n{number}")).collect();
        let mut draft = Draft { port: 4789, ..Draft::default() };
        draft.nodes = names.iter().zip(1..).map(|(name, number)| node(name, &format!("192.0.2.{number}"))).collect();
        draft.networks =
            vec![DraftNetwork { name: "lan".into(), vni: 1, members: names[1..].to_vec(), ..DraftNetwork::default() }];
        let text = draft.to_toml();
        assert!(text.contains("members = [\n    \"n2\",\n    \"n3\",\n"), "{text}");
        assert_eq!(Mesh::from_toml(&text, "import").expect("valid").networks[0].members.len(), 7);
    }
}
