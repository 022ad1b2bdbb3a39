//! The control plane: one loop on one thread that starts workers, accepts clients, reacts to signals and stops the bridge.
//!
//! Everything that can happen is a variant of [`Event`]; [`ControlPlane::run`] handles one after the other and never
//! waits for anything inside a handler. What concerns links is handed to a [`Links`], which reports back through a
//! [`ControlHandle`]. Frames never pass through here.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shm_transport::socket::Address;
use tokio::sync::mpsc;

use crate::config::{Config, WorkerConfig};
use crate::listen::{ListenError, Listening, Peer};
use crate::shutdown::{Remaining, Shutdown, Step, Summary};
use crate::supervisor::guard::Guard;
use crate::supervisor::{ProcessGroup, SpawnedWorker, spawn_worker};
use crate::worker::{Action, Input, Outcome, State, Worker};

mod event;
mod links;
mod sources;
mod thread;

pub use event::{ControlHandle, Event};
pub use links::{ExitedWorker, Links, StartedWorker};
pub use thread::ControlThread;

use sources::{Signals, accept, next_signal, sleep_until};

/// Pause after a failed accept: usually the process is out of file descriptors, and trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What differs between the program and a host that embeds the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlOptions {
    /// Stop on SIGINT and SIGTERM. A host that embeds the bridge handles its own signals.
    pub handle_signals: bool,
    /// Stop when every worker has ended for good and there is no endpoint: nothing can happen any more. A host
    /// with in-process actors goes on.
    pub end_with_workers: bool,
    /// Start a second process that ends the descendants of workers if this one is killed. Only for the program
    /// `mycelium-bridge`, whose own file it runs; in a host that embeds the bridge the kernel ends the workers alone.
    pub guard_descendants: bool,
}

/// Why the control plane cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An endpoint cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A system call failed, usually for want of threads or file descriptors.
    #[error("cannot {action}: {source}; check the limits of the process (ulimit -a)")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The control thread panicked while it was set up.
    #[error("control thread panicked before it began; its message is on standard error")]
    Panicked,
}

/// One worker with its state and, while it runs, its process group.
#[derive(Debug)]
struct Supervised {
    config: WorkerConfig,
    machine: Worker,
    group: Option<ProcessGroup>,
    restart_at: Option<Instant>,
}

/// The state of the control loop.
pub struct ControlPlane<L> {
    workers: Vec<Supervised>,
    allowed_uids: Vec<u32>,
    links: L,
    shutdown: Shutdown,
    clients: usize,
    failed: BTreeMap<usize, String>,
    endpoints: Vec<Listening>,
    /// Which of them is asked first for a connection.
    first_endpoint: usize,
    accept_after: Option<Instant>,
    options: ControlOptions,
    signals: Option<Signals>,
    /// Unbounded, and yet bounded: at most one exit and a few reports per process or connection are on their way.
    events: mpsc::UnboundedReceiver<Event>,
    handle: ControlHandle,
    guard: Option<Guard>,
}

impl<L: Links> ControlPlane<L> {
    /// Takes over the signals, if so asked, then binds the endpoints; starts no worker yet.
    /// In this order, so that a signal from here on finds somebody who removes a socket again. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn new(config: &Config, links: L, options: ControlOptions) -> Result<Self, StartError> {
        let system = |action| move |source| StartError::System { action, source };
        let signals = options
            .handle_signals
            .then(Signals::install)
            .transpose()
            .map_err(system("install the signal handlers"))?;
        let endpoints = config.listen.iter().map(Listening::bind);
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let seeds = RandomState::new();
        let workers = config
            .workers
            .iter()
            .map(|config| Supervised {
                machine: Worker::new(config.restart, seeds.hash_one(&config.name)),
                config: config.clone(),
                group: None,
                restart_at: None,
            })
            .collect();
        let (sender, events) = mpsc::unbounded_channel();
        Ok(Self {
            workers,
            shutdown: Shutdown::new(config.bridge.shutdown_timeout),
            allowed_uids: config.bridge.allowed_uids.clone(),
            links,
            clients: 0,
            failed: BTreeMap::new(),
            endpoints,
            first_endpoint: 0,
            accept_after: None,
            options,
            signals,
            events,
            handle: ControlHandle { events: sender },
            guard: None,
        })
    }

    /// A handle for reports and for stopping the bridge from elsewhere.
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Where clients can connect, with the ports that are bound.
    pub fn addresses(&self) -> Vec<Address> {
        let addresses = self.endpoints.iter().map(Listening::address);
        addresses.cloned().collect()
    }

    /// Starts all workers and runs until the bridge has stopped. Has to run on a thread that lives as long as the
    /// bridge (see [`crate::supervisor`]), inside a current-thread tokio runtime.
    pub async fn run(mut self) -> Summary {
        self.links.begin(self.handle());
        for index in 0..self.workers.len() {
            self.start(index);
        }
        self.end_if_idle();
        loop {
            let event = self.next_event().await;
            if self.handle_event(event) {
                break;
            }
        }
        let mut summary = self.shutdown.summary().clone();
        summary.failed = self.failed.into_values().collect();
        summary
    }

    async fn next_event(&mut self) -> Event {
        let restart = self
            .workers
            .iter()
            .enumerate()
            .filter_map(|(worker, w)| Some((w.restart_at?, worker)))
            .min();
        let stopping = self.shutdown.deadline();
        tokio::select! {
            // In this order, so that a flood of connections delays neither an exit nor a signal.
            biased;
            reason = next_signal(&mut self.signals) => Event::ShutdownRequested { reason },
            () = sleep_until(stopping) => Event::DeadlineOver,
            Some(event) = self.events.recv() => event,
            () = sleep_until(restart.map(|(at, _)| at)) => Event::RestartDue { worker: restart.map_or(0, |(_, w)| w) },
            event = accept(&self.endpoints, &mut self.first_endpoint, self.accept_after) => event,
        }
    }

    /// Handles one event; `true` when the bridge has stopped.
    fn handle_event(&mut self, event: Event) -> bool {
        let now = Instant::now();
        let steps = match event {
            Event::WorkerAttached {
                worker,
                incarnation,
            } => {
                if self.is_current(worker, incarnation) {
                    self.workers[worker].machine.handle(Input::Attached, now);
                    tracing::info!(worker = %self.workers[worker].config.name, incarnation, "worker attached");
                }
                Vec::new()
            }
            Event::WorkerCondemned {
                worker,
                incarnation,
                reason,
            } => {
                if self.is_current(worker, incarnation) {
                    let supervised = &self.workers[worker];
                    tracing::error!(worker = %supervised.config.name, incarnation, %reason, "killing the worker");
                    signal_group(supervised, Signal::SIGKILL);
                }
                Vec::new()
            }
            Event::WorkerExited {
                worker,
                incarnation,
                status,
            } => {
                self.exited(worker, incarnation, status, now);
                self.end_if_idle();
                self.shutdown.advance(self.remaining(), now)
            }
            Event::RestartDue { worker } => {
                if let Some(supervised) = self.workers.get_mut(worker) {
                    supervised.restart_at = None;
                    if supervised.machine.handle(Input::RestartDue, now) == Action::Spawn {
                        self.start(worker);
                        self.end_if_idle();
                    }
                }
                Vec::new()
            }
            Event::ClientConnected { client } => {
                let allowed = match client.peer {
                    Peer::Local(credentials) => credentials.check(&self.allowed_uids),
                    // Its token tells, or nothing where the endpoint is open to this host.
                    Peer::Remote(_) => Ok(()),
                };
                match allowed {
                    Ok(()) => self.links.client_connected(client),
                    Err(error) => {
                        tracing::warn!(peer = %client.peer, "client refused: {error}");
                        self.links.client_refused(client, &error);
                    }
                }
                Vec::new()
            }
            Event::AcceptFailed { error } => {
                tracing::error!(%error, "cannot accept a connection; raise the limit of open files (ulimit -n) if it is reached");
                self.accept_after = Some(now + ACCEPT_PAUSE);
                Vec::new()
            }
            Event::ClientsAttached { count } => {
                self.clients = count;
                self.shutdown.advance(self.remaining(), now)
            }
            Event::ShutdownRequested { reason } => {
                tracing::info!(%reason, "bridge is asked to stop");
                self.shutdown.request(&reason, self.remaining(), now)
            }
            Event::DeadlineOver => self.shutdown.advance(self.remaining(), now),
        };
        self.perform(steps, now)
    }

    fn perform(&mut self, steps: Vec<Step>, now: Instant) -> bool {
        for step in steps {
            match step {
                Step::StopAccepting => {
                    self.endpoints.clear();
                    for worker in 0..self.workers.len() {
                        self.workers[worker].restart_at = None;
                        let action = self.workers[worker].machine.handle(Input::Shutdown, now);
                        self.conclude(worker, action);
                    }
                }
                Step::AskToEnd { deadline } => {
                    let reason = self.shutdown.summary().reason.clone();
                    self.links.ask_to_end(deadline, &reason);
                }
                Step::Terminate => self.signal_all(Signal::SIGTERM),
                Step::Kill => self.signal_all(Signal::SIGKILL),
                Step::Finish => return true,
            }
        }
        false
    }

    fn signal_all(&self, signal: Signal) {
        for supervised in self.workers.iter().filter(|w| w.machine.has_process()) {
            tracing::warn!(worker = %supervised.config.name, %signal, "ending a worker that has not ended by itself");
            signal_group(supervised, signal);
        }
    }

    fn guard_descendants(&mut self) {
        if self.guard.is_some() || !self.options.guard_descendants {
            return;
        }
        match Guard::start() {
            Ok(guard) => self.guard = Some(guard),
            Err(error) => {
                tracing::warn!(%error, "no guard: if the bridge is killed, what workers have started goes on");
            }
        }
    }

    /// Starts the process of a worker whose state machine says so.
    fn start(&mut self, index: usize) {
        self.guard_descendants();
        let supervised = &mut self.workers[index];
        let now = Instant::now();
        match spawn_worker(&supervised.config) {
            Ok(SpawnedWorker {
                pid,
                socket,
                group,
                process,
            }) => {
                supervised.machine.handle(Input::Spawned, now);
                supervised.group = Some(group);
                let incarnation = supervised.machine.incarnation();
                tracing::info!(worker = %supervised.config.name, pid, incarnation, "worker started");
                let config = &supervised.config;
                self.links.worker_started(StartedWorker {
                    worker: index,
                    config,
                    pid,
                    socket,
                    incarnation,
                });
                let handle = self.handle.clone();
                tokio::spawn(async move {
                    let status = process.wait().await;
                    handle.send(Event::WorkerExited {
                        worker: index,
                        incarnation,
                        status,
                    });
                });
            }
            Err(error) => {
                tracing::error!(worker = %supervised.config.name, "{error}");
                let action = supervised.machine.handle(Input::SpawnFailed, now);
                self.conclude(index, action);
            }
        }
    }

    fn exited(
        &mut self,
        index: usize,
        incarnation: u64,
        status: io::Result<ExitStatus>,
        now: Instant,
    ) {
        let supervised = &mut self.workers[index];
        supervised.group = None;
        let status = status.inspect_err(|error| tracing::error!(worker = %supervised.config.name, %error, "cannot tell how the worker ended")).ok();
        let success = status.is_some_and(|status| status.success());
        let action = supervised.machine.handle(Input::Exited { success }, now);
        let restart_after = match action {
            Action::RestartAfter(delay) => Some(delay),
            _ => None,
        };
        let name = supervised.config.name.as_str();
        let said = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        let restart_after_ms =
            restart_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let attached = supervised.machine.attached();
        if success || self.shutdown.has_begun() {
            tracing::info!(
                worker = %name,
                incarnation,
                status = %said,
                attached,
                restart_after_ms,
                "worker exited"
            );
        } else {
            tracing::warn!(
                worker = %name,
                incarnation,
                status = %said,
                attached,
                restart_after_ms,
                "worker failed"
            );
        }
        let config = &supervised.config;
        self.links.worker_exited(ExitedWorker {
            worker: index,
            config,
            incarnation,
            status,
            attached,
            restart_after,
        });
        self.conclude(index, action);
    }

    /// Carries out what the state machine of a worker said after an end.
    fn conclude(&mut self, index: usize, action: Action) {
        let supervised = &mut self.workers[index];
        match action {
            Action::RestartAfter(delay) => supervised.restart_at = Some(Instant::now() + delay),
            Action::Finish(outcome) => {
                if matches!(
                    outcome,
                    Outcome::CrashLoop { .. } | Outcome::Completed { success: false }
                ) {
                    tracing::error!(worker = %supervised.config.name, "worker is given up: {outcome}");
                    self.failed.insert(index, supervised.config.name.clone());
                } else {
                    tracing::info!(worker = %supervised.config.name, "worker is done: {outcome}");
                }
                self.links.worker_ended(index, &supervised.config, outcome);
            }
            Action::None | Action::Spawn => {}
        }
    }

    fn end_if_idle(&self) {
        let all_ended = self
            .workers
            .iter()
            .all(|w| matches!(w.machine.state(), State::Ended(_)));
        if all_ended
            && self.options.end_with_workers
            && self.endpoints.is_empty()
            && !self.shutdown.has_begun()
        {
            self.handle
                .shut_down("every worker has ended and nobody can connect");
        }
    }

    fn remaining(&self) -> Remaining {
        let workers = self
            .workers
            .iter()
            .filter(|w| w.machine.has_process())
            .count();
        Remaining {
            workers,
            clients: self.clients,
        }
    }

    /// Whether a report concerns the process that runs now; reports about a predecessor may come late.
    fn is_current(&self, worker: usize, incarnation: u64) -> bool {
        self.workers
            .get(worker)
            .is_some_and(|w| w.machine.has_process() && w.machine.incarnation() == incarnation)
    }
}

fn signal_group(supervised: &Supervised, signal: Signal) {
    if let Some(group) = &supervised.group {
        group.signal(signal);
    }
}
