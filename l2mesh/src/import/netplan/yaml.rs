//! YAML as a tree in which everything knows its file and line, and several files laid over each other.

use std::collections::HashMap;

use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, ScanError, YamlData};
use saphyr_parser::{Event, Parser};

use crate::config::{ConfigError, Location};

/// How many lists and mappings may stand in each other: netplan has six, and a tree of thousands costs all of the stack.
const DEPTH_MAX: usize = 64;

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    pub(super) at: Location,
    pub(super) value: Value,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// `key:` with nothing behind it.
    Nothing,
    /// Any single value, as text.
    Scalar(String),
    Sequence(Vec<Node>),
    /// In the order of the file.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands.
    pub(super) at: Location,
    pub(super) node: Node,
}

impl Node {
    /// The first document of a file; nothing if there is none.
    ///
    /// # Errors
    /// It is no YAML, with the line.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self, ConfigError> {
        let documents = check_depth(text).and_then(|()| MarkedYaml::load_from_str(text)).map_err(|error| {
            let at = Location { place: place.into(), line: Some(error.marker().line()) };
            ConfigError::new(at, format!("no YAML: {}", error.info()))
        })?;
        let empty = Self { at: Location { place: place.into(), line: None }, value: Value::Nothing };
        documents.first().map_or(Ok(empty), |document| node(document, place))
    }

    /// What a later file says replaces what this one says; lists grow (as netplan does it).
    pub(super) fn overlay(&mut self, later: Self) {
        match (&mut self.value, later) {
            (Value::Mapping(entries), Self { value: Value::Mapping(others), .. }) => {
                for other in others {
                    match entries.iter_mut().find(|entry| entry.key == other.key) {
                        Some(entry) => entry.node.overlay(other.node),
                        None => entries.push(other),
                    }
                }
            }
            (Value::Sequence(items), Self { value: Value::Sequence(others), .. }) => {
                let new: Vec<Self> =
                    others.into_iter().filter(|other| !items.iter().any(|item| item.value == other.value)).collect();
                items.extend(new);
            }
            (_, later) => *self = later,
        }
    }

    /// The entries of a mapping.
    ///
    /// # Errors
    /// It is something else; `what` it should be.
    pub(super) fn mapping(&self, what: &str) -> Result<&[Entry], ConfigError> {
        match &self.value {
            Value::Mapping(entries) => Ok(entries),
            Value::Nothing => Ok(&[]),
            _ => Err(self.error(format!("{what}: expected keys and values"))),
        }
    }

    /// The items of a list.
    ///
    /// # Errors
    /// It is something else; `what` it should be.
    pub(super) fn sequence(&self, what: &str) -> Result<&[Self], ConfigError> {
        match &self.value {
            Value::Sequence(items) => Ok(items),
            Value::Nothing => Ok(&[]),
            _ => Err(self.error(format!("{what}: expected a list"))),
        }
    }

    /// A single value as text.
    ///
    /// # Errors
    /// It is something else; `what` it should be.
    pub(super) fn scalar(&self, what: &str) -> Result<&str, ConfigError> {
        match &self.value {
            Value::Scalar(text) => Ok(text),
            _ => Err(self.error(format!("{what}: expected one value"))),
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub(super) fn error(&self, text: impl Into<String>) -> ConfigError {
        ConfigError::new(self.at.clone(), text)
    }
}

/// Refuses what is nested too deep, by aliases too, without making anything of it.
fn check_depth(text: &str) -> Result<(), ScanError> {
    // What is open: its anchor, and how deep what is in it goes.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut anchors: HashMap<usize, usize> = HashMap::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        let depth = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                open.push((anchor, 0));
                0
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some((anchor, depth)) = open.pop() else { continue };
                anchors.insert(anchor, depth + 1);
                depth + 1
            }
            Event::Alias(anchor) => anchors.get(&anchor).copied().unwrap_or(0),
            _ => continue,
        };
        if open.len() + depth > DEPTH_MAX {
            return Err(ScanError::new(span.start, format!("more than {DEPTH_MAX} lists and mappings in each other")));
        }
        if let Some((_, deepest)) = open.last_mut() {
            *deepest = depth.max(*deepest);
        }
    }
    Ok(())
}

fn node(yaml: &MarkedYaml<'_>, place: &str) -> Result<Node, ConfigError> {
    let at = Location { place: place.into(), line: Some(yaml.span.start.line()) };
    let value = match &yaml.data {
        YamlData::Value(scalar) => value(scalar),
        YamlData::Representation(text, ..) => Value::Scalar(text.to_string()),
        YamlData::Sequence(items) => {
            Value::Sequence(items.iter().map(|item| node(item, place)).collect::<Result<_, ConfigError>>()?)
        }
        YamlData::Mapping(entries) => {
            let entry = |(key, value): (&MarkedYaml<'_>, &MarkedYaml<'_>)| {
                let key = node(key, place)?;
                let name = key.scalar("a key")?.to_owned();
                Ok(Entry { key: name, at: key.at, node: node(value, place)? })
            };
            Value::Mapping(entries.iter().map(entry).collect::<Result<_, ConfigError>>()?)
        }
        YamlData::Tagged(_, inner) => return node(inner, place),
        YamlData::BadValue | YamlData::Alias(_) => {
            return Err(ConfigError::new(at, "this value cannot be understood"));
        }
    };
    Ok(Node { at, value })
}

fn value(scalar: &Scalar<'_>) -> Value {
    Value::Scalar(match scalar {
        Scalar::Null => return Value::Nothing,
        Scalar::Boolean(on) => on.to_string(),
        Scalar::Integer(number) => number.to_string(),
        Scalar::FloatingPoint(number) => number.to_string(),
        Scalar::String(text) => text.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Node {
        Node::parse(text, "a.yaml").expect("YAML")
    }

    #[test]
    fn files_over_each_other() {
        let mut tree = parse("network:\n  x: {id: 16, list: [a, b]}\n  y: yes\n  z: 1\n");
        tree.overlay(parse("network:\n  x: {list: [b, c], mtu: 1400}\n  y: off\n"));
        let x = tree.get("network").and_then(|it| it.get("x")).expect("x");
        let keys: Vec<_> = x.mapping("x").expect("a mapping").iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["id", "list", "mtu"]);
        let items = x.get("list").expect("a list").sequence("list").expect("a list");
        let texts: Vec<_> = items.iter().map(|item| item.scalar("item").expect("a text")).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        let y = tree.get("network").and_then(|it| it.get("y")).expect("y");
        assert_eq!((y.scalar("y").expect("a text"), y.at.to_string()), ("off", "a.yaml:3".to_owned()));
    }

    /// Such a file once cost the program its stack.
    #[test]
    fn nested_without_end() {
        let levels = 0..10_000;
        let mappings = (0..2000).map(|level| " ".repeat(level) + "a:").collect::<Vec<_>>().join("\n");
        let alias = |level: usize| format!("k{level}: &a{level} [*a{}]", level - 1);
        let aliases = "k0: &a0 [1]\n".to_owned() + &levels.clone().skip(1).map(alias).collect::<Vec<_>>().join("\n");
        for (text, line) in [(mappings, 65), ("- ".repeat(levels.end), 1), (aliases, 64), ("[".repeat(levels.end), 1)] {
            let found = Node::parse(&text, "a.yaml").expect_err("refused").to_string();
            let limit = [" more than 64 lists and mappings in each other", " recursion limit exceeded"];
            assert!(limit.iter().any(|limit| found == format!("a.yaml:{line}: no YAML:{limit}")), "{found}");
        }
        let fits = "- ".repeat(DEPTH_MAX) + "1";
        assert!(Node::parse(&fits, "a.yaml").is_ok());
    }

    #[test]
    fn where_it_is_wrong() {
        for (text, error) in [
            ("a: [1, 2\nb: 3\n", "a.yaml:2: no YAML: "),
            ("a: 1\n  b: 2\n", "a.yaml:2: no YAML: "),
            ("a: 1\na: 2\n", "a.yaml:2: no YAML: "),
            ("a: *b\n", "a.yaml:1: no YAML: "),
        ] {
            let found = Node::parse(text, "a.yaml").expect_err("refused").to_string();
            assert!(found.starts_with(error), "{found}");
        }
        let tree = parse("a:\n  - 1\nb: 2\n");
        let error = |result: Result<&str, ConfigError>| result.expect_err("refused").to_string();
        assert_eq!(error(tree.get("a").expect("a").scalar("x")), "a.yaml:2: x: expected one value");
        let b = tree.get("b").expect("b");
        assert_eq!(b.mapping("x").expect_err("refused").to_string(), "a.yaml:3: x: expected keys and values");
        assert_eq!(b.sequence("x").expect_err("refused").to_string(), "a.yaml:3: x: expected a list");
        assert_eq!(parse("").value, Value::Nothing);
        assert_eq!(parse("---\n").value, Value::Nothing);
    }
}
