//! Mode kernel: the kernel's vxlan device receives and sends, our programs only say to whom. For underlays without Ethernet
//! header, such as wg0, and for NICs with which nothing else works.

use anyhow::bail;
use aya::programs::TcAttachType;

use super::{Receive, ReceiveMode};
use crate::{
    cli::Mode,
    dataplane::{
        devices::Devices,
        hooks::{self, Hook},
        object::{Tc, XDP, remove_file_if_there},
        pins::PinDir,
    },
    underlay::Link,
};

/// Mode kernel and why, or `None` for another mode.
///
/// # Errors
/// The mode that was asked for cannot be on this interface.
pub(super) fn chosen(wanted: Mode, link: &Link) -> anyhow::Result<Option<ReceiveMode>> {
    let Link { name, has_ethernet, .. } = link;
    let reason = match (wanted, has_ethernet) {
        (Mode::Kernel, _) => "as asked for".to_owned(),
        (Mode::Auto, false) => format!("{name} has no Ethernet header"),
        (Mode::Xdp | Mode::Tc, false) => {
            bail!("{name} has no Ethernet header, which modes xdp and tc need: use --mode kernel, or leave --mode out")
        }
        (Mode::Auto | Mode::Xdp | Mode::Tc, true) => return Ok(None),
    };
    Ok(Some(ReceiveMode { receive: Receive::Kernel, is_automatic: wanted == Mode::Auto, reason }))
}

/// Takes off what an earlier attach in another mode put where this mode has nothing: at the underlay interface, and on the
/// egress of the overlay interfaces.
///
/// # Errors
/// A pin cannot be removed.
pub(super) fn leave_underlay(pins: &PinDir, devices: &Devices) -> anyhow::Result<()> {
    // XDP first: with it and without TC, inner frames would enter the host's stack as the NIC's own.
    hooks::detach_xdp(pins)?;
    let underlay = Hook { interface: "", program: Tc::Underlay, side: TcAttachType::Ingress, vni: None };
    hooks::detach(pins, &underlay.pin())?;
    for pair in &devices.networks {
        let egress = Hook { program: Tc::OverlayEgress, side: TcAttachType::Egress, vni: Some(pair.vni), ..underlay };
        hooks::detach(pins, &egress.pin())?;
    }
    for program in [XDP, Tc::Underlay.name(), Tc::OverlayEgress.name()] {
        remove_file_if_there(&pins.pin(program))?;
    }
    Ok(())
}
