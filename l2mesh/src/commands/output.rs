//! Tables for people.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use aya::maps::MapInfo;

use crate::{
    agent::control::live_agent,
    dataplane::{
        pins::{PinDir, PinnedMeta, interface_name},
        tables::Tables,
    },
};

/// One mesh to read from.
pub(super) struct Attached {
    pub(super) interface: String,
    pub(super) ifindex: u32,
    pub(super) pins: PinDir,
    pub(super) tables: Tables,
    /// Which META it is.
    meta: u32,
}

impl Attached {
    /// False if the mesh was detached, attached again or upgraded since: then these tables are nobody's any more.
    pub(super) fn is_current(&self) -> bool {
        meta_id(&self.pins).is_ok_and(|meta| meta == self.meta)
    }
}

fn meta_id(pins: &PinDir) -> anyhow::Result<u32> {
    let pin = pins.pin("META");
    Ok(MapInfo::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))?.id())
}

/// Opens the mesh on `interface`, or the only one that there is.
///
/// # Errors
/// There is none, there are several, or it cannot be read.
pub(super) fn attached(pin_root: &Path, interface: Option<&str>) -> anyhow::Result<Attached> {
    ensure!(nix::unistd::geteuid().is_root(), "reading the pinned tables needs root: run it as root");
    let mut found = Vec::new();
    for pins in PinDir::all(pin_root)? {
        if let PinnedMeta::Found(meta) = pins.meta()?
            && meta.layout_version != 0
        {
            let name = interface_name(&meta);
            ensure!(
                meta.layout_version == l2mesh_common::layout::LAYOUT_VERSION
                    || interface.is_some_and(|wanted| wanted != name),
                "{name} was attached by another version of l2mesh: read it with that one"
            );
            found.push((name, meta.ifindex, pins));
        }
    }
    let names = || found.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
    let place = match interface {
        Some(wanted) => found.iter().position(|(name, ..)| name == wanted),
        None if found.len() > 1 => bail!("there are meshes on {}: say which with --iface", names()),
        None => (!found.is_empty()).then_some(0),
    };
    let Some(place) = place else {
        match (interface, found.is_empty(), any_agent()?) {
            (Some(wanted), false, _) => bail!("no mesh is attached to {wanted}: there are meshes on {}", names()),
            (_, _, Some(pid)) => bail!(
                "an agent runs here (process {pid}), but its pins are not under {}: it has not said yet that it is up, or it was given another \
                 --pin-dir, or `ip netns exec` hides the host's BPF file system (`nsenter --net=` does not)",
                pin_root.display()
            ),
            _ => bail!(
                "no mesh is attached here: `l2mesh attach` does that (a mesh in another network namespace is seen from there)"
            ),
        }
    };
    let (interface, ifindex, pins) = found.swap_remove(place);
    // First: what is exchanged from here on is noticed.
    let meta = meta_id(&pins)?;
    Ok(Attached { interface, ifindex, tables: Tables::open(&pins)?, pins, meta })
}

/// The agent of any interface of this namespace.
fn any_agent() -> anyhow::Result<Option<i32>> {
    for interface in &nix::net::if_::if_nameindex()? {
        if let Some(pid) = live_agent(interface.index())? {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Columns as wide as their widest cell; numbers (columns named in `right`) to the right.
pub(super) fn table(title: &str, header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut text = format!("{title}\n");
    if rows.is_empty() {
        text.push_str("  (none)\n");
        return text;
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _infallible = if right.contains(&column) {
                write!(line, "  {cell:>width$}")
            } else {
                write!(line, "  {cell:<width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
