//! Why the kernel refused, and what to do about it.

use std::fmt;

use nix::errno::Errno;

/// What the kernel refused to do for us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Error {
    /// EPERM.
    NotPermitted {
        /// What was asked for, as in "create l2m10".
        doing: String,
    },
    /// A device of that name exists, and it is not ours to change.
    NameTaken {
        /// The name.
        name: String,
    },
    /// Another vxlan device holds the UDP port. Another port may be free.
    PortTaken {
        /// Our device that wanted the port.
        device: String,
    },
    /// The device was never there, or has gone since.
    NoSuchDevice {
        /// What was asked for.
        doing: String,
    },
    /// Any other refusal.
    Refused {
        /// What was asked for.
        doing: String,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The netlink socket failed: no answer will come on it any more.
    Disconnected {
        /// What was asked for.
        doing: String,
    },
}

impl Error {
    pub(super) fn new(doing: impl Into<String>, errno: Errno) -> Self {
        let doing = doing.into();
        match errno {
            Errno::EPERM => Self::NotPermitted { doing },
            Errno::ENODEV => Self::NoSuchDevice { doing },
            errno => Self::Refused { doing, errno },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted { doing } => write!(f, "cannot {doing}: needs CAP_NET_ADMIN: run as root"),
            Self::NameTaken { name } => {
                write!(
                    f,
                    "a device named {name} exists, and this mesh did not make it: remove it or choose another name"
                )
            }
            Self::PortTaken { device } => {
                write!(
                    f,
                    "the UDP port of {device} is held by another vxlan device: remove that or choose another port"
                )
            }
            Self::NoSuchDevice { doing } => write!(f, "cannot {doing}: no such device (see `ip link`)"),
            Self::Refused { doing, errno } => write!(f, "cannot {doing}: {} ({errno:?})", errno.desc()),
            Self::Disconnected { doing } => write!(f, "cannot {doing}: the netlink socket failed: start l2mesh again"),
        }
    }
}

impl std::error::Error for Error {}
