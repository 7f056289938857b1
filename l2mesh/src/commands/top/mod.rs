//! `l2mesh top`: the mesh as a terminal screen that follows it. What is known here is one node's view: who it reaches, by which path,
//! and what goes there; how the others reach each other only they know.

mod feed;
mod layout;
mod rates;
mod rows;
mod sample;
mod screen;

use std::{
    io::IsTerminal as _,
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};

use self::{
    feed::News,
    sample::Reader,
    screen::{Next, Screen, Theme},
};
use crate::cli::TopArgs;

/// How long a signal may wait for us to look.
const GLANCE: Duration = Duration::from_millis(100);
/// And how long at most, where we cannot.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows the screen until a key or a signal ends it. The terminal is then as it was before, also after a panic.
///
/// # Errors
/// No mesh is attached, this is no terminal, or it fails.
pub(crate) fn run(args: &TopArgs, pin_root: &Path) -> anyhow::Result<()> {
    let mut reader = Reader::open(pin_root, args.iface.as_deref())?;
    ensure!(
        std::io::stdout().is_terminal() && std::io::stdin().is_terminal(),
        "top needs a terminal: `l2mesh status` and `l2mesh maps --watch` do not"
    );
    let sample = reader.read()?;
    // What is logged would stand across the screen.
    log::set_max_level(log::LevelFilter::Off);
    let is_over = watch_signals()?;
    let news = feed::listen(pin_root, reader.interface());
    let theme = Theme { has_colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let mut screen = Screen::new(theme);
    screen.sample = sample;
    // Restores the terminal in a panic, too.
    let mut terminal = ratatui::try_init().context("the terminal cannot be used")?;
    let outcome = show(&mut terminal, &mut screen, args.interval, &is_over, |screen| {
        for news in news.try_iter() {
            match news {
                News::All { events, from_agent } => (screen.events, screen.from_agent) = (events.into(), from_agent),
                News::One(event) => screen.happened(event),
            }
        }
        match reader.read() {
            Ok(sample) => (screen.sample, screen.trouble) = (sample, None),
            // A mesh that is being changed, or is gone: the next time will show.
            Err(error) => screen.trouble = Some(format!("{error:#}")),
        }
    });
    let restored = ratatui::try_restore().context("the terminal cannot be restored: `reset` does that");
    outcome.and(restored)
}

fn show(
    terminal: &mut DefaultTerminal,
    screen: &mut Screen,
    interval: Duration,
    is_over: &AtomicBool,
    mut refresh: impl FnMut(&mut Screen),
) -> anyhow::Result<()> {
    let mut due = Instant::now() + GLANCE;
    loop {
        terminal.draw(|frame| screen.draw(frame)).context("the terminal cannot be written to")?;
        loop {
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let left = due.saturating_duration_since(Instant::now());
            // It may hold some back that came together.
            if has_event(Duration::ZERO)? || has_event(left.min(GLANCE))? {
                match event::read().context("the terminal cannot be read")? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        if screen.key(key) == Next::End {
                            return Ok(());
                        }
                        break;
                    }
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
            if left.is_zero() {
                if !screen.is_paused {
                    refresh(screen);
                }
                due = Instant::now() + interval;
                break;
            }
        }
    }
}

/// Waits for a key or another size. Not in crossterm, which never returns when the terminal goes away meanwhile.
///
/// # Errors
/// The terminal is gone.
fn has_event(time: Duration) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    let mut descriptors = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    match poll(&mut descriptors, PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("the terminal cannot be read"),
    }
    let seen = descriptors[0].revents().unwrap_or(PollFlags::empty());
    ensure!(!seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR), "the terminal is gone");
    event::poll(Duration::ZERO).context("the terminal cannot be read")
}

/// Signals that end us set a flag, so that the terminal can be restored. Blocked here, and so in every thread made from now on, but in
/// the one that waits for them.
fn watch_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().context("cannot block signals")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_over);
    let wait = move || {
        if signals.wait().is_ok() {
            flag.store(true, Ordering::Relaxed);
            // Who has not looked by then never will: see `wait_for_input`.
            thread::sleep(PATIENCE);
            let _gone = ratatui::try_restore();
            std::process::exit(1);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).context("cannot watch for signals")?;
    Ok(is_over)
}
