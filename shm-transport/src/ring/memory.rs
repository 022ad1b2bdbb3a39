//! The memory that a ring lives in: a control block and a data area, on the heap or inside a mapping.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{AttachError, Corrupt, CreateError};
use crate::layout;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// A handle on the memory of one ring. Clones refer to the same ring.
///
/// The memory lives as long as any handle, [`Producer`](super::Producer) or [`Consumer`](super::Consumer) on it.
#[derive(Clone)]
pub struct RingMemory {
    area: Arc<Area>,
}

struct Area {
    control: NonNull<u8>,
    data: NonNull<u8>,
    capacity: usize,
    producer_attached: AtomicBool,
    consumer_attached: AtomicBool,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the pointers refer to memory that `_owner` keeps alive and that is only accessed through atomics and raw
// copies; the flags above admit one producer and one consumer at a time.
unsafe impl Send for Area {}
// SAFETY: as above; every access through a shared `Area` is an atomic one.
unsafe impl Sync for Area {}

/// Which end of a ring is attached.
#[derive(Clone, Copy)]
pub(super) enum End {
    Producer,
    Consumer,
}

struct HeapBlock {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is plain memory; who may access it is the business of `Area`.
unsafe impl Send for HeapBlock {}
// SAFETY: as above.
unsafe impl Sync for HeapBlock {}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl RingMemory {
    /// A ring on the heap, for two threads of this process.
    ///
    /// `capacity` is in bytes: a power of two from [`layout::RING_CAPACITY_MIN`] to [`layout::RING_CAPACITY_MAX`].
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if the capacity is out of range, [`CreateError::NoMemory`] if the heap has no room.
    pub fn heap(capacity: usize) -> Result<Self, CreateError> {
        check_capacity(capacity)?;
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

    /// A ring over memory that somebody else owns.
    ///
    /// # Safety
    ///
    /// - `control` points to [`layout::RING_CONTROL_LEN`] bytes and `data` to `capacity` bytes, both aligned to 128
    ///   bytes, not overlapping, and valid for reads and writes as long as `owner` lives.
    /// - `capacity` is one that [`RingMemory::heap`] takes.
    /// - Nobody in this process makes references into that memory. Other processes may write there at any time.
    pub(crate) unsafe fn from_raw(
        control: NonNull<u8>,
        data: NonNull<u8>,
        capacity: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        debug_assert!(check_capacity(capacity).is_ok() && control.addr().get().is_multiple_of(128));
        let free = || AtomicBool::new(false);
        let area = Area {
            control,
            data,
            capacity,
            producer_attached: free(),
            consumer_attached: free(),
            _owner: owner,
        };
        Self {
            area: Arc::new(area),
        }
    }

    /// Bytes of the data area, a power of two.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.area.capacity
    }

    /// Largest payload that the ring takes, in bytes: a quarter of the capacity, less the frame header.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.capacity() / layout::RING_RECORD_DIVISOR - layout::FRAME_HEADER_LEN
    }

    /// Bytes between the published head and the published tail, as they stand at this instant. Either may move before
    /// the caller looks at the answer. Never above the capacity, whatever the memory says.
    #[must_use]
    pub fn occupancy(&self) -> usize {
        let tail = self.tail().load(Ordering::Relaxed);
        let head = self.head().load(Ordering::Relaxed);
        usize::try_from(tail.saturating_sub(head))
            .unwrap_or(usize::MAX)
            .min(self.capacity())
    }

    /// Checks the positions that a peer left behind, before a successor goes on with them. Either may move meanwhile at
    /// the hand of the other side.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if no correct pair of peers can have left them so.
    pub fn check_positions(&self) -> Result<(), Corrupt> {
        let tail = self.tail().load(Ordering::Acquire);
        let head = self.head().load(Ordering::Acquire);
        let capacity = self.capacity() as u64;
        // A producer that died between a commit and its store of the tail left it one record behind.
        let head_max = tail.saturating_add(capacity / layout::RING_RECORD_DIVISOR as u64 * 2);
        let tail_max = head.saturating_add(capacity);
        let aligned = |position: u64| position.is_multiple_of(layout::FRAME_ALIGN as u64);
        let (field, value, legal) = if !aligned(head) || head > head_max || head > u64::MAX / 2 {
            ("head", head, (tail.saturating_sub(capacity), head_max))
        } else if !aligned(tail) || tail > tail_max {
            ("tail", tail, (head, tail_max))
        } else {
            return Ok(());
        };
        Err(Corrupt {
            field,
            value,
            legal,
            position: tail,
            word: 0,
        })
    }

    pub(super) fn attach(&self, end: End) -> Result<(), AttachError> {
        if self.attached(end).swap(true, Ordering::AcqRel) {
            return Err(AttachError::Taken {
                end: match end {
                    End::Producer => "producer",
                    End::Consumer => "consumer",
                },
            });
        }
        Ok(())
    }

    pub(super) fn detach(&self, end: End) {
        self.attached(end).store(false, Ordering::Release);
    }

    fn attached(&self, end: End) -> &AtomicBool {
        match end {
            End::Producer => &self.area.producer_attached,
            End::Consumer => &self.area.consumer_attached,
        }
    }

    pub(super) fn head(&self) -> &AtomicU64 {
        self.control_word(layout::RING_HEAD_OFFSET)
    }

    pub(super) fn tail(&self) -> &AtomicU64 {
        self.control_word(layout::RING_TAIL_OFFSET)
    }

    pub(super) fn consumer_parked(&self) -> &AtomicU64 {
        self.control_word(layout::RING_CONSUMER_PARKED_OFFSET)
    }

    pub(super) fn producer_parked(&self) -> &AtomicU64 {
        self.control_word(layout::RING_PRODUCER_PARKED_OFFSET)
    }

    fn control_word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + size_of::<u64>() <= layout::RING_CONTROL_LEN);
        // SAFETY: the offset is one of the four constants above, inside the control block and 8-byte aligned. The
        // memory lives as long as `self.area`. The peer may write the word at any time, which an atomic allows.
        unsafe { AtomicU64::from_ptr(self.area.control.as_ptr().add(offset).cast()) }
    }

    /// The header word at `index`, which must be a multiple of 8 below the capacity.
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index.is_multiple_of(layout::FRAME_ALIGN) && index < self.area.capacity);
        // SAFETY: callers derive `index` from a position that is a multiple of 8, masked with capacity - 1; so the word
        // is aligned and inside the data area. Concurrent writes by the peer are fine for an atomic.
        unsafe { AtomicU64::from_ptr(self.area.data.as_ptr().add(index).cast()) }
    }

    /// The bytes from `index` on. `len` bytes from there must lie inside the data area.
    pub(super) fn bytes(&self, index: usize, len: usize) -> NonNull<u8> {
        debug_assert!(
            index + len <= self.area.capacity,
            "index={index} len={len} capacity={}",
            self.area.capacity
        );
        // SAFETY: `index` is inside the data area, or one past its end for an empty payload.
        unsafe { self.area.data.add(index) }
    }
}

impl std::fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingMemory")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Checks that `capacity` is one that a ring can have.
pub(crate) fn check_capacity(capacity: usize) -> Result<(), CreateError> {
    if capacity.is_power_of_two()
        && (layout::RING_CAPACITY_MIN..=layout::RING_CAPACITY_MAX).contains(&capacity)
    {
        return Ok(());
    }
    Err(CreateError::Capacity { capacity })
}
