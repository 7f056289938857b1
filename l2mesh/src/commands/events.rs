//! `l2mesh events`: what happened, and what happens.

use std::{io::Write, path::Path};

use anyhow::{Context as _, bail};
use l2mesh_common::tables::LabelKey;

use super::{output::attached, status::changes};
use crate::{
    agent::{
        chronicle::{Happened, Told},
        control::{
            client::Client,
            request::{Reply, Request},
        },
    },
    cli::EventsArgs,
};

/// Prints what the agent keeps, the oldest first, and goes on if that is wanted.
///
/// # Errors
/// There is neither an agent nor a mesh, or the agent ends meanwhile.
pub(crate) fn run(args: &EventsArgs, pin_root: &Path) -> anyhow::Result<()> {
    let interface = args.iface.as_deref();
    let mut stdout = std::io::stdout().lock();
    let client = match Client::connect(interface) {
        Ok(client) => client,
        // What the tables remember is better than nothing; to wait for more is no use.
        Err(no_agent) if !args.follow => {
            let Ok(events) = remembered(pin_root, interface) else { return Err(no_agent) };
            log::warn!("{no_agent:#}: here are the changes of paths that the tables remember");
            return events.iter().try_for_each(|event| print(&mut stdout, event, args.json));
        }
        Err(no_agent) => return Err(no_agent),
    };
    let mut events = Events::ask(client, args.follow)?;
    for event in events.kept() {
        print(&mut stdout, &event, args.json)?;
    }
    if !args.follow {
        return Ok(());
    }
    while let Some(event) = events.next()? {
        print(&mut stdout, &event, args.json)?;
    }
    bail!("the agent has ended, or we were too slow for it")
}

/// What the tables remember without an agent, the oldest first.
pub(super) fn remembered(pin_root: &Path, interface: Option<&str>) -> anyhow::Result<Vec<Happened>> {
    let attached = attached(pin_root, interface)?;
    let name = |peer| attached.tables.label(LabelKey::peer(peer));
    Ok(changes(&attached.tables, &name).iter().rev().map(super::status::ChangeRow::as_event).collect())
}

fn print(out: &mut impl Write, event: &Happened, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(event)?)?;
    } else {
        writeln!(out, "{}  {:<5}  {:<17}  {}", event.at, event.level, event.kind, event.text)?;
    }
    Ok(out.flush()?)
}

/// Events of an agent.
pub(super) struct Events {
    client: Client,
    kept: Vec<Happened>,
}

impl Events {
    /// Asks for them.
    ///
    /// # Errors
    /// The agent refuses, or does not answer.
    pub(super) fn ask(mut client: Client, follow: bool) -> anyhow::Result<Self> {
        client.say(&Request::Events { follow })?;
        let Some(line) = client.line()? else { bail!("the agent hung up: see its log") };
        let Ok(told) = serde_json::from_str::<Told>(&line) else {
            let reply: Reply = serde_json::from_str(&line).with_context(|| format!("the agent says {line:?}"))?;
            bail!(reply.error.unwrap_or_else(|| "the agent refuses and does not say why".to_owned()))
        };
        client.be_patient()?;
        Ok(Self { client, kept: told.events })
    }

    /// What was kept, once.
    pub(super) fn kept(&mut self) -> Vec<Happened> {
        std::mem::take(&mut self.kept)
    }

    /// What happens next; `None` when the agent has ended.
    ///
    /// # Errors
    /// What it says is no event.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Happened>> {
        let Some(line) = self.client.line()? else { return Ok(None) };
        serde_json::from_str(&line).map(Some).with_context(|| format!("the agent says {line:?}"))
    }
}
