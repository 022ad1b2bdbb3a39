//! What a channel asks of the bridge about topics.

use std::time::Instant;

use mycelium_messages::Message;
use mycelium_messages::control::{
    Advertise, Delivery as DeliveryCode, Subscribe, TopicReply, TopicReplyCode, Unsubscribe,
};
use mycelium_messages::message::Delivery;

use super::core::text;
use super::{Channel, Data, deadline_in};
use crate::error::ChannelError;

/// A message that a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) message: &'static str,
    pub(super) topic_id: u16,
    pub(super) layout_digest: [u8; 32],
}

impl Asked {
    pub(super) fn of<M: Message>() -> Self {
        Self {
            message: M::NAME,
            topic_id: M::TOPIC_ID,
            layout_digest: M::LAYOUT_DIGEST,
        }
    }

    pub(super) fn subscribe(self, delivery: Option<Delivery>) -> Subscribe {
        Subscribe {
            topic_id: self.topic_id,
            layout_digest: self.layout_digest,
            delivery: match delivery {
                None => DeliveryCode::DEFAULT,
                Some(Delivery::Block) => DeliveryCode::BLOCK,
                Some(Delivery::DropNewest) => DeliveryCode::DROP_NEWEST,
                Some(Delivery::DropOldest) => DeliveryCode::DROP_OLDEST,
                Some(Delivery::Conflate) => DeliveryCode::CONFLATE,
            },
            ..Subscribe::default()
        }
    }

    pub(super) fn unsubscribe(self) -> Unsubscribe {
        let topic_id = self.topic_id;
        Unsubscribe { topic_id }
    }

    pub(super) fn advertise(self) -> Advertise {
        Advertise {
            topic_id: self.topic_id,
            layout_digest: self.layout_digest,
        }
    }
}

impl Channel {
    /// Asks for every frame of a topic and waits for the bridge's word. Frames that arrive meanwhile are kept. What
    /// happens to frames for which this side has no room is up to the bridge's configuration and the contract; see
    /// [`Channel::subscribe_with`].
    ///
    /// # Errors
    ///
    /// [`ChannelError::Topic`] if the topic is unknown to the bridge, or if the endpoint lets no peer hold up publishers and
    /// that is what the topic's policy would do; [`ChannelError::ContractMismatch`] if its layout differs.
    pub fn subscribe<M: Message>(&mut self) -> Result<(), ChannelError> {
        self.subscribe_to(Asked::of::<M>(), None).map(drop)
    }

    /// As [`Channel::subscribe`], and chooses what happens to a frame for which this side has no room: the publishers wait
    /// (`Block`), or something is dropped and counted ([`Statistics::missed`](super::Statistics::missed)). Subscribing
    /// again changes it; what waits in the bridge by then still comes, first.
    ///
    /// Returns the policy in effect. For a worker that is the one of the bridge's configuration if there is one for this
    /// topic: then a warning is logged on both sides.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`]; [`ChannelError::Topic`] also for `Conflate` if the message has no key in a fixed layout, and
    /// for `Block` if the endpoint lets no peer hold up publishers.
    pub fn subscribe_with<M: Message>(
        &mut self,
        delivery: Delivery,
    ) -> Result<Delivery, ChannelError> {
        let in_effect = self.subscribe_to(Asked::of::<M>(), Some(delivery))?;
        Ok(in_effect.unwrap_or(delivery))
    }

    pub(super) fn subscribe_to(
        &mut self,
        asked: Asked,
        delivery: Option<Delivery>,
    ) -> Result<Option<Delivery>, ChannelError> {
        self.request(asked, &asked.subscribe(delivery))
    }

    /// Wants no further frames of a topic. Frames that were routed before still arrive.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`].
    pub fn unsubscribe<M: Message>(&mut self) -> Result<(), ChannelError> {
        self.unsubscribe_from(Asked::of::<M>())
    }

    pub(super) fn unsubscribe_from(&mut self, asked: Asked) -> Result<(), ChannelError> {
        self.request(asked, &asked.unsubscribe()).map(drop)
    }

    /// Announces that this side will publish a topic, so that a mismatch shows now and not as a dropped frame.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`].
    pub fn advertise<M: Message>(&mut self) -> Result<(), ChannelError> {
        self.advertise_for(Asked::of::<M>())
    }

    pub(super) fn advertise_for(&mut self, asked: Asked) -> Result<(), ChannelError> {
        self.request(asked, &asked.advertise()).map(drop)
    }

    fn request<R: Message>(
        &mut self,
        asked: Asked,
        request: &R,
    ) -> Result<Option<Delivery>, ChannelError> {
        let start = Instant::now();
        let deadline = deadline_in(self.timeout);
        self.core.ask(asked.topic_id, request);
        self.core.flush_until(deadline)?;
        loop {
            if let Some(outcome) = self.take_outcome(R::TOPIC_ID, asked) {
                return outcome;
            }
            if let Some(end) = &self.core.end {
                return Err(end.to_error());
            }
            if Instant::now() >= deadline {
                return Err(ChannelError::TimedOut {
                    waited_ms: start.elapsed().as_millis(),
                });
            }
            match &mut self.data {
                Data::Shm(_) => self.core.wait_for_control(deadline)?,
                Data::Socket(data) => data.collect_replies(&mut self.core, deadline)?,
            }
        }
    }

    /// What the bridge said to a request, if its answer is there: the policy in effect, for a subscription.
    pub(super) fn take_outcome(
        &mut self,
        request: u16,
        asked: Asked,
    ) -> Option<Result<Option<Delivery>, ChannelError>> {
        let replies = &mut self.core.replies;
        let answers =
            |reply: &TopicReply| reply.request == request && reply.topic_id == asked.topic_id;
        let at = replies.iter().position(answers)?;
        let reply = replies.remove(at)?;
        Some(self.outcome(asked, &reply))
    }

    fn outcome(&self, asked: Asked, reply: &TopicReply) -> Result<Option<Delivery>, ChannelError> {
        let reason = text(&reply.reason);
        match reply.code {
            TopicReplyCode::OK => {
                if !reason.is_empty() {
                    let link = &self.name;
                    tracing::warn!(%link, topic = asked.topic_id, %reason, "another policy than was asked for");
                }
                Ok(in_effect(reply.delivery))
            }
            TopicReplyCode::LAYOUT_MISMATCH => Err(self.mismatch(asked.topic_id, reason)),
            code => Err(ChannelError::Topic {
                topic_id: asked.topic_id,
                message: asked.message,
                code: code.0,
                name: code.name().unwrap_or("UNKNOWN"),
                reason,
            }),
        }
    }
}

fn in_effect(delivery: DeliveryCode) -> Option<Delivery> {
    match delivery {
        DeliveryCode::BLOCK => Some(Delivery::Block),
        DeliveryCode::DROP_NEWEST => Some(Delivery::DropNewest),
        DeliveryCode::DROP_OLDEST => Some(Delivery::DropOldest),
        DeliveryCode::CONFLATE => Some(Delivery::Conflate),
        _ => None,
    }
}
