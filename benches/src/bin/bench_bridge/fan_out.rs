//! One publisher and several workers that count: how much, how late, and what becomes of the others when one is stopped.

use std::time::{Duration, Instant};

use mycelium_bench_harness::sample::Percentiles;
use mycelium_benches::inline::probe;
use mycelium_benches::probe::Probe;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_transport::error::ChannelError;

use crate::echo::histogram;
use crate::proc::is_stopped;
use crate::site::{Answer, PATIENCE, Setup, Site, monotonic_ns, text};

/// Between two timed messages.
const PACE: Duration = Duration::from_micros(500);
/// Messages that fill the rings and the stage of a worker with rings of 4 KiB several times over.
const FILLING: u64 = 500;
/// Messages in a burst where the rate is measured.
const BURST: u64 = 256;
/// Messages that all workers together count in a second, about.
const USUAL_RATE: u64 = 1_500_000;

/// What a number of workers got.
pub(crate) struct FanOut {
    /// Messages delivered in a second, over all workers.
    pub(crate) rate: f64,
    /// One message's way to one worker.
    pub(crate) delay_ns: Percentiles,
}

/// How late messages were at three workers, while the fourth ran and while it was stopped.
pub(crate) struct Stalled {
    pub(crate) running_ns: Percentiles,
    pub(crate) stopped_ns: Percentiles,
}

/// Number and sum of what has been sent.
#[derive(Default)]
struct Sent {
    next: u64,
    count: u64,
    sum: u64,
}

impl Sent {
    fn add(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.count += 1;
        self.sum += sequence;
        sequence
    }

    /// Compares what workers have seen, and begins anew.
    fn check(&mut self, answers: &[Answer]) -> Result<(), String> {
        for (worker, answer) in answers.iter().enumerate() {
            if (answer.count, answer.sum) != (self.count, self.sum) {
                return Err(format!(
                    "worker {worker} has seen other messages: sent={} received={} sum={} sum_received={}",
                    self.count, answer.count, self.sum, answer.sum
                ));
            }
        }
        (self.count, self.sum) = (0, 0);
        Ok(())
    }
}

fn timed(sequence: u64) -> Probe {
    Probe {
        kind: 1,
        timestamp_ns: monotonic_ns(),
        ..probe(sequence)
    }
}

/// Sends timed messages at intervals.
fn send_timed(site: &mut Site, sent: &mut Sent, limit: Duration) -> Result<(), String> {
    let begin = Instant::now();
    let mut due = begin;
    while due - begin < limit {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        site.send(&timed(sent.add()))?;
        due += PACE;
    }
    Ok(())
}

fn delays<'a>(answers: impl Iterator<Item = &'a Answer>) -> Result<Percentiles, String> {
    let mut histogram = histogram()?;
    for delay in answers.flat_map(|answer| &answer.delays) {
        histogram.saturating_record(*delay);
    }
    Ok(Percentiles::from(&histogram))
}

/// Measures delays, and then the rate, with the workers of the set-up.
pub(crate) fn measure(setup: &Setup<'_>, millis: u64) -> Result<FanOut, String> {
    let mut site = Site::start(setup)?;
    let mut sent = Sent::default();
    // The first answers come when all are up; then messages warm them up.
    site.ask()?;
    send_timed(&mut site, &mut sent, Duration::from_millis(millis / 10))?;
    sent.check(&site.ask()?.0)?;
    send_timed(&mut site, &mut sent, Duration::from_millis(millis))?;
    let (answers, _) = site.ask()?;
    sent.check(&answers)?;
    let delay_ns = delays(answers.iter())?;
    let workers = answers.len() as u64;
    let messages = (USUAL_RATE * millis / 1000 / workers).max(BURST);
    let start = Instant::now();
    while sent.count < messages {
        let burst: Vec<Probe> = (0..BURST).map(|_| probe(sent.add())).collect();
        site.client
            .publish_all(&burst, Some(PATIENCE))
            .map_err(text)?;
    }
    let delivered = sent.count * workers;
    let (answers, done) = site.ask()?;
    sent.check(&answers)?;
    site.finish()?;
    Ok(FanOut {
        rate: delivered as f64 / (done - start).as_secs_f64(),
        delay_ns,
    })
}

/// How much longer each part of a run takes than other runs: among the ways of 300 ms the 99th percentile is the matter of a
/// handful, and of one moment at which the machine did something else.
const STALLED_TIMES: u32 = 4;

/// Measures the delays of all workers but the last, which runs, is stopped, is stopped, runs.
pub(crate) fn measure_stalled(setup: &Setup<'_>, millis: u64) -> Result<Stalled, String> {
    let mut site = Site::start(setup)?;
    let mut sent = Sent::default();
    let (answers, _) = site.ask()?;
    let last = answers.len() - 1;
    let pid = answers[last].pid;
    let limit = Duration::from_millis(millis) * STALLED_TIMES;
    send_timed(&mut site, &mut sent, limit / 10)?;
    sent.check(&site.ask()?.0)?;
    let (mut running, mut stopped) = (vec![], vec![]);
    let mut missed = 0;
    for stops in [false, true, true, false] {
        if stops {
            stop(pid)?;
            fill(&mut site, &mut sent)?;
        }
        let before = sent.count;
        send_timed(&mut site, &mut sent, limit)?;
        let timed = sent.count - before;
        if stops {
            signal(pid, Signal::SIGCONT)?;
        }
        let (mut answers, _) = site.ask()?;
        let slow = answers.remove(last);
        missed += sent.count.saturating_sub(slow.count);
        sent.check(&answers)?;
        if let Some(worker) = answers.iter().find(|it| it.delays.len() as u64 != timed) {
            return Err(format!(
                "timed: sent={timed} received={}",
                worker.delays.len()
            ));
        }
        if stops { &mut stopped } else { &mut running }.append(&mut answers);
    }
    if missed == 0 {
        return Err("the stopped worker has missed nothing: it was never full".to_owned());
    }
    site.finish()?;
    Ok(Stalled {
        running_ns: delays(running.iter())?,
        stopped_ns: delays(stopped.iter())?,
    })
}

/// Sends until a worker that does not read has no room, slowly enough for those that do.
fn fill(site: &mut Site, sent: &mut Sent) -> Result<(), String> {
    for _ in 0..FILLING {
        match site.client.publish(&probe(sent.add()), Some(PATIENCE)) {
            Ok(()) => {}
            Err(ChannelError::Full { .. }) => {
                return Err("the stopped worker holds the publisher up".to_owned());
            }
            Err(error) => return Err(text(error)),
        }
        if sent.count.is_multiple_of(16) {
            std::thread::sleep(PACE);
        }
    }
    Ok(())
}

fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    kill(Pid::from_raw(pid.cast_signed()), signal).map_err(text)
}

fn stop(pid: u32) -> Result<(), String> {
    signal(pid, Signal::SIGSTOP)?;
    let until = Instant::now() + PATIENCE;
    while !is_stopped(pid) {
        if Instant::now() > until {
            return Err(format!("process {pid} does not stop"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
