//! What the tests with real processes share: a configuration in its own directory, and waiting with a watchdog.

#![allow(dead_code, reason = "every test program uses its own part")]

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

pub(crate) mod links;
pub(crate) mod metrics;
pub(crate) mod running;

const CONTRACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/bandit.yaml");

/// After this a test is considered hung. Generous, because the machine may be busy.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// A directory with `bridge.toml` in it, removed at the end.
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    /// `bridge` holds further keys of `[bridge]`, `rest` everything after it.
    pub(crate) fn new(bridge: &str, rest: &str) -> Self {
        let site = Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        let text = format!("[bridge]\ncontracts = '{CONTRACTS}'\n{bridge}\n{rest}\n");
        std::fs::write(site.config(), text).expect("a writable directory");
        site
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("bridge.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The number that a process of the test writes into a file, as soon as it is there.
    pub(crate) fn number(&self, name: &str) -> i32 {
        let path = self.path(name);
        wait_for(&format!("a number in {name}"), || {
            complete_line(&path)?.parse().ok()
        })
    }
}

/// The first line of a file once its line end has been written.
fn complete_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_once('\n')
        .map(|(line, _)| line.trim().to_owned())
}

/// Polls until `condition` gives a value; panics when the watchdog is over.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < WATCHDOG, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has the kernel kill the process when the thread that starts it is gone: a test that is killed leaves no bridge behind.
pub(crate) fn ends_with_this_thread(mut command: Command) -> Command {
    // SAFETY: the closure makes one system call between fork and exec; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    command
}

/// Whether a process does not run any more. A zombie that its new parent has not reaped yet has ended, too.
pub(crate) fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the command name, which is in parentheses and may hold anything.
        Ok(stat) => stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

pub(crate) fn wait_until_ended(pid: i32) {
    wait_for(&format!("the end of process {pid}"), || {
        has_ended(pid).then_some(())
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}
