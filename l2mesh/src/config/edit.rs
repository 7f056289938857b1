//! One thing changed in the text of a configuration; comments and all else stay as they are written.

mod layout;

use clap::Args;
use l2mesh_common::wire::{MacAddr, Vni};
use serde::{Deserialize, Serialize};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value, value};

use self::layout::{append, as_parsed, as_written, put_back, remove_value};

/// What is changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Edit {
    AddNode(NewNode),
    RemoveNode(Named),
    AddNetwork(NewNetwork),
    RemoveNetwork(Named),
    AddMac(StaticMac),
    RemoveMac(StaticMac),
}

/// A node or a network that is there.
#[derive(Clone, PartialEq, Eq, Debug, Args, Serialize, Deserialize)]
pub(crate) struct Named {
    /// How it is called
    pub name: String,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Args, Serialize, Deserialize)]
pub(crate) struct NewNode {
    /// How it is called
    pub name: String,
    /// Where the others reach it: an IP address or a host name
    #[arg(long)]
    pub address: String,
    /// It may relay for the others
    #[arg(long)]
    #[serde(default)]
    pub relay: bool,
    /// It is a plain kernel vxlan device
    #[arg(long)]
    #[serde(default)]
    pub plain: bool,
    /// Its id on the wire [default: follows from the name]
    #[arg(long)]
    #[serde(default)]
    pub id: Option<u32>,
    /// A network that lists its members, and of which it is to be one; once for each
    #[arg(long, value_name = "NETWORK")]
    #[serde(default)]
    pub network: Vec<String>,
}

/// A network.
#[derive(Clone, PartialEq, Eq, Debug, Args, Serialize, Deserialize)]
pub(crate) struct NewNetwork {
    /// How it is called
    pub name: String,
    /// Its identifier: 1 to 16777215, decimal or 0x and hexadecimal
    #[arg(long)]
    #[serde(deserialize_with = "vni", serialize_with = "number")]
    pub vni: Vni,
    /// Name of its interface [default: l2m and the VNI in hexadecimal]
    #[arg(long)]
    #[serde(default)]
    pub interface: Option<String>,
    /// The bridge of which its interface is to be a port
    #[arg(long)]
    #[serde(default)]
    pub bridge: Option<String>,
    /// A node in it; once for each [default: every node]
    #[arg(long, value_name = "NODE")]
    #[serde(default)]
    pub member: Vec<String>,
    /// An address of this host in it, or NODE=ADDRESS/LENGTH; once for each
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    #[serde(default)]
    pub address: Vec<String>,
}

/// A MAC address that stays behind one node.
#[derive(Clone, PartialEq, Eq, Debug, Args, Serialize, Deserialize)]
pub(crate) struct StaticMac {
    /// The MAC address
    #[serde(deserialize_with = "mac", serialize_with = "text")]
    pub mac: MacAddr,
    /// Its network
    #[arg(long)]
    #[serde(deserialize_with = "vni", serialize_with = "number")]
    pub vni: Vni,
    /// The node behind which it is
    #[arg(long = "peer", value_name = "NODE")]
    #[serde(default)]
    pub peer: Option<String>,
}

fn vni<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vni, D::Error> {
    Vni::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn number<S: serde::Serializer>(vni: &Vni, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(vni.get())
}

fn mac<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<MacAddr, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn text<S: serde::Serializer>(mac: &MacAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mac)
}

/// `text` with one thing changed; `own` is this host's node. What comes of it is judged as any configuration is.
///
/// # Errors
/// What is to be removed is not there, in one sentence; or the text is no TOML.
pub(crate) fn edited(text: &str, edit: &Edit, own: &str) -> Result<String, String> {
    let mut document: DocumentMut = as_parsed(text).parse().map_err(|error| format!("cannot be changed: {error}"))?;
    match edit {
        Edit::AddNode(node) => add_node(&mut document, node)?,
        Edit::RemoveNode(Named { name }) => remove_node(&mut document, name)?,
        Edit::AddNetwork(network) => add_network(&mut document, network, own),
        Edit::RemoveNetwork(Named { name }) => remove_network(&mut document, name)?,
        Edit::AddMac(mac) => add_mac(&mut document, mac)?,
        Edit::RemoveMac(mac) => remove_mac(&mut document, mac)?,
    }
    Ok(as_written(text, document.to_string()))
}

fn add_node(document: &mut DocumentMut, node: &NewNode) -> Result<(), String> {
    let mut fields = vec![("name", Value::from(&node.name)), ("address", Value::from(&node.address))];
    fields.extend(node.plain.then(|| ("kind", Value::from("vxlan"))));
    fields.extend(node.relay.then(|| ("relay", Value::from(true))));
    fields.extend(node.id.map(|id| ("id", Value::from(i64::from(id)))));
    push(document.as_table_mut(), "node", fields);
    for name in &node.network {
        let network = find(document, "network", |it| text_of(it, "name") == Some(name))
            .ok_or_else(|| format!("no network is called {name:?}: see `l2mesh maps networks`"))?;
        // Without a list every node is a member.
        if let Some(members) = network.get_mut("members").and_then(Item::as_array_mut) {
            append(members, &node.name);
        }
    }
    Ok(())
}

/// With everything that refers to it.
fn remove_node(document: &mut DocumentMut, name: &str) -> Result<(), String> {
    let mut spare = None;
    if !remove(document.as_table_mut(), "node", |it| text_of(it, "name") == Some(name), &mut spare) {
        return Err(format!("no node is called {name:?}: see `l2mesh maps peers`"));
    }
    for node in tables(document, "node") {
        without(node, "relays", name);
        without_key(node, "from", name);
    }
    for network in tables(document, "network") {
        without(network, "members", name);
        without_key(network, "addresses", name);
        while remove(network, "mac", |it| text_of(it, "node") == Some(name), &mut None) {}
    }
    put_back(document, spare);
    Ok(())
}

fn add_network(document: &mut DocumentMut, network: &NewNetwork, own: &str) {
    let vni = i64::from(network.vni.get());
    let mut fields = vec![("name", Value::from(&network.name)), ("vni", Value::from(vni))];
    fields.extend(network.interface.as_ref().map(|it| ("interface", Value::from(it))));
    fields.extend(network.bridge.as_ref().map(|it| ("bridge", Value::from(it))));
    if !network.member.is_empty() {
        fields.push(("members", Value::Array(network.member.iter().collect())));
    }
    if !network.address.is_empty() {
        let mut addresses = InlineTable::new();
        for address in &network.address {
            let (node, address) = address.split_once('=').unwrap_or((own, address));
            let of_node = addresses.entry(node).or_insert_with(|| Value::Array(Array::new()));
            if let Some(list) = of_node.as_array_mut() {
                list.push(address);
            }
        }
        fields.push(("addresses", Value::InlineTable(addresses)));
    }
    push(document.as_table_mut(), "network", fields);
}

fn remove_network(document: &mut DocumentMut, name: &str) -> Result<(), String> {
    let mut spare = None;
    if remove(document.as_table_mut(), "network", |it| text_of(it, "name") == Some(name), &mut spare) {
        put_back(document, spare);
        return Ok(());
    }
    Err(format!("no network is called {name:?}: see `l2mesh maps networks`"))
}

fn add_mac(document: &mut DocumentMut, StaticMac { mac, vni, peer }: &StaticMac) -> Result<(), String> {
    let peer = peer.as_ref().ok_or_else(|| format!("behind which node is {mac}? Say so with --peer"))?;
    let is_inline = document.get("network").is_some_and(Item::is_value);
    let network = network_of(document, *vni)?;
    if is_inline && !network.contains_key("mac") {
        // There is no [[network.mac]] within braces.
        let mut macs = Value::from(Array::new());
        if let Some(last) = network.iter_mut().last().and_then(|(_, last)| last.as_value_mut()) {
            let room = last.decor().suffix().cloned().unwrap_or_default();
            last.decor_mut().set_suffix("");
            macs.decor_mut().set_prefix(" ");
            macs.decor_mut().set_suffix(room);
        }
        network.insert("mac", Item::Value(macs));
    }
    push(network, "mac", vec![("mac", Value::from(mac.to_string())), ("node", Value::from(peer))]);
    Ok(())
}

fn remove_mac(document: &mut DocumentMut, StaticMac { mac, vni, peer }: &StaticMac) -> Result<(), String> {
    let network = network_of(document, *vni)?;
    let is_it = |it: &dyn TableLike| {
        text_of(it, "mac").and_then(|text| text.parse().ok()) == Some(*mac)
            && peer.as_ref().is_none_or(|peer| text_of(it, "node") == Some(peer))
    };
    let mut spare = None;
    if remove(network, "mac", is_it, &mut spare) {
        put_back(document, spare);
        return Ok(());
    }
    Err(format!("network VNI {vni} has no static entry for {mac}: `l2mesh mac flush` removes what was learned"))
}

fn network_of(document: &mut DocumentMut, vni: Vni) -> Result<&mut dyn TableLike, String> {
    let is_it = |it: &dyn TableLike| {
        let written = it.get("vni");
        let number = written.and_then(Item::as_integer).and_then(|vni| u32::try_from(vni).ok());
        let text = written.and_then(Item::as_str).and_then(|vni| vni.parse().ok()).map(Vni::get);
        number.or(text) == Some(vni.get())
    };
    find(document, "network", is_it).ok_or_else(|| format!("no network has VNI {vni}: see `l2mesh maps networks`"))
}

/// The tables of a list, whichever way it is written: `[[key]]` or `key = [{..}]`.
fn tables<'a>(document: &'a mut DocumentMut, key: &str) -> Vec<&'a mut dyn TableLike> {
    match document.get_mut(key) {
        Some(Item::ArrayOfTables(tables)) => tables.iter_mut().map(|it| it as &mut dyn TableLike).collect(),
        Some(Item::Value(Value::Array(array))) => {
            array.iter_mut().filter_map(Value::as_inline_table_mut).map(|it| it as &mut dyn TableLike).collect()
        }
        _ => Vec::new(),
    }
}

fn find<'a>(
    document: &'a mut DocumentMut,
    key: &str,
    is_it: impl Fn(&dyn TableLike) -> bool,
) -> Option<&'a mut dyn TableLike> {
    tables(document, key).into_iter().find(|it| is_it(&**it))
}

fn text_of<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a str> {
    table.get(key)?.as_str()
}

/// Adds a table to a list, in the way in which the list is written.
fn push(table: &mut dyn TableLike, key: &str, fields: Vec<(&str, Value)>) {
    if let Some(Item::Value(Value::Array(array))) = table.get_mut(key) {
        let inline: InlineTable = fields.into_iter().collect();
        append(array, inline);
        return;
    }
    let item = table.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if let Some(tables) = item.as_array_of_tables_mut() {
        let mut new = Table::new();
        for (key, field) in fields {
            new.insert(key, value(field));
        }
        // Set apart from the one before it as that is.
        let before = tables.len().checked_sub(1).filter(|place| *place > 0).and_then(|place| tables.get(place));
        let is_close = before.and_then(|it| it.decor().prefix()?.as_str()).is_some_and(|text| !text.starts_with('\n'));
        new.decor_mut().set_prefix(if is_close { "" } else { "\n" });
        tables.push(new);
    }
}

/// Removes the first table of a list that is it. False if none is. What stands before it goes to `spare`, with its place.
fn remove(
    table: &mut dyn TableLike,
    key: &str,
    is_it: impl Fn(&dyn TableLike) -> bool,
    spare: &mut Option<(isize, String)>,
) -> bool {
    match table.get_mut(key) {
        Some(Item::ArrayOfTables(tables)) => {
            let Some(place) = tables.iter().position(|it| is_it(it)) else { return false };
            if let Some(gone) = tables.get(place)
                && let Some(position) = gone.position()
            {
                let prefix = gone.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
                *spare = Some((position, prefix.to_owned()));
            }
            tables.remove(place);
            true
        }
        Some(Item::Value(Value::Array(array))) => {
            let is_it = |it: &Value| it.as_inline_table().is_some_and(|it| is_it(it));
            let place = array.iter().position(is_it);
            place.inspect(|&place| remove_value(array, place)).is_some()
        }
        _ => false,
    }
}

/// Removes a text from an array.
fn without(table: &mut dyn TableLike, key: &str, text: &str) {
    if let Some(array) = table.get_mut(key).and_then(Item::as_array_mut) {
        let place = array.iter().position(|it| it.as_str() == Some(text));
        if let Some(place) = place {
            remove_value(array, place);
        }
    }
}

/// Removes a key from a table within.
fn without_key(table: &mut dyn TableLike, key: &str, name: &str) {
    let Some(within) = table.get_mut(key).and_then(Item::as_table_like_mut) else { return };
    let suffix = within.remove(name).and_then(|gone| gone.as_value()?.decor().suffix().cloned());
    if within.is_empty() {
        table.remove(key);
    } else if let Some(suffix) = suffix
        && let Some(inline) = table.get_mut(key).and_then(Item::as_inline_table_mut)
        && let Some((_, last)) = inline.iter_mut().last()
    {
        // The room before the brace.
        last.decor_mut().set_suffix(suffix);
    }
}

#[cfg(test)]
mod tests;
