//! `l2mesh import`: the configuration that equals what exists today.

use std::io::{self, Write as _};

use crate::{cli::ImportArgs, import::import};

/// Prints it.
///
/// # Errors
/// There is nothing to import or it makes no mesh, or stdout cannot be written.
pub(crate) async fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let text = import(args).await?;
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}
