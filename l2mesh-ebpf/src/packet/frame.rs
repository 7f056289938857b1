//! Frames at the XDP hook.
#![expect(unsafe_code, reason = "packet access and helper calls")]

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{
        bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    programs::XdpContext,
};
use bytemuck::NoUninit;
use l2mesh_common::{
    tables::Settings,
    verdict::Verdict,
    wire::{EthernetHeader, PerFrame, Reachability, Template},
};

use super::{Family, Packet, Underlay, write_headers};

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

    #[inline(always)]
    fn replace<T: NoUninit>(&mut self, offset: u32, value: &T) -> Result<(), Verdict> {
        let start = self.data() + offset as usize;
        if start + size_of::<T>() > self.data_end() {
            return Err(Verdict::StoreFailed);
        }
        // SAFETY: the check bounds the access, and `&mut self` says that no header is borrowed.
        unsafe { (start as *mut T).write(*value) };
        Ok(())
    }
}

impl Underlay for Frame {
    #[inline(always)]
    fn rewrite(&mut self, from: Family, to: Family, template: &Template, frame: &PerFrame) -> Result<(), Verdict> {
        let room = from.outer().cast_signed() - to.outer().cast_signed();
        // SAFETY: takes the context as it is.
        if room != 0 && unsafe { bpf_xdp_adjust_head(self.context.ctx, room) } != 0 {
            return Err(Verdict::EncapFailed);
        }
        write_headers(self, to, template, frame)
    }

    /// Not every card takes frames from others' XDP programs, and not every one its own: those are for TC to send.
    #[inline(always)]
    fn can_leave_by(&self, settings: &Settings, ifindex: u32) -> bool {
        // SAFETY: the context is valid as long as the program runs.
        settings.has_xdp_tx() && unsafe { (*self.context.ctx).ingress_ifindex == ifindex }
    }

    #[inline(always)]
    fn say(&mut self, offset: u32, said: &Reachability) -> Result<(), Verdict> {
        let from = core::ptr::from_ref(said).cast_mut().cast();
        // SAFETY: `from` is as long as said, and only read.
        match unsafe { bpf_xdp_store_bytes(self.context.ctx, offset, from, Reachability::LEN as u32) } {
            0 => Ok(()),
            _ => Err(Verdict::StoreFailed),
        }
    }

    #[inline(always)]
    fn hear(&self, offset: u32, noted: *mut Reachability) {
        // SAFETY: `noted` is a value of a map. That the frame ends before is no matter: then it is as it was.
        let _ended = unsafe { bpf_xdp_load_bytes(self.context.ctx, offset, noted.cast(), Reachability::LEN as u32) };
    }

    #[inline(always)]
    fn greatest_packet(&self, _: Family, len: u32) -> u32 {
        len.saturating_sub(EthernetHeader::LEN as u32)
    }
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: XdpContext) -> Self {
        Self { context }
    }

    /// For the functions in [`crate::apart`].
    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut xdp_md {
        self.context.ctx
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
    pub(crate) fn pop_outer(&mut self, family: Family) -> Result<(), Verdict> {
        // SAFETY: takes the context as it is.
        match unsafe { bpf_xdp_adjust_head(self.context.ctx, family.outer().cast_signed()) } {
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
