//! Frames that become visible together, and frames that are released together.

use super::*;
use crate::error::BatchError;

const ALL: BatchLimit = BatchLimit {
    bytes: usize::MAX,
    frames: usize::MAX,
};

fn contents(batch: &ReadBatch<'_>) -> Vec<Vec<u8>> {
    batch
        .iter()
        .map(|frame| frame.expect("sound ring").to_vec())
        .collect()
}

/// A ring whose next record starts `room` bytes before the end of the data area.
fn ring_near_its_end(room: usize) -> (RingMemory, Producer, Consumer) {
    let (memory, mut producer, mut consumer) = ring();
    while (producer.position() as usize) < RING_CAPACITY_MIN - room {
        let left = RING_CAPACITY_MIN - room - producer.position() as usize;
        let bytes = vec![3; left.min(512) - 8];
        producer.try_push(header(&bytes), &bytes).expect("room");
        read(&mut consumer).expect("a frame");
    }
    consumer.publish_head();
    (memory, producer, consumer)
}

#[test]
fn nothing_of_a_batch_shows_before_its_commit_and_all_of_it_after() {
    // Somewhere in the batch is the end of the data area, in front of each of its frames once.
    let step = if cfg!(miri) { 40 } else { 8 };
    for room in (0..200).step_by(step) {
        let (_, mut producer, mut consumer) = ring_near_its_end(room);
        let mut batch = producer.batch();
        let frames: Vec<_> = (1..6)
            .map(|seed| payload(seed, seed as usize * 9))
            .collect();
        for bytes in &frames {
            batch.try_push(header(bytes), bytes).expect("room");
            assert!(consumer.is_empty(), "room={room}");
        }
        assert_eq!(batch.len(), 5);
        batch.commit();
        let read_batch = consumer.read_batch(ALL).expect("sound").expect("frames");
        assert_eq!(contents(&read_batch), frames, "room={room}");
        read_batch.release();
        assert_eq!(consumer.position(), producer.position());
        assert!(consumer.is_empty());
    }
}

#[test]
fn a_batch_that_is_not_committed_leaves_nothing_behind_for_anybody() {
    for room in [0, 40, 2000] {
        let (memory, mut producer, mut consumer) = ring_near_its_end(room);
        let start = producer.position();
        let mut batch = producer.batch();
        for seed in 1..8 {
            let bytes = payload(seed, 30);
            batch.try_push(header(&bytes), &bytes).expect("room");
        }
        drop(batch);
        assert!(consumer.is_empty());
        drop(producer);
        // A successor finds what a crash in mid-batch leaves, which is the same memory.
        let mut successor = Producer::attach(memory).expect("sound");
        assert_eq!(successor.position(), start, "room={room}");
        successor
            .try_push(FrameHeader::new(TOPIC, 4), b"next")
            .expect("room");
        assert_eq!(read(&mut consumer).as_deref(), Some(&b"next"[..]));
        assert!(read(&mut consumer).is_none());
    }
}

#[test]
fn a_reservation_dropped_in_a_batch_leaves_the_batch_as_it_was() {
    let (_, mut producer, mut consumer) = ring();
    let mut batch = producer.batch();
    batch
        .try_push(FrameHeader::new(TOPIC, 1), b"a")
        .expect("room");
    let mut dropped = batch
        .try_reserve(FrameHeader::new(TOPIC, 100))
        .expect("room");
    dropped.copy_from_slice(&[0xFF; 100]);
    dropped.abort();
    let mut shrunk = batch
        .try_reserve(FrameHeader::new(TOPIC, 100))
        .expect("room");
    shrunk.write_at(0, b"b");
    shrunk.commit_len(1);
    assert_eq!((batch.len(), batch.batch_len()), (2, 32));
    batch.commit();
    let batch = consumer.read_batch(ALL).expect("sound").expect("frames");
    assert_eq!(contents(&batch), [b"a", b"b"]);
}

#[test]
fn an_empty_batch_commits_nothing() {
    let (_, mut producer, consumer) = ring();
    let batch = producer.batch();
    assert!(batch.is_empty());
    batch.commit();
    assert!(consumer.is_empty());
    assert_eq!(producer.position(), 0);
}

#[test]
fn a_batch_waits_for_room_or_is_too_long_for_any() {
    let (_, mut producer, mut consumer) = ring();
    let bytes = [8; 904];
    producer
        .try_push(FrameHeader::new(TOPIC, 1000), &[7; 1000])
        .expect("room");
    let mut batch = producer.batch();
    for _ in 0..3 {
        batch.try_push(header(&bytes), &bytes).expect("room");
    }
    let error = batch.try_push(header(&bytes), &bytes).expect_err("full");
    let padding = 4096 - 1008 - 3 * 912;
    assert_eq!(
        error,
        BatchError::Reserve(ReserveError::Full {
            needed: padding + 912 + 8,
            free: padding
        })
    );
    // Room comes while the batch is open, and the batch does not show.
    assert_eq!(read(&mut consumer), Some(vec![7; 1000]));
    assert_eq!(read(&mut consumer), None);
    batch.try_push(header(&bytes), &bytes).expect("room");
    let error = batch.try_push(header(&bytes), &bytes).expect_err("never");
    let batch_len = padding + 4 * 912;
    assert_eq!(
        error,
        BatchError::TooLong {
            batch_len,
            needed: 920,
            capacity: RING_CAPACITY_MIN
        }
    );
    assert_eq!((batch.len(), batch.batch_len()), (4, batch_len));
    batch.commit();
    for _ in 0..4 {
        assert_eq!(read(&mut consumer).as_deref(), Some(&bytes[..]));
    }
    assert!(consumer.is_empty());
}

#[test]
fn a_successor_walks_over_a_whole_batch_whose_tail_was_lost() {
    let (memory, mut producer, mut consumer) = ring_near_its_end(100);
    let tail = producer.position();
    let mut batch = producer.batch();
    for seed in 0..50 {
        let bytes = payload(seed, 50);
        batch.try_push(header(&bytes), &bytes).expect("room");
    }
    batch.commit();
    let end = producer.position();
    drop(producer);
    memory.tail().store(tail, Ordering::Relaxed);
    assert_eq!(memory.check_positions(), Ok(()));
    assert_eq!(
        Producer::attach(memory.clone()).expect("sound").position(),
        end
    );
    // The same after the consumer has released all of it.
    while read(&mut consumer).is_some() {}
    memory.tail().store(tail, Ordering::Relaxed);
    assert_eq!(memory.check_positions(), Ok(()));
    assert_eq!(Producer::attach(memory).expect("sound").position(), end);
}

#[test]
fn a_read_batch_keeps_to_its_limits_and_passes_what_was_taken_only() {
    let (memory, mut producer, mut consumer) = ring();
    for seed in 0..10 {
        let bytes = payload(seed, 24);
        producer.try_push(header(&bytes), &bytes).expect("room");
    }
    let mut taken = |bytes, frames| {
        let batch = consumer
            .read_batch(BatchLimit { bytes, frames })
            .expect("sound")
            .expect("frames");
        contents(&batch).len()
    };
    assert_eq!(taken(usize::MAX, 3), 3);
    assert_eq!(taken(64, usize::MAX), 2);
    assert_eq!(taken(95, usize::MAX), 2);
    assert_eq!(taken(0, 0), 1, "the first frame is always taken");
    let batch = consumer.read_batch(ALL).expect("sound").expect("frames");
    assert_eq!(
        batch.take().expect("sound").expect("a frame").to_vec(),
        payload(8, 24)
    );
    assert_eq!((batch.taken(), batch.taken_bytes()), (1, 32));
    batch.release();
    assert_eq!(read(&mut consumer), Some(payload(9, 24)));
    assert!(consumer.read_batch(ALL).expect("sound").is_none());
    assert_eq!(
        memory.head().load(Ordering::Relaxed),
        320,
        "finding the ring empty publishes the head"
    );
}

#[test]
fn frames_of_a_read_batch_stay_valid_and_unacknowledged_until_its_release() {
    let (memory, mut producer, mut consumer) = ring();
    for seed in 0..30 {
        let bytes = payload(seed, 100);
        producer.try_push(header(&bytes), &bytes).expect("room");
    }
    let batch = consumer.read_batch(ALL).expect("sound").expect("frames");
    let frames: Vec<_> = batch.iter().collect::<Result<_, _>>().expect("sound");
    assert_eq!(memory.head().load(Ordering::Relaxed), 0);
    while producer
        .try_push(FrameHeader::new(TOPIC, 100), &[1; 100])
        .is_ok()
    {}
    for (seed, frame) in frames.iter().enumerate() {
        assert_eq!(frame.to_vec(), payload(seed as u64, 100));
    }
    batch.release();
    assert_eq!(memory.head().load(Ordering::Relaxed), 30 * 112);
}

#[test]
fn a_corrupt_word_in_mid_batch_is_named_once_and_what_is_before_it_is_passed() {
    let (memory, mut producer, mut consumer) = ring();
    for seed in 0..3 {
        let bytes = payload(seed, 8);
        producer.try_push(header(&bytes), &bytes).expect("room");
    }
    memory
        .word(32)
        .store(u64::from(u32::MAX) | 5 << 32, Ordering::Relaxed);
    let batch = consumer.read_batch(ALL).expect("sound").expect("frames");
    let results: Vec<_> = batch
        .iter()
        .map(|frame| frame.map(|frame| frame.to_vec()))
        .collect();
    let [Ok(_), Ok(_), Err(corrupt)] = &results[..] else {
        panic!("{results:?}");
    };
    assert_eq!((corrupt.field, corrupt.position), ("payload_len", 32));
    batch.release();
    assert_eq!(consumer.position(), 32);
    assert_eq!(consumer.try_read().expect_err("still corrupt").position, 32);
}
