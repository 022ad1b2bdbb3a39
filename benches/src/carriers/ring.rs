//! The transport itself: two rings in a segment and two doorbells, between two processes.

use std::os::fd::AsFd as _;

use mycelium_bench_harness::link::{RING_BYTES, Rest};
use mycelium_bench_harness::{CaseArgs, Failure, Link, PeerProcess, Sample, Waiting};
use mycelium_messages::bandit::Quote;
use mycelium_messages::zerocopy::{FromBytes as _, IntoBytes as _};
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::error::ReserveError;
use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::{Fencing, Frame};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy, membarrier_is_available};

use super::TOPIC;

/// One side of a link, and how it waits.
pub(super) struct Side {
    ends: LinkEnds,
    /// `None` polls the ring in a loop, as the rivals are polled.
    wait: Option<SpinBudget>,
    rest: Rest,
}

impl Side {
    pub(super) fn new(ends: LinkEnds, args: &CaseArgs) -> Self {
        let wait = match args.waiting {
            Waiting::Spin => None,
            Waiting::Hybrid => Some(WaitStrategy::default()),
            Waiting::Park => Some(WaitStrategy::Park),
        };
        Self {
            ends,
            wait: wait.map(SpinBudget::new),
            rest: Rest::of(args),
        }
    }

    #[inline]
    fn publish(&mut self, frame: &Frame<'_>) -> Result<(), Failure> {
        loop {
            match self.ends.try_publish(frame) {
                Ok(()) => return Ok(()),
                Err(error) => self.await_room(error, frame.payload_len())?,
            }
        }
    }

    #[inline]
    fn publish_message(&mut self, message: &Quote) -> Result<(), Failure> {
        loop {
            match self.ends.try_publish_message(message) {
                Ok(()) => return Ok(()),
                Err(error) => self.await_room(error, QUOTE_LEN)?,
            }
        }
    }

    #[cold]
    fn await_room(&mut self, error: ReserveError, payload_len: usize) -> Result<(), Failure> {
        match error {
            ReserveError::Full { .. } => self.idle(WaitFor::Room { payload_len }),
            error => Err(Failure::carrier("publish")(error)),
        }
    }

    /// Waits by the strategy, or for a moment if there is none.
    #[inline]
    fn idle(&mut self, what: WaitFor) -> Result<(), Failure> {
        let Some(wait) = &mut self.wait else {
            self.rest.rest();
            return Ok(());
        };
        match self.ends.wait(wait, what, None, None) {
            Ok(Waited::Ready) => Ok(()),
            Ok(other) => Err(Failure::Peer(format!("the wait ended early: {other:?}"))),
            Err(error) => Err(Failure::carrier("wait")(error)),
        }
    }
}

/// Bytes of the message that stands for all typed ones.
const QUOTE_LEN: usize = size_of::<Quote>();
const _: () = assert!(QUOTE_LEN == 64, "the goals are about messages of 64 bytes");

/// A side that carries messages of a contract. What is in their fields is the pattern, so they are never validated.
struct Typed(Side);

impl Link for Typed {
    #[inline]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let mut message = Quote::default();
        fill(message.as_mut_bytes());
        self.0.publish_message(&message)
    }

    #[inline]
    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        match Quote::ref_from_bytes(payload) {
            Ok(message) => self.0.publish_message(message),
            Err(_) => Err(Failure::Peer(format!(
                "a payload that is no message: len={} wanted={QUOTE_LEN} bytes on an 8-byte boundary",
                payload.len()
            ))),
        }
    }

    #[inline]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Some(frame) = self.0.ends.peek().map_err(Failure::carrier("peek"))? {
                let message = frame.read::<Quote>().map_err(Failure::carrier("read"))?;
                self.0.ends.advance();
                // All of it, and not only the words that are looked at: the compiler would leave the others out.
                return Ok(look(std::hint::black_box(&message).as_bytes()));
            }
            self.0.idle(WaitFor::Frame)?;
        }
    }
}

/// A side that carries byte strings: copied in from a buffer, copied out to one.
pub(super) struct Bytes {
    side: Side,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Bytes {
    pub(super) fn new(side: Side, payload_len: usize) -> Self {
        Self {
            side,
            outgoing: vec![0; payload_len],
            incoming: Vec::with_capacity(payload_len),
        }
    }
}

impl Link for Bytes {
    #[inline]
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let payload = &mut self.outgoing[..payload_len];
        fill(payload);
        self.side.publish(&Frame::new(TOPIC, payload))
    }

    #[inline]
    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.side.publish(&Frame::new(TOPIC, payload))
    }

    #[inline]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Some(frame) = self.side.ends.peek().map_err(Failure::carrier("peek"))? {
                self.incoming.clear();
                frame.append_to(&mut self.incoming);
                self.side.ends.advance();
                return Ok(look(&self.incoming));
            }
            self.side.idle(WaitFor::Frame)?;
        }
    }
}

/// How parking is ordered: the quick way where the kernel offers it.
fn fencing() -> Fencing {
    if membarrier_is_available() {
        Fencing::Asymmetric
    } else {
        Fencing::Fenced
    }
}

pub(super) fn near(args: &CaseArgs) -> Result<Sample, Failure> {
    let options = SegmentOptions::new(RING_BYTES);
    let segment = Segment::create(&options).map_err(Failure::carrier("segment"))?;
    let own = Doorbell::new().map_err(Failure::carrier("doorbell"))?;
    // As the bridge does it: what the peer may do to its part does not reach ours.
    let (theirs, part) = Doorbell::pair().map_err(Failure::carrier("doorbell"))?;
    let fds = [segment.fd(), own.as_fd(), part.as_fd()];
    let peer = PeerProcess::start(args, &fds, "")?;
    let (read, write) = (segment.ring(RING_TO_BRIDGE), segment.ring(RING_TO_PEER));
    let ends = LinkEnds::attach(read, write, own, theirs, fencing());
    let side = Side::new(ends.map_err(Failure::carrier("attach"))?, args);
    let sample = match args.payload {
        QUOTE_LEN => args.run_near(&mut Typed(side)),
        _ => args.run_near(&mut Bytes::new(side, args.payload)),
    }?;
    peer.finish()?;
    Ok(sample)
}

pub(super) fn far(args: &CaseArgs) -> Result<(), Failure> {
    let [segment, theirs, own] = args.inherited_fds()?;
    let segment = Segment::open(segment).map_err(Failure::carrier("open"))?;
    let (read, write) = (segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE));
    let (own, theirs) = (Doorbell::from_fd(own), Doorbell::from_fd(theirs));
    let ends = LinkEnds::attach(read, write, own, theirs, fencing());
    let side = Side::new(ends.map_err(Failure::carrier("attach"))?, args);
    match args.payload {
        QUOTE_LEN => args.run_far(&mut Typed(side)),
        _ => args.run_far(&mut Bytes::new(side, args.payload)),
    }
}
