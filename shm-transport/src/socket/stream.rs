//! Connected byte streams of every kind, and the vectored calls on them.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockaddrLike, SockaddrStorage, getsockname, setsockopt, sockopt,
};
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::ring::{RingSlice, RingSliceMut};

/// A TCP connection without traffic is probed after this time, so that a peer that vanished without a word is noticed.
pub const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(15);
/// Time between two probes.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered probes after which the connection is lost.
pub const KEEP_ALIVE_COUNT: u32 = 3;

/// How long the end of a stream over TLS waits for a peer that takes nothing.
const TUNNEL_FLUSH_MAX: Duration = Duration::from_secs(5);

/// Slices that one vectored call takes.
const SLICES_MAX: usize = 8;

/// Bytes both ways, without blocking. What a pump needs of a stream; tests put a double in its place.
pub trait ByteStream {
    /// Sends the first bytes of the slices, in their order; says how many. At most eight slices, none of which needs to be
    /// sent as a whole.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing can be sent now, `Interrupted` to be called again, `BrokenPipe` if the peer is gone.
    fn write_vectored(&mut self, slices: &[RingSlice<'_>]) -> io::Result<usize>;

    /// Fills the slices from their start, in their order; says with how many bytes. 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there now, `Interrupted` to be called again.
    fn read_vectored(&mut self, slices: &mut [RingSliceMut<'_>]) -> io::Result<usize>;
}

/// What a stream is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// A UNIX stream socket. The only kind that can carry file descriptors, and so lead to shared memory.
    Unix,
    /// A TCP connection.
    Tcp,
    /// A UNIX stream socket to whoever encrypts for this side; what goes over the network is TLS.
    Tls,
    /// Two descriptors of any kind, one to read and one to write: pipes, or standard input and output.
    Pipes,
}

impl StreamKind {
    /// The name for logs and errors.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Pipes => "pipes",
        }
    }
}

/// A connected byte stream.
#[derive(Debug)]
pub struct Stream {
    kind: StreamKind,
    input: OwnedFd,
    /// Where bytes are written to, if that is another descriptor.
    output: Option<OwnedFd>,
    /// Dropped last: waits until what was written has gone out.
    _tunnel: Option<Tunnel>,
}

/// What keeps the other end of a pair of sockets at work; see [`Stream::behind_tls`].
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Ends when everything has gone out.
    pub(super) flushed: Mutex<Receiver<()>>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let flushed = self
            .flushed
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // Either outcome: the other end is done, or nobody takes it any more.
        let _ = flushed.recv_timeout(TUNNEL_FLUSH_MAX);
    }
}

impl Stream {
    /// Two descriptors, one to read and one to write, such as the ends of two pipes. Both become non-blocking, and so do
    /// other descriptors on the same open file.
    ///
    /// # Errors
    ///
    /// If they cannot be made non-blocking.
    pub fn from_pipes(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        set_nonblocking(input.as_fd())?;
        set_nonblocking(output.as_fd())?;
        Ok(Self {
            kind: StreamKind::Pipes,
            input,
            output: Some(output),
            _tunnel: None,
        })
    }

    /// One end of a pair of UNIX sockets whose other end somebody connects to a peer over TLS. Descriptors cannot be passed
    /// over it.
    #[must_use]
    pub fn behind_tls(local: UnixStream) -> Self {
        Self {
            kind: StreamKind::Tls,
            input: local.into(),
            output: None,
            _tunnel: None,
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn through(local: UnixStream, tunnel: Tunnel) -> Self {
        Self {
            _tunnel: Some(tunnel),
            ..Self::behind_tls(local)
        }
    }

    /// A connected stream socket, UNIX or TCP.
    ///
    /// # Errors
    ///
    /// If the descriptor is no connected stream socket of these families.
    pub fn from_socket(fd: OwnedFd) -> io::Result<Self> {
        let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
        match address.family() {
            Some(AddressFamily::Unix) => Ok(Self::from(UnixStream::from(fd))),
            Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Self::from(TcpStream::from(fd))),
            family => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("socket of family {family:?}, expected unix or tcp"),
            )),
        }
    }

    /// Takes standard input and output over. From here on what the program prints goes to standard error, and reading
    /// standard input finds its end, so that neither gets into the stream.
    ///
    /// # Errors
    ///
    /// If one of them is closed, or cannot be replaced.
    pub fn from_stdio() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(io::stderr())?;
        Self::from_pipes(input, output)
    }

    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// Whether file descriptors can be passed over it.
    #[must_use]
    pub fn passes_fds(&self) -> bool {
        self.kind == StreamKind::Unix
    }

    /// The descriptor that is written to; the same as the one that is read from unless the kind is `Pipes`.
    #[must_use]
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.output.as_ref().unwrap_or(&self.input).as_fd()
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self {
            kind: StreamKind::Unix,
            input: stream.into(),
            output: None,
            _tunnel: None,
        }
    }
}

impl From<TcpStream> for Stream {
    /// Sends small frames at once (`TCP_NODELAY`), and finds a vanished peer by [`KEEP_ALIVE_IDLE`] and the rest. Where
    /// the system does not know an option the log says so.
    fn from(stream: TcpStream) -> Self {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let options = [
            (
                "TCP_NODELAY",
                setsockopt(&stream, sockopt::TcpNoDelay, &true),
            ),
            (
                "SO_KEEPALIVE",
                setsockopt(&stream, sockopt::KeepAlive, &true),
            ),
            (
                "TCP_KEEPIDLE",
                setsockopt(&stream, sockopt::TcpKeepIdle, &seconds(KEEP_ALIVE_IDLE)),
            ),
            (
                "TCP_KEEPINTVL",
                setsockopt(
                    &stream,
                    sockopt::TcpKeepInterval,
                    &seconds(KEEP_ALIVE_INTERVAL),
                ),
            ),
            (
                "TCP_KEEPCNT",
                setsockopt(&stream, sockopt::TcpKeepCount, &KEEP_ALIVE_COUNT),
            ),
        ];
        for (option, outcome) in options {
            if let Err(error) = outcome {
                tracing::warn!(option, %error, "tcp connection goes on without an option");
            }
        }
        Self {
            kind: StreamKind::Tcp,
            input: stream.into(),
            output: None,
            _tunnel: None,
        }
    }
}

impl ByteStream for Stream {
    fn write_vectored(&mut self, slices: &[RingSlice<'_>]) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(SLICES_MAX)];
        let fd = self.output_fd().as_raw_fd();
        let count = if self.kind == StreamKind::Pipes {
            // SAFETY: `RingSlice` has the representation of an iovec, so these are `slices.len()` of them, each with
            // bytes that are readable while they are borrowed. The descriptor is open.
            unsafe { libc::writev(fd, slices.as_ptr().cast(), slices.len() as libc::c_int) }
        } else {
            let message = message(slices.as_ptr().cast_mut().cast(), slices.len());
            // SAFETY: as above; the call reads the header and what it points to, and writes neither.
            unsafe { libc::sendmsg(fd, &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) }
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) if Errno::last() == Errno::ECONNRESET => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn read_vectored(&mut self, slices: &mut [RingSliceMut<'_>]) -> io::Result<usize> {
        let len = slices.len().min(SLICES_MAX);
        let fd = self.input.as_raw_fd();
        let count = if self.kind == StreamKind::Pipes {
            // SAFETY: `RingSliceMut` has the representation of an iovec, so these are at least `len` of them, each with
            // bytes that are writable while they are borrowed. The descriptor is open.
            unsafe { libc::readv(fd, slices.as_ptr().cast(), len as libc::c_int) }
        } else {
            let mut message = message(slices.as_mut_ptr().cast(), len);
            // SAFETY: as above. There is no room for control messages, so the kernel closes descriptors that come along.
            unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT) }
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            // Whoever closes without reading everything resets the connection: it is gone all the same.
            Err(_) if Errno::last() == Errno::ECONNRESET => Ok(0),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// A message header for `len` iovecs, without address and control messages.
pub(super) fn message(slices: *mut libc::iovec, len: usize) -> libc::msghdr {
    // SAFETY: a message header is integers and pointers, all of which may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices;
    message.msg_iovlen = len;
    message
}

impl AsFd for Stream {
    /// The descriptor that is read from.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.input.as_raw_fd()
    }
}

/// Takes the open descriptor `number` over, which this program has inherited.
///
/// # Errors
///
/// If it is not open, or one of the three standard ones.
pub(super) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "0, 1 and 2 belong to the program; use stdio: for 0 and 1",
        ));
    }
    // SAFETY: `F_GETFD` takes an integer and changes nothing.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and whoever names it in an address gives it to this link; nothing else in the program owns it,
    // as an inherited descriptor belongs to whom its number was told.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
