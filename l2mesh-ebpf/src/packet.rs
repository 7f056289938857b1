//! All pointer work on frames. Everything that may move a frame's data takes `&mut self`, so that the borrow
//! checker asks for what the verifier asks for: headers are looked up anew afterwards.
#![expect(unsafe_code, reason = "packet access and helper calls")]

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS,
        BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_tunnel_key,
    },
    helpers::generated::{
        bpf_csum_level, bpf_get_netns_cookie, bpf_ktime_get_coarse_ns, bpf_loop, bpf_redirect, bpf_skb_adjust_room,
        bpf_skb_change_head, bpf_skb_get_tunnel_key, bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_adjust_meta,
        bpf_xdp_get_buff_len,
    },
    programs::{TcContext, XdpContext},
};
use bytemuck::{AnyBitPattern, NoUninit};
use l2mesh_common::{
    verdict::Verdict,
    wire::{EthernetHeader, Ipv4Octets, OuterV4},
};

/// Room for the outer header.
const OUTER: i32 = 50;
const _: () = assert!(OuterV4::LEN == 50);
/// `skb->encapsulation` is set already (`bpf_skb_net_grow` in net/core/filter.c).
const EALREADY: i64 = -114;

/// What XDP and TC frames have in common: headers at constant offsets.
pub(crate) trait Packet {
    fn data(&self) -> usize;
    fn data_end(&self) -> usize;

    /// Octets from the Ethernet header on.
    fn frame_len(&self) -> u32;

    /// The header at `offset`, or `None` where the frame, or its directly readable part, ends before.
    #[inline(always)]
    fn header<T: AnyBitPattern>(&self, offset: usize) -> Option<&T> {
        let start = self.data() + offset;
        if start + size_of::<T>() > self.data_end() {
            return None;
        }
        // SAFETY: the check above bounds the access and any bits are a T. Headers lie at even addresses, as
        // Ethernet frames do; where not, the JITs that we run on allow it, else the verifier refuses the load.
        Some(unsafe { &*(start as *const T) })
    }

    /// Writes words from the start of the frame on.
    #[inline(always)]
    fn store<const N: usize, W: NoUninit>(&mut self, words: [W; N]) -> Result<(), Verdict> {
        let start = self.data();
        if start + size_of::<[W; N]>() > self.data_end() {
            return Err(Verdict::StoreFailed);
        }
        for (index, word) in words.into_iter().enumerate() {
            // Volatile, or the words become a call of memmove, which goes octet by octet here.
            // SAFETY: as in `header`; `&mut self` says that no header is borrowed.
            unsafe { (start as *mut W).add(index).write_volatile(word) };
        }
        Ok(())
    }
}

/// A frame at a TC hook.
pub(crate) struct Skb {
    context: TcContext,
    has_outer: bool,
}

impl Packet for Skb {
    #[inline(always)]
    fn data(&self) -> usize {
        self.context.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.context.data_end()
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.context.len()
    }
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(context: TcContext) -> Self {
        Self { context, has_outer: false }
    }

    /// True once [`Self::push_outer`] has made room.
    #[inline(always)]
    pub(crate) fn has_outer(&self) -> bool {
        self.has_outer
    }

    /// The interface at whose hook the frame is.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid as long as the program runs; so for all below.
        unsafe { (*self.context.skb.skb).ifindex }
    }

    /// True for a frame that is many on the wire.
    #[inline(always)]
    pub(crate) fn is_gso(&self) -> bool {
        // SAFETY: see `ifindex`.
        unsafe { (*self.context.skb.skb).gso_size != 0 }
    }

    /// True if a VLAN tag is kept beside the frame.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        // SAFETY: see `ifindex`.
        unsafe { (*self.context.skb.skb).vlan_present != 0 }
    }

    /// Cookie of the namespace of the interface.
    #[inline(always)]
    pub(crate) fn netns_cookie(&self) -> u64 {
        // SAFETY: takes the context as it is.
        unsafe { bpf_get_netns_cookie(self.context.as_ptr()) }
    }

    /// What the XDP program left before the frame.
    #[inline(always)]
    pub(crate) fn metadata<T: AnyBitPattern>(&self) -> Option<&T> {
        // SAFETY: see `ifindex`.
        let start = unsafe { (*self.context.skb.skb).data_meta } as usize;
        if start + size_of::<T>() > self.data() {
            return None;
        }
        // SAFETY: the check bounds the access and any bits are a T.
        Some(unsafe { &*(start as *const T) })
    }

    /// Makes the first `octets` directly readable where they are not yet; the frame may be shorter.
    #[inline(always)]
    pub(crate) fn pull(&mut self, octets: u32) {
        if self.data() + octets as usize > self.data_end() && self.frame_len() >= octets {
            // A failure shows at the next `header`.
            let _failed = self.context.skb.pull_data(octets);
        }
    }

    /// Makes room for the outer header before the inner Ethernet header. A GSO frame stays one frame. On failure the
    /// frame is as it was.
    #[inline(always)]
    pub(crate) fn push_outer(&mut self, inner_is_ip: bool) -> Result<(), Verdict> {
        // adjust_room makes its room behind the Ethernet header that is there; the caller writes both anew.
        const FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
            | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64
            | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
            | (EthernetHeader::LEN as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        let skb = self.context.skb.skb;
        if inner_is_ip {
            // SAFETY: takes the context as it is; so for all helpers below.
            let outcome = unsafe { bpf_skb_adjust_room(skb, OUTER, BPF_ADJ_ROOM_MAC, FLAGS) };
            if outcome == 0 {
                self.has_outer = true;
                return Ok(());
            }
            if outcome != EALREADY {
                return Err(Verdict::EncapFailed);
            }
        }
        // Not IP, or encapsulated once before. This helper knows nothing of segments: single frames only.
        if self.is_gso() {
            return Err(Verdict::EncapFailed);
        }
        // SAFETY: see above.
        if unsafe { bpf_skb_change_head(skb, OUTER.unsigned_abs(), 0) } != 0 {
            return Err(Verdict::EncapFailed);
        }
        self.has_outer = true;
        Ok(())
    }

    /// Takes the outer header off, behind the Ethernet header that is there; the caller writes the inner one over it.
    /// On failure the frame is as it was.
    #[inline(always)]
    pub(crate) fn pop_outer(&mut self) -> Result<(), Verdict> {
        const FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64 | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;
        // SAFETY: see `push_outer`.
        match unsafe { bpf_skb_adjust_room(self.context.skb.skb, -OUTER, BPF_ADJ_ROOM_MAC, FLAGS) } {
            0 => Ok(()),
            _ => Err(Verdict::DecapFailed),
        }
    }

    /// Says that the checksum which the NIC verified was the outer one, now gone: the inner one is still to be verified.
    #[inline(always)]
    pub(crate) fn forget_outer_checksum(&mut self) {
        // It fails where nothing was verified, which is as good.
        // SAFETY: see `push_outer`.
        let _nothing_verified = unsafe { bpf_csum_level(self.context.skb.skb, u64::from(BPF_CSUM_LEVEL_DEC)) };
    }

    /// Writes `value` at the start of the frame, by helper. A program that writes directly is made to copy a frame which a
    /// packet socket holds too before its first instruction (`bpf_unclone_prologue` in net/core/filter.c), and the copy has
    /// no metadata (`pskb_expand_head`): programs that read metadata must write like this.
    #[inline(always)]
    pub(crate) fn store_bytes<T: NoUninit>(&mut self, value: &T) -> Result<(), Verdict> {
        self.store_at(0, value, 0)
    }

    /// Writes `value` at `offset` where the kernel may hold a checksum over it (`CHECKSUM_COMPLETE`).
    #[inline(always)]
    pub(crate) fn store_summed<T: NoUninit>(&mut self, offset: u32, value: &T) -> Result<(), Verdict> {
        self.store_at(offset, value, BPF_F_RECOMPUTE_CSUM)
    }

    #[inline(always)]
    fn store_at<T: NoUninit>(&mut self, offset: u32, value: &T, flags: u32) -> Result<(), Verdict> {
        let source = core::ptr::from_ref(value).cast();
        // SAFETY: `source` is valid for the size of T; see also `push_outer`.
        let outcome = unsafe {
            bpf_skb_store_bytes(self.context.skb.skb, offset, source, size_of::<T>() as u32, u64::from(flags))
        };
        if outcome == 0 { Ok(()) } else { Err(Verdict::StoreFailed) }
    }

    /// Sends a copy out of an interface.
    #[inline(always)]
    pub(crate) fn clone_to(&mut self, ifindex: u32) -> Result<(), Verdict> {
        self.context.skb.clone_redirect(ifindex, 0).map_err(|_| Verdict::CopyFailed)
    }

    /// Lets an interface receive a copy.
    #[inline(always)]
    pub(crate) fn clone_into(&mut self, ifindex: u32) -> Result<(), Verdict> {
        self.context.skb.clone_redirect(ifindex, u64::from(BPF_F_INGRESS)).map_err(|_| Verdict::CopyFailed)
    }

    /// VNI and outer source of a frame that a vxlan device in `external` mode received.
    #[inline(always)]
    pub(crate) fn tunnel(&self) -> Option<(u32, Ipv4Octets)> {
        let mut key = MaybeUninit::<bpf_tunnel_key>::uninit();
        // SAFETY: `key` is as long as said; see also `push_outer`.
        let outcome = unsafe {
            bpf_skb_get_tunnel_key(self.context.skb.skb, key.as_mut_ptr(), size_of::<bpf_tunnel_key>() as u32, 0)
        };
        if outcome != 0 {
            return None;
        }
        // SAFETY: the helper fills all of it, on success and on failure.
        let key = unsafe { key.assume_init_ref() };
        // SAFETY: without BPF_F_TUNINFO_IPV6 the helper fails for an IPv6 outer header.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        Some((key.tunnel_id, Ipv4Octets(remote.to_be_bytes())))
    }
}

/// A frame at the XDP hook.
pub(crate) struct Frame {
    context: XdpContext,
}

impl Packet for Frame {
    #[inline(always)]
    fn data(&self) -> usize {
        self.context.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.context.data_end()
    }

    #[inline(always)]
    fn frame_len(&self) -> u32 {
        // SAFETY: takes the context as it is. It counts the fragments too.
        unsafe { bpf_xdp_get_buff_len(self.context.ctx) as u32 }
    }
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: XdpContext) -> Self {
        Self { context }
    }

    /// Makes room for metadata. Drivers that know none refuse; the frame is then as it was.
    #[inline(always)]
    pub(crate) fn reserve_metadata<T>(&mut self) -> Result<(), Verdict> {
        // SAFETY: takes the context as it is.
        match unsafe { bpf_xdp_adjust_meta(self.context.ctx, -(size_of::<T>() as u32).cast_signed()) } {
            0 => Ok(()),
            _ => Err(Verdict::NoMetadata),
        }
    }

    /// Takes the outer header off; metadata moves along.
    #[inline(always)]
    pub(crate) fn pop_outer(&mut self) -> Result<(), Verdict> {
        // SAFETY: takes the context as it is.
        match unsafe { bpf_xdp_adjust_head(self.context.ctx, OUTER) } {
            0 => Ok(()),
            _ => Err(Verdict::DecapFailed),
        }
    }

    /// Fills the room that [`Self::reserve_metadata`] made.
    #[inline(always)]
    pub(crate) fn store_metadata<T: NoUninit>(&mut self, value: &T) -> Result<(), Verdict> {
        let start = self.context.metadata();
        if start + size_of::<T>() > self.data() {
            return Err(Verdict::StoreFailed);
        }
        // SAFETY: the check bounds the access.
        unsafe { (start as *mut T).write(*value) };
        Ok(())
    }
}

/// Sends the frame out of an interface.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> i32 {
    // SAFETY: notes the target; no pointers.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Lets an interface receive the frame.
#[inline(always)]
pub(crate) fn receive(ifindex: u32) -> i32 {
    // SAFETY: notes the target; no pointers.
    unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: good to a tick, a third of the price of the exact one.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The body of a loop.
pub(crate) trait Step {
    fn step(&mut self, index: u32);
}

/// Runs a body for 0 up to `times`. The verifier looks at it once (`bpf_loop`), where an ordinary loop would be
/// followed turn by turn.
#[inline(always)]
pub(crate) fn repeat<S: Step>(times: u32, body: &mut S) {
    // SAFETY: the callback has the type that the helper asks for and is done with `body` when the helper returns.
    unsafe {
        bpf_loop(times, turn::<S> as *const () as *mut c_void, core::ptr::from_mut(body).cast(), 0);
    }
}

extern "C" fn turn<S: Step>(index: u64, body: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a body of this type, which nobody else uses meanwhile.
    unsafe { (*body.cast::<S>()).step(index as u32) };
    0
}
