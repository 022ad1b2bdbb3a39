//! The ring at its edges, and across two threads.

use super::*;
use crate::error::{AttachError, ReserveError};
use crate::frame::{FrameHeader, record_len};
use crate::layout::RING_CAPACITY_MIN;
use crate::sync::Ordering;

mod batches;
mod left;
mod model;
mod recall;
mod reservations;

const TOPIC: u16 = 1001;

fn ring() -> (RingMemory, Producer, Consumer) {
    let memory = RingMemory::heap(RING_CAPACITY_MIN).expect("heap ring");
    let producer = Producer::attach(memory.clone()).expect("producer");
    let consumer = Consumer::attach(memory.clone()).expect("consumer");
    (memory, producer, consumer)
}

fn header(payload: &[u8]) -> FrameHeader {
    FrameHeader::new(TOPIC, payload.len() as u32)
}

fn payload(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (seed.wrapping_mul(31).wrapping_add(i * 7) % 251) as u8 + 1)
        .collect()
}

fn read(consumer: &mut Consumer) -> Option<Vec<u8>> {
    let guard = consumer.try_read().expect("sound ring")?;
    Some(guard.frame().to_vec())
}

#[test]
fn a_committed_frame_is_read_once_with_its_header_and_payload() {
    let (_, mut producer, mut consumer) = ring();
    assert!(read(&mut consumer).is_none());
    producer
        .try_push(FrameHeader::new(1234, 5), b"hello")
        .expect("room");
    let guard = consumer.try_read().expect("sound").expect("a frame");
    assert_eq!(guard.frame().topic_id(), 1234);
    assert_eq!(guard.frame().to_vec(), b"hello");
    drop(guard);
    assert!(read(&mut consumer).is_none());
}

#[test]
fn an_aborted_reservation_leaves_nothing_behind() {
    let (_, mut producer, mut consumer) = ring();
    let mut reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 8))
        .expect("room");
    reservation.copy_from_slice(&[0xFF; 8]);
    reservation.abort();
    drop(
        producer
            .try_reserve(FrameHeader::new(TOPIC, 1000))
            .expect("room"),
    );
    assert_eq!(producer.position(), 0);
    assert!(read(&mut consumer).is_none());
    producer
        .try_push(FrameHeader::new(TOPIC, 2), b"ok")
        .expect("room");
    assert_eq!(read(&mut consumer).as_deref(), Some(&b"ok"[..]));
}

#[test]
fn padding_bytes_behind_an_odd_payload_are_zero() {
    let (memory, mut producer, mut consumer) = ring();
    for _ in 0..3 * RING_CAPACITY_MIN / 16 {
        producer
            .try_push(FrameHeader::new(TOPIC, 8), &[0xFF; 8])
            .expect("room");
        read(&mut consumer).expect("a frame");
    }
    let index = producer.position() as usize % RING_CAPACITY_MIN;
    producer
        .try_push(FrameHeader::new(TOPIC, 3), &[0xFF; 3])
        .expect("room");
    assert_eq!(memory.word(index + 8).load(Ordering::Relaxed), 0xFF_FFFF);
}

#[test]
fn a_full_ring_names_its_numbers_and_takes_more_after_a_release() {
    let (_, mut producer, mut consumer) = ring();
    let bytes = payload(1, 1000);
    let mut sent = 0;
    let error = loop {
        match producer.try_push(header(&bytes), &bytes) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(sent, 4);
    assert_eq!(
        error,
        ReserveError::Full {
            needed: 64 + 1008 + 8,
            free: 64
        }
    );
    assert!(!producer.has_room(1000).expect("sound"));
    for _ in 0..2 {
        read(&mut consumer).expect("a frame");
    }
    assert!(producer.has_room(1000).expect("sound"));
}

#[test]
fn too_large_a_payload_and_reserved_topics_are_refused_before_anything_is_written() {
    let (memory, mut producer, _consumer) = ring();
    let max_payload = producer.max_payload();
    assert_eq!(max_payload, RING_CAPACITY_MIN / 4 - 8);
    let header = FrameHeader::new(TOPIC, max_payload as u32 + 1);
    let error = producer.try_reserve(header).expect_err("too large");
    assert_eq!(
        error,
        ReserveError::TooLarge {
            payload_len: max_payload + 1,
            max_payload
        }
    );
    assert!(
        error
            .to_string()
            .contains("payload_len=1017 max_payload=1016"),
        "{error}"
    );
    let error = producer
        .try_reserve(FrameHeader::new(0, 8))
        .expect_err("topic 0");
    assert_eq!(
        error,
        ReserveError::ReservedTopic {
            topic_id: 0,
            flags: 0
        }
    );
    assert_eq!(memory.word(0).load(Ordering::Relaxed), 0);
}

#[test]
fn the_head_lags_at_most_an_eighth_and_is_published_when_the_ring_is_found_empty() {
    let (memory, mut producer, mut consumer) = ring();
    for _ in 0..10 {
        producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .expect("room");
    }
    for released in 1..=10_u64 {
        read(&mut consumer).expect("a frame");
        let lag = released * 64 - memory.head().load(Ordering::Relaxed);
        assert!(lag < RING_CAPACITY_MIN as u64 / 8, "lag={lag}");
    }
    assert!(memory.head().load(Ordering::Relaxed) < 640);
    assert!(read(&mut consumer).is_none());
    assert_eq!(memory.head().load(Ordering::Relaxed), 640);
}

#[test]
fn manual_acknowledgement_keeps_the_head_until_it_is_told() {
    let (memory, mut producer, mut consumer) = ring();
    consumer.set_manual_ack(true);
    for _ in 0..20 {
        producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .expect("room");
        read(&mut consumer).expect("a frame");
    }
    assert!(read(&mut consumer).is_none());
    consumer.arm();
    assert_eq!(memory.head().load(Ordering::Relaxed), 0);
    consumer.acknowledge(128);
    assert_eq!(memory.head().load(Ordering::Relaxed), 128);
    drop(consumer);
    let successor = Consumer::attach(memory).expect("free again");
    assert_eq!(successor.position(), 128);
}

#[test]
fn a_second_producer_or_consumer_is_refused_until_the_first_is_dropped() {
    let (memory, producer, consumer) = ring();
    let error = Producer::attach(memory.clone()).expect_err("taken");
    assert_eq!(error, AttachError::Taken { end: "producer" });
    assert_eq!(
        Consumer::attach(memory.clone()).expect_err("taken"),
        AttachError::Taken { end: "consumer" }
    );
    drop((producer, consumer));
    Producer::attach(memory.clone()).expect("free");
    Consumer::attach(memory).expect("free");
}

#[test]
fn a_wakeup_is_due_once_per_declaration() {
    let (_, mut producer, mut consumer) = ring();
    assert!(!producer.wakeup_due());
    consumer.arm();
    assert!(consumer.is_armed());
    producer
        .try_push(FrameHeader::new(TOPIC, 0), &[])
        .expect("room");
    assert!(producer.wakeup_due());
    assert!(!producer.wakeup_due());
    assert!(!consumer.is_armed());

    producer.arm_room();
    read(&mut consumer).expect("a frame");
    let _ = consumer.peek().expect("sound");
    assert!(consumer.wakeup_due());
    assert!(!consumer.wakeup_due());
    producer.disarm_room();
}

#[test]
fn a_successor_checks_the_parked_flag_once_although_it_moved_nothing() {
    let (memory, mut producer, consumer) = ring();
    producer.arm_room();
    drop(consumer);
    let mut successor = Consumer::attach(memory).expect("free");
    assert!(
        successor.wakeup_due(),
        "the predecessor may have died before it woke the producer"
    );
    assert!(!producer.wakeup_due());
}

#[test]
fn a_producer_resumes_behind_the_last_commit_even_if_the_tail_lags() {
    for lag in 0..3_u64 {
        let (memory, mut producer, mut consumer) = ring();
        // Get near the end, so that the lagging records include padding.
        for _ in 0..60 {
            producer
                .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
                .expect("room");
            read(&mut consumer).expect("a frame");
        }
        let mut positions = vec![producer.position()];
        for seed in 0..3 {
            let bytes = payload(seed, 90);
            producer.try_push(header(&bytes), &bytes).expect("room");
            positions.push(producer.position());
        }
        let end = producer.position();
        drop(producer);
        memory
            .tail()
            .store(positions[3 - lag as usize], Ordering::Relaxed);
        let mut successor = Producer::attach(memory).expect("sound");
        assert_eq!(successor.position(), end, "lag={lag}");
        successor
            .try_push(FrameHeader::new(TOPIC, 4), b"next")
            .expect("room");
        for seed in 0..3 {
            assert_eq!(read(&mut consumer), Some(payload(seed, 90)));
        }
        assert_eq!(read(&mut consumer).as_deref(), Some(&b"next"[..]));
    }
}

#[test]
fn a_producer_resumes_at_the_head_if_even_the_tail_of_a_released_record_was_lost() {
    let (memory, mut producer, mut consumer) = ring();
    producer
        .try_push(FrameHeader::new(TOPIC, 8), &[1; 8])
        .expect("room");
    read(&mut consumer).expect("a frame");
    assert!(read(&mut consumer).is_none());
    drop(producer);
    memory.tail().store(0, Ordering::Relaxed);
    assert_eq!(Producer::attach(memory).expect("sound").position(), 16);
}

#[test]
fn every_impossible_header_word_is_named() {
    let words: [(u64, &str); 5] = [
        (
            FrameHeader {
                payload_len: 8,
                topic_id: 0,
                flags: 0,
            }
            .to_word(),
            "topic_id",
        ),
        (
            FrameHeader {
                payload_len: 1017,
                topic_id: 5,
                flags: 0,
            }
            .to_word(),
            "payload_len",
        ),
        (
            FrameHeader {
                payload_len: u32::MAX,
                topic_id: 5,
                flags: 0,
            }
            .to_word(),
            "payload_len",
        ),
        (
            FrameHeader {
                payload_len: 8,
                topic_id: 5,
                flags: 1,
            }
            .to_word(),
            "padding topic_id",
        ),
        (
            FrameHeader {
                payload_len: 8,
                topic_id: 0,
                flags: 1,
            }
            .to_word(),
            "padding room",
        ),
    ];
    for (word, field) in words {
        let (memory, _producer, mut consumer) = ring();
        memory.word(0).store(word, Ordering::Relaxed);
        let corrupt = consumer.try_read().expect_err("corrupt");
        assert_eq!(
            (corrupt.field, corrupt.word, corrupt.position),
            (field, word, 0)
        );
        assert!(corrupt.to_string().contains("legal="), "{corrupt}");
    }
}

#[test]
fn a_record_that_would_leave_the_data_area_is_corrupt() {
    let (memory, mut producer, mut consumer) = ring();
    for _ in 0..63 {
        producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .expect("room");
        read(&mut consumer).expect("a frame");
    }
    let word = FrameHeader::new(TOPIC, 57).to_word();
    memory.word(63 * 64).store(word, Ordering::Relaxed);
    let corrupt = consumer.try_read().expect_err("corrupt");
    assert_eq!(
        (corrupt.field, corrupt.value, corrupt.legal),
        ("payload_len", 57, (0, 56))
    );
}

#[test]
fn padding_has_to_fill_the_room_to_the_end() {
    let (memory, mut producer, mut consumer) = ring();
    for _ in 0..63 {
        producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .expect("room");
        read(&mut consumer).expect("a frame");
    }
    let word = FrameHeader::padding(48).to_word();
    memory.word(63 * 64).store(word, Ordering::Relaxed);
    let corrupt = consumer.try_read().expect_err("corrupt");
    assert_eq!(
        (corrupt.field, corrupt.value, corrupt.legal),
        ("padding payload_len", 40, (56, 56))
    );
}

#[test]
fn an_impossible_head_is_reported_to_the_producer() {
    for bad in [1 << 40, 64 * 70, 3] {
        let (memory, mut producer, _consumer) = ring();
        while producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .is_ok()
        {}
        memory.head().store(bad, Ordering::Relaxed);
        let error = producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .expect_err("corrupt");
        let ReserveError::Corrupt(corrupt) = error else {
            panic!("expected Corrupt, got {error}")
        };
        assert_eq!((corrupt.field, corrupt.value), ("head", bad));
    }
}

#[test]
fn impossible_positions_are_refused_at_attach() {
    let (memory, producer, consumer) = ring();
    drop((producer, consumer));
    for (head, tail) in [(0, 1 << 20), (0, 4), (12, 16), (u64::MAX - 7, 0)] {
        memory.head().store(head, Ordering::Relaxed);
        memory.tail().store(tail, Ordering::Relaxed);
        let error = Producer::attach(memory.clone()).expect_err("corrupt");
        assert!(
            matches!(error, AttachError::Corrupt(_)),
            "head={head} tail={tail}: {error}"
        );
    }
    memory.head().store(4, Ordering::Relaxed);
    assert!(matches!(
        Consumer::attach(memory),
        Err(AttachError::Corrupt(_))
    ));
}

#[test]
fn a_forwarded_frame_keeps_topic_flags_and_bytes() {
    let (_, mut first, mut middle) = ring();
    let (_, mut second, mut last) = ring();
    let header = FrameHeader::new(4242, 5).with_encoding(crate::frame::Encoding::Json);
    first.try_push(header, b"[1,2]").expect("room");
    let frame = middle.peek().expect("sound").expect("a frame");
    second.try_forward(&frame).expect("room");
    let guard = last.try_read().expect("sound").expect("a frame");
    assert_eq!(
        (guard.frame().header(), guard.frame().to_vec()),
        (header, b"[1,2]".to_vec())
    );
}

#[test]
fn two_threads_pass_every_frame_in_order_with_its_bytes() {
    let frames: u64 = if cfg!(miri) { 150 } else { 200_000 };
    let (_, mut producer, mut consumer) = ring();
    let writer = std::thread::spawn(move || {
        for seed in 0..frames {
            let bytes = payload(seed, (seed % 97) as usize);
            while producer.try_push(header(&bytes), &bytes).is_err() {
                std::thread::yield_now();
            }
        }
    });
    for seed in 0..frames {
        let bytes = loop {
            match read(&mut consumer) {
                Some(bytes) => break bytes,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(bytes, payload(seed, (seed % 97) as usize));
    }
    writer.join().expect("writer");
}
