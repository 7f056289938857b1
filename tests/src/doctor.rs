//! What `l2mesh doctor` says on the lab's hosts.

use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::lab::Lab;
use crate::mesh::Agent;
use crate::segment::mesh_file;
use crate::wait::wait_for;

/// How long the first probes may take to be answered.
const LIMIT: Duration = Duration::from_secs(10);

/// What was found: all of it, and how the command ended.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    findings: Vec<Value>,
    text: String,
}

impl Host {
    /// Runs `l2mesh doctor --json` with these further arguments. Panics unless the exit status is 1 for a fault and 0 without
    /// one.
    #[must_use]
    #[track_caller]
    pub fn doctor(&self, args: &[&str]) -> Diagnosis {
        let output = self.try_l2mesh(&[&["doctor", "--json"], args].concat());
        let json: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{}: doctor: {error}: {output:?}", self.name()));
        let is_fault = json["level"] == "fault";
        assert_eq!(output.code, Some(i32::from(is_fault)), "{}: {output:?}", self.name());
        assert_eq!(output.stderr.contains("found"), is_fault, "{}: {output:?}", self.name());
        let findings = json["findings"].as_array().unwrap_or_else(|| panic!("no findings: {json}")).clone();
        Diagnosis { findings, text: output.stdout }
    }
}

impl Diagnosis {
    /// What is not well: check, level, and sentence with advice.
    #[must_use]
    pub fn wrong(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let wrong = self.findings.iter().filter(|it| it["level"] != "ok");
        wrong
            .map(|it| {
                (text(&it["check"]), text(&it["level"]), format!("{}: {}", text(&it["found"]), text(&it["advice"])))
            })
            .collect()
    }

    /// Panics unless nothing is wrong.
    #[track_caller]
    pub fn assert_healthy(&self) {
        assert!(self.wrong().is_empty(), "{}", self.text);
    }

    /// Panics unless this check is well, and says this.
    #[track_caller]
    pub fn assert_found(&self, check: &str, sentence: &str) {
        let finds = |it: &Value| it["check"] == check && it["level"] == "ok" && it["found"] == sentence;
        assert!(self.findings.iter().any(finds), "{check} does not say {sentence:?}: {}", self.text);
    }

    /// Panics unless this check found something of this level with all these words in one finding.
    #[track_caller]
    pub fn assert_says(&self, check: &str, level: &str, words: &[&str]) {
        let wrong = self.wrong();
        let says = |it: &(String, String, String)| {
            it.0 == check && it.1 == level && words.iter().all(|word| it.2.contains(word))
        };
        assert!(wrong.iter().any(says), "no {level} of {check} with {words:?} in {wrong:#?}");
    }

    /// Panics unless that is all that is wrong.
    #[track_caller]
    pub fn assert_only(&self, check: &str, level: &str, words: &[&str]) {
        self.assert_says(check, level, words);
        let wrong = self.wrong();
        assert!(wrong.iter().all(|it| it.0 == check), "only {check}: {wrong:#?}");
    }
}

/// A file for these hosts with network 16, MTU as given, and inner addresses 10.8.0.1 and so on.
#[must_use]
#[track_caller]
pub fn file(lab: &Lab, hosts: &[Host], more: &str) -> String {
    let addresses = hosts.iter().enumerate().map(|(nth, host)| format!("{} = \"10.8.0.{}/24\"", host.name(), nth + 1));
    let addresses = addresses.collect::<Vec<_>>().join(", ");
    mesh_file(lab, hosts, &format!("[[network]]\nname = \"lan\"\nvni = 16\naddresses = {{ {addresses} }}\n{more}\n"))
}

/// Attaches hosts by a file, and waits until each has heard of the others what their configuration says.
#[must_use = "dropping the agents ends them"]
#[track_caller]
pub fn attach(hosts: &[Host], file: &str) -> Vec<Agent> {
    attach_with(hosts, file, &[])
}

/// [`attach`] with further arguments.
#[must_use = "dropping the agents ends them"]
#[track_caller]
pub fn attach_with(hosts: &[Host], file: &str, args: &[&str]) -> Vec<Agent> {
    let attach = |host: &Host| host.attach(&[&["--config", file], args].concat());
    let agents: Vec<Agent> = hosts.iter().map(attach).collect();
    for host in hosts {
        wait_for(&format!("probes of {} are answered and its configuration compared", host.name()), LIMIT, || {
            let status = host.l2mesh(&["status", "--json"]);
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            let is_up = |peer: &Value| peer["up"] == true && peer["configuration"] == "same";
            if peers.iter().all(is_up) { Ok(()) } else { Err(status.to_string()) }
        });
    }
    agents
}
