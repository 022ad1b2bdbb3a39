//! The memory that a ring lives in: a control block and a data area, on the heap or inside a mapping.

#[cfg(not(loom))]
use std::{any::Any, ptr::NonNull};

use std::sync::Arc;

use super::backing::{Backing, Payload};
use crate::error::{AttachError, Corrupt, CreateError};
use crate::layout;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// A handle on the memory of one ring. Clones refer to the same ring.
///
/// The memory lives as long as any handle, [`Producer`](super::Producer) or [`Consumer`](super::Consumer) on it.
#[derive(Clone)]
pub struct RingMemory {
    backing: Backing,
    ends: Arc<Ends>,
}

/// Who has which end, among all handles on one ring.
struct Ends {
    producer_attached: AtomicBool,
    consumer_attached: AtomicBool,
    /// Keeps other processes from taking an end that this one has; a ring on the heap needs none.
    claims: Option<Box<dyn Claims>>,
}

/// Which end of a ring is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The writing end.
    Producer,
    /// The reading end.
    Consumer,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// Says across processes who has which end of a ring. The ring calls it when an end is attached or dropped, and at no
/// other time.
pub(crate) trait Claims: Send + Sync {
    /// Takes the end; false if another process has it.
    fn take(&self, end: End) -> bool;
    /// Gives the end back, which this process has.
    fn give_back(&self, end: End);
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
        Ok(Self::over(Backing::heap(capacity)?, None))
    }

    fn over(backing: Backing, claims: Option<Box<dyn Claims>>) -> Self {
        let free = || AtomicBool::new(false);
        let ends = Ends {
            producer_attached: free(),
            consumer_attached: free(),
            claims,
        };
        Self {
            backing,
            ends: Arc::new(ends),
        }
    }

    /// A ring over memory that somebody else owns.
    ///
    /// # Safety
    ///
    /// - `control` points to [`layout::RING_CONTROL_LEN`] bytes and `data` to `capacity` bytes, both aligned to 128
    ///   bytes, not overlapping, and valid for reads and writes as long as `owner` lives.
    /// - `capacity` is one that [`RingMemory::heap`] takes.
    /// - Nobody in this process makes references into that memory. Other processes may write there at any time.
    #[cfg(not(loom))]
    pub(crate) unsafe fn from_raw(
        control: NonNull<u8>,
        data: NonNull<u8>,
        capacity: usize,
        owner: Arc<dyn Any + Send + Sync>,
        claims: Option<Box<dyn Claims>>,
    ) -> Self {
        debug_assert!(check_capacity(capacity).is_ok());
        // SAFETY: by the contract of this function.
        let backing = unsafe { Backing::from_raw(control, data, capacity, owner) };
        Self::over(backing, claims)
    }

    /// Bytes of the data area, a power of two.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.backing.capacity()
    }

    /// Largest payload that the ring takes, in bytes: a quarter of the capacity, less the frame header.
    #[inline]
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

    /// What both ends have published by now, for somebody who watches and is neither. Any of it may change before the
    /// caller looks at the answer, and none of it is checked.
    #[must_use]
    pub fn glance(&self) -> RingGlance {
        RingGlance {
            head: self.head().load(Ordering::Relaxed),
            tail: self.tail().load(Ordering::Relaxed),
            consumer_parked: self.consumer_parked().load(Ordering::Relaxed) != 0,
        }
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
        // A producer that died between a commit and its store of the tail left it behind by what it committed at once: a
        // batch may fill the ring.
        let head_max = tail.saturating_add(capacity);
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
            return Err(AttachError::Taken { end: end.name() });
        }
        if self
            .ends
            .claims
            .as_ref()
            .is_some_and(|claims| !claims.take(end))
        {
            self.attached(end).store(false, Ordering::Release);
            return Err(AttachError::TakenElsewhere { end: end.name() });
        }
        Ok(())
    }

    pub(super) fn detach(&self, end: End) {
        if let Some(claims) = &self.ends.claims {
            claims.give_back(end);
        }
        self.attached(end).store(false, Ordering::Release);
    }

    fn attached(&self, end: End) -> &AtomicBool {
        match end {
            End::Producer => &self.ends.producer_attached,
            End::Consumer => &self.ends.consumer_attached,
        }
    }

    #[inline]
    pub(super) fn head(&self) -> &AtomicU64 {
        self.control_word(layout::RING_HEAD_OFFSET)
    }

    #[inline]
    pub(super) fn tail(&self) -> &AtomicU64 {
        self.control_word(layout::RING_TAIL_OFFSET)
    }

    #[inline]
    pub(super) fn consumer_parked(&self) -> &AtomicU64 {
        self.control_word(layout::RING_CONSUMER_PARKED_OFFSET)
    }

    #[inline]
    pub(super) fn producer_parked(&self) -> &AtomicU64 {
        self.control_word(layout::RING_PRODUCER_PARKED_OFFSET)
    }

    #[inline]
    fn control_word(&self, offset: usize) -> &AtomicU64 {
        self.backing.control_word(offset)
    }

    /// The header word at `index`, which must be a multiple of 8 below the capacity.
    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        self.backing.word(index)
    }

    /// `len` bytes at `index`, which must lie inside the data area.
    #[cfg(not(loom))]
    pub(super) fn bytes(&self, index: usize, len: usize) -> Payload<'_> {
        self.backing.payload(index, len)
    }

    /// Fetches the cache line behind the one at `index`.
    #[inline]
    pub(super) fn prefetch_behind(&self, index: usize) {
        self.backing.prefetch_behind(index);
    }

    /// Takes cache lines for writing: those behind the one at `index`, as far as `len` bytes go.
    #[inline]
    pub(super) fn prefetch_to_write(&self, index: usize, len: usize) {
        self.backing.prefetch_to_write(index, len);
    }

    /// The payload of the record at `index`, whose `len` bytes must lie inside the data area.
    #[inline]
    pub(super) fn payload(&self, index: usize, len: usize) -> Payload<'_> {
        self.backing.payload(index + layout::FRAME_HEADER_LEN, len)
    }
}

/// A look at a ring from outside; see [`RingMemory::glance`].
///
/// ```
/// # use shm_transport::frame::FrameHeader;
/// # use shm_transport::ring::{Producer, RingGlance, RingMemory};
/// let memory = RingMemory::heap(4096)?;
/// let mut producer = Producer::attach(memory.clone())?;
/// producer.try_push(FrameHeader::new(1001, 8), b"12345678")?;
/// let one_record = RingGlance { head: 0, tail: 16, consumer_parked: false };
/// assert_eq!(memory.glance(), one_record);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingGlance {
    /// How far the consumer has acknowledged, as a position.
    pub head: u64,
    /// How far the producer has published, as a position.
    pub tail: u64,
    /// Whether the consumer has declared to sleep until a record comes, and has not been woken since.
    pub consumer_parked: bool,
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
    // The model checker creates every word of a ring anew for each interleaving, so its rings are tiny.
    let capacity_min = if cfg!(loom) {
        64
    } else {
        layout::RING_CAPACITY_MIN
    };
    if capacity.is_power_of_two() && (capacity_min..=layout::RING_CAPACITY_MAX).contains(&capacity)
    {
        return Ok(());
    }
    Err(CreateError::Capacity { capacity })
}
