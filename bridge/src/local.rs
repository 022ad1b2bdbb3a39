//! Actors in the process of the bridge: a publisher and subscriber over two rings on the heap.

use std::time::{Duration, Instant};

use mycelium_messages::Message;
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::error::{ChannelError, ReserveError};
use shm_transport::layout::CORE_TOPIC_MAX;
use shm_transport::ring::Frame;
use shm_transport::wakeup::{SpinBudget, WaitStrategy};

use crate::data_plane::{DataPlaneHandle, Stopped};
use crate::link::{LinkMemory, LinkSetupError, Registry};
use crate::routes::LinkId;

/// The link of a Rust actor that lives in the process of the bridge. Send it to the actor's thread.
///
/// Publishing and receiving make no system call unless the other side sleeps. Dropping it delivers what was published
/// and then removes the link.
#[derive(Debug)]
pub struct LocalChannel {
    ends: LinkEnds,
    spin: SpinBudget,
    link: LinkId,
    plane: DataPlaneHandle,
    registry: Registry,
    handed_out: bool,
}

impl LocalChannel {
    pub(crate) fn open(
        name: &str,
        ring_capacity: usize,
        wait: WaitStrategy,
        plane: DataPlaneHandle,
        registry: Registry,
    ) -> Result<Self, LinkSetupError> {
        let link = registry.open_local(name)?;
        let opened = LinkMemory::local(ring_capacity).and_then(|memory| {
            let fencing = crate::link::local_fencing();
            let ends = memory.peer_side(fencing)?;
            plane.add(link, memory.bridge_side(fencing)?, Vec::new())?;
            Ok(ends)
        });
        match opened {
            Ok(ends) => Ok(Self {
                ends,
                spin: SpinBudget::new(wait),
                link,
                plane,
                registry,
                handed_out: false,
            }),
            Err(error) => {
                registry.close_local(link);
                Err(error)
            }
        }
    }

    /// Number of the link.
    #[must_use]
    pub fn link(&self) -> LinkId {
        self.link
    }

    /// Asks for every frame of a topic, from the moment on that the data plane gets to it. Returns before that.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Closed`] if the bridge has stopped.
    pub fn subscribe<M: Message>(&self) -> Result<(), ChannelError> {
        self.plane
            .subscribe_soon(self.link, M::TOPIC_ID)
            .map_err(closed)
    }

    /// Publishes a message if there is room.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Full`] if there is none now, [`ChannelError::TooLarge`] if there never will be.
    pub fn try_publish<M: Message>(&mut self, message: &M) -> Result<(), ChannelError> {
        self.try_publish_frame(&Frame::new(M::TOPIC_ID, message.as_bytes()))
    }

    /// Publishes a frame if there is room.
    ///
    /// # Errors
    ///
    /// As [`LocalChannel::try_publish`], and [`ChannelError::ReservedTopic`] for topics of the core range.
    pub fn try_publish_frame(&mut self, frame: &Frame<'_>) -> Result<(), ChannelError> {
        if frame.topic_id() <= CORE_TOPIC_MAX {
            return Err(ChannelError::ReservedTopic {
                topic_id: frame.topic_id(),
            });
        }
        self.ends.try_publish(frame).map_err(|error| match error {
            ReserveError::Full { .. } => ChannelError::Full {
                payload_len: frame.payload_len(),
                waited_ms: 0,
            },
            ReserveError::TooLarge {
                payload_len,
                max_payload,
            } => ChannelError::TooLarge {
                payload_len,
                max_payload,
            },
            ReserveError::ReservedTopic { topic_id, .. } => {
                ChannelError::ReservedTopic { topic_id }
            }
            ReserveError::Corrupt(corrupt) => corrupt.into(),
        })
    }

    /// Publishes a message, waiting for room: at most `timeout`, `None` for ever. Not for a thread that also drives the
    /// data plane, which would wait for itself.
    ///
    /// # Errors
    ///
    /// As [`LocalChannel::try_publish`], `Full` only after the timeout; [`ChannelError::Closed`] if the bridge has stopped
    /// and there is no room.
    pub fn publish<M: Message>(
        &mut self,
        message: &M,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        let start = Instant::now();
        let deadline = timeout.map(|timeout| start + timeout);
        loop {
            match self.try_publish(message) {
                Err(ChannelError::Full { payload_len, .. }) => {
                    let room = WaitFor::Room { payload_len };
                    let ended = Some(self.plane.ended());
                    match self.ends.wait(&mut self.spin, room, deadline, ended)? {
                        Waited::Ready => {}
                        Waited::TimedOut => {
                            return Err(ChannelError::Full {
                                payload_len,
                                waited_ms: start.elapsed().as_millis(),
                            });
                        }
                        Waited::Interrupted => return Err(closed(Stopped)),
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// The next frame, if one is there; valid until the next call.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Corrupt`] only if memory of this process was overwritten.
    pub fn try_recv(&mut self) -> Result<Option<Frame<'_>>, ChannelError> {
        self.release();
        // The borrow of a frame that is returned must not cover the flag, hence the second look.
        self.handed_out = self.ends.peek()?.is_some();
        Ok(self.ends.peek()?)
    }

    /// Waits for the next frame: at most `timeout`, `None` for ever. It is valid until the next call. Not for a thread
    /// that also drives the data plane.
    ///
    /// # Errors
    ///
    /// [`ChannelError::TimedOut`]; [`ChannelError::Closed`] if the bridge has stopped and nothing is left.
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Frame<'_>, ChannelError> {
        self.release();
        let start = Instant::now();
        let deadline = timeout.map(|timeout| start + timeout);
        let timed_out = || ChannelError::TimedOut {
            waited_ms: start.elapsed().as_millis(),
        };
        let ended = Some(self.plane.ended());
        let waited = self
            .ends
            .wait(&mut self.spin, WaitFor::Frame, deadline, ended)?;
        match waited {
            Waited::Ready => {}
            Waited::TimedOut => return Err(timed_out()),
            // The last frames may have come with the end.
            Waited::Interrupted if self.ends.peek()?.is_none() => return Err(closed(Stopped)),
            Waited::Interrupted => {}
        }
        self.handed_out = true;
        self.ends.peek()?.ok_or_else(timed_out)
    }

    fn release(&mut self) {
        if std::mem::take(&mut self.handed_out) {
            self.ends.advance();
        }
    }
}

impl Drop for LocalChannel {
    fn drop(&mut self) {
        self.release();
        self.registry.close_local(self.link);
        self.plane.drain_soon(self.link);
    }
}

fn closed(stopped: Stopped) -> ChannelError {
    ChannelError::Closed {
        reason: stopped.to_string(),
    }
}
