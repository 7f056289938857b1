//! One of the places that the tables of paths have for `l2mesh ping`. Who has it is said by an abstract Unix socket, as with
//! the agent: gone with the process.

use std::{
    fs::File,
    io::{self, Read as _},
    mem::offset_of,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::atomic::Ordering,
};

use anyhow::{Context as _, bail};
use l2mesh_common::{
    path::Answered,
    tables::{PING_SLOT, PING_SLOTS, PathRx, PathTx, PeerId},
    wire::{Fingerprint, ProbePath},
};

use crate::dataplane::{mapped::Mapped, tables::Tables};

/// A place that is ours.
pub(super) struct Slot {
    number: u32,
    nonce: u64,
    tx: Mapped<PathTx>,
    rx: Mapped<PathRx>,
    fingerprints: Mapped<u64>,
    _held: UnixDatagram,
}

impl Slot {
    /// Takes a free place.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn claim(interface: &str, ifindex: u32, tables: &Tables) -> anyhow::Result<Self> {
        for number in 0..PING_SLOTS {
            let address = SocketAddr::from_abstract_name(format!("l2mesh/{ifindex}/ping/{number}"));
            match UnixDatagram::bind_addr(&address.context("cannot name the socket of a ping")?) {
                Ok(held) => {
                    let (tx, rx) = (tables.path_tx.clone(), tables.path_rx.clone());
                    let fingerprints = tables.fingerprints.clone();
                    return Ok(Self { number, nonce: random()?, tx, rx, fingerprints, _held: held });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error).context("cannot make the socket of a ping"),
            }
        }
        bail!("{PING_SLOTS} pings run on {interface} already, which is all that it has places for: wait until one ends")
    }

    fn place(&self) -> u32 {
        PING_SLOT + self.number
    }

    /// How a probe from here says so.
    pub(super) fn path(&self) -> ProbePath {
        ProbePath::ping(self.number)
    }

    /// What answers must quote.
    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }

    /// From now on this peer is asked, through this relay. Numbers go on behind the last answer that an earlier ping got here,
    /// so that what the kernel notes need not be cleared, and behind those that this one used.
    pub(super) fn ask(&self, peer: PeerId, relay: Option<PeerId>) {
        let before = self.tx.get(self.place());
        let answered = Answered::from_bits(self.rx.get(self.place()).answered);
        let value = PathTx {
            sequence: if before.nonce == self.nonce { before.sequence } else { answered.sequence },
            limit: u32::MAX,
            recover: u32::MAX,
            // The direct path goes through nobody but the peer.
            relay: relay.unwrap_or(peer),
            nonce: self.nonce,
            peer,
            ..PathTx::default()
        };
        self.tx.set(self.place(), &value);
    }

    /// The number of the next probe, which may be answered from now on.
    pub(super) fn advance(&self) -> u32 {
        let sequence = self.tx.field(self.place(), offset_of!(PathTx, sequence));
        sequence.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// It could not be sent.
    pub(super) fn take_back(&self) {
        self.tx.field(self.place(), offset_of!(PathTx, sequence)).fetch_sub(1, Ordering::AcqRel);
    }

    /// True once the probe of this number is answered.
    pub(super) fn is_answered(&self, sequence: u32) -> bool {
        Answered::from_bits(self.rx.get(self.place()).answered).sequence == sequence
    }

    /// Round-trip time of the latest answer, nanoseconds. The kernel program notes it a few instructions after the answer itself.
    pub(super) fn round_trip_ns(&self) -> u64 {
        self.rx.get(self.place()).rtt_ns
    }
}

impl Slot {
    /// What the far end's configuration says, as it stood in the latest answer.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_bits(self.fingerprints.get(self.place()))
    }
}

impl Drop for Slot {
    /// Answers that come later are for nobody.
    fn drop(&mut self) {
        self.tx.set(self.place(), &PathTx::default());
    }
}

fn random() -> anyhow::Result<u64> {
    const PATH: &str = "/dev/urandom";
    let mut octets = [0; 8];
    let read = File::open(PATH).and_then(|mut file| file.read_exact(&mut octets));
    read.with_context(|| format!("cannot read {PATH}"))?;
    Ok(u64::from_ne_bytes(octets))
}
