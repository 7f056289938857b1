//! Three hosts with a file each, that of the first of which changes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use l2mesh_common::tables::Port;
use serde_json::Value;

use crate::fabric::Wiring;
use crate::host::{Host, Output};
use crate::lab::Lab;
use crate::mesh::{Agent, sentence};

/// Hosts a, b and c on one switch. The files of b and c have all that the first one may have, so that they agree with whatever
/// it says.
#[derive(Debug)]
pub struct Changing {
    /// Removes it all.
    pub lab: Lab,
    /// a, whose file changes; b, to which it always has a way; c, which comes and goes.
    pub hosts: [Host; 3],
    /// Those of b and c.
    others: Vec<Agent>,
    file: PathBuf,
}

/// What may be in the file of a.
#[expect(clippy::struct_excessive_bools, reason = "each is there or not")]
#[derive(Clone, Copy, Debug, Default)]
pub struct With {
    /// Node c.
    pub c: bool,
    /// It may relay.
    pub relay: bool,
    /// Network dmz, VNI 17.
    pub dmz: bool,
    /// A second address in the network lan.
    pub address: bool,
    /// Further lines, at the end: of the last network.
    pub more: &'static str,
}

impl With {
    /// Files that follow one another; the first is that of the beginning.
    pub const FILES: [Self; 6] = [
        Self { c: false, relay: false, dmz: false, address: false, more: "" },
        Self { c: true, relay: false, dmz: false, address: false, more: "" },
        Self { c: true, relay: true, dmz: true, address: false, more: "" },
        Self { c: false, relay: false, dmz: true, address: true, more: "" },
        Self {
            c: true,
            relay: true,
            dmz: false,
            address: true,
            more: "mac = [{ mac = \"52:54:00:00:00:09\", node = \"c\" }]\n",
        },
        Self { c: false, relay: false, dmz: false, address: true, more: "storm-limit = 5000\nmss-clamp = true\n" },
    ];
}

/// How many probes the agent of a says that it has sent to b directly since it began.
#[must_use]
#[track_caller]
pub fn probes_to_b(a: &Host) -> u64 {
    let all = a.l2mesh(&["maps", "paths", "--json"]);
    let row = all["paths"].as_array().into_iter().flatten().find(|row| row["peer"] == "b" && row["relay"].is_null());
    row.and_then(|row| row["probes"].as_u64()).unwrap_or_else(|| panic!("no direct path to b: {all}"))
}

impl Changing {
    /// Attaches b and c.
    #[must_use]
    #[track_caller]
    pub fn new(title: &str) -> Self {
        let lab = Lab::new(title);
        let hosts = lab.switch(["a", "b", "c"], &Wiring::default());
        let mut changing = Self { file: lab.directory().join("a.toml"), lab, hosts, others: Vec::new() };
        let all = With { c: true, relay: true, dmz: true, ..With::default() };
        let path = changing.lab.directory().join("all.toml");
        fs::write(&path, changing.text(&all)).expect("a file in the lab's directory");
        changing.others =
            changing.hosts[1..].iter().map(|it| it.attach(&["--config", &path.display().to_string()])).collect();
        changing.write(&With::default());
        changing
    }

    /// The file of a.
    #[must_use]
    pub fn file(&self) -> String {
        self.file.display().to_string()
    }

    /// What the file says with these things in it.
    #[must_use]
    pub fn text(&self, with: &With) -> String {
        let [a, b, c] = self.hosts.each_ref().map(Host::address);
        let relay = if with.relay { "relay = true\n" } else { "" };
        let c = if with.c { format!("[[node]]\nname = \"c\"\naddress = \"{c}\"\n{relay}") } else { String::new() };
        let own = if with.address { "[\"10.8.0.1/24\", \"10.18.0.1/24\"]" } else { "\"10.8.0.1/24\"" };
        let c_address = if with.c { ", c = \"10.8.0.3/24\"" } else { "" };
        let dmz = if with.dmz {
            "[[network]]\nname = \"dmz\"\nvni = 17\naddresses = { a = \"10.9.0.1/24\", b = \"10.9.0.2/24\" }\n"
        } else {
            ""
        };
        format!(
            "# The mesh.\n[[node]]\nname = \"a\" # this host\naddress = \"{a}\"\n[[node]]\nname = \"b\"\naddress = \"{b}\"\n{c}\
             [[network]]\nname = \"lan\"\nvni = 16\naddresses = {{ a = {own}, b = \"10.8.0.2/24\"{c_address} }}\n{dmz}{}",
            with.more
        )
    }

    /// Writes the file of a.
    #[track_caller]
    pub fn write(&self, with: &With) {
        fs::write(&self.file, self.text(with)).expect("a file in the lab's directory");
    }

    /// Attaches a.
    #[must_use = "dropping the agent ends it"]
    #[track_caller]
    pub fn attach(&self, more: &[&str]) -> Agent {
        self.hosts[0].attach(&[&["--config", &self.file()], more].concat())
    }

    /// What a verb on a prints that succeeds.
    #[track_caller]
    pub fn does(&self, line: &str) -> Vec<String> {
        let output = self.tries(line);
        assert_eq!(output.code, Some(0), "l2mesh {line}: {output:?}");
        output.stdout.lines().map(str::to_owned).collect()
    }

    /// What a verb on a says that is refused.
    #[track_caller]
    pub fn refuses(&self, line: &str) -> String {
        let output = self.tries(line);
        assert_eq!(output.code, Some(1), "l2mesh {line}: {output:?}");
        sentence(&output)
    }

    /// Runs a verb on a.
    #[track_caller]
    pub fn tries(&self, line: &str) -> Output {
        self.hosts[0].try_l2mesh(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Everything in the tables of a that does not change by itself: what is learned does.
    #[must_use]
    #[track_caller]
    pub fn tables(&self) -> Value {
        let mut all = Value::Object(serde_json::Map::new());
        for table in ["networks", "peers", "macs"] {
            let mut rows = self.hosts[0].l2mesh(&["maps", table, "--json"])[table].take();
            if let Some(rows) = rows.as_array_mut().filter(|_| table == "macs") {
                rows.retain(|row| row["is_static"] == true);
            }
            for row in rows.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                row.remove("macs");
                row.retain(|key, _| !key.ends_with("_frames") && !key.ends_with("_octets") && !key.contains("age"));
            }
            all[table] = rows;
        }
        all
    }
}

/// Looks all the time whether the egress shortcut of an overlay interface is open: frames that change from one way to the other may
/// overtake.
#[derive(Debug)]
pub struct ShortcutWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<(u64, u64)>>,
}

impl ShortcutWatch {
    /// From now on.
    #[must_use = "dropping it ends it"]
    #[track_caller]
    pub fn start(host: &Host, overlay: &str) -> Self {
        let ports = MapData::from_pin(host.pinned(&host.interface()).directory().join("PORTS"));
        let ports = Map::HashMap(ports.expect("the pinned ports"));
        let ports: HashMap<MapData, u32, Port> = ports.try_into().expect("a table of ports");
        let index = host.link(overlay)["ifindex"].as_u64().and_then(|it| u32::try_from(it).ok()).expect("an index");
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let look = move || {
            let (mut looks, mut closed) = (0, 0);
            while !until.load(Ordering::Relaxed) {
                looks += 1;
                closed += u64::from(ports.get(&index, 0).is_ok_and(|port| port.flags & Port::SHORTCUT == 0));
                thread::sleep(Duration::from_millis(1));
            }
            (looks, closed)
        };
        Self { stop, thread: Some(thread::spawn(look)) }
    }

    /// How often it looked, and how often the shortcut was closed then.
    #[must_use]
    #[track_caller]
    pub fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or((0, 0), |thread| thread.join().expect("a thread that does not panic"))
    }
}

impl Drop for ShortcutWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
