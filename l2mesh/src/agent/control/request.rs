//! What an agent can be asked through its socket, and what it answers: one JSON object a line each way.

use clap::Args;
use l2mesh_common::wire::{InvalidVni, Vni};
use serde::{Deserialize, Serialize};

use crate::config::{Named, NewNetwork, NewNode, StaticMac};

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Who is there.
    About,
    /// Read the configuration again.
    Reload,
    PeerAdd(Kept<NewNode>),
    PeerDel(Kept<Named>),
    NetworkAdd(Kept<NewNetwork>),
    NetworkDel(Kept<Named>),
    MacAdd(Kept<StaticMac>),
    MacDel(Kept<StaticMac>),
    /// Forget MAC addresses that were learned.
    MacFlush(Flush),
    /// What happened; with `follow`, and what happens from now on.
    Events {
        #[serde(default)]
        follow: bool,
    },
}

/// A change of the configuration, which lasts until it is read again, or is written into the file.
#[derive(Clone, PartialEq, Eq, Debug, Args, Serialize, Deserialize)]
pub(crate) struct Kept<T: Args> {
    /// The change.
    #[serde(flatten)]
    #[command(flatten)]
    pub(crate) change: T,
    /// Write it into the file, too; else it lasts until the next reload or restart
    #[arg(long)]
    #[serde(default)]
    pub(crate) save: bool,
}

/// Which learned MAC addresses are forgotten: those to which all that is said applies.
#[derive(Clone, PartialEq, Eq, Default, Debug, Args, Serialize, Deserialize)]
pub(crate) struct Flush {
    /// Only in this network: decimal or 0x and hexadecimal
    #[arg(long, value_parser = vni)]
    #[serde(default)]
    pub(crate) vni: Option<u32>,
    /// Only behind this node
    #[arg(long, value_name = "NODE")]
    #[serde(default)]
    pub(crate) peer: Option<String>,
    /// Only this one
    #[arg(long)]
    #[serde(default)]
    pub(crate) mac: Option<String>,
}

fn vni(text: &str) -> Result<u32, InvalidVni> {
    text.parse().map(Vni::get)
}

impl Request {
    /// What a line says. A key that is not known is refused: without it, a request may mean much more than was meant.
    ///
    /// # Errors
    /// It is no request that we know.
    pub(crate) fn from_json(line: &[u8]) -> serde_json::Result<Self> {
        let said: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
        // From the line itself, which may say a key twice.
        let request: Self = serde_json::from_slice(line)?;
        let known = serde_json::to_value(&request)?;
        match said.keys().find(|key| known.get(key).is_none()) {
            Some(key) => Err(serde::de::Error::custom(format!("unknown key `{key}`"))),
            None => Ok(request),
        }
    }

    /// True if the answer has many lines, and ends when whoever asked hangs up.
    pub(crate) const fn is_stream(&self) -> bool {
        match self {
            Self::About
            | Self::Reload
            | Self::PeerAdd(_)
            | Self::PeerDel(_)
            | Self::NetworkAdd(_)
            | Self::NetworkDel(_)
            | Self::MacAdd(_)
            | Self::MacDel(_)
            | Self::MacFlush(_) => false,
            Self::Events { follow } => *follow,
        }
    }
}

/// The answer to all but streams.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// It was done.
    pub(crate) ok: bool,
    /// Why not: one sentence, or one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// What has changed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<String>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// Who answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<About>,
}

impl Reply {
    /// It was not done.
    pub(crate) fn refusal(reason: impl Into<String>) -> Self {
        Self { error: Some(reason.into()), ..Self::default() }
    }
}

/// An agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    /// Its process.
    pub(crate) pid: u32,
    /// Of l2mesh.
    pub(crate) version: String,
    /// Its node.
    pub(crate) node: String,
    /// The underlay interface.
    pub(crate) interface: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_objects_with_a_verb() {
        for text in [
            r#"{"do":"about"}"#,
            r#"{"do":"reload"}"#,
            r#"{"do":"peer-add","name":"c","address":"192.0.2.3","relay":true,"plain":false,"id":null,"network":["lan"],"save":true}"#,
            r#"{"do":"peer-del","name":"c","save":false}"#,
            r#"{"do":"network-del","name":"lan","save":false}"#,
            r#"{"do":"mac-add","mac":"52:54:00:00:00:01","vni":16,"peer":"c","save":false}"#,
            r#"{"do":"mac-flush","vni":16,"peer":null,"mac":null}"#,
            r#"{"do":"events","follow":true}"#,
        ] {
            let request = Request::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(serde_json::to_string(&request).expect("can be said"), text);
        }
        for text in [r#"{"do":"peer-add","name":"c","address":"192.0.2.3"}"#, r#"{"do":"mac-flush"}"#] {
            assert!(Request::from_json(text.as_bytes()).is_ok(), "{text}: the rest has defaults");
        }
        for text in [
            "",
            "{}",
            "[]",
            "\u{0}",
            r#"{"do":"fly"}"#,
            r#"{"do":1}"#,
            r#""about""#,
            r#"{"do":"peer-add","name":"c"}"#,
            r#"{"do":"peer-add","name":1,"address":"192.0.2.3"}"#,
            r#"{"do":"mac-add","mac":"52:54","vni":16}"#,
            r#"{"do":"mac-add","mac":"52:54:00:00:00:01","vni":0}"#,
            r#"{"do":"mac-flush","node":"c"}"#,
            r#"{"do":"peer-del","name":"c","safe":true}"#,
            r#"{"do":"about","do":"reload"}"#,
        ] {
            assert!(Request::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn replies_are_short() {
        let done = Reply { ok: true, changes: vec!["node c added".into()], ..Reply::default() };
        let text = serde_json::to_string(&done).expect("can be said");
        assert_eq!(text, r#"{"ok":true,"changes":["node c added"]}"#);
        let text = serde_json::to_string(&Reply::refusal("no")).expect("can be said");
        assert_eq!(text, r#"{"ok":false,"error":"no"}"#);
    }
}
