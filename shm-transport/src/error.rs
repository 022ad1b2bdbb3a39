//! What can go wrong, one type per operation. `Full` and `Empty` are outcomes to handle, not failures; they are here
//! because they come back through `Result` and `Option`.
//!
//! Every error is a value with the numbers in fields, and a sentence that says what to change:
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use mycelium_messages::bandit::Quote;
//! use shm_transport::channel::{Channel, ConnectOptions, ReportError};
//! use shm_transport::error::{
//!     AttachError, BatchError, BurstError, ChannelError, CreateError, DecodeError, HandshakeError, OpenError, PayloadError,
//!     ReserveError,
//! };
//! use shm_transport::frame::FrameHeader;
//! use shm_transport::ring::{Frame, Producer, RingMemory};
//! use shm_transport::segment::Segment;
//!
//! assert!(matches!(RingMemory::heap(5000), Err(CreateError::Capacity { capacity: 5000 })));
//! let memory = RingMemory::heap(4096)?;
//! let mut producer = Producer::attach(memory.clone())?;
//! assert!(matches!(Producer::attach(memory), Err(AttachError::Taken { end: "producer" })));
//!
//! let error = producer.try_reserve(FrameHeader::new(1001, 2000)).unwrap_err();
//! assert!(matches!(error, ReserveError::TooLarge { payload_len: 2000, max_payload: 1016 }));
//! assert!(error.to_string().ends_with("use a ring of at least 8192 bytes"));
//! let error = producer.batch().try_push(FrameHeader::new(1001, 2000), &[0; 2000]);
//! assert!(matches!(error, Err(BatchError::Reserve(ReserveError::TooLarge { .. }))));
//!
//! let error = Frame::new(7, b"").read::<Quote>().unwrap_err();
//! assert!(matches!(error, DecodeError::Topic { expected: 1001, actual: 7, .. }));
//! assert_eq!(PayloadError::from(error).to_string(), error.to_string());
//!
//! let no_segment = std::fs::File::open("/dev/null")?;
//! assert!(matches!(Segment::open(no_segment.into()), Err(OpenError::Invalid { .. } | OpenError::Io { .. })));
//!
//! let (ours, _theirs) = UnixStream::pair()?;
//! let too_long = ConnectOptions::default().named(&"x".repeat(65));
//! let error = Channel::from_stream(ours, &too_long).unwrap_err();
//! assert!(matches!(error, HandshakeError::TooLong { what: "name", len: 65, max: 64 }));
//!
//! let error = ReportError { what: "topic_id", number: 0, expected: "an integer" };
//! assert_eq!(error.to_string(), "topic_id of difference 0 is not an integer");
//! let error = ChannelError::Full { payload_len: 40, waited_ms: 100 };
//! assert!(error.to_string().ends_with("the peer reads too slowly"));
//!
//! let source = ChannelError::Full { payload_len: 40, waited_ms: 100 };
//! assert_eq!(BurstError { published: 7, source }.published, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a peer breaks is told with the field, its value and the legal range:
//!
//! ```
//! use shm_transport::error::{ContractMismatch, Corrupt};
//!
//! let corrupt = Corrupt { field: "payload_len", value: 5000, legal: (0, 1016), position: 64, word: 0x1388 };
//! assert!(corrupt.to_string().starts_with("ring is corrupt: field=payload_len value=5000 legal=0..=1016"));
//!
//! let mismatch = ContractMismatch {
//!     topic_id: 1001,
//!     expected: Some([1; 32]),
//!     actual: Some([2; 32]),
//!     differences: Vec::new(),
//!     reason: "layout of Quote differs".into(),
//! };
//! assert!(mismatch.to_string().contains("topic_id=1001"));
//! ```

use std::{fmt, io};

// Under the model checker there is no channel.
#[cfg(not(loom))]
use crate::channel::ContractDifference;
use crate::layout;

/// Memory that the peer can write holds something that no correct peer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "ring is corrupt: field={field} value={value} legal={}..={} at position={position} header_word={word:#018x}; \
     the peer broke the rules of the ring, close the link",
    legal.0, legal.1
)]
pub struct Corrupt {
    /// The field that is wrong.
    pub field: &'static str,
    /// The value that was loaded.
    pub value: u64,
    /// The lowest and the highest legal value.
    pub legal: (u64, u64),
    /// Where in the stream of the ring it was found.
    pub position: u64,
    /// The header word there, 0 if the field is not part of a record.
    pub word: u64,
}

/// Why a reservation was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The consumer has not released enough yet. Wait for room and try again.
    #[error(
        "ring is full: needed={needed} free={free}; wait for the consumer or use a larger ring"
    )]
    Full {
        /// Bytes that the record and its padding need.
        needed: usize,
        /// Bytes that were free at that instant.
        free: usize,
    },
    /// The payload never fits. Use a larger ring or split the message.
    #[error(
        "payload too large: payload_len={payload_len} max_payload={max_payload}; use a ring of at least {} bytes",
        ((payload_len + layout::FRAME_HEADER_LEN) * layout::RING_RECORD_DIVISOR).next_power_of_two()
    )]
    TooLarge {
        /// Bytes of the payload.
        payload_len: usize,
        /// Bytes that the ring takes at most.
        max_payload: usize,
    },
    /// Topic 0 and the PAD flag belong to the ring itself.
    #[error(
        "topic_id={topic_id} flags={flags:#06x} are reserved for padding; use a topic_id from 1 on without the PAD flag"
    )]
    ReservedTopic {
        /// The topic that was asked for.
        topic_id: u16,
        /// The flags that were asked for.
        flags: u16,
    },
    /// The consumer published an impossible head.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Why an end of a ring was not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// Another producer or consumer of this process has that end. Drop it first.
    #[error(
        "ring already has a {end} in this process; a ring has one producer and one consumer, drop the other first"
    )]
    Taken {
        /// `producer` or `consumer`.
        end: &'static str,
    },
    /// Another process has that end of the shared ring. It is free when that process drops it or ends.
    #[error(
        "ring already has a {end} in another process; a ring has one producer and one consumer, end the other process first"
    )]
    TakenElsewhere {
        /// `producer` or `consumer`.
        end: &'static str,
    },
    /// This process cannot run `membarrier`, or not be reached by that of others, so commits cannot be ordered so.
    #[error(
        "asymmetric fencing needs membarrier(2) in both processes, and this one has it not; use Fencing::Fenced on both sides"
    )]
    NoMembarrier,
    /// The ring was left in a state that no correct peer leaves.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Why a frame was not added to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The batch and this frame never fit into the ring together. Commit the batch and begin another.
    #[error(
        "batch too long: batch_len={batch_len} needed={needed} capacity={capacity}; commit it and begin another, or use a \
         larger ring"
    )]
    TooLong {
        /// Bytes of the records that are in the batch.
        batch_len: usize,
        /// Bytes that the next record and its padding need.
        needed: usize,
        /// Bytes of the ring.
        capacity: usize,
    },
    /// The frame was refused for itself.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

/// Why a frame is not the message that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is of another topic.
    #[error("frame is not a {message}: topic_id expected={expected} actual={actual}")]
    Topic {
        /// Name of the message that was asked for.
        message: &'static str,
        /// Its topic.
        expected: u16,
        /// The topic of the frame.
        actual: u16,
    },
    /// The payload has another length than the message.
    #[error(
        "payload is not a {message}: payload_len expected={expected} actual={actual}; do both sides use the same contracts?"
    )]
    Length {
        /// Name of the message that was asked for.
        message: &'static str,
        /// Bytes of the message.
        expected: usize,
        /// Bytes of the payload.
        actual: usize,
    },
    /// The flags of the frame name another encoding than the contract.
    #[error(
        "payload of {message} has another encoding: expected={expected} actual={actual}; do both sides use the same contracts?"
    )]
    Encoding {
        /// Name of the message that was asked for.
        message: &'static str,
        /// Its encoding.
        expected: &'static str,
        /// The encoding of the frame.
        actual: &'static str,
    },
}

/// Why a ring or a segment was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The capacity is not one that a ring can have.
    #[error(
        "ring capacity out of range: capacity={capacity}, need a power of two from {} to {}",
        layout::RING_CAPACITY_MIN,
        layout::RING_CAPACITY_MAX
    )]
    Capacity {
        /// The capacity that was asked for, in bytes.
        capacity: usize,
    },
    /// The heap has no room for a ring.
    #[error("no memory for a ring: len={len}; use a smaller ring")]
    NoMemory {
        /// Bytes that were asked for.
        len: usize,
    },
    /// Shared memory is switched off by the environment.
    #[error("shared memory is switched off by {}=shm", crate::disable::VARIABLE)]
    Disabled,
    /// The kernel gives no memory file.
    #[error("memfd_create failed: {source}; a seccomp profile may forbid it")]
    Memfd {
        /// What the kernel said.
        source: io::Error,
    },
    /// There is not enough memory for the segment.
    #[error(
        "no space for a segment: len={len} place={place}: {source}; use smaller rings or make room there"
    )]
    NoSpace {
        /// Bytes that were asked for.
        len: usize,
        /// `memory`, or the directory.
        place: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A required option is not to be had.
    #[error("segment option is required and not to be had: option={option}: {reason}")]
    Required {
        /// The option.
        option: &'static str,
        /// What stands against it.
        reason: String,
    },
    /// The segment could not be sealed or mapped.
    #[error("segment could not be prepared: step={step} len={len}: {source}")]
    Prepare {
        /// `seal` or `map`.
        step: &'static str,
        /// Bytes of the segment.
        len: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a segment was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Mapping is switched off by the environment.
    #[error("mapping is switched off by {}", crate::disable::VARIABLE)]
    Disabled,
    /// A system call failed.
    #[error("segment could not be opened: step={step}: {source}")]
    Io {
        /// `fstat`, `seals` or `map`.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A required option is not to be had.
    #[error("segment option is required and not to be had: option={option}: {reason}")]
    Required {
        /// The option.
        option: &'static str,
        /// What stands against it.
        reason: String,
    },
    /// A ring of the segment was left in a state that no correct peer leaves.
    #[error("segment is invalid: {0}")]
    Ring(AttachError),
    /// A field of the header is not what a bridge of this version writes.
    #[error(
        "segment is invalid: field={field} value={value:#x} expected {expected}; do both sides use the same version?"
    )]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What would be right, with the numbers.
        expected: String,
    },
}

/// Why a handshake did not end in a link.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket failed or the peer hung up.
    #[error("handshake failed: step={step}: {source}")]
    Io {
        /// What was being sent or awaited.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The peer sent something else than the protocol foresees.
    #[error(
        "handshake failed: expected {expected}, got {actual}; is the peer a Mycelium bridge of this version?"
    )]
    Unexpected {
        /// The frame that was due.
        expected: &'static str,
        /// What came.
        actual: String,
    },
    /// The bridge refused, and said why.
    #[error("bridge refused the link: code={code} ({name}): {message}")]
    Refused {
        /// The refusal code of the control contract.
        code: u16,
        /// Its name.
        name: &'static str,
        /// The bridge's sentence.
        message: String,
        /// `SCHEMA_MISMATCH`: digest of the bridge's contracts; zeros otherwise.
        expected_digest: [u8; 32],
        /// `SCHEMA_MISMATCH`: digest that this side sent; zeros otherwise.
        actual_digest: [u8; 32],
    },
    /// Shared memory was required and is not to be had.
    #[error(
        "shared memory is required but not available: {reason}; allow transport auto or remove the cause"
    )]
    ShmRequired {
        /// Why it is not available.
        reason: String,
    },
    /// A text does not fit into the Hello.
    #[error("{what} is too long: len={len} max={max}")]
    TooLong {
        /// `name` or `token`.
        what: &'static str,
        /// Its length, in bytes.
        len: usize,
        /// The longest that fits.
        max: usize,
    },
}

/// The bridge and this program have different layouts of a message.
#[cfg(not(loom))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractMismatch {
    /// The topic.
    pub topic_id: u16,
    /// Digest of the layout on the bridge's side, if it said so.
    pub expected: Option<[u8; 32]>,
    /// Digest of the layout on this side, if the message is in the contracts that were given when connecting.
    pub actual: Option<[u8; 32]>,
    /// What differs. Empty if no contracts were given when connecting, so that only digests were compared.
    pub differences: Vec<ContractDifference>,
    /// The bridge's sentence; empty if it was not asked.
    pub reason: String,
}

#[cfg(not(loom))]
impl std::error::Error for ContractMismatch {}

#[cfg(not(loom))]
impl fmt::Display for ContractMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic_id = self.topic_id;
        write!(
            f,
            "contracts differ: topic_id={topic_id} code=LAYOUT_MISMATCH"
        )?;
        for difference in &self.differences {
            write!(f, "; {difference} (bridge -> this side)")?;
        }
        if self.differences.is_empty() {
            return write!(f, "; {}", self.reason);
        }
        f.write_str("; generate both sides from the same contracts file")
    }
}

/// Why the payload of a dynamic message was not written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The frame is of another message or encoding.
    #[error(transparent)]
    Frame(#[from] DecodeError),
    /// The value is longer than the contract allows. Send less, or raise `max_size` in the contracts.
    #[error(
        "payload of {message} is too large: topic_id={topic_id} payload_len={payload_len} max_size={max_size}; \
         send less or raise max_size in the contracts file"
    )]
    TooLarge {
        /// Name of the message.
        message: &'static str,
        /// Its topic.
        topic_id: u16,
        /// Bytes of the payload; while a value is written, the bytes that it takes at least.
        payload_len: usize,
        /// Bytes that the contract allows.
        max_size: usize,
    },
    /// The bytes are not what the encoding asks for, or not the value that was asked for.
    #[error(
        "payload of {message} is not readable as {encoding}: topic_id={topic_id} payload_len={payload_len} \
         max_size={max_size}: {reason}"
    )]
    Undecodable {
        /// Name of the message.
        message: &'static str,
        /// Its topic.
        topic_id: u16,
        /// Its encoding.
        encoding: &'static str,
        /// Bytes of the payload.
        payload_len: usize,
        /// Bytes that the contract allows.
        max_size: usize,
        /// What the decoder said.
        reason: String,
    },
    /// The value cannot be written in this encoding.
    #[error("value of {message} cannot be written as {encoding}: topic_id={topic_id}: {reason}")]
    Unencodable {
        /// Name of the message.
        message: &'static str,
        /// Its topic.
        topic_id: u16,
        /// Its encoding.
        encoding: &'static str,
        /// What the encoder said.
        reason: String,
    },
    /// Values of this encoding are not supported by this build, or the encoding has none.
    #[error("no values in encoding {encoding}: message={message} topic_id={topic_id}; {remedy}")]
    NoCodec {
        /// Name of the message.
        message: &'static str,
        /// Its topic.
        topic_id: u16,
        /// Its encoding.
        encoding: &'static str,
        /// What to change.
        remedy: &'static str,
    },
}

/// Why a call on a [`Channel`](crate::channel::Channel) failed.
#[cfg(not(loom))]
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// There was no room until the deadline; the message was not sent.
    #[error(
        "channel is full: payload_len={payload_len} waited_ms={waited_ms}; the peer reads too slowly"
    )]
    Full {
        /// Bytes of the payload that found no room.
        payload_len: usize,
        /// How long there was no room.
        waited_ms: u128,
    },
    /// The payload never fits.
    #[error(
        "payload too large: payload_len={payload_len} max_payload={max_payload}; configure a larger ring_capacity"
    )]
    TooLarge {
        /// Bytes of the payload.
        payload_len: usize,
        /// Bytes that the channel takes at most.
        max_payload: usize,
    },
    /// Nothing came until the deadline.
    #[error("nothing arrived: waited_ms={waited_ms}")]
    TimedOut {
        /// How long was waited.
        waited_ms: u128,
    },
    /// The channel is closed: the bridge shut down, everything that it sent before has been read.
    #[error("channel is closed: {reason}")]
    Closed {
        /// What the bridge said.
        reason: String,
    },
    /// The peer vanished without a word.
    #[error("peer is lost: it hung up without a goodbye ({detail})")]
    PeerLost {
        /// What was seen.
        detail: String,
    },
    /// The bridge does not serve a topic as asked.
    #[error(
        "bridge refused topic_id={topic_id} of message={message}: code={code} ({name}): {reason}"
    )]
    Topic {
        /// The topic.
        topic_id: u16,
        /// Name of the message.
        message: &'static str,
        /// The topic code of the control contract.
        code: u16,
        /// Its name.
        name: &'static str,
        /// The bridge's sentence.
        reason: String,
    },
    /// The layouts of both sides differ on a topic; everything else flows. Generate both from the same contracts.
    #[error(transparent)]
    ContractMismatch(#[from] Box<ContractMismatch>),
    /// A value of a dynamic message cannot be sent.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Shared memory holds something that no correct peer writes.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The peer sent a frame that the protocol does not allow.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The topic or flags are reserved.
    #[error(
        "topic_id={topic_id} is reserved; applications use topics from {} on",
        layout::APP_TOPIC_MIN
    )]
    ReservedTopic {
        /// The topic.
        topic_id: u16,
    },
    /// A system call failed.
    #[error("channel failed: step={step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a burst ended early.
#[cfg(not(loom))]
#[derive(Debug, thiserror::Error)]
#[error("burst ended early: published={published}: {source}")]
pub struct BurstError {
    /// Messages in front of the one that was not published; they are on their way.
    pub published: usize,
    /// Why that one was not.
    pub source: ChannelError,
}
