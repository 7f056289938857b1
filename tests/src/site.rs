//! What a lab has made and must remove, whoever asks for it first: drop, panic or signal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError, Weak};

use crate::leftovers::{self, BPFFS, PREFIX};
use crate::netns::Namespace;

/// Set to keep the log files and captures of labs.
const KEEP_LOGS: &str = "L2MESH_KEEP_LOGS";

/// Lines of each log that are shown when a lab is dropped in a panic.
const TAIL: usize = 20;

/// Labs of this process so far.
static MADE: AtomicU32 = AtomicU32::new(0);

/// The labs that a signal has to remove.
static LIVING: Mutex<Vec<Weak<Site>>> = Mutex::new(Vec::new());

/// The resources of one lab.
#[derive(Debug)]
pub(crate) struct Site {
    /// `l2mesh-lab-<pid>-<n>`: the start of all names.
    id: String,
    title: String,
    namespaces: Mutex<Vec<Namespace>>,
    files: AtomicU32,
    /// The `l2mesh` under test, unless the usual one.
    pub(crate) binary: OnceLock<PathBuf>,
    removed: Mutex<bool>,
    kept: AtomicBool,
}

impl Site {
    pub(crate) fn new(title: &str) -> std::sync::Arc<Self> {
        let id = format!("{PREFIX}{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let site = std::sync::Arc::new(Self {
            id,
            title: title.to_owned(),
            namespaces: Mutex::default(),
            files: AtomicU32::new(0),
            binary: OnceLock::new(),
            removed: Mutex::new(false),
            kept: AtomicBool::new(false),
        });
        fs::create_dir_all(site.directory()).unwrap_or_else(|error| panic!("{}: {error}", site.directory().display()));
        lock(&LIVING).push(std::sync::Arc::downgrade(&site));
        remove_on_signal();
        site
    }

    pub(crate) fn namespace(&self, host: &str) -> Namespace {
        let name = format!("{}-{host}", self.id);
        assert!(!Namespace::existing(&name).path().exists(), "lab {}: two hosts called {host}", self.title);
        // Listed before it is made: a signal may come in between.
        lock(&self.namespaces).push(Namespace::existing(&name));
        Namespace::create(&name)
    }

    /// Logs, captures and whatever else is a file.
    pub(crate) fn directory(&self) -> PathBuf {
        std::env::temp_dir().join(&self.id)
    }

    pub(crate) fn pin_dir(&self) -> PathBuf {
        Path::new(BPFFS).join(&self.id)
    }

    /// A path in the lab's directory that no one else gets.
    pub(crate) fn file(&self, stem: &str, extension: &str) -> PathBuf {
        self.directory().join(format!("{stem}-{}.{extension}", self.files.fetch_add(1, Ordering::Relaxed)))
    }

    /// From now on nothing is removed.
    pub(crate) fn keep(&self) {
        self.mark_kept(&self.title);
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The next lab leaves what this one has left.
    fn mark_kept(&self, title: &str) {
        let mark = self.directory().join(leftovers::KEPT);
        if let Err(error) = fs::write(&mark, title) {
            eprintln!("lab {}: {}: {error}", self.title, mark.display());
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Removes everything, once; others wait for the first. Never panics: it runs in panics.
    pub(crate) fn remove(&self) {
        let mut removed = lock(&self.removed);
        if *removed || self.is_kept() {
            return;
        }
        *removed = true;
        if std::thread::panicking() {
            self.show_logs();
        }
        for namespace in lock(&self.namespaces).iter() {
            if let Err(error) = namespace.remove() {
                eprintln!("lab {}: {error}", self.title);
            }
        }
        leftovers::remove_directory(&self.pin_dir());
        if std::env::var_os(KEEP_LOGS).is_some() {
            // Else the next lab would remove them.
            self.mark_kept("logs");
            eprintln!("lab {}: logs are in {}", self.title, self.directory().display());
        } else {
            leftovers::remove_directory(&self.directory());
        }
    }

    fn show_logs(&self) {
        eprintln!("lab {}: the logs of its processes ({KEEP_LOGS}=1 keeps them whole):", self.title);
        let mut files: Vec<_> = fs::read_dir(self.directory()).into_iter().flatten().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files {
            let path = file.path();
            let is_log = path.extension().is_some_and(|extension| extension == "out" || extension == "err");
            let Some(bytes) = is_log.then(|| fs::read(&path).ok()).flatten().filter(|bytes| !bytes.is_empty()) else {
                continue;
            };
            eprintln!("--- {}\n{}", file.file_name().display(), tail(&String::from_utf8_lossy(&bytes)));
        }
    }
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// The value, also after a panic of someone who held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On SIGINT, SIGTERM or SIGHUP: removes the labs of this process, then ends it with status 130.
/// A program that has set its own `ctrlc` handler before keeps it.
fn remove_on_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let handler = || {
            // Hosts vanish under whoever uses them now: that failure is not worth a message.
            std::panic::set_hook(Box::new(|_| {
                loop {
                    std::thread::park();
                }
            }));
            for site in lock(&LIVING).iter().filter_map(Weak::upgrade) {
                site.remove();
            }
            process::exit(130);
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            eprintln!("lab: signals will not remove it: {error}");
        }
    });
}
