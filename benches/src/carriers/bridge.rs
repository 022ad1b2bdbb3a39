//! The bridge's side of a link, as far as a measurement needs it: the handshake, and then the rings or the stream.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mycelium_bench_harness::Failure;
use mycelium_bench_harness::link::RING_BYTES;
use mycelium_messages::control::Hello;
use shm_transport::channel::handshake::{
    Offer, OfferedTransport, fencing_with, offer, peer_fallback, receive_hello,
};
use shm_transport::channel::{Fallback, LinkEnds};
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::socket::{FrameStream, Stream};
use shm_transport::wakeup::Doorbell;

/// Both sides' time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// What the bridge's side has after the handshake. The stream has to live as long as the link.
#[derive(Debug)]
pub enum Accepted {
    /// Two rings in shared memory.
    Rings(Box<LinkEnds>, FrameStream),
    /// Frames on the stream.
    Stream(FrameStream),
}

/// Answers a peer's handshake with shared memory, or with the socket if the peer asks for it.
///
/// # Errors
///
/// If the handshake fails.
pub fn accept(stream: impl Into<Stream>, max_payload: usize) -> Result<Accepted, Failure> {
    accept_with(stream, max_payload, RING_BYTES)
}

/// As [`accept`], with rings of `ring_bytes`.
///
/// # Errors
///
/// If the handshake fails.
pub fn accept_with(
    stream: impl Into<Stream>,
    max_payload: usize,
    ring_bytes: usize,
) -> Result<Accepted, Failure> {
    let (mut stream, hello) = greet(stream)?;
    let segment = segment(ring_bytes)?;
    let own = Doorbell::new().map_err(Failure::carrier("doorbell"))?;
    let (peer, part) = Doorbell::pair().map_err(Failure::carrier("doorbell"))?;
    let transport = match peer_fallback(&hello) {
        None => OfferedTransport::Shm {
            segment: segment.fd(),
            bridge_doorbell: own.as_fd(),
            peer_doorbell: part.as_fd(),
        },
        Some(fallback) => OfferedTransport::Socket(fallback),
    };
    if answer(&mut stream, &hello, max_payload, transport)?.is_some() {
        stream.expect_data(max_payload);
        return Ok(Accepted::Stream(stream));
    }
    let (read, write) = (segment.ring(RING_TO_BRIDGE), segment.ring(RING_TO_PEER));
    let ends = LinkEnds::attach(read, write, own, peer, fencing_with(&hello));
    let ends = ends.map_err(Failure::carrier("attach"))?;
    Ok(Accepted::Rings(Box::new(ends), stream))
}

/// Gives two peers the two sides of one link; their streams have to live as long as the link. One of them has to use the
/// ends that are the bridge's otherwise, which is its own business: both are told the same.
///
/// # Errors
///
/// If a handshake fails, or a peer does not use shared memory.
pub fn introduce(peers: [UnixStream; 2], max_payload: usize) -> Result<[FrameStream; 2], Failure> {
    let segment = segment(RING_BYTES)?;
    let bells = [Doorbell::new(), Doorbell::new()];
    let [Ok(first), Ok(second)] = &bells else {
        return Err(Failure::Peer("no doorbells".to_owned()));
    };
    let mut streams = Vec::with_capacity(2);
    for (peer, (rings, waits)) in peers.into_iter().zip([(first, second), (second, first)]) {
        let (mut stream, hello) = greet(peer)?;
        let transport = OfferedTransport::Shm {
            segment: segment.fd(),
            bridge_doorbell: rings.as_fd(),
            peer_doorbell: waits.as_fd(),
        };
        if let Some(fallback) = answer(&mut stream, &hello, max_payload, transport)? {
            return Err(Failure::Peer(format!("no shared memory: {fallback}")));
        }
        streams.push(stream);
    }
    let count = |streams: Vec<FrameStream>| Failure::Peer(format!("{} peers", streams.len()));
    streams.try_into().map_err(count)
}

fn segment(ring_bytes: usize) -> Result<Segment, Failure> {
    Segment::create(&SegmentOptions::new(ring_bytes)).map_err(Failure::carrier("segment"))
}

fn greet(stream: impl Into<Stream>) -> Result<(FrameStream, Hello), Failure> {
    let mut stream = FrameStream::new(stream).map_err(Failure::carrier("stream"))?;
    let hello = receive_hello(&mut stream, Instant::now() + HANDSHAKE);
    Ok((stream, hello.map_err(Failure::carrier("hello"))?))
}

/// Says what the transport is to be, and what the peer makes of it.
fn answer(
    stream: &mut FrameStream,
    hello: &Hello,
    max_payload: usize,
    transport: OfferedTransport<'_>,
) -> Result<Option<Fallback>, Failure> {
    let offered = Offer {
        name: "bench",
        link_id: 1,
        epoch: 1,
        spin_us: 0,
        max_payload: u32::try_from(max_payload).unwrap_or(u32::MAX),
        ack_window: (RING_BYTES / 8) as u32,
        schema_digest: [0; 32],
        settings: "{}",
        fencing: fencing_with(hello),
        transport,
    };
    offer(stream, &offered, Instant::now() + HANDSHAKE).map_err(Failure::carrier("offer"))
}
