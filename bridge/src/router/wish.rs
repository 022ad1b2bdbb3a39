//! How the peer of a link asks for a topic, and which of those who have a say decides.

use mycelium_contracts::Delivery;

use super::Router;
use crate::routes::Topic;

/// What a peer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What is to happen to a frame without room; `None` leaves it to the bridge.
    pub(crate) delivery: Option<Delivery>,
    /// Whether the peer may hold up publishers.
    pub(crate) may_block: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted {
    /// The link is subscribed, with this policy.
    As(Delivery),
    /// The contracts have no such topic.
    UnknownTopic,
    /// Nothing to conflate by.
    NoKey,
    /// The policy would be `block`, which the peer may not have.
    MayNotBlock,
}

impl Router {
    /// Subscribes a link as its peer asks. A policy that the configuration names for this link and topic goes before the
    /// peer's, and that before the topic's own.
    pub(crate) fn ask(&mut self, slot: usize, topic_id: u16, wish: Wish) -> Granted {
        let (Some(topic), Some(Some(link))) = (self.routes.topic(topic_id), self.links.get(slot))
        else {
            return Granted::UnknownTopic;
        };
        if wish.delivery == Some(Delivery::Conflate) && !topic.has_key() {
            return Granted::NoKey;
        }
        let configured = link.terms.of(topic_id).and_then(|it| it.delivery);
        let delivery = topic.possible(configured.or(wish.delivery).unwrap_or(topic.delivery));
        if delivery == Delivery::Block && configured.is_none() && !wish.may_block {
            return Granted::MayNotBlock;
        }
        self.forget_wish(slot, topic_id);
        if let (Some(asked), Some(Some(link))) = (wish.delivery, self.links.get_mut(slot)) {
            link.asked.push((topic_id, asked));
        }
        self.subscribe(slot, topic_id);
        Granted::As(delivery)
    }

    /// Unsubscribes a link as its peer asks; says whether the topic exists.
    pub(crate) fn take_back(&mut self, slot: usize, topic_id: u16) -> bool {
        self.forget_wish(slot, topic_id);
        self.unsubscribe(slot, topic_id)
    }

    fn forget_wish(&mut self, slot: usize, topic_id: u16) {
        if let Some(Some(link)) = self.links.get_mut(slot) {
            link.asked.retain(|&(other, _)| other != topic_id);
        }
    }
}

impl Topic {
    /// Whether frames can be conflated.
    pub(super) fn has_key(&self) -> bool {
        self.payload_len.start() == self.payload_len.end() && !self.key.is_empty()
    }

    /// The policy that takes effect: without a key the oldest frame goes.
    fn possible(&self, delivery: Delivery) -> Delivery {
        match delivery {
            Delivery::Conflate if !self.has_key() => Delivery::DropOldest,
            delivery => delivery,
        }
    }
}
