//! Frames that become visible all at once.

use mycelium_messages::Message;

use super::producer::Producer;
use super::record::Frame;
use super::reservation::Reservation;
use crate::error::{BatchError, ReserveError};
use crate::frame::FrameHeader;

/// What a batch knows of the records in it.
#[derive(Debug)]
pub(super) struct BatchState {
    /// The first header word and its index. It is stored last: as long as it is 0, the consumer sees nothing of the
    /// batch, and neither does a successor of the producer.
    pub(super) first: Option<(usize, u64)>,
    /// Position behind the last record.
    pub(super) end: u64,
    /// Frames in the batch.
    pub(super) frames: usize,
}

/// Frames that the consumer sees all at once, made by [`Producer::batch`]. Dropping it aborts and leaves nothing behind,
/// and so does the death of the process before the commit.
///
/// Adding a frame costs what committing one costs, and the commit is two stores more.
#[derive(Debug)]
#[must_use = "a batch that is not committed is aborted"]
pub struct Batch<'a> {
    producer: &'a mut Producer,
    state: BatchState,
}

impl<'a> Batch<'a> {
    pub(super) fn new(producer: &'a mut Producer) -> Self {
        let state = BatchState {
            first: None,
            end: producer.position(),
            frames: 0,
        };
        Self { producer, state }
    }

    /// Frames in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.frames
    }

    /// Whether there is no frame in the batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.frames == 0
    }

    /// Bytes of the records in the batch, padding included.
    #[must_use]
    pub fn batch_len(&self) -> usize {
        (self.state.end - self.producer.position()) as usize
    }

    /// Reserves room for one more frame. It is part of the batch once the reservation is committed; dropping the
    /// reservation leaves the batch as it was.
    ///
    /// # Errors
    ///
    /// [`BatchError::TooLong`] if the frame never fits behind the ones in the batch, otherwise as
    /// [`Producer::try_reserve`]. The batch stays as it was: after `Full` wait for room and try again, or commit what is
    /// there.
    #[inline]
    pub fn try_reserve(&mut self, header: FrameHeader) -> Result<Reservation<'_>, BatchError> {
        match self.producer.admit(self.state.end, header) {
            Ok(placement) => Ok(Reservation::new(
                self.producer,
                Some(&mut self.state),
                header,
                placement,
            )),
            Err(ReserveError::Full { needed, .. })
                if self.batch_len() + needed > self.producer.capacity() =>
            {
                Err(BatchError::TooLong {
                    batch_len: self.batch_len(),
                    needed,
                    capacity: self.producer.capacity(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds one frame with a copy of `payload`, whose length must be the header's.
    ///
    /// # Errors
    ///
    /// As [`Batch::try_reserve`].
    ///
    /// # Panics
    ///
    /// If `payload.len()` is not `header.payload_len`.
    pub fn try_push(&mut self, header: FrameHeader, payload: &[u8]) -> Result<(), BatchError> {
        let mut reservation = self.try_reserve(header)?;
        reservation.copy_from_slice(payload);
        reservation.commit();
        Ok(())
    }

    /// Adds a copy of a frame, which may lie in another ring.
    ///
    /// # Errors
    ///
    /// As [`Batch::try_reserve`].
    pub fn try_forward(&mut self, frame: &Frame<'_>) -> Result<(), BatchError> {
        let mut reservation = self.try_reserve(frame.header())?;
        reservation.copy_from_frame(frame);
        reservation.commit();
        Ok(())
    }

    /// Adds one message.
    ///
    /// # Errors
    ///
    /// As [`Batch::try_reserve`].
    pub fn try_publish<M: Message>(&mut self, message: &M) -> Result<(), BatchError> {
        self.try_push(
            FrameHeader::new(M::TOPIC_ID, size_of::<M>() as u32),
            message.as_bytes(),
        )
    }

    /// Makes every frame of the batch visible to the consumer, at one instant. An empty batch does nothing.
    pub fn commit(self) {
        if let Some((index, word)) = self.state.first {
            self.producer.publish(index, word, self.state.end);
        }
    }

    /// Gives the room back; the same as dropping the batch.
    pub fn abort(self) {}
}
