//! What was committed and not acknowledged, taken back.

use super::*;

/// Frames of lengths that differ, so that padding comes into it; each begins with its number.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; 8 + (number * 37 % 700) as usize];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

#[test]
fn what_is_recalled_is_what_was_not_acknowledged_and_the_ring_goes_on() {
    let memory = RingMemory::heap(4096).expect("heap");
    let mut producer = Producer::attach(memory.clone()).expect("producer");
    let mut published = 0;
    let mut next = 0;
    let rounds = if cfg!(miri) { 12 } else { 200 };
    for round in 0..rounds {
        let mut consumer = Consumer::attach(memory.clone()).expect("the one before is gone");
        while producer
            .try_push(
                FrameHeader::new(1001, payload(published).len() as u32),
                &payload(published),
            )
            .is_ok()
        {
            published += 1;
        }
        // Some are handled and acknowledged, one more is in hand.
        for _ in 0..round % 4 {
            if let Some(frame) = consumer.peek().expect("sound") {
                assert_eq!(frame.to_vec(), payload(next));
                consumer.advance();
                next += 1;
            }
        }
        consumer.publish_head();
        let _ = consumer.peek().expect("sound");
        drop(consumer);

        let mut lengths = Vec::new();
        let shown = memory.unreleased(|header| lengths.push(header.payload_len as usize));
        shown.expect("sound");
        let mut kept = Vec::new();
        let count = producer
            .recall(|frame| kept.push(frame.to_vec()))
            .expect("sound");
        assert_eq!(count, kept.len());
        let expected: Vec<_> = (next..published).map(payload).collect();
        assert_eq!(kept, expected, "round={round}");
        assert!(lengths.into_iter().eq(kept.iter().map(Vec::len)));
        assert_eq!(memory.unreleased(|_| panic!("it is empty")), Ok(()));
        assert!(producer.is_empty().expect("sound"));
        assert_eq!(memory.committed_end().expect("sound"), producer.position());
        // A successor finds nothing, and what is put in again comes as it was.
        let mut successor = Consumer::attach(memory.clone()).expect("consumer");
        assert!(successor.peek().expect("sound").is_none());
        drop(successor);
        for payload in kept.iter().take(3) {
            let header = FrameHeader::new(1001, payload.len() as u32);
            producer
                .try_push(header, payload)
                .expect("it was in the ring before");
        }
        published = published.min(next + 3);
    }
    assert!(next > rounds, "next={next}");
}

#[test]
fn a_ring_that_was_overwritten_is_not_recalled() {
    let memory = RingMemory::heap(4096).expect("heap");
    let mut producer = Producer::attach(memory.clone()).expect("producer");
    for number in 0..3 {
        let payload = payload(number);
        let header = FrameHeader::new(1001, payload.len() as u32);
        producer.try_push(header, &payload).expect("room");
    }
    let second = FrameHeader::new(1001, payload(0).len() as u32).record_len();
    for word in [0, u64::MAX] {
        memory.word(second).store(word, Ordering::Relaxed);
        let corrupt = producer
            .recall(|_| ())
            .expect_err("the second header is none");
        assert_eq!((corrupt.position, corrupt.word), (second as u64, word));
    }
}

#[test]
fn a_part_of_a_payload_is_cut_to_what_is_there() {
    let frame = Frame::new(1001, b"EUR/USD");
    let mut buffer = b"=".to_vec();
    frame.append_part_to(4, 3, &mut buffer);
    frame.append_part_to(0, 3, &mut buffer);
    frame.append_part_to(5, 100, &mut buffer);
    frame.append_part_to(100, 5, &mut buffer);
    assert_eq!(buffer, b"=USDEURSD");
}
