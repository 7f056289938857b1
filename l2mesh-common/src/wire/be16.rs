//! A 16-bit number as it stands on the wire.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// 16 bits in network byte order; [`Be16::get`] is in host order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// As it stands on the wire, taken for a number of this machine.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> u16 {
        self.0
    }

    /// In host order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}
