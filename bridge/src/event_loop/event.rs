//! Everything that can happen to the control plane, and the handle that reports it from elsewhere.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::status::{Board, ReloadCounters, WorkerStatus};
use crate::config::{Config, ConfigError};
use crate::listen::{Client, Endpoint};

/// Everything that the control plane reacts to.
#[derive(Debug)]
pub enum Event {
    /// A worker's link has finished its handshake.
    WorkerAttached {
        /// Index of the worker.
        worker: usize,
        /// Which of its processes.
        incarnation: u64,
    },
    /// A topic that a worker has asked for stands.
    WorkerSubscribed {
        /// Index of the worker.
        worker: usize,
        /// Which of its processes.
        incarnation: u64,
    },
    /// A worker's process has not finished the handshake of its link, and will not any more.
    WorkerNotAttached {
        /// Index of the worker.
        worker: usize,
        /// Which of its processes.
        incarnation: u64,
        /// Why.
        reason: String,
        /// Whether it has closed its connection, as a process does that ends.
        has_left: bool,
    },
    /// A worker's process has closed its connection and has not ended in the time that a process takes for that.
    LeaveOver {
        /// Index of the worker.
        worker: usize,
    },
    /// A worker's link is beyond repair: the worker is killed and restarted by its policy.
    WorkerCondemned {
        /// Index of the worker.
        worker: usize,
        /// Which of its processes.
        incarnation: u64,
        /// Why.
        reason: String,
    },
    /// A worker's process has ended and been reaped.
    WorkerExited {
        /// Index of the worker.
        worker: usize,
        /// How it ended.
        status: io::Result<ExitStatus>,
    },
    /// The back-off of a worker is over.
    RestartDue {
        /// Index of the worker.
        worker: usize,
    },
    /// It is time to look whether a worker hangs.
    LookDue {
        /// Index of the worker.
        worker: usize,
    },
    /// A worker that is to end for a new configuration has taken all its time for the current step.
    RetirementDue {
        /// Index of the worker.
        worker: usize,
    },
    /// Somebody connected to an endpoint.
    ClientConnected {
        /// The connection, and who it is.
        client: Client,
    },
    /// Accepting a connection failed.
    AcceptFailed {
        /// What the system said.
        error: io::Error,
    },
    /// The number of links to other peers than workers has changed.
    ClientsAttached {
        /// How many there are now.
        count: usize,
    },
    /// It is time to look whether the data plane runs.
    HealthDue,
    /// Which workers wait for room at which links; `None` is a link of somebody else.
    WorkersWait {
        /// Those whose oldest frame finds no room, by index.
        waits: Vec<(usize, Vec<Option<usize>>)>,
    },
    /// The data plane has answered, so it runs.
    DataPlaneRound,
    /// The configuration is to be read again.
    ReloadRequested,
    /// The configuration has been read again.
    ConfigurationRead {
        /// What it says, or what is wrong with it.
        result: Box<Result<Config, ConfigError>>,
    },
    /// Somebody wants the bridge to stop, or, the second time, to stop faster.
    ShutdownRequested {
        /// Why.
        reason: String,
    },
    /// The current phase of the shutdown has taken all its time.
    DeadlineOver,
}

/// Reports to the control plane, from any thread. Never blocks. After the end of the control plane reports go nowhere.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) board: Arc<Board>,
}

impl ControlHandle {
    /// The link of this worker process has finished its handshake.
    pub fn worker_attached(&self, worker: usize, incarnation: u64) {
        self.send(Event::WorkerAttached {
            worker,
            incarnation,
        });
    }

    /// A topic that this worker process has asked for stands.
    pub fn worker_subscribed(&self, worker: usize, incarnation: u64) {
        self.send(Event::WorkerSubscribed {
            worker,
            incarnation,
        });
    }

    /// What is known of the workers, in the order of the configuration; those that a reload has brought come last.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.board.workers()
    }

    /// Where clients can connect at the moment.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.board.endpoints()
    }

    /// Reloads of the configuration so far.
    #[must_use]
    pub fn reloads(&self) -> ReloadCounters {
        self.board.reloads()
    }

    /// Events that the control loop has handled, and the longest time that one took.
    pub(crate) fn events_handled(&self) -> (u64, Duration) {
        self.board.events_handled()
    }

    /// The link of this worker process is beyond repair (protocol or ring violated): kill it.
    pub fn condemn_worker(&self, worker: usize, incarnation: u64, reason: impl Into<String>) {
        self.send(Event::WorkerCondemned {
            worker,
            incarnation,
            reason: reason.into(),
        });
    }

    /// This worker process will not finish the handshake of its link. One that has closed its connection (`has_left`) is given
    /// the time to end by itself, any other is killed.
    pub fn worker_not_attached(
        &self,
        worker: usize,
        incarnation: u64,
        reason: impl Into<String>,
        has_left: bool,
    ) {
        self.send(Event::WorkerNotAttached {
            worker,
            incarnation,
            reason: reason.into(),
            has_left,
        });
    }

    /// The number of links to other peers than workers; a shutdown waits for them within its deadline.
    pub fn clients_attached(&self, count: usize) {
        self.send(Event::ClientsAttached { count });
    }

    /// Which workers wait for room at which links, since [`Links::ask_for_waits`](super::Links::ask_for_waits).
    pub fn workers_wait(&self, waits: Vec<(usize, Vec<Option<usize>>)>) {
        self.send(Event::WorkersWait { waits });
    }

    /// The data plane has gone through a round since [`Links::ask_for_round`](super::Links::ask_for_round).
    pub fn data_plane_round(&self) {
        self.send(Event::DataPlaneRound);
    }

    /// Has the configuration read again; what it changes is carried out, as far as a running bridge can.
    pub fn reload(&self) {
        self.send(Event::ReloadRequested);
    }

    /// Stops the bridge; called again, hurries.
    pub fn shut_down(&self, reason: impl Into<String>) {
        self.send(Event::ShutdownRequested {
            reason: reason.into(),
        });
    }

    pub(super) fn send(&self, event: Event) {
        // The loop has ended: there is nobody left to whom the event means anything.
        let _ = self.events.send(event);
    }
}
