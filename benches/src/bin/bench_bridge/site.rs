//! A bridge in a process of its own, its workers, and a client here.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use mycelium_bench_harness::PeerProcess;
use mycelium_benches::inline::contracts_line;
use mycelium_benches::probe::{Ask, CONTRACTS, Delay, Probe, Seen};
use mycelium_benches::runner::root;
use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_bridge::logging::{self, LogFormat};
use mycelium_messages::Message;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use shm_transport::channel::{Channel, ConnectOptions, Transport, TransportRequest};

/// What is not done by then hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The clock that Python's `time.monotonic_ns` reads, too.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now.as_nanos() as u64
}

/// How a bridge is to be, and what runs around it.
pub(crate) struct Setup<'a> {
    pub(crate) python: &'a Path,
    pub(crate) transport: Transport,
    /// `None` leaves it to the bridge.
    pub(crate) spin_us: Option<u32>,
    /// Policy of the probes; that of their contract is `block`.
    pub(crate) delivery: Option<&'a str>,
    /// What each worker does, and the size of its rings where that is not the usual one.
    pub(crate) workers: &'a [(&'a str, Option<&'a str>)],
    /// Further lines of `[bridge]`.
    pub(crate) more: &'a str,
}

impl Setup<'_> {
    /// The configuration of the bridge, in this folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<std::path::PathBuf, String> {
        let mut config = contracts_line();
        let _ = writeln!(
            config,
            "listen = {:?}\nlog = \"warn\"\nmax_pending_handshakes = 400\n{}",
            folder.join("s"),
            self.more
        );
        if let Some(spin_us) = self.spin_us {
            let _ = writeln!(config, "spin_us = {spin_us}");
        }
        if let Some(policy) = self.delivery {
            let _ = writeln!(config, "[delivery]\nProbe = {policy:?}");
        }
        // The file of the interpreter may be a link that says where its packages are: it is not to be resolved.
        let python = root().join(self.python);
        let script = root().join("benches/python/bridge_worker.py");
        for (number, (case, ring)) in self.workers.iter().enumerate() {
            let ring = ring.map_or_else(String::new, |ring| format!("ring_capacity = {ring:?}\n"));
            let _ = writeln!(
                config,
                "[[worker]]\nname = \"worker-{number}\"\ncommand = [{python:?}, {script:?}]\nsubscribe = [\"Probe\", \"Ask\"]\n\
                 transport = {:?}\nrestart = \"never\"\n{ring}settings = {{ case = {case:?}, worker = {number} }}",
                self.transport.name()
            );
        }
        let path = folder.join("bridge.toml");
        std::fs::write(&path, config).map_err(text)?;
        Ok(path)
    }
}

/// Another process of this program, which says `ready` and ends with its standard input.
pub(crate) struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Helper {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(text)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<(), String> {
        let stdout = self.child.stdout.take().ok_or("asked twice")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(text)?;
        if line == "ready\n" {
            return Ok(());
        }
        Err(
            "a process of the measurement ended before it was ready; what it said is above"
                .to_owned(),
        )
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it end and wants it to end well.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        drop(self.stdin.take());
        let status = self.child.wait().map_err(text)?;
        if status.success() {
            return Ok(());
        }
        Err(format!("a process of the measurement ended with {status}"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the process that started this one, and then waits until it closes the pipe.
pub(crate) fn ready_until_told() -> Result<(), String> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "ready")
        .and_then(|()| stdout.flush())
        .map_err(text)?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).map_err(text)?;
    Ok(())
}

/// Raises the limit of open files as far as this user may.
pub(crate) fn many_files() -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(text)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(text)
}

/// The bridge of a case, in the process that was started for it.
pub(crate) fn be_bridge(config: &Path) -> Result<(), String> {
    PeerProcess::begin().map_err(text)?;
    many_files()?;
    let config = Config::load(config).map_err(text)?;
    logging::init(&config.bridge.log, LogFormat::Text).map_err(text)?;
    let bridge = Bridge::start(&config).map_err(text)?;
    ready_until_told()?;
    let summary = bridge.shut_down();
    logging::flush();
    let summary = summary.map_err(text)?;
    match summary.exit_code() {
        0 => Ok(()),
        _ => Err(text(summary)),
    }
}

/// What a worker has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) pid: u32,
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) delays: Vec<u64>,
}

/// A running bridge with its workers, and a client.
pub(crate) struct Site {
    // The client goes before the bridge, and the folder last.
    pub(crate) client: Channel,
    bridge: Helper,
    workers: usize,
    asked: u64,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn start(setup: &Setup<'_>) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let config = setup.write(folder.path())?;
        let mut bridge = Helper::start(&["bridge", &config.to_string_lossy()])?;
        bridge.wait_until_ready()?;
        let request = match setup.transport {
            Transport::Shm => TransportRequest::Shm,
            Transport::Socket => TransportRequest::Socket,
        };
        let options = ConnectOptions {
            timeout: PATIENCE,
            ..ConnectOptions::for_contracts(&CONTRACTS)
                .named("client")
                .over(request)
        };
        let address = format!("unix:{}", folder.path().join("s").display());
        let mut client = Channel::connect(&address, &options).map_err(text)?;
        client.subscribe::<Probe>().map_err(text)?;
        client.subscribe::<Seen>().map_err(text)?;
        client.subscribe::<Delay>().map_err(text)?;
        Ok(Self {
            client,
            bridge,
            workers: setup.workers.len(),
            asked: 0,
            _folder: folder,
        })
    }

    pub(crate) fn send(&mut self, message: &impl Message) -> Result<(), String> {
        self.client.publish(message, Some(PATIENCE)).map_err(text)
    }

    /// Asks all counting workers what they have seen since they were asked last. Returns when all have answered, with the
    /// moment when the last one had.
    pub(crate) fn ask(&mut self) -> Result<(Vec<Answer>, Instant), String> {
        self.asked += 1;
        let number = self.asked;
        self.send(&Ask { number })?;
        let mut answers: Vec<Option<(Answer, u64)>> = vec![None; self.workers];
        let mut answered = None;
        loop {
            if answers.iter().all(Option::is_some) {
                let now = *answered.get_or_insert_with(Instant::now);
                let mut all = answers.iter().flatten();
                if all.all(|(answer, delays)| answer.delays.len() as u64 == *delays) {
                    let answers = answers.into_iter().flatten().map(|(answer, _)| answer);
                    return Ok((answers.collect(), now));
                }
            }
            let frame = self.client.recv(Some(PATIENCE)).map_err(text)?;
            let strange = |worker: u64| format!("an answer of worker {worker} that was not asked");
            if let Ok(seen) = frame.read::<Seen>() {
                let place = answers.get_mut(seen.worker as usize);
                let place = place.filter(|place| place.is_none() && seen.number == number);
                let answer = Answer {
                    pid: seen.pid as u32,
                    count: seen.count,
                    sum: seen.sum,
                    delays: vec![],
                };
                *place.ok_or_else(|| strange(seen.worker))? = Some((answer, seen.delays));
            } else if let Ok(delay) = frame.read::<Delay>() {
                let place = answers
                    .get_mut(delay.worker as usize)
                    .and_then(Option::as_mut);
                place
                    .ok_or_else(|| strange(delay.worker))?
                    .0
                    .delays
                    .push(delay.ns);
            }
        }
    }

    pub(crate) fn finish(self) -> Result<(), String> {
        let Self { client, bridge, .. } = self;
        client.close().map_err(text)?;
        bridge.finish()
    }
}
