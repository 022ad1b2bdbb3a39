//! Room in a ring that is filled in place and then committed.

use std::io;
use std::ptr::NonNull;

use super::backing::Payload;
use super::batch::BatchState;
use super::producer::{Placement, Producer};
use super::record::Frame;
use crate::frame::{self, FrameHeader};
use crate::layout;
use crate::sync::Ordering;

/// Room for one frame, to be filled in place and then committed. Dropping it aborts and leaves nothing behind.
///
/// Bytes that are not written hold what an older record left there. A payload whose length is not known beforehand is
/// written through [`std::io::Write`] into a reservation of the greatest length and committed with
/// [`Reservation::commit_written`]:
///
/// ```
/// use std::io::Write;
/// # use shm_transport::frame::FrameHeader;
/// # use shm_transport::ring::{Consumer, Producer, RingMemory};
/// # let memory = RingMemory::heap(4096)?;
/// # let mut producer = Producer::attach(memory.clone())?;
/// # let mut consumer = Consumer::attach(memory)?;
///
/// let mut reservation = producer.try_reserve(FrameHeader::new(1001, 100))?;
/// write!(reservation, "price={}", 42)?;
/// reservation.commit_written();
/// # let guard = consumer.try_read()?.expect("a frame");
/// assert_eq!(guard.frame().to_vec(), b"price=42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a reservation that is not committed is aborted"]
pub struct Reservation<'a> {
    producer: &'a mut Producer,
    /// The batch that the frame becomes part of, if it does.
    batch: Option<&'a mut BatchState>,
    header: FrameHeader,
    placement: Placement,
    /// Bytes that were written through `io::Write`, from the start.
    written: usize,
    /// Whether the bytes between the payload and the end of the record are zero already.
    padded: bool,
}

impl<'a> Reservation<'a> {
    #[inline]
    pub(super) fn new(
        producer: &'a mut Producer,
        batch: Option<&'a mut BatchState>,
        header: FrameHeader,
        placement: Placement,
    ) -> Self {
        let padded = header
            .payload_len
            .is_multiple_of(layout::FRAME_ALIGN as u32);
        Self {
            producer,
            batch,
            header,
            placement,
            written: 0,
            padded,
        }
    }

    /// The header that the frame will have.
    #[must_use]
    pub fn header(&self) -> FrameHeader {
        self.header
    }

    /// Bytes of payload that are reserved.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.header.payload_len as usize
    }

    /// Bytes that were written through [`std::io::Write`].
    #[must_use]
    pub fn written(&self) -> usize {
        self.written
    }

    /// Copies the whole payload in.
    ///
    /// # Panics
    ///
    /// If `payload` has not the reserved length.
    #[inline]
    pub fn copy_from_slice(&mut self, payload: &[u8]) {
        assert_eq!(
            payload.len(),
            self.payload_len(),
            "payload has not the reserved length"
        );
        // SAFETY: the slice is readable for its length, which is the reserved one.
        unsafe { self.copy_whole(Payload::at(NonNull::from(payload).cast())) }
    }

    /// Copies the payload of another frame in.
    #[inline]
    pub(super) fn copy_from_frame(&mut self, frame: &Frame<'_>) {
        debug_assert_eq!(frame.header().payload_len, self.header.payload_len);
        // SAFETY: a frame's payload is readable for its header's length, which the reservation was made with.
        unsafe { self.copy_whole(frame.payload()) }
    }

    /// # Safety
    ///
    /// `source` is readable for the reserved length.
    #[inline]
    unsafe fn copy_whole(&mut self, source: Payload<'_>) {
        let len = self.payload_len();
        if !self.padded {
            // The last word holds padding: zero it before the payload's own bytes go over it, which costs less than
            // to load it back afterwards.
            self.last_word().store(0, Ordering::Relaxed);
            self.padded = true;
        }
        // SAFETY: source: by the contract of this function. Target: the whole payload of the record, which lies inside
        // the data area and which the consumer does not read before the commit. They do not overlap: the source is
        // another ring or memory of this process.
        unsafe { self.target().write_from(0, source, len) }
    }

    /// Copies a part of the payload in, `offset` bytes from its start.
    ///
    /// # Panics
    ///
    /// If the part reaches over the end of the reservation.
    pub fn write_at(&mut self, offset: usize, part: &[u8]) {
        let reserved = self.payload_len();
        assert!(
            offset <= reserved && part.len() <= reserved - offset,
            "part reaches over the reservation: offset={offset} len={} payload_len={reserved}",
            part.len()
        );
        let source = Payload::at(NonNull::from(part).cast());
        // SAFETY: source: the slice. Target: the range was checked against the reserved length. They do not overlap,
        // because nobody has references into a ring.
        unsafe { self.target().write_from(offset, source, part.len()) }
    }

    /// Where the payload goes, for calls that take raw pointers, such as a vectored read. [`Reservation::payload_len`]
    /// bytes from there are writable as long as the reservation lives. Where the ring is shared, the peer may change
    /// them at any time, so make no reference to them.
    #[cfg(not(loom))]
    pub fn payload_ptr(&mut self) -> NonNull<u8> {
        self.target().as_ptr()
    }

    fn target(&self) -> Payload<'_> {
        let memory = &self.producer.memory;
        memory.payload(self.placement.index, self.payload_len())
    }

    fn last_word(&self) -> &crate::sync::AtomicU64 {
        let last = self.placement.index + self.placement.record_len - layout::FRAME_ALIGN;
        self.producer.memory.word(last)
    }

    /// Gives back what is reserved beyond `payload_len` bytes.
    ///
    /// # Panics
    ///
    /// If `payload_len` is more than is reserved.
    pub fn shrink(&mut self, payload_len: usize) {
        let reserved = self.payload_len();
        assert!(
            payload_len <= reserved,
            "a reservation cannot grow: payload_len={payload_len} reserved={reserved}"
        );
        if payload_len == reserved {
            return;
        }
        self.header.payload_len = payload_len as u32;
        self.placement.shrink(frame::record_len(payload_len));
        self.padded = payload_len.is_multiple_of(layout::FRAME_ALIGN);
        self.written = self.written.min(payload_len);
    }

    /// Makes the frame visible to the consumer, or adds it to its batch.
    #[inline]
    pub fn commit(mut self) {
        self.publish();
    }

    #[inline]
    fn publish(&mut self) {
        if !self.padded {
            self.zero_padding();
        }
        match self.batch.take() {
            None => self.producer.commit(self.header, self.placement),
            Some(batch) => self
                .producer
                .commit_in_batch(batch, self.header, self.placement),
        }
    }

    /// Makes the frame visible, and says whether the consumer sleeps and has to be woken; see
    /// [`Producer::wakeup_due`].
    #[inline]
    #[must_use = "a parked consumer stays asleep unless it is notified"]
    pub fn commit_and_ask(mut self) -> bool {
        self.publish();
        self.producer.wakeup_due()
    }

    /// Commits only the first `payload_len` bytes of the payload.
    ///
    /// # Panics
    ///
    /// If `payload_len` is more than is reserved.
    pub fn commit_len(mut self, payload_len: usize) {
        self.shrink(payload_len);
        self.commit();
    }

    /// Commits what was written through [`std::io::Write`].
    pub fn commit_written(self) {
        let written = self.written;
        self.commit_len(written);
    }

    /// Gives the room back; the same as dropping the reservation.
    pub fn abort(self) {}

    /// Zeroes the bytes between the payload and the end of the record.
    #[cold]
    fn zero_padding(&self) {
        let used = self.payload_len() % layout::FRAME_ALIGN;
        let keep = u64::from_le((1 << (8 * used)) - 1);
        let word = self.last_word();
        word.store(word.load(Ordering::Relaxed) & keep, Ordering::Relaxed);
    }
}

/// Writes behind what was written before. A write that finds the reservation full takes 0 bytes, so `write_all` and
/// `write!` fail with [`io::ErrorKind::WriteZero`].
impl io::Write for Reservation<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.payload_len() - self.written);
        self.write_at(self.written, &bytes[..len]);
        self.written += len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
