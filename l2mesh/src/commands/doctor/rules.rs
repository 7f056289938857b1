//! Finds the rules of a firewall that drop a UDP port, in what `nft list ruleset` prints.

use std::{fmt, process::Command};

/// A rule that drops, or the policy of its chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    /// Family and name, as `inet filter`.
    pub(super) table: String,
    pub(super) chain: String,
    /// As nft prints it.
    pub(super) text: String,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nft table {}, chain {}: {}", self.table, self.chain, self.text)
    }
}

impl Rule {
    /// The command that lets a UDP port in before this rule. Another chain is no place for it: what one accepts, the next one drops.
    pub(super) fn allow(&self, port: u16) -> String {
        let Self { table, chain, .. } = self;
        match &**table {
            // Those of iptables, which calls its chains so.
            "ip filter" if chain == "INPUT" => format!("iptables -I INPUT -p udp --dport {port} -j ACCEPT"),
            "ip6 filter" if chain == "INPUT" => format!("ip6tables -I INPUT -p udp --dport {port} -j ACCEPT"),
            _ => format!("nft insert rule {table} {chain} udp dport {port} accept"),
        }
    }
}

/// Rules of this network namespace that drop what comes in on a UDP port. Only to give the fault a name: whether the port is let
/// in is tested by a packet.
pub(super) fn dropping(port: u16) -> Vec<Rule> {
    let output = Command::new("nft").args(["list", "ruleset"]).output();
    output.map_or_else(|_| Vec::new(), |output| find(&String::from_utf8_lossy(&output.stdout), port))
}

const POLICY: &str = "policy drop";

/// Chains that see what comes in for this host. A rule that names no port may drop it too, but who knows.
fn find(ruleset: &str, port: u16) -> Vec<Rule> {
    let (mut found, mut table, mut chain, mut sees, mut accepts) = (Vec::new(), "", "", false, false);
    let rule =
        |table: &str, chain: &str, text: &str| Rule { table: table.into(), chain: chain.into(), text: text.into() };
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            (chain, sees, accepts) = (name.trim_end_matches(" {"), false, false);
        } else if line.starts_with("type filter hook ") {
            sees = ["prerouting", "input", "ingress"].iter().any(|hook| line.contains(&format!("hook {hook} ")));
            if sees && line.contains("policy drop") {
                found.push(rule(table, chain, POLICY));
            }
        } else if sees && names_port(line, port) {
            if line.ends_with("accept") && !accepts {
                accepts = true;
                // It comes before the policy.
                found.retain(|it| *it != rule(table, chain, POLICY));
            } else if line.contains("drop") || line.contains("reject") {
                found.push(rule(table, chain, &format!("`{line}`")));
            }
        }
    }
    found
}

fn names_port(rule: &str, port: u16) -> bool {
    let Some((_, rest)) = rule.split_once("dport ") else { return false };
    if !rule.contains("udp") && !rule.contains("th dport") {
        return false;
    }
    let ports = match rest.strip_prefix('{') {
        Some(set) => set.split('}').next().unwrap_or_default(),
        None => rest.split(' ').next().unwrap_or_default(),
    };
    ports.split(',').any(|one| match one.trim().split_once('-') {
        Some((from, to)) => {
            from.parse().is_ok_and(|from: u16| from <= port) && to.parse().is_ok_and(|to: u16| port <= to)
        }
        None => one.trim().parse() == Ok(port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_drop() {
        let ruleset = |policy: &str, rules: &str| {
            format!(
                "table inet host {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy {policy};\n{rules}\t}}\n}}\n"
            )
        };
        let found = |ruleset: &str| find(ruleset, 4789).iter().map(Rule::to_string).collect::<Vec<_>>();
        let by = |what: &str| vec![format!("nft table inet host, chain input: {what}")];
        for (policy, rules, expected) in [
            ("accept", "", Vec::new()),
            ("accept", "\t\tudp dport 4789 drop\n", by("`udp dport 4789 drop`")),
            (
                "accept",
                "\t\tudp dport { 53, 4700-4800 } counter packets 3 bytes 9 reject\n",
                by("`udp dport { 53, 4700-4800 } counter packets 3 bytes 9 reject`"),
            ),
            ("accept", "\t\tudp dport { 53, 4790 } drop\n", Vec::new()),
            ("accept", "\t\ttcp dport 4789 drop\n", Vec::new()),
            ("drop", "\t\ttcp dport 22 accept\n", by("policy drop")),
            ("drop", "\t\tudp dport 4789 accept\n", Vec::new()),
        ] {
            assert_eq!(found(&ruleset(policy, rules)), expected, "{policy} {rules}");
        }
        // What the host sends, and what it forwards, is another matter.
        let output = ruleset("accept", "\t\tudp dport 4789 drop\n").replace("hook input", "hook output");
        assert_eq!(found(&output), Vec::<String>::new());
    }

    #[test]
    fn what_lets_it_in_goes_before_what_drops() {
        let allow = |table: &str, chain: &str| {
            Rule { table: table.into(), chain: chain.into(), text: String::new() }.allow(4789)
        };
        assert_eq!(allow("inet host", "in"), "nft insert rule inet host in udp dport 4789 accept");
        assert_eq!(allow("ip filter", "INPUT"), "iptables -I INPUT -p udp --dport 4789 -j ACCEPT");
        assert_eq!(allow("ip6 filter", "INPUT"), "ip6tables -I INPUT -p udp --dport 4789 -j ACCEPT");
    }
}
