//! Starting a worker process, watching it, forwarding its output, and ending its whole process group.
//!
//! A worker must not outlive the bridge, even one killed with SIGKILL: it asks the kernel for SIGKILL on the death of
//! its parent (`PR_SET_PDEATHSIG`). The kernel means the *thread* that started it, so workers may only be started from a
//! thread that lives as long as the bridge; that is the control thread of [`crate::event_loop`]. What the worker starts
//! is ended with it: its process group, and whatever carries its mark (`tree.rs`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::config::{TransportMode, WorkerConfig};
use crate::output::{self, LastWords};

mod child;
pub(crate) mod guard;
mod tree;

pub use guard::{GUARD_COMMAND, stand_guard};
pub use tree::ENV_TREE;

use child::{Preparation, failed_key};
use tree::{kill_marked, next_mark, open_process};

/// Variable that holds the number of the worker's end of its connection to the bridge.
pub const ENV_FD: &str = "MYCELIUM_FD";

/// Variable that holds the worker's name.
pub const ENV_WORKER: &str = "MYCELIUM_WORKER";

/// Python buffers what it prints into a pipe, and a killed worker takes the buffer with it. Set unless already set.
const ENV_UNBUFFERED: &str = "PYTHONUNBUFFERED";

/// What the bridge itself was told by whoever started it, and what concerns nobody else.
const ENV_BRIDGE_ONLY: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// How long the end of a worker's output is waited for after its process group is gone. Only a descendant that has left
/// the group can hold the pipe open that long.
const OUTPUT_DRAIN: Duration = Duration::from_millis(500);

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No connection for it, usually for want of file descriptors.
    #[error(
        "cannot create the connection of a worker: worker={worker}: {source}; raise the limit of open files (ulimit -n)"
    )]
    Socket {
        /// Name of the worker.
        worker: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process did not come up to executing its program.
    #[error(
        "cannot start worker: worker={worker}, program={}, working_dir={}: {source}; check that both exist and that \
         this user may use them", program.display(), working_dir.display()
    )]
    Process {
        /// Name of the worker.
        worker: String,
        /// The executable.
        program: PathBuf,
        /// The directory it was to start in.
        working_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process could not be given what its configuration asks for.
    #[error(
        "cannot start worker: worker={worker}, key={key}, value={value}: {source}; this user may not set it, or not so: \
         change it, or give the bridge the right to"
    )]
    Setting {
        /// Name of the worker.
        worker: String,
        /// The key of its configuration.
        key: String,
        /// What it asks for.
        value: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A worker process that has just been started.
#[derive(Debug)]
pub struct SpawnedWorker {
    /// Its process id, which is also the id of its process group.
    pub pid: u32,
    /// The bridge's end of its connection, in blocking mode. The worker's end is open in the worker only, so a hang-up
    /// means that the worker (and whoever inherited it) is gone.
    pub socket: UnixStream,
    /// Sends signals to the whole process group.
    pub group: ProcessGroup,
    /// Filled in as it prints.
    pub(crate) last_words: LastWords,
    /// The process itself, to be waited for.
    pub process: WorkerProcess,
}

/// A handle that can signal a worker's process group as long as its process has not been reaped; afterwards the number
/// may belong to somebody else, and signals go nowhere.
#[derive(Debug, Clone)]
pub struct ProcessGroup {
    id: Pid,
    reaped: Arc<AtomicBool>,
}

impl ProcessGroup {
    /// Sends `signal` to the worker and everything it started. `false` if it is gone already.
    pub fn signal(&self, signal: Signal) -> bool {
        // Relaxed: reaping and signalling both happen on the control thread.
        !self.reaped.load(Ordering::Relaxed) && killpg(self.id, signal).is_ok()
    }
}

/// A running worker process. Dropping it kills the process.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    group: ProcessGroup,
    /// What everything that it starts carries.
    mark: String,
    output: Vec<JoinHandle<()>>,
}

impl WorkerProcess {
    /// Waits until the process has ended, ends what it has started, forwards the rest of its output, reaps it.
    ///
    /// The group is killed before the process is reaped, while its number cannot have been given to anybody else.
    ///
    /// # Errors
    /// What the system said; the process is then no longer a child of the bridge.
    pub async fn wait(mut self) -> io::Result<ExitStatus> {
        let status = match self.exit_notice() {
            Ok(notice) => {
                notice.readable().await?.retain_ready();
                self.group.signal(Signal::SIGKILL);
                self.end_descendants().await;
                self.drain_output().await;
                self.child.wait().await
            }
            // Before Linux 5.3, or behind a seccomp filter: reaped first, so there is an instant in which the number of
            // an empty group could have been given away; process ids would have to wrap around within it.
            Err(_) => {
                let status = self.child.wait().await;
                self.group.signal(Signal::SIGKILL);
                self.end_descendants().await;
                self.drain_output().await;
                status
            }
        };
        self.group.reaped.store(true, Ordering::Relaxed);
        status
    }

    /// Ends what has left the group. Looking at every process takes too long for the control thread.
    async fn end_descendants(&mut self) {
        let mark = std::mem::take(&mut self.mark);
        // A panic in it has been reported; without a runtime there is no bridge any more.
        let killed = tokio::task::spawn_blocking(move || kill_marked(&mark)).await;
        if let Ok(killed @ 1..) = killed {
            let pid = self.group.id.as_raw();
            tracing::info!(pid, killed, "descendants of a worker are ended with it");
        }
    }

    async fn drain_output(&mut self) {
        let readers = std::mem::take(&mut self.output);
        let all = async {
            for reader in readers {
                // A reader that panicked has nothing more to forward.
                let _ = reader.await;
            }
        };
        if tokio::time::timeout(OUTPUT_DRAIN, all).await.is_err() {
            tracing::debug!(
                pid = self.group.id.as_raw(),
                "output is still held open by a process that left the group"
            );
        }
    }

    /// A descriptor that becomes readable when the process ends, which does not reap it.
    fn exit_notice(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let fd = open_process(self.group.id.as_raw())?;
        // SAFETY: `OwnedFd` keeps this one open descriptor until it is dropped, which only the `AsyncFd` that owns it does.
        Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
    }
}

/// Starts a worker with a connection to the bridge. Needs a tokio runtime; see the module for which thread may call it.
///
/// The process gets its own process group, standard input from `/dev/null`, standard output and error into the log (with
/// its name; a worker with the transport `stdio` has its connection on standard input and output instead), the bridge's environment with the configured additions (or those alone), [`ENV_FD`], [`ENV_WORKER`] and
/// [`ENV_TREE`], and what [`WorkerConfig::process`] asks for. It inherits no other descriptor of the bridge. Cost: fork
/// and exec, some milliseconds.
///
/// # Errors
/// [`SpawnError`]; no process is left then.
pub fn spawn_worker(config: &WorkerConfig) -> Result<SpawnedWorker, SpawnError> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| SpawnError::Socket {
        worker: config.name.clone(),
        source: errno.into(),
    })?;
    let mark = next_mark();
    let mut command = Command::new(&config.program);
    command.args(&config.args).current_dir(&config.working_dir);
    if config.process.clear_env {
        command.env_clear();
    } else {
        for name in ENV_BRIDGE_ONLY {
            command.env_remove(name);
        }
    }
    if config.process.clear_env || std::env::var_os(ENV_UNBUFFERED).is_none() {
        command.env(ENV_UNBUFFERED, "1");
    }
    command
        .envs(&config.env)
        .env(ENV_WORKER, &config.name)
        .env(ENV_TREE, &mark)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let inherited = if config.transport == TransportMode::Stdio {
        let output = theirs.try_clone().map_err(|source| SpawnError::Socket {
            worker: config.name.clone(),
            source,
        })?;
        command.env_remove(ENV_FD).stdin(theirs).stdout(output);
        None
    } else {
        command
            .env(ENV_FD, theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Some(theirs)
    };
    let preparation = Preparation::new(&config.process, inherited);
    // SAFETY: `Preparation::apply` makes plain system calls on integers and a processor set that it owns, takes no lock
    // and allocates nothing, as is required between fork and exec.
    unsafe {
        command.pre_exec(move || preparation.apply());
    }
    let failed = |source| match failed_key(&source, &config.process) {
        Some(failed) => SpawnError::Setting {
            worker: config.name.clone(),
            key: failed.key,
            value: failed.value,
            source: failed.errno.into(),
        },
        None => SpawnError::Process {
            worker: config.name.clone(),
            program: config.program.clone(),
            working_dir: config.working_dir.clone(),
            source,
        },
    };
    let mut child = command.spawn().map_err(failed)?;
    // The command owns the worker's end; were it kept open here, the worker's death would go unnoticed.
    drop(command);
    let pid = child
        .id()
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let group = ProcessGroup {
        id: Pid::from_raw(pid.cast_signed()),
        reaped: Arc::new(AtomicBool::new(false)),
    };
    let worker: Arc<str> = config.name.as_str().into();
    let mut output = Vec::new();
    let last_words = LastWords::default();
    if let Some(stdout) = child.stdout.take() {
        output.push(tokio::spawn(output::forward(
            Arc::clone(&worker),
            pid,
            "stdout",
            None,
            stdout,
        )));
    }
    if let Some(stderr) = child.stderr.take() {
        let kept = Some(last_words.clone());
        output.push(tokio::spawn(output::forward(
            worker, pid, "stderr", kept, stderr,
        )));
    }
    let process = WorkerProcess {
        child,
        group: group.clone(),
        mark,
        output,
    };
    Ok(SpawnedWorker {
        pid,
        socket: UnixStream::from(ours),
        group,
        last_words,
        process,
    })
}
