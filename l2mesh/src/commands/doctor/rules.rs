//! Finds the rules of a firewall that drop a UDP port, in what `nft list ruleset` prints.

use std::process::Command;

/// Rules of this network namespace that drop what comes in on a UDP port: table, chain and rule. Only to give the fault a name:
/// whether the port is let in is tested by a packet.
pub(super) fn dropping(port: u16) -> Vec<String> {
    let output = Command::new("nft").args(["list", "ruleset"]).output();
    output.map_or_else(|_| Vec::new(), |output| find(&String::from_utf8_lossy(&output.stdout), port))
}

/// Chains that see what comes in for this host. A rule that names no port may drop it too, but who knows.
fn find(ruleset: &str, port: u16) -> Vec<String> {
    let (mut found, mut table, mut chain, mut sees, mut accepts) = (Vec::new(), "", "", false, false);
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            (chain, sees, accepts) = (name.trim_end_matches(" {"), false, false);
        } else if line.starts_with("type filter hook ") {
            sees = ["prerouting", "input", "ingress"].iter().any(|hook| line.contains(&format!("hook {hook} ")));
            if sees && line.contains("policy drop") {
                found.push(format!("nft table {table}, chain {chain}: policy drop"));
            }
        } else if sees && names_port(line, port) {
            if line.ends_with("accept") && !accepts {
                accepts = true;
                // It comes before the policy.
                found.retain(|rule| rule != &format!("nft table {table}, chain {chain}: policy drop"));
            } else if line.contains("drop") || line.contains("reject") {
                found.push(format!("nft table {table}, chain {chain}: `{line}`"));
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
            assert_eq!(find(&ruleset(policy, rules), 4789), expected, "{policy} {rules}");
        }
        // What the host sends, and what it forwards, is another matter.
        let output = ruleset("accept", "\t\tudp dport 4789 drop\n").replace("hook input", "hook output");
        assert_eq!(find(&output, 4789), Vec::<String>::new());
    }
}
