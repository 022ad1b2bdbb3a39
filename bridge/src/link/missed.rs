//! What a link misses, across its peers, and what the peer of the moment has not been told of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mycelium_messages::control::{Cause, Gap};

/// Frames that did not reach a link, by topic.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    topics: Mutex<BTreeMap<u16, TopicMissed>>,
}

#[derive(Debug, Clone, Copy)]
struct TopicMissed {
    total: u64,
    untold: u64,
    cause: Cause,
}

impl Missed {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, TopicMissed>> {
        // Every critical section leaves the numbers whole.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, topic_id: u16, count: u64, cause: Cause) {
        let mut topics = self.lock();
        let topic = topics.entry(topic_id).or_insert(TopicMissed {
            total: 0,
            untold: 0,
            cause,
        });
        topic.total += count;
        topic.untold += count;
        topic.cause = cause;
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.lock().values().map(|topic| topic.total).sum()
    }

    pub(crate) fn by_topic(&self) -> BTreeMap<u16, u64> {
        let topics = self.lock();
        topics
            .iter()
            .map(|(id, topic)| (*id, topic.total))
            .collect()
    }

    /// What the peer is to be told; it counts as told from here on.
    pub(crate) fn take_untold(&self) -> Vec<Gap> {
        let mut topics = self.lock();
        let untold = topics.iter_mut().filter(|(_, topic)| topic.untold > 0);
        untold
            .map(|(&topic_id, topic)| Gap {
                topic_id,
                cause: topic.cause,
                missed: std::mem::take(&mut topic.untold),
                total: topic.total,
                ..Gap::default()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_not_told_again_and_the_total_goes_on() {
        let missed = Missed::default();
        missed.add(1001, 3, Cause::DROP_NEWEST);
        missed.add(1001, 2, Cause::DROP_OLDEST);
        missed.add(1002, 1, Cause::CONFLATE);
        let told = |gaps: Vec<Gap>| -> Vec<_> {
            let gaps = gaps.into_iter();
            gaps.map(|it| (it.topic_id, it.missed, it.total, it.cause))
                .collect()
        };
        assert_eq!(
            told(missed.take_untold()),
            [
                (1001, 5, 5, Cause::DROP_OLDEST),
                (1002, 1, 1, Cause::CONFLATE)
            ]
        );
        assert_eq!(told(missed.take_untold()), []);
        missed.add(1001, 4, Cause::DROP_OLDEST);
        assert_eq!(
            told(missed.take_untold()),
            [(1001, 4, 9, Cause::DROP_OLDEST)]
        );
        assert_eq!(missed.total(), 10);
        assert_eq!(missed.by_topic(), BTreeMap::from([(1001, 9), (1002, 1)]));
    }
}
