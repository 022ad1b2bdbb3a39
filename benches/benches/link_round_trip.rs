//! How long is a round trip of 64 bytes over a link, in shared memory against the socket?
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
use shm_transport::channel::handshake::{
    Offer, OfferedTransport, fencing_with, offer, receive_hello,
};
use shm_transport::channel::{
    Channel, ConnectOptions, Fallback, LinkEnds, Transport, WaitFor, Waited,
};
use shm_transport::frame::FrameHeader;
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::Frame;
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::socket::{FillOutcome, FrameStream};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};

const TOPIC: u16 = 1001;
const PAYLOAD: [u8; 64] = [7; 64];
const RING_CAPACITY: usize = 1 << 16;

/// The other end: answers every frame with the same frame, until the channel is closed.
fn echo(stream: UnixStream, transport: Transport, wait: WaitStrategy) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = FrameStream::new(stream).expect("stream");
        let deadline = Instant::now() + Duration::from_secs(10);
        let hello = receive_hello(&mut stream, deadline).expect("hello");
        let options = SegmentOptions {
            ring_capacity: [RING_CAPACITY; 2],
            schema_digest: [0; 32],
        };
        let segment = Segment::create(&options).expect("segment");
        let (own, peer) = (
            Doorbell::new().expect("eventfd"),
            Doorbell::new().expect("eventfd"),
        );
        let fencing = fencing_with(&hello);
        let offered = Offer {
            name: "bench",
            link_id: 1,
            epoch: 1,
            spin_us: 0,
            max_payload: 1024,
            ack_window: (RING_CAPACITY / 8) as u32,
            schema_digest: [0; 32],
            settings: "{}",
            fencing,
            transport: match transport {
                Transport::Shm => OfferedTransport::Shm {
                    segment: segment.fd(),
                    bridge_doorbell: own.as_fd(),
                    peer_doorbell: peer.as_fd(),
                },
                Transport::Socket => OfferedTransport::Socket(Fallback::requested("the benchmark")),
            },
        };
        offer(&mut stream, &offered, deadline).expect("attached");
        match transport {
            Transport::Shm => {
                let (read, write) = (segment.ring(RING_TO_BRIDGE), segment.ring(RING_TO_PEER));
                let ends = LinkEnds::attach(read, write, own, peer, fencing).expect("attach");
                echo_rings(ends, &stream, wait);
            }
            Transport::Socket => echo_stream(stream),
        }
    })
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
    stream.expect_data(1024);
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

fn round_trip(channel: &mut Channel) {
    channel
        .publish_frame(&Frame::new(TOPIC, &PAYLOAD), None)
        .expect("room");
    let frame = channel
        .recv(Some(Duration::from_secs(10)))
        .expect("an answer");
    assert_eq!(frame.payload_len(), PAYLOAD.len());
}

fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip of 64 B");
    let spin = WaitStrategy::Hybrid { spin_us: 10_000 };
    for (name, transport, wait) in [
        ("shm, spin", Transport::Shm, spin),
        ("shm, park", Transport::Shm, WaitStrategy::Park),
        ("socket", Transport::Socket, WaitStrategy::Park),
    ] {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let other = echo(theirs, transport, wait);
        let mut options = ConnectOptions::default();
        options.wait = Some(wait);
        let mut channel = Channel::from_stream(ours, &options).expect("handshake");
        assert_eq!(channel.transport(), transport);
        for _ in 0..1000 {
            round_trip(&mut channel);
        }
        group.bench_function(name, |bencher| bencher.iter(|| round_trip(&mut channel)));
        drop(channel);
        other.join().expect("the other end");
    }
    group.finish();
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
