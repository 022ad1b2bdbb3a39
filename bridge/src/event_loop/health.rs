//! What a service manager is told: that the bridge is ready, that it lives, and how its workers are.

use std::time::Instant;

use super::status::WorkerPhase;
use super::{ControlPlane, Links};

impl<L: Links> ControlPlane<L> {
    /// Asks the data plane for a round. Its answer is what the service manager hears of, so silence means that one of the
    /// two planes stands still.
    pub(super) fn check_health(&mut self) {
        self.health_at = None;
        if !self.health_asked {
            self.health_asked = true;
            self.links.ask_for_round();
        }
    }

    /// The data plane has made a round, and the control plane has seen it.
    pub(super) fn is_healthy(&mut self, now: Instant) {
        self.health_asked = false;
        if !self.is_ready {
            self.is_ready = true;
            tracing::info!(endpoints = self.endpoints.len(), "bridge is ready");
            self.notifier.ready();
        }
        if let Some(interval) = self.notifier.watchdog_interval() {
            self.notifier.alive();
            self.health_at = Some(now + interval);
        }
    }

    pub(super) fn tell_status(&mut self) {
        let workers = self.workers.iter().filter(|worker| !worker.is_gone);
        let phases = || workers.map(|worker| worker.phase());
        let clients = self.clients;
        self.notifier.status(|| {
            let phases: Vec<_> = phases().collect();
            let up = phases
                .iter()
                .filter(|phase| **phase == WorkerPhase::Up)
                .count();
            let gave_up = phases
                .iter()
                .filter(|phase| **phase == WorkerPhase::GaveUp)
                .count();
            let mut status = format!("{up} of {} workers up, {clients} clients", phases.len());
            if gave_up > 0 {
                status += &format!(", {gave_up} gave up");
            }
            status
        });
    }
}
