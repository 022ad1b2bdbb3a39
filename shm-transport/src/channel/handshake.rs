//! The handshake, both sides of it, over a [`FrameStream`].
//!
//! ```text
//! peer                                   bridge
//!  | Hello ------------------------------> |
//!  | <----------------------------- Refused|   and the socket is closed, or:
//!  | <-- Welcome (+ segment, doorbells)    |
//!  | <-- Settings                          |
//!  | ContractsOffer ---------------------> |   only if the schema digests of Hello and Welcome differ
//!  | <---------------------- ContractsReport|
//!  | Attached ---------------------------> |   shared memory, or the socket and why
//! ```

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use mycelium_messages::control::{
    Attached, AttachedTransport, ContractsOffer, ContractsReport, FallbackCode,
    Fencing as WireFencing, Hello, HelloTransport, Refused, RefusedCode, Settings, Welcome,
    WelcomeTransport,
};
use mycelium_messages::{DynamicMessage as _, InlineString, Message};

use super::contracts::{ContractDifference, PeerContracts, decode_report, encode_report};
use super::ends::LinkEnds;
use super::fallback::Fallback;
use super::{ConnectOptions, TransportRequest, text};
use crate::disable::is_disabled;
use crate::error::{HandshakeError, OpenError};
use crate::frame::{Encoding, FrameHeader};
use crate::layout::{
    CAPABILITY_FD_PASSING, CAPABILITY_GAPS, CAPABILITY_MEMBARRIER, PROTOCOL_VERSION,
    RING_TO_BRIDGE, RING_TO_PEER,
};
use crate::ring::{Fencing, Frame};
use crate::segment::{MemoryOptions, Segment};
use crate::socket::{CONTROL_PAYLOAD_MAX, FrameStream, StreamError, StreamKind};
use crate::wakeup::{Doorbell, membarrier_is_available};

/// File descriptors that a Welcome carries: segment, the bridge's doorbell, the peer's doorbell.
const WELCOME_FDS: usize = 3;

/// What a bridge offers to a peer that said hello.
#[derive(Debug)]
pub struct Offer<'a> {
    /// Name of the link.
    pub name: &'a str,
    /// Number of the link inside the bridge.
    pub link_id: u32,
    /// How often the link has been handed to a peer, counted from 1.
    pub epoch: u64,
    /// Longest spin of the peer, in microseconds.
    pub spin_us: u32,
    /// Largest payload of the link, in bytes.
    pub max_payload: u32,
    /// Socket transport: bytes after which the peer has to acknowledge.
    pub ack_window: u32,
    /// Digest of the bridge's contracts.
    pub schema_digest: [u8; 32],
    /// The worker's settings, a JSON object.
    pub settings: &'a str,
    /// How commits are ordered against parked flags.
    pub fencing: Fencing,
    /// Shared memory, or why not.
    pub transport: OfferedTransport<'a>,
}

impl Offer<'_> {
    fn fallback(&self) -> Option<&Fallback> {
        match &self.transport {
            OfferedTransport::Shm { .. } => None,
            OfferedTransport::Socket(fallback) => Some(fallback),
        }
    }
}

/// The transport that a bridge offers.
#[derive(Debug)]
pub enum OfferedTransport<'a> {
    /// Shared memory, with the descriptors that the peer needs.
    Shm {
        /// The memory file.
        segment: BorrowedFd<'a>,
        /// The doorbell that the peer rings.
        bridge_doorbell: BorrowedFd<'a>,
        /// The doorbell that the peer waits on.
        peer_doorbell: BorrowedFd<'a>,
    },
    /// Frames on the socket.
    Socket(Fallback),
}

/// What both sides agreed on; `None` is shared memory.
pub type Agreed = Option<Fallback>;

/// Bridge side, step 1: waits for the Hello.
///
/// # Errors
///
/// [`HandshakeError`] if the peer sends something else, hangs up, or is too slow.
pub fn receive_hello(stream: &mut FrameStream, deadline: Instant) -> Result<Hello, HandshakeError> {
    let (header, payload) = receive(stream, "Hello", deadline)?;
    decode::<Hello>(header, &payload, "Hello")
}

/// Whether the fencing of a link with this peer can be asymmetric: both sides are registered for membarrier.
#[must_use]
pub fn fencing_with(hello: &Hello) -> Fencing {
    if hello.capabilities & CAPABILITY_MEMBARRIER != 0 && membarrier_is_available() {
        Fencing::Asymmetric
    } else {
        Fencing::Fenced
    }
}

/// Why the peer itself rules shared memory out, if it does.
#[must_use]
pub fn peer_fallback(hello: &Hello) -> Option<Fallback> {
    if hello.transport == HelloTransport::SOCKET {
        return Some(Fallback::requested("the peer"));
    }
    if hello.capabilities & CAPABILITY_FD_PASSING == 0 {
        let reason = "the peer cannot receive file descriptors";
        return Some(Fallback::new(FallbackCode::FD_PASSING, reason));
    }
    None
}

/// Why a link cannot use shared memory because of its stream, if that is so.
#[must_use]
pub fn stream_fallback(stream: &FrameStream) -> Option<Fallback> {
    let kind = stream.kind();
    (kind != StreamKind::Unix).then(|| {
        let reason = format!(
            "a stream over {} carries no file descriptors; shared memory needs a unix socket",
            kind.name()
        );
        Fallback::new(FallbackCode::REMOTE, reason)
    })
}

/// Bridge side: why a link with this peer cannot use shared memory, if that is known by now: the peer does not want it, or
/// the stream or the peer cannot carry it.
#[must_use]
pub fn known_fallback(stream: &FrameStream, hello: &Hello) -> Option<Fallback> {
    if hello.transport == HelloTransport::SOCKET {
        return peer_fallback(hello);
    }
    stream_fallback(stream).or_else(|| peer_fallback(hello))
}

/// Bridge side: refuses the peer. The caller closes the socket afterwards.
///
/// # Errors
///
/// [`HandshakeError::Io`] if the peer is gone already.
pub fn refuse(
    stream: &mut FrameStream,
    code: RefusedCode,
    message: &str,
    digests: Option<([u8; 32], [u8; 32])>,
    deadline: Instant,
) -> Result<(), HandshakeError> {
    let (expected_digest, actual_digest) = digests.unwrap_or_default();
    let refused = Refused {
        code,
        expected_digest,
        actual_digest,
        message: InlineString::truncated(message),
    };
    stream.queue_message(&refused);
    stream.flush_until(deadline).map_err(io_error("Refused"))
}

/// Whether the contracts of two sides have to be compared message by message: both have some, and not the same.
#[must_use]
pub fn contracts_differ(ours: &[u8; 32], theirs: &[u8; 32]) -> bool {
    const NONE: [u8; 32] = [0; 32];
    *ours != NONE && *theirs != NONE && ours != theirs
}

/// Bridge side, steps 2 and 3: sends Welcome and Settings, waits for Attached. For a peer with the same contracts; for
/// others the three steps [`announce`], [`receive_contracts`] with [`send_report`], and [`receive_attached`].
///
/// # Errors
///
/// [`HandshakeError`] if the peer hangs up (as one does that requires shared memory), answers something else, or is
/// too slow.
pub fn offer(
    stream: &mut FrameStream,
    offer: &Offer<'_>,
    deadline: Instant,
) -> Result<Agreed, HandshakeError> {
    announce(stream, offer, deadline)?;
    receive_attached(stream, offer, deadline)
}

/// Bridge side: waits for the contracts of a peer whose schema digest differs. Returns the JSON as it came, of bounded
/// length and not looked at.
///
/// # Errors
///
/// [`HandshakeError`] if the peer hangs up, sends something else or more than a `ContractsOffer` may have, or is too slow.
pub fn receive_contracts(
    stream: &mut FrameStream,
    deadline: Instant,
) -> Result<Vec<u8>, HandshakeError> {
    let received = receive_json(stream, ContractsOffer::MAX_SIZE, "ContractsOffer", deadline);
    let (header, payload) = received?;
    if header.topic_id != ContractsOffer::TOPIC_ID {
        return Err(unexpected("ContractsOffer", header));
    }
    Ok(payload)
}

/// Bridge side: tells the peer what differs. Texts are cut where there are too many.
///
/// # Errors
///
/// [`HandshakeError`] if the peer hangs up, does not read, or there are more differences than a frame takes.
pub fn send_report(
    stream: &mut FrameStream,
    differences: &[ContractDifference],
    deadline: Instant,
) -> Result<(), HandshakeError> {
    let report = encode_report(differences).ok_or_else(|| HandshakeError::Unexpected {
        expected: "contracts that have something in common",
        actual: format!("{} differences", differences.len()),
    })?;
    queue_json(stream, ContractsReport::TOPIC_ID, &report);
    stream
        .flush_until(deadline)
        .map_err(io_error("ContractsReport"))
}

/// Bridge side, step 2: sends Welcome and Settings.
///
/// # Errors
///
/// [`HandshakeError`] if the peer hangs up or does not read.
pub fn announce(
    stream: &mut FrameStream,
    offer: &Offer<'_>,
    deadline: Instant,
) -> Result<(), HandshakeError> {
    let fallback = offer.fallback();
    let welcome = Welcome {
        protocol_version: PROTOCOL_VERSION,
        transport: if fallback.is_none() {
            WelcomeTransport::SHM
        } else {
            WelcomeTransport::SOCKET
        },
        fencing: match offer.fencing {
            Fencing::Asymmetric => WireFencing::ASYMMETRIC,
            Fencing::Fenced => WireFencing::FENCED,
        },
        fallback_code: fallback.map_or(FallbackCode::NONE, |fallback| fallback.code),
        link_id: offer.link_id,
        spin_us: offer.spin_us,
        max_payload: offer.max_payload,
        ack_window: offer.ack_window,
        epoch: offer.epoch,
        schema_digest: offer.schema_digest,
        name: InlineString::truncated(offer.name),
        fallback_reason: InlineString::truncated(fallback.map_or("", |fallback| &fallback.reason)),
        ..Welcome::default()
    };
    match offer.transport {
        OfferedTransport::Shm {
            segment,
            bridge_doorbell,
            peer_doorbell,
        } => {
            let fds = [segment, bridge_doorbell, peer_doorbell];
            stream
                .send_with_fds(&welcome, &fds, deadline)
                .map_err(io_error("Welcome"))?;
        }
        OfferedTransport::Socket(_) => stream.queue_message(&welcome),
    }
    queue_json(stream, Settings::TOPIC_ID, offer.settings);
    stream.flush_until(deadline).map_err(io_error("Settings"))
}

/// Bridge side, step 3: waits for Attached.
///
/// # Errors
///
/// As [`offer`].
pub fn receive_attached(
    stream: &mut FrameStream,
    offer: &Offer<'_>,
    deadline: Instant,
) -> Result<Agreed, HandshakeError> {
    let fallback = offer.fallback();
    let (header, payload) = receive(stream, "Attached", deadline)?;
    let attached = decode::<Attached>(header, &payload, "Attached")?;
    match (attached.transport, fallback) {
        (AttachedTransport::SHM, None) => Ok(None),
        (AttachedTransport::SOCKET, Some(fallback)) => Ok(Some(fallback.clone())),
        (AttachedTransport::SOCKET, None) => Ok(Some(Fallback::new(
            attached.fallback_code,
            text(&attached.fallback_reason),
        ))),
        (transport, _) => Err(HandshakeError::Unexpected {
            expected: "Attached with the offered transport",
            actual: format!("Attached with transport={}", transport.0),
        }),
    }
}

/// What the peer has in hand after the handshake.
pub(super) struct Joined {
    pub(super) welcome: Welcome,
    pub(super) settings: serde_json::Value,
    pub(super) data: JoinedData,
    /// What differs between the contracts of both sides.
    pub(super) differences: Vec<ContractDifference>,
}

pub(super) enum JoinedData {
    Shm(LinkEnds),
    Socket(Fallback),
}

/// Peer side: the whole handshake.
pub(super) fn join(
    stream: &mut FrameStream,
    options: &ConnectOptions,
    deadline: Instant,
) -> Result<Joined, HandshakeError> {
    if let (Some(fallback), TransportRequest::Shm) = (stream_fallback(stream), options.transport) {
        return Err(HandshakeError::ShmRequired {
            reason: fallback.to_string(),
        });
    }
    stream.queue_message(&hello(options, stream.kind() == StreamKind::Unix)?);
    match stream.flush_until(deadline) {
        // A bridge that closes before it has the Hello may have said why.
        Ok(()) | Err(StreamError::HangUp) => {}
        Err(error) => return Err(io_error("Hello")(error)),
    }

    let (header, payload) = receive(stream, "Welcome", deadline)?;
    check_refused(header, &payload)?;
    let welcome = decode::<Welcome>(header, &payload, "Welcome")?;
    if welcome.protocol_version != PROTOCOL_VERSION {
        return Err(HandshakeError::Unexpected {
            expected: "the same protocol version",
            actual: format!(
                "bridge={} peer={PROTOCOL_VERSION}",
                welcome.protocol_version
            ),
        });
    }
    let fds = stream.take_fds();
    let (header, payload) = receive(stream, "Settings", deadline)?;
    if header.topic_id != Settings::TOPIC_ID {
        return Err(unexpected("Settings", header));
    }
    let settings =
        serde_json::from_slice(&payload).map_err(|error| HandshakeError::Unexpected {
            expected: "Settings as JSON",
            actual: error.to_string(),
        })?;

    let differences = if contracts_differ(&options.contracts.digest(), &welcome.schema_digest) {
        exchange_contracts(stream, &options.contracts, deadline)?
    } else {
        Vec::new()
    };

    let fencing = if welcome.fencing == WireFencing::ASYMMETRIC {
        Fencing::Asymmetric
    } else {
        Fencing::Fenced
    };
    let data = if welcome.transport == WelcomeTransport::SHM {
        match map(fds, fencing, &options.memory) {
            Ok(ends) => JoinedData::Shm(ends),
            Err(error) => JoinedData::Socket(Fallback::from(&error)),
        }
    } else {
        JoinedData::Socket(Fallback::new(
            welcome.fallback_code,
            text(&welcome.fallback_reason),
        ))
    };
    if let (JoinedData::Socket(fallback), TransportRequest::Shm) = (&data, options.transport) {
        return Err(HandshakeError::ShmRequired {
            reason: fallback.to_string(),
        });
    }
    stream.queue_message(&attached(&data));
    stream.flush_until(deadline).map_err(io_error("Attached"))?;
    Ok(Joined {
        welcome,
        settings,
        data,
        differences,
    })
}

/// Peer side: shows the contracts and waits for what the bridge found.
fn exchange_contracts(
    stream: &mut FrameStream,
    contracts: &PeerContracts,
    deadline: Instant,
) -> Result<Vec<ContractDifference>, HandshakeError> {
    let json = contracts.to_json();
    if json.len() > ContractsOffer::MAX_SIZE {
        return Err(HandshakeError::TooLong {
            what: "description of the contracts",
            len: json.len(),
            max: ContractsOffer::MAX_SIZE,
        });
    }
    queue_json(stream, ContractsOffer::TOPIC_ID, &json);
    match stream.flush_until(deadline) {
        // A bridge that closes before it has everything may have said why.
        Ok(()) | Err(StreamError::HangUp) => {}
        Err(error) => return Err(io_error("ContractsOffer")(error)),
    }
    let received = receive_json(
        stream,
        ContractsReport::MAX_SIZE,
        "ContractsReport",
        deadline,
    );
    let (header, payload) = received?;
    check_refused(header, &payload)?;
    if header.topic_id != ContractsReport::TOPIC_ID {
        return Err(unexpected("ContractsReport", header));
    }
    decode_report(&payload).map_err(|actual| HandshakeError::Unexpected {
        expected: "a report of the differences",
        actual,
    })
}

fn check_refused(header: FrameHeader, payload: &[u8]) -> Result<(), HandshakeError> {
    if header.topic_id != Refused::TOPIC_ID {
        return Ok(());
    }
    let refused = decode::<Refused>(header, payload, "Refused")?;
    Err(HandshakeError::Refused {
        code: refused.code.0,
        name: refused.code.name().unwrap_or("UNKNOWN"),
        message: text(&refused.message),
        expected_digest: refused.expected_digest,
        actual_digest: refused.actual_digest,
    })
}

fn queue_json(stream: &mut FrameStream, topic_id: u16, json: &str) {
    let header = FrameHeader::new(topic_id, json.len() as u32).with_encoding(Encoding::Json);
    stream.queue(header, json.as_bytes());
}

/// Whether the peer knows the control frame Gap.
#[must_use]
pub fn takes_gaps(hello: &Hello) -> bool {
    hello.capabilities & CAPABILITY_GAPS != 0
}

fn hello(options: &ConnectOptions, passes_fds: bool) -> Result<Hello, HandshakeError> {
    let mut capabilities = CAPABILITY_GAPS;
    if membarrier_is_available() {
        capabilities |= CAPABILITY_MEMBARRIER;
    }
    if passes_fds && !is_disabled("fd-passing") {
        capabilities |= CAPABILITY_FD_PASSING;
    }
    let too_long = |what, text: &str, max| HandshakeError::TooLong {
        what,
        len: text.len(),
        max,
    };
    Ok(Hello {
        protocol_version: PROTOCOL_VERSION,
        transport: match options.transport {
            TransportRequest::Auto => HelloTransport::AUTO,
            TransportRequest::Shm => HelloTransport::SHM,
            TransportRequest::Socket => HelloTransport::SOCKET,
        },
        capabilities,
        pid: std::process::id(),
        schema_digest: options.contracts.digest(),
        name: InlineString::new(&options.name).map_err(|_| too_long("name", &options.name, 64))?,
        token: InlineString::new(&options.token)
            .map_err(|_| too_long("token", &options.token, 128))?,
    })
}

/// Maps the segment and takes the peer's ends of its rings, so that whatever is wrong with it shows before this side
/// says that it is attached.
fn map(fds: Vec<OwnedFd>, fencing: Fencing, memory: &MemoryOptions) -> Result<LinkEnds, OpenError> {
    let count = fds.len();
    let [segment, bridge_doorbell, own_doorbell] = <[OwnedFd; WELCOME_FDS]>::try_from(fds)
        .map_err(|_| OpenError::Invalid {
            field: "file descriptors",
            value: count as u64,
            expected: WELCOME_FDS.to_string(),
        })?;
    let segment = Segment::open_with(segment, memory)?;
    let (read, write) = (segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE));
    let (own_doorbell, bridge_doorbell) = (
        Doorbell::from_fd(own_doorbell),
        Doorbell::from_fd(bridge_doorbell),
    );
    LinkEnds::attach(read, write, own_doorbell, bridge_doorbell, fencing).map_err(OpenError::Ring)
}

fn attached(data: &JoinedData) -> Attached {
    match data {
        JoinedData::Shm(_) => Attached {
            transport: AttachedTransport::SHM,
            ..Attached::default()
        },
        JoinedData::Socket(fallback) => Attached {
            transport: AttachedTransport::SOCKET,
            fallback_code: fallback.code,
            fallback_reason: InlineString::truncated(&fallback.reason),
            ..Attached::default()
        },
    }
}

fn receive(
    stream: &mut FrameStream,
    expected: &'static str,
    deadline: Instant,
) -> Result<(FrameHeader, Vec<u8>), HandshakeError> {
    stream.receive_until(deadline).map_err(io_error(expected))
}

/// As `receive`, for a frame that may be longer than other control frames.
fn receive_json(
    stream: &mut FrameStream,
    max_size: usize,
    expected: &'static str,
    deadline: Instant,
) -> Result<(FrameHeader, Vec<u8>), HandshakeError> {
    stream.limit_control(max_size);
    let received = receive(stream, expected, deadline);
    stream.limit_control(CONTROL_PAYLOAD_MAX);
    received
}

fn decode<M: Message>(
    header: FrameHeader,
    payload: &[u8],
    expected: &'static str,
) -> Result<M, HandshakeError> {
    if header.topic_id != M::TOPIC_ID {
        return Err(unexpected(expected, header));
    }
    Frame::new(header.topic_id, payload)
        .read::<M>()
        .map_err(|error| HandshakeError::Unexpected {
            expected,
            actual: error.to_string(),
        })
}

fn unexpected(expected: &'static str, header: FrameHeader) -> HandshakeError {
    let FrameHeader {
        payload_len,
        topic_id,
        flags,
    } = header;
    let actual =
        format!("a frame with topic_id={topic_id} payload_len={payload_len} flags={flags:#06x}");
    HandshakeError::Unexpected { expected, actual }
}

fn io_error(step: &'static str) -> impl Fn(StreamError) -> HandshakeError {
    move |error| match error {
        StreamError::Io { source, .. } => HandshakeError::Io { step, source },
        StreamError::HangUp => HandshakeError::Io {
            step,
            source: std::io::ErrorKind::UnexpectedEof.into(),
        },
        StreamError::TimedOut => HandshakeError::Io {
            step,
            source: std::io::ErrorKind::TimedOut.into(),
        },
        StreamError::TooLarge { .. } | StreamError::NoDescriptors { .. } => {
            HandshakeError::Unexpected {
                expected: step,
                actual: error.to_string(),
            }
        }
    }
}
