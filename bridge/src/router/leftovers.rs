//! What waited in a lane when the policy of its topic changed.

use std::collections::VecDeque;

use shm_transport::error::ReserveError;
use shm_transport::ring::Producer;

use super::backlog::KeptFrame;

/// Frames in the order in which they are to go out.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    frames: VecDeque<KeptFrame>,
    /// Bytes of their records.
    bytes: usize,
}

impl Leftovers {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn frames(&self) -> u64 {
        self.frames.len() as u64
    }

    pub(super) fn push(&mut self, frame: KeptFrame) {
        self.bytes += frame.header.record_len();
        self.frames.push_back(frame);
    }

    /// Takes the oldest frame out if all together are more than so many bytes. What one lane held is never more than the
    /// capacity of a lane; who changes policies again and again gets no more memory for it.
    pub(super) fn evict(&mut self, capacity: usize) -> Option<KeptFrame> {
        if self.bytes > capacity {
            self.pop()
        } else {
            None
        }
    }

    /// Payload length of the oldest frame.
    pub(super) fn front_len(&self) -> Option<usize> {
        self.frames.front().map(|frame| frame.payload.len())
    }

    /// Moves the oldest frame into the ring; an error leaves it where it is. Returns its topic and the length of its payload.
    pub(super) fn forward(
        &mut self,
        to: &mut Producer,
    ) -> Option<Result<(u16, usize), ReserveError>> {
        let frame = self.frames.front()?;
        let moved = (frame.header.topic_id, frame.payload.len());
        if let Err(error) = to.try_push(frame.header, &frame.payload) {
            return Some(Err(error));
        }
        self.pop();
        Some(Ok(moved))
    }

    fn pop(&mut self) -> Option<KeptFrame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.header.record_len();
        Some(frame)
    }
}
