//! What a session has toward its peer: control frames only, or a pump that carries all frames.

use std::os::fd::{AsRawFd, RawFd};

use mycelium_messages::Message;
use shm_transport::frame::FrameHeader;
use shm_transport::pump::{Pump, PumpError, Received, Sent};
use shm_transport::socket::{FillOutcome, FrameStream, StreamError};

/// The stream to a peer.
#[derive(Debug)]
pub(super) enum Wire {
    /// Application frames go through shared memory.
    Control(FrameStream),
    /// All frames go over the stream.
    Pumped(Box<Pump>),
}

/// Why the stream to a peer cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Pump(#[from] PumpError),
}

impl Wire {
    pub(super) fn pump(&self) -> Option<&Pump> {
        match self {
            Self::Control(_) => None,
            Self::Pumped(pump) => Some(pump),
        }
    }

    pub(super) fn pump_mut(&mut self) -> Option<&mut Pump> {
        match self {
            Self::Control(_) => None,
            Self::Pumped(pump) => Some(pump),
        }
    }

    pub(super) fn queue_message<M: Message>(&mut self, message: &M) {
        match self {
            Self::Control(stream) => stream.queue_message(message),
            Self::Pumped(pump) => pump.queue_message(message),
        }
    }

    /// Bytes of control frames that wait to be sent.
    pub(super) fn unsent(&self) -> usize {
        match self {
            Self::Control(stream) => stream.unsent(),
            Self::Pumped(pump) => pump.unsent_control(),
        }
    }

    /// Sends what the stream takes.
    pub(super) fn send(&mut self) -> Result<Sent, WireError> {
        match self {
            Self::Control(stream) => match stream.flush() {
                Ok(true) => Ok(Sent::All),
                Ok(false) => Ok(Sent::StreamFull),
                Err(StreamError::HangUp) => Ok(Sent::HangUp),
                Err(error) => Err(error.into()),
            },
            Self::Pumped(pump) => Ok(pump.send()?),
        }
    }

    /// Takes what has arrived. Makes one call on the stream at most, and none unless `may_read`.
    pub(super) fn receive(&mut self, may_read: bool) -> Result<Received, WireError> {
        match self {
            Self::Control(_) if !may_read => Ok(Received::Nothing),
            Self::Control(stream) => match stream.fill()? {
                FillOutcome::Data(_) => Ok(Received::Data),
                FillOutcome::WouldBlock => Ok(Received::Nothing),
                FillOutcome::HangUp => Ok(Received::HangUp {
                    missing: stream.missing(),
                }),
            },
            Self::Pumped(pump) => Ok(pump.receive(may_read)?),
        }
    }

    /// The oldest frame that was received and is not for a ring.
    pub(super) fn next_frame(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>, WireError> {
        match self {
            Self::Control(stream) => {
                let Some(frame) = stream.peek()? else {
                    return Ok(None);
                };
                let (header, payload) = (frame.header(), frame.to_vec());
                stream.advance(header.record_len());
                Ok(Some((header, payload)))
            }
            Self::Pumped(pump) => Ok(pump.next_control()),
        }
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Control(stream) => stream.as_raw_fd(),
            Self::Pumped(pump) => pump.as_raw_fd(),
        }
    }
}
