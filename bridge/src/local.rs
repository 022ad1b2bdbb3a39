//! Actors in the process of the bridge: a publisher and subscriber over two rings on the heap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mycelium_contracts::Delivery;
use mycelium_messages::message::MessageInfo;
use mycelium_messages::{DynamicMessage, Message};
use serde::Serialize;
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::error::{ChannelError, ReserveError};
use shm_transport::layout::CORE_TOPIC_MAX;
use shm_transport::payload::{check_size, encode};
use shm_transport::ring::Frame;
use shm_transport::wakeup::{SpinBudget, WaitStrategy};

use crate::data_plane::{DataPlaneHandle, Stopped};
use crate::link::{LinkMemory, LinkSetupError, Missed, Registry};
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
    missed: Arc<Missed>,
    /// Topic and layout that were published last and are the bridge's.
    checked: Option<(u16, [u8; 32])>,
    /// Where values of dynamic messages are written before they are copied into the ring.
    scratch: Vec<u8>,
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
            let terms = registry.local_terms(name);
            plane.add(link, memory.bridge_side(fencing)?, terms, Vec::new())?;
            Ok(ends)
        });
        match opened {
            Ok(ends) => Ok(Self {
                missed: registry.missed(link),
                ends,
                spin: SpinBudget::new(wait),
                link,
                plane,
                registry,
                handed_out: false,
                checked: None,
                scratch: Vec::new(),
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
    /// As [`LocalChannel::advertise`]; [`ChannelError::Closed`] if the bridge has stopped.
    pub fn subscribe<M: Message>(&self) -> Result<(), ChannelError> {
        self.subscribe_to(&MessageInfo::of::<M>(), None)
    }

    /// As [`LocalChannel::subscribe`], with a policy of its own for frames that find no room. `Conflate` needs a message with
    /// a key in its contract; without one the oldest are dropped.
    ///
    /// # Errors
    ///
    /// As [`LocalChannel::subscribe`].
    pub fn subscribe_with<M: Message>(&self, delivery: Delivery) -> Result<(), ChannelError> {
        self.subscribe_to(&MessageInfo::of::<M>(), Some(delivery))
    }

    /// As [`LocalChannel::subscribe`], for a dynamic message. Its frames are read with [`Frame::decode`] or
    /// [`Frame::read_raw`].
    ///
    /// # Errors
    ///
    /// As [`LocalChannel::subscribe`].
    pub fn subscribe_dynamic<M: DynamicMessage>(&self) -> Result<(), ChannelError> {
        self.subscribe_to(&MessageInfo::dynamic::<M>(), None)
    }

    /// As [`LocalChannel::subscribe_with`], by number, for a program that has the layout from the bridge itself.
    pub(crate) fn subscribe_topic(
        &self,
        topic_id: u16,
        delivery: Delivery,
    ) -> Result<(), ChannelError> {
        let plane = &self.plane;
        plane
            .subscribe_soon(self.link, topic_id, Some(delivery))
            .map_err(closed)
    }

    fn subscribe_to(
        &self,
        message: &MessageInfo,
        delivery: Option<Delivery>,
    ) -> Result<(), ChannelError> {
        self.registry.check_local(self.link, message)?;
        self.plane
            .subscribe_soon(self.link, message.topic_id, delivery)
            .map_err(closed)
    }

    /// Frames of subscribed topics that did not reach this link, dropped by the policy of the subscription. Follows within
    /// 50 ms. Takes a lock.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.total()
    }

    /// Looks whether this program's layout of a message is that of the bridge's contracts file. Publishing does so, too;
    /// this says it before there is anything to publish.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Topic`] if the topic is unknown to the bridge, [`ChannelError::ContractMismatch`] if its layout
    /// differs.
    pub fn advertise<M: Message>(&self) -> Result<(), ChannelError> {
        let message = MessageInfo::of::<M>();
        self.registry.check_local(self.link, &message)
    }

    /// As [`LocalChannel::advertise`], for a dynamic message.
    ///
    /// # Errors
    ///
    /// As [`LocalChannel::advertise`].
    pub fn advertise_dynamic<M: DynamicMessage>(&self) -> Result<(), ChannelError> {
        let message = MessageInfo::dynamic::<M>();
        self.registry.check_local(self.link, &message)
    }

    fn check(&mut self, message: &MessageInfo) -> Result<(), ChannelError> {
        let asked = Some((message.topic_id, message.layout_digest));
        if self.checked != asked {
            self.registry.check_local(self.link, message)?;
            self.checked = asked;
        }
        Ok(())
    }

    /// Publishes a message if there is room.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Full`] if there is none now, [`ChannelError::TooLarge`] if there never will be; otherwise as
    /// [`LocalChannel::advertise`].
    pub fn try_publish<M: Message>(&mut self, message: &M) -> Result<(), ChannelError> {
        self.check(&MessageInfo::of::<M>())?;
        self.try_publish_frame(&Frame::new(M::TOPIC_ID, message.as_bytes()))
    }

    /// Publishes a frame if there is room. Whether its bytes have the bridge's layout is not looked at.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Full`], [`ChannelError::TooLarge`], and [`ChannelError::ReservedTopic`] for topics of the core range.
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
        self.check(&MessageInfo::of::<M>())?;
        self.publish_frame(&Frame::new(M::TOPIC_ID, message.as_bytes()), timeout)
    }

    /// Publishes a value as JSON or MessagePack, as the contract says; otherwise as [`LocalChannel::publish`]. It is written
    /// into a buffer that is used again and again, then copied: nothing is allocated for a message once the buffer is long
    /// enough, unless the value's `Serialize` does so.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Payload`] if the value cannot be written or is longer than the contract allows; otherwise as
    /// [`LocalChannel::publish`].
    pub fn publish_dynamic<M: DynamicMessage, T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        self.check(&MessageInfo::dynamic::<M>())?;
        let mut payload = std::mem::take(&mut self.scratch);
        let published = match encode::<M, T>(value, &mut payload) {
            Ok(()) => {
                let frame = Frame::new(M::TOPIC_ID, &payload).with_encoding(M::ENCODING);
                self.publish_frame(&frame, timeout)
            }
            Err(error) => Err(error.into()),
        };
        self.scratch = payload;
        published
    }

    /// Publishes bytes that are a payload of this message already; whether they are is not looked at.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Payload`] if they are more than the contract allows; otherwise as [`LocalChannel::publish`].
    pub fn publish_raw<M: DynamicMessage>(
        &mut self,
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        self.check(&MessageInfo::dynamic::<M>())?;
        check_size::<M>(payload.len())?;
        let frame = Frame::new(M::TOPIC_ID, payload).with_encoding(M::ENCODING);
        self.publish_frame(&frame, timeout)
    }

    /// As [`LocalChannel::try_publish_frame`], waiting for room as [`LocalChannel::publish`] does.
    ///
    /// # Errors
    ///
    /// As both.
    pub fn publish_frame(
        &mut self,
        frame: &Frame<'_>,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        let start = Instant::now();
        let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
        loop {
            match self.try_publish_frame(frame) {
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
        let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
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
