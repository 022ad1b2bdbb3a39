//! A single-producer single-consumer ring of variable-size records.
//!
//! The producer writes `tail`, the consumer writes `head` (Linux' `circ_buf` names them the other way round). A
//! *position* counts bytes since the ring was created and never wraps; an *index* is a place in the data area,
//! `position & (capacity - 1)`.
//!
//! # Algorithm
//!
//! The commit is in the record: a record exists once its header word is not 0. A consumer that polls therefore
//! touches one cache line, which for a small message already holds the payload. It is the scheme of Aeron's log
//! buffers, carried over to one producer and one consumer.
//!
//! Producer, at position `p`, for a record of `r` bytes:
//!
//! 1. There must be room for the record, for padding if it does not fit before the end of the data area, and for
//!    eight bytes more: `pad + r + 8 <= capacity - (p - head)`.
//! 2. Write the payload.
//! 3. Store 0 at `index(p + r)`, so that the next header reads as empty.
//! 4. Store the header word at `index(p)` with release ordering. This is the commit.
//!
//! Steps 2 and 3 come in either order: nobody looks there before step 4.
//!
//! Where padding is needed the record itself goes to index 0, and step 4 first stores its header there and then
//! commits both with the header word of the padding record.
//!
//! A batch keeps the header word of its first record back: as long as that is 0 nobody looks behind it, so the header words
//! of the others are stored as they come. The commit zeroes the word behind the last record and then stores the first
//! header word with release ordering, which makes all of them visible. Whoever dies before that leaves nothing, because a
//! successor starts at the first header word, too, and finds 0.
//!
//! Consumer, at position `c`: load the header word at `index(c)` with acquire ordering; 0 means empty. Check it, hand
//! out the payload, advance. `head` is published when the released bytes reach `capacity / 8`, when the ring is found
//! empty, and before parking. That store is the acknowledgement: a successor goes on from there.
//!
//! The ring makes no system call and allocates nothing after [`RingMemory::heap`]. It knows nothing about waiting: it
//! only says whether a wakeup is due, and the layer above makes the call.
//!
//! # Trust
//!
//! The memory may be shared with a process that misbehaves. Every word that the peer can write is loaded once,
//! range-checked, and only the local copy is used. Payload bytes are copied, never lent as a reference.
//!
//! ```
//! use shm_transport::frame::FrameHeader;
//! use shm_transport::ring::{
//!     Batch, BatchLimit, Consumer, Fencing, Frame, Producer, ReadBatch, ReadGuard, Reservation, RingMemory,
//! };
//!
//! let memory = RingMemory::heap(4096)?;
//! let mut producer = Producer::attach(memory.clone())?;
//! let mut consumer = Consumer::attach(memory)?;
//! producer.set_fencing(Fencing::Fenced);
//! consumer.set_fencing(Fencing::Fenced);
//!
//! // One frame, written in place.
//! let mut room: Reservation<'_> = producer.try_reserve(FrameHeader::new(1001, 5))?;
//! room.copy_from_slice(b"hello");
//! room.commit();
//! let guard: ReadGuard<'_> = consumer.try_read()?.expect("it was committed");
//! let frame: Frame<'_> = guard.frame();
//! assert_eq!((frame.topic_id(), frame.to_vec()), (1001, b"hello".to_vec()));
//! guard.release();
//!
//! // Several that become visible all at once, and are released all at once.
//! let mut batch: Batch<'_> = producer.batch();
//! for number in 0..3_u8 {
//!     batch.try_push(FrameHeader::new(1001, 1), &[number])?;
//! }
//! assert!(consumer.is_empty());
//! batch.commit();
//! let limit = BatchLimit { bytes: 2048, frames: 2 };
//! let run: ReadBatch<'_> = consumer.read_batch(limit)?.expect("it was committed");
//! let numbers: Vec<u8> = run.iter().map(|frame| frame.unwrap().to_vec()[0]).collect();
//! assert_eq!(numbers, [0, 1]);
//! run.release();
//!
//! // The ring says whether a wakeup is due; making it is the caller's business.
//! assert!(!producer.wakeup_due());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg_attr(loom, path = "backing_loom.rs")]
mod backing;
mod backwards;
mod batch;
mod consumer;
#[cfg(not(loom))]
mod inflow;
#[cfg(not(loom))]
mod left;
mod memory;
#[cfg(not(loom))]
mod prefetch;
mod producer;
mod read_batch;
mod record;
mod reservation;
#[cfg(not(loom))]
mod run;
#[cfg(not(loom))]
mod slice;

pub use batch::Batch;
pub use consumer::{Consumer, ReadGuard};
pub(crate) use memory::{Claims, End, check_capacity};
pub use memory::{RingGlance, RingMemory};
pub use producer::Producer;
pub use read_batch::{BatchLimit, ReadBatch};
pub use record::Frame;
pub use reservation::Reservation;
#[cfg(not(loom))]
pub(crate) use run::Run;
#[cfg(not(loom))]
pub use slice::{RingSlice, RingSliceMut};

use crate::sync::{Ordering, compiler_fence, fence};

/// How the two ends order a commit against the look at the other end's parked flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fencing {
    /// The parking side runs `membarrier`, so the committing side needs only a compiler fence. Both processes must be
    /// registered for it, also one that never parks: see
    /// [`membarrier_is_available`](crate::wakeup::membarrier_is_available), which registers.
    Asymmetric,
    /// Both sides run a full fence. Needs nothing of the operating system.
    #[default]
    Fenced,
}

impl Fencing {
    /// Orders an earlier commit or head store before a later load of a parked flag.
    ///
    /// SYNC: light fence (here) ↔ heavy fence (`wakeup::heavy_fence`, run by whoever set the flag).
    #[inline]
    fn light(self) {
        match self {
            Self::Asymmetric => compiler_fence(Ordering::SeqCst),
            Self::Fenced => fence(Ordering::SeqCst),
        }
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
