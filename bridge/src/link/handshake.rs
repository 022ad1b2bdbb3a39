//! The bridge's side of a handshake, from the first byte to an attached peer. Runs on a blocking thread, because it is
//! a short exchange with a deadline.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mycelium_contracts::Contracts;
use mycelium_messages::control::{Hello, HelloTransport, RefusedCode};
use shm_transport::channel::handshake::{
    Agreed, Offer, OfferedTransport, announce, contracts_differ, fencing_with, known_fallback,
    receive_attached, receive_contracts, receive_hello, refuse, send_report,
};
use shm_transport::channel::{Fallback, TransportRequest};
use shm_transport::error::HandshakeError;
use shm_transport::layout::{PROTOCOL_VERSION, RING_HEAD_LAG_DIVISOR};
use shm_transport::ring::Fencing;
use shm_transport::socket::FrameStream;

use super::contracts::Verdict;
use super::memory::LinkMemory;
use crate::config::OnMismatch;
use crate::data_plane::{DataPlaneHandle, Stopped};
use crate::listen::Endpoint;
use crate::router::Refused;
use crate::routes::LinkId;

/// Longest time for a refusal to be taken by the socket.
pub(crate) const REFUSAL_TIMEOUT: Duration = Duration::from_millis(200);

/// What the bridge tells every peer of a link.
#[derive(Debug, Clone)]
pub(crate) struct LinkTerms {
    pub(crate) link: LinkId,
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) transport: TransportRequest,
    pub(crate) spin_us: u32,
    pub(crate) schema_digest: [u8; 32],
    pub(crate) settings: String,
}

/// A peer that said hello.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) stream: FrameStream,
    pub(crate) hello: Hello,
    pub(crate) fencing: Fencing,
    /// Whether it may hold up publishers because it asks for it.
    pub(crate) may_block: bool,
    /// Longest time from the Welcome to the Attached.
    timeout: Duration,
}

/// Waits for the Hello and checks what does not depend on the link, the token of the endpoint included; a worker has no
/// endpoint. Refuses and fails if it does not fit, or does not come within `timeout`.
pub(crate) fn greet(
    mut stream: FrameStream,
    schema_digest: [u8; 32],
    on_mismatch: OnMismatch,
    timeout: Duration,
    endpoint: Option<&Endpoint>,
) -> Result<Greeted, HandshakeError> {
    let deadline = Instant::now() + timeout;
    let hello = match receive_hello(&mut stream, deadline) {
        Ok(hello) => hello,
        Err(error @ HandshakeError::Unexpected { .. }) => {
            return Err(refused(
                &mut stream,
                RefusedCode::BAD_HELLO,
                &error.to_string(),
                None,
            ));
        }
        Err(error) => return Err(error),
    };
    if hello.protocol_version != PROTOCOL_VERSION {
        let message = format!(
            "protocol version differs: bridge={PROTOCOL_VERSION} peer={}; use the same release on both sides",
            hello.protocol_version
        );
        return Err(refused(
            &mut stream,
            RefusedCode::PROTOCOL_VERSION,
            &message,
            None,
        ));
    }
    // A stranger learns nothing of the contracts.
    let token = hello.token.as_str().unwrap_or_default();
    if let Some(Err(message)) = endpoint.map(|it| it.check_token(token.as_bytes())) {
        return Err(refused(
            &mut stream,
            RefusedCode::NOT_ALLOWED,
            &message,
            None,
        ));
    }
    let digests = (schema_digest, hello.schema_digest);
    if on_mismatch == OnMismatch::Refuse && contracts_differ(&digests.0, &digests.1) {
        let message = format!(
            "contracts differ: bridge={} peer={}; generate both sides from the same contracts file, or let the bridge \
             refuse single topics with [contracts] on_mismatch = \"topic\"",
            hex(&digests.0),
            hex(&digests.1)
        );
        return Err(refused(
            &mut stream,
            RefusedCode::SCHEMA_MISMATCH,
            &message,
            Some(digests),
        ));
    }
    let fencing = fencing_with(&hello);
    Ok(Greeted {
        stream,
        hello,
        fencing,
        may_block: endpoint.is_none_or(|it| it.config.allow_block),
        timeout,
    })
}

/// Offers the link and waits until the peer is attached. `judged` gets the verdict on its contracts before the data plane
/// acts on it, so that whoever sees a dropped frame finds the reason too.
pub(crate) fn attach(
    greeted: Greeted,
    terms: &LinkTerms,
    memory: &LinkMemory,
    contracts: &Contracts,
    plane: &DataPlaneHandle,
    judged: impl Fn(&Arc<Verdict>),
) -> Result<(FrameStream, Agreed, Arc<Verdict>), HandshakeError> {
    let Greeted {
        mut stream,
        hello,
        fencing,
        timeout,
        ..
    } = greeted;
    let (bridge_doorbell, peer_doorbell) = memory.doorbells();
    let transport = match (known_fallback(&stream, &hello), memory.segment()) {
        _ if terms.transport == TransportRequest::Socket => {
            OfferedTransport::Socket(Fallback::requested("the bridge's configuration"))
        }
        (Some(fallback), _) => OfferedTransport::Socket(fallback),
        (None, Err(fallback)) => OfferedTransport::Socket(fallback.clone()),
        (None, Ok(segment)) => OfferedTransport::Shm {
            segment: segment.fd(),
            bridge_doorbell: bridge_doorbell.as_fd(),
            peer_doorbell: peer_doorbell.as_fd(),
        },
    };
    let required_by = match (hello.transport == HelloTransport::SHM, terms.transport) {
        (true, _) => Some("the peer"),
        (false, TransportRequest::Shm) => Some("the bridge's configuration"),
        (false, _) => None,
    };
    if let (OfferedTransport::Socket(fallback), Some(who)) = (&transport, required_by) {
        let message = format!(
            "{who} requires shared memory, but {fallback}; allow transport auto or remove the cause"
        );
        return Err(refused(
            &mut stream,
            RefusedCode::SHM_REQUIRED,
            &message,
            None,
        ));
    }
    let offered = Offer {
        name: &terms.name,
        link_id: terms.link.0,
        epoch: terms.epoch,
        spin_us: terms.spin_us,
        max_payload: memory.max_payload() as u32,
        ack_window: (memory.capacity() / RING_HEAD_LAG_DIVISOR) as u32,
        schema_digest: terms.schema_digest,
        settings: &terms.settings,
        fencing,
        transport,
    };
    let differ = contracts_differ(&terms.schema_digest, &hello.schema_digest);
    let screen = |refused| screen(plane, terms.link, memory, refused);
    judged(&Arc::default()); // That of its predecessor is not its own.
    // From the Welcome on the peer has the rings, and nothing that it writes may pass before the verdict.
    let since = screen(if differ {
        Refused::Everything
    } else {
        Refused::Topics(Vec::new())
    })?;
    let deadline = Instant::now() + timeout;
    announce(&mut stream, &offered, deadline)?;
    let verdict = if differ {
        let verdict = Arc::new(judge(&mut stream, contracts, deadline)?);
        verdict.log(terms.link, &terms.name);
        judged(&verdict);
        plane
            .refuse_blocking(terms.link, since, verdict.refused())
            .map_err(stopped)?;
        send_report(&mut stream, verdict.differences(), deadline)?;
        verdict
    } else {
        Arc::default()
    };
    let agreed = receive_attached(&mut stream, &offered, deadline)?;
    if let (Some(fallback), TransportRequest::Shm) = (&agreed, terms.transport) {
        return Err(HandshakeError::ShmRequired {
            reason: fallback.to_string(),
        });
    }
    Ok((stream, agreed, verdict))
}

/// Tells the data plane what the peer that comes now must not publish, and from which position of its ring on: what a
/// predecessor has left there was published under its own contracts.
fn screen(
    plane: &DataPlaneHandle,
    link: LinkId,
    memory: &LinkMemory,
    refused: Refused,
) -> Result<u64, HandshakeError> {
    let since = memory
        .published()
        .map_err(|corrupt| HandshakeError::Unexpected {
            expected: "rings that a predecessor left in order",
            actual: corrupt.to_string(),
        })?;
    plane
        .refuse_blocking(link, since, refused)
        .map_err(stopped)?;
    Ok(since)
}

fn stopped(stopped: Stopped) -> HandshakeError {
    HandshakeError::Io {
        step: "data plane",
        source: std::io::Error::other(stopped),
    }
}

/// Waits for the contracts of a peer and compares them. Refuses and fails if they are not readable.
fn judge(
    stream: &mut FrameStream,
    contracts: &Contracts,
    deadline: Instant,
) -> Result<Verdict, HandshakeError> {
    let refuse = |stream: &mut FrameStream, why: &str| {
        refused(stream, RefusedCode::BAD_CONTRACTS, why, None)
    };
    let offer = match receive_contracts(stream, deadline) {
        Ok(offer) => offer,
        Err(error @ HandshakeError::Unexpected { .. }) => {
            return Err(refuse(stream, &error.to_string()));
        }
        Err(error) => return Err(error),
    };
    Verdict::on(&offer, contracts).map_err(|error| refuse(stream, &error.to_string()))
}

/// Tells the peer why not, and returns the same as an error for the bridge's own log.
pub(crate) fn refused(
    stream: &mut FrameStream,
    code: RefusedCode,
    message: &str,
    digests: Option<([u8; 32], [u8; 32])>,
) -> HandshakeError {
    // A peer that is gone already does not need the word.
    let _ = refuse(
        stream,
        code,
        message,
        digests,
        Instant::now() + REFUSAL_TIMEOUT,
    );
    let (expected_digest, actual_digest) = digests.unwrap_or_default();
    HandshakeError::Refused {
        code: code.0,
        name: code.name().unwrap_or("UNKNOWN"),
        message: message.to_owned(),
        expected_digest,
        actual_digest,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
