//! The links of a bridge as data: who has which name, what is known of each link, and the lock around it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use mycelium_contracts::Contracts;
use shm_transport::channel::{ContractDifference, Transport};
use tokio::sync::{Semaphore, mpsc};

use super::contracts::Verdict;
use super::missed::Missed;
use super::session::Notice;
use super::uplink::{Board, UplinkStatus};
use crate::config::BridgeConfig;
use crate::data_plane::DataPlaneHandle;
use crate::event_loop::ControlHandle;
use crate::router::DeliveryTerms;
use crate::routes::LinkId;

/// What is known of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its number.
    pub link: LinkId,
    /// Its name.
    pub name: String,
    /// Process at the other end; `None` while there is none.
    pub pid: Option<u32>,
    /// How its frames travel; `None` before the first handshake.
    pub transport: Option<Transport>,
    /// Why not over shared memory.
    pub fallback: Option<String>,
    /// Options of its rings that the configuration asks for and that are not to be had, with the reasons.
    pub degraded: Vec<String>,
    /// How often it was handed to a peer.
    pub epoch: u64,
    /// Why the last peer left, if it did not say goodbye.
    pub last_error: Option<String>,
    /// Sends and receives that moved application frames over its socket; 0 over shared memory.
    pub socket_calls: u64,
    /// What differs between the contracts of the bridge and of the peer that attached last.
    pub contract_differences: Vec<ContractDifference>,
    /// Frames that the link wants and did not get since it began, by topic: dropped by the policy of its subscription, or
    /// moved aside because they kept killing their worker. Follows the counters of the data plane within 50 ms.
    pub missed: BTreeMap<u16, u64>,
}

/// The links of a bridge, as other threads may look at them.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(super) shared: Arc<Shared>,
}

impl Registry {
    /// The link with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<LinkStatus> {
        self.shared
            .lock()
            .links
            .values()
            .find(|entry| entry.status.name == name)
            .map(|entry| entry.status())
    }

    /// All links, by number.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        let mut links: Vec<_> = self
            .shared
            .lock()
            .links
            .values()
            .map(|entry| entry.status())
            .collect();
        links.sort_by_key(|status| status.link);
        links
    }

    /// What is known of the uplinks, in the order of the configuration.
    #[must_use]
    pub fn uplinks(&self) -> Vec<UplinkStatus> {
        let state = self.shared.lock();
        state.uplinks.iter().map(|board| board.status()).collect()
    }

    /// The data plane that serves the links.
    pub(crate) fn plane(&self) -> &DataPlaneHandle {
        &self.shared.plane
    }

    /// The contracts that the bridge runs with.
    pub(crate) fn contracts(&self) -> &Contracts {
        &self.shared.contracts
    }

    /// How an actor of this process gets its frames, unless it says so itself.
    pub(crate) fn local_terms(&self, name: &str) -> DeliveryTerms {
        self.shared.client_terms(name)
    }

    /// Bytes of each ring of an actor of this process.
    pub(crate) fn local_ring_capacity(&self) -> usize {
        self.shared.bridge().ring_capacity
    }

    /// What a link misses.
    pub(crate) fn missed(&self, link: LinkId) -> Arc<Missed> {
        self.shared.missed(link)
    }

    /// Takes a name and a number for a link of this process.
    pub(crate) fn open_local(&self, name: &str) -> Result<LinkId, NameTaken> {
        let link = self.shared.next_link();
        self.shared
            .take_name(link, name, Some(std::process::id()))?;
        Ok(link)
    }

    /// Clients that were refused because too many others were in the middle of their handshake.
    #[must_use]
    pub fn refused_busy(&self) -> u64 {
        self.shared.refused_busy.load(Ordering::Relaxed)
    }

    /// Clients that were refused because their user is not on the list, or their token is missing or wrong.
    #[must_use]
    pub fn refused_not_allowed(&self) -> u64 {
        self.shared.refused_not_allowed.load(Ordering::Relaxed)
    }

    pub(crate) fn close_local(&self, link: LinkId) {
        self.shared.lock().links.remove(&link);
    }
}

/// A name is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link name is taken: name={name} by pid={pid}; choose another name or stop that process")]
pub struct NameTaken {
    /// The name.
    pub name: String,
    /// Who has it; 0 for a worker that is not running.
    pub pid: u32,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plane: DataPlaneHandle,
    pub(super) contracts: Arc<Contracts>,
    /// What `[bridge]` says at the moment.
    pub(super) bridge: RwLock<Arc<BridgeConfig>>,
    pub(super) next_link: AtomicU32,
    pub(super) refused_busy: AtomicU64,
    pub(super) refused_not_allowed: AtomicU64,
    /// One permit per client that is being told why it is refused.
    pub(super) refusals: Semaphore,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) links: HashMap<LinkId, Entry>,
    pub(super) clients: usize,
    pub(super) uplinks: Vec<Arc<Board>>,
    pub(super) control: Option<ControlHandle>,
    pub(super) stopping: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) status: LinkStatus,
    pub(super) notices: Option<mpsc::UnboundedSender<Notice>>,
    /// Which worker, and which of its processes, so that it can be condemned.
    pub(super) worker: Option<(usize, u64)>,
    pub(super) socket_calls: Arc<AtomicU64>,
    /// What the contracts of the peer that attached last are worth here.
    pub(super) verdict: Arc<Verdict>,
    pub(super) missed: Arc<Missed>,
}

impl Entry {
    pub(super) fn new(status: LinkStatus) -> Self {
        Self {
            status,
            notices: None,
            worker: None,
            socket_calls: Arc::default(),
            verdict: Arc::default(),
            missed: Arc::default(),
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        LinkStatus {
            socket_calls: self.socket_calls.load(Ordering::Relaxed),
            contract_differences: self.verdict.differences().to_vec(),
            missed: self.missed.by_topic(),
            ..self.status.clone()
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, even one that panics between two of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `[bridge]` says at the moment.
    pub(super) fn bridge(&self) -> Arc<BridgeConfig> {
        // Every change puts a whole value in the place of another.
        let bridge = self.bridge.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&bridge)
    }

    pub(super) fn set_bridge(&self, bridge: BridgeConfig) {
        let mut place = self.bridge.write().unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(bridge);
    }

    pub(super) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn take_name(
        &self,
        link: LinkId,
        name: &str,
        pid: Option<u32>,
    ) -> Result<(), NameTaken> {
        let mut state = self.lock();
        if let Some(other) = state.links.values().find(|entry| entry.status.name == name) {
            return Err(NameTaken {
                name: name.to_owned(),
                pid: other.status.pid.unwrap_or(0),
            });
        }
        let status = LinkStatus {
            link,
            name: name.to_owned(),
            pid,
            transport: None,
            fallback: None,
            degraded: Vec::new(),
            epoch: 0,
            last_error: None,
            socket_calls: 0,
            contract_differences: Vec::new(),
            missed: BTreeMap::new(),
        };
        state.links.insert(link, Entry::new(status));
        Ok(())
    }

    /// Whether a worker's process or a client is there that may publish.
    pub(super) fn has_peers(&self) -> bool {
        let state = self.lock();
        state.links.values().any(|entry| entry.notices.is_some())
    }

    pub(super) fn control(&self) -> Option<ControlHandle> {
        self.lock().control.clone()
    }

    pub(super) fn socket_calls(&self, link: LinkId) -> Arc<AtomicU64> {
        let state = self.lock();
        state
            .links
            .get(&link)
            .map_or_else(Arc::default, |entry| Arc::clone(&entry.socket_calls))
    }

    /// How links that no worker's configuration speaks of get their frames.
    pub(super) fn client_terms(&self, name: &str) -> DeliveryTerms {
        DeliveryTerms {
            name: name.to_owned(),
            stage_capacity: self.bridge().stage_capacity.unwrap_or(0),
            subscriptions: Vec::new(),
        }
    }

    pub(crate) fn missed(&self, link: LinkId) -> Arc<Missed> {
        let state = self.lock();
        let entry = state.links.get(&link);
        entry.map_or_else(Arc::default, |entry| Arc::clone(&entry.missed))
    }

    pub(super) fn verdict(&self, link: LinkId) -> Arc<Verdict> {
        let state = self.lock();
        let entry = state.links.get(&link);
        entry.map_or_else(Arc::default, |entry| Arc::clone(&entry.verdict))
    }

    /// Which worker has the link, and which of its processes.
    /// Whether the peer of the moment may publish every topic.
    pub(super) fn may_publish_all(&self, link: LinkId) -> bool {
        let state = self.lock();
        let entry = state.links.get(&link);
        entry.is_some_and(|it| it.verdict.differences().is_empty())
    }

    pub(super) fn worker_of(&self, link: LinkId) -> Option<(usize, u64)> {
        self.lock().links.get(&link)?.worker
    }

    pub(super) fn update(&self, link: LinkId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().links.get_mut(&link) {
            change(entry);
        }
    }
}

impl Entry {
    /// Whether the last peer broke its rings, so that a successor must not inherit them.
    pub(super) fn violated(&self) -> bool {
        self.worker.is_some() && self.notices.is_none() && self.status.last_error.is_some()
    }
}
