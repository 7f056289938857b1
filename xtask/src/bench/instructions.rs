//! How much the verifier looks at before it lets a program in.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use aya::programs::ProgramInfo;

/// Name and verified instructions of every program that is pinned somewhere under a directory.
///
/// # Errors
/// The directory cannot be read.
pub(crate) fn of(directory: &Path) -> anyhow::Result<Vec<(String, u32)>> {
    let mut found = BTreeMap::new();
    collect(directory, &mut found)?;
    Ok(found.into_iter().collect())
}

fn collect(directory: &Path, found: &mut BTreeMap<String, u32>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if let Ok(info) = ProgramInfo::from_pin(&path)
            && let (Some(name), Some(count)) = (info.name_as_str(), info.verified_instruction_count())
        {
            found.insert(name.to_owned(), count);
        }
    }
    Ok(())
}
