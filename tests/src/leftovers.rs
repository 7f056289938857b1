//! What earlier runs left behind because they were killed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::netns::{self, Namespace};

/// Start of the name of everything a lab makes outside its namespaces; the process id follows.
pub(crate) const PREFIX: &str = "l2mesh-lab-";

/// Where bpffs is.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";

/// In the directory of a lab that is to outlive its process ([`crate::Lab::keep`]).
pub(crate) const KEPT: &str = "kept";

/// Which labs to remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which<'a> {
    /// Those that nobody wanted to keep.
    Dead,
    /// Those of this title that were kept on purpose.
    Kept(&'a str),
}

/// Removes labs of dead processes, those only. What cannot be removed is reported on stderr and left.
pub(crate) fn remove(which: Which<'_>) {
    let gone = |name: &str| {
        let kept = fs::read_to_string(directory(name).join(KEPT)).ok();
        let title = match which {
            Which::Dead => None,
            Which::Kept(title) => Some(title),
        };
        is_dead(name) && kept.as_deref() == title
    };
    for name in names(Path::new(netns::DIRECTORY)).filter(|name| gone(name)) {
        if let Err(error) = Namespace::existing(&name).remove() {
            eprintln!("lab: left over: {error}");
        }
    }
    // The directories last: a lab's own holds the mark that it is kept.
    let temporary = std::env::temp_dir();
    for parent in [Path::new(BPFFS), &temporary] {
        for name in names(parent).filter(|name| gone(name)) {
            remove_directory(&parent.join(name));
        }
    }
}

/// Removes a directory and all in it; one that is not there is success.
pub(crate) fn remove_directory(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && path.exists()
    {
        eprintln!("lab: cannot remove {}: {error}", path.display());
    }
}

/// Where the lab to which `name` belongs keeps its files.
fn directory(name: &str) -> PathBuf {
    let id: Vec<&str> = name[PREFIX.len()..].splitn(3, '-').take(2).collect();
    std::env::temp_dir().join(format!("{PREFIX}{}", id.join("-")))
}

/// The entries of a directory that a lab made.
fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| maker(name).is_some())
}

/// The process id in the name of something a lab made.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_dead(name: &str) -> bool {
    maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maker_is_read_from_every_kind_of_name() {
        assert_eq!(maker("l2mesh-lab-42-0-hetzner"), Some(42));
        assert_eq!(maker("l2mesh-lab-42-0"), Some(42));
        assert_eq!(maker("l2mesh-lab-x"), None);
        assert_eq!(maker("l2mesh"), None);
        assert!(directory("l2mesh-lab-42-1-a-b").ends_with("l2mesh-lab-42-1"));
    }

    #[test]
    fn the_living_are_spared() {
        assert!(!is_dead(&format!("{PREFIX}{}-0", std::process::id())));
        assert!(!is_dead("hetzner"));
    }
}
