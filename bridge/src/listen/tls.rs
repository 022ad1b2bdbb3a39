//! TLS at an endpoint: certificate and key from files, and the relay between an encrypted connection and the link.
//!
//! The session and its pump know sockets. So a connection over TLS gets a pair of UNIX sockets: the link has one end, and a
//! task of the control runtime copies between the other end and the connection. Both directions have a bounded buffer, so
//! that a side that does not read holds the other one back as it would without TLS.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use shm_transport::socket::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::Peer;
use super::validity::NotAfter;

/// Bytes that are copied at once, in each direction.
const RELAY_LEN: usize = 64 * 1024;
/// How long the rest of the other direction may take once one has ended.
const LINGER: Duration = Duration::from_secs(2);

/// The files of a `tls:` endpoint, and what was in them. Equal if both are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, followed by the chain up to the authority, as PEM.
    pub certificate: PathBuf,
    /// Its private key as PEM: PKCS#8, PKCS#1 or SEC1, without a password.
    pub key: PathBuf,
    /// Authorities whose certificates clients must show; without any, clients need none.
    pub client_ca: Option<PathBuf>,
    /// Made of what the files held when they were read.
    server: TlsServer,
}

impl TlsConfig {
    /// Reads the files, and checks that they go together.
    ///
    /// # Errors
    ///
    /// [`TlsError`], with the file.
    pub fn load(
        certificate: PathBuf,
        key: PathBuf,
        client_ca: Option<PathBuf>,
    ) -> Result<Self, TlsError> {
        let server = TlsServer::load(&certificate, &key, client_ca.as_deref())?;
        Ok(Self {
            certificate,
            key,
            client_ca,
            server,
        })
    }

    pub(crate) fn server(&self) -> &TlsServer {
        &self.server
    }

    /// Until when the certificate is valid; `None` if that is not to be found in it.
    pub(crate) fn not_after(&self) -> Option<&NotAfter> {
        self.server.not_after.as_ref()
    }
}

/// Why an endpoint cannot do TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of this kind.
    #[error("{what} cannot be read: path={}: {reason}", path.display())]
    File {
        /// `certificate`, `key` or `client_ca`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The files do not go together.
    #[error("certificate and key cannot be used: certificate={}, key={}: {reason}", certificate.display(), key.display())]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
    /// The authorities cannot be used.
    #[error("client_ca cannot be used: path={}: {reason}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What the TLS library said.
        reason: String,
    },
}

impl TlsError {
    /// What to change.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "name a PEM file that the bridge's user can read",
            Self::Unusable { .. } => {
                "the first certificate of the file has to be the one that belongs to the key"
            }
            Self::ClientCa { .. } => {
                "name a PEM file with at least one certificate of an authority"
            }
        }
    }
}

/// What accepts connections over TLS. Only TLS 1.3.
#[derive(Clone)]
pub(crate) struct TlsServer {
    acceptor: TlsAcceptor,
    not_after: Option<NotAfter>,
    /// Tells contents of the files apart within this process, without keeping the key once more.
    fingerprint: u64,
}

impl PartialEq for TlsServer {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for TlsServer {}

impl std::fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsServer")
    }
}

impl TlsServer {
    fn load(
        certificate_file: &Path,
        key_file: &Path,
        client_ca: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let certificates = certificates("certificate", certificate_file)?;
        let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                unreadable("key", key_file, &"no section BEGIN PRIVATE KEY in it")
            }
            error => unreadable("key", key_file, &error),
        })?;
        let authorities = client_ca.map(|path| self::certificates("client_ca", path));
        let authorities = authorities.transpose()?;
        let not_after = certificates.first().and_then(|it| NotAfter::of(it));
        let fingerprint = fingerprint(&certificates, &key, authorities.as_deref());
        let provider = Arc::new(default_provider());
        let unusable = |error: tokio_rustls::rustls::Error| TlsError::Unusable {
            certificate: certificate_file.to_owned(),
            key: key_file.to_owned(),
            reason: error.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?;
        let builder = match authorities {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let wrong = |reason: String| TlsError::ClientCa {
                    path: client_ca.unwrap_or(Path::new("")).to_owned(),
                    reason,
                };
                let mut roots = RootCertStore::empty();
                for certificate in authorities {
                    roots
                        .add(certificate)
                        .map_err(|error| wrong(error.to_string()))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| wrong(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder
            .with_single_cert(certificates, key)
            .map_err(unusable)?;
        // A client that only publishes never reads them, and closing with something unread resets the connection, which
        // may take along what it published last.
        server.send_tls13_tickets = 0;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            not_after,
            fingerprint,
        })
    }

    /// Does the handshake within the time, and starts the relay. Returns the end for the link.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        peer: Peer,
        time: Duration,
    ) -> io::Result<Stream> {
        // For the options of a TCP connection; the descriptor stays the same.
        let _options = Stream::from(stream.try_clone()?);
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let encrypted = tokio::time::timeout(time, self.acceptor.accept(stream))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let theirs = tokio::net::UnixStream::from_std(theirs)?;
        tokio::spawn(async move {
            match relay(encrypted, theirs).await {
                Ok(()) => {}
                // Whoever is killed says nothing; the session tells of the hang-up.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(%peer, %error, "tls connection ended without a word");
                }
                Err(error) => tracing::warn!(%peer, %error, "tls connection failed"),
            }
        });
        Ok(Stream::behind_tls(ours))
    }
}

fn fingerprint(
    certificates: &[CertificateDer<'_>],
    key: &PrivateKeyDer<'_>,
    authorities: Option<&[CertificateDer<'_>]>,
) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    let bytes = |list: &[CertificateDer<'_>]| -> Vec<Vec<u8>> {
        list.iter().map(|it| it.to_vec()).collect()
    };
    HASHER.get_or_init(RandomState::new).hash_one((
        bytes(certificates),
        key.secret_der(),
        authorities.map(bytes),
    ))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unreadable(what, path, &error))?;
    if certificates.is_empty() {
        return Err(TlsError::File {
            what,
            path: path.to_owned(),
            reason: "no section BEGIN CERTIFICATE in it".to_owned(),
        });
    }
    Ok(certificates)
}

fn unreadable(what: &'static str, path: &Path, error: &impl std::fmt::Display) -> TlsError {
    TlsError::File {
        what,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// Why one direction of a relay has ended.
enum Ended {
    /// The reading side has nothing more, and the writing side was told.
    Finished,
    /// The writing side takes no more.
    Refused(io::Error),
    /// The reading side failed.
    Failed(io::Error),
}

/// Copies both ways until both sides have ended, or one has and the other takes too long.
async fn relay(
    connection: impl AsyncRead + AsyncWrite,
    link: tokio::net::UnixStream,
) -> io::Result<()> {
    let (mut from_peer, mut to_peer) = tokio::io::split(connection);
    let (mut from_link, mut to_link) = link.into_split();
    let mut outward = pin!(copy(&mut from_link, &mut to_peer));
    let inward = async {
        let ended = copy(&mut from_peer, &mut to_link).await;
        drop(to_link);
        if matches!(ended, Ended::Refused(_)) {
            // The link is closed. What the peer still sends is taken, because a connection that is closed with something
            // unread is reset, and the peer would not read the last words of the bridge.
            let mut rest = vec![0; RELAY_LEN];
            while from_peer.read(&mut rest).await? > 0 {}
        }
        io::Result::Ok(ended)
    };
    let mut inward = pin!(inward);
    tokio::select! {
        ended = &mut inward => {
            // The link sees the end of the peer, takes leave, and closes its side.
            outward.await;
            match ended? {
                Ended::Failed(error) => Err(error),
                Ended::Finished | Ended::Refused(_) => Ok(()),
            }
        }
        ended = &mut outward => {
            let rest = tokio::time::timeout(LINGER, inward).await;
            match (ended, rest) {
                (Ended::Finished, _) => Ok(()),
                // Why the connection takes nothing more is known to the side that reads it.
                (_, Ok(Ok(Ended::Failed(error)) | Err(error))) => Err(error),
                (Ended::Refused(error) | Ended::Failed(error), _) => Err(error),
            }
        }
    }
}

/// Copies until the end of `from`, and tells `to`.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> Ended {
    let mut buffer = vec![0; RELAY_LEN];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => count,
            // Whoever closes without reading everything resets the connection: it is gone all the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => {
                // What came before is whole; the other side learns that no more comes.
                let _ = to.shutdown().await;
                return Ended::Failed(error);
            }
        };
        let written = async {
            to.write_all(&buffer[..count]).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return Ended::Refused(error);
        }
    }
    match to.shutdown().await {
        Ok(()) => Ended::Finished,
        Err(error) => Ended::Refused(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("runtime")
    }

    fn bytes() -> Vec<u8> {
        (0..1_000_000u32).map(|number| number as u8).collect()
    }

    /// Both ends of a relay: the peer's, through a narrow pipe, and the link's.
    fn relayed() -> (
        tokio::io::DuplexStream,
        UnixStream,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let (peer, connection) = tokio::io::duplex(1000);
        let (link, inner) = UnixStream::pair().expect("pair");
        (peer, link, tokio::spawn(relay(connection, inner)))
    }

    #[test]
    fn a_peer_that_ends_is_heard_out_and_still_gets_the_last_words_of_the_link() {
        runtime().block_on(async {
            let (mut peer, mut link, relay) = relayed();
            let at_peer = async {
                peer.write_all(&bytes()).await.expect("send");
                peer.shutdown().await.expect("end");
                let mut received = Vec::new();
                peer.read_to_end(&mut received).await.expect("all");
                received
            };
            let at_link = async {
                let mut received = Vec::new();
                link.read_to_end(&mut received).await.expect("all");
                link.write_all(&bytes()).await.expect("send");
                drop(link);
                received
            };
            let (at_peer, at_link) = tokio::join!(at_peer, at_link);
            assert!(at_peer == bytes() && at_link == bytes());
            relay.await.expect("no panic").expect("both have ended");
        });
    }

    #[test]
    fn a_link_that_ends_has_its_last_words_delivered_to_a_peer_that_goes_on_sending() {
        runtime().block_on(async {
            let (peer, mut link, relay) = relayed();
            let (mut from_link, mut to_link) = tokio::io::split(peer);
            let at_peer = async {
                let mut received = Vec::new();
                from_link.read_to_end(&mut received).await.expect("all");
                received
            };
            let flood = async {
                // Until the relay has ended: nobody reads it.
                while to_link.write_all(&[7; 5000]).await.is_ok() {}
            };
            let at_link = async {
                link.write_all(&bytes()).await.expect("send");
                drop(link);
            };
            let (at_peer, (), ()) = tokio::join!(at_peer, flood, at_link);
            assert!(at_peer == bytes());
            relay.await.expect("no panic").expect("the link has ended");
        });
    }
}
