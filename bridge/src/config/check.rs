//! Checks what was written against the world: contracts, directories, commands, names.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mycelium_contracts::{Contracts, Delivery};
use mycelium_messages::layout::{FRAME_ALIGN, FRAME_HEADER_LEN, RING_RECORD_DIVISOR};
use shm_transport::segment::{Backing, MemoryOptions};
use tracing_subscriber::EnvFilter;

use super::delivery;
use super::endpoint;
use super::problem::Problems;
use super::read::{Bridge, File, Memory, Worker};
use super::section::At;
use super::uplink::{self, UplinkConfig};
use super::{
    BridgeConfig, ListenConfig, MemoryConfig, MetricsConfig, OnMismatch, RestartConfig,
    Subscription, TransportMode, WorkerConfig,
};
use super::{process, watch, watching};
use crate::supervisor::{ENV_FD, ENV_TREE, ENV_WORKER};

/// Capacity of a ring where the file names none, in bytes.
const RING_CAPACITY_DEFAULT: usize = 1 << 20;

/// Directory of what outlives the bridge where the file names none, beside the configuration.
const STATE_DIR_DEFAULT: &str = "mycelium-state";

/// So many deaths over one record have it moved aside where the file names no number.
const QUARANTINE_AFTER_DEFAULT: u32 = 3;

/// Time that workers get to end by themselves where the file names none.
const SHUTDOWN_TIMEOUT_DEFAULT: Duration = Duration::from_millis(2000);

/// Variables that the bridge sets itself.
const OWN_VARIABLES: [&str; 3] = [ENV_FD, ENV_WORKER, ENV_TREE];

/// Filter directives of the log where the file names none.
const LOG_DEFAULT: &str = "info";

/// The parts of a configuration.
pub(super) struct Checked {
    pub(super) bridge: BridgeConfig,
    pub(super) listen: Vec<ListenConfig>,
    pub(super) metrics: Option<MetricsConfig>,
    pub(super) workers: Vec<WorkerConfig>,
    pub(super) uplinks: Vec<UplinkConfig>,
    pub(super) delivery: BTreeMap<String, Delivery>,
    pub(super) contracts: Arc<Contracts>,
}

/// Checks everything; `None` where something is missing that no default can replace.
pub(super) fn file(
    written: File,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Option<Checked> {
    let contracts = contracts(&written.bridge, directory, problems);
    let defaults = endpoint::Defaults {
        listen: written.bridge.listen.clone(),
        max_pending_handshakes: written.bridge.max_pending_handshakes,
    };
    let listen = endpoint::check(defaults, written.listen, directory, problems);
    let own_listen = written.bridge.listen.as_ref().and(listen.first());
    let mut bridge = bridge(written.bridge, own_listen, directory, problems);
    let metrics = watching::metrics(written.metrics, problems);
    bridge.on_mismatch = written.on_mismatch.unwrap_or_default();
    names_are_unique(&written.workers, problems);
    let order: Vec<_> = written
        .workers
        .iter()
        .map(|worker| (worker.name.as_ref().map(|at| &*at.value), &worker.watch))
        .collect();
    watch::check_order(&order, problems);
    let delivery = contracts
        .as_ref()
        .map(|contracts| delivery::check_policies(written.delivery, contracts, problems));
    let names: Vec<_> = order.iter().filter_map(|(name, _)| *name).collect();
    let uplinks = contracts.as_ref().map(|contracts| {
        uplink::check(
            written.uplinks,
            &bridge,
            contracts,
            &names,
            directory,
            problems,
        )
    });
    let mut workers = Vec::new();
    for item in written.workers {
        if let Some(contracts) = &contracts {
            check_topics(&item, &bridge, contracts, problems);
        }
        workers.push(worker(item, &bridge, directory, problems));
    }
    Some(Checked {
        bridge,
        listen,
        metrics,
        workers: workers.into_iter().collect::<Option<_>>()?,
        uplinks: uplinks.unwrap_or_default(),
        delivery: delivery.unwrap_or_default(),
        contracts: contracts?,
    })
}

/// Where the control socket is. Nothing else is looked at, so nothing else can be wrong.
pub(super) fn control(written: Bridge, directory: &Path) -> PathBuf {
    let mut problems = Problems::new("");
    let defaults = endpoint::Defaults {
        listen: written.listen.clone(),
        max_pending_handshakes: None,
    };
    let listen = endpoint::check(defaults, Vec::new(), directory, &mut problems);
    bridge(written, listen.first(), directory, &mut problems)
        .control
        .path
}

fn contracts(
    bridge: &Bridge,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Option<Arc<Contracts>> {
    let written = bridge.contracts.as_ref()?;
    let path = join(directory, &written.value);
    if let Err(error) = std::fs::metadata(&path) {
        problems.add(
            &written.span,
            format!(
                "[bridge]: cannot read the contracts file: path={}: {error}",
                path.display()
            ),
            "paths are relative to the directory of the configuration file",
        );
        return None;
    }
    match mycelium_contracts::load(&path) {
        Ok(contracts) if contracts.is_core() => {
            problems.add(
                &written.span,
                format!("[bridge]: the contracts file holds control messages, not an application's: path={}", path.display()),
                "name a file without core: true",
            );
            None
        }
        Ok(contracts) => Some(Arc::new(contracts)),
        Err(report) => {
            problems.add(
                &written.span,
                format!(
                    "[bridge]: the contracts file has errors: path={}\n{report}",
                    path.display()
                ),
                format!("run: mycelium-contracts check {}", path.display()),
            );
            None
        }
    }
}

fn bridge(
    written: Bridge,
    listen: Option<&ListenConfig>,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> BridgeConfig {
    let log = written.log.map_or_else(
        || LOG_DEFAULT.to_owned(),
        |at| {
            if let Err(error) = EnvFilter::builder().parse(&at.value) {
                problems.add(
                    &at.span,
                    format!("[bridge]: log is not a filter: value='{}': {error}", at.value),
                    "write a level (error | warn | info | debug | trace) or target=level, comma separated",
                );
            }
            at.value
        },
    );
    let allowed_uids = written
        .allowed_uids
        .unwrap_or_else(|| vec![nix::unistd::getuid().as_raw()]);
    let memory = memory(
        "[bridge]",
        written.memory,
        &MemoryConfig::default(),
        directory,
        problems,
    );
    if let (Some(span), Some(stranger)) = (memory.1, stranger(&allowed_uids)) {
        problems.add(
            &span,
            format!(
                "[bridge]: memory.directory and allowed_uids do not go together: uid={stranger} bridge={}; a file that \
                 is not sealed is shared with the own user only",
                nix::unistd::geteuid()
            ),
            "remove directory, or that user",
        );
    }
    let state_dir = written
        .state_dir
        .map(|at| join(directory, &at.value))
        .or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
        .unwrap_or_else(|| directory.join(STATE_DIR_DEFAULT));
    let control = written.control.as_ref();
    BridgeConfig {
        control: watching::control(control, listen, &state_dir, directory, problems),
        contracts: join(
            directory,
            written.contracts.as_ref().map_or("", |at| &at.value),
        ),
        transport: written.transport.unwrap_or(TransportMode::Auto),
        ring_capacity: written.ring_capacity.unwrap_or(RING_CAPACITY_DEFAULT),
        stage_capacity: written.stage_capacity,
        state_dir,
        spin_us: written.spin_us,
        allowed_uids,
        shutdown_timeout: written
            .shutdown_timeout_ms
            .map_or(SHUTDOWN_TIMEOUT_DEFAULT, Duration::from_millis),
        log,
        on_mismatch: OnMismatch::default(),
        memory: memory.0,
    }
}

/// A user that may connect and is not the bridge's own.
fn stranger(allowed_uids: &[u32]) -> Option<u32> {
    let own = nix::unistd::geteuid().as_raw();
    allowed_uids.iter().copied().find(|uid| *uid != own)
}

/// Fills in what a table leaves open. With it comes where the directory is named, if it is named here.
fn memory(
    label: &str,
    written: Memory,
    defaults: &MemoryConfig,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> (MemoryConfig, Option<Range<usize>>) {
    let mut place = None;
    let backing = match written.directory {
        None => defaults.backing.clone(),
        Some(at) => {
            let path = join(directory, &at.value);
            if !path.is_dir() {
                problems.add(
                    &at.span,
                    format!(
                        "{label}: memory.directory is no directory: path={}",
                        path.display()
                    ),
                    "name an existing one, best in a tmpfs such as /dev/shm",
                );
            }
            place = Some(at.span);
            Backing::File { directory: path }
        }
    };
    let options = MemoryOptions {
        prefault: written.prefault.unwrap_or(defaults.options.prefault),
        lock: written.lock.unwrap_or(defaults.options.lock),
        huge_pages: written.huge_pages.unwrap_or(defaults.options.huge_pages),
        require: false,
    };
    (MemoryConfig { backing, options }, place)
}

fn names_are_unique(workers: &[Worker], problems: &mut Problems<'_>) {
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (number, name) in workers
        .iter()
        .enumerate()
        .filter_map(|(n, w)| Some((n + 1, w.name.as_ref()?)))
    {
        match first.get(name.value.as_str()) {
            None => drop(first.insert(&name.value, number)),
            Some(earlier) => problems.add(
                &name.span,
                format!(
                    "worker '{}': name is taken: worker number {number} repeats number {earlier}",
                    name.value
                ),
                "names of workers are unique in a bridge",
            ),
        }
    }
}

/// Every subscribed message must exist, once, and fit into the worker's ring.
fn check_topics(
    worker: &Worker,
    bridge: &BridgeConfig,
    contracts: &Contracts,
    problems: &mut Problems<'_>,
) {
    let Some(subscribe) = &worker.subscribe else {
        return;
    };
    let capacity = worker.ring_capacity.unwrap_or(bridge.ring_capacity);
    for (index, written) in subscribe.value.iter().enumerate() {
        let (label, name) = (&worker.label, &written.message.value);
        let mut earlier = subscribe.value[..index].iter();
        if earlier.any(|other| other.message.value == *name) {
            problems.add(
                &written.message.span,
                format!("{label}: subscribe names '{name}' twice"),
                "remove one of them",
            );
            continue;
        }
        let place = format!("{label}: subscribe");
        let span = &written.message.span;
        let Some(message) = delivery::find(contracts, name, &place, span, problems) else {
            continue;
        };
        delivery::check(&place, written, message, problems);
        let payload = message.wire_len.unwrap_or(message.max_size);
        let record = (FRAME_HEADER_LEN + payload).next_multiple_of(FRAME_ALIGN);
        let max = capacity / RING_RECORD_DIVISOR;
        if record > max {
            problems.add(
                &worker.ring_capacity_span,
                format!(
                    "{label}: ring_capacity is too small for '{name}': record={record}, max={max} bytes \
                     (a quarter of ring_capacity={capacity})"
                ),
                format!("set ring_capacity = {}", (record * RING_RECORD_DIVISOR).next_power_of_two()),
            );
        }
    }
}

fn worker(
    written: Worker,
    bridge: &BridgeConfig,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Option<WorkerConfig> {
    let mut env = written.env.map_or_else(BTreeMap::new, |env| {
        check_env(&written.label, &env, problems);
        env.value
    });
    let process = process::check(
        &written.label,
        written.process,
        &mut env,
        directory,
        problems,
    );
    let (span, working_dir) = match written.working_dir {
        Some(at) => (at.span, join(directory, &at.value)),
        None => (written.span.clone(), directory.to_owned()),
    };
    let directory_exists = working_dir.is_dir();
    if !directory_exists {
        problems.add(
            &span,
            format!(
                "{}: working_dir is no directory: path={}",
                written.label,
                working_dir.display()
            ),
            "it is relative to the directory of the configuration file",
        );
    }
    let defaults = RestartConfig::default();
    let milliseconds =
        |at: Option<&At<u64>>, default| at.map_or(default, |at| Duration::from_millis(at.value));
    let restart = RestartConfig {
        policy: written.restart.unwrap_or(defaults.policy),
        backoff: milliseconds(written.backoff_ms.as_ref(), defaults.backoff),
        backoff_max: milliseconds(written.backoff_max_ms.as_ref(), defaults.backoff_max),
        limit: written
            .limit
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(defaults.limit),
        window: written
            .window_ms
            .map_or(defaults.window, Duration::from_millis),
    };
    if restart.backoff > restart.backoff_max {
        let span = written
            .backoff_max_ms
            .or(written.backoff_ms)
            .map_or(written.span, |at| at.span);
        problems.add(
            &span,
            format!(
                "{}: restart_backoff_max_ms is below restart_backoff_ms: value={}, min={}",
                written.label,
                restart.backoff_max.as_millis(),
                restart.backoff.as_millis()
            ),
            "raise restart_backoff_max_ms or lower restart_backoff_ms",
        );
    }
    let ring_capacity = written.ring_capacity.unwrap_or(bridge.ring_capacity);
    let command = written.command?;
    // Where the directory is wrong already, a relative command would only be reported as a second symptom.
    let program = if directory_exists {
        program(
            &written.label,
            &command,
            &working_dir,
            env.get("PATH").map(OsString::from),
            problems,
        )
    } else {
        None
    };
    Some(WorkerConfig {
        name: written.name?.value,
        program: program?,
        args: command.value[1..].to_vec(),
        working_dir,
        env,
        subscribe: written.subscribe.map_or_else(Vec::new, |at| {
            at.value.into_iter().map(Subscription::from).collect()
        }),
        stage_capacity: stage_capacity(
            &written.label,
            written.stage_capacity.or(bridge.stage_capacity),
            ring_capacity,
            &written.ring_capacity_span,
            problems,
        ),
        quarantine_after: written
            .quarantine_after
            .map_or(QUARANTINE_AFTER_DEFAULT, |count| {
                u32::try_from(count).unwrap_or(u32::MAX)
            }),
        transport: written.transport.unwrap_or(bridge.transport),
        ring_capacity,
        memory: memory(
            &written.label,
            written.memory,
            &bridge.memory,
            directory,
            problems,
        )
        .0,
        spin_us: written.spin_us.or(bridge.spin_us),
        process,
        watch: written.watch.into_config(),
        restart,
        settings: written.settings,
    })
}

/// The stage takes every frame that the ring takes.
fn stage_capacity(
    label: &str,
    written: Option<usize>,
    ring_capacity: usize,
    span: &Range<usize>,
    problems: &mut Problems<'_>,
) -> usize {
    let capacity = written.unwrap_or(ring_capacity);
    if capacity < ring_capacity {
        problems.add(
            span,
            format!(
                "{label}: stage_capacity is below ring_capacity: value={capacity}, min={ring_capacity}"
            ),
            "raise stage_capacity or lower ring_capacity",
        );
    }
    capacity
}

fn check_env(label: &str, env: &At<BTreeMap<String, String>>, problems: &mut Problems<'_>) {
    for (name, value) in &env.value {
        if OWN_VARIABLES.contains(&name.as_str()) {
            problems.add(
                &env.span,
                format!("{label}: env sets {name}, which the bridge sets itself"),
                "remove it",
            );
        } else if !is_legal_variable(name, value) {
            problems.add(
                &env.span,
                format!("{label}: env is not legal: name='{}'", name.escape_debug()),
                "names are not empty and hold no '='; neither names nor values hold a zero byte",
            );
        }
    }
}

/// Whether a worker may be given this variable.
pub(super) fn is_legal_variable(name: &str, value: &str) -> bool {
    !name.is_empty()
        && !name.contains(['=', '\0'])
        && !value.contains('\0')
        && !OWN_VARIABLES.contains(&name)
}

/// Finds the executable of a command: a name in `PATH`, anything with a slash relative to the working directory.
fn program(
    label: &str,
    command: &At<Vec<String>>,
    working_dir: &Path,
    path: Option<OsString>,
    problems: &mut Problems<'_>,
) -> Option<PathBuf> {
    let Some(name) = command.value.first().filter(|name| !name.is_empty()) else {
        problems.add(
            &command.span,
            format!("{label}: command is empty"),
            "name the program and its arguments",
        );
        return None;
    };
    if command.value.iter().any(|argument| argument.contains('\0')) {
        problems.add(
            &command.span,
            format!("{label}: command holds a zero byte"),
            "remove it",
        );
        return None;
    }
    let path = path
        .or_else(|| std::env::var_os("PATH"))
        .unwrap_or_default();
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![join(working_dir, name)]
    } else {
        // An empty entry of PATH means the current directory, which for the worker is its working directory.
        std::env::split_paths(&path)
            .map(|entry| join(working_dir, &entry).join(name))
            .collect()
    };
    if let Some(found) = candidates.iter().find(|candidate| is_executable(candidate)) {
        return Some(found.clone());
    }
    let (message, hint) = match candidates.iter().find(|candidate| candidate.is_file()) {
        Some(file) => (
            format!("command is not executable: path={}", file.display()),
            format!("run: chmod +x {}", file.display()),
        ),
        None if name.starts_with('/') => (
            format!("command not found: path={name}"),
            "name a program that is there; command -v python3 says where one is".to_owned(),
        ),
        None if name.contains('/') => (
            format!("command not found: path={}", candidates[0].display()),
            "a command with a slash is relative to working_dir".to_owned(),
        ),
        None => (
            format!("command not found: value='{name}', PATH={}", path.display()),
            "install it, extend PATH, or name it with a path".to_owned(),
        ),
    };
    problems.add(&command.span, format!("{label}: {message}"), hint);
    None
}

/// Whether anybody may execute it; whether this user may is decided by the kernel when the worker is started.
fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// `path` below `directory`, without the `.` components that `Path::join` keeps.
pub(super) fn join(directory: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = directory.join(path);
    path.components()
        .filter(|component| *component != Component::CurDir)
        .collect()
}
