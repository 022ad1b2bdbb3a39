//! What every link looks like at one moment, for whoever watches the bridge.

use std::time::{Duration, Instant};

use super::Router;
use super::event::{Flow, LinkCounters};
use super::gaps::LinkGap;
use super::residence::Residence;
use crate::routes::LinkId;

/// Bytes in a ring, padding included, and how many it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RingLevel {
    pub(crate) used: u64,
    pub(crate) capacity: u64,
}

/// Frames of one topic on one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicView {
    pub(crate) topic_id: u16,
    pub(crate) published: Flow,
    pub(crate) delivered: Flow,
    pub(crate) gap: Option<LinkGap>,
}

/// Rounds of the router that have moved something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rounds {
    pub(crate) rounds: u64,
    /// Frames that they took from publishers and out of stages.
    pub(crate) frames: u64,
}

impl Rounds {
    #[inline]
    pub(super) fn count(&mut self, frames: usize) {
        self.rounds += 1;
        self.frames += frames as u64;
    }
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkView {
    pub(crate) link: LinkId,
    pub(crate) counters: LinkCounters,
    /// From the peer to the bridge.
    pub(crate) ring_in: RingLevel,
    /// From the bridge to the peer; full also while its rings are broken.
    pub(crate) ring_out: RingLevel,
    /// How long frames lie in the ring to the peer until they are acknowledged.
    pub(crate) residence: Residence,
    /// How long the frame that is followed now has been lying there.
    pub(crate) unacknowledged_for: Option<Duration>,
    /// Topics with anything to tell, by number.
    pub(crate) topics: Vec<TopicView>,
}

impl LinkView {
    /// A link that the data plane does not have, or that nobody could look at.
    pub(crate) fn nothing(link: LinkId) -> Self {
        Self {
            link,
            counters: LinkCounters::default(),
            ring_in: RingLevel::default(),
            ring_out: RingLevel::default(),
            residence: Residence::default(),
            unacknowledged_for: None,
            topics: Vec::new(),
        }
    }
}

impl Router {
    /// Looks at all links; takes time for each link and topic and allocates.
    pub(crate) fn view(&mut self) -> Vec<LinkView> {
        self.look_at_probes();
        let now = Instant::now();
        let slots = 0..self.links.len();
        slots.filter_map(|slot| self.view_link(slot, now)).collect()
    }

    /// What was moved so far.
    pub(crate) fn rounds(&self) -> Rounds {
        self.rounds
    }

    fn view_link(&mut self, slot: usize, now: Instant) -> Option<LinkView> {
        let counters = self.counters(slot);
        let link = self.links[slot].as_ref()?;
        let writer = self.outlets.writers[slot].as_mut()?;
        let published = self.routes.topics().zip(&link.published);
        let mut topics: Vec<_> = published
            .map(|(topic, published)| TopicView {
                topic_id: topic.topic_id,
                published: *published,
                delivered: Flow::default(),
                gap: None,
            })
            .collect();
        for (delivered, gap) in writer.gaps.all() {
            if let Some(topic) = topics.iter_mut().find(|it| it.topic_id == gap.topic_id) {
                topic.delivered = delivered;
                topic.gap = (gap.total() > 0).then_some(gap);
            }
        }
        topics.retain(|it| it.published.frames + it.delivered.frames > 0 || it.gap.is_some());
        topics.sort_by_key(|it| it.topic_id);
        let capacity = writer.producer.capacity();
        let used = writer.producer.occupancy().unwrap_or(capacity);
        Some(LinkView {
            link: link.id,
            counters,
            ring_in: RingLevel {
                used: link.consumer.occupancy() as u64,
                capacity: link.consumer.capacity() as u64,
            },
            ring_out: RingLevel {
                used: used as u64,
                capacity: capacity as u64,
            },
            residence: writer.probe.residence,
            unacknowledged_for: writer.probe.age(now),
            topics,
        })
    }
}
