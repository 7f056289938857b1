//! What a check found, for people and programs.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be, or not to be told.
    Ok,
    /// It works, but worse than it could, or not for ever.
    Warning,
    /// Frames are lost.
    Fault,
}

/// One thing found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// By which check.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What is.
    pub(super) found: String,
    /// What to do; null where all is well.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), advice: None }
    }

    pub(super) fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fault(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Fault, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The worst of all.
    pub(super) level: Level,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        Self { level, findings }
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        for Finding { check, level, found, advice } in &self.findings {
            let level = match level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Fault => "FAULT",
            };
            writeln!(f, "{level:<7}  {check:<width$}  {found}")?;
            if let Some(advice) = advice {
                writeln!(f, "{:<7}  {:<width$}  -> {advice}", "", "")?;
            }
        }
        let [ok, warnings, faults] = [Level::Ok, Level::Warning, Level::Fault].map(|level| self.count(level));
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        writeln!(f, "{ok} ok, {warnings} warning{}, {faults} fault{}", plural(warnings), plural(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people_and_programs() {
        let report = Report::new(vec![
            Finding::ok("jit", "on"),
            Finding::fault("firewall", "drops UDP port 4789", "allow it"),
            Finding::warning("lro", "is on", "switch it off"),
        ]);
        let expected = "\
ok       jit       on
FAULT    firewall  drops UDP port 4789
                   -> allow it
warning  lro       is on
                   -> switch it off
1 ok, 1 warning, 1 fault
";
        assert_eq!(report.to_string(), expected);
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!((&json["level"], &json["findings"][1]["level"]), (&"fault".into(), &"fault".into()));
        assert_eq!(
            (&json["findings"][0]["advice"], &json["findings"][2]["check"]),
            (&serde_json::Value::Null, &"lro".into())
        );
        assert_eq!(Report::new(Vec::new()).level, Level::Ok);
    }
}
