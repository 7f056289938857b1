//! The MSS of TCP connections, lowered to what the path takes.

use l2mesh_common::{
    mss::{self, Change, Mss, Search, TcpHeader},
    verdict::Verdict,
    wire::{Be16, EtherType, EthernetHeader, Ipv4Header, Ipv6Header, Protocol},
};

use crate::{
    packet::{Packet as _, Skb, Step, repeat},
    tables,
};

const L3: usize = EthernetHeader::LEN;
/// The flags in the TCP header.
const FLAGS: usize = 13;
const SYN: u8 = 2;

/// Lowers the MSS that a SYN or SYN-ACK announces so that segments fit into packets of `mtu` octets; everything else stays
/// as it is. Also a frame that cannot be read: that is for its receiver to judge.
#[inline(always)]
pub(crate) fn clamp(skb: &mut Skb, mtu: u32) {
    if skb.is_gso() {
        return;
    }
    let Some((tcp, ip_header)) = syn(skb) else { return };
    let mss = mss::for_path(mtu, ip_header);
    // No peer is reached by such a path; an MSS of nothing would stop the connection.
    if mss == 0 {
        return;
    }
    if lower(skb, tcp, mss).is_some() {
        tables::count(Verdict::MssLowered, skb.frame_len());
    }
}

/// Where the TCP header of a SYN stands, and how long an IP header of its version is without options.
#[inline(always)]
fn syn(skb: &Skb) -> Option<(u32, u32)> {
    const PLAIN: usize = L3 + Ipv4Header::LEN;
    let (tcp, ip_header) = match skb.header::<EthernetHeader>(0)?.ether_type() {
        EtherType::IPV4 => {
            let ip = skb.header::<Ipv4Header>(L3)?;
            if ip.protocol() != Protocol::TCP || ip.is_fragment() {
                return None;
            }
            (L3 + ip.header_len(), Ipv4Header::LEN)
        }
        EtherType::IPV6 => {
            let ip = skb.header::<Ipv6Header>(L3)?;
            if ip.next_header() != Protocol::TCP {
                return None;
            }
            (L3 + Ipv6Header::LEN, Ipv6Header::LEN)
        }
        _ => return None,
    };
    // Most segments are none, and have no options before them.
    let flags = match tcp {
        PLAIN => skb.header::<u8>(PLAIN + FLAGS).copied(),
        _ => None,
    };
    let flags = flags.or_else(|| skb.load::<u8>((tcp + FLAGS) as u32))?;
    if flags & SYN == 0 { None } else { Some((tcp as u32, ip_header as u32)) }
}

#[inline(always)]
fn lower(skb: &mut Skb, tcp: u32, mss: u16) -> Option<()> {
    let header: TcpHeader = skb.load(tcp)?;
    let options = tcp + TcpHeader::LEN as u32;
    let search = Search::new(header.header_len().checked_sub(TcpHeader::LEN as u32)?);
    let mut turns = Turns { skb, options, search };
    repeat(mss::OPTIONS_MAX, &mut turns);
    let at = turns.search.value_at()?;
    let found = Mss { at, value: skb.load::<Be16>(options + at)?.get() };
    if found.value <= mss {
        return None;
    }
    let change = Change::new(found, mss);
    skb.follow_checksum(tcp + TcpHeader::CHECKSUM, change.from, change.to).ok()?;
    skb.store_followed(options + at, &Be16::new(mss)).ok()
}

/// The loop over the options.
struct Turns<'a> {
    skb: &'a Skb,
    /// Where the first stands.
    options: u32,
    search: Search,
}

impl Step for Turns<'_> {
    #[inline(always)]
    fn step(&mut self, _turn: u32) {
        let Some(at) = self.search.next() else { return };
        let at = self.options + at;
        // The last octet of a frame may be an option by itself.
        let [kind, length] = self.skb.load::<[u8; 2]>(at).unwrap_or_else(|| [self.skb.load::<u8>(at).unwrap_or(0), 0]);
        self.search.take(kind, length);
    }
}
