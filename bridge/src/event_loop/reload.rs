//! A new configuration for a running bridge. The file is read on another thread; what it changes is carried out here.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::workers::Supervised;
use super::{ControlPlane, Event, Links};
use crate::config::{Config, ConfigError, WorkerConfig};
use crate::listen::Listening;
use crate::logging;
use crate::reload::Plan;
use crate::worker::State;

/// Where the reading of a new configuration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reading {
    /// Nothing is being read.
    #[default]
    Idle,
    /// The file is being read.
    Busy,
    /// The file is being read, and is to be read again: it may have changed since.
    BusyAndStale,
}

impl<L: Links> ControlPlane<L> {
    /// Has the file read again.
    pub(super) fn read_configuration(&mut self) {
        if self.shutdown.has_begun() {
            tracing::warn!("the configuration is not reloaded: the bridge is stopping");
            return;
        }
        if self.reading != Reading::Idle {
            self.reading = Reading::BusyAndStale;
            return;
        }
        self.reading = Reading::Busy;
        let path = self.config.path.clone();
        tracing::info!(path = %path.display(), "reloading the configuration");
        self.notifier.reloading();
        let handle = self.handle.clone();
        let overrides = self.config.overrides.clone();
        tokio::task::spawn_blocking(move || {
            handle.send(Event::ConfigurationRead {
                result: Box::new(Config::load_with(path, &overrides)),
            });
        });
    }

    /// Carries out what a new configuration changes, or refuses it as a whole.
    pub(super) fn configuration_read(&mut self, result: Result<Config, ConfigError>, now: Instant) {
        let reading = std::mem::take(&mut self.reading);
        if self.shutdown.has_begun() {
            return;
        }
        if reading == Reading::BusyAndStale {
            self.read_configuration();
            return;
        }
        if self.is_ready {
            self.notifier.ready();
        }
        let refused = |hints: Vec<(String, String)>| {
            for (error, hint) in hints {
                tracing::error!(%error, %hint, "the new configuration is wrong");
            }
            tracing::error!("the configuration is not reloaded: nothing is changed");
        };
        let handle = self.handle.clone();
        let board = &handle.board;
        match result {
            Err(error) => {
                board.reloads_refused.fetch_add(1, Ordering::Relaxed);
                let lines = error.lines();
                refused(lines.map(|(line, hint)| (line, hint.to_owned())).collect());
            }
            Ok(new) => match Plan::new(self.running(), &new) {
                Err(error) => {
                    board.reloads_refused.fetch_add(1, Ordering::Relaxed);
                    refused(vec![(error.to_string(), String::new())]);
                }
                Ok(plan) => {
                    tracing::info!(changes = %plan, "configuration reloaded");
                    if !plan.needs_restart.is_empty() {
                        let keys = plan.needs_restart.join(",");
                        tracing::warn!(%keys, "keys of the bridge take effect with its next start only");
                    }
                    self.config = Plan::outcome(&self.config, new);
                    self.carry_out(plan, now);
                    self.handle
                        .board
                        .reloads_applied
                        .fetch_add(1, Ordering::Relaxed);
                }
            },
        }
    }

    /// What the bridge runs with, which is without metrics that could not be bound.
    fn running(&mut self) -> &Config {
        if self.windows.lacks_metrics() {
            self.config.metrics = None;
        }
        &self.config
    }

    fn carry_out(&mut self, plan: Plan, now: Instant) {
        self.shutdown.set_drain(self.config.bridge.shutdown_timeout);
        if plan.applied.contains(&"log")
            && let Err(error) = logging::set_filter(&self.config.bridge.log)
        {
            tracing::warn!(%error, "the log keeps its filter");
        }
        for (name, error) in self.links.reconfigure(&plan, &self.config) {
            tracing::error!(uplink = %name, %error, "uplink cannot be served; reload again when the cause is gone");
            // What does not run is not part of what the bridge runs with, so the next reload tries again.
            self.config.uplinks.retain(|uplink| uplink.name != name);
        }
        if plan.applied.contains(&"[metrics]") {
            self.windows.move_metrics(self.config.metrics.as_ref());
        }
        if plan.applied.contains(&"control") {
            self.windows.move_control(&self.config);
        }
        for (old, new) in &plan.endpoints_changed {
            let mut endpoints = self.endpoints.iter_mut();
            if let Some(listening) = endpoints.find(|it| it.config() == old) {
                listening.change(new);
            }
        }
        self.endpoints
            .retain(|listening| !plan.closed.contains(listening.config()));
        for listen in &plan.opened {
            match Listening::bind(listen) {
                Ok(listening) => self.endpoints.push(listening),
                Err(error) => {
                    tracing::error!(%error, "cannot listen; reload again when the cause is gone");
                    // As above.
                    self.config.listen.retain(|other| other != listen);
                }
            }
        }
        for name in &plan.removed {
            if let Some(index) = self.worker_named(name) {
                self.retire(index, None, now);
            }
        }
        for config in plan.restarted {
            if let Some(index) = self.worker_named(&config.name) {
                self.retire(index, Some(config), now);
            }
        }
        for config in plan.adjusted {
            self.adjust(config, now);
        }
        for config in plan.added {
            self.add(config, now);
        }
        self.start_due();
        self.end_if_idle();
    }

    fn adjust(&mut self, config: WorkerConfig, now: Instant) {
        let Some(index) = self.worker_named(&config.name) else {
            return;
        };
        let supervised = &mut self.workers[index];
        if let Some(retirement) = &mut supervised.retirement {
            retirement.next = Some(config);
            return;
        }
        supervised.machine.set_restart(config.restart);
        let old = std::mem::replace(&mut supervised.config, config);
        supervised.watch(now);
        let (new, state) = (&supervised.config, supervised.machine.state());
        // One that has ended for good has no link.
        if old.subscribe != new.subscribe
            && !matches!(state, State::Ended(_))
            && let Err(error) = self.links.worker_changed(index, &old, new)
        {
            tracing::error!(worker = %new.name, %error, "worker keeps its subscriptions");
        }
    }

    fn add(&mut self, config: WorkerConfig, now: Instant) {
        // One that is still ending for an earlier configuration comes back.
        if let Some(index) = self.worker_named(&config.name) {
            self.retire(index, Some(config), now);
            return;
        }
        let index = self.workers.len();
        match self.links.worker_added(index, &config) {
            Ok(()) => self.workers.push(Supervised::new(config)),
            Err(error) => {
                tracing::error!(worker = %config.name, %error, "worker cannot be served; reload again when the cause is gone");
                self.forget(&config.name);
            }
        }
    }

    /// Takes a worker that cannot be served out of what the bridge runs with, so that the next reload tries again.
    pub(super) fn forget(&mut self, name: &str) {
        self.config.workers.retain(|worker| worker.name != name);
    }
}
