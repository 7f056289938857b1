//! What answers and the MSS need of a frame at a TC hook: to be read at any offset, and made another frame.
#![expect(unsafe_code, reason = "helper calls")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::generated::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
    },
};
use bytemuck::{AnyBitPattern, NoUninit};
use l2mesh_common::{
    too_big::{QUOTED_MAX, TooBigV4, TooBigV6, fold_memory},
    verdict::Verdict,
    wire::{Be16, EthernetHeader},
};

use super::{Packet as _, Skb};

/// A copy of the start of a packet, and what goes before it.
#[repr(C, align(8))]
pub(crate) struct Quote {
    quoted: [u8; QUOTED_MAX],
    pub(crate) v4: TooBigV4,
    pub(crate) v6: TooBigV6,
}

impl Quote {
    /// The one's complement sum of the first octets, as many as `bpf_csum_diff` takes at a time.
    #[inline(always)]
    pub(crate) fn sum<const OCTETS: usize>(&self) -> u16 {
        const {
            assert!(OCTETS <= QUOTED_MAX && OCTETS.is_multiple_of(4));
        }
        let mut sum = self.part::<OCTETS, 0>(0);
        sum = self.part::<OCTETS, 1>(sum);
        sum = self.part::<OCTETS, 2>(sum);
        fold_memory(sum)
    }

    /// The helper's scratch pad has 512 octets (`struct bpf_scratchpad` in net/core/filter.c).
    #[inline(always)]
    fn part<const OCTETS: usize, const PART: usize>(&self, sum: u32) -> u32 {
        const MOST: usize = 512;
        const { assert!(QUOTED_MAX <= 3 * MOST) };
        let start = PART * MOST;
        if OCTETS <= start {
            return sum;
        }
        let octets = if OCTETS - start < MOST { OCTETS - start } else { MOST };
        let from = core::ptr::from_ref(&self.quoted[start]).cast_mut().cast();
        // SAFETY: so many octets of `self` follow, as the assertion in `sum` says.
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from, octets as u32, sum).cast_unsigned() as u32 }
    }
}

impl Skb {
    /// What stands at `offset`, in whatever part of the frame; `None` where the frame ends before.
    #[inline(always)]
    pub(crate) fn load<T: AnyBitPattern>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` is as long as said.
        let outcome = unsafe {
            bpf_skb_load_bytes(self.context.skb.skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: the helper fills all of it, on success and on failure; any bits are a T.
        if outcome == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }

    /// Copies the first octets behind the Ethernet header.
    #[inline(always)]
    pub(crate) fn quote<const OCTETS: usize>(&self, quote: &mut Quote) -> Result<(), Verdict> {
        const L3: u32 = EthernetHeader::LEN as u32;
        const { assert!(OCTETS <= QUOTED_MAX) };
        let to = quote.quoted.as_mut_ptr().cast();
        // SAFETY: the assertion bounds it.
        match unsafe { bpf_skb_load_bytes(self.context.skb.skb.cast(), L3, to, OCTETS as u32) } {
            0 => Ok(()),
            _ => Err(Verdict::TooBig),
        }
    }

    /// Writes the first octets of a quote at `offset`.
    #[inline(always)]
    pub(crate) fn store_quote<const OCTETS: usize>(&mut self, offset: usize, quote: &Quote) -> Result<(), Verdict> {
        const { assert!(OCTETS <= QUOTED_MAX && OCTETS.is_multiple_of(4)) };
        let from = quote.quoted.as_ptr().cast();
        // SAFETY: the assertion bounds it.
        let outcome = unsafe {
            aya_ebpf::helpers::generated::bpf_skb_store_bytes(
                self.context.skb.skb,
                offset as u32,
                from,
                OCTETS as u32,
                u64::from(aya_ebpf::bindings::BPF_F_RECOMPUTE_CSUM),
            )
        };
        if outcome == 0 { Ok(()) } else { Err(Verdict::StoreFailed) }
    }

    /// Makes this a single frame of `octets` behind the Ethernet header, of which nothing but the Ethernet header is kept, for a packet
    /// of which `header` octets are the IP header. No checksum is pending afterwards.
    ///
    /// That is why it is cut down first and grown then: a pull that goes past the place from which the checksum is to be computed
    /// is the only way in which a program can withdraw it (`__skb_postpull_rcsum` in include/linux/skbuff.h). Left
    /// there, a device would write it into the middle of the quoted packet.
    #[inline(always)]
    pub(crate) fn reshape(&mut self, octets: u32, header: u32) -> Result<(), Verdict> {
        const L2: u32 = EthernetHeader::LEN as u32;
        /// `bpf_skb_adjust_room` takes twelve bits of a length.
        const MOST: u32 = 4000;
        /// More than the checksum of any transport header stands behind the IP header.
        const SPARE: u32 = 256;
        let skb = self.context.skb.skb;
        if self.is_gso() || self.frame_len() > MOST {
            // SAFETY: takes the context as it is; so for all below.
            if unsafe { bpf_skb_change_tail(skb, L2 + octets + SPARE, 0) } != 0 {
                return Err(Verdict::TooBig);
            }
        }
        let cut = self.frame_len().saturating_sub(L2 + header);
        // SAFETY: see above.
        if unsafe { bpf_skb_adjust_room(skb, -cut.cast_signed(), BPF_ADJ_ROOM_MAC, 0) } != 0 {
            return Err(Verdict::TooBig);
        }
        // SAFETY: see above.
        match unsafe { bpf_skb_adjust_room(skb, (octets - header).cast_signed(), BPF_ADJ_ROOM_MAC, 0) } {
            0 => Ok(()),
            _ => Err(Verdict::TooBig),
        }
    }

    /// Follows a changed 16-bit word in the checksum at `offset`, whether the kernel has computed it or is still to
    /// (`inet_proto_csum_replace4` in net/core/utils.c).
    #[inline(always)]
    pub(crate) fn follow_checksum(&mut self, offset: u32, from: Be16, to: Be16) -> Result<(), Verdict> {
        const OCTETS: u64 = size_of::<Be16>() as u64;
        let (from, to) = (u64::from(from.octets()), u64::from(to.octets()));
        // SAFETY: takes the context as it is.
        match unsafe { bpf_l4_csum_replace(self.context.skb.skb, offset, from, to, OCTETS) } {
            0 => Ok(()),
            _ => Err(Verdict::StoreFailed),
        }
    }

    /// Writes `value` at `offset`, where the checksum has followed already.
    #[inline(always)]
    pub(crate) fn store_followed<T: NoUninit>(&mut self, offset: u32, value: &T) -> Result<(), Verdict> {
        self.store_at(offset, value, 0)
    }
}
