//! What a node in mode kernel cannot do, and must not be asked for.

use super::{ConfigError, ConfigErrors, Mesh, Node};

impl Mesh {
    /// Whether node `own` may run in mode kernel. The kernel's vxlan device drops what has a reserved bit set, and so probes
    /// and all that goes through a relay: the other nodes must know, which is why the file has to say it. Flags describe
    /// this host only, and there nothing is to be said but `--allow-relay`.
    ///
    /// # Errors
    /// Each key that says otherwise, and what to write instead.
    pub(crate) fn allows_mode_kernel(&self, own: usize) -> Result<(), ConfigErrors> {
        let Node { name, probes, relay, relays, location, .. } = &self.nodes[own];
        let by_flags = self.own.is_some();
        let mut errors = Vec::new();
        if *probes && !by_flags {
            errors.push(format!(
                "node {name:?} answers no probes in mode kernel: add `probes = false` to its [[node]], in the file of every host"
            ));
        }
        if *relay {
            let what = if by_flags { "--allow-relay" } else { "`relay = true`" };
            errors.push(format!("node {name:?} cannot relay in mode kernel: remove {what}"));
        }
        if relays.as_ref().is_some_and(|relays| !relays.is_empty()) {
            errors.push(format!("nothing is relayed to node {name:?} in mode kernel: remove `relays`"));
        }
        let errors: Vec<_> = errors.into_iter().map(|text| ConfigError::new(location.clone(), text)).collect();
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(lines: &str) -> String {
        let text = format!(
            "[[node]]\nname = \"a\"\naddress = \"203.0.113.10\"\n{lines}\n[[node]]\nname = \"b\"\naddress = \"203.0.113.20\"\n\
             relay = true\n[[network]]\nname = \"lan\"\nvni = 16\n"
        );
        let mesh = Mesh::from_toml(&text, "mesh.toml").expect("a valid file");
        mesh.allows_mode_kernel(0).map_or_else(|errors| errors.to_string(), |()| String::new())
    }

    #[test]
    fn the_file_says_that_there_are_no_probes() {
        const PROBES: &str = "mesh.toml:3: node \"a\" answers no probes in mode kernel: add `probes = false` to its [[node]], in the \
                              file of every host";
        assert_eq!(refused(""), PROBES);
        assert_eq!(refused("probes = true"), PROBES);
        assert_eq!(refused("probes = false"), "");
        assert_eq!(refused("probes = false\nrelays = []\nrelay = false"), "");
    }

    #[test]
    fn nothing_is_relayed() {
        assert_eq!(
            refused("probes = false\nrelays = [\"b\"]"),
            "mesh.toml:3: nothing is relayed to node \"a\" in mode kernel: remove `relays`"
        );
    }
}
