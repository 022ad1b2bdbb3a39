//! A Python program of `benches/python`: started, watched, read, and ended if need be.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mycelium_bench_harness::sample::Percentiles;
use mycelium_benches::runner::root;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

/// A program that is not done by then hangs.
const WATCHDOG: Duration = Duration::from_secs(120);
/// Polls in vain between two looks at whether it is still worth while.
const POLLS: u32 = 1024;

/// What a program found.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Figures {
    /// Why there is nothing: something that it was to measure is not there.
    #[serde(default)]
    pub(crate) missing: Option<String>,
    /// Single round trips.
    #[serde(default)]
    pub(crate) round_trip_ns: Option<Percentiles>,
    /// Messages in a second.
    #[serde(default)]
    pub(crate) rate: Option<f64>,
    /// Processor time over time.
    #[serde(default)]
    pub(crate) cpu_percent: Option<f64>,
    /// How often Python slept.
    #[serde(default)]
    pub(crate) parks: Option<u64>,
    /// Messages in a batch, on average.
    #[serde(default)]
    pub(crate) mean_batch: Option<f64>,
    /// Messages that were read.
    #[serde(default)]
    pub(crate) count: u64,
    /// Sum of their numbers.
    #[serde(default)]
    pub(crate) sequences: u128,
    /// Sum of their prices.
    #[serde(default)]
    pub(crate) bids: f64,
}

/// A running program. Killed when this is dropped.
pub(crate) struct Program {
    pid: Pid,
    lines: mpsc::Receiver<String>,
    gone: Arc<AtomicBool>,
    reaper: Option<JoinHandle<std::io::Result<ExitStatus>>>,
}

/// Tells a loop that polls when there is nothing to wait for any more.
pub(crate) struct Watch {
    gone: Arc<AtomicBool>,
    until: Instant,
    polls: u32,
}

impl Watch {
    /// To be called for each look in vain.
    #[inline]
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(POLLS) {
            return self.look();
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn look(&self) -> Result<(), String> {
        if self.gone.load(Ordering::Relaxed) {
            return Err("Python ended before it was done".to_owned());
        }
        if Instant::now() > self.until {
            return Err(format!("not done after {WATCHDOG:?}"));
        }
        Ok(())
    }
}

impl Program {
    /// Starts a program of `benches/python`.
    pub(crate) fn start(python: &Path, script: &str, arguments: &[String]) -> Result<Self, String> {
        // The file of the interpreter may be a link that says where its packages are: it is not to be resolved.
        let python = root().join(python);
        let mut child = Command::new(&python)
            .arg(root().join("benches/python").join(script))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}; make .venv-bench/.ready", python.display()))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (sender, lines) = mpsc::channel();
        let gone = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&gone);
        let reaper = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                // Nobody listens any more: then nobody wants the line.
                let _ = sender.send(line?);
            }
            // Before the process is reaped, so that nobody sends a signal to a number that is somebody else's by then.
            tells.store(true, Ordering::SeqCst);
            child.wait()
        });
        Ok(Self {
            pid,
            lines,
            gone,
            reaper: Some(reaper),
        })
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch {
            gone: Arc::clone(&self.gone),
            until: Instant::now() + WATCHDOG,
            polls: 0,
        }
    }

    /// Waits until the program says that it is ready.
    pub(crate) fn wait_until_ready(&self) -> Result<(), String> {
        match self.lines.recv_timeout(WATCHDOG) {
            Ok(line) if line == "ready" => Ok(()),
            Ok(line) => match serde_json::from_str(&line) {
                Ok(Figures {
                    missing: Some(what),
                    ..
                }) => Err(format!("missing: {what}")),
                _ => Err(format!("Python said {line:?} instead of \"ready\"")),
            },
            Err(RecvTimeoutError::Timeout) => Err(format!("not ready after {WATCHDOG:?}")),
            Err(RecvTimeoutError::Disconnected) => {
                Err("Python ended before it was ready".to_owned())
            }
        }
    }

    /// Waits for the program's good end and gives what it found.
    pub(crate) fn finish(mut self) -> Result<Figures, String> {
        let mut last = None;
        loop {
            match self.lines.recv_timeout(WATCHDOG) {
                Ok(line) if line == "ready" => {}
                Ok(line) => last = Some(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("not done after {WATCHDOG:?}"));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let reaper = self.reaper.take().ok_or("ended twice")?;
        let status = reaper.join().map_err(|_| "the reader panicked")?;
        let status = status.map_err(|error| format!("wait for Python: {error}"))?;
        if !status.success() {
            return Err(format!("Python ended with {status}"));
        }
        let Some(line) = last else {
            return Ok(Figures::default());
        };
        let figures: Figures = serde_json::from_str(&line)
            .map_err(|error| format!("Python said {line:?}: {error}"))?;
        match figures.missing {
            Some(what) => Err(format!("missing: {what}")),
            None => Ok(figures),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(reaper) = self.reaper.take() else {
            return;
        };
        if !self.gone.load(Ordering::SeqCst) {
            // It fails only if the process has ended by itself.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        let _ = reaper.join();
    }
}
