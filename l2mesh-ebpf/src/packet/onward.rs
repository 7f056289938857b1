//! What forwarding and reflecting need of a frame at a TC hook: another outer header in the place of the one that is there.
#![expect(unsafe_code, reason = "helper calls")]

use core::array::from_fn;

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_skb_adjust_room, bpf_skb_load_bytes},
};
use l2mesh_common::{
    tables::{PeerId, Settings},
    verdict::Verdict,
    wire::{EthernetHeader, HeadersV4, HeadersV6, Ipv4Header, Ipv6Header, PerFrame, Reachability, Template},
};

use super::{Family, Skb, Underlay};

/// Upper half of `mark` of a relayed frame on its way through the kernel's receive path; the lower is the peer.
const ORIGIN: u32 = 0x6c32_0000;

impl Underlay for Skb {
    /// By helper, not directly: see [`Skb::store_bytes`].
    #[inline(always)]
    fn rewrite(&mut self, from: Family, to: Family, template: &Template, frame: &PerFrame) -> Result<(), Verdict> {
        self.change_version(from, to)?;
        match to {
            Family::V4 => {
                let headers = HeadersV4::new(template, frame);
                let words: [u64; HeadersV4::WORDS] = from_fn(|index| headers.word(index));
                self.store_at(0, &words, BPF_F_RECOMPUTE_CSUM)
            }
            Family::V6 => {
                const WORDS: usize = HeadersV6::WORDS;
                let headers = HeadersV6::new(template, frame);
                let words: [u64; WORDS] = from_fn(|index| headers.word(index));
                self.store_at(0, &words, BPF_F_RECOMPUTE_CSUM)?;
                self.store_at(size_of_val(&words) as u32, &(headers.word(WORDS) as u32), BPF_F_RECOMPUTE_CSUM)
            }
        }
    }

    #[inline(always)]
    fn can_leave_by(&self, _: &Settings, _: u32) -> bool {
        true
    }

    #[inline(always)]
    fn say(&mut self, offset: u32, said: &Reachability) -> Result<(), Verdict> {
        self.store_at(offset, said, BPF_F_RECOMPUTE_CSUM)
    }

    #[inline(always)]
    fn hear(&self, offset: u32, noted: *mut Reachability) {
        let skb = self.context.skb.skb.cast();
        // SAFETY: `noted` is a value of a map. The caller has seen that the frame does not end before.
        let _failed = unsafe { bpf_skb_load_bytes(skb, offset, noted.cast(), Reachability::LEN as u32) };
    }

    #[inline(always)]
    fn greatest_packet(&self, family: Family, len: u32) -> u32 {
        const L3: u32 = EthernetHeader::LEN as u32;
        match self.gso_size() {
            0 => len.saturating_sub(L3),
            segment => self.inner_headers(family.outer() + L3) + segment,
        }
    }
}

impl Skb {
    /// Makes the outer header as long as one of another IP version; the caller writes it. Of whatever is inside, also of a merged
    /// frame: growing alone leaves the version that the kernel believes in, which only shrinking can change.
    #[inline(always)]
    fn change_version(&mut self, from: Family, to: Family) -> Result<(), Verdict> {
        const DIFFERENCE: u32 = (Ipv6Header::LEN - Ipv4Header::LEN) as u32;
        /// Anything that leaves whole headers when it is taken away.
        const MORE: u32 = 8;
        const FLAGS: u32 = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
        let changed = match (from, to) {
            (Family::V4, Family::V4) | (Family::V6, Family::V6) => Ok(()),
            (Family::V6, Family::V4) => self.pop(DIFFERENCE, BPF_F_ADJ_ROOM_DECAP_L3_IPV4),
            (Family::V4, Family::V6) => {
                let more = (DIFFERENCE + MORE).cast_signed();
                // SAFETY: see `push_behind`.
                match unsafe { bpf_skb_adjust_room(self.context.skb.skb, more, BPF_ADJ_ROOM_MAC, FLAGS.into()) } {
                    0 => self.pop(MORE, BPF_F_ADJ_ROOM_DECAP_L3_IPV6),
                    _ => Err(()),
                }
            }
        };
        changed.map_err(|()| Verdict::EncapFailed)
    }

    /// Octets of the headers of IP and TCP at `offset` inside; without any, of what we do not know.
    #[inline(always)]
    fn inner_headers(&self, offset: u32) -> u32 {
        const TCP_OFFSET: u32 = 12;
        let ip = match self.load::<u8>(offset) {
            Some(first) if first >> 4 == 4 => u32::from(first & 0xf) * 4,
            Some(first) if first >> 4 == 6 => Ipv6Header::LEN as u32,
            _ => return 0,
        };
        ip + self.load::<u8>(offset + ip + TCP_OFFSET).map_or(0, |octet| u32::from(octet >> 4) * 4)
    }

    /// Tells the program at the helper device whose the frame is: `mark` reaches it, and nothing else does.
    #[inline(always)]
    pub(crate) fn set_origin(&mut self, peer: PeerId) {
        self.context.skb.set_mark(ORIGIN | peer & 0xffff);
    }

    /// What [`Self::set_origin`] said, taken off.
    #[inline(always)]
    pub(crate) fn take_origin(&mut self) -> Option<PeerId> {
        // SAFETY: see `ifindex`.
        let mark = unsafe { (*self.context.skb.skb).mark };
        if mark & 0xffff_0000 != ORIGIN {
            return None;
        }
        self.context.skb.set_mark(0);
        Some(mark & 0xffff)
    }
}
