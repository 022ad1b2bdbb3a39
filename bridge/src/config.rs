//! The bridge's TOML configuration: read, checked against the world, and reported on with every problem at once.
//!
//! [`Config::load`] either returns a configuration that can be run as it is (contracts loaded, commands found, paths
//! absolute) or a [`ConfigError`] that names each problem with its line and what to change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mycelium_contracts::Delivery;
use serde_json::{Map, Value};
use shm_transport::segment::{Backing, MemoryOptions};
use shm_transport::socket::Address;
use toml::de::DeTable;

mod check;
mod delivery;
mod endpoint;
mod overrides;
mod problem;
mod process;
mod read;
mod section;
mod source;
mod uplink;
mod watch;
mod watching;

pub use overrides::Overrides;
pub(crate) use problem::closest_first;
pub use problem::{ConfigError, Place, Problem};
pub use process::{Limit, ProcessConfig};
pub(crate) use uplink::MAX_PAYLOAD as UPLINK_PAYLOAD_MAX;
pub use uplink::UplinkConfig;
pub use watch::{Readiness, WatchConfig};
pub use watching::{ControlConfig, MetricsConfig};

use problem::Problems;

use crate::listen::{TlsConfig, Token};

/// Longest worker or link name, in bytes: what the handshake's `name` fields hold.
pub const WORKER_NAME_MAX: usize = 64;

/// Largest `[worker.settings]` table as JSON, in bytes: what a Settings frame holds.
pub const SETTINGS_MAX: usize = 65_536;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, as named by the caller.
    pub path: PathBuf,
    /// The variables that went before what the file says; a reload takes them again.
    pub overrides: Overrides,
    /// The `[bridge]` table.
    pub bridge: BridgeConfig,
    /// Where clients can connect: the path of `bridge.listen`, then the `[[listen]]` tables.
    pub listen: Vec<ListenConfig>,
    /// Where the metrics are.
    pub metrics: Option<MetricsConfig>,
    /// The `[[worker]]` tables in the order of the file; names are unique.
    pub workers: Vec<WorkerConfig>,
    /// The buses of Mycelium that the bridge joins: `[uplink]` or the `[[uplink]]` tables.
    pub uplinks: Vec<UplinkConfig>,
    /// The application contracts that `bridge.contracts` names.
    pub contracts: Arc<mycelium_contracts::Contracts>,
    /// The `[delivery]` table: policies of subscriptions, by message, where they are not those of the contracts.
    pub delivery: BTreeMap<String, Delivery>,
}

/// The `[bridge]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Path of the contracts file.
    pub contracts: PathBuf,
    /// Transport of clients.
    pub transport: TransportMode,
    /// Bytes of each ring of a client; a power of two.
    pub ring_capacity: usize,
    /// Bytes of each lane in which frames of a client wait; `None` takes those of the ring. A power of two.
    pub stage_capacity: Option<usize>,
    /// Directory of what outlives the bridge; made when there is something to keep.
    pub state_dir: PathBuf,
    /// Where `mycelium-bridge status` asks.
    pub control: ControlConfig,
    /// Longest time to spin before parking, in microseconds; `None` leaves the choice to the number of cores.
    pub spin_us: Option<u32>,
    /// Users that may connect to UNIX sockets.
    pub allowed_uids: Vec<u32>,
    /// Time from the request to stop until SIGTERM is sent to workers that have not ended.
    pub shutdown_timeout: Duration,
    /// Filter directives of the log.
    pub log: String,
    /// What happens to a peer whose contracts differ; `[contracts] on_mismatch`.
    pub on_mismatch: OnMismatch,
    /// Where the rings of clients lie, and what their pages get.
    pub memory: MemoryConfig,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// Where: `unix:`, `tcp:` or `tls:`; port 0 lets the system choose.
    pub address: Address,
    /// What clients have to know; every port has one.
    pub token: Option<Token>,
    /// Certificate and key of a `tls:` address.
    pub tls: Option<TlsConfig>,
    /// Longest time from the connection to the Hello, and from the Welcome to the Attached.
    pub handshake_timeout: Duration,
    /// Handshakes that may be under way at once; further clients are refused.
    pub max_pending_handshakes: usize,
    /// Whether its clients may have the policy `block`, with which they hold up publishers.
    pub allow_block: bool,
}

/// Where the rings of a link lie, and what their pages get in the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryConfig {
    /// What the segment is made of.
    pub backing: Backing,
    /// What its pages get.
    pub options: MemoryOptions,
}

/// What happens to a peer that was generated from other contracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMismatch {
    /// Topics whose layouts differ are refused, the others flow.
    #[default]
    Topic,
    /// The peer is refused.
    Refuse,
}

/// One `[[worker]]` table, with the defaults of `[bridge]` filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// Unique name: also the name of its link and the `worker` field of its log lines.
    pub name: String,
    /// The executable, found in `PATH` or relative to `working_dir`; absolute.
    pub program: PathBuf,
    /// Arguments after the program.
    pub args: Vec<String>,
    /// Absolute directory to start in.
    pub working_dir: PathBuf,
    /// Variables added to the bridge's own environment, or all that the worker gets; see [`ProcessConfig::clear_env`].
    pub env: BTreeMap<String, String>,
    /// What the bridge subscribes to for the worker.
    pub subscribe: Vec<Subscription>,
    /// Transport of the worker's link.
    pub transport: TransportMode,
    /// Bytes of each ring of the worker's link; a power of two.
    pub ring_capacity: usize,
    /// Bytes of each lane in which frames wait that the ring has no room for, where a policy has them wait; a power of two.
    pub stage_capacity: usize,
    /// A record that kills the worker so many times in a row is moved aside; 0 never does.
    pub quarantine_after: u32,
    /// Where the rings of the worker's link lie, and what their pages get.
    pub memory: MemoryConfig,
    /// Longest time to spin before parking, in microseconds; `None` leaves the choice to the number of cores.
    pub spin_us: Option<u32>,
    /// What its process gets before its program begins.
    pub process: ProcessConfig,
    /// When it starts, counts as up, and counts as hung.
    pub watch: WatchConfig,
    /// What happens when the worker ends.
    pub restart: RestartConfig,
    /// The worker's own settings, handed over as a JSON object.
    pub settings: Map<String, Value>,
}

/// One entry of a worker's `subscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Name of the message.
    pub message: String,
    /// What happens to a frame that finds no room; `None` leaves it to `[delivery]` and the contract.
    pub delivery: Option<Delivery>,
    /// The group of workers that share the frames.
    pub group: Option<String>,
}

/// What happens when a worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartConfig {
    /// Which ends lead to a restart.
    pub policy: RestartPolicy,
    /// Delay before the first restart; doubled for each further crash in a row, then shortened by up to a half at random.
    pub backoff: Duration,
    /// Upper bound of the delay. A run that stayed attached for longer than this starts over with `backoff`.
    pub backoff_max: Duration,
    /// Number of crashes within `window` that stop the worker for good.
    pub limit: u32,
    /// Length of the sliding window in which crashes are counted.
    pub window: Duration,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::OnFailure,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            limit: 10,
            window: Duration::from_secs(60),
        }
    }
}

/// Which ends of a worker lead to a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Any end, a clean exit included.
    Always,
    /// A non-zero exit status or a signal.
    OnFailure,
    /// None.
    Never,
}

/// How the frames of a link travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportMode {
    /// Shared memory where both sides can, otherwise the socket.
    Auto,
    /// Shared memory or nothing.
    Shm,
    /// The socket.
    Socket,
    /// A worker's standard input and output, for programs in any language.
    Stdio,
}

impl TransportMode {
    /// Whether its frames never go through shared memory.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Socket | Self::Stdio)
    }
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it are relative to its directory. The environment says
    /// nothing about its keys; see [`Config::load_with`].
    ///
    /// Looks at the file system (contracts file, working directories, commands) but starts nothing and creates nothing.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found. A file that is no TOML is reported with its first syntax error only, and
    /// more than 4 MiB are not read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::load_with(path, &Overrides::default())
    }

    /// As [`Config::load`], with variables that go before what the file says.
    ///
    /// # Errors
    /// As [`Config::load`]; a problem of a variable names it.
    pub fn load_with(path: impl AsRef<Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let source = source::read(path)?;
        Self::parse(path, &directory_of(path)?, &source, overrides)
    }

    /// Where the control socket is of a bridge that runs with this configuration. For whoever looks at a bridge: contracts,
    /// tokens, certificates and the programs of workers need not be there for that.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or something in it is not written as it has to be.
    pub fn control_path(path: &Path, overrides: &Overrides) -> Result<PathBuf, ConfigError> {
        let source = source::read(path)?;
        let directory = directory_of(path)?;
        let mut problems = Problems::new(&source);
        match written(&source, overrides, &mut problems) {
            Some(written) if problems.is_empty() => Ok(check::control(written.bridge, &directory)),
            _ => Err(problems.into_error(path)),
        }
    }

    fn parse(
        path: &Path,
        directory: &Path,
        source: &str,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(source);
        let checked = written(source, overrides, &mut problems)
            .and_then(|written| check::file(written, directory, &mut problems));
        match checked {
            Some(checked) if problems.is_empty() => Ok(Self {
                path: path.to_owned(),
                overrides: overrides.clone(),
                bridge: checked.bridge,
                listen: checked.listen,
                metrics: checked.metrics,
                workers: checked.workers,
                uplinks: checked.uplinks,
                delivery: checked.delivery,
                contracts: checked.contracts,
            }),
            _ => Err(problems.into_error(path)),
        }
    }
}

/// The absolute directory that paths in a configuration are relative to.
fn directory_of(path: &Path) -> Result<PathBuf, ConfigError> {
    let absolute = std::path::absolute(path).map_err(|error| {
        let message = format!("cannot tell the directory of the configuration: {error}");
        ConfigError::whole_file(path, message, "name the file with an absolute path")
    })?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The configuration as written, with the variables in it; `None` if the text is no TOML.
fn written(source: &str, overrides: &Overrides, problems: &mut Problems<'_>) -> Option<read::File> {
    match DeTable::parse(source) {
        Ok(mut root) => {
            overrides.apply(root.get_mut(), problems);
            Some(read::file(root.get_ref(), problems))
        }
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            problems.add(&span, format!("not valid TOML: {}", error.message()), "");
            None
        }
    }
}

#[cfg(test)]
mod tests;
