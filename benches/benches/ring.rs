//! What does a frame cost that goes through a ring on one thread, against a copy of its bytes?
//!
//! No other core takes part, so this is the ring's own work and not the hand-over of a cache line.

#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mycelium_benches::carriers::TOPIC;
use mycelium_benches::catalog::SIZES;
use mycelium_messages::Message as _;
use mycelium_messages::bandit::Quote;
use mycelium_messages::zerocopy::IntoBytes as _;
use shm_transport::frame::FrameHeader;
use shm_transport::ring::{BatchLimit, Consumer, Producer, RingMemory};

fn ring() -> (Producer, Consumer) {
    let memory = RingMemory::heap(1 << 20).expect("heap ring");
    let producer = Producer::attach(memory.clone()).expect("producer");
    let consumer = Consumer::attach(memory).expect("consumer");
    (producer, consumer)
}

/// What goes in has to come out, or the numbers mean nothing.
fn check(payload: &[u8]) {
    let (mut producer, mut consumer) = ring();
    for _ in 0..1000 {
        producer
            .try_push(FrameHeader::new(TOPIC, payload.len() as u32), payload)
            .expect("room");
        let guard = consumer.try_read().expect("sound").expect("a frame");
        assert_eq!(guard.frame().to_vec(), payload);
    }
}

fn push_and_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push and read on one thread");
    for &payload_len in SIZES {
        let payload = vec![7_u8; payload_len];
        check(&payload);
        group.throughput(Throughput::Bytes(payload_len as u64));
        group.bench_with_input(
            BenchmarkId::new("ring", payload_len),
            &payload,
            |bencher, payload| {
                let (mut producer, mut consumer) = ring();
                let mut received = Vec::with_capacity(payload_len);
                bencher.iter(|| {
                    let header = FrameHeader::new(TOPIC, payload.len() as u32);
                    producer.try_push(header, black_box(payload)).expect("room");
                    received.clear();
                    let guard = consumer.try_read().expect("sound").expect("a frame");
                    guard.frame().append_to(&mut received);
                    black_box(&received);
                });
            },
        );
        group.bench_with_input(
            BenchmarkId::new("two copies", payload_len),
            &payload,
            |bencher, payload| {
                let mut middle = vec![0_u8; payload_len];
                let mut received = Vec::with_capacity(payload_len);
                bencher.iter(|| {
                    middle.copy_from_slice(black_box(payload));
                    received.clear();
                    received.extend_from_slice(black_box(&middle));
                    black_box(&received);
                });
            },
        );
    }
    group.finish();
}

/// Frames of a batch.
const BATCH: usize = 16;

/// One way to write frames and read them again; takes what was read, frame behind frame.
type Form = fn(&mut Producer, &mut Consumer, &Quote, &mut Vec<u8>);

fn reserve_and_commit(
    producer: &mut Producer,
    consumer: &mut Consumer,
    quote: &Quote,
    received: &mut Vec<u8>,
) {
    let header = FrameHeader::new(Quote::TOPIC_ID, size_of::<Quote>() as u32);
    for _ in 0..BATCH {
        let mut reservation = producer.try_reserve(header).expect("room");
        reservation.copy_from_slice(quote.as_bytes());
        reservation.commit();
    }
    for _ in 0..BATCH {
        let guard = consumer.try_read().expect("sound").expect("a frame");
        guard.frame().append_to(received);
    }
}

fn typed(producer: &mut Producer, consumer: &mut Consumer, quote: &Quote, received: &mut Vec<u8>) {
    for _ in 0..BATCH {
        producer.try_publish(quote).expect("room");
    }
    for _ in 0..BATCH {
        let guard = consumer.try_read().expect("sound").expect("a frame");
        let quote = guard.frame().read::<Quote>().expect("a quote");
        received.extend_from_slice(quote.as_bytes());
    }
}

fn batches(
    producer: &mut Producer,
    consumer: &mut Consumer,
    quote: &Quote,
    received: &mut Vec<u8>,
) {
    let mut batch = producer.batch();
    for _ in 0..BATCH {
        batch.try_publish(quote).expect("room");
    }
    batch.commit();
    let limit = BatchLimit {
        bytes: usize::MAX,
        frames: BATCH,
    };
    let run = consumer.read_batch(limit).expect("sound").expect("frames");
    while let Some(frame) = run.take().expect("sound") {
        frame.append_to(received);
    }
}

fn forms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("16 quotes through the ring on one thread");
    group.throughput(Throughput::Elements(BATCH as u64));
    let quote = Quote {
        bid: 1.1,
        ask: 1.2,
        ..Quote::default()
    };
    let expected = quote.as_bytes().repeat(BATCH);
    let forms: [(&str, Form); 3] = [
        ("reserve and commit", reserve_and_commit),
        ("typed messages", typed),
        ("batches", batches),
    ];
    for (name, form) in forms {
        let (mut producer, mut consumer) = ring();
        let mut received = Vec::with_capacity(expected.len());
        for _ in 0..1000 {
            received.clear();
            form(&mut producer, &mut consumer, &quote, &mut received);
            assert_eq!(received, expected, "{name}");
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                received.clear();
                form(
                    &mut producer,
                    &mut consumer,
                    black_box(&quote),
                    &mut received,
                );
                black_box(&received);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, push_and_read, forms);
criterion_main!(benches);
