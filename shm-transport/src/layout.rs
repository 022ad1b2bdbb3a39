//! Every offset of the segment, with the picture. The numbers come from `contracts/layout.yaml`, which also yields
//! the Python constants and `docs/layout.md`; this module draws them and checks that they fit together.
//!
//! ```text
//! segment                                   ring descriptor (32 bytes)
//! +--------------------------------+ 0      +------------------+ 0
//! | header, one page               |        | control_offset   |
//! |   0 magic        u64           |        | data_offset      | 8
//! |   8 version      u32           |        | capacity         | 16
//! |  12 ring_count   u32           |        | 0                | 24
//! |  16 total_len    u64           |        +------------------+
//! |  24 epoch        u64           |
//! |  32 schema_digest [u8; 32]     |        ring control block (one page)
//! |  64 descriptor of ring to peer |        +------------------+ 0
//! |  96 descriptor of ring to      |        | head             |  written by the consumer
//! |     bridge                     |        +------------------+ 128
//! +--------------------------------+ 4096   | tail             |  written by the producer
//! | control block, ring to peer    |        +------------------+ 256
//! +--------------------------------+ 8192   | consumer_parked  |  set by the consumer, cleared by both
//! | data, ring to peer             |        +------------------+ 384
//! +--------------------------------+        | producer_parked  |  set by the producer, cleared by both
//! | control block, ring to bridge  |        +------------------+
//! +--------------------------------+
//! | data, ring to bridge           |
//! +--------------------------------+
//! ```
//!
//! The four control words sit on lines of 128 bytes, because adjacent 64-byte lines are fetched in pairs.

pub use mycelium_messages::layout::*;

const _: () = {
    assert!(FRAME_HEADER_LEN == size_of::<u64>() && FRAME_ALIGN == align_of::<u64>());
    assert!(SEGMENT_RINGS_OFFSET >= SEGMENT_SCHEMA_DIGEST_OFFSET + 32);
    assert!(SEGMENT_RINGS_OFFSET + RING_COUNT * RING_DESCRIPTOR_LEN <= SEGMENT_HEADER_LEN);
    assert!(
        SEGMENT_HEADER_LEN.is_multiple_of(PAGE_LEN) && RING_CONTROL_LEN.is_multiple_of(PAGE_LEN)
    );
    assert!(
        RING_TAIL_OFFSET - RING_HEAD_OFFSET >= 128
            && RING_CONSUMER_PARKED_OFFSET - RING_TAIL_OFFSET >= 128
    );
    assert!(RING_PRODUCER_PARKED_OFFSET - RING_CONSUMER_PARKED_OFFSET >= 128);
    assert!(RING_PRODUCER_PARKED_OFFSET + 8 <= RING_CONTROL_LEN);
    assert!(RING_CAPACITY_MIN.is_power_of_two() && RING_CAPACITY_MAX.is_power_of_two());
    assert!(RING_CAPACITY_MIN.is_multiple_of(PAGE_LEN));
};
