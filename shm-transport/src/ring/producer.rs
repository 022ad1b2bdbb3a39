//! The writing end of a ring.

use std::ptr::NonNull;

use mycelium_messages::Message;

use super::Fencing;
use super::backing::Payload;
use super::backwards;
use super::batch::{Batch, BatchState};
use super::memory::{End, RingMemory};
use super::record::{self, Frame, Record};
use super::reservation::Reservation;
use crate::error::{AttachError, Corrupt, ReserveError};
use crate::frame::FrameHeader;
use crate::layout;
use crate::sync::Ordering;

/// The writing end of a ring; at most one per ring in a process.
///
/// A commit is a few stores into the ring: no system call, no lock, no allocation. After a burst of commits ask
/// [`Producer::wakeup_due`] once, and notify the peer's doorbell if it says so.
#[derive(Debug)]
pub struct Producer {
    pub(super) memory: RingMemory,
    /// Where the next record goes. Only this end moves it, so it is always in sync; a multiple of 8.
    pub(super) position: u64,
    /// The head as last loaded: may be stale, and is never above the real one. `cached_head <= position`.
    cached_head: u64,
    fencing: Fencing,
}

impl Producer {
    /// Takes the writing end of a ring, fresh or left by a predecessor, and goes on behind the last committed record.
    ///
    /// Costs one look at every record that the predecessor committed without publishing its tail: one, or those of one
    /// batch, unless the memory was tampered with. On a shared ring it costs a system call as well.
    ///
    /// # Errors
    ///
    /// [`AttachError::Taken`] if this process already has a producer on the ring, [`AttachError::TakenElsewhere`] if
    /// another process has, [`AttachError::Corrupt`] if the positions or records in the memory are impossible.
    pub fn attach(memory: RingMemory) -> Result<Self, AttachError> {
        memory.attach(End::Producer)?;
        match committed_end(&memory) {
            Ok((head, position)) => {
                memory.tail().store(position, Ordering::Relaxed);
                Ok(Self {
                    memory,
                    position,
                    cached_head: head,
                    fencing: Fencing::default(),
                })
            }
            Err(corrupt) => {
                memory.detach(End::Producer);
                Err(AttachError::Corrupt(corrupt))
            }
        }
    }

    /// Bytes of the ring.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Largest payload that the ring takes, in bytes.
    #[inline]
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.memory.max_payload()
    }

    /// Bytes committed since the ring was created, padding included.
    #[inline]
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that the consumer has released since the ring was created, padding included. By the time the caller looks
    /// at the answer it may be more, never less.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the consumer published an impossible head.
    pub fn released_position(&mut self) -> Result<u64, Corrupt> {
        self.refresh_head()?;
        Ok(self.cached_head)
    }

    /// Bytes committed and not yet released, padding included. The consumer publishes what it has released late (see
    /// [`Consumer::advance`](super::Consumer::advance)). By the time the caller looks at the answer it may be less,
    /// never more before this end commits something.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the consumer published an impossible head.
    pub fn occupancy(&mut self) -> Result<usize, Corrupt> {
        self.refresh_head()?;
        Ok((self.position - self.cached_head) as usize)
    }

    /// Whether everything that was committed has been released. A yes stays true until this end commits something; a no
    /// may have turned into a yes an instant later.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the consumer published an impossible head.
    pub fn is_empty(&mut self) -> Result<bool, Corrupt> {
        Ok(self.occupancy()? == 0)
    }

    /// Says how commits are ordered against parked flags. Both ends must use the same mode.
    pub fn set_fencing(&mut self, fencing: Fencing) {
        self.fencing = fencing;
    }

    /// Reserves room for one frame. Nothing is visible to the consumer before [`Reservation::commit`]; dropping the
    /// reservation leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`ReserveError::Full`] if there is no room now, [`ReserveError::TooLarge`] if there never will be,
    /// [`ReserveError::ReservedTopic`] for topic 0 or the PAD flag, [`ReserveError::Corrupt`] if the consumer
    /// published an impossible head.
    #[inline]
    pub fn try_reserve(&mut self, header: FrameHeader) -> Result<Reservation<'_>, ReserveError> {
        let placement = self.admit(self.position, header)?;
        Ok(Reservation::new(self, None, header, placement))
    }

    /// Starts a batch: frames that the consumer sees all at once, or not at all. Nothing is visible before
    /// [`Batch::commit`]; dropping the batch leaves nothing behind. A batch and its padding have to fit into the ring.
    ///
    /// ```
    /// # use shm_transport::frame::FrameHeader;
    /// # use shm_transport::ring::{Consumer, Producer, RingMemory};
    /// # let memory = RingMemory::heap(4096)?;
    /// # let mut producer = Producer::attach(memory.clone())?;
    /// # let mut consumer = Consumer::attach(memory)?;
    /// let mut batch = producer.batch();
    /// batch.try_push(FrameHeader::new(1001, 3), b"bid")?;
    /// batch.try_push(FrameHeader::new(1001, 3), b"ask")?;
    /// assert!(consumer.is_empty());
    /// batch.commit();
    /// assert!(!consumer.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Finds room for a frame whose record would start at `position`, which is this end's or one of a batch's.
    #[inline]
    pub(super) fn admit(
        &mut self,
        position: u64,
        header: FrameHeader,
    ) -> Result<Placement, ReserveError> {
        let payload_len = header.payload_len as usize;
        if payload_len > self.max_payload() {
            return Err(ReserveError::TooLarge {
                payload_len,
                max_payload: self.max_payload(),
            });
        }
        if header.topic_id == 0 || header.is_pad() {
            return Err(ReserveError::ReservedTopic {
                topic_id: header.topic_id,
                flags: header.flags,
            });
        }
        let placement = self.place(position, header.record_len());
        if placement.needed() > self.free(position) {
            self.refresh_head()?;
            if placement.needed() > self.free(position) {
                return Err(ReserveError::Full {
                    needed: placement.needed(),
                    free: self.free(position),
                });
            }
        }
        Ok(placement)
    }

    /// Commits one frame with a copy of `payload`, whose length must be the header's.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_reserve`].
    ///
    /// # Panics
    ///
    /// If `payload.len()` is not `header.payload_len`.
    #[inline]
    pub fn try_push(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ReserveError> {
        assert_eq!(
            payload.len(),
            header.payload_len as usize,
            "payload has not the length of its header"
        );
        // SAFETY: the slice is readable for its length, which is the header's.
        unsafe { self.push_from(header, Payload::at(NonNull::from(payload).cast())) }
    }

    /// Commits one frame with a copy of `source`: what a reservation does step by step, without keeping its state.
    ///
    /// # Safety
    ///
    /// `source` is readable for the header's length and does not overlap with this ring.
    #[inline(always)]
    unsafe fn push_from(
        &mut self,
        header: FrameHeader,
        source: Payload<'_>,
    ) -> Result<(), ReserveError> {
        let placement = self.admit(self.position, header)?;
        let payload_len = header.payload_len as usize;
        if !payload_len.is_multiple_of(layout::FRAME_ALIGN) {
            // The last word holds padding: zero it before the payload's own bytes go over it.
            let last = placement.index + placement.record_len - layout::FRAME_ALIGN;
            self.memory.word(last).store(0, Ordering::Relaxed);
        }
        self.end_at(placement.end);
        let target = self.memory.payload(placement.index, payload_len);
        // SAFETY: source: by the contract of this function. Target: the whole payload of the record that `admit` found
        // room for, which lies inside the data area and which the consumer does not read before the commit.
        unsafe { backwards::write(target, source, payload_len) }
        let (index, word) = self.link(header, placement);
        self.show(index, word, placement.end);
        Ok(())
    }

    /// Commits one message.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_reserve`].
    #[inline]
    pub fn try_publish<M: Message>(&mut self, message: &M) -> Result<(), ReserveError> {
        self.try_push(
            FrameHeader::new(M::TOPIC_ID, size_of::<M>() as u32),
            message.as_bytes(),
        )
    }

    /// Commits a copy of a frame that lies in another ring, without decoding it.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_reserve`].
    #[inline]
    pub fn try_forward(&mut self, frame: &Frame<'_>) -> Result<(), ReserveError> {
        // SAFETY: a frame's payload is readable for its header's length, and lies in another ring or in memory of this
        // process.
        unsafe { self.push_from(frame.header(), frame.payload()) }
    }

    /// Takes back what was committed and not released: shows every frame of it to `keep`, oldest first, and leaves the ring
    /// empty. Only while nobody reads the ring: its consumer, or the process that has it, is gone, and a successor has not
    /// begun. Returns the number of frames. Costs one look at each of them.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if a consumer left an impossible head or wrote over the records. Frames that were shown by then are still
    /// in the ring.
    pub fn recall(&mut self, mut keep: impl FnMut(&Frame<'_>)) -> Result<usize, Corrupt> {
        self.refresh_head()?;
        let (mut position, mut frames) = (self.cached_head, 0);
        while position < self.position {
            let index = self.index(position);
            let word = self.memory.word(index).load(Ordering::Acquire);
            match record::check(word, index, self.capacity(), position)? {
                Record::Padding { len } => position += len as u64,
                Record::Frame(header) => {
                    let payload = self.memory.payload(index, header.payload_len as usize);
                    // SAFETY: `record::check` found that the record ends inside the data area, so `payload_len` bytes are
                    // readable for as long as the memory lives, and `self.memory` outlives the frame.
                    keep(&unsafe { Frame::from_payload(header, payload) });
                    position += header.record_len() as u64;
                    frames += 1;
                }
                Record::Empty => {
                    return Err(Corrupt {
                        field: "header word",
                        value: 0,
                        legal: (1, u64::MAX),
                        position,
                        word,
                    });
                }
            }
        }
        self.position = self.cached_head;
        // SYNC: commit (release, here) ↔ read (acquire, Consumer::look of a successor): it finds the ring empty.
        self.memory
            .word(self.index(self.position))
            .store(0, Ordering::Release);
        self.memory.tail().store(self.position, Ordering::Relaxed);
        Ok(frames)
    }

    /// Whether a frame with this payload would fit now. A yes stays true until this end commits something; a no may
    /// have turned into a yes an instant later.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the consumer published an impossible head.
    pub fn has_room(&mut self, payload_len: usize) -> Result<bool, Corrupt> {
        let placement = self.place(self.position, crate::frame::record_len(payload_len));
        if placement.needed() > self.free(self.position) {
            self.refresh_head()?;
        }
        Ok(placement.needed() <= self.free(self.position))
    }

    /// Declares that this end is about to sleep until there is room. Run the heavy fence next, then look again with
    /// [`Producer::has_room`], and only then sleep.
    pub fn arm_room(&self) {
        self.memory.producer_parked().store(1, Ordering::Relaxed);
    }

    /// Takes the declaration back after waking up.
    pub fn disarm_room(&self) {
        self.memory.producer_parked().store(0, Ordering::Relaxed);
    }

    /// Whether the consumer sleeps and has to be woken for what was committed so far. A yes also clears its flag, so
    /// the caller must notify the doorbell next.
    #[inline]
    #[must_use = "a parked consumer stays asleep unless it is notified"]
    pub fn wakeup_due(&mut self) -> bool {
        self.fencing.light();
        let parked = self.memory.consumer_parked();
        if parked.load(Ordering::Relaxed) == 0 {
            return false;
        }
        parked.store(0, Ordering::Relaxed);
        true
    }

    /// Where a record of `record_len` bytes would go from `position`.
    #[inline]
    fn place(&self, position: u64, record_len: usize) -> Placement {
        let index = self.index(position);
        let room = self.capacity() - index;
        let (pad_len, start) = if record_len > room {
            (room, 0)
        } else {
            (0, index)
        };
        Placement {
            pad_index: index,
            pad_len,
            index: start,
            record_len,
            end: position + (pad_len + record_len) as u64,
        }
    }

    /// Bytes that are free behind `position` by the cached head.
    #[inline]
    pub(super) fn free(&self, position: u64) -> usize {
        self.capacity() - (position - self.cached_head) as usize
    }

    #[cold]
    pub(super) fn refresh_head(&mut self) -> Result<(), Corrupt> {
        // SYNC: publish-head (release, Consumer::publish_head) ↔ refresh-head (acquire, here): the consumer's reads of
        // the released records happen before our writes over them.
        let head = self.memory.head().load(Ordering::Acquire);
        if head < self.cached_head
            || head > self.position
            || !head.is_multiple_of(layout::FRAME_ALIGN as u64)
        {
            let legal = (self.cached_head, self.position);
            return Err(Corrupt {
                field: "head",
                value: head,
                legal,
                position: self.position,
                word: 0,
            });
        }
        self.cached_head = head;
        Ok(())
    }

    #[inline]
    pub(super) fn index(&self, position: u64) -> usize {
        position as usize & (self.capacity() - 1)
    }

    /// Makes the record at `placement` visible.
    #[inline]
    pub(super) fn commit(&mut self, header: FrameHeader, placement: Placement) {
        let (index, word) = self.link(header, placement);
        self.publish(index, word, placement.end);
    }

    /// Makes the record at `placement` visible together with its batch, once that is committed.
    #[inline]
    pub(super) fn commit_in_batch(
        &mut self,
        batch: &mut BatchState,
        header: FrameHeader,
        placement: Placement,
    ) {
        let (index, word) = self.link(header, placement);
        match batch.first {
            None => batch.first = Some((index, word)),
            // The header word of the batch's first record is 0 until the end, so no consumer comes here before.
            Some(_) => self.memory.word(index).store(word, Ordering::Relaxed),
        }
        batch.end = placement.end;
        batch.frames += 1;
    }

    /// Writes the header of a record that lies behind padding, and returns the word that makes all of it visible and
    /// where that goes.
    #[inline]
    fn link(&self, header: FrameHeader, placement: Placement) -> (usize, u64) {
        if placement.pad_len == 0 {
            return (placement.index, header.to_word());
        }
        self.memory
            .word(placement.index)
            .store(header.to_word(), Ordering::Relaxed);
        let padding = FrameHeader::padding(placement.pad_len);
        (placement.pad_index, padding.to_word())
    }

    /// Commits everything from the present position to `end`, whose first header word is `word`.
    #[inline]
    pub(super) fn publish(&mut self, index: usize, word: u64, end: u64) {
        self.end_at(end);
        self.show(index, word, end);
    }

    /// Makes the next header word, at position `end`, read as empty.
    #[inline]
    fn end_at(&self, end: u64) {
        self.memory
            .word(self.index(end))
            .store(0, Ordering::Relaxed);
    }

    /// Makes everything from the present position to `end` visible, where [`Producer::end_at`] has stored.
    #[inline]
    fn show(&mut self, index: usize, word: u64, end: u64) {
        // SYNC: commit (release, here) ↔ read (acquire, Consumer::look): the payload, the header words behind this one
        // and the zero behind the last record are visible to whoever sees the header word.
        self.memory.word(index).store(word, Ordering::Release);
        let len = (end - self.position) as usize;
        self.position = end;
        self.memory.tail().store(end, Ordering::Relaxed);
        if len >= PREFETCH_MIN {
            // The next commit is likely to be as long. Its lines are in the consumer's cache from the last lap; taking
            // them over while this side waits, or computes, is time that the next commit does not spend.
            self.memory
                .prefetch_to_write(self.index(end), len.min(PREFETCH_MAX));
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.memory.detach(End::Producer);
    }
}

/// Commits of fewer bytes fetch nothing ahead: the processor itself is quick enough.
const PREFETCH_MIN: usize = 256;
/// Most bytes that are fetched ahead.
const PREFETCH_MAX: usize = 8192;

/// Where a record goes, and the padding in front of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pad_index: usize,
    pad_len: usize,
    /// Index of the record's header.
    pub(super) index: usize,
    /// Bytes of the record.
    pub(super) record_len: usize,
    /// Position behind the record.
    end: u64,
}

impl Placement {
    /// Bytes that must be free: padding, record, and the header word behind it that is zeroed.
    #[inline]
    pub(super) fn needed(self) -> usize {
        self.pad_len + self.record_len + layout::FRAME_HEADER_LEN
    }

    /// The same place for a shorter record. Padding stays, although the shorter record might have fitted before the end.
    pub(super) fn shrink(&mut self, record_len: usize) {
        debug_assert!(record_len <= self.record_len);
        self.end -= (self.record_len - record_len) as u64;
        self.record_len = record_len;
    }
}

impl RingMemory {
    /// Bytes committed since the ring was created, padding included, whatever the producer had time to say about it.
    /// Exact if the producer is gone; otherwise true of some instant during the call.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if no correct pair of peers can have left the ring so.
    pub fn committed_end(&self) -> Result<u64, Corrupt> {
        committed_end(self).map(|(_, position)| position)
    }

    /// Shows the header of every frame that the consumer has not released, the oldest first. Changes nothing; costs one look at
    /// each of them. Exact if both ends are gone; otherwise true of frames that were there during the call.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if no correct pair of peers can have left the ring so.
    pub fn unreleased(&self, show: impl FnMut(FrameHeader)) -> Result<(), Corrupt> {
        let (head, end) = committed_end(self)?;
        walk(self, head, end, show).map(drop)
    }
}

/// Finds the head and the end of the last committed record.
///
/// `tail` may lag: its owner may have died between a commit and the tail store, and the consumer may even have
/// released that record. So the scan starts at the higher of the two and walks committed records to the first zero.
fn committed_end(memory: &RingMemory) -> Result<(u64, u64), Corrupt> {
    let capacity = memory.capacity() as u64;
    // SYNC: publish-head (release, Consumer::publish_head) ↔ refresh-head (acquire, here): what was released before is
    // written over without another look.
    let head = memory.head().load(Ordering::Acquire);
    let tail = memory.tail().load(Ordering::Acquire);
    let mut position = head.max(tail);
    let limit = head.saturating_add(capacity);
    let corrupt = |field, value, legal| Corrupt {
        field,
        value,
        legal,
        position: tail,
        word: 0,
    };
    if !head.is_multiple_of(layout::FRAME_ALIGN as u64) || head > u64::MAX / 2 {
        return Err(corrupt("head", head, (0, tail)));
    }
    if position > limit || !position.is_multiple_of(layout::FRAME_ALIGN as u64) {
        return Err(corrupt("tail", tail, (head, limit)));
    }
    position = walk(memory, position, limit, |_| ())?;
    if position < limit {
        return Ok((head, position));
    }
    // The producer keeps eight bytes free, so a ring without any zero word was not written by one.
    Err(corrupt(
        "tail",
        position,
        (head, limit - layout::FRAME_HEADER_LEN as u64),
    ))
}

/// Shows the frames from a position to the first zero header word, but not beyond `limit`, and returns where it stopped: at or
/// behind the limit if there was no such word.
pub(super) fn walk(
    memory: &RingMemory,
    mut position: u64,
    limit: u64,
    mut show: impl FnMut(FrameHeader),
) -> Result<u64, Corrupt> {
    while position < limit {
        let index = position as usize & (memory.capacity() - 1);
        let word = memory.word(index).load(Ordering::Acquire);
        match record::check(word, index, memory.capacity(), position)? {
            Record::Empty => break,
            Record::Padding { len } => position += len as u64,
            Record::Frame(header) => {
                show(header);
                position += header.record_len() as u64;
            }
        }
    }
    Ok(position)
}
