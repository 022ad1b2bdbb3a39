//! What is known of each worker, for whoever looks at the bridge from another thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::listen::Endpoint;
use crate::worker::{Outcome, State};

/// What is known of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: WorkerPhase,
    /// Its process; `None` while there is none.
    pub pid: Option<u32>,
    /// Its processes so far.
    pub starts: u64,
    /// How often it was killed because it hung.
    pub stalls: u64,
    /// Since when it is up; `None` while it is not.
    pub up_since: Option<SystemTime>,
    /// How its last process ended, or why none could be started.
    pub last_end: Option<String>,
    /// The last line that its last process printed to its standard error, at most 200 characters of it; `None` if that ended
    /// well.
    pub last_words: Option<String>,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerPhase {
    /// Workers that it starts after are not up yet.
    Waiting,
    /// Its process runs and is not ready yet.
    Starting,
    /// It is ready.
    Up,
    /// It waits for its next start.
    Backoff,
    /// It has been asked to end.
    Stopping,
    /// It has ended, and that was right.
    Stopped,
    /// It has ended for good, and that was wrong.
    GaveUp,
}

impl WorkerPhase {
    pub(super) fn of(state: State, ready: bool) -> Self {
        match state {
            State::Starting => Self::Waiting,
            State::Running if ready => Self::Up,
            State::Running => Self::Starting,
            State::Backoff => Self::Backoff,
            State::Stopping => Self::Stopping,
            State::Ended(outcome) if outcome.is_failure() => Self::GaveUp,
            State::Ended(Outcome::Completed { .. } | Outcome::Stopped) => Self::Stopped,
            State::Ended(Outcome::CrashLoop { .. } | Outcome::NeverStarted) => Self::GaveUp,
        }
    }
}

impl fmt::Display for WorkerPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Backoff => "backoff",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::GaveUp => "gave up",
        })
    }
}

/// Reloads of the configuration so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReloadCounters {
    /// Applied, as far as it could be without a restart.
    pub applied: u64,
    /// Refused because the configuration had errors.
    pub refused: u64,
}

/// Written by the control loop, read by anybody.
#[derive(Debug, Default)]
pub(super) struct Board {
    workers: Mutex<BTreeMap<usize, WorkerStatus>>,
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
    pub(super) reloads_applied: AtomicU64,
    pub(super) reloads_refused: AtomicU64,
    events: AtomicU64,
    longest_event_us: AtomicU64,
}

impl Board {
    pub(super) fn put(&self, worker: usize, status: WorkerStatus) {
        self.lock().insert(worker, status);
    }

    pub(super) fn remove(&self, worker: usize) {
        self.lock().remove(&worker);
    }

    /// All workers in the order of their numbers.
    pub(super) fn workers(&self) -> Vec<WorkerStatus> {
        self.lock().values().cloned().collect()
    }

    /// Where clients can connect from now on.
    pub(super) fn put_endpoints(&self, endpoints: Vec<Arc<Endpoint>>) {
        *self.lock_endpoints() = endpoints;
    }

    pub(super) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.lock_endpoints().clone()
    }

    fn lock_endpoints(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Endpoint>>> {
        // Every change puts a whole list in the place of another.
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop has handled an event.
    pub(super) fn handled(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.events.fetch_add(1, Ordering::Relaxed);
        self.longest_event_us.fetch_max(micros, Ordering::Relaxed);
    }

    /// How many events the loop has handled, and the longest time that one took.
    pub(super) fn events_handled(&self) -> (u64, Duration) {
        let longest = self.longest_event_us.load(Ordering::Relaxed);
        let events = self.events.load(Ordering::Relaxed);
        (events, Duration::from_micros(longest))
    }

    pub(super) fn reloads(&self) -> ReloadCounters {
        ReloadCounters {
            applied: self.reloads_applied.load(Ordering::Relaxed),
            refused: self.reloads_refused.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, WorkerStatus>> {
        // Every change is one insertion or removal, which leaves the table whole.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
