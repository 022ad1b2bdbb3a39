//! What a peer that is gone has left, in order and out of it.

use super::*;

/// A ring of which some frames are passed and acknowledged, some passed, and some not read; all of 16 bytes.
fn used() -> (RingMemory, Producer, Consumer) {
    let (memory, mut producer, mut consumer) = ring();
    for number in 0..20_u64 {
        let bytes = number.to_le_bytes();
        producer.try_push(header(&bytes), &bytes).expect("room");
        if number < 5 {
            read(&mut consumer);
        }
        if number == 3 {
            consumer.publish_head();
        }
    }
    (memory, producer, consumer)
}

#[test]
fn a_ring_that_was_left_in_order_says_where_it_ends() {
    let (memory, producer, consumer) = used();
    assert_eq!(
        (consumer.acknowledged_position(), consumer.position()),
        (64, 80)
    );
    drop(producer);
    // Its owner may have died before it stored the last ones, or any.
    for tail in [320, 304, 80, 64, 48, 0] {
        memory.tail().store(tail, Ordering::Relaxed);
        assert_eq!(consumer.check_left(), Ok(320), "tail={tail}");
    }
    assert_eq!(consumer.committed_end(), Ok(320));
}

#[test]
fn a_tail_that_is_not_where_a_record_ends_is_named() {
    let (memory, producer, consumer) = used();
    drop(producer);
    for tail in [72, 312, 328, 336, 4096, u64::MAX] {
        memory.tail().store(tail, Ordering::Relaxed);
        let corrupt = consumer.check_left().expect_err("impossible");
        assert_eq!(
            (corrupt.field, corrupt.value, corrupt.legal),
            ("tail", tail, (64, 320))
        );
    }
}

#[test]
fn a_head_that_this_end_has_not_stored_is_named() {
    let (memory, producer, consumer) = used();
    drop(producer);
    for head in [0, 56, 72, 80, 320, u64::MAX] {
        memory.head().store(head, Ordering::Relaxed);
        let corrupt = consumer.check_left().expect_err("impossible");
        assert_eq!(
            (corrupt.field, corrupt.value, corrupt.legal),
            ("head", head, (64, 64))
        );
    }
}

#[test]
fn a_ring_whose_records_go_round_for_ever_is_named() {
    let (memory, _producer, mut consumer) = used();
    let record = FrameHeader::new(TOPIC, 8).to_word();
    for index in (0..memory.capacity()).step_by(16) {
        memory.word(index).store(record, Ordering::Relaxed);
    }
    for outcome in [consumer.committed_end(), consumer.check_left()] {
        let corrupt = outcome.expect_err("no end");
        assert_eq!(
            (corrupt.field, corrupt.value, corrupt.legal),
            ("header word", record, (0, 0))
        );
    }
    // The consumer itself would go on.
    for _ in 0..1000 {
        assert!(read(&mut consumer).is_some());
    }
}

#[test]
fn a_head_inside_of_a_record_is_named_to_the_producer() {
    let (memory, mut producer, consumer) = used();
    drop(consumer);
    for head in [64, 80, 320] {
        memory.head().store(head, Ordering::Relaxed);
        assert_eq!(producer.check_left(), Ok(()), "head={head}");
    }
    let (memory, mut producer, consumer) = used();
    drop(consumer);
    // The payload there is the number 4, which as a header is a frame without a topic.
    memory.head().store(72, Ordering::Relaxed);
    let corrupt = producer.check_left().expect_err("impossible");
    assert_eq!((corrupt.field, corrupt.position), ("topic_id", 72));
    // The number 0 would say that nothing is there.
    let (memory, mut producer, consumer) = ring_with_zeros();
    drop(consumer);
    memory.head().store(8, Ordering::Relaxed);
    let corrupt = producer.check_left().expect_err("impossible");
    assert_eq!(
        (corrupt.field, corrupt.value, corrupt.position),
        ("head", 8, 8)
    );
}

fn ring_with_zeros() -> (RingMemory, Producer, Consumer) {
    let (memory, mut producer, consumer) = ring();
    for _ in 0..3 {
        producer.try_push(header(&[0; 8]), &[0; 8]).expect("room");
    }
    (memory, producer, consumer)
}
