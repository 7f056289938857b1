//! Networks that answer for their neighbours (`neighbour-suppression`): what passes is read, and questions whose answer is
//! known become the answer and go back to where they came from. Frames with a VLAN tag are carried and not read: an address
//! means another host in another VLAN.

use bytemuck::NoUninit;
use l2mesh_common::{
    entropy::Ports,
    neighbours::{self, Answer, Neighbourhood, Said, granted},
    tables::{FdbEntry, FdbKey, Neighbour, NeighbourKey, PeerId},
    verdict::Verdict,
    wire::{
        Arp, DhcpCookie, DhcpHeader, EtherType, EthernetHeader, Ipv4Header, LinkLayerOption, NdHeader, NdKind,
        NdMessage, Protocol, UdpHeader, dhcp,
    },
};

use crate::{
    apart,
    encap::Hook,
    packet::{Packet as _, Skb, now_ns},
    tables,
};

const L3: usize = EthernetHeader::LEN;
const DHCP: usize = L3 + Ipv4Header::LEN + UdpHeader::LEN;

/// Frames that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topic {
    Arp,
    Rarp,
    /// Neighbour discovery.
    Nd,
    /// From a DHCP server to a client.
    Dhcp,
}

/// Reads an untagged frame of our side. True if it has become the answer to itself, which is to go back to where it came
/// from.
#[inline(always)]
pub(crate) fn sent(skb: &mut Skb, vni: u32, ethernet: &EthernetHeader, hook: Hook) -> Result<bool, Verdict> {
    let Some(topic) = topic(skb, ethernet) else { return Ok(false) };
    // Read once, at the hook that sees all frames.
    if hook == Hook::Overlay {
        return Err(Verdict::Declined);
    }
    let written = match topic {
        Topic::Arp => match apart::sent_arp(skb.raw(), vni) {
            0 => return Ok(false),
            answer => apart::write_arp(skb.raw(), answer),
        },
        Topic::Nd => match apart::sent_nd(skb.raw(), vni) {
            0 => return Ok(false),
            answer => apart::write_nd(skb.raw(), answer),
        },
        Topic::Rarp | Topic::Dhcp => {
            neighbours::sent_by(&mut Here::now(), &FdbKey::new(vni, ethernet.source));
            if topic == Topic::Dhcp {
                apart::lease(skb.raw(), vni);
            }
            return Ok(false);
        }
    };
    apart::from_bits(written)?;
    tables::count(Verdict::NeighbourAnswered, skb.frame_len());
    Ok(true)
}

/// Reads a frame that a peer sent.
#[inline(always)]
pub(crate) fn received(skb: &mut Skb, vni: u32, ethernet: &EthernetHeader, peer: PeerId) {
    if skb.is_tagged() {
        return;
    }
    match topic(skb, ethernet) {
        Some(Topic::Arp) => apart::received_arp(skb.raw(), vni, peer),
        Some(Topic::Nd) => apart::received_nd(skb.raw(), vni, peer),
        Some(Topic::Dhcp) => apart::lease(skb.raw(), vni),
        Some(Topic::Rarp) | None => 0,
    };
}

#[inline(always)]
pub(crate) fn sent_arp(skb: &mut Skb, vni: u32) -> u64 {
    let Some(ethernet) = arp_header(skb) else { return 0 };
    let said = arp(skb, vni, &ethernet);
    outgoing(vni, &ethernet, &said)
}

#[inline(always)]
pub(crate) fn sent_nd(skb: &mut Skb, vni: u32) -> u64 {
    let is_intact = apart::nd_is_intact(skb.raw()) != 0;
    let Some(ethernet) = nd_header(skb) else { return 0 };
    let said = nd(skb, vni, &ethernet, is_intact);
    outgoing(vni, &ethernet, &said)
}

#[inline(always)]
pub(crate) fn received_arp(skb: &mut Skb, vni: u32, peer: PeerId) {
    if let Some(ethernet) = arp_header(skb) {
        neighbours::incoming(&mut Here::now(), &arp(skb, vni, &ethernet), peer);
    }
}

#[inline(always)]
pub(crate) fn received_nd(skb: &mut Skb, vni: u32, peer: PeerId) {
    let is_intact = apart::nd_is_intact(skb.raw()) != 0;
    if let Some(ethernet) = nd_header(skb) {
        neighbours::incoming(&mut Here::now(), &nd(skb, vni, &ethernet, is_intact), peer);
    }
}

/// 0: carry it.
#[inline(always)]
fn outgoing(vni: u32, ethernet: &EthernetHeader, said: &Said) -> u64 {
    let mut here = Here::now();
    neighbours::sent_by(&mut here, &FdbKey::new(vni, ethernet.source));
    neighbours::outgoing(&mut here, said, ethernet.destination.is_group()).map_or(0, Answer::to_bits)
}

#[inline(always)]
pub(crate) fn write_arp(skb: &mut Skb, answer: u64) -> Result<(), Verdict> {
    let answer = Answer::from_bits(answer);
    skb.pull((L3 + Arp::LEN) as u32);
    let question = skb.header::<Arp>(L3).ok_or(Verdict::StoreFailed)?;
    let frame = question.answer(answer.mac);
    store(skb, frame)
}

#[inline(always)]
pub(crate) fn write_nd(skb: &mut Skb, answer: u64) -> Result<(), Verdict> {
    let answer = Answer::from_bits(answer);
    let asker = nd_header(skb).ok_or(Verdict::StoreFailed)?.source;
    let question = skb.header::<NdMessage>(L3).ok_or(Verdict::StoreFailed)?;
    let frame = question.answer(asker, answer.mac, answer.router);
    store(skb, frame)
}

#[inline(always)]
fn store<const N: usize, W: NoUninit>(skb: &mut Skb, frame: [W; N]) -> Result<(), Verdict> {
    skb.store::<N, W>(0, |index| frame[index])
}

#[inline(always)]
fn topic(skb: &mut Skb, ethernet: &EthernetHeader) -> Option<Topic> {
    match ethernet.ether_type() {
        EtherType::ARP => Some(Topic::Arp),
        EtherType::RARP => Some(Topic::Rarp),
        EtherType::IPV6 => {
            skb.pull((L3 + size_of::<NdHeader>()) as u32);
            skb.header::<NdHeader>(L3)?.kind().map(|_| Topic::Nd)
        }
        EtherType::IPV4 => {
            skb.pull(DHCP as u32);
            let ip = skb.header::<Ipv4Header>(L3)?;
            if ip.protocol() != Protocol::UDP || ip.header_len() != Ipv4Header::LEN || ip.is_fragment() {
                return None;
            }
            let ports = skb.header::<Ports>(L3 + Ipv4Header::LEN)?;
            (*ports == dhcp::SERVER_TO_CLIENT).then_some(Topic::Dhcp)
        }
        _ => None,
    }
}

#[inline(always)]
fn arp_header(skb: &mut Skb) -> Option<EthernetHeader> {
    skb.pull((L3 + Arp::LEN) as u32);
    skb.header(0).copied()
}

#[inline(always)]
fn arp(skb: &Skb, vni: u32, ethernet: &EthernetHeader) -> Said {
    skb.header::<Arp>(L3).map_or(Said::NOTHING, |arp| neighbours::arp(vni, ethernet, arp))
}

/// Where the option stands that a message may have.
const OPTION: usize = L3 + size_of::<NdMessage>();

#[inline(always)]
fn nd_header(skb: &mut Skb) -> Option<EthernetHeader> {
    skb.pull((OPTION + size_of::<LinkLayerOption>()) as u32);
    skb.header(0).copied()
}

#[inline(always)]
fn nd(skb: &Skb, vni: u32, ethernet: &EthernetHeader, is_intact: bool) -> Said {
    let Some(header) = skb.header::<NdHeader>(L3) else { return Said::NOTHING };
    if header.kind() == Some(NdKind::RouterAdvertisement) {
        return neighbours::router(vni, ethernet, header);
    }
    let Some(message) = skb.header::<NdMessage>(L3) else { return Said::NOTHING };
    neighbours::nd(vni, ethernet, message, option(skb, message), is_intact)
}

#[inline(always)]
pub(crate) fn nd_is_intact(skb: &mut Skb) -> bool {
    nd_header(skb);
    skb.header::<NdMessage>(L3).is_some_and(|message| message.is_intact(option(skb, message)))
}

#[inline(always)]
fn option<'a>(skb: &'a Skb, message: &NdMessage) -> Option<&'a LinkLayerOption> {
    if message.header.ip.payload_length() > NdMessage::LEN { skb.header(OPTION) } else { None }
}

/// Learns what a DHCP server grants.
#[inline(always)]
pub(crate) fn lease(skb: &mut Skb, vni: u32) {
    const OPTIONS: u32 = DHCP as u32 + DhcpHeader::OPTIONS;
    skb.pull(OPTIONS);
    let Some(claim) = skb.header::<DhcpHeader>(DHCP).and_then(|header| granted(vni, header)) else { return };
    if skb.header::<DhcpCookie>(DHCP + DhcpHeader::COOKIE).is_some_and(|cookie| cookie.is_right())
        && dhcp::is_ack(|offset| skb.load(OPTIONS + offset))
    {
        neighbours::leased(&mut Here::now(), &claim);
    }
}

/// The tables, now.
struct Here {
    now: u64,
}

impl Here {
    #[inline(always)]
    fn now() -> Self {
        Self { now: now_ns() }
    }
}

impl Neighbourhood for Here {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        self.now
    }

    #[inline(always)]
    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour> {
        tables::neighbour(key)
    }

    #[inline(always)]
    fn station(&self, key: &FdbKey) -> Option<&FdbEntry> {
        tables::fdb(key)
    }

    #[inline(always)]
    fn put(&mut self, key: &NeighbourKey, neighbour: &Neighbour) -> bool {
        tables::neighbour_put(key, neighbour)
    }

    #[inline(always)]
    fn change(&mut self, key: &NeighbourKey, change: impl FnOnce(&mut Neighbour)) {
        tables::neighbour_change(key, change);
    }

    #[inline(always)]
    fn remove(&mut self, key: &NeighbourKey) {
        tables::neighbour_remove(key);
    }

    #[inline(always)]
    fn unplace(&mut self, key: &FdbKey) {
        tables::fdb_change(key, |entry| entry.seen_ns = 0);
    }

    #[inline(always)]
    fn count(&mut self, verdict: Verdict) {
        tables::count(verdict, 0);
    }
}
