//! A segment opened by "another process": a second mapping of the same file, sound and tampered with.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::backing::SEALS;
use super::*;
use crate::frame::FrameHeader;
use crate::layout::{RING_TO_BRIDGE, RING_TO_PEER};
use crate::ring::{Consumer, End, Producer};

fn options() -> SegmentOptions {
    SegmentOptions {
        ring_capacity: [8192, 4096],
        schema_digest: [7; 32],
        ..SegmentOptions::new(4096)
    }
}

fn duplicate(segment: &Segment) -> OwnedFd {
    segment.fd().try_clone_to_owned().expect("dup")
}

#[test]
fn both_directions_flow_between_two_mappings() {
    let bridge = Segment::create(&options()).expect("create");
    bridge.set_epoch(3);
    let peer = Segment::open(duplicate(&bridge)).expect("open");
    assert_eq!(
        (peer.epoch(), peer.schema_digest(), peer.len()),
        (3, [7; 32], bridge.len())
    );
    assert_eq!(
        (
            peer.ring(RING_TO_PEER).capacity(),
            peer.ring(RING_TO_BRIDGE).capacity()
        ),
        (8192, 4096)
    );
    for (number, text) in [(RING_TO_PEER, b"down"), (RING_TO_BRIDGE, b"back")] {
        let (from, to) = if number == RING_TO_PEER {
            (&bridge, &peer)
        } else {
            (&peer, &bridge)
        };
        let mut producer = Producer::attach(from.ring(number)).expect("producer");
        let mut consumer = Consumer::attach(to.ring(number)).expect("consumer");
        producer
            .try_push(FrameHeader::new(1001, 4), text)
            .expect("room");
        assert_eq!(
            consumer
                .try_read()
                .expect("sound")
                .expect("a frame")
                .frame()
                .to_vec(),
            text
        );
    }
}

#[test]
fn a_segment_can_neither_shrink_nor_grow_nor_lose_its_seals() {
    let segment = Segment::create(&options()).expect("create");
    let file = std::fs::File::from(duplicate(&segment));
    assert!(file.set_len(4096).is_err());
    assert!(file.set_len(1 << 20).is_err());
    assert!(fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).is_err());
}

#[test]
fn a_capacity_out_of_range_is_refused_with_the_range() {
    for capacity in [0, 1, 2048, 4097, 2 << 30] {
        let error = Segment::create(&SegmentOptions {
            ring_capacity: [4096, capacity],
            ..options()
        })
        .expect_err("bad");
        let text = error.to_string();
        assert!(
            text.contains(&format!(
                "capacity={capacity}, need a power of two from 4096"
            )),
            "{text}"
        );
    }
}

#[test]
fn every_wrong_header_field_is_named_with_its_value() {
    let sound = Segment::create(&options()).expect("create");
    let len = sound.len();
    let mut image = vec![0_u8; len];
    std::fs::File::from(duplicate(&sound))
        .read_exact_at(&mut image, 0)
        .expect("read");
    let descriptor = |ring: usize| SEGMENT_RINGS_OFFSET + ring * RING_DESCRIPTOR_LEN;
    let cases: [(&str, usize, u64); 14] = [
        ("magic", SEGMENT_MAGIC_OFFSET, 1),
        (
            "version",
            SEGMENT_VERSION_OFFSET,
            2 | (RING_COUNT as u64) << 32,
        ),
        ("ring_count", SEGMENT_VERSION_OFFSET, 1 | 3 << 32),
        ("total_len", SEGMENT_TOTAL_LEN_OFFSET, len as u64 + 1),
        (
            "control_offset",
            descriptor(0) + RING_CONTROL_OFFSET_OFFSET,
            0,
        ),
        (
            "control_offset",
            descriptor(0) + RING_CONTROL_OFFSET_OFFSET,
            4100,
        ),
        (
            "control_offset",
            descriptor(1) + RING_CONTROL_OFFSET_OFFSET,
            4096,
        ),
        ("data_offset", descriptor(0) + RING_DATA_OFFSET_OFFSET, 4096),
        (
            "data_offset",
            descriptor(1) + RING_DATA_OFFSET_OFFSET,
            u64::MAX - 4095,
        ),
        (
            "data_offset",
            descriptor(1) + RING_DATA_OFFSET_OFFSET,
            len as u64,
        ),
        ("capacity", descriptor(0) + RING_CAPACITY_OFFSET, 0),
        ("capacity", descriptor(0) + RING_CAPACITY_OFFSET, 8191),
        ("capacity", descriptor(1) + RING_CAPACITY_OFFSET, 1 << 40),
        ("data_offset", descriptor(1) + RING_CAPACITY_OFFSET, 8192),
    ];
    for (field, offset, value) in cases {
        let mut bad = image.clone();
        bad[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        let error = Segment::open(sealed_file(&bad, SEALS)).expect_err("invalid");
        let OpenError::Invalid { field: named, .. } = &error else {
            panic!("{field}: {error}")
        };
        assert_eq!(*named, field, "offset={offset} value={value:#x}: {error}");
    }
    Segment::open(sealed_file(&image, SEALS)).expect("the untouched copy is sound");
}

#[test]
fn a_file_without_seals_or_of_impossible_length_is_refused() {
    let error =
        Segment::open(sealed_file(&[0; 65536], SealFlag::F_SEAL_GROW)).expect_err("no seals");
    assert!(error.to_string().contains("field=seals"), "{error}");
    let error = Segment::open(sealed_file(&[0; 100], SEALS)).expect_err("short");
    assert!(
        error
            .to_string()
            .contains("field=file length value=0x64 expected 20480..="),
        "{error}"
    );
    let (pipe, _) = nix::unistd::pipe().expect("pipe");
    let error = Segment::open(pipe).expect_err("no file");
    assert!(error.to_string().contains("field=file type"), "{error}");
    let empty = tempfile::tempfile().expect("tempfile");
    let error = Segment::open(empty.into()).expect_err("empty");
    assert!(error.to_string().contains("field=file length"), "{error}");
}

fn sealed_file(image: &[u8], seals: SealFlag) -> OwnedFd {
    let fd =
        memfd_create(c"test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
    let mut file = std::fs::File::from(fd);
    file.write_all(image).expect("write");
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seal");
    file.into()
}

#[test]
fn an_end_that_another_mapping_has_is_refused_until_it_is_dropped() {
    let bridge = Segment::create(&options()).expect("create");
    let peer = Segment::open(duplicate(&bridge)).expect("open");
    let producer = Producer::attach(bridge.ring(RING_TO_PEER)).expect("free");
    let consumer = Consumer::attach(bridge.ring(RING_TO_BRIDGE)).expect("free");
    let taken = |end| crate::error::AttachError::TakenElsewhere { end };
    assert_eq!(
        Producer::attach(peer.ring(RING_TO_PEER)).expect_err("taken"),
        taken("producer")
    );
    assert_eq!(
        Consumer::attach(peer.ring(RING_TO_BRIDGE)).expect_err("taken"),
        taken("consumer")
    );
    // A refusal leaves nothing behind, and the other ends are free all along.
    Consumer::attach(peer.ring(RING_TO_PEER)).expect("free");
    Producer::attach(peer.ring(RING_TO_BRIDGE)).expect("free");
    drop((producer, consumer));
    Producer::attach(peer.ring(RING_TO_PEER)).expect("free again");
    Consumer::attach(peer.ring(RING_TO_BRIDGE)).expect("free again");
}

#[test]
fn an_end_is_free_when_the_mapping_that_has_it_is_gone() {
    let bridge = Segment::create(&options()).expect("create");
    let peer = Segment::open(duplicate(&bridge)).expect("open");
    // Leaked, as a killed process leaves it; then its last descriptor is closed.
    let locks = EndLocks::open(peer.fd()).expect("proc");
    let locks = Arc::new(locks);
    assert!(
        Arc::clone(&locks)
            .of_ring(RING_TO_PEER, Duration::ZERO)
            .take(End::Producer)
    );
    Producer::attach(bridge.ring(RING_TO_PEER)).expect_err("taken");
    drop(locks);
    Producer::attach(bridge.ring(RING_TO_PEER)).expect("free again");
}

#[test]
fn the_bytes_of_the_peers_ends_are_those_that_python_locks() {
    let bridge = Segment::create(&options()).expect("create");
    let other = EndLocks::open(bridge.fd()).expect("proc");
    for byte in [1, 2] {
        other.set(byte, nix::libc::F_WRLCK).expect("free");
    }
    Consumer::attach(bridge.ring(RING_TO_PEER)).expect_err("byte 1");
    Producer::attach(bridge.ring(RING_TO_BRIDGE)).expect_err("byte 2");
    Producer::attach(bridge.ring(RING_TO_PEER)).expect("the bridge's own");
    Consumer::attach(bridge.ring(RING_TO_BRIDGE)).expect("the bridge's own");
}
