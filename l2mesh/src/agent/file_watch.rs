//! `--watch`: says when the file of the configuration may have changed. Its directory is watched, not the file: editors put another
//! in its place, and a Kubernetes `ConfigMap` another link.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

/// A change is looked at when nothing has happened for so long: an editor may be in the middle of it.
const SETTLE: Duration = Duration::from_millis(100);
/// But not later than that.
const MOST: Duration = Duration::from_secs(1);
/// Links that are followed one after another, as the kernel does (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// What is watched.
pub(crate) struct FileWatch {
    path: PathBuf,
    inotify: AsyncFd<Handle>,
    /// The directories in which the file and the links to it are.
    watched: Vec<WatchDescriptor>,
    /// The names in them that matter.
    names: BTreeSet<OsString>,
    /// When something began to happen, and when it is to be looked at.
    due: Option<(Instant, Instant)>,
}

struct Handle(Inotify);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FileWatch {
    /// Watches a file. It is looked at soon for the first time: it may have changed since it was read.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot watch {}", path.display());
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).with_context(what)?;
        let now = Instant::now();
        let mut watch = Self {
            path: path.to_owned(),
            inotify: register(Handle(inotify)).with_context(what)?,
            watched: Vec::new(),
            names: BTreeSet::new(),
            due: Some((now, now)),
        };
        watch.aim().with_context(what)?;
        Ok(watch)
    }

    /// Waits until the file is to be looked at. May stop being waited for at any time. Without a watch, never.
    pub(super) async fn next(watch: &mut Option<Self>) {
        match watch {
            Some(watch) => watch.wait().await,
            None => std::future::pending().await,
        }
    }

    async fn wait(&mut self) {
        loop {
            let due = self.due.map(|(_, due)| due);
            tokio::select! {
                happened = self.happened() => {
                    if happened {
                        let now = Instant::now();
                        let (began, _) = *self.due.get_or_insert((now, now));
                        self.due = Some((began, (now + SETTLE).min(began + MOST)));
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.due = None;
                    if let Err(error) = self.aim() {
                        log::warn!("cannot watch {}: {error}", self.path.display());
                    }
                    return;
                }
            }
        }
    }

    /// Something happened: true if it can matter.
    async fn happened(&self) -> bool {
        let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
        match self.inotify.get_ref().0.read_events() {
            Ok(events) => {
                // Of events that were lost, any may have.
                let matters = |name: &Option<OsString>| name.as_ref().is_none_or(|name| self.names.contains(name));
                events.iter().any(|event| !event.mask.contains(AddWatchFlags::IN_IGNORED) && matters(&event.name))
            }
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                false
            }
            Err(error) => {
                log::debug!("inotify: {error}");
                ready.clear_ready();
                false
            }
        }
    }

    /// Watches the directories in which the file and the links to it are now.
    fn aim(&mut self) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_ONLYDIR;
        let inotify = &self.inotify.get_ref().0;
        let (mut watched, mut first) = (Vec::new(), None);
        let (directories, names) = whereabouts(&self.path);
        for directory in directories {
            match inotify.add_watch(&directory, flags) {
                Ok(descriptor) => watched.push(descriptor),
                Err(error) => first = first.or(Some(error)),
            }
        }
        for gone in self.watched.iter().filter(|it| !watched.contains(it)) {
            // One whose directory is gone is gone already.
            let _gone = inotify.rm_watch(*gone);
        }
        (self.watched, self.names) = (watched, names);
        first.map_or(Ok(()), |error| Err(error.into()))
    }
}

#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn register(inotify: Handle) -> io::Result<AsyncFd<Handle>> {
    // SAFETY: the handle owns its descriptor, and nobody takes it away or puts another in its place.
    Ok(unsafe { AsyncFd::register(inotify) }?)
}

/// The directories in which a file and the links to it are, and the names in them on the way to it.
fn whereabouts(path: &Path) -> (Vec<PathBuf>, BTreeSet<OsString>) {
    let (mut directories, mut names) = (Vec::new(), BTreeSet::new());
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        names.extend(path.file_name().map(ToOwned::to_owned));
        let link = fs::read_link(&path);
        directories.push(directory.clone());
        let Ok(target) = link else { break };
        // What a link leads through may be a link too, in the same directory, as `..data` is.
        names.extend(target.components().map(|part| part.as_os_str().to_owned()));
        path = directory.join(target);
    }
    (directories, names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_ways_in_which_a_file_changes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for generation in ["..1", "..2", "..3"] {
            fs::create_dir(at(generation)).expect("a directory");
            fs::write(at(generation).join("mesh.toml"), generation).expect("a file");
        }
        symlink("..1", at("..data")).expect("a link");
        symlink("..data/mesh.toml", at("mesh.toml")).expect("a link");
        runtime.block_on(async {
            let mut watch = Some(FileWatch::open(&at("mesh.toml")).expect("can be watched"));
            let mut changed = async |what: &str, expected: bool| {
                let limit = if expected { Duration::from_secs(5) } else { 2 * SETTLE };
                let seen = tokio::time::timeout(limit, FileWatch::next(&mut watch)).await;
                assert_eq!(seen.is_ok(), expected, "{what}");
            };
            changed("at the beginning", true).await;
            changed("nothing happens", false).await;
            fs::write(at("other.toml"), "x").expect("a file");
            changed("another file", false).await;
            for generation in ["..2", "..3"] {
                symlink(generation, at("..data_tmp")).expect("a link");
                fs::rename(at("..data_tmp"), at("..data")).expect("another link");
                changed("a ConfigMap", true).await;
            }
            fs::write(at("..3/mesh.toml"), "y").expect("a file");
            changed("written in place, behind links", true).await;
            fs::write(at("new"), "z").expect("a file");
            fs::rename(at("new"), at("mesh.toml")).expect("another file");
            changed("replaced by an editor", true).await;
            fs::write(at("mesh.toml"), "z").expect("a file");
            changed("written in place", true).await;
            fs::remove_file(at("mesh.toml")).expect("it is there");
            changed("removed", true).await;
        });
    }
}
