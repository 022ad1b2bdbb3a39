//! What does a frame cost that goes through a ring on one thread, against a copy of its bytes?
//!
//! No other core takes part, so this is the ring's own work and not the hand-over of a cache line.

#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shm_transport::frame::FrameHeader;
use shm_transport::ring::{Consumer, Producer, RingMemory};

const TOPIC: u16 = 1001;

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
    for payload_len in [8, 64, 1024, 16 * 1024] {
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

criterion_group!(benches, push_and_read);
criterion_main!(benches);
