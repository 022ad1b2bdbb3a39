//! The router: moves frames from the ring that a link writes to the rings of the links that want them.
//!
//! A [`Router`] is a plain value that owns every ring end it uses. `poll` moves what is there and never blocks; who
//! calls it, and how it sleeps, is the business of [`crate::data_plane`]. Payloads are copied, never decoded.
//!
//! A frame whose subscriber has no room stays at the front of its ring, and so does everything behind it: that is the
//! back-pressure of the policy `block`, which reaches the publisher of that frame and nobody else. Subscribers that
//! already have the frame are remembered, so it is delivered to each of them once.

mod event;
mod screen;

use shm_transport::channel::LinkEnds;
use shm_transport::error::{Corrupt, ReserveError};
use shm_transport::layout::CORE_TOPIC_MAX;
use shm_transport::ring::{Consumer, Fencing, Producer};
use shm_transport::wakeup::Doorbell;

use crate::routes::{LinkId, Lookup, Routes, Topic};
use screen::Screen;

pub use event::{LinkCounters, Rejection, RouterEvent};
pub(crate) use screen::Refused;

/// Frames that one link may bring per turn, so that a busy link does not keep the others waiting.
const FRAMES_PER_TURN: usize = 64;

/// Moves frames between links by topic.
pub struct Router {
    routes: Routes,
    links: Vec<Option<Link>>,
    writers: Vec<Option<Writer>>,
    /// Slots of writers that got frames since their wakeups were last looked at.
    touched: Vec<usize>,
    events: Vec<RouterEvent>,
}

/// The reading half of a link, and what belongs to the link as a whole.
struct Link {
    id: LinkId,
    consumer: Consumer,
    own_doorbell: Doorbell,
    counters: LinkCounters,
    /// The slots that have no room for the frame at the front.
    stalled_on: Vec<usize>,
    /// The slots that already have the frame at the front.
    delivered: Vec<usize>,
    /// Why somebody did not get the frame at the front, if others are still to get it.
    rejection: Option<Rejection>,
    rejected_topics: Vec<u16>,
    screen: Screen,
    /// Subscriptions that rest because the layout of the peer of the moment differs.
    resting: Vec<u16>,
    broken: bool,
    fencing: Fencing,
}

/// The writing half of a link.
struct Writer {
    id: LinkId,
    producer: Producer,
    peer_doorbell: Doorbell,
    frames: u64,
    bytes: u64,
    stalls: u64,
    wakeups: u64,
    touched: bool,
    armed: bool,
    broken: bool,
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
            writers: Vec::new(),
            touched: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Takes the bridge's side of a link over. Returns the slot, by which its doorbell is recognised.
    pub(crate) fn add(&mut self, id: LinkId, ends: LinkEnds) -> usize {
        let fencing = ends.fencing();
        let (consumer, producer, own_doorbell, peer_doorbell) = ends.into_parts();
        let slot = self
            .links
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.links.push(None);
                self.writers.push(None);
                self.links.len() - 1
            });
        self.links[slot] = Some(Link {
            id,
            consumer,
            own_doorbell,
            counters: LinkCounters::default(),
            stalled_on: Vec::new(),
            delivered: Vec::new(),
            rejection: None,
            rejected_topics: Vec::new(),
            screen: Screen::default(),
            resting: Vec::new(),
            broken: false,
            fencing,
        });
        self.writers[slot] = Some(Writer {
            id,
            producer,
            peer_doorbell,
            frames: 0,
            bytes: 0,
            stalls: 0,
            wakeups: 0,
            touched: false,
            armed: false,
            broken: false,
        });
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

    /// Stops delivering to a link.
    pub(crate) fn stop_delivering(&mut self, slot: usize) {
        self.routes.unsubscribe_all(slot);
    }

    /// Whether everything that the link published is delivered, or never will be.
    pub(crate) fn is_drained(&mut self, slot: usize) -> bool {
        match &mut self.links[slot] {
            Some(link) => link.broken || matches!(link.consumer.peek(), Ok(None)),
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
        self.writers[slot] = None;
        self.touched.retain(|&other| other != slot);
        for other in self.links.iter_mut().flatten() {
            other.delivered.retain(|&delivered| delivered != slot);
            other.stalled_on.retain(|&full| full != slot);
        }
        Some((link.id, counters))
    }

    pub(crate) fn subscribe(&mut self, slot: usize, topic_id: u16) -> bool {
        self.routes.subscribe(topic_id, slot)
    }

    pub(crate) fn unsubscribe(&mut self, slot: usize, topic_id: u16) -> bool {
        if let Some(link) = &mut self.links[slot] {
            link.resting.retain(|&other| other != topic_id);
        }
        self.routes.unsubscribe(topic_id, slot)
    }

    /// Says what the next peer of a link must not publish, from `since` on in the link's ring, and is not to get.
    /// Subscriptions to refused topics rest until a peer comes that may have them.
    pub(crate) fn refuse(&mut self, slot: usize, since: u64, refused: Refused) {
        let Some(link) = &mut self.links[slot] else {
            return;
        };
        let routes = &mut self.routes;
        link.resting.retain(|&topic_id| {
            let rests = refused.contains(topic_id);
            if !rests {
                routes.subscribe(topic_id, slot);
            }
            rests
        });
        if let Refused::Topics(topics) = &refused {
            for &topic_id in topics {
                if routes.is_subscribed(topic_id, slot) {
                    routes.unsubscribe(topic_id, slot);
                    link.resting.push(topic_id);
                }
            }
        }
        // The next peer has not been told yet.
        link.rejected_topics.clear();
        link.screen.set(since, refused);
    }

    pub(crate) fn set_fencing(&mut self, slot: usize, fencing: Fencing) {
        if let (Some(link), Some(writer)) = (&mut self.links[slot], &mut self.writers[slot]) {
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

    /// Whether some publisher is held back by a subscriber without room.
    pub(crate) fn is_stalled(&self) -> bool {
        self.links
            .iter()
            .flatten()
            .any(|link| !link.stalled_on.is_empty())
    }

    pub(crate) fn take_events(&mut self) -> Vec<RouterEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn counters(&self, slot: usize) -> LinkCounters {
        let (Some(Some(link)), Some(Some(writer))) = (self.links.get(slot), self.writers.get(slot))
        else {
            return LinkCounters::default();
        };
        LinkCounters {
            frames_out: writer.frames,
            bytes_out: writer.bytes,
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
    /// publishers. Makes no system call unless a subscriber or a publisher sleeps, takes no lock, allocates nothing
    /// unless a frame is rejected.
    pub fn poll(&mut self) -> usize {
        let mut moved = 0;
        for slot in 0..self.links.len() {
            moved += self.poll_link(slot);
        }
        self.flush_wakeups();
        moved
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
            && let Some(writer) = &mut self.writers[slot]
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
        let stalls_anew = link.stalled_on.is_empty();
        link.stalled_on.clear();
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
            Lookup::Subscribers(subscribers) => {
                for &to in subscribers {
                    if to == slot || link.delivered.contains(&to) {
                        continue;
                    }
                    let Some(writer) = &mut self.writers[to] else {
                        continue;
                    };
                    wanted = true;
                    match writer.deliver(&frame) {
                        Delivery::Done => {
                            if !writer.touched {
                                writer.touched = true;
                                self.touched.push(to);
                            }
                        }
                        Delivery::Full => {
                            writer.stalls += u64::from(stalls_anew);
                            link.stalled_on.push(to);
                            continue;
                        }
                        Delivery::TooLarge { max_payload } => {
                            let subscriber = writer.id;
                            rejection = Some(Rejection::TooLarge {
                                subscriber,
                                payload_len,
                                max_payload,
                            });
                        }
                        Delivery::Broken(corrupt) => {
                            link.counters.dropped += 1;
                            if let Some(corrupt) = corrupt {
                                self.events.push(RouterEvent::Violation {
                                    link: writer.id,
                                    corrupt,
                                });
                            }
                        }
                    }
                    if subscribers.len() > 1 {
                        link.delivered.push(to);
                    }
                }
            }
        }
        let rejection = rejection.or_else(|| link.rejection.take());
        if !link.stalled_on.is_empty() {
            link.rejection = rejection;
            return Turn::Stalled;
        }
        let had_some = !link.delivered.is_empty();
        link.delivered.clear();
        link.counters.frames_in += 1;
        link.counters.bytes_in += payload_len as u64;
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
        while let Some(slot) = self.touched.pop() {
            if let Some(writer) = &mut self.writers[slot] {
                writer.touched = false;
                if writer.producer.wakeup_due() {
                    writer.notify();
                }
            }
        }
    }

    /// Declares every ring that may bring work as waited for. The caller runs the heavy fence next, asks
    /// [`Router::has_work`], and only then sleeps.
    pub(crate) fn arm(&mut self) {
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else {
                continue;
            };
            if !link.stalled_on.is_empty() {
                link.consumer.publish_head();
                for &to in &link.stalled_on {
                    if let Some(writer) = &mut self.writers[to] {
                        writer.producer.arm_room();
                        writer.armed = true;
                    }
                }
            } else if !link.consumer.is_armed() {
                // The flag of a ring that stayed idle is still set.
                link.consumer.arm();
            }
        }
        // Arming publishes heads, which may be what a publisher sleeps for.
        for (link, writer) in self.links.iter_mut().zip(&mut self.writers) {
            if let (Some(link), Some(writer)) = (link, writer)
                && link.consumer.wakeup_due()
            {
                writer.notify();
            }
        }
    }

    /// Whether `poll` would move something.
    pub(crate) fn has_work(&mut self) -> bool {
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else {
                continue;
            };
            if link.broken {
                continue;
            }
            let frame_len = match link.consumer.peek() {
                Ok(Some(frame)) => frame.payload_len(),
                Ok(None) => continue,
                Err(_) => return true,
            };
            let still_full = |&to: &usize| match &mut self.writers[to] {
                Some(writer) if !writer.broken => {
                    matches!(writer.producer.has_room(frame_len), Ok(false))
                }
                _ => false,
            };
            if link.stalled_on.is_empty() || !link.stalled_on.iter().all(still_full) {
                return true;
            }
        }
        false
    }

    /// Takes the declarations for room back after a sleep, so that a subscriber does not ring for nothing.
    pub(crate) fn disarm_room(&mut self) {
        for writer in self.writers.iter_mut().flatten() {
            if std::mem::take(&mut writer.armed) {
                writer.producer.disarm_room();
            }
        }
    }

    /// Wakes every peer that sleeps although its ring has something for it. A peer that took over from a dead one
    /// does the same for the router.
    pub(crate) fn wake_all(&mut self) {
        for (link, writer) in self.links.iter_mut().zip(&mut self.writers) {
            if let (Some(link), Some(writer)) = (link, writer)
                && (link.consumer.wakeup_due() | writer.producer.wakeup_due())
            {
                writer.notify();
            }
        }
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

/// How the delivery to one subscriber ended.
enum Delivery {
    Done,
    Full,
    TooLarge {
        max_payload: usize,
    },
    /// The link is broken; with the reason if that has just come out.
    Broken(Option<Corrupt>),
}

impl Writer {
    #[inline]
    fn deliver(&mut self, frame: &shm_transport::ring::Frame<'_>) -> Delivery {
        if self.broken {
            return Delivery::Broken(None);
        }
        match self.producer.try_forward(frame) {
            Ok(()) => {
                self.frames += 1;
                self.bytes += frame.payload_len() as u64;
                Delivery::Done
            }
            Err(ReserveError::Full { .. }) => Delivery::Full,
            Err(ReserveError::TooLarge { max_payload, .. }) => Delivery::TooLarge { max_payload },
            Err(ReserveError::Corrupt(corrupt)) => {
                self.broken = true;
                Delivery::Broken(Some(corrupt))
            }
            // Topics of the core range were sorted out before; padding never leaves a consumer.
            Err(ReserveError::ReservedTopic { .. }) => Delivery::Broken(None),
        }
    }

    fn notify(&mut self) {
        self.wakeups += 1;
        // A doorbell that cannot be rung belongs to a link whose socket tells the rest.
        let _ = self.peer_doorbell.notify();
    }
}

#[cfg(test)]
mod tests;
