//! Bytes that a hostile peer may write, from a seeded generator: the fuzz targets without their toolchain.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use it as a crate")]
mod entry_points;

use mycelium_messages::Message;
use mycelium_messages::control::Ack;
use shm_transport::frame::FrameHeader;
use shm_transport::layout::FLAG_PAD;

/// xorshift64*: any seed but 0 gives the same bytes everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A header word as a confused peer may write it: most often nearly right.
    fn header(&mut self) -> [u8; 8] {
        let header = match self.below(8) {
            0 => FrameHeader::from_word(self.next()),
            1 => FrameHeader::from_word(0),
            2 => FrameHeader {
                payload_len: 8 * self.below(130) as u32,
                topic_id: 0,
                flags: FLAG_PAD,
            },
            _ => FrameHeader::new(self.below(4) as u16, self.below(300) as u32),
        };
        header.to_bytes()
    }
}

/// Runs an entry point on inputs from the generator; returns how many passed for sound.
fn run(
    cases: u64,
    entry_point: fn(&[u8]) -> bool,
    mut input: impl FnMut(&mut Random) -> Vec<u8>,
) -> u64 {
    let mut random = Random(0x5EED);
    (0..cases)
        .map(|_| u64::from(entry_point(&input(&mut random))))
        .sum()
}

#[test]
fn any_header_survives_decoding_and_encoding() {
    let sound = run(200_000, entry_points::frame_header, |random| {
        random.next().to_le_bytes().to_vec()
    });
    assert!((1..200_000).contains(&sound), "sound={sound}");
}

#[test]
fn any_ring_gives_frames_inside_it_or_an_error_with_the_field() {
    let cases = 20_000;
    let sound = run(cases, entry_points::ring, |random| {
        let mut bytes = random.bytes(0);
        bytes.extend(random.next().to_le_bytes());
        bytes.extend(random.next().to_le_bytes());
        // Records back to back, so that some of the walk is sound.
        while bytes.len() < 4096 {
            let header = random.header();
            let payload_len = FrameHeader::from_bytes(header).payload_len.min(300);
            bytes.extend(header);
            bytes.resize(bytes.len() + payload_len.next_multiple_of(8) as usize, 0);
            if random.below(8) == 0 {
                let noise = random.bytes(64);
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
        random.bytes(12)
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

fn stream_bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![random.next() as u8];
    for _ in 0..random.below(12) {
        if random.below(4) == 0 {
            let header = FrameHeader::new(Ack::TOPIC_ID, size_of::<Ack>() as u32);
            bytes.extend(header.to_bytes());
            bytes.extend(random.next().to_le_bytes());
        } else {
            bytes.extend(random.header());
            let payload = random.bytes(300);
            bytes.extend(payload);
        }
    }
    bytes
}
