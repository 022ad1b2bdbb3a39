//! The end of a process that was not attached. It is seen from two sides, in any order: its connection fails, and it exits.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::ControlPlane;
use super::links::Links;
use super::workers::Supervised;

/// How long the one may come after the other.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Half of the end, and by when the other half is to come.
#[derive(Debug)]
pub(super) struct Leaving {
    by: Instant,
    seen: Seen,
}

#[derive(Debug)]
enum Seen {
    /// It has closed its connection, and this is what the handshake made of it.
    HangUp(String),
    /// It has exited without a failure. Its connection tells whether it broke a rule before.
    Exit(ExitStatus),
}

impl Supervised {
    pub(super) fn leaves_by(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.by)
    }
}

impl<L: Links> ControlPlane<L> {
    /// The handshake of a worker has failed. A process that ends closes its connection first, and how it ended is the better
    /// story; one that stays is killed.
    pub(super) fn not_attached(
        &mut self,
        index: usize,
        incarnation: u64,
        reason: String,
        has_left: bool,
        now: Instant,
    ) {
        if !self.is_current(index, incarnation) {
            return;
        }
        let supervised = &mut self.workers[index];
        let exit = match supervised.leaving.take() {
            Some(Leaving {
                seen: Seen::Exit(status),
                ..
            }) => Some(status),
            _ => None,
        };
        if !has_left {
            self.kill_unattached(index, &reason);
        } else if exit.is_none() {
            self.workers[index].leaving = Some(Leaving {
                by: now + LEAVE_TIME,
                seen: Seen::HangUp(reason),
            });
        }
        if exit.is_some() {
            self.ended(index, exit, now);
        }
    }

    /// Whether the end of a process has to wait for what its connection has to tell.
    pub(super) fn waits_for_verdict(
        &mut self,
        index: usize,
        status: Option<ExitStatus>,
        now: Instant,
    ) -> bool {
        let supervised = &mut self.workers[index];
        let is_known = supervised.machine.attached()
            || supervised.is_condemned
            || supervised.leaving.is_some();
        match status.filter(|status| status.success() && !is_known) {
            Some(status) => {
                supervised.leaving = Some(Leaving {
                    by: now + LEAVE_TIME,
                    seen: Seen::Exit(status),
                });
                true
            }
            None => false,
        }
    }

    /// Concludes the end of a process that has exited before it was known to be attached.
    pub(super) fn attached_late(&mut self, index: usize, now: Instant) {
        if let Some(Leaving {
            seen: Seen::Exit(status),
            ..
        }) = self.workers[index].leaving.take()
        {
            self.ended(index, Some(status), now);
        }
    }

    /// The other half of an end has not come.
    pub(super) fn leave_over(&mut self, index: usize, now: Instant) {
        match self.workers[index].leaving.take().map(|it| it.seen) {
            Some(Seen::HangUp(reason)) => self.kill_unattached(index, &reason),
            Some(Seen::Exit(status)) => self.ended(index, Some(status), now),
            None => {}
        }
    }

    fn kill_unattached(&mut self, index: usize, reason: &str) {
        let supervised = &self.workers[index];
        let incarnation = supervised.machine.incarnation();
        tracing::warn!(worker = %supervised.config.name, pid = supervised.pid, incarnation, error = %reason, "worker did not attach");
        self.condemned(index, incarnation, reason);
    }
}
