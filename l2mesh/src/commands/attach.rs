//! `l2mesh attach`: join the mesh, say so in one line, stay as its agent.

use std::{io::Write as _, path::Path};

use crate::{
    agent::{
        signals::Signals,
        start::{require_privileges, start},
    },
    cli::AttachArgs,
    config::{ConfigErrors, Document, Mesh},
    metrics::{Listener, Metrics},
    service,
};

/// Runs until SIGINT, SIGTERM or `l2mesh detach`.
///
/// # Errors
/// Nothing was attached, or not everything could be removed in the end.
pub(crate) async fn run(args: &AttachArgs, pin_root: &Path) -> anyhow::Result<()> {
    require_privileges("attach")?;
    // Before the signals are ours: whoever waits for a pipe that nobody writes to wants to end it.
    let file = args.config.as_deref().map(read).transpose()?;
    let mut signals = Signals::watch()?;
    // Refused before anything is touched.
    let listener = args.metrics.map(Listener::bind).transpose()?;
    let Some(agent) = start(args, file, pin_root, &mut signals).await? else { return Ok(()) };
    let mut stdout = std::io::stdout();
    // Nobody has to read it: the mesh is up all the same.
    if let Err(error) = writeln!(stdout, "{}", agent.up_line()).and_then(|()| stdout.flush()) {
        log::debug!("cannot write to stdout: {error}");
    }
    service::ready(&agent.up_line());
    // Nobody needs them to forward.
    let _metrics = listener.and_then(|listener| {
        Metrics::serve(listener, &agent).inspect_err(|error| log::error!("no metrics: {error:#}")).ok()
    });
    Box::pin(agent.run(&mut signals)).await
}

fn read(path: &Path) -> Result<(Document, Mesh), ConfigErrors> {
    let document = Document::from_file(path)?;
    let mesh = document.mesh()?;
    Ok((document, mesh))
}
