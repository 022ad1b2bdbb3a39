//! What a new configuration changes in a running bridge, as a plain value: found out first, then carried out.

use std::fmt;
use std::sync::Arc;

use mycelium_contracts::Delivery;

use crate::config::{BridgeConfig, Config, ListenConfig, Subscription, UplinkConfig, WorkerConfig};

/// The difference between the configuration that a bridge runs with and a new one.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Workers that are new.
    pub added: Vec<WorkerConfig>,
    /// Names of workers that are there no more.
    pub removed: Vec<String>,
    /// Workers whose process has to be another.
    pub restarted: Vec<WorkerConfig>,
    /// Workers whose process can stay: only when they start, restart, or count as hung is otherwise, or how frames are
    /// delivered to them.
    pub adjusted: Vec<WorkerConfig>,
    /// Endpoints that are new.
    pub opened: Vec<ListenConfig>,
    /// Endpoints that are there no more.
    pub closed: Vec<ListenConfig>,
    /// Endpoints that stay where they are and ask for something else, as they were and as they are to be: other limits, or
    /// other contents of the files of token and certificate.
    pub endpoints_changed: Vec<(ListenConfig, ListenConfig)>,
    /// Uplinks that are new.
    pub uplinks_added: Vec<UplinkConfig>,
    /// Names of uplinks that are there no more.
    pub uplinks_removed: Vec<String>,
    /// Uplinks that are otherwise, as they are to be.
    pub uplinks_changed: Vec<UplinkConfig>,
    /// Messages whose subscriptions get another policy unless they name one, with that policy.
    pub delivery: Vec<(String, Delivery)>,
    /// Keys of the bridge that are otherwise and take effect at once.
    pub applied: Vec<&'static str>,
    /// Keys that are otherwise and take effect with the next start of the bridge only.
    pub needs_restart: Vec<&'static str>,
}

/// A new configuration asks a running bridge for what it cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{who} needs a message that the running bridge does not know: message={message}; restart the bridge with the new \
     contracts"
)]
pub struct UnknownMessage {
    /// The worker or the uplink, with its name.
    pub who: String,
    /// Name of the message.
    pub message: String,
}

impl Plan {
    /// Compares two configurations.
    ///
    /// # Errors
    ///
    /// [`UnknownMessage`] where a worker or an uplink depends on contracts that take effect with a restart only.
    pub fn new(running: &Config, new: &Config) -> Result<Self, UnknownMessage> {
        let mut plan = Self::default();
        plan.compare_bridge(running, new);
        plan.compare_delivery(running, new);
        for worker in &new.workers {
            let messages = worker.subscribe.iter().map(|it| &it.message);
            check_messages(running, messages, || format!("worker '{}'", worker.name))?;
            plan.compare_worker(running, worker);
        }
        let is_there = |name: &str| new.workers.iter().any(|worker| worker.name == name);
        let names = running.workers.iter().map(|worker| &worker.name);
        plan.removed = names.filter(|name| !is_there(name)).cloned().collect();
        for uplink in &new.uplinks {
            let messages = uplink.import.iter().chain(&uplink.export);
            check_messages(running, messages, || format!("uplink '{}'", uplink.name))?;
            plan.compare_uplink(running, uplink);
        }
        let is_there = |name: &str| new.uplinks.iter().any(|uplink| uplink.name == name);
        let names = running.uplinks.iter().map(|uplink| &uplink.name);
        plan.uplinks_removed = names.filter(|name| !is_there(name)).cloned().collect();
        plan.compare_endpoints(running, new);
        Ok(plan)
    }

    fn compare_worker(&mut self, running: &Config, new: &WorkerConfig) {
        let mut workers = running.workers.iter();
        let Some(old) = workers.find(|worker| worker.name == new.name) else {
            self.added.push(new.clone());
            return;
        };
        let mut same_process = WorkerConfig {
            restart: new.restart,
            watch: new.watch.clone(),
            quarantine_after: new.quarantine_after,
            ..old.clone()
        };
        // A process goes on with the same topics; how they come to it is the business of the bridge.
        if topics(&old.subscribe) == topics(&new.subscribe) {
            same_process.subscribe = new.subscribe.clone();
        }
        if old == new {
        } else if same_process == *new {
            self.adjusted.push(new.clone());
        } else {
            self.restarted.push(new.clone());
        }
    }

    fn compare_uplink(&mut self, running: &Config, new: &UplinkConfig) {
        let mut uplinks = running.uplinks.iter();
        match uplinks.find(|uplink| uplink.name == new.name) {
            None => self.uplinks_added.push(new.clone()),
            Some(old) if old == new => {}
            Some(_) => self.uplinks_changed.push(new.clone()),
        }
    }

    fn compare_endpoints(&mut self, running: &Config, new: &Config) {
        let missing = |from: &[ListenConfig], others: &[ListenConfig]| -> Vec<ListenConfig> {
            let missing = from.iter().filter(|listen| !others.contains(listen));
            missing.cloned().collect()
        };
        self.closed = missing(&running.listen, &new.listen);
        for endpoint in missing(&new.listen, &running.listen) {
            let mut closed = self.closed.iter();
            match closed.position(|old| old.address == endpoint.address) {
                Some(at) => {
                    let old = self.closed.remove(at);
                    self.endpoints_changed.push((old, endpoint));
                }
                None => self.opened.push(endpoint),
            }
        }
    }

    /// The policy that each message has where a subscription names none.
    fn compare_delivery(&mut self, running: &Config, new: &Config) {
        for message in running.contracts.messages() {
            let name = &message.name;
            let policy = |config: &Config| {
                config
                    .delivery
                    .get(name)
                    .copied()
                    .unwrap_or(message.delivery)
            };
            if policy(running) != policy(new) {
                self.delivery.push((name.clone(), policy(new)));
            }
        }
    }

    fn compare_bridge(&mut self, running: &Config, new: &Config) {
        let (old, bridge) = (&running.bridge, &new.bridge);
        let mut compare = |is_same: bool, key| {
            if !is_same {
                self.applied.push(key);
            }
        };
        compare(old.allowed_uids == bridge.allowed_uids, "allowed_uids");
        let same_timeout = old.shutdown_timeout == bridge.shutdown_timeout;
        compare(same_timeout, "shutdown_timeout_ms");
        compare(old.log == bridge.log, "log");
        compare(old.transport == bridge.transport, "transport");
        compare(old.ring_capacity == bridge.ring_capacity, "ring_capacity");
        let same_stage = old.stage_capacity == bridge.stage_capacity;
        compare(same_stage, "stage_capacity");
        compare(old.state_dir == bridge.state_dir, "state_dir");
        compare(old.control == bridge.control, "control");
        compare(old.spin_us == bridge.spin_us, "spin_us");
        compare(old.memory == bridge.memory, "memory");
        let same_refusals = old.on_mismatch == bridge.on_mismatch;
        compare(same_refusals, "[contracts] on_mismatch");
        compare(running.metrics == new.metrics, "[metrics]");
        let same_contracts = old.contracts == bridge.contracts
            && running.contracts.schema_digest() == new.contracts.schema_digest();
        if !same_contracts {
            self.needs_restart.push("contracts");
        }
    }

    /// Whether the new configuration says the same as the one before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, which)| which.is_empty())
    }

    /// The configuration that the bridge runs with once the plan is carried out.
    #[must_use]
    pub fn outcome(running: &Config, new: Config) -> Config {
        Config {
            bridge: BridgeConfig {
                contracts: running.bridge.contracts.clone(),
                ..new.bridge
            },
            contracts: Arc::clone(&running.contracts),
            ..new
        }
    }

    /// What differs, by what happens to it.
    fn parts(&self) -> [(&'static str, String); 13] {
        let workers = |list: &[WorkerConfig]| {
            list.iter()
                .map(|it| &*it.name)
                .collect::<Vec<_>>()
                .join(",")
        };
        let uplinks = |list: &[UplinkConfig]| {
            list.iter()
                .map(|it| &*it.name)
                .collect::<Vec<_>>()
                .join(",")
        };
        let addresses = |endpoints: &mut dyn Iterator<Item = &ListenConfig>| {
            let addresses: Vec<_> = endpoints.map(|it| it.address.to_string()).collect();
            addresses.join(",")
        };
        let messages: Vec<_> = self.delivery.iter().map(|(name, _)| &**name).collect();
        let changed = self.endpoints_changed.iter();
        [
            ("added", workers(&self.added)),
            ("removed", self.removed.join(",")),
            ("restarted", workers(&self.restarted)),
            ("adjusted", workers(&self.adjusted)),
            ("opened", addresses(&mut self.opened.iter())),
            ("closed", addresses(&mut self.closed.iter())),
            (
                "endpoints_changed",
                addresses(&mut changed.map(|(_, new)| new)),
            ),
            ("uplinks_added", uplinks(&self.uplinks_added)),
            ("uplinks_removed", self.uplinks_removed.join(",")),
            ("uplinks_changed", uplinks(&self.uplinks_changed)),
            ("delivery", messages.join(",")),
            ("applied", self.applied.join(",")),
            ("needs_restart", self.needs_restart.join(",")),
        ]
    }
}

/// The messages of the entries, sorted.
fn topics(subscribe: &[Subscription]) -> Vec<&str> {
    let mut names: Vec<_> = subscribe.iter().map(|it| &*it.message).collect();
    names.sort_unstable();
    names
}

fn check_messages<'c>(
    running: &Config,
    mut messages: impl Iterator<Item = &'c String>,
    who: impl Fn() -> String,
) -> Result<(), UnknownMessage> {
    match messages.find(|message| running.contracts.by_name(message).is_none()) {
        None => Ok(()),
        Some(message) => Err(UnknownMessage {
            who: who(),
            message: message.clone(),
        }),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing differs");
        }
        let mut separator = "";
        for (what, which) in self.parts().iter().filter(|(_, which)| !which.is_empty()) {
            write!(f, "{separator}{what}={which}")?;
            separator = " ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
