//! Messages to a worker and back.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mycelium_bench_harness::sample::Percentiles;
use mycelium_benches::inline::probe;
use mycelium_benches::probe::Probe;
use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use shm_transport::error::ChannelError;
use shm_transport::ring::Frame;

use crate::site::{PATIENCE, Setup, Site, text};

/// Messages whose every field is compared before anything is timed; they warm caches and the interpreter up, too.
const CHECKED: u64 = 2000;
/// The longest time that is told apart, in nanoseconds: a minute.
const HIGHEST_NS: u64 = 60_000_000_000;
/// Messages that may be on their way at once where the rate is measured.
const WINDOW: u64 = 512;
/// Longest time of one turn of a data plane that is driven here.
const TURN: Duration = Duration::from_millis(1);

pub(crate) fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).map_err(text)
}

fn check(sequence: u64, frame: &Frame<'_>) -> Result<(), String> {
    let got: Probe = frame.read().map_err(text)?;
    let sent = probe(sequence);
    if got == sent {
        return Ok(());
    }
    Err(format!(
        "a message came back changed: sent={sent} received={got}"
    ))
}

/// Measures single round trips, each with its own look at the clock.
fn round_trips(
    limit: Duration,
    mut exchange: impl FnMut(u64) -> Result<(), String>,
) -> Result<Percentiles, String> {
    for sequence in 0..CHECKED {
        exchange(sequence)?;
    }
    let mut histogram = histogram()?;
    let (begin, mut sequence) = (Instant::now(), CHECKED);
    let mut start = begin;
    while start - begin < limit {
        exchange(sequence)?;
        let end = Instant::now();
        histogram.saturating_record((end - start).as_nanos() as u64);
        sequence += 1;
        start = end;
    }
    Ok(Percentiles::from(&histogram))
}

/// Round trips between this process, a bridge and a worker.
pub(crate) fn through_bridge(setup: &Setup<'_>, limit: Duration) -> Result<Percentiles, String> {
    let mut site = Site::start(setup)?;
    let trips = round_trips(limit, |sequence| {
        site.send(&probe(sequence))?;
        check(sequence, &site.client.recv(Some(PATIENCE)).map_err(text)?)
    })?;
    site.finish()?;
    Ok(trips)
}

/// Round trips between an actor that drives the data plane on its own thread, and a worker.
pub(crate) fn inline(setup: &Setup<'_>, limit: Duration) -> Result<Percentiles, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let config = Config::load(setup.write(folder.path())?).map_err(text)?;
    let (bridge, mut plane) = Bridge::start_inline(&config).map_err(text)?;
    let mut actor = bridge.attach("client").map_err(text)?;
    actor.subscribe::<Probe>().map_err(text)?;
    // The worker has to be up before anything comes back.
    actor.try_publish(&probe(0)).map_err(text)?;
    let until = Instant::now() + PATIENCE;
    while actor.try_recv().map_err(text)?.is_none() {
        plane.turn(Some(TURN));
        if Instant::now() > until {
            return Err(format!("the worker has not answered for {PATIENCE:?}"));
        }
    }
    let trips = round_trips(limit, |sequence| {
        actor.try_publish(&probe(sequence)).map_err(text)?;
        let mut polls = 0_u32;
        loop {
            plane.poll();
            if let Some(frame) = actor.try_recv().map_err(text)? {
                return check(sequence, &frame);
            }
            polls = polls.wrapping_add(1);
            if polls == 0 {
                return Err("the worker does not answer any more".to_owned());
            }
        }
    })?;
    drop(actor);
    bridge.shut_down_inline(&mut plane).map_err(text)?;
    Ok(trips)
}

/// Messages in a second that go to a worker and come back, many of them on their way at once.
pub(crate) fn rate(setup: &Setup<'_>, limit: Duration) -> Result<f64, String> {
    let mut site = Site::start(setup)?;
    let (mut sent, mut received) = (0, 0);
    let (mut start, mut first) = (Instant::now(), 0);
    loop {
        if received >= CHECKED && first == 0 {
            (start, first) = (Instant::now(), received);
        }
        if first > 0 && start.elapsed() >= limit {
            break;
        }
        // Half of the window at a time, so that both directions carry more than one message per wakeup.
        if sent - received <= WINDOW / 2 {
            let burst: Vec<Probe> = (sent..received + WINDOW).map(probe).collect();
            sent += site
                .client
                .publish_all(&burst, Some(PATIENCE))
                .map_err(text)? as u64;
        }
        let frame = site.client.recv(Some(PATIENCE)).map_err(text)?;
        check(received, &frame)?;
        received += 1;
    }
    let rate = (received - first) as f64 / start.elapsed().as_secs_f64();
    while received < sent {
        match site.client.recv(Some(PATIENCE)) {
            Ok(frame) => check(received, &frame)?,
            Err(error @ ChannelError::TimedOut { .. }) => {
                return Err(format!("lost: sent={sent} received={received}: {error}"));
            }
            Err(error) => return Err(text(error)),
        }
        received += 1;
    }
    site.finish()?;
    Ok(rate)
}
