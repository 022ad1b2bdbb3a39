//! What the control loop does about workers: start them in their order, restart them, end those that hang.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::process::ExitStatus;
use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal;

use super::links::{ExitedWorker, Links, StartedWorker};
use super::reload::Reading;
use super::retire::Retirement;
use super::status::{WorkerPhase, WorkerStatus};
use super::unattached::Leaving;
use super::{ControlPlane, Event};
use crate::config::{Readiness, WorkerConfig};
use crate::listen::Listening;
use crate::output::LastWords;
use crate::shutdown::Remaining;
use crate::supervisor::guard::Guard;
use crate::supervisor::{ProcessGroup, SpawnedWorker, spawn_worker};
use crate::worker::stall::{StallWatch, Verdict, standstill};
use crate::worker::{Action, Input, Outcome, State, Worker};

/// One worker with its state and, while it runs, its process group.
#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) config: WorkerConfig,
    pub(super) machine: Worker,
    pub(super) group: Option<ProcessGroup>,
    pub(super) restart_at: Option<Instant>,
    /// Set while its process is being ended for a new configuration.
    pub(super) retirement: Option<Retirement>,
    /// It is in the configuration no more, and its process has ended.
    pub(super) is_gone: bool,
    pub(super) pid: Option<u32>,
    stall_watch: StallWatch,
    pub(super) look_at: Option<Instant>,
    /// Half of the end of a process that was not attached.
    pub(super) leaving: Option<Leaving>,
    /// The bridge has killed the process, or was about to.
    pub(super) is_condemned: bool,
    stalls: u64,
    up_since: Option<SystemTime>,
    last_end: Option<String>,
    /// Of the current process, or the last one.
    printed: LastWords,
    last_words: Option<String>,
}

impl Supervised {
    pub(super) fn new(config: WorkerConfig) -> Self {
        Self {
            machine: Worker::new(config.restart, seed(&config)),
            config,
            group: None,
            restart_at: None,
            retirement: None,
            is_gone: false,
            pid: None,
            stall_watch: StallWatch::default(),
            look_at: None,
            leaving: None,
            is_condemned: false,
            stalls: 0,
            up_since: None,
            last_end: None,
            printed: LastWords::default(),
            last_words: None,
        }
    }

    /// Begins anew with another configuration; processes are counted on.
    pub(super) fn renew(&mut self, config: WorkerConfig) {
        let incarnation = self.machine.incarnation();
        self.machine = Worker::resume(config.restart, seed(&config), incarnation);
        self.config = config;
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = &self.group {
            group.signal(signal);
        }
    }

    /// Begins to watch the current process, or stops.
    pub(super) fn watch(&mut self, now: Instant) {
        self.stall_watch = StallWatch::default();
        let watched = self.machine.attached() && self.machine.state() == State::Running;
        let timeout = self.config.watch.stall_timeout.filter(|_| watched);
        self.look_at = timeout.map(|timeout| now + StallWatch::interval(timeout));
    }

    /// Kills the process because of what it did, or did not. Should it end by itself meanwhile, that was no success.
    fn condemn(&mut self) {
        self.is_condemned = true;
        self.signal(Signal::SIGKILL);
    }

    pub(super) fn phase(&self) -> WorkerPhase {
        WorkerPhase::of(self.machine.state(), self.machine.is_ready())
    }

    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            name: self.config.name.clone(),
            phase: self.phase(),
            pid: self.pid,
            starts: self.machine.incarnation(),
            stalls: self.stalls,
            up_since: self.up_since,
            last_end: self.last_end.clone(),
            last_words: self.last_words.clone(),
        }
    }
}

/// Workers that crash together are not to start together.
fn seed(config: &WorkerConfig) -> u64 {
    RandomState::new().hash_one(&config.name)
}

impl<L: Links> ControlPlane<L> {
    /// Starts every worker that has not been started and waits for nobody any more. One that waits for a worker that has
    /// failed for good ends, too.
    pub(super) fn start_due(&mut self) {
        loop {
            let mut waiting = (0..self.workers.len()).filter_map(|index| {
                let is_new = self.workers[index].machine.state() == State::Starting;
                let decision = is_new.then(|| self.may_start(index))?;
                Some((index, decision?))
            });
            let Some((index, may_start)) = waiting.next() else {
                break;
            };
            if may_start {
                self.start(index);
            } else {
                let machine = &mut self.workers[index].machine;
                let action = machine.handle(Input::DependencyFailed, Instant::now());
                self.conclude(index, action);
            }
        }
    }

    /// Whether a worker may start; `None` while it has to wait. Names that are in the configuration no more hold nobody up.
    fn may_start(&self, index: usize) -> Option<bool> {
        let after = self.workers[index].config.watch.after.iter();
        let mut others = after.filter_map(|name| self.worker_named(name));
        let mut waits = false;
        let failed = others.any(|other| {
            let machine = &self.workers[other].machine;
            waits |= !machine.has_been_ready();
            let failed = matches!(machine.state(), State::Ended(outcome) if outcome.is_failure());
            failed && !machine.has_been_ready()
        });
        match (failed, waits) {
            (true, _) => Some(false),
            (false, true) => None,
            (false, false) => Some(true),
        }
    }

    pub(super) fn worker_named(&self, name: &str) -> Option<usize> {
        let mut workers = self.workers.iter();
        workers.position(|worker| worker.config.name == name && !worker.is_gone)
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
    pub(super) fn start(&mut self, index: usize) {
        self.guard_descendants();
        let supervised = &mut self.workers[index];
        let now = Instant::now();
        match spawn_worker(&supervised.config) {
            Ok(SpawnedWorker {
                pid,
                socket,
                group,
                last_words,
                process,
            }) => {
                supervised.printed = last_words;
                supervised.machine.handle(Input::Spawned, now);
                supervised.group = Some(group);
                supervised.pid = Some(pid);
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
                        status,
                    });
                });
            }
            Err(error) => {
                tracing::error!(worker = %supervised.config.name, "{error}");
                supervised.last_end = Some(error.to_string());
                supervised.last_words = None;
                let action = supervised.machine.handle(Input::SpawnFailed, now);
                self.conclude(index, action);
            }
        }
    }

    pub(super) fn attached(&mut self, index: usize, incarnation: u64, now: Instant) {
        if !self.is_current(index, incarnation) {
            return;
        }
        let supervised = &mut self.workers[index];
        supervised.machine.handle(Input::Attached, now);
        tracing::info!(worker = %supervised.config.name, incarnation, "worker attached");
        supervised.watch(now);
        if supervised.config.watch.ready == Readiness::Attached {
            self.ready(index, incarnation, now);
        }
        self.attached_late(index, now);
    }

    /// A topic that the worker has asked for stands.
    pub(super) fn subscribed(&mut self, index: usize, incarnation: u64, now: Instant) {
        if self.is_current(index, incarnation)
            && self.workers[index].config.watch.ready == Readiness::Subscribed
        {
            self.ready(index, incarnation, now);
        }
    }

    fn ready(&mut self, index: usize, incarnation: u64, now: Instant) {
        let supervised = &mut self.workers[index];
        supervised.machine.handle(Input::Ready, now);
        if supervised.machine.is_ready() {
            supervised.up_since.get_or_insert_with(SystemTime::now);
            tracing::info!(worker = %supervised.config.name, incarnation, "worker is up");
        }
        self.start_due();
    }

    pub(super) fn condemned(&mut self, index: usize, incarnation: u64, reason: &str) {
        if self.is_current(index, incarnation) {
            let supervised = &mut self.workers[index];
            tracing::error!(worker = %supervised.config.name, incarnation, %reason, "killing the worker");
            supervised.condemn();
        }
    }

    /// Looks whether a worker hangs, and kills it if it does. SIGKILL, because a process that is stopped takes no other.
    pub(super) fn look_at(&mut self, index: usize, now: Instant) {
        let Some(timeout) = self.workers[index].config.watch.stall_timeout else {
            self.workers[index].look_at = None;
            return;
        };
        let progress = self.links.progress(index).unwrap_or_default();
        let supervised = &mut self.workers[index];
        let verdict = supervised.stall_watch.look(progress);
        if verdict == Verdict::HeldUp {
            self.links.ask_for_waits();
        }
        if verdict == Verdict::Hangs {
            supervised.stalls += 1;
            supervised.look_at = None;
            tracing::error!(
                worker = %supervised.config.name,
                pid = supervised.pid,
                incarnation = supervised.machine.incarnation(),
                unacknowledged_bytes = progress.unacknowledged,
                stall_timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                stalls = supervised.stalls,
                "worker hangs: frames wait for it and nothing moves; killing it"
            );
            supervised.condemn();
        } else {
            supervised.look_at = Some(now + StallWatch::interval(timeout));
        }
    }

    /// Ends one of several workers that wait for room at each other and at nobody else, so that the others go on. All of them
    /// have to be watched, because a program that computes looks the same from outside for a while.
    pub(super) fn workers_wait(&mut self, mut waits: Vec<(usize, Vec<Option<usize>>)>) {
        waits.retain(|(worker, _)| {
            let supervised = self.workers.get(*worker);
            supervised.is_some_and(|it| {
                it.look_at.is_some() && it.stall_watch.verdict() == Verdict::HeldUp
            })
        });
        let mut stuck = standstill(&waits);
        stuck.sort_unstable();
        let Some(&first) = stuck.first() else {
            return;
        };
        let names = stuck.iter().map(|it| &*self.workers[*it].config.name);
        let names = names.collect::<Vec<_>>().join(",");
        let supervised = &mut self.workers[first];
        supervised.stalls += 1;
        supervised.look_at = None;
        tracing::error!(
            worker = %supervised.config.name,
            pid = supervised.pid,
            incarnation = supervised.machine.incarnation(),
            waiting = %names,
            stalls = supervised.stalls,
            "workers wait for room at each other and none of them reads; killing one of them"
        );
        supervised.condemn();
    }

    pub(super) fn exited(&mut self, index: usize, status: io::Result<ExitStatus>, now: Instant) {
        let supervised = &mut self.workers[index];
        supervised.group = None;
        supervised.pid = None;
        supervised.up_since = None;
        let status = status.inspect_err(|error| tracing::error!(worker = %supervised.config.name, %error, "cannot tell how the worker ended")).ok();
        if !self.waits_for_verdict(index, status, now) {
            self.ended(index, status, now);
        }
    }

    /// The process of a worker has ended, and whatever is to be known of it is known.
    pub(super) fn ended(&mut self, index: usize, status: Option<ExitStatus>, now: Instant) {
        let supervised = &mut self.workers[index];
        let incarnation = supervised.machine.incarnation();
        let condemned = std::mem::take(&mut supervised.is_condemned);
        let success = status.is_some_and(|status| status.success()) && !condemned;
        let attached = supervised.machine.attached();
        let action = supervised.machine.handle(Input::Exited { success }, now);
        supervised.look_at = None;
        supervised.leaving = None;
        let restart_after = match action {
            Action::RestartAfter(delay) => Some(delay),
            _ => None,
        };
        let name = supervised.config.name.as_str();
        let said = match status {
            Some(status) if condemned && status.success() => {
                format!("{status}, while it was being killed")
            }
            Some(status) => status.to_string(),
            None => "unknown".to_owned(),
        };
        let restart_after_ms =
            restart_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
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
                "{}",
                match attached {
                    true => "worker failed",
                    false => "worker failed before it attached",
                }
            );
        }
        supervised.last_end = Some(said);
        supervised.last_words = supervised.printed.get().filter(|_| !success);
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
    pub(super) fn conclude(&mut self, index: usize, action: Action) {
        match action {
            Action::RestartAfter(delay) => {
                self.workers[index].restart_at = Some(Instant::now() + delay);
            }
            Action::Finish(outcome) => {
                if !self.retired(index) {
                    self.finish(index, outcome);
                }
                self.start_due();
            }
            Action::None | Action::Spawn => {}
        }
    }

    fn finish(&mut self, index: usize, outcome: Outcome) {
        let supervised = &self.workers[index];
        if outcome.is_failure() {
            tracing::error!(worker = %supervised.config.name, "worker is given up: {outcome}");
            self.failed.insert(index, supervised.config.name.clone());
        } else {
            tracing::info!(worker = %supervised.config.name, "worker is done: {outcome}");
        }
        self.links.worker_ended(index, &supervised.config, outcome);
    }

    pub(super) fn end_if_idle(&self) {
        let all_ended = self
            .workers
            .iter()
            .all(|w| matches!(w.machine.state(), State::Ended(_)));
        if all_ended
            && self.options.end_with_workers
            && self.endpoints.is_empty()
            && self.config.uplinks.is_empty()
            && self.reading == Reading::Idle
            && !self.shutdown.has_begun()
        {
            self.handle
                .shut_down("every worker has ended and nobody can connect");
        }
    }

    pub(super) fn remaining(&self) -> Remaining {
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

    pub(super) fn signal_all(&self, signal: Signal) {
        for supervised in self.workers.iter().filter(|w| w.machine.has_process()) {
            tracing::warn!(worker = %supervised.config.name, %signal, "ending a worker that has not ended by itself");
            supervised.signal(signal);
        }
    }

    /// Whether a report concerns the process that runs now; reports about a predecessor may come late.
    pub(super) fn is_current(&self, worker: usize, incarnation: u64) -> bool {
        self.workers
            .get(worker)
            .is_some_and(|w| w.machine.has_process() && w.machine.incarnation() == incarnation)
    }

    /// Lets others see how the workers are.
    pub(super) fn publish_status(&self) {
        let endpoints = self.endpoints.iter().map(Listening::endpoint);
        self.handle.board.put_endpoints(endpoints.collect());
        for (index, supervised) in self.workers.iter().enumerate() {
            if supervised.is_gone {
                self.handle.board.remove(index);
            } else {
                self.handle.board.put(index, supervised.status());
            }
        }
    }
}
