//! Networks that answer for their neighbours (`neighbour-suppression`): what passes is read, and questions whose answer is
//! known become the answer and go back to where they came from. Frames with a VLAN tag are carried and not read: an address
//! means another host in another VLAN.

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
    let is_answer = match topic {
        Topic::Arp => match sent_arp(skb, vni) {
            0 => return Ok(false),
            answer => write_arp(skb, answer),
        },
        Topic::Nd => {
            let is_intact = nd_is_intact(skb);
            match sent_nd(skb, vni, is_intact) {
                0 => return Ok(false),
                answer => write_nd(skb, answer),
            }
        }
        Topic::Rarp | Topic::Dhcp => {
            neighbours::sent_by(&mut Here::now(), &FdbKey::new(vni, ethernet.source));
            if topic == Topic::Dhcp {
                lease(skb, vni);
            }
            return Ok(false);
        }
    };
    if is_answer == 0 {
        return Err(Verdict::StoreFailed);
    }
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
        Some(Topic::Arp) => received_arp(skb, vni, peer),
        Some(Topic::Nd) => {
            let is_intact = nd_is_intact(skb);
            received_nd(skb, vni, peer, is_intact);
        }
        Some(Topic::Dhcp) => lease(skb, vni),
        Some(Topic::Rarp) | None => {}
    }
}

// Functions of their own from here on: stacks add up along calls, and those of flooding are deep. They return one number.

#[inline(never)]
fn sent_arp(skb: &mut Skb, vni: u32) -> u64 {
    let Some(ethernet) = arp_header(skb) else { return 0 };
    let said = arp(skb, vni, &ethernet);
    outgoing(vni, &ethernet, &said)
}

#[inline(never)]
fn sent_nd(skb: &mut Skb, vni: u32, is_intact: bool) -> u64 {
    let Some(ethernet) = nd_header(skb) else { return 0 };
    let said = nd(skb, vni, &ethernet, is_intact);
    outgoing(vni, &ethernet, &said)
}

#[inline(never)]
fn received_arp(skb: &mut Skb, vni: u32, peer: PeerId) {
    if let Some(ethernet) = arp_header(skb) {
        neighbours::incoming(&mut Here::now(), &arp(skb, vni, &ethernet), peer);
    }
}

#[inline(never)]
fn received_nd(skb: &mut Skb, vni: u32, peer: PeerId, is_intact: bool) {
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

#[inline(never)]
fn write_arp(skb: &mut Skb, answer: u64) -> u64 {
    let answer = Answer::from_bits(answer);
    skb.pull((L3 + Arp::LEN) as u32);
    let Some(frame) = skb.header::<Arp>(L3).map(|question| question.answer(answer.mac)) else { return 0 };
    u64::from(skb.store(0, frame).is_ok())
}

#[inline(never)]
fn write_nd(skb: &mut Skb, answer: u64) -> u64 {
    let answer = Answer::from_bits(answer);
    let Some(asker) = nd_header(skb).map(|ethernet| ethernet.source) else { return 0 };
    let Some(question) = skb.header::<NdMessage>(L3) else { return 0 };
    let frame = question.answer(asker, answer.mac, answer.router);
    u64::from(skb.store(0, frame).is_ok())
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

#[inline(never)]
fn nd_is_intact(skb: &mut Skb) -> bool {
    nd_header(skb);
    skb.header::<NdMessage>(L3).is_some_and(|message| message.is_intact(option(skb, message)))
}

#[inline(always)]
fn option<'a>(skb: &'a Skb, message: &NdMessage) -> Option<&'a LinkLayerOption> {
    if message.header.ip.payload_length() > NdMessage::LEN { skb.header(OPTION) } else { None }
}

/// Learns what a DHCP server grants.
#[inline(never)]
fn lease(skb: &mut Skb, vni: u32) {
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
