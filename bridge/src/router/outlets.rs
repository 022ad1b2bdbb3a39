//! The writing halves of all links together: one frame is offered to one subscriber after the other.

use mycelium_contracts::Delivery;
use shm_transport::ring::Frame;

use super::event::{Rejection, RouterEvent};
use super::writer::{Outcome, Writer};
use crate::routes::Subscriber;

/// The writing halves of all links, by slot.
#[derive(Default)]
pub(super) struct Outlets {
    pub(super) writers: Vec<Option<Writer>>,
    /// Slots of writers that got frames since their wakeups were last looked at.
    pub(super) touched: Vec<usize>,
    /// Slots of writers with frames that wait in front of their ring; usually none.
    pub(super) waiting: Vec<usize>,
    /// Slots of writers whose peers miss something that they have not been told; usually none.
    pub(super) gapped: Vec<usize>,
    /// Slots of writers with a probe in flight.
    pub(super) probing: Vec<usize>,
}

/// How far the delivery of the frame at the front of a link's ring has come.
#[derive(Default)]
pub(super) struct Front {
    /// The slots that have no room for it.
    pub(super) stalled_on: Vec<usize>,
    /// The slots that already have it.
    pub(super) delivered: Vec<usize>,
    /// Why somebody did not get it, if others are still to get it.
    pub(super) rejection: Option<Rejection>,
    /// Subscribers that did not get it because their link is broken.
    pub(super) lost: u64,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// There is no such link any more.
    NoLink,
    /// It has to be offered again.
    Full,
    /// It is delivered or staged, or never will be.
    Settled,
}

impl Outlets {
    /// Offers a frame to one subscriber. `anew`: the frame is offered for the first time.
    #[inline]
    pub(super) fn offer(
        &mut self,
        frame: &Frame<'_>,
        to: Subscriber,
        front: &mut Front,
        events: &mut Vec<RouterEvent>,
        anew: bool,
    ) -> Offered {
        let slot = to.slot;
        let Some(writer) = &mut self.writers[slot] else {
            return Offered::NoLink;
        };
        let outcome = if to.policy == Delivery::Block {
            writer.deliver(frame)
        } else {
            writer.deliver_or_drop(frame, to)
        };
        match outcome {
            Outcome::Done => {
                writer.gaps.delivered(to.gap, frame.payload_len());
                if !writer.touched {
                    writer.touched = true;
                    self.touched.push(slot);
                }
            }
            Outcome::Full => {
                writer.stalls += u64::from(anew);
                front.stalled_on.push(slot);
                return Offered::Full;
            }
            Outcome::Staged => self.note_staged(slot),
            Outcome::TooLarge { max_payload } => {
                front.rejection = Some(Rejection::TooLarge {
                    subscriber: writer.id,
                    payload_len: frame.payload_len(),
                    max_payload,
                });
            }
            Outcome::Broken(corrupt) => {
                front.lost += 1;
                if let Some(corrupt) = corrupt {
                    let link = writer.id;
                    events.push(RouterEvent::Violation { link, corrupt });
                }
            }
        }
        Offered::Settled
    }

    /// Puts a writer on the lists that its state calls for.
    pub(super) fn note_staged(&mut self, slot: usize) {
        let Some(writer) = &mut self.writers[slot] else {
            return;
        };
        if !writer.listed && writer.has_waiting() {
            writer.listed = true;
            self.waiting.push(slot);
        }
        if writer.gaps.untold && !self.gapped.contains(&slot) {
            self.gapped.push(slot);
        }
    }

    pub(super) fn has_room(&mut self, slot: usize, payload_len: usize) -> bool {
        let writer = self.writers[slot].as_mut();
        writer.is_some_and(|writer| writer.has_room(payload_len))
    }

    /// Whether frames that wait could move.
    pub(super) fn can_drain(&mut self) -> bool {
        let Self {
            writers, waiting, ..
        } = self;
        waiting
            .iter()
            .any(|&slot| writers[slot].as_mut().is_some_and(Writer::can_drain))
    }

    /// Moves frames that wait into rings that have room again, `limit` at most for each link.
    pub(super) fn drain_stages(&mut self, limit: usize, events: &mut Vec<RouterEvent>) -> usize {
        let (mut moved, mut at) = (0, 0);
        while let Some(&slot) = self.waiting.get(at) {
            let Some(writer) = &mut self.writers[slot] else {
                self.waiting.swap_remove(at);
                continue;
            };
            let (count, corrupt) = writer.drain(limit);
            moved += count;
            if let Some(corrupt) = corrupt {
                let link = writer.id;
                events.push(RouterEvent::Violation { link, corrupt });
            }
            if count > 0 && !writer.touched {
                writer.touched = true;
                self.touched.push(slot);
            }
            if writer.broken || !writer.has_waiting() {
                writer.listed = false;
                self.waiting.swap_remove(at);
            } else {
                at += 1;
            }
        }
        moved
    }

    pub(super) fn remove(&mut self, slot: usize) {
        self.writers[slot] = None;
        let lists = [
            &mut self.touched,
            &mut self.waiting,
            &mut self.gapped,
            &mut self.probing,
        ];
        for list in lists {
            list.retain(|&other| other != slot);
        }
    }
}
