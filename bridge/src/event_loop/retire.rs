//! Ending the process of one worker while the bridge goes on: for a configuration that is without it, or has it otherwise.
//! The steps are those of the bridge's own end.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::ControlPlane;
use super::links::Links;
use crate::config::WorkerConfig;
use crate::shutdown::{Remaining, Shutdown, Step};
use crate::worker::{Action, Input, Outcome};

/// What the worker is told.
const REASON: &str = "the configuration was reloaded";

/// A worker's process on its way out.
#[derive(Debug)]
pub(super) struct Retirement {
    shutdown: Shutdown,
    /// With what it starts again; `None` if it does not.
    pub(super) next: Option<WorkerConfig>,
}

impl Retirement {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.shutdown.deadline()
    }
}

impl<L: Links> ControlPlane<L> {
    /// Ends the process of a worker, if there is one, and starts it again with `next`.
    pub(super) fn retire(&mut self, index: usize, next: Option<WorkerConfig>, now: Instant) {
        let supervised = &mut self.workers[index];
        supervised.restart_at = None;
        supervised.look_at = None;
        if let Some(retirement) = &mut supervised.retirement {
            retirement.next = next;
            return;
        }
        let has_process = supervised.machine.has_process();
        let mut shutdown = Shutdown::new(self.config.bridge.shutdown_timeout);
        let steps = shutdown.request(REASON, remaining(has_process), now);
        supervised.retirement = Some(Retirement { shutdown, next });
        let action = supervised.machine.handle(Input::Shutdown, now);
        if has_process {
            self.perform_retirement(index, steps);
        } else if let Action::Finish(_) = action {
            self.conclude(index, action);
        } else {
            // It had ended for good before.
            self.retired(index);
            self.start_due();
        }
    }

    /// The current step of a worker's end has taken all its time.
    pub(super) fn retirement_due(&mut self, index: usize, now: Instant) {
        let supervised = &mut self.workers[index];
        let has_process = supervised.machine.has_process();
        if let Some(retirement) = &mut supervised.retirement {
            let steps = retirement.shutdown.advance(remaining(has_process), now);
            self.perform_retirement(index, steps);
        }
    }

    fn perform_retirement(&mut self, index: usize, steps: Vec<Step>) {
        let supervised = &self.workers[index];
        let name = &supervised.config.name;
        for step in steps {
            match step {
                Step::StopAccepting => {}
                Step::AskToEnd { deadline } => {
                    self.links.ask_worker_to_end(index, deadline, REASON);
                }
                Step::Terminate => {
                    tracing::warn!(worker = %name, signal = "SIGTERM", "ending a worker that has not ended by itself");
                    supervised.signal(Signal::SIGTERM);
                }
                Step::Kill => {
                    tracing::warn!(worker = %name, signal = "SIGKILL", "ending a worker that has not ended by itself");
                    supervised.signal(Signal::SIGKILL);
                }
                Step::Finish => {
                    tracing::error!(worker = %name, "worker is still there after SIGKILL; it is waited for");
                }
            }
        }
    }

    /// Concludes the end of a worker that was to end for a new configuration; `false` if it was not.
    pub(super) fn retired(&mut self, index: usize) -> bool {
        let supervised = &mut self.workers[index];
        let Some(retirement) = supervised.retirement.take() else {
            return false;
        };
        self.failed.remove(&index);
        match retirement.next {
            None => {
                supervised.is_gone = true;
                tracing::info!(worker = %supervised.config.name, "worker is done: the configuration is without it now");
                let config = &supervised.config;
                self.links.worker_ended(index, config, Outcome::Stopped);
            }
            Some(next) => {
                if let Err(error) = self.links.worker_changed(index, &supervised.config, &next) {
                    tracing::error!(worker = %next.name, %error, "worker cannot be served; reload again when the cause is gone");
                    supervised.is_gone = true;
                    self.forget(&next.name);
                    return true;
                }
                supervised.renew(next);
            }
        }
        true
    }
}

fn remaining(has_process: bool) -> Remaining {
    Remaining {
        workers: usize::from(has_process),
        clients: 0,
    }
}
