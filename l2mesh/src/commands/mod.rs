//! One file a verb.

pub(crate) mod attach;
pub(crate) mod capture;
pub(crate) mod change;
pub(crate) mod check;
mod clock;
pub(crate) mod detach;
pub(crate) mod dist_files;
pub(crate) mod doctor;
pub(crate) mod import;
pub(crate) mod maps;
mod output;
pub(crate) mod ping;
pub(crate) mod prepare;
pub(crate) mod status;
