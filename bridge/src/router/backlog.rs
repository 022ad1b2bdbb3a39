//! What a dead worker had not acknowledged, taken out of its ring again: to be given to its successors one frame after the
//! other, so that the one that kills them is known.

use std::collections::VecDeque;

use shm_transport::error::{Corrupt, ReserveError};
use shm_transport::frame::FrameHeader;
use shm_transport::ring::{Frame, Producer};

/// A frame on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptFrame {
    pub(crate) header: FrameHeader,
    pub(crate) payload: Vec<u8>,
}

impl KeptFrame {
    pub(super) fn of(frame: &Frame<'_>) -> Self {
        Self {
            header: frame.header(),
            payload: frame.to_vec(),
        }
    }
}

/// The frame that a worker had in hand when it died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InHand {
    /// Counts the frames that were given out one at a time, from 1.
    pub(crate) number: u64,
    /// Bytes of the records that were given out before it.
    pub(crate) offset: u64,
    pub(crate) frame: KeptFrame,
}

/// How far the peer of a link has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Position in the ring up to which everything is acknowledged.
    pub(crate) position: u64,
    /// Whether something behind it is not.
    pub(crate) unacknowledged: bool,
    /// What the last peer had in hand, where frames are given out one at a time.
    pub(crate) in_hand: Option<InHand>,
    /// Bytes that a peer may have handled without having acknowledged them yet.
    pub(crate) lag_max: u64,
}

#[derive(Debug)]
pub(super) struct Backlog {
    frames: VecDeque<KeptFrame>,
    /// Whether the next frame waits until the one before is acknowledged.
    one_at_a_time: bool,
    in_hand: Option<InHand>,
    /// Frames and bytes of records that were given out one at a time.
    number: u64,
    offset: u64,
}

impl Backlog {
    /// Takes everything unacknowledged out of the ring, in front of what an earlier backlog still has.
    pub(super) fn of(producer: &mut Producer, earlier: Option<&mut Self>) -> Result<Self, Corrupt> {
        let mut frames = VecDeque::new();
        producer.recall(|frame| frames.push_back(KeptFrame::of(frame)))?;
        if let Some(earlier) = earlier {
            frames.append(&mut earlier.frames);
        }
        Ok(Self {
            frames,
            one_at_a_time: true,
            in_hand: None,
            number: 0,
            offset: 0,
        })
    }

    pub(super) fn is_careful(&self) -> bool {
        self.one_at_a_time
    }

    pub(super) fn in_hand(&self) -> Option<&InHand> {
        self.in_hand.as_ref()
    }

    /// Frames that are not in the ring.
    pub(super) fn frames(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Puts the next frame into the ring; `None` if none is due.
    pub(super) fn forward(&mut self, to: &mut Producer) -> Option<Result<(), ReserveError>> {
        if self.one_at_a_time {
            match to.is_empty() {
                Ok(true) => self.in_hand = None,
                Ok(false) => return None,
                Err(corrupt) => return Some(Err(corrupt.into())),
            }
        }
        let frame = self.frames.front()?;
        if let Err(error) = to.try_push(frame.header, &frame.payload) {
            return Some(Err(error));
        }
        let frame = self.frames.pop_front()?;
        if self.one_at_a_time {
            self.number += 1;
            let record_len = frame.header.record_len() as u64;
            self.in_hand = Some(InHand {
                number: self.number,
                offset: self.offset,
                frame,
            });
            self.offset += record_len;
        }
        Some(Ok(()))
    }

    pub(super) fn can_forward(&mut self, to: &mut Producer) -> bool {
        match self.frames.front() {
            _ if self.one_at_a_time => to.is_empty().unwrap_or(true),
            Some(frame) => !matches!(to.has_room(frame.payload.len()), Ok(false)),
            None => true,
        }
    }

    /// Whether the link may go on as usual.
    pub(super) fn is_over(&self, to: &mut Producer) -> bool {
        self.frames.is_empty() && (!self.one_at_a_time || to.is_empty().unwrap_or(true))
    }

    /// Takes the frame with this number, which the last peer had in hand, out of the ring for good, and lets the others follow
    /// without a break. Returns its topic; `None` if that frame is not in hand.
    pub(super) fn set_aside(
        &mut self,
        from: &mut Producer,
        number: u64,
    ) -> Result<Option<u16>, Corrupt> {
        let Some(in_hand) = self.in_hand.take_if(|it| it.number == number) else {
            return Ok(None);
        };
        if from.recall(|_| ())? == 0 {
            return Ok(None);
        }
        self.one_at_a_time = false;
        Ok(Some(in_hand.frame.header.topic_id))
    }
}
