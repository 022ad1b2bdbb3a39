//! What the fuzz targets do with their bytes. `make fuzz` runs it under libFuzzer, `tests/hostile_bytes.rs` with bytes
//! from a seeded generator. Each entry point takes what a peer can write, panics if the library breaks a promise, and
//! returns whether the bytes passed for sound.

#![allow(missing_docs, reason = "the functions say what they check")]

use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;

use mycelium_messages::Message;
use mycelium_messages::control;
use shm_transport::channel::LinkEnds;
use shm_transport::error::{AttachError, Corrupt, ReserveError};
use shm_transport::frame::{FrameHeader, record_len};
use shm_transport::layout;
use shm_transport::pump::{Pump, Received};
use shm_transport::ring::{BatchLimit, Consumer, Fencing, Frame, Producer, RingMemory};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::socket::{FillOutcome, FrameStream};
use shm_transport::wakeup::Doorbell;

const CAPACITY: usize = layout::RING_CAPACITY_MIN;
/// A ring full of plausible headers can be read for ever.
const FRAMES_MAX: usize = 2 * CAPACITY / layout::FRAME_ALIGN;

/// A header is decoded to what encodes to the same bytes, and its lengths fit together.
pub fn frame_header(bytes: &[u8]) -> bool {
    let Some(bytes) = bytes.first_chunk() else {
        return false;
    };
    let header = FrameHeader::from_bytes(*bytes);
    assert_eq!(header.to_bytes(), *bytes);
    assert_eq!(FrameHeader::from_word(header.to_word()), header);
    let len = header.record_len();
    let payload_len = header.payload_len as usize;
    assert!(len.is_multiple_of(8) && (8..16).contains(&(len - payload_len)));
    assert_eq!(len, record_len(payload_len));
    let again = header.with_encoding(header.encoding());
    assert_eq!(again.to_word(), header.to_word());
    !header.is_pad() && header.topic_id != 0
}

fn segment() -> Segment {
    let options = SegmentOptions::new(CAPACITY);
    Segment::create(&options).expect("a small segment")
}

fn file_of(segment: &Segment) -> std::fs::File {
    let fd = segment.fd().as_fd().try_clone_to_owned();
    std::fs::File::from(fd.expect("a descriptor"))
}

/// Both ends of a ring over any head, tail and data: frames lie inside the ring, errors name a field that is wrong, and
/// nothing goes on for ever. Bytes: head, tail, and then data, repeated to fill the ring.
pub fn ring(bytes: &[u8]) -> bool {
    let (Some(positions), data) = (bytes.first_chunk::<16>(), bytes.get(16..).unwrap_or(&[]))
    else {
        return false;
    };
    if data.is_empty() {
        return false;
    }
    let segment = segment();
    let file = file_of(&segment);
    let (control, start) = (
        layout::SEGMENT_HEADER_LEN as u64,
        (layout::SEGMENT_HEADER_LEN + layout::RING_CONTROL_LEN) as u64,
    );
    // High positions only now and then, or no input would get past the checks of the positions.
    let [mut head, mut tail] = [&positions[..8], &positions[8..]]
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
    if head & 3 != 3 {
        head = (head % (4 * CAPACITY as u64)) & !7;
        tail = head + ((tail % (CAPACITY as u64 + 16)) & !7);
    }
    let fill: Vec<u8> = data.iter().copied().cycle().take(CAPACITY).collect();
    let write = |bytes: &[u8], at| file.write_all_at(bytes, at).expect("not sealed");
    write(&fill, start);
    write(
        &head.to_le_bytes(),
        control + layout::RING_HEAD_OFFSET as u64,
    );
    write(
        &tail.to_le_bytes(),
        control + layout::RING_TAIL_OFFSET as u64,
    );
    let memory = segment.ring(layout::RING_TO_PEER);
    assert!(memory.occupancy() <= CAPACITY);
    let _ = memory.check_positions();
    let consumed = match Consumer::attach(memory.clone()) {
        Ok(mut consumer) => {
            let first = peek_all(&mut consumer);
            drop(consumer);
            let again = Consumer::attach(memory.clone()).map(|mut consumer| batches(&mut consumer));
            first.is_ok() && again.is_ok_and(|outcome| outcome.is_ok())
        }
        Err(error) => {
            attach_error(error);
            false
        }
    };
    let produced = match Producer::attach(memory) {
        Ok(mut producer) => produce(&mut producer),
        Err(error) => {
            attach_error(error);
            false
        }
    };
    consumed && produced
}

fn peek_all(consumer: &mut Consumer) -> Result<(), Corrupt> {
    for _ in 0..FRAMES_MAX / 2 {
        let is_empty = consumer.is_empty();
        match consumer.peek() {
            Ok(Some(frame)) => {
                assert!(!is_empty);
                sound_frame(&frame);
            }
            Ok(None) => {
                assert!(is_empty);
                return Ok(());
            }
            Err(corrupt) => {
                wrong(&corrupt);
                assert_eq!(consumer.try_read().map(drop), Err(corrupt), "it stays");
                return Err(corrupt);
            }
        }
        assert!(consumer.occupancy() <= CAPACITY);
        consumer.advance();
    }
    Ok(())
}

fn batches(consumer: &mut Consumer) -> Result<(), Corrupt> {
    let limit = BatchLimit {
        bytes: 700,
        frames: 5,
    };
    for _ in 0..FRAMES_MAX / 5 {
        let Some(batch) = consumer.read_batch(limit).inspect_err(wrong)? else {
            return Ok(());
        };
        for frame in batch.iter() {
            sound_frame(&frame.inspect_err(wrong)?);
        }
        assert!((1..=5).contains(&batch.taken()));
        assert!(batch.taken_bytes() <= limit.bytes.max(CAPACITY / 2));
    }
    Ok(())
}

fn produce(producer: &mut Producer) -> bool {
    for len in [0, 8, 100, 1016] {
        let header = FrameHeader::new(1001, len);
        let Ok(mut reservation) = producer.try_reserve(header).map_err(|error| match error {
            ReserveError::Full { needed, free } => assert!(needed > free && free <= CAPACITY),
            ReserveError::Corrupt(corrupt) => wrong(&corrupt),
            error => panic!("{error}"),
        }) else {
            return false;
        };
        reservation
            .write_all(&vec![7; len as usize])
            .expect("reserved");
        reservation.commit();
    }
    true
}

fn sound_frame(frame: &Frame<'_>) {
    assert!(frame.topic_id() != 0 && !frame.header().is_pad());
    assert!(frame.payload_len() <= CAPACITY / layout::RING_RECORD_DIVISOR - 8);
    assert_eq!(frame.to_bytes().len(), frame.payload_len());
}

fn wrong(corrupt: &Corrupt) {
    let (low, high) = corrupt.legal;
    let is_aligned = corrupt.value.is_multiple_of(8);
    assert!(
        !(low..=high).contains(&corrupt.value) || !is_aligned,
        "{corrupt}"
    );
}

fn attach_error(error: AttachError) {
    match error {
        AttachError::Corrupt(corrupt) => wrong(&corrupt),
        error => panic!("{error}"),
    }
}

/// A segment file whose header has been changed: it is refused with the field, or it is sound and its rings work. Bytes:
/// pairs of a place in the header and a value.
pub fn segment_header(bytes: &[u8]) -> bool {
    let segment = segment();
    let file = file_of(&segment);
    for change in bytes.chunks_exact(4) {
        let place = u16::from_le_bytes([change[0], change[1]]);
        let place = if place & 0x8000 == 0 {
            // Mostly where something is read.
            place % 136
        } else {
            place % layout::SEGMENT_HEADER_LEN as u16
        };
        file.write_all_at(&change[2..], place.into())
            .expect("not sealed");
    }
    match Segment::open(segment.fd().try_clone_to_owned().expect("a descriptor")) {
        Ok(opened) => {
            for number in [layout::RING_TO_PEER, layout::RING_TO_BRIDGE] {
                let memory = opened.ring(number);
                assert!(memory.capacity() <= opened.len());
                // Descriptors may be shifted by a page and still be sound; then old bytes lie where words are expected.
                if let Ok(mut producer) = Producer::attach(memory.clone()) {
                    produce(&mut producer);
                }
                if let Ok(mut consumer) = Consumer::attach(memory) {
                    let _ = peek_all(&mut consumer);
                }
            }
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("field="), "{text}");
            false
        }
    }
}

/// A socket that brings any bytes: frames come out whole and within the limit, or the stream ends with an error. Every
/// control frame is read as every control message. Bytes: how many arrive at a time, then the stream.
pub fn control_stream(bytes: &[u8]) -> bool {
    let Some((&step, stream_bytes)) = bytes.split_first() else {
        return false;
    };
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let mut stream = FrameStream::new(ours).expect("a stream");
    let mut frames = 0;
    for part in stream_bytes.chunks(usize::from(step) + 1) {
        theirs.write_all(part).expect("room in the socket");
        while let FillOutcome::Data(_) = stream.fill().expect("a socket") {}
        loop {
            let record_len = match stream.peek() {
                Ok(Some(frame)) => {
                    assert!(frame.payload_len() <= stream_bytes.len());
                    control_message(&frame);
                    frame.header().record_len()
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(error.to_string().contains("payload_len="), "{error}");
                    return false;
                }
            };
            stream.advance(record_len);
            frames += 1;
        }
    }
    frames > 0
}

/// A pump whose stream brings any bytes: what gets into the ring are whole frames within the limit, in front of an error
/// that names the header. Bytes: how many arrive at a time, then the stream.
pub fn pump_stream(bytes: &[u8]) -> bool {
    let Some((&step, stream_bytes)) = bytes.split_first() else {
        return false;
    };
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let rings = [(); 2].map(|()| RingMemory::heap(CAPACITY).expect("heap"));
    let doorbell = || Doorbell::new().expect("a descriptor");
    let [read, write] = rings.clone();
    let ends = LinkEnds::attach(read, write, doorbell(), doorbell(), Fencing::Fenced);
    let stream = FrameStream::new(ours).expect("a stream");
    let mut pump = Pump::new(ends.expect("fresh rings"), stream);
    let mut consumer = Consumer::attach(rings[1].clone()).expect("a fresh ring");
    for part in stream_bytes.chunks(usize::from(step) + 1) {
        theirs.write_all(part).expect("room in the socket");
        loop {
            let received = pump.receive(true);
            peek_all(&mut consumer).expect("a pump keeps to the rules");
            consumer.publish_head();
            while let Some((header, payload)) = pump.next_control() {
                assert!(header.is_control() && payload.len() == header.payload_len as usize);
            }
            match received {
                Ok(Received::Data | Received::Blocked { .. }) => {}
                Ok(Received::Nothing) => break,
                Ok(Received::HangUp { .. }) => return false,
                Err(error) => {
                    assert!(error.to_string().contains("topic_id="), "{error}");
                    return false;
                }
            }
        }
    }
    true
}

fn control_message(frame: &Frame<'_>) {
    fn read<M: Message>(frame: &Frame<'_>) {
        match frame.read::<M>() {
            Ok(message) => {
                assert_eq!(frame.topic_id(), M::TOPIC_ID);
                let _ = message.validate();
                assert!(!format!("{message} {message:?}").is_empty());
                assert_eq!(message.as_bytes(), &frame.to_vec()[..]);
            }
            Err(error) => assert!(error.to_string().contains(M::NAME), "{error}"),
        }
    }
    read::<control::Hello>(frame);
    read::<control::Welcome>(frame);
    read::<control::Refused>(frame);
    read::<control::Attached>(frame);
    read::<control::Subscribe>(frame);
    read::<control::Unsubscribe>(frame);
    read::<control::Advertise>(frame);
    read::<control::TopicReply>(frame);
    read::<control::Ack>(frame);
    read::<control::Shutdown>(frame);
    read::<control::Goodbye>(frame);
    read::<control::LinkError>(frame);
}
