//! The reading end of a ring.

use super::Fencing;
use super::memory::{End, RingMemory};
use super::read_batch::{BatchLimit, ReadBatch};
use super::record::{self, Frame, Record};
use crate::error::{AttachError, Corrupt};
use crate::frame::FrameHeader;
use crate::layout;
use crate::sync::Ordering;

/// How far ahead of a frame a line is fetched, in bytes.
const READ_AHEAD: u64 = 256;

/// The reading end of a ring; at most one per ring in a process.
///
/// Reading makes no system call, takes no lock and allocates nothing. After a burst of reads ask
/// [`Consumer::wakeup_due`] once, and notify the peer's doorbell if it says so.
#[derive(Debug)]
pub struct Consumer {
    pub(super) memory: RingMemory,
    /// The next record to hand out. Only this end moves it; a multiple of 8.
    pub(super) position: u64,
    /// The head as last stored; always in sync with the memory unless the peer writes there. `<= position`.
    published: u64,
    /// Bytes of the record that `peek` handed out last and `advance` has not passed yet; 0 if there is none.
    pending: usize,
    /// Set by a head store, cleared by the look at the producer's parked flag. Set at first, because a predecessor
    /// may have died between the two.
    head_moved: bool,
    /// Whether head follows `acknowledge` instead of `advance`.
    manual_ack: bool,
    fencing: Fencing,
}

impl Consumer {
    /// Takes the reading end of a ring, fresh or left by a predecessor, and goes on with the first unacknowledged
    /// record.
    ///
    /// # Errors
    ///
    /// [`AttachError::Taken`] if this process already has a consumer on the ring, [`AttachError::TakenElsewhere`] if
    /// another process has, [`AttachError::Corrupt`] if the head in the memory is impossible.
    pub fn attach(memory: RingMemory) -> Result<Self, AttachError> {
        memory.attach(End::Consumer)?;
        let head = memory.head().load(Ordering::Acquire);
        if !head.is_multiple_of(layout::FRAME_ALIGN as u64) || head > u64::MAX / 2 {
            memory.detach(End::Consumer);
            let legal = (0, u64::MAX / 2);
            return Err(AttachError::Corrupt(Corrupt {
                field: "head",
                value: head,
                legal,
                position: head,
                word: 0,
            }));
        }
        let fencing = Fencing::default();
        Ok(Self {
            memory,
            position: head,
            published: head,
            pending: 0,
            head_moved: true,
            manual_ack: false,
            fencing,
        })
    }

    /// Bytes of the ring.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// Largest payload that the ring takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.memory.max_payload()
    }

    /// Bytes read since the ring was created, padding included.
    #[inline]
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that this end has acknowledged since the ring was created: a successor goes on from there.
    #[must_use]
    pub fn acknowledged_position(&self) -> u64 {
        self.published
    }

    /// Bytes that the producer says it has committed since the ring was created; may lag by what it committed last. It is
    /// the peer's word, cut to what the ring can hold.
    #[must_use]
    pub fn committed_position(&self) -> u64 {
        let tail = self.memory.tail().load(Ordering::Acquire);
        tail.clamp(self.position, self.position + self.capacity() as u64)
    }

    /// Bytes committed and not yet passed, padding included, by the producer's word. By the time the caller looks at the
    /// answer it may be more, never less before this end passes something. To decide whether there is something to read,
    /// ask [`Consumer::is_empty`]: the producer stores the number behind this one later than the frame.
    #[must_use]
    pub fn occupancy(&self) -> usize {
        (self.committed_position() - self.position) as usize
    }

    /// Whether there is nothing to read. A yes may have turned into a no an instant later; a no stays true until this end
    /// passes the frame. Memory that breaks the rules counts as something to read: reading it gives the error. Unlike
    /// [`Consumer::peek`] this never publishes the head.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.look(self.position), Ok((_, None)))
    }

    /// Says how head stores are ordered against parked flags. Both ends must use the same mode.
    pub fn set_fencing(&mut self, fencing: Fencing) {
        self.fencing = fencing;
    }

    /// With `true`, `advance` no longer acknowledges: head moves only by [`Consumer::acknowledge`]. A pump needs this,
    /// because what it has written to a socket is not yet handled by the peer.
    pub fn set_manual_ack(&mut self, manual_ack: bool) {
        self.manual_ack = manual_ack;
    }

    /// Borrows the oldest unread frame; `None` if there is none at this instant. Releasing the guard passes it.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the header word breaks the rules of the ring. The consumer stays where it is.
    #[inline]
    pub fn try_read(&mut self) -> Result<Option<ReadGuard<'_>>, Corrupt> {
        Ok(self.poll()?.map(|header| ReadGuard {
            consumer: self,
            header,
        }))
    }

    /// Looks at the oldest unread frame without passing it; `None` if there is none at this instant. Call
    /// [`Consumer::advance`] to pass it. Finding the ring empty publishes the head.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the header word breaks the rules of the ring. The consumer stays where it is.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<Option<Frame<'_>>, Corrupt> {
        Ok(self.poll()?.map(|header| self.frame(header)))
    }

    /// Borrows a run of unread frames, up to a limit; `None` if there is none at this instant. The frames stay where they
    /// are until the batch is released or dropped, which passes all that were taken from it, at once.
    ///
    /// ```
    /// # use shm_transport::frame::FrameHeader;
    /// # use shm_transport::ring::{BatchLimit, Consumer, Producer, RingMemory};
    /// # let memory = RingMemory::heap(4096)?;
    /// # let mut producer = Producer::attach(memory.clone())?;
    /// # let mut consumer = Consumer::attach(memory)?;
    /// for word in [&b"one"[..], b"two", b"six"] {
    ///     producer.try_push(FrameHeader::new(1001, 3), word)?;
    /// }
    /// let limit = BatchLimit { bytes: 4096, frames: 2 };
    /// let batch = consumer.read_batch(limit)?.expect("frames were committed");
    /// let words = batch.iter().map(|frame| Ok(frame?.to_vec())).collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
    /// assert_eq!(words, [b"one", b"two"]);
    /// batch.release();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the first header word breaks the rules of the ring. The consumer stays where it is.
    pub fn read_batch(&mut self, limit: BatchLimit) -> Result<Option<ReadBatch<'_>>, Corrupt> {
        Ok(self.poll()?.map(|_| ReadBatch::new(self, limit)))
    }

    /// Finds the oldest unread frame, skipping padding, and remembers its length for `advance`.
    #[inline(always)]
    fn poll(&mut self) -> Result<Option<FrameHeader>, Corrupt> {
        let (position, header) = self.look(self.position)?;
        self.position = position;
        match header {
            Some(header) => {
                self.pending = header.record_len();
                // Where the next record begins is known only once this header is here, so without a hint the processor
                // waits for one cache line after the other.
                let ahead = self.index(position + READ_AHEAD);
                self.memory.prefetch_behind(ahead);
            }
            None => {
                if !self.manual_ack {
                    self.publish_head();
                }
            }
        }
        Ok(header)
    }

    /// Looks for a frame at `position` or behind padding there, and says where it was looked for last.
    #[inline]
    pub(super) fn look(&self, position: u64) -> Result<(u64, Option<FrameHeader>), Corrupt> {
        // At most one padding record lies in front of a frame, because padding ends at the end of the data area and the
        // record behind it starts at index 0, where padding is illegal.
        let mut position = position;
        loop {
            let index = self.index(position);
            // SYNC: commit (release, Producer::publish) ↔ read (acquire, here).
            let word = self.memory.word(index).load(Ordering::Acquire);
            match record::check(word, index, self.capacity(), position)? {
                Record::Frame(header) => return Ok((position, Some(header))),
                Record::Padding { len } => position += len as u64,
                Record::Empty => {
                    // A record rarely ends in the line of its header. Fetching the next line while waiting spares the
                    // reader of a short message the second of two waits for the producer's cache.
                    self.memory.prefetch_behind(index);
                    return Ok((position, None));
                }
            }
        }
    }

    #[inline]
    fn frame(&self, header: FrameHeader) -> Frame<'_> {
        self.frame_at(self.position, header)
    }

    /// The frame at `position`, whose header [`Consumer::look`] has checked.
    #[inline]
    pub(super) fn frame_at(&self, position: u64, header: FrameHeader) -> Frame<'_> {
        let payload = self
            .memory
            .payload(self.index(position), header.payload_len as usize);
        // SAFETY: `record::check` found that the record ends inside the data area, so `payload_len` bytes are readable
        // for as long as the memory lives, and `self.memory` outlives the borrow of `self`.
        unsafe { Frame::from_payload(header, payload) }
    }

    /// Passes everything below `position`, which a batch has handed out.
    pub(super) fn advance_to(&mut self, position: u64) {
        debug_assert!(position >= self.position);
        self.pending = (position - self.position) as usize;
        self.advance();
    }

    /// Passes the frame that was looked at last; does nothing if there is none. Its bytes may be overwritten from the
    /// moment that the head is published, which happens here once `capacity / 8` bytes have come together.
    #[inline]
    pub fn advance(&mut self) {
        self.position += self.pending as u64;
        self.pending = 0;
        let lag_max = (self.capacity() / layout::RING_HEAD_LAG_DIVISOR) as u64;
        if self.position - self.published >= lag_max && !self.manual_ack {
            self.publish_head();
        }
    }

    /// Acknowledges everything that was passed so far.
    #[inline]
    pub fn publish_head(&mut self) {
        self.store_head(self.position);
    }

    /// Acknowledges everything below `position`, for a consumer with manual acknowledgement.
    ///
    /// # Panics
    ///
    /// If `position` is above what was passed or below what was acknowledged: the caller's own bookkeeping is wrong.
    pub fn acknowledge(&mut self, position: u64) {
        assert!(
            (self.published..=self.position).contains(&position),
            "acknowledge out of range: position={position}, acknowledged={}, passed={}",
            self.published,
            self.position
        );
        self.store_head(position);
    }

    #[inline]
    fn store_head(&mut self, position: u64) {
        if position == self.published {
            return;
        }
        // SYNC: publish-head (release, here) ↔ refresh-head (acquire, Producer::refresh_head).
        self.memory.head().store(position, Ordering::Release);
        self.published = position;
        self.head_moved = true;
    }

    /// Declares that this end is about to sleep until there is data, and publishes the head. Run the heavy fence next,
    /// then look again with [`Consumer::peek`], and only then sleep.
    pub fn arm(&mut self) {
        if !self.manual_ack {
            self.publish_head();
        }
        self.memory.consumer_parked().store(1, Ordering::Relaxed);
    }

    /// Takes the declaration back after waking up.
    pub fn disarm(&self) {
        self.memory.consumer_parked().store(0, Ordering::Relaxed);
    }

    /// Whether this end still stands declared as sleeping: nobody has woken it since [`Consumer::arm`].
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.memory.consumer_parked().load(Ordering::Relaxed) != 0
    }

    /// Whether the producer sleeps for want of room and has to be woken. A yes also clears its flag, so the caller
    /// must notify the doorbell next. Costs nothing unless the head has moved.
    #[inline]
    #[must_use = "a parked producer stays asleep unless it is notified"]
    pub fn wakeup_due(&mut self) -> bool {
        if !self.head_moved {
            return false;
        }
        self.head_moved = false;
        self.fencing.light();
        let parked = self.memory.producer_parked();
        if parked.load(Ordering::Relaxed) == 0 {
            return false;
        }
        parked.store(0, Ordering::Relaxed);
        true
    }

    #[inline]
    pub(super) fn index(&self, position: u64) -> usize {
        position as usize & (self.capacity() - 1)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.memory.detach(End::Consumer);
    }
}

/// The oldest frame of a ring, borrowed. Releasing or dropping it gives its space back.
#[derive(Debug)]
pub struct ReadGuard<'a> {
    consumer: &'a mut Consumer,
    /// The checked header; the word in the ring is not loaded again.
    header: FrameHeader,
}

impl ReadGuard<'_> {
    /// The frame.
    #[inline]
    #[must_use]
    pub fn frame(&self) -> Frame<'_> {
        self.consumer.frame(self.header)
    }

    /// Passes the frame; the same as dropping the guard.
    pub fn release(self) {}
}

impl Drop for ReadGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.consumer.advance();
    }
}
