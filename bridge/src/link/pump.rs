//! The pump of a socket link: moves frames between the link's rings and what the socket sends and receives.
//!
//! The bytes of a record are the bytes of a frame on the socket. What was written to the socket is not yet handled by
//! the peer, so the ring keeps it until the peer acknowledges; a successor gets the rest again.

use std::collections::VecDeque;

use shm_transport::channel::LinkEnds;
use shm_transport::error::{Corrupt, ReserveError};
use shm_transport::frame::record_len;
use shm_transport::ring::{Consumer, Frame, Producer};
use shm_transport::socket::FrameStream;
use shm_transport::wakeup::{Doorbell, heavy_fence};

/// Bytes that may wait in the send queue of a socket.
const SEND_QUEUE_MAX: usize = 256 * 1024;

/// The peer's side of the rings of a socket link, held by the bridge in the peer's stead.
pub(crate) struct Pump {
    consumer: Consumer,
    producer: Producer,
    own_doorbell: Doorbell,
    bridge_doorbell: Doorbell,
    acknowledgements: Acknowledgements,
}

/// What a peer did that the protocol does not allow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(
        "frame too large: payload_len={payload_len} max_payload={max_payload}; send smaller messages or raise ring_capacity"
    )]
    TooLarge {
        payload_len: usize,
        max_payload: usize,
    },
    #[error("frame with a reserved topic or flag: topic_id={topic_id} flags={flags:#06x}")]
    Reserved { topic_id: u16, flags: u16 },
    #[error("acknowledgement out of range: bytes={bytes} legal={low}..={high} in steps of 8")]
    Acknowledgement { bytes: u64, low: u64, high: u64 },
}

impl Pump {
    pub(crate) fn new(ends: LinkEnds) -> Self {
        let (mut consumer, producer, own_doorbell, bridge_doorbell) = ends.into_parts();
        consumer.set_manual_ack(true);
        let acknowledgements = Acknowledgements::new(consumer.position());
        Self {
            consumer,
            producer,
            own_doorbell,
            bridge_doorbell,
            acknowledgements,
        }
    }

    /// The doorbell that the router rings for this pump.
    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.own_doorbell
    }

    /// Most bytes that [`Pump::fill_send_queue`] leaves in the send queue.
    pub(crate) fn send_queue_max(&self) -> usize {
        SEND_QUEUE_MAX + record_len(self.consumer.max_payload())
    }

    /// Moves frames from the ring to the send queue, as far as that has room.
    pub(crate) fn fill_send_queue(&mut self, stream: &mut FrameStream) -> Result<(), PumpError> {
        while stream.unsent() < SEND_QUEUE_MAX {
            let Some(frame) = self.consumer.peek()? else {
                break;
            };
            let header = frame.header();
            stream.queue_frame(&frame);
            self.consumer.advance();
            self.acknowledgements
                .sent(self.consumer.position(), header.record_len() as u64);
        }
        Ok(())
    }

    /// Passes a frame from the socket on to the router; false if the ring has no room for it.
    pub(crate) fn push(&mut self, frame: &Frame<'_>) -> Result<bool, PumpError> {
        match self.producer.try_forward(frame) {
            Ok(()) => Ok(true),
            Err(ReserveError::Full { .. }) => Ok(false),
            Err(ReserveError::TooLarge {
                payload_len,
                max_payload,
            }) => Err(PumpError::TooLarge {
                payload_len,
                max_payload,
            }),
            Err(ReserveError::ReservedTopic { topic_id, flags }) => {
                Err(PumpError::Reserved { topic_id, flags })
            }
            Err(ReserveError::Corrupt(corrupt)) => Err(corrupt.into()),
        }
    }

    /// How far the router has published for the peer by now.
    pub(crate) fn published(&self) -> u64 {
        self.consumer.committed_position()
    }

    /// Whether everything up to this position is in the send queue.
    pub(crate) fn has_queued(&self, position: u64) -> bool {
        self.consumer.position() >= position
    }

    /// Handles the peer's word that it has released `bytes` of what it got on this connection.
    pub(crate) fn acknowledge(&mut self, bytes: u64) -> Result<(), PumpError> {
        let position = self.acknowledgements.acknowledge(bytes)?;
        self.consumer.acknowledge(position);
        Ok(())
    }

    /// Wakes the router for what was pushed and for room that was made.
    pub(crate) fn flush_wakeups(&mut self) {
        if self.producer.wakeup_due() | self.consumer.wakeup_due() {
            // The router's own doorbell, in this process, is always there.
            let _ = self.bridge_doorbell.notify();
        }
    }

    /// Declares that the pump is about to sleep; says whether it may. `blocked` is the payload length of a frame that
    /// found no room.
    pub(crate) fn park(
        &mut self,
        wants_frames: bool,
        blocked: Option<usize>,
    ) -> Result<bool, PumpError> {
        if wants_frames {
            self.consumer.arm();
        }
        if blocked.is_some() {
            self.producer.arm_room();
        }
        // SYNC: heavy fence (here) ↔ light fence (wakeup_due of the router's producer and consumer).
        heavy_fence();
        let has_frames = wants_frames && self.consumer.peek()?.is_some();
        let has_room = match blocked {
            Some(payload_len) => self.producer.has_room(payload_len)?,
            None => false,
        };
        Ok(!has_frames && !has_room)
    }

    /// Takes the declaration back.
    pub(crate) fn unpark(&self) {
        self.consumer.disarm();
        self.producer.disarm_room();
    }
}

/// Translates bytes of the socket's stream into positions of the ring, which also counts padding.
#[derive(Debug)]
struct Acknowledgements {
    sent: u64,
    acknowledged: u64,
    /// Where runs of records without padding between them start: bytes sent before, position in the ring.
    runs: VecDeque<(u64, u64)>,
}

impl Acknowledgements {
    fn new(position: u64) -> Self {
        Self {
            sent: 0,
            acknowledged: 0,
            runs: VecDeque::from([(0, position)]),
        }
    }

    /// Notes that a record of `record_len` bytes was sent that ends at `end` in the ring.
    fn sent(&mut self, end: u64, record_len: u64) {
        let start = end - record_len;
        let (run_sent, run_start) = *self.runs.back().expect("there is always a run");
        if run_start + (self.sent - run_sent) != start {
            self.runs.push_back((self.sent, start));
        }
        self.sent += record_len;
    }

    fn acknowledge(&mut self, bytes: u64) -> Result<u64, PumpError> {
        if bytes < self.acknowledged || bytes > self.sent || !bytes.is_multiple_of(8) {
            return Err(PumpError::Acknowledgement {
                bytes,
                low: self.acknowledged,
                high: self.sent,
            });
        }
        self.acknowledged = bytes;
        while self.runs.len() > 1 && self.runs[1].0 <= bytes {
            self.runs.pop_front();
        }
        let (run_sent, run_start) = self.runs[0];
        Ok(run_start + (bytes - run_sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_bytes_become_positions_across_padding() {
        let mut acknowledgements = Acknowledgements::new(1000);
        acknowledgements.sent(1072, 72);
        acknowledgements.sent(1144, 72);
        // 56 bytes of padding in the ring.
        acknowledgements.sent(1272, 72);
        acknowledgements.sent(1344, 72);
        assert_eq!(acknowledgements.acknowledge(72).expect("legal"), 1072);
        assert_eq!(acknowledgements.acknowledge(216).expect("legal"), 1272);
        assert_eq!(acknowledgements.acknowledge(288).expect("legal"), 1344);
        assert_eq!(acknowledgements.runs.len(), 1);
    }

    #[test]
    fn an_impossible_acknowledgement_names_the_legal_range() {
        let mut acknowledgements = Acknowledgements::new(0);
        acknowledgements.sent(72, 72);
        assert_eq!(acknowledgements.acknowledge(72).expect("legal"), 72);
        for bytes in [80, 71, 64, 0, u64::MAX] {
            let error = acknowledgements.acknowledge(bytes).expect_err("illegal");
            assert!(
                error
                    .to_string()
                    .contains(&format!("bytes={bytes} legal=72..=72")),
                "{error}"
            );
        }
    }
}
