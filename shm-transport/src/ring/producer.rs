//! The writing end of a ring.

use mycelium_messages::Message;

use super::Fencing;
use super::memory::{End, RingMemory};
use super::record::{self, Frame, Record};
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
    memory: RingMemory,
    /// Where the next record goes. Only this end moves it, so it is always in sync; a multiple of 8.
    position: u64,
    /// The head as last loaded: may be stale, and is never above the real one. `cached_head <= position`.
    cached_head: u64,
    fencing: Fencing,
}

impl Producer {
    /// Takes the writing end of a ring, fresh or left by a predecessor, and goes on behind the last committed record.
    ///
    /// Costs one look at every record that the predecessor committed without publishing its tail (at most one, unless
    /// the memory was tampered with).
    ///
    /// # Errors
    ///
    /// [`AttachError::Taken`] if this process already has a producer on the ring, [`AttachError::Corrupt`] if the
    /// positions or records in the memory are impossible.
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
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Largest payload that the ring takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.memory.max_payload()
    }

    /// Bytes committed since the ring was created, padding included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
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
        let placement = self.place(header.record_len());
        if !self.fits(placement) {
            self.refresh_head()?;
            if !self.fits(placement) {
                return Err(ReserveError::Full {
                    needed: placement.needed(),
                    free: self.free(),
                });
            }
        }
        Ok(Reservation {
            producer: self,
            header,
            placement,
        })
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
    pub fn try_push(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), ReserveError> {
        let mut reservation = self.try_reserve(header)?;
        reservation.copy_from_slice(payload);
        reservation.commit();
        Ok(())
    }

    /// Commits one message.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_reserve`].
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
        let mut reservation = self.try_reserve(frame.header())?;
        reservation.copy_from_frame(frame);
        reservation.commit();
        Ok(())
    }

    /// Whether a frame with this payload would fit now. A yes stays true until this end commits something; a no may
    /// have turned into a yes an instant later.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the consumer published an impossible head.
    pub fn has_room(&mut self, payload_len: usize) -> Result<bool, Corrupt> {
        let placement = self.place(crate::frame::record_len(payload_len));
        if !self.fits(placement) {
            self.refresh_head()?;
        }
        Ok(self.fits(placement))
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

    /// Where a record of `record_len` bytes would go from the present position.
    fn place(&self, record_len: usize) -> Placement {
        let index = self.index(self.position);
        let room = self.capacity() - index;
        if record_len > room {
            Placement {
                pad_index: index,
                pad_len: room,
                index: 0,
                record_len,
            }
        } else {
            Placement {
                pad_index: index,
                pad_len: 0,
                index,
                record_len,
            }
        }
    }

    fn fits(&self, placement: Placement) -> bool {
        placement.needed() <= self.free()
    }

    /// Bytes that are free by the cached head.
    fn free(&self) -> usize {
        self.capacity() - (self.position - self.cached_head) as usize
    }

    fn refresh_head(&mut self) -> Result<(), Corrupt> {
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

    fn index(&self, position: u64) -> usize {
        position as usize & (self.capacity() - 1)
    }

    /// Makes the record at `placement` visible.
    #[inline]
    fn commit(&mut self, header: FrameHeader, placement: Placement) {
        let end = self.position + (placement.pad_len + placement.record_len) as u64;
        self.memory
            .word(self.index(end))
            .store(0, Ordering::Relaxed);
        // SYNC: commit (release, here) ↔ read (acquire, Consumer::peek): the payload and the zero behind the record
        // are visible to whoever sees the header word.
        if placement.pad_len == 0 {
            self.memory
                .word(placement.index)
                .store(header.to_word(), Ordering::Release);
        } else {
            self.memory
                .word(placement.index)
                .store(header.to_word(), Ordering::Relaxed);
            let padding = FrameHeader::padding(placement.pad_len);
            self.memory
                .word(placement.pad_index)
                .store(padding.to_word(), Ordering::Release);
        }
        self.position = end;
        self.memory.tail().store(end, Ordering::Relaxed);
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.memory.detach(End::Producer);
    }
}

/// Where a record goes, and the padding in front of it.
#[derive(Debug, Clone, Copy)]
struct Placement {
    pad_index: usize,
    pad_len: usize,
    index: usize,
    record_len: usize,
}

impl Placement {
    /// Bytes that must be free: padding, record, and the header word behind it that is zeroed.
    fn needed(self) -> usize {
        self.pad_len + self.record_len + layout::FRAME_HEADER_LEN
    }
}

/// Room for one frame, to be filled in place and then committed. Dropping it aborts.
#[derive(Debug)]
#[must_use = "a reservation that is not committed is aborted"]
pub struct Reservation<'a> {
    producer: &'a mut Producer,
    header: FrameHeader,
    placement: Placement,
}

impl Reservation<'_> {
    /// The header that the frame will have.
    #[must_use]
    pub fn header(&self) -> FrameHeader {
        self.header
    }

    /// Copies the whole payload in.
    ///
    /// # Panics
    ///
    /// If `payload` has not the reserved length.
    #[inline]
    pub fn copy_from_slice(&mut self, payload: &[u8]) {
        let reserved = self.header.payload_len as usize;
        assert_eq!(
            payload.len(),
            reserved,
            "payload has not the reserved length"
        );
        // SAFETY: the slice is readable for its length, which is the reserved one.
        unsafe { self.copy_payload(payload.as_ptr()) }
    }

    /// Copies the payload of another frame in.
    #[inline]
    fn copy_from_frame(&mut self, frame: &Frame<'_>) {
        debug_assert_eq!(frame.header().payload_len, self.header.payload_len);
        // SAFETY: a frame's payload is readable for its header's length, which the reservation was made with.
        unsafe { self.copy_payload(frame.payload_ptr().as_ptr()) }
    }

    /// # Safety
    ///
    /// `source` is readable for `self.header.payload_len` bytes.
    #[inline]
    unsafe fn copy_payload(&mut self, source: *const u8) {
        let len = self.header.payload_len as usize;
        let start = self.placement.index + layout::FRAME_HEADER_LEN;
        if !len.is_multiple_of(layout::FRAME_ALIGN) {
            // The last word holds padding: zero it before the payload's own bytes go over it.
            let last = self.placement.index + self.placement.record_len - layout::FRAME_ALIGN;
            self.producer.memory.word(last).store(0, Ordering::Relaxed);
        }
        let target = self.producer.memory.bytes(start, len);
        // SAFETY: source: by the contract of this function. Target: `try_reserve` found room for the record at this
        // index, so `len` bytes behind its header lie inside the data area, and the consumer does not read them before
        // the commit. They do not overlap: the source is another ring or memory of this process. A peer that writes
        // here all the same garbles only the bytes of this record.
        unsafe { std::ptr::copy_nonoverlapping(source, target.as_ptr(), len) }
    }

    /// Makes the frame visible to the consumer.
    #[inline]
    pub fn commit(self) {
        self.producer.commit(self.header, self.placement);
    }

    /// Gives the room back; the same as dropping the reservation.
    pub fn abort(self) {}
}

/// Finds the head and the end of the last committed record.
///
/// `tail` may lag: its owner may have died between a commit and the tail store, and the consumer may even have
/// released that record. So the scan starts at the higher of the two and walks committed records to the first zero.
fn committed_end(memory: &RingMemory) -> Result<(u64, u64), Corrupt> {
    let capacity = memory.capacity() as u64;
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
    while position < limit {
        let index = position as usize & (memory.capacity() - 1);
        let word = memory.word(index).load(Ordering::Acquire);
        match record::check(word, index, memory.capacity(), position)? {
            Record::Empty => return Ok((head, position)),
            Record::Padding { len } => position += len as u64,
            Record::Frame(header) => position += header.record_len() as u64,
        }
    }
    // The producer keeps eight bytes free, so a ring without any zero word was not written by one.
    Err(corrupt(
        "tail",
        position,
        (head, limit - layout::FRAME_HEADER_LEN as u64),
    ))
}
