//! The documentation says what is: its configurations are valid, its commands exist, and so do the counters and files that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use l2mesh_common::verdict::Verdict;
use l2mesh_tests::mesh::binary;
use l2mesh_tests::{Lab, Segment, Wiring, traffic};

/// A block between three backticks.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// README and everything in docs.
fn pages() -> Vec<(PathBuf, String)> {
    let directory = fs::read_dir(root().join("docs")).expect("docs");
    let mut paths: Vec<PathBuf> = directory.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.push(root().join("README.md"));
    paths.sort();
    assert!(paths.len() > 5, "{paths:?}");
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("a text"))).collect()
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (path, text) in pages() {
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(text.lines()) {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => {
                    let place = format!("{}:{number}", path.file_name().expect("a name").display());
                    open = Some(Block { place, language: language.to_owned(), text: String::new() });
                }
                (None, Some(block)) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block without end", path.display());
    }
    blocks
}

/// What a file has to have besides what an excerpt shows.
fn completed(text: &str) -> String {
    let mut text = text.to_owned();
    if !text.contains("[[network]]") {
        text += "\n[[node]]\nname = \"another\"\naddress = \"192.0.2.99\"\n[[network]]\nname = \"lan\"\nvni = 16\n";
    }
    text
}

#[test]
fn configurations_are_valid() {
    let path = std::env::temp_dir().join(format!("l2mesh-docs-{}.toml", std::process::id()));
    let mut checked = 0;
    for Block { place, language, text } in blocks() {
        let text = match &*language {
            "toml" => completed(&text),
            // A file that a shell writes.
            _ if text.contains("<<'END'") => {
                let (_, rest) = text.split_once("<<'END'").expect("a here-document");
                let (_, rest) = rest.split_once('\n').expect("its first line");
                rest.split_once("\nEND").expect("its end").0.to_owned()
            }
            _ => continue,
        };
        fs::write(&path, &text).expect("a file");
        let output = Command::new(binary()).args(["check", "--config"]).arg(&path).output().expect("l2mesh runs");
        assert!(output.status.success(), "{place}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
        checked += 1;
    }
    fs::remove_file(&path).expect("it is there");
    assert!(checked >= 6, "{checked} configurations");
}

/// The arguments of `l2mesh` in a line of a shell.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")).unwrap_or(line);
    let line = line.split(" # ").next()?.split(['|', '>', '<']).next()?;
    let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "&").collect();
    let at = words.iter().position(|word| *word == "l2mesh")?;
    // At another host, or at this one: not the name of a package.
    let is_command = at == 0 || words[0] == "ssh";
    is_command.then(|| words[at + 1..].to_vec())
}

#[test]
fn commands_exist() {
    let mut checked = 0;
    for Block { place, language, text } in blocks() {
        if !matches!(&*language, "console" | "sh") {
            continue;
        }
        for args in text.lines().filter_map(arguments) {
            // Whatever stands before it is looked at first, and nothing is done.
            let output = Command::new(binary()).args(&args).arg("--help").output().expect("l2mesh runs");
            assert!(output.status.success(), "{place}: l2mesh {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} commands");
    // That a wrong one would be found.
    for wrong in [&["capture", "--points", "drop"][..], &["captures"], &["capture", "--point", "in"]] {
        let output = Command::new(binary()).args(wrong).arg("--help").output().expect("l2mesh runs");
        assert!(!output.status.success(), "{wrong:?}");
    }
}

#[test]
fn counters_exist() {
    let labels: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.label()).collect();
    let text = fs::read_to_string(root().join("docs/troubleshooting.md")).expect("a text");
    let mut checked = 0;
    for line in text.lines().filter(|line| line.contains(" grows")) {
        let (before, _) = line.split_once(" grows").expect("it is there");
        for name in before.split('`').skip(1).step_by(2).filter(|name| !name.contains('…')) {
            if name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && name != "down" {
                assert!(labels.contains(&name), "no counter {name:?}: {line}");
                checked += 1;
            }
        }
    }
    assert!(checked > 8, "{checked} counters");
}

#[test]
fn links_lead_somewhere() {
    for (path, text) in pages() {
        let directory = path.parent().expect("a directory");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().expect("something");
            if !file.is_empty() && !link.starts_with("http") {
                assert!(directory.join(file).exists(), "{}: {link}", path.display());
            }
        }
    }
}

/// The commands of docs/interop.md for a vxlan device, in a lab: only the addresses are other ones.
#[test]
fn a_vxlan_device_as_the_documentation_makes_it() {
    let lab = Lab::new("docs");
    let [node, old] = lab.switch(["hetzner", "old-box"], &Wiring::default());
    let here = |text: &str| {
        let [near, far] = [node.vtep(), old.vtep()].map(|address| address.to_string());
        text.replace("203.0.113.10", &near).replace("203.0.113.40", &far)
    };
    let page: Vec<Block> = blocks().into_iter().filter(|block| block.place.starts_with("interop.md")).collect();
    let (file, commands) = (&page[0], &page[1]);
    assert_eq!((&*file.language, &*commands.language), ("toml", "console"));
    let path = lab.directory().join("mesh.toml");
    fs::write(&path, here(&file.text)).expect("a file in the lab's directory");
    let _agent = node.attach(&["--config", &path.display().to_string()]);
    for line in here(&commands.text).lines() {
        old.run(line.strip_prefix("# ").expect("a command of root's"));
    }
    Segment::address(&node, "l2m10", 0);
    Segment::address(&old, "vx0", 1);
    assert_eq!(traffic::ping(&node, Segment::v4(1), 3).lost(), 0);
    assert_eq!(traffic::ping_sized(&old, Segment::v4(0), 3, 1450 - 28).lost(), 0);
}
