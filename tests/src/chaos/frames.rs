//! The frames of a run: every byte of a payload follows from its topic, publisher and number, so that a torn, swapped or
//! invented one is seen.

use mycelium_messages::message::{DynamicMessage, Encoding, Message};
use shm_transport::channel::Channel;
use shm_transport::error::ChannelError;
use shm_transport::ring::Frame;

use super::faults::TOPICS;
use super::messages::{Book, Job, Order, Trade};
use crate::random::Random;

use std::time::Duration;

/// Flag of an order that kills who is fragile.
pub const POISON: u32 = 1;

/// Lanes of the conflated and of the shared topic.
const LANES: u64 = 24;

/// Topic ids of [`TOPICS`].
pub const TOPIC_IDS: [u16; TOPICS.len()] = [
    <Order as DynamicMessage>::TOPIC_ID,
    <Trade as Message>::TOPIC_ID,
    <Book as Message>::TOPIC_ID,
    <Job as Message>::TOPIC_ID,
];

/// Number of a topic in [`TOPICS`] by its id.
#[must_use]
pub fn topic_of(id: u16) -> Option<usize> {
    TOPIC_IDS.iter().position(|it| *it == id)
}

/// The lane of a frame.
#[must_use]
pub fn lane(topic: usize, sequence: u64) -> u32 {
    match TOPICS[topic] {
        "Book" | "Job" => Random::new(sequence).below(LANES) as u32,
        _ => 0,
    }
}

/// The payload of a frame. Orders have up to 615 bytes, the others 48.
#[must_use]
pub fn payload(topic: usize, publisher: u32, flags: u32, sequence: u64) -> Vec<u8> {
    let (word, length, stride) = match TOPICS[topic] {
        "Order" => (flags, (sequence * 37 + u64::from(publisher) * 11) % 600, 1),
        _ => (lane(topic, sequence), 32, 7),
    };
    let mut bytes = Vec::with_capacity(16 + length as usize);
    bytes.extend(publisher.to_le_bytes());
    bytes.extend(word.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((0..length).map(|at| (sequence * stride + at) as u8));
    bytes
}

/// CRC-32 of a payload.
#[must_use]
pub fn checksum(payload: &[u8]) -> u32 {
    crc32fast::hash(payload)
}

/// Who publishes one topic, and what of it was taken.
#[derive(Debug)]
pub struct Publisher {
    /// Its number in the frames.
    pub id: u32,
    /// Number of its topic.
    pub topic: usize,
    /// How many frames were taken, which is also the number of the last one.
    pub published: u64,
    /// Whether once there was no room. Over a socket a part of a frame may be waiting since then.
    pub was_full: bool,
    /// Its channel.
    pub channel: Channel,
}

impl Publisher {
    /// A publisher that has published nothing.
    #[must_use]
    pub fn new(id: u32, topic: usize, channel: Channel) -> Self {
        Self {
            id,
            topic,
            published: 0,
            was_full: false,
            channel,
        }
    }

    /// Publishes the next frame; false if there is no room within `timeout`.
    ///
    /// # Panics
    ///
    /// If the link has ended.
    pub fn publish(&mut self, flags: u32, timeout: Duration) -> bool {
        let payload = payload(self.topic, self.id, flags, self.published + 1);
        let encoding = match TOPICS[self.topic] {
            "Order" => Encoding::Raw,
            _ => Encoding::Contract,
        };
        let frame = Frame::new(TOPIC_IDS[self.topic], &payload).with_encoding(encoding);
        match self.channel.publish_frame(&frame, Some(timeout)) {
            Ok(()) => {
                self.published += 1;
                true
            }
            Err(ChannelError::Full { .. }) => {
                self.was_full = true;
                false
            }
            Err(error) => panic!("publisher {}: {error}", self.id),
        }
    }

    /// Publishes up to so many frames, as far as there is room at once, and says how many.
    pub fn burst(&mut self, count: u64) -> u64 {
        (0..count)
            .take_while(|_| self.publish(0, Duration::ZERO))
            .count() as u64
    }
}

/// By lane the number of the last of so many frames.
#[must_use]
pub fn latest_of_lanes(published: u64) -> std::collections::BTreeMap<u32, u64> {
    // Far more than it takes until every lane has come.
    let first = published.saturating_sub(LANES * 100).max(1);
    (first..=published)
        .map(|sequence| (lane(2, sequence), sequence))
        .collect()
}
