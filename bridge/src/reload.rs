//! What a new configuration changes in a running bridge, as a plain value: found out first, then carried out.

use std::fmt;
use std::sync::Arc;

use crate::config::{Config, ListenConfig, WorkerConfig};

/// The difference between the configuration that a bridge runs with and a new one.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Workers that are new.
    pub added: Vec<WorkerConfig>,
    /// Names of workers that are there no more.
    pub removed: Vec<String>,
    /// Workers whose process has to be another.
    pub restarted: Vec<WorkerConfig>,
    /// Workers whose process can stay: only when they start, restart, or count as hung is otherwise.
    pub adjusted: Vec<WorkerConfig>,
    /// Endpoints that are new, or ask for something else.
    pub opened: Vec<ListenConfig>,
    /// Endpoints that are there no more, or ask for something else.
    pub closed: Vec<ListenConfig>,
    /// Keys of the bridge that are otherwise and take effect at once.
    pub applied: Vec<&'static str>,
    /// Keys that are otherwise and take effect with the next start of the bridge only.
    pub needs_restart: Vec<&'static str>,
}

/// A new configuration asks a running bridge for what it cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "worker '{worker}' subscribes to a message that the running bridge does not know: message={message}; restart the \
     bridge with the new contracts"
)]
pub struct UnknownMessage {
    /// Name of the worker.
    pub worker: String,
    /// Name of the message.
    pub message: String,
}

impl Plan {
    /// Compares two configurations.
    ///
    /// # Errors
    ///
    /// [`UnknownMessage`] where a worker depends on contracts that take effect with a restart only.
    pub fn new(running: &Config, new: &Config) -> Result<Self, UnknownMessage> {
        let mut plan = Self::default();
        plan.compare_bridge(running, new);
        for worker in &new.workers {
            let mut messages = worker.subscribe.iter().map(|it| &it.message);
            if let Some(message) =
                messages.find(|message| running.contracts.by_name(message).is_none())
            {
                return Err(UnknownMessage {
                    worker: worker.name.clone(),
                    message: message.clone(),
                });
            }
            plan.compare_worker(running, worker);
        }
        let is_there = |name: &str| new.workers.iter().any(|worker| worker.name == name);
        let names = running.workers.iter().map(|worker| &worker.name);
        plan.removed = names.filter(|name| !is_there(name)).cloned().collect();
        let missing = |from: &[ListenConfig], others: &[ListenConfig]| {
            let missing = from.iter().filter(|listen| !others.contains(listen));
            missing.cloned().collect()
        };
        plan.opened = missing(&new.listen, &running.listen);
        plan.closed = missing(&running.listen, &new.listen);
        Ok(plan)
    }

    fn compare_worker(&mut self, running: &Config, new: &WorkerConfig) {
        let mut workers = running.workers.iter();
        let Some(old) = workers.find(|worker| worker.name == new.name) else {
            self.added.push(new.clone());
            return;
        };
        let same_process = WorkerConfig {
            restart: new.restart,
            watch: new.watch.clone(),
            quarantine_after: new.quarantine_after,
            ..old.clone()
        };
        if old == new {
        } else if same_process == *new {
            self.adjusted.push(new.clone());
        } else {
            self.restarted.push(new.clone());
        }
    }

    fn compare_bridge(&mut self, running: &Config, new: &Config) {
        let (old, bridge) = (&running.bridge, &new.bridge);
        let mut compare = |is_same: bool, key, takes_effect: bool| {
            if is_same {
            } else if takes_effect {
                self.applied.push(key);
            } else {
                self.needs_restart.push(key);
            }
        };
        compare(
            old.allowed_uids == bridge.allowed_uids,
            "allowed_uids",
            true,
        );
        let same_timeout = old.shutdown_timeout == bridge.shutdown_timeout;
        compare(same_timeout, "shutdown_timeout_ms", true);
        compare(old.log == bridge.log, "log", true);
        let same_contracts = old.contracts == bridge.contracts
            && running.contracts.schema_digest() == new.contracts.schema_digest();
        compare(same_contracts, "contracts", false);
        compare(old.transport == bridge.transport, "transport", false);
        let same_ring = old.ring_capacity == bridge.ring_capacity;
        compare(same_ring, "ring_capacity", false);
        let same_stage = old.stage_capacity == bridge.stage_capacity;
        compare(same_stage, "stage_capacity", false);
        compare(old.state_dir == bridge.state_dir, "state_dir", false);
        compare(old.control == bridge.control, "control", false);
        compare(running.metrics == new.metrics, "[metrics]", false);
        compare(old.spin_us == bridge.spin_us, "spin_us", false);
        compare(old.memory == bridge.memory, "memory", false);
        let same_refusals = old.on_mismatch == bridge.on_mismatch;
        compare(same_refusals, "[contracts] on_mismatch", false);
        compare(running.delivery == new.delivery, "[delivery]", false);
        compare(running.uplinks == new.uplinks, "[uplink]", false);
    }

    /// Whether the new configuration says the same as the one before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let workers = [&self.added, &self.restarted, &self.adjusted];
        let endpoints = [&self.opened, &self.closed];
        workers.iter().all(|list| list.is_empty())
            && endpoints.iter().all(|list| list.is_empty())
            && self.removed.is_empty()
            && self.applied.is_empty()
            && self.needs_restart.is_empty()
    }

    /// The configuration that the bridge runs with once the plan is carried out.
    #[must_use]
    pub fn outcome(running: &Config, new: Config) -> Config {
        Config {
            bridge: crate::config::BridgeConfig {
                allowed_uids: new.bridge.allowed_uids,
                shutdown_timeout: new.bridge.shutdown_timeout,
                log: new.bridge.log,
                ..running.bridge.clone()
            },
            contracts: Arc::clone(&running.contracts),
            delivery: running.delivery.clone(),
            uplinks: running.uplinks.clone(),
            metrics: running.metrics.clone(),
            ..new
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing differs");
        }
        let names = |workers: &[WorkerConfig]| {
            let names: Vec<_> = workers.iter().map(|worker| worker.name.clone()).collect();
            names.join(",")
        };
        let addresses = |endpoints: &[ListenConfig]| {
            let addresses: Vec<_> = endpoints.iter().map(|it| it.address.to_string()).collect();
            addresses.join(",")
        };
        let parts = [
            ("added", names(&self.added)),
            ("removed", self.removed.join(",")),
            ("restarted", names(&self.restarted)),
            ("adjusted", names(&self.adjusted)),
            ("opened", addresses(&self.opened)),
            ("closed", addresses(&self.closed)),
            ("applied", self.applied.join(",")),
            ("needs_restart", self.needs_restart.join(",")),
        ];
        let mut separator = "";
        for (what, which) in parts.iter().filter(|(_, which)| !which.is_empty()) {
            write!(f, "{separator}{what}={which}")?;
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
