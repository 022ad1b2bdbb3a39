//! Where clients connect: a bound endpoint of any kind, what it asks of them, and a client that has connected.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use shm_transport::socket::{Address, Stream};
use tokio::sync::Semaphore;

use super::{ListenError, Listener, PeerCredentials};
use crate::config::ListenConfig;

/// A certificate that is valid for less than this is worth a warning.
const CERTIFICATE_NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What an endpoint asks of its clients, and what they share.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is; the port is the one that is bound.
    pub address: Address,
    /// What the configuration says.
    pub config: ListenConfig,
    /// One permit per client that may be in the middle of its handshake.
    pub(crate) handshakes: Arc<Semaphore>,
}

impl Endpoint {
    fn new(config: &ListenConfig, address: Address) -> Arc<Self> {
        let endpoint = Self {
            address,
            config: config.clone(),
            handshakes: Arc::new(Semaphore::new(config.max_pending_handshakes)),
        };
        endpoint.tell_certificate("endpoint has a certificate");
        Arc::new(endpoint)
    }

    /// Says until when the certificate is valid, if there is one; loudly if that is soon.
    fn tell_certificate(&self, what: &'static str) {
        let Some(tls) = &self.config.tls else {
            return;
        };
        let (address, file) = (&self.address, tls.certificate.display());
        let Some(not_after) = tls.not_after() else {
            tracing::info!(%address, %file, "{what}");
            return;
        };
        let left = not_after.left(SystemTime::now());
        tracing::info!(%address, %file, %not_after, "{what}");
        if left.is_zero() {
            tracing::error!(%address, %file, %not_after, "the certificate has expired: clients refuse it; renew the file and reload");
        } else if left < CERTIFICATE_NOTICE {
            let days_left = left.as_secs() / (24 * 60 * 60);
            tracing::warn!(%address, %file, %not_after, days_left, "the certificate expires soon; renew the file and reload");
        }
    }

    /// Turns the connection of a client into the stream of a link; over TLS after a handshake of its own.
    pub(crate) async fn open(&self, stream: ClientStream, peer: Peer) -> io::Result<Stream> {
        match (&self.config.tls, stream) {
            (Some(tls), ClientStream::Tcp(stream)) => {
                let time = self.config.handshake_timeout;
                let own = match &tls.client_ca {
                    Some(_) => ", and has one of an authority in client_ca",
                    None => "",
                };
                tls.server().accept(stream, peer, time).await.map_err(|error| {
                    let text = format!("tls handshake failed: {error}; connect to {} with a client that trusts its certificate{own}", self.address);
                    io::Error::new(error.kind(), text)
                })
            }
            (_, stream) => Ok(stream.into()),
        }
    }

    /// Checks the token that a client has sent, which may be empty.
    ///
    /// # Errors
    ///
    /// Why not, for the client and for the log; without either token.
    pub fn check_token(&self, theirs: &[u8]) -> Result<(), String> {
        let address = &self.address;
        match &self.config.token {
            None => Ok(()),
            Some(token) if token.matches(theirs) => Ok(()),
            Some(_) if theirs.is_empty() => Err(format!(
                "token is missing: endpoint={address}; connect with the token of this endpoint"
            )),
            Some(_) => Err(format!(
                "token is wrong: endpoint={address}, length={} bytes; connect with the token of this endpoint",
                theirs.len()
            )),
        }
    }
}

/// Who is at the other end of an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process of this host.
    Local(PeerCredentials),
    /// Somebody on the network.
    Remote(SocketAddr),
}

impl Peer {
    /// The process, where the kernel says which.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Local(credentials) => u32::try_from(credentials.pid).ok(),
            Self::Remote(_) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(PeerCredentials { pid, uid, .. }) => write!(f, "pid={pid} uid={uid}"),
            Self::Remote(address) => write!(f, "{address}"),
        }
    }
}

/// The connection of a client, in blocking mode.
#[derive(Debug)]
pub enum ClientStream {
    /// From a UNIX socket.
    Unix(UnixStream),
    /// From a TCP port.
    Tcp(TcpStream),
}

impl From<ClientStream> for Stream {
    fn from(stream: ClientStream) -> Self {
        match stream {
            ClientStream::Unix(stream) => stream.into(),
            ClientStream::Tcp(stream) => stream.into(),
        }
    }
}

/// A client that has connected and not yet said anything.
#[derive(Debug)]
pub struct Client {
    /// Its connection.
    pub stream: ClientStream,
    /// Who it is.
    pub peer: Peer,
    /// Where it came in.
    pub endpoint: Arc<Endpoint>,
}

/// An endpoint that takes connections. Needs a tokio runtime.
#[derive(Debug)]
pub(crate) struct Listening {
    endpoint: Arc<Endpoint>,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Unix {
        socket: tokio::net::UnixListener,
        /// Removes the file when it is dropped.
        _file: Listener,
    },
    Tcp(tokio::net::TcpListener),
}

impl Listening {
    /// Binds the endpoint. Of a name with several addresses the first that can be bound is taken.
    pub(crate) fn bind(config: &ListenConfig) -> Result<Self, ListenError> {
        let (address, socket) = match &config.address {
            Address::Unix(path) => {
                let listener = Listener::bind(path)?;
                let socket = listener
                    .try_clone_socket()
                    .and_then(tokio::net::UnixListener::from_std)
                    .map_err(|source| ListenError::System {
                        action: "watch the listening socket",
                        path: path.clone(),
                        source,
                    })?;
                (
                    config.address.clone(),
                    Socket::Unix {
                        socket,
                        _file: listener,
                    },
                )
            }
            Address::Tcp { host, port } | Address::Tls { host, port } => {
                let (socket, port) = bind_tcp(host, *port).map_err(|source| ListenError::Tcp {
                    address: config.address.to_string(),
                    source,
                })?;
                (with_port(&config.address, port), Socket::Tcp(socket))
            }
            Address::Fd(_) | Address::Stdio => {
                return Err(ListenError::Tcp {
                    address: config.address.to_string(),
                    source: io::ErrorKind::Unsupported.into(),
                });
            }
        };
        tracing::info!(%address, token = config.token.is_some(), "listening");
        let endpoint = Endpoint::new(config, address);
        Ok(Self { endpoint, socket })
    }

    /// Asks other things of those who connect from here on; the socket stays, with those who wait in its queue.
    pub(crate) fn change(&mut self, config: &ListenConfig) {
        let old = &self.endpoint;
        let same_limit = old.config.max_pending_handshakes == config.max_pending_handshakes;
        let endpoint = Endpoint {
            address: old.address.clone(),
            config: config.clone(),
            handshakes: match same_limit {
                true => Arc::clone(&old.handshakes),
                false => Arc::new(Semaphore::new(config.max_pending_handshakes)),
            },
        };
        if config.token != old.config.token {
            tracing::info!(address = %endpoint.address, token = config.token.is_some(), "endpoint has another token");
        }
        if config.tls != old.config.tls {
            endpoint.tell_certificate("endpoint has another certificate, key or client_ca");
        }
        self.endpoint = Arc::new(endpoint);
    }

    pub(crate) fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(&self.endpoint)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// What the configuration says of it.
    pub(crate) fn config(&self) -> &ListenConfig {
        &self.endpoint.config
    }

    pub(crate) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Client>> {
        let (stream, peer) = match &self.socket {
            Socket::Unix { socket, .. } => {
                let stream = ready!(socket.poll_accept(context))?.0.into_std()?;
                stream.set_nonblocking(false)?;
                let peer = Peer::Local(PeerCredentials::of(&stream)?);
                (ClientStream::Unix(stream), peer)
            }
            Socket::Tcp(socket) => {
                let (stream, address) = ready!(socket.poll_accept(context))?;
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                (ClientStream::Tcp(stream), Peer::Remote(address))
            }
        };
        Poll::Ready(Ok(Client {
            stream,
            peer,
            endpoint: Arc::clone(&self.endpoint),
        }))
    }
}

fn bind_tcp(host: &str, port: u16) -> io::Result<(tokio::net::TcpListener, u16)> {
    let socket = std::net::TcpListener::bind((host, port))?;
    socket.set_nonblocking(true)?;
    let port = socket.local_addr()?.port();
    Ok((tokio::net::TcpListener::from_std(socket)?, port))
}

fn with_port(address: &Address, port: u16) -> Address {
    match address.clone() {
        Address::Tcp { host, .. } => Address::Tcp { host, port },
        Address::Tls { host, .. } => Address::Tls { host, port },
        other => other,
    }
}
