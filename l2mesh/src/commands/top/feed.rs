//! Events as they come, from the agent; of an agent that ends and starts again too.

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use super::super::events::{Events, remembered};
use crate::agent::{chronicle::Happened, control::client::Client};

/// How long after an agent has ended it is looked for again.
const PAUSE: Duration = Duration::from_secs(2);

/// What is known of events.
pub(super) enum News {
    /// All that there is: of an agent, or without one what the tables remember.
    All { events: Vec<Happened>, from_agent: bool },
    /// One more.
    One(Happened),
}

/// Starts to listen. The thread ends with the process: it holds nothing.
pub(super) fn listen(pin_root: &Path, interface: &str) -> Receiver<News> {
    let (sender, news) = channel();
    let (pin_root, interface) = (pin_root.to_owned(), interface.to_owned());
    let listening = thread::Builder::new().name("events".into()).spawn(move || follow(&pin_root, &interface, &sender));
    if let Err(error) = listening {
        log::debug!("no thread for events: {error}");
    }
    news
}

fn follow(pin_root: &Path, interface: &str, news: &Sender<News>) {
    loop {
        let asked = Client::connect(Some(interface)).and_then(|client| Events::ask(client, true));
        let outcome = if let Ok(mut events) = asked {
            let all = News::All { events: events.kept(), from_agent: true };
            if news.send(all).is_err() {
                return;
            }
            while let Ok(Some(event)) = events.next() {
                if news.send(News::One(event)).is_err() {
                    return;
                }
            }
            Ok(())
        } else {
            let events = remembered(pin_root, Some(interface)).unwrap_or_default();
            news.send(News::All { events, from_agent: false })
        };
        if outcome.is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}
