//! Files that nobody would write: they are refused or taken, and nothing panics. What is edited in them stays readable.

use std::fs;

use super::{Edit, Mesh, Named, NewNode, changes, edited};

/// Files in an ordinary run; the whole of it has 10,000.
const FEW: usize = 3_000;

/// xorshift64* (Marsaglia, "Xorshift RNGs"): the seed is printed, and `L2MESH_SEED` repeats a run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("a place")
    }

    fn of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Files that are valid: those of the README, of tests, and one with every key. Of what is not, nearly nothing valid comes.
fn seeds() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut seeds = vec![EVERY_KEY.to_owned()];
    for (file, fence) in
        [("README.md", "```"), ("l2mesh/src/config/tests.rs", "\"#"), ("l2mesh/src/config/diff.rs", "\"#")]
    {
        let text = fs::read_to_string(format!("{root}/{file}")).expect("a file of the repository");
        let parts = text.split(fence).flat_map(|part| part.split("r#\""));
        seeds.extend(parts.filter(|part| part.contains("vni") && part.contains("name")).map(|part| {
            // A here-document of the README has the file within.
            part.split_once("<<'END'")
                .and_then(|(_, rest)| rest.split_once("END\n"))
                .map_or(part, |(file, _)| file)
                .to_owned()
        }));
    }
    seeds.retain(|text| Mesh::from_toml(text, "mesh.toml").is_ok());
    seeds
}

const EVERY_KEY: &str = r#"
underlay = { port = 4789, tx-hook = "auto", private-port = false, fdb-size = 9, fdb-age = "5min", move-limit = 5, move-freeze = "1min" }
[probe]
interval = "100ms"
misses = 3
recover = 10
relay-interval = "5s"
loss-limit = "20%"
[[node]]
name = "a"
id = 0x7
address = "203.0.113.1"
relay = true
from = { b = "10.0.0.1" }
[[node]]
name = "b"
address = "2001:db8::2"
relays = ["a"]
probes = true
udp-checksum = true
from = { a = "10.0.0.2" }
[[node]]
name = "c"
address = "c.example.org"
kind = "vxlan"
[[network]]
name = "lan"
vni = "0xff01"
interface = "lan0"
bridge = "br0"
members = ["a", "b"]
addresses = { a = ["10.8.0.1/24", "fd00::1/64"], b = "10.8.0.2/24" }
mtu = 1400
mac = [{ mac = "52:54:00:00:00:01", node = "b" }]
link-local = true
mss-clamp = true
tos = "inherit"
neighbour-suppression = true
storm-limit = 5000
macs-per-peer = 7
"#;

/// What stands where something else should.
const ODD: [&str; 28] = [
    "",
    "\"",
    "\"\"\"",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    "#",
    "\n",
    "\r",
    "\0",
    "\u{feff}",
    "ü",
    "-1",
    "0",
    "4294967296",
    "9223372036854775807",
    "1e400",
    "nan",
    "true",
    "1979-05-27",
    "\"::1\"",
    "\"255.255.255.255\"",
    "[[node]]\n",
    "[network]\n",
    "\"\\uD800\"",
];

fn mutated(random: &mut Random, seeds: &[String]) -> String {
    let mut text = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(5) {
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
        let place = places[random.below(places.len())];
        match random.below(7) {
            0 => text.insert_str(place, random.of(&ODD)),
            1 => text.truncate(place),
            2 => {
                let end = places[random.below(places.len())];
                text.replace_range(place.min(end)..end.max(place), random.of(&ODD));
            }
            3 => {
                // Lines of another file, or again.
                let lines: Vec<&str> = seeds[random.below(seeds.len())].lines().collect();
                let from = random.below(lines.len());
                let some = lines[from..].iter().take(1 + random.below(8)).map(|line| format!("{line}\n"));
                let line = text[..place].rfind('\n').map_or(0, |it| it + 1);
                text.insert_str(line, &some.collect::<String>());
            }
            4 => {
                let mut lines: Vec<&str> = text.lines().collect();
                if lines.len() > 1 {
                    lines.remove(random.below(lines.len()));
                }
                text = lines.join("\n");
            }
            5 => {
                // A value of another key.
                let values: Vec<String> =
                    text.lines().filter_map(|it| Some(it.split_once('=')?.1.to_owned())).collect();
                let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
                let line = random.below(lines.len().max(1));
                if let Some(line) = lines.get_mut(line)
                    && let Some((key, _)) = line.split_once('=')
                    && !values.is_empty()
                {
                    *line = format!("{key}={}", values[random.below(values.len())]);
                }
                text = lines.join("\n");
            }
            _ => {
                text = text.replacen(
                    random.of(&["a", "b", "1", "\"", "node", "vni"]),
                    random.of(&ODD),
                    1 + random.below(3),
                );
            }
        }
    }
    text
}

#[test]
fn nothing_panics() {
    mutate(FEW);
}

#[test]
#[ignore = "10,000 files: cargo test -p l2mesh fuzz -- --ignored --nocapture"]
fn nothing_panics_for_long() {
    mutate(10_000);
}

fn mutate(files: usize) {
    let seed = variable("L2MESH_SEED").unwrap_or(u64::from(std::process::id()) << 24 | 0x10_0001);
    println!("L2MESH_SEED={seed}");
    let mut random = Random(seed);
    let seeds = seeds();
    let known: Vec<Mesh> = seeds.iter().filter_map(|text| Mesh::from_toml(text, "mesh.toml").ok()).collect();
    assert!(known.len() >= 3, "only {} seeds are valid", known.len());
    let address = |name: &str| Ok(vec![std::net::IpAddr::from([203, 0, 113, 77 + u8::from(name.len() > 9)])]);
    let (mut valid, mut edits) = (0, 0);
    for nth in 0..files {
        let text = mutated(&mut random, &seeds);
        let outcome = std::panic::catch_unwind(|| match Mesh::from_toml(&text, "mesh.toml") {
            Ok(mut mesh) => {
                let is_resolved = mesh.resolve(address).is_ok();
                for (network, mtu) in
                    mesh.networks.iter().flat_map(|network| [68, 1280, 1500, 9000].map(|mtu| (network, mtu)))
                {
                    let _fits = is_resolved.then(|| mesh.overlay_mtu(network, mtu));
                }
                for other in &known {
                    let _there = changes(other, &mesh);
                    let _back = changes(&mesh, other);
                }
                assert_eq!(changes(&mesh, &mesh), Vec::<String>::new());
                Some(mesh)
            }
            Err(errors) => {
                assert!(!errors.to_string().is_empty());
                None
            }
        });
        let mesh = outcome.unwrap_or_else(|_| panic!("file {nth} of seed {seed}:\n{text}"));
        valid += usize::from(mesh.is_some());
        // Also of a file that is not valid: it may have been written so while the agent ran.
        let name = mesh.as_ref().map_or("b".to_owned(), |mesh| mesh.nodes[random.below(mesh.nodes.len())].name.clone());
        let new = NewNode {
            name: "new".into(),
            address: "203.0.113.99".into(),
            relay: true,
            plain: false,
            id: None,
            network: vec!["lan".into()],
        };
        let edit = if nth % 2 == 0 { Edit::AddNode(new) } else { Edit::RemoveNode(Named { name }) };
        let changed = std::panic::catch_unwind(|| edited(&text, &edit, "a"));
        let changed = changed.unwrap_or_else(|_| panic!("file {nth} of seed {seed}, {edit:?}:\n{text}"));
        if let (Ok(changed), Some(before)) = (changed, mesh) {
            edits += 1;
            // It may not be valid, but it is TOML, and comments stay.
            let after = Mesh::from_toml(&changed, "mesh.toml");
            assert!(
                changed.parse::<toml_edit::DocumentMut>().is_ok(),
                "file {nth} of seed {seed}, {edit:?}:\n{text}\n{changed}"
            );
            if let Ok(after) = after {
                let changes = changes(&before, &after);
                assert!(changes.iter().any(|it| it.starts_with("node ")), "{edit:?}: {changes:?}\n{text}\n{changed}");
            }
        }
    }
    println!("{files} files: {valid} valid, {edits} edited");
    assert!(valid * 100 > files && valid < files, "{valid} of {files} are valid: too few or too many to say anything");
}
