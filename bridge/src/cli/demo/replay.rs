//! The bridge, its two workers and the publisher of the demo: what all phases share.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mycelium_bridge::bridge::{Bridge, BridgeError};
use mycelium_bridge::config::{Config, ConfigError};
use mycelium_bridge::data_plane::DataPlane;
use mycelium_bridge::link::{LinkSetupError, LinkStatus};
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::{Action, Mode, Quote, ReplayMark, ReplayReport, Signal};
use mycelium_messages::{InlineString, Message};
use shm_transport::channel::Transport;
use shm_transport::error::{ChannelError, DecodeError};
use shm_transport::wakeup::default_spin_us;

use super::audit::{Answers, Published};

/// Names of the workers, which are also the names of their scripts.
pub(super) const WORKERS: [&str; 2] = ["momentum", "mean_reversion"];

/// Longest time without any sign of life. Starting two interpreters takes a fraction of it.
const WATCHDOG: Duration = Duration::from_secs(30);
/// Longest wait of one turn, so that the watchdog is looked at.
const TURN: Duration = Duration::from_millis(100);
/// Quotes that are published before the router is given a turn, so that both work out of the cache.
const QUOTES_PER_TURN: u64 = 64;

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error(transparent)]
    Quotes(#[from] super::quotes::QuotesError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Link(#[from] LinkSetupError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("cannot write {}: {source}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("stuck in '{what}' for {} s; {workers}", elapsed.as_secs())]
    Stuck {
        what: String,
        elapsed: Duration,
        workers: String,
    },
    #[error("worker {worker} runs over {actual} instead of {expected}: {reason}")]
    WrongTransport {
        worker: &'static str,
        actual: &'static str,
        expected: &'static str,
        reason: String,
    },
    #[error("bridge did not stop cleanly: {0}")]
    Shutdown(String),
    #[error("verification failed:\n  {}", .0.join("\n  "))]
    Verification(Vec<String>),
}

/// Where the demo finds and leaves things.
pub(super) struct Paths {
    pub(super) root: PathBuf,
    pub(super) python: PathBuf,
    pub(super) output: PathBuf,
}

/// A running bridge with two workers and a publisher in this process, which also drives the data plane.
pub(super) struct Replay {
    bridge: Bridge,
    plane: DataPlane,
    actor: LocalChannel,
    phase: u32,
    what: String,
    last_sign: Instant,
    reports: Vec<ReplayReport>,
    /// What has come from each worker since the phase began.
    pub(super) answers: [Answers; WORKERS.len()],
    /// Every signal, for phases that look at each.
    pub(super) inbox: Option<Vec<Signal>>,
}

impl Replay {
    /// Starts the bridge and waits until both workers answer over the wanted transport.
    pub(super) fn start(paths: &Paths, transport: Transport) -> Result<Self, DemoError> {
        let config = Config::load(write_config(paths, transport)?)?;
        let (bridge, plane) = Bridge::start_inline(&config)?;
        let actor = bridge.attach("publisher")?;
        actor.subscribe::<Signal>()?;
        actor.subscribe::<ReplayReport>()?;
        Ok(Self {
            bridge,
            plane,
            actor,
            phase: 0,
            what: String::new(),
            last_sign: Instant::now(),
            reports: Vec::new(),
            answers: Default::default(),
            inbox: None,
        })
    }

    pub(super) fn link(&self, worker: &str) -> Option<LinkStatus> {
        self.bridge.link(worker)
    }

    /// Opens a phase and waits until every worker is ready for it. `worker` is empty for all.
    pub(super) fn begin(&mut self, mode: Mode, worker: &str, what: &str) -> Result<(), DemoError> {
        self.phase += 1;
        what.clone_into(&mut self.what);
        self.mark(Action::BEGIN, mode, worker)?;
        self.answers = Default::default();
        self.await_reports(Action::BEGIN)?;
        Ok(())
    }

    /// Closes the phase and returns what each worker saw, in the order of [`WORKERS`].
    pub(super) fn end(
        &mut self,
        mode: Mode,
        worker: &str,
    ) -> Result<[ReplayReport; WORKERS.len()], DemoError> {
        self.mark(Action::END, mode, worker)?;
        self.await_reports(Action::END)
    }

    fn mark(&mut self, action: Action, mode: Mode, worker: &str) -> Result<(), DemoError> {
        let worker = InlineString::truncated(worker);
        let mark = ReplayMark {
            worker,
            phase: self.phase,
            action,
            mode,
            ..ReplayMark::default()
        };
        self.publish(&mark)
    }

    fn await_reports(
        &mut self,
        action: Action,
    ) -> Result<[ReplayReport; WORKERS.len()], DemoError> {
        loop {
            let phase = self.phase;
            let found = WORKERS.map(|name| {
                let fits = |report: &&ReplayReport| {
                    report.phase == phase && report.action == action && report.worker == name
                };
                self.reports.iter().find(fits).copied()
            });
            if let [Some(first), Some(second)] = found {
                return Ok([first, second]);
            }
            self.turn()?;
        }
    }

    /// Publishes quotes `1..=count` at full speed.
    pub(super) fn stream(
        &mut self,
        count: u64,
        quote_at: impl Fn(u64) -> Quote,
        mut each_turn: impl FnMut(&mut Self, u64),
    ) -> Result<Published, DemoError> {
        let mut published = Published::default();
        for sequence in 1..=count {
            let quote = quote_at(sequence);
            self.publish(&quote)?;
            published.add(&quote);
            if sequence.is_multiple_of(QUOTES_PER_TURN) {
                self.plane.poll();
                self.drain()?;
                each_turn(self, sequence);
            }
        }
        Ok(published)
    }

    /// Publishes one quote and waits for the signal that answers it; returns the time that took.
    pub(super) fn round_trip(
        &mut self,
        worker: usize,
        quote: &Quote,
    ) -> Result<Duration, DemoError> {
        let before = self.answers[worker].signals;
        let started = Instant::now();
        self.publish(quote)?;
        loop {
            if self.plane.turn(Some(TURN)) == 0 {
                self.check_watchdog()?;
            }
            self.drain()?;
            if self.answers[worker].signals > before {
                return Ok(started.elapsed());
            }
        }
    }

    fn publish<M: Message>(&mut self, message: &M) -> Result<(), DemoError> {
        loop {
            match self.actor.try_publish(message) {
                Ok(()) => return Ok(()),
                Err(ChannelError::Full { .. }) => self.turn()?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the router work, or wait for work, and takes in what came.
    pub(super) fn turn(&mut self) -> Result<(), DemoError> {
        if self.plane.turn(Some(TURN)) == 0 {
            self.check_watchdog()?;
        } else {
            self.last_sign = Instant::now();
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), DemoError> {
        let mut any = false;
        while let Some(frame) = self.actor.try_recv()? {
            any = true;
            if frame.topic_id() == Signal::TOPIC_ID {
                let signal: Signal = frame.read()?;
                if let Some(worker) = WORKERS.iter().position(|name| signal.worker == *name) {
                    self.answers[worker].add(&signal);
                }
                if let Some(inbox) = &mut self.inbox {
                    inbox.push(signal);
                }
            } else {
                self.reports.push(frame.read()?);
            }
        }
        if any {
            self.last_sign = Instant::now();
        }
        Ok(())
    }

    fn check_watchdog(&self) -> Result<(), DemoError> {
        let ended = WORKERS.iter().any(|name| self.bridge.link(name).is_none());
        if self.last_sign.elapsed() < WATCHDOG && !ended {
            return Ok(());
        }
        let describe = |name: &&str| match self.bridge.link(name) {
            Some(LinkStatus {
                pid: Some(pid),
                epoch,
                ..
            }) => format!("{name}: pid={pid} epoch={epoch}"),
            Some(LinkStatus { epoch, .. }) => format!("{name}: not running, epoch={epoch}"),
            None => format!("{name}: ended"),
        };
        let workers = WORKERS.iter().map(describe).collect::<Vec<_>>().join(", ");
        Err(DemoError::Stuck {
            what: self.what.clone(),
            elapsed: self.last_sign.elapsed(),
            workers,
        })
    }

    /// Fails unless both workers run over the wanted transport.
    pub(super) fn check_transport(&self, expected: Transport) -> Result<(), DemoError> {
        for worker in WORKERS {
            let status = self.bridge.link(worker);
            let actual = status.as_ref().and_then(|status| status.transport);
            if actual != Some(expected) {
                let reason = status
                    .and_then(|status| status.fallback)
                    .unwrap_or_else(|| "it is not attached".into());
                let actual = actual.map_or("nothing", Transport::name);
                return Err(DemoError::WrongTransport {
                    worker,
                    actual,
                    expected: expected.name(),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Wakeups on either side of the workers' links so far: doorbells rung, and over the socket the sends and receives
    /// that move frames, each of which wakes one side.
    pub(super) fn wakeups(&self) -> u64 {
        let snapshot = self.plane.snapshot();
        let doorbells: u64 = snapshot
            .links
            .iter()
            .map(|(_, counters)| counters.wakeups_out)
            .sum();
        let socket_calls: u64 = WORKERS
            .iter()
            .filter_map(|name| self.bridge.link(name))
            .map(|status| status.socket_calls)
            .sum();
        doorbells + snapshot.wakeups_in + socket_calls
    }

    /// Frames that were dropped so far, on any link.
    pub(super) fn drops(&self) -> u64 {
        self.plane
            .snapshot()
            .links
            .iter()
            .map(|(_, counters)| counters.dropped)
            .sum()
    }

    /// Stops the bridge and its workers.
    pub(super) fn finish(mut self) -> Result<(), DemoError> {
        drop(self.actor);
        let summary = self.bridge.shut_down_inline(&mut self.plane);
        let summary = summary.map_err(|error| DemoError::Shutdown(error.to_string()))?;
        if summary.exit_code() != 0 {
            return Err(DemoError::Shutdown(summary.to_string()));
        }
        Ok(())
    }
}

/// Writes the configuration that the demo runs with, as anybody could.
fn write_config(paths: &Paths, transport: Transport) -> Result<PathBuf, DemoError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let contracts = absolute(&paths.root.join("contracts/bandit.yaml"));
    let examples = absolute(&paths.root.join("python-sdk/examples/demo"));
    let python = absolute(&paths.python);
    let name = transport.name();
    // The publisher drives the data plane on its own thread, so no third side wants a core while publisher and worker spin.
    let spin_us = default_spin_us();
    let mut text = format!(
        "[bridge]\ncontracts = {contracts:?}\ntransport = {name:?}\nring_capacity = \"1MiB\"\nspin_us = {spin_us}\n"
    );
    for worker in WORKERS {
        let script = examples.join(format!("replay_{worker}.py"));
        text += &format!(
            "\n[[worker]]\nname = {worker:?}\ncommand = [{python:?}, {script:?}]\n\
             subscribe = [\"Quote\", \"ReplayMark\"]\nrestart_limit = 3\n"
        );
    }
    let path = paths.output.join(format!("bridge-{name}.toml"));
    let written = std::fs::create_dir_all(&paths.output).and_then(|()| std::fs::write(&path, text));
    written.map_err(|source| DemoError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}
