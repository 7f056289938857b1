//! Where the control sockets of agents are: named as their pins are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::pins::namespace_dir;

/// The directory of all of them.
pub(crate) const SOCKETS: &str = "/run/l2mesh";

/// The name of which pins and sockets are called this way.
pub(crate) fn unescape(escaped: &str) -> String {
    let mut octets = Vec::new();
    let mut rest = escaped.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        octets.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// Where the sockets of the agents of the calling thread's namespace are.
pub(crate) fn sockets_dir() -> anyhow::Result<PathBuf> {
    namespace_dir(Path::new(SOCKETS))
}

/// Removes a socket, and its directories if they are empty then.
pub(crate) fn remove_socket(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::debug!("cannot remove {}: {error}", path.display());
    }
    for above in path.ancestors().skip(1).take(2) {
        if fs::remove_dir(above).is_err() {
            break;
        }
    }
}
