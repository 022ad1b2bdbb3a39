//! The link layer: all links of a bridge, created, handed to one peer after the other, and drained when they end.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use mycelium_contracts::Delivery;
use mycelium_messages::control::RefusedCode;
use shm_transport::channel::handshake::receive_hello;
use shm_transport::channel::{Fallback, Transport, TransportRequest};
use shm_transport::socket::{FrameStream, Stream};
use tokio::io::Interest;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use super::handshake::{LinkTerms, REFUSAL_TIMEOUT, refused};
use super::memory::{LinkMemory, LinkSetupError};
use super::quarantine::{LastExit, examine};
use super::registry::{Registry, Shared};
use super::reports::on_router_event;
use super::serve::{ServeError, local_fencing, place, serve_client, serve_worker};
use super::session::{Notice, watch};
use super::uplink::Uplinks;
use super::worker_link::{
    WorkerLink, changed_topics, create_link, delivery_terms, has_same_rings, topics,
};
use crate::bridge::wait_strategy;
use crate::config::{Config, MemoryConfig, TransportMode, WorkerConfig};
use crate::data_plane::{DataPlaneHandle, default_spin_us};
use crate::event_loop::{ControlHandle, ExitedWorker, Links, StartedWorker};
use crate::listen::{Client, NotAllowed};
use crate::reload::Plan;
use crate::router::RouterEvent;
use crate::routes::LinkId;
use crate::worker::Outcome;
use crate::worker::stall::Progress;

/// Clients that are told at the same time why they are refused.
const REFUSALS_MAX: usize = 32;
/// How long such a client may take for its Hello, and before that for the handshake of TLS.
const REFUSED_HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// The link layer of a bridge.
pub struct LinkLayer {
    shared: Arc<Shared>,
    /// By index; those that have ended for good are not among them.
    workers: HashMap<usize, WorkerLink>,
    router_events: Option<mpsc::UnboundedReceiver<RouterEvent>>,
    /// What each returns is left for the next one on its link.
    sessions: HashMap<usize, JoinHandle<Vec<u8>>>,
    /// Links of workers that have ended for good, being given up; each returns the frames that are discarded with it.
    discards: JoinSet<u64>,
    /// Of those that have been.
    undelivered: u64,
    uplinks: Uplinks,
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
            bridge: RwLock::new(Arc::new(config.bridge.clone())),
            next_link: AtomicU32::new(1),
            refused_busy: AtomicU64::new(0),
            refused_not_allowed: AtomicU64::new(0),
            refusals: Semaphore::new(REFUSALS_MAX),
            state: Mutex::default(),
        });
        let mut workers = HashMap::new();
        for (index, worker) in config.workers.iter().enumerate() {
            workers.insert(index, create_link(&shared, worker)?);
        }
        let uplinks = Uplinks::new(&shared, &config.uplinks)?;
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
                discards: JoinSet::new(),
                undelivered: 0,
                uplinks,
            },
            registry,
        ))
    }

    /// Gives a worker fresh rings after it broke the old ones. What it had not acknowledged is lost, and said so.
    fn renew(&mut self, worker: usize, config: &WorkerConfig) -> Result<(), LinkSetupError> {
        let Some(old) = self.workers.get_mut(&worker) else {
            return Ok(());
        };
        let lost_bytes = old.memory.unacknowledged();
        tracing::error!(worker = %config.name, lost_bytes, "rings are discarded after a violation; what was not acknowledged is lost");
        let memory = Arc::new(create_memory(
            &self.shared,
            config.transport,
            config.ring_capacity,
            &config.memory,
        )?);
        old.memory = memory;
        let WorkerLink {
            link,
            memory,
            terms,
            ..
        } = &*old;
        self.shared
            .update(*link, |entry| entry.status.degraded = memory.degraded());
        self.shared.plane.replace(
            *link,
            memory.bridge_side(local_fencing())?,
            terms.clone(),
            topics(terms),
        )?;
        Ok(())
    }
}

impl LinkLayer {
    /// Gives a link up for good: what it published is delivered, what was kept for it is discarded.
    fn drop_link(&mut self, worker: usize, config: &WorkerConfig) {
        let Some(WorkerLink { link, memory, .. }) = self.workers.remove(&worker) else {
            return;
        };
        // The name is free for a worker of a new configuration; what was published is still delivered.
        self.shared.lock().links.remove(&link);
        while let Some(frames) = self.discards.try_join_next() {
            self.undelivered += frames.unwrap_or_default();
        }
        let session = self.sessions.remove(&worker);
        // What the session still has to put into the ring may wait for those who have frames for this link.
        self.shared.plane.silence_soon(link);
        let (shared, name) = (Arc::clone(&self.shared), config.name.clone());
        self.discards.spawn(async move {
            if let Some(session) = session {
                let unplaced = session.await.unwrap_or_default();
                if let Err(error) = place(&shared, link, &memory, unplaced).await {
                    tracing::error!(worker = %name, %error, "what the worker had sent last is lost");
                }
            }
            // A data plane that has stopped has dropped the link as well.
            let waiting = shared.plane.drain(link).await.map_or(0, |it| it.waiting);
            report_discarded(&shared, &name, &memory, waiting)
        });
    }
}

/// Says what a worker leaves behind for which there is no successor, and returns the number of frames. A ring that its peer has
/// garbled has none to count.
fn report_discarded(shared: &Shared, worker: &str, memory: &LinkMemory, waiting: u64) -> u64 {
    let topics = memory.unacknowledged_frames().unwrap_or_default();
    let undelivered_frames = topics.values().sum::<u64>() + waiting;
    let undelivered_bytes = memory.unacknowledged();
    if undelivered_frames > 0 || undelivered_bytes > 0 {
        let named = topics.iter().map(|(topic_id, frames)| {
            let message = shared.contracts.by_id(*topic_id);
            let name = message.map_or_else(|| topic_id.to_string(), |it| it.name.clone());
            format!("{name}={frames}")
        });
        let topics = named.collect::<Vec<_>>().join(",");
        tracing::warn!(%worker, undelivered_frames, undelivered_bytes, topics, waiting, "worker ended for good; what it had not acknowledged is discarded");
    }
    undelivered_frames
}

impl Links for LinkLayer {
    async fn undelivered(&mut self) -> u64 {
        while let Some(frames) = self.discards.join_next().await {
            self.undelivered += frames.unwrap_or_default();
        }
        self.undelivered
    }

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
        self.uplinks.begin();
    }

    fn registry(&self) -> Option<Registry> {
        Some(Registry {
            shared: Arc::clone(&self.shared),
        })
    }

    fn worker_started(&mut self, started: StartedWorker<'_>) {
        let StartedWorker {
            worker,
            config,
            pid,
            socket,
            incarnation,
        } = started;
        let Some(WorkerLink { link, memory, .. }) = self.workers.get(&worker) else {
            // Its socket is closed with this, which it sees as a refusal.
            tracing::error!(worker = %config.name, "worker has no link and cannot be served");
            return;
        };
        let violated = {
            let state = self.shared.lock();
            let entry = state.links.get(link);
            entry.is_some_and(|entry| entry.violated())
        };
        // Whoever is gone before the bridge has looked at what it left has broken the rules all the same.
        let unsound = memory.check().inspect_err(|corrupt| {
            tracing::error!(worker = %config.name, %corrupt, "a predecessor left its rings in an impossible state");
        });
        if (violated || unsound.is_err())
            && let Err(error) = self.renew(worker, config)
        {
            tracing::error!(worker = %config.name, %error, "worker cannot be served");
        }
        let Some(kept) = self.workers.get_mut(&worker) else {
            return;
        };
        let (link, memory) = (kept.link, Arc::clone(&kept.memory));
        let last_exit = kept.last_exit.take();
        let suspicion = Arc::clone(&kept.suspicion);
        let (sender, notices) = mpsc::unbounded_channel();
        if let Some(predecessor) = kept.notices.replace(sender.clone())
            && memory.segment().is_err()
            && self.shared.may_publish_all(link)
        {
            // A session that has ended needs no notice.
            let _ = predecessor.send(Notice::Succeeded);
        }
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
        let attach_timeout = config.watch.attach_timeout;
        let shared = Arc::clone(&self.shared);
        let predecessor = self.sessions.remove(&worker);
        let config = config.clone();
        let task = async move {
            let mut unplaced = Vec::new();
            if let Some(predecessor) = predecessor {
                // It ends with its socket; a panic in it has been reported by the runtime.
                unplaced = predecessor.await.unwrap_or_default();
            }
            if let Some(exit) = last_exit {
                examine(&shared, link, &config, &suspicion, &exit).await;
            }
            let served = serve_worker(
                &shared,
                socket,
                terms,
                memory,
                notices,
                attach_timeout,
                &mut unplaced,
            );
            if let Err(error) = served.await {
                if let ServeError::Setup(LinkSetupError::Attach(_)) = &error {
                    // No successor could attach to these rings either.
                    shared.update(link, |entry| {
                        entry.status.last_error = Some(error.to_string())
                    });
                }
                if let Some(control) = shared.control() {
                    let has_left = error.is_hang_up();
                    control.worker_not_attached(worker, incarnation, error.to_string(), has_left);
                }
            }
            unplaced
        };
        self.sessions.insert(worker, tokio::spawn(task));
    }

    fn worker_exited(&mut self, exited: ExitedWorker<'_>) {
        let Some(kept) = self.workers.get_mut(&exited.worker) else {
            return;
        };
        let status = exited.status;
        kept.last_exit = Some(LastExit {
            clean: status.is_some_and(|status| status.success()),
            attached: exited.attached,
            status: status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()),
        });
        let WorkerLink { link, memory, .. } = &*kept;
        let mut transport = None;
        self.shared.update(*link, |entry| {
            entry.status.pid = None;
            entry.notices = None;
            transport = entry.status.transport;
        });
        if transport == Some(Transport::Shm) {
            // A data plane that has stopped gives no ring to a successor.
            let _ = self.shared.plane.check_left(*link);
        }
        if exited.restart_after.is_some() {
            let bytes = memory.unacknowledged();
            tracing::info!(worker = %exited.config.name, unacknowledged_bytes = bytes, "frames are kept for the successor");
        }
        if let Err(error) = memory.reset_doorbell() {
            tracing::error!(worker = %exited.config.name, %error, "the doorbell of the worker is broken");
        }
        // The dead process may have committed something without waking the router.
        let _ = self.shared.plane.wake_all();
    }

    fn worker_ended(&mut self, worker: usize, config: &WorkerConfig, _outcome: Outcome) {
        self.drop_link(worker, config);
    }

    fn worker_added(&mut self, worker: usize, config: &WorkerConfig) -> Result<(), LinkSetupError> {
        self.workers
            .insert(worker, create_link(&self.shared, config)?);
        Ok(())
    }

    fn worker_changed(
        &mut self,
        worker: usize,
        old: &WorkerConfig,
        new: &WorkerConfig,
    ) -> Result<(), LinkSetupError> {
        let Some(kept) = self
            .workers
            .get_mut(&worker)
            .filter(|_| has_same_rings(old, new))
        else {
            self.drop_link(worker, old);
            return self.worker_added(worker, new);
        };
        let terms = delivery_terms(new, &self.shared.contracts);
        let changes = changed_topics(&kept.terms, &terms);
        self.shared
            .plane
            .set_terms(kept.link, terms.clone(), changes)?;
        kept.terms = terms;
        Ok(())
    }

    fn reconfigure(&mut self, plan: &Plan, config: &Config) -> Vec<(String, LinkSetupError)> {
        self.shared.set_bridge(config.bridge.clone());
        let topic = |(name, delivery): &(String, Delivery)| {
            Some((self.shared.contracts.by_name(name)?.topic_id, *delivery))
        };
        let topics: Vec<_> = plan.delivery.iter().filter_map(topic).collect();
        let plane = &self.shared.plane;
        // A data plane that has stopped delivers nothing any more.
        if !topics.is_empty() {
            let _ = plane.set_delivery(topics);
        }
        if plan.applied.contains(&"spin_us") {
            let _ = plane.set_wait(wait_strategy(config.bridge.spin_us));
        }
        self.uplinks.change(plan, config.bridge.shutdown_timeout)
    }

    fn ask_worker_to_end(&mut self, worker: usize, deadline: Duration, reason: &str) {
        let Some(WorkerLink { link, .. }) = self.workers.get(&worker) else {
            return;
        };
        let (shared, link, reason) = (Arc::clone(&self.shared), *link, reason.to_owned());
        let end = Instant::now() + deadline;
        tokio::spawn(async move {
            let _ = tokio::time::timeout(deadline / 2, shared.plane.settle()).await;
            let deadline = end.saturating_duration_since(Instant::now());
            shared.update(link, |entry| {
                if let Some(notices) = &entry.notices {
                    // A session that has ended needs no notice.
                    let _ = notices.send(Notice::Shutdown { deadline, reason });
                }
            });
        });
    }

    fn ask_for_waits(&self) {
        let shared = Arc::clone(&self.shared);
        let workers = self.workers.iter();
        let workers: HashMap<_, _> = workers.map(|(worker, kept)| (kept.link, *worker)).collect();
        tokio::spawn(async move {
            if let Ok(waits) = shared.plane.waits().await
                && let Some(control) = shared.control()
            {
                let worker_of = |link: &LinkId| workers.get(link).copied();
                let waits = waits.iter().filter_map(|(link, others)| {
                    Some((worker_of(link)?, others.iter().map(worker_of).collect()))
                });
                control.workers_wait(waits.collect());
            }
        });
    }

    fn ask_for_round(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            // Without an answer nobody is told that the bridge is well.
            if shared.plane.round().await.is_ok()
                && let Some(control) = shared.control()
            {
                control.data_plane_round();
            }
        });
    }

    fn progress(&self, worker: usize) -> Option<Progress> {
        let WorkerLink { link, memory, .. } = self.workers.get(&worker)?;
        let state = self.shared.lock();
        let transport = state.links.get(link)?.status.transport;
        Some(memory.progress(transport))
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
            let stream = async { Ok(client.stream.into()) };
            refuse_before_hello(&shared, stream, RefusedCode::NOT_ALLOWED, message).await;
        });
    }

    fn ask_to_end(&mut self, deadline: Duration, reason: &str) {
        self.shared.lock().stopping = true;
        let (shared, reason) = (Arc::clone(&self.shared), reason.to_owned());
        let end = Instant::now() + deadline;
        self.uplinks.end_all(end);
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
/// it never reads the reason; so its first byte is waited for, and what it says does not matter. A client over TLS is told over
/// TLS, so `open` does that handshake. No thread waits, and who comes while many others are being told is cut off without
/// a word.
pub(super) async fn refuse_before_hello(
    shared: &Shared,
    open: impl Future<Output = std::io::Result<Stream>>,
    code: RefusedCode,
    message: String,
) {
    let Ok(_permit) = shared.refusals.try_acquire() else {
        return;
    };
    let spoke = async {
        let opened = tokio::time::timeout(REFUSED_HELLO_TIMEOUT, open).await;
        let stream = opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
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

pub(super) fn create_memory(
    shared: &Shared,
    transport: TransportMode,
    capacity: usize,
    memory: &MemoryConfig,
) -> Result<LinkMemory, LinkSetupError> {
    match transport {
        TransportMode::Socket | TransportMode::Stdio => {
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
        TransportMode::Socket | TransportMode::Stdio => TransportRequest::Socket,
    }
}
