//! Pins of another layout, taken over without a frame lost: what an upgrade does, and a rollback.
//!
//! Both versions say which format each map has ([`format`]). Where they agree, the map itself goes on: old and new programs share it.
//! The others are made anew and filled from the configuration; what was learned in them is learned again. All of this happens in a
//! directory beside that of the mesh, which holds the links too. Their programs are replaced one by one, and in the end the
//! two directories change places in one step: whoever is killed before that leaves the mesh of the old layout, after it that of the new.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, bail};
use l2mesh_common::{
    layout::{LAYOUT_VERSION, format},
    tables::{Label, LabelKey},
};

use super::{
    hooks::{self, LINK},
    object::Object,
    pins::{PinDir, PinnedMeta},
    tables::{self, MAPS, Tables},
};

/// The last layout that did not say which formats its maps have: all were of that version.
const UNTOLD: u32 = 3;
/// Without these nobody would know whom a frame is for or how to reach them until it was found out again, and those frames would be lost.
const NEEDED: [&str; 9] = ["LABELS", "SETTINGS", "NETWORKS", "PORTS", "PEERS", "VTEPS", "NODES", "PATH_TX", "PATH_RX"];

/// Makes the directory that is to take the place of `pins`: shared maps and links in it, and new maps for the others.
///
/// # Errors
/// What cannot be taken over. Nothing has changed then.
pub(crate) fn begin(interface: &str, pins: &PinDir, fdb_size: u32) -> anyhow::Result<PinDir> {
    let before = formats(pins)?;
    let is_same = |map: &str| before.get(map) == Some(&format(map));
    let differ: Vec<&str> = NEEDED.into_iter().filter(|map| !is_same(map)).collect();
    if !differ.is_empty() {
        bail!(
            "{interface} was attached by another version of l2mesh, whose {} this one cannot take over: the mesh keeps forwarding as before. \
             Run that version again, or start afresh: `l2mesh detach --iface {interface}`, then attach again",
            differ.join(", ")
        );
    }
    let next = pins.beside();
    next.forget()?;
    next.create()?;
    let made = share(pins, &next, &is_same).and_then(|()| Object::load(&next, fdb_size).map(drop));
    if let Err(error) = made {
        next.forget()?;
        return Err(error);
    }
    let anew: Vec<&str> = MAPS.into_iter().filter(|map| *map != "META" && !is_same(map)).collect();
    log::info!("taking over the mesh of another version of l2mesh; these tables begin anew: {}", anew.join(", "));
    Ok(next)
}

fn share(pins: &PinDir, next: &PinDir, is_same: &impl Fn(&str) -> bool) -> anyhow::Result<()> {
    for map in MAPS.into_iter().filter(|map| *map != "META" && is_same(map)) {
        pin_again(&pins.pin(map), &next.pin(map))?;
    }
    for link in pins.names()?.iter().filter(|name| name.starts_with(LINK)) {
        pin_again(&pins.pin(link), &next.pin(link))?;
    }
    Ok(())
}

/// Puts what is whole now in the place of what was before, and removes that.
///
/// # Errors
/// The kernel refuses: then the old one stays.
pub(crate) fn finish(pins: &PinDir, next: &PinDir, tables: &mut Tables) -> anyhow::Result<()> {
    exchange(pins.path(), next.path())
        .with_context(|| format!("cannot put {next} in the place of {pins}: Linux 6.6 is needed"))?;
    next.forget()?;
    let is_old = |key: &LabelKey| key.kind == LabelKey::FORMAT && key.id >> 8 != LAYOUT_VERSION;
    for key in tables.labels.keys().collect::<Result<Vec<_>, _>>()?.iter().filter(|key| is_old(key)) {
        tables::remove(&mut tables.labels, key)?;
    }
    Ok(())
}

/// Says which formats the maps have, for other versions.
pub(crate) fn tell_formats(tables: &mut Tables) -> anyhow::Result<()> {
    for (nth, map) in (0..).zip(MAPS) {
        let text = Label::new(&format!("{map} {}", format(map)));
        tables.labels.insert(LabelKey::format(LAYOUT_VERSION, nth), text, 0).context("cannot write LABELS")?;
    }
    Ok(())
}

/// What the version that attached said of its maps.
fn formats(pins: &PinDir) -> anyhow::Result<BTreeMap<String, u32>> {
    let PinnedMeta::Found(meta) = pins.meta()? else { return Ok(BTreeMap::new()) };
    if meta.layout_version == UNTOLD {
        return Ok(pins.names()?.into_iter().map(|map| (map, UNTOLD)).collect());
    }
    let labels = tables::labels(pins)?;
    let told = (0_u8..=u8::MAX).filter_map(|nth| labels.get(&LabelKey::format(meta.layout_version, nth), 0).ok());
    let parse = |label: Label| {
        let (map, number) = label.text().split_once(' ')?;
        Some((map.to_owned(), number.parse().ok()?))
    };
    Ok(told.filter_map(parse).collect())
}

/// A second pin of the same map or link.
fn pin_again(from: &Path, to: &Path) -> anyhow::Result<()> {
    // linux/bpf.h
    const BPF_OBJ_PIN: libc::c_long = 6;
    const BPF_OBJ_GET: libc::c_long = 7;
    let pin = || -> io::Result<()> {
        let [old, new] = [from, to].map(|path| CString::new(path.as_os_str().as_encoded_bytes()));
        let (old, new) = (old?, new?);
        // pathname; then bpf_fd and file_flags.
        let number = hooks::bpf(BPF_OBJ_GET, &mut [old.as_ptr() as u64, 0])?;
        #[expect(unsafe_code, reason = "a new descriptor from a system call")]
        // SAFETY: the kernel has just made it for us.
        let object = unsafe { OwnedFd::from_raw_fd(number) };
        let number = u64::from(object.as_raw_fd().cast_unsigned());
        hooks::bpf(BPF_OBJ_PIN, &mut [new.as_ptr() as u64, number]).map(drop)
    };
    pin().with_context(|| format!("cannot pin {} as {}", from.display(), to.display()))
}

/// `renameat2(2)` with `RENAME_EXCHANGE`, for which musl has no function.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let [one, other] = [one, other].map(|path| CString::new(path.as_os_str().as_encoded_bytes()));
    let (one, other) = (one?, other?);
    #[expect(unsafe_code, reason = "no library has it for all targets")]
    // SAFETY: both paths live until here.
    let outcome = unsafe {
        let here = libc::AT_FDCWD;
        libc::syscall(libc::SYS_renameat2, here, one.as_ptr(), here, other.as_ptr(), libc::RENAME_EXCHANGE)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
