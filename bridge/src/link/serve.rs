//! One peer from its connection to its end: handshake, session, and what is reported of it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mycelium_messages::control::{FallbackCode, RefusedCode};
use shm_transport::channel::Transport;
use shm_transport::channel::handshake::{Agreed, takes_gaps};
use shm_transport::error::HandshakeError;
use shm_transport::pump::Pump;
use shm_transport::ring::Fencing;
use shm_transport::socket::FrameStream;
use shm_transport::wakeup::membarrier_is_available;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::end::SessionEnd;
use super::handshake::{Greeted, LinkTerms, attach, greet, refused};
use super::layer::{create_memory, refuse_before_hello, transport_request};
use super::memory::{LinkMemory, LinkSetupError};
use super::registry::{NameTaken, Shared};
use super::session::{Notice, Session, Surroundings};
use super::topics::Topics;
use super::wire::Wire;
use crate::data_plane::{Stopped, default_spin_us};
use crate::listen::{Client, ClientStream, Endpoint, Peer};
use crate::routes::LinkId;

/// How long a client that asks for a taken name waits for its holder to leave.
const NAME_GRACE: Duration = Duration::from_millis(250);
/// How often it looks meanwhile.
const NAME_RETRY: Duration = Duration::from_millis(5);

/// Why a peer was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Setup(#[from] LinkSetupError),
    #[error("session could not be set up: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Open(std::io::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("handshake was interrupted: {0}")]
    Join(#[from] tokio::task::JoinError),
}

impl ServeError {
    /// Whether the peer has closed its connection, as a process does that ends.
    pub(super) fn is_hang_up(&self) -> bool {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        let left = [BrokenPipe, ConnectionReset, UnexpectedEof];
        match self {
            Self::Handshake(HandshakeError::Io { source, .. }) | Self::Io(source) => {
                left.contains(&source.kind())
            }
            _ => false,
        }
    }
}

pub(super) async fn serve_worker(
    shared: &Arc<Shared>,
    socket: UnixStream,
    terms: LinkTerms,
    memory: Arc<LinkMemory>,
    notices: mpsc::UnboundedReceiver<Notice>,
    attach_timeout: Duration,
    unplaced: &mut Vec<u8>,
) -> Result<(), ServeError> {
    let (link, schema_digest) = (terms.link, terms.schema_digest);
    let stream = FrameStream::new(socket)?;
    let on_mismatch = shared.bridge().on_mismatch;
    let greeted = tokio::task::spawn_blocking(move || {
        greet(stream, schema_digest, on_mismatch, attach_timeout, None)
    })
    .await??;
    serve_greeted(shared, greeted, terms, memory, notices, unplaced, || {
        if let (Some((worker, incarnation)), Some(control)) =
            (shared.worker_of(link), shared.control())
        {
            control.worker_attached(worker, incarnation);
        }
    })
    .await
}

/// The rest of the handshake and the session, on a link that the data plane already has. `unplaced` is what a predecessor on
/// this link has left without room in the ring, and afterwards what this peer has.
async fn serve_greeted(
    shared: &Arc<Shared>,
    greeted: Greeted,
    terms: LinkTerms,
    memory: Arc<LinkMemory>,
    notices: mpsc::UnboundedReceiver<Notice>,
    unplaced: &mut Vec<u8>,
    attached: impl FnOnce(),
) -> Result<(), ServeError> {
    let (link, name) = (terms.link, terms.name.clone());
    // The kernel's word where there is one: a peer in a container knows itself by another number.
    let known = shared.lock().links.get(&link).and_then(|it| it.status.pid);
    let pid = known.unwrap_or(greeted.hello.pid);
    let epoch = terms.epoch;
    let fencing = greeted.fencing;
    let takes_gaps = takes_gaps(&greeted.hello);
    let may_block = greeted.may_block;
    shared.plane.set_fencing(link, fencing).await?;
    if let Ok(segment) = memory.segment() {
        segment.set_epoch(terms.epoch);
    }
    let (stream, agreed, verdict) = {
        let (shared, memory) = (Arc::clone(shared), Arc::clone(&memory));
        let attach = move || {
            let (contracts, plane) = (&shared.contracts, &shared.plane);
            attach(greeted, &terms, &memory, contracts, plane, |verdict| {
                shared.update(link, |entry| entry.verdict = Arc::clone(verdict));
            })
        };
        tokio::task::spawn_blocking(attach).await??
    };
    let mut wire = open_wire(shared, link, stream, &agreed, &memory).await?;
    if let Some(pump) = wire.pump_mut() {
        pump.put_unplaced(std::mem::take(unplaced));
    }
    let surroundings = Surroundings {
        topics: Topics {
            link,
            plane: shared.plane.clone(),
            contracts: Arc::clone(&shared.contracts),
            verdict,
            may_block,
            worker: shared.control().zip(shared.worker_of(link)),
        },
        notices,
        socket_calls: shared.socket_calls(link),
        missed: shared.missed(link),
        takes_gaps,
    };
    let session = Session::new(surroundings, wire)?;
    // A predecessor may have died between a commit and the wakeup that it owed to the router.
    shared.plane.wake_all()?;
    report_attached(shared, link, &name, pid, &agreed, fencing);
    attached();
    let end;
    (end, *unplaced) = session.run().await;
    if !unplaced.is_empty() {
        tracing::info!(%link, name, bytes = unplaced.len(), "a successor goes on with what the peer had sent and what found no room");
    }
    report_end(shared, link, epoch, &name, pid, end);
    Ok(())
}

/// Puts what the last peer of a link has left into its ring, as room comes.
pub(super) async fn place(
    shared: &Shared,
    link: LinkId,
    memory: &LinkMemory,
    unplaced: Vec<u8>,
) -> Result<(), ServeError> {
    if unplaced.is_empty() {
        return Ok(());
    }
    // A stream that has ended.
    let (stream, _) = UnixStream::pair()?;
    let mut pump = Pump::new(
        memory.peer_side(local_fencing())?,
        FrameStream::new(stream)?,
    );
    pump.put_unplaced(unplaced);
    let (_, notices) = mpsc::unbounded_channel();
    let surroundings = Surroundings {
        topics: Topics {
            link,
            plane: shared.plane.clone(),
            contracts: Arc::clone(&shared.contracts),
            verdict: Arc::default(),
            may_block: false,
            worker: None,
        },
        notices,
        socket_calls: shared.socket_calls(link),
        missed: shared.missed(link),
        takes_gaps: false,
    };
    let (end, _) = Session::new(surroundings, Wire::Pumped(Box::new(pump)))?
        .run()
        .await;
    match end {
        SessionEnd::Violation { message } | SessionEnd::Failed { message } => {
            Err(std::io::Error::other(message).into())
        }
        SessionEnd::HangUp { .. } | SessionEnd::Goodbye { .. } => Ok(()),
    }
}

async fn open_wire(
    shared: &Arc<Shared>,
    link: LinkId,
    stream: FrameStream,
    agreed: &Agreed,
    memory: &LinkMemory,
) -> Result<Wire, ServeError> {
    if agreed.is_none() {
        return Ok(Wire::Control(stream));
    }
    // Both ends of the rings are in this process now.
    let fencing = local_fencing();
    shared.plane.set_fencing(link, fencing).await?;
    let ends = memory.peer_side(fencing)?;
    Ok(Wire::Pumped(Box::new(Pump::new(ends, stream))))
}

/// The fencing between two threads of this process, and of a link that no peer has been given yet: nobody can write to its
/// rings, so no sleep has to be bounded for its sake.
pub(crate) fn local_fencing() -> Fencing {
    if membarrier_is_available() {
        Fencing::Asymmetric
    } else {
        Fencing::Fenced
    }
}

fn report_attached(
    shared: &Shared,
    link: LinkId,
    name: &str,
    pid: u32,
    agreed: &Agreed,
    fencing: Fencing,
) {
    let transport = if agreed.is_none() {
        Transport::Shm
    } else {
        Transport::Socket
    };
    shared.update(link, |entry| {
        entry.status.transport = Some(transport);
        entry.status.fallback = agreed.as_ref().map(ToString::to_string);
    });
    match agreed {
        None => tracing::info!(%link, name, pid, transport = "shm", ?fencing, "peer attached"),
        Some(fallback) if fallback.code == FallbackCode::REQUESTED => {
            tracing::info!(%link, name, pid, transport = "socket", reason = %fallback, "peer attached");
        }
        Some(fallback) => {
            tracing::warn!(%link, name, pid, transport = "socket", reason = %fallback, "peer attached without shared memory");
        }
    }
}

fn report_end(shared: &Shared, link: LinkId, epoch: u64, name: &str, pid: u32, end: SessionEnd) {
    let error = match end {
        SessionEnd::Goodbye { reason } => {
            tracing::info!(%link, name, pid, reason, "peer said goodbye");
            None
        }
        SessionEnd::HangUp { missing: 0 } => {
            tracing::warn!(%link, name, pid, "peer hung up without a goodbye");
            None
        }
        SessionEnd::HangUp { missing } => {
            tracing::warn!(%link, name, pid, missing_bytes = missing, "peer hung up inside a frame, which is dropped");
            None
        }
        SessionEnd::Violation { message } => {
            tracing::error!(%link, name, pid, error = message, "link closed: the peer broke a rule");
            Some(message)
        }
        SessionEnd::Failed { message } => {
            tracing::warn!(%link, name, pid, error = message, "link closed");
            None
        }
    };
    let mut condemned = None;
    shared.update(link, |entry| {
        // The link may have been handed on already; a successor has nothing to do with this.
        if let Some(error) = error
            && entry.status.epoch == epoch
        {
            entry.notices = None;
            condemned = entry.worker.map(|worker| (worker, error.clone()));
            entry.status.last_error = Some(error);
        }
    });
    if let (Some(((worker, incarnation), error)), Some(control)) = (condemned, shared.control()) {
        control.condemn_worker(worker, incarnation, error);
    }
}

pub(super) async fn serve_client(shared: &Arc<Shared>, client: Client) -> Result<(), ServeError> {
    let schema_digest = shared.contracts.schema_digest();
    let Client {
        stream,
        peer,
        endpoint,
    } = client;
    let Ok(slot) = Arc::clone(&endpoint.handshakes).try_acquire_owned() else {
        shared.refused_busy.fetch_add(1, Ordering::Relaxed);
        return Err(busy(shared, stream, peer, &endpoint).await.into());
    };
    let stream = FrameStream::new(
        endpoint
            .open(stream, peer)
            .await
            .map_err(ServeError::Open)?,
    )?;
    let on_mismatch = shared.bridge().on_mismatch;
    let timeout = endpoint.config.handshake_timeout;
    let greet = move || greet(stream, schema_digest, on_mismatch, timeout, Some(&endpoint));
    let greeted = tokio::task::spawn_blocking(greet).await?;
    if let Err(HandshakeError::Refused { code, .. }) = &greeted
        && *code == RefusedCode::NOT_ALLOWED.0
    {
        shared.refused_not_allowed.fetch_add(1, Ordering::Relaxed);
    }
    let mut greeted = greeted?;
    let link = shared.next_link();
    let asked = greeted.hello.name.as_str().unwrap_or_default();
    let name = if asked.is_empty() {
        format!("client-{link}")
    } else {
        asked.to_owned()
    };
    if shared.lock().stopping {
        return Err(shutting_down(&mut greeted.stream).into());
    }
    if let Err(error) = take_name_soon(shared, link, &name, peer.pid()).await {
        return Err(refused(
            &mut greeted.stream,
            RefusedCode::NAME_TAKEN,
            &error.to_string(),
            None,
        )
        .into());
    }
    let (sender, notices) = mpsc::unbounded_channel();
    shared.update(link, |entry| {
        entry.notices = Some(sender);
        entry.status.epoch = 1;
    });
    // Whoever is not in the table when the bridge begins to stop is not told about it.
    if shared.lock().stopping {
        shared.lock().links.remove(&link);
        return Err(shutting_down(&mut greeted.stream).into());
    }
    let served = serve_named_client(shared, greeted, link, name, notices, slot).await;
    // The name is free as soon as the peer is gone; what it published is still delivered.
    shared.lock().links.remove(&link);
    let _ = shared.plane.drain(link).await;
    served
}

/// Refuses a client because too many others are in the middle of their handshake: each takes a thread, for all of the
/// endpoint's `handshake_timeout_ms` if it says nothing.
async fn busy(
    shared: &Shared,
    stream: ClientStream,
    peer: Peer,
    endpoint: &Endpoint,
) -> HandshakeError {
    let message = format!(
        "too many clients are in the middle of their handshake: max_pending_handshakes={}; connect again, or raise it",
        endpoint.config.max_pending_handshakes
    );
    let code = RefusedCode::BUSY;
    let open = endpoint.open(stream, peer);
    refuse_before_hello(shared, open, code, message.clone()).await;
    HandshakeError::Refused {
        code: code.0,
        name: code.name().unwrap_or("UNKNOWN"),
        message,
        expected_digest: [0; 32],
        actual_digest: [0; 32],
    }
}

fn shutting_down(stream: &mut FrameStream) -> HandshakeError {
    let message = "the bridge is shutting down; connect again later";
    refused(stream, RefusedCode::SHUTTING_DOWN, message, None)
}

/// Takes a name, also one whose holder has just left: the hang-up and the next connection of a client that starts again
/// arrive on different sockets, so the new one may be seen first.
async fn take_name_soon(
    shared: &Shared,
    link: LinkId,
    name: &str,
    pid: Option<u32>,
) -> Result<(), NameTaken> {
    let give_up = Instant::now() + NAME_GRACE;
    loop {
        match shared.take_name(link, name, pid) {
            Err(_) if Instant::now() < give_up => tokio::time::sleep(NAME_RETRY).await,
            outcome => return outcome,
        }
    }
}

async fn serve_named_client(
    shared: &Arc<Shared>,
    greeted: Greeted,
    link: LinkId,
    name: String,
    notices: mpsc::UnboundedReceiver<Notice>,
    slot: OwnedSemaphorePermit,
) -> Result<(), ServeError> {
    let bridge = shared.bridge();
    let memory = Arc::new(create_memory(
        shared,
        bridge.transport,
        bridge.ring_capacity,
        &bridge.memory,
    )?);
    shared.update(link, |entry| entry.status.degraded = memory.degraded());
    let wanted = shared.client_terms(&name);
    shared.plane.add(
        link,
        memory.bridge_side(local_fencing())?,
        wanted,
        Vec::new(),
    )?;
    let terms = LinkTerms {
        link,
        name,
        epoch: 1,
        transport: transport_request(bridge.transport),
        spin_us: bridge.spin_us.unwrap_or_else(default_spin_us),
        schema_digest: shared.contracts.schema_digest(),
        settings: "{}".to_owned(),
    };
    let mut counted = false;
    let mut unplaced = Vec::new();
    let served = serve_greeted(
        shared,
        greeted,
        terms,
        memory,
        notices,
        &mut unplaced,
        || {
            drop(slot);
            counted = count_clients(shared, 1)
        },
    )
    .await;
    if counted {
        count_clients(shared, -1);
    }
    served
}

pub(super) fn count_clients(shared: &Shared, change: isize) -> bool {
    let (count, control) = {
        let mut state = shared.lock();
        state.clients = state.clients.saturating_add_signed(change);
        (state.clients, state.control.clone())
    };
    if let Some(control) = control {
        control.clients_attached(count);
    }
    true
}

#[cfg(test)]
mod tests {
    use shm_transport::wakeup::WaitStrategy;

    use super::*;
    use crate::config::Config;
    use crate::data_plane::DataPlane;
    use crate::link::LinkLayer;

    #[test]
    fn the_end_of_a_predecessor_does_not_touch_its_successor() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("bridge.toml");
        let contracts = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/bandit.yaml");
        std::fs::write(&file, format!("[bridge]\ncontracts = '{contracts}'\n")).expect("file");
        let config = Config::load(&file).expect("sound");
        let (events, router_events) = mpsc::unbounded_channel();
        let (_plane, handle) =
            DataPlane::new(Vec::new(), WaitStrategy::Park, events).expect("data plane");
        let (_links, registry) = LinkLayer::new(&config, handle, router_events).expect("links");
        let shared = &registry.shared;
        let link = shared.next_link();
        shared.take_name(link, "worker", None).expect("free");
        let (sender, mut notices) = mpsc::unbounded_channel();
        shared.update(link, |entry| {
            entry.notices = Some(sender);
            entry.status.epoch = 2;
            entry.worker = Some((0, 2));
        });
        let end = |message: &str| SessionEnd::Violation {
            message: message.into(),
        };
        report_end(shared, link, 1, "worker", 11, end("late"));
        let status = registry.link("worker").expect("known");
        assert_eq!(status.last_error, None);
        assert!(!notices.is_closed(), "the successor can still be told");

        report_end(shared, link, 2, "worker", 12, end("its own"));
        let status = registry.link("worker").expect("known");
        assert_eq!(status.last_error.as_deref(), Some("its own"));
        assert!(notices.try_recv().is_err() && notices.is_closed());
    }
}
