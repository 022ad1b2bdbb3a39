//! The control plane: one loop on one thread that starts workers, accepts clients, reacts to signals and stops the bridge.
//!
//! Everything that can happen is a variant of [`Event`]; [`ControlPlane::run`] handles one after the other and never
//! waits for anything inside a handler. What concerns links is handed to a [`Links`], which reports back through a
//! [`ControlHandle`]. Frames never pass through here.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shm_transport::socket::Address;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::listen::{ListenError, Listening, Peer};
use crate::notify::Notifier;
use crate::shutdown::{Shutdown, Step, Summary, TERMINATE_GRACE};
use crate::status::Windows;
use crate::supervisor::guard::Guard;
use crate::worker::{Action, Input};

mod event;
mod health;
mod links;
mod reload;
mod retire;
mod sources;
mod status;
mod thread;
mod unattached;
mod workers;

pub use event::{ControlHandle, Event};
pub use links::{ExitedWorker, Links, StartedWorker};
pub use status::{ReloadCounters, WorkerPhase, WorkerStatus};
pub use thread::ControlThread;

use reload::Reading;
use status::Board;
use workers::Supervised;

use sources::{Signals, accept, next_signal, sleep_until};

/// Pause after a failed accept: usually the process is out of file descriptors, and trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What differs between the program and a host that embeds the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlOptions {
    /// Stop on SIGINT and SIGTERM, reload on SIGHUP. A host that embeds the bridge handles its own signals.
    pub handle_signals: bool,
    /// Stop when every worker has ended for good and there is no endpoint: nothing can happen any more. A host
    /// with in-process actors goes on.
    pub end_with_workers: bool,
    /// Start a second process that ends the descendants of workers if this one is killed. Only for the program
    /// `mycelium-bridge`, whose own file it runs; in a host that embeds the bridge the kernel ends the workers alone.
    pub guard_descendants: bool,
    /// Open a control socket even if the configuration names none.
    pub control_socket: bool,
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

/// The state of the control loop.
pub struct ControlPlane<L> {
    workers: Vec<Supervised>,
    config: Config,
    reading: Reading,
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
    notifier: Notifier,
    /// When the next sign of life is due.
    health_at: Option<Instant>,
    /// A round of the data plane has been asked for, and its answer has not come.
    health_asked: bool,
    /// The service manager knows that the bridge is ready.
    is_ready: bool,
    windows: Windows,
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
        // What the manager of a host's process is told is the host's business.
        let notifier = match options.handle_signals {
            true => Notifier::from_environment(),
            false => Notifier::default(),
        };
        let endpoints = config.listen.iter().map(Listening::bind);
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let windows = Windows::open(config, options.control_socket)?;
        let workers = config
            .workers
            .iter()
            .cloned()
            .map(Supervised::new)
            .collect();
        let (sender, events) = mpsc::unbounded_channel();
        let plane = Self {
            workers,
            shutdown: Shutdown::new(config.bridge.shutdown_timeout),
            links,
            clients: 0,
            failed: BTreeMap::new(),
            endpoints,
            first_endpoint: 0,
            accept_after: None,
            options,
            signals,
            events,
            handle: ControlHandle {
                events: sender,
                board: Arc::new(Board::default()),
            },
            config: config.clone(),
            reading: Reading::default(),
            guard: None,
            notifier,
            health_at: None,
            health_asked: false,
            is_ready: false,
            windows,
        };
        plane.publish_status();
        Ok(plane)
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
        if let Some(registry) = self.links.registry() {
            let handle = self.handle();
            self.windows.serve(&self.config, handle, registry);
        }
        self.start_due();
        self.check_health();
        self.end_if_idle();
        loop {
            self.publish_status();
            self.tell_status();
            let event = self.next_event().await;
            let begun = Instant::now();
            let is_over = self.handle_event(event);
            self.handle.board.handled(begun.elapsed());
            if is_over {
                break;
            }
        }
        self.publish_status();
        let mut summary = self.shutdown.summary().clone();
        summary.failed = self.failed.into_values().collect();
        // A data plane that stands still does not keep the bridge from ending.
        let undelivered = tokio::time::timeout(TERMINATE_GRACE, self.links.undelivered());
        summary.undelivered = undelivered.await.ok();
        summary
    }

    async fn next_event(&mut self) -> Event {
        let first = |at: fn(&Supervised) -> Option<Instant>| {
            let workers = self.workers.iter().enumerate();
            workers
                .filter_map(|(worker, w)| Some((at(w)?, worker)))
                .min()
        };
        let restart = first(|worker| worker.restart_at);
        let retirement = first(|worker| worker.retirement.as_ref()?.deadline());
        let look = first(|worker| worker.look_at);
        let leave = first(Supervised::leaves_by);
        let stopping = self.shutdown.deadline();
        tokio::select! {
            // In this order, so that a flood of connections delays neither an exit nor a signal.
            biased;
            event = next_signal(&mut self.signals) => event,
            () = sleep_until(stopping) => Event::DeadlineOver,
            Some(event) = self.events.recv() => event,
            () = sleep_until(restart.map(|(at, _)| at)) => Event::RestartDue { worker: restart.map_or(0, |(_, w)| w) },
            () = sleep_until(retirement.map(|(at, _)| at)) => Event::RetirementDue { worker: retirement.map_or(0, |(_, w)| w) },
            () = sleep_until(leave.map(|(at, _)| at)) => Event::LeaveOver { worker: leave.map_or(0, |(_, w)| w) },
            () = sleep_until(self.health_at) => Event::HealthDue,
            () = sleep_until(look.map(|(at, _)| at)) => Event::LookDue { worker: look.map_or(0, |(_, w)| w) },
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
                self.attached(worker, incarnation, now);
                self.go_on(now)
            }
            Event::WorkerSubscribed {
                worker,
                incarnation,
            } => {
                self.subscribed(worker, incarnation, now);
                Vec::new()
            }
            Event::WorkerCondemned {
                worker,
                incarnation,
                reason,
            } => {
                self.condemned(worker, incarnation, &reason);
                Vec::new()
            }
            Event::WorkerNotAttached {
                worker,
                incarnation,
                reason,
                has_left,
            } => {
                self.not_attached(worker, incarnation, reason, has_left, now);
                self.go_on(now)
            }
            Event::LeaveOver { worker } => {
                self.leave_over(worker, now);
                self.go_on(now)
            }
            Event::LookDue { worker } => {
                self.look_at(worker, now);
                Vec::new()
            }
            Event::WorkersWait { waits } => {
                self.workers_wait(waits);
                Vec::new()
            }
            Event::RetirementDue { worker } => {
                self.retirement_due(worker, now);
                Vec::new()
            }
            Event::WorkerExited { worker, status } => {
                self.exited(worker, status, now);
                self.go_on(now)
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
                    Peer::Local(credentials) => credentials.check(&self.config.bridge.allowed_uids),
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
            Event::HealthDue => {
                self.check_health();
                Vec::new()
            }
            Event::DataPlaneRound => {
                self.is_healthy(now);
                Vec::new()
            }
            Event::ReloadRequested => {
                self.read_configuration();
                Vec::new()
            }
            Event::ConfigurationRead { result } => {
                self.configuration_read(*result, now);
                Vec::new()
            }
            Event::ShutdownRequested { reason } => {
                tracing::info!(%reason, "bridge is asked to stop");
                self.shutdown.request(&reason, self.remaining(), now)
            }
            Event::DeadlineOver => self.shutdown.advance(self.remaining(), now),
        };
        self.perform(steps, now)
    }

    /// What may follow from the end of a worker.
    fn go_on(&mut self, now: Instant) -> Vec<Step> {
        self.end_if_idle();
        self.shutdown.advance(self.remaining(), now)
    }

    fn perform(&mut self, steps: Vec<Step>, now: Instant) -> bool {
        for step in steps {
            match step {
                Step::StopAccepting => {
                    self.notifier.stopping();
                    self.endpoints.clear();
                    for worker in 0..self.workers.len() {
                        let supervised = &mut self.workers[worker];
                        supervised.restart_at = None;
                        supervised.look_at = None;
                        supervised.retirement = None;
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
}
