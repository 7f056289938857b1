//! One file a verb.

pub(crate) mod attach;
pub(crate) mod check;
pub(crate) mod detach;
pub(crate) mod import;
pub(crate) mod maps;
mod neighbours;
mod output;
pub(crate) mod status;
