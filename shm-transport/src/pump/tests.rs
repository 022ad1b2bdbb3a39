//! The pump over a stream that takes and brings any part of what it is asked for.

mod unplaced;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use fastrand::Rng;
use mycelium_messages::control::{Ack, Goodbye};
use mycelium_messages::zerocopy::IntoBytes as _;

use super::*;
use crate::error::ReserveError;
use crate::ring::{Consumer, Fencing, Frame, Producer, RingMemory, RingSlice, RingSliceMut};

const CAPACITY: usize = 4096;
const TOPIC: u16 = 1001;

/// A stream in memory.
struct Double {
    random: Rng,
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    /// Whether the end comes behind `incoming`.
    closed: bool,
    /// Most bytes that one call moves.
    call_max: usize,
}

impl Double {
    fn new(seed: u64, call_max: usize) -> Self {
        Self {
            random: Rng::with_seed(seed),
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
            closed: false,
            call_max,
        }
    }

    fn count(&mut self, offered: usize) -> io::Result<usize> {
        match self.random.usize(..8) {
            0 => Err(ErrorKind::WouldBlock.into()),
            1 => Err(ErrorKind::Interrupted.into()),
            _ => Ok(1 + self.random.usize(..offered.min(self.call_max))),
        }
    }
}

impl ByteStream for Double {
    fn write_vectored(&mut self, slices: &[RingSlice<'_>]) -> io::Result<usize> {
        assert!(slices.len() <= 4 && slices.iter().all(|slice| !slice.is_empty()));
        let offered = slices.iter().map(RingSlice::len).sum();
        let count = self.count(offered)?;
        let mut left = count;
        for slice in slices {
            left -= slice.append_to(&mut self.outgoing, left);
        }
        Ok(count)
    }

    fn read_vectored(&mut self, slices: &mut [RingSliceMut<'_>]) -> io::Result<usize> {
        let room: usize = slices.iter().map(RingSliceMut::len).sum();
        assert!(room > 0, "a read of nothing looks like the end");
        if self.incoming.is_empty() {
            return match self.closed {
                true => Ok(0),
                false => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let offered = room.min(self.incoming.len());
        let count = self.count(offered)?;
        let bytes: Vec<u8> = self.incoming.drain(..count).collect();
        let mut rest = &bytes[..];
        for slice in slices {
            let filled = slice.copy_from(rest);
            rest = &rest[filled..];
        }
        Ok(count)
    }
}

/// A pump, and the other ends of its rings.
struct Bench {
    pump: Pump<Double>,
    producer: Producer,
    consumer: Consumer,
    /// The ring from the pump, and the one to it.
    memory: [RingMemory; 2],
}

impl Bench {
    fn new(seed: u64, call_max: usize) -> Self {
        let ring = || RingMemory::heap(CAPACITY).expect("heap");
        Self::with(seed, call_max, [ring(), ring()])
    }

    /// With rings that others may have used.
    fn with(seed: u64, call_max: usize, memory: [RingMemory; 2]) -> Self {
        let [out, back] = memory.clone();
        let doorbells = || Doorbell::new().expect("eventfd");
        let ends = LinkEnds::attach(
            out.clone(),
            back.clone(),
            doorbells(),
            doorbells(),
            Fencing::Fenced,
        )
        .expect("fresh rings");
        Self {
            pump: Pump::over(ends, Double::new(seed, call_max)),
            producer: Producer::attach(out).expect("fresh"),
            consumer: Consumer::attach(back).expect("fresh"),
            memory,
        }
    }
}

fn frame_bytes(topic_id: u16, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(topic_id, payload.len() as u32);
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(header.record_len(), 0);
    bytes
}

fn ack_bytes(bytes: u64) -> Vec<u8> {
    frame_bytes(Ack::TOPIC_ID, Ack { bytes }.as_bytes())
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 31 + at * 7) as u8).collect()
}

fn random_len(random: &mut Rng, max: usize) -> usize {
    match random.usize(..4) {
        0 => 0,
        1 => random.usize(..max + 1),
        _ => random.usize(..64),
    }
}

#[test]
fn what_goes_into_the_ring_comes_out_of_the_stream_however_it_is_cut() {
    let rounds = if cfg!(miri) { 2 } else { 24 };
    for seed in 0..rounds {
        let call_max = [1, 7, 8, 9, 100, 1 << 20][seed as usize % 6];
        let mut bench = Bench::new(seed, call_max);
        let mut random = Rng::with_seed(seed + 1000);
        let (mut expected, mut acknowledged, mut sent_frames) = (Vec::new(), 0, 0);
        while sent_frames < 300 {
            let len = random_len(&mut random, bench.producer.max_payload());
            let body = payload(sent_frames, len);
            match bench
                .producer
                .try_push(FrameHeader::new(TOPIC, len as u32), &body)
            {
                Ok(()) => {
                    expected.push((TOPIC, body));
                    sent_frames += 1;
                }
                Err(ReserveError::Full { .. }) => {
                    // Nothing is released before the peer says so.
                    let seen = application_bytes(&bench.pump.stream.outgoing);
                    if seen > acknowledged {
                        acknowledged = seen;
                        bench.pump.acknowledge(seen).expect("it was sent");
                    }
                }
                Err(error) => panic!("{error}"),
            }
            if random.usize(..5) == 0 {
                bench.pump.queue_message(&Ack { bytes: 8 });
            }
            bench.pump.send().expect("sound");
        }
        while bench.pump.send().expect("sound") != Sent::All {}
        let frames = parse(&bench.pump.stream.outgoing);
        let data: Vec<_> = frames
            .iter()
            .filter(|(topic, _)| *topic == TOPIC)
            .cloned()
            .collect();
        assert!(data == expected, "seed={seed}");
        assert!(
            frames.len() > data.len(),
            "control frames travel between them"
        );
        assert!(bench.pump.has_sent(bench.pump.published()));
    }
}

/// Bytes of the whole application frames in a stream that may end inside a frame.
fn application_bytes(bytes: &[u8]) -> u64 {
    let frames = parse(bytes);
    let data = frames.iter().filter(|(topic, _)| *topic == TOPIC);
    data.map(|(_, body)| crate::frame::record_len(body.len()) as u64)
        .sum()
}

fn parse(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(header) = bytes.first_chunk().copied().map(FrameHeader::from_bytes) {
        let len = header.payload_len as usize;
        if bytes.len() < header.record_len() {
            break;
        }
        assert!(
            bytes[8 + len..header.record_len()]
                .iter()
                .all(|it| *it == 0)
        );
        frames.push((header.topic_id, bytes[8..8 + len].to_vec()));
        bytes = &bytes[header.record_len()..];
    }
    frames
}

#[test]
fn what_comes_from_the_stream_goes_into_the_ring_however_it_is_cut() {
    let rounds = if cfg!(miri) { 2 } else { 24 };
    for seed in 0..rounds {
        let call_max = [1, 7, 8, 9, 100, 1 << 20][seed as usize % 6];
        let mut bench = Bench::new(seed, call_max);
        let mut random = Rng::with_seed(seed + 2000);
        let (mut frames, mut controls) = (Vec::new(), Vec::new());
        for number in 0..300 {
            if random.usize(..5) == 0 {
                bench.pump.stream.incoming.extend(ack_bytes(number));
                controls.push(number);
            }
            let len = random_len(&mut random, bench.consumer.max_payload());
            let body = payload(number as usize, len);
            bench.pump.stream.incoming.extend(frame_bytes(TOPIC, &body));
            frames.push(body);
        }
        bench.pump.stream.closed = true;
        let (mut got, mut got_controls) = (Vec::new(), Vec::new());
        loop {
            let received = bench.pump.receive(random.usize(..4) > 0).expect("sound");
            while let Some((_, control)) = bench.pump.next_control() {
                got_controls.push(
                    Frame::new(Ack::TOPIC_ID, &control)
                        .read::<Ack>()
                        .expect("whole")
                        .bytes,
                );
            }
            // The other side reads now and then only, so the ring is full at times.
            let blocked = matches!(received, Received::Blocked { .. });
            if blocked || random.usize(..10) == 0 {
                let count = 1 + random.usize(..5);
                for _ in 0..count {
                    if let Some(frame) = bench.consumer.peek().expect("sound") {
                        got.push(frame.to_vec());
                        bench.consumer.advance();
                    }
                }
                bench.consumer.publish_head();
            }
            assert!(bench.pump.inflow.ahead.capacity() <= 2 * AHEAD_MAX);
            if let Received::HangUp { missing } = received {
                assert_eq!(missing, 0);
                break;
            }
        }
        while let Some(frame) = bench.consumer.peek().expect("sound") {
            got.push(frame.to_vec());
            bench.consumer.advance();
        }
        assert!(
            got == frames,
            "seed={seed}: {} of {}",
            got.len(),
            frames.len()
        );
        assert_eq!(got_controls, controls, "seed={seed}");
    }
}

fn receive_all(bench: &mut Bench) -> Result<Received, PumpError> {
    loop {
        match bench.pump.receive(true)? {
            Received::Data => {}
            Received::Nothing if !bench.pump.stream.incoming.is_empty() => {}
            Received::Blocked {
                wants_more: true, ..
            } if !bench.pump.stream.incoming.is_empty() => {}
            other => return Ok(other),
        }
    }
}

#[test]
fn an_acknowledgement_overtakes_a_frame_that_waits_for_room_and_a_goodbye_does_not() {
    let mut bench = Bench::new(1, 1 << 20);
    let body = vec![7; 1000];
    for _ in 0..5 {
        bench.pump.stream.incoming.extend(frame_bytes(TOPIC, &body));
    }
    bench.pump.stream.incoming.extend(ack_bytes(0));
    bench.pump.stream.incoming.extend(frame_bytes(TOPIC, &body));
    bench.pump.stream.incoming.extend(frame_bytes(
        Goodbye::TOPIC_ID,
        Goodbye::default().as_bytes(),
    ));
    let received = receive_all(&mut bench).expect("sound");
    assert!(
        matches!(
            received,
            Received::Blocked {
                payload_len: 1000,
                wants_more: true
            }
        ),
        "{received:?}"
    );
    let (header, _) = bench.pump.next_control().expect("the acknowledgement");
    assert_eq!(header.topic_id, Ack::TOPIC_ID);
    assert!(bench.pump.next_control().is_none(), "the goodbye waits");
    let mut frames = 0;
    while bench.pump.next_control().is_none() {
        while let Some(frame) = bench.consumer.peek().expect("sound") {
            assert_eq!(frame.to_vec(), body);
            bench.consumer.advance();
            frames += 1;
        }
        receive_all(&mut bench).expect("sound");
    }
    while bench.consumer.peek().expect("sound").is_some() {
        bench.consumer.advance();
        frames += 1;
    }
    assert_eq!(
        frames, 6,
        "everything in front of the goodbye is in the ring before it is seen"
    );
}

#[test]
fn a_flood_of_acknowledgements_behind_a_frame_that_waits_leaves_the_frames_between_them_in_their_order()
 {
    let mut bench = Bench::new(2, 1 << 20);
    let body = vec![7; 1000];
    let mut sent = Vec::new();
    for _ in 0..4 {
        bench.pump.stream.incoming.extend(frame_bytes(TOPIC, &body));
        sent.push(body.clone());
    }
    const ACKS: usize = 30_000;
    for number in 0..ACKS {
        bench.pump.stream.incoming.extend(ack_bytes(0));
        if number % 1000 == 0 {
            let between = payload(number, 1 + number / 1000);
            let bytes = frame_bytes(TOPIC, &between);
            bench.pump.stream.incoming.extend(bytes);
            sent.push(between);
        }
    }
    let received = receive_all(&mut bench).expect("sound");
    assert!(matches!(received, Received::Blocked { .. }), "{received:?}");
    let acks = std::iter::from_fn(|| bench.pump.next_control());
    assert_eq!(acks.count(), ACKS, "none waits for room");
    let mut got = Vec::new();
    while got.len() < sent.len() {
        while let Some(frame) = bench.consumer.peek().expect("sound") {
            got.push(frame.to_vec());
            bench.consumer.advance();
        }
        receive_all(&mut bench).expect("sound");
    }
    assert_eq!(got, sent);
}

#[test]
fn no_more_than_the_stated_bytes_are_read_ahead() {
    let mut bench = Bench::new(3, 1 << 20);
    let body = vec![1; 1000];
    for _ in 0..2 * AHEAD_MAX / 1000 {
        bench.pump.stream.incoming.extend(frame_bytes(TOPIC, &body));
    }
    let received = receive_all(&mut bench).expect("sound");
    assert_eq!(
        received,
        Received::Blocked {
            payload_len: 1000,
            wants_more: false
        }
    );
    assert_eq!(bench.pump.inflow.ahead.len(), AHEAD_MAX);
    assert!(
        bench.pump.stream.incoming.len() > AHEAD_MAX / 2,
        "the rest stays in the stream"
    );
}

#[test]
fn a_bad_header_is_an_error_with_numbers_and_what_came_before_is_delivered() {
    let header = |payload_len, topic_id, flags| FrameHeader {
        payload_len,
        topic_id,
        flags,
    };
    for (bad, text) in [
        (
            header(1017, TOPIC, 0),
            "topic_id=1001 payload_len=1017 max_payload=1016",
        ),
        (
            header(u32::MAX, TOPIC, 0),
            "payload_len=4294967295 max_payload=1016",
        ),
        (
            header(131_073, Ack::TOPIC_ID, 0),
            "payload_len=131073 max_payload=131072",
        ),
        (header(8, 0, 0), "topic_id=0 flags=0x0000"),
        (header(8, TOPIC, 1), "topic_id=1001 flags=0x0001"),
    ] {
        for call_max in [1, 1 << 20] {
            let mut bench = Bench::new(5, call_max);
            bench
                .pump
                .stream
                .incoming
                .extend(frame_bytes(TOPIC, b"good"));
            bench.pump.stream.incoming.extend(bad.to_bytes());
            bench.pump.stream.incoming.extend([0; 3000]);
            let error = receive_all(&mut bench).expect_err("bad").to_string();
            assert!(error.contains(text), "{error}");
            let frame = bench.consumer.peek().expect("sound").expect("the good one");
            assert_eq!(frame.to_vec(), b"good");
            bench.consumer.advance();
            assert!(bench.consumer.peek().expect("sound").is_none());
            assert!(matches!(
                bench.pump.receive(true),
                Ok(Received::HangUp { .. })
            ));
        }
    }
}

#[test]
fn a_stream_that_ends_inside_a_frame_says_how_much_is_missing() {
    let whole = frame_bytes(TOPIC, &[9; 100]);
    for cut in 1..whole.len() {
        let mut bench = Bench::new(cut as u64, 1 << 20);
        bench
            .pump
            .stream
            .incoming
            .extend(frame_bytes(TOPIC, b"first"));
        bench.pump.stream.incoming.extend(&whole[..cut]);
        bench.pump.stream.closed = true;
        let received = receive_all(&mut bench).expect("sound");
        // Of a header that is cut off nobody knows what would follow.
        let missing = if cut < 8 { 8 - cut } else { whole.len() - cut };
        assert_eq!(received, Received::HangUp { missing }, "cut={cut}");
        assert!(bench.consumer.peek().expect("sound").is_some());
        bench.consumer.advance();
        assert!(
            bench.consumer.peek().expect("sound").is_none(),
            "no part of it is seen"
        );
    }
}

#[test]
fn arbitrary_bytes_lead_to_frames_or_to_an_error() {
    let rounds = if cfg!(miri) { 20 } else { 600 };
    let (mut errors, mut frames) = (0, 0);
    for seed in 0..rounds {
        let mut random = Rng::with_seed(seed * 77);
        let mut bench = Bench::new(seed, 1 << random.usize(..12));
        for _ in 0..random.usize(..400) {
            let small = random.usize(..3) > 0;
            let header = FrameHeader {
                payload_len: random.usize(..if small { 40 } else { 3000 }) as u32,
                topic_id: random.usize(..2000) as u16,
                flags: (random.usize(..50) == 0) as u16,
            };
            let tail = random.usize(..header.record_len() * 2);
            let take = if random.usize(..20) == 0 {
                tail
            } else {
                header.record_len()
            };
            let mut bytes = header.to_bytes().to_vec();
            bytes.resize(take.max(8), seed as u8);
            bench.pump.stream.incoming.extend(bytes);
        }
        bench.pump.stream.closed = true;
        loop {
            match bench.pump.receive(true) {
                Ok(Received::HangUp { .. }) => break,
                Ok(_) => {}
                Err(error) => {
                    assert!(error.to_string().contains("topic_id="), "{error}");
                    errors += 1;
                    break;
                }
            }
            while bench.pump.next_control().is_some() {}
            while bench
                .consumer
                .peek()
                .expect("what is in the ring is sound")
                .is_some()
            {
                bench.consumer.advance();
                frames += 1;
            }
        }
    }
    assert!(errors > 0 && frames > 0, "errors={errors} frames={frames}");
}
