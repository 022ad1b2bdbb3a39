//! What the scenarios share: a place to run in, configurations, worker scripts, and waiting with a watchdog.
//!
//! Each file in `tests/tests` is one scenario. They start the real bridge and a real Python (the one in
//! `MYCELIUM_PYTHON`, which `make test` sets, otherwise the `.venv` of the repository).

pub mod bus;
mod cargo;
pub mod chaos;
pub mod dynamic;
pub mod pages;
mod process;
pub mod random;
pub mod reload;
mod stopped;
pub mod tls;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use process::{
    BridgeProcess, Finished, bridge_binary, contracts_binary, ends_with_this_thread, has_ended,
    run_python,
};
pub use stopped::StoppedThread;

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::Message;
use mycelium_messages::bandit::{Quote, QuoteFields};
use shm_transport::channel::Transport;
use shm_transport::disable::is_disabled;
use shm_transport::error::ChannelError;

/// What clients of a port have to know; see [`Place::port`].
pub const TOKEN: &str = "a-token-that-only-scenarios-have";

/// After this a scenario has hung. No test asserts that anything is faster.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is inside the repository")
        .to_owned()
}

/// The Python interpreter with the SDK.
///
/// # Panics
///
/// If there is none: run `make test`, or set `MYCELIUM_PYTHON`.
#[must_use]
pub fn python() -> PathBuf {
    let python = std::env::var_os("MYCELIUM_PYTHON")
        .map_or_else(|| repository().join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "no Python at {}; run 'make test' or set MYCELIUM_PYTHON",
        python.display()
    );
    python
}

/// The transport that a link gets that asks for any.
#[must_use]
pub fn expected_transport() -> Transport {
    let unavailable = ["shm", "memfd", "map", "fd-passing"]
        .into_iter()
        .any(is_disabled);
    if unavailable {
        Transport::Socket
    } else {
        Transport::Shm
    }
}

/// A temporary directory with the configuration of a bridge and the scripts of its workers.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
    contracts: PathBuf,
    workers: String,
    bridge: String,
    tables: String,
}

impl Place {
    /// An empty place.
    ///
    /// # Panics
    ///
    /// If no temporary directory can be made.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("mycelium-")
            .tempdir()
            .expect("temporary directory");
        let contracts = repository().join("contracts/bandit.yaml");
        Self {
            directory,
            contracts,
            workers: String::new(),
            bridge: String::new(),
            tables: String::new(),
        }
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

    /// Adds a table of its own.
    #[must_use]
    pub fn table(mut self, lines: &str) -> Self {
        self.tables += lines;
        self.tables.push('\n');
        self
    }

    /// Adds the listening socket.
    #[must_use]
    pub fn listening(self) -> Self {
        let line = format!("listen = {:?}", self.socket());
        self.bridge(&line)
    }

    /// The address that clients connect to.
    ///
    /// # Panics
    ///
    /// Never: the path of a temporary directory is text.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().to_str().expect("a path in UTF-8"))
    }

    /// Adds an endpoint on a free port of this host that asks for [`TOKEN`], with further lines of its table.
    ///
    /// # Panics
    ///
    /// If the token cannot be written.
    #[must_use]
    pub fn port(self, lines: &str) -> Self {
        std::fs::write(self.path().join("token"), TOKEN).expect("write the token");
        self.table(&format!(
            "[[listen]]\naddress = 'tcp:127.0.0.1:0'\ntoken_file = 'token'\n{lines}"
        ))
    }

    /// Gives the bridge the contracts of this file.
    #[must_use]
    pub fn contracts_file(mut self, file: &Path) -> Self {
        self.contracts = file.to_owned();
        self
    }

    /// Gives the bridge other contracts: those of the repository after `change`.
    ///
    /// # Panics
    ///
    /// If the file cannot be read or written, or nothing was changed.
    #[must_use]
    pub fn contracts(mut self, change: impl FnOnce(&str) -> String) -> Self {
        let ours = std::fs::read_to_string(&self.contracts).expect("read the contracts");
        let theirs = change(&ours);
        assert_ne!(ours, theirs, "the bridge was to have other contracts");
        self.contracts = self.path().join("contracts.yaml");
        std::fs::write(&self.contracts, theirs).expect("write the contracts");
        self
    }

    /// The lines that a worker has written so far into a file of this place; a line without its end is not yet one.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// The first line of a file that a worker writes, once it is there.
    ///
    /// # Panics
    ///
    /// If it does not come before the watchdog barks.
    #[must_use]
    pub fn first_line(&self, file: &str) -> String {
        wait_for(&format!("a line in {file}"), || {
            self.lines(file).into_iter().next()
        })
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
        self.workers +=
            &format!("[[worker]]\nname = {name:?}\ncommand = [{python:?}, {script:?}]\n{lines}\n");
        self
    }

    /// Writes the configuration and returns its path.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    #[must_use]
    pub fn write_config(&self) -> PathBuf {
        let deadline = match self.bridge.contains("shutdown_timeout_ms") {
            true => "",
            // Peers that end do so at once, but not on a machine that is busy with other things.
            false => "shutdown_timeout_ms = 60000\n",
        };
        let text = format!(
            "[bridge]\ncontracts = {:?}\n{deadline}{}\n{}\n{}",
            self.contracts, self.bridge, self.tables, self.workers
        );
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
        assert!(
            start.elapsed() < WATCHDOG,
            "watchdog: {what} did not happen"
        );
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

/// Subscribes an actor, and waits until the data plane knows of it.
///
/// # Panics
///
/// If the bridge has stopped.
pub fn subscribe<M: Message>(bridge: &Bridge, channel: &LocalChannel) {
    channel
        .subscribe::<M>()
        .unwrap_or_else(|error| panic!("{error}"));
    // Commands are carried out in their order, so the answer to this one comes after the effect of that one.
    bridge.snapshot().unwrap_or_else(|error| panic!("{error}"));
}

/// Publishes a message.
///
/// # Panics
///
/// If there is no room before the watchdog barks.
pub fn publish<M: Message>(channel: &mut LocalChannel, message: &M) {
    channel
        .publish(message, Some(WATCHDOG))
        .unwrap_or_else(|error: ChannelError| panic!("{error}"));
}

/// A quote whose every field follows from its number.
///
/// # Panics
///
/// Never: all values are legal.
#[must_use]
pub fn quote(sequence: u64) -> Quote {
    let bid = 1.1 + (sequence % 1000) as f64 * 1e-5;
    Quote::new(QuoteFields {
        symbol: "EUR/USD",
        sequence,
        timestamp_ns: 1_577_898_000_000_000_000 + sequence * 1_000_000,
        bid,
        ask: bid + 2e-4,
        volume: (sequence % 7) as f64,
    })
    .expect("valid")
}
