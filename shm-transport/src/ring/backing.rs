//! The bytes of a ring: a control block and a data area somewhere in memory, behind raw pointers.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use super::prefetch;
use crate::error::CreateError;
use crate::layout;
use crate::sync::AtomicU64;

/// Where the words and payloads of one ring lie, and what keeps them there.
///
/// A value of its own in every handle: an end of a ring finds its pointers in itself, not behind another one, which the
/// compiler would have to follow again after every atomic access.
#[derive(Clone)]
pub(super) struct Backing {
    control: NonNull<u8>,
    data: NonNull<u8>,
    capacity: usize,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the pointers refer to memory that `_owner` keeps alive and that is only accessed through atomics and raw
// copies; the attach flags of `RingMemory` admit one producer and one consumer at a time.
unsafe impl Send for Backing {}
// SAFETY: as above; every access through a shared `Backing` is an atomic one or a raw copy.
unsafe impl Sync for Backing {}

struct HeapBlock {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is plain memory; who may access it is the business of `Backing`.
unsafe impl Send for HeapBlock {}
// SAFETY: as above.
unsafe impl Sync for HeapBlock {}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl Backing {
    /// Zeroed memory on the heap. `capacity` was checked.
    pub(super) fn heap(capacity: usize) -> Result<Self, CreateError> {
        let size = layout::RING_CONTROL_LEN + capacity;
        let no_memory = CreateError::NoMemory { len: size };
        let Ok(block_layout) = Layout::from_size_align(size, layout::PAGE_LEN) else {
            return Err(no_memory);
        };
        // SAFETY: the layout has a size above zero.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(block_layout) }) else {
            return Err(no_memory);
        };
        let owner = Arc::new(HeapBlock {
            start,
            layout: block_layout,
        });
        // SAFETY: the block is zeroed, page-aligned, holds control block and data, and is owned by `owner`.
        Ok(unsafe { Self::from_raw(start, start.add(layout::RING_CONTROL_LEN), capacity, owner) })
    }

    /// Memory that somebody else owns.
    ///
    /// # Safety
    ///
    /// As [`RingMemory::from_raw`](super::RingMemory::from_raw).
    pub(super) unsafe fn from_raw(
        control: NonNull<u8>,
        data: NonNull<u8>,
        capacity: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        debug_assert!(control.addr().get().is_multiple_of(128));
        Self {
            control,
            data,
            capacity,
            _owner: owner,
        }
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline]
    pub(super) fn control_word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + size_of::<u64>() <= layout::RING_CONTROL_LEN);
        // SAFETY: the offset is one of the four constants of the layout, inside the control block and 8-byte aligned.
        // The memory lives as long as `self`. The peer may write the word at any time, which an atomic allows.
        unsafe { AtomicU64::from_ptr(self.control.as_ptr().add(offset).cast()) }
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index.is_multiple_of(layout::FRAME_ALIGN) && index < self.capacity);
        // SAFETY: callers derive `index` from a position that is a multiple of 8, masked with capacity - 1; so the word
        // is aligned and inside the data area. Concurrent writes by the peer are fine for an atomic.
        unsafe { AtomicU64::from_ptr(self.data.as_ptr().add(index).cast()) }
    }

    /// Fetches the cache line behind the one at `index`, where a record that starts there goes on.
    #[inline]
    pub(super) fn prefetch_behind(&self, index: usize) {
        let next = (index + prefetch::LINE) & (self.capacity - 1);
        prefetch::to_read(self.data.as_ptr().wrapping_add(next));
    }

    /// Takes the cache lines from the one behind `index` on for writing, as far as `len` bytes go.
    #[inline]
    pub(super) fn prefetch_to_write(&self, index: usize, len: usize) {
        let end = (index + len).min(self.capacity);
        for at in (index..end).step_by(prefetch::LINE).skip(1) {
            prefetch::to_write(self.data.as_ptr().wrapping_add(at));
        }
    }

    /// The payload bytes from `index` on, `len` of which lie inside the data area.
    #[inline]
    pub(super) fn payload(&self, index: usize, len: usize) -> Payload<'_> {
        debug_assert!(
            index + len <= self.capacity,
            "index={index} len={len} capacity={}",
            self.capacity
        );
        Payload {
            // SAFETY: `index` is inside the data area, or one past its end for an empty payload.
            start: unsafe { self.data.add(index) },
            _borrow: PhantomData,
        }
    }
}

/// Payload bytes in a ring, or in memory of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    start: NonNull<u8>,
    _borrow: PhantomData<&'a [u8]>,
}

impl Payload<'_> {
    /// Bytes at `start`; the caller says for how long they stay readable.
    #[inline]
    pub(super) fn at(start: NonNull<u8>) -> Self {
        Self {
            start,
            _borrow: PhantomData,
        }
    }

    #[inline]
    pub(super) fn as_ptr(self) -> NonNull<u8> {
        self.start
    }

    /// The payload from `offset` on.
    ///
    /// # Safety
    ///
    /// `offset` is at most the number of readable bytes.
    #[inline]
    pub(super) unsafe fn behind(self, offset: usize) -> Self {
        // SAFETY: by the contract of this function the place lies within the payload, or right behind it.
        Self::at(unsafe { self.start.add(offset) })
    }

    /// # Safety
    ///
    /// `len` bytes of this payload are readable and `len` bytes at `target` writable; the two do not overlap.
    #[inline]
    pub(super) unsafe fn read_to(self, target: *mut u8, len: usize) {
        // SAFETY: by the contract of this function. Bytes that a peer changes meanwhile are still bytes.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr(), target, len) }
    }

    /// # Safety
    ///
    /// `len` bytes at `offset` of this payload are writable and lie in a reservation of the caller; `len` bytes of
    /// `source` are readable; the two do not overlap.
    #[inline]
    pub(super) unsafe fn write_from(self, offset: usize, source: Payload<'_>, len: usize) {
        // SAFETY: by the contract of this function. A peer that writes here all the same garbles its own messages only.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source.start.as_ptr(),
                self.start.as_ptr().add(offset),
                len,
            );
        }
    }
}
