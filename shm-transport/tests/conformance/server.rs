//! The bridge's side of a link, reduced to what the suite needs: handshake, two rings, and a pump where frames travel over
//! the stream. Everything is driven by the calling thread.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mycelium_messages::Message;
use mycelium_messages::control::{Ack, Subscribe, TopicReply};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_transport::channel::handshake::{
    Offer, OfferedTransport, fencing_with, known_fallback, offer, receive_hello,
};
use shm_transport::channel::{Fallback, LinkEnds};
use shm_transport::error::ReserveError;
use shm_transport::frame::FrameHeader;
use shm_transport::pump::{Pump, Received};
use shm_transport::ring::{Fencing, Frame, RingMemory};
use shm_transport::segment::Segment;
use shm_transport::socket::{FillOutcome, FrameStream, Stream, Traffic};
use shm_transport::wakeup::Doorbell;

pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// What outlives a peer.
pub(crate) struct Memory {
    pub(crate) segment: Option<Segment>,
    pub(crate) rings: [RingMemory; 2],
    doorbells: [Doorbell; 2],
    pub(crate) epoch: u64,
}

impl Memory {
    pub(crate) fn new(segment: Option<Segment>, capacity: usize) -> Self {
        let rings = match &segment {
            Some(segment) => [segment.ring(0), segment.ring(1)],
            None => [0, 1].map(|_| RingMemory::heap(capacity).expect("heap")),
        };
        let doorbells = [0, 1].map(|_| Doorbell::new().expect("eventfd"));
        Self {
            segment,
            rings,
            doorbells,
            epoch: 0,
        }
    }

    fn side(&self, own: usize, fencing: Fencing) -> LinkEnds {
        let (read, write) = (&self.rings[1 - own], &self.rings[own]);
        let doorbell = |at: usize| self.doorbells[at].try_clone().expect("descriptor");
        LinkEnds::attach(
            read.clone(),
            write.clone(),
            doorbell(own),
            doorbell(1 - own),
            fencing,
        )
        .expect("free ends")
    }
}

enum Wire {
    Control(FrameStream),
    Pumped(Box<Pump>),
}

pub(crate) struct Server {
    pub memory: Memory,
    ends: LinkEnds,
    wire: Wire,
    /// Control frames that came and are not requests.
    pub(crate) control: VecDeque<(FrameHeader, Vec<u8>)>,
    pub(crate) requests: usize,
    /// The stream has ended; so many bytes of a frame are missing.
    pub(crate) ended: Option<usize>,
}

impl Server {
    /// Does the handshake; the peer must be at it in another thread or process.
    pub(crate) fn accept(stream: Stream, mut memory: Memory, fenced: bool) -> Self {
        let deadline = Instant::now() + WATCHDOG;
        let mut stream = FrameStream::new(stream).expect("stream");
        let hello = receive_hello(&mut stream, deadline).expect("Hello");
        memory.epoch += 1;
        let fencing = match fenced {
            true => Fencing::Fenced,
            false => fencing_with(&hello),
        };
        let transport = match (&memory.segment, known_fallback(&stream, &hello)) {
            (Some(segment), None) => OfferedTransport::Shm {
                segment: segment.fd(),
                bridge_doorbell: memory.doorbells[0].as_fd(),
                peer_doorbell: memory.doorbells[1].as_fd(),
            },
            (_, Some(fallback)) => OfferedTransport::Socket(fallback),
            (None, None) => OfferedTransport::Socket(Fallback::requested("the suite")),
        };
        let max_payload = memory.rings[0].max_payload() as u32;
        let offered = Offer {
            name: "conformance",
            link_id: 1,
            epoch: memory.epoch,
            spin_us: 20,
            max_payload,
            ack_window: max_payload,
            schema_digest: [0; 32],
            settings: "{}",
            fencing,
            transport,
        };
        let agreed = offer(&mut stream, &offered, deadline).expect("Attached");
        let ends = memory.side(0, fencing);
        let wire = match agreed {
            None => Wire::Control(stream),
            Some(_) => Wire::Pumped(Box::new(Pump::new(memory.side(1, fencing), stream))),
        };
        Self {
            memory,
            ends,
            wire,
            control: VecDeque::new(),
            requests: 0,
            ended: None,
        }
    }

    /// Moves what can be moved now, and answers requests.
    pub(crate) fn turn(&mut self) {
        let mut came = Vec::new();
        match &mut self.wire {
            Wire::Control(stream) => {
                if self.ended.is_none() && stream.fill().expect("open") == FillOutcome::HangUp {
                    self.ended = Some(stream.missing());
                }
                while let Some(frame) = stream.peek().expect("sound") {
                    let header = frame.header();
                    came.push((header, frame.to_vec()));
                    stream.advance(header.record_len());
                }
            }
            Wire::Pumped(pump) => {
                pump.send().expect("sound");
                loop {
                    let received = pump.receive(true).expect("sound");
                    while let Some(frame) = pump.next_control() {
                        came.push(frame);
                    }
                    if let Received::HangUp { missing } = received {
                        self.ended = Some(missing);
                    }
                    if received != Received::Data {
                        break;
                    }
                }
                pump.flush_wakeups();
            }
        }
        for (header, payload) in came {
            self.on_control(header, payload);
        }
        match &mut self.wire {
            Wire::Control(stream) => drop(stream.flush()),
            Wire::Pumped(pump) => drop(pump.send().expect("sound")),
        }
    }

    fn on_control(&mut self, header: FrameHeader, payload: Vec<u8>) {
        let frame = Frame::new(header.topic_id, &payload);
        match header.topic_id {
            Ack::TOPIC_ID => {
                let Wire::Pumped(pump) = &mut self.wire else {
                    panic!("an acknowledgement over shared memory");
                };
                let bytes = frame.read::<Ack>().expect("Ack").bytes;
                pump.acknowledge(bytes).expect("legal");
            }
            Subscribe::TOPIC_ID => {
                self.requests += 1;
                let topic_id = frame.read::<Subscribe>().expect("Subscribe").topic_id;
                let request = Subscribe::TOPIC_ID;
                self.send_control(&TopicReply {
                    request,
                    topic_id,
                    ..TopicReply::default()
                });
            }
            _ => self.control.push_back((header, payload)),
        }
    }

    pub(crate) fn send_control<M: Message>(&mut self, message: &M) {
        match &mut self.wire {
            Wire::Control(stream) => stream.queue_message(message),
            Wire::Pumped(pump) => pump.queue_message(message),
        }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        match &self.wire {
            Wire::Control(stream) => stream.traffic(),
            Wire::Pumped(pump) => pump.traffic(),
        }
    }

    /// Waits for something to happen on the stream, for a millisecond at most: the suite waits for conditions.
    fn pause(&self) {
        let fd = match &self.wire {
            Wire::Control(stream) => stream.as_fd(),
            Wire::Pumped(pump) => pump.as_fd(),
        };
        // A stream that has ended is readable for ever.
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        let fds = if self.ended.is_some() {
            &mut fds[..0]
        } else {
            &mut fds[..]
        };
        let _ = poll(fds, PollTimeout::from(1_u8));
    }

    /// Drives the link until the condition holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let give_up = Instant::now() + WATCHDOG;
        loop {
            self.turn();
            if holds(self) {
                return;
            }
            assert!(Instant::now() < give_up, "waited in vain until {what}");
            self.pause();
        }
    }

    /// The next frame, without driving the stream.
    pub(crate) fn take(&mut self) -> Option<Vec<u8>> {
        let payload = self.ends.peek().expect("sound")?.to_vec();
        self.ends.advance();
        Some(payload)
    }

    /// Waits for the next frame; `None` once the peer is gone and everything is read.
    pub(crate) fn recv(&mut self) -> Option<Vec<u8>> {
        let mut got = None;
        self.until("a frame comes", |server| {
            got = server.take();
            got.is_some() || server.ended.is_some()
        });
        got.or_else(|| {
            self.turn();
            self.take()
        })
    }

    pub(crate) fn try_publish(&mut self, topic_id: u16, payload: &[u8]) -> bool {
        match self.ends.try_publish(&Frame::new(topic_id, payload)) {
            Ok(()) => true,
            Err(ReserveError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn publish(&mut self, topic_id: u16, payload: &[u8]) {
        self.until("there is room", |server| {
            server.try_publish(topic_id, payload)
        });
    }

    /// Bytes that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.memory.rings[0].occupancy()
    }

    /// Closes the stream and keeps the rings.
    pub(crate) fn into_memory(self) -> Memory {
        self.memory
    }
}
