//! How long is a round trip over a link, in shared memory against the socket?
//!
//! Both ends are [`Channel`]-level code on two threads of one process, connected through the real handshake over a
//! socket pair. `spin` polls for up to 10 ms before it sleeps, so over shared memory it makes no system call; `park`
//! sleeps at once on both sides. The socket always sleeps in the kernel. On a machine with one core only `park` means
//! anything.

#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use mycelium_benches::carriers::TOPIC;
use mycelium_benches::carriers::bridge::{Accepted, accept};
use shm_transport::channel::{
    Channel, ConnectOptions, LinkEnds, Transport, TransportRequest, WaitFor, Waited,
};
use shm_transport::frame::FrameHeader;
use shm_transport::ring::Frame;
use shm_transport::socket::{FillOutcome, FrameStream};
use shm_transport::wakeup::{SpinBudget, WaitStrategy};

/// The longest payload that is measured, in bytes.
const PAYLOAD_MAX: usize = 4096;

/// The other end: answers every frame with the same frame, until the channel is closed.
fn echo(stream: UnixStream, wait: WaitStrategy) -> JoinHandle<()> {
    std::thread::spawn(
        move || match accept(stream, PAYLOAD_MAX).expect("attached") {
            Accepted::Rings(ends, stream) => echo_rings(*ends, &stream, wait),
            Accepted::Stream(stream) => echo_stream(stream),
        },
    )
}

fn echo_rings(mut ends: LinkEnds, control: &FrameStream, wait: WaitStrategy) {
    let mut spin = SpinBudget::new(wait);
    while ends
        .wait(&mut spin, WaitFor::Frame, None, Some(control.as_fd()))
        .expect("sound")
        == Waited::Ready
    {
        let payload = ends.peek().expect("sound").expect("a frame").to_vec();
        ends.try_publish(&Frame::new(TOPIC, &payload))
            .expect("room");
        ends.advance();
    }
}

fn echo_stream(mut stream: FrameStream) {
    loop {
        while let Some(frame) = stream.peek().expect("sound") {
            let (header, payload) = (frame.header(), frame.to_vec());
            stream.advance(header.record_len());
            if !header.is_control() {
                stream.queue(FrameHeader::new(TOPIC, header.payload_len), &payload);
            }
        }
        if stream
            .flush_until(Instant::now() + Duration::from_secs(10))
            .is_err()
        {
            return;
        }
        match stream.receive_until(Instant::now() + Duration::from_secs(10)) {
            Ok((header, _)) if header.is_control() => {}
            Ok((header, payload)) => stream.queue(header, &payload),
            Err(_) => return,
        }
        if matches!(stream.fill(), Ok(FillOutcome::HangUp) | Err(_)) {
            return;
        }
    }
}

/// What comes back has to be what was sent.
fn round_trip(channel: &mut Channel, payload: &[u8], received: &mut Vec<u8>) {
    channel
        .publish_frame(&Frame::new(TOPIC, payload), None)
        .expect("room");
    let frame = channel
        .recv(Some(Duration::from_secs(10)))
        .expect("an answer");
    received.clear();
    frame.append_to(received);
}

fn round_trips(criterion: &mut Criterion) {
    let spin = WaitStrategy::Hybrid { spin_us: 10_000 };
    for payload_len in [64, PAYLOAD_MAX] {
        let mut group = criterion.benchmark_group(format!("round trip of {payload_len} B"));
        let payload: Vec<u8> = (0..payload_len).map(|at| at as u8).collect();
        let mut received = Vec::with_capacity(payload_len);
        for (name, transport, request, wait) in [
            ("shm, spin", Transport::Shm, TransportRequest::Shm, spin),
            (
                "shm, park",
                Transport::Shm,
                TransportRequest::Shm,
                WaitStrategy::Park,
            ),
            (
                "socket",
                Transport::Socket,
                TransportRequest::Socket,
                WaitStrategy::Park,
            ),
        ] {
            let (ours, theirs) = UnixStream::pair().expect("socketpair");
            let other = echo(theirs, wait);
            let options = ConnectOptions {
                wait: Some(wait),
                ..ConnectOptions::default().over(request)
            };
            let mut channel = Channel::from_stream(ours, &options).expect("handshake");
            assert_eq!(channel.transport(), transport);
            for _ in 0..1000 {
                round_trip(&mut channel, &payload, &mut received);
                assert_eq!(received, payload);
            }
            group.bench_function(name, |bencher| {
                bencher.iter(|| round_trip(&mut channel, &payload, &mut received));
            });
            assert_eq!(received, payload);
            drop(channel);
            other.join().expect("the other end");
        }
        group.finish();
    }
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
