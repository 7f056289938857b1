//! Arrays that the kernel programs and this process share as memory (`BPF_F_MMAPABLE`): no system call to read or write.
#![expect(unsafe_code, reason = "memory that the kernel writes too")]

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    os::fd::AsFd as _,
    path::Path,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use aya::maps::{MapData, MapInfo};
use bytemuck::Pod;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array of `T`, which has the size of a value in the map and an alignment of 8 at most. Clones share the memory, also
/// between threads.
///
/// Values are read and written word by word, each at once: a value read while somebody writes it may mix old and new words,
/// never bits.
pub(crate) struct Mapped<T> {
    memory: Arc<Memory>,
    entries: usize,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Mapped<T> {
    fn clone(&self) -> Self {
        Self { memory: Arc::clone(&self.memory), entries: self.entries, value: PhantomData }
    }
}

impl<T> std::fmt::Debug for Mapped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped({} entries)", self.entries)
    }
}

/// The mapping itself.
struct Memory {
    start: NonNull<AtomicU64>,
    octets: usize,
}

// SAFETY: all access is through atomic words.
unsafe impl Send for Memory {}
// SAFETY: see above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and nobody has it any more.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.octets) } {
            log::debug!("cannot unmap: {error}");
        }
    }
}

const WORD: usize = size_of::<u64>();

impl<T: Pod> Mapped<T> {
    /// Maps a pinned array.
    ///
    /// # Errors
    /// It is not there, is of another layout, or cannot be mapped.
    pub(crate) fn open(pin: &Path) -> anyhow::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() <= WORD) };
        let what = || format!("cannot map {}", pin.display());
        let data = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
        let info = MapInfo::from_pin(pin).with_context(what)?;
        let entries = info.max_entries() as usize;
        ensure!(info.value_size() as usize == size_of::<T>(), "{} has values of another size", pin.display());
        // The kernel wants whole pages (`array_map_mmap` in kernel/bpf/arraymap.c).
        let octets = (entries * size_of::<T>()).next_multiple_of(page_size());
        let length = NonZeroUsize::new(octets).with_context(what)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes, of a file that stays as long as the mapping.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, data.fd().as_fd(), 0) };
        let start = start.map_err(std::io::Error::from).with_context(what)?.cast();
        Ok(Self { memory: Arc::new(Memory { start, octets }), entries, value: PhantomData })
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// The value at a place; a place that is not there has zeros.
    pub(crate) fn get(&self, place: u32) -> T {
        let mut value = T::zeroed();
        if let Some(words) = self.words(place) {
            for (part, word) in bytemuck::bytes_of_mut(&mut value).chunks_exact_mut(WORD).zip(words) {
                part.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
            }
        }
        value
    }

    /// Writes a value; a place that is not there is ignored.
    pub(crate) fn set(&self, place: u32, value: &T) {
        if let Some(words) = self.words(place) {
            for (part, word) in bytemuck::bytes_of(value).chunks_exact(WORD).zip(words) {
                let mut octets = [0; WORD];
                octets.copy_from_slice(part);
                word.store(u64::from_ne_bytes(octets), Ordering::Release);
            }
        }
    }

    /// One 32-bit field of a value, `offset` octets from its start (`std::mem::offset_of!`).
    ///
    /// # Panics
    /// The place or the offset is not there.
    pub(crate) fn field(&self, place: u32, offset: usize) -> &AtomicU32 {
        let at = place as usize * size_of::<T>() + offset;
        assert!((place as usize) < self.entries && offset.is_multiple_of(4) && offset + 4 <= size_of::<T>());
        // SAFETY: within the mapping, aligned, and only ever accessed as atomic words of this size or the larger one, which
        // this machine allows to mix.
        unsafe { self.memory.start.cast::<u8>().add(at).cast::<AtomicU32>().as_ref() }
    }

    /// One 64-bit field of a value, `offset` octets from its start.
    ///
    /// # Panics
    /// The place or the offset is not there.
    pub(crate) fn word(&self, place: u32, offset: usize) -> &AtomicU64 {
        let words = self.words(place).unwrap_or_default();
        assert!(offset.is_multiple_of(WORD) && offset / WORD < words.len());
        &words[offset / WORD]
    }

    fn words(&self, place: u32) -> Option<&[AtomicU64]> {
        let place = place as usize;
        if place >= self.entries {
            return None;
        }
        let words = size_of::<T>() / WORD;
        // SAFETY: within the mapping.
        Some(unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(place * words), words) })
    }
}

fn page_size() -> usize {
    use nix::unistd::{SysconfVar, sysconf};
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}
