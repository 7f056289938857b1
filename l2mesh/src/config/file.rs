//! The TOML file: its tables as they are written, before any value is judged.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origin, Report, Source};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T> At<T> {
    pub(super) fn flag(flag: &'static str, value: T) -> Self {
        Self { value, origin: Origin::Flag(flag) }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = toml::Spanned::<T>::deserialize(deserializer)?;
        let origin = Origin::Offset(spanned.span().start);
        Ok(Self { value: spanned.into_inner(), origin })
    }
}

/// An integer or a string: which of them a key wants is judged with its range.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a whole number or a text in quotes")]
pub(super) enum Scalar {
    Integer(i64),
    Text(String),
}

/// As in TOML.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// One text or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text in quotes or a list of them")]
pub(super) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::More(texts) => texts,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a mesh: the tables [underlay], [probe], [[node]] and [[network]]")]
pub(super) struct RawMesh {
    #[serde(default)]
    pub(super) underlay: RawUnderlay,
    pub(super) probe: Option<RawProbe>,
    #[serde(default)]
    pub(super) node: Vec<At<RawNode>>,
    #[serde(default)]
    pub(super) network: Vec<At<RawNetwork>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table [underlay]")]
pub(super) struct RawUnderlay {
    pub(super) port: Option<At<Scalar>>,
    pub(super) tx_hook: Option<At<String>>,
    pub(super) private_port: Option<bool>,
    pub(super) fdb_size: Option<At<Scalar>>,
    pub(super) fdb_age: Option<At<Scalar>>,
    pub(super) move_limit: Option<At<Scalar>>,
    pub(super) move_freeze: Option<At<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table [probe]")]
pub(super) struct RawProbe {
    pub(super) interval: Option<At<Scalar>>,
    pub(super) misses: Option<At<Scalar>>,
    pub(super) recover: Option<At<Scalar>>,
    pub(super) relay_interval: Option<At<Scalar>>,
    pub(super) loss_limit: Option<At<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table [[node]]")]
pub(super) struct RawNode {
    pub(super) name: Option<At<String>>,
    pub(super) id: Option<At<Scalar>>,
    pub(super) address: Option<At<String>>,
    pub(super) kind: Option<At<String>>,
    pub(super) relay: Option<At<bool>>,
    pub(super) probes: Option<At<bool>>,
    pub(super) udp_checksum: Option<bool>,
    pub(super) relays: Option<Vec<At<String>>>,
    #[serde(default)]
    pub(super) from: BTreeMap<String, At<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table [[network]]")]
pub(super) struct RawNetwork {
    pub(super) name: Option<At<String>>,
    pub(super) vni: Option<At<Scalar>>,
    pub(super) interface: Option<At<String>>,
    pub(super) bridge: Option<At<String>>,
    pub(super) members: Option<At<Vec<At<String>>>>,
    #[serde(default)]
    pub(super) addresses: BTreeMap<String, At<OneOrMore>>,
    pub(super) mtu: Option<At<Scalar>>,
    #[serde(default)]
    pub(super) mac: Vec<At<RawMac>>,
    pub(super) link_local: Option<bool>,
    pub(super) mss_clamp: Option<bool>,
    pub(super) tos: Option<At<Scalar>>,
    pub(super) neighbour_suppression: Option<bool>,
    pub(super) storm_limit: Option<At<Scalar>>,
    pub(super) macs_per_peer: Option<At<Scalar>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table [[network.mac]]")]
pub(super) struct RawMac {
    pub(super) mac: Option<At<String>>,
    pub(super) node: Option<At<String>>,
}

/// The tables of `text`.
///
/// # Errors
/// The first thing that is no TOML, an unknown key or a value of the wrong type: the parser stops there.
pub(super) fn parse(text: &str, name: &str) -> Result<RawMesh, ConfigErrors> {
    let in_our_words = |error| in_our_words(&error, name, text);
    let tables = DeTable::parse(text).map_err(in_our_words)?;
    let mut report = Report::new(Source::File { name, text });
    shapes(&mut report, tables.get_ref());
    report.finish(())?;
    Ok(RawMesh::deserialize(toml::Deserializer::from(tables)).map_err(in_our_words)?)
}

/// Single tables are single and lists are lists: serde would take `[[probe]]` for a list of the values of its keys.
fn shapes(report: &mut Report<'_>, tables: &DeTable<'_>) {
    for (name, value) in tables {
        let origin = Origin::Offset(value.span().start);
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("underlay" | "probe", DeValue::Table(_)) => {}
            (single @ ("underlay" | "probe"), _) => {
                report.error(origin, format!("there is one table {single}: begin it with [{single}]"));
            }
            (list @ ("node" | "network"), value) => {
                list_of_tables(report, origin, list, value);
                for network in value.as_array().into_iter().flatten() {
                    let macs = network.get_ref().as_table().and_then(|network| network.get("mac"));
                    if let Some(macs) = macs {
                        list_of_tables(report, Origin::Offset(macs.span().start), "network.mac", macs.get_ref());
                    }
                }
            }
            _ => {}
        }
    }
}

fn list_of_tables(report: &mut Report<'_>, origin: Origin, name: &str, value: &DeValue<'_>) {
    if !value.as_array().is_some_and(|items| items.iter().all(|item| item.get_ref().is_table())) {
        report.error(origin, format!("there can be more than one {name}: begin each with [[{name}]]"));
    }
}

/// The parser's message on one line.
fn in_our_words(error: &toml::de::Error, name: &str, text: &str) -> ConfigError {
    let origin = error.span().map_or(Origin::Whole, |span| Origin::Offset(span.start));
    let message = error.message().replace('\n', ", ");
    let message = match message.rsplit_once(", expected ") {
        Some((found, "any value")) if found.ends_with("as i128") => "the number has more than 63 bits".into(),
        Some((found, wanted)) => {
            let wanted = match wanted {
                "a boolean" => "true or false",
                "a sequence" => "a list",
                "a string" => "a text in quotes",
                other => other,
            };
            format!("{}, expected {wanted}", found.replace("unknown field", "unknown key"))
        }
        None if message == "duplicate key" => "this key or table stands there twice: remove one".into(),
        None => message,
    };
    ConfigError::new(Report::new(Source::File { name, text }).location(origin), message)
}
