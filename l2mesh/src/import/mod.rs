//! What exists today, in the words of a configuration: kernel vxlan devices, netplan files, a tinc network.
//!
//! ```text
//! kernel.rs   --.
//!                >-- Device -- assemble.rs --.
//! netplan.rs  --'   (device.rs: what of it    >-- Draft -- TOML with comments (draft.rs)
//! tinc.rs     ------ a mesh can say) --------'
//! ```

mod assemble;
mod device;
mod draft;
mod kernel;
mod netplan;
mod tinc;

use std::net::IpAddr;

use crate::{cli::ImportArgs, config::Mesh};

/// What the user says beyond what is found.
#[derive(Clone, Copy, Debug)]
struct Told<'a> {
    /// `--local`: this host's address in the underlay.
    local: Option<IpAddr>,
    /// `--peer`: other hosts.
    peers: &'a [IpAddr],
}

/// The configuration that equals what the command line names. Changes nothing.
///
/// # Errors
/// What is named is not there, cannot be read or understood, or makes no mesh.
pub(crate) async fn import(args: &ImportArgs) -> anyhow::Result<String> {
    let told = Told { local: args.local, peers: &args.peer };
    let draft = if let Some(directory) = &args.tinc {
        tinc::read(directory, told)?
    } else if args.netplan.is_empty() {
        kernel::read(&args.devices, told).await?
    } else {
        netplan::read(&args.netplan, told)?
    };
    let text = draft.to_toml();
    match Mesh::from_toml(&text, "the result") {
        Ok(_) => Ok(text),
        Err(errors) => anyhow::bail!("what was found makes no mesh:\n{errors}"),
    }
}
