//! The bridge's side of a link, as far as a measurement needs it: the handshake, and then the rings or the stream.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mycelium_bench_harness::Failure;
use mycelium_bench_harness::link::RING_BYTES;
use shm_transport::channel::handshake::{
    Offer, OfferedTransport, fencing_with, offer, peer_fallback, receive_hello,
};
use shm_transport::channel::{Fallback, LinkEnds};
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::socket::FrameStream;
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
pub fn accept(stream: UnixStream, max_payload: usize) -> Result<Accepted, Failure> {
    let mut stream = FrameStream::new(stream).map_err(Failure::carrier("stream"))?;
    let deadline = Instant::now() + HANDSHAKE;
    let hello = receive_hello(&mut stream, deadline).map_err(Failure::carrier("hello"))?;
    let options = SegmentOptions::new(RING_BYTES);
    let segment = Segment::create(&options).map_err(Failure::carrier("segment"))?;
    let own = Doorbell::new().map_err(Failure::carrier("doorbell"))?;
    let (peer, part) = Doorbell::pair().map_err(Failure::carrier("doorbell"))?;
    let fencing = fencing_with(&hello);
    let fallback: Option<Fallback> = peer_fallback(&hello);
    let offered = Offer {
        name: "bench",
        link_id: 1,
        epoch: 1,
        spin_us: 0,
        max_payload: u32::try_from(max_payload).unwrap_or(u32::MAX),
        ack_window: (RING_BYTES / 8) as u32,
        schema_digest: [0; 32],
        settings: "{}",
        fencing,
        transport: match &fallback {
            None => OfferedTransport::Shm {
                segment: segment.fd(),
                bridge_doorbell: own.as_fd(),
                peer_doorbell: part.as_fd(),
            },
            Some(fallback) => OfferedTransport::Socket(fallback.clone()),
        },
    };
    let agreed = offer(&mut stream, &offered, deadline).map_err(Failure::carrier("offer"))?;
    if agreed.is_some() {
        stream.expect_data(max_payload);
        return Ok(Accepted::Stream(stream));
    }
    let (read, write) = (segment.ring(RING_TO_BRIDGE), segment.ring(RING_TO_PEER));
    let ends = LinkEnds::attach(read, write, own, peer, fencing);
    let ends = ends.map_err(Failure::carrier("attach"))?;
    Ok(Accepted::Rings(Box::new(ends), stream))
}
