//! A run of frames that is borrowed, and released together.

use std::cell::Cell;

use super::consumer::Consumer;
use super::record::Frame;
use crate::error::Corrupt;

/// How much a [`ReadBatch`] takes at most. The first frame is always taken, however long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Bytes of ring, headers and padding included.
    pub bytes: usize,
    /// Frames.
    pub frames: usize,
}

/// A run of frames, borrowed from [`Consumer::read_batch`]. Releasing or dropping it passes every frame that was taken
/// from it; frames that were not taken stay unread.
///
/// It sees what is committed while it is being read, too. Nothing is acknowledged before the release, so a batch of more
/// than an eighth of the ring keeps that much more from the producer.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    consumer: &'a mut Consumer,
    limit: BatchLimit,
    /// Position behind the last frame that was taken.
    taken_to: Cell<u64>,
    taken: Cell<usize>,
    /// Whether an error was reported; there is nothing sound behind it.
    failed: Cell<bool>,
}

impl<'a> ReadBatch<'a> {
    pub(super) fn new(consumer: &'a mut Consumer, limit: BatchLimit) -> Self {
        let start = consumer.position();
        Self {
            consumer,
            limit,
            taken_to: Cell::new(start),
            taken: Cell::new(0),
            failed: Cell::new(false),
        }
    }

    /// Takes the next frame; `None` at the limit, or where nothing is committed at this instant. Frames that were taken
    /// before stay valid. Makes no system call and allocates nothing.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] once if a header word breaks the rules of the ring, then `None`. The frames before it are sound.
    pub fn take(&self) -> Result<Option<Frame<'_>>, Corrupt> {
        let (taken_to, taken) = (self.taken_to.get(), self.taken.get());
        if self.failed.get() || taken > 0 && taken >= self.limit.frames {
            return Ok(None);
        }
        let (position, header) = self
            .consumer
            .look(taken_to)
            .inspect_err(|_| self.failed.set(true))?;
        let Some(header) = header else {
            return Ok(None);
        };
        let end = position + header.record_len() as u64;
        if taken > 0 && end - self.consumer.position() > self.limit.bytes as u64 {
            return Ok(None);
        }
        self.taken_to.set(end);
        self.taken.set(taken + 1);
        Ok(Some(self.consumer.frame_at(position, header)))
    }

    /// The frames that are left to take.
    pub fn iter(&self) -> impl Iterator<Item = Result<Frame<'_>, Corrupt>> {
        std::iter::from_fn(|| self.take().transpose())
    }

    /// Frames that were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Bytes of ring that the frames take up that were taken, padding included.
    #[must_use]
    pub fn taken_bytes(&self) -> usize {
        (self.taken_to.get() - self.consumer.position()) as usize
    }

    /// Passes the frames that were taken; the same as dropping the batch.
    pub fn release(self) {}
}

impl Drop for ReadBatch<'_> {
    fn drop(&mut self) {
        self.consumer.advance_to(self.taken_to.get());
    }
}
