//! What the service manager (systemd) is told, and what it hands over. Without one all of it does nothing.

use std::{
    env,
    io::Write as _,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd},
        linux::fs::MetadataExt as _,
    },
    time::Duration,
};

use anyhow::Context as _;
use log::Level;
use sd_notify::NotifyState;

/// The mesh is up.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is about to change; [`ready`] says when that is over.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("no clock: {error}"),
    }
}

/// What `systemctl status` shows.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// From here on the watchdog sleeps, and removing may take its time.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The main loop is alive.
pub(crate) fn pet() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the manager wants to hear that: a third of its patience, which a busy machine takes its share of.
pub(crate) fn pet_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 3)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("the service manager does not listen: {error}");
    }
}

/// A socket that the manager keeps for us under this name. It can be taken once.
pub(crate) fn inherited(name: &str) -> Option<OwnedFd> {
    let sockets = sd_notify::listen_fds_with_names().ok()?;
    let (number, _) = sockets.into_iter().find(|(_, found)| found == name)?;
    Some(own(number))
}

#[expect(unsafe_code, reason = "a descriptor that is ours by what the environment says")]
fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the manager opened it for this process (sd_listen_fds(3)), and each name is asked for once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Gives the manager sockets for the process that it starts next, in place of those that it keeps already.
///
/// # Errors
/// There is no manager, or it does not listen.
pub(crate) fn keep(sockets: &[(&str, OwnedFd)]) -> anyhow::Result<()> {
    env::var_os("NOTIFY_SOCKET").context("there is no service manager: this is for its ExecStartPre=")?;
    for (name, socket) in sockets {
        let named = || NotifyState::FdName(name);
        sd_notify::notify(&[NotifyState::FdStoreRemove, named()]).context("the service manager does not listen")?;
        sd_notify::notify_with_fds(&[NotifyState::FdStore, named()], &[socket.as_fd()])
            .context("the service manager takes no socket")?;
    }
    Ok(())
}

/// Starts logging to stderr. The journal has times of its own, and wants a priority.
pub(crate) fn log_to_stderr() {
    let mut logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    if is_journal() {
        logger.format(|line, record| writeln!(line, "<{}>{}", priority(record.level()), record.args()));
    } else {
        logger.format_target(false);
    }
    logger.init();
}

/// Says why the program failed.
pub(crate) fn say_failure(error: &anyhow::Error) {
    let priority = if is_journal() { format!("<{}>", priority(Level::Error)) } else { String::new() };
    eprintln!("{priority}l2mesh: {error:#}");
}

/// sd-daemon(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// True if stderr is the stream that `JOURNAL_STREAM` names (systemd.exec(5)), and not redirected since.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino())
}
