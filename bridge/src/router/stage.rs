//! Where frames wait that a subscriber has no room for and whose policy drops older ones: a bounded lane in front of the
//! link's ring. All memory is allocated with the lane; staging a frame allocates nothing.
//!
//! A [`Fifo`] keeps the newest frames in their order; it is a ring of its own, on the heap. A [`Table`] keeps the latest
//! frame of each key, in the order in which the keys came.

use std::hash::{BuildHasher, RandomState};

use shm_transport::error::{CreateError, ReserveError};
use shm_transport::frame::FrameHeader;
use shm_transport::ring::{Consumer, Frame, Producer, RingMemory};

use super::backlog::KeptFrame;
use crate::routes::KeyPart;

/// No slot.
const NONE: u32 = u32::MAX;
/// Bytes of bookkeeping per key, roughly.
const KEY_OVERHEAD: usize = 24;

/// What staging a frame cost.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Staged {
    /// Nothing.
    Kept,
    /// An older frame of the same key.
    Replaced,
}

/// One lane of a link.
#[derive(Debug)]
pub(super) enum Lane {
    /// Of all topics with the policy drop_oldest together.
    Fifo(Fifo),
    /// Of one topic with the policy conflate.
    Table(Box<Table>),
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.frames() == 0
    }

    /// Frames that wait.
    pub(super) fn frames(&self) -> u64 {
        match self {
            Self::Fifo(fifo) => fifo.frames,
            Self::Table(table) => table.end - table.begin,
        }
    }

    /// Frames that were staged and have left again, one way or the other, since the lane began.
    pub(super) fn gone(&self) -> u64 {
        match self {
            Self::Fifo(fifo) => fifo.gone,
            Self::Table(table) => table.begin,
        }
    }

    /// Stages a frame; `evicted` is told the topic of each frame that has to go for it.
    #[inline]
    pub(super) fn push(&mut self, frame: &Frame<'_>, evicted: impl FnMut(u16)) -> Staged {
        match self {
            Self::Fifo(fifo) => fifo.push(frame, evicted),
            Self::Table(table) => table.push(frame, evicted),
        }
    }

    /// Payload length of the oldest frame.
    pub(super) fn front_len(&mut self) -> Option<usize> {
        match self {
            Self::Fifo(fifo) => fifo.front().map(|frame| frame.payload_len()),
            Self::Table(table) => (!table.is_empty()).then_some(table.payload_len),
        }
    }

    /// Takes the oldest frame out.
    pub(super) fn take(&mut self) -> Option<KeptFrame> {
        match self {
            Self::Fifo(fifo) => {
                let kept = KeptFrame::of(&fifo.front()?);
                fifo.pop();
                Some(kept)
            }
            Self::Table(table) => {
                let at = (!table.is_empty()).then(|| table.at(table.begin))?;
                let payload = table.values[at * table.payload_len..][..table.payload_len].to_vec();
                table.pop();
                let header = FrameHeader::from_word(table.header);
                Some(KeptFrame { header, payload })
            }
        }
    }

    /// Moves the oldest frame into the ring; an error leaves it where it is. Returns its topic and the length of its payload.
    pub(super) fn forward(
        &mut self,
        to: &mut Producer,
    ) -> Option<Result<(u16, usize), ReserveError>> {
        match self {
            Self::Fifo(fifo) => {
                let frame = fifo.front()?;
                let moved = (frame.topic_id(), frame.payload_len());
                if let Err(error) = to.try_forward(&frame) {
                    return Some(Err(error));
                }
                fifo.pop();
                Some(Ok(moved))
            }
            Self::Table(table) => {
                let at = (!table.is_empty()).then(|| table.at(table.begin))?;
                let value = &table.values[at * table.payload_len..][..table.payload_len];
                let header = FrameHeader::from_word(table.header);
                if let Err(error) = to.try_push(header, value) {
                    return Some(Err(error));
                }
                table.pop();
                Some(Ok((header.topic_id, table.payload_len)))
            }
        }
    }
}

/// The newest frames that fit, in their order.
#[derive(Debug)]
pub(super) struct Fifo {
    producer: Producer,
    consumer: Consumer,
    frames: u64,
    gone: u64,
}

impl Fifo {
    pub(super) fn new(capacity: usize) -> Result<Self, CreateError> {
        let memory = RingMemory::heap(capacity)?;
        let free = "both ends of a fresh ring are free";
        Ok(Self {
            producer: Producer::attach(memory.clone()).expect(free),
            consumer: Consumer::attach(memory).expect(free),
            frames: 0,
            gone: 0,
        })
    }

    fn front(&mut self) -> Option<Frame<'_>> {
        // Nobody else has this memory, so it is sound.
        self.consumer.peek().ok().flatten()
    }

    fn pop(&mut self) {
        self.consumer.advance();
        self.frames -= 1;
        self.gone += 1;
    }

    fn push(&mut self, frame: &Frame<'_>, mut evicted: impl FnMut(u16)) -> Staged {
        while self.producer.try_forward(frame).is_err() {
            let Some(oldest) = self.front() else {
                // Longer than the lane takes: the caller has ruled that out.
                evicted(frame.topic_id());
                return Staged::Kept;
            };
            let topic_id = oldest.topic_id();
            self.pop();
            self.consumer.publish_head();
            evicted(topic_id);
        }
        self.frames += 1;
        Staged::Kept
    }
}

/// The latest frame of each key. Keys leave in the order in which they came, so slots are used in turn, and only the chains
/// of keys with the same hash have to be looked after.
#[derive(Debug)]
pub(super) struct Table {
    key: Vec<KeyPart>,
    payload_len: usize,
    /// The header word of all frames; they are of one topic, encoding and length.
    header: u64,
    /// Payloads, one slot after the other.
    values: Box<[u8]>,
    /// First slot of each chain.
    chains: Box<[u32]>,
    /// Next slot of the same chain.
    next: Box<[u32]>,
    /// How many keys have left and have come, ever: slots `begin..end` are in use.
    begin: u64,
    end: u64,
    /// Keyed, so that nobody can choose keys that fall into one chain.
    hasher: RandomState,
    scratch: Vec<u8>,
    probe: Vec<u8>,
}

impl Table {
    /// A table of about `capacity` bytes, for at least one key.
    pub(super) fn new(capacity: usize, payload_len: usize, key: &[KeyPart]) -> Self {
        let slots = (capacity / (payload_len + KEY_OVERHEAD)).clamp(1, NONE as usize - 1);
        let key_len = key.iter().map(|part| part.len).sum();
        Self {
            key: key.to_vec(),
            payload_len,
            header: 0,
            values: vec![0; slots * payload_len].into(),
            chains: vec![NONE; slots.next_power_of_two()].into(),
            next: vec![NONE; slots].into(),
            begin: 0,
            end: 0,
            hasher: RandomState::new(),
            scratch: Vec::with_capacity(payload_len),
            probe: Vec::with_capacity(key_len),
        }
    }

    fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    #[inline]
    fn at(&self, number: u64) -> usize {
        (number % self.next.len() as u64) as usize
    }

    fn chain_of(&self, key: &[u8]) -> usize {
        self.hasher.hash_one(key) as usize & (self.chains.len() - 1)
    }

    /// Whether the payload in this slot has the key in `probe`.
    fn matches(&self, slot: usize) -> bool {
        let value = &self.values[slot * self.payload_len..][..self.payload_len];
        let mut rest = &self.probe[..];
        self.key.iter().all(|part| {
            let (head, tail) = rest.split_at(part.len);
            rest = tail;
            value[part.offset..][..part.len] == *head
        })
    }

    fn read_key(&mut self, slot: usize) {
        self.probe.clear();
        let value = &self.values[slot * self.payload_len..][..self.payload_len];
        for part in &self.key {
            self.probe
                .extend_from_slice(&value[part.offset..][..part.len]);
        }
    }

    fn push(&mut self, frame: &Frame<'_>, mut evicted: impl FnMut(u16)) -> Staged {
        // One copy out of memory that the publisher can still write: key and payload are of the same instant.
        self.scratch.clear();
        frame.append_to(&mut self.scratch);
        self.header = frame.header().to_word();
        self.probe.clear();
        for part in &self.key {
            self.probe
                .extend_from_slice(&self.scratch[part.offset..][..part.len]);
        }
        let mut slot = self.chains[self.chain_of(&self.probe)];
        while slot != NONE {
            if self.matches(slot as usize) {
                self.store(slot as usize);
                return Staged::Replaced;
            }
            slot = self.next[slot as usize];
        }
        if self.end - self.begin == self.next.len() as u64 {
            self.pop();
            evicted(frame.topic_id());
        }
        let slot = self.at(self.end);
        self.store(slot);
        self.read_key(slot);
        let chain = self.chain_of(&self.probe);
        self.next[slot] = self.chains[chain];
        self.chains[chain] = slot as u32;
        self.end += 1;
        Staged::Kept
    }

    fn store(&mut self, slot: usize) {
        self.values[slot * self.payload_len..][..self.payload_len].copy_from_slice(&self.scratch);
    }

    /// Drops the key that came first.
    fn pop(&mut self) {
        let slot = self.at(self.begin);
        self.read_key(slot);
        let chain = self.chain_of(&self.probe);
        let (mut before, mut it) = (NONE, self.chains[chain]);
        while it != slot as u32 {
            before = it;
            it = self.next[it as usize];
        }
        match before {
            NONE => self.chains[chain] = self.next[slot],
            before => self.next[before as usize] = self.next[slot],
        }
        self.begin += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const TOPIC: u16 = 1001;

    fn frame_of(payload: &[u8]) -> Frame<'_> {
        Frame::new(TOPIC, payload)
    }

    fn forward_all(lane: &mut Lane) -> Vec<Vec<u8>> {
        let memory = RingMemory::heap(1 << 20).expect("heap");
        let mut producer = Producer::attach(memory.clone()).expect("producer");
        let mut consumer = Consumer::attach(memory).expect("consumer");
        while let Some(outcome) = lane.forward(&mut producer) {
            outcome.expect("room");
        }
        let mut out = Vec::new();
        while let Some(frame) = consumer.peek().expect("sound") {
            assert_eq!(frame.topic_id(), TOPIC);
            out.push(frame.to_vec());
            consumer.advance();
        }
        out
    }

    #[test]
    fn a_fifo_keeps_the_newest_in_their_order() {
        let mut lane = Lane::Fifo(Fifo::new(4096).expect("heap"));
        let mut dropped = 0;
        for number in 0..1000_u64 {
            lane.push(&frame_of(&number.to_le_bytes()), |_| dropped += 1);
        }
        let kept = forward_all(&mut lane);
        assert_eq!(kept.len() + dropped, 1000);
        assert!(kept.len() > 200, "kept={}", kept.len());
        let expected: Vec<_> = (dropped as u64..1000)
            .map(|it| it.to_le_bytes().to_vec())
            .collect();
        assert_eq!(kept, expected);
        assert!(lane.is_empty() && lane.gone() == 1000);
    }

    /// What a table is to do, in the plainest way.
    struct Model {
        slots: usize,
        kept: VecDeque<(u64, u64)>,
    }

    impl Model {
        /// Returns (replaced, evicted).
        fn push(&mut self, key: u64, value: u64) -> (bool, bool) {
            if let Some(there) = self.kept.iter_mut().find(|(other, _)| *other == key) {
                there.1 = value;
                return (true, false);
            }
            let full = self.kept.len() == self.slots;
            if full {
                self.kept.pop_front();
            }
            self.kept.push_back((key, value));
            (false, full)
        }
    }

    proptest! {
        #[test]
        fn a_table_does_what_its_model_does(
            slots in 1_usize..9,
            steps in proptest::collection::vec(prop_oneof![
                4 => (0..12_u64).prop_map(Some),
                1 => Just(None),
            ], 0..200),
        ) {
            let key = [KeyPart { offset: 4, len: 4 }, KeyPart { offset: 16, len: 4 }];
            let mut lane = Lane::Table(Box::new(Table::new(slots * (24 + KEY_OVERHEAD), 24, &key)));
            let mut model = Model { slots, kept: VecDeque::new() };
            let (mut drained, mut expected) = (Vec::new(), Vec::new());
            for (value, step) in steps.into_iter().enumerate() {
                let Some(key) = step else {
                    drained.extend(forward_all(&mut lane).iter().map(|it| it[8]));
                    expected.extend(model.kept.drain(..).map(|(_, value)| value as u8));
                    continue;
                };
                let mut payload = [0xEE; 24];
                // The key lies in two pieces.
                payload[4..8].copy_from_slice(&(key as u32 % 3).to_le_bytes());
                payload[16..20].copy_from_slice(&(key as u32 / 3).to_le_bytes());
                payload[8] = value as u8;
                let mut evicted = 0;
                let staged = lane.push(&frame_of(&payload), |_| evicted += 1);
                let (replaced, full) = model.push(key, value as u64);
                prop_assert_eq!(staged == Staged::Replaced, replaced);
                prop_assert_eq!(evicted == 1, full);
                prop_assert_eq!(lane.frames(), model.kept.len() as u64);
            }
            drained.extend(forward_all(&mut lane).iter().map(|it| it[8]));
            expected.extend(model.kept.drain(..).map(|(_, value)| value as u8));
            prop_assert_eq!(drained, expected);
        }
    }
}
