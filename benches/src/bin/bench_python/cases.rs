//! Runs one case once.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mycelium_bench_harness::cores::{Cores, pin};
use mycelium_bench_harness::sample::Percentiles;
use mycelium_benches::carriers::bridge::{accept_with, introduce};

use crate::catalog::{Case, Transport, Way};
use crate::program::{Figures, Program, Watch};
use crate::side::{Poll, Side, grant_requests, next_connection, text};
use crate::tick::Tick;

/// Longest payload of a link, in bytes.
const MAX_PAYLOAD: usize = 4096;
/// Bytes of a ring where messages come in bulk: a few batches of 4096.
const BULK_RING: usize = 1 << 20;
/// Messages whose every field is compared before anything is timed.
const CHECKED: u64 = 1000;
/// Round trips that warm caches and the interpreter up.
const WARM_UP: u64 = 2000;
/// The message that ends an echo.
const END: u64 = u64::MAX;
/// Longest round trip that is told apart.
const HIGHEST_NS: u64 = 60_000_000_000;
/// A side that spins does so until it is told to end.
const SPIN_FOR_EVER_US: u32 = 60_000_000;
/// What a bridge tells its workers on a machine with three cores.
const USUAL_SPIN_US: u32 = 50;

/// Where cases run.
pub(crate) struct Runner {
    pub(crate) python: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) millis: u64,
    pub(crate) idle_millis: u64,
    pub(crate) folder: tempfile::TempDir,
}

/// The fields of message `sequence`, as in `benches/python/measuring.py`.
fn tick(sequence: u64) -> Tick {
    Tick {
        sequence,
        timestamp_ns: sequence.wrapping_add(7),
        bid: sequence as f64,
        ask: sequence as f64 * 0.5,
    }
}

fn changed(sent: &Tick, got: &Tick) -> String {
    format!("a message arrived changed: sent={sent} received={got}")
}

impl Runner {
    pub(crate) fn run(&self, case: &Case) -> Result<Figures, String> {
        match case.way {
            Way::Echo { transport, spins } => self.echo(transport, spins),
            Way::Read { case, rate } => self.read(case, self.messages(rate)),
            Way::Publish { case, rate } => self.publish(case, self.messages(rate)),
            Way::Idle => self.idle(),
            Way::Pair {
                script,
                carrier,
                spins,
            } => self.pair(script, carrier, spins),
        }
    }

    fn messages(&self, rate: u64) -> u64 {
        (rate * self.millis / 1000).max(1)
    }

    /// A path that is used once.
    fn address(&self) -> Result<(tempfile::TempDir, String), String> {
        let own = tempfile::tempdir_in(self.folder.path()).map_err(text)?;
        let path = own.path().join("s");
        let path = path.to_str().ok_or("the temporary folder is not UTF-8")?;
        let path = path.to_owned();
        Ok((own, path))
    }

    /// Starts `rust_peer.py` and connects it. `core` is where Python runs.
    fn connect(
        &self,
        case: &str,
        transport: Transport,
        spin_us: u32,
        ring_bytes: usize,
        more: &[(&str, u64)],
    ) -> Result<(Program, Side), String> {
        let (_folder, address) = self.address()?;
        let listener = UnixListener::bind(Path::new(&address)).map_err(text)?;
        let mut arguments = vec![case.to_owned(), format!("--address={address}")];
        arguments.push(format!("--core={}", self.core(self.cores.1)));
        arguments.push(format!("--transport={}", transport.name()));
        arguments.push(format!("--spin-us={spin_us}"));
        arguments.extend(more.iter().map(|(name, value)| format!("--{name}={value}")));
        let program = Program::start(&self.python, "rust_peer.py", &arguments)?;
        let connected = next_connection(&listener, &program.watch()).and_then(|stream| {
            let accepted = accept_with(stream, MAX_PAYLOAD, ring_bytes).map_err(text)?;
            let mut side = Side::new(accepted, spin_us > 0);
            let got = if matches!(side, Side::Rings(..)) {
                Transport::Shm
            } else {
                Transport::Socket
            };
            if got != transport {
                return Err(format!("another transport: {}", got.name()));
            }
            grant_requests(side.stream())?;
            Ok(side)
        });
        match connected {
            Ok(side) => Ok((program, side)),
            // What Python says about its end tells more.
            Err(error) => Err(program.finish().err().unwrap_or(error)),
        }
    }

    fn core(&self, core: usize) -> i64 {
        if self.cores.are_two() {
            core as i64
        } else {
            -1
        }
    }

    /// Runs Rust's part on the core of its own.
    fn on_own_core<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, String> {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                if self.cores.are_two() {
                    pin(self.cores.0);
                }
                work()
            });
            worker.join().map_err(|_| "Rust's side panicked".to_owned())
        })
    }

    fn echo(&self, transport: Transport, spins: bool) -> Result<Figures, String> {
        let spin_us = if spins { SPIN_FOR_EVER_US } else { 0 };
        let ring = mycelium_bench_harness::link::RING_BYTES;
        let (program, mut side) = self.connect("echo", transport, spin_us, ring, &[])?;
        let mut watch = program.watch();
        let limit = Duration::from_millis(self.millis);
        let parks = !spins;
        let measured = self.on_own_core(|| round_trips(&mut side, &mut watch, limit, parks))?;
        let figures = conclude(measured, program)?;
        Ok(Figures {
            round_trip_ns: figures.0,
            parks: figures.1.parks,
            ..Figures::default()
        })
    }

    fn read(&self, case: &str, messages: u64) -> Result<Figures, String> {
        let (program, mut side) =
            self.connect(case, Transport::Shm, USUAL_SPIN_US, BULK_RING, &[])?;
        let mut watch = program.watch();
        let sent = self.on_own_core(|| produce(&mut side, &mut watch, messages))?;
        let ((), figures) = conclude(sent, program)?;
        let sum = u128::from(messages) * u128::from(messages - 1) / 2;
        if figures.count != messages || figures.sequences != sum || figures.bids != sum as f64 {
            return Err(format!(
                "other messages were read: sent={messages} read={} sum={sum} sequences={} bids={}",
                figures.count, figures.sequences, figures.bids
            ));
        }
        Ok(figures)
    }

    fn publish(&self, case: &str, messages: u64) -> Result<Figures, String> {
        let more = [("messages", messages)];
        let (program, mut side) =
            self.connect(case, Transport::Shm, USUAL_SPIN_US, BULK_RING, &more)?;
        let mut watch = program.watch();
        let read = self.on_own_core(|| consume(&mut side, &mut watch, messages))?;
        let ((), figures) = conclude(read, program)?;
        Ok(figures)
    }

    fn idle(&self) -> Result<Figures, String> {
        let more = [("millis", self.idle_millis)];
        let ring = mycelium_bench_harness::link::RING_BYTES;
        let (program, mut side) =
            self.connect("idle", Transport::Shm, USUAL_SPIN_US, ring, &more)?;
        let mut watch = program.watch();
        let begun = side.receive(Poll::LookAway, &mut watch).map(drop);
        let ((), figures) = conclude(begun, program)?;
        drop(side);
        Ok(figures)
    }

    fn pair(&self, script: &str, carrier: &str, spins: bool) -> Result<Figures, String> {
        let (_folder, address) = self.address()?;
        let start = |role: &str, core: usize| {
            let arguments = [
                carrier.to_owned(),
                format!("--role={role}"),
                format!("--address={address}"),
                format!("--core={}", self.core(core)),
                format!("--millis={}", self.millis),
                format!("--spin-us={}", if spins { SPIN_FOR_EVER_US } else { 0 }),
            ];
            Program::start(&self.python, script, &arguments)
        };
        if carrier != "mycelium" {
            let far = start("far", self.cores.1)?;
            far.wait_until_ready()?;
            let near = start("near", self.cores.0)?;
            let figures = near.finish()?;
            far.finish()?;
            return Ok(figures);
        }
        let listener = UnixListener::bind(Path::new(&address)).map_err(text)?;
        let far = start("far", self.cores.1)?;
        let first = match next_connection(&listener, &far.watch()) {
            Ok(stream) => stream,
            Err(error) => return Err(far.finish().err().unwrap_or(error)),
        };
        let near = start("near", self.cores.0)?;
        let second = next_connection(&listener, &near.watch())?;
        let mut streams = introduce([first, second], MAX_PAYLOAD).map_err(text)?;
        for stream in &mut streams {
            grant_requests(stream)?;
        }
        let figures = near.finish()?;
        far.finish()?;
        Ok(figures)
    }
}

/// Rust's outcome with Python's; where both failed, Python's complaint tells more only if it is not that Rust went away.
fn conclude<R>(ours: Result<R, String>, program: Program) -> Result<(R, Figures), String> {
    match ours {
        Ok(value) => Ok((value, program.finish()?)),
        Err(error) if program.watch().look().is_err() => {
            Err(program.finish().err().unwrap_or(error))
        }
        Err(error) => Err(error),
    }
}

fn round_trips(
    side: &mut Side,
    watch: &mut Watch,
    limit: Duration,
    sleeps: bool,
) -> Result<Option<Percentiles>, String> {
    let mut exchange = |sequence: u64| -> Result<(Tick, Tick), String> {
        let sent = tick(sequence);
        side.send(&sent, watch)?;
        if sleeps {
            side.sleep_until_message(watch)?;
        }
        Ok((sent, side.receive(Poll::AtOnce, watch)?))
    };
    let mut sequence = 0;
    while sequence < CHECKED + WARM_UP {
        let (sent, got) = exchange(sequence)?;
        if sent != got {
            return Err(changed(&sent, &got));
        }
        sequence += 1;
    }
    let mut histogram = Histogram::<u64>::new_with_bounds(1, HIGHEST_NS, 3).map_err(text)?;
    let begin = Instant::now();
    let mut start = begin;
    while start - begin < limit {
        let (sent, got) = exchange(sequence)?;
        let end = Instant::now();
        histogram.saturating_record((end - start).as_nanos() as u64);
        if sent.sequence != got.sequence {
            return Err(changed(&sent, &got));
        }
        sequence += 1;
        start = end;
    }
    exchange(END)?;
    Ok(Some(Percentiles::from(&histogram)))
}

/// Sends what Python compares and then, when it asks, the messages that it counts.
fn produce(side: &mut Side, watch: &mut Watch, messages: u64) -> Result<(), String> {
    for count in [CHECKED, messages] {
        side.receive(Poll::LookAway, watch)?;
        for sequence in 0..count {
            side.send(&tick(sequence), watch)?;
        }
    }
    side.shut_down()
}

/// Reads what Python sends, and tells how much it was.
fn consume(side: &mut Side, watch: &mut Watch, messages: u64) -> Result<(), String> {
    let known = |sequence| Tick {
        sequence,
        timestamp_ns: 7,
        bid: 1.25,
        ask: 1.5,
    };
    for (count, expected) in [
        (CHECKED, tick as fn(u64) -> Tick),
        (messages, known as fn(u64) -> Tick),
    ] {
        for sequence in 0..count {
            let got = side.receive(Poll::LookAway, watch)?;
            let sent = expected(sequence);
            if got != sent {
                return Err(changed(&sent, &got));
            }
        }
        side.send(&tick(count), watch)?;
    }
    Ok(())
}
