//! What a node's configuration says, as a number that two nodes can compare.

use bytemuck::{Pod, Zeroable};

use super::{
    Be16,
    probe::{number, words},
};

/// What a node's configuration says, as a number in wire order: two nodes that mean the same have the same one. Each half is 0
/// where nothing is known, as with a node of an earlier version.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Fingerprint([Be16; 4]);

/// How the configurations of two nodes differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Difference {
    /// In nodes, networks or the port.
    Mesh,
    /// Only in the MTU of networks, which where it is not written follows from the underlay interface's.
    Mtu,
}

impl Difference {
    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Mesh => "other configuration",
            Self::Mtu => "other MTU",
        }
    }
}

impl Fingerprint {
    /// Octets on the wire.
    pub const LEN: usize = 8;
    /// Nothing is known.
    pub const UNKNOWN: Self = Self([Be16::new(0); 4]);

    /// Of what must be the same everywhere, and of the MTUs that networks have.
    #[must_use]
    pub fn new(mesh: u32, mtu: u32) -> Self {
        Self::from_bits(u64::from(mesh) << 32 | u64::from(mtu))
    }

    /// From [`Self::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(words(bits))
    }

    /// As a number.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        number(self.0)
    }

    /// The half that is the same on all hosts of a mesh; 0 where it is not known.
    #[must_use]
    pub const fn mesh(self) -> u32 {
        self.halves().0
    }

    /// True if nothing is known at all.
    #[inline(always)]
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        self.to_bits() == 0
    }

    /// How another node's configuration differs from this one, as far as both are known.
    #[must_use]
    pub const fn difference(self, other: Self) -> Option<Difference> {
        let [(mesh, mtu), (other_mesh, other_mtu)] = [self.halves(), other.halves()];
        if mesh != other_mesh && mesh != 0 && other_mesh != 0 {
            Some(Difference::Mesh)
        } else if mtu != other_mtu && mtu != 0 && other_mtu != 0 {
            Some(Difference::Mtu)
        } else {
            None
        }
    }

    const fn halves(self) -> (u32, u32) {
        let bits = self.to_bits();
        ((bits >> 32) as u32, bits as u32)
    }
}

/// Makes a number of values that must come in an order of their own: FNV-1a (draft-eastlake-fnv) of 64 bits. Not against people
/// who want two configurations to look alike.
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn octet(&mut self, octet: u8) {
        self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    }

    /// A text: two texts are not one of both.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        text.bytes().for_each(|octet| self.octet(octet));
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        number.to_be_bytes().into_iter().for_each(|octet| self.octet(octet));
    }

    /// Half of a [`Fingerprint`]: never 0, which says that nothing is known.
    #[must_use]
    pub const fn finish(self) -> u32 {
        let folded = (self.0 >> 32) as u32 ^ self.0 as u32;
        if folded == 0 { 1 } else { folded }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fingerprints(bits: u64, mesh: u32, mtu: u32) {
            prop_assert_eq!(bytemuck::cast::<_, [u8; Fingerprint::LEN]>(Fingerprint::from_bits(bits)), bits.to_be_bytes());
            prop_assert_eq!(Fingerprint::from_bits(bits).to_bits(), bits);
            let (own, mesh_known, mtu_known) = (Fingerprint::new(mesh, mtu), mesh != 0, mtu != 0);
            prop_assert_eq!(own.difference(own), None);
            prop_assert_eq!(own.difference(Fingerprint::UNKNOWN), None);
            let other = own.difference(Fingerprint::new(mesh ^ 1, mtu ^ 2));
            prop_assert_eq!(other == Some(Difference::Mesh), mesh_known && mesh != 1);
            let other = own.difference(Fingerprint::new(mesh, mtu ^ 2));
            prop_assert_eq!(other, (mtu_known && mtu != 2).then_some(Difference::Mtu));
        }

        #[test]
        fn digests(one in "[ab]{0,4}", other in "[ab]{0,4}", number: u64) {
            let of = |texts: &[&str], number: u64| {
                let mut digest = Digest::default();
                texts.iter().for_each(|text| digest.text(text));
                digest.number(number);
                digest.finish()
            };
            let all = of(&[&one, &other], number);
            prop_assert_eq!(all, of(&[&one, &other], number));
            prop_assert_ne!(all, 0);
            prop_assert_ne!(all, of(&[&one, &other], number ^ 1));
            prop_assert_ne!(all, of(&[&std::format!("{one}{other}")], number));
            prop_assert_eq!(one == other, all == of(&[&other, &one], number));
        }
    }

    /// As in <http://www.isthe.com/chongo/tech/comp/fnv/>.
    #[test]
    fn is_fnv_1a() {
        let mut digest = Digest::default();
        "foobar".bytes().for_each(|octet| digest.octet(octet));
        assert_eq!(digest.0, 0x8594_4171_f739_67e8);
    }
}
