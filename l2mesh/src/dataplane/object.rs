//! The kernel programs, embedded, loaded onto the pinned maps.

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{ProgramError, SchedClassifier, Xdp},
};

use super::{pins::PinDir, tables::MAPS};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/l2mesh"));

/// Programs at TC hooks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tc {
    /// eth0 ingress.
    Underlay,
    /// l2mk0 ingress.
    Helper,
    /// l2m0-p ingress.
    Overlay,
    /// Called by that one.
    TooBig,
    /// l2m0 egress.
    OverlayEgress,
    /// Run by the agent.
    SelfTest,
}

impl Tc {
    /// The program's name, in the object and as its pin.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Underlay => "underlay_tc",
            Self::Helper => "helper_tc",
            Self::Overlay => "overlay_tc",
            Self::TooBig => "too_big_tc",
            Self::OverlayEgress => "overlay_egress",
            Self::SelfTest => "self_test_tc",
        }
    }
}

/// All programs by name.
pub(crate) const PROGRAMS: [&str; 7] = [
    XDP,
    Tc::Underlay.name(),
    Tc::Helper.name(),
    Tc::Overlay.name(),
    Tc::TooBig.name(),
    Tc::OverlayEgress.name(),
    Tc::SelfTest.name(),
];

/// The XDP program's name, in the object and as its pin.
pub(crate) const XDP: &str = "underlay_xdp";

/// The loaded object.
pub(crate) struct Object {
    ebpf: Ebpf,
}

impl Object {
    /// Loads the maps: those pinned already are taken over, the others made and pinned. Programs are loaded when first asked for.
    pub(crate) fn load(pins: &PinDir, fdb_size: u32) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FDB", fdb_size).map_max_entries("NEIGHBOURS", fdb_size);
        loader.map_max_entries("MEMBER_MACS", fdb_size);
        for map in MAPS {
            loader.map_pin_path(map, pins.pin(map));
        }
        let fdb = pins.pin("FDB");
        if fdb.exists() {
            let size = MapInfo::from_pin(&fdb).with_context(|| format!("cannot open {}", fdb.display()))?.max_entries();
            if size != fdb_size {
                log::warn!("the table of MAC addresses keeps its {size} entries until `l2mesh detach`, not {fdb_size}");
            }
        }
        let ebpf = loader.load(OBJECT).context("the kernel refused the maps")?;
        Ok(Self { ebpf })
    }

    /// A TC program, loaded and pinned.
    pub(crate) fn tc(&mut self, pins: &PinDir, program: Tc) -> anyhow::Result<&mut SchedClassifier> {
        let name = program.name();
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(name).with_context(|| format!("no program {name} in the object"))?.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(name, &error))?;
            let path = pins.pin(name);
            remove_file_if_there(&path)?;
            program.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
        }
        Ok(program)
    }

    /// The XDP program, loaded and pinned.
    pub(crate) fn xdp(&mut self, pins: &PinDir) -> anyhow::Result<&mut Xdp> {
        let program: &mut Xdp =
            self.ebpf.program_mut(XDP).with_context(|| format!("no program {XDP} in the object"))?.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(XDP, &error))?;
            let path = pins.pin(XDP);
            remove_file_if_there(&path)?;
            program.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
        }
        Ok(program)
    }
}

/// The verifier's log is for developers: `RUST_LOG=debug`.
fn refused(name: &str, error: &ProgramError) -> Refused {
    log::debug!("{error}");
    let reason = match error {
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        other => other.to_string(),
    };
    Refused(format!(
        "the kernel refused the program {name}: {reason} (Linux 6.6 is needed; RUST_LOG=debug shows the verifier's log)"
    ))
}

/// The kernel does not run a program.
#[derive(Clone, Debug)]
pub(crate) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Removes a pin.
pub(crate) fn remove_file_if_there(path: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget};

    use super::*;

    /// Those loops go octet by octet: 20 octets of zeros cost as much as a lookup in a table.
    #[test]
    fn the_programs_call_no_loop_over_octets() {
        let object = object::File::parse(OBJECT).expect("an ELF object");
        let mut names = Vec::new();
        for (_, relocation) in object.sections().flat_map(|section| section.relocations()) {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = object.symbol_by_index(index).expect("a symbol");
            names.push(symbol.name().expect("a name").to_owned());
        }
        assert!(names.iter().any(|name| name == "FDB"), "relocations are found: {names:?}");
        let loops = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];
        let called: Vec<_> = names.iter().filter(|name| loops.contains(&name.as_str())).collect();
        assert!(called.is_empty(), "{called:?}: see l2mesh-ebpf/build.rs");
    }
}
