//! Who wants which topic, and how: subscriptions, and what changes them while frames are on their way.
//!
//! Nothing that waits is lost by a change. What waits in front of the ring for a policy that a subscription had before goes into
//! the ring first; what a publisher still has in its ring is delivered, or not, as the new policy says.

use mycelium_contracts::Delivery;

use super::{DeliveryTerms, Refused, Router};

impl Router {
    /// Stops delivering to a link.
    pub(crate) fn stop_delivering(&mut self, slot: usize) {
        self.routes.unsubscribe_all(slot);
        self.offer_anew(slot);
    }

    /// Whether nothing waits for a link in front of its ring, or ever will get there.
    pub(crate) fn is_passed(&self, slot: usize) -> bool {
        let writer = self.outlets.writers.get(slot).and_then(Option::as_ref);
        writer.is_none_or(|writer| writer.broken || !writer.has_waiting())
    }

    /// Gives a link other terms. The first topics are given up, the second ones taken up; of those that are in both only the
    /// policy or the group is another, so they stay given up or at rest if they are. The stage of the link stays as long as
    /// it was.
    pub(crate) fn change_terms(
        &mut self,
        slot: usize,
        terms: DeliveryTerms,
        unsubscribe: &[u16],
        subscribe: &[u16],
    ) {
        let Some(Some(link)) = self.links.get_mut(slot) else {
            return;
        };
        link.terms = terms;
        for &topic_id in unsubscribe.iter().filter(|it| !subscribe.contains(it)) {
            self.unsubscribe(slot, topic_id);
        }
        for &topic_id in subscribe {
            if !unsubscribe.contains(&topic_id) || self.routes.is_subscribed(topic_id, slot) {
                self.subscribe(slot, topic_id);
            }
        }
    }

    /// Another policy for the subscriptions to a topic that name none.
    pub(crate) fn set_default_delivery(&mut self, topic_id: u16, delivery: Delivery) {
        for slot in self.routes.set_delivery(topic_id, delivery) {
            let (Some(topic), Some(Some(writer))) = (
                self.routes.topic(topic_id),
                self.outlets.writers.get_mut(slot),
            ) else {
                continue;
            };
            let mut subscriber = writer.prepare(slot, topic, delivery);
            subscriber.by_default = true;
            self.routes.replace(topic_id, subscriber);
            self.outlets.note_staged(slot);
            self.offer_anew(slot);
        }
    }

    /// Subscribes a link as its terms, or else its peer, or else the contract, say; says whether the topic exists.
    pub(crate) fn subscribe(&mut self, slot: usize, topic_id: u16) -> bool {
        let Some(Some(link)) = self.links.get(slot) else {
            return false;
        };
        let subscription = link.terms.of(topic_id);
        let group = subscription.and_then(|it| it.group.clone());
        let mut asked = link.asked.iter();
        let delivery = subscription
            .and_then(|it| it.delivery)
            .or_else(|| asked.find(|(it, _)| *it == topic_id).map(|it| it.1));
        self.subscribe_as(slot, topic_id, delivery, group.as_deref())
    }

    /// Subscribes a link in another way than its terms say.
    pub(crate) fn subscribe_as(
        &mut self,
        slot: usize,
        topic_id: u16,
        delivery: Option<Delivery>,
        group: Option<&str>,
    ) -> bool {
        let (Some(topic), Some(Some(link)), Some(Some(writer))) = (
            self.routes.topic(topic_id),
            self.links.get(slot),
            self.outlets.writers.get_mut(slot),
        ) else {
            return false;
        };
        let mut subscriber = writer.prepare(slot, topic, delivery.unwrap_or(topic.delivery));
        subscriber.by_default = delivery.is_none();
        let known = match group {
            None => self.routes.subscribe(topic_id, subscriber),
            Some(group) => self
                .routes
                .join(topic_id, subscriber, group, &link.terms.name),
        };
        self.outlets.note_staged(slot);
        self.offer_anew(slot);
        known
    }

    pub(crate) fn unsubscribe(&mut self, slot: usize, topic_id: u16) -> bool {
        if let Some(link) = &mut self.links[slot] {
            link.resting.retain(|&other| other != topic_id);
        }
        let known = self.routes.unsubscribe(topic_id, slot);
        self.offer_anew(slot);
        known
    }

    /// Says what the next peer of a link must not publish, from `since` on in the link's ring, and is not to get.
    /// Subscriptions to refused topics rest until a peer comes that may have them.
    pub(crate) fn refuse(&mut self, slot: usize, since: u64, refused: Refused) {
        let Some(link) = &mut self.links[slot] else {
            return;
        };
        let (resting, awake) = std::mem::take(&mut link.resting)
            .into_iter()
            .partition(|&topic_id| refused.contains(topic_id));
        link.resting = resting;
        if let Refused::Topics(topics) = &refused {
            for &topic_id in topics {
                if self.routes.is_subscribed(topic_id, slot) {
                    self.routes.unsubscribe(topic_id, slot);
                    link.resting.push(topic_id);
                }
            }
        }
        // The next peer has not been told yet.
        link.rejected_topics.clear();
        link.screen.set(since, refused);
        let awake: Vec<u16> = awake;
        for topic_id in awake {
            self.subscribe(slot, topic_id);
        }
        self.offer_anew(slot);
    }

    /// Frames that wait for room at this link are offered once more: it may want them no longer, or in another way. Without it
    /// the router would sleep until there is room.
    fn offer_anew(&mut self, slot: usize) {
        for link in self.links.iter_mut().flatten() {
            if link.front.stalled_on.contains(&slot) {
                link.front.stalled_on.clear();
            }
        }
    }
}
