//! The pump: moves frames between the rings of a link and a byte stream, for a peer without shared memory.
//!
//! The bytes of a record are the bytes of a frame on the stream, so neither direction touches single frames:
//!
//! - *Out*: a run of records without padding lies in one piece, and goes out in one vectored write straight from the ring,
//!   with the control frames that wait and, behind padding, a second run. What the stream took is not yet handled by the
//!   peer: the ring keeps it until the peer acknowledges, and a successor of the peer gets the rest again.
//! - *In*: one vectored read fills the free part of the ring. Only the first header goes elsewhere, so the consumer sees
//!   nothing. Then the chain of headers is checked, control frames are taken out and the gaps closed, and one store of the
//!   first header makes all whole frames visible at once. A frame that has not come whole stays where it is and is
//!   continued in place.
//!
//! Back-pressure: a full stream leaves the records in the ring. A full ring leaves the bytes in the stream, but for
//! [`AHEAD_MAX`] of them, which are looked through for acknowledgements and requests: those must not wait behind a frame
//! that waits for room. Beside the rings a pump uses that much memory, and what control frames wait to be sent.
//!
//! The rings belong to this process, or to peers that are trusted with the stream: whoever changes a committed record while
//! it is being sent garbles what the stream carries. It cannot make the pump read or write outside the ring.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use shm_transport::channel::LinkEnds;
//! use shm_transport::pump::{Pump, PumpError, Received, Sent};
//! use shm_transport::ring::{Fencing, Frame, RingMemory};
//! use shm_transport::socket::FrameStream;
//! use shm_transport::wakeup::Doorbell;
//!
//! let (there, back) = (RingMemory::heap(4096)?, RingMemory::heap(4096)?);
//! let (bell, pump_bell) = (Doorbell::new()?, Doorbell::new()?);
//! let side = |read: &RingMemory, write: &RingMemory, own: &Doorbell, other: &Doorbell| {
//!     let (own, other) = (own.try_clone().unwrap(), other.try_clone().unwrap());
//!     LinkEnds::attach(read.clone(), write.clone(), own, other, Fencing::Fenced)
//! };
//! let mut ends = side(&back, &there, &bell, &pump_bell)?;
//! let (ours, theirs) = UnixStream::pair()?;
//! let mut stream = FrameStream::new(ours)?;
//! stream.expect_data(1000);
//! let mut pump = Pump::new(side(&there, &back, &pump_bell, &bell)?, stream);
//! let mut peer = FrameStream::new(theirs)?;
//!
//! ends.try_publish(&Frame::new(1001, b"out"))?;
//! let sent: Result<Sent, PumpError> = pump.send();
//! assert_eq!(sent?, Sent::All);
//! peer.fill()?;
//! assert_eq!(peer.peek()?.expect("it was sent").to_vec(), b"out");
//!
//! peer.queue_frame(&Frame::new(1002, b"in"));
//! assert!(peer.flush()?);
//! assert_eq!(pump.receive(true)?, Received::Data);
//! assert_eq!(ends.peek()?.expect("it was received").to_vec(), b"in");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acknowledgements;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use mycelium_messages::Message;

use crate::channel::LinkEnds;
use crate::error::Corrupt;
use crate::frame::FrameHeader;
use crate::socket::{ByteStream, CONTROL_PAYLOAD_MAX, FrameStream, Stream, Traffic};
use crate::wakeup::{Doorbell, heavy_fence};
use receive::Inflow;
use send::Outflow;

/// Bytes that are read ahead while a frame waits for room in the ring: more than a UNIX socket holds, and more than the
/// longest control frame takes.
pub const AHEAD_MAX: usize = 512 * 1024;

/// Bytes of frames that one pump gives out for that of a successor: what several peers that crashed one after the other can
/// leave behind.
pub const UNPLACED_MAX: usize = 4 * AHEAD_MAX;

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// A ring holds what no correct peer writes.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The peer announced a payload over the limit.
    #[error(
        "frame too large: topic_id={topic_id} payload_len={payload_len} max_payload={max_payload}; send smaller messages or \
         raise ring_capacity"
    )]
    TooLarge {
        /// The topic that the header names.
        topic_id: u16,
        /// Bytes that the header announces.
        payload_len: usize,
        /// Bytes that the link takes, or for a control frame the protocol.
        max_payload: usize,
    },
    /// The peer sent a header that only a ring may hold.
    #[error("frame with a reserved topic or flag: topic_id={topic_id} flags={flags:#06x}")]
    Reserved {
        /// The topic that the header names.
        topic_id: u16,
        /// Its flags.
        flags: u16,
    },
    /// The peer acknowledged what it cannot have.
    #[error("acknowledgement out of range: bytes={bytes} legal={low}..={high} in steps of 8")]
    Acknowledgement {
        /// What it says.
        bytes: u64,
        /// What it had acknowledged before.
        low: u64,
        /// What was sent to it.
        high: u64,
    },
    /// A system call failed.
    #[error("stream failed: step={step}: {source}")]
    Io {
        /// `receive` or `send`.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How far [`Pump::send`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// There is nothing left to send.
    All,
    /// There is more, and the stream would take more: call again, after the other direction had its turn.
    More,
    /// The stream takes nothing more now.
    StreamFull,
    /// The peer does not receive any more. What it sent before may still be there to be received.
    HangUp,
}

/// What [`Pump::receive`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Something: look at [`Pump::next_control`] and call again.
    Data,
    /// Nothing for now.
    Nothing,
    /// A frame waits for room in the ring.
    Blocked {
        /// Bytes of its payload.
        payload_len: usize,
        /// Whether more of the stream can be read ahead meanwhile. If a call that might read says so, there was nothing to
        /// be read.
        wants_more: bool,
    },
    /// The end of the stream; everything that came whole is in the ring.
    HangUp {
        /// Bytes that are missing of a frame that was cut off; 0 if the stream ended behind a frame.
        missing: usize,
    },
}

/// The peer's side of the rings of a link, held in the peer's stead, and the stream that leads to it. Makes system calls only
/// in [`Pump::send`], [`Pump::receive`] and where it wakes the other side of the rings; never blocks.
#[derive(Debug)]
pub struct Pump<S = Stream> {
    stream: S,
    outflow: Outflow,
    inflow: Inflow,
    own_doorbell: Doorbell,
    peer_doorbell: Doorbell,
    traffic: Traffic,
}

impl Pump<Stream> {
    /// A pump on a stream after its handshake. Goes on with what the handshake has left in its buffers.
    #[must_use]
    pub fn new(ends: LinkEnds, stream: FrameStream) -> Self {
        let (stream, received, queue, traffic) = stream.into_parts();
        let mut pump = Self::over(ends, stream);
        pump.inflow.put_ahead(received.bytes());
        pump.outflow.queue = queue;
        pump.traffic = traffic;
        pump
    }

    /// The descriptor that is written to; the same as [`AsFd`]'s unless the stream is two pipes.
    #[must_use]
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.stream.output_fd()
    }
}

impl<S: ByteStream> Pump<S> {
    /// A pump on a fresh stream.
    pub fn over(ends: LinkEnds, stream: S) -> Self {
        let (consumer, producer, own_doorbell, peer_doorbell) = ends.into_parts();
        Self {
            stream,
            outflow: Outflow::new(consumer),
            inflow: Inflow::new(producer, CONTROL_PAYLOAD_MAX),
            own_doorbell,
            peer_doorbell,
            traffic: Traffic::default(),
        }
    }

    /// The doorbell that the other side of the rings uses to wake this pump.
    #[must_use]
    pub fn doorbell(&self) -> &Doorbell {
        &self.own_doorbell
    }

    /// System calls on the stream that moved something.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Appends a control frame to what is to be sent. It goes out in front of the next frame of the ring that was not begun.
    pub fn queue_message<M: Message>(&mut self, message: &M) {
        self.outflow.queue.push_message(message);
    }

    /// Bytes of control frames that wait to be sent.
    #[must_use]
    pub fn unsent_control(&self) -> usize {
        self.outflow.queue.unsent().len()
    }

    /// Sends what is queued and what is in the ring, as far as the stream takes it and for a limited number of calls.
    ///
    /// # Errors
    ///
    /// [`PumpError::Corrupt`] and [`PumpError::Io`].
    pub fn send(&mut self) -> Result<Sent, PumpError> {
        self.outflow.send(&mut self.stream, &mut self.traffic)
    }

    /// Takes what has arrived: application frames into the ring, control frames for [`Pump::next_control`]. Makes one call
    /// on the stream at most, and none unless `may_read`: then it only goes on with what had no room before.
    ///
    /// # Errors
    ///
    /// [`PumpError`]. Everything in front of a bad frame was delivered.
    pub fn receive(&mut self, may_read: bool) -> Result<Received, PumpError> {
        self.inflow
            .receive(&mut self.stream, may_read, &mut self.traffic)
    }

    /// The peer has ended, so there is little more to come: up to [`UNPLACED_MAX`] bytes are read ahead now, so that the end of
    /// the stream can be seen.
    pub fn expect_end(&mut self) {
        self.inflow.expect_end();
    }

    /// Once the stream has ended while a frame waits for room: takes the frames out that have none, so that the pump of a
    /// successor goes on with them and the successor need not wait for it. Returns the whole application frames as the bytes
    /// of the stream, and how many bytes are missing of a frame that was cut off; control frames among them are left to
    /// [`Pump::next_control`]. `None`, and nothing is taken, while the stream goes on, while nothing waits for room, if one of
    /// the frames is wrong, and if they are more than [`UNPLACED_MAX`] bytes.
    pub fn take_unplaced(&mut self) -> Option<(Vec<u8>, usize)> {
        self.inflow.take_unplaced()
    }

    /// Begins with the frames that the pump of a predecessor has given out.
    pub fn put_unplaced(&mut self, frames: Vec<u8>) {
        self.inflow.put_unplaced(frames);
    }

    /// The oldest control frame that was received and not looked at.
    pub fn next_control(&mut self) -> Option<(FrameHeader, Vec<u8>)> {
        self.inflow.control.pop_front()
    }

    /// How far the other side has published for the peer by now, as a position of the ring.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.outflow.consumer.committed_position()
    }

    /// Whether every frame up to this position is sent, but perhaps for a part of the last.
    #[must_use]
    pub fn has_sent(&self, position: u64) -> bool {
        self.outflow.has_sent(position)
    }

    /// Handles the peer's word that it has released `bytes` of what it got on this connection.
    ///
    /// # Errors
    ///
    /// [`PumpError::Acknowledgement`] if it cannot have that many.
    pub fn acknowledge(&mut self, bytes: u64) -> Result<(), PumpError> {
        self.outflow.acknowledge(bytes)
    }

    /// Wakes the other side of the rings for what was received and for room that was made.
    pub fn flush_wakeups(&mut self) {
        if self.inflow.producer.wakeup_due() | self.outflow.consumer.wakeup_due() {
            // A doorbell that cannot be rung belongs to a side that is gone.
            let _ = self.peer_doorbell.notify();
        }
    }

    /// Declares that the pump is about to sleep; says whether it may. `blocked` is the payload length of a frame that
    /// waits for room.
    ///
    /// # Errors
    ///
    /// [`PumpError::Corrupt`].
    pub fn park(&mut self, wants_frames: bool, blocked: Option<usize>) -> Result<bool, PumpError> {
        if wants_frames {
            self.outflow.consumer.arm();
        }
        if blocked.is_some() {
            self.inflow.producer.arm_room();
        }
        // SYNC: heavy fence (here) ↔ light fence (wakeup_due of the other side's producer and consumer).
        heavy_fence();
        let has_frames = wants_frames && !self.outflow.consumer.is_empty();
        let has_room = match blocked {
            Some(payload_len) => self.inflow.producer.has_room(payload_len)?,
            None => false,
        };
        Ok(!has_frames && !has_room)
    }

    /// Takes the declaration back.
    pub fn unpark(&self) {
        self.outflow.consumer.disarm();
        self.inflow.producer.disarm_room();
    }
}

impl<S: AsFd> AsFd for Pump<S> {
    /// The descriptor that is read from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: AsRawFd> AsRawFd for Pump<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
