//! VXLAN header (RFC 7348 section 5) and network identifiers.

use core::{fmt, num::NonZero, str::FromStr};

use bytemuck::{Pod, Zeroable};

/// The IANA port (RFC 7348 section 5). Linux itself defaults to 8472.
pub const PORT: u16 = 4789;

/// A 24-bit network identifier; 0 is not a network here (probes use it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(NonZero<u32>);

impl Vni {
    /// The greatest identifier, 2^24 - 1.
    pub const MAX: u32 = 0x00ff_ffff;

    /// An identifier from 1 to [`Vni::MAX`], host order.
    ///
    /// # Errors
    /// [`InvalidVni`] says which end of the range was left.
    #[inline(always)]
    pub const fn new(id: u32) -> Result<Self, InvalidVni> {
        match NonZero::new(id) {
            None => Err(InvalidVni::Zero),
            Some(_) if id > Self::MAX => Err(InvalidVni::TooLarge),
            Some(id) => Ok(Self(id)),
        }
    }

    /// The identifier as a number.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// Decimal and hexadecimal, as people need both: `65281 (0xff01)`.
impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0} (0x{0:x})", self.get())
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a number or a text is no VNI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidVni {
    /// 0 is reserved.
    Zero,
    /// More than 24 bits.
    TooLarge,
    /// Neither decimal nor 0x and hexadecimal.
    NotANumber,
}

impl fmt::Display for InvalidVni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "VNI 0 is reserved: use 1 to 16777215",
            Self::TooLarge => "a VNI has 24 bits: use 1 to 16777215 (0xffffff)",
            Self::NotANumber => "not a VNI: write 1 to 16777215, decimal or 0x and hexadecimal",
        })
    }
}

impl core::error::Error for InvalidVni {}

impl FromStr for Vni {
    type Err = InvalidVni;

    fn from_str(text: &str) -> Result<Self, InvalidVni> {
        let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(InvalidVni::NotANumber);
        }
        // Only overflow is left to fail here.
        let id = u32::from_str_radix(digits, radix).map_err(|_| InvalidVni::TooLarge)?;
        Self::new(id)
    }
}

/// What stands in reserved bits between l2mesh nodes (design.md 4); nothing, towards any other VTEP.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Mark {
    /// [`Mark::PROBE`], [`Mark::RELAY`], [`Mark::RELAYED`].
    pub flags: u8,
    /// The destination of what is to be relayed, the origin of what was; else 0.
    pub node: u32,
}

impl Mark {
    /// A plain frame.
    pub const NONE: Self = Self { flags: 0, node: 0 };
    /// O: no frame but a probe.
    pub const PROBE: u8 = 0x01;
    /// T: please relay to the node of this id.
    pub const RELAY: u8 = 0x02;
    /// Y: relayed for the node of this id.
    pub const RELAYED: u8 = 0x40;

    /// True if this flag is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The eight octets between UDP and the inner frame.
///
/// ```text
/// |R|R|R|R|I|R|R|R|            reserved                           |
/// |                VXLAN network identifier       |   reserved    |
/// ```
///
/// Between l2mesh nodes some reserved bits have a meaning (design.md 4); towards any other
/// VTEP they are zero, because Linux drops a frame in which one is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct VxlanHeader {
    flags: u8,
    reserved: [u8; 3],
    vni: [u8; 3],
    reserved_last: u8,
}

impl VxlanHeader {
    /// Octets on the wire.
    pub const LEN: usize = 8;
    /// The VNI is valid.
    pub const FLAG_VNI: u8 = 0x08;

    /// The plain header of RFC 7348: I flag, all reserved bits zero.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: Vni) -> Self {
        let [_, high, middle, low] = vni.get().to_be_bytes();
        Self { flags: Self::FLAG_VNI, reserved: [0; 3], vni: [high, middle, low], reserved_last: 0 }
    }

    /// The header of a probe, or of a frame of network `vni` (0 for probes) with a mark.
    #[inline(always)]
    #[must_use]
    pub const fn marked(vni: u32, mark: Mark) -> Self {
        let [_, high, middle, low] = vni.to_be_bytes();
        let [a, b, c, d] = mark.node.to_be_bytes();
        Self { flags: Self::FLAG_VNI | mark.flags, reserved: [a, b, c], vni: [high, middle, low], reserved_last: d }
    }

    /// What stands in the reserved bits: `None` if bits are set that mean nothing, or mean nothing together.
    #[inline(always)]
    #[must_use]
    pub const fn mark(&self) -> Option<Mark> {
        const KNOWN: u8 = Mark::PROBE | Mark::RELAY | Mark::RELAYED;
        let [a, b, c] = self.reserved;
        let mark =
            Mark { flags: self.flags & !Self::FLAG_VNI, node: u32::from_be_bytes([a, b, c, self.reserved_last]) };
        // A relayed frame is not relayed again, and only what is relayed names a node.
        let names = mark.flags & (Mark::RELAY | Mark::RELAYED);
        let is_known = mark.flags & !KNOWN == 0
            && names != Mark::RELAY | Mark::RELAYED
            && (names != 0) == (mark.node != 0)
            && mark.has(Mark::PROBE) == (self.vni() == 0);
        if is_known { Some(mark) } else { None }
    }

    /// The header without its VNI.
    #[must_use]
    pub const fn template() -> Self {
        Self { flags: Self::FLAG_VNI, reserved: [0; 3], vni: [0; 3], reserved_last: 0 }
    }

    /// True if the I flag says that the VNI field is valid.
    #[inline(always)]
    #[must_use]
    pub const fn has_vni(&self) -> bool {
        self.flags & Self::FLAG_VNI != 0
    }

    /// The VNI field as it stands, 0 included.
    #[inline(always)]
    #[must_use]
    pub const fn vni(&self) -> u32 {
        let [high, middle, low] = self.vni;
        u32::from_be_bytes([0, high, middle, low])
    }

    /// True if nothing but the I flag and the VNI is set.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        let [a, b, c] = self.reserved;
        self.flags & !Self::FLAG_VNI == 0 && (a | b | c | self.reserved_last) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::format;

    use super::*;

    #[test]
    fn legal_values() {
        assert_eq!(Vni::new(0), Err(InvalidVni::Zero));
        assert_eq!(Vni::new(Vni::MAX).map(Vni::get), Ok(Vni::MAX));
        assert_eq!(Vni::new(Vni::MAX + 1), Err(InvalidVni::TooLarge));
    }

    #[test]
    fn text() {
        for (text, id) in [("16", Ok(16)), ("0xff01", Ok(0xff01)), ("0XFF01", Ok(0xff01)), ("0", Err(InvalidVni::Zero))]
        {
            assert_eq!(text.parse::<Vni>().map(Vni::get), id, "{text}");
        }
        for text in ["", "0x", "ff01", "-1", "+1", " 1", "1_000"] {
            assert_eq!(text.parse::<Vni>(), Err(InvalidVni::NotANumber), "{text}");
        }
        for text in ["16777216", "0x1000000", "99999999999999999999"] {
            assert_eq!(text.parse::<Vni>(), Err(InvalidVni::TooLarge), "{text}");
        }
        assert_eq!(format!("{}", Vni::new(0xff01).expect("a VNI")), "65281 (0xff01)");
    }

    proptest! {
        #[test]
        fn header_round_trip(id in 1..=Vni::MAX) {
            let header = VxlanHeader::new(Vni::new(id).expect("in range"));
            prop_assert_eq!(header.vni(), id);
            prop_assert!(header.has_vni() && header.is_plain());
            let octets: [u8; 8] = bytemuck::cast(header);
            prop_assert_eq!(octets, [8, 0, 0, 0, (id >> 16) as u8, (id >> 8) as u8, id as u8, 0]);
        }

        #[test]
        fn marks_round_trip(id in 0..=Vni::MAX, kind in 0..4_usize, node in 1..=u32::MAX) {
            let flags = [0, Mark::RELAY, Mark::RELAYED, 0][kind] | if id == 0 { Mark::PROBE } else { 0 };
            let mark = Mark { flags, node: if flags & !Mark::PROBE == 0 { 0 } else { node } };
            let header = VxlanHeader::marked(id, mark);
            prop_assert_eq!((header.mark(), header.vni(), header.has_vni()), (Some(mark), id, true));
            prop_assert_eq!(header.is_plain(), mark == Mark::NONE);
        }

        /// Nothing but what is defined is read as a mark.
        #[test]
        fn no_other_bits_are_a_mark(octets: [u8; 8]) {
            let header: VxlanHeader = bytemuck::cast(octets);
            if let Some(mark) = header.mark() {
                prop_assert_eq!(VxlanHeader::marked(header.vni(), mark).flags, octets[0] | VxlanHeader::FLAG_VNI);
                prop_assert!(!(mark.has(Mark::RELAY) && mark.has(Mark::RELAYED)));
            }
        }

        #[test]
        fn plain_means_equal_to_new(octets: [u8; 8]) {
            let header: VxlanHeader = bytemuck::cast(octets);
            if let Ok(vni) = Vni::new(header.vni()) {
                prop_assert_eq!(header.is_plain() && header.has_vni(), header == VxlanHeader::new(vni));
            }
        }
    }
}
