//! Every kind of frame, every state of the table, and what must never be answered.

mod answers;
mod properties;
mod said;

use std::{collections::HashMap, vec::Vec};

use super::*;
use crate::wire::{
    Be16, EtherType, EthernetHeader, Ipv4Octets, Ipv6Octets,
    arp::tests::{octets as arp_octets, parsed as arp_parsed},
    nd::tests::{NA, NS, octets as nd_octets, parsed as nd_parsed},
};

const SECOND: u64 = 1_000_000_000;
const PEER: PeerId = 7;
const VNI: u32 = 16;
const BROADCAST: [u8; 6] = [0xff; 6];
/// Asks, on our side.
const ASKER: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [10, 8, 0, 1]);
/// Behind [`PEER`].
const OWNER: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 2], [10, 8, 0, 2]);
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const NOBODY: [u8; 4] = [0; 4];

fn v6(last: u8) -> [u8; 16] {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0xcd, 0xef, last]
}

fn group(target: [u8; 16]) -> [u8; 16] {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, target[13], target[14], target[15]]
}

fn ethernet(destination: [u8; 6], source: [u8; 6]) -> EthernetHeader {
    EthernetHeader::new(MacAddr(destination), MacAddr(source), EtherType::ARP)
}

fn an_arp(destination: [u8; 6], operation: u16, sender: ([u8; 6], [u8; 4]), target: [u8; 4]) -> Said {
    arp(VNI, &ethernet(destination, sender.0), &arp_parsed(&arp_octets(operation, sender, ([0; 6], target))))
}

/// Source, destination, target; source MAC address; option.
fn an_nd(kind: u8, flags: u8, addresses: [[u8; 16]; 3], source: [u8; 6], option: Option<(u8, [u8; 6])>) -> Said {
    let octets = nd_octets(kind, flags, addresses, option);
    let destination = if addresses[1][0] == 0xff { [0x33, 0x33, 0, 0, 0, 1] } else { OTHER_MAC };
    read_nd(&ethernet(destination, source), &octets)
}

fn solicitation(asker: ([u8; 16], [u8; 6]), target: [u8; 16]) -> Said {
    an_nd(NS, 0, [asker.0, group(target), target], asker.1, Some((1, asker.1)))
}

fn advertisement(owner: ([u8; 16], [u8; 6]), flags: u8) -> Said {
    an_nd(NA, flags, [owner.0, [0xff; 16], owner.0], owner.1, Some((2, owner.1)))
}

/// A message as it is.
fn read_nd(ethernet: &EthernetHeader, octets: &[u8]) -> Said {
    let (message, option) = nd_parsed(octets);
    nd(VNI, ethernet, &message, option.as_ref(), message.is_intact(option.as_ref()))
}

fn address4(octets: [u8; 4]) -> NeighbourKey {
    NeighbourKey::v4(VNI, Ipv4Octets(octets))
}

fn address6(octets: [u8; 16]) -> NeighbourKey {
    NeighbourKey::v6(VNI, Ipv6Octets(bytemuck::cast::<_, [Be16; 8]>(octets)))
}

fn station(mac: [u8; 6]) -> FdbKey {
    FdbKey::new(VNI, MacAddr(mac))
}

/// Tables of a host, and a clock.
struct Host {
    now: u64,
    room: usize,
    neighbours: HashMap<NeighbourKey, Neighbour>,
    stations: HashMap<FdbKey, FdbEntry>,
    counted: Vec<Verdict>,
}

impl Host {
    /// [`OWNER`]'s and another's MAC addresses are behind [`PEER`].
    fn new() -> Self {
        let now = 1_000 * SECOND;
        let mut host =
            Self { now, room: 100, neighbours: HashMap::new(), stations: HashMap::new(), counted: Vec::new() };
        host.receive_from(OWNER.0);
        host.receive_from(OTHER_MAC);
        host
    }

    /// Any frame from a MAC address behind the peer.
    fn receive_from(&mut self, mac: [u8; 6]) {
        let entry = FdbEntry { peer: PEER, flags: 0, seen_ns: self.now, ..bytemuck::Zeroable::zeroed() };
        self.stations.insert(station(mac), entry);
    }

    /// Sends on our side.
    fn send(&mut self, source: [u8; 6], said: Said) -> Option<Answer> {
        self.counted.clear();
        let to_all = !matches!(said.question, Question::Owner(_));
        sent_by(self, &station(source));
        outgoing(self, &said, to_all)
    }

    fn receive(&mut self, said: Said) {
        self.counted.clear();
        incoming(self, &said, PEER);
    }

    /// The asker asks for the owner.
    fn ask(&mut self) -> Option<Answer> {
        self.send(ASKER.0, an_arp(BROADCAST, 1, ASKER, OWNER.1))
    }

    /// After the first question, which everyone hears, and the owner's reply.
    fn acquainted() -> Self {
        let mut host = Self::new();
        assert_eq!(
            (host.ask(), &host.counted[..2]),
            (None, &[Verdict::NeighbourUnknown, Verdict::NeighbourLearned][..])
        );
        host.receive(an_arp(ASKER.0, 2, OWNER, ASKER.1));
        assert_eq!(host.counted, [Verdict::NeighbourLearned]);
        host
    }
}

impl Neighbourhood for Host {
    fn now_ns(&self) -> u64 {
        self.now
    }

    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour> {
        self.neighbours.get(key)
    }

    fn station(&self, key: &FdbKey) -> Option<&FdbEntry> {
        self.stations.get(key)
    }

    fn put(&mut self, key: &NeighbourKey, neighbour: &Neighbour) -> bool {
        let fits = self.neighbours.contains_key(key) || self.neighbours.len() < self.room;
        if fits {
            self.neighbours.insert(*key, *neighbour);
        }
        fits
    }

    fn change(&mut self, key: &NeighbourKey, change: impl FnOnce(&mut Neighbour)) {
        self.neighbours.get_mut(key).map(change);
    }

    fn remove(&mut self, key: &NeighbourKey) {
        self.neighbours.remove(key);
    }

    fn unplace(&mut self, key: &FdbKey) {
        self.stations.entry(*key).and_modify(|entry| entry.seen_ns = 0);
    }

    fn count(&mut self, verdict: Verdict) {
        self.counted.push(verdict);
    }
}

/// That a host is at this MAC address.
fn at(mac: [u8; 6]) -> Option<Answer> {
    let mac = MacAddr(mac);
    mac.is_valid_source().then_some(Answer { mac, router: false })
}
