//! Dynamic messages on a channel: values of serde types, or plain bytes.

use std::time::Duration;

use mycelium_messages::DynamicMessage;
use mycelium_messages::message::Delivery;
use serde::Serialize;

use super::{Asked, Channel};
use crate::error::ChannelError;
use crate::payload::{check_size, encode};
use crate::ring::Frame;

impl Channel {
    /// As [`Channel::subscribe`], for a dynamic message. Its frames are read with [`Frame::decode`] or
    /// [`Frame::read_raw`].
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`].
    pub fn subscribe_dynamic<M: DynamicMessage>(&mut self) -> Result<(), ChannelError> {
        self.subscribe_to(Asked::dynamic::<M>(), None).map(drop)
    }

    /// As [`Channel::subscribe_with`], for a dynamic message. It has no key in a fixed layout, so it cannot be conflated.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe_with`].
    pub fn subscribe_dynamic_with<M: DynamicMessage>(
        &mut self,
        delivery: Delivery,
    ) -> Result<Delivery, ChannelError> {
        let in_effect = self.subscribe_to(Asked::dynamic::<M>(), Some(delivery))?;
        Ok(in_effect.unwrap_or(delivery))
    }

    /// As [`Channel::unsubscribe`], for a dynamic message.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`].
    pub fn unsubscribe_dynamic<M: DynamicMessage>(&mut self) -> Result<(), ChannelError> {
        self.unsubscribe_from(Asked::dynamic::<M>())
    }

    /// As [`Channel::advertise`], for a dynamic message.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`].
    pub fn advertise_dynamic<M: DynamicMessage>(&mut self) -> Result<(), ChannelError> {
        self.advertise_for(Asked::dynamic::<M>())
    }

    /// Publishes a value as JSON or MessagePack, as the contract says. It is written into a buffer that is used again
    /// and again, then copied as in [`Channel::publish`]: nothing is allocated for a message once the buffer is long
    /// enough, unless the value's `Serialize` does so.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Payload`] if the value cannot be written or is longer than the contract allows; otherwise as
    /// [`Channel::publish`].
    pub fn publish_dynamic<M: DynamicMessage, T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
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
    /// [`ChannelError::Payload`] if they are more than the contract allows; otherwise as [`Channel::publish`].
    pub fn publish_raw<M: DynamicMessage>(
        &mut self,
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        check_size::<M>(payload.len())?;
        let frame = Frame::new(M::TOPIC_ID, payload).with_encoding(M::ENCODING);
        self.publish_frame(&frame, timeout)
    }
}

impl Asked {
    fn dynamic<M: DynamicMessage>() -> Self {
        Self {
            message: M::NAME,
            topic_id: M::TOPIC_ID,
            layout_digest: M::LAYOUT_DIGEST,
        }
    }
}
