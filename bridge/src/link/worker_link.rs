//! The link of a worker: made from its configuration, kept across its processes, and changed with a new configuration.

use std::sync::{Arc, Mutex};

use mycelium_contracts::Contracts;
use tokio::sync::mpsc;

use super::layer::create_memory;
use super::memory::{LinkMemory, LinkSetupError};
use super::quarantine::{LastExit, Suspicion};
use super::registry::Shared;
use super::serve::local_fencing;
use super::session::Notice;
use crate::config::{self, WorkerConfig};
use crate::router::{DeliveryTerms, Subscription};
use crate::routes::LinkId;

/// What a worker's link keeps across its processes.
pub(super) struct WorkerLink {
    pub(super) link: LinkId,
    pub(super) memory: Arc<LinkMemory>,
    pub(super) terms: DeliveryTerms,
    pub(super) last_exit: Option<LastExit>,
    pub(super) suspicion: Arc<Mutex<Suspicion>>,
    /// The way to the session of the last process.
    pub(super) notices: Option<mpsc::UnboundedSender<Notice>>,
}

/// Makes the link of a worker, and hands it to the data plane.
pub(super) fn create_link(
    shared: &Shared,
    config: &WorkerConfig,
) -> Result<WorkerLink, LinkSetupError> {
    let memory = Arc::new(create_memory(
        shared,
        config.transport,
        config.ring_capacity,
        &config.memory,
    )?);
    let link = shared.next_link();
    shared.take_name(link, &config.name, None)?;
    shared.update(link, |entry| entry.status.degraded = memory.degraded());
    let terms = delivery_terms(config, &shared.contracts);
    shared.plane.add(
        link,
        memory.bridge_side(local_fencing())?,
        terms.clone(),
        topics(&terms),
    )?;
    Ok(WorkerLink {
        link,
        memory,
        terms,
        last_exit: None,
        suspicion: Arc::default(),
        notices: None,
    })
}

/// What a worker's configuration says about its frames.
pub(super) fn delivery_terms(worker: &WorkerConfig, contracts: &Contracts) -> DeliveryTerms {
    let known = |wanted: &config::Subscription| {
        Some(Subscription {
            topic_id: contracts.by_name(&wanted.message)?.topic_id,
            delivery: wanted.delivery,
            group: wanted.group.clone(),
        })
    };
    DeliveryTerms {
        name: worker.name.clone(),
        stage_capacity: worker.stage_capacity,
        subscriptions: worker.subscribe.iter().filter_map(known).collect(),
    }
}

/// What the bridge subscribes to for a link.
pub(super) fn topics(terms: &DeliveryTerms) -> Vec<u16> {
    terms.subscriptions.iter().map(|it| it.topic_id).collect()
}

/// The topics that a link is to give up, and those that it is to take up, so that new terms take effect. One that is
/// delivered in another way is in both.
pub(super) fn changed_topics(old: &DeliveryTerms, new: &DeliveryTerms) -> [Vec<u16>; 2] {
    let missing = |from: &DeliveryTerms, others: &DeliveryTerms| {
        let subscriptions = from.subscriptions.iter();
        let missing = subscriptions.filter(|it| !others.subscriptions.contains(it));
        missing.map(|it| it.topic_id).collect()
    };
    [missing(old, new), missing(new, old)]
}

/// Whether a worker can go on with the rings that it has.
pub(super) fn has_same_rings(old: &WorkerConfig, new: &WorkerConfig) -> bool {
    let kind = |config: &WorkerConfig| {
        let on_heap = config.transport.is_stream();
        let sizes = (config.ring_capacity, config.stage_capacity);
        (on_heap, sizes, config.memory.clone())
    };
    kind(old) == kind(new)
}
