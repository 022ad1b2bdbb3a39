//! What a peer may ask about topics, and the answers.

use std::sync::Arc;

use mycelium_contracts::{Contracts, Delivery};
use mycelium_messages::control::{
    Advertise, Delivery as DeliveryCode, Subscribe, TopicReply, TopicReplyCode, Unsubscribe,
};
use mycelium_messages::{InlineString, Message};
use shm_transport::channel::ContractDifference;
use shm_transport::error::DecodeError;
use shm_transport::ring::Frame;

use super::contracts::Verdict;
use super::handshake::hex;
use crate::data_plane::{DataPlaneHandle, Stopped};
use crate::event_loop::ControlHandle;
use crate::router::{Granted, Wish};
use crate::routes::LinkId;

/// A refusal: code and reason.
type Refusal = (TopicReplyCode, String);

/// Answers the requests of one peer.
pub(crate) struct Topics {
    pub(crate) link: LinkId,
    pub(crate) plane: DataPlaneHandle,
    pub(crate) contracts: Arc<Contracts>,
    pub(crate) verdict: Arc<Verdict>,
    /// Whether the peer may hold up publishers because it asks for it; the configuration may always have it do so.
    pub(crate) may_block: bool,
    /// Whom to tell when a topic stands that the peer has asked for, if it is a worker: which, and which of its processes.
    pub(crate) worker: Option<(ControlHandle, (usize, u64))>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error(transparent)]
    Unreadable(#[from] DecodeError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Topics {
    /// The answer to a request about a topic; `None` if the frame is none.
    pub(super) async fn answer(
        &mut self,
        frame: &Frame<'_>,
    ) -> Result<Option<TopicReply>, TopicError> {
        let (topic_id, outcome) = match frame.topic_id() {
            Subscribe::TOPIC_ID => {
                let request: Subscribe = frame.read()?;
                (request.topic_id, self.subscribe(&request).await?)
            }
            Unsubscribe::TOPIC_ID => {
                let request: Unsubscribe = frame.read()?;
                let known = self.plane.unsubscribe(self.link, request.topic_id).await?;
                let outcome = known.then_some(Answer::default());
                let outcome = outcome.ok_or_else(|| self.unknown(request.topic_id));
                (request.topic_id, outcome)
            }
            Advertise::TOPIC_ID => {
                let request: Advertise = frame.read()?;
                let outcome = self.check(request.topic_id, &request.layout_digest);
                (request.topic_id, outcome.map(|()| Answer::default()))
            }
            _ => return Ok(None),
        };
        Ok(Some(self.reply(frame.topic_id(), topic_id, outcome)))
    }

    async fn subscribe(&mut self, request: &Subscribe) -> Result<Result<Answer, Refusal>, Stopped> {
        let topic_id = request.topic_id;
        let checked = self
            .check(topic_id, &request.layout_digest)
            .and_then(|()| asked(request.delivery));
        let delivery = match checked {
            Ok(delivery) => delivery,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let wish = Wish {
            delivery,
            may_block: self.may_block,
        };
        let granted = match self.plane.subscribe(self.link, topic_id, wish).await? {
            Granted::As(delivery) => delivery,
            Granted::UnknownTopic => return Ok(Err(self.unknown(topic_id))),
            Granted::NoKey => return Ok(Err(self.no_key(topic_id))),
            Granted::MayNotBlock => return Ok(Err(may_not_block(delivery))),
        };
        if let Some((control, (worker, incarnation))) = self.worker.take() {
            control.worker_subscribed(worker, incarnation);
        }
        let reason = match delivery {
            Some(asked) if asked != granted => {
                let (asked, granted) = (asked.name(), granted.name());
                let reason = format!(
                    "the configuration of this worker decides: delivery asked={asked} in effect={granted}; \
                     change one of them"
                );
                tracing::warn!(link = %self.link, topic = topic_id, %reason, "another policy than the peer asked for");
                reason
            }
            _ => String::new(),
        };
        Ok(Ok(Answer {
            delivery: number_of(granted),
            reason,
        }))
    }

    fn check(&self, topic_id: u16, layout_digest: &[u8; 32]) -> Result<(), Refusal> {
        let Some(message) = self.contracts.by_id(topic_id) else {
            return Err(self.unknown(topic_id));
        };
        if let Some(difference) = self.verdict.refusal(topic_id) {
            return Err((TopicReplyCode::LAYOUT_MISMATCH, mismatch(difference)));
        }
        let ours = message.layout_digest;
        if *layout_digest != ours && !self.verdict.accepts(topic_id, layout_digest) {
            let reason = differing_digests(message, layout_digest);
            return Err((TopicReplyCode::LAYOUT_MISMATCH, reason));
        }
        Ok(())
    }

    fn unknown(&self, topic_id: u16) -> Refusal {
        unknown_topic(topic_id, &self.contracts)
    }

    fn no_key(&self, topic_id: u16) -> Refusal {
        let name = self.contracts.by_id(topic_id).map_or("?", |it| &it.name);
        let reason = format!(
            "{name} cannot be conflated: asked=conflate key=none in a fixed layout; ask for drop_oldest, or give the \
             message a key in the contracts file"
        );
        (TopicReplyCode::BAD_DELIVERY, reason)
    }

    fn reply(&self, request: u16, topic_id: u16, outcome: Result<Answer, Refusal>) -> TopicReply {
        let (code, answer) = match outcome {
            Ok(answer) => (TopicReplyCode::OK, answer),
            Err((code, reason)) => {
                tracing::warn!(link = %self.link, topic = topic_id, %reason, "request for a topic refused");
                let delivery = DeliveryCode::DEFAULT;
                (code, Answer { delivery, reason })
            }
        };
        TopicReply {
            request,
            topic_id,
            code,
            delivery: answer.delivery,
            reason: InlineString::truncated(&answer.reason),
            ..TopicReply::default()
        }
    }
}

/// What a granted request is answered with.
#[derive(Default)]
struct Answer {
    delivery: DeliveryCode,
    reason: String,
}

/// The word that a published frame was dropped.
pub(super) fn dropped(topic_id: u16, code: TopicReplyCode, reason: &str) -> TopicReply {
    TopicReply {
        topic_id,
        code,
        reason: InlineString::truncated(reason),
        ..TopicReply::default()
    }
}

/// The policy that a peer asks for, if any.
fn asked(number: DeliveryCode) -> Result<Option<Delivery>, Refusal> {
    Ok(Some(match number {
        DeliveryCode::DEFAULT => return Ok(None),
        DeliveryCode::BLOCK => Delivery::Block,
        DeliveryCode::DROP_NEWEST => Delivery::DropNewest,
        DeliveryCode::DROP_OLDEST => Delivery::DropOldest,
        DeliveryCode::CONFLATE => Delivery::Conflate,
        DeliveryCode(other) => {
            let reason = format!(
                "delivery policy is not known: delivery={other} legal=0..={}; ask for one of them",
                DeliveryCode::CONFLATE.0
            );
            return Err((TopicReplyCode::BAD_DELIVERY, reason));
        }
    }))
}

fn number_of(delivery: Delivery) -> DeliveryCode {
    match delivery {
        Delivery::Block => DeliveryCode::BLOCK,
        Delivery::DropNewest => DeliveryCode::DROP_NEWEST,
        Delivery::DropOldest => DeliveryCode::DROP_OLDEST,
        Delivery::Conflate => DeliveryCode::CONFLATE,
    }
}

fn may_not_block(asked: Option<Delivery>) -> Refusal {
    let asked = asked.map_or("default, which is block here", Delivery::name);
    let reason = format!(
        "peers of this endpoint must not hold up publishers: asked={asked} allow_block=false; ask for drop_oldest, \
         drop_newest or conflate"
    );
    (TopicReplyCode::BLOCK_NOT_ALLOWED, reason)
}

/// What a peer is told of a topic whose layouts differ.
pub(super) fn mismatch(difference: &ContractDifference) -> String {
    format!("layouts differ (bridge -> peer): {difference}")
}

/// What is said of a layout of which nothing but the digest is known.
pub(super) fn differing_digests(ours: &mycelium_contracts::Message, theirs: &[u8; 32]) -> String {
    format!(
        "layout of {} differs: bridge={} peer={}; generate both sides from the same contracts file",
        ours.name,
        hex(&ours.layout_digest[..8]),
        hex(&theirs[..8])
    )
}

pub(super) fn unknown_topic(topic_id: u16, contracts: &Contracts) -> (TopicReplyCode, String) {
    let file = contracts.file().display();
    let reason = format!("no message with topic_id={topic_id} in the bridge's contracts {file}");
    (TopicReplyCode::UNKNOWN_TOPIC, reason)
}
