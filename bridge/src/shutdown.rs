//! The order in which the bridge stops, as a plain value: stop accepting and ask everybody to end, wait, SIGTERM, wait,
//! SIGKILL. No clock, no signals, no I/O.
//!
//! A second request hurries: it goes straight to the next phase. One that comes with the first is the same.

use std::fmt;
use std::time::{Duration, Instant};

/// Time between SIGTERM and SIGKILL.
pub const TERMINATE_GRACE: Duration = Duration::from_millis(500);

/// Time for the kernel to end processes after SIGKILL. One that hangs in a device driver may take forever.
pub const KILL_GRACE: Duration = Duration::from_secs(2);

/// Two requests within this time are one: some programs send a signal to a process and to its group.
pub const SAME_REQUEST: Duration = Duration::from_millis(200);

/// What the event loop has to do now, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Take no further connections and remove the listening socket; start no worker again.
    StopAccepting,
    /// Send a Shutdown frame with this deadline to every peer.
    AskToEnd {
        /// Time until SIGTERM.
        deadline: Duration,
    },
    /// Send SIGTERM to the process groups of all workers that are left.
    Terminate,
    /// Send SIGKILL to them.
    Kill,
    /// Everything has ended, or what has not is given up on: leave the loop.
    Finish,
}

/// Peers that have not ended yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remaining {
    /// Worker processes.
    pub workers: usize,
    /// Links to other peers; they are waited for but never ended by force, only cut off.
    pub clients: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Terminating,
    Killing,
    Finished,
}

/// The state of a shutdown.
#[derive(Debug, Clone)]
pub struct Shutdown {
    drain: Duration,
    phase: Phase,
    began: Option<Instant>,
    deadline: Option<Instant>,
    /// Remaining peers when the current phase began.
    at_begin_of_phase: Remaining,
    summary: Summary,
}

impl Shutdown {
    /// No shutdown yet; `drain` is the time that peers get to end by themselves.
    pub fn new(drain: Duration) -> Self {
        Self {
            drain,
            phase: Phase::Running,
            began: None,
            deadline: None,
            at_begin_of_phase: Remaining::default(),
            summary: Summary::default(),
        }
    }

    /// Another time for peers to end by themselves; of no effect once the shutdown has begun.
    pub fn set_drain(&mut self, drain: Duration) {
        self.drain = drain;
    }

    /// Whether the bridge is stopping or has stopped.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Running
    }

    /// When [`Self::advance`] has to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Somebody wants the bridge to stop, or to stop faster.
    pub fn request(&mut self, reason: &str, remaining: Remaining, now: Instant) -> Vec<Step> {
        if self.phase != Phase::Running {
            let is_same = self.began.is_some_and(|began| now < began + SAME_REQUEST);
            if is_same && self.phase == Phase::Draining {
                return Vec::new();
            }
            return self.next_phase(remaining, now);
        }
        self.began = Some(now);
        self.summary.reason = reason.to_owned();
        self.summary.workers = remaining.workers;
        self.enter(Phase::Draining, Some(self.drain), remaining, now);
        let mut steps = vec![
            Step::StopAccepting,
            Step::AskToEnd {
                deadline: self.drain,
            },
        ];
        steps.extend(self.advance(remaining, now));
        steps
    }

    /// Called whenever a peer has ended and when the deadline is over.
    pub fn advance(&mut self, remaining: Remaining, now: Instant) -> Vec<Step> {
        let all_ended = match self.phase {
            Phase::Running | Phase::Finished => return Vec::new(),
            Phase::Draining => remaining == Remaining::default(),
            Phase::Terminating | Phase::Killing => remaining.workers == 0,
        };
        if all_ended {
            return self.finish(remaining, now);
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return self.next_phase(remaining, now);
        }
        Vec::new()
    }

    /// What happened, once [`Step::Finish`] was returned.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn next_phase(&mut self, remaining: Remaining, now: Instant) -> Vec<Step> {
        let (phase, grace, step) = match self.phase {
            Phase::Draining if remaining.workers > 0 => {
                (Phase::Terminating, TERMINATE_GRACE, Step::Terminate)
            }
            Phase::Terminating => (Phase::Killing, KILL_GRACE, Step::Kill),
            Phase::Draining | Phase::Killing => return self.finish(remaining, now),
            Phase::Running | Phase::Finished => return Vec::new(),
        };
        self.enter(phase, Some(grace), remaining, now);
        vec![step]
    }

    fn finish(&mut self, remaining: Remaining, now: Instant) -> Vec<Step> {
        self.enter(Phase::Finished, None, remaining, now);
        self.summary.workers_left = remaining.workers;
        self.summary.clients_cut = remaining.clients;
        self.summary.duration = self
            .began
            .map_or(Duration::ZERO, |began| now.duration_since(began));
        vec![Step::Finish]
    }

    /// Books the workers that ended during the phase that is left, and begins the next one.
    fn enter(&mut self, phase: Phase, grace: Option<Duration>, remaining: Remaining, now: Instant) {
        let ended = self
            .at_begin_of_phase
            .workers
            .saturating_sub(remaining.workers);
        match self.phase {
            Phase::Draining => self.summary.drained += ended,
            Phase::Terminating => self.summary.terminated += ended,
            Phase::Killing => self.summary.killed += ended,
            Phase::Running | Phase::Finished => {}
        }
        self.phase = phase;
        self.at_begin_of_phase = remaining;
        self.deadline = grace.map(|grace| now + grace);
    }
}

/// How the bridge stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Why it stopped.
    pub reason: String,
    /// Worker processes when it began to stop.
    pub workers: usize,
    /// Of these: ended by themselves within the deadline.
    pub drained: usize,
    /// Ended after SIGTERM.
    pub terminated: usize,
    /// Ended after SIGKILL.
    pub killed: usize,
    /// Still there after SIGKILL.
    pub workers_left: usize,
    /// Clients that were still connected at the end.
    pub clients_cut: usize,
    /// Frames for workers that ended for good without having acknowledged them, since the bridge began; `None` if the data
    /// plane did not say.
    pub undelivered: Option<u64>,
    /// Whether the data plane panicked, or stood still when it was to end.
    pub data_plane_failed: bool,
    /// From the request to the end.
    pub duration: Duration,
    /// Workers that had failed for good before: a crash loop, or a failure with a policy of no restart.
    pub failed: Vec<String>,
}

impl Summary {
    /// 0 when every peer and the data plane ended by themselves and no worker had failed for good, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        let forced = self.terminated + self.killed + self.workers_left + self.clients_cut;
        u8::from(forced > 0 || self.data_plane_failed || !self.failed.is_empty())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bridge stopped: reason={}, workers={}, drained={}, terminated={}, killed={}, left={}, clients_cut={}, undelivered={}, duration_ms={}",
            self.reason,
            self.workers,
            self.drained,
            self.terminated,
            self.killed,
            self.workers_left,
            self.clients_cut,
            self.undelivered
                .map_or_else(|| "unknown".to_owned(), |frames| frames.to_string()),
            self.duration.as_millis()
        )?;
        if self.data_plane_failed {
            write!(f, ", data_plane=failed")?;
        }
        if !self.failed.is_empty() {
            write!(f, ", failed={}", self.failed.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
