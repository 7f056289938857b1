//! What `l2mesh import` prints, and what it is good for.

use std::fs;

use serde_json::Value;

use crate::host::Host;
use crate::lab::Lab;
use crate::mesh::Agent;

/// What `l2mesh import` prints with these arguments; nothing on the host is different after it.
#[track_caller]
pub fn import(host: &Host, args: &[&str]) -> String {
    let before = host.state();
    let text = host.l2mesh_text(&[&["import"], args].concat());
    host.assert_state(&before);
    text
}

/// A file of the lab; returns its path.
#[track_caller]
pub fn write(lab: &Lab, name: &str, text: &str) -> String {
    let path = lab.directory().join(name);
    fs::create_dir_all(path.parent().expect("a parent")).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path.display().to_string()
}

/// What `l2mesh check` says of the text, which must be valid. What this version does not carry yet does not count.
#[track_caller]
pub fn check(lab: &Lab, host: &Host, text: &str) -> Value {
    let path = write(lab, "import.toml", text);
    let output = host.try_l2mesh(&["check", "--json", "--config", &path]);
    let found: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(found["valid"], true, "{found:#}\n{text}");
    found
}

/// Panics unless each of these is a line of the text, or a comment of it that wraps.
#[track_caller]
pub fn assert_lines(text: &str, lines: &[&str]) {
    let flat = text.replace("\n#   ", " ");
    for line in lines {
        let found = flat.lines().chain(text.lines()).any(|found| found == *line);
        assert!(found, "{line}\nis not in\n{text}");
    }
}

/// Attaches as the text itself says, with these further arguments.
#[must_use = "dropping the agent ends it"]
#[track_caller]
pub fn attach_as_told(lab: &Lab, host: &Host, text: &str, more: &[&str]) -> Agent {
    let path = write(lab, "mesh.toml", text);
    let command = text.lines().find_map(|line| line.strip_prefix("#   l2mesh attach --iface ")).expect("a command");
    let words: Vec<&str> = command.split(' ').map(|word| if word == "FILE" { &path } else { word }).collect();
    host.attach_on(words[0], &[&words[1..], more].concat())
}
