//! Any sequence of operations on a ring, against a queue as its model.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::error::BatchError;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    /// Reserves the first length and commits the second, which is cut to the first.
    Shrink(usize, usize),
    Abort(usize),
    /// Frames of these lengths, and whether the batch is committed.
    Batch(Vec<usize>, bool),
    Read,
    PeekOnly,
    ReadBatch {
        bytes: usize,
        frames: usize,
        take: usize,
    },
    PublishHead,
    ResumeProducer,
    ResumeConsumer,
    /// The tail is set back to where it was so many commits ago, as a crash leaves it; then a successor comes.
    CrashProducer,
}

/// Payload lengths: mostly short, sometimes up to the limit.
fn len(max: usize) -> impl Strategy<Value = usize> {
    // Miri needs microseconds per byte.
    let max = if cfg!(miri) { max.min(300) } else { max };
    prop_oneof![4 => 0..=96_usize, 2 => 0..=max, 1 => Just(max)]
}

fn step(max: usize) -> impl Strategy<Value = Step> {
    let batch = prop::collection::vec(len(max), 0..12);
    prop_oneof![
        5 => len(max).prop_map(Step::Push),
        2 => (len(max), len(max)).prop_map(|(reserved, kept)| Step::Shrink(reserved, kept)),
        1 => len(max).prop_map(Step::Abort),
        3 => (batch, any::<bool>()).prop_map(|(lens, commit)| Step::Batch(lens, commit)),
        6 => Just(Step::Read),
        1 => Just(Step::PeekOnly),
        3 => (0..4096_usize, 0..9_usize, 0..9_usize)
            .prop_map(|(bytes, frames, take)| Step::ReadBatch { bytes, frames, take }),
        1 => Just(Step::PublishHead),
        1 => Just(Step::ResumeProducer),
        1 => Just(Step::ResumeConsumer),
        1 => Just(Step::CrashProducer),
    ]
}

/// A ring and what a correct one would hold.
struct Model {
    memory: RingMemory,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    /// Every frame that a successor of the consumer would get, with the position behind it.
    queue: VecDeque<(u64, Vec<u8>)>,
    /// Frames at the front of the queue that this consumer has passed.
    passed: usize,
    /// Where the tail was before the last commit.
    tail_before: u64,
    seed: u64,
}

impl Model {
    fn new(capacity: usize) -> Self {
        let memory = RingMemory::heap(capacity).expect("heap ring");
        Self {
            producer: Some(Producer::attach(memory.clone()).expect("producer")),
            consumer: Some(Consumer::attach(memory.clone()).expect("consumer")),
            memory,
            queue: VecDeque::new(),
            passed: 0,
            tail_before: 0,
            seed: 0,
        }
    }

    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        payload(self.seed, len)
    }

    fn expected(&self) -> Option<Vec<u8>> {
        self.queue.get(self.passed).map(|(_, bytes)| bytes.clone())
    }

    fn push(&mut self, reserved: usize, kept: usize) -> Result<(), TestCaseError> {
        let bytes = self.payload(kept);
        let producer = self.producer.as_mut().expect("attached");
        let before = producer.position();
        match producer.try_reserve(FrameHeader::new(TOPIC, reserved as u32)) {
            Ok(mut reservation) => {
                if kept == reserved {
                    reservation.copy_from_slice(&bytes);
                    reservation.commit();
                } else {
                    reservation.write_at(0, &bytes);
                    reservation.commit_len(kept);
                }
                self.tail_before = before;
                self.queue.push_back((producer.position(), bytes));
            }
            Err(ReserveError::Full { needed, free }) => {
                let record_max = self.memory.capacity() / 4;
                prop_assert!(needed > free && needed <= record_len(reserved) + record_max + 8);
                prop_assert!(!self.queue.is_empty(), "an empty ring takes any frame");
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        Ok(())
    }

    fn batch(&mut self, lens: Vec<usize>, commit: bool) -> Result<(), TestCaseError> {
        let payloads: Vec<_> = lens.into_iter().map(|len| self.payload(len)).collect();
        let producer = self.producer.as_mut().expect("attached");
        let consumer = self.consumer.as_mut().expect("attached");
        let before = producer.position();
        let was_empty = consumer.is_empty();
        let mut accepted = Vec::new();
        let mut batch = producer.batch();
        for bytes in payloads {
            match batch.try_push(header(&bytes), &bytes) {
                Ok(()) => accepted.push((before + batch.batch_len() as u64, bytes)),
                Err(BatchError::Reserve(ReserveError::Full { needed, free })) => {
                    prop_assert!(needed > free);
                }
                Err(BatchError::TooLong {
                    batch_len,
                    needed,
                    capacity,
                }) => {
                    prop_assert!(batch_len + needed > capacity);
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
            prop_assert_eq!(consumer.is_empty(), was_empty, "the batch shows");
        }
        if commit {
            batch.commit();
            if !accepted.is_empty() {
                self.tail_before = before;
            }
            self.queue.extend(accepted);
        }
        Ok(())
    }

    fn read_batch(&mut self, limit: BatchLimit, take: usize) -> Result<(), TestCaseError> {
        let expected: Vec<_> = self
            .queue
            .iter()
            .skip(self.passed)
            .map(|(_, bytes)| bytes.clone())
            .collect();
        let consumer = self.consumer.as_mut().expect("attached");
        let Some(batch) = consumer.read_batch(limit).expect("sound ring") else {
            prop_assert!(expected.is_empty());
            return Ok(());
        };
        let mut frames = Vec::new();
        while frames.len() < take {
            let Some(frame) = batch.take().expect("sound ring") else {
                prop_assert!(
                    frames.len() == expected.len()
                        || frames.len() >= limit.frames
                        || batch.taken_bytes()
                            + record_len(expected[frames.len()].len())
                            + self.memory.capacity() / 4
                            > limit.bytes,
                    "the batch ends before its limit"
                );
                break;
            };
            frames.push(frame);
        }
        prop_assert!(frames.len() <= limit.frames.max(1));
        prop_assert!(frames.len() <= 1 || batch.taken_bytes() <= limit.bytes);
        for (frame, expected) in frames.iter().zip(&expected) {
            prop_assert_eq!(&frame.to_vec(), expected);
        }
        self.passed += frames.len();
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push(len) => self.push(len, len)?,
            Step::Shrink(reserved, kept) => self.push(reserved, kept.min(reserved))?,
            Step::Abort(len) => {
                let producer = self.producer.as_mut().expect("attached");
                if let Ok(mut reservation) =
                    producer.try_reserve(FrameHeader::new(TOPIC, len as u32))
                {
                    reservation.copy_from_slice(&vec![0xEE; len]);
                }
            }
            Step::Batch(lens, commit) => self.batch(lens, commit)?,
            Step::Read => {
                let expected = self.expected();
                self.passed += usize::from(expected.is_some());
                prop_assert_eq!(read(self.consumer.as_mut().expect("attached")), expected);
            }
            Step::PeekOnly => {
                let expected = self.expected();
                let consumer = self.consumer.as_mut().expect("attached");
                prop_assert_eq!(consumer.is_empty(), expected.is_none());
                prop_assert_eq!(
                    consumer.peek().expect("sound").map(|frame| frame.to_vec()),
                    expected
                );
            }
            Step::ReadBatch {
                bytes,
                frames,
                take,
            } => self.read_batch(BatchLimit { bytes, frames }, take)?,
            Step::PublishHead => self.consumer.as_mut().expect("attached").publish_head(),
            Step::ResumeProducer => {
                let position = self.producer.take().expect("attached").position();
                let consumer = self.consumer.as_ref().expect("attached");
                prop_assert_eq!(consumer.check_left(), Ok(position));
                let successor = Producer::attach(self.memory.clone()).expect("sound");
                prop_assert_eq!(successor.position(), position);
                self.producer = Some(successor);
            }
            Step::CrashProducer => {
                let position = self.producer.take().expect("attached").position();
                self.memory
                    .tail()
                    .store(self.tail_before, Ordering::Relaxed);
                prop_assert_eq!(self.memory.check_positions(), Ok(()));
                let consumer = self.consumer.as_ref().expect("attached");
                prop_assert_eq!(consumer.check_left(), Ok(position));
                prop_assert_eq!(consumer.committed_end(), Ok(position));
                let successor = Producer::attach(self.memory.clone()).expect("sound");
                prop_assert_eq!(successor.position(), position);
                self.producer = Some(successor);
            }
            Step::ResumeConsumer => {
                self.consumer = None;
                let producer = self.producer.as_mut().expect("attached");
                prop_assert_eq!(producer.check_left(), Ok(()));
                self.consumer = Some(Consumer::attach(self.memory.clone()).expect("sound"));
                self.passed = 0;
            }
        }
        self.check_numbers()
    }

    /// What both ends say of positions and bytes agrees with the queue, and what was acknowledged leaves it.
    fn check_numbers(&mut self) -> Result<(), TestCaseError> {
        let producer = self.producer.as_mut().expect("attached");
        let consumer = self.consumer.as_mut().expect("attached");
        let head = self.memory.head().load(Ordering::Relaxed);
        prop_assert_eq!(producer.released_position(), Ok(head));
        prop_assert_eq!(
            producer.occupancy(),
            Ok((producer.position() - head) as usize)
        );
        prop_assert_eq!(consumer.acknowledged_position(), head);
        prop_assert_eq!(
            consumer.occupancy() as u64,
            producer.position() - consumer.position()
        );
        // Padding that was skipped on the way to a frame that is not passed yet comes on top.
        let lag_max = consumer.capacity() / 8 + consumer.capacity() / 4;
        prop_assert!(consumer.position() - head < lag_max as u64);
        while self.queue.front().is_some_and(|(end, _)| *end <= head) {
            self.queue.pop_front();
            self.passed -= 1;
        }
        Ok(())
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const STEPS: usize = if cfg!(miri) { 30 } else { 300 };
const FRAMES_MAX: usize = if cfg!(miri) { 20 } else { 2000 };

fn run(capacity: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::new(capacity);
    steps.into_iter().try_for_each(|step| model.take(step))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_smallest_ring_behaves_like_a_queue(steps in prop::collection::vec(step(1016), 1..STEPS)) {
        run(4096, steps)?;
    }

    #[test]
    fn a_larger_ring_behaves_like_a_queue(steps in prop::collection::vec(step(4088), 1..STEPS)) {
        run(16384, steps)?;
    }

    /// Words that no producer wrote, anywhere in the ring: a frame is inside the ring, an error names a field, and
    /// neither end goes where it must not.
    #[test]
    fn a_tampered_ring_gives_errors_and_never_leaves_its_memory(
        pushes in prop::collection::vec(len(1016), 0..40),
        reads in 0..40_usize,
        tampered in prop::collection::vec((0..512_usize, tampered_word()), 1..40),
        head in prop_oneof![3 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0..10_000_u64).prop_map(Some)],
    ) {
        let (memory, mut producer, mut consumer) = ring();
        for (seed, len) in pushes.into_iter().enumerate() {
            let bytes = payload(seed as u64, len);
            let _ = producer.try_push(header(&bytes), &bytes);
            if seed < reads {
                let _ = read(&mut consumer);
            }
        }
        for (place, word) in tampered {
            memory.word(place * 8).store(word, Ordering::Relaxed);
        }
        if let Some(head) = head {
            memory.head().store(head, Ordering::Relaxed);
        }
        let mut frames = 0;
        let corrupt = loop {
            match consumer.try_read() {
                Ok(Some(guard)) => {
                    let len = guard.frame().payload_len();
                    prop_assert!(len <= 1016);
                    prop_assert_eq!(guard.frame().to_vec().len(), len);
                }
                Ok(None) => break None,
                Err(corrupt) => break Some(corrupt),
            }
            frames += 1;
            if frames > FRAMES_MAX {
                // A ring full of plausible headers never ends, which whoever reads it to an end finds out beforehand.
                break None;
            }
        };
        if let Some(corrupt) = corrupt {
            prop_assert!(FIELDS.contains(&corrupt.field), "{corrupt}");
            prop_assert!(!(corrupt.legal.0..=corrupt.legal.1).contains(&corrupt.value), "{corrupt}");
            prop_assert_eq!(consumer.try_read().map(drop).expect_err("it stays"), corrupt);
        }
        drop(producer);
        // However it was tampered with, the look at it ends, and a successor goes on where it says or not at all.
        let left = consumer.check_left();
        match Producer::attach(memory.clone()) {
            Ok(mut successor) => {
                if let Ok(end) = left {
                    prop_assert_eq!(successor.position(), end);
                }
                let bytes = [1; 8];
                match successor.try_push(header(&bytes), &bytes) {
                    Ok(()) | Err(ReserveError::Full { .. } | ReserveError::Corrupt(_)) => {}
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            Err(AttachError::Corrupt(corrupt)) => {
                let known = ["head", "tail"].contains(&corrupt.field) || FIELDS.contains(&corrupt.field);
                prop_assert!(known, "{corrupt}");
            },
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
    }
}

const FIELDS: [&str; 5] = [
    "payload_len",
    "topic_id",
    "padding room",
    "padding payload_len",
    "padding topic_id",
];

/// Words near to legal ones and words of any kind.
fn tampered_word() -> impl Strategy<Value = u64> {
    let plausible = (0..1100_u32, 0..3_u16, 0..2_u16).prop_map(|(payload_len, topic_id, flags)| {
        FrameHeader {
            payload_len,
            topic_id,
            flags,
        }
        .to_word()
    });
    prop_oneof![3 => plausible, 1 => any::<u64>(), 1 => Just(0)]
}
