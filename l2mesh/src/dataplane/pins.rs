//! Where the pins of a mesh are, and whose they are (design.md 9).

use std::{
    ffi::CStr,
    fmt::{self, Write as _},
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    hooks,
    object::{self, Tc},
    sockets,
};
use anyhow::{Context as _, bail};
use aya::maps::{Array, Map, MapData};
use l2mesh_common::{layout::LAYOUT_VERSION, tables::Meta};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

const BPFFS: &str = "/sys/fs/bpf";
/// What the names of directories begin with that are no meshes of their own (see `migrate`).
const BESIDE: &str = "next-";
/// How the first network namespace is called.
const FIRST: &str = "init";
/// Where pins are unless `--pin-dir` says otherwise.
pub(crate) const OWN_ROOT: &str = "/sys/fs/bpf/l2mesh";

/// The underlay interface to which pins belong, in its namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// Name of the underlay interface.
    pub(crate) interface: String,
    /// Its index.
    pub(crate) ifindex: u32,
    /// `SO_NETNS_COOKIE` of the namespace.
    pub(crate) netns_cookie: u64,
}

impl Owner {
    /// An interface of the calling thread's namespace.
    pub(crate) fn new(interface: &str, ifindex: u32) -> anyhow::Result<Self> {
        Ok(Self { interface: interface.to_owned(), ifindex, netns_cookie: netns_cookie()? })
    }

    /// What the pinned `META` of this owner holds.
    pub(crate) fn meta(&self) -> anyhow::Result<Meta> {
        let mut interface = [0; 16];
        let name = self.interface.as_bytes();
        interface.get_mut(..name.len()).context("an interface name has at most 15 characters")?.copy_from_slice(name);
        Ok(Meta {
            layout_version: LAYOUT_VERSION,
            ifindex: self.ifindex,
            netns_cookie: self.netns_cookie,
            boot_id: boot_id()?,
            interface,
        })
    }
}

/// The pins of one mesh.
#[derive(Clone, Debug)]
pub(crate) struct PinDir {
    path: PathBuf,
}

/// What a pin directory turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nothing is pinned.
    Empty,
    /// Pins of this owner, in this layout.
    Valid,
    /// Pins of an interface or a boot that is gone, or of an attach that did not get far.
    Stale,
    /// Pins of this owner in another layout.
    OtherLayout,
}

/// `META` as it is pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinnedMeta {
    /// Not there.
    Missing,
    /// Of a layout in which it has another size.
    OtherSize,
    /// There.
    Found(Meta),
}

impl PinDir {
    /// The directory for an owner: `<root>/<netns>/<ifindex>-<interface>`.
    pub(crate) fn of(root: &Path, owner: &Owner) -> anyhow::Result<Self> {
        let name = format!("{}-{}", owner.ifindex, escape(&owner.interface));
        Ok(Self { path: namespace_dir(root)?.join(name) })
    }

    /// Every mesh of the calling thread's namespace.
    pub(crate) fn all(root: &Path) -> anyhow::Result<Vec<Self>> {
        Ok(directories(&namespace_dir(root)?)?.into_iter().map(|path| Self { path }).collect())
    }

    /// Every mesh of every namespace.
    pub(crate) fn everywhere(root: &Path) -> anyhow::Result<Vec<Self>> {
        let mut found = Vec::new();
        for namespace in directories(root)? {
            found.extend(directories(&namespace)?.into_iter().map(|path| Self { path }));
        }
        Ok(found)
    }

    /// Where what is to take this one's place is made.
    pub(crate) fn beside(&self) -> Self {
        Self { path: self.path.with_file_name(format!("{BESIDE}{}", name(&self.path))) }
    }

    /// Removes the pins, and detaches nothing: others hold the same.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The names of all pins.
    pub(crate) fn names(&self) -> anyhow::Result<Vec<String>> {
        Ok(entries(&self.path)?.iter().map(|path| name(path)).collect())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The agent's socket: `/run/l2mesh/<netns>/<ifindex>-<interface>.sock`.
    pub(crate) fn socket(&self) -> PathBuf {
        let namespace = self.path.parent().map(name).unwrap_or_default();
        Path::new(sockets::SOCKETS).join(namespace).join(format!("{}.sock", name(&self.path)))
    }

    /// The pin of a map, program or link.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the directory, mounting a BPF file system first where there is none.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        if self.path.starts_with(BPFFS) && mount_bpffs()? {
            log::warn!(
                "mounted a BPF file system at {BPFFS}: if this is a mount namespace of its own, as under `ip netns exec`, the mesh ends \
                 with it and other shells do not see it; `nsenter --net=` keeps the host's"
            );
        }
        // Asked of what is there already: elsewhere nothing is made, not even a directory.
        if !self.path.ancestors().find(|path| path.exists()).is_some_and(is_bpffs) {
            bail!(
                "{} is not on a BPF file system: mount one there, or name another directory with --pin-dir",
                self.path.display()
            );
        }
        fs::create_dir_all(&self.path).with_context(|| format!("cannot make the pin directory {}", self.path.display()))
    }

    /// `META` as it is pinned.
    pub(crate) fn meta(&self) -> anyhow::Result<PinnedMeta> {
        let path = self.pin("META");
        if !path.exists() {
            return Ok(PinnedMeta::Missing);
        }
        let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(match Array::<_, Meta>::try_from(Map::from_map_data(map)?) {
            Ok(meta) => PinnedMeta::Found(meta.get(&0, 0)?),
            Err(_) => PinnedMeta::OtherSize,
        })
    }

    /// Whose pins these are.
    pub(crate) fn state(&self, owner: &Owner) -> anyhow::Result<State> {
        if entries(&self.path)?.is_empty() {
            return Ok(State::Empty);
        }
        let wanted = owner.meta()?;
        Ok(match self.meta()? {
            PinnedMeta::OtherSize => State::OtherLayout,
            PinnedMeta::Found(found) if found == wanted => State::Valid,
            PinnedMeta::Found(found)
                if found.layout_version != 0 && found == (Meta { layout_version: found.layout_version, ..wanted }) =>
            {
                State::OtherLayout
            }
            // META is written last: an attach that did not get so far left something half done.
            PinnedMeta::Missing | PinnedMeta::Found(_) => State::Stale,
        })
    }

    /// True for a directory of this interface, whatever its index is or was.
    pub(crate) fn is_named_after(&self, interface: &str) -> bool {
        name(&self.path).split_once('-').is_some_and(|(_, escaped)| escaped == escape(interface))
    }

    /// True if no link here holds its interface any more, as when the namespace is gone.
    pub(crate) fn links_are_dead(&self) -> anyhow::Result<bool> {
        for path in entries(&self.path)? {
            if name(&path).starts_with(hooks::LINK) && hooks::is_alive(&path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes `META`: what is left are the pins of no whole attach.
    pub(crate) fn disown(&self) -> anyhow::Result<()> {
        object::remove_file_if_there(&self.pin("META"))
    }

    /// Takes the programs off the interfaces of those networks that go, by VNI.
    pub(crate) fn detach_overlays(&self, goes: impl Fn(u32) -> bool, progress: &mut dyn FnMut()) -> anyhow::Result<()> {
        let links = [Tc::Overlay, Tc::OverlayEgress].map(|program| format!("{}{}-", hooks::LINK, program.name()));
        for pin in entries(&self.path)? {
            let name = name(&pin);
            let vni = links.iter().find_map(|link| u32::from_str_radix(name.strip_prefix(&**link)?, 16).ok());
            if vni.is_some_and(&goes) {
                progress();
                hooks::unpin(&pin)?;
            }
        }
        Ok(())
    }

    /// Removes every pin, the agent's socket and the directory, and those above it that are empty then. Links go in the order in which
    /// nothing reaches the host by mistake: XDP before TC (with XDP and no TC, inner frames would enter the host's stack).
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        // Of an agent that was killed.
        sockets::remove_socket(&self.socket());
        let mut pins = entries(&self.path)?;
        pins.sort_by_key(|path| {
            let name = name(path);
            (!name.contains(object::XDP), !name.starts_with(hooks::LINK))
        });
        for pin in pins {
            if name(&pin).starts_with(hooks::LINK) {
                hooks::unpin(&pin)?;
                continue;
            }
            object::remove_file_if_there(&pin)?;
        }
        // A slow agent and the detach that lost patience with it may both be here.
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", self.path.display()));
            }
            _ => {}
        }
        // The namespace's directory, and our own root; a root that somebody named is theirs.
        for above in self.path.ancestors().skip(1).take(2) {
            let is_theirs = self.path.ancestors().nth(2) == Some(above) && above != Path::new(OWN_ROOT);
            if is_theirs || fs::remove_dir(above).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Display for PinDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Mounts a BPF file system where it belongs. False if there is one already.
pub(crate) fn mount_bpffs() -> anyhow::Result<bool> {
    if is_bpffs(Path::new(BPFFS)) {
        return Ok(false);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700")).with_context(|| {
        format!("cannot mount a BPF file system at {BPFFS}: mount one, or name another with --pin-dir")
    })?;
    Ok(true)
}

/// bpffs refuses dots, and slashes mean something else.
fn escape(interface: &str) -> String {
    let mut escaped = String::new();
    for byte in interface.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

pub(super) fn namespace_dir(root: &Path) -> anyhow::Result<PathBuf> {
    // What belongs to the machine stands only in the first network namespace (`net_core_table` in net/core/sysctl_net_core.c).
    // To compare with that of process 1 is not for everybody: it takes all capabilities that process has.
    const MACHINE: &str = "/proc/sys/net/core/netdev_max_backlog";
    const OWN: &str = "/proc/thread-self/ns/net";
    let own = fs::metadata(OWN).with_context(|| format!("cannot read {OWN}"))?.ino();
    let is_init = Path::new(MACHINE).exists();
    Ok(root.join(if is_init { FIRST.to_owned() } else { own.to_string() }))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn directories(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_mesh = |path: &PathBuf| path.is_dir() && !name(path).starts_with(BESIDE);
    Ok(entries(path)?.into_iter().filter(is_mesh).collect())
}

fn entries(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

/// True for a place on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|it| it.filesystem_type() == BPF_FS_MAGIC)
}

fn boot_id() -> anyhow::Result<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    let digits = text.trim().replace('-', "");
    let id = u128::from_str_radix(&digits, 16).with_context(|| format!("{PATH} holds no UUID: {text:?}"))?;
    Ok(id.to_be_bytes())
}

/// The cookie of the calling thread's network namespace (socket(7), `SO_NETNS_COOKIE`, Linux 5.14).
#[expect(unsafe_code, reason = "nix has no wrapper for this socket option")]
pub(crate) fn netns_cookie() -> anyhow::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = std::net::UdpSocket::bind("[::]:0")
        .or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))
        .context("cannot open a socket")?;
    let (mut cookie, mut size) = (0_u64, libc::socklen_t::try_from(size_of::<u64>())?);
    // SAFETY: both pointers are to live values of the size said.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut size)
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error())
            .context("the kernel does not tell the network namespace's cookie: Linux 5.14 is needed");
    }
    Ok(cookie)
}

/// The name in a pinned `META`.
pub(crate) fn interface_name(meta: &Meta) -> String {
    CStr::from_bytes_until_nul(&meta.interface).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_bpffs_refuses() {
        for (name, expected) in [("eth0", "eth0"), ("eth0.100", "eth0%2E100"), ("a%b", "a%25b"), ("ü", "%C3%BC")] {
            assert_eq!(escape(name), expected);
            assert_eq!(sockets::unescape(expected), name);
        }
    }
}
