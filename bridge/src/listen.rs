//! Where clients connect. This file has the listening UNIX socket: binding it without a moment of exposure, and taking
//! over what a killed bridge left behind. Below are endpoints of all kinds ([`Endpoint`]), and who may connect.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};

mod credentials;
mod endpoint;
mod tls;
mod token;
mod validity;

pub use credentials::{NotAllowed, PeerCredentials};
pub(crate) use endpoint::Listening;
pub use endpoint::{Client, ClientStream, Endpoint, Peer};
pub use tls::{TlsConfig, TlsError};
pub use token::{TOKEN_MAX, TOKEN_MIN, Token, TokenError};

/// Longest path of a UNIX socket, in bytes: `sun_path` holds 108 including the final zero.
pub const SOCKET_PATH_MAX: usize = 107;

/// Connections that wait to be accepted before further ones are turned away by the kernel.
const BACKLOG: i32 = 128;

/// How often, and how long apart, the lock of the directory is tried: two seconds in all.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why the bridge cannot listen on a path.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path does not fit into a socket address.
    #[error("listen path is not usable: path={}, length={length}, legal=1..={SOCKET_PATH_MAX} bytes", path.display())]
    PathLength {
        /// The path as it would be bound.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The directory of the socket does not exist or is no directory.
    #[error("listen directory is not usable: path={}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is in the place of the socket. It is never removed.
    #[error("listen path is taken by something that is no socket: path={}, kind={kind}", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// For example `file` or `directory`.
        kind: &'static str,
    },
    /// A process is listening on it.
    #[error("socket path in use: path={}, pid={pid}, uid={uid}", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
        /// Process that listens.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// Another bridge has held the lock of the directory for two seconds.
    #[error("listen directory stays locked by another process: path={}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A port cannot be bound.
    #[error("cannot listen: address={address}: {source}")]
    Tcp {
        /// As configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action}: path={}: {source}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenError {
    /// What to change.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::PathLength { .. } => {
                "choose a shorter path for listen, for example below /run or /tmp"
            }
            Self::Directory { .. } => "create the directory first, writable for this user only",
            Self::NotASocket { .. } => "choose another path for listen, or move that away yourself",
            Self::InUse { .. } => "stop that process, or choose another path for listen",
            Self::Locked { .. } => {
                "find the process that holds a lock on the directory (lslocks), or choose another one"
            }
            Self::Tcp { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => "choose another port, or stop who listens (ss -ltnp)",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are for root; choose a higher one"
                }
                _ => "choose a name or an address of this host",
            },
            Self::System { .. } => "check owner and permissions of the path and of its directory",
        }
    }
}

/// Checks what can be told about a listen path without touching it.
///
/// # Errors
/// [`ListenError::PathLength`].
pub fn check_path(path: &Path) -> Result<(), ListenError> {
    let length = path.as_os_str().as_bytes().len();
    if length == 0 || length > SOCKET_PATH_MAX {
        return Err(ListenError::PathLength {
            path: path.to_owned(),
            length,
        });
    }
    Ok(())
}

/// A bound, listening socket file of mode 0600. Dropping it removes the file if it is still this one.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file that this listener created.
    identity: (u64, u64),
}

impl Listener {
    /// Binds `path`. The socket is non-blocking and close-on-exec.
    ///
    /// A socket file that nobody listens on is what a killed bridge leaves behind: it is replaced, with a line in the
    /// log. Everything else in the place is an error and stays as it is. While looking and binding, an advisory lock
    /// on the directory keeps two starting bridges from removing each other's fresh socket.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left behind then.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        check_path(path)?;
        let system = |action| {
            move |errno: Errno| ListenError::System {
                action,
                path: path.to_owned(),
                source: errno.into(),
            }
        };
        let address = UnixAddr::new(path).map_err(system("use the socket path"))?;
        let _lock = lock_directory(path)?;
        remove_if_stale(path, &address)?;
        let socket = new_socket().map_err(system("create a socket"))?;
        // `bind` creates the file with the mode of the socket's own inode, less the umask: set before, the file is
        // 0600 from its first instant, whatever the umask, which belongs to the whole process and is left alone.
        fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(system("set the mode of the socket"))?;
        bind(socket.as_raw_fd(), &address).map_err(system("bind the socket"))?;
        let file = |action| {
            move |source| ListenError::System {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let metadata = std::fs::symlink_metadata(path).map_err(file("look at the bound socket"))?;
        let listener = Self {
            socket: UnixListener::from(socket),
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        // Kernels that ignore the socket's own mode are told again. Until `listen`, every connect is refused.
        if metadata.permissions().mode() & 0o777 != 0o600 {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
                .map_err(file("set the mode of the socket"))?;
        }
        let backlog = Backlog::new(BACKLOG).map_err(system("size the backlog"))?;
        listen(&listener.socket, backlog).map_err(system("listen on the socket"))?;
        Ok(listener)
    }

    /// The socket, for example for a tokio listener (it is non-blocking).
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn try_clone_socket(&self) -> io::Result<UnixListener> {
        self.socket.try_clone()
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the listening socket");
        }
    }
}

fn new_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
}

/// The kernel drops the lock with the file, also when the process is killed.
fn lock_directory(path: &Path) -> Result<Flock<File>, ListenError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let failed = |source| ListenError::Directory {
        path: parent.to_owned(),
        source,
    };
    let mut directory = File::open(parent).map_err(failed)?;
    let metadata = directory.metadata().map_err(failed)?;
    if !metadata.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    if metadata.permissions().mode() & 0o1002 == 0o0002 {
        tracing::warn!(path = %parent.display(), "any user can replace the listening socket: its directory is writable for all");
    }
    for _ in 0..LOCK_ATTEMPTS {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => directory = file,
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(ListenError::Locked {
        path: parent.to_owned(),
    })
}

/// Connecting tells a live socket from a left-over one: only where nobody listens is the connection refused.
fn remove_if_stale(path: &Path, address: &UnixAddr) -> Result<(), ListenError> {
    let system = |action, source: io::Error| ListenError::System {
        action,
        path: path.to_owned(),
        source,
    };
    let file_type = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("look at the listen path", error)),
    };
    if !file_type.is_socket() {
        let kind = if file_type.is_dir() {
            "directory"
        } else if file_type.is_symlink() {
            "symbolic link"
        } else if file_type.is_file() {
            "file"
        } else {
            "special file"
        };
        return Err(ListenError::NotASocket {
            path: path.to_owned(),
            kind,
        });
    }
    // Non-blocking, so that a live bridge with a full backlog answers EAGAIN rather than holding us up.
    let probe = new_socket().map_err(|errno| system("create a socket", errno.into()))?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => {
            std::fs::remove_file(path)
                .map_err(|error| system("remove the left-over socket", error))?;
            tracing::info!(path = %path.display(), "removed a socket that a bridge left behind without listening on it");
            Ok(())
        }
        Ok(()) => {
            let owner = getsockopt(&probe, sockopt::PeerCredentials)
                .map_err(|errno| system("ask who listens on the socket", errno.into()))?;
            Err(ListenError::InUse {
                path: path.to_owned(),
                pid: owner.pid(),
                uid: owner.uid(),
            })
        }
        Err(errno) => Err(system("tell whether the socket is in use", errno.into())),
    }
}

#[cfg(test)]
mod tests;
