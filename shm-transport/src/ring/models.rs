//! The ring under every interleaving, and every reordering that the memory model allows: `make loom`.
//!
//! The checker runs each model over and over, with another choice of who goes next and which store a load sees. A model
//! fails by a wrong value, by two payload accesses without an order between them, or by a sleep that nobody ends.
//! `LOOM_MAX_PREEMPTIONS` bounds the search: the short form in `make test` sets it, the long form searches everything.

use std::time::Duration;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::*;
use crate::error::ReserveError;
use crate::frame::FrameHeader;

const CAPACITY: usize = 64;
const TOPIC: u16 = 1001;

/// Runs a model under every interleaving.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    builder.max_duration = None::<Duration>;
    builder.check(model);
}

/// An empty ring whose next record starts at `position`.
fn ring_at(position: u64) -> (RingMemory, Producer, Consumer) {
    ring_of(CAPACITY, position)
}

fn ring_of(capacity: usize, position: u64) -> (RingMemory, Producer, Consumer) {
    let memory = RingMemory::heap(capacity).expect("a small ring");
    let mut producer = Producer::attach(memory.clone()).expect("producer");
    let mut consumer = Consumer::attach(memory.clone()).expect("consumer");
    for _ in 0..position / 8 {
        producer
            .try_push(FrameHeader::new(TOPIC, 0), &[])
            .expect("room");
        consumer.try_read().expect("sound").expect("a frame");
    }
    consumer.publish_head();
    assert_eq!(producer.released_position(), Ok(position));
    (memory, producer, consumer)
}

fn push(producer: &mut Producer, value: u64) -> Result<(), ReserveError> {
    producer.try_push(FrameHeader::new(TOPIC, 8), &value.to_le_bytes())
}

fn value_of(frame: &Frame<'_>) -> u64 {
    u64::from_le_bytes(frame.to_vec().try_into().expect("eight bytes"))
}

fn read(consumer: &mut Consumer) -> Option<u64> {
    let guard = consumer.try_read().expect("sound ring")?;
    Some(value_of(&guard.frame()))
}

/// What one side does `looks` times while the other works, and the rest when that is done.
fn read_all(consumer: &mut Consumer, looks: usize, writer: thread::JoinHandle<u64>) {
    let mut expected = 1;
    for _ in 0..looks {
        if let Some(value) = read(consumer) {
            assert_eq!(value, expected);
            expected += 1;
        }
    }
    let last = writer.join().expect("writer");
    while let Some(value) = read(consumer) {
        assert_eq!(value, expected);
        expected += 1;
    }
    assert_eq!(expected, last + 1, "every frame once");
}

#[test]
fn frames_are_read_as_they_were_written_across_the_end_of_the_data_area() {
    check(|| {
        let (_, mut producer, mut consumer) = ring_at(48);
        let writer = thread::spawn(move || {
            push(&mut producer, 1).expect("room");
            push(&mut producer, 2).expect("room");
            2
        });
        read_all(&mut consumer, 3, writer);
    });
}

/// Long enough to be written back to front, with chunks that overlap.
#[test]
fn a_payload_of_several_words_is_read_as_it_was_written() {
    check(|| {
        let (_, mut producer, mut consumer) = ring_of(2 * CAPACITY, 96);
        let writer = thread::spawn(move || {
            for value in 1..=2_u8 {
                let payload: [u8; 24] = std::array::from_fn(|at| value * 100 + at as u8);
                producer
                    .try_push(FrameHeader::new(TOPIC, 24), &payload)
                    .expect("room");
            }
        });
        let mut next = 1;
        let mut look = |consumer: &mut Consumer| {
            let guard = consumer.try_read().expect("sound ring")?;
            let expected: [u8; 24] = std::array::from_fn(|at| next * 100 + at as u8);
            assert_eq!(guard.frame().to_vec(), expected);
            next += 1;
            Some(())
        };
        for _ in 0..3 {
            look(&mut consumer);
        }
        writer.join().expect("writer");
        while look(&mut consumer).is_some() {}
        assert_eq!(next, 3, "every frame once");
    });
}

#[test]
fn a_frame_behind_padding_is_read_as_it_was_written() {
    check(|| {
        let (_, mut producer, mut consumer) = ring_at(56);
        let writer = thread::spawn(move || {
            push(&mut producer, 1).expect("room");
            push(&mut producer, 2).expect("room");
            2
        });
        read_all(&mut consumer, 3, writer);
    });
}

/// The second push goes over payload bytes that the consumer has just read.
#[test]
fn a_full_ring_is_written_over_only_after_it_was_read() {
    check(|| {
        let (_, mut producer, mut consumer) = ring_at(0);
        for value in 1..=3 {
            push(&mut producer, value).expect("room");
        }
        let writer = thread::spawn(move || {
            let mut last = 3;
            for _ in 0..2 {
                last += u64::from(push(&mut producer, last + 1).is_ok());
            }
            last
        });
        read_all(&mut consumer, 2, writer);
    });
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    for start in [0, 40] {
        check(move || {
            let (_, mut producer, mut consumer) = ring_at(start);
            let writer = thread::spawn(move || {
                let mut batch = producer.batch();
                for value in [1_u64, 2] {
                    let header = FrameHeader::new(TOPIC, 8);
                    batch.try_push(header, &value.to_le_bytes()).expect("room");
                }
                batch.commit();
                2
            });
            let first = read(&mut consumer);
            if first.is_some() {
                assert_eq!((first, read(&mut consumer)), (Some(1), Some(2)));
                writer.join().expect("writer");
            } else {
                read_all(&mut consumer, 0, writer);
            }
        });
    }
}

#[test]
fn frames_of_a_read_batch_are_released_together() {
    let limit = BatchLimit {
        bytes: CAPACITY,
        frames: 2,
    };
    check(move || {
        let (_, mut producer, mut consumer) = ring_at(0);
        for value in 1..=3 {
            push(&mut producer, value).expect("room");
        }
        let writer = thread::spawn(move || {
            let mut last = 3;
            for _ in 0..2 {
                last += u64::from(push(&mut producer, last + 1).is_ok());
            }
            last
        });
        let batch = consumer.read_batch(limit).expect("sound").expect("frames");
        let frames: Vec<_> = batch.iter().map(|frame| frame.expect("sound")).collect();
        assert_eq!(frames.iter().map(value_of).collect::<Vec<_>>(), [1, 2]);
        batch.release();
        let last = writer.join().expect("writer");
        for value in 3..=last {
            assert_eq!(read(&mut consumer), Some(value));
        }
        assert_eq!(read(&mut consumer), None);
    });
}

#[test]
fn a_successor_of_the_producer_finds_the_last_commit_while_the_consumer_goes_on() {
    check(|| {
        let (memory, mut producer, mut consumer) = ring_at(0);
        for value in 1..=3 {
            push(&mut producer, value).expect("room");
        }
        drop(producer);
        // As a crash between a commit of all three and the store of the tail leaves it.
        memory.tail().store(0, Ordering::Relaxed);
        let successor = thread::spawn(move || {
            let mut producer = Producer::attach(memory).expect("sound");
            assert_eq!(producer.position(), 48);
            let mut last = 3;
            for _ in 0..2 {
                last += u64::from(push(&mut producer, last + 1).is_ok());
            }
            last
        });
        read_all(&mut consumer, 2, successor);
    });
}

/// A doorbell: it keeps what it is told until somebody waits.
#[derive(Clone)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn notify(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.0.0.lock().expect("no panic");
        while !*rung {
            rung = self.0.1.wait(rung).expect("no panic");
        }
        *rung = false;
    }
}

/// The consumer sleeps until there is data. Whoever misses a wakeup sleeps for ever, which the checker calls a deadlock.
fn sleep_for_data(fencing: Fencing, frames: u64) {
    let (_, mut producer, mut consumer) = ring_at(0);
    producer.set_fencing(fencing);
    let bell = Bell::new();
    let peer_bell = bell.clone();
    let writer = thread::spawn(move || {
        for value in 1..=frames {
            push(&mut producer, value).expect("room");
            if producer.wakeup_due() {
                peer_bell.notify();
            }
        }
    });
    for expected in 1..=frames {
        while consumer.is_empty() {
            consumer.arm();
            // The heavy fence.
            fence(Ordering::SeqCst);
            if consumer.is_empty() {
                bell.wait();
            }
            consumer.disarm();
        }
        assert_eq!(read(&mut consumer), Some(expected));
    }
    writer.join().expect("writer");
}

#[test]
fn no_wakeup_for_data_is_lost() {
    check(|| sleep_for_data(Fencing::Fenced, 2));
}

/// What the heavy fence alone does not do: here the light fence is left out and nothing stands in for it. The model has
/// to find the lost wakeup, or it would find none in the protocol either.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_light_fence_a_wakeup_for_data_is_lost() {
    check(|| sleep_for_data(Fencing::Asymmetric, 1));
}

/// The producer sleeps until there is room.
fn sleep_for_room(fencing: Fencing) {
    let (_, mut producer, mut consumer) = ring_at(0);
    consumer.set_fencing(fencing);
    for value in 1..=3 {
        push(&mut producer, value).expect("room");
    }
    // A successor owes a look at the flag; this consumer has paid it, so that only the release below can wake.
    assert!(!consumer.wakeup_due());
    let bell = Bell::new();
    let peer_bell = bell.clone();
    let reader = thread::spawn(move || {
        assert_eq!(read(&mut consumer), Some(1));
        if consumer.wakeup_due() {
            peer_bell.notify();
        }
        consumer
    });
    while !producer.has_room(8).expect("sound") {
        producer.arm_room();
        // The heavy fence.
        fence(Ordering::SeqCst);
        if !producer.has_room(8).expect("sound") {
            bell.wait();
        }
        producer.disarm_room();
    }
    push(&mut producer, 4).expect("room");
    let mut consumer = reader.join().expect("reader");
    assert_eq!(
        [(); 3].map(|()| read(&mut consumer)),
        [Some(2), Some(3), Some(4)]
    );
}

#[test]
fn no_wakeup_for_room_is_lost() {
    check(|| sleep_for_room(Fencing::Fenced));
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_light_fence_a_wakeup_for_room_is_lost() {
    check(|| sleep_for_room(Fencing::Asymmetric));
}

/// The pattern under all of it: each side stores its own word and then loads the other's.
fn store_buffering(fences: [bool; 2]) {
    let words = Arc::new([
        crate::sync::AtomicU64::new(0),
        crate::sync::AtomicU64::new(0),
    ]);
    let side = |own: usize| {
        let words = Arc::clone(&words);
        move || {
            words[own].store(1, Ordering::Relaxed);
            if fences[own] {
                fence(Ordering::SeqCst);
            }
            words[1 - own].load(Ordering::Relaxed)
        }
    };
    let other = thread::spawn(side(0));
    let seen = (side(1)(), other.join().expect("other side"));
    assert!(seen != (0, 0), "both sides missed each other");
}

#[test]
fn with_two_fences_not_both_sides_miss_each_other() {
    check(|| store_buffering([true, true]));
}

#[test]
#[should_panic(expected = "both sides missed each other")]
fn with_one_fence_both_sides_may_miss_each_other() {
    check(|| store_buffering([true, false]));
}
