//! The writing half of a link: its ring to the peer, the stage in front of it, and what the peer misses.

use mycelium_contracts::Delivery;
use mycelium_messages::control::Cause;
use shm_transport::error::{Corrupt, CreateError, ReserveError};
use shm_transport::layout::RING_HEAD_LAG_DIVISOR;
use shm_transport::ring::{Frame, Producer};
use shm_transport::wakeup::Doorbell;

use super::backlog::{Backlog, Progress};
use super::gaps::Gaps;
use super::leftovers::Leftovers;
use super::residence::Probe;
use super::stage::{Fifo, Lane, Staged, Table};
use crate::routes::{LinkId, Subscriber, Topic};

/// The writing half of a link.
pub(super) struct Writer {
    pub(super) id: LinkId,
    pub(super) producer: Producer,
    peer_doorbell: Doorbell,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) stalls: u64,
    pub(super) wakeups: u64,
    pub(super) touched: bool,
    pub(super) armed: bool,
    pub(super) broken: bool,
    /// Whether nothing may go straight into the ring: it is broken, or something goes before.
    shut: bool,
    /// Bytes of each lane of the stage.
    stage_capacity: usize,
    /// Lanes with the topic that they are for; that of drop_oldest is for several and has 0.
    lanes: Vec<(u16, Lane)>,
    /// Where the next look at the lanes begins, so that each has its turn.
    next_lane: usize,
    /// Whether the router knows that frames wait here.
    pub(super) listed: bool,
    pub(super) gaps: Gaps,
    pub(super) probe: Probe,
    backlog: Option<Box<Backlog>>,
    /// Which lane each topic uses.
    homes: Vec<(u16, usize)>,
    /// What waited in the lane that a topic has left, in front of everything that came later.
    leftovers: Leftovers,
}

/// How the delivery to one subscriber ended.
pub(super) enum Outcome {
    Done,
    /// The frame waits in the stage, or the policy has dropped one.
    Staged,
    Full,
    TooLarge {
        max_payload: usize,
    },
    /// The link is broken; with the reason if that has just come out.
    Broken(Option<Corrupt>),
}

impl Writer {
    pub(super) fn new(
        id: LinkId,
        producer: Producer,
        peer_doorbell: Doorbell,
        stage_capacity: usize,
    ) -> Self {
        Self {
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
            shut: false,
            stage_capacity,
            lanes: Vec::new(),
            next_lane: 0,
            listed: false,
            gaps: Gaps::new(),
            probe: Probe::default(),
            backlog: None,
            homes: Vec::new(),
            leftovers: Leftovers::default(),
        }
    }

    /// Prepares a subscription: finds or makes the places where its frames wait and are counted. All memory that they need
    /// is allocated here. What waits by the policy that the topic had before goes ahead of everything that comes from now on.
    pub(super) fn prepare(&mut self, slot: usize, topic: &Topic, policy: Delivery) -> Subscriber {
        let gap = self.gaps.index_of(self.id, topic.topic_id);
        let owner = match policy {
            Delivery::Block | Delivery::DropNewest => None,
            Delivery::Conflate if topic.has_key() => Some(topic.topic_id),
            Delivery::Conflate | Delivery::DropOldest => Some(0),
        };
        let lane = match owner.map(|owner| self.lane_of(owner, topic)).transpose() {
            Ok(lane) => lane,
            Err(error) => {
                tracing::error!(link = %self.id, topic = topic.topic_id, %error, "no memory for a stage; frames without room are dropped");
                None
            }
        };
        self.move_to(topic.topic_id, lane);
        Subscriber {
            slot,
            policy: match lane {
                None if owner.is_some() => Delivery::DropNewest,
                _ => policy,
            },
            lane: lane.unwrap_or(0),
            gap,
            by_default: false,
        }
    }

    /// Finds or makes a lane.
    fn lane_of(&mut self, owner: u16, topic: &Topic) -> Result<usize, CreateError> {
        let mut lanes = self.lanes.iter();
        if let Some(at) = lanes.position(|(topic_id, _)| *topic_id == owner) {
            return Ok(at);
        }
        let lane = if owner == 0 {
            Lane::Fifo(Fifo::new(self.stage_capacity)?)
        } else {
            let payload_len = *topic.payload_len.end();
            let table = Table::new(self.stage_capacity, payload_len, &topic.key);
            Lane::Table(Box::new(table))
        };
        self.lanes.push((owner, lane));
        Ok(self.lanes.len() - 1)
    }

    /// Has a topic use this lane, or none, from now on. What waits in the lane that it leaves, frames of other topics
    /// included, is set apart, so that it stays ahead of everything that comes later.
    fn move_to(&mut self, topic_id: u16, lane: Option<usize>) {
        let home = self.homes.iter().position(|&(it, _)| it == topic_id);
        let old = home.map(|at| self.homes[at].1);
        if old == lane {
            return;
        }
        if let Some(at) = home {
            self.homes.swap_remove(at);
        }
        self.homes.extend(lane.map(|lane| (topic_id, lane)));
        let Some(old) = old else { return };
        while let Some(frame) = self.lanes[old].1.take() {
            self.leftovers.push(frame);
            self.shut = true;
        }
        while let Some(frame) = self.leftovers.evict(self.stage_capacity) {
            let gap = self.gaps.index_of(self.id, frame.header.topic_id);
            self.gaps.count(gap, Cause::DROP_OLDEST);
        }
    }

    /// Copies a frame into the ring if there is room.
    #[inline]
    pub(super) fn deliver(&mut self, frame: &Frame<'_>) -> Outcome {
        if self.shut {
            return if self.broken {
                Outcome::Broken(None)
            } else {
                self.wait_behind_backlog(frame)
            };
        }
        match self.producer.try_forward(frame) {
            Ok(()) => {
                self.frames += 1;
                self.bytes += frame.payload_len() as u64;
                Outcome::Done
            }
            Err(error) => self.not_delivered(error),
        }
    }

    #[cold]
    fn wait_behind_backlog(&self, frame: &Frame<'_>) -> Outcome {
        let max_payload = self.producer.max_payload();
        if frame.payload_len() > max_payload {
            Outcome::TooLarge { max_payload }
        } else {
            Outcome::Full
        }
    }

    fn not_delivered(&mut self, error: ReserveError) -> Outcome {
        match error {
            ReserveError::Full { .. } => Outcome::Full,
            ReserveError::TooLarge { max_payload, .. } => Outcome::TooLarge { max_payload },
            ReserveError::Corrupt(corrupt) => {
                self.broken = true;
                self.shut = true;
                Outcome::Broken(Some(corrupt))
            }
            // Topics of the core range were sorted out before; padding never leaves a consumer.
            ReserveError::ReservedTopic { .. } => Outcome::Broken(None),
        }
    }

    /// As `deliver`, for a subscription that drops rather than waits.
    pub(super) fn deliver_or_drop(&mut self, frame: &Frame<'_>, to: Subscriber) -> Outcome {
        if to.policy == Delivery::DropNewest {
            return match self.deliver(frame) {
                Outcome::Full => {
                    self.gaps.count(to.gap, Cause::DROP_NEWEST);
                    Outcome::Staged
                }
                outcome => outcome,
            };
        }
        if self.broken {
            return Outcome::Broken(None);
        }
        let max_payload = self.producer.max_payload();
        if frame.payload_len() > max_payload {
            return Outcome::TooLarge { max_payload };
        }
        if self.lanes[to.lane].1.is_empty() {
            match self.deliver(frame) {
                Outcome::Full => {}
                outcome => return outcome,
            }
        }
        let gaps = &mut self.gaps;
        let staged = self.lanes[to.lane].1.push(frame, |topic_id| {
            let at = gaps.find(topic_id).unwrap_or(to.gap);
            gaps.count(at, Cause::DROP_OLDEST);
        });
        if staged == Staged::Replaced {
            gaps.count(to.gap, Cause::CONFLATE);
        }
        Outcome::Staged
    }

    /// Moves frames that wait here into the ring, `limit` at most. Returns how many, and what broke the ring if anything did.
    pub(super) fn drain(&mut self, limit: usize) -> (usize, Option<Corrupt>) {
        let mut moved = 0;
        while moved < limit && !self.broken {
            match self.forward_one() {
                None => break,
                Some(Ok(fresh)) => {
                    if let Some((topic_id, len)) = fresh {
                        self.frames += 1;
                        self.bytes += len as u64;
                        let at = self.gaps.index_of(self.id, topic_id);
                        self.gaps.delivered(at, len);
                    }
                    moved += 1;
                }
                Some(Err(error)) => {
                    if let Outcome::Broken(corrupt) = self.not_delivered(error) {
                        return (moved, corrupt);
                    }
                    break;
                }
            }
        }
        (moved, None)
    }

    /// Topic and payload length of the frame that was moved; `None` for one of the backlog, which was counted as delivered
    /// when it came into the ring for the first time.
    fn forward_one(&mut self) -> Option<Result<Option<(u16, usize)>, ReserveError>> {
        if let Some(backlog) = &mut self.backlog {
            if let Some(outcome) = backlog.forward(&mut self.producer) {
                return Some(outcome.map(|()| None));
            }
            if !backlog.is_over(&mut self.producer) {
                return None;
            }
            self.backlog = None;
            self.shut = self.broken || !self.leftovers.is_empty();
        }
        if !self.leftovers.is_empty() {
            let outcome = self.leftovers.forward(&mut self.producer);
            self.shut = self.broken || !self.leftovers.is_empty();
            return outcome.map(|outcome| outcome.map(Some));
        }
        for _ in 0..self.lanes.len() {
            let at = self.next_lane % self.lanes.len();
            self.next_lane = at + 1;
            if let Some(outcome) = self.lanes[at].1.forward(&mut self.producer) {
                return Some(outcome.map(Some));
            }
        }
        None
    }

    /// Whether something waits in front of the ring.
    pub(super) fn has_waiting(&self) -> bool {
        self.backlog.is_some()
            || !self.leftovers.is_empty()
            || self.lanes.iter().any(|(_, lane)| !lane.is_empty())
    }

    /// Whether `drain` would move something.
    pub(super) fn can_drain(&mut self) -> bool {
        if self.broken {
            return false;
        }
        if let Some(backlog) = &mut self.backlog {
            return backlog.can_forward(&mut self.producer);
        }
        if let Some(len) = self.leftovers.front_len() {
            return !matches!(self.producer.has_room(len), Ok(false));
        }
        let mut lengths = self
            .lanes
            .iter_mut()
            .filter_map(|(_, lane)| lane.front_len());
        // Each lane has its turn, so the first that fits is enough only if it is the next; any of them will do here,
        // because a drain that finds no room for the one whose turn it is goes on with the others next time.
        lengths.any(|len| !matches!(self.producer.has_room(len), Ok(false)))
    }

    /// Whether a frame could be delivered right now.
    pub(super) fn has_room(&mut self, payload_len: usize) -> bool {
        if self.shut {
            // What is broken does not hold anybody up.
            return self.broken;
        }
        !matches!(self.producer.has_room(payload_len), Ok(false))
    }

    /// Frames that wait in the stage and in the backlog.
    pub(super) fn waiting(&self) -> u64 {
        let staged: u64 = self.lanes.iter().map(|(_, lane)| lane.frames()).sum();
        staged + self.leftovers.frames() + self.backlog.as_ref().map_or(0, |it| it.frames())
    }

    /// How many frames have gone through the stage so far, and how many with those that wait now. Without the backlog: that
    /// is what a crash left behind, and nothing that was published just now.
    pub(super) fn passage(&self) -> (u64, u64) {
        let left: u64 = self.lanes.iter().map(|(_, lane)| lane.gone()).sum();
        let staged: u64 = self.lanes.iter().map(|(_, lane)| lane.frames()).sum();
        // What was set apart has left its lane, but not the stage.
        (left - self.leftovers.frames(), left + staged)
    }

    /// Takes everything that the peer has not acknowledged out of the ring, to be put in again one frame after the other.
    /// Only while the link has no peer.
    pub(super) fn recall(&mut self) -> Result<(), Corrupt> {
        // The ring is emptied, so nothing that lies in it can be followed.
        self.probe.cancel();
        let mut earlier = self.backlog.take();
        if earlier.as_ref().is_some_and(|backlog| backlog.is_careful()) {
            self.backlog = earlier;
            return Ok(());
        }
        let backlog = Backlog::of(&mut self.producer, earlier.as_deref_mut());
        self.backlog = match backlog {
            Ok(backlog) => Some(Box::new(backlog)),
            Err(corrupt) => {
                self.backlog = earlier;
                return Err(corrupt);
            }
        };
        self.shut = true;
        Ok(())
    }

    /// How far the peer has acknowledged.
    pub(super) fn progress(&mut self) -> Result<Progress, Corrupt> {
        let position = self.producer.released_position()?;
        let capacity = self.producer.capacity();
        let in_hand = self.backlog.as_ref().and_then(|it| it.in_hand());
        Ok(Progress {
            position,
            unacknowledged: position < self.producer.position(),
            in_hand: in_hand.cloned(),
            lag_max: (capacity / RING_HEAD_LAG_DIVISOR) as u64,
        })
    }

    /// Takes the frame out that the last peer had in hand, and lets the others follow without a break.
    pub(super) fn set_aside(&mut self, number: u64) -> Result<bool, Corrupt> {
        let Some(backlog) = &mut self.backlog else {
            return Ok(false);
        };
        self.probe.cancel();
        let Some(topic_id) = backlog.set_aside(&mut self.producer, number)? else {
            return Ok(false);
        };
        let gap = self.gaps.index_of(self.id, topic_id);
        self.gaps.count(gap, Cause::QUARANTINE);
        Ok(true)
    }

    /// Asks to be woken for room.
    pub(super) fn arm_room(&mut self) {
        self.producer.arm_room();
        self.armed = true;
    }

    pub(super) fn notify(&mut self) {
        self.wakeups += 1;
        // A doorbell that cannot be rung belongs to a link whose socket tells the rest.
        let _ = self.peer_doorbell.notify();
    }
}
