//! The phases of the demo: full speed, one at a time, and a kill in mid-stream.

use std::time::Instant;

use hdrhistogram::Histogram;
use mycelium_messages::bandit::{Mode, Quote, ReplayReport, Signal};
use nix::sys::signal::{Signal as UnixSignal, kill};
use nix::unistd::Pid;
use shm_transport::channel::Transport;

use super::audit::{Answers, Published, differences};
use super::progress::Progress;
use super::quotes::Quotes;
use super::replay::{DemoError, Paths, Replay, WORKERS};
use super::report::{Kill, Run};

/// Longest round trip that the histogram takes, in nanoseconds; longer ones count as this.
const ROUND_TRIP_MAX_NS: u64 = 60_000_000_000;

/// Full speed and round trips over one transport.
pub(super) fn run(
    paths: &Paths,
    quotes: &Quotes,
    transport: Transport,
    count: u64,
    round_trips: u64,
) -> Result<Run, DemoError> {
    let mut replay = Replay::start(paths, transport)?;
    let mut problems = Vec::new();
    let mut run = full_speed(&mut replay, quotes, transport, count, &mut problems)?;
    one_at_a_time(
        &mut replay,
        quotes,
        transport,
        round_trips,
        &mut run,
        &mut problems,
    )?;
    run.drops = replay.drops();
    if run.drops > 0 {
        problems.push(format!("{} frames were dropped", run.drops));
    }
    run.checksum_ok = problems.is_empty();
    run.problems = problems;
    replay.finish()?;
    Ok(run)
}

fn full_speed(
    replay: &mut Replay,
    quotes: &Quotes,
    transport: Transport,
    count: u64,
    problems: &mut Vec<String>,
) -> Result<Run, DemoError> {
    let label = format!("{}: full speed, two workers", transport.name());
    replay.begin(Mode::STREAM, "", &label)?;
    replay.check_transport(transport)?;
    let wakeups = replay.wakeups();
    let mut progress = Progress::start(label, count);
    let started = Instant::now();
    let published = replay.stream(
        count,
        |sequence| quotes.at(sequence),
        |_, done| progress.update(done),
    )?;
    let reports = replay.end(Mode::STREAM, "")?;
    let seconds = started.elapsed().as_secs_f64();
    progress.finish();
    let mut run = Run::new(transport, count, count as f64 / seconds);
    let signals: u64 = replay.answers.iter().map(|answers| answers.signals).sum();
    run.signals = signals;
    let messages = count * WORKERS.len() as u64 + signals;
    run.wakeups_per_message = (replay.wakeups() - wakeups) as f64 / messages as f64;
    for (worker, report) in reports.iter().enumerate() {
        judge(
            worker,
            report,
            &published,
            &replay.answers[worker],
            &mut run,
            problems,
        );
    }
    Ok(run)
}

/// Each worker in turn gets one quote at a time; the other one sleeps meanwhile, because it has no subscription.
fn one_at_a_time(
    replay: &mut Replay,
    quotes: &Quotes,
    transport: Transport,
    round_trips: u64,
    run: &mut Run,
    problems: &mut Vec<String>,
) -> Result<(), DemoError> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, ROUND_TRIP_MAX_NS, 3)
        .expect("the bounds are constants that fit");
    let each = round_trips.div_ceil(WORKERS.len() as u64);
    for (worker, name) in WORKERS.into_iter().enumerate() {
        let label = format!("{}: round trips, {name}", transport.name());
        replay.begin(Mode::ROUND_TRIP, name, &label)?;
        let mut progress = Progress::start(label, each);
        let mut published = Published::default();
        for sequence in 1..=each {
            let quote = quotes.at(sequence);
            histogram.saturating_record(replay.round_trip(worker, &quote)?.as_nanos() as u64);
            published.add(&quote);
            progress.update(sequence);
        }
        let reports = replay.end(Mode::ROUND_TRIP, name)?;
        progress.finish();
        judge(
            worker,
            &reports[worker],
            &published,
            &replay.answers[worker],
            run,
            problems,
        );
    }
    run.round_trips = histogram.len();
    let micros = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    run.rtt_us = [micros(0.5), micros(0.99), micros(0.999)];
    Ok(())
}

fn judge(
    worker: usize,
    report: &ReplayReport,
    published: &Published,
    answers: &Answers,
    run: &mut Run,
    problems: &mut Vec<String>,
) {
    run.lost += published
        .quotes
        .saturating_sub(report.quotes)
        .max(report.missing);
    run.lost += report.signals.saturating_sub(answers.signals);
    run.out_of_order += report.out_of_order + answers.out_of_order;
    let found = differences(report, published, answers);
    problems.extend(
        found
            .into_iter()
            .map(|line| format!("{}: {}: {line}", run.transport.name(), WORKERS[worker])),
    );
}

/// Both workers answer every quote; one of them is killed in mid-stream.
pub(super) fn kill_one(
    paths: &Paths,
    quotes: &Quotes,
    transport: Transport,
    count: u64,
) -> Result<Kill, DemoError> {
    const VICTIM: usize = 0;
    let mut replay = Replay::start(paths, transport)?;
    let label = format!("{}: SIGKILL in mid-stream", transport.name());
    replay.begin(Mode::RESUME, "", &label)?;
    replay.check_transport(transport)?;
    let epoch_before = replay
        .link(WORKERS[VICTIM])
        .map_or(0, |status| status.epoch);
    replay.inbox = Some(Vec::new());
    let mut progress = Progress::start(label, count);
    let mut victim = Victim {
        worker: VICTIM,
        after: count / 3,
        killed: false,
    };
    replay.stream(
        count,
        |sequence| quotes.at(sequence),
        |replay, done| {
            progress.update(done);
            victim.kill_when_due(replay);
        },
    )?;
    // In a short stream everything may be published while the victim still has most of it in its ring.
    while !victim.killed {
        replay.turn()?;
        victim.kill_when_due(&replay);
    }
    replay.end(Mode::RESUME, "")?;
    progress.finish();
    let epoch = replay
        .link(WORKERS[VICTIM])
        .map_or(0, |status| status.epoch);
    let restarts = epoch - epoch_before;
    let signals = replay.inbox.take().unwrap_or_default();
    let mut kill = Kill {
        transport,
        messages: count,
        restarts,
        ..Kill::default()
    };
    for (worker, name) in WORKERS.into_iter().enumerate() {
        let allowed_jumps = if worker == VICTIM { restarts } else { 0 };
        let of_worker = signals.iter().filter(|signal| signal.worker == *name);
        count_answers(name, of_worker, quotes, count, allowed_jumps, &mut kill);
    }
    if restarts != 1 {
        kill.problems.push(format!(
            "{} was to be restarted once: restarts={restarts}",
            WORKERS[VICTIM]
        ));
    }
    let drops = replay.drops();
    if drops > 0 {
        kill.problems.push(format!("{drops} frames were dropped"));
    }
    replay.finish()?;
    Ok(kill)
}

/// The worker that is killed once it has answered a part of the stream.
struct Victim {
    worker: usize,
    after: u64,
    killed: bool,
}

impl Victim {
    fn kill_when_due(&mut self, replay: &Replay) {
        if self.killed || replay.answers[self.worker].signals < self.after {
            return;
        }
        // A worker that has just died on its own is found out by the count of restarts.
        let pid = replay
            .link(WORKERS[self.worker])
            .and_then(|status| status.pid);
        self.killed = pid
            .is_some_and(|pid| kill(Pid::from_raw(pid.cast_signed()), UnixSignal::SIGKILL).is_ok());
    }
}

/// Holds the answers of one worker against the quotes: each at least once, in order but for one step back per restart,
/// with the time and the price of the quote that it names.
fn count_answers<'a>(
    name: &str,
    signals: impl Iterator<Item = &'a Signal>,
    quotes: &Quotes,
    count: u64,
    allowed_jumps: u64,
    kill: &mut Kill,
) {
    let mut seen = vec![0_u32; count as usize + 1];
    let (mut previous, mut jumps, mut out_of_order) = (0, 0, 0);
    for signal in signals {
        let sequence = signal.quote_sequence;
        if sequence == 0 || sequence > count {
            kill.problems.push(format!(
                "{name}: answer to a quote that was not sent: sequence={sequence}"
            ));
            continue;
        }
        seen[sequence as usize] += 1;
        if sequence <= previous && jumps < allowed_jumps {
            jumps += 1;
        } else if sequence != previous + 1 {
            out_of_order += 1;
        }
        previous = sequence;
        if !answers(signal, &quotes.at(sequence)) {
            kill.problems.push(format!(
                "{name}: wrong time or price in the answer to quote {sequence}"
            ));
        }
    }
    let lost = seen[1..].iter().filter(|&&times| times == 0).count() as u64;
    let repeated: u64 = seen
        .iter()
        .map(|&times| u64::from(times.saturating_sub(1)))
        .sum();
    kill.lost += lost;
    kill.redelivered += repeated;
    kill.out_of_order += out_of_order;
    if lost + out_of_order > 0 {
        kill.problems
            .push(format!("{name}: lost={lost} out_of_order={out_of_order}"));
    }
    if allowed_jumps == 0 && repeated > 0 {
        kill.problems.push(format!(
            "{name}: was not killed, and yet answered {repeated} quotes again"
        ));
    }
}

fn answers(signal: &Signal, quote: &Quote) -> bool {
    signal.quote_timestamp_ns == quote.timestamp_ns
        && signal.price.to_bits() == ((quote.bid + quote.ask) / 2.0).to_bits()
}
