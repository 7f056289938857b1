//! Programs on hooks: new links, or pinned ones whose program is replaced in place.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use aya::programs::{
    LinkOrder, ProgramError, TcAttachType, XdpMode,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};

use l2mesh_common::tables::CALL_TOO_BIG;

use super::{
    object::{Object, Refused, Tc, XDP},
    pins::PinDir,
    tables::Tables,
};
use crate::underlay::Netlink;

/// What the pins of links begin with.
pub(crate) const LINK: &str = "link-";

/// The place where a TC program is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook<'a> {
    pub(crate) interface: &'a str,
    pub(crate) program: Tc,
    pub(crate) side: TcAttachType,
    /// Distinguishes the pins of one program on several interfaces: the VNI.
    pub(crate) vni: Option<u32>,
}

impl Hook<'_> {
    /// Name of the link's pin.
    pub(crate) fn pin(&self) -> String {
        match self.vni {
            Some(vni) => format!("{LINK}{}-{vni:x}", self.program.name()),
            None => format!("{LINK}{}", self.program.name()),
        }
    }
}

/// Attaches a TC program behind those that are there, or replaces the program of the pinned link. A pinned link whose
/// interface is gone is made anew.
pub(crate) fn attach_tc(object: &mut Object, pins: &PinDir, hook: Hook<'_>) -> anyhow::Result<()> {
    if update_tc(object, pins, hook)? {
        return Ok(());
    }
    let program = object.tc(pins, hook.program)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::last());
    let id = program.attach_with_options(hook.interface, hook.side, options).with_context(|| {
        format!("cannot attach {} to {}: Linux 6.6 is needed (tcx)", hook.program.name(), hook.interface)
    })?;
    let link = FdLink::try_from(program.take_link(id)?).map_err(|error| anyhow!("not a tcx link: {error}"))?;
    let path = pins.pin(&hook.pin());
    link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(())
}

/// Makes the programs known that others call, which is to be done before those are attached.
pub(crate) fn fill_calls(object: &mut Object, pins: &PinDir, tables: &mut Tables) -> anyhow::Result<()> {
    let program = object.tc(pins, Tc::TooBig)?.fd()?;
    tables.calls.set(CALL_TOO_BIG, program, 0).context("cannot write CALLS")
}

/// Replaces the program of a pinned link. False if there is none, or its interface is gone: then it is not pinned any more.
pub(crate) fn update_tc(object: &mut Object, pins: &PinDir, hook: Hook<'_>) -> anyhow::Result<bool> {
    let path = pins.pin(&hook.pin());
    if !path.exists() {
        return Ok(false);
    }
    let program = object.tc(pins, hook.program)?;
    let link = FdLink::from(PinnedLink::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?);
    // Pinned it stays: nobody has to hold it.
    if let Ok(link) = SchedClassifierLink::try_from(link)
        && let Ok(id) = program.attach_to_link(link)
    {
        drop(program.take_link(id)?);
        return Ok(true);
    }
    std::fs::remove_file(&path).with_context(|| format!("cannot remove the pin {}", path.display()))?;
    Ok(false)
}

/// The number of the block of filters that many hidden ends share ([`crate::underlay::blocks`]): "l2" and the underlay
/// interface, in a namespace that has few of them, if any.
pub(crate) const fn block(ifindex: u32) -> u32 {
    0x6c32_0000 ^ ifindex
}

/// Attaches a program to many hidden ends at once, which are down if it is for the first time.
pub(crate) async fn attach_block(
    object: &mut Object,
    pins: &PinDir,
    netlink: &Netlink,
    ifindex: u32,
    devices: &[u32],
) -> anyhow::Result<()> {
    netlink.share_ingress(devices, block(ifindex)).await?;
    let program = object.tc(pins, Tc::Overlay)?.fd()?;
    Ok(netlink.set_block_program(block(ifindex), Tc::Overlay.name(), program.as_fd()).await?)
}

/// What came of an attempt at native XDP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum XdpOutcome {
    /// The program is there.
    Attached,
    /// It cannot be, for this reason.
    Refused(String),
}

/// Attaches the XDP program natively, or replaces the program of the pinned link.
pub(crate) fn attach_xdp(
    object: &mut Object,
    pins: &PinDir,
    interface: &str,
    ifindex: u32,
) -> anyhow::Result<XdpOutcome> {
    let path = pins.pin(&xdp_pin());
    let program = match object.xdp(pins) {
        Ok(program) => program,
        Err(error) if error.is::<Refused>() => return Ok(XdpOutcome::Refused(error.to_string())),
        Err(error) => return Err(error),
    };
    if path.exists() {
        let link =
            FdLink::from(PinnedLink::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?);
        if let Ok(link) = XdpLink::try_from(link)
            && let Ok(id) = program.attach_to_link(link)
        {
            drop(program.take_link(id)?);
            return Ok(XdpOutcome::Attached);
        }
        std::fs::remove_file(&path).with_context(|| format!("cannot remove the pin {}", path.display()))?;
    }
    // Never generic XDP: it switches GRO off for the whole NIC (netif_elide_gro in include/linux/netdevice.h).
    let id = match program.attach_to_if_index(ifindex, XdpMode::Driver) {
        Ok(id) => id,
        Err(ProgramError::SyscallError(error)) => {
            return Ok(XdpOutcome::Refused(xdp_refusal(interface, &error.io_error)));
        }
        Err(error) => return Ok(XdpOutcome::Refused(format!("{interface} takes no native XDP program: {error}"))),
    };
    let link = FdLink::try_from(program.take_link(id)?).map_err(|error| anyhow!("not a BPF link: {error}"))?;
    link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
    Ok(XdpOutcome::Attached)
}

/// Takes the XDP program off; false if it was not there.
pub(crate) fn detach_xdp(pins: &PinDir) -> anyhow::Result<bool> {
    detach(pins, &xdp_pin())
}

/// Takes a program off its hook. False if it was not there.
pub(crate) fn detach(pins: &PinDir, pin: &str) -> anyhow::Result<bool> {
    unpin(&pins.pin(pin))
}

/// Takes the program of a pinned link off its hook, then removes the pin. To remove the pin alone would do, but later:
/// the kernel lets go of what was pinned after a grace period (`bpf_free_inode` in kernel/bpf/inode.c), and nothing
/// would say that XDP is off before TC.
pub(crate) fn unpin(path: &Path) -> anyhow::Result<bool> {
    match detach_pinned(path).and_then(|()| std::fs::remove_file(path)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove the pin {}", path.display())),
    }
}

fn detach_pinned(path: &Path) -> io::Result<()> {
    // linux/bpf.h
    const BPF_OBJ_GET: libc::c_long = 7;
    const BPF_LINK_DETACH: libc::c_long = 34;
    let name = CString::new(path.as_os_str().as_encoded_bytes())?;
    // pathname; then bpf_fd and file_flags, which stay zero.
    let number = bpf(BPF_OBJ_GET, &mut [name.as_ptr() as u64, 0])?;
    #[expect(unsafe_code, reason = "a new descriptor from a system call")]
    // SAFETY: the kernel has just made it for us.
    let link = unsafe { OwnedFd::from_raw_fd(number) };
    bpf(BPF_LINK_DETACH, &mut [u64::from(link.as_raw_fd().cast_unsigned()), 0]).map(drop)
}

#[expect(unsafe_code, reason = "aya does not detach pinned links, and does more than count programs")]
pub(super) fn bpf(command: libc::c_long, attributes: &mut [u64]) -> io::Result<i32> {
    // SAFETY: the attributes are as long as said; what they point to outlives the call.
    let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(outcome).map_err(io::Error::other) }
}

/// How many TC programs, ours included, stand at an interface's egress on tcx.
pub(crate) fn programs_at_egress(ifindex: u32) -> io::Result<u32> {
    // linux/bpf.h
    const BPF_PROG_QUERY: libc::c_long = 16;
    const BPF_TCX_EGRESS: u32 = 47;
    const COUNT: usize = 3;
    // target_ifindex and attach_type, flags (two words), prog_ids, count, then what stays zero: no list is asked for.
    let mut query = [0_u64; 8];
    query[0] = bytemuck::cast([ifindex, BPF_TCX_EGRESS]);
    match bpf(BPF_PROG_QUERY, &mut query) {
        Ok(_) => Ok(bytemuck::cast::<u64, [u32; 2]>(query[COUNT])[0]),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(0),
        Err(error) => Err(error),
    }
}

fn xdp_pin() -> String {
    format!("{LINK}{XDP}")
}

fn xdp_refusal(interface: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => format!("another XDP program is on {interface}"),
        Some(libc::EOPNOTSUPP) => format!("the driver of {interface} has no native XDP"),
        _ => format!("{interface} takes no native XDP program: {error}"),
    }
}

/// True if a pinned link still holds an interface. The kernel sets the link's ifindex to zero when the interface goes
/// (`tcx_link_fdinfo` in kernel/bpf/tcx.c, `bpf_xdp_link_show_fdinfo` in net/core/dev.c).
pub(crate) fn is_alive(pin: &Path) -> anyhow::Result<bool> {
    let link = FdLink::from(PinnedLink::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?);
    let id = format!("link_id:\t{}", link.info()?.id());
    for entry in std::fs::read_dir("/proc/self/fdinfo").context("cannot read /proc/self/fdinfo")? {
        // Descriptors of other threads come and go.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        if text.lines().any(|line| line == id) {
            return Ok(!text.lines().any(|line| line == "ifindex:\t0"));
        }
    }
    Ok(true)
}
