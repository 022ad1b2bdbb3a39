//! All uplinks of a bridge: started, told of another configuration, and ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Ending, Orders, Prepared, prepare, run};
use crate::config::UplinkConfig;
use crate::link::memory::LinkSetupError;
use crate::link::registry::Shared;
use crate::reload::Plan;

/// The uplinks of a bridge, by name.
pub(in crate::link) struct Uplinks {
    shared: Arc<Shared>,
    running: HashMap<String, Running>,
    /// Uplinks on their way out; one of the same name begins behind it.
    leaving: HashMap<String, JoinHandle<()>>,
}

struct Running {
    orders: watch::Sender<Orders>,
    /// Until it is begun.
    prepared: Option<Prepared>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    fn new(config: &UplinkConfig, prepared: Option<Prepared>) -> Self {
        let orders = Orders {
            config: config.clone(),
            end: None,
        };
        Self {
            orders: watch::Sender::new(orders),
            prepared,
            task: None,
        }
    }

    fn begin(&mut self, shared: &Arc<Shared>) {
        if let Some(prepared) = self.prepared.take() {
            let (shared, orders) = (Arc::clone(shared), self.orders.subscribe());
            self.task = Some(tokio::spawn(run(shared, prepared, orders)));
        }
    }
}

impl Uplinks {
    /// Makes the links of all uplinks, so that frames are kept for them from the first moment.
    pub(in crate::link) fn new(
        shared: &Arc<Shared>,
        configs: &[UplinkConfig],
    ) -> Result<Self, LinkSetupError> {
        let mut running = HashMap::new();
        for config in configs {
            let prepared = prepare(shared, config)?;
            running.insert(config.name.clone(), Running::new(config, Some(prepared)));
        }
        Ok(Self {
            shared: Arc::clone(shared),
            running,
            leaving: HashMap::new(),
        })
    }

    /// Begins to connect. Needs the runtime of the control plane.
    pub(in crate::link) fn begin(&mut self) {
        for uplink in self.running.values_mut() {
            uplink.begin(&self.shared);
        }
    }

    /// Carries out what a new configuration changes. `time`: how long one that ends may take to send what waits for it.
    /// Returns those that cannot be served.
    pub(in crate::link) fn change(
        &mut self,
        plan: &Plan,
        time: Duration,
    ) -> Vec<(String, LinkSetupError)> {
        self.leaving.retain(|_, task| !task.is_finished());
        for name in &plan.uplinks_removed {
            self.end(name, time);
        }
        let mut failed = Vec::new();
        let mut add = |uplinks: &mut Self, config: &UplinkConfig| {
            if let Err(error) = uplinks.add(config) {
                failed.push((config.name.clone(), error));
            }
        };
        for config in &plan.uplinks_changed {
            let running = self.running.get(&config.name);
            if running.is_some_and(|it| has_same_rings(&it.orders.borrow().config, config)) {
                self.reconfigure(config);
            } else {
                self.end(&config.name, time);
                add(self, config);
            }
        }
        for config in &plan.uplinks_added {
            add(self, config);
        }
        failed
    }

    fn reconfigure(&mut self, config: &UplinkConfig) {
        if let Some(running) = self.running.get(&config.name) {
            running
                .orders
                .send_modify(|orders| orders.config = config.clone());
        }
    }

    fn add(&mut self, config: &UplinkConfig) -> Result<(), LinkSetupError> {
        let Some(predecessor) = self.leaving.remove(&config.name) else {
            let prepared = prepare(&self.shared, config)?;
            let mut running = Running::new(config, Some(prepared));
            running.begin(&self.shared);
            self.running.insert(config.name.clone(), running);
            return Ok(());
        };
        // The name is free, and nothing that came from the bus goes back there, once the one before it is gone.
        let mut running = Running::new(config, None);
        let (shared, orders) = (Arc::clone(&self.shared), running.orders.subscribe());
        running.task = Some(tokio::spawn(async move {
            let _ = predecessor.await;
            let config = {
                let orders = orders.borrow();
                if orders.end.is_some() {
                    return;
                }
                orders.config.clone()
            };
            match prepare(&shared, &config) {
                Ok(prepared) => run(shared, prepared, orders).await,
                Err(error) => {
                    tracing::error!(uplink = %config.name, %error, "uplink cannot be served");
                }
            }
        }));
        self.running.insert(config.name.clone(), running);
        Ok(())
    }

    fn end(&mut self, name: &str, time: Duration) {
        let Some(Running { orders, task, .. }) = self.running.remove(name) else {
            return;
        };
        let by = Instant::now() + time;
        tracing::info!(uplink = %name, "uplink is to end: the configuration is without it, or has it with other rings");
        orders.send_modify(|orders| orders.end = Some(Ending::Alone { by }));
        if let Some(task) = task {
            // The orders stand as long as somebody may look at them.
            let kept = tokio::spawn(async move {
                let _ = task.await;
                drop(orders);
            });
            self.leaving.insert(name.to_owned(), kept);
        }
    }

    /// The bridge is stopping.
    pub(in crate::link) fn end_all(&self, by: Instant) {
        for uplink in self.running.values() {
            uplink
                .orders
                .send_modify(|orders| orders.end = Some(Ending::Bridge { by }));
        }
    }
}

/// Whether an uplink can go on with the rings that it has.
fn has_same_rings(old: &UplinkConfig, new: &UplinkConfig) -> bool {
    (old.ring_capacity, old.stage_capacity) == (new.ring_capacity, new.stage_capacity)
}
