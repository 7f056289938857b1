//! How much the verifier looks at before it lets a program in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::Context as _;
use aya::programs::loaded_programs;

/// Name and verified instructions of every program that these processes hold.
///
/// # Errors
/// The kernel does not list its programs.
pub(crate) fn of(pids: &[u32]) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut ids = BTreeSet::new();
    for pid in pids {
        let directory = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&directory).context(directory)? {
            // A descriptor may be closed meanwhile.
            ids.extend(fs::read_to_string(entry?.path()).ok().as_deref().and_then(program_id));
        }
    }
    let mut counts = BTreeMap::new();
    for info in loaded_programs() {
        // Other people's programs come and go.
        let Ok(info) = info else { continue };
        if let (true, Some(name), Some(count)) =
            (ids.contains(&info.id()), info.name_as_str(), info.verified_instruction_count())
        {
            counts.insert(name.to_owned(), count);
        }
    }
    Ok(counts)
}

/// `prog_id:` of a program's or a link's descriptor.
fn program_id(fdinfo: &str) -> Option<u32> {
    fdinfo.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_programs() {
        assert_eq!(program_id("pos:\t0\nprog_type:\t3\nprog_id:\t42\n"), Some(42));
        assert_eq!(program_id("pos:\t0\n"), None);
    }
}
