//! Which other nodes a node reaches, and how, as it says in its answers.

use bytemuck::{Pod, Zeroable};

use super::{Be16, Fingerprint};

/// How a node reaches another.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub enum Reached {
    /// Nothing is known: it does not probe the other, or has not said.
    #[default]
    Unknown = 0,
    /// By the direct path.
    Directly = 1,
    /// Through a relay.
    ByRelay = 2,
    /// No path is up.
    Not = 3,
}

impl Reached {
    /// One word, for people and programs.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Directly => "direct",
            Self::ByRelay => "relay",
            Self::Not => "down",
        }
    }

    const fn of_bits(bits: u8) -> Self {
        match bits & 3 {
            1 => Self::Directly,
            2 => Self::ByRelay,
            3 => Self::Not,
            _ => Self::Unknown,
        }
    }
}

/// What one node says of all others, behind its [`Fingerprint`] in the answer to a probe that is long enough.
///
/// ```text
/// u32 the mesh's half of the fingerprint: nodes have other ranks in another configuration
/// 128 octets, two bits a node, that of rank 0 in the least bits of the first octet
/// ```
///
/// The rank of a node is its place among all nodes of the configuration in the order of their names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Reachability {
    mesh: [Be16; 2],
    nodes: [[u8; 2]; Reachability::NODES / 8],
}

impl Reachability {
    /// Octets on the wire.
    pub const LEN: usize = 4 + Self::NODES / 4;
    /// Of nodes of a higher rank nothing is said.
    pub const NODES: usize = 512;

    /// Of nobody yet, by a node of this configuration.
    #[must_use]
    pub fn new(fingerprint: Fingerprint) -> Self {
        let mesh = fingerprint.mesh();
        Self { mesh: [Be16::new((mesh >> 16) as u16), Be16::new(mesh as u16)], ..Self::zeroed() }
    }

    /// True if both know the same nodes: only then ranks mean the same.
    #[must_use]
    pub fn is_of(&self, fingerprint: Fingerprint) -> bool {
        fingerprint.mesh() != 0 && self.mesh == Self::new(fingerprint).mesh
    }

    /// How the node of this rank is reached.
    #[must_use]
    pub fn get(&self, rank: usize) -> Reached {
        let octet = self.nodes.as_flattened().get(rank / 4).copied().unwrap_or_default();
        Reached::of_bits(octet >> (rank % 4 * 2))
    }

    /// Says so.
    pub fn set(&mut self, rank: usize, reached: Reached) {
        let shift = rank % 4 * 2;
        if let Some(octet) = self.nodes.as_flattened_mut().get_mut(rank / 4) {
            *octet = *octet & !(3 << shift) | (reached as u8) << shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Reached; 4] = [Reached::Unknown, Reached::Directly, Reached::ByRelay, Reached::Not];

    proptest! {
        #[test]
        fn each_node_has_its_own(mesh: u32, said in proptest::collection::vec((0..600_usize, 0..4_usize), 0..50)) {
            let mut all = Reachability::new(Fingerprint::new(mesh, 5));
            let mut expected = [Reached::Unknown; 600];
            for (rank, how) in said {
                all.set(rank, ALL[how]);
                expected[rank] = if rank < Reachability::NODES { ALL[how] } else { Reached::Unknown };
            }
            for (rank, how) in expected.into_iter().enumerate() {
                prop_assert_eq!(all.get(rank), how);
            }
            let octets: [u8; Reachability::LEN] = bytemuck::cast(all);
            prop_assert_eq!(&octets[..4], &mesh.to_be_bytes());
            prop_assert_eq!(bytemuck::cast::<_, Reachability>(octets), all);
            prop_assert_eq!(all.is_of(Fingerprint::new(mesh, 9)), mesh != 0);
            prop_assert!(!all.is_of(Fingerprint::new(mesh ^ 1, 5)) && !all.is_of(Fingerprint::UNKNOWN));
        }
    }

    #[test]
    fn octets() {
        let mut all = Reachability::new(Fingerprint::new(0x0102_0304, 0));
        for (rank, reached) in [(0, Reached::Directly), (1, Reached::ByRelay), (3, Reached::Not), (511, Reached::Not)] {
            all.set(rank, reached);
        }
        let octets: [u8; Reachability::LEN] = bytemuck::cast(all);
        assert_eq!((&octets[..6], octets[131]), (&[1, 2, 3, 4, 0b1100_1001, 0][..], 0b1100_0000));
    }
}
