//! Addresses of bridges, and connecting to them.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use super::stream::{Stream, take_inherited};

/// Longest path of a UNIX socket, in bytes.
const PATH_MAX: usize = 107;

/// Where a bridge is.
///
/// ```
/// use shm_transport::socket::Address;
///
/// assert_eq!("tcp:[::1]:7001".parse(), Ok(Address::Tcp { host: "::1".into(), port: 7001 }));
/// assert_eq!("/run/bridge.sock".parse(), Ok(Address::Unix("/run/bridge.sock".into())));
/// assert!("udp:host:7001".parse::<Address>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:/path` or a plain path: a listening UNIX socket.
    Unix(PathBuf),
    /// `tcp:host:port`: a name, an IPv4 address, or an IPv6 address in brackets.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `tls:host:port`: as `tcp:`, with encryption and a certificate that names the host.
    Tls {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `fd:N`: a connected UNIX or TCP socket that this program has inherited.
    Fd(RawFd),
    /// `stdio:`: bytes come on standard input and go to standard output.
    Stdio,
}

/// An address that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "address not understood: address={address:?}: {problem}; use unix:/path, /path, tcp:host:port, tcp:[ipv6]:port, \
     tls:host:port, fd:N or stdio:"
)]
pub struct AddressError {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        let wrong = |problem: String| AddressError {
            address: address.to_owned(),
            problem,
        };
        let parsed = match address.split_once(':') {
            Some(("unix", path)) => parse_path(path),
            Some(("tcp", rest)) => parse_host(rest, 1).map(|(host, port)| Self::Tcp { host, port }),
            Some(("tls", rest)) => parse_host(rest, 1).map(|(host, port)| Self::Tls { host, port }),
            Some(("fd", number)) => match number.parse() {
                Ok(number) if number > 2 => Ok(Self::Fd(number)),
                _ => Err(format!("descriptor={number:?}, legal=3..={}", RawFd::MAX)),
            },
            Some(("stdio", "")) => Ok(Self::Stdio),
            Some(("stdio", rest)) => Err(format!("nothing may follow stdio: but {rest:?} does")),
            // A colon is legal in a file name.
            Some((scheme, _)) if !scheme.contains('/') => {
                Err(format!("kind={scheme:?} is unknown"))
            }
            _ => parse_path(address),
        };
        parsed.map_err(wrong)
    }
}

fn parse_path(path: &str) -> Result<Address, String> {
    let len = path.len();
    if !(1..=PATH_MAX).contains(&len) {
        return Err(format!("path of {len} bytes, legal=1..={PATH_MAX}"));
    }
    if path.contains('\0') {
        return Err("path with a zero byte".to_owned());
    }
    Ok(Address::Unix(path.into()))
}

fn parse_host(rest: &str, port_min: u16) -> Result<(String, u16), String> {
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err("no port".to_owned());
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .ok_or_else(|| format!("host={host:?} lacks a bracket"))?,
        None if host.contains(':') => {
            return Err(format!("host={host:?}: an IPv6 address takes brackets"));
        }
        None => host,
    };
    if host.is_empty() {
        return Err("no host".to_owned());
    }
    match port.parse() {
        Ok(port) if port >= port_min => Ok((host.to_owned(), port)),
        _ => Err(format!("port={port:?}, legal={port_min}..={}", u16::MAX)),
    }
}

impl Address {
    /// Reads the address of a listening endpoint: `unix:`, `tcp:` or `tls:`, where port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if it is not understood, or nobody can listen there.
    pub fn parse_listening(address: &str) -> Result<Self, AddressError> {
        let wrong = |problem: String| AddressError {
            address: address.to_owned(),
            problem,
        };
        let host = |rest| parse_host(rest, 0).map_err(wrong);
        if let Some(rest) = address.strip_prefix("tcp:") {
            return host(rest).map(|(host, port)| Self::Tcp { host, port });
        }
        if let Some(rest) = address.strip_prefix("tls:") {
            return host(rest).map(|(host, port)| Self::Tls { host, port });
        }
        match address.parse()? {
            Self::Fd(_) | Self::Stdio => Err(wrong("nobody can listen there".to_owned())),
            address => Ok(address),
        }
    }

    /// As [`Address::connect`], with what a `tls:` address needs.
    ///
    /// # Errors
    ///
    /// As [`Address::connect`], and if the certificate of the bridge is not trusted or names another host.
    #[cfg(feature = "tls")]
    pub fn connect_with(&self, tls: &super::TlsOptions, deadline: Instant) -> io::Result<Stream> {
        let Self::Tls { host, port } = self else {
            return self.connect(deadline);
        };
        let connected = connect_tcp(host, *port, deadline).and_then(|connection| {
            // For the options of a TCP connection; the descriptor stays the same.
            let _options = Stream::from(connection.try_clone()?);
            super::tls::connect(connection, host, tls, deadline)
        });
        connected
            .map_err(|source| io::Error::new(source.kind(), format!("address={self}: {source}")))
    }

    /// Connects before the deadline. A name is looked up first, which may take longer; of several addresses the first that
    /// answers is taken.
    ///
    /// # Errors
    ///
    /// If nobody listens there, or not in time, or the descriptor is no socket. The error names the address.
    pub fn connect(&self, deadline: Instant) -> io::Result<Stream> {
        self.open(deadline)
            .map_err(|source| io::Error::new(source.kind(), format!("address={self}: {source}")))
    }

    fn open(&self, deadline: Instant) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => Ok(UnixStream::connect(path)?.into()),
            Self::Tcp { host, port } => Ok(connect_tcp(host, *port, deadline)?.into()),
            Self::Tls { .. } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "tls needs options and the feature tls of shm-transport",
            )),
            Self::Fd(number) => Stream::from_socket(take_inherited(*number)?),
            Self::Stdio => Stream::from_stdio(),
        }
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => write_host(f, "tcp", host, *port),
            Self::Tls { host, port } => write_host(f, "tls", host, *port),
            Self::Fd(number) => write!(f, "fd:{number}"),
            Self::Stdio => f.write_str("stdio:"),
        }
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, scheme: &str, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') {
        write!(f, "{scheme}:[{host}]:{port}")
    } else {
        write!(f, "{scheme}:{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for address in [
            "unix:/run/a:b.sock",
            "tcp:localhost:1",
            "tcp:127.0.0.1:65535",
            "tcp:[fe80::1]:7001",
            "tls:bridge.example.org:7443",
            "tls:[::1]:7443",
            "fd:3",
            "stdio:",
        ] {
            let parsed: Address = address.parse().expect(address);
            assert_eq!(parsed.to_string(), address);
        }
        assert_eq!(
            "./a:b".parse(),
            Ok(Address::Unix("./a:b".into())),
            "a colon in a path is part of it"
        );
    }

    #[test]
    fn a_bad_address_names_itself_what_is_wrong_and_the_legal_forms() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (address, problem) in [
            ("", "path of 0 bytes, legal=1..=107"),
            ("unix:", "path of 0 bytes"),
            (long.as_str(), "path of 108 bytes"),
            ("tcp:host", "no port"),
            ("tcp::7", "no host"),
            ("tcp:[]:7", "no host"),
            ("tcp:[::1:7", "lacks a bracket"),
            ("tcp:::1:7", "takes brackets"),
            ("tcp:host:0", "port=\"0\", legal=1..=65535"),
            ("tcp:host:65536", "port=\"65536\""),
            ("fd:1", "descriptor=\"1\", legal=3.."),
            ("fd:x", "descriptor=\"x\""),
            ("stdio:x", "nothing may follow"),
            ("udp:host:7", "kind=\"udp\" is unknown"),
        ] {
            let error = address.parse::<Address>().expect_err(address).to_string();
            assert!(error.contains(problem), "{address}: {error}");
            assert!(error.contains("tcp:host:port"), "{error}");
            assert!(error.contains(&format!("address={address:?}")), "{error}");
        }
    }

    #[test]
    fn a_listening_address_may_leave_the_port_to_the_system() {
        for address in ["tcp:127.0.0.1:0", "tls:[::]:0", "unix:/run/b.sock"] {
            let parsed = Address::parse_listening(address).expect(address);
            assert_eq!(parsed.to_string(), address);
        }
        for (address, problem) in [
            ("tcp:h:65536", "port=\"65536\", legal=0..=65535"),
            ("fd:3", "nobody can listen there"),
            ("stdio:", "nobody can listen there"),
            ("udp:h:1", "is unknown"),
        ] {
            let error = Address::parse_listening(address).expect_err(address);
            assert!(error.to_string().contains(problem), "{address}: {error}");
        }
    }

    #[test]
    fn a_failed_connection_names_the_address() {
        let soon = Instant::now() + Duration::from_secs(5);
        for (address, kind) in [
            ("unix:/nowhere/bridge.sock", io::ErrorKind::NotFound),
            // Nobody listens on the discard port of this host.
            ("tcp:127.0.0.1:9", io::ErrorKind::ConnectionRefused),
        ] {
            let parsed: Address = address.parse().expect(address);
            let error = parsed.connect(soon).expect_err("nobody is there");
            assert_eq!(error.kind(), kind);
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("address={address}: ")),
                "{error}"
            );
        }
        let closed = Address::Fd(RawFd::MAX).connect(soon).expect_err("not open");
        assert!(
            closed.to_string().contains("address=fd:2147483647"),
            "{closed}"
        );
    }
}
