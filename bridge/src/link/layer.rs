//! The link layer: all links of a bridge, created, handed to one peer after the other, and drained when they end.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mycelium_contracts::Contracts;
use mycelium_messages::control::{LinkErrorCode, RefusedCode, TopicReplyCode};
use shm_transport::channel::handshake::receive_hello;
use shm_transport::channel::{Fallback, TransportRequest};
use shm_transport::ring::Fencing;
use shm_transport::socket::FrameStream;
use shm_transport::wakeup::default_spin_us;
use tokio::io::Interest;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::handshake::{LinkTerms, REFUSAL_TIMEOUT, refused};
use super::memory::{LinkMemory, LinkSetupError};
use super::quarantine::{LastExit, Suspicion, examine};
use super::registry::{Registry, Shared};
use super::serve::{ServeError, serve_client, serve_worker};
use super::session::{Notice, mismatch, watch};
use crate::config::{self, Config, MemoryConfig, TransportMode, WorkerConfig};
use crate::data_plane::DataPlaneHandle;
use crate::event_loop::{ControlHandle, ExitedWorker, Links, StartedWorker};
use crate::listen::{Client, ClientStream, NotAllowed};
use crate::router::{DeliveryTerms, Rejection, RouterEvent, Subscription};
use crate::routes::LinkId;
use crate::worker::Outcome;

/// Clients that are told at the same time why they are refused.
const REFUSALS_MAX: usize = 32;
/// How long such a client may take for its Hello.
const REFUSED_HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// The link layer of a bridge.
pub struct LinkLayer {
    shared: Arc<Shared>,
    workers: Vec<WorkerLink>,
    router_events: Option<mpsc::UnboundedReceiver<RouterEvent>>,
    sessions: HashMap<usize, JoinHandle<()>>,
}

/// What a worker's link keeps across its processes.
struct WorkerLink {
    link: LinkId,
    memory: Arc<LinkMemory>,
    terms: DeliveryTerms,
    last_exit: Option<LastExit>,
    suspicion: Arc<Mutex<Suspicion>>,
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
            refused_busy: AtomicU64::new(0),
            refused_not_allowed: AtomicU64::new(0),
            refusals: Semaphore::new(REFUSALS_MAX),
            state: Mutex::default(),
        });
        let mut workers = Vec::new();
        for worker in &config.workers {
            let link = shared.next_link();
            // The configuration has unique names.
            let _ = shared.take_name(link, &worker.name, None);
            let terms = delivery_terms(worker, &config.contracts);
            let memory = Arc::new(create_memory(
                &shared,
                worker.transport,
                worker.ring_capacity,
                &worker.memory,
            )?);
            shared.update(link, |entry| entry.status.degraded = memory.degraded());
            shared.plane.add(
                link,
                memory.bridge_side(Fencing::Fenced)?,
                terms.clone(),
                topics(&terms),
            )?;
            workers.push(WorkerLink {
                link,
                memory,
                terms,
                last_exit: None,
                suspicion: Arc::default(),
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
            &config.memory,
        )?);
        let old = std::mem::replace(&mut self.workers[worker].memory, memory);
        drop(old);
        let WorkerLink {
            link,
            memory,
            terms,
            ..
        } = &self.workers[worker];
        self.shared
            .update(*link, |entry| entry.status.degraded = memory.degraded());
        self.shared.plane.replace(
            *link,
            memory.bridge_side(Fencing::Fenced)?,
            terms.clone(),
            topics(terms),
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
        // Whoever is gone before the bridge has looked at what it left has broken the rules all the same.
        let unsound = self.workers[worker].memory.check().inspect_err(|corrupt| {
            tracing::error!(worker = %config.name, %corrupt, "a predecessor left its rings in an impossible state");
        });
        if (violated || unsound.is_err())
            && let Err(error) = self.renew(worker, config)
        {
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
        let last_exit = self.workers[worker].last_exit.take();
        let suspicion = Arc::clone(&self.workers[worker].suspicion);
        let config = config.clone();
        let task = async move {
            if let Some(predecessor) = predecessor {
                // It ends with its socket; a panic in it has been reported by the runtime.
                let _ = predecessor.await;
            }
            if let Some(exit) = last_exit {
                examine(&shared, link, &config, &suspicion, &exit).await;
            }
            let name = terms.name.clone();
            if let Err(error) = serve_worker(&shared, socket, terms, memory, notices).await {
                tracing::warn!(worker = %name, pid, incarnation, %error, "worker did not attach");
                if let ServeError::Setup(LinkSetupError::Attach(_)) = &error {
                    // No successor could attach to these rings either.
                    shared.update(link, |entry| {
                        entry.status.last_error = Some(error.to_string())
                    });
                }
                if let Some(control) = shared.control() {
                    control.condemn_worker(worker, incarnation, error.to_string());
                }
            }
        };
        self.sessions.insert(worker, tokio::spawn(task));
    }

    fn worker_exited(&mut self, exited: ExitedWorker<'_>) {
        let status = exited.status;
        self.workers[exited.worker].last_exit = Some(LastExit {
            clean: status.is_some_and(|status| status.success()),
            attached: exited.attached,
            status: status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
        });
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
            if let Ok(counters) = shared.plane.drain(link).await
                && counters.waiting > 0
            {
                tracing::warn!(%link, undelivered_frames = counters.waiting, "frames that waited in front of the ring are discarded");
            }
            shared.lock().links.remove(&link);
        });
    }

    fn client_connected(&mut self, client: Client) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let (peer, endpoint) = (client.peer, Arc::clone(&client.endpoint));
            if let Err(error) = serve_client(&shared, client).await {
                tracing::warn!(%peer, endpoint = %endpoint.address, %error, "client did not attach");
            }
        });
    }

    fn client_refused(&mut self, client: Client, error: &NotAllowed) {
        let (shared, message) = (Arc::clone(&self.shared), error.to_string());
        shared.refused_not_allowed.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            refuse_before_hello(&shared, client.stream, RefusedCode::NOT_ALLOWED, message).await;
        });
    }

    fn ask_to_end(&mut self, deadline: Duration, reason: &str) {
        self.shared.lock().stopping = true;
        let (shared, reason) = (Arc::clone(&self.shared), reason.to_owned());
        let end = Instant::now() + deadline;
        tokio::spawn(async move {
            // What was published before goes ahead of the word, unless a peer that reads nothing holds it up.
            let _ = tokio::time::timeout(deadline / 2, shared.plane.settle()).await;
            let deadline = end.saturating_duration_since(Instant::now());
            for entry in shared.lock().links.values() {
                if let Some(notices) = &entry.notices {
                    let reason = reason.clone();
                    // A session that has ended needs no notice.
                    let _ = notices.send(Notice::Shutdown { deadline, reason });
                }
            }
        });
    }
}

/// Tells a client why it is refused. A socket that is closed before the peer has sent its Hello makes it fail there, and
/// it never reads the reason; so its first byte is waited for, and what it says does not matter. No thread waits, and
/// who comes while many others are being told is cut off without a word.
pub(super) async fn refuse_before_hello(
    shared: &Shared,
    stream: ClientStream,
    code: RefusedCode,
    message: String,
) {
    let Ok(_permit) = shared.refusals.try_acquire() else {
        return;
    };
    let spoke = async {
        let stream = FrameStream::new(stream)?;
        let stream = watch(stream, Interest::READABLE)?;
        let wait = tokio::time::timeout(REFUSED_HELLO_TIMEOUT, stream.readable());
        // Whoever says nothing is told all the same.
        let _ = wait.await;
        std::io::Result::Ok(stream.into_inner())
    };
    let told = spoke.await.map(|mut stream| {
        tokio::task::spawn_blocking(move || {
            let _ = receive_hello(&mut stream, Instant::now() + REFUSAL_TIMEOUT);
            refused(&mut stream, code, &message, None);
        })
    });
    if let Ok(told) = told {
        // A panic in it has been reported by the runtime.
        let _ = told.await;
    }
}

/// What a worker's configuration says about its frames.
fn delivery_terms(worker: &WorkerConfig, contracts: &Contracts) -> DeliveryTerms {
    let known = |wanted: &config::Subscription| {
        Some(Subscription {
            topic_id: contracts.by_name(&wanted.message)?.topic_id,
            delivery: wanted.delivery,
            group: wanted.group.clone(),
        })
    };
    DeliveryTerms {
        name: worker.name.clone(),
        stage_capacity: worker.stage_capacity,
        subscriptions: worker.subscribe.iter().filter_map(known).collect(),
    }
}

/// What the bridge subscribes to for a link.
fn topics(terms: &DeliveryTerms) -> Vec<u16> {
    terms.subscriptions.iter().map(|it| it.topic_id).collect()
}

pub(super) fn create_memory(
    shared: &Shared,
    transport: TransportMode,
    capacity: usize,
    memory: &MemoryConfig,
) -> Result<LinkMemory, LinkSetupError> {
    match transport {
        TransportMode::Socket => {
            let reason = Fallback::requested("the bridge's configuration");
            LinkMemory::on_heap(capacity, reason)
        }
        TransportMode::Auto | TransportMode::Shm => {
            LinkMemory::create(capacity, shared.contracts.schema_digest(), memory)
        }
    }
}

pub(super) fn transport_request(mode: TransportMode) -> TransportRequest {
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
        RouterEvent::Gap {
            link,
            topic_id,
            missed,
            cause,
        } => {
            let policy = cause.name().unwrap_or("UNKNOWN");
            shared.update(link, |entry| {
                if entry.missed.total() == 0 {
                    let name = &entry.status.name;
                    tracing::warn!(%link, name, topic = topic_id, missed, policy, "link misses frames; further ones are only counted");
                }
                entry.missed.add(topic_id, missed, cause);
                if let Some(notices) = &entry.notices {
                    // A session that has ended needs no notice; its successor is told.
                    let _ = notices.send(Notice::Missed);
                }
            });
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
                Rejection::WrongEncoding {
                    message,
                    expected,
                    actual,
                } => (
                    TopicReplyCode::WRONG_ENCODING,
                    format!(
                        "payload of {message} has another encoding: expected={} actual={}",
                        expected.name(),
                        actual.name()
                    ),
                ),
                Rejection::LayoutMismatch => {
                    let verdict = shared.verdict(link);
                    let reason = verdict.refusal(topic_id).map_or_else(
                        || "published before the contracts were compared".to_owned(),
                        mismatch,
                    );
                    (TopicReplyCode::LAYOUT_MISMATCH, reason)
                }
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
