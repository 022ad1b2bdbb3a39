//! The whole bridge as a library: for a Rust host whose actors share a process with it, and for the program.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mycelium_contracts::Encoding as Written;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_transport::frame::Encoding;
use shm_transport::socket::Address;
use shm_transport::wakeup::WaitStrategy;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::data_plane::{DataPlane, DataPlaneHandle, Snapshot, Stopped, default_spin_us};
use crate::event_loop::{
    ControlOptions, ControlPlane, ControlThread, ReloadCounters, StartError, WorkerStatus,
};
use crate::link::{LinkLayer, LinkSetupError, LinkStatus, Registry, UplinkStatus};
use crate::local::LocalChannel;
use crate::routes::{KeyPart, Topic};
use crate::shutdown::{Summary, TERMINATE_GRACE};

/// How long [`Bridge::shut_down_inline`] lets the data plane wait between two looks at the control plane.
const INLINE_TURN: Duration = Duration::from_millis(5);

/// Why a bridge did not start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The control plane did not start.
    #[error(transparent)]
    Control(#[from] StartError),
    /// The links of the configured workers could not be created.
    #[error(transparent)]
    Links(#[from] LinkSetupError),
    /// A system call failed.
    #[error(
        "bridge could not start: step={step}: {source}; check the limits of the process (ulimit -a)"
    )]
    System {
        /// What was being set up.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A running bridge inside a host process. Dropping it shuts it down and waits for that.
///
/// ```no_run
/// use mycelium_bridge::bridge::Bridge;
/// use mycelium_bridge::config::Config;
/// use mycelium_messages::bandit::{Quote, Signal};
///
/// let bridge = Bridge::start(&Config::load("bridge.toml")?)?;
/// let mut actor = bridge.attach("pricing")?;
/// actor.subscribe::<Signal>()?;
/// actor.publish(&Quote { bid: 1.1212, ask: 1.1217, ..Quote::default() }, None)?;
/// let signal: Signal = actor.recv(None)?.read()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Bridge {
    // Dropped in this order: the control plane ends the workers while the data plane still delivers.
    control: Option<ControlThread>,
    plane: DataPlaneHandle,
    plane_thread: Option<JoinHandle<()>>,
    registry: Registry,
    wait: WaitStrategy,
}

/// The parts that every kind of bridge is made of.
struct Parts {
    data_plane: DataPlane,
    handle: DataPlaneHandle,
    links: LinkLayer,
    registry: Registry,
    wait: WaitStrategy,
}

impl Parts {
    fn new(config: &Config) -> Result<Self, BridgeError> {
        let wait = wait_strategy(config.bridge.spin_us);
        let (events, router_events) = mpsc::unbounded_channel();
        let (data_plane, handle) =
            DataPlane::new(topics(config), wait, events).map_err(|source| BridgeError::System {
                step: "data plane",
                source,
            })?;
        let (links, registry) = LinkLayer::new(config, handle.clone(), router_events)?;
        Ok(Self {
            data_plane,
            handle,
            links,
            registry,
            wait,
        })
    }
}

impl Bridge {
    /// Starts the bridge with a thread for the data plane and one for the control plane, and all workers.
    ///
    /// # Errors
    ///
    /// [`BridgeError`]; nothing is left running then.
    pub fn start(config: &Config) -> Result<Self, BridgeError> {
        let (mut bridge, data_plane) = Self::start_inline(config)?;
        bridge.plane_thread = Some(spawn_data_plane(data_plane)?);
        Ok(bridge)
    }

    /// Starts the bridge without a thread for the data plane: nothing moves unless the host calls
    /// [`DataPlane::turn`], which saves an actor on the same thread one hop. Handshakes and subscriptions need those
    /// calls too. End it with [`Bridge::shut_down_inline`].
    ///
    /// # Errors
    ///
    /// [`BridgeError`]; nothing is left running then.
    pub fn start_inline(config: &Config) -> Result<(Self, DataPlane), BridgeError> {
        let Parts {
            data_plane,
            handle,
            links,
            registry,
            wait,
        } = Parts::new(config)?;
        let options = ControlOptions {
            handle_signals: false,
            end_with_workers: false,
            guard_descendants: false,
            control_socket: false,
        };
        let control = Some(ControlThread::spawn(config, links, options)?);
        let bridge = Self {
            control,
            plane: handle,
            plane_thread: None,
            registry,
            wait,
        };
        Ok((bridge, data_plane))
    }

    /// Opens the link of an actor in this process.
    ///
    /// # Errors
    ///
    /// [`LinkSetupError`] if the name is taken or there is no memory.
    pub fn attach(&self, name: &str) -> Result<LocalChannel, LinkSetupError> {
        LocalChannel::open(
            name,
            self.registry.local_ring_capacity(),
            self.wait,
            self.plane.clone(),
            self.registry.clone(),
        )
    }

    /// Where clients can connect, with the ports that are bound.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.control.as_ref().map_or(&[], ControlThread::addresses)
    }

    /// What is known of the link with this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<LinkStatus> {
        self.registry.link(name)
    }

    /// What is known of all links.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        self.registry.links()
    }

    /// What is known of the uplinks, in the order of the configuration.
    #[must_use]
    pub fn uplinks(&self) -> Vec<UplinkStatus> {
        self.registry.uplinks()
    }

    /// Has the configuration file read again; see
    /// [`ControlHandle::reload`](crate::event_loop::ControlHandle::reload).
    pub fn reload(&self) {
        if let Some(control) = &self.control {
            control.handle().reload();
        }
    }

    /// Reloads of the configuration so far.
    #[must_use]
    pub fn reloads(&self) -> ReloadCounters {
        let control = self.control.as_ref();
        control.map_or_else(ReloadCounters::default, |control| {
            control.handle().reloads()
        })
    }

    /// What is known of the workers; see [`ControlHandle::workers`](crate::event_loop::ControlHandle::workers).
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let control = self.control.as_ref();
        control.map_or_else(Vec::new, |control| control.handle().workers())
    }

    /// What is known of the worker with this name.
    #[must_use]
    pub fn worker(&self, name: &str) -> Option<WorkerStatus> {
        let mut workers = self.workers().into_iter();
        workers.find(|worker| worker.name == name)
    }

    /// Clients that were refused because `max_pending_handshakes` others were in the middle of their handshake.
    #[must_use]
    pub fn refused_busy(&self) -> u64 {
        self.registry.refused_busy()
    }

    /// Clients that were refused because their user is not on the list, or their token is missing or wrong.
    #[must_use]
    pub fn refused_not_allowed(&self) -> u64 {
        self.registry.refused_not_allowed()
    }

    /// What the data plane counted. Not for a host that drives the data plane on the same thread; see
    /// [`DataPlane::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.plane.snapshot()
    }

    /// Stops the bridge: every peer is asked to end, gets what is on its way, and is ended by force after the deadline
    /// of the configuration.
    ///
    /// # Errors
    ///
    /// If the control plane failed.
    pub fn shut_down(mut self) -> io::Result<Summary> {
        let Some(control) = self.control.take() else {
            return Err(io::Error::other("bridge has no control plane"));
        };
        control
            .handle()
            .shut_down("the host of the bridge is done with it");
        let summary = control.join();
        self.stop_data_plane();
        summary
    }

    /// As [`Bridge::shut_down`], for a host that drives the data plane: it goes on moving frames meanwhile.
    ///
    /// # Errors
    ///
    /// If the control plane failed.
    pub fn shut_down_inline(mut self, data_plane: &mut DataPlane) -> io::Result<Summary> {
        let Some(control) = self.control.take() else {
            return Err(io::Error::other("bridge has no control plane"));
        };
        control
            .handle()
            .shut_down("the host of the bridge is done with it");
        while !control.is_finished() {
            data_plane.turn(Some(INLINE_TURN));
        }
        control.join()
    }

    fn stop_data_plane(&mut self) {
        self.plane.stop();
        if let Some(thread) = self.plane_thread.take()
            && thread.join().is_err()
        {
            tracing::error!("data plane panicked; its message is on standard error");
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(self.control.take());
        self.stop_data_plane();
    }
}

/// Runs a bridge on the calling thread until it is told to stop by a signal: the program.
///
/// # Errors
///
/// [`BridgeError`]; nothing is left running then.
pub fn run(config: &Config) -> Result<Summary, BridgeError> {
    let Parts {
        data_plane,
        handle,
        links,
        ..
    } = Parts::new(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| BridgeError::System {
        step: "control runtime",
        source,
    })?;
    let options = ControlOptions {
        handle_signals: true,
        end_with_workers: true,
        guard_descendants: true,
        control_socket: true,
    };
    let summary = runtime.block_on(async {
        let control = ControlPlane::new(config, links, options)?;
        let thread = spawn_data_plane(data_plane)?;
        let mut summary = control.run().await;
        handle.stop();
        summary.data_plane_failed = !has_ended_well(&handle, thread);
        Ok(summary)
    });
    // Who asks the data plane for something on a thread for blocking calls waits as long as it stands still.
    runtime.shutdown_timeout(TERMINATE_GRACE);
    summary
}

/// Whether the data plane has come to its end when it was told to. One that stands still is left to the end of the process.
fn has_ended_well(handle: &DataPlaneHandle, thread: JoinHandle<()>) -> bool {
    let mut ended = [PollFd::new(handle.ended(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(TERMINATE_GRACE).unwrap_or(PollTimeout::ZERO);
    let begun = Instant::now();
    let mut answer = poll(&mut ended, timeout);
    while answer == Err(Errno::EINTR) && begun.elapsed() < TERMINATE_GRACE {
        answer = poll(&mut ended, timeout);
    }
    if answer != Ok(1) {
        tracing::error!(
            "data plane stands still and is left behind; what waited in its rings is lost"
        );
        return false;
    }
    let joined = thread.join();
    if joined.is_err() {
        tracing::error!("data plane panicked; its message is on standard error");
    }
    joined.is_ok()
}

fn spawn_data_plane(data_plane: DataPlane) -> Result<JoinHandle<()>, BridgeError> {
    let thread = std::thread::Builder::new()
        .name("mycelium-data".into())
        .spawn(move || data_plane.run());
    thread.map_err(|source| BridgeError::System {
        step: "data plane thread",
        source,
    })
}

/// How threads of the bridge wait, told from `spin_us` in `[bridge]`.
pub(crate) fn wait_strategy(spin_us: Option<u32>) -> WaitStrategy {
    match spin_us.unwrap_or_else(default_spin_us) {
        0 => WaitStrategy::Park,
        spin_us => WaitStrategy::Hybrid { spin_us },
    }
}

fn topics(config: &Config) -> Vec<Topic> {
    let topic = |message: &mycelium_contracts::Message| Topic {
        topic_id: message.topic_id,
        message: message.name.clone(),
        payload_len: message.wire_len.unwrap_or(0)..=message.max_size,
        encoding: encoding(message),
        delivery: config
            .delivery
            .get(&message.name)
            .copied()
            .unwrap_or(message.delivery),
        key: key(message),
    };
    config.contracts.messages().map(topic).collect()
}

/// How the payloads of a message are written, as frames say it.
pub(crate) fn encoding(message: &mycelium_contracts::Message) -> Encoding {
    match message.encoding {
        Written::Contract => Encoding::Contract,
        Written::MsgPack => Encoding::MsgPack,
        Written::Json => Encoding::Json,
        Written::Raw => Encoding::Raw,
    }
}

/// Where the key of a message lies; nowhere if its layout is not fixed.
fn key(message: &mycelium_contracts::Message) -> Vec<KeyPart> {
    if message.wire_len.is_none() {
        return Vec::new();
    }
    let key = message.fields.iter();
    key.filter(|field| message.key.contains(&field.name))
        .map(|field| KeyPart {
            offset: field.offset,
            len: field.size,
        })
        .collect()
}
