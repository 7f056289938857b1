//! What l2mesh could leave behind, or change, on a host.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;

use crate::host::Host;

/// A host's interfaces, addresses, queueing disciplines, filters, attached programs, own pins, agents and their sockets: one line
/// each.
/// Counters and lifetimes are not in it.
#[derive(Clone, PartialEq, Eq)]
pub struct State(BTreeSet<String>);

impl Host {
    /// What is there now.
    #[must_use]
    #[track_caller]
    pub fn state(&self) -> State {
        let devices = self.links();
        let mut lines: BTreeSet<String> = devices.iter().map(link_line).collect();
        let names: Vec<&str> = devices.iter().filter_map(|link| link["ifname"].as_str()).collect();
        for address in self.ip_json(&["address", "show"]) {
            for entry in address["addr_info"].as_array().into_iter().flatten() {
                let (dev, local, bits) = (&address["ifname"], &entry["local"], &entry["prefixlen"]);
                lines.insert(format!("address {dev} {local}/{bits}"));
            }
        }
        for qdisc in self.run("tc qdisc show").stdout.lines() {
            lines.insert(qdisc.split(" refcnt ").next().unwrap_or(qdisc).trim().to_owned());
        }
        for (name, side) in names.iter().flat_map(|name| ["ingress", "egress"].map(|side| (*name, side))) {
            // Without clsact there is nothing to show, and tc may say so with a failure.
            let filters = self.try_exec("tc", &["filter", "show", "dev", name, side]).stdout;
            lines.extend(filters.lines().map(|filter| format!("{name} {side}: {}", filter.trim())));
        }
        lines.extend(self.in_namespace(|| names.iter().flat_map(|name| programs(name)).collect::<Vec<_>>()));
        pins(&self.pin_dir(), &mut lines);
        pins(&self.sockets(), &mut lines);
        let sockets = self.in_namespace(|| fs::read_to_string("/proc/thread-self/net/unix"));
        let sockets = sockets.expect("the sockets of a namespace");
        lines.extend(sockets.lines().filter_map(|line| Some(format!("agent {}", line.split_once("@l2mesh")?.1))));
        State(lines)
    }

    /// Panics unless everything is as it was.
    #[track_caller]
    pub fn assert_state(&self, before: &State) {
        self.state().assert_is(before);
    }
}

impl State {
    /// Panics unless it is the same as another.
    #[track_caller]
    pub fn assert_is(&self, before: &Self) {
        let now = self;
        let show =
            |lines: &mut dyn Iterator<Item = &String>| lines.fold(String::new(), |all, line| all + "\n  " + line);
        let gone = show(&mut before.0.difference(&now.0));
        let new = show(&mut now.0.difference(&before.0));
        assert!(gone.is_empty() && new.is_empty(), "gone:{gone}\nnew:{new}");
    }

    /// With every line changed.
    #[must_use]
    pub fn map_lines(self, change: impl Fn(&str) -> String) -> Self {
        Self(self.0.iter().map(|line| change(line)).collect())
    }

    /// The lines in which `word` stands.
    #[must_use]
    pub fn lines(&self, word: &str) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|line| line.contains(word)).collect()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn link_line(link: &Value) -> String {
    let fields = ["ifname", "ifindex", "address", "mtu", "qdisc", "master", "group", "ifalias", "promiscuity", "xdp"];
    let fields = fields.map(|field| link[field].to_string()).join(" ");
    let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    format!("link {fields} {} up={up}", link["linkinfo"]["info_kind"])
}

/// Programs on tcx, which `tc` does not show.
fn programs(interface: &str) -> Vec<String> {
    let at = |side: TcAttachType| {
        let found = SchedClassifier::query_tcx(interface, side);
        // An interface may go between the list and this question.
        let programs = found.map(|(_, programs)| programs).unwrap_or_default();
        programs
            .into_iter()
            .map(move |it| format!("{interface} {side:?}: {} {}", it.id(), it.name_as_str().unwrap_or("?")))
    };
    at(TcAttachType::Ingress).chain(at(TcAttachType::Egress)).collect()
}

fn pins(directory: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        lines.insert(format!("pin {}", path.display()));
        if path.is_dir() {
            pins(&path, lines);
        }
    }
}
