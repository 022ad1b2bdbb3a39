//! All links of a bridge: created, handed to one peer after the other, and drained when they end.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mycelium_contracts::Contracts;
use mycelium_messages::control::{LinkErrorCode, RefusedCode, TopicReplyCode};
use shm_transport::channel::handshake::Agreed;
use shm_transport::channel::{Transport, TransportRequest};
use shm_transport::error::HandshakeError;
use shm_transport::ring::Fencing;
use shm_transport::socket::FrameStream;
use shm_transport::wakeup::default_spin_us;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::handshake::{Greeted, LinkTerms, attach, greet, refused};
use super::memory::{LinkMemory, LinkSetupError};
use super::pump::Pump;
use super::session::{Notice, Session, SessionEnd, Surroundings};
use crate::config::{BridgeConfig, Config, TransportMode, WorkerConfig};
use crate::data_plane::{DataPlaneHandle, Stopped};
use crate::event_loop::{ControlHandle, ExitedWorker, Links, StartedWorker};
use crate::listen::{NotAllowed, PeerCredentials};
use crate::router::{Rejection, RouterEvent};
use crate::routes::LinkId;
use crate::worker::Outcome;

/// How long a client that asks for a taken name waits for its holder to leave.
const NAME_GRACE: Duration = Duration::from_millis(250);
/// How often it looks meanwhile.
const NAME_RETRY: Duration = Duration::from_millis(5);

/// What is known of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its number.
    pub link: LinkId,
    /// Its name.
    pub name: String,
    /// Process at the other end; `None` while there is none.
    pub pid: Option<u32>,
    /// How its frames travel; `None` before the first handshake.
    pub transport: Option<Transport>,
    /// Why not over shared memory.
    pub fallback: Option<String>,
    /// How often it was handed to a peer.
    pub epoch: u64,
    /// Why the last peer left, if it did not say goodbye.
    pub last_error: Option<String>,
    /// Sends and receives that moved application frames over its socket; 0 over shared memory.
    pub socket_calls: u64,
}

/// The links of a bridge, as other threads may look at them.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

impl Registry {
    /// The link with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<LinkStatus> {
        self.shared
            .lock()
            .links
            .values()
            .find(|entry| entry.status.name == name)
            .map(|entry| entry.status())
    }

    /// All links, by number.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        let mut links: Vec<_> = self
            .shared
            .lock()
            .links
            .values()
            .map(|entry| entry.status())
            .collect();
        links.sort_by_key(|status| status.link);
        links
    }

    /// Takes a name and a number for a link of this process.
    pub(crate) fn open_local(&self, name: &str) -> Result<LinkId, NameTaken> {
        let link = self.shared.next_link();
        self.shared
            .take_name(link, name, Some(std::process::id()))?;
        Ok(link)
    }

    pub(crate) fn close_local(&self, link: LinkId) {
        self.shared.lock().links.remove(&link);
    }
}

/// A name is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link name is taken: name={name} by pid={pid}; choose another name or stop that process")]
pub struct NameTaken {
    /// The name.
    pub name: String,
    /// Who has it; 0 for a worker that is not running.
    pub pid: u32,
}

/// The link layer of a bridge.
pub struct LinkLayer {
    shared: Arc<Shared>,
    workers: Vec<WorkerLink>,
    router_events: Option<mpsc::UnboundedReceiver<RouterEvent>>,
    sessions: HashMap<usize, JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    plane: DataPlaneHandle,
    contracts: Arc<Contracts>,
    bridge: BridgeConfig,
    next_link: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    links: HashMap<LinkId, Entry>,
    clients: usize,
    control: Option<ControlHandle>,
    stopping: bool,
}

#[derive(Debug)]
struct Entry {
    status: LinkStatus,
    notices: Option<mpsc::UnboundedSender<Notice>>,
    /// Which worker, and which of its processes, so that it can be condemned.
    worker: Option<(usize, u64)>,
    socket_calls: Arc<AtomicU64>,
}

impl Entry {
    fn new(status: LinkStatus) -> Self {
        Self {
            status,
            notices: None,
            worker: None,
            socket_calls: Arc::default(),
        }
    }

    fn status(&self) -> LinkStatus {
        LinkStatus {
            socket_calls: self.socket_calls.load(Ordering::Relaxed),
            ..self.status.clone()
        }
    }
}

/// What a worker's link keeps across its processes.
struct WorkerLink {
    link: LinkId,
    memory: Arc<LinkMemory>,
    subscribe: Vec<u16>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, even one that panics between two of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    fn take_name(&self, link: LinkId, name: &str, pid: Option<u32>) -> Result<(), NameTaken> {
        let mut state = self.lock();
        if let Some(other) = state.links.values().find(|entry| entry.status.name == name) {
            return Err(NameTaken {
                name: name.to_owned(),
                pid: other.status.pid.unwrap_or(0),
            });
        }
        let status = LinkStatus {
            link,
            name: name.to_owned(),
            pid,
            transport: None,
            fallback: None,
            epoch: 0,
            last_error: None,
            socket_calls: 0,
        };
        state.links.insert(link, Entry::new(status));
        Ok(())
    }

    fn control(&self) -> Option<ControlHandle> {
        self.lock().control.clone()
    }

    fn socket_calls(&self, link: LinkId) -> Arc<AtomicU64> {
        let state = self.lock();
        state
            .links
            .get(&link)
            .map_or_else(Arc::default, |entry| Arc::clone(&entry.socket_calls))
    }

    /// Which worker has the link, and which of its processes.
    fn worker_of(&self, link: LinkId) -> Option<(usize, u64)> {
        self.lock().links.get(&link)?.worker
    }

    fn update(&self, link: LinkId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().links.get_mut(&link) {
            change(entry);
        }
    }
}

impl LinkLayer {
    /// Creates the links of all configured workers and hands them to the data plane, so that frames are kept for a
    /// worker from the first moment on, before it runs.
    ///
    /// # Errors
    ///
    /// [`LinkSetupError`] if there is no memory or there are no file descriptors for a link.
    pub fn new(
        config: &Config,
        plane: DataPlaneHandle,
        router_events: mpsc::UnboundedReceiver<RouterEvent>,
    ) -> Result<(Self, Registry), LinkSetupError> {
        let shared = Arc::new(Shared {
            plane,
            contracts: Arc::clone(&config.contracts),
            bridge: config.bridge.clone(),
            next_link: AtomicU32::new(1),
            state: Mutex::default(),
        });
        let mut workers = Vec::new();
        for worker in &config.workers {
            let link = shared.next_link();
            // The configuration has unique names.
            let _ = shared.take_name(link, &worker.name, None);
            let subscribe = worker
                .subscribe
                .iter()
                .filter_map(|name| config.contracts.by_name(name));
            let subscribe: Vec<u16> = subscribe.map(|message| message.topic_id).collect();
            let memory = Arc::new(create_memory(
                &shared,
                worker.transport,
                worker.ring_capacity,
            )?);
            shared.plane.add(
                link,
                memory.bridge_side(Fencing::Fenced)?,
                subscribe.clone(),
            )?;
            workers.push(WorkerLink {
                link,
                memory,
                subscribe,
            });
        }
        let registry = Registry {
            shared: Arc::clone(&shared),
        };
        let router_events = Some(router_events);
        Ok((
            Self {
                shared,
                workers,
                router_events,
                sessions: HashMap::new(),
            },
            registry,
        ))
    }

    /// Gives a worker fresh rings after it broke the old ones. What it had not acknowledged is lost, and said so.
    fn renew(&mut self, worker: usize, config: &WorkerConfig) -> Result<(), LinkSetupError> {
        let lost_bytes = self.workers[worker].memory.unacknowledged();
        tracing::error!(worker = %config.name, lost_bytes, "rings are discarded after a violation; what was not acknowledged is lost");
        let memory = Arc::new(create_memory(
            &self.shared,
            config.transport,
            config.ring_capacity,
        )?);
        let old = std::mem::replace(&mut self.workers[worker].memory, memory);
        drop(old);
        let WorkerLink {
            link,
            memory,
            subscribe,
        } = &self.workers[worker];
        self.shared.plane.replace(
            *link,
            memory.bridge_side(Fencing::Fenced)?,
            subscribe.clone(),
        )?;
        Ok(())
    }
}

impl Links for LinkLayer {
    fn begin(&mut self, control: ControlHandle) {
        self.shared.lock().control = Some(control);
        if let Some(mut events) = self.router_events.take() {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    on_router_event(&shared, event);
                }
            });
        }
    }

    fn worker_started(&mut self, started: StartedWorker<'_>) {
        let StartedWorker {
            worker,
            config,
            pid,
            socket,
            incarnation,
        } = started;
        let violated = {
            let state = self.shared.lock();
            state
                .links
                .get(&self.workers[worker].link)
                .is_some_and(|entry| entry.violated())
        };
        if violated && let Err(error) = self.renew(worker, config) {
            tracing::error!(worker = %config.name, %error, "worker cannot be served");
        }
        let WorkerLink { link, memory, .. } = &self.workers[worker];
        let (link, memory) = (*link, Arc::clone(memory));
        let (sender, notices) = mpsc::unbounded_channel();
        self.shared.update(link, |entry| {
            entry.status.pid = Some(pid);
            entry.status.epoch = incarnation;
            entry.status.last_error = None;
            entry.notices = Some(sender);
            entry.worker = Some((worker, incarnation));
        });
        let terms = LinkTerms {
            link,
            name: config.name.clone(),
            epoch: incarnation,
            transport: transport_request(config.transport),
            spin_us: config.spin_us.unwrap_or_else(default_spin_us),
            schema_digest: self.shared.contracts.schema_digest(),
            settings: serde_json::Value::Object(config.settings.clone()).to_string(),
        };
        let shared = Arc::clone(&self.shared);
        let predecessor = self.sessions.remove(&worker);
        let task = async move {
            if let Some(predecessor) = predecessor {
                // It ends with its socket; a panic in it has been reported by the runtime.
                let _ = predecessor.await;
            }
            let name = terms.name.clone();
            if let Err(error) = serve_worker(&shared, socket, terms, memory, notices).await {
                tracing::warn!(worker = %name, pid, incarnation, %error, "worker did not attach");
                if let Some(control) = shared.control() {
                    control.condemn_worker(worker, incarnation, error.to_string());
                }
            }
        };
        self.sessions.insert(worker, tokio::spawn(task));
    }

    fn worker_exited(&mut self, exited: ExitedWorker<'_>) {
        let WorkerLink { link, memory, .. } = &self.workers[exited.worker];
        self.shared.update(*link, |entry| {
            entry.status.pid = None;
            entry.notices = None;
        });
        if exited.restart_after.is_some() {
            let bytes = memory.unacknowledged();
            tracing::info!(worker = %exited.config.name, unacknowledged_bytes = bytes, "frames are kept for the successor");
        }
        // The dead process may have committed something without waking the router.
        let _ = self.shared.plane.wake_all();
    }

    fn worker_ended(&mut self, worker: usize, config: &WorkerConfig, _outcome: Outcome) {
        let WorkerLink { link, memory, .. } = &self.workers[worker];
        let undelivered_bytes = memory.unacknowledged();
        if undelivered_bytes > 0 {
            tracing::warn!(worker = %config.name, undelivered_bytes, "worker ended for good; what it had not acknowledged is discarded");
        }
        let (shared, link) = (Arc::clone(&self.shared), *link);
        let session = self.sessions.remove(&worker);
        tokio::spawn(async move {
            if let Some(session) = session {
                let _ = session.await;
            }
            // A data plane that has stopped has dropped the link as well.
            let _ = shared.plane.drain(link).await;
            shared.lock().links.remove(&link);
        });
    }

    fn client_connected(&mut self, stream: UnixStream, credentials: PeerCredentials) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let pid = credentials.pid;
            if let Err(error) = serve_client(&shared, stream, credentials).await {
                tracing::warn!(pid, %error, "client did not attach");
            }
        });
    }

    fn client_refused(&mut self, stream: UnixStream, error: &NotAllowed) {
        let message = error.to_string();
        tokio::task::spawn_blocking(move || {
            if let Ok(mut stream) = FrameStream::new(stream) {
                refused(&mut stream, RefusedCode::NOT_ALLOWED, &message, None);
            }
        });
    }

    fn ask_to_end(&mut self, deadline: Duration, reason: &str) {
        let mut state = self.shared.lock();
        state.stopping = true;
        for entry in state.links.values() {
            if let Some(notices) = &entry.notices {
                // A session that has ended needs no notice.
                let _ = notices.send(Notice::Shutdown {
                    deadline,
                    reason: reason.to_owned(),
                });
            }
        }
    }
}

impl Entry {
    /// Whether the last peer broke its rings, so that a successor must not inherit them.
    fn violated(&self) -> bool {
        self.worker.is_some() && self.notices.is_none() && self.status.last_error.is_some()
    }
}

fn create_memory(
    shared: &Shared,
    transport: TransportMode,
    capacity: usize,
) -> Result<LinkMemory, LinkSetupError> {
    match transport {
        TransportMode::Socket => {
            let reason = shm_transport::channel::Fallback::requested("the bridge's configuration");
            LinkMemory::on_heap(capacity, reason)
        }
        TransportMode::Auto | TransportMode::Shm => {
            LinkMemory::create(capacity, shared.contracts.schema_digest())
        }
    }
}

fn transport_request(mode: TransportMode) -> TransportRequest {
    match mode {
        TransportMode::Auto => TransportRequest::Auto,
        TransportMode::Shm => TransportRequest::Shm,
        TransportMode::Socket => TransportRequest::Socket,
    }
}

fn on_router_event(shared: &Shared, event: RouterEvent) {
    match event {
        RouterEvent::Violation { link, corrupt } => {
            let message = corrupt.to_string();
            tracing::error!(%link, %message, "link broke the rules of its ring");
            let code = if corrupt.field == "head" {
                LinkErrorCode::CORRUPT_HEAD
            } else {
                LinkErrorCode::CORRUPT_RECORD
            };
            let mut worker = None;
            shared.update(link, |entry| {
                entry.status.last_error = Some(message.clone());
                worker = entry.worker;
                if let Some(notices) = entry.notices.take() {
                    let _ = notices.send(Notice::Condemned {
                        code,
                        message: message.clone(),
                    });
                }
            });
            if let (Some((worker, incarnation)), Some(control)) = (worker, shared.control()) {
                control.condemn_worker(worker, incarnation, message);
            }
        }
        RouterEvent::Rejected {
            link,
            topic_id,
            why,
        } => {
            let file = shared.contracts.file().display();
            let (code, reason) = match why {
                Rejection::UnknownTopic => (
                    TopicReplyCode::UNKNOWN_TOPIC,
                    format!("no message with topic_id={topic_id} in the bridge's contracts {file}"),
                ),
                Rejection::WrongSize {
                    message,
                    expected,
                    actual,
                } => (
                    TopicReplyCode::WRONG_SIZE,
                    format!(
                        "payload of {message} has the wrong size: expected={expected:?} actual={actual} bytes"
                    ),
                ),
                Rejection::TooLarge {
                    subscriber,
                    payload_len,
                    max_payload,
                } => (
                    TopicReplyCode::WRONG_SIZE,
                    format!(
                        "payload does not fit into the ring of link {subscriber}: payload_len={payload_len} \
                         max_payload={max_payload}; raise its ring_capacity"
                    ),
                ),
            };
            tracing::warn!(%link, topic = topic_id, %reason, "published frame dropped; further ones are only counted");
            shared.update(link, |entry| {
                if let Some(notices) = &entry.notices {
                    let _ = notices.send(Notice::Rejected {
                        topic_id,
                        code,
                        reason,
                    });
                }
            });
        }
    }
}

/// Why a peer was not served.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Setup(#[from] LinkSetupError),
    #[error("session could not be set up: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("handshake was interrupted: {0}")]
    Join(#[from] tokio::task::JoinError),
}

async fn serve_worker(
    shared: &Arc<Shared>,
    socket: UnixStream,
    terms: LinkTerms,
    memory: Arc<LinkMemory>,
    notices: mpsc::UnboundedReceiver<Notice>,
) -> Result<(), ServeError> {
    let (link, schema_digest) = (terms.link, terms.schema_digest);
    let stream = FrameStream::new(socket)?;
    let greeted = tokio::task::spawn_blocking(move || greet(stream, schema_digest)).await??;
    serve_greeted(shared, greeted, terms, memory, notices, || {
        if let (Some((worker, incarnation)), Some(control)) =
            (shared.worker_of(link), shared.control())
        {
            control.worker_attached(worker, incarnation);
        }
    })
    .await
}

/// The rest of the handshake and the session, on a link that the data plane already has.
async fn serve_greeted(
    shared: &Arc<Shared>,
    greeted: Greeted,
    terms: LinkTerms,
    memory: Arc<LinkMemory>,
    notices: mpsc::UnboundedReceiver<Notice>,
    attached: impl FnOnce(),
) -> Result<(), ServeError> {
    let (link, name, pid) = (terms.link, terms.name.clone(), greeted.hello.pid);
    let fencing = greeted.fencing;
    shared.plane.set_fencing(link, fencing).await?;
    if let Ok(segment) = memory.segment() {
        segment.set_epoch(terms.epoch);
    }
    let (stream, agreed) = {
        let memory = Arc::clone(&memory);
        tokio::task::spawn_blocking(move || attach(greeted, &terms, &memory)).await??
    };
    let session = open_session(shared, link, stream, &agreed, &memory, notices).await?;
    // A predecessor may have died between a commit and the wakeup that it owed to the router.
    shared.plane.wake_all()?;
    report_attached(shared, link, &name, pid, &agreed, fencing);
    attached();
    let end = session.run().await;
    report_end(shared, link, &name, pid, end);
    Ok(())
}

async fn open_session(
    shared: &Arc<Shared>,
    link: LinkId,
    mut stream: FrameStream,
    agreed: &Agreed,
    memory: &LinkMemory,
    notices: mpsc::UnboundedReceiver<Notice>,
) -> Result<Session, ServeError> {
    let pump = if agreed.is_some() {
        stream.expect_data(memory.max_payload());
        // Both ends of the rings are in this process now.
        let fencing = local_fencing();
        shared.plane.set_fencing(link, fencing).await?;
        Some(Pump::new(memory.peer_side(fencing)?))
    } else {
        None
    };
    let surroundings = Surroundings {
        link,
        plane: shared.plane.clone(),
        contracts: Arc::clone(&shared.contracts),
        notices,
        socket_calls: shared.socket_calls(link),
    };
    Ok(Session::new(surroundings, stream, pump)?)
}

/// The fencing between two threads of this process.
pub(crate) fn local_fencing() -> Fencing {
    if shm_transport::wakeup::membarrier_is_available() {
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
        Some(fallback) if fallback.code == mycelium_messages::control::FallbackCode::REQUESTED => {
            tracing::info!(%link, name, pid, transport = "socket", reason = %fallback, "peer attached");
        }
        Some(fallback) => {
            tracing::warn!(%link, name, pid, transport = "socket", reason = %fallback, "peer attached without shared memory");
        }
    }
}

fn report_end(shared: &Shared, link: LinkId, name: &str, pid: u32, end: SessionEnd) {
    let error = match end {
        SessionEnd::Goodbye { reason } => {
            tracing::info!(%link, name, pid, reason, "peer said goodbye");
            None
        }
        SessionEnd::HangUp => {
            tracing::warn!(%link, name, pid, "peer hung up without a goodbye");
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
        if let Some(error) = error {
            entry.notices = None;
            condemned = entry.worker.map(|worker| (worker, error.clone()));
            entry.status.last_error = Some(error);
        }
    });
    if let (Some(((worker, incarnation), error)), Some(control)) = (condemned, shared.control()) {
        control.condemn_worker(worker, incarnation, error);
    }
}

async fn serve_client(
    shared: &Arc<Shared>,
    stream: UnixStream,
    credentials: PeerCredentials,
) -> Result<(), ServeError> {
    let schema_digest = shared.contracts.schema_digest();
    let stream = FrameStream::new(stream)?;
    let mut greeted = tokio::task::spawn_blocking(move || greet(stream, schema_digest)).await??;
    let link = shared.next_link();
    let asked = greeted.hello.name.as_str().unwrap_or_default();
    let name = if asked.is_empty() {
        format!("client-{link}")
    } else {
        asked.to_owned()
    };
    if shared.lock().stopping {
        let message = "the bridge is shutting down; connect again later";
        return Err(refused(
            &mut greeted.stream,
            RefusedCode::SHUTTING_DOWN,
            message,
            None,
        )
        .into());
    }
    let pid = u32::try_from(credentials.pid).ok();
    if let Err(error) = take_name_soon(shared, link, &name, pid).await {
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
    let served = serve_named_client(shared, greeted, link, name, notices).await;
    // The name is free as soon as the peer is gone; what it published is still delivered.
    shared.lock().links.remove(&link);
    let _ = shared.plane.drain(link).await;
    served
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
) -> Result<(), ServeError> {
    let memory = Arc::new(create_memory(
        shared,
        shared.bridge.transport,
        shared.bridge.ring_capacity,
    )?);
    shared
        .plane
        .add(link, memory.bridge_side(Fencing::Fenced)?, Vec::new())?;
    let terms = LinkTerms {
        link,
        name,
        epoch: 1,
        transport: transport_request(shared.bridge.transport),
        spin_us: shared.bridge.spin_us.unwrap_or_else(default_spin_us),
        schema_digest: shared.contracts.schema_digest(),
        settings: "{}".to_owned(),
    };
    let mut counted = false;
    let served = serve_greeted(shared, greeted, terms, memory, notices, || {
        counted = count_clients(shared, 1)
    })
    .await;
    if counted {
        count_clients(shared, -1);
    }
    served
}

fn count_clients(shared: &Shared, change: isize) -> bool {
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
