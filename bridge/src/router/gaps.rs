//! What a link gets and what it misses, counted per topic, and when its peer is told.

use std::time::{Duration, Instant};

use mycelium_messages::control::Cause;

use super::event::Flow;
use crate::routes::LinkId;

/// Shortest time between two notices about one topic to one link.
pub(super) const GAP_INTERVAL: Duration = Duration::from_millis(50);

/// Frames of one topic that did not reach one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkGap {
    /// The link.
    pub link: LinkId,
    /// The topic.
    pub topic_id: u16,
    /// Dropped because there was no room for them (policy drop_newest).
    pub drop_newest: u64,
    /// Dropped to make room for newer ones: policy drop_oldest, or conflate with more keys than the stage holds.
    pub drop_oldest: u64,
    /// Replaced by a newer one of the same key (policy conflate).
    pub conflated: u64,
    /// Moved aside because they kept killing their worker.
    pub quarantined: u64,
}

impl LinkGap {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.drop_newest + self.drop_oldest + self.conflated + self.quarantined
    }
}

/// One link's counters.
#[derive(Debug)]
pub(super) struct Gaps {
    topics: Vec<TopicGap>,
    /// Whether there is something that the peer has not been told.
    pub(super) untold: bool,
}

#[derive(Debug)]
struct TopicGap {
    counts: LinkGap,
    /// What did reach the link.
    delivered: Flow,
    untold: u64,
    last: Cause,
    told_at: Option<Instant>,
}

/// What the peer of a link is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) topic_id: u16,
    pub(super) missed: u64,
    pub(super) cause: Cause,
}

impl Gaps {
    pub(super) fn new() -> Self {
        Self {
            topics: Vec::new(),
            untold: false,
        }
    }

    /// Where this topic is counted; makes room for it if need be.
    pub(super) fn index_of(&mut self, link: LinkId, topic_id: u16) -> usize {
        if let Some(at) = self.find(topic_id) {
            return at;
        }
        self.topics.push(TopicGap {
            counts: LinkGap {
                link,
                topic_id,
                drop_newest: 0,
                drop_oldest: 0,
                conflated: 0,
                quarantined: 0,
            },
            delivered: Flow::default(),
            untold: 0,
            last: Cause::DROP_NEWEST,
            told_at: None,
        });
        self.topics.len() - 1
    }

    pub(super) fn find(&self, topic_id: u16) -> Option<usize> {
        let mut topics = self.topics.iter();
        topics.position(|topic| topic.counts.topic_id == topic_id)
    }

    #[inline]
    pub(super) fn count(&mut self, at: usize, cause: Cause) {
        let topic = &mut self.topics[at];
        match cause {
            Cause::DROP_NEWEST => topic.counts.drop_newest += 1,
            Cause::DROP_OLDEST => topic.counts.drop_oldest += 1,
            Cause::CONFLATE => topic.counts.conflated += 1,
            _ => topic.counts.quarantined += 1,
        }
        topic.last = cause;
        topic.untold += 1;
        self.untold = true;
    }

    /// A frame has reached the link.
    #[inline]
    pub(super) fn delivered(&mut self, at: usize, payload_len: usize) {
        self.topics[at].delivered.count(payload_len);
    }

    /// What reached the link and what did not, of every topic that it has ever wanted.
    pub(super) fn all(&self) -> impl Iterator<Item = (Flow, LinkGap)> + '_ {
        self.topics
            .iter()
            .map(|topic| (topic.delivered, topic.counts))
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = LinkGap> + '_ {
        let topics = self.topics.iter().map(|topic| topic.counts);
        topics.filter(|counts| counts.total() > 0)
    }

    pub(super) fn total(&self) -> u64 {
        self.counts().map(|counts| counts.total()).sum()
    }

    /// Hands out what is due, and says when the next is.
    pub(super) fn tell(&mut self, now: Instant, mut tell: impl FnMut(Notice)) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for topic in &mut self.topics {
            if topic.untold == 0 {
                continue;
            }
            let due = topic.told_at.map(|at| at + GAP_INTERVAL);
            if let Some(due) = due.filter(|due| *due > now) {
                next = Some(next.map_or(due, |other| other.min(due)));
                continue;
            }
            topic.told_at = Some(now);
            tell(Notice {
                topic_id: topic.counts.topic_id,
                missed: std::mem::take(&mut topic.untold),
                cause: topic.last,
            });
        }
        self.untold = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_spaced_and_the_last_one_always_comes() {
        let mut gaps = Gaps::new();
        let (first, second) = (
            gaps.index_of(LinkId(1), 1001),
            gaps.index_of(LinkId(1), 1002),
        );
        assert_eq!(gaps.index_of(LinkId(1), 1001), first);
        let start = Instant::now();
        let mut told = Vec::new();
        gaps.count(first, Cause::DROP_NEWEST);
        assert_eq!(gaps.tell(start, |notice| told.push(notice)), None);
        for _ in 0..5 {
            gaps.count(first, Cause::DROP_OLDEST);
        }
        gaps.count(second, Cause::CONFLATE);
        let due = gaps.tell(start + GAP_INTERVAL / 2, |notice| told.push(notice));
        assert_eq!(due, Some(start + GAP_INTERVAL));
        assert!(gaps.untold);
        assert_eq!(
            gaps.tell(start + GAP_INTERVAL, |notice| told.push(notice)),
            None
        );
        assert!(!gaps.untold);
        let told: Vec<_> = told
            .iter()
            .map(|it| (it.topic_id, it.missed, it.cause))
            .collect();
        let expected = [
            (1001, 1, Cause::DROP_NEWEST),
            (1002, 1, Cause::CONFLATE),
            (1001, 5, Cause::DROP_OLDEST),
        ];
        assert_eq!(told, expected);
        let counts: Vec<_> = gaps.counts().map(|it| (it.topic_id, it.total())).collect();
        assert_eq!((counts, gaps.total()), (vec![(1001, 6), (1002, 1)], 7));
    }
}
