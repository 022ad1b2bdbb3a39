//! Starting a worker process, watching it, forwarding its output, and ending its whole process group.
//!
//! A worker must not outlive the bridge, even one killed with SIGKILL: it asks the kernel for SIGKILL on the death of
//! its parent (`PR_SET_PDEATHSIG`). The kernel means the *thread* that started it, so workers may only be started from a
//! thread that lives as long as the bridge; that is the control thread of [`crate::event_loop`]. Processes that the
//! worker starts share its process group, which is ended with it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, getpid, getppid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::config::WorkerConfig;
use crate::output;

/// Variable that holds the number of the worker's end of its connection to the bridge.
pub const ENV_FD: &str = "MYCELIUM_FD";

/// Variable that holds the worker's name.
pub const ENV_WORKER: &str = "MYCELIUM_WORKER";

/// Python buffers what it prints into a pipe, and a killed worker takes the buffer with it. Set unless already set.
const ENV_UNBUFFERED: &str = "PYTHONUNBUFFERED";

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
    output: Vec<JoinHandle<()>>,
}

impl WorkerProcess {
    /// Waits until the process has ended, ends what is left of its group, forwards the rest of its output, reaps it.
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
                self.drain_output().await;
                self.child.wait().await
            }
            // Before Linux 5.3, or behind a seccomp filter: reaped first, so there is an instant in which the number of
            // an empty group could have been given away; process ids would have to wrap around within it.
            Err(_) => {
                let status = self.child.wait().await;
                self.group.signal(Signal::SIGKILL);
                self.drain_output().await;
                status
            }
        };
        self.group.reaped.store(true, Ordering::Relaxed);
        status
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
        let pid: libc::c_long = self.group.id.as_raw().into();
        // SAFETY: pidfd_open takes a process id and flags by value and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0 as libc::c_long) };
        let fd = i32::try_from(Errno::result(fd)?).map_err(|_| io::Error::from(Errno::EBADF))?;
        // SAFETY: the call above has just returned this descriptor to us, and nobody else knows its number.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: `OwnedFd` keeps this one open descriptor until it is dropped, which only the `AsyncFd` that owns it does.
        Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
    }
}

/// Starts a worker with a connection to the bridge. Needs a tokio runtime; see the module for which thread may call it.
///
/// The process gets its own process group, standard input from `/dev/null`, standard output and error into the log (with
/// its name), the bridge's environment with the configured additions, [`ENV_FD`] and [`ENV_WORKER`]. It inherits no
/// other descriptor of the bridge. Cost: fork and exec, some milliseconds.
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
    let mut command = Command::new(&config.program);
    command.args(&config.args).current_dir(&config.working_dir);
    if std::env::var_os(ENV_UNBUFFERED).is_none() {
        command.env(ENV_UNBUFFERED, "1");
    }
    command
        .envs(&config.env)
        .env(ENV_FD, theirs.as_raw_fd().to_string())
        .env(ENV_WORKER, &config.name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    prepare_child(&mut command, theirs);
    let failed = |source| SpawnError::Process {
        worker: config.name.clone(),
        program: config.program.clone(),
        working_dir: config.working_dir.clone(),
        source,
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
    if let Some(stdout) = child.stdout.take() {
        output.push(tokio::spawn(output::forward(
            Arc::clone(&worker),
            pid,
            "stdout",
            stdout,
        )));
    }
    if let Some(stderr) = child.stderr.take() {
        output.push(tokio::spawn(output::forward(worker, pid, "stderr", stderr)));
    }
    let process = WorkerProcess {
        child,
        group: group.clone(),
        output,
    };
    Ok(SpawnedWorker {
        pid,
        socket: UnixStream::from(ours),
        group,
        process,
    })
}

/// Lets the child inherit `theirs` and die with the calling thread. The command keeps the descriptor open until dropped.
fn prepare_child(command: &mut Command, theirs: OwnedFd) {
    let parent = getpid();
    let in_child = move || {
        // What the bridge itself was started with may lack close-on-exec; no worker is to hold on to it. Kernels before
        // 5.11 cannot do this in one call: there the descriptors of the bridge's own parent stay open.
        //
        // SAFETY: close_range with CLOSE_RANGE_CLOEXEC takes three integers, touches no memory and closes nothing; it
        // marks descriptors of this child, which owns its table since the fork.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above; then nobody will send the signal any more.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe things may happen, because another thread may have held any
    // lock at the fork. The closure makes the plain system calls close_range, fcntl, prctl and getppid; it takes no lock, allocates
    // nothing (an `io::Error` made from an errno is a number), and reads only the two integers it owns.
    unsafe {
        command.pre_exec(in_child);
    }
}
