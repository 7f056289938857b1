//! Other people's programs on the host's interfaces: they count frames and let them pass.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use aya::maps::{Array, Map, MapData};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};

use crate::host::Host;

/// Where a program is to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `TC_ACT_UNSPEC`: on with the next one.
    Tc,
    /// `XDP_PASS`.
    Xdp,
}

/// A program that counts. Dropping it takes it off TC; from XDP it goes with its host.
pub struct Counter {
    map: Array<MapData, u64>,
    pin: PathBuf,
    attached: Vec<SchedClassifier>,
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} frames", self.pin.display(), self.frames())
    }
}

impl Counter {
    /// Loads one; it is on no interface yet.
    #[must_use]
    #[track_caller]
    pub fn load(host: &Host, kind: Kind) -> Self {
        let map = map_create().expect("an array map");
        let program = load(kind, &map).unwrap_or_else(|error| panic!("a program that counts: {error}"));
        let pin = pin(host, &program);
        let map = MapData::from_fd(map).expect("a map");
        let map = Array::try_from(Map::Array(map)).expect("an array of u64");
        Self { map, pin, attached: Vec::new() }
    }

    /// Attaches it with tcx, before all others.
    #[track_caller]
    pub fn attach_tcx(&mut self, host: &Host, interface: &str, side: TcAttachType) {
        self.attach_tc(host, interface, side, TcAttachOptions::TcxOrder(LinkOrder::first()));
    }

    /// Attaches it as a filter of a clsact qdisc, behind everything on tcx. The qdisc is made if missing.
    #[track_caller]
    pub fn attach_clsact(&mut self, host: &Host, interface: &str, side: TcAttachType) {
        // Not with `tc filter add .. bpf object-pinned`: iproute2 leaves directories of its own on the machine's bpffs.
        if !host.run(&format!("tc qdisc show dev {interface}")).stdout.contains("clsact") {
            host.run(&format!("tc qdisc add dev {interface} clsact"));
        }
        self.attach_tc(host, interface, side, TcAttachOptions::Netlink(NlOptions::default()));
    }

    #[track_caller]
    fn attach_tc(&mut self, host: &Host, interface: &str, side: TcAttachType, options: TcAttachOptions) {
        self.attached.push(attach_tc(host, interface, &self.pin, side, options));
    }

    /// Attaches it to native XDP. It stays there.
    #[track_caller]
    pub fn attach_xdp(&self, host: &Host, interface: &str) {
        let pin = self.pin.display().to_string();
        host.exec("bpftool", &["net", "attach", "xdpdrv", "pinned", &pin, "dev", interface]);
    }

    /// Frames so far.
    #[must_use]
    #[track_caller]
    pub fn frames(&self) -> u64 {
        self.map.get(&0, 0).expect("the only entry")
    }
}

/// Pins a program, not among those of l2mesh, but in the lab's directory: it goes with the lab.
#[track_caller]
pub(crate) fn pin(host: &Host, program: &OwnedFd) -> PathBuf {
    let directory = host.site().pin_dir();
    std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = host.site().file("foreign", "pin");
    let name = name.file_stem().expect("a name").to_string_lossy().replace('.', "_");
    let pin = directory.join(name);
    obj_pin(program, &pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    pin
}

/// Attaches a pinned program; it is there as long as what is returned.
#[track_caller]
pub(crate) fn attach_tc(
    host: &Host,
    interface: &str,
    pin: &std::path::Path,
    side: TcAttachType,
    options: TcAttachOptions,
) -> SchedClassifier {
    let program = host.in_namespace(|| {
        let mut program = SchedClassifier::from_pin(pin)?;
        program.attach_with_options(interface, side, options)?;
        Ok::<_, ProgramError>(program)
    });
    program.unwrap_or_else(|error| panic!("{interface} on {}: {error}", host.name()))
}

// linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
pub(crate) const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const XDP_PASS: i32 = 2;
pub(crate) const TC_ACT_UNSPEC: i32 = -1;

/// An instruction: opcode, registers (source in the high half), offset, immediate value.
pub(crate) fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let mut octets = [opcode, registers, 0, 0, 0, 0, 0, 0];
    octets[2..4].copy_from_slice(&offset.to_ne_bytes());
    octets[4..].copy_from_slice(&immediate.to_ne_bytes());
    octets
}

/// `(*lookup(map, 0))++; return verdict`.
fn counting(map: i32, verdict: i32) -> Vec<u8> {
    let code = [
        // *(u32 *)(r10 - 4) = 0
        instruction(0x62, 0x0a, -4, 0),
        // r1 = map (BPF_PSEUDO_MAP_FD)
        instruction(0x18, 0x11, 0, map),
        instruction(0, 0, 0, 0),
        // r2 = r10 - 4
        instruction(0xbf, 0xa2, 0, 0),
        instruction(0x07, 0x02, 0, -4),
        // r0 = bpf_map_lookup_elem(r1, r2)
        instruction(0x85, 0, 0, 1),
        // if r0 == 0 goto +2
        instruction(0x15, 0x00, 2, 0),
        // lock *(u64 *)r0 += 1
        instruction(0xb7, 0x01, 0, 1),
        instruction(0xdb, 0x10, 0, 0),
        // return verdict
        instruction(0xb7, 0x00, 0, verdict),
        instruction(0x95, 0, 0, 0),
    ];
    code.concat()
}

pub(crate) fn map_create() -> io::Result<OwnedFd> {
    // map_type, key_size, value_size, max_entries
    let attributes = [BPF_MAP_TYPE_ARRAY, 4, 8, 1].map(u32::to_ne_bytes).concat();
    let number = bpf(BPF_MAP_CREATE, &attributes)?;
    #[expect(unsafe_code, reason = "a new descriptor from a system call")]
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn load(kind: Kind, map: &OwnedFd) -> io::Result<OwnedFd> {
    let (program_type, verdict) = match kind {
        Kind::Tc => (BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC),
        Kind::Xdp => (BPF_PROG_TYPE_XDP, XDP_PASS),
    };
    prog_load(program_type, &counting(map.as_raw_fd(), verdict))
}

/// A program of these instructions.
pub(crate) fn prog_load(program_type: u32, code: &[u8]) -> io::Result<OwnedFd> {
    let licence = CString::new("GPL").expect("no zero in it");
    let count = u32::try_from(code.len() / 8).expect("a short program");
    // prog_type, insn_cnt, insns, license
    let mut attributes = [program_type, count].map(u32::to_ne_bytes).concat();
    attributes.extend((code.as_ptr() as u64).to_ne_bytes());
    attributes.extend((licence.as_ptr() as u64).to_ne_bytes());
    let number = bpf(BPF_PROG_LOAD, &attributes)?;
    #[expect(unsafe_code, reason = "a new descriptor from a system call")]
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn obj_pin(program: &OwnedFd, path: &std::path::Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero in it");
    // pathname, bpf_fd
    let mut attributes = (path.as_ptr() as u64).to_ne_bytes().to_vec();
    attributes.extend(program.as_raw_fd().to_ne_bytes());
    bpf(BPF_OBJ_PIN, &attributes).map(drop)
}

#[expect(unsafe_code, reason = "aya loads programs from object files only")]
fn bpf(command: libc::c_long, attributes: &[u8]) -> io::Result<i32> {
    // `union bpf_attr`, of which zeros behind what is given mean nothing.
    let mut all = [0_u64; 16];
    let octets: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
    octets[..attributes.len()].copy_from_slice(attributes);
    // SAFETY: the attributes are as long as said, and what they point to is alive during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, all.as_ptr(), size_of_val(&all)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).expect("a descriptor")) }
}
