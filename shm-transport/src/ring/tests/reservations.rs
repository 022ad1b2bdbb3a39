//! Writing in place: parts, shrinking, `io::Write`.

use std::io::{ErrorKind, Write as _};

use super::*;

fn bytes_read(consumer: &mut Consumer) -> Option<bytes::Bytes> {
    let guard = consumer.try_read().expect("sound ring")?;
    Some(guard.frame().to_bytes())
}

#[test]
fn a_shrunk_reservation_commits_its_first_bytes_and_zeroes_up_to_the_next_record() {
    for keep in [0, 1, 7, 8, 9, 15, 16, 20] {
        let (memory, mut producer, mut consumer) = ring();
        // What an older lap left there must not show in the padding.
        for index in (8..64).step_by(8) {
            memory.word(index).store(u64::MAX, Ordering::Relaxed);
        }
        let mut reservation = producer
            .try_reserve(FrameHeader::new(TOPIC, 20))
            .expect("room");
        reservation.write_at(0, &[0xAA; 20]);
        reservation.commit_len(keep);
        assert_eq!(producer.position(), record_len(keep) as u64);
        let padding = (8 + keep..record_len(keep)).map(|offset| {
            let word = memory.word(offset & !7).load(Ordering::Relaxed);
            word.to_le_bytes()[offset % 8]
        });
        assert_eq!(padding.filter(|byte| *byte != 0).count(), 0, "keep={keep}");
        assert_eq!(
            bytes_read(&mut consumer).expect("a frame"),
            vec![0xAA; keep]
        );
        producer
            .try_push(FrameHeader::new(TOPIC, 3), b"end")
            .expect("room");
        assert_eq!(bytes_read(&mut consumer).expect("a frame"), &b"end"[..]);
    }
}

#[test]
fn a_frame_written_in_parts_has_zeroes_behind_it_too() {
    let (memory, mut producer, mut consumer) = ring();
    memory.word(8).store(u64::MAX, Ordering::Relaxed);
    let mut reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 5))
        .expect("room");
    reservation.write_at(3, b"lo");
    reservation.write_at(0, b"hel");
    reservation.commit();
    assert_eq!(bytes_read(&mut consumer).expect("a frame"), &b"hello"[..]);
    assert_eq!(
        memory.word(8).load(Ordering::Relaxed).to_le_bytes(),
        *b"hello\0\0\0"
    );
}

#[test]
fn what_is_written_is_what_is_committed_and_too_much_is_an_error() {
    let (_, mut producer, mut consumer) = ring();
    let mut reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 12))
        .expect("room");
    write!(reservation, "{}-{}", 17, 4).expect("fits");
    assert_eq!((reservation.written(), reservation.payload_len()), (4, 12));
    let error = reservation.write_all(&[1; 9]).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::WriteZero);
    reservation.abort();

    let mut reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 12))
        .expect("room");
    reservation.write_all(b"short").expect("fits");
    reservation.commit_written();
    assert_eq!(bytes_read(&mut consumer).expect("a frame"), &b"short"[..]);
    assert!(bytes_read(&mut consumer).is_none());
}

#[test]
fn a_shrunk_frame_behind_padding_stays_behind_it() {
    let (_, mut producer, mut consumer) = ring();
    for _ in 0..63 {
        producer
            .try_push(FrameHeader::new(TOPIC, 56), &[7; 56])
            .expect("room");
        read(&mut consumer).expect("a frame");
    }
    // 64 bytes are left before the end: 100 do not fit there, although the 3 that are kept would.
    let reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 100))
        .expect("room");
    reservation.commit_len(0);
    assert_eq!(producer.position(), RING_CAPACITY_MIN as u64 + 8);
    assert_eq!(read(&mut consumer).as_deref(), Some(&[][..]));
    assert_eq!(consumer.position(), producer.position());
}

#[test]
#[should_panic(expected = "a reservation cannot grow: payload_len=9 reserved=8")]
fn a_reservation_does_not_grow() {
    let (_, mut producer, _consumer) = ring();
    let reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 8))
        .expect("room");
    reservation.commit_len(9);
}

#[test]
#[should_panic(expected = "part reaches over the reservation: offset=5 len=4 payload_len=8")]
fn a_part_does_not_reach_over_the_end() {
    let (_, mut producer, _consumer) = ring();
    let mut reservation = producer
        .try_reserve(FrameHeader::new(TOPIC, 8))
        .expect("room");
    reservation.write_at(5, &[0; 4]);
}

#[test]
fn occupancy_and_positions_tell_what_is_committed_passed_and_acknowledged() {
    let (_, mut producer, mut consumer) = ring();
    assert!(producer.is_empty().expect("sound") && consumer.is_empty());
    for _ in 0..3 {
        producer
            .try_push(FrameHeader::new(TOPIC, 8), &[1; 8])
            .expect("room");
    }
    assert_eq!(
        (producer.occupancy().expect("sound"), consumer.occupancy()),
        (48, 48)
    );
    read(&mut consumer).expect("a frame");
    // Passed, and not acknowledged yet: the producer still counts it.
    assert_eq!(
        (producer.occupancy().expect("sound"), consumer.occupancy()),
        (48, 32)
    );
    assert_eq!(
        (consumer.position(), consumer.acknowledged_position()),
        (16, 0)
    );
    assert!(!consumer.is_empty());
    consumer.publish_head();
    assert_eq!(producer.released_position().expect("sound"), 16);
    assert_eq!(
        (
            producer.occupancy().expect("sound"),
            consumer.acknowledged_position()
        ),
        (32, 16)
    );
}

#[test]
fn a_broken_ring_is_not_empty() {
    let (memory, _producer, consumer) = ring();
    memory.word(0).store(1, Ordering::Relaxed);
    assert!(!consumer.is_empty());
}
