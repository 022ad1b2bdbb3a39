//! What the scenarios share: a place to run in, configurations, worker scripts, and waiting with a watchdog.
//!
//! Each file in `tests/tests` is one scenario. They start the real bridge and a real Python (the one in
//! `MYCELIUM_PYTHON`, which `make test` sets, otherwise the `.venv` of the repository).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::Quote;
use mycelium_messages::{InlineString, Message};
use shm_transport::channel::Transport;
use shm_transport::disable::is_disabled;
use shm_transport::error::ChannelError;

/// After this a scenario has hung. No test asserts that anything is faster.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is inside the repository").to_owned()
}

/// The Python interpreter with the SDK.
///
/// # Panics
///
/// If there is none: run `make test`, or set `MYCELIUM_PYTHON`.
#[must_use]
pub fn python() -> PathBuf {
    let python = std::env::var_os("MYCELIUM_PYTHON").map_or_else(|| repository().join(".venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "no Python at {}; run 'make test' or set MYCELIUM_PYTHON", python.display());
    python
}

/// The transport that a link gets that asks for any.
#[must_use]
pub fn expected_transport() -> Transport {
    let unavailable = ["shm", "memfd", "map", "fd-passing"].into_iter().any(is_disabled);
    if unavailable { Transport::Socket } else { Transport::Shm }
}

/// A temporary directory with the configuration of a bridge and the scripts of its workers.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
    workers: String,
    bridge: String,
}

impl Place {
    /// An empty place.
    ///
    /// # Panics
    ///
    /// If no temporary directory can be made.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mycelium-").tempdir().expect("temporary directory");
        Self { directory, workers: String::new(), bridge: String::new() }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Path of the listening socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path().join("bridge.sock")
    }

    /// Adds lines to the `[bridge]` table.
    #[must_use]
    pub fn bridge(mut self, lines: &str) -> Self {
        self.bridge += lines;
        self.bridge.push('\n');
        self
    }

    /// Adds the listening socket.
    #[must_use]
    pub fn listening(self) -> Self {
        let line = format!("listen = {:?}", self.socket());
        self.bridge(&line)
    }

    /// Adds a Python worker with this script and further lines of its table.
    ///
    /// # Panics
    ///
    /// If the script cannot be written.
    #[must_use]
    pub fn worker(self, name: &str, script: &str, lines: &str) -> Self {
        let path = self.path().join(format!("{name}.py"));
        std::fs::write(&path, script).expect("write the worker's script");
        self.worker_file(name, &path, lines)
    }

    /// Adds a Python worker whose script is a file.
    #[must_use]
    pub fn worker_file(mut self, name: &str, script: &Path, lines: &str) -> Self {
        let python = python();
        self.workers += &format!("[[worker]]\nname = {name:?}\ncommand = [{python:?}, {script:?}]\n{lines}\n");
        self
    }

    /// Writes the configuration and returns its path.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn write_config(&self) -> PathBuf {
        let contracts = repository().join("contracts/bandit.yaml");
        let text = format!("[bridge]\ncontracts = {contracts:?}\n{}\n{}", self.bridge, self.workers);
        let path = self.path().join("bridge.toml");
        std::fs::write(&path, text).expect("write the configuration");
        path
    }

    /// Starts the bridge inside this process.
    ///
    /// # Panics
    ///
    /// If the configuration is wrong or the bridge does not start.
    #[must_use]
    pub fn start(&self) -> Bridge {
        let config = Config::load(self.write_config()).unwrap_or_else(|error| panic!("{error}"));
        Bridge::start(&config).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// Looks at a condition again and again until it holds.
///
/// # Panics
///
/// If it does not hold before the watchdog barks.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WATCHDOG, "watchdog: {what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for a value.
///
/// # Panics
///
/// If it does not come before the watchdog barks.
pub fn wait_for<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, || {
        found = value();
        found.is_some()
    });
    found.expect("it was just there")
}

/// The next message of a type on a channel in this process.
///
/// # Panics
///
/// If something else comes, or nothing before the watchdog barks.
pub fn expect<M: Message>(channel: &mut LocalChannel) -> M {
    match channel.recv(Some(WATCHDOG)) {
        Ok(frame) => frame.read().unwrap_or_else(|error| panic!("{error}")),
        Err(error) => panic!("watchdog: no {}: {error}", M::NAME),
    }
}

/// Publishes a message.
///
/// # Panics
///
/// If there is no room before the watchdog barks.
pub fn publish<M: Message>(channel: &mut LocalChannel, message: &M) {
    channel.publish(message, Some(WATCHDOG)).unwrap_or_else(|error: ChannelError| panic!("{error}"));
}

/// A quote whose every field follows from its number.
///
/// # Panics
///
/// Never: the symbol fits.
#[must_use]
pub fn quote(sequence: u64) -> Quote {
    let bid = 1.1 + (sequence % 1000) as f64 * 1e-5;
    Quote {
        symbol: InlineString::new("EUR/USD").expect("it fits"),
        sequence,
        timestamp_ns: 1_577_898_000_000_000_000 + sequence * 1_000_000,
        bid,
        ask: bid + 2e-4,
        volume: (sequence % 7) as f64,
        ..Quote::default()
    }
}
