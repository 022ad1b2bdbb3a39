//! One worker's life as a plain value: what happened goes in, what to do comes out. No processes, no clock, no I/O.
//!
//! ```text
//!            Spawned            Attached
//!  Starting ────────▶ Running ───────────▶ Running (attached)
//!     ▲                  │ Exited                │ Exited
//!     │ RestartDue       ▼                       ▼
//!     └───────────── Backoff ◀── restart? ── (policy, crash count) ──▶ Finished | GaveUp
//! ```
//! [`Input::Ready`] makes a running worker count as up, until its process ends.
//! [`Input::Shutdown`] leads to `Stopping` (while a process runs) and then to `Stopped`, from every state.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::config::{RestartConfig, RestartPolicy};

pub mod stall;

/// What happened to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The process was started.
    Spawned,
    /// The process could not be started; counts as a crash.
    SpawnFailed,
    /// The worker has finished the handshake of its link.
    Attached,
    /// The worker counts as up.
    Ready,
    /// A worker that has to be up before this one starts has failed for good.
    DependencyFailed,
    /// The process has ended.
    Exited {
        /// Whether the exit status was 0.
        success: bool,
    },
    /// The delay of [`Action::RestartAfter`] is over.
    RestartDue,
    /// The bridge is stopping, or a new configuration is without this process: no restart from here on.
    Shutdown,
}

/// What the supervisor has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start the process, then report [`Input::Spawned`] or [`Input::SpawnFailed`].
    Spawn,
    /// Report [`Input::RestartDue`] after this time.
    RestartAfter(Duration),
    /// The worker has ended and stays so.
    Finish(Outcome),
}

/// How a worker ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ended and its policy asks for no restart.
    Completed {
        /// Whether the last exit status was 0.
        success: bool,
    },
    /// It crashed too often in too short a time.
    CrashLoop {
        /// Crashes within the window.
        crashes: u32,
        /// Length of the window.
        window: Duration,
    },
    /// A worker that has to be up before it has failed for good.
    NeverStarted,
    /// It was asked to end: the bridge is stopping, or a new configuration is without it.
    Stopped,
}

impl Outcome {
    /// Whether the bridge has to tell of it with its exit code.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Completed { success: true } | Self::Stopped)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed { success: true } => {
                f.write_str("ended by itself, and its restart policy asks for no restart")
            }
            Self::Completed { success: false } => {
                f.write_str("failed, and its restart policy asks for no restart")
            }
            Self::CrashLoop { crashes, window } => write!(
                f,
                "crash loop: crashes={crashes}, restart_window_ms={}; fix the worker, or raise restart_limit",
                window.as_millis()
            ),
            Self::NeverStarted => f.write_str(
                "a worker named in its after has failed for good, so it was never started",
            ),
            Self::Stopped => f.write_str("stopped as asked"),
        }
    }
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A process is to be started, at once or when others are up.
    Starting,
    /// The process runs.
    Running,
    /// Waiting for the next start.
    Backoff,
    /// It was asked to end and the process still runs.
    Stopping,
    /// Ended for good.
    Ended(Outcome),
}

/// The state machine of one worker.
#[derive(Debug, Clone)]
pub struct Worker {
    restart: RestartConfig,
    state: State,
    /// When the current or last process finished the handshake of its link, if it did.
    attached_at: Option<Instant>,
    /// Whether the current process counts as up.
    ready: bool,
    /// Whether any process has counted as up.
    was_ready: bool,
    /// Starts so far; the number of the current process, counted from 1.
    incarnation: u64,
    /// Crashes since the last run that stayed up; the exponent of the back-off is one less.
    crashes_in_a_row: u32,
    /// Times of the crashes inside the window, oldest first; never longer than `restart.limit`.
    crashes: VecDeque<Instant>,
    jitter: Jitter,
}

impl Worker {
    /// A worker that is to be started at once: the caller performs an [`Action::Spawn`].
    ///
    /// Equal seeds give equal delays; different workers should have different seeds, so that workers that crash
    /// together do not start together.
    pub fn new(restart: RestartConfig, seed: u64) -> Self {
        Self {
            restart,
            state: State::Starting,
            attached_at: None,
            ready: false,
            was_ready: false,
            incarnation: 0,
            crashes_in_a_row: 0,
            crashes: VecDeque::new(),
            jitter: Jitter(seed),
        }
    }

    /// A worker with a new configuration, whose processes are counted on from those of its predecessor.
    pub fn resume(restart: RestartConfig, seed: u64, incarnation: u64) -> Self {
        Self {
            incarnation,
            ..Self::new(restart, seed)
        }
    }

    /// Other rules for what happens at the next end.
    pub fn set_restart(&mut self, restart: RestartConfig) {
        self.restart = restart;
    }

    /// Where the worker is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The number of the current or last process, counted from 1; 0 before the first start.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether the current or last process has finished the handshake of its link.
    pub fn attached(&self) -> bool {
        self.attached_at.is_some()
    }

    /// Whether the current process counts as up.
    pub fn is_ready(&self) -> bool {
        self.ready && self.state == State::Running
    }

    /// Whether workers that start after this one may start: it has been up, or has done what it had to.
    pub fn has_been_ready(&self) -> bool {
        let done = Outcome::Completed { success: true };
        self.was_ready || self.state == State::Ended(done)
    }

    /// Whether a process exists that has to be waited for.
    pub fn has_process(&self) -> bool {
        matches!(self.state, State::Running | State::Stopping)
    }

    /// Takes in what happened at `now`. Inputs that do not fit the state (a late timer, a second shutdown) change nothing.
    pub fn handle(&mut self, input: Input, now: Instant) -> Action {
        match (self.state, input) {
            (State::Starting, Input::Spawned) => {
                self.incarnation += 1;
                self.state = State::Running;
                self.attached_at = None;
                self.ready = false;
                Action::None
            }
            (State::Starting, Input::SpawnFailed) => self.after_end(false, now),
            (State::Running, Input::Attached) => {
                self.attached_at.get_or_insert(now);
                Action::None
            }
            (State::Running, Input::Ready) => {
                self.ready = true;
                self.was_ready = true;
                Action::None
            }
            (State::Starting, Input::DependencyFailed) => self.end(Outcome::NeverStarted),
            (State::Running, Input::Exited { success }) => {
                let stayed_up = self
                    .attached_at
                    .is_some_and(|since| now.duration_since(since) > self.restart.backoff_max);
                if stayed_up || success {
                    self.crashes_in_a_row = 0;
                }
                self.after_end(success, now)
            }
            (State::Backoff, Input::RestartDue) => {
                self.state = State::Starting;
                Action::Spawn
            }
            (State::Running, Input::Shutdown) => {
                self.state = State::Stopping;
                Action::None
            }
            (State::Starting | State::Backoff, Input::Shutdown)
            | (State::Stopping, Input::Exited { .. }) => self.end(Outcome::Stopped),
            _ => Action::None,
        }
    }

    fn after_end(&mut self, success: bool, now: Instant) -> Action {
        let wanted = match self.restart.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !success,
            RestartPolicy::Never => false,
        };
        if !wanted {
            return self.end(Outcome::Completed { success });
        }
        if success {
            self.state = State::Backoff;
            return Action::RestartAfter(self.jitter.shorten(self.restart.backoff));
        }
        let window = self.restart.window;
        self.crashes.push_back(now);
        while self
            .crashes
            .front()
            .is_some_and(|first| now.duration_since(*first) > window)
        {
            self.crashes.pop_front();
        }
        let crashes = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        if crashes >= self.restart.limit {
            return self.end(Outcome::CrashLoop { crashes, window });
        }
        self.state = State::Backoff;
        let doubled = self
            .restart
            .backoff
            .saturating_mul(2_u32.saturating_pow(self.crashes_in_a_row));
        self.crashes_in_a_row += 1;
        Action::RestartAfter(self.jitter.shorten(doubled.min(self.restart.backoff_max)))
    }

    fn end(&mut self, outcome: Outcome) -> Action {
        self.state = State::Ended(outcome);
        Action::Finish(outcome)
    }
}

/// SplitMix64: spreads restarts; nothing secret depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jitter(pub(crate) u64);

impl Jitter {
    /// Between a half of `delay` and all of it.
    pub(crate) fn shorten(&mut self, delay: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        let half = delay / 2;
        // 16 random bits are plenty for a delay, and the product stays far from overflow.
        delay - half.mul_f64((bits >> 48) as f64 / 65_536.0)
    }
}

#[cfg(test)]
mod tests;
