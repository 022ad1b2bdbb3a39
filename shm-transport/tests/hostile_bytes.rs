//! Bytes that a hostile peer may write, from a seeded generator: the fuzz targets without their toolchain.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use it as a crate")]
mod entry_points;

use fastrand::Rng;
use mycelium_messages::Message;
use mycelium_messages::control::Ack;
use shm_transport::frame::FrameHeader;
use shm_transport::layout::FLAG_PAD;

/// Up to `len_max` bytes.
fn some_bytes(random: &mut Rng, len_max: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.usize(..=len_max)];
    random.fill(&mut bytes);
    bytes
}

/// A header word as a confused peer may write it: most often nearly right.
fn header(random: &mut Rng) -> [u8; 8] {
    let header = match random.u8(..8) {
        0 => FrameHeader::from_word(random.u64(..)),
        1 => FrameHeader::from_word(0),
        2 => FrameHeader {
            payload_len: 8 * random.u32(..130),
            topic_id: 0,
            flags: FLAG_PAD,
        },
        _ => FrameHeader::new(random.u16(..4), random.u32(..300)),
    };
    header.to_bytes()
}

/// Runs an entry point on inputs from the generator; returns how many passed for sound.
fn run(
    cases: u64,
    entry_point: fn(&[u8]) -> bool,
    mut input: impl FnMut(&mut Rng) -> Vec<u8>,
) -> u64 {
    let mut random = Rng::with_seed(0x5EED);
    (0..cases)
        .map(|_| u64::from(entry_point(&input(&mut random))))
        .sum()
}

#[test]
fn any_header_survives_decoding_and_encoding() {
    let sound = run(200_000, entry_points::frame_header, |random| {
        random.u64(..).to_le_bytes().to_vec()
    });
    assert!((1..200_000).contains(&sound), "sound={sound}");
}

#[test]
fn any_ring_gives_frames_inside_it_or_an_error_with_the_field() {
    let cases = 20_000;
    let sound = run(cases, entry_points::ring, |random| {
        let mut bytes = some_bytes(random, 0);
        bytes.extend(random.u64(..).to_le_bytes());
        bytes.extend(random.u64(..).to_le_bytes());
        // Records back to back, so that some of the walk is sound.
        while bytes.len() < 4096 {
            let header = header(random);
            let payload_len = FrameHeader::from_bytes(header).payload_len.min(300);
            bytes.extend(header);
            bytes.resize(bytes.len() + payload_len.next_multiple_of(8) as usize, 0);
            if random.u64(..8) == 0 {
                let noise = some_bytes(random, 64);
                bytes.extend(noise);
            }
        }
        bytes
    });
    assert!((1..cases).contains(&sound), "sound={sound}");
}

#[test]
fn any_segment_header_is_refused_with_the_field_or_works() {
    let cases = 20_000;
    let sound = run(cases, entry_points::segment_header, |random| {
        some_bytes(random, 12)
    });
    assert!((1..cases).contains(&sound), "sound={sound}");
}

#[test]
fn any_stream_gives_whole_frames_or_an_error() {
    let cases = 20_000;
    for entry_point in [
        entry_points::control_stream as fn(&[u8]) -> bool,
        entry_points::pump_stream,
    ] {
        let sound = run(cases, entry_point, stream_bytes);
        assert!((1..cases).contains(&sound), "sound={sound}");
    }
}

fn stream_bytes(random: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![random.u8(..)];
    for _ in 0..random.u64(..12) {
        if random.u64(..4) == 0 {
            let header = FrameHeader::new(Ack::TOPIC_ID, size_of::<Ack>() as u32);
            bytes.extend(header.to_bytes());
            bytes.extend(random.u64(..).to_le_bytes());
        } else {
            bytes.extend(header(random));
            let payload = some_bytes(random, 300);
            bytes.extend(payload);
        }
    }
    bytes
}
