//! The router: moves frames from the ring that a link writes to the rings of the links that want them.
//!
//! A [`Router`] is a plain value that owns every ring end it uses. `poll` moves what is there and never blocks; who
//! calls it, and how it sleeps, is the business of [`crate::data_plane`]. Payloads are copied, never decoded.
//!
//! A frame whose subscriber has no room stays at the front of its ring, and so does everything behind it: that is the
//! back-pressure of the policy `block`, which reaches the publisher of that frame and nobody else. Subscribers that
//! already have the frame are remembered, so it is delivered to each of them once.
//!
//! With the other policies nobody waits: what does not fit is staged in front of the subscriber's ring, or dropped, and the
//! subscriber is told how much it misses.

mod backlog;
mod event;
mod gaps;
mod leftovers;
mod outlets;
mod parking;
mod residence;
mod screen;
mod stage;
mod terms;
mod view;
mod wish;
mod writer;

use std::time::Instant;

use mycelium_contracts::Delivery;
use shm_transport::channel::LinkEnds;
use shm_transport::error::Corrupt;
use shm_transport::layout::CORE_TOPIC_MAX;
use shm_transport::ring::{Consumer, Fencing};
use shm_transport::wakeup::Doorbell;

use crate::routes::{LinkId, Lookup, Routes, Topic};
use outlets::{Front, Offered, Outlets};
use screen::Screen;
use writer::Writer;

#[cfg(test)]
pub(crate) use backlog::KeptFrame;
pub(crate) use backlog::{InHand, Progress};
pub(crate) use event::Flow;
pub use event::{LinkCounters, Rejection, RouterEvent};
pub use gaps::LinkGap;
pub(crate) use residence::{BOUNDS_US, Residence};
pub(crate) use screen::Refused;
pub(crate) use view::{LinkView, RingLevel, Rounds, TopicView};
pub(crate) use wish::{Granted, Wish};

/// Frames that one link may bring per turn, so that a busy link does not keep the others waiting.
const FRAMES_PER_TURN: usize = 64;

/// Moves frames between links by topic.
pub struct Router {
    routes: Routes,
    links: Vec<Option<Link>>,
    outlets: Outlets,
    events: Vec<RouterEvent>,
    /// Whether staged frames go ahead of those of publishers this time: they take turns.
    stages_first: bool,
    /// The part of a payload that is looked at, for groups with a key.
    scratch: Vec<u8>,
    rounds: Rounds,
}

/// How a link wants its frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeliveryTerms {
    /// Its name, by which it is known in groups.
    pub(crate) name: String,
    /// Bytes of each lane of its stage; 0 takes those of its ring.
    pub(crate) stage_capacity: usize,
    /// Topics that it wants in another way than their contract says.
    pub(crate) subscriptions: Vec<Subscription>,
}

impl DeliveryTerms {
    fn of(&self, topic_id: u16) -> Option<&Subscription> {
        let mut subscriptions = self.subscriptions.iter();
        subscriptions.find(|it| it.topic_id == topic_id)
    }
}

/// How a link wants the frames of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topic_id: u16,
    /// What happens to a frame without room; `None` leaves it to the contract.
    pub(crate) delivery: Option<Delivery>,
    /// The group that shares the frames.
    pub(crate) group: Option<String>,
}

/// The reading half of a link, and what belongs to the link as a whole.
struct Link {
    id: LinkId,
    terms: DeliveryTerms,
    consumer: Consumer,
    own_doorbell: Doorbell,
    counters: LinkCounters,
    /// What it published, by the number of the topic.
    published: Box<[Flow]>,
    front: Front,
    rejected_topics: Vec<u16>,
    screen: Screen,
    /// Subscriptions that rest because the layout of the peer of the moment differs.
    resting: Vec<u16>,
    /// Policies that its peers have asked for.
    asked: Vec<(u16, Delivery)>,
    broken: bool,
    fencing: Fencing,
}

/// How the turn of one link ended.
enum Turn {
    Idle,
    Stalled,
    More,
}

impl Router {
    /// A router for the topics of the contracts.
    #[must_use]
    pub fn new(topics: Vec<Topic>) -> Self {
        Self {
            routes: Routes::new(topics),
            links: Vec::new(),
            outlets: Outlets::default(),
            events: Vec::new(),
            stages_first: false,
            scratch: Vec::new(),
            rounds: Rounds::default(),
        }
    }

    /// Takes the bridge's side of a link over. Returns the slot, by which its doorbell is recognised.
    pub(crate) fn add(&mut self, id: LinkId, ends: LinkEnds, terms: DeliveryTerms) -> usize {
        let fencing = ends.fencing();
        let (consumer, producer, own_doorbell, peer_doorbell) = ends.into_parts();
        let slot = self
            .links
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.links.push(None);
                self.outlets.writers.push(None);
                self.links.len() - 1
            });
        let stage_capacity = terms.stage_capacity.max(producer.capacity());
        self.links[slot] = Some(Link {
            id,
            terms,
            consumer,
            own_doorbell,
            counters: LinkCounters::default(),
            published: vec![Flow::default(); self.routes.topics().len()].into(),
            front: Front::default(),
            rejected_topics: Vec::new(),
            screen: Screen::default(),
            resting: Vec::new(),
            asked: Vec::new(),
            broken: false,
            fencing,
        });
        self.outlets.writers[slot] = Some(Writer::new(id, producer, peer_doorbell, stage_capacity));
        slot
    }

    pub(crate) fn slot_of(&self, id: LinkId) -> Option<usize> {
        self.links
            .iter()
            .position(|link| link.as_ref().is_some_and(|link| link.id == id))
    }

    pub(crate) fn doorbell(&self, slot: usize) -> Option<&Doorbell> {
        self.links
            .get(slot)?
            .as_ref()
            .map(|link| &link.own_doorbell)
    }

    /// Whether everything that the link published up to this position is delivered, or never will be.
    pub(crate) fn is_drained(&mut self, slot: usize, end: u64) -> bool {
        match &mut self.links[slot] {
            Some(link) => {
                link.broken
                    || link.consumer.position() >= end
                    || matches!(link.consumer.peek(), Ok(None))
            }
            None => true,
        }
    }

    /// How far every link has published by now.
    pub(crate) fn published(&self) -> Vec<(LinkId, u64)> {
        let links = self.links.iter().flatten();
        links
            .map(|link| (link.id, link.consumer.committed_position()))
            .collect()
    }

    /// How far every link has come with what waits in front of its ring, and how much that was by now.
    pub(crate) fn staged(&self) -> Vec<(LinkId, u64)> {
        let writers = self.outlets.writers.iter().flatten();
        writers
            .map(|writer| (writer.id, writer.passage().1))
            .collect()
    }

    /// Whether everything that had been staged then has left the stage.
    pub(crate) fn has_passed(&self, staged: &[(LinkId, u64)]) -> bool {
        staged.iter().all(|&(id, by_then)| {
            let mut writers = self.outlets.writers.iter().flatten();
            writers
                .find(|writer| writer.id == id)
                .is_none_or(|writer| writer.broken || writer.passage().0 >= by_then)
        })
    }

    /// Whether everything up to these positions is delivered, or never will be.
    pub(crate) fn has_delivered(&self, published: &[(LinkId, u64)]) -> bool {
        published.iter().all(|&(id, position)| {
            let mut links = self.links.iter().flatten();
            links
                .find(|link| link.id == id)
                .is_none_or(|link| link.broken || link.consumer.position() >= position)
        })
    }

    /// Drops a link at once. Publishers that waited for it go on.
    pub(crate) fn remove(&mut self, slot: usize) -> Option<(LinkId, LinkCounters)> {
        self.routes.unsubscribe_all(slot);
        let counters = self.counters(slot);
        let link = self.links[slot].take()?;
        self.tell_gaps_of(slot, None);
        self.outlets.remove(slot);
        for other in self.links.iter_mut().flatten() {
            other.front.delivered.retain(|&delivered| delivered != slot);
            other.front.stalled_on.retain(|&full| full != slot);
        }
        Some((link.id, counters))
    }

    pub(crate) fn set_fencing(&mut self, slot: usize, fencing: Fencing) {
        if let (Some(link), Some(writer)) = (&mut self.links[slot], &mut self.outlets.writers[slot])
        {
            link.fencing = fencing;
            link.consumer.set_fencing(fencing);
            writer.producer.set_fencing(fencing);
        }
    }

    /// Whether some link runs without membarrier, so that sleeps must be bounded.
    pub(crate) fn has_fenced_link(&self) -> bool {
        self.links
            .iter()
            .flatten()
            .any(|link| link.fencing == Fencing::Fenced)
    }

    pub(crate) fn take_events(&mut self) -> Vec<RouterEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn counters(&self, slot: usize) -> LinkCounters {
        let (Some(Some(link)), Some(Some(writer))) =
            (self.links.get(slot), self.outlets.writers.get(slot))
        else {
            return LinkCounters::default();
        };
        LinkCounters {
            frames_out: writer.frames,
            bytes_out: writer.bytes,
            missed: writer.gaps.total(),
            waiting: writer.waiting(),
            stalls: writer.stalls,
            wakeups_out: writer.wakeups,
            ..link.counters
        }
    }

    pub(crate) fn all_counters(&self) -> Vec<(LinkId, LinkCounters)> {
        let links = self.links.iter().enumerate();
        links
            .filter_map(|(slot, link)| Some((link.as_ref()?.id, self.counters(slot))))
            .collect()
    }

    /// Moves what is there and has room, and wakes who sleeps. Returns the number of frames that were taken from
    /// publishers or out of stages. Makes no system call unless a subscriber or a publisher sleeps, takes no lock, allocates
    /// nothing unless a frame is rejected.
    pub fn poll(&mut self) -> usize {
        if !self.outlets.probing.is_empty() {
            self.look_at_probes();
        }
        let mut moved = 0;
        self.stages_first = !self.stages_first;
        if self.stages_first {
            moved += self.drain_stages();
        }
        for slot in 0..self.links.len() {
            moved += self.poll_link(slot);
        }
        if !self.stages_first {
            moved += self.drain_stages();
        }
        if moved > 0 {
            self.rounds.count(moved);
        }
        self.flush_wakeups();
        moved
    }

    /// Moves staged frames into rings that have room again.
    #[inline]
    fn drain_stages(&mut self) -> usize {
        if self.outlets.waiting.is_empty() {
            return 0;
        }
        self.outlets.drain_stages(FRAMES_PER_TURN, &mut self.events)
    }

    fn poll_link(&mut self, slot: usize) -> usize {
        let mut moved = 0;
        while moved < FRAMES_PER_TURN {
            match self.move_frame(slot) {
                Turn::More => moved += 1,
                Turn::Idle | Turn::Stalled => break,
            }
        }
        if let Some(link) = &mut self.links[slot]
            && link.consumer.wakeup_due()
            && let Some(writer) = &mut self.outlets.writers[slot]
        {
            writer.notify();
        }
        moved
    }

    /// Delivers the frame at the front of a link's ring to every subscriber, or to as many as have room.
    #[inline]
    fn move_frame(&mut self, slot: usize) -> Turn {
        let Some(link) = &mut self.links[slot] else {
            return Turn::Idle;
        };
        if link.broken {
            return Turn::Idle;
        }
        let id = link.id;
        let position = link.screened_position();
        let frame = match link.consumer.peek() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Turn::Idle,
            Err(corrupt) => {
                link.broken = true;
                self.events
                    .push(RouterEvent::Violation { link: id, corrupt });
                return Turn::Idle;
            }
        };
        let (topic_id, payload_len) = (frame.topic_id(), frame.payload_len());
        let encoding = frame.header().encoding();
        let mut rejection = None;
        let mut wanted = false;
        let mut topic_number = None;
        let front = &mut link.front;
        let anew = front.stalled_on.is_empty();
        front.stalled_on.clear();
        match self.routes.lookup(topic_id, encoding, payload_len) {
            _ if topic_id <= CORE_TOPIC_MAX => rejection = Some(Rejection::UnknownTopic),
            _ if link.screen.refuses(position, topic_id) => {
                rejection = Some(Rejection::LayoutMismatch);
            }
            Lookup::UnknownTopic => rejection = Some(Rejection::UnknownTopic),
            Lookup::WrongSize(topic) => {
                let (message, expected) = (topic.message.clone(), topic.payload_len.clone());
                rejection = Some(Rejection::WrongSize {
                    message,
                    expected,
                    actual: payload_len,
                });
            }
            Lookup::WrongEncoding(topic) => {
                rejection = Some(Rejection::WrongEncoding {
                    message: topic.message.clone(),
                    expected: topic.encoding,
                    actual: encoding,
                });
            }
            Lookup::Wanted(route) => {
                topic_number = Some(route.number);
                let several = route.subscribers.len() > 1 || !route.groups.is_empty();
                for &to in &route.subscribers {
                    if to.slot == slot || front.delivered.contains(&to.slot) {
                        continue;
                    }
                    let offered = self
                        .outlets
                        .offer(&frame, to, front, &mut self.events, anew);
                    wanted |= offered != Offered::NoLink;
                    if several && offered == Offered::Settled {
                        front.delivered.push(to.slot);
                    }
                }
                for group in &route.groups {
                    if group.slots().any(|it| front.delivered.contains(&it)) {
                        continue;
                    }
                    let outlets = &mut self.outlets;
                    let has_room = |slot| outlets.has_room(slot, payload_len);
                    let key = &route.topic.key;
                    let picked = group.pick(key, &frame, slot, &mut self.scratch, has_room);
                    let Some(to) = picked else { continue };
                    let offered = self
                        .outlets
                        .offer(&frame, to, front, &mut self.events, anew);
                    wanted |= offered != Offered::NoLink;
                    if offered == Offered::Settled {
                        front.delivered.push(to.slot);
                        group.advance();
                    } else if key.is_empty() {
                        // Room at any of them will do.
                        let others = group.slots().filter(|it| ![slot, to.slot].contains(it));
                        front.stalled_on.extend(others);
                    }
                }
            }
        }
        let rejection = rejection.or_else(|| front.rejection.take());
        link.counters.dropped += std::mem::take(&mut front.lost);
        if !front.stalled_on.is_empty() {
            front.rejection = rejection;
            return Turn::Stalled;
        }
        let had_some = !front.delivered.is_empty();
        front.delivered.clear();
        link.counters.frames_in += 1;
        link.counters.bytes_in += payload_len as u64;
        if let Some(number) = topic_number {
            link.published[number].count(payload_len);
        }
        if let Some(why) = rejection {
            link.counters.dropped += 1;
            if !link.rejected_topics.contains(&topic_id) {
                link.rejected_topics.push(topic_id);
                self.events.push(RouterEvent::Rejected {
                    link: id,
                    topic_id,
                    why,
                });
            }
        } else if !wanted && !had_some {
            link.counters.unrouted += 1;
        }
        link.consumer.advance();
        Turn::More
    }

    fn flush_wakeups(&mut self) {
        while let Some(slot) = self.outlets.touched.pop() {
            if let Some(writer) = &mut self.outlets.writers[slot] {
                writer.touched = false;
                if writer.probe.is_due()
                    && writer
                        .probe
                        .begin(writer.producer.position(), Instant::now())
                {
                    self.outlets.probing.push(slot);
                }
                if writer.producer.wakeup_due() {
                    writer.notify();
                }
            }
        }
    }

    /// How far a link has published by now, whatever its peer goes on to write. A ring that never ends breaks the link.
    pub(crate) fn end_of(&mut self, slot: usize) -> u64 {
        let Some(Some(link)) = self.links.get_mut(slot) else {
            return 0;
        };
        link.consumer.committed_end().unwrap_or_else(|corrupt| {
            if !std::mem::replace(&mut link.broken, true) {
                let link = link.id;
                self.events.push(RouterEvent::Violation { link, corrupt });
            }
            0
        })
    }

    /// Looks at what a dead peer has left in the rings of a link. What no successor could go on with is a violation, and
    /// nothing is read from a ring that it would find no way into.
    pub(crate) fn check_left(&mut self, slot: usize) {
        let (Some(Some(link)), Some(Some(writer))) =
            (self.links.get_mut(slot), self.outlets.writers.get_mut(slot))
        else {
            return;
        };
        if link.broken || writer.broken {
            return;
        }
        let published = link.consumer.check_left().map(drop);
        link.broken = published.is_err();
        if let Err(corrupt) = published.and_then(|()| writer.producer.check_left()) {
            let link = link.id;
            self.events.push(RouterEvent::Violation { link, corrupt });
        }
    }

    /// How far the peer of a link has acknowledged; `None` without such a link.
    pub(crate) fn progress(&mut self, slot: usize) -> Option<Result<Progress, Corrupt>> {
        Some(self.outlets.writers.get_mut(slot)?.as_mut()?.progress())
    }

    /// Takes what a link's last peer had not acknowledged out of its ring, to give it to the next one frame after the other.
    pub(crate) fn recall(&mut self, slot: usize) -> Result<(), Corrupt> {
        let Some(Some(writer)) = self.outlets.writers.get_mut(slot) else {
            return Ok(());
        };
        let recalled = writer.recall();
        self.outlets.note_staged(slot);
        recalled
    }

    /// Drops the frame that a link's last peer had in hand, if it is still the one with this number.
    pub(crate) fn set_aside(&mut self, slot: usize, number: u64) -> Result<bool, Corrupt> {
        let Some(Some(writer)) = self.outlets.writers.get_mut(slot) else {
            return Ok(false);
        };
        let dropped = writer.set_aside(number);
        self.outlets.note_staged(slot);
        dropped
    }
}

impl Link {
    /// Where the frame at the front begins, behind padding; of no use unless there are topics to refuse.
    #[inline]
    fn screened_position(&mut self) -> u64 {
        if !self.screen.is_empty() {
            // Finds nothing that the caller does not find again.
            let _ = self.consumer.peek();
        }
        self.consumer.position()
    }
}

#[cfg(test)]
mod tests;
