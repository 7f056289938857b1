//! Frames at a TC hook.
#![expect(unsafe_code, reason = "packet access and helper calls")]

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_CSUM_LEVEL_DEC, BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_INGRESS,
        BPF_F_RECOMPUTE_CSUM, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
        bpf_tunnel_key,
    },
    helpers::generated::{
        bpf_csum_level, bpf_get_netns_cookie, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_get_tunnel_key,
        bpf_skb_set_tunnel_key, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use bytemuck::{AnyBitPattern, NoUninit};
use l2mesh_common::{
    tables::{NextHop, VtepAddress, Way},
    verdict::Verdict,
    wire::{EtherType, EthernetHeader, Ipv4Header, Ipv4Octets, Ipv6Header, Tag, Tags, Vni, outer::TTL},
};

use super::{Family, Packet};

/// `skb->encapsulation` is set already (`bpf_skb_net_grow` in net/core/filter.c).
const EALREADY: i64 = -114;
const KEY_LEN: u32 = size_of::<bpf_tunnel_key>() as u32;

/// A frame at a TC hook.
pub(crate) struct Skb {
    pub(super) context: TcContext,
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

    #[inline(always)]
    fn replace<T: NoUninit>(&mut self, offset: u32, value: &T) -> Result<(), Verdict> {
        self.store_at(offset, value, BPF_F_RECOMPUTE_CSUM)
    }
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(context: TcContext) -> Self {
        Self { context, has_outer: false }
    }

    /// What the kernel handed over.
    #[inline(always)]
    pub(crate) fn context(&self) -> &TcContext {
        &self.context
    }

    /// For the functions in [`crate::apart`].
    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut __sk_buff {
        self.context.skb.skb
    }

    /// True once [`Self::push_outer`] has made room.
    #[inline(always)]
    pub(crate) fn has_outer(&self) -> bool {
        self.has_outer
    }

    /// [`Self::push_outer`] was called elsewhere.
    #[inline(always)]
    pub(crate) fn note_outer(&mut self) {
        self.has_outer = true;
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
        self.gso_size() != 0
    }

    /// Octets of payload in each segment of a GSO frame, else 0.
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        // SAFETY: see `ifindex`.
        unsafe { (*self.context.skb.skb).gso_size }
    }

    /// How many it is on the wire, roughly: the headers are cut up with the data here.
    #[inline(always)]
    pub(crate) fn frames(&self) -> u32 {
        // SAFETY: see `ifindex`.
        match unsafe { (*self.context.skb.skb).gso_size } {
            0 => 1,
            size => self.frame_len().div_ceil(size),
        }
    }

    /// True if a VLAN tag is kept beside the frame.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        // SAFETY: see `ifindex`.
        unsafe { (*self.context.skb.skb).vlan_present != 0 }
    }

    /// The tag that is kept beside the frame, TPID above TCI; 0 for none.
    #[inline(always)]
    pub(crate) fn tag_word(&self) -> u32 {
        if !self.is_tagged() {
            return 0;
        }
        let skb = self.context.skb.skb;
        // SAFETY: see `ifindex`. The protocol is in wire order.
        unsafe { u32::from(u16::from_be((*skb).vlan_proto as u16)) << 16 | u32::from((*skb).vlan_tci as u16) }
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

    /// Makes the first `octets`, or as many as there are, directly readable where they are not yet.
    #[inline(always)]
    pub(crate) fn pull(&mut self, octets: u32) {
        let octets = octets.min(self.frame_len());
        if self.data() + octets as usize > self.data_end() {
            // A failure shows at the next `header`.
            let _failed = self.context.skb.pull_data(octets);
        }
    }

    /// Takes the tag that the kernel keeps beside the frame, and one behind it.
    #[inline(always)]
    pub(crate) fn untag(&mut self) -> Result<Tags, Verdict> {
        if !self.is_tagged() {
            return Ok(Tags::NONE);
        }
        let first = self.pop_tag()?;
        if !self.is_tagged() {
            return Ok(Tags::one(first));
        }
        let second = self.pop_tag()?;
        if self.is_tagged() { Err(Verdict::VlanDepth) } else { Ok(Tags::two(first, second)) }
    }

    /// Gives back what [`Self::untag`] took.
    #[inline(always)]
    pub(crate) fn tag(&mut self, tags: &Tags) -> Result<(), Verdict> {
        if tags.count() > 1 {
            self.push_tag(tags.second())?;
        }
        if tags.count() > 0 { self.push_tag(tags.first()) } else { Ok(()) }
    }

    #[inline(always)]
    fn push_tag(&mut self, tag: Tag) -> Result<(), Verdict> {
        // SAFETY: takes the context as it is.
        match unsafe { bpf_skb_vlan_push(self.context.skb.skb, tag.protocol.0.to_be(), tag.control) } {
            0 => Ok(()),
            _ => Err(Verdict::EncapFailed),
        }
    }

    /// Takes the tag beside the frame; the next one in the frame takes its place (`skb_vlan_pop` in net/core/skbuff.c).
    #[inline(always)]
    fn pop_tag(&mut self) -> Result<Tag, Verdict> {
        let skb = self.context.skb.skb;
        // SAFETY: see `ifindex`. The protocol is in wire order.
        let (control, protocol) = unsafe { ((*skb).vlan_tci as u16, u16::from_be((*skb).vlan_proto as u16)) };
        // SAFETY: takes the context as it is.
        match unsafe { bpf_skb_vlan_pop(skb) } {
            0 => Ok(Tag { protocol: EtherType(protocol), control }),
            _ => Err(Verdict::EncapFailed),
        }
    }

    /// Makes room for the outer header and the tags, before or behind the inner Ethernet header: the caller writes all of it
    /// anew. A GSO frame stays one frame. On failure the frame is as it was.
    #[inline(always)]
    pub(crate) fn push_outer(&mut self, family: Family, tags: &Tags, inner_is_ip: bool) -> Result<(), Verdict> {
        if inner_is_ip && self.push_behind(family, tags)? {
            return Ok(());
        }
        // Not IP, or encapsulated once before. This way knows nothing of segments: single frames only.
        if self.is_gso() {
            return Err(Verdict::EncapFailed);
        }
        self.push_before(family.outer() + tags.octets())
    }

    /// [`Self::push_outer`] for IP that is not encapsulated yet; false if it is.
    #[inline(always)]
    pub(crate) fn push_behind(&mut self, family: Family, tags: &Tags) -> Result<bool, Verdict> {
        const FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
            | BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64;
        let l3 = match family {
            Family::V4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
            Family::V6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        };
        let l2 = u64::from(EthernetHeader::LEN as u32 + tags.octets()) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        let room = (family.outer() + tags.octets()).cast_signed();
        // SAFETY: takes the context as it is; so for all helpers below.
        let outcome =
            unsafe { bpf_skb_adjust_room(self.context.skb.skb, room, BPF_ADJ_ROOM_MAC, FLAGS | u64::from(l3) | l2) };
        match outcome {
            0 => {
                self.has_outer = true;
                Ok(true)
            }
            EALREADY => Ok(false),
            _ => Err(Verdict::EncapFailed),
        }
    }

    /// Makes room before the frame, whatever it is.
    #[inline(always)]
    pub(crate) fn push_before(&mut self, octets: u32) -> Result<(), Verdict> {
        // SAFETY: see `push_behind`.
        if unsafe { bpf_skb_change_head(self.context.skb.skb, octets, 0) } != 0 {
            return Err(Verdict::EncapFailed);
        }
        self.has_outer = true;
        Ok(())
    }

    /// Takes the room away by which an outer header of IPv6 is longer than one of IPv4, after [`Self::push_behind`].
    #[inline(always)]
    pub(crate) fn shrink_to_v4(&mut self) -> Result<(), Verdict> {
        const ROOM: u32 = (Ipv6Header::LEN - Ipv4Header::LEN) as u32;
        self.pop(ROOM, BPF_F_ADJ_ROOM_DECAP_L3_IPV4).map_err(|()| Verdict::EncapFailed)
    }

    /// Takes the outer header off, behind the Ethernet header that is there; the caller writes the inner one over it.
    /// On failure the frame is as it was.
    #[inline(always)]
    pub(crate) fn pop_outer(&mut self, family: Family) -> Result<(), Verdict> {
        // The helper leaves room for an IP header of the version that it believes to be inside: for the shorter one, so that it
        // refuses less. Whoever receives the frame looks for himself (`eth_type_trans`).
        let flags = match family {
            Family::V4 => 0,
            Family::V6 => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
        };
        self.pop(family.outer(), flags).map_err(|()| Verdict::DecapFailed)
    }

    #[inline(always)]
    pub(super) fn pop(&mut self, octets: u32, flags: u32) -> Result<(), ()> {
        const FLAGS: u32 = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
        // SAFETY: see `push_behind`.
        match unsafe {
            bpf_skb_adjust_room(self.context.skb.skb, -octets.cast_signed(), BPF_ADJ_ROOM_MAC, u64::from(FLAGS | flags))
        } {
            0 => Ok(()),
            _ => Err(()),
        }
    }

    /// Says that the checksum which the NIC verified was the outer one, now gone: the inner one is still to be verified.
    #[inline(always)]
    pub(crate) fn forget_outer_checksum(&mut self) {
        // It fails where nothing was verified, which is as good.
        // SAFETY: see `push_behind`.
        let _nothing_verified = unsafe { bpf_csum_level(self.context.skb.skb, u64::from(BPF_CSUM_LEVEL_DEC)) };
    }

    /// Writes `value` at the start of the frame, by helper. A program that writes directly is made to copy a frame which a
    /// packet socket holds too before its first instruction (`bpf_unclone_prologue` in net/core/filter.c), and the copy has
    /// no metadata (`pskb_expand_head`): programs that read metadata must write like this.
    #[inline(always)]
    pub(crate) fn store_bytes<T: NoUninit>(&mut self, value: &T) -> Result<(), Verdict> {
        self.store_at(0, value, 0)
    }

    #[inline(always)]
    pub(super) fn store_at<T: NoUninit>(&mut self, offset: u32, value: &T, flags: u32) -> Result<(), Verdict> {
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
    pub(crate) fn tunnel(&self) -> Option<(u32, VtepAddress)> {
        // Without the flag the helper fails for an IPv6 outer header, with it for any other.
        if let Some(key) = self.tunnel_key(0) {
            // SAFETY: any octets are an address.
            let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
            return Some((key.tunnel_id, VtepAddress::v4(Ipv4Octets(remote.to_be_bytes()))));
        }
        let key = self.tunnel_key(BPF_F_TUNINFO_IPV6)?;
        // SAFETY: any octets are an address.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv6 };
        Some((key.tunnel_id, VtepAddress::from_words(remote)))
    }

    #[inline(always)]
    fn tunnel_key(&self, flags: u32) -> Option<bpf_tunnel_key> {
        let mut key = MaybeUninit::<bpf_tunnel_key>::uninit();
        // SAFETY: `key` is as long as said; see also `push_behind`.
        let outcome =
            unsafe { bpf_skb_get_tunnel_key(self.context.skb.skb, key.as_mut_ptr(), KEY_LEN, u64::from(flags)) };
        // SAFETY: the helper fills all of it, on success and on failure.
        if outcome == 0 { Some(unsafe { key.assume_init() }) } else { None }
    }

    /// Says to a vxlan device in `external` mode where the frame goes: the kernel puts the outer header on then, finds the
    /// route, and fragments unless `flags` say not to.
    #[inline(always)]
    pub(crate) fn set_tunnel(&mut self, vni: Vni, next_hop: &NextHop, tos: u8, flags: u32) -> Result<(), Verdict> {
        let checksum = if next_hop.wants_checksum() { 0 } else { BPF_F_ZERO_CSUM_TX };
        // SAFETY: zero is a valid key.
        let mut key: bpf_tunnel_key = unsafe { MaybeUninit::zeroed().assume_init() };
        key.tunnel_id = vni.get();
        key.tunnel_tos = tos;
        key.tunnel_ttl = TTL;
        let family = match next_hop.way() {
            Way::V4 | Way::HelperV4 => {
                key.__bindgen_anon_1.remote_ipv4 = u32::from_be(next_hop.template.destination_v4());
                key.__bindgen_anon_3.local_ipv4 = u32::from_be(next_hop.template.source_v4());
                0
            }
            Way::V6 | Way::HelperV6 => {
                let [source, destination] = next_hop.template.addresses_v6();
                key.__bindgen_anon_1.remote_ipv6 = destination;
                key.__bindgen_anon_3.local_ipv6 = source;
                BPF_F_TUNINFO_IPV6
            }
        };
        // SAFETY: `key` is as long as said; see also `push_behind`.
        let outcome = unsafe {
            bpf_skb_set_tunnel_key(
                self.context.skb.skb,
                core::ptr::from_mut(&mut key),
                KEY_LEN,
                u64::from(family | checksum | flags),
            )
        };
        if outcome == 0 { Ok(()) } else { Err(Verdict::EncapFailed) }
    }
}
