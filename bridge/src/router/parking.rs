//! What a router does around a sleep: asks to be woken, looks whether there is work, and wakes who sleeps for it; and what it
//! tells about the frames that links miss, which has its times too.

use std::time::Instant;

use super::outlets::Outlets;
use super::{LinkGap, Router, RouterEvent, gaps};
use crate::routes::LinkId;

impl Router {
    /// Whether some publisher is held back by a subscriber without room.
    pub(crate) fn is_stalled(&self) -> bool {
        self.links
            .iter()
            .flatten()
            .any(|link| !link.front.stalled_on.is_empty())
    }

    /// Which links wait for which: the publisher of a frame that finds no room, and the links that have none.
    pub(crate) fn waits(&self) -> Vec<(LinkId, Vec<LinkId>)> {
        let id_of = |&slot: &usize| self.links.get(slot)?.as_ref().map(|link| link.id);
        let links = self.links.iter().flatten();
        let stalled = links.filter(|link| !link.front.stalled_on.is_empty());
        stalled
            .map(|link| {
                (
                    link.id,
                    link.front.stalled_on.iter().filter_map(id_of).collect(),
                )
            })
            .collect()
    }

    /// Declares every ring that may bring work as waited for. The caller runs the heavy fence next, asks
    /// [`Router::has_work`], and only then sleeps.
    pub(crate) fn arm(&mut self) {
        let writers = &mut self.outlets.writers;
        for slot in 0..self.links.len() {
            let Some(link) = &mut self.links[slot] else {
                continue;
            };
            if !link.front.stalled_on.is_empty() {
                link.consumer.publish_head();
                for &to in &link.front.stalled_on {
                    if let Some(writer) = &mut writers[to] {
                        writer.arm_room();
                    }
                }
            } else if !link.consumer.is_armed() {
                // The flag of a ring that stayed idle is still set.
                link.consumer.arm();
            }
        }
        for &slot in &self.outlets.waiting {
            if let Some(writer) = &mut writers[slot] {
                writer.arm_room();
            }
        }
        for &slot in &self.outlets.probing {
            if let Some(writer) = &mut writers[slot] {
                writer.arm_room();
            }
        }
        // Arming publishes heads, which may be what a publisher sleeps for.
        for (link, writer) in self.links.iter_mut().zip(writers) {
            if let (Some(link), Some(writer)) = (link, writer) {
                writer.probe.after_sleep();
                if link.consumer.wakeup_due() {
                    writer.notify();
                }
            }
        }
    }

    /// Whether `poll` would move something.
    pub(crate) fn has_work(&mut self) -> bool {
        // What has arrived before the flags were set rings no doorbell.
        self.look_at_probes();
        if self.outlets.can_drain() {
            return true;
        }
        let writers = &mut self.outlets.writers;
        for link in self.links.iter_mut().flatten() {
            if link.broken {
                continue;
            }
            let frame_len = match link.consumer.peek() {
                Ok(Some(frame)) => frame.payload_len(),
                Ok(None) => continue,
                Err(_) => return true,
            };
            let mut has_room = |&to: &usize| match &mut writers[to] {
                Some(writer) => writer.has_room(frame_len),
                None => true,
            };
            let stalled_on = &link.front.stalled_on;
            if stalled_on.is_empty() || stalled_on.iter().any(&mut has_room) {
                return true;
            }
        }
        false
    }

    /// Takes the samples of the probes that have arrived.
    #[cold]
    pub(super) fn look_at_probes(&mut self) {
        let Outlets {
            writers, probing, ..
        } = &mut self.outlets;
        let mut now = None;
        probing.retain(|&slot| {
            let Some(writer) = &mut writers[slot] else {
                return false;
            };
            let Some(position) = writer.probe.position() else {
                return false;
            };
            match writer.producer.released_position() {
                Ok(released) if released < position => true,
                Ok(_) => {
                    writer.probe.end(*now.get_or_insert_with(Instant::now));
                    false
                }
                // Whoever writes there next finds it, too, and says so.
                Err(_) => {
                    writer.probe.cancel();
                    false
                }
            }
        });
    }

    /// Takes the declarations for room back after a sleep, so that a subscriber does not ring for nothing.
    pub(crate) fn disarm_room(&mut self) {
        for writer in self.outlets.writers.iter_mut().flatten() {
            if std::mem::take(&mut writer.armed) {
                writer.producer.disarm_room();
            }
        }
    }

    /// Wakes every peer that sleeps although its ring has something for it. A peer that took over from a dead one
    /// does the same for the router.
    pub(crate) fn wake_all(&mut self) {
        for (link, writer) in self.links.iter_mut().zip(&mut self.outlets.writers) {
            if let (Some(link), Some(writer)) = (link, writer)
                && (link.consumer.wakeup_due() | writer.producer.wakeup_due())
            {
                writer.notify();
            }
        }
    }

    /// What every link misses, by topic.
    pub(crate) fn gaps(&self) -> Vec<LinkGap> {
        let writers = self.outlets.writers.iter().flatten();
        writers.flat_map(|writer| writer.gaps.counts()).collect()
    }

    /// Whether some peer misses something that it has not been told.
    pub(crate) fn has_gaps(&self) -> bool {
        !self.outlets.gapped.is_empty()
    }

    /// Makes events of what peers are due to be told; returns when the next will be.
    pub(crate) fn tell_gaps(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for slot in std::mem::take(&mut self.outlets.gapped) {
            let due = self.tell_gaps_of(slot, Some(now));
            if due.is_some() {
                self.outlets.gapped.push(slot);
            }
            next = due
                .map(|due| next.map_or(due, |other| other.min(due)))
                .or(next);
        }
        next
    }

    /// Tells the gaps of one link: those that are due, or without a time all of them.
    pub(super) fn tell_gaps_of(&mut self, slot: usize, now: Option<Instant>) -> Option<Instant> {
        let writer = self.outlets.writers.get_mut(slot)?.as_mut()?;
        let (link, events) = (writer.id, &mut self.events);
        let now = now.unwrap_or_else(|| Instant::now() + gaps::GAP_INTERVAL);
        writer.gaps.tell(now, |notice| {
            events.push(RouterEvent::Gap {
                link,
                topic_id: notice.topic_id,
                missed: notice.missed,
                cause: notice.cause,
            });
        })
    }
}
