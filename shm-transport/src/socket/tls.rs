//! The client's side of TLS: the handshake, and a thread between the encrypted connection and the link.
//!
//! A link waits with `poll` on a descriptor, and what a TLS library has decrypted ahead does not show there. So the link
//! gets one end of a pair of UNIX sockets, and a thread copies between the other end and the connection. It keeps one
//! buffer per direction: a side that does not read holds the other one back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::stream::{Stream, Tunnel};

/// Bytes that are copied at once, in each direction.
const RELAY_LEN: usize = 64 * 1024;
/// How long the peer's side may stay open after this side has ended.
const LINGER: Duration = Duration::from_secs(2);

/// What a client of a `tls:` address trusts, and how it shows who it is.
///
/// ```
/// use shm_transport::channel::ConnectOptions;
/// use shm_transport::socket::TlsOptions;
///
/// let mut options = ConnectOptions::default();
/// options.tls = TlsOptions {
///     ca_file: Some("bridge-ca.pem".into()),
///     certificate: None,
/// };
/// // Channel::connect("tls:bridge.example:7443", &options) trusts that authority, and nobody else.
/// assert!(options.tls.ca_file.is_some());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// PEM file with the certificates of the authorities that may vouch for the bridge, or with its own certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate and its key, where the bridge asks for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

fn unusable(what: &str, path: &Path, reason: impl std::fmt::Display) -> io::Error {
    let text = format!("{what} cannot be used: path={}: {reason}", path.display());
    io::Error::new(ErrorKind::InvalidInput, text)
}

fn config(options: &TlsOptions) -> io::Result<ClientConfig> {
    let Some(path) = &options.ca_file else {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "tls needs to know whom to trust; set ca_file in ConnectOptions::tls",
        ));
    };
    let mut roots = RootCertStore::empty();
    let wrong = |reason: &dyn std::fmt::Display| unusable("ca_file", path, reason);
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no section BEGIN CERTIFICATE in it"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &options.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable("certificate", certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("key", key, error))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| unusable("certificate", certificate, error))
}

/// Does the handshake with `host` on a connection, and starts the thread that encrypts.
pub(super) fn connect(
    mut connection: TcpStream,
    host: &str,
    options: &TlsOptions,
    deadline: Instant,
) -> io::Result<Stream> {
    let config = config(options)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        connection.set_read_timeout(Some(left))?;
        connection.set_write_timeout(Some(left))?;
        match tls.complete_io(&mut connection) {
            Ok(_) => {}
            // What the kernel says when such a time is over.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    connection.set_nonblocking(true)?;
    let (local, inner) = UnixStream::pair()?;
    inner.set_nonblocking(true)?;
    let (done, flushed) = channel();
    let relay = Relay {
        tls,
        connection,
        link: inner,
        inward: Buffer::new(),
        link_ended: false,
        peer_ended: false,
        done: Some(done),
        linger: None,
    };
    std::thread::Builder::new()
        .name("mycelium-tls".into())
        .spawn(move || {
            if let Err(error) = relay.run() {
                tracing::warn!(%error, "tls connection failed");
            }
        })?;
    let flushed = Mutex::new(flushed);
    Ok(Stream::through(local, Tunnel { flushed }))
}

/// Decrypted bytes that the link has not taken yet.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: vec![0; RELAY_LEN],
            start: 0,
            end: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

struct Relay {
    tls: ClientConnection,
    connection: TcpStream,
    link: UnixStream,
    inward: Buffer,
    /// The link has closed its end, and the peer was or will be told.
    link_ended: bool,
    /// The peer sends nothing more.
    peer_ended: bool,
    /// Dropped when everything has gone out after the end of the link.
    done: Option<Sender<()>>,
    /// When to stop waiting for the peer's end.
    linger: Option<Instant>,
}

impl Relay {
    fn run(mut self) -> io::Result<()> {
        let mut outward = vec![0; RELAY_LEN];
        loop {
            self.pass_inward()?;
            self.pass_outward(&mut outward)?;
            if self.link_ended && !self.tls.wants_write() && self.done.take().is_some() {
                let _ = self.connection.shutdown(Shutdown::Write);
                self.linger = Some(Instant::now() + LINGER);
            }
            let is_over = self.linger.is_some_and(|end| Instant::now() >= end);
            if self.link_ended && self.done.is_none() && (self.peer_ended || is_over) {
                return Ok(());
            }
            self.wait()?;
        }
    }

    /// Gives the link what is decrypted, until it takes nothing more or nothing is left.
    fn pass_inward(&mut self) -> io::Result<()> {
        loop {
            if self.inward.is_empty() {
                if self.peer_ended {
                    return Ok(());
                }
                match self.tls.reader().read(&mut self.inward.bytes) {
                    Ok(count) if count > 0 => (self.inward.start, self.inward.end) = (0, count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    // The peer has said that it ends, or ended without a word: frames tell whether one is cut off.
                    Ok(_) | Err(_) => {
                        self.peer_ended = true;
                        // A link that is gone needs no word.
                        let _ = self.link.shutdown(Shutdown::Write);
                    }
                }
                continue;
            }
            let (start, end) = (self.inward.start, self.inward.end);
            match self.link.write(&self.inward.bytes[start..end]) {
                Ok(count) => self.inward.start += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The link is closed; what the peer still sends is taken and dropped until it ends, too.
                Err(_) => self.inward.start = end,
            }
        }
    }

    /// Encrypts what the link has written, as long as the connection takes it.
    fn pass_outward(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut self.connection) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if self.link_ended {
                return Ok(());
            }
            match self.link.read(buffer) {
                Ok(0) => {
                    self.link_ended = true;
                    self.tls.send_close_notify();
                }
                Ok(count) => self.tls.writer().write_all(&buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Closed with something unread.
                Err(_) => {
                    self.link_ended = true;
                    self.tls.send_close_notify();
                }
            }
        }
    }

    /// Waits until something can go on, and takes what has come over the connection.
    fn wait(&mut self) -> io::Result<()> {
        let when = |condition: bool, flag| if condition { flag } else { PollFlags::empty() };
        let takes_more = self.inward.is_empty() && !self.peer_ended;
        let writes = self.tls.wants_write();
        let connection = when(takes_more, PollFlags::POLLIN) | when(writes, PollFlags::POLLOUT);
        let link = when(!self.link_ended && !writes, PollFlags::POLLIN)
            | when(!self.inward.is_empty(), PollFlags::POLLOUT);
        let timeout = match self.linger {
            None => PollTimeout::NONE,
            Some(end) => {
                let left = end.saturating_duration_since(Instant::now());
                // Rounded up, so that the time is over when the call returns.
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        // A descriptor of which nothing is wanted would report its hang-up again and again.
        let mut fds = Vec::with_capacity(2);
        if !connection.is_empty() {
            fds.push(PollFd::new(self.connection.as_fd(), connection));
        }
        if !link.is_empty() {
            fds.push(PollFd::new(self.link.as_fd(), link));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if takes_more {
            match self.tls.read_tls(&mut self.connection) {
                Ok(_) => {
                    if let Err(error) = self.tls.process_new_packets() {
                        // The peer gets the alert that says why.
                        let _ = self.tls.write_tls(&mut self.connection);
                        return Err(io::Error::new(ErrorKind::InvalidData, error));
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
