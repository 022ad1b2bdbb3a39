//! Telling a service manager how the bridge is: the datagrams of `sd_notify`, which systemd and others understand.
//!
//! Nothing is sent unless the environment names a socket, and nothing is waited for: a manager that does not read loses
//! the message, which is logged.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Variables of the protocol.
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_US: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A service manager that wants to hear of this process, or none.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// What it was told last, so that nothing is told twice.
    status: String,
}

impl Notifier {
    /// Looks into the environment.
    pub(crate) fn from_environment() -> Self {
        let Some(path) = std::env::var_os(SOCKET).filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        match connect(path.as_bytes()) {
            Ok(socket) => Self {
                socket: Some(socket),
                watchdog: watchdog(),
                status: String::new(),
            },
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no service manager is told anything: its socket cannot be used");
                Self::default()
            }
        }
    }

    /// Time between two signs of life: half of what the manager waits for.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// The bridge listens and moves frames.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// A new configuration is being read; [`Notifier::ready`] ends that.
    pub(crate) fn reloading(&self) {
        // The manager compares the time with that of its own request.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let now = now.unwrap_or_default().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The bridge is on its way out.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The control plane and the data plane have both just shown that they run.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// One line for people.
    pub(crate) fn status(&mut self, status: impl FnOnce() -> String) {
        if self.socket.is_none() {
            return;
        }
        let status = status();
        if status != self.status {
            self.send(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(%error, message, "the service manager was not told");
        }
    }
}

fn connect(path: &[u8]) -> io::Result<UnixDatagram> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// How long the manager waits for signs of life of this very process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if number(WATCHDOG_PID).is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number(WATCHDOG_US)
        .filter(|&us| us > 0)
        .map(Duration::from_micros)
}
